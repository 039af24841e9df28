//! A peer's downlink: how much it carries, what waits for it, and what is sent to find out.
//!
//! Owns: the estimate, the pacer, transport-wide numbers, and what waits, as numbers only. Promises: bounded; sound never
//! waits, then come retransmissions, then pictures; a peer that gives no feedback is not held back.
//! Forbids: bytes: what leaves is written by [`super::egress`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::egress::Admitted;
use super::stats::DownlinkReport;
use crate::forward::order::Due;
use crate::proto::bwe::{Estimator, Probe, Sending};
use crate::proto::pacer::Pacer;
use crate::wire::rtp_ext::AbsSendTime;

/// What waits does not wait longer than this: the pacer goes faster then. What a peer asks for beyond its line is held
/// up by the line and not by us; which layer it gets is the allocator's business.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Packets that wait at most: three seconds of 4 Mbit/s. What comes then is left out, and video goes on with a keyframe.
const WAITING_MAX: usize = 1024;
/// Retransmissions that wait at most; who asks for more asks again.
const RESENDS_MAX: usize = 256;
/// What a peer's line is taken to carry as long as nobody has measured it.
const START_BPS: u64 = 1_000_000;
/// While a probe runs, its budget lasts so long.
const PROBE_TICK: Duration = Duration::from_millis(2);

/// An admitted packet that waits for its budget.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    admitted: Admitted,
    due: Due,
    since: Instant,
}

/// A number of an m-line that its subscriber misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// m-line.
    pub mline: u16,
    /// Sequence number as it went out.
    pub seq: u16,
}

/// A cluster of packets under way, sent at a rate of its own.
#[derive(Debug)]
struct RunningProbe {
    id: u32,
    pacer: Pacer,
    bytes_left: usize,
    packets_left: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Downlink {
    /// What the line carries.
    pub estimator: Estimator,
    pacer: Pacer,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    resends: VecDeque<Resend>,
    probe: Option<RunningProbe>,
    next_twcc: u16,
    epoch: Instant,
    /// The time stamped last: packets of one turn have the same.
    stamped: (Instant, AbsSendTime),
}

impl Downlink {
    /// A line nobody knows yet.
    pub fn new(now: Instant) -> Self {
        Self {
            estimator: Estimator::new(now, START_BPS),
            pacer: Pacer::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            resends: VecDeque::new(),
            probe: None,
            next_twcc: 0,
            epoch: now,
            stamped: (now, AbsSendTime(0)),
        }
    }

    /// The next transport-wide number, and the time.
    pub fn stamp(&mut self, now: Instant) -> (u16, AbsSendTime) {
        let twcc = self.next_twcc;
        self.next_twcc = twcc.wrapping_add(1);
        if self.stamped.0 != now {
            let elapsed = now.saturating_duration_since(self.epoch);
            let ntp = (elapsed.as_secs() << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000);
            self.stamped = (now, AbsSendTime::from_ntp(ntp));
        }
        (twcc, self.stamped.1)
    }

    /// A datagram left under that number.
    pub fn handle_sent(&mut self, now: Instant, twcc: u16, bytes: usize, what: Sending) {
        let probe = self.probe.as_mut().map(|probe| {
            probe.pacer.handle_sent(bytes);
            probe.bytes_left = probe.bytes_left.saturating_sub(bytes);
            probe.packets_left = probe.packets_left.saturating_sub(1);
            probe.id
        });
        if self.probe.as_ref().is_some_and(|probe| probe.bytes_left == 0 && probe.packets_left == 0) {
            self.probe = None;
        }
        self.estimator.handle_sent(now, twcc, bytes, what, probe);
    }

    /// After news of the line.
    pub fn handle_estimate(&mut self, now: Instant) {
        let drain = self.waiting_bytes as f64 * 8.0 / WAIT_MAX.as_secs_f64();
        // What is kept for who joins is paced before anything is known.
        let unknown = self.has_backlog().then(|| self.estimator.estimate_bps());
        let rate = self.estimator.pacing_bps().or(unknown).map(|bps| bps.max(drain as u64));
        self.pacer.set_rate(now, rate);
    }

    /// Leaves in `admitted` and `due` what may go now; the rest waits. Where a line has stood still for seconds, what
    /// finds no place to wait is told to `leave_out`, by m-line.
    pub fn pace(
        &mut self,
        now: Instant,
        admitted: &mut Vec<Admitted>,
        due: &mut Vec<Due>,
        mut leave_out: impl FnMut(u16),
    ) {
        let mut kept = 0;
        for at in 0..due.len() {
            let (packet, length) = (admitted[at], due[at]);
            let may_go =
                length.is_audio || self.waiting.is_empty() && self.resends.is_empty() && self.pacer.has_room(now);
            if may_go {
                self.pacer.handle_sent(length.bytes.into());
                (admitted[kept], due[kept]) = (packet, length);
                kept += 1;
            } else if self.waiting.len() < WAITING_MAX {
                self.wait(now, packet, length);
            } else {
                leave_out(packet.mline);
            }
        }
        admitted.truncate(kept);
        due.truncate(kept);
    }

    /// A packet that waits for its turn in any case.
    pub fn wait(&mut self, now: Instant, admitted: Admitted, due: Due) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting_bytes += usize::from(due.bytes);
            self.waiting.push_back(Waiting { admitted, due, since: now });
        }
    }

    /// The next packet whose time has come.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(Admitted, Due)> {
        let since = self.waiting.front()?.since;
        if !self.may_send(now) && now.saturating_duration_since(since) < WAIT_MAX {
            return None;
        }
        let waiting = self.waiting.pop_front()?;
        self.waiting_bytes -= usize::from(waiting.due.bytes);
        self.pacer.handle_sent(waiting.due.bytes.into());
        Some((waiting.admitted, waiting.due))
    }

    /// A packet is missed. `false`: too many are.
    pub fn want_resend(&mut self, resend: Resend) -> bool {
        let has_room = self.resends.len() < RESENDS_MAX;
        if has_room {
            self.resends.push_back(resend);
        }
        has_room
    }

    /// The next retransmission whose time has come.
    pub fn next_resend(&mut self, now: Instant) -> Option<Resend> {
        if self.resends.is_empty() || !self.may_send(now) {
            return None;
        }
        self.resends.pop_front()
    }

    /// Whether something is to be sent only to find out what the line carries.
    pub fn is_padding_due(&mut self, now: Instant) -> bool {
        if self.probe.is_none()
            && let Some(Probe { id, rate_bps, bytes, packets }) = self.estimator.poll_probe(now)
        {
            let mut pacer = Pacer::new(PROBE_TICK);
            pacer.set_rate(now, Some(rate_bps));
            self.probe = Some(RunningProbe { id, pacer, bytes_left: bytes as usize, packets_left: packets });
        }
        let has_backlog = self.has_backlog();
        self.probe.as_mut().is_some_and(|probe| !has_backlog && probe.pacer.has_room(now))
    }

    /// Nothing can be sent to find out with.
    pub fn give_up_probe(&mut self) {
        self.probe = None;
    }

    /// Nothing is sent again now, and nothing only to find out.
    pub fn give_up_extras(&mut self) {
        self.resends.clear();
        self.give_up_probe();
    }

    /// Bytes of retransmissions and padding count as well.
    pub fn handle_extra(&mut self, bytes: usize) {
        self.pacer.handle_sent(bytes);
    }

    /// Whether the peer ever told us about its line.
    pub fn is_measured(&self) -> bool {
        self.estimator.pacing_bps().is_some()
    }

    /// Forgets what waits for an m-line: it sends something else now.
    pub fn forget(&mut self, mline: u16) {
        self.waiting.retain(|waiting| waiting.admitted.mline != mline);
        self.resends.retain(|resend| resend.mline != mline);
        self.waiting_bytes = self.waiting.iter().map(|waiting| usize::from(waiting.due.bytes)).sum();
    }

    /// Whether something waits.
    pub fn has_backlog(&self) -> bool {
        !self.waiting.is_empty() || !self.resends.is_empty()
    }

    /// Numbers for people.
    pub fn numbers(&self, now: Instant) -> DownlinkReport {
        let waited = self.waiting.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.since));
        DownlinkReport { estimate: self.estimator.state(), waiting: (self.waiting.len(), waited) }
    }

    /// Deadlines that passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.estimator.next_timeout().is_some_and(|at| now >= at) {
            self.estimator.handle_timeout(now);
        }
        self.estimator.handle_pacer(now, self.has_backlog());
        self.handle_estimate(now);
    }

    /// When something may leave, or be found out.
    pub fn next_timeout(&self) -> Option<Instant> {
        let backlog = self.has_backlog().then(|| self.pacer.next_timeout().unwrap_or(self.epoch));
        let probe = self.probe.as_ref().and_then(|probe| probe.pacer.next_timeout());
        backlog.into_iter().chain(probe).chain(self.estimator.next_timeout()).min()
    }

    /// A probe may go faster than the pacer does.
    fn may_send(&mut self, now: Instant) -> bool {
        self.probe.as_mut().is_some_and(|probe| probe.pacer.has_room(now)) || self.pacer.has_room(now)
    }
}
