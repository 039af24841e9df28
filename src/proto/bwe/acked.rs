//! The rate at which the peer says it receives: what got through.
//!
//! Samples over [`WINDOW_US`] of arrival time, smoothed; a change that two samples in a row agree on is taken at once, so
//! that the rate is right soon after the path's capacity fell. libwebrtc's estimator weighs samples by their
//! surprise for the same reason; two agreeing ones are the simpler proof.
//!
//! Owns: one window. Promises: finite numbers. Forbids: sending times.

/// One sample: four or five pictures of a video at 30 a second.
const WINDOW_US: i64 = 150_000;

/// The first sample takes longer, for it stands alone.
const FIRST_WINDOW_US: i64 = 300_000;

/// Weight of a new sample.
const GAIN: f64 = 0.35;

/// A sample so far off, as a share of the estimate, may be a change and not noise.
const CHANGE: f64 = 0.25;

/// The estimator.
#[derive(Debug, Default)]
pub struct AckedRate {
    window_from_us: Option<i64>,
    bytes: u64,
    bps: Option<f64>,
    /// The last sample.
    last: f64,
    /// The sample before, if it lay far off.
    suspect: Option<f64>,
}

impl AckedRate {
    /// Notes an arrival.
    pub fn push(&mut self, arrival_us: i64, bytes: u32) {
        let from_us = *self.window_from_us.get_or_insert(arrival_us);
        let window_us = if self.bps.is_some() { WINDOW_US } else { FIRST_WINDOW_US };
        let elapsed_us = arrival_us - from_us;
        if elapsed_us >= window_us {
            self.sample(self.bytes as f64 * 8e6 / window_us as f64);
            // After a pause the window begins with what ended it; the pause itself counted as one window.
            let next_us = if elapsed_us < 2 * window_us { from_us + window_us } else { arrival_us };
            self.window_from_us = Some(next_us);
            self.bytes = 0;
        }
        self.bytes += u64::from(bytes);
    }

    /// What is being gathered is incomplete: begin a new window.
    pub fn restart_window(&mut self) {
        self.window_from_us = None;
        self.bytes = 0;
        self.suspect = None;
    }

    /// The rate, or the last sample if that is lower: when a path got worse this is the truth earlier.
    pub fn least_bps(&self) -> Option<f64> {
        self.bps.map(|bps| bps.min(self.last))
    }

    /// The rate, once there is one.
    pub fn bps(&self) -> Option<f64> {
        self.bps
    }

    fn sample(&mut self, sample: f64) {
        self.last = sample;
        let Some(bps) = self.bps else {
            self.bps = Some(sample);
            return;
        };
        let is_far = (sample - bps).abs() > CHANGE * bps;
        let confirmed = self.suspect.filter(|suspect| is_far && (*suspect > bps) == (sample > bps));
        self.suspect = if is_far && confirmed.is_none() { Some(sample) } else { None };
        self.bps = Some(match confirmed {
            Some(suspect) => (suspect + 2.0 * sample) / 3.0,
            None => bps + GAIN * (sample - bps),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(rate: &mut AckedRate, from_ms: i64, until_ms: i64, bytes_per_ms: u32) {
        (from_ms..until_ms).for_each(|ms| rate.push(ms * 1000, bytes_per_ms));
    }

    #[test]
    fn a_change_is_taken_when_two_samples_agree() {
        let mut rate = AckedRate::default();
        feed(&mut rate, 0, 299, 100);
        assert_eq!(rate.bps(), None);
        feed(&mut rate, 299, 1000, 100);
        assert_eq!(rate.bps().map(f64::round), Some(800_000.0));
        feed(&mut rate, 1000, 1500, 20);
        let bps = rate.bps().expect("a rate");
        assert!((150_000.0..260_000.0).contains(&bps), "{bps}");
    }

    #[test]
    fn a_gap_in_what_is_told_is_not_a_low_rate() {
        let mut rate = AckedRate::default();
        feed(&mut rate, 0, 1000, 100);
        rate.restart_window();
        feed(&mut rate, 1400, 2000, 100);
        assert_eq!(rate.bps().map(f64::round), Some(800_000.0));
    }
}
