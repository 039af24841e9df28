//! What one subscriber knows of one source it receives.
//!
//! Owns: which numbers came, what a receiver report says, what is missing.

use std::time::Instant;

use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::proto::nack::NackRegister;
use tramline::wire::rtcp::{ReportBlock, SenderInfo, ntp_middle};

use crate::stamp::Stamp;

/// How far behind the newest a packet may be and still be told from a duplicate.
const MEMORY_PACKETS: u64 = 8192;
const MEMORY_WORDS: usize = (MEMORY_PACKETS / 64) as usize;

/// How a packet stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The newest yet.
    Next,
    /// A gap before the newest is filled.
    Late,
    /// Had come already, or is too old to tell.
    Duplicate,
}

/// One ssrc of one subscriber.
#[derive(Debug)]
pub struct Stream {
    /// Of the packets as they arrive.
    pub ssrc: Ssrc,
    /// By payload type.
    pub kind: MediaKind,
    /// What is missing, where it is asked for.
    pub missing: Option<Box<NackRegister>>,
    /// The first packet's SRTP index and stamp: what the server adds to the publisher's sequence numbers, and whose
    /// packets they are.
    start: Option<(u64, Stamp)>,
    newest: u64,
    newest_index: u64,
    seen: Box<[u64; MEMORY_WORDS]>,
    received: u64,
    is_in_step: bool,
    /// Middle of the last sender report's NTP time, and when it came.
    sender_report: Option<(u32, Instant)>,
    /// Highest index and missing packets at the last report of ours.
    reported: (u64, u64),
}

impl Stream {
    /// Nothing came yet.
    pub fn new(ssrc: Ssrc, kind: MediaKind) -> Self {
        Self {
            ssrc,
            kind,
            missing: None,
            start: None,
            newest: 0,
            newest_index: 0,
            seen: Box::new([0; MEMORY_WORDS]),
            received: 0,
            is_in_step: true,
            sender_report: None,
            reported: (0, 0),
        }
    }

    /// Takes note of a packet: its SRTP index and its content.
    pub fn note(&mut self, index: u64, stamp: Stamp) -> Order {
        let number = stamp.number;
        let Some((first_index, first)) = self.start else {
            self.start = Some((index, stamp));
            (self.newest, self.newest_index, self.received) = (number, index, 1);
            self.mark(number);
            return Order::Next;
        };
        // One source, one binding: the server may shift sequence numbers, but by the same for every packet.
        let is_in_step = index.wrapping_sub(first_index) == number.wrapping_sub(first.number);
        self.is_in_step = is_in_step && stamp.source == first.source;
        let order = if number > self.newest {
            for skipped in self.newest + 1..=number.min(self.newest + MEMORY_PACKETS) {
                self.unmark(skipped);
            }
            (self.newest, self.newest_index) = (number, index.max(self.newest_index));
            Order::Next
        } else if self.newest - number >= MEMORY_PACKETS || self.is_marked(number) {
            return Order::Duplicate;
        } else {
            Order::Late
        };
        self.mark(number);
        self.received += 1;
        order
    }

    /// Whether the last packet's number and content fitted those before it.
    pub fn is_in_step(&self) -> bool {
        self.is_in_step
    }

    /// The highest SRTP index received; `None` before the first packet.
    pub fn newest_index(&self) -> Option<u64> {
        self.start.map(|_| self.newest_index)
    }

    /// Highest SRTP index received, and how many packets are missing up to there since the first one.
    pub fn progress(&self) -> (u64, u64) {
        let first_index = self.start.map_or(0, |(index, _)| index);
        (self.newest_index, (self.newest_index + 1).saturating_sub(first_index + self.received))
    }

    /// Takes note of the server's report.
    pub fn handle_sender_report(&mut self, now: Instant, info: &SenderInfo) {
        self.sender_report = Some((ntp_middle(info.ntp), now));
    }

    /// What we report (RFC 3550 §6.4.1); each call begins the next interval.
    pub fn report(&mut self, now: Instant) -> ReportBlock {
        let (highest, lost) = self.progress();
        let (highest_before, lost_before) = std::mem::replace(&mut self.reported, (highest, lost));
        let expected = highest.saturating_sub(highest_before).max(1);
        let newly_lost = lost.saturating_sub(lost_before);
        let delay = |at: Instant| (now.saturating_duration_since(at).as_secs_f64() * 65_536.0) as u32;
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (newly_lost * 256 / expected).min(255) as u8,
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX),
            highest_seq: highest as u32,
            jitter: 0,
            lsr: self.sender_report.map_or(0, |(middle, _)| middle),
            dlsr: self.sender_report.map_or(0, |(_, at)| delay(at)),
        }
    }

    fn mark(&mut self, number: u64) {
        self.seen[word(number)] |= 1 << (number % 64);
    }

    fn unmark(&mut self, number: u64) {
        self.seen[word(number)] &= !(1 << (number % 64));
    }

    fn is_marked(&self, number: u64) -> bool {
        self.seen[word(number)] & (1 << (number % 64)) != 0
    }
}

fn word(number: u64) -> usize {
    (number % MEMORY_PACKETS / 64) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stream() -> Stream {
        Stream::new(Ssrc(1), MediaKind::Video)
    }

    fn stamp(number: u64) -> Stamp {
        Stamp { source: 1, number, sent_ns: 0 }
    }

    #[test]
    fn packets_in_order_are_next_and_a_gap_may_be_filled_once() {
        let mut stream = stream();
        for number in [10, 11, 14] {
            assert_eq!(stream.note(number + 500, stamp(number)), Order::Next);
        }
        assert_eq!(stream.progress(), (514, 2));
        assert_eq!(stream.note(512, stamp(12)), Order::Late);
        assert_eq!(stream.note(512, stamp(12)), Order::Duplicate);
        assert_eq!(stream.note(514, stamp(14)), Order::Duplicate);
        assert_eq!(stream.progress(), (514, 1));
    }

    #[test]
    fn old_marks_do_not_outlive_the_window() {
        let mut stream = stream();
        let mut note = |number| stream.note(number, stamp(number));
        note(0);
        assert_eq!(note(MEMORY_PACKETS + 1), Order::Next);
        assert_eq!(note(MEMORY_PACKETS), Order::Late, "its bit was number 0's");
        assert_eq!(note(1), Order::Duplicate, "too old to tell");
        assert_eq!(note(1 << 40), Order::Next, "a jump costs no more than the window");
    }

    #[test]
    fn another_source_under_the_same_ssrc_is_out_of_step() {
        let mut stream = stream();
        stream.note(5, stamp(5));
        stream.note(6, Stamp { source: 2, ..stamp(6) });
        assert!(!stream.is_in_step());
        stream.note(7, stamp(7));
        assert!(stream.is_in_step());
    }

    #[test]
    fn a_report_tells_the_loss_of_its_own_interval() {
        let (mut stream, now) = (stream(), tramline::runtime::clock::now());
        for number in [100, 101, 103, 104] {
            stream.note(number, stamp(number));
        }
        stream.report(now);
        for number in [105, 108] {
            stream.note(number, stamp(number));
        }
        let info = SenderInfo { ssrc: Ssrc(1), ntp: 0x1234_5678_9abc_def0, rtp_ts: 0, packets: 0, octets: 0 };
        stream.handle_sender_report(now, &info);
        let block = stream.report(now + Duration::from_secs(2));
        assert_eq!((block.highest_seq, block.cumulative_lost, block.fraction_lost), (108, 3, 128));
        assert_eq!((block.lsr, block.dlsr), (0x5678_9abc, 2 << 16));
        assert_eq!(stream.report(now).fraction_lost, 0);
    }
}
