//! When to probe, and how fast (libwebrtc's probe controller, and more often than that).
//!
//! A probe is a short burst at a higher rate than what is sent. It costs a few packets of padding and finds in one round
//! trip what growth of 8 % a second would take half a minute for. An SFU needs it more than a client does: layers come in
//! steps, so it mostly sends less than it might.
//!
//! Owns: the schedule. Promises: nothing above the goal; probes only while the path is calm.
//! Forbids: sending, and reading feedback.

use super::Probe;

/// The first two, as multiples of the start rate (libwebrtc).
const START_FACTORS: [f64; 2] = [3.0, 6.0];

/// All later ones, as a multiple of the estimate.
const STEP_FACTOR: f64 = 2.0;

/// A result above this share of the probe's rate says that there may be more: go on at once.
const FURTHER_SHARE: f64 = 0.7;

/// Between probes while they find something; after one that did not, the pause is doubled up to the longest.
const PAUSE_US_MIN: u64 = 750_000;
const PAUSE_US_MAX: u64 = 2_000_000;

/// The longest pause after probes that led to overuse.
const PAUSE_US_HARMFUL: u64 = 8_000_000;

/// After a decrease the path is left alone for this time.
const AFTER_DECREASE_US: u64 = 1_000_000;

/// A probe lasts for this time (libwebrtc) and has so many packets, enough to measure by.
const PROBE_S: f64 = 0.015;
const PACKETS_MIN: u32 = 5;

/// A packet of a probe should have this length at least: shorter ones measure headers.
const PACKET_BYTES_MIN: u32 = 200;

/// Less than this above the estimate is not worth it.
const WORTH: f64 = 1.1;

/// One that was not sent to its end within this time never will be.
const RUNNING_US_MAX: u64 = 500_000;

/// After media met the end of the path probes last for so many times: others' packets come by twos and threes in a short one.
const KNOWN_FACTOR: f64 = 3.0;

/// Where jitter is larger than a probe it measures the jitter: it lasts for so many times that then, up to the longest.
const NOISE_FACTOR: f64 = 3.0;
const PROBE_S_MAX: f64 = 0.075;

/// The schedule.
#[derive(Debug, Default)]
pub struct Probes {
    last_id: u32,
    /// To be sent one after the other.
    pending: [Option<f64>; 2],
    running: Option<Running>,
    next_us: u64,
    pause_us: u64,
    /// The pause after the last decrease, if probes were its cause.
    harm_us: u64,
    noise_us: f64,
    /// Media met the end of the path.
    is_known: bool,
}

/// The one that is being sent.
#[derive(Clone, Copy, Debug)]
struct Running {
    tag: u8,
    since_us: u64,
    /// What is still to be sent.
    bytes: u32,
    packets: u32,
}

/// The tag that packets of a probe have in the log; never 0.
pub fn tag(id: u32) -> u8 {
    (id % 255) as u8 + 1
}

impl Probes {
    /// The first feedback came: the path is up.
    pub fn start(&mut self, now_us: u64, start_bps: f64, goal_bps: f64) {
        let mut highest_bps = start_bps * WORTH;
        for (pending, factor) in self.pending.iter_mut().zip(START_FACTORS) {
            let bps = (start_bps * factor).min(goal_bps);
            *pending = (bps > highest_bps).then_some(bps);
            highest_bps = bps.max(highest_bps);
        }
        self.pause_us = PAUSE_US_MIN;
        self.next_us = now_us + self.pause_us;
    }

    /// More is wanted than before.
    pub fn handle_goal(&mut self, now_us: u64) {
        self.pause_us = PAUSE_US_MIN;
        self.next_us = self.next_us.min(now_us);
    }

    /// The rate was lowered: wait, and longer if a probe had raised it too much.
    pub fn handle_decrease(&mut self, now_us: u64, was_raised: bool) {
        self.pending = [None; 2];
        self.harm_us = if was_raised { (self.harm_us * 2).clamp(AFTER_DECREASE_US, PAUSE_US_HARMFUL) } else { 0 };
        self.pause_us = PAUSE_US_MIN;
        self.next_us = self.next_us.max(now_us + AFTER_DECREASE_US.max(self.harm_us));
    }

    /// The path is back from an outage: find out soon whether it carries what it carried.
    pub fn handle_return(&mut self, now_us: u64, bps: f64) {
        self.pending = [Some(bps), None];
        self.pause_us = PAUSE_US_MIN;
        self.next_us = now_us + self.pause_us;
    }

    /// Another one is to follow the last at once.
    pub fn follow_up(&mut self, bps: f64) {
        self.pending = [Some(bps), None];
    }

    /// Media met the end of the path.
    pub fn handle_end_met(&mut self) {
        self.is_known = true;
    }

    /// One was measured, or is lost.
    pub fn handle_result(&mut self, now_us: u64, probed_bps: f64, bps: f64, estimate_bps: f64, goal_bps: f64) {
        let has_found = bps > estimate_bps * WORTH;
        let may_be_more = bps >= FURTHER_SHARE * probed_bps && goal_bps > bps * WORTH;
        if has_found && may_be_more && self.pending == [None; 2] {
            self.pending[0] = Some((bps * STEP_FACTOR).min(goal_bps));
        }
        self.pause_us = if has_found { PAUSE_US_MIN } else { (self.pause_us * 2).min(PAUSE_US_MAX) };
        self.next_us = now_us + self.pause_us;
    }

    /// The running one is given up: there is nothing to send it of.
    pub fn give_up(&mut self, now_us: u64) {
        if self.running.take().is_some() {
            self.pending = [None; 2];
            self.next_us = self.next_us.max(now_us + PAUSE_US_MAX);
        }
    }

    /// How much later packets arrive than the fastest, on the average, as long as there is no queue.
    pub fn set_noise(&mut self, noise_us: f64) {
        self.noise_us = noise_us;
    }

    /// The next cluster to send, if one is due. `is_calm`: there is neither overuse nor a queue.
    pub fn poll(&mut self, now_us: u64, estimate_bps: f64, goal_bps: f64, is_calm: bool) -> Option<Probe> {
        if !is_calm || self.running_tag(now_us).is_some() {
            return None;
        }
        self.running = None;
        while let Some(bps) = self.pending[0].take() {
            self.pending.swap(0, 1);
            if bps > estimate_bps * WORTH {
                return Some(self.begin(now_us, bps));
            }
        }
        if now_us < self.next_us || goal_bps <= estimate_bps * WORTH {
            return None;
        }
        self.next_us = now_us + self.pause_us;
        Some(self.begin(now_us, (estimate_bps * STEP_FACTOR).min(goal_bps)))
    }

    /// When the next one is due, or the running one given up, if any.
    pub fn next_us(&self, estimate_bps: f64, goal_bps: f64) -> Option<u64> {
        if let Some(running) = self.running {
            return Some(running.since_us + RUNNING_US_MAX);
        }
        if self.pending != [None; 2] {
            return Some(0);
        }
        (goal_bps > estimate_bps * WORTH).then_some(self.next_us)
    }

    /// A packet of a probe was sent.
    pub fn handle_sent(&mut self, tag: u8, bytes: u32) {
        let Some(running) = self.running.as_mut().filter(|running| running.tag == tag) else { return };
        running.bytes = running.bytes.saturating_sub(bytes);
        running.packets = running.packets.saturating_sub(1);
        if running.bytes == 0 && running.packets == 0 {
            self.running = None;
        }
    }

    /// Tag of the one that has more packets to send.
    pub fn running_tag(&self, now_us: u64) -> Option<u8> {
        let running = self.running.filter(|running| now_us.saturating_sub(running.since_us) < RUNNING_US_MAX);
        running.map(|running| running.tag)
    }

    /// Clusters begun.
    pub fn count(&self) -> u32 {
        self.last_id
    }

    fn begin(&mut self, now_us: u64, bps: f64) -> Probe {
        self.last_id = self.last_id.wrapping_add(1);
        let least_s = if self.is_known { PROBE_S * KNOWN_FACTOR } else { PROBE_S };
        let length_s = (self.noise_us / 1e6 * NOISE_FACTOR).clamp(least_s, PROBE_S_MAX);
        let bytes = ((bps * length_s / 8.0) as u32).max(PACKETS_MIN * PACKET_BYTES_MIN);
        let tag = tag(self.last_id);
        self.running = Some(Running { tag, since_us: now_us, bytes, packets: PACKETS_MIN });
        Probe { id: self.last_id, rate_bps: bps as u64, bytes, packets: PACKETS_MIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(probes: &mut Probes, probe: Probe) {
        (0..20).for_each(|_| probes.handle_sent(tag(probe.id), probe.bytes / 5));
    }

    #[test]
    fn the_first_two_come_at_once_and_lead_to_more() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 10e6);
        let first = probes.poll(0, 1e6, 10e6, true).expect("the first");
        assert_eq!((first.rate_bps, first.packets), (3_000_000, 5));
        assert_eq!(probes.poll(5_000, 1e6, 10e6, true), None);
        send(&mut probes, first);
        let second = probes.poll(20_000, 1e6, 10e6, true).expect("the second");
        assert_eq!(second.rate_bps, 6_000_000);
        send(&mut probes, second);
        probes.handle_result(200_000, 6e6, 5.5e6, 3e6, 10e6);
        assert_eq!(probes.poll(200_000, 5.5e6, 10e6, true).map(|probe| probe.rate_bps), Some(10_000_000));
    }

    #[test]
    fn nothing_is_probed_above_the_goal_or_on_a_troubled_path() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 2e6);
        assert_eq!(probes.poll(0, 1e6, 2e6, false), None);
        assert_eq!(probes.poll(0, 1e6, 2e6, true).map(|probe| probe.rate_bps), Some(2_000_000));
        assert_eq!(probes.poll(10_000_000, 2e6, 2e6, true), None);
        assert_eq!(probes.next_us(2e6, 2e6), None);
        probes.handle_decrease(10_000_000, false);
        assert_eq!(probes.poll(10_500_000, 1e6, 2e6, true), None);
        assert!(probes.poll(11_000_000, 1e6, 2e6, true).is_some());
    }

    #[test]
    fn one_that_is_not_sent_to_its_end_is_given_up() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 10e6);
        let first = probes.poll(0, 1e6, 10e6, true).expect("the first");
        assert_eq!(probes.running_tag(499_999), Some(tag(first.id)));
        // Also while nothing may be probed, or its tag would stay on all that is sent.
        assert_eq!((probes.poll(500_000, 1e6, 10e6, false), probes.running_tag(500_000)), (None, None));
        assert!(probes.poll(500_000, 1e6, 10e6, true).is_some());
    }

    #[test]
    fn what_finds_nothing_is_done_less_often() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 1e6);
        let times: Vec<u64> = (0..1000)
            .filter_map(|tick| {
                let probe = probes.poll(tick * 10_000, 1e6, 5e6, true)?;
                send(&mut probes, probe);
                probes.handle_result(tick * 10_000, 2e6, 0.95e6, 1e6, 5e6);
                Some(tick * 10)
            })
            .collect();
        assert_eq!(times, [750, 2250, 4250, 6250, 8250]);
    }

    #[test]
    fn who_has_nothing_to_send_is_not_asked_again_at_once() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 10e6);
        assert!(probes.poll(0, 1e6, 10e6, true).is_some());
        probes.give_up(1_000);
        assert_eq!((probes.running_tag(1_000), probes.next_us(1e6, 10e6)), (None, Some(1_000 + PAUSE_US_MAX)));
    }

    #[test]
    fn what_finds_no_more_than_is_known_is_not_repeated_at_once() {
        let mut probes = Probes::default();
        probes.start(0, 1e6, 1e6);
        probes.handle_result(0, 2.1e6, 1.8e6, 1.9e6, 2.1e6);
        assert_eq!(probes.poll(1_000, 1.9e6, 2.2e6, true), None);
    }

    #[test]
    fn on_a_noisy_path_probes_last_longer() {
        let bytes = |noise_us| {
            let mut probes = Probes::default();
            probes.start(0, 1e6, 4e6);
            probes.set_noise(noise_us);
            probes.poll(0, 1e6, 4e6, true).map(|probe| probe.bytes)
        };
        assert_eq!([0.0, 20_000.0, 1e9].map(bytes), [Some(5_625), Some(22_500), Some(28_125)]);
    }
}
