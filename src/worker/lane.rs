//! Lanes: how workers hand packets to each other.
//!
//! Owns: one bounded single-producer single-consumer ring for each ordered pair of workers. Values are copied, nothing is
//! shared. Promises: order; when a lane is nearly full video is dropped first, audio and control last, and counted.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::base::batch::{DATAGRAM_BYTES_MAX, Path};
use crate::base::format::MediaKind;
use crate::base::ids::{TrackKey, WorkerId};
use crate::proto::history::{Packet, PacketMeta};
use crate::session::track::SenderClock;

/// All lanes of a server together; what one turn of a busy worker brings, shared by its lanes.
const SLOTS_TOTAL_PER_WORKER: usize = 4096;
/// No lane is shorter: a keyframe of a hundred packets fits.
const SLOTS_MIN: usize = 128;
/// Nor longer: 512 packets of 1.5 KiB are far more than a turn.
const SLOTS_MAX: usize = 512;

/// What travels.
pub enum LaneItem {
    /// A media packet in plaintext.
    Media {
        /// Track it belongs to.
        track: TrackKey,
        /// Its kind.
        kind: MediaKind,
        /// Its numbers.
        meta: PacketMeta,
        /// Length of the extensions at the start of `bytes`.
        ext_len: u16,
        /// Length of the payload behind them.
        payload_len: u16,
        /// Extensions and payload.
        bytes: [u8; DATAGRAM_BYTES_MAX],
    },
    /// A datagram of a session that the receiver owns.
    Datagram {
        /// Its way here.
        path: Path,
        /// Its length.
        len: u16,
        /// The UDP payload as it came.
        bytes: [u8; DATAGRAM_BYTES_MAX],
    },
    /// A subscriber of the track waits for a keyframe.
    KeyframeWanted {
        /// Which track.
        track: TrackKey,
    },
    /// The publisher's clock.
    Clock {
        /// Which track.
        track: TrackKey,
        /// What it said.
        clock: SenderClock,
    },
}

/// A lane was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFull;

/// The ends that one worker holds.
pub struct Lanes {
    /// Index is the destination; `None` for itself.
    to: Vec<Option<Producer<LaneItem>>>,
    from: Vec<Consumer<LaneItem>>,
    /// Destinations that got something since the last [`take_wakes`](Self::take_wakes), as bits.
    wakes: u64,
    slots: usize,
}

impl Lanes {
    /// The ends for each of `workers` workers.
    pub fn mesh(workers: usize) -> Vec<Self> {
        let slots = (SLOTS_TOTAL_PER_WORKER / workers.max(1)).clamp(SLOTS_MIN, SLOTS_MAX);
        let mut ends: Vec<Self> =
            (0..workers).map(|_| Self { to: Vec::new(), from: Vec::new(), wakes: 0, slots }).collect();
        for from in 0..workers {
            for to in 0..workers {
                if from == to {
                    ends[from].to.push(None);
                    continue;
                }
                let (producer, consumer) = RingBuffer::new(slots);
                ends[from].to.push(Some(producer));
                ends[to].from.push(consumer);
            }
        }
        ends
    }

    /// Copies a media packet to another worker.
    pub fn send_media(
        &mut self,
        to: WorkerId,
        track: TrackKey,
        kind: MediaKind,
        packet: &Packet<'_>,
    ) -> Result<(), LaneFull> {
        let (ext_len, payload_len) = (packet.exts.len(), packet.payload.len());
        // Video leaves the last eighth of a lane to audio and control.
        let reserve = if kind == MediaKind::Video { self.slots / 8 } else { 0 };
        if ext_len + payload_len > DATAGRAM_BYTES_MAX {
            return Err(LaneFull);
        }
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        bytes[..ext_len].copy_from_slice(packet.exts);
        bytes[ext_len..ext_len + payload_len].copy_from_slice(packet.payload);
        let (ext_len, payload_len) = (ext_len as u16, payload_len as u16);
        self.push(to, reserve, LaneItem::Media { track, kind, meta: packet.meta, ext_len, payload_len, bytes })
    }

    /// Hands a datagram to its session's owner.
    pub fn send_datagram(&mut self, to: WorkerId, path: Path, datagram: &[u8]) -> Result<(), LaneFull> {
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        bytes.get_mut(..datagram.len()).ok_or(LaneFull)?.copy_from_slice(datagram);
        self.push(to, self.slots / 8, LaneItem::Datagram { path, len: datagram.len() as u16, bytes })
    }

    /// Passes on a wish for a keyframe.
    pub fn send_keyframe_wanted(&mut self, to: WorkerId, track: TrackKey) -> Result<(), LaneFull> {
        self.push(to, 0, LaneItem::KeyframeWanted { track })
    }

    /// Passes on a publisher's clock.
    pub fn send_clock(&mut self, to: WorkerId, track: TrackKey, clock: SenderClock) -> Result<(), LaneFull> {
        self.push(to, 0, LaneItem::Clock { track, clock })
    }

    fn push(&mut self, to: WorkerId, reserve: usize, item: LaneItem) -> Result<(), LaneFull> {
        let producer = self.to.get_mut(usize::from(to.0)).and_then(Option::as_mut).ok_or(LaneFull)?;
        if producer.slots() <= reserve {
            return Err(LaneFull);
        }
        producer.push(item).map_err(|_| LaneFull)?;
        self.wakes |= 1 << to.0;
        Ok(())
    }

    /// The next item from any worker; each lane gets its turn.
    pub fn poll(&mut self) -> Option<LaneItem> {
        self.from.iter_mut().find_map(|lane| lane.pop().ok())
    }

    /// Whether something waits.
    pub fn has_items(&self) -> bool {
        self.from.iter().any(|lane| !lane.is_empty())
    }

    /// Which workers to wake.
    pub fn take_wakes(&mut self) -> u64 {
        std::mem::take(&mut self.wakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::base::ids::Ssrc;

    const TRACK: TrackKey = TrackKey { index: 1, epoch: 0 };

    fn packet(payload: &[u8]) -> Packet<'_> {
        let meta = PacketMeta {
            seq: 1,
            source: Ssrc(1),
            timestamp: 0,
            marker: false,
            format: Format::Opus,
            keyframe_start: true,
        };
        Packet { meta, exts: b"ee", payload }
    }

    #[test]
    fn a_packet_arrives_as_it_left() {
        let mut ends = Lanes::mesh(3);
        ends[0].send_media(WorkerId(2), TRACK, MediaKind::Audio, &packet(b"payload")).expect("room");
        assert_eq!(ends[0].take_wakes(), 0b100);
        assert!(ends[1].poll().is_none());
        let Some(LaneItem::Media { ext_len: 2, payload_len: 7, bytes, .. }) = ends[2].poll() else {
            panic!("a media packet")
        };
        assert_eq!(&bytes[..9], b"eepayload");
    }

    #[test]
    fn video_leaves_room_for_audio() {
        let mut ends = Lanes::mesh(2);
        while ends[0].send_media(WorkerId(1), TRACK, MediaKind::Video, &packet(b"video")).is_ok() {}
        assert!(ends[0].send_media(WorkerId(1), TRACK, MediaKind::Audio, &packet(b"audio")).is_ok());
        assert!(ends[0].send_keyframe_wanted(WorkerId(1), TRACK).is_ok());
    }
}
