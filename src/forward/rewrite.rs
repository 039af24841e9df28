//! Renumbering: how one subscriber sees a track's sequence numbers and timestamps.
//!
//! A subscriber's stream outlives the track behind it. Owns: the offsets of the present binding.
//! Promises: both numbers are continuous over bindings; an index is given to one packet only (GCM loses its key when one
//! index protects two packets, RFC 7714 §8.3); a packet asked for again is found under the number it went by.

use std::time::{Duration, Instant};

use crate::base::window::Window;

/// The first sequence number is below this, so that a late joiner's guess of the roll-over counter is right
/// (RFC 3711 §3.3.1).
pub const FIRST_SEQ_MAX: u64 = 1 << 15;
/// Numbers skipped at once: far below the 2^15 at which a receiver's guess of the roll-over counter fails
/// (RFC 3711 §3.3.1), far above what retransmission could fill. Beyond it the binding is over.
const GAP_MAX: u64 = 1 << 12;

/// Numbers of one outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// SRTP packet index; its low 16 bits are the sequence number.
    pub index: u64,
    /// RTP timestamp.
    pub timestamp: u32,
}

/// The present binding: everything from track number `from` on is shifted.
#[derive(Clone, Copy, Debug)]
struct Binding {
    from: u64,
    /// First outgoing index.
    first_index: u64,
    timestamp_offset: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Rewriter {
    next_index: u64,
    binding: Option<Binding>,
    sent: Window,
    /// Indices from here on may be rebuilt bit by bit: the headers' meaning has not changed since.
    rebuild_from: u64,
    /// Padding of the latest packets, by index modulo length; empty where nothing is rebuilt.
    paddings: Box<[u8]>,
    /// Last packet: what goes on from it after a new binding.
    last: Option<(Instant, u32)>,
    first_timestamp: u32,
}

impl Rewriter {
    /// `first_seq` is taken modulo [`FIRST_SEQ_MAX`]; both should be random (RFC 3550 §5.1).
    pub fn new(first_seq: u16, first_timestamp: u32) -> Self {
        Self {
            next_index: u64::from(first_seq) % FIRST_SEQ_MAX,
            binding: None,
            sent: Window::default(),
            rebuild_from: 0,
            paddings: Box::default(),
            last: None,
            first_timestamp,
        }
    }

    /// The track ends or another comes; numbers go on after the last one sent.
    pub fn unbind(&mut self) {
        self.binding = None;
    }

    /// Payload types, ids or mid changed: older packets cannot be rebuilt bit by bit any more.
    pub fn handle_header_change(&mut self) {
        self.rebuild_from = self.next_index;
    }

    /// Starts with the track's packet `seq`: it gets the next number, and a timestamp that is as far from the last one
    /// as time went by.
    pub fn bind(&mut self, now: Instant, seq: u64, timestamp: u32, clock_rate_hz: u32) {
        let start = match self.last {
            None => self.first_timestamp,
            Some((at, last)) => last.wrapping_add(ticks(now.saturating_duration_since(at), clock_rate_hz).max(1)),
        };
        self.binding =
            Some(Binding { from: seq, first_index: self.next_index, timestamp_offset: start.wrapping_sub(timestamp) });
    }

    /// The track goes on with its packet `seq` and everything between it and the last one sent was withheld: numbers go on
    /// without a gap, timestamps stay the publisher's. The highest number of the track that went out.
    pub fn resume(&mut self, seq: u64) -> Option<u64> {
        let binding = self.binding.as_mut()?;
        let next = binding.from + (self.next_index - binding.first_index);
        if seq > next {
            *binding = Binding { from: seq, first_index: self.next_index, ..*binding };
        }
        next.checked_sub(1)
    }

    /// Numbers for a packet never sent here before; `None` when it is older than the binding, was sent already or is too
    /// late to know.
    pub fn number(&mut self, now: Instant, seq: u64, timestamp: u32) -> Option<Numbers> {
        let binding = self.binding?;
        let index = binding.first_index + seq.checked_sub(binding.from)?;
        if !self.sent.insert(index) {
            return None;
        }
        let timestamp = timestamp.wrapping_add(binding.timestamp_offset);
        if index >= self.next_index {
            self.next_index = index + 1;
            self.last = Some((now, timestamp));
        }
        self.note_padding(index, 0);
        Some(Numbers { index, timestamp })
    }

    /// The track's number of what went out with the 16-bit number `seq`, with the numbers it has; `None` when that is
    /// still to come or belongs to an earlier binding. It may have been skipped: then this is its first way out.
    pub fn find(&self, seq: u16) -> Option<(u64, u64)> {
        let binding = self.binding?;
        let index = crate::base::seq::extend_u16(self.next_index.checked_sub(1)?, seq);
        let is_sent = index >= binding.first_index && index < self.next_index;
        is_sent.then(|| (binding.from + (index - binding.first_index), index))
    }

    /// Whether the track's packet `seq` follows so closely that the present binding can number it.
    pub fn is_near(&self, seq: u64) -> bool {
        self.binding.is_some_and(|binding| {
            let index = binding.first_index.saturating_add(seq.saturating_sub(binding.from));
            index < self.next_index + GAP_MAX
        })
    }

    /// Remembers the padding of so many packets, so that they can be rebuilt. Older ones cannot any more.
    pub fn keep_paddings(&mut self, packets: usize) {
        if self.paddings.len() != packets {
            self.paddings = vec![0; packets].into_boxed_slice();
            self.rebuild_from = self.next_index;
        }
    }

    /// The packet of that index goes out with so much padding.
    pub fn note_padding(&mut self, index: u64, padding: u8) {
        if let Some(noted) = self.padding_mut(index) {
            *noted = padding;
        }
    }

    /// The padding with which the packet of that index is rebuilt exactly as it was. One that goes out for the first time
    /// has none, and its index is taken from now on. `None`: nobody knows how it was.
    pub fn rebuild(&mut self, index: u64) -> Option<u8> {
        if self.sent.insert(index) {
            self.note_padding(index, 0);
            return Some(0);
        }
        if index < self.rebuild_from {
            return None;
        }
        self.padding_mut(index).copied()
    }

    fn padding_mut(&mut self, index: u64) -> Option<&mut u8> {
        let kept = self.paddings.len() as u64;
        // A packet that far behind shares its place with a later one.
        if kept == 0 || index + kept < self.next_index {
            return None;
        }
        self.paddings.get_mut((index % kept) as usize)
    }

    /// A publisher's timestamp in this stream's numbering.
    pub fn translate_timestamp(&self, timestamp: u32) -> Option<u32> {
        self.binding.map(|binding| timestamp.wrapping_add(binding.timestamp_offset))
    }
}

/// A duration in RTP clock ticks.
pub fn ticks(elapsed: Duration, clock_rate_hz: u32) -> u32 {
    (elapsed.as_micros() as u64).wrapping_mul(u64::from(clock_rate_hz)).div_euclid(1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn numbers_go_on_over_a_change_of_track() {
        let now = clock::now();
        let mut rewriter = Rewriter::new(40_000, 1_000);
        rewriter.bind(now, 77, 500, 90_000);
        let first = rewriter.number(now, 77, 500).expect("bound");
        assert_eq!(first, Numbers { index: 40_000 % FIRST_SEQ_MAX, timestamp: 1_000 });
        let second = rewriter.number(now, 79, 3_500).expect("bound");
        assert_eq!(second, Numbers { index: first.index + 2, timestamp: 4_000 });
        rewriter.unbind();
        assert_eq!(rewriter.number(now, 80, 4_000), None);
        let later = now + Duration::from_millis(100);
        rewriter.bind(later, 5, 9, 90_000);
        let third = rewriter.number(later, 5, 9).expect("bound");
        assert_eq!(third, Numbers { index: second.index + 1, timestamp: 4_000 + 9_000 });
    }

    #[test]
    fn an_index_is_given_once() {
        let now = clock::now();
        let mut rewriter = Rewriter::new(0, 0);
        rewriter.bind(now, 10, 0, 90_000);
        assert!(rewriter.number(now, 12, 0).is_some());
        assert!(rewriter.number(now, 11, 0).is_some());
        assert!(rewriter.number(now, 11, 0).is_none());
        assert!(rewriter.number(now, 9, 0).is_none(), "older than the binding");
    }

    #[test]
    fn a_sent_number_leads_back_to_the_track() {
        let now = clock::now();
        let mut rewriter = Rewriter::new(7, 0);
        rewriter.bind(now, 100, 0, 90_000);
        rewriter.number(now, 100, 0);
        rewriter.number(now, 104, 0);
        assert_eq!(rewriter.find(11), Some((104, 11)));
        assert_eq!(rewriter.find(12), None);
        assert_eq!(rewriter.find(6), None);
        rewriter.handle_header_change();
        assert_eq!(rewriter.rebuild(11), None);
        rewriter.unbind();
        assert_eq!(rewriter.find(11), None);
    }

    #[test]
    fn a_packet_is_rebuilt_with_its_padding_or_not_at_all() {
        let now = clock::now();
        let mut rewriter = Rewriter::new(0, 0);
        rewriter.keep_paddings(8);
        rewriter.bind(now, 100, 0, 90_000);
        for seq in (100..110).filter(|seq| *seq != 105) {
            let numbers = rewriter.number(now, seq, 0).expect("bound");
            rewriter.note_padding(numbers.index, seq as u8);
        }
        assert_eq!(
            (0..10).map(|index| rewriter.rebuild(index)).collect::<Vec<_>>(),
            [None, None, Some(102), Some(103), Some(104), Some(0), Some(106), Some(107), Some(108), Some(109),]
        );
        assert_eq!(rewriter.number(now, 105, 0), None, "its index is taken");
        assert_eq!(rewriter.rebuild(5), Some(0));
    }

    #[test]
    fn where_paddings_are_not_kept_there_are_none() {
        let now = clock::now();
        let mut rewriter = Rewriter::new(0, 0);
        rewriter.bind(now, 100, 0, 90_000);
        rewriter.number(now, 100, 0);
        rewriter.note_padding(0, 3);
        assert_eq!(rewriter.rebuild(0), None);
        rewriter.keep_paddings(8);
        assert_eq!(rewriter.rebuild(0), None, "it went before they were kept");
    }
}
