//! Bounds of what one client may ask of us.

use std::time::{Duration, Instant};

/// Allows `burst` at once and `per_second` on average.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, tokens: f64::from(burst), updated: now }
    }

    /// Takes one token; false when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        let refilled = self.tokens + passed.as_secs_f64() * f64::from(self.per_second);
        self.tokens = refilled.min(f64::from(self.burst));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start, 50, 200);
        let at_once = (0..10_000).filter(|_| bucket.take(start)).count();
        assert_eq!(at_once, 200);
        let second_later = start + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| bucket.take(second_later)).count(), 50);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start + Duration::from_secs(9), 1, 1);
        assert!(bucket.take(start));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + Duration::from_secs(9)));
    }

    #[test]
    fn a_long_pause_fills_no_more_than_the_burst() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start, 50, 3);
        let later = start + Duration::from_secs(86_400);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 3);
    }
}
