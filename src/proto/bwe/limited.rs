//! Is the application sending less than it may? Then what gets through says nothing about the path, and only probes do
//! (libwebrtc's application limited region).
//!
//! Owns: an allowance that the estimate fills and sending empties. Promises: constant memory. Forbids: probing.

/// Who sends more than this share of the estimate is limited by the path.
const SHARE: f64 = 0.65;

/// The allowance holds what comes in this time.
const WINDOW_S: f64 = 0.5;

/// Fill levels at which it is limited and no longer so.
const LEVEL_LIMITED: f64 = 0.8;
const LEVEL_FREE: f64 = 0.5;

/// The detector.
#[derive(Debug, Default)]
pub struct AppLimited {
    bits: f64,
    /// Sent since the last update, not taken from the allowance yet.
    sent_bytes: u64,
    capacity: f64,
    updated_us: u64,
    is_limited: bool,
}

impl AppLimited {
    /// Time passed; `has_backlog`: more waits to be sent than may leave, which is the opposite of being limited.
    pub fn update(&mut self, now_us: u64, estimate_bps: f64, has_backlog: bool) {
        self.is_limited = self.is_limited();
        self.bits = self.left_bits();
        self.sent_bytes = 0;
        let elapsed_s = now_us.saturating_sub(self.updated_us) as f64 / 1e6;
        self.updated_us = now_us;
        self.capacity = SHARE * estimate_bps * WINDOW_S;
        self.bits = (self.bits + SHARE * estimate_bps * elapsed_s).min(self.capacity);
        if has_backlog {
            self.bits = self.bits.min(0.0);
        }
        self.is_limited = self.is_limited();
    }

    /// Notes a packet of media.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// It is.
    pub fn is_limited(&self) -> bool {
        let threshold = if self.is_limited { LEVEL_FREE } else { LEVEL_LIMITED };
        self.left_bits() > threshold * self.capacity
    }

    fn left_bits(&self) -> f64 {
        (self.bits - self.sent_bytes as f64 * 8.0).max(-self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_a_second(rate_bps: f64, has_backlog: bool) -> bool {
        let mut limited = AppLimited::default();
        for tick in 1..=200 {
            limited.update(tick * 5_000, 1e6, has_backlog);
            limited.handle_sent((rate_bps * 0.005 / 8.0) as usize);
        }
        limited.is_limited()
    }

    #[test]
    fn who_sends_much_less_than_it_may_is_limited() {
        assert!(after_a_second(0.3e6, false));
        assert!(!after_a_second(0.9e6, false));
        assert!(!after_a_second(0.3e6, true));
    }
}
