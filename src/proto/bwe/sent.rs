//! What was sent, until feedback tells of it.
//!
//! Owns: up to the last [`RING_PACKETS`] packets by transport-wide sequence number.
//! Promises: as much memory as what is under way takes, 16 KiB at most; it only grows, so that a steady stream takes it
//! once; each packet is told as received once, and as lost once at most.
//! Forbids: judging what the news mean.

use crate::base::seq::extend_u16;

/// Packets remembered: 2 s at 10 Mbit/s, 1 s at 20, half a second at the highest estimate; feedback that is later than
/// this speaks of nothing we know.
pub const RING_PACKETS: u64 = 2048;
/// Packets remembered at first: a second of sound. Most peers of a large room get little.
const FIRST_PACKETS: u64 = 64;
/// What nobody told of for so long is not waited for any more, if there is no room.
const AGE_US_MAX: u32 = 2_000_000;

/// One packet in 8 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Low bits of the sending time; they last for 71 minutes.
    sent_us: u32,
    bytes: u16,
    probe: u8,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    NeverSent,
    UnderWay,
    Lost,
    Received,
}

/// A packet that feedback tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// When it was sent.
    pub sent_us: u64,
    /// Its length on the wire.
    pub bytes: u32,
    /// Tag of its probe; 0: none.
    pub probe: u8,
    /// It was reported lost before.
    pub was_lost: bool,
}

/// The log.
#[derive(Debug)]
pub struct SentLog {
    /// By number modulo their count, a power of two.
    slots: Box<[Slot]>,
    /// Extended number of the newest packet.
    highest: Option<u64>,
}

impl SentLog {
    /// An empty log.
    pub fn new() -> Self {
        Self { slots: vec![Slot::default(); FIRST_PACKETS as usize].into_boxed_slice(), highest: None }
    }

    /// Notes a packet; numbers go up, and a number left out was not sent.
    pub fn insert(&mut self, now_us: u64, twcc_seq: u16, bytes: usize, probe: u8) {
        // One lap up, so that no number lies below zero.
        let highest = self.highest.unwrap_or(u64::from(twcc_seq) + 0xffff);
        let seq = extend_u16(highest, twcc_seq);
        while self.is_short(now_us as u32, highest, seq) {
            self.grow(highest);
        }
        if seq != highest + 1 {
            let len = self.len();
            if seq + len <= highest {
                return;
            }
            let first_new = (highest + 1).max((seq + 1).saturating_sub(len));
            for skipped in first_new..seq {
                *self.slot(skipped) = Slot::default();
            }
        }
        let bytes = bytes.min(usize::from(u16::MAX)) as u16;
        *self.slot(seq) = Slot { sent_us: now_us as u32, bytes, probe, fate: Fate::UnderWay };
        self.highest = Some(highest.max(seq));
    }

    /// The packet of which feedback says that it came or did not come, if this is news.
    pub fn handle_feedback(&mut self, now_us: u64, twcc_seq: u16, is_received: bool) -> Option<SentPacket> {
        let highest = self.highest?;
        let seq = extend_u16(highest, twcc_seq);
        if seq > highest || highest - seq >= self.len() {
            return None;
        }
        let slot = self.slot(seq);
        let was_lost = slot.fate == Fate::Lost;
        let is_news = slot.fate == Fate::UnderWay || (was_lost && is_received);
        if !is_news {
            return None;
        }
        slot.fate = if is_received { Fate::Received } else { Fate::Lost };
        let age_us = (now_us as u32).wrapping_sub(slot.sent_us);
        let sent_us = now_us.saturating_sub(u64::from(age_us));
        Some(SentPacket { sent_us, bytes: u32::from(slot.bytes), probe: slot.probe, was_lost })
    }

    fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Whether `seq` would push out what may still be told of.
    fn is_short(&mut self, now_us: u32, highest: u64, seq: u64) -> bool {
        if seq <= highest || self.len() >= RING_PACKETS {
            return false;
        }
        let oldest = *self.slot(seq);
        let is_young = now_us.wrapping_sub(oldest.sent_us) < AGE_US_MAX;
        is_young && matches!(oldest.fate, Fate::UnderWay | Fate::Lost)
    }

    #[cold]
    fn grow(&mut self, highest: u64) {
        let len = self.len();
        let mut slots = vec![Slot::default(); 2 * len as usize].into_boxed_slice();
        for seq in highest + 1 - len..=highest {
            slots[(seq & (2 * len - 1)) as usize] = *self.slot(seq);
        }
        self.slots = slots;
    }

    fn slot(&mut self, seq: u64) -> &mut Slot {
        let place = seq & (self.len() - 1);
        &mut self.slots[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_news_once_and_once_more_when_it_comes_after_all() {
        let mut log = SentLog::new();
        log.insert(1000, 65_535, 1200, 0);
        log.insert(2000, 0, 300, 7);
        let first = SentPacket { sent_us: 1000, bytes: 1200, probe: 0, was_lost: false };
        assert_eq!(log.handle_feedback(5000, 65_535, false), Some(first));
        assert_eq!(log.handle_feedback(5000, 65_535, false), None);
        assert_eq!(log.handle_feedback(9000, 65_535, true), Some(SentPacket { was_lost: true, ..first }));
        assert_eq!(log.handle_feedback(9000, 65_535, true), None);
        assert_eq!(log.handle_feedback(9000, 65_535, false), None);
        let second = SentPacket { sent_us: 2000, bytes: 300, probe: 7, was_lost: false };
        assert_eq!(log.handle_feedback(9000, 0, true), Some(second));
    }

    #[test]
    fn what_was_not_sent_or_is_forgotten_is_no_news() {
        let mut log = SentLog::new();
        assert_eq!(log.handle_feedback(0, 0, true), None);
        log.insert(0, 10, 100, 0);
        log.insert(0, 13, 100, 0);
        for unknown in [9, 11, 12, 14, 5000, 40_000] {
            assert_eq!(log.handle_feedback(0, unknown, true), None, "{unknown}");
        }
        for seq in 14..14 + RING_PACKETS as u16 {
            log.insert(0, seq, 100, 0);
        }
        assert_eq!(log.handle_feedback(0, 13, true), None);
        assert!(log.handle_feedback(0, 14, true).is_some());
        // A jump forgets all of them.
        log.insert(0, 20_000, 100, 0);
        assert_eq!(log.handle_feedback(0, 15, true), None);
        assert!(log.handle_feedback(0, 20_000, true).is_some());
    }

    #[test]
    fn memory_is_taken_for_what_is_under_way() {
        let mut log = SentLog::new();
        for seq in 0..10_000u16 {
            log.insert(u64::from(seq) * 1000, seq, 100, 0);
            if seq >= 50 {
                assert!(log.handle_feedback(u64::from(seq) * 1000, seq - 50, true).is_some(), "{seq}");
            }
        }
        assert_eq!(log.len(), FIRST_PACKETS);
        for seq in 10_000..11_000u16 {
            log.insert(10_000_000, seq, 100, 0);
        }
        assert_eq!(log.len(), 2048, "fifty more than a thousand");
        assert!((9951..11_000).all(|seq| log.handle_feedback(10_000_000, seq, true).is_some()));
        let mut log = SentLog::new();
        (0..1000u16).for_each(|seq| log.insert(u64::from(seq) * 100_000, seq, 100, 0));
        assert_eq!(log.len(), FIRST_PACKETS, "nobody tells of old ones");
    }

    #[test]
    fn sending_times_outlast_their_32_bits() {
        let mut log = SentLog::new();
        let late = u64::from(u32::MAX) * 3 - 50;
        log.insert(late, 1, 100, 0);
        assert_eq!(log.handle_feedback(late + 90, 1, true).map(|packet| packet.sent_us), Some(late));
    }
}
