//! Lanes: how workers hand packets to each other.
//!
//! Owns: one bounded single-producer single-consumer ring for each ordered pair of workers, and the buffers that travel
//! on it: filled here, read there, and sent back by a ring of their own. Bytes are copied once, nothing is shared.
//! Promises: order; each lane gets its turn; no memory is taken after the start; when a lane is nearly full video is
//! dropped first, audio and control last, and counted.

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
/// Items taken from one lane before the next has its turn: enough that looking at empty lanes costs nothing, few enough
/// that every lane of many comes up within a turn of the worker or two.
const RUN_MAX: usize = 32;

/// The bytes of an item: from [`Lanes::poll`] to [`Lanes::give_back`] the receiver's, else its lane's.
pub struct LaneBuffer {
    bytes: Box<[u8; DATAGRAM_BYTES_MAX]>,
    /// Index of the lane among those that the receiver reads.
    lane: u8,
}

impl LaneBuffer {
    /// The first `len` of them.
    pub fn bytes(&mut self, len: u16) -> &mut [u8] {
        &mut self.bytes[..usize::from(len).min(DATAGRAM_BYTES_MAX)]
    }
}

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
        /// Length of the extensions at the start of `buffer`.
        ext_len: u16,
        /// Length of the payload behind them.
        payload_len: u16,
        /// Extensions and payload.
        buffer: LaneBuffer,
    },
    /// A datagram of a session that the receiver owns.
    Datagram {
        /// Its way here.
        path: Path,
        /// Its length.
        len: u16,
        /// The UDP payload as it came.
        buffer: LaneBuffer,
    },
    /// A subscriber of the track waits for a keyframe.
    KeyframeWanted {
        /// Which track.
        track: TrackKey,
        /// Which stream of it.
        encoding: u8,
    },
    /// The publisher's clock.
    Clock {
        /// Which track.
        track: TrackKey,
        /// Which stream of it.
        encoding: u8,
        /// What it said.
        clock: SenderClock,
    },
}

/// A lane was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFull;

/// The sender's end of a lane.
struct Outlet {
    items: Producer<LaneItem>,
    /// Empty buffers; the one used last is taken first, as it is still in the cache.
    free: Vec<LaneBuffer>,
    returned: Consumer<LaneBuffer>,
}

/// The receiver's end of a lane.
struct Inlet {
    items: Consumer<LaneItem>,
    returned: Producer<LaneBuffer>,
}

/// The ends that one worker holds.
pub struct Lanes {
    /// Index is the destination; `None` for itself.
    to: Vec<Option<Outlet>>,
    from: Vec<Inlet>,
    /// The inlet whose turn it is.
    turn: usize,
    /// Items it gave in this turn.
    run: usize,
    /// Destinations that got something since the last [`take_wakes`](Self::take_wakes), as bits.
    wakes: u64,
    slots: usize,
}

impl Lanes {
    /// The ends for each of `workers` workers.
    pub fn mesh(workers: usize) -> Vec<Self> {
        let slots = (SLOTS_TOTAL_PER_WORKER / workers.max(1)).clamp(SLOTS_MIN, SLOTS_MAX);
        let end = |_| Self { to: Vec::new(), from: Vec::new(), turn: 0, run: 0, wakes: 0, slots };
        let mut ends: Vec<Self> = (0..workers).map(end).collect();
        for from in 0..workers {
            for to in 0..workers {
                if from == to {
                    ends[from].to.push(None);
                    continue;
                }
                let (outlet, inlet) = lane(slots, ends[to].from.len() as u8);
                ends[from].to.push(Some(outlet));
                ends[to].from.push(inlet);
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
        // Video leaves the last eighth of a lane to audio and control.
        let reserve = if kind == MediaKind::Video { self.slots / 8 } else { 0 };
        let (ext_len, payload_len) = (packet.exts.len() as u16, packet.payload.len() as u16);
        self.push(to, reserve, |outlet| {
            let buffer = outlet.fill([packet.exts, packet.payload])?;
            Ok(LaneItem::Media { track, kind, meta: packet.meta, ext_len, payload_len, buffer })
        })
    }

    /// Hands a datagram to its session's owner.
    pub fn send_datagram(&mut self, to: WorkerId, path: Path, datagram: &[u8]) -> Result<(), LaneFull> {
        self.push(to, self.slots / 8, |outlet| {
            let buffer = outlet.fill([datagram, &[]])?;
            Ok(LaneItem::Datagram { path, len: datagram.len() as u16, buffer })
        })
    }

    /// Passes on a wish for a keyframe.
    pub fn send_keyframe_wanted(&mut self, to: WorkerId, track: TrackKey, encoding: u8) -> Result<(), LaneFull> {
        self.push(to, 0, |_| Ok(LaneItem::KeyframeWanted { track, encoding }))
    }

    /// Passes on a publisher's clock.
    pub fn send_clock(
        &mut self,
        to: WorkerId,
        track: TrackKey,
        encoding: u8,
        clock: SenderClock,
    ) -> Result<(), LaneFull> {
        self.push(to, 0, |_| Ok(LaneItem::Clock { track, encoding, clock }))
    }

    fn push(
        &mut self,
        to: WorkerId,
        reserve: usize,
        item: impl FnOnce(&mut Outlet) -> Result<LaneItem, LaneFull>,
    ) -> Result<(), LaneFull> {
        let outlet = self.to.get_mut(usize::from(to.0)).and_then(Option::as_mut).ok_or(LaneFull)?;
        // The receiver's progress is read from its core only when what we remember of it does not suffice.
        if outlet.items.cached_slots() <= reserve && outlet.items.slots() <= reserve {
            return Err(LaneFull);
        }
        let item = item(outlet)?;
        outlet.items.push(item).map_err(|_| LaneFull)?;
        self.wakes |= 1 << to.0;
        Ok(())
    }

    /// The next item from any worker; each lane gets its turn. Its buffer goes back by [`give_back`](Self::give_back).
    pub fn poll(&mut self) -> Option<LaneItem> {
        // Once round: the lane whose run is over may come again.
        for _ in 0..=self.from.len() {
            let inlet = self.from.get_mut(self.turn)?;
            if self.run < RUN_MAX
                && let Ok(item) = inlet.items.pop()
            {
                self.run += 1;
                return Some(item);
            }
            (self.turn, self.run) = ((self.turn + 1) % self.from.len(), 0);
        }
        None
    }

    /// Returns the buffer of an item that was dealt with.
    pub fn give_back(&mut self, buffer: LaneBuffer) {
        if let Some(inlet) = self.from.get_mut(usize::from(buffer.lane)) {
            // There is room for all buffers of the lane.
            let _ = inlet.returned.push(buffer);
        }
    }

    /// Whether something waits.
    pub fn has_items(&self) -> bool {
        self.from.iter().any(|inlet| !inlet.items.is_empty())
    }

    /// Which workers to wake; once a turn.
    pub fn take_wakes(&mut self) -> u64 {
        self.to.iter_mut().flatten().for_each(Outlet::collect);
        std::mem::take(&mut self.wakes)
    }
}

impl Outlet {
    /// A buffer with a copy of these bytes, one after the other.
    fn fill(&mut self, [first, second]: [&[u8]; 2]) -> Result<LaneBuffer, LaneFull> {
        let len = first.len() + second.len();
        if len > DATAGRAM_BYTES_MAX {
            return Err(LaneFull);
        }
        if self.free.is_empty() {
            self.collect();
        }
        let mut buffer = self.free.pop().ok_or(LaneFull)?;
        let (first_place, rest) = buffer.bytes[..len].split_at_mut(first.len());
        first_place.copy_from_slice(first);
        rest.copy_from_slice(second);
        Ok(buffer)
    }

    /// Takes back the buffers that the receiver is done with.
    fn collect(&mut self) {
        while let Ok(buffer) = self.returned.pop() {
            self.free.push(buffer);
        }
    }
}

/// Both ends of a lane; it is the receiver's `index`th.
fn lane(slots: usize, index: u8) -> (Outlet, Inlet) {
    // One more than fits the ring: the one that the receiver is reading.
    let buffers = slots + 1;
    let free = (0..buffers).map(|_| LaneBuffer { bytes: Box::new([0; DATAGRAM_BYTES_MAX]), lane: index }).collect();
    let (items_in, items_out) = RingBuffer::new(slots);
    let (returned_in, returned_out) = RingBuffer::new(buffers);
    (Outlet { items: items_in, free, returned: returned_out }, Inlet { items: items_out, returned: returned_in })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::base::ids::Ssrc;

    const TRACK: TrackKey = TrackKey { index: 1, epoch: 0 };

    fn packet(payload: &[u8]) -> Packet<'_> {
        let meta = PacketMeta {
            seq: 1,
            source: Ssrc(1),
            timestamp: 0,
            marker: false,
            format: Format::Opus,
            encoding: 0,
            marks: FrameMarks::WHOLE,
        };
        Packet { meta, exts: b"ee", payload }
    }

    #[test]
    fn a_packet_arrives_as_it_left() {
        let mut ends = Lanes::mesh(3);
        ends[0].send_media(WorkerId(2), TRACK, MediaKind::Audio, &packet(b"payload")).expect("room");
        assert_eq!(ends[0].take_wakes(), 0b100);
        assert!(ends[1].poll().is_none());
        let Some(LaneItem::Media { ext_len: 2, payload_len: 7, mut buffer, .. }) = ends[2].poll() else {
            panic!("a media packet")
        };
        assert_eq!(buffer.bytes(9), b"eepayload");
    }

    #[test]
    fn buffers_come_back_and_none_is_made() {
        let mut ends = Lanes::mesh(2);
        let mut seen = std::collections::HashSet::new();
        for round in 0..3 * SLOTS_MAX {
            // Every so often the lane is filled to the brim.
            let count = if round % 100 == 0 { SLOTS_MAX } else { 3 };
            for _ in 0..count {
                ends[0].send_media(WorkerId(1), TRACK, MediaKind::Audio, &packet(b"audio")).expect("room");
            }
            while let Some(LaneItem::Media { buffer, .. }) = ends[1].poll() {
                seen.insert(buffer.bytes.as_ptr());
                ends[1].give_back(buffer);
            }
            ends[0].take_wakes();
        }
        assert!(seen.len() <= SLOTS_MAX + 1);
        assert_eq!(ends[0].to[1].as_ref().expect("an outlet").free.len(), SLOTS_MAX + 1);
    }

    #[test]
    fn a_busy_lane_does_not_starve_the_others() {
        let mut ends = Lanes::mesh(3);
        for from in [0, 1] {
            for _ in 0..SLOTS_MAX {
                ends[from]
                    .send_keyframe_wanted(WorkerId(2), TrackKey { index: from as u32, epoch: 0 }, 0)
                    .expect("room");
            }
        }
        let mut counts = [0; 2];
        for _ in 0..4 * RUN_MAX {
            let Some(LaneItem::KeyframeWanted { track, .. }) = ends[2].poll() else { panic!("something waits") };
            counts[track.index as usize] += 1;
        }
        assert_eq!(counts, [2 * RUN_MAX; 2]);
    }

    #[test]
    fn video_leaves_room_for_audio() {
        let mut ends = Lanes::mesh(2);
        while ends[0].send_media(WorkerId(1), TRACK, MediaKind::Video, &packet(b"video")).is_ok() {}
        assert!(ends[0].send_media(WorkerId(1), TRACK, MediaKind::Audio, &packet(b"audio")).is_ok());
        assert!(ends[0].send_keyframe_wanted(WorkerId(1), TRACK, 0).is_ok());
    }
}
