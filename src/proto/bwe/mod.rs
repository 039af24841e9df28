//! How much does one subscriber's path carry? The send-side bandwidth estimator, in the manner of Google congestion control
//! (draft-ietf-rmcat-gcc-02) with what libwebrtc added since, from transport-wide feedback; REMB and receiver reports
//! serve peers that do not send it.
//!
//! A packet's way: `sent` remembers it; a feedback (`control`) says when it arrived; `groups` and `trendline` see whether
//! the delay rises, `queue` how much of it stands, `acked` what got through (and `told`, by our own clock) and `busy` what did while it stood, `loss` whether losses come of our sending;
//! `aimd` moves the rate, `probes` and `cluster` look for more where `limited` says that sending proves nothing, and `wall`
//! says how much of it to believe.
//!
//! Where this differs from libwebrtc: probes are hidden from the delay detector and may be frequent, since layers come
//! in steps; what is sent stays low until a queue has emptied, while the estimate is what was measured; loss is explained by
//! bandwidth and inherent loss in a smaller model (`loss`); probes only ever raise the rate.
//!
//! Owns: one subscriber's downlink. Promises: sans-IO and deterministic; a few KiB with the first packet
//! sent, 16 more as more is under way, none in steady state;
//! whatever a peer reports, an estimate within [`ESTIMATE_MIN_BPS`] and [`ESTIMATE_MAX_BPS`], and no panic.
//! Forbids: choosing layers (`forward::allocate`) and delaying packets (the pacer).

mod acked;
mod aimd;
mod busy;
mod cluster;
mod control;
mod fallback;
mod groups;
mod limited;
mod loss;
mod probes;
mod queue;
mod receive;
mod sent;
#[cfg(test)]
mod tests;
mod told;
mod trendline;
mod wall;

use std::time::{Duration, Instant};

use control::Control;
pub use control::PACING_FACTOR;
use fallback::Fallback;
pub use receive::ReceiveEstimator;
pub use trendline::Usage;

use crate::wire::rtcp::TwccFeedback;

/// Audio and a slide show; less carries no call.
pub const ESTIMATE_MIN_BPS: f64 = 30_000.0;

/// Two dozen large videos; the log of packets under way covers half a second of it.
pub const ESTIMATE_MAX_BPS: f64 = 40_000_000.0;

/// What a packet is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// A packet for the first time.
    Media,
    /// A packet again.
    Retransmission,
    /// Nothing but bytes: does not count as what the application has to send.
    Padding,
}

/// A cluster of packets to send at a rate: of what waits, else of padding in packets of about `bytes / packets`. While it
/// runs nothing else should leave. It ends when `bytes` *and* `packets` of it were given to [`Estimator::handle_sent`]
/// with its `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Names it.
    pub id: u32,
    /// How fast.
    pub rate_bps: u64,
    /// At least so much.
    pub bytes: u32,
    /// At least so many, of 200 bytes or more.
    pub packets: u32,
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BweNumbers {
    /// What the path carries.
    pub estimate_bps: u64,
    /// What the peer says got through; `None` without transport-wide feedback, as for the following ones.
    pub acked_bps: Option<u64>,
    /// The estimate by delay.
    pub delay_based_bps: Option<u64>,
    /// The limit by loss, if there is one.
    pub loss_based_bps: Option<u64>,
    /// What the peer's own estimator allows.
    pub remb_bps: Option<u64>,
    /// Share of packets lost in the last second.
    pub loss: f32,
    /// Share of packets that is believed to get lost whatever is sent.
    pub inherent_loss: f32,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// The queue that stands on the path.
    pub queue_us: u64,
    /// How much later packets arrive than the fastest, on the average, while none stands.
    pub noise_us: u64,
    /// What the delay does.
    pub usage: Usage,
    /// Less is sent than may be.
    pub is_app_limited: bool,
    /// No answer comes.
    pub is_outage: bool,
    /// Clusters begun.
    pub probes: u32,
}

/// The estimator of one subscriber.
#[derive(Debug)]
pub struct Estimator {
    epoch: Instant,
    /// The last moment that we were told, and how long it is after the epoch.
    now: Instant,
    now_us: u64,
    start_bps: u64,
    wanted_bps: u64,
    wanted_max_bps: u64,
    fallback: Fallback,
    /// Boxed, for most peers of a large room may only publish.
    control: Option<Box<Control>>,
}

impl Estimator {
    /// One that expects this rate until it knows better.
    pub fn new(now: Instant, start_bps: u64) -> Self {
        let start_bps = start_bps.clamp(ESTIMATE_MIN_BPS as u64, ESTIMATE_MAX_BPS as u64);
        let fallback = Fallback::default();
        Self { epoch: now, now, now_us: 0, start_bps, wanted_bps: 0, wanted_max_bps: 0, fallback, control: None }
    }

    /// A packet left; `bytes` are those of the datagram. Only for packets that carry a transport-wide number.
    pub fn handle_sent(&mut self, now: Instant, twcc_seq: u16, bytes: usize, what: Sending, probe: Option<u32>) {
        let now_us = self.tell(now);
        if self.control.is_none() {
            self.begin(now_us);
        }
        if let Some(control) = &mut self.control {
            control.handle_sent(now_us, twcc_seq, bytes, what, probe);
        }
    }

    #[cold]
    fn begin(&mut self, now_us: u64) {
        let (start_bps, wanted_max_bps) = (self.start_bps as f64, self.wanted_max_bps as f64);
        self.control = Some(Box::new(Control::new(now_us, start_bps, wanted_max_bps)));
        self.cap();
    }

    /// Transport-wide feedback came.
    pub fn handle_twcc(&mut self, now: Instant, feedback: &TwccFeedback<'_>) {
        let now_us = self.tell(now);
        if let Some(control) = &mut self.control {
            control.handle_twcc(now_us, feedback);
        }
    }

    /// A REMB came: a cap where transport-wide feedback flows, else the estimate.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        self.fallback.handle_remb(now, bps);
        self.tell(now);
        self.cap();
    }

    /// A receiver report came. It moves the estimate where there is neither transport-wide feedback nor REMB.
    pub fn handle_report(&mut self, now: Instant, fraction_lost: f32, rtt: Option<Duration>) {
        let (start_bps, sent_bps) = (self.start_bps as f64, self.wanted_bps as f64);
        self.fallback.handle_report(now, fraction_lost, rtt, start_bps, sent_bps);
        self.tell(now);
    }

    /// What is sent now by allocation, and what would be if there were room: where probing ends.
    pub fn set_wanted(&mut self, now: Instant, bps: u64, bps_max: u64) {
        let now_us = self.tell(now);
        (self.wanted_bps, self.wanted_max_bps) = (bps, bps_max);
        if let Some(control) = &mut self.control {
            control.set_goal(now_us, bps_max as f64);
        }
    }

    /// The pacer ran; `has_backlog`: it keeps something back. Once per tick.
    pub fn handle_pacer(&mut self, now: Instant, has_backlog: bool) {
        let now_us = self.tell(now);
        if let Some(control) = &mut self.control {
            control.handle_pacer(now_us, has_backlog);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now_us = self.tell(now);
        if let Some(control) = &mut self.control {
            control.handle_timeout(now_us);
        }
    }

    /// When to call [`Estimator::handle_timeout`] and then [`Estimator::poll_probe`]; may lie in the past.
    pub fn next_timeout(&self) -> Option<Instant> {
        let control = self.control.as_ref().and_then(|control| control.next_timeout_us());
        let control = control.map(|at_us| self.epoch + Duration::from_micros(at_us));
        [control, self.fallback.next_timeout(self.now)].into_iter().flatten().min()
    }

    /// The rate that the path carries, in bits per second of datagrams.
    pub fn estimate_bps(&self) -> u64 {
        let bps = match self.control.as_ref().filter(|control| control.is_up()) {
            Some(control) => control.estimate_bps(),
            None => self.fallback.estimate_bps(self.now).unwrap_or(self.start_bps as f64),
        };
        bps as u64
    }

    /// What may be sent now: the estimate, or less as long as a queue on the path has to empty.
    pub fn budget_bps(&self) -> u64 {
        match self.control.as_ref().filter(|control| control.is_up()) {
            Some(control) => control.budget_bps() as u64,
            None => self.estimate_bps(),
        }
    }

    /// The rate that bursts may leave at. `None` before any feedback came: then do not pace.
    pub fn pacing_bps(&self) -> Option<u64> {
        self.pacing_factor().map(|factor| (self.budget_bps() as f64 * factor) as u64)
    }

    /// How much faster than on the average bursts may leave. `None` as above.
    pub fn pacing_factor(&self) -> Option<f64> {
        let by_control = self.control.as_ref().and_then(|control| control.pacing_factor(self.now_us));
        by_control.or(self.fallback.estimate_bps(self.now).map(|_| PACING_FACTOR))
    }

    /// A cluster that was begun is not sent to its end.
    pub fn give_up_probe(&mut self, now: Instant) {
        let now_us = self.tell(now);
        if let Some(control) = &mut self.control {
            control.give_up_probe(now_us);
        }
    }

    /// The next cluster to send, if it is time. Ask again only when this one was sent to its end. Who has nothing to send
    /// it of, no packets and no stream that could carry padding, does not ask; one that is not completed within 500 ms is
    /// given up.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        let now_us = self.tell(now);
        self.control.as_mut()?.poll_probe(now_us)
    }

    /// Round trip, by feedback or by reports.
    pub fn rtt(&self) -> Option<Duration> {
        let by_control = self.control.as_ref().and_then(|control| control.rtt_us()).map(Duration::from_micros);
        by_control.or(self.fallback.rtt())
    }

    /// Much less is sent than may be, so that only probes can raise the estimate.
    pub fn is_app_limited(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.is_app_limited())
    }

    /// Numbers for people.
    pub fn state(&self) -> BweNumbers {
        let mut numbers = BweNumbers {
            estimate_bps: self.estimate_bps(),
            remb_bps: self.fallback.remb_bps(self.now).map(|bps| bps as u64),
            loss: self.fallback.loss(),
            rtt: self.rtt(),
            ..BweNumbers::default()
        };
        if let Some(control) = self.control.as_ref().filter(|control| control.is_up()) {
            control.numbers(&mut numbers);
        }
        numbers
    }

    /// Takes the time, and what it makes of the cap. Packets of one turn are told of at one time.
    fn tell(&mut self, now: Instant) -> u64 {
        if now > self.now {
            self.now = now;
            self.now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
            self.cap();
        }
        self.now_us
    }

    fn cap(&mut self) {
        if let Some(control) = &mut self.control {
            control.set_remb(self.fallback.remb_bps(self.now));
        }
    }
}
