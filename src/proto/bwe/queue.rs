//! How long is the queue that stands on the path?
//!
//! The least one-way delay of recent packets, less the least one of the last 10 to 20 s: a least one, because jitter only
//! adds (as CoDel measures a standing queue). The clocks of both ends may differ by any constant.
//!
//! Owns: two minima. Promises: constant memory. Forbids: judging.

/// After this time the older minimum is forgotten: a longer path is then no queue any more.
const BASE_WINDOW_US: u64 = 10_000_000;

/// A shorter one is none. Delays are then the path's own noise: jitter, our bursts, packets of all sizes.
const NONE_US: u64 = 15_000;

/// Weight of a feedback in that.
const NOISE_GAIN: f64 = 0.1;

/// More is no noise.
const NOISE_US_MAX: f64 = 25_000.0;

/// Above the noise by this, a packet has waited.
const WAITED_US: f64 = 10_000.0;

/// So much above the noise, a queue is one that stands; above three quarters as much again where the noise is large.
const STANDING_US: f64 = 3_000.0;
const NOISE_LARGE_US: f64 = 10_000.0;

/// The meter.
#[derive(Debug, Default)]
pub struct Queue {
    /// Least one-way delay of this window and of the one before.
    base: Option<(i64, i64)>,
    window_from_us: u64,
    /// Of the packets of this feedback.
    recent: Option<Recent>,
    queue_us: u64,
    noise_us: f64,
    /// Of a packet that has waited the delay is longer than this.
    waited_us: Option<i64>,
}

/// Delays of the packets of a feedback.
#[derive(Clone, Copy, Debug)]
struct Recent {
    least_us: i64,
    /// Above the first one.
    sum_us: i64,
    first_us: i64,
    packets: i64,
}

impl Queue {
    /// Notes a packet's arrival. Whether it found others before it.
    pub fn push(&mut self, sent_us: u64, arrival_us: i64) -> bool {
        let delay_us = arrival_us - sent_us as i64;
        let first = Recent { least_us: delay_us, sum_us: 0, first_us: delay_us, packets: 0 };
        let recent = self.recent.get_or_insert(first);
        recent.least_us = recent.least_us.min(delay_us);
        recent.sum_us = recent.sum_us.saturating_add(delay_us.saturating_sub(recent.first_us));
        recent.packets += 1;
        self.waited_us.is_some_and(|waited_us| delay_us > waited_us)
    }

    /// A feedback was read to its end. `is_others`: a queue that others made is remembered as one.
    pub fn update(&mut self, now_us: u64, is_others: bool) {
        let Some(Recent { least_us: recent, sum_us, first_us, packets }) = self.recent.take() else { return };
        let (mut window, mut before) = self.base.unwrap_or((recent, recent));
        if now_us.saturating_sub(self.window_from_us) > BASE_WINDOW_US && !is_others {
            (window, before) = (recent, window);
            self.window_from_us = now_us;
        }
        window = window.min(recent);
        self.base = Some((window, before));
        self.queue_us = recent.saturating_sub(window.min(before)).max(0) as u64;
        if self.queue_us <= NONE_US {
            let above_us = sum_us / packets - recent.saturating_sub(first_us);
            self.noise_us += NOISE_GAIN * ((above_us as f64).min(NOISE_US_MAX) - self.noise_us);
        }
        self.waited_us = Some(window.min(before).saturating_add((WAITED_US + 2.0 * self.noise_us) as i64));
    }

    /// How much later packets arrive than the fastest, on the average, while there is no queue.
    pub fn noise_us(&self) -> f64 {
        self.noise_us
    }

    /// It is more than noise; `is_certain`: far more.
    pub fn is_standing(&self, is_certain: bool) -> bool {
        let times = match self.noise_us > NOISE_LARGE_US {
            _ if is_certain => 2.0,
            true => 1.75,
            false => 1.0,
        };
        self.queue_us as f64 > STANDING_US + self.noise_us * times
    }

    /// Its length in time.
    pub fn queue_us(&self) -> u64 {
        self.queue_us
    }

    /// The other end's clock jumped, or the path changed.
    pub fn restart(&mut self) {
        *self = Self { noise_us: self.noise_us, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_what_even_the_fastest_packet_waits() {
        let mut queue = Queue::default();
        let mut feedback = |now_us: u64, delays: [i64; 2]| {
            delays.into_iter().for_each(|delay| {
                queue.push(now_us, now_us as i64 - 7_000_000 + delay);
            });
            queue.update(now_us, false);
            queue.queue_us()
        };
        assert_eq!(feedback(1_000_000, [20_000, 70_000]), 0);
        assert_eq!(feedback(1_100_000, [80_000, 60_000]), 40_000);
        assert_eq!(feedback(1_200_000, [10_000, 90_000]), 0);
        assert_eq!(feedback(1_300_000, [60_000, 90_000]), 50_000);
        // A longer path is taken for a queue until the windows have passed.
        assert_eq!(feedback(12_000_000, [60_000, 60_000]), 50_000);
        assert_eq!(feedback(23_000_000, [60_000, 60_000]), 0);
    }

    #[test]
    fn jitter_is_no_queue_but_what_exceeds_it_is() {
        let mut queue = Queue::default();
        let mut seed = 1u32;
        let mut feedback = |queue: &mut Queue, now_us: u64, more_us: i64| {
            for packet in 0..10u64 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let jitter_us = i64::from(seed >> 8) * 50_000 / (1 << 24);
                queue.push(now_us + packet, (now_us + packet) as i64 + 20_000 + jitter_us + more_us);
            }
            queue.update(now_us, false);
        };
        (0..100).for_each(|at| feedback(&mut queue, at * 100_000, 0));
        assert!((10_000.0..25_000.0).contains(&queue.noise_us()), "{}", queue.noise_us());
        assert!(!queue.push(10_000_000, 10_000_000 + 20_000 + 40_000), "not before others");
        feedback(&mut queue, 10_100_000, 15_000);
        assert!(!queue.is_standing(true));
        feedback(&mut queue, 10_200_000, 80_000);
        assert!(queue.is_standing(true) && queue.push(10_300_000, 10_300_000 + 110_000));
    }
}
