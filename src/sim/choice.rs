//! A simple rule by which a sender chooses among qualities: what its estimate has room for, up with a margin and not
//! too often, down at once.
//!
//! Owns: the rule for senders that are not ours, so that their estimators are compared and not their taste.

use std::time::{Duration, Instant};

/// One quality that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Which encoding.
    pub encoding: u8,
    /// Highest temporal layer.
    pub temporal: u8,
    /// What it takes.
    pub bps: u64,
}

/// The estimate must be so much above what a better quality takes.
const UP_MARGIN: f64 = 1.1;
/// At least so long between steps up.
const UP_INTERVAL: Duration = Duration::from_secs(1);
/// Of audio and its headers, and RTCP.
const OTHER_BPS: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub struct Choice {
    /// Worst first.
    qualities: Vec<Quality>,
    at: usize,
    changed_at: Option<Instant>,
}

impl Choice {
    /// Begins with the worst of them.
    pub fn new(qualities: &[Quality]) -> Self {
        let mut qualities = qualities.to_vec();
        qualities.sort_by_key(|quality| quality.bps);
        Self { qualities, at: 0, changed_at: None }
    }

    /// What to send when this can be sent.
    pub fn choose(&mut self, now: Instant, estimate_bps: u64) -> Quality {
        let room = estimate_bps.saturating_sub(OTHER_BPS) as f64;
        let fits =
            |margin: f64| self.qualities.iter().rposition(|quality| quality.bps as f64 * margin <= room).unwrap_or(0);
        let (down, up) = (fits(1.0), fits(UP_MARGIN));
        let is_rested = self.changed_at.is_none_or(|at| now.saturating_duration_since(at) >= UP_INTERVAL);
        let next = if down < self.at {
            down
        } else if up > self.at && is_rested {
            up
        } else {
            self.at
        };
        if next != self.at {
            self.at = next;
            self.changed_at = Some(now);
        }
        self.qualities[self.at]
    }

    /// The estimate at which the next better quality is sent; 0 if there is none.
    pub fn next_bps(&self) -> u64 {
        self.qualities.get(self.at + 1).map_or(0, estimate_for)
    }

    /// The estimate at which the best quality is sent.
    pub fn best_bps(&self) -> u64 {
        self.qualities.last().map_or(0, estimate_for)
    }
}

/// What it takes to step up to that.
fn estimate_for(quality: &Quality) -> u64 {
    (quality.bps as f64 * UP_MARGIN) as u64 + OTHER_BPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn up_with_a_margin_and_rest_down_at_once() {
        let quality = |encoding, bps| Quality { encoding, temporal: 2, bps };
        let mut choice = Choice::new(&[quality(1, 500_000), quality(0, 150_000)]);
        let now = clock::now();
        let mut choose = |ms, bps| choice.choose(now + Duration::from_millis(ms), bps).encoding;
        assert_eq!([choose(0, 100_000), choose(10, 590_000), choose(20, 620_000), choose(30, 570_000)], [0, 0, 1, 1]);
        assert_eq!([choose(40, 550_000), choose(50, 900_000)], [0, 0]);
        assert_eq!((choice.next_bps(), choice.best_bps()), (610_000, 610_000));
        assert_eq!((choice.choose(now + Duration::from_secs(2), 900_000).encoding, choice.next_bps()), (1, 0));
    }
}
