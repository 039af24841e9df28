//! A rate of what comes in lumps: all that one feedback tells of at once.
//!
//! Owns: two windows. Promises: a few words of memory, work per feedback and not per packet. Forbids: clocks.

/// Two to six feedbacks.
const WINDOW_US: u64 = 300_000;

/// What is told of differs from what was sent by no more than this where nothing is held up for longer than before.
const OWN_CHOICE: f64 = 0.15;

/// What feedback tells of, and how fast that was sent.
#[derive(Debug, Default)]
pub struct Told {
    /// By our own clock: a peer that claims more than that has it wrong.
    arrived: ToldRate,
    /// With what was lost.
    sent: ToldRate,
}

impl Told {
    /// So many bytes arrived, told of now; so many were sent until then.
    pub fn push(&mut self, (now_us, arrived_bytes): (u64, u64), (sent_us, sent_bytes): (u64, u64)) {
        self.arrived.push(now_us, arrived_bytes);
        self.sent.push(sent_us, sent_bytes);
    }

    /// What arrived.
    pub fn bps(&self) -> Option<f64> {
        self.arrived.bps()
    }

    /// As much is told of as was sent: nothing is held up for longer than before.
    pub fn is_own_choice(&self) -> bool {
        let rates = self.arrived.bps().zip(self.sent.bps());
        rates.is_some_and(|(arrived, sent)| (arrived / sent.max(1.0) - 1.0).abs() < OWN_CHOICE)
    }
}

/// One meter.
#[derive(Debug, Default)]
struct ToldRate {
    from_us: Option<u64>,
    bytes: u64,
    bps: Option<f64>,
}

impl ToldRate {
    /// So many bytes since the last time.
    fn push(&mut self, at_us: u64, bytes: u64) {
        let Some(from_us) = self.from_us else {
            self.from_us = Some(at_us);
            return;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        let elapsed_us = at_us.saturating_sub(from_us);
        if elapsed_us >= WINDOW_US {
            self.bps = Some(self.bytes as f64 * 8e6 / elapsed_us as f64);
            (self.from_us, self.bytes) = (Some(at_us), 0);
        }
    }

    /// The rate in the last window.
    fn bps(&self) -> Option<f64> {
        self.bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lumps_of_any_size_make_the_right_rate() {
        for interval_us in [50_000, 100_000, 170_000, 400_000] {
            let mut told = ToldRate::default();
            for lump in 0..40 {
                told.push(lump * interval_us, interval_us / 10);
                assert!(told.bps().is_none_or(|bps| (bps - 800_000.0).abs() < 1.0), "{:?}", told.bps());
            }
            assert!(told.bps().is_some());
        }
        let mut told = ToldRate::default();
        told.push(u64::MAX, u64::MAX);
        told.push(0, u64::MAX);
        assert_eq!(told.bps(), None);
    }
}
