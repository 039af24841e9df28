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
use crate::proto::bwe::{Estimator, PACING_FACTOR, Probe, Sending};
use crate::proto::pacer::{Pacer, TICK};
use crate::proto::report::ntp_duration;
use crate::wire::rtp_ext::AbsSendTime;

/// What waits does not wait longer than this: the pacer goes faster then. What a peer asks for beyond its line is held
/// up by the line and not by us; which layer it gets is the allocator's business.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Packets that wait at most: three seconds of 4 Mbit/s. What comes then is left out, and video goes on with a keyframe.
const WAITING_MAX: usize = 1024;
/// Memory taken at once for those, where anything ever waits: a large keyframe, so that the queue of
/// most never grows.
const WAITING_RESERVED: usize = 256;
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
    bytes: usize,
    /// Of what waited: many packets are chosen before the first of them is written, and counted.
    chosen_bytes: usize,
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
    /// The time as packets carry it, and of when.
    send_time: (Instant, AbsSendTime),
    /// When the estimator is told again that nothing waits.
    tell_at: Instant,
    /// Bits per second sent of all tracks.
    sent_bps: u64,
    epoch: Instant,
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
            send_time: (now, AbsSendTime::from_ntp(0)),
            tell_at: now,
            sent_bps: 0,
            epoch: now,
        }
    }

    /// The next transport-wide number.
    pub fn take_twcc(&mut self) -> u16 {
        let twcc = self.next_twcc;
        self.next_twcc = twcc.wrapping_add(1);
        twcc
    }

    /// The time as packets carry it. Those of one turn carry the same.
    pub fn send_time(&mut self, now: Instant) -> AbsSendTime {
        let (at, _) = self.send_time;
        if at != now {
            let ntp = ntp_duration(now.saturating_duration_since(self.epoch));
            self.send_time = (now, AbsSendTime::from_ntp(ntp));
        }
        self.send_time.1
    }

    /// A datagram left under that number.
    pub fn handle_sent(&mut self, now: Instant, twcc: u16, bytes: usize, what: Sending) {
        let probe = self.probe.as_mut().map(|probe| {
            probe.pacer.handle_sent(bytes);
            probe.bytes_left = probe.bytes_left.saturating_sub(bytes);
            probe.packets_left = probe.packets_left.saturating_sub(1);
            (probe.id, probe.bytes_left == 0 && probe.packets_left == 0)
        });
        if let Some((_, true)) = probe {
            self.probe = None;
        }
        let probe = probe.map(|(id, _)| id);
        self.estimator.handle_sent(now, twcc, bytes, what, probe);
    }

    /// A receiver report came: where nothing else does, losses are heeded.
    pub fn handle_report(&mut self, now: Instant, fraction_lost: f32, rtt: Option<Duration>) {
        self.estimator.handle_report(now, fraction_lost, rtt);
        self.handle_estimate(now);
    }

    /// What is sent of all tracks by the line's division, and what would be if it could.
    pub fn set_wanted(&mut self, now: Instant, sent_bps: u64, wanted_bps: u64) {
        self.sent_bps = sent_bps;
        self.estimator.set_wanted(now, sent_bps, wanted_bps);
    }

    /// After news of the line.
    pub fn handle_estimate(&mut self, now: Instant) {
        self.tell_backlog(now);
        let drain = self.waiting_bytes as f64 * 8.0 / WAIT_MAX.as_secs_f64();
        // What is kept for who joins is paced before anything is known.
        let unknown = self.has_backlog().then(|| self.estimator.estimate_bps());
        // What is sent in any case gains nothing by waiting, whatever the estimate says, unless the path is broken.
        let is_broken = self.estimator.pacing_factor().is_some_and(|factor| factor <= 1.0);
        let sent = (self.sent_bps as f64 * if is_broken { 1.0 } else { PACING_FACTOR }) as u64;
        let rate = self.estimator.pacing_bps().or(unknown).map(|bps| bps.max(sent).max(drain as u64));
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
        let free = if self.has_backlog() { 0 } else { self.pacer.take(now, due.iter().map(Due::may_wait)) };
        let mut kept = free;
        for at in free..due.len() {
            let (packet, length) = (admitted[at], due[at]);
            let may_go =
                length.is_audio || self.waiting.is_empty() && self.resends.is_empty() && self.pacer.has_room(now);
            if may_go {
                self.pacer.handle_sent(length.bytes.into());
                (admitted[kept], due[kept]) = (packet, length);
                kept += 1;
            } else if !self.wait(now, packet, length) {
                leave_out(packet.mline);
            }
        }
        admitted.truncate(kept);
        due.truncate(kept);
        self.tell_backlog(now);
    }

    /// Whether a packet may leave at once. Then it does; else it is one for [`pace`](Self::pace).
    pub fn lets_pass(&mut self, now: Instant, due: &Due) -> bool {
        let is_first = due.is_audio || !self.has_backlog();
        let passes = is_first && self.pacer.take(now, std::iter::once(due.may_wait())) == 1;
        if passes {
            self.tell_backlog(now);
        }
        passes
    }

    /// Tells the estimator whether something waits: where nothing does, once in a tick.
    fn tell_backlog(&mut self, now: Instant) {
        let has_backlog = self.has_backlog();
        if has_backlog || now >= self.tell_at {
            self.tell_at = now + TICK;
            self.estimator.handle_pacer(now, has_backlog);
        }
    }

    /// A packet that waits for its turn in any case; `false`: too many do.
    pub fn wait(&mut self, now: Instant, admitted: Admitted, due: Due) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            if self.waiting.capacity() == 0 {
                self.waiting.reserve(WAITING_RESERVED);
            }
            self.waiting_bytes += usize::from(due.bytes);
            self.waiting.push_back(Waiting { admitted, due, since: now });
        }
        has_room
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
        if let Some(probe) = &mut self.probe {
            probe.chosen_bytes += usize::from(waiting.due.bytes);
        }
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
            let bytes = bytes as usize;
            self.probe =
                Some(RunningProbe { id, pacer, bytes, chosen_bytes: 0, bytes_left: bytes, packets_left: packets });
        }
        let has_backlog = self.has_backlog();
        self.probe.as_mut().is_some_and(|probe| !has_backlog && probe.pacer.has_room(now))
    }

    /// Nothing can be sent to find out with.
    pub fn give_up_probe(&mut self, now: Instant) {
        if self.probe.take().is_some() {
            self.estimator.give_up_probe(now);
        }
    }

    /// Forgets all that waits, and what is sent only to find out; how much was new. Its m-lines are told to `leave_out`.
    pub fn give_up_waiting(&mut self, now: Instant, leave_out: impl FnMut(u16)) -> usize {
        self.resends.clear();
        self.give_up_probe(now);
        self.waiting_bytes = 0;
        let given_up = self.waiting.len();
        self.waiting.drain(..).map(|waiting| waiting.admitted.mline).for_each(leave_out);
        given_up
    }

    /// Bytes of retransmissions count as well.
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
        let has_room = |probe: &mut RunningProbe| probe.chosen_bytes < probe.bytes * 5 / 4 && probe.pacer.has_room(now);
        self.probe.as_mut().is_some_and(has_room) || self.pacer.has_room(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Ssrc;
    use crate::proto::twcc::TwccRegister;
    use crate::runtime::clock;
    use crate::wire::rtcp::{RtcpView, packets};

    const MS: Duration = Duration::from_millis(1);
    const PICTURE: u16 = 1;
    const BYTES: u16 = 1000;

    /// A line of that rate, by REMB: bursts may leave at 2.5 times of it.
    fn line(now: Instant, bps: u64) -> Downlink {
        let mut downlink = Downlink::new(now);
        downlink.estimator.handle_remb(now, bps);
        downlink.handle_estimate(now);
        downlink
    }

    fn due(is_audio: bool) -> Due {
        Due { stream: PICTURE, is_audio, bytes: BYTES }
    }

    /// Gives packets to the line; which of them leave, and how many are left out.
    fn pace(downlink: &mut Downlink, now: Instant, are_audio: &[bool]) -> (Vec<u64>, usize) {
        let mut admitted: Vec<_> = (0..are_audio.len()).map(|at| Admitted::example(PICTURE, at as u64)).collect();
        let mut lengths: Vec<_> = are_audio.iter().map(|is_audio| due(*is_audio)).collect();
        let mut left_out = 0;
        downlink.pace(now, &mut admitted, &mut lengths, |_| left_out += 1);
        assert_eq!(admitted.len(), lengths.len());
        (admitted.iter().map(Admitted::index).collect(), left_out)
    }

    fn waiting(downlink: &mut Downlink, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| downlink.next_waiting(now)).map(|(admitted, _)| admitted.index()).collect()
    }

    /// A line whose peer has told of some packets, and whose best layers take 5 Mbit/s.
    fn measured(now: Instant) -> (Downlink, Instant) {
        let (mut downlink, mut register) = (Downlink::new(now), TwccRegister::new());
        for at in 0..10 {
            let twcc = downlink.take_twcc();
            downlink.handle_sent(now + 10 * MS * at, twcc, 500, Sending::Media);
            register.handle_packet(now + 10 * MS * at + 20 * MS, twcc);
        }
        let (now, mut out) = (now + 300 * MS, [0; 1200]);
        let len = register.poll_feedback(now, Ssrc(1), Ssrc(2), &mut out).expect("feedback is due");
        for packet in packets(&out[..len]).flatten() {
            let RtcpView::Twcc(feedback) = packet else { panic!("something else") };
            downlink.estimator.set_wanted(now, 100_000, 5_000_000);
            downlink.estimator.handle_twcc(now, &feedback);
        }
        downlink.handle_estimate(now);
        (downlink, now)
    }

    #[test]
    fn sound_never_waits_and_pictures_keep_their_order() {
        let now = clock::now();
        // 25 bytes each ms.
        let mut downlink = line(now, 80_000);
        assert_eq!(pace(&mut downlink, now, &[false, false, true, false]).0, [0, 2]);
        assert!(downlink.has_backlog());
        assert!(waiting(&mut downlink, now).is_empty());
        let next = downlink.next_timeout().expect("something waits");
        assert!(next > now + 70 * MS && next < now + 80 * MS, "{:?}", next - now);
        assert_eq!(waiting(&mut downlink, next + MS), [1]);
        assert!(pace(&mut downlink, next + 100 * MS, &[false]).0.is_empty(), "not before those that wait");
        assert_eq!(waiting(&mut downlink, next + 100 * MS), [3]);
    }

    #[test]
    fn who_tells_nothing_is_not_held_back() {
        let now = clock::now();
        let mut downlink = Downlink::new(now);
        assert_eq!(pace(&mut downlink, now, &[false; 300]).0.len(), 300);
        downlink.handle_report(now, 0.05, None);
        assert_eq!(pace(&mut downlink, now, &[false; 300]).0.len(), 300);
        downlink.handle_report(now, 0.2, None);
        assert!(pace(&mut downlink, now, &[false; 300]).0.len() < 10, "losses are heeded");
    }

    #[test]
    fn what_is_missed_goes_first() {
        let now = clock::now();
        let mut downlink = line(now, 80_000);
        let resend = Resend { mline: PICTURE, seq: 7 };
        assert!(downlink.want_resend(resend));
        assert_eq!(pace(&mut downlink, now, &[false, true]).0, [1], "though there is room");
        downlink.handle_extra(BYTES.into());
        assert_eq!((downlink.next_resend(now), waiting(&mut downlink, now)), (None, vec![]));
        let later = now + 100 * MS;
        assert_eq!(downlink.next_resend(later), Some(resend));
        assert_eq!(waiting(&mut downlink, later), [0]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = clock::now();
        let mut downlink = line(now, 80_000);
        assert_eq!(pace(&mut downlink, now, &[false; WAITING_MAX + 4]), (vec![0], 3));
        assert!((0..RESENDS_MAX as u16).all(|seq| downlink.want_resend(Resend { mline: PICTURE, seq })));
        assert!(!downlink.want_resend(Resend { mline: PICTURE, seq: 0 }));
        downlink.forget(PICTURE + 1);
        assert!(downlink.has_backlog());
        downlink.forget(PICTURE);
        assert_eq!((downlink.has_backlog(), downlink.waiting_bytes), (false, 0));
    }

    #[test]
    fn nothing_waits_longer_than_it_may() {
        let now = clock::now();
        let mut downlink = line(now, 30_000);
        pace(&mut downlink, now, &[false; 100]);
        assert_eq!(waiting(&mut downlink, now + WAIT_MAX - MS).len(), 1);
        assert_eq!(waiting(&mut downlink, now + WAIT_MAX).len(), 98);
        pace(&mut downlink, now + WAIT_MAX, &[false; 100]);
        downlink.handle_estimate(now + WAIT_MAX);
        let left: usize = (1..=50).map(|tick| waiting(&mut downlink, now + WAIT_MAX + 10 * MS * tick).len()).sum();
        assert!(left > 90, "{left} have left: the rate follows what waits");
    }

    #[test]
    fn a_probe_ends_when_it_is_sent() {
        let (mut downlink, now) = measured(clock::now());
        assert!(downlink.is_padding_due(now));
        let mut sent = 0;
        for tick in 0..100 {
            while downlink.probe.is_some() && downlink.is_padding_due(now + 2 * MS * tick) {
                let twcc = downlink.take_twcc();
                downlink.handle_sent(now + 2 * MS * tick, twcc, 300, Sending::Padding);
                sent += 1;
            }
            if downlink.probe.is_none() {
                break;
            }
        }
        // 15 ms of 3 Mbit/s.
        assert!(downlink.probe.is_none() && (19..=20).contains(&sent), "{sent}");
    }

    #[test]
    fn of_what_waits_a_probe_takes_what_it_needs_and_not_all() {
        let (mut downlink, now) = measured(clock::now());
        pace(&mut downlink, now, &[false; 60]);
        assert!(!downlink.is_padding_due(now) && downlink.probe.is_some(), "there is something better than padding");
        // 15 ms of 3 Mbit/s, and a little.
        let left = waiting(&mut downlink, now).len();
        assert!((6..=8).contains(&left), "{left}");
        assert_eq!(waiting(&mut downlink, now + 3 * MS).len(), 0);
    }

    #[test]
    fn all_that_waits_is_given_up_together() {
        let (mut downlink, now) = measured(clock::now());
        assert!(downlink.is_padding_due(now) && downlink.want_resend(Resend { mline: PICTURE, seq: 1 }));
        pace(&mut downlink, now, &[false; 3]);
        let mut left_out = vec![];
        assert_eq!(downlink.give_up_waiting(now, |mline| left_out.push(mline)), 3);
        assert_eq!(left_out, [PICTURE; 3]);
        assert!(downlink.probe.is_none() && !downlink.has_backlog() && downlink.waiting_bytes == 0);
        assert!(downlink.next_timeout().is_none_or(|at| at > now), "nothing comes at once");
    }
}
