//! What the peers count: every packet is delivered once, or it is named what was wrong with it.
//!
//! Owns: one thread's counters and latencies.
//! Promises: only packets sent within the measured window count as published, delivered, reordered or duplicated.

use hdrhistogram::Histogram;
use tramline::base::format::MediaKind;

use crate::stamp::Stamp;
use crate::stream::{Order, Stream};

/// A minute; slower packets are counted as a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Slices that are kept: ten minutes of 100 ms; what is later goes into the last.
const SLICES_MAX: usize = 6000;

/// Packets of one slice of the window, by the time of their sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Sent.
    pub published: u64,
    /// Delivered.
    pub delivered: u64,
}

/// Counters of one thread over one measured window.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Numbers that only add up.
    pub counts: Counts,
    /// Audio alone, over the whole window.
    pub audio: Slice,
    /// All media over time.
    pub slices: Vec<Slice>,
    /// From the publisher's stamp to the receiver's wake-up, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

/// Numbers that only add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets sent by sources.
    pub published: u64,
    /// Packets decrypted, verified and seen for the first time.
    pub delivered: u64,
    /// Delivered after a packet with a higher number.
    pub reordered: u64,
    /// Seen before: refused as a replay by SRTP, or another packet with a content that had come.
    pub duplicated: u64,
    /// The sequence number did not advance as the content did, or the content is another source's.
    pub misnumbered: u64,
    /// Authentication failed.
    pub unauthentic: u64,
    /// Authentic, but the content is not what was sent.
    pub damaged: u64,
    /// Calls that brought datagrams, times messages in them: a whole train is one message.
    pub messages: u64,
    /// Datagrams in those messages.
    pub datagrams: u64,
    /// Packets thrown away on purpose before they were looked at (`--loss`).
    pub withheld: u64,
    /// Sequence numbers asked for by NACK.
    pub asked: u64,
    /// Delivered after having been asked for.
    pub repaired: u64,
    /// Transport-wide feedback packets sent.
    pub twcc_reports: u64,
    /// Sequence numbers that the server asked our sources for.
    pub asked_of_us: u64,
    /// Packets that our sources sent again.
    pub resent: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.published, other.published),
            (&mut self.delivered, other.delivered),
            (&mut self.reordered, other.reordered),
            (&mut self.duplicated, other.duplicated),
            (&mut self.misnumbered, other.misnumbered),
            (&mut self.unauthentic, other.unauthentic),
            (&mut self.damaged, other.damaged),
            (&mut self.messages, other.messages),
            (&mut self.datagrams, other.datagrams),
            (&mut self.withheld, other.withheld),
            (&mut self.asked, other.asked),
            (&mut self.repaired, other.repaired),
            (&mut self.twcc_reports, other.twcc_reports),
            (&mut self.asked_of_us, other.asked_of_us),
            (&mut self.resent, other.resent),
        ] {
            *mine += theirs;
        }
    }
}

impl Tally {
    /// All zero.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            counts: Counts::default(),
            audio: Slice::default(),
            slices: Vec::new(),
            latency_ns: Histogram::new_with_bounds(100, LATENCY_NS_MAX, 3)?,
        })
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.counts.add(&other.counts);
        self.audio.add(other.audio);
        if self.slices.len() < other.slices.len() {
            self.slices.resize(other.slices.len(), Slice::default());
        }
        self.slices.iter_mut().zip(&other.slices).for_each(|(mine, theirs)| mine.add(*theirs));
        self.latency_ns.add(&other.latency_ns)?;
        Ok(())
    }

    /// Zero again; what has grown keeps its memory.
    pub fn clear(&mut self) {
        self.counts = Counts::default();
        self.audio = Slice::default();
        self.slices.clear();
        self.latency_ns.reset();
    }

    /// Counts packets that a source has sent in a slice of the window.
    pub fn count_sent(&mut self, slice: usize, kind: MediaKind, packets: u64) {
        self.counts.published += packets;
        self.slice(slice).published += packets;
        if kind == MediaKind::Audio {
            self.audio.published += packets;
        }
    }

    /// Counts one packet of `stream` that fell into a slice of the window. One that was asked for is late by design.
    pub fn count(
        &mut self,
        slice: usize,
        stream: &mut Stream,
        (index, stamp): (u64, Stamp),
        is_repair: bool,
        now_ns: u64,
    ) {
        match stream.note(index, stamp) {
            Order::Duplicate => self.counts.duplicated += 1,
            order => {
                self.counts.delivered += 1;
                self.counts.repaired += u64::from(is_repair);
                self.counts.reordered += u64::from(order == Order::Late && !is_repair);
                self.slice(slice).delivered += 1;
                if stream.kind == MediaKind::Audio {
                    self.audio.delivered += 1;
                }
                self.latency_ns.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
            }
        }
        self.counts.misnumbered += u64::from(!stream.is_in_step());
    }

    fn slice(&mut self, at: usize) -> &mut Slice {
        let at = at.min(SLICES_MAX);
        if self.slices.len() <= at {
            self.slices.resize(at + 1, Slice::default());
        }
        &mut self.slices[at]
    }
}

impl Slice {
    fn add(&mut self, other: Self) {
        self.published += other.published;
        self.delivered += other.delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline::base::ids::Ssrc;

    fn stamp(number: u64, sent_ns: u64) -> Stamp {
        Stamp { source: 1, number, sent_ns }
    }

    #[test]
    fn a_sequence_number_that_does_not_follow_the_content_is_counted() {
        let (mut tally, mut stream) = (Tally::new().unwrap(), Stream::new(Ssrc(1), MediaKind::Video));
        for (index, number) in [(7, 100), (8, 101), (9, 103), (11, 104)] {
            tally.count(0, &mut stream, (index, stamp(number, 0)), false, 1_000);
        }
        assert_eq!((tally.counts.delivered, tally.counts.misnumbered, tally.counts.reordered), (4, 1, 0));
    }

    #[test]
    fn what_was_asked_for_is_repaired_and_not_out_of_order() {
        let (mut tally, mut stream) = (Tally::new().unwrap(), Stream::new(Ssrc(1), MediaKind::Video));
        for (number, is_repair) in [(1, false), (5, false), (3, true), (4, false), (3, true)] {
            tally.count(0, &mut stream, (number, stamp(number, 0)), is_repair, 1_000);
        }
        let Counts { delivered, repaired, reordered, duplicated, .. } = tally.counts;
        assert_eq!((delivered, repaired, reordered, duplicated), (4, 1, 1, 1));
    }

    #[test]
    fn tallies_add_up_and_clear() {
        let (mut one, mut two) = (Tally::new().unwrap(), Tally::new().unwrap());
        let mut stream = Stream::new(Ssrc(1), MediaKind::Audio);
        one.count(0, &mut stream, (1, stamp(1, 100)), false, 50_100);
        two.count(3, &mut stream, (2, stamp(2, 100)), false, 90_100);
        two.count_sent(3, MediaKind::Audio, 5);
        one.add(&two).unwrap();
        assert_eq!((one.counts.delivered, one.latency_ns.len()), (2, 2));
        assert!(one.latency_ns.max() >= 90_000);
        assert_eq!(one.audio, Slice { published: 5, delivered: 2 });
        let delivered: Vec<u64> = one.slices.iter().map(|slice| slice.delivered).collect();
        assert_eq!(delivered, [1, 0, 0, 1]);
        one.clear();
        assert_eq!((one.counts, one.latency_ns.len(), one.slices.len()), (Counts::default(), 0, 0));
    }
}
