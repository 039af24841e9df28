//! How long fresh packets wait for others, so that trains grow.
//!
//! An idle worker sends at once: nothing is saved by waiting, and every packet would be late. A busy one forwards no
//! sooner than so long after it last began to, and what comes meanwhile leaves in the same trains, for less. Turns that
//! take longer by themselves are not held. Owns: the share of its core that the worker's thread used lately.
//! Promises: nothing waits longer than the setting; told the time like everything.
//! Forbids: all but forwarded media; checks, handshakes and feedback never pass here.

use std::time::{Duration, Instant};

/// Share of time at work from which on a worker counts as busy. Below it the core has time to spare, and the wait would
/// only be felt.
const BUSY_SHARE: f32 = 0.5;
/// Packets of publishers that wait at most: what is more makes trains long enough, and the turn too long.
const PACKETS_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Hold {
    max: Duration,
    busy_share: f32,
    /// When the share was taken last, and the CPU time used until then.
    taken: Option<(Instant, Duration)>,
    /// When packets were forwarded last.
    forwarded_at: Option<Instant>,
    /// Packets wait.
    is_on: bool,
}

impl Hold {
    /// Holds for at most `max`; zero: never.
    pub fn new(max: Duration) -> Self {
        Self { max, busy_share: 0.0, taken: None, forwarded_at: None, is_on: false }
    }

    /// CPU time that the worker's thread has used so far: what it does itself and what the kernel does in its name.
    pub fn handle_load(&mut self, now: Instant, cpu_time: Duration) {
        if let Some((at, before)) = self.taken.replace((now, cpu_time)) {
            let elapsed = now.saturating_duration_since(at).max(Duration::from_micros(1));
            let share = cpu_time.saturating_sub(before).div_duration_f32(elapsed).min(1.0);
            // Half of what was before, so that one odd interval does not switch it.
            self.busy_share = (self.busy_share + share) / 2.0;
        }
    }

    /// Whether the packets that wait, so many, are to leave now. Asked once per turn while there are any.
    pub fn is_over(&mut self, now: Instant, packets: usize) -> bool {
        let is_early = self.forwarded_at.is_some_and(|at| now < at + self.max);
        self.is_on = is_early && self.busy_share >= BUSY_SHARE && packets < PACKETS_MAX;
        if !self.is_on {
            self.forwarded_at = Some(now);
        }
        !self.is_on
    }

    /// When the wait ends, if one goes on.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.forwarded_at.filter(|_| self.is_on).map(|at| at + self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const MAX: Duration = Duration::from_micros(250);

    /// A worker that has been at work for that share of the last second.
    fn hold(busy_percent: u32, now: Instant) -> Hold {
        let mut hold = Hold::new(MAX);
        for interval in 0..=100u32 {
            let at = now - Duration::from_millis(10) * (100 - interval);
            hold.handle_load(at, Duration::from_micros(100) * busy_percent * interval);
        }
        hold
    }

    #[test]
    fn an_idle_worker_sends_at_once() {
        let now = clock::now();
        let mut hold = hold(40, now);
        assert!(hold.is_over(now, 1) && hold.is_over(now, 1));
        assert_eq!(hold.next_timeout(), None);
    }

    #[test]
    fn a_busy_worker_waits_for_others_and_not_longer() {
        let now = clock::now();
        let mut hold = hold(60, now);
        assert!(hold.is_over(now, 1), "after a pause nothing waits");
        assert!(!hold.is_over(now + MAX / 4, 1));
        assert_eq!(hold.next_timeout(), Some(now + MAX));
        assert!(!hold.is_over(now + MAX / 2, 2));
        assert!(hold.is_over(now + MAX, 3));
        assert_eq!(hold.next_timeout(), None);
        assert!(!hold.is_over(now + MAX, 1), "the next wait begins");
        assert!(hold.is_over(now + MAX, PACKETS_MAX), "enough");
    }

    #[test]
    fn turns_that_take_longer_are_not_held() {
        let now = clock::now();
        let mut hold = hold(99, now);
        assert!((0..10).all(|turn| hold.is_over(now + MAX * turn, 1)));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = clock::now();
        let mut hold = Hold { max: Duration::ZERO, ..hold(99, now) };
        assert!(hold.is_over(now, 1) && hold.is_over(now, 1));
    }

    #[test]
    fn the_share_follows_the_load() {
        let now = clock::now();
        let mut hold = hold(100, now);
        assert!(hold.busy_share > 0.95, "{}", hold.busy_share);
        let used = Duration::from_secs(1);
        for interval in 1..5 {
            hold.handle_load(now + Duration::from_millis(10) * interval, used);
        }
        assert!(hold.busy_share < 0.1, "{}", hold.busy_share);
    }
}
