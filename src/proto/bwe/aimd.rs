//! The delay-based rate: up while the delay stands still, down to below what got through when it rises
//! (draft-ietf-rmcat-gcc-02 §5.5 and §6; libwebrtc's AIMD rate control).
//!
//! Beyond the draft: where a queue has formed, what the path carries is one thing and what may be sent until the queue has
//! emptied another ([`Aimd::budget_bps`]). libwebrtc leaves the second to its congestion window.
//!
//! Owns: both rates and what is known of the link's capacity. Promises: within the bounds. Forbids: feedback and packets.

use super::trendline::Usage;
use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};

/// Share of what got through that is sent after overuse (draft §6).
const BETA: f64 = 0.85;

/// The same of what was measured while the queue stood: that is the path's rate itself.
const BETA_BUSY: f64 = 0.95;

/// What is sent while a queue has to empty, as a share of what the path carries...
const DRAIN_SHARE_MIN: f64 = 0.35;

/// ... within about this time.
const DRAIN_US: f64 = 800_000.0;

/// While a queue empties, the rate is lowered further no more often, and not below this share of what the path carried.
const DRAIN_STEP_US: u64 = 150_000;
const DRAIN_SHARE_LEAST: f64 = 0.2;

/// After this time what gets through was measured while the queue stood, and less than this share of what was thought shows
/// that it was too much.
const DRAIN_MEASURED_US: u64 = 500_000;
const WRONG_SHARE: f64 = 0.9;

/// Beside a flow that fills the queue until it overflows, the rate follows losses and not the delay: it grows by about half a
/// packet per round trip and round trip, and falls by this at losses: about what TCP of the classic kind takes (RFC 5348
/// §1: reasonably fair is who stays within a factor of two of it).
const COMPETING_PACKETS: f64 = 0.5;
const COMPETING_SHARE: f64 = 0.75;

/// What is left of a rate at losses is not more than this share of what got through, before it falls.
const COMPETING_ROOM: f64 = 1.2;

/// Losses beyond this share of packets count, and are answered no more often.
const COMPETING_LOSS: f64 = 0.003;
const COMPETING_STEP_US: u64 = 1_500_000;

/// In a second the rate grows no faster then, and to so many times what gets through.
const COMPETING_GROWTH: f64 = 0.25;
const COMPETING_FACTOR: f64 = 2.5;

/// Shortest round trip believed in beside a full queue.
const COMPETING_RTT_US_MIN: u64 = 100_000;

/// After this time a queue that never emptied is no queue: the path got longer.
const COMPETING_US_MAX: u64 = 30_000_000;

/// The rate after overuse is this share at least where the application sends much less than it may.
const APP_LIMITED_SHARE: f64 = 0.5;

/// A queue that has to empty before the rate may grow, and the one that is regarded as empty.
const QUEUE_LONG_US: u64 = 50_000;
const QUEUE_EMPTY_US: u64 = 15_000;

/// A queue that we stopped feeding has lost so much of its length after this time (and the time that the news of it
/// take), or it is not ours: the path got longer, or others fill it.
const DRAIN_PATIENCE_US: u64 = 1_600_000;
const NOT_DRAINED_SHARE: f64 = 0.7;

/// A queue that stands for so long is overuse, though the delay rises no more: a full queue has no gradient. One decrease
/// per this time, so that a flow which fills the queue on purpose does not starve us before it counts as part of the path.
const QUEUE_STANDS_US: u64 = 55_000;
const QUEUE_DECREASE_US: u64 = 1_000_000;

/// Growth per second where the capacity is not known (draft §6: 8 %).
const GROWTH: f64 = 1.08;

/// The draft's packet and picture rate, from which the step near the known capacity follows: one packet per response time.
const PACKET_BITS: f64 = 1200.0 * 8.0;
const PICTURES_PER_S: f64 = 30.0;

/// How long over-use takes to be seen, besides the round trip (draft §6).
const RESPONSE_US: u64 = 100_000;

/// Least step per second.
const ADDITIVE_BPS_MIN: f64 = 4_000.0;

/// The estimate does not grow beyond so much of what got through, which proves nothing about more.
const ACKED_FACTOR: f64 = 1.5;
const ACKED_EXTRA_BPS: f64 = 10_000.0;

/// Nor beyond so much of what a queue showed.
const MEASURED_FACTOR: f64 = 1.02;

/// Round trip until one was measured.
const RTT_DEFAULT_US: u64 = 200_000;

/// Longest time that one growth step may stand for.
const STEP_US_MAX: u64 = 1_000_000;

/// What one update is told.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// What the delay does.
    pub usage: Usage,
    /// What got through.
    pub acked_bps: Option<f64>,
    /// The same, or less where it just fell.
    pub acked_least_bps: Option<f64>,
    /// What gets through is what was sent: beside others who keep the queue full it says nothing about the path.
    pub is_own_choice: bool,
    /// What got through while a queue stood.
    pub busy_bps: Option<f64>,
    /// Share of packets lost lately to full queues.
    pub loss: f64,
    /// The queue that stands on the path.
    pub queue_us: u64,
    /// Round trip.
    pub rtt_us: Option<u64>,
    /// Too little is sent to learn from it.
    pub is_app_limited: bool,
}

/// A queue is being emptied.
#[derive(Clone, Copy, Debug)]
struct Drain {
    /// What the path carried when the queue was found.
    carried_bps: f64,
    /// What may be sent meanwhile.
    budget_bps: f64,
    since_us: u64,
    /// The longest it was.
    most_us: u64,
    /// What the path carried when the queue began.
    first_bps: f64,
    /// The queue overflowed meanwhile.
    has_loss: bool,
    /// Nothing was measured yet: with the first measure it begins anew.
    is_guess: bool,
}

impl Drain {
    /// Less gets through than was thought, though a queue stood all the time that was measured.
    fn is_wrong(&self, now_us: u64, observed: Observed) -> bool {
        let is_measured = now_us - self.since_us > DRAIN_MEASURED_US && observed.queue_us > QUEUE_LONG_US;
        let is_less = observed.acked_bps.is_some_and(|acked| acked < WRONG_SHARE * self.carried_bps);
        is_measured && is_less && !self.is_others(observed)
    }

    /// Somebody keeps the queue full until it overflows, and what gets through is what we chose to send.
    fn is_others(&self, observed: Observed) -> bool {
        self.has_loss && observed.is_own_choice
    }
}

/// The rate control.
#[derive(Debug)]
pub struct Aimd {
    bps: f64,
    link: LinkCapacity,
    updated_us: u64,
    decreased_us: Option<u64>,
    drain: Option<Drain>,
    /// Since when others fill the queue.
    others_since_us: Option<u64>,
    /// The path's rate, when a queue showed it last.
    measured_bps: Option<f64>,
}

impl Aimd {
    /// Begins at this rate.
    pub fn new(now_us: u64, bps: f64) -> Self {
        let link = LinkCapacity::default();
        Self {
            bps,
            link,
            updated_us: now_us,
            decreased_us: None,
            drain: None,
            others_since_us: None,
            measured_bps: None,
        }
    }

    /// The rate.
    pub fn bps(&self) -> f64 {
        self.bps
    }

    /// What may be sent now: less as long as a queue has to empty.
    pub fn budget_bps(&self) -> f64 {
        self.drain.map_or(self.bps, |drain| drain.budget_bps.min(self.bps)).max(ESTIMATE_MIN_BPS)
    }

    /// When it was lowered last.
    pub fn decreased_us(&self) -> Option<u64> {
        self.decreased_us
    }

    /// A queue is being emptied.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Others fill the queue.
    pub fn is_competing(&self) -> bool {
        self.others_since_us.is_some()
    }

    /// A better source knows the rate: a probe, or what it was before an outage.
    pub fn set(&mut self, now_us: u64, bps: f64) {
        self.bps = bps.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS);
        self.updated_us = now_us;
        self.drain = None;
        self.measured_bps = self.measured_bps.filter(|measured| bps <= *measured);
        if bps > self.link.upper_bps() {
            self.link = LinkCapacity::default();
        }
    }

    /// A feedback came. `true`: the queue seen is neither ours nor another's, so it is no queue.
    pub fn update(&mut self, now_us: u64, observed: Observed) -> bool {
        let is_path = self.follow(now_us, observed);
        self.updated_us = now_us;
        self.bps = self.bps.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS);
        is_path
    }

    fn follow(&mut self, now_us: u64, observed: Observed) -> bool {
        if let Some(since_us) = self.others_since_us {
            let is_path = now_us - since_us > COMPETING_US_MAX;
            if observed.queue_us > QUEUE_EMPTY_US && !is_path {
                self.compete(now_us, observed);
                return false;
            }
            self.others_since_us = None;
            return is_path;
        }
        if let Some(drain) = &mut self.drain {
            drain.has_loss |= observed.loss > COMPETING_LOSS;
        }
        let budget = self.budget_bps();
        let (has_loss, first_bps) = self.drain.map_or((false, 0.0), |drain| (drain.has_loss, drain.first_bps));
        if self.follow_drain(now_us, observed.queue_us) {
            // What was given up to empty it was given up for nothing; but others may listen to the delay as we do, and then
            // what got through is our share.
            let share = observed.acked_bps.unwrap_or(0.0).max(budget);
            self.bps = if has_loss { self.bps.max(first_bps * COMPETING_SHARE) } else { self.bps.min(share) };
            // Flows that listen to the delay, as we do, lose nothing.
            self.others_since_us = has_loss.then_some(now_us);
            return !has_loss;
        }
        match observed.usage {
            Usage::Over => self.decrease(now_us, observed),
            // While packets wait, what gets through is what the path carries, whatever the delay does.
            _ if self.drain.is_some_and(|drain| drain.is_wrong(now_us, observed)) => self.decrease(now_us, observed),
            _ if self.drain.is_some() => {}
            Usage::Normal if self.has_standing_queue(now_us, observed) => self.decrease(now_us, observed),
            Usage::Under => {}
            Usage::Normal => self.increase(now_us, observed),
        }
        false
    }

    fn decrease(&mut self, now_us: u64, observed: Observed) {
        let rtt_us = observed.rtt_us.unwrap_or(RTT_DEFAULT_US);
        let acked = observed.acked_least_bps.unwrap_or(self.bps * 0.5);
        // Of packets that hardly wait some may have been the first to.
        let busy = observed.busy_bps.filter(|busy| *busy > acked || observed.queue_us > QUEUE_LONG_US);
        let pause_us = if self.drain.is_some() { DRAIN_STEP_US } else { rtt_us.clamp(10_000, 200_000) };
        let is_recent = self.decreased_us.is_some_and(|at| now_us - at < pause_us);
        let budget = self.budget_bps();
        if is_recent && (acked > budget * 0.5 || observed.is_app_limited) {
            return;
        }
        // Once we send less than the path carries, what gets through is our own choice and no measure.
        let known = self.drain.filter(|drain| drain.is_others(observed)).map(|drain| drain.carried_bps);
        let carried = known.or(busy).unwrap_or(acked);
        let beta = if busy.is_some() { BETA_BUSY } else { BETA };
        self.link.handle_overuse(carried);
        self.measured_bps = busy;
        // Where little is sent, what gets through is no measure either: step by step, for it may have been jitter.
        let is_blind = observed.is_app_limited && busy.is_none();
        if observed.queue_us > QUEUE_LONG_US {
            let share = (1.0 - observed.queue_us as f64 / DRAIN_US).clamp(DRAIN_SHARE_MIN, BETA);
            let least = self.drain.map_or(0.0, |drain| drain.carried_bps * DRAIN_SHARE_LEAST);
            let least = if is_blind { least.max(budget * APP_LIMITED_SHARE) } else { least };
            let first = Drain {
                carried_bps: carried,
                budget_bps: budget,
                since_us: now_us,
                most_us: observed.queue_us,
                first_bps: carried,
                has_loss: false,
                is_guess: busy.or(observed.acked_least_bps).is_none(),
            };
            let drain = self.drain.filter(|drain| !drain.is_guess).unwrap_or(first);
            let budget_bps = (carried * share).max(least).min(drain.budget_bps);
            self.drain = Some(Drain { carried_bps: carried, budget_bps, most_us: observed.queue_us, ..drain });
        }
        let least = if is_blind { self.bps * APP_LIMITED_SHARE } else { 0.0 };
        self.bps = self.bps.min((carried * beta).max(least));
        self.decreased_us = Some(now_us);
    }

    fn has_standing_queue(&self, now_us: u64, observed: Observed) -> bool {
        let is_early = self.decreased_us.is_some_and(|at| now_us - at < QUEUE_DECREASE_US);
        observed.queue_us > QUEUE_STANDS_US && !is_early
    }

    /// Returns to the rate measured when the queue is empty; `true` when it does not empty though we let it.
    fn follow_drain(&mut self, now_us: u64, queue_us: u64) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        drain.most_us = drain.most_us.max(queue_us);
        let is_empty = queue_us <= QUEUE_EMPTY_US;
        // What we see of it was sent as long ago as it is long.
        if !is_empty && now_us - drain.since_us < DRAIN_PATIENCE_US + 2 * queue_us {
            return false;
        }
        let is_path = queue_us as f64 > NOT_DRAINED_SHARE * drain.most_us as f64;
        if !is_empty && !is_path {
            (drain.since_us, drain.most_us) = (now_us, queue_us);
            return false;
        }
        self.drain = None;
        !is_empty
    }

    /// Beside others who fill the queue.
    fn compete(&mut self, now_us: u64, observed: Observed) {
        let is_answered = self.decreased_us.is_some_and(|at| now_us - at < COMPETING_STEP_US);
        if observed.loss > COMPETING_LOSS {
            if !is_answered {
                // Who sends as much as it may and gets less through was too fast already.
                let most = observed.acked_bps.filter(|_| !observed.is_app_limited).map(|acked| COMPETING_ROOM * acked);
                self.bps = self.bps.min(most.unwrap_or(self.bps)) * COMPETING_SHARE;
                self.decreased_us = Some(now_us);
            }
            return;
        }
        let step_s = (now_us - self.updated_us).min(STEP_US_MAX) as f64 / 1e6;
        let rtt_s = observed.rtt_us.unwrap_or(RTT_DEFAULT_US).max(COMPETING_RTT_US_MIN) as f64 / 1e6;
        let step_bps = (COMPETING_PACKETS * PACKET_BITS / (rtt_s * rtt_s)).min(COMPETING_GROWTH * self.bps) * step_s;
        let limit = observed.acked_bps.map_or(self.bps, |acked| COMPETING_FACTOR * acked + ACKED_EXTRA_BPS);
        self.bps = (self.bps + step_bps).min(limit.max(self.bps));
    }

    fn increase(&mut self, now_us: u64, observed: Observed) {
        let acked = observed.acked_bps;
        if acked.is_some_and(|acked| acked > self.link.upper_bps()) {
            self.link = LinkCapacity::default();
        }
        if observed.is_app_limited {
            return;
        }
        let step_s = (now_us - self.updated_us).min(STEP_US_MAX) as f64 / 1e6;
        let grown = if self.link.is_known() {
            let rtt_us = observed.rtt_us.unwrap_or(RTT_DEFAULT_US);
            self.bps + step_s * self.additive_bps(rtt_us)
        } else {
            self.bps * GROWTH.powf(step_s)
        };
        let limit = acked.map_or(f64::INFINITY, |acked| ACKED_FACTOR * acked + ACKED_EXTRA_BPS);
        // Beyond the rate that a queue showed only more that gets through leads, or a probe.
        self.measured_bps = self.measured_bps.filter(|measured| acked.is_none_or(|acked| acked < *measured));
        let limit = self.measured_bps.map_or(limit, |measured| limit.min(measured * MEASURED_FACTOR));
        self.bps = grown.min(limit.max(self.bps));
    }

    /// Half a packet or one per response time, as the draft has it.
    fn additive_bps(&self, rtt_us: u64) -> f64 {
        let picture_bits = self.bps / PICTURES_PER_S;
        let packets = (picture_bits / PACKET_BITS).ceil().max(1.0);
        let response_s = (rtt_us + RESPONSE_US) as f64 / 1e6;
        (picture_bits / packets / response_s).max(ADDITIVE_BPS_MIN)
    }
}

/// What got through at times of overuse: the capacity of the link, with its spread (draft §6).
#[derive(Debug, Default)]
struct LinkCapacity {
    kbps: Option<f64>,
    /// Variance divided by the mean, which makes it much the same for slow links and fast ones.
    spread: f64,
}

impl LinkCapacity {
    /// Weight of a new sample.
    const GAIN: f64 = 0.05;

    fn is_known(&self) -> bool {
        self.kbps.is_some()
    }

    fn handle_overuse(&mut self, acked_bps: f64) {
        let sample = acked_bps / 1000.0;
        let is_other = self.kbps.is_some_and(|kbps| (sample - kbps).abs() > 3.0 * self.deviation(kbps));
        let Some(kbps) = self.kbps.filter(|_| !is_other) else {
            (self.kbps, self.spread) = (Some(sample), 0.4);
            return;
        };
        let mean = (kbps + Self::GAIN * (sample - kbps)).max(1.0);
        let error = mean - sample;
        self.spread = ((1.0 - Self::GAIN) * self.spread + Self::GAIN * error * error / mean).clamp(0.4, 2.5);
        self.kbps = Some(mean);
    }

    fn deviation(&self, kbps: f64) -> f64 {
        (self.spread * kbps).sqrt()
    }

    fn upper_bps(&self) -> f64 {
        self.kbps.map_or(f64::INFINITY, |kbps| (kbps + 3.0 * self.deviation(kbps)) * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(usage: Usage, acked_bps: f64) -> Observed {
        let (queue_us, rtt_us) = (0, Some(50_000));
        let acked_bps = Some(acked_bps);
        let (busy_bps, loss, is_app_limited) = (None, 0.0, false);
        let acked_least_bps = acked_bps;
        Observed {
            usage,
            acked_bps,
            acked_least_bps,
            is_own_choice: false,
            busy_bps,
            loss,
            queue_us,
            rtt_us,
            is_app_limited,
        }
    }

    fn run(aimd: &mut Aimd, steps: std::ops::Range<u64>, step_us: u64, observed: Observed) {
        for step in steps {
            aimd.update(step * step_us, observed);
        }
    }

    #[test]
    fn it_grows_while_the_delay_stands_still_and_not_beyond_what_is_proved() {
        let mut aimd = Aimd::new(0, 1e6);
        run(&mut aimd, 1..21, 50_000, observed(Usage::Normal, 1e6));
        assert!((1.07e6..1.09e6).contains(&aimd.bps()), "{}", aimd.bps());
        run(&mut aimd, 21..401, 50_000, observed(Usage::Normal, 1e6));
        assert_eq!(aimd.bps(), 1.51e6);
        aimd.update(21_000_000, observed(Usage::Normal, 0.1e6));
        assert_eq!(aimd.bps(), 1.51e6);
    }

    #[test]
    fn overuse_takes_it_below_what_got_through_once_per_round_trip() {
        let mut aimd = Aimd::new(0, 2e6);
        aimd.update(100_000, observed(Usage::Over, 1e6));
        assert_eq!(aimd.bps(), 0.85e6);
        aimd.update(110_000, observed(Usage::Over, 0.8e6));
        assert_eq!(aimd.bps(), 0.85e6);
        aimd.update(200_000, observed(Usage::Over, 0.8e6));
        assert_eq!(aimd.bps(), 0.68e6);
        // The capacity is known now: small steps.
        aimd.update(1_200_000, observed(Usage::Normal, 0.68e6));
        assert!((0.69e6..0.75e6).contains(&aimd.bps()), "{}", aimd.bps());
    }

    #[test]
    fn who_sends_little_loses_half_at_most_at_once() {
        let mut aimd = Aimd::new(0, 4e6);
        let limited = Observed { is_app_limited: true, ..observed(Usage::Over, 0.3e6) };
        aimd.update(100_000, limited);
        aimd.update(120_000, limited);
        assert_eq!(aimd.bps(), 2e6);
        run(&mut aimd, 2..20, 100_000, limited);
        assert_eq!(aimd.bps(), 0.255e6);
    }

    #[test]
    fn a_full_queue_is_overuse_though_its_delay_stands_still() {
        let mut aimd = Aimd::new(0, 2e6);
        let full = Observed { queue_us: 200_000, ..observed(Usage::Normal, 2e6) };
        aimd.update(100_000, full);
        assert_eq!((aimd.bps(), aimd.budget_bps()), (1.7e6, 1.5e6));
    }

    #[test]
    fn a_queue_is_emptied_first() {
        let mut aimd = Aimd::new(0, 2e6);
        aimd.update(100_000, Observed { queue_us: 300_000, ..observed(Usage::Over, 1e6) });
        assert_eq!((aimd.bps(), aimd.budget_bps()), (0.85e6, 0.625e6));
        aimd.update(200_000, Observed { queue_us: 200_000, ..observed(Usage::Normal, 1e6) });
        assert_eq!((aimd.budget_bps(), aimd.is_draining()), (0.625e6, true));
        aimd.update(900_000, Observed { queue_us: 10_000, ..observed(Usage::Under, 0.7e6) });
        assert_eq!((aimd.bps(), aimd.budget_bps()), (0.85e6, 0.85e6));
    }

    #[test]
    fn a_queue_that_does_not_empty_is_the_path() {
        let mut aimd = Aimd::new(0, 2e6);
        let long = Observed { queue_us: 200_000, ..observed(Usage::Normal, 1e6) };
        let answers: Vec<bool> = (1..22).map(|step| aimd.update(step * 100_000, long)).collect();
        assert_eq!(answers.iter().position(|is_path| *is_path), Some(20));
        assert_eq!(aimd.bps(), 0.85e6);
    }

    #[test]
    fn beside_who_fills_the_queue_losses_count_and_not_the_delay() {
        let mut aimd = Aimd::new(0, 2e6);
        let full = Observed { queue_us: 150_000, rtt_us: Some(200_000), ..observed(Usage::Normal, 1e6) };
        let lossy = Observed { loss: 0.01, ..full };
        run(&mut aimd, 1..25, 100_000, lossy);
        assert!(aimd.is_competing());
        let before = aimd.bps();
        run(&mut aimd, 25..35, 100_000, Observed { usage: Usage::Over, ..full });
        assert!((1.1e5..1.3e5).contains(&(aimd.bps() - before)), "{}", aimd.bps() - before);
        let before = aimd.bps();
        run(&mut aimd, 35..45, 100_000, lossy);
        assert_eq!(aimd.bps(), before * COMPETING_SHARE, "once");
        aimd.update(4_500_000, Observed { queue_us: 5_000, ..full });
        assert!(!aimd.is_competing(), "they have gone");
    }

    #[test]
    fn a_path_that_got_longer_is_found_out_at_last() {
        let mut aimd = Aimd::new(0, 2e6);
        let lossy = Observed { queue_us: 150_000, loss: 0.01, ..observed(Usage::Normal, 1e6) };
        let is_path = (1..400).find(|step| aimd.update(step * 100_000, lossy));
        assert!(is_path.is_some_and(|step| step > 300) && !aimd.is_competing(), "{is_path:?}");
    }

    #[test]
    fn what_a_queue_showed_is_kept_to() {
        let mut aimd = Aimd::new(0, 2e6);
        // Little got through before, and still the burst shows the path.
        let burst = Observed { busy_bps: Some(1.5e6), queue_us: 30_000, ..observed(Usage::Over, 0.4e6) };
        aimd.update(100_000, burst);
        assert_eq!(aimd.bps(), 1.5e6 * BETA_BUSY);
        run(&mut aimd, 2..200, 100_000, observed(Usage::Normal, 1.4e6));
        assert_eq!(aimd.bps(), 1.5e6 * MEASURED_FACTOR);
        run(&mut aimd, 200..300, 100_000, observed(Usage::Normal, 1.52e6));
        assert!(aimd.bps() > 1.6e6, "more gets through");
    }
}
