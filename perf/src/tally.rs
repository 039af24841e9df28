//! What the receivers count: every packet is delivered once, or it is named what was wrong with it.
//!
//! Owns: one thread's counters and latencies, one stream's memory of what came.
//! Promises: only packets numbered within the measured window count as delivered, reordered or duplicated.

use hdrhistogram::Histogram;
use tramline::base::ids::Ssrc;

use crate::stamp::Stamp;

/// How far behind the newest a packet may be and still be told from a duplicate.
const MEMORY_PACKETS: u64 = 8192;
const MEMORY_WORDS: usize = (MEMORY_PACKETS / 64) as usize;
/// A minute; slower packets are counted as a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Counters of one receiver thread over one measured window.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Packets decrypted, verified and seen for the first time.
    pub delivered: u64,
    /// Delivered after a packet with a higher number.
    pub reordered: u64,
    /// Seen before: refused as a replay by SRTP, or another packet with a content that had come.
    pub duplicated: u64,
    /// The sequence number did not advance as the content did.
    pub misnumbered: u64,
    /// Authentication failed.
    pub unauthentic: u64,
    /// Authentic, but the content is not what was sent.
    pub damaged: u64,
    /// Calls that brought datagrams, times messages in them: a whole train is one message.
    pub messages: u64,
    /// Datagrams in those messages.
    pub datagrams: u64,
    /// From the publisher's stamp to the receiver's wake-up, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

impl Tally {
    /// All zero.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            delivered: 0,
            reordered: 0,
            duplicated: 0,
            misnumbered: 0,
            unauthentic: 0,
            damaged: 0,
            messages: 0,
            datagrams: 0,
            latency_ns: Histogram::new_with_bounds(100, LATENCY_NS_MAX, 3)?,
        })
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.delivered += other.delivered;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.misnumbered += other.misnumbered;
        self.unauthentic += other.unauthentic;
        self.damaged += other.damaged;
        self.messages += other.messages;
        self.datagrams += other.datagrams;
        self.latency_ns.add(&other.latency_ns)?;
        Ok(())
    }

    /// Zero again; the histogram keeps its memory.
    pub fn clear(&mut self) {
        self.latency_ns.reset();
        for count in [
            &mut self.delivered,
            &mut self.reordered,
            &mut self.duplicated,
            &mut self.misnumbered,
            &mut self.unauthentic,
            &mut self.damaged,
            &mut self.messages,
            &mut self.datagrams,
        ] {
            *count = 0;
        }
    }

    /// Counts one packet of `stream` that fell into the window.
    pub fn count(&mut self, stream: &mut Stream, index: u64, stamp: Stamp, now_ns: u64) {
        match stream.note(index, stamp.number) {
            Order::Duplicate => self.duplicated += 1,
            order => {
                self.delivered += 1;
                self.reordered += u64::from(order == Order::Late);
                self.latency_ns.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
            }
        }
        self.misnumbered += u64::from(!stream.is_in_step);
    }
}

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
#[derive(Clone, Debug)]
pub struct Stream {
    /// Of the packets as they arrive.
    pub ssrc: Ssrc,
    /// The first packet's SRTP index and number: what the server adds to the publisher's sequence numbers.
    start: Option<(u64, u64)>,
    newest: u64,
    newest_index: u64,
    seen: [u64; MEMORY_WORDS],
    received: u64,
    is_in_step: bool,
}

impl Stream {
    /// Nothing came yet.
    pub fn new(ssrc: Ssrc) -> Self {
        Self { ssrc, start: None, newest: 0, newest_index: 0, seen: [0; MEMORY_WORDS], received: 0, is_in_step: true }
    }

    /// Takes note of a packet: its SRTP index and the number in its content.
    pub fn note(&mut self, index: u64, number: u64) -> Order {
        let Some((first_index, first_number)) = self.start else {
            self.start = Some((index, number));
            (self.newest, self.newest_index, self.received) = (number, index, 1);
            self.mark(number);
            return Order::Next;
        };
        // One publisher, one binding: the server may shift sequence numbers, but by the same for every packet.
        self.is_in_step = index.wrapping_sub(first_index) == number.wrapping_sub(first_number);
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

    /// Highest SRTP index received, and how many packets are missing up to there since the first one.
    pub fn progress(&self) -> (u64, u64) {
        let first_index = self.start.map_or(0, |(index, _)| index);
        (self.newest_index, (self.newest_index + 1).saturating_sub(first_index + self.received))
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
    use super::*;

    fn stream() -> Stream {
        Stream::new(Ssrc(1))
    }

    #[test]
    fn packets_in_order_are_next_and_a_gap_may_be_filled_once() {
        let mut stream = stream();
        for number in [10, 11, 14] {
            assert_eq!(stream.note(number + 500, number), Order::Next);
        }
        assert_eq!(stream.progress(), (514, 2));
        assert_eq!(stream.note(512, 12), Order::Late);
        assert_eq!(stream.note(512, 12), Order::Duplicate);
        assert_eq!(stream.note(514, 14), Order::Duplicate);
        assert_eq!(stream.progress(), (514, 1));
    }

    #[test]
    fn old_marks_do_not_outlive_the_window() {
        let mut stream = stream();
        stream.note(0, 0);
        assert_eq!(stream.note(MEMORY_PACKETS + 1, MEMORY_PACKETS + 1), Order::Next);
        assert_eq!(stream.note(MEMORY_PACKETS, MEMORY_PACKETS), Order::Late, "its bit was number 0's");
        assert_eq!(stream.note(1, 1), Order::Duplicate, "too old to tell");
        assert_eq!(stream.note(1 << 40, 1 << 40), Order::Next, "a jump costs no more than the window");
    }

    #[test]
    fn a_sequence_number_that_does_not_follow_the_content_is_counted() {
        let (mut tally, mut stream) = (Tally::new().unwrap(), stream());
        for (index, number) in [(7, 100), (8, 101), (9, 103), (11, 104)] {
            tally.count(&mut stream, index, Stamp { number, sent_ns: 0 }, 1_000);
        }
        assert_eq!((tally.delivered, tally.misnumbered, tally.reordered), (4, 1, 0));
    }

    #[test]
    fn tallies_add_up_and_clear() {
        let (mut one, mut two, mut stream) = (Tally::new().unwrap(), Tally::new().unwrap(), stream());
        one.count(&mut stream, 1, Stamp { number: 1, sent_ns: 100 }, 50_100);
        two.count(&mut stream, 2, Stamp { number: 2, sent_ns: 100 }, 90_100);
        one.add(&two).unwrap();
        assert_eq!((one.delivered, one.latency_ns.len()), (2, 2));
        assert!(one.latency_ns.max() >= 90_000);
        one.clear();
        assert_eq!((one.delivered, one.latency_ns.len()), (0, 0));
    }
}
