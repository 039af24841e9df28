//! How many bytes may leave for one peer now.
//!
//! A frame of forty packets that leaves at once stands in the queue of the peer's line, and everything behind it is late.
//! The budget of a tick is what the rate carries in it; what finds none waits for the next. Owns: the budget. Promises: a
//! peer whose rate nobody knows is not paced; what may not wait (sound) goes on debt, and the debt is paid by the rest.
//! Forbids: packets.

use std::time::{Duration, Instant};

/// One budget lasts so long: libwebrtc's own step. A train then carries what the line carries in 5 ms.
pub const TICK: Duration = Duration::from_millis(5);
/// Debt that is remembered at most: so many ticks. Sound alone may exceed the rate of a very bad line for ever, and
/// video must get a turn all the same.
const DEBT_TICKS_MAX: f64 = 20.0;

/// See the module.
#[derive(Debug)]
pub struct Pacer {
    tick: Duration,
    rate: Option<Rate>,
    budget_bytes: f64,
    filled_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    bytes_per_s: f64,
    /// Bytes of a tick: the most that a budget can be.
    tick_bytes: f64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new(TICK)
    }
}

impl Pacer {
    /// No limit yet; a budget lasts one tick.
    pub fn new(tick: Duration) -> Self {
        Self { tick, rate: None, budget_bytes: 0.0, filled_at: None }
    }

    /// Bits per second from now on; `None`: no limit.
    pub fn set_rate(&mut self, now: Instant, bps: Option<u64>) {
        self.fill(now);
        let rate = bps.map(|bps| {
            let bytes_per_s = bps as f64 / 8.0;
            Rate { bytes_per_s, tick_bytes: bytes_per_s * self.tick.as_secs_f64() }
        });
        if self.rate.is_none()
            && let Some(rate) = rate
        {
            self.budget_bytes = rate.tick_bytes;
        }
        self.rate = rate;
    }

    /// Whether something may leave now: a packet may be larger than what is left of the budget.
    pub fn has_room(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.rate.is_none() || self.budget_bytes > 0.0
    }

    /// So many bytes left, or will in a moment.
    pub fn handle_sent(&mut self, bytes: usize) {
        if let Some(rate) = self.rate {
            self.budget_bytes = (self.budget_bytes - bytes as f64).max(-DEBT_TICKS_MAX * rate.tick_bytes);
        }
    }

    /// How many of these may leave now, one after the other, and do: whether one may wait, and its bytes.
    pub fn take(&mut self, now: Instant, packets: impl Iterator<Item = (bool, u16)>) -> usize {
        let Some(rate) = self.rate else { return packets.count() };
        self.fill(now);
        let debt_max = DEBT_TICKS_MAX * rate.tick_bytes;
        let mut taken = 0;
        for (may_wait, bytes) in packets {
            if may_wait && self.budget_bytes <= 0.0 {
                break;
            }
            self.budget_bytes = (self.budget_bytes - f64::from(bytes)).max(-debt_max);
            taken += 1;
        }
        taken
    }

    /// When there is a new budget for what waits.
    pub fn next_timeout(&self) -> Option<Instant> {
        let (rate, at) = (self.rate?, self.filled_at?);
        let debt = Duration::try_from_secs_f64(-self.budget_bytes / rate.bytes_per_s.max(1.0)).unwrap_or_default();
        Some(at + debt.max(self.tick))
    }

    fn fill(&mut self, now: Instant) {
        // Packets of one turn are asked about at one time.
        let Some(filled_at) = self.filled_at.replace(now).filter(|at| *at != now) else { return };
        if let Some(rate) = self.rate {
            let elapsed = now.saturating_duration_since(filled_at);
            // What was not used is over: a line that was idle cannot carry two budgets at once.
            self.budget_bytes = (self.budget_bytes + rate.bytes_per_s * elapsed.as_secs_f64()).min(rate.tick_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    /// Sends packets of 1,000 bytes whenever it may, for a second.
    fn sent_in_a_second(pacer: &mut Pacer, start: Instant, step: Duration) -> u32 {
        let (mut sent, mut now) = (0, start);
        while now < start + Duration::from_secs(1) {
            while pacer.has_room(now) {
                pacer.handle_sent(1000);
                sent += 1;
            }
            now += step;
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_however_often_it_is_asked() {
        for step in [MS / 2, MS, MS * 5] {
            let (mut pacer, now) = (Pacer::default(), clock::now());
            pacer.set_rate(now, Some(4_000_000));
            let sent = sent_in_a_second(&mut pacer, now, step);
            assert!((500..=503).contains(&sent), "{sent} packets of 8,000 bits at 4 Mbit/s, every {step:?}");
        }
    }

    #[test]
    fn a_burst_lasts_one_tick() {
        let (mut pacer, now) = (Pacer::default(), clock::now());
        pacer.set_rate(now, Some(8_000_000));
        let later = now + Duration::from_secs(10);
        let mut burst = 0;
        while pacer.has_room(later) {
            pacer.handle_sent(1000);
            burst += 1;
        }
        assert_eq!(burst, 5);
        assert_eq!(pacer.next_timeout(), Some(later + TICK));
    }

    #[test]
    fn sound_goes_on_debt_and_video_waits_until_it_is_paid() {
        let (mut pacer, now) = (Pacer::default(), clock::now());
        pacer.set_rate(now, Some(80_000));
        pacer.handle_sent(250);
        assert!(!pacer.has_room(now));
        assert_eq!(pacer.next_timeout(), Some(now + 20 * MS));
        assert!(!pacer.has_room(now + 19 * MS) && pacer.has_room(now + 21 * MS));
        (0..1000).for_each(|_| pacer.handle_sent(250));
        assert!(pacer.next_timeout() <= Some(now + 200 * MS), "and not for ever");
    }

    #[test]
    fn what_may_wait_is_taken_while_there_is_room_and_what_may_not_in_any_case() {
        let (mut pacer, now) = (Pacer::default(), clock::now());
        assert_eq!(pacer.take(now, [(true, 1000); 9].into_iter()), 9, "without a rate");
        pacer.set_rate(now, Some(8_000_000));
        assert_eq!(pacer.take(now, [(true, 1500); 9].into_iter()), 4, "5,000 bytes in a tick");
        assert_eq!(pacer.take(now, [(false, 1000), (true, 1000)].into_iter()), 1);
        assert_eq!(pacer.next_timeout(), Some(now + TICK), "2 ms of debt");
        assert_eq!(pacer.take(now + TICK, [(true, 1000); 9].into_iter()), 3, "and they are paid");
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (mut pacer, now) = (Pacer::default(), clock::now());
        (0..1000).for_each(|_| pacer.handle_sent(1000));
        assert!(pacer.has_room(now) && pacer.next_timeout().is_none());
        pacer.set_rate(now, Some(1_000_000));
        assert!(pacer.has_room(now), "the first budget is whole");
    }
}
