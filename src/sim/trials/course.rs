//! How a sender got along with a link that changes: what is compared between our server and str0m's own sender.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::measure::{Look, Traffic, share};
use crate::sim::access::Passed;
use crate::sim::screen::Shown;

/// Books of one run.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// What the sender thought it could send, over time; empty when it does not estimate.
    pub estimates: Vec<(Instant, u64)>,
    /// What went to the viewer.
    pub log: Vec<Passed>,
    /// What was seen.
    pub shown: Vec<Shown>,
    /// Frames that a decoder would have shown broken.
    pub broken: u64,
}

/// A part of a run during which the network stays as it is.
#[derive(Clone, Debug)]
pub struct Phase {
    /// In words.
    pub name: &'static str,
    /// From the beginning of the run.
    pub span: Range<Duration>,
    /// What is there for us.
    pub capacity_bps: u64,
}

/// What came of a phase.
#[derive(Clone, Copy, Debug)]
pub struct PhaseResult {
    /// The smaller of capacity and what the best quality can use.
    pub goal_bps: u64,
    /// From its beginning until the estimate stayed near the goal; `None`: it never did, or nothing is estimated.
    pub settled: Option<Duration>,
    /// Mean of the estimate beside the goal once there was time to settle, no moment counting for more than the goal.
    pub estimate: Option<f64>,
    /// What arrived of sound and pictures beside the goal, in the same time.
    pub throughput: f64,
    /// 95th percentile of the time in the bottleneck's queue, in the same time.
    pub queued_p95: Duration,
    /// The same from the beginning of the phase.
    pub queued_p95_all: Duration,
    /// What was seen in the whole phase.
    pub look: Look,
}

/// The best quality with audio, headers and tags.
pub const WANTED_BPS: u64 = 1_800_000;
/// After this everything should have settled.
pub const SETTLING: Duration = Duration::from_secs(4);
/// Nearer than this to the goal is settled.
const NEAR_GOAL: f64 = 0.9;
/// An estimate so much above the capacity is not.
const ABOVE_CAPACITY: f64 = 1.1;
/// How much of the time it has to stay there.
const STAYS: f64 = 0.9;
/// Estimates are looked at so often.
pub const SAMPLE: Duration = Duration::from_millis(100);

impl Course {
    /// Judges a phase of a run that began at `start`.
    pub fn judge(&self, start: Instant, phase: &Phase) -> PhaseResult {
        let span = start + phase.span.start..start + phase.span.end;
        let late = span.start + SETTLING..span.end;
        let goal_bps = phase.capacity_bps.min(WANTED_BPS);
        let settled_traffic = Traffic::read(&self.log, &late);
        let seconds = late.end.saturating_duration_since(late.start).as_secs_f64();
        let samples = self.samples(&span);
        let late_samples: Vec<f64> = samples
            .iter()
            .filter(|(at, _)| late.contains(at))
            .map(|(_, bps)| (*bps as f64 / goal_bps as f64).min(1.0))
            .collect();
        let mean = late_samples.iter().sum::<f64>() / late_samples.len() as f64;
        PhaseResult {
            goal_bps,
            settled: settled(&samples, goal_bps, phase.capacity_bps).map(|at| at.saturating_duration_since(span.start)),
            estimate: (!late_samples.is_empty()).then_some(mean),
            throughput: share(settled_traffic.media_arrived_bytes * 8, (goal_bps as f64 * seconds) as u64),
            queued_p95: settled_traffic.queued_p95,
            queued_p95_all: Traffic::read(&self.log, &span).queued_p95,
            look: Look::read(&self.shown, &span),
        }
    }

    /// The estimate at even steps, once there is one.
    fn samples(&self, span: &Range<Instant>) -> Vec<(Instant, u64)> {
        let mut samples = Vec::new();
        let (mut at, mut next) = (span.start, 0);
        while at < span.end {
            next += self.estimates[next..].iter().take_while(|(then, _)| *then <= at).count();
            samples.extend(next.checked_sub(1).map(|last| (at, self.estimates[last].1)));
            at += SAMPLE;
        }
        samples
    }
}

/// The first moment from which on nearly all samples are near the goal.
fn settled(samples: &[(Instant, u64)], goal_bps: u64, capacity_bps: u64) -> Option<Instant> {
    let is_near = |bps: u64| {
        // More than the capacity is no fault where it is not used.
        let is_harmless = capacity_bps > goal_bps || bps as f64 <= capacity_bps as f64 * ABOVE_CAPACITY;
        bps as f64 >= goal_bps as f64 * NEAR_GOAL && is_harmless
    };
    let (mut near, mut count, mut since) = (0, 0, None);
    for (at, bps) in samples.iter().rev() {
        count += 1;
        near += usize::from(is_near(*bps));
        if is_near(*bps) && near as f64 >= STAYS * f64::from(count) {
            since = Some(*at);
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn settled_is_what_stays_near_the_goal() {
        let start = clock::now();
        let course = |rates: &[u64]| Course {
            estimates: rates.iter().enumerate().map(|(at, bps)| (start + SAMPLE * at as u32, *bps)).collect(),
            ..Course::default()
        };
        let phase = Phase { name: "", span: Duration::ZERO..SAMPLE * 60, capacity_bps: 1_000_000 };
        let judge = |rates: &[u64]| course(rates).judge(start, &phase);
        let mut rates = vec![500_000; 10];
        rates.extend([950_000; 50]);
        assert_eq!(judge(&rates).settled, Some(SAMPLE * 10));
        assert!((judge(&rates).estimate.unwrap() - 0.95).abs() < 1e-9);
        rates[30] = 500_000;
        assert_eq!(judge(&rates).settled, Some(SAMPLE * 10), "one dip is forgiven");
        rates[40..].fill(1_200_000);
        assert_eq!(judge(&rates).settled, None, "more than there is");
        assert_eq!(judge(&[]).estimate, None);
    }
}
