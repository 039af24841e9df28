//! Peers without transport-wide feedback: what REMB says, else what receiver reports say.
//!
//! Owns: the last REMB, and a rate by the classic rule (draft-ietf-rmcat-gcc-02 §7). Promises: a few words of memory.
//! Forbids: anything per packet.

use std::time::{Duration, Instant};

use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};

/// A REMB is repeated every second; one so old speaks of another time.
const REMB_AGE_MAX: Duration = Duration::from_secs(10);

/// Below the first the rate grows, above the second it falls.
const LOSS_LOW: f32 = 0.02;
const LOSS_HIGH: f32 = 0.1;

/// Growth per second.
const GROWTH: f64 = 1.08;

/// One decrease per round trip and this time, in which its effect is not reported yet.
const DECREASE_INTERVAL: Duration = Duration::from_millis(300);

/// Reports are at most so far apart for growth.
const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Without knowing what gets through, the rate grows up to this multiple of what is sent.
const SENT_FACTOR: f64 = 2.0;

/// The two fallbacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fallback {
    remb: Option<(Instant, f64)>,
    /// By reports, and when it was changed.
    reports: Option<(Instant, f64)>,
    decreased: Option<Instant>,
    loss: f32,
    rtt: Option<Duration>,
}

impl Fallback {
    /// A REMB came.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        self.remb = Some((now, (bps as f64).clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS)));
    }

    /// A report came; the first that counts is one of losses. `sent_bps` is what we send.
    pub fn handle_report(&mut self, now: Instant, loss: f32, rtt: Option<Duration>, start_bps: f64, sent_bps: f64) {
        self.rtt = rtt.or(self.rtt);
        self.loss = if loss.is_finite() { loss.clamp(0.0, 1.0) } else { 0.0 };
        // Who sends nothing else is not held back before it has losses to report.
        if self.reports.is_none() && self.loss <= LOSS_HIGH {
            return;
        }
        let (since, bps) = self.reports.unwrap_or((now, start_bps.max(sent_bps)));
        let elapsed = now.saturating_duration_since(since);
        let pause = DECREASE_INTERVAL + self.rtt.unwrap_or_default();
        let may_decrease = self.decreased.is_none_or(|at| now.saturating_duration_since(at) >= pause);
        let bps = if self.loss > LOSS_HIGH && may_decrease {
            self.decreased = Some(now);
            bps * (1.0 - 0.5 * f64::from(self.loss))
        } else if self.loss < LOSS_LOW {
            let grown = bps * GROWTH.powf(elapsed.min(REPORT_INTERVAL_MAX).as_secs_f64());
            grown.min((SENT_FACTOR * sent_bps).max(bps))
        } else {
            bps
        };
        self.reports = Some((now, bps.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS)));
    }

    /// What the peer's own estimator allows, if it said so lately.
    pub fn remb_bps(&self, now: Instant) -> Option<f64> {
        self.remb.filter(|(at, _)| now.saturating_duration_since(*at) < REMB_AGE_MAX).map(|(_, bps)| bps)
    }

    /// The estimate of a peer that gives no transport-wide feedback.
    pub fn estimate_bps(&self, now: Instant) -> Option<f64> {
        self.remb_bps(now).or(self.reports.map(|(_, bps)| bps)).or(self.remb.map(|(_, bps)| bps))
    }

    /// When the last REMB stops to count.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.remb.map(|(at, _)| at + REMB_AGE_MAX).filter(|at| *at > now)
    }

    /// Share lost by the last report.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// Round trip by the last report that had one.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(count: u32) -> Duration {
        Duration::from_secs(1) * count
    }

    #[test]
    fn reports_move_the_rate_by_their_loss() {
        let t0 = crate::runtime::clock::now();
        let mut fallback = Fallback::default();
        assert_eq!(fallback.estimate_bps(t0), None);
        fallback.handle_report(t0, 0.05, None, 1e6, 2e6);
        assert_eq!(fallback.estimate_bps(t0), None, "no reason to hold anything back");
        fallback.handle_report(t0, 0.5, None, 1e6, 2e6);
        fallback.handle_report(t0, 0.5, None, 1e6, 2e6);
        assert_eq!(fallback.estimate_bps(t0), Some(1.5e6));
        fallback.handle_report(t0 + second(1), 0.01, None, 1e6, 2e6);
        assert_eq!(fallback.estimate_bps(t0), Some(1.62e6));
        fallback.handle_report(t0 + second(2), 0.05, None, 1e6, 1e6);
        assert_eq!(fallback.estimate_bps(t0), Some(1.62e6));
        fallback.handle_report(t0 + second(3), f32::NAN, None, 1e6, 0.2e6);
        assert_eq!(fallback.estimate_bps(t0), Some(1.62e6), "not beyond what is proved");
    }

    #[test]
    fn a_remb_counts_before_reports_until_it_is_old() {
        let t0 = crate::runtime::clock::now();
        let mut fallback = Fallback::default();
        fallback.handle_remb(t0, 400_000);
        fallback.handle_report(t0, 0.2, None, 1e6, 1e6);
        assert_eq!(fallback.estimate_bps(t0 + second(9)), Some(0.4e6));
        assert_eq!(fallback.estimate_bps(t0 + second(10)).map(f64::round), Some(0.9e6));
        fallback.handle_remb(t0, u64::MAX);
        assert_eq!(fallback.remb_bps(t0), Some(ESTIMATE_MAX_BPS));
    }
}
