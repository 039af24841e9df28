//! The machine behind [`super::Estimator`] where transport-wide feedback flows: feedback in, a rate and probes out.
//!
//! Owns: one of each part, and the feedback's clock. Promises: no allocation after [`Control::new`].
//! Forbids: knowing how what was seen is judged; that is each part's own.

use super::acked::AckedRate;
use super::aimd::{Aimd, Observed};
use super::busy::BusyRate;
use super::cluster::{Clusters, ProbeResult};
use super::groups::Groups;
use super::limited::AppLimited;
use super::loss::LossBased;
use super::probes::{Probes, tag};
use super::queue::Queue;
use super::sent::{SentLog, SentPacket};
use super::told::Told;
use super::trendline::{Trendline, Usage};
use super::wall::{Verdict, Wall};
use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS, Probe, Sending};
use crate::wire::rtcp::TwccFeedback;

/// What is sent in a second beside the estimate, so that bursts of pictures leave soon (libwebrtc's pacing factor).
pub const PACING_FACTOR: f64 = 2.5;

/// Without an answer for this time and a round trip, the path is regarded as broken: pacing falls to the estimate.
const OUTAGE_US: u64 = 500_000;

/// From then on the estimate is halved as often.
const OUTAGE_STEP_US: u64 = 1_000_000;

/// Where the estimate starts again after an outage, as a share of what it was.
const RETURN_SHARE: f64 = 0.5;

/// After an outage there is no faster pacing for so long: all that waited would fill the path's queue at once.
const RETURN_US: u64 = 1_000_000;

/// Two reports of arrival that are so far apart, while we sent without a pause, enclose an outage that we did not notice.
const ARRIVAL_GAP_US: i64 = 500_000;

/// The reporter's clock may run apart from ours by this between two feedbacks; more is another clock.
const CLOCK_STEP_US_MAX: i64 = 10_000_000;

/// Ticks of the reference time from which its wraps are counted, so that none lies below zero.
const REFERENCE_START: i64 = 1 << 24;

/// Microseconds of such a tick.
const REFERENCE_US: i64 = crate::wire::rtcp::TWCC_REFERENCE_US as i64;

/// A longer queue than this on the path forbids probes.
const CALM_QUEUE_US: u64 = 30_000;

/// A probe goes above what is wanted by this, so that the estimate leaves the allocation some room.
const GOAL_FACTOR: f64 = 1.4;

/// Beside others who fill the queue, and where media met the end of the path lately, bursts leave more slowly: what they add
/// to the queue overflows it, or is taken for its end.
const PACING_FACTOR_CAREFUL: f64 = 1.3;
const CAREFUL_US: u64 = 10_000_000;

/// A decrease so soon after a raise by a probe was caused by it.
const RAISED_US: u64 = 1_500_000;

/// Of what gets through without a queue so much is believed in, and only so long after a decrease: what is told of until
/// then was sent before.
const PROVED_SHARE: f64 = 0.95;
const PROVED_AFTER_US: u64 = 1_500_000;
/// And only what lasts: longer than what is kept for who joins takes on its way.
const PROVED_FOR_US: u64 = 1_000_000;

/// Jitter beyond this hides whether a burst was held up.
const NOISE_US_MAX: f64 = 13_000.0;

/// Loss is taken for that of full queues beyond this multiple of what is lost whatever is sent: samples are small.
const INHERENT_FACTOR: f64 = 1.5;

/// Weight of a new sample of the round trip.
const RTT_GAIN: f64 = 0.125;

/// All state that one subscriber's feedback moves.
#[derive(Debug)]
pub struct Control {
    log: SentLog,
    groups: Groups,
    trendline: Trendline,
    queue: Queue,
    acked: AckedRate,
    busy: BusyRate,
    told: Told,
    /// Since when more than the estimate gets through.
    exceeded_since_us: Option<u64>,
    wall: Wall,
    /// Of the last packet that arrived.
    arrived_us: i64,
    aimd: Aimd,
    loss: LossBased,
    limited: AppLimited,
    clusters: Clusters,
    probes: Probes,
    start_bps: f64,
    goal_bps: f64,
    remb_bps: Option<f64>,
    /// When a probe raised the estimate last.
    raised_us: Option<u64>,
    rtt_us: Option<f64>,
    clock: Option<FeedbackClock>,
    /// The first packet sent after the last feedback.
    unanswered_since_us: Option<u64>,
    outage: Option<Outage>,
    /// Until when it is regarded as just over.
    returning_until_us: Option<u64>,
}

/// Where the reporter's clock and its count of feedbacks stand.
#[derive(Clone, Copy, Debug)]
struct FeedbackClock {
    reference: i64,
    feedback_count: u8,
    at_us: u64,
}

/// No answer comes.
#[derive(Clone, Copy, Debug)]
struct Outage {
    before_bps: f64,
    next_step_us: u64,
}

impl Control {
    /// Takes all memory.
    pub fn new(now_us: u64, start_bps: f64, wanted_max_bps: f64) -> Self {
        Self {
            log: SentLog::new(),
            groups: Groups::default(),
            trendline: Trendline::new(),
            queue: Queue::default(),
            acked: AckedRate::default(),
            busy: BusyRate::default(),
            told: Told::default(),
            exceeded_since_us: None,
            wall: Wall::default(),
            arrived_us: 0,
            aimd: Aimd::new(now_us, start_bps),
            loss: LossBased::new(),
            limited: AppLimited::default(),
            clusters: Clusters::default(),
            probes: Probes::default(),
            start_bps,
            goal_bps: goal(wanted_max_bps),
            remb_bps: None,
            raised_us: None,
            rtt_us: None,
            clock: None,
            unanswered_since_us: None,
            outage: None,
            returning_until_us: None,
        }
    }

    /// A packet left.
    pub fn handle_sent(&mut self, now_us: u64, twcc_seq: u16, bytes: usize, what: Sending, probe: Option<u32>) {
        // While a probe runs all that leaves adds to it.
        let tag = probe.map(tag).or(self.probes.running_tag(now_us)).unwrap_or(0);
        self.log.insert(now_us, twcc_seq, bytes, tag);
        self.unanswered_since_us.get_or_insert(now_us);
        if what != Sending::Padding {
            self.limited.handle_sent(bytes);
        }
        if tag != 0 {
            let bytes = bytes.min(usize::from(u16::MAX)) as u32;
            self.clusters.handle_sent(tag, now_us, bytes);
            self.probes.handle_sent(tag, bytes);
        }
    }

    /// A feedback came.
    pub fn handle_twcc(&mut self, now_us: u64, feedback: &TwccFeedback<'_>) {
        let is_first = self.clock.is_none();
        let reference = self.follow_clock(now_us, feedback);
        let mut newest: Option<SentPacket> = None;
        let (mut told_bytes, mut lost_bytes) = (0, 0);
        for (seq, arrival_us) in feedback.arrivals(reference) {
            let Some(packet) = self.log.handle_feedback(now_us, seq, arrival_us.is_some()) else { continue };
            match arrival_us {
                Some(arrival_us) => {
                    self.handle_arrival(packet, arrival_us);
                    told_bytes += u64::from(packet.bytes);
                    newest = Some(packet);
                }
                None if packet.probe == 0 => {
                    lost_bytes += u64::from(packet.bytes);
                    self.loss.push(packet.sent_us, packet.bytes, true, self.aimd.bps());
                }
                None => {}
            }
        }
        let Some(newest) = newest else { return };
        self.told.push((now_us, told_bytes), (newest.sent_us, told_bytes + lost_bytes));
        self.unanswered_since_us = None;
        let rtt_us = now_us.saturating_sub(newest.sent_us) as f64;
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |smoothed| smoothed + RTT_GAIN * (rtt_us - smoothed)));
        self.queue.update(now_us, self.aimd.is_competing());
        self.probes.set_noise(self.queue.noise_us());
        if is_first {
            self.probes.start(now_us, self.start_bps, self.goal_bps);
        }
        if let Some(outage) = self.outage.take() {
            self.handle_return(now_us, outage);
            return;
        }
        self.update(now_us);
    }

    /// Time passed, and whether packets wait for the pacer.
    pub fn handle_pacer(&mut self, now_us: u64, has_backlog: bool) {
        self.limited.update(now_us, self.budget_bps(), has_backlog);
    }

    /// What would be sent if it could be.
    pub fn set_goal(&mut self, now_us: u64, wanted_max_bps: f64) {
        let before_bps = std::mem::replace(&mut self.goal_bps, goal(wanted_max_bps));
        // Small changes are those of the measured rates.
        if self.goal_bps > 1.25 * before_bps && self.is_up() {
            self.probes.handle_goal(now_us);
        }
    }

    /// The peer's own estimator allows no more.
    pub fn set_remb(&mut self, bps: Option<f64>) {
        self.remb_bps = bps;
    }

    /// Looks whether answers fail to come.
    pub fn handle_timeout(&mut self, now_us: u64) {
        let Some(due_us) = self.outage_due_us().filter(|due_us| *due_us <= now_us) else { return };
        match &mut self.outage {
            Some(outage) => {
                outage.next_step_us = now_us.max(due_us) + OUTAGE_STEP_US;
                self.aimd.set(now_us, self.aimd.bps() * 0.5);
            }
            None => {
                let before_bps = self.aimd.bps();
                self.outage = Some(Outage { before_bps, next_step_us: now_us + OUTAGE_STEP_US });
            }
        }
    }

    /// When to call [`Control::handle_timeout`], or to ask for a probe.
    pub fn next_timeout_us(&self) -> Option<u64> {
        let probe_us = self.probes.next_us(self.estimate_bps(), self.goal_bps);
        let probe_us = probe_us.filter(|_| self.is_calm());
        [self.outage_due_us(), probe_us].into_iter().flatten().min()
    }

    /// The running cluster is not sent to its end.
    pub fn give_up_probe(&mut self, now_us: u64) {
        self.probes.give_up(now_us);
    }

    /// The next cluster to send.
    pub fn poll_probe(&mut self, now_us: u64) -> Option<Probe> {
        let probe = self.probes.poll(now_us, self.estimate_bps(), self.goal_bps, self.is_calm())?;
        self.clusters.begin(tag(probe.id), probe.rate_bps as f64);
        Some(probe)
    }

    /// The rate that the path carries.
    pub fn estimate_bps(&self) -> f64 {
        self.limit(self.aimd.bps())
    }

    /// What may be sent now: less than the estimate as long as a queue has to empty.
    pub fn budget_bps(&self) -> f64 {
        self.limit(self.aimd.budget_bps())
    }

    /// How much faster than what may be sent on the average bursts may leave; `None` before the first feedback.
    pub fn pacing_factor(&self, now_us: u64) -> Option<f64> {
        let has_met_end = self.aimd.decreased_us().is_some_and(|at| now_us.saturating_sub(at) < CAREFUL_US);
        let factor = if self.outage.is_some() || self.returning_until_us.is_some() {
            1.0
        } else if has_met_end || self.aimd.is_competing() {
            PACING_FACTOR_CAREFUL
        } else {
            PACING_FACTOR
        };
        self.is_up().then_some(factor)
    }

    /// Feedback came at least once.
    pub fn is_up(&self) -> bool {
        self.clock.is_some()
    }

    /// Round trip by feedback, with the time that the peer took to send it.
    pub fn rtt_us(&self) -> Option<u64> {
        self.rtt_us.map(|rtt_us| rtt_us as u64)
    }

    /// Less is sent than may be.
    pub fn is_app_limited(&self) -> bool {
        self.limited.is_limited()
    }

    /// Fills in what the parts know.
    pub fn numbers(&self, numbers: &mut super::BweNumbers) {
        numbers.acked_bps = self.acked.bps().map(|bps| bps as u64);
        numbers.delay_based_bps = Some(self.aimd.bps() as u64);
        numbers.loss_based_bps = self.loss.limit_bps().map(|bps| bps as u64);
        numbers.loss = self.loss.loss() as f32;
        numbers.inherent_loss = self.loss.inherent_loss() as f32;
        numbers.queue_us = self.queue.queue_us();
        numbers.noise_us = self.queue.noise_us() as u64;
        numbers.usage = self.usage();
        numbers.is_app_limited = self.is_app_limited();
        numbers.is_outage = self.outage.is_some();
        numbers.probes = self.probes.count();
    }

    fn limit(&self, bps: f64) -> f64 {
        let limits = [self.loss.limit_bps(), self.remb_bps];
        limits.into_iter().flatten().fold(bps, f64::min).clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS)
    }

    fn handle_arrival(&mut self, packet: SentPacket, arrival_us: i64) {
        self.acked.push(arrival_us, packet.bytes);
        self.arrived_us = self.arrived_us.max(arrival_us);
        let has_waited = self.queue.push(packet.sent_us, arrival_us);
        self.busy.push(arrival_us, packet.bytes, has_waited);
        if packet.probe != 0 {
            self.clusters.handle_arrival(packet.probe, arrival_us, packet.bytes);
            // A probe makes a queue on purpose; the detector shall not see the step.
            self.groups.restart();
            return;
        }
        if packet.was_lost {
            self.loss.handle_recovered();
        } else {
            self.loss.push(packet.sent_us, packet.bytes, false, self.aimd.bps());
        }
        let Some(delta) = self.groups.push(packet.sent_us, arrival_us) else { return };
        if delta.arrival_us - delta.send_us as i64 > ARRIVAL_GAP_US {
            self.groups.restart();
            self.trendline.restart();
            self.acked.restart_window();
            return;
        }
        self.trendline.push(delta);
    }

    /// The reference time without its wrap. What a lost feedback, or another clock, makes of the windows is undone.
    fn follow_clock(&mut self, now_us: u64, feedback: &TwccFeedback<'_>) -> i64 {
        let header = &feedback.header;
        let mut reference = header.reference_after(self.clock.map_or(REFERENCE_START, |clock| clock.reference));
        if let Some(clock) = self.clock {
            let step_us = (reference - clock.reference) * REFERENCE_US;
            let our_step_us = now_us.saturating_sub(clock.at_us) as i64;
            if (step_us - our_step_us).abs() > CLOCK_STEP_US_MAX {
                reference = header.reference_after(REFERENCE_START);
                self.restart_clock();
            } else if header.feedback_count != clock.feedback_count.wrapping_add(1) {
                // What was not told of did not fail to arrive.
                self.acked.restart_window();
                self.groups.restart();
            }
        }
        self.clock = Some(FeedbackClock { reference, feedback_count: header.feedback_count, at_us: now_us });
        reference
    }

    fn restart_clock(&mut self) {
        self.groups.restart();
        self.trendline.restart();
        self.queue.restart();
        self.busy.forget();
        self.arrived_us = 0;
        self.acked.restart_window();
    }

    fn handle_return(&mut self, now_us: u64, outage: Outage) {
        self.groups.restart();
        self.trendline.restart();
        self.acked.restart_window();
        let bps = self.aimd.bps().max(outage.before_bps * RETURN_SHARE).min(outage.before_bps);
        self.aimd.set(now_us, bps);
        self.returning_until_us = Some(now_us + RETURN_US);
        self.probes.handle_return(now_us, outage.before_bps);
    }

    /// What the delay does, where that is more than the path's noise.
    fn usage(&self) -> Usage {
        match self.trendline.usage() {
            Usage::Over if !self.queue.is_standing(self.is_app_limited()) => Usage::Normal,
            usage => usage,
        }
    }

    fn update(&mut self, now_us: u64) {
        self.returning_until_us = self.returning_until_us.filter(|until_us| now_us < *until_us);
        let usage = self.usage();
        while let Some(result) = self.clusters.poll_result(self.probes.running_tag(now_us)) {
            self.handle_probe(now_us, result, usage);
        }
        if let Some(bps) = self.proved_bps(now_us) {
            self.aimd.set(now_us, bps);
            self.wall.pass(bps);
        }
        let decreased_us = self.aimd.decreased_us();
        let observed = Observed {
            usage,
            acked_bps: self.acked.bps(),
            acked_least_bps: self.acked.least_bps(),
            is_own_choice: self.told.is_own_choice(),
            busy_bps: self.busy.bps(self.arrived_us),
            loss: (self.loss.loss() - INHERENT_FACTOR * self.loss.inherent_loss()).max(0.0),
            queue_us: self.queue.queue_us(),
            rtt_us: self.rtt_us(),
            is_app_limited: self.is_app_limited(),
        };
        if self.aimd.update(now_us, observed) {
            self.queue.restart();
        }
        if self.aimd.decreased_us() != decreased_us {
            let was_raised = self.raised_us.take().is_some_and(|at| now_us - at < RAISED_US);
            self.probes.handle_decrease(now_us, was_raised);
            if self.queue.noise_us() <= NOISE_US_MAX {
                self.wall.meet(self.aimd.bps());
                self.probes.handle_end_met();
            }
        }
    }

    fn handle_probe(&mut self, now_us: u64, result: ProbeResult, usage: Usage) {
        let before_bps = self.aimd.bps();
        let verdict = match self.queue.noise_us() > NOISE_US_MAX {
            true => Verdict::Believed(result.bps),
            false => self.wall.judge(result.sent_bps, result.bps),
        };
        let bps = match verdict {
            Verdict::Believed(bps) => bps,
            _ => result.bps.min(self.wall.bps()),
        };
        if usage != Usage::Over && bps > before_bps {
            self.aimd.set(now_us, bps);
            self.raised_us = Some(now_us);
        }
        self.probes.handle_result(now_us, result.probed_bps, bps, before_bps, self.goal_bps);
        match verdict {
            Verdict::Again => self.probes.follow_up(result.probed_bps.min(self.goal_bps)),
            Verdict::Nearer(bps) => self.probes.follow_up(bps.min(self.goal_bps)),
            Verdict::Believed(_) | Verdict::Nothing => {}
        }
    }

    /// More is sent than the estimate allows, as what nothing can be left out of does not wait for ever, and all of it gets
    /// through: so much the path does carry.
    fn proved_bps(&mut self, now_us: u64) -> Option<f64> {
        let is_settled = self.aimd.decreased_us().is_none_or(|at| now_us - at > PROVED_AFTER_US);
        let is_sure = is_settled && self.is_calm() && !self.is_app_limited() && self.returning_until_us.is_none();
        let bps = self.acked.least_bps().zip(self.told.bps()).map(|(acked, told)| PROVED_SHARE * acked.min(told));
        let bps = bps.filter(|bps| is_sure && !self.aimd.is_competing() && *bps > self.aimd.bps());
        let since_us = bps.map(|_| self.exceeded_since_us.unwrap_or(now_us));
        self.exceeded_since_us = since_us;
        bps.filter(|_| since_us.is_some_and(|since_us| now_us - since_us >= PROVED_FOR_US))
    }

    fn outage_due_us(&self) -> Option<u64> {
        let since_us = self.unanswered_since_us.filter(|_| self.is_up())?;
        match &self.outage {
            Some(outage) => Some(outage.next_step_us),
            None => Some(since_us + OUTAGE_US + self.rtt_us().unwrap_or(0).min(OUTAGE_US)),
        }
    }

    /// Nothing speaks against a burst.
    fn is_calm(&self) -> bool {
        self.is_up()
            && self.outage.is_none()
            && self.usage() != Usage::Over
            && (self.queue.queue_us() < CALM_QUEUE_US || self.is_app_limited() && !self.queue.is_standing(true))
            && !self.aimd.is_draining()
            && self.loss.limit_bps().is_none()
    }
}

fn goal(wanted_max_bps: f64) -> f64 {
    (wanted_max_bps * GOAL_FACTOR).min(ESTIMATE_MAX_BPS)
}
