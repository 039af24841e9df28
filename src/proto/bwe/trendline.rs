//! Does the delay rise? (draft-ietf-rmcat-gcc-02 §5.3 to 5.5, with libwebrtc's trendline in place of the Kalman filter.)
//!
//! The one-way delay's changes are summed and smoothed; a line is fitted through the last of them, and its slope is held
//! against a threshold that follows the path's own noise (Carlucci et al., "Analysis and design of the Google congestion
//! control for WebRTC"), else jitter would starve the flow, and so would a competing flow that fills the queue.
//!
//! Owns: the samples and the threshold. Promises: fixed memory. Forbids: rates.

use super::groups::GroupDelta;

/// Samples that the line is fitted through.
const WINDOW: usize = 20;

/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;

/// Scales a slope (ms per ms) to what the threshold is compared with, together with the number of samples...
const GAIN: f64 = 4.0;

/// ... up to this one.
const SAMPLES_MAX: u32 = 60;

/// Where the threshold starts, and its bounds.
const THRESHOLD_START: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;

/// How fast the threshold follows a trend above it and below it, per ms.
const GAIN_UP: f64 = 0.0087;
const GAIN_DOWN: f64 = 0.039;

/// A trend so far above the threshold is a change of capacity, which the threshold does not follow.
const OUTLIER: f64 = 15.0;

/// One step of the threshold is for so much time at most.
const STEP_MS_MAX: f64 = 100.0;

/// The trend has to stay above the threshold for this time.
const OVERUSE_MS: f64 = 10.0;

/// What the link does with what we send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// The delay stays as it is.
    #[default]
    Normal,
    /// The delay falls: a queue empties.
    Under,
    /// The delay rises: we send more than leaves.
    Over,
}

/// The detector.
#[derive(Debug)]
pub struct Trendline {
    /// Arrival in ms since the first sample, and the smoothed delay in ms.
    points: [(f64, f64); WINDOW],
    samples: u32,
    /// Arrival of the first sample.
    first_at_us: Option<i64>,
    delay_ms: f64,
    smoothed_ms: f64,
    threshold: f64,
    last_at_ms: f64,
    trend: f64,
    /// For how long, and for how many samples, the trend has been above the threshold.
    over_ms: f64,
    over_samples: u32,
    usage: Usage,
}

impl Trendline {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            samples: 0,
            first_at_us: None,
            delay_ms: 0.0,
            smoothed_ms: 0.0,
            threshold: THRESHOLD_START,
            last_at_ms: 0.0,
            trend: 0.0,
            over_ms: 0.0,
            over_samples: 0,
            usage: Usage::Normal,
        }
    }

    /// Forgets the path but not its noise.
    pub fn restart(&mut self) {
        *self = Self { threshold: self.threshold.max(THRESHOLD_START), ..Self::new() };
    }

    /// What the link does.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes the next delta of two groups.
    pub fn push(&mut self, delta: GroupDelta) {
        let at_ms = (delta.at_us - *self.first_at_us.get_or_insert(delta.at_us)) as f64 / 1000.0;
        let send_ms = delta.send_us as f64 / 1000.0;
        self.delay_ms += delta.arrival_us as f64 / 1000.0 - send_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.delay_ms;
        self.points[self.samples as usize % WINDOW] = (at_ms, self.smoothed_ms);
        self.samples = if self.samples as usize >= 1000 * WINDOW { 999 * WINDOW as u32 } else { self.samples };
        self.samples += 1;
        let trend = if self.samples as usize >= WINDOW { self.slope().unwrap_or(self.trend) } else { self.trend };
        self.detect(trend, send_ms, at_ms);
    }

    /// Least squares over the window; `None` when all arrived at one moment.
    fn slope(&self) -> Option<f64> {
        let count = WINDOW as f64;
        let (x_sum, y_sum) = self.points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (x_mean, y_mean) = (x_sum / count, y_sum / count);
        let (xy, xx) = self.points.iter().fold((0.0, 0.0), |(xy, xx), (x, y)| {
            let dx = x - x_mean;
            (xy + dx * (y - y_mean), xx + dx * dx)
        });
        (xx > 0.0).then(|| xy / xx)
    }

    fn detect(&mut self, trend: f64, send_ms: f64, at_ms: f64) {
        let scaled = f64::from(self.samples.min(SAMPLES_MAX)) * trend * GAIN;
        if scaled > self.threshold {
            // The first sample above it may have been so for half of its time.
            self.over_ms += if self.over_samples == 0 { send_ms / 2.0 } else { send_ms };
            self.over_samples += 1;
            if self.over_ms > OVERUSE_MS && self.over_samples > 1 && trend >= self.trend {
                (self.over_ms, self.over_samples) = (0.0, 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_ms, self.over_samples) = (0.0, 0);
            self.usage = if scaled < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.trend = trend;
        self.adapt(scaled.abs(), at_ms);
    }

    fn adapt(&mut self, scaled: f64, at_ms: f64) {
        let step_ms = (at_ms - self.last_at_ms).clamp(0.0, STEP_MS_MAX);
        self.last_at_ms = at_ms;
        if scaled > self.threshold + OUTLIER {
            return;
        }
        let gain = if scaled < self.threshold { GAIN_DOWN } else { GAIN_UP };
        self.threshold += gain * (scaled - self.threshold) * step_ms;
        self.threshold = self.threshold.clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says after groups every 10 ms whose delay grows by `growth_us(n)` with each.
    fn after(count: i64, growth_us: impl Fn(i64) -> i64) -> Usage {
        let mut trendline = Trendline::new();
        let mut at_us = 0;
        for group in 0..count {
            let arrival_us = 10_000 + growth_us(group);
            at_us += arrival_us;
            trendline.push(GroupDelta { send_us: 10_000, arrival_us, at_us });
        }
        trendline.usage()
    }

    #[test]
    fn a_growing_delay_is_overuse_and_a_falling_one_underuse() {
        assert_eq!(after(100, |_| 0), Usage::Normal);
        assert_eq!(after(60, |group| if group > 30 { 2_000 } else { 0 }), Usage::Over);
        assert_eq!(after(60, |group| if group > 30 { -2_000 } else { 0 }), Usage::Under);
    }

    #[test]
    fn jitter_around_one_delay_is_not_overuse() {
        assert_eq!(after(400, |group| if group % 2 == 0 { 9_000 } else { -9_000 }), Usage::Normal);
    }

    #[test]
    fn hostile_deltas_leave_numbers_finite() {
        let mut trendline = Trendline::new();
        for at in 0..200 {
            let sign = if at % 3 == 0 { -1 } else { 1 };
            trendline.push(GroupDelta { send_us: at, arrival_us: sign * (1 << 50), at_us: sign * (1 << 55) });
        }
        assert!(trendline.threshold.is_finite() && trendline.smoothed_ms.is_finite());
    }
}
