//! The tap: copies of a track's packets on their way from a worker to the recorder.
//!
//! Owns: one bounded single-producer single-consumer queue per worker, and the buffers that travel on it, filled here, read
//! there and sent back. Promises: a worker never waits and takes no memory with a packet; what the recorder is too slow for
//! is left out, counted here, and noticed there by the numbers it misses; beginnings and ends are never left out.
//! Forbids: files, formats.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use rtrb::{Consumer, Producer, RingBuffer};

use super::command::Recorded;
use super::core::WorkerCore;
use crate::base::batch::DATAGRAM_BYTES_MAX;
use crate::base::ids::{Ssrc, TrackKey};
use crate::base::packet::PacketMeta;
use crate::proto::history::Packet;
use crate::session::track::SenderClock;

/// Packets on their way. The recorder looks a hundred times a second: so many are a gigabit of video.
const SLOTS: usize = 1024;

/// The payload of a packet: the recorder's from [`TapOutlet::poll`] to [`TapOutlet::give_back`], else the tap's.
#[derive(Debug)]
pub struct TapBuffer(Box<[u8; DATAGRAM_BYTES_MAX]>);

impl TapBuffer {
    /// The first `len` of its bytes.
    pub fn bytes(&self, len: u16) -> &[u8] {
        &self.0[..usize::from(len).min(DATAGRAM_BYTES_MAX)]
    }
}

/// What travels.
#[derive(Debug)]
pub enum TapItem {
    /// Packets of this track follow.
    Begin(Arc<Recorded>),
    /// One of them, in plaintext.
    Packet {
        /// Which track.
        track: TrackKey,
        /// Its numbers.
        meta: PacketMeta,
        /// When the kernel had it.
        arrived_at: Instant,
        /// Length of the payload.
        len: u16,
        /// The payload.
        buffer: TapBuffer,
    },
    /// What the publisher said about its clock (RFC 3550 §6.4.1).
    Clock {
        /// Which track.
        track: TrackKey,
        /// Which stream of it.
        encoding: u8,
        /// The source that it is true of.
        source: Ssrc,
        /// Its NTP time (32.32).
        ntp: u64,
        /// Its RTP timestamp at that time.
        rtp_timestamp: u32,
        /// When it was heard.
        heard_at: Instant,
    },
    /// No more packets of this track.
    End(TrackKey),
}

/// The queue was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFull;

/// Wakes the recorder's thread, once there is one.
pub type RecorderThread = Arc<OnceLock<Thread>>;

/// The worker's end.
pub struct Tap {
    items: Producer<TapItem>,
    free: Vec<TapBuffer>,
    returned: Consumer<TapBuffer>,
    /// Beginnings and ends that found no room yet.
    waiting: VecDeque<TapItem>,
    recorder: RecorderThread,
}

/// The recorder's end.
pub struct TapOutlet {
    items: Consumer<TapItem>,
    returned: Producer<TapBuffer>,
}

/// Both ends of one worker's tap.
pub fn tap(recorder: RecorderThread) -> (Tap, TapOutlet) {
    let (items, items_out) = RingBuffer::new(SLOTS);
    let (returned_in, returned) = RingBuffer::new(SLOTS);
    let tap = Tap { items, free: Vec::new(), returned, waiting: VecDeque::new(), recorder };
    (tap, TapOutlet { items: items_out, returned: returned_in })
}

impl Tap {
    /// Packets of a track follow. The buffers are made with the first one that is recorded.
    fn begin(&mut self, about: Arc<Recorded>) {
        if self.free.capacity() == 0 {
            self.free.extend((0..SLOTS).map(|_| TapBuffer(Box::new([0; DATAGRAM_BYTES_MAX]))));
        }
        self.waiting.push_back(TapItem::Begin(about));
        self.flush();
    }

    fn end(&mut self, track: TrackKey) {
        self.waiting.push_back(TapItem::End(track));
        self.flush();
    }

    /// Copies a packet.
    pub(super) fn send_packet(
        &mut self,
        arrived_at: Instant,
        track: TrackKey,
        packet: &Packet<'_>,
    ) -> Result<(), TapFull> {
        self.flush();
        // Room is left for beginnings and ends.
        if !self.waiting.is_empty() || packet.payload.len() > DATAGRAM_BYTES_MAX || self.items.is_full() {
            return Err(TapFull);
        }
        if self.free.is_empty() {
            while let Ok(buffer) = self.returned.pop() {
                self.free.push(buffer);
            }
        }
        let mut buffer = self.free.pop().ok_or(TapFull)?;
        buffer.0[..packet.payload.len()].copy_from_slice(packet.payload);
        let len = packet.payload.len() as u16;
        let item = TapItem::Packet { track, meta: packet.meta, arrived_at, len, buffer };
        self.items.push(item).map_err(|_| TapFull)
    }

    /// Passes on a publisher's clock; the next one comes soon where there is no room.
    pub(super) fn send_clock(&mut self, track: TrackKey, encoding: u8, clock: SenderClock) {
        let SenderClock { source, ntp, rtp_timestamp, heard_at } = clock;
        let _ = self.items.push(TapItem::Clock { track, encoding, source, ntp, rtp_timestamp, heard_at });
    }

    /// Sends what waits.
    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.items.is_abandoned() {
            self.waiting.clear();
        }
        while !self.items.is_full()
            && let Some(item) = self.waiting.pop_front()
        {
            let _ = self.items.push(item);
        }
        if let Some(recorder) = self.recorder.get() {
            recorder.unpark();
        }
    }
}

impl TapOutlet {
    /// What came next.
    pub fn poll(&mut self) -> Option<TapItem> {
        self.items.pop().ok()
    }

    /// A packet's buffer was read.
    pub fn give_back(&mut self, buffer: TapBuffer) {
        // There is room for all of them.
        let _ = self.returned.push(buffer);
    }

    /// The worker has ended, and all it said was taken.
    pub fn is_over(&self) -> bool {
        self.items.is_abandoned() && self.items.is_empty()
    }
}

impl WorkerCore {
    /// Gives the worker a recorder.
    pub fn set_tap(&mut self, tap: Tap) {
        self.tap = Some(Box::new(tap));
    }

    pub(super) fn record(&mut self, about: Arc<Recorded>) {
        let Some(tap) = &mut self.tap else { return };
        let track = self.tracks.ensure(about.track, about.kind);
        if !std::mem::replace(&mut track.is_recorded, true) {
            tap.begin(about);
        }
    }

    pub(super) fn stop_recording(&mut self, key: TrackKey) {
        if let Some(track) = self.tracks.track_mut(key)
            && std::mem::take(&mut track.is_recorded)
            && let Some(tap) = &mut self.tap
        {
            tap.end(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::MediaKind;
    use crate::base::ids::PeerId;
    use crate::runtime::clock;

    const TRACK: TrackKey = TrackKey { index: 1, epoch: 0 };

    fn about() -> Arc<Recorded> {
        Arc::new(Recorded {
            track: TRACK,
            kind: MediaKind::Audio,
            id: "t-1-0".into(),
            room: "r".into(),
            publisher: PeerId(1),
            user_id: "u".into(),
            is_muxed: false,
        })
    }

    fn packet(payload: &[u8]) -> Packet<'_> {
        Packet { payload, ..Packet::NOTHING }
    }

    #[test]
    fn packets_come_between_their_beginning_and_their_end() {
        let (mut tap, mut outlet) = tap(RecorderThread::default());
        tap.begin(about());
        assert_eq!(tap.send_packet(clock::now(), TRACK, &packet(b"sound")), Ok(()));
        tap.end(TRACK);
        assert!(matches!(outlet.poll(), Some(TapItem::Begin(_))));
        let Some(TapItem::Packet { len: 5, buffer, .. }) = outlet.poll() else { panic!("a packet") };
        assert_eq!(buffer.bytes(5), b"sound");
        assert!(matches!(outlet.poll(), Some(TapItem::End(TRACK))));
        assert!(outlet.poll().is_none() && !outlet.is_over());
        drop(tap);
        assert!(outlet.is_over());
    }

    #[test]
    fn what_a_slow_recorder_leaves_unread_is_left_out_but_never_an_end() {
        let (mut tap, mut outlet) = tap(RecorderThread::default());
        tap.begin(about());
        let sent = (0..2 * SLOTS).filter(|_| tap.send_packet(clock::now(), TRACK, &packet(b"x")).is_ok()).count();
        assert_eq!(sent, SLOTS - 1);
        tap.end(TRACK);
        assert_eq!(tap.send_packet(clock::now(), TRACK, &packet(b"x")), Err(TapFull), "nothing overtakes the end");
        let mut ends = 0;
        for _ in 0..2 {
            while let Some(item) = outlet.poll() {
                match item {
                    TapItem::Packet { buffer, .. } => outlet.give_back(buffer),
                    TapItem::End(_) => ends += 1,
                    _ => {}
                }
            }
            tap.flush();
        }
        assert_eq!(ends, 1);
        assert_eq!(tap.send_packet(clock::now(), TRACK, &packet(b"x")), Ok(()), "the buffers came back");
    }
}
