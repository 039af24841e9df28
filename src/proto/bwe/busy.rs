//! What does the path carry while a queue stands on it?
//!
//! While packets wait, the path is never idle: what arrives in this time, divided by it, is what the path has for us, however
//! much or little is sent on the average. So a keyframe that is paced faster than the path shows its rate, where
//! the mean of what got through shows only how little was sent before.
//!
//! Owns: the run of waiting packets that goes on, and what the last one showed. Promises: constant memory.
//! Forbids: judging whether the queue is ours.

/// Fewer packets, or a shorter time, measure nothing.
const PACKETS_MIN: u32 = 5;
const SPAN_US_MIN: i64 = 25_000;

/// A run is measured anew after this time, for the path may change meanwhile; what it showed is forgotten so long after.
const SPAN_US_MAX: i64 = 120_000;
const AGE_US_MAX: i64 = 300_000;

/// The meter.
#[derive(Debug, Default)]
pub struct BusyRate {
    /// Arrival of the first packet that waited, and what came since.
    from_us: Option<i64>,
    last_us: i64,
    packets: u32,
    bytes: u64,
    /// What a run showed, and when.
    measured: Option<(i64, f64)>,
}

impl BusyRate {
    /// Notes an arrival; `has_waited`: the packet found others before it.
    pub fn push(&mut self, arrival_us: i64, bytes: u32, has_waited: bool) {
        if !has_waited || arrival_us < self.last_us {
            self.restart();
            return;
        }
        self.last_us = arrival_us;
        let from_us = *self.from_us.get_or_insert(arrival_us);
        if arrival_us == from_us {
            return;
        }
        self.packets += 1;
        self.bytes += u64::from(bytes);
        let span_us = arrival_us - from_us;
        if self.packets >= PACKETS_MIN && span_us >= SPAN_US_MIN {
            self.measured = Some((arrival_us, self.bytes as f64 * 8e6 / span_us as f64));
        }
        if span_us >= SPAN_US_MAX {
            self.restart();
            (self.from_us, self.last_us) = (Some(arrival_us), arrival_us);
        }
    }

    /// What was measured lately, if anything was; the time is that of the last arrival.
    pub fn bps(&self, arrival_us: i64) -> Option<f64> {
        self.measured.filter(|(at_us, _)| arrival_us.saturating_sub(*at_us) < AGE_US_MAX).map(|(_, bps)| bps)
    }

    /// What comes next has nothing to do with what came before.
    pub fn restart(&mut self) {
        *self = Self { measured: self.measured, ..Self::default() };
    }

    /// Nor does what was measured hold any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_shows_the_rate_of_the_path_and_not_the_mean() {
        let mut busy = BusyRate::default();
        (0..20).for_each(|picture| busy.push(picture * 33_000, 600, false));
        assert_eq!(busy.bps(660_000), None);
        // Ten packets every 4 ms: 2.4 Mbit/s.
        (0..=10).for_each(|packet| busy.push(700_000 + packet * 4_000, 1200, packet > 0));
        assert_eq!(busy.bps(800_000), Some(2_400_000.0));
        assert_eq!(busy.bps(1_100_000), None, "that was then");
    }

    #[test]
    fn few_packets_show_nothing() {
        let mut busy = BusyRate::default();
        (0..5).for_each(|packet| busy.push(packet * 8_000, 1200, true));
        assert_eq!(busy.bps(40_000), None);
        busy.push(i64::MIN, 1200, true);
        busy.push(i64::MAX, 1200, true);
        assert_eq!(busy.bps(i64::MAX), None);
    }
}
