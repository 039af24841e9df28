//! Loss-based limit: is what gets lost lost because we send too much?
//!
//! The classic rule (draft-ietf-rmcat-gcc-02 §7: up below 2 %, down above 10 %) starves a radio link that loses one packet
//! in ten whatever is sent. libwebrtc's second loss-based estimator asks instead which *bandwidth* and which *inherent loss*
//! explain best what was seen at the rates of the last seconds; so do we, in our own and smaller way. Each observation
//! is a rate and how many of how many packets were lost. For a bandwidth B and an inherent loss p, a packet sent at rate s
//! survives with (1 - p) · min(1, B / s). Some B are tried, unlimited among them; for each the likeliest p is found by
//! expectation maximisation, and the likeliest pair wins. While only one rate has been seen, a limit and inherent loss
//! explain it equally well: then slight evidence against high inherent loss, which was learned slowly, decides for
//! the limit. The rate falls a little, which *is* the experiment: if the loss stays, it is inherent, and the limit goes.
//!
//! Owns: the observations of about 8 s. Promises: fixed memory, no limit below 2 % of loss. Forbids: delay.

use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};

/// Observations kept; with [`FADING`] the last of them weighs a twentieth.
const WINDOW: usize = 32;

/// Weight of an observation against the next one.
const FADING: f64 = 0.91;

/// An observation is what was sent in this time...
const OBSERVATION_US: u64 = 250_000;

/// ... or longer, until it has so many packets, but not beyond this time.
const PACKETS_MIN: u32 = 20;
const OBSERVATION_US_MAX: u64 = 1_000_000;

/// When nothing sent within this time arrives, the path is broken and not loaded.
const OUTAGE_US: u64 = 400_000;

/// Loss that is never taken for congestion (the draft's threshold for growth).
const LOSS_HARMLESS: f64 = 0.02;

/// The prior belief in the inherent loss counts like so many packets, and starts here.
const PRIOR_PACKETS: f64 = 40.0;
const PRIOR_LOSS: f64 = 0.005;

/// How fast the prior follows what was found.
const PRIOR_GAIN: f64 = 0.1;

/// The least and the highest inherent loss believed in.
const INHERENT_MIN: f64 = 0.001;
const INHERENT_MAX: f64 = 0.5;

/// Natural logarithm of the odds at which a limit is taken, and at which it is dropped at once. It is asked several times a
/// second, so the odds have to be long: chance alone makes one packet in ten of one in twenty now and then.
const LIKELIER: f64 = 3.0;
const SURE: f64 = 3.0;

/// One observation lowers the limit to this share of it at most: where little is sent, what gets through is little.
const FALL_MIN: f64 = 0.75;

/// Growth of a limit that is neither confirmed nor refuted, per observation: an eighth per second.
const GROWTH: f64 = 1.03;

/// Steps of the expectation maximisation, fewer once one changes nothing to speak of.
const EM_STEPS: usize = 5;
const EM_CLOSE: f64 = 1e-4;

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    bps: f64,
    packets: f64,
    lost: f64,
}

/// The estimator.
#[derive(Debug)]
pub struct LossBased {
    observations: [Observation; WINDOW],
    count: usize,
    gathering: Gathering,
    /// Of the run of losses that goes on.
    lost_since_us: Option<u64>,
    prior_loss: f64,
    /// Loss share of the last second or so.
    loss: f64,
    limit_bps: Option<f64>,
}

/// The observation being made.
#[derive(Clone, Copy, Debug, Default)]
struct Gathering {
    from_us: Option<u64>,
    bytes: u64,
    packets: u32,
    lost: u32,
}

impl LossBased {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self {
            observations: [Observation::default(); WINDOW],
            count: 0,
            gathering: Gathering::default(),
            lost_since_us: None,
            prior_loss: PRIOR_LOSS,
            loss: 0.0,
            limit_bps: None,
        }
    }

    /// The highest rate that loss allows; `None`: any.
    pub fn limit_bps(&self) -> Option<f64> {
        self.limit_bps
    }

    /// Share of packets lost lately.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// Share of packets that is believed to get lost whatever is sent.
    pub fn inherent_loss(&self) -> f64 {
        self.prior_loss
    }

    /// Notes a packet's fate, in the order of sending; `target_bps` is the rate aimed at.
    pub fn push(&mut self, sent_us: u64, bytes: u32, is_lost: bool, target_bps: f64) {
        if is_lost {
            let since_us = *self.lost_since_us.get_or_insert(sent_us);
            if sent_us.saturating_sub(since_us) > OUTAGE_US {
                self.gathering = Gathering::default();
                return;
            }
        } else {
            self.lost_since_us = None;
        }
        let from_us = *self.gathering.from_us.get_or_insert(sent_us);
        let elapsed_us = sent_us.saturating_sub(from_us);
        let is_enough = elapsed_us >= OBSERVATION_US && self.gathering.packets >= PACKETS_MIN;
        // A run of losses may become an outage: what ends an observation is an arrival.
        if !is_lost && (is_enough || elapsed_us >= OBSERVATION_US_MAX) {
            self.observe(elapsed_us, target_bps);
            self.gathering = Gathering { from_us: Some(sent_us), ..Gathering::default() };
        }
        self.gathering.bytes += u64::from(bytes);
        self.gathering.packets += 1;
        self.gathering.lost += u32::from(is_lost);
    }

    /// A packet reported lost came after all.
    pub fn handle_recovered(&mut self) {
        self.gathering.lost = self.gathering.lost.saturating_sub(1);
    }

    fn observe(&mut self, elapsed_us: u64, target_bps: f64) {
        let Gathering { bytes, packets, lost, .. } = self.gathering;
        let observation = Observation {
            bps: bytes as f64 * 8e6 / elapsed_us as f64,
            packets: f64::from(packets),
            lost: f64::from(lost.min(packets)),
        };
        self.observations.rotate_right(1);
        self.observations[0] = observation;
        self.count = (self.count + 1).min(WINDOW);
        let recent = &self.observations[..self.count.min(4)];
        let (lost, all) = recent.iter().fold((0.0, 0.0), |sum, each| (sum.0 + each.lost, sum.1 + each.packets));
        self.loss = lost / f64::max(all, 1.0);
        self.decide(observation, target_bps);
    }

    fn decide(&mut self, last: Observation, target_bps: f64) {
        let (unlimited, inherent) = self.explain(f64::INFINITY);
        if self.loss <= LOSS_HARMLESS {
            self.prior_loss += PRIOR_GAIN * (inherent - self.prior_loss);
            self.release(target_bps, false);
            return;
        }
        // What got through, at the share of packets that a link with inherent loss would let through.
        let through_bps = last.bps * (1.0 - last.lost / last.packets.max(1.0)) / (1.0 - self.prior_loss);
        let limit_bps = self.limit_bps.unwrap_or(target_bps);
        let (mut best, mut best_bps, mut best_inherent) = (f64::NEG_INFINITY, limit_bps, inherent);
        // Only what lies below the rates just sent can explain a loss by them.
        for bps in [through_bps, through_bps * 0.95] {
            let bps = bps.clamp(ESTIMATE_MIN_BPS, limit_bps.max(ESTIMATE_MIN_BPS));
            let (likelihood, inherent) = self.explain(bps);
            if likelihood > best {
                (best, best_bps, best_inherent) = (likelihood, bps, inherent);
            }
        }
        if best > unlimited + LIKELIER {
            self.limit_bps = Some(best_bps.max(limit_bps * FALL_MIN));
            self.prior_loss += PRIOR_GAIN * (best_inherent - self.prior_loss);
        } else {
            self.prior_loss += PRIOR_GAIN * (inherent - self.prior_loss);
            self.release(target_bps, unlimited - best > SURE);
        }
    }

    fn release(&mut self, target_bps: f64, is_sure: bool) {
        let Some(limit_bps) = self.limit_bps else { return };
        let raised_bps = limit_bps * GROWTH;
        // Once it binds no longer there is nothing to limit.
        let is_free = raised_bps > target_bps * 1.5 || raised_bps >= ESTIMATE_MAX_BPS;
        self.limit_bps = if is_sure || is_free { None } else { Some(raised_bps) };
    }

    /// How well a bandwidth explains what was seen, and the inherent loss that belongs to it.
    fn explain(&self, bandwidth_bps: f64) -> (f64, f64) {
        let seen = &self.observations[..self.count];
        let mut inherent = self.prior_loss.max(INHERENT_MIN);
        for _ in 0..EM_STEPS {
            let (mut lost, mut all, mut weight) = (PRIOR_PACKETS * self.prior_loss, PRIOR_PACKETS, 1.0);
            for each in seen {
                if each.lost == 0.0 {
                    all += weight * each.packets;
                    weight *= FADING;
                    continue;
                }
                let excess = each.excess(bandwidth_bps);
                let loss = inherent + (1.0 - inherent) * excess;
                lost += weight * each.lost * inherent / loss;
                // What the queue dropped is dropped before the radio had its chance.
                all += weight * (each.packets - each.lost * (1.0 - inherent / loss));
                weight *= FADING;
            }
            let before = std::mem::replace(&mut inherent, (lost / all).clamp(INHERENT_MIN, INHERENT_MAX));
            if (inherent - before).abs() < EM_CLOSE {
                break;
            }
        }
        let kept = PRIOR_PACKETS * (1.0 - self.prior_loss);
        let mut likelihood = PRIOR_PACKETS * self.prior_loss * inherent.ln() + kept * (1.0 - inherent).ln();
        let mut weight = 1.0;
        for each in seen {
            let loss = inherent + (1.0 - inherent) * each.excess(bandwidth_bps);
            likelihood += weight * (each.lost * loss.ln() + (each.packets - each.lost) * (1.0 - loss).ln());
            weight *= FADING;
        }
        (likelihood, inherent)
    }
}

impl Observation {
    /// Share of what was sent that exceeds a bandwidth; never all of it.
    fn excess(&self, bandwidth_bps: f64) -> f64 {
        (1.0 - bandwidth_bps / self.bps.max(1.0)).clamp(0.0, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for so many seconds at what is allowed, at most `most_bps`; loses by `loss(rate)`. Returns the rates.
    fn run(loss_based: &mut LossBased, most_bps: f64, seconds: u64, loss: impl Fn(f64) -> f64) -> Vec<f64> {
        let (mut random, mut due, mut rates) = (7u64, 0.0, vec![]);
        let mut sent_us = 0;
        while sent_us < seconds * 1_000_000 {
            let bps = loss_based.limit_bps().unwrap_or(most_bps).min(most_bps);
            due += 9600.0 / bps * 1e6;
            sent_us = due as u64;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let is_lost = (random >> 11) as f64 / (1u64 << 53) as f64 <= loss(bps);
            loss_based.push(sent_us, 1200, is_lost, most_bps);
            rates.push(bps);
        }
        rates
    }

    fn mean(rates: &[f64]) -> f64 {
        rates.iter().sum::<f64>() / rates.len() as f64
    }

    #[test]
    fn loss_that_does_not_depend_on_the_rate_is_no_reason_to_send_less() {
        for share in [0.01, 0.05, 0.1, 0.2] {
            let rates = run(&mut LossBased::new(), 2e6, 60, |_| share);
            assert!(mean(&rates) > 1.7e6, "{share}: {}", mean(&rates));
        }
    }

    #[test]
    fn loss_that_comes_with_the_rate_brings_it_down_to_what_gets_through() {
        let mut loss_based = LossBased::new();
        let rates = run(&mut loss_based, 2e6, 30, |bps| (1.0 - 0.8e6 / bps).max(0.0));
        let settled = mean(&rates[rates.len() / 4..]);
        assert!((0.7e6..1.1e6).contains(&settled), "{settled}");
        // It comes with the rate, on top of loss that does not.
        let mut loss_based = LossBased::new();
        let rates = run(&mut loss_based, 2e6, 60, |bps| 1.0 - 0.95 * (0.8e6 / bps).min(1.0));
        let settled = mean(&rates[rates.len() / 4..]);
        assert!((0.65e6..1.2e6).contains(&settled), "{settled}");
    }

    #[test]
    fn an_outage_says_nothing_about_the_rate() {
        let mut loss_based = LossBased::new();
        run(&mut loss_based, 2e6, 5, |_| 0.0);
        for packet in 0..400 {
            loss_based.push(5_000_000 + packet * 5_000, 1200, true, 2e6);
        }
        for packet in 400..800 {
            loss_based.push(5_000_000 + packet * 5_000, 1200, false, 2e6);
        }
        assert_eq!(loss_based.limit_bps(), None);
    }
}
