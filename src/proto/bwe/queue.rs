//! How long is the queue that stands on the path?
//!
//! The least one-way delay of recent packets, less the least one of the last 10 to 20 s: a least one, because jitter only
//! adds (as CoDel measures a standing queue). The clocks of both ends may differ by any constant.
//!
//! Owns: two minima. Promises: constant memory. Forbids: judging.

/// After this time the older minimum is forgotten: a longer path is then no queue any more.
const BASE_WINDOW_US: u64 = 10_000_000;

/// The meter.
#[derive(Debug, Default)]
pub struct Queue {
    /// Least one-way delay of this window and of the one before.
    base: Option<(i64, i64)>,
    window_from_us: u64,
    /// Of the packets of this feedback.
    recent: Option<i64>,
    queue_us: u64,
}

impl Queue {
    /// Notes a packet's arrival.
    pub fn push(&mut self, sent_us: u64, arrival_us: i64) {
        let delay_us = arrival_us - sent_us as i64;
        self.recent = Some(self.recent.map_or(delay_us, |recent| recent.min(delay_us)));
    }

    /// A feedback was read to its end.
    pub fn update(&mut self, now_us: u64) {
        let Some(recent) = self.recent.take() else { return };
        let (mut window, mut before) = self.base.unwrap_or((recent, recent));
        if now_us.saturating_sub(self.window_from_us) > BASE_WINDOW_US {
            (window, before) = (recent, window);
            self.window_from_us = now_us;
        }
        window = window.min(recent);
        self.base = Some((window, before));
        self.queue_us = recent.saturating_sub(window.min(before)).max(0) as u64;
    }

    /// Its length in time.
    pub fn queue_us(&self) -> u64 {
        self.queue_us
    }

    /// The other end's clock jumped, or the path changed.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_what_even_the_fastest_packet_waits() {
        let mut queue = Queue::default();
        let mut feedback = |now_us: u64, delays: [i64; 2]| {
            delays.into_iter().for_each(|delay| queue.push(now_us, now_us as i64 - 7_000_000 + delay));
            queue.update(now_us);
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
}
