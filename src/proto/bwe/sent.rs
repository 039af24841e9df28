//! What was sent, until feedback tells of it.
//!
//! Owns: the last [`RING_PACKETS`] packets by transport-wide sequence number.
//! Promises: 16 KiB, taken once; each packet is told as received once, and as lost once at most.
//! Forbids: judging what the news mean.

use crate::base::seq::extend_u16;

/// Packets remembered: 2 s at 10 Mbit/s, 1 s at 20, half a second at the highest estimate; feedback that is later than
/// this speaks of nothing we know.
pub const RING_PACKETS: u64 = 2048;

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
    slots: Box<[Slot]>,
    /// Extended number of the newest packet.
    highest: Option<u64>,
}

impl SentLog {
    /// An empty log with all of its memory.
    pub fn new() -> Self {
        Self { slots: vec![Slot::default(); RING_PACKETS as usize].into_boxed_slice(), highest: None }
    }

    /// Notes a packet; numbers go up, and a number left out was not sent.
    pub fn insert(&mut self, now_us: u64, twcc_seq: u16, bytes: usize, probe: u8) {
        // One lap up, so that no number lies below zero.
        let highest = self.highest.unwrap_or(u64::from(twcc_seq) + 0xffff);
        let seq = extend_u16(highest, twcc_seq);
        if seq + RING_PACKETS <= highest {
            return;
        }
        let first_new = (highest + 1).max((seq + 1).saturating_sub(RING_PACKETS));
        for skipped in first_new..seq {
            *self.slot(skipped) = Slot::default();
        }
        let bytes = bytes.min(usize::from(u16::MAX)) as u16;
        *self.slot(seq) = Slot { sent_us: now_us as u32, bytes, probe, fate: Fate::UnderWay };
        self.highest = Some(highest.max(seq));
    }

    /// The packet of which feedback says that it came or did not come, if this is news.
    pub fn handle_feedback(&mut self, now_us: u64, twcc_seq: u16, is_received: bool) -> Option<SentPacket> {
        let highest = self.highest?;
        let seq = extend_u16(highest, twcc_seq);
        if seq > highest || highest - seq >= RING_PACKETS {
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

    fn slot(&mut self, seq: u64) -> &mut Slot {
        &mut self.slots[(seq % RING_PACKETS) as usize]
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
    fn sending_times_outlast_their_32_bits() {
        let mut log = SentLog::new();
        let late = u64::from(u32::MAX) * 3 - 50;
        log.insert(late, 1, 100, 0);
        assert_eq!(log.handle_feedback(late + 90, 1, true).map(|packet| packet.sent_us), Some(late));
    }
}
