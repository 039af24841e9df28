//! What a publisher's uplink carries, estimated here, for publishers that take REMB and send no transport-wide numbers.
//!
//! The first form of GCC: times of sending (abs-send-time) against times of arrival go through the same trendline and rate
//! control as a subscriber's feedback does, and a loss rule (draft-ietf-rmcat-gcc-02 §6) cuts what the delay does not
//! show. Without times of sending the loss rule alone cuts; the rate then grows with what comes.
//!
//! Owns: one peer's estimate. Promises: a few hundred bytes, nothing allocated; the estimate stays within one and a half
//! times what comes, and the bounds of all estimates. Forbids: sending the REMB.

use std::time::{Duration, Instant};

use super::acked::AckedRate;
use super::aimd::{Aimd, Observed};
use super::groups::Groups;
use super::trendline::{Trendline, Usage};
use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};

/// What an uplink is taken to carry until something came: as for subscribers.
const START_BPS: f64 = 1_000_000.0;

/// How often the rate is looked at where no group of packets says so.
const UPDATE_US: u64 = 100_000;

/// Loss above which the rate is lowered, and below which it may grow (draft §6).
const LOSS_HIGH: f64 = 0.10;
const LOSS_LOW: f64 = 0.02;

/// Growth of the loss rule's rate per report, once a second (draft §6: 5 %).
const LOSS_GROWTH: f64 = 1.05;

/// Bits of an abs-send-time: 6 of seconds, 18 below.
const SEND_TIME_BITS: u32 = 24;
const SEND_TIME_FRACTION_BITS: u32 = 18;

/// The estimate of one peer's uplink.
#[derive(Debug)]
pub struct ReceiveEstimator {
    epoch: Instant,
    /// Latest time of sending without wrapping, in its own ticks.
    sent_ticks: Option<u64>,
    groups: Groups,
    trendline: Trendline,
    received: AckedRate,
    aimd: Aimd,
    updated_us: u64,
    /// What the loss rule allows; infinite while nothing is lost.
    loss_bps: f64,
    rtt: Option<Duration>,
}

impl ReceiveEstimator {
    /// An uplink nobody knows yet.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            sent_ticks: None,
            groups: Groups::default(),
            trendline: Trendline::new(),
            received: AckedRate::default(),
            aimd: Aimd::new(0, START_BPS),
            updated_us: 0,
            loss_bps: f64::INFINITY,
            rtt: None,
        }
    }

    /// A packet came, of `bytes`, with its time of sending (24 bits) where it has one.
    pub fn handle_packet(&mut self, now: Instant, send_time: Option<u32>, bytes: usize) {
        let now_us = self.since_epoch_us(now);
        self.received.push(now_us as i64, bytes as u32);
        if let Some(send_time) = send_time {
            let sent_us = microseconds(self.extend(send_time));
            if let Some(delta) = self.groups.push(sent_us, now_us as i64) {
                self.trendline.push(delta);
                return self.update(now_us);
            }
        }
        if now_us - self.updated_us >= UPDATE_US {
            self.update(now_us);
        }
    }

    /// What was lost since the last time, from 0 to 1; about once a second. `rtt` where it is known.
    pub fn handle_loss(&mut self, lost: f64, rtt: Option<Duration>) {
        self.rtt = rtt.or(self.rtt);
        if lost > LOSS_HIGH {
            self.loss_bps = self.bps() as f64 * (1.0 - 0.5 * lost.min(1.0));
        } else if lost < LOSS_LOW {
            self.loss_bps *= LOSS_GROWTH;
        }
        if self.loss_bps > self.aimd.bps() {
            self.loss_bps = f64::INFINITY;
        }
    }

    /// What the uplink carries, in bits per second of packets.
    pub fn bps(&self) -> u64 {
        self.aimd.bps().min(self.loss_bps).clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS) as u64
    }

    fn update(&mut self, now_us: u64) {
        self.updated_us = now_us;
        let acked_bps = self.received.bps();
        // What to fall to is not known before there is a rate.
        let usage = if acked_bps.is_some() { self.trendline.usage() } else { Usage::Normal };
        let rtt_us = self.rtt.map(|rtt| rtt.as_micros() as u64);
        self.aimd.update(
            now_us,
            Observed {
                usage,
                acked_bps,
                busy_bps: None,
                loss: 0.0,
                acked_least_bps: acked_bps,
                is_own_choice: false,
                queue_us: 0,
                rtt_us,
                is_app_limited: false,
            },
        );
    }

    /// The time of sending goes round every 64 s; what came before the latest is taken as sent before.
    fn extend(&mut self, send_time: u32) -> u64 {
        let wrap = 1u64 << SEND_TIME_BITS;
        let send_time = u64::from(send_time) % wrap;
        let Some(latest) = self.sent_ticks else {
            // One round up, so that what was sent before the first has a time as well.
            self.sent_ticks = Some(wrap + send_time);
            return wrap + send_time;
        };
        let ahead = send_time.wrapping_sub(latest) % wrap;
        if ahead < wrap / 2 {
            self.sent_ticks = Some(latest + ahead);
            latest + ahead
        } else {
            latest - (wrap - ahead)
        }
    }

    fn since_epoch_us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

/// Ticks of a time of sending in microseconds, whole seconds and the rest apart: a peer that lets its time run ahead must
/// not come to where the product ends.
fn microseconds(ticks: u64) -> u64 {
    let rest = ticks % (1 << SEND_TIME_FRACTION_BITS);
    (ticks >> SEND_TIME_FRACTION_BITS) * 1_000_000 + ((rest * 1_000_000) >> SEND_TIME_FRACTION_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: usize = 1000;

    /// Sends at `sent_bps` for `seconds` over a link of `link_bps` with a queue; reports no loss. Returns the estimate.
    fn run(
        estimator: &mut ReceiveEstimator,
        from: Instant,
        seconds: u64,
        sent_bps: u64,
        link_bps: u64,
        has_times: bool,
    ) -> u64 {
        let interval_us = PACKET_BYTES as u64 * 8 * 1_000_000 / sent_bps;
        let service_us = PACKET_BYTES as u64 * 8 * 1_000_000 / link_bps;
        let mut free_us = 0;
        for at in 0..seconds * 1_000_000 / interval_us {
            let sent_us = at * interval_us;
            free_us = sent_us.max(free_us) + service_us;
            // Begins close to where the clock goes round.
            let send_time = (63 << 18) + (sent_us << 18) / 1_000_000;
            let send_time = has_times.then_some(send_time as u32 & 0xff_ffff);
            estimator.handle_packet(from + Duration::from_micros(20_000 + free_us), send_time, PACKET_BYTES);
        }
        estimator.bps()
    }

    #[test]
    fn a_link_that_fills_lowers_the_estimate_below_what_comes() {
        let t0 = crate::runtime::clock::now();
        let mut estimator = ReceiveEstimator::new(t0);
        let bps = run(&mut estimator, t0, 5, 1_500_000, 1_000_000, true);
        assert!((500_000..1_000_000).contains(&bps), "{bps}");
    }

    #[test]
    fn a_free_link_lets_the_estimate_grow_to_half_above_what_comes() {
        for has_times in [true, false] {
            let t0 = crate::runtime::clock::now();
            let mut estimator = ReceiveEstimator::new(t0);
            let bps = run(&mut estimator, t0, 20, 1_000_000, 10_000_000, has_times);
            assert!((1_200_000..=1_600_000).contains(&bps), "{bps}");
        }
    }

    #[test]
    fn heavy_loss_cuts_and_its_absence_gives_back() {
        let t0 = crate::runtime::clock::now();
        let mut estimator = ReceiveEstimator::new(t0);
        let before = run(&mut estimator, t0, 5, 1_000_000, 10_000_000, false);
        estimator.handle_loss(0.05, None);
        assert_eq!(estimator.bps(), before, "some loss is the way of radio links");
        estimator.handle_loss(0.5, None);
        let cut = estimator.bps();
        assert!(cut < before * 4 / 5 && cut > before * 7 / 10, "{cut} of {before}");
        (0..20).for_each(|_| estimator.handle_loss(0.0, None));
        assert_eq!(estimator.bps(), before);
        (0..1000).for_each(|_| estimator.handle_loss(f64::INFINITY, None));
        assert_eq!(estimator.bps(), ESTIMATE_MIN_BPS as u64);
    }

    #[test]
    fn who_lets_the_time_run_for_days_does_no_harm() {
        let t0 = crate::runtime::clock::now();
        let mut estimator = ReceiveEstimator::new(t0);
        // Half a minute with each packet, and it is there within the hour.
        estimator.sent_ticks = Some(1 << 45);
        (0..100).for_each(|at: u32| estimator.handle_packet(t0, Some(at * 0x7f_ffff % (1 << 24)), PACKET_BYTES));
        assert!(estimator.bps() > 0);
    }

    #[test]
    fn times_go_on_where_they_go_round_and_come_back_in_order() {
        let mut estimator = ReceiveEstimator::new(crate::runtime::clock::now());
        let first = estimator.extend(0xff_fff0);
        assert_eq!(estimator.extend(0x00_0010) - first, 0x20);
        assert_eq!(first - estimator.extend(0xff_ffe0), 0x10);
        assert_eq!(estimator.extend(0x00_0020) - first, 0x30);
    }
}
