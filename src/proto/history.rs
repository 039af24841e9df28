//! The latest packets of one track in plaintext: what is forwarded is read from here, and what is asked for again too.
//!
//! Owns: one byte ring and one index ring, allocated with the track and never again. All subscribers of a worker share
//! it; each keeps numbers only. Promises: a packet is returned whole or not at all; the oldest goes first.
//! Forbids: keys, ssrcs, anything of a subscriber.

pub use crate::base::packet::PacketMeta;

/// Bytes of one video track: 2 s at 4 Mbit/s, far beyond the round trip that makes a retransmission useful.
pub const VIDEO_BYTES: usize = 1 << 20;
/// Packets of one video track; late retransmissions of 200 and more behind are still served (features.md §2, 20).
pub const VIDEO_PACKETS: usize = 1024;
/// Bytes of one audio track: 2 s of Opus at 128 kbit/s.
pub const AUDIO_BYTES: usize = 1 << 15;
/// Packets of one audio track.
pub const AUDIO_PACKETS: usize = 128;

/// A packet as it stands in the history.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Numbers.
    pub meta: PacketMeta,
    /// End-to-end header extensions as (kind, length, value) triples, see `session::ingress`.
    pub exts: &'a [u8],
    /// Payload without padding.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// A packet that carries nothing.
    pub const NOTHING: Self = Self { meta: PacketMeta::NOTHING, exts: &[], payload: &[] };
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    meta: PacketMeta,
    /// Position in the endless stream of bytes; modulo the ring's length it is the place there.
    start: u64,
    ext_len: u16,
    payload_len: u16,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    bytes: Box<[u8]>,
    /// Slot of a packet is its number modulo the length.
    index: Box<[Option<Entry>]>,
    /// Bytes written ever; everything from `written - bytes.len()` on is still there.
    written: u64,
}

impl History {
    /// A history of `bytes_max` bytes and `packets_max` packets, powers of two: what is looked at for each subscriber is
    /// found without a division.
    pub fn new(bytes_max: usize, packets_max: usize) -> Self {
        Self {
            bytes: vec![0; bytes_max.next_power_of_two()].into_boxed_slice(),
            index: vec![None; packets_max.next_power_of_two()].into_boxed_slice(),
            written: 0,
        }
    }

    /// Keeps a copy. `false` when the packet is larger than the ring or older than what its slot holds.
    pub fn insert(&mut self, packet: Packet<'_>) -> bool {
        let len = packet.exts.len() + packet.payload.len();
        let size = self.bytes.len();
        let slot = place(packet.meta.seq, self.index.len());
        let is_older = self.index[slot].is_some_and(|entry| entry.meta.seq >= packet.meta.seq);
        if len > size || len > usize::from(u16::MAX) || is_older {
            return false;
        }
        // A packet never straddles the end of the ring: what is left there is skipped.
        let at = place(self.written, size);
        if at + len > size {
            self.written += (size - at) as u64;
        }
        let at = place(self.written, size);
        let (exts, payload) = self.bytes[at..at + len].split_at_mut(packet.exts.len());
        exts.copy_from_slice(packet.exts);
        payload.copy_from_slice(packet.payload);
        self.index[slot] = Some(Entry {
            meta: packet.meta,
            start: self.written,
            ext_len: packet.exts.len() as u16,
            payload_len: packet.payload.len() as u16,
        });
        self.written += len as u64;
        true
    }

    /// The packet of that number, while it is kept.
    pub fn packet(&self, seq: u64) -> Option<Packet<'_>> {
        let entry = self.index.get(place(seq, self.index.len()))?.as_ref().filter(|entry| entry.meta.seq == seq)?;
        if entry.start + (self.bytes.len() as u64) < self.written {
            return None;
        }
        let at = place(entry.start, self.bytes.len());
        let payload_at = at + usize::from(entry.ext_len);
        Some(Packet {
            meta: entry.meta,
            exts: self.bytes.get(at..payload_at)?,
            payload: self.bytes.get(payload_at..payload_at + usize::from(entry.payload_len))?,
        })
    }
}

/// Place in a ring whose length is a power of two.
fn place(position: u64, len: usize) -> usize {
    position as usize & (len - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::base::ids::Ssrc;

    fn packet(seq: u64, payload: &[u8]) -> Packet<'_> {
        let meta = PacketMeta {
            seq,
            source: Ssrc(1),
            timestamp: 0,
            marker: false,
            format: Format::Vp8,
            encoding: 0,
            marks: FrameMarks::default(),
        };
        Packet { meta, exts: b"e", payload }
    }

    #[test]
    fn a_packet_comes_back_whole_until_its_bytes_are_needed() {
        let mut history = History::new(64, 8);
        for seq in 0..100u64 {
            assert!(history.insert(packet(seq, &[seq as u8; 14])));
            for old in 0..=seq {
                // 64 bytes hold four packets of 15; the skipped rest of the ring may cost one.
                match history.packet(old) {
                    Some(found) => assert_eq!((found.exts, found.payload), (&b"e"[..], &[old as u8; 14][..])),
                    None => assert!(seq - old >= 3, "{old} was gone at {seq}"),
                }
            }
        }
    }

    #[test]
    fn a_late_packet_does_not_push_out_a_newer_one_of_its_slot() {
        let mut history = History::new(1024, 8);
        assert!(history.insert(packet(16, b"new")));
        assert!(!history.insert(packet(8, b"old")));
        assert_eq!(history.packet(16).map(|found| found.payload), Some(&b"new"[..]));
        assert!(history.packet(8).is_none());
    }

    #[test]
    fn an_oversized_packet_is_refused() {
        assert!(!History::new(8, 8).insert(packet(0, &[0; 9])));
    }
}
