//! One direction of a peer's access: a link that changes over time, who else uses it, and the books of what went over it.
//!
//! Owns: the schedule of changes, competing traffic, and a log of datagrams for those who ask for it.
//! Forbids: knowing more of a datagram than what stands in clear in its first two bytes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::proto::link::{Link, LinkConfig};

/// A datagram of RTP or RTCP that was given to the link.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// When it was given.
    pub at: Instant,
    /// Its payload type, or its packet type for RTCP.
    pub pt: u8,
    /// UDP payload.
    pub bytes: u32,
    /// What waited in the bottleneck's queue before it, in time.
    pub queued: Duration,
    /// When it arrives, if it does.
    pub arrives_at: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Access {
    /// As it is now.
    pub link: Link,
    /// What becomes of it, and when; earliest first.
    changes: VecDeque<(Instant, LinkConfig)>,
    competitor: Option<Competitor>,
    /// What went over it, if that is kept.
    pub log: Option<Vec<Passed>>,
}

impl Access {
    /// An idle link.
    pub fn new(config: LinkConfig) -> Self {
        Self { link: Link::new(config), changes: VecDeque::new(), competitor: None, log: None }
    }

    /// At that time the link becomes so; times ascend.
    pub fn change_at(&mut self, at: Instant, config: LinkConfig) {
        self.changes.push_back((at, config));
    }

    /// Somebody else uses the bottleneck for a while.
    pub fn compete(&mut self, kind: Competition, from: Instant, until: Instant) {
        self.competitor = Some(Competitor::new(kind, from, until));
    }

    /// What the competitor got through, in bytes.
    pub fn lost_to_others(&self) -> u64 {
        self.competitor.as_ref().map_or(0, |it| it.delivered_bytes)
    }

    /// When a datagram given now arrives; `None` when it is lost.
    pub fn pass(&mut self, now: Instant, rng: &mut StdRng, bytes: &[u8]) -> Option<Instant> {
        while let Some((at, config)) = self.changes.pop_front_if(|(at, _)| *at <= now) {
            self.advance(at, rng);
            self.link.config = config;
        }
        self.advance(now, rng);
        let queued = self.link.queued(now);
        let arrives_at = self.link.pass(now, rng, bytes.len());
        if let (Some(log), [128..192, pt, ..]) = (&mut self.log, bytes) {
            // RFC 5761 §4: RTCP has 192 to 223 in its second byte; RTP has its marker there.
            let pt = if (192..=223).contains(pt) { *pt } else { pt & 0x7f };
            log.push(Passed { at: now, pt, bytes: bytes.len() as u32, queued, arrives_at });
        }
        arrives_at
    }

    fn advance(&mut self, now: Instant, rng: &mut StdRng) {
        if let Some(competitor) = &mut self.competitor {
            competitor.advance(now, &mut self.link, rng);
        }
    }
}

/// How a competitor behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Competition {
    /// Sends so many bits per second, come what may.
    Constant(u64),
    /// One connection of TCP as it was (slow start, then additive increase, multiplicative decrease).
    Reno,
}

const PACKET_BYTES: usize = 1200;
/// The way back of its acknowledgements.
const RETURN_DELAY: Duration = Duration::from_millis(20);
/// Segments of the first window (RFC 6928).
const WINDOW_START: f64 = 10.0;
/// A window does not fall below this.
const WINDOW_MIN: f64 = 2.0;

#[derive(Debug)]
struct Competitor {
    kind: Competition,
    until: Instant,
    /// Of a constant one.
    next_at: Instant,
    has_begun: bool,
    /// When an acknowledgement comes, or when a loss is found out: whether it arrived, and when it was sent.
    answers: BinaryHeap<Reverse<(Instant, bool, Instant)>>,
    window: f64,
    threshold: f64,
    /// Losses of packets sent before this are of the same congestion.
    recovered_at: Instant,
    round_trip: Duration,
    delivered_bytes: u64,
}

impl Competitor {
    fn new(kind: Competition, from: Instant, until: Instant) -> Self {
        Self {
            kind,
            until,
            next_at: from,
            has_begun: false,
            answers: BinaryHeap::new(),
            window: WINDOW_START,
            threshold: f64::INFINITY,
            recovered_at: from,
            round_trip: RETURN_DELAY * 2,
            delivered_bytes: 0,
        }
    }

    /// Sends all it would have sent until now.
    fn advance(&mut self, now: Instant, link: &mut Link, rng: &mut StdRng) {
        match self.kind {
            Competition::Constant(bps) => {
                while self.next_at <= now.min(self.until) {
                    let is_through = link.pass(self.next_at, rng, PACKET_BYTES).is_some();
                    self.delivered_bytes += u64::from(is_through) * PACKET_BYTES as u64;
                    self.next_at += Duration::from_secs_f64(PACKET_BYTES as f64 * 8.0 / bps as f64);
                }
            }
            Competition::Reno => {
                if !self.has_begun && self.next_at <= now {
                    self.has_begun = true;
                    self.fill_window(self.next_at, link, rng);
                }
                while let Some(Reverse((at, is_through, sent_at))) = self.answers.peek().copied()
                    && at <= now
                {
                    self.answers.pop();
                    self.handle_answer(at, is_through, sent_at);
                    self.fill_window(at, link, rng);
                }
            }
        }
    }

    fn handle_answer(&mut self, at: Instant, is_through: bool, sent_at: Instant) {
        if is_through {
            self.round_trip = at.saturating_duration_since(sent_at);
            self.delivered_bytes += PACKET_BYTES as u64;
            self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        } else if sent_at >= self.recovered_at {
            self.threshold = (self.window / 2.0).max(WINDOW_MIN);
            self.window = self.threshold;
            self.recovered_at = at;
        }
    }

    fn fill_window(&mut self, at: Instant, link: &mut Link, rng: &mut StdRng) {
        while at <= self.until && (self.answers.len() as f64) < self.window.floor() {
            let arrival = link.pass(at, rng, PACKET_BYTES);
            // A loss shows when what was sent behind it is acknowledged: about a round trip later.
            let answer_at = arrival.map_or(at + self.round_trip, |arrival| arrival + RETURN_DELAY);
            self.answers.push(Reverse((answer_at, arrival.is_some(), at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::runtime::clock;

    fn config(bps: u64) -> LinkConfig {
        LinkConfig { rate: Some((bps, 50_000)), ..LinkConfig::default() }
    }

    /// Ten seconds of a small packet every 10 ms; returns how the link ended up.
    fn ten_seconds(mut access: Access, start: Instant) -> Access {
        let mut rng = StdRng::seed_from_u64(1);
        access.log = Some(Vec::new());
        for step in 0..1000 {
            access.pass(start + Duration::from_millis(step * 10), &mut rng, &[128, 224, 0, 0]);
        }
        access
    }

    #[test]
    fn a_constant_competitor_takes_its_rate_and_a_reno_all_there_is() {
        let start = clock::now();
        let until = start + Duration::from_secs(10);
        for (kind, range) in [(Competition::Constant(500_000), 0.49..0.51), (Competition::Reno, 1.7..2.0)] {
            let mut access = Access::new(config(2_000_000));
            access.compete(kind, start, until);
            let access = ten_seconds(access, start);
            let mbps = access.lost_to_others() as f64 * 8.0 / 10.0 / 1e6;
            assert!(range.contains(&mbps), "{kind:?}: {mbps} Mbit/s");
            let queued = access.log.unwrap().iter().map(|passed| passed.queued).max().unwrap();
            assert_eq!(queued > Duration::from_millis(100), kind == Competition::Reno, "{kind:?}: {queued:?}");
        }
    }

    #[test]
    fn a_link_changes_when_its_time_has_come() {
        let start = clock::now();
        let mut access = Access::new(config(1_000_000));
        access.change_at(start + Duration::from_secs(5), LinkConfig::lossy(1.0));
        let log = ten_seconds(access, start).log.unwrap();
        let lost = log.iter().filter(|passed| passed.arrives_at.is_none()).count();
        assert_eq!((log.len(), lost, log[0].pt), (1000, 500, 96));
    }
}
