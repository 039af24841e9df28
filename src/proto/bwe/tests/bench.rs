//! A bottleneck in virtual time, senders that obey the estimator, and receivers that report with the real register.
//!
//! Owns: the clock, one link, and the flows over it. Promises: the same seed gives the same run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::ids::Ssrc;
use crate::proto::bwe::{Estimator, Probe, Sending};
use crate::proto::twcc::TwccRegister;
use crate::wire::rtcp::{RtcpView, packets};

/// The link serves in steps of this length.
const STEP_US: u64 = 200;
const TICK_US: u64 = 5_000;
const PICTURE_US: u64 = 33_000;
const PACKET_BYTES: usize = 1200;

/// A small generator with a seed.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Of 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The bottleneck; may be changed while it runs.
#[derive(Debug)]
pub struct Link {
    pub bps: f64,
    pub queue_bytes_max: usize,
    pub delay_us: u64,
    pub jitter_us: u64,
    pub reorders: bool,
    /// Share of packets lost at random.
    pub loss: f64,
    /// Bursts: how likely one begins, and ends, with a packet.
    pub burst: Option<(f64, f64)>,
    /// Everything is lost.
    pub is_down: bool,
    /// Nothing leaves the queue.
    pub is_stalled: bool,
    /// Share of feedback packets that are lost, and of those that come twice and late.
    pub feedback_loss: f64,
    pub feedback_again: f64,
    is_bad: bool,
    queue: VecDeque<Packet>,
    queue_bytes: usize,
    credit: f64,
    last_arrival_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    flow: usize,
    seq: u16,
    bytes: usize,
    sent_us: u64,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Source {
    /// A camera that follows what may be sent, up to a rate.
    Estimate(f64),
    /// The highest of these layers that the estimate carries.
    Layers(Vec<f64>),
    /// This rate, whatever the estimate says.
    Fixed(f64),
    /// The same, and nothing of it waits for longer than half a second.
    Forced(f64),
}

/// A moment of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub at_us: u64,
    pub estimate_bps: f64,
    /// Waiting time in the queue of the last packet that left it.
    pub queue_us: u64,
}

/// One sender and its receiver.
pub struct Flow {
    pub estimator: Estimator,
    pub source: Source,
    /// What it says it wants at most.
    pub wanted_max_bps: f64,
    pub begins_us: u64,
    pub moments: Vec<Moment>,
    /// Bytes that arrived.
    pub arrived_bytes: u64,
    register: TwccRegister,
    backlog: VecDeque<usize>,
    next_picture_us: u64,
    budget: f64,
    next_seq: u16,
    probe: Option<(Probe, u32, u32)>,
    feedback: VecDeque<(u64, Vec<u8>)>,
    last_queue_us: u64,
}

pub struct Bench {
    pub link: Link,
    pub flows: Vec<Flow>,
    pub random: Random,
    pub now_us: u64,
    epoch: Instant,
    in_flight: Vec<(u64, Packet)>,
}

impl Bench {
    /// A link of this rate with 25 ms each way and a queue of 300 ms.
    pub fn new(seed: u64, bps: f64) -> Self {
        let link = Link {
            bps,
            queue_bytes_max: (bps * 0.3 / 8.0) as usize,
            delay_us: 25_000,
            jitter_us: 0,
            reorders: false,
            loss: 0.0,
            burst: None,
            is_down: false,
            is_stalled: false,
            feedback_loss: 0.0,
            feedback_again: 0.0,
            is_bad: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            credit: 0.0,
            last_arrival_us: 0,
        };
        let epoch = crate::runtime::clock::now();
        Self { link, flows: vec![], random: Random(seed), now_us: 0, epoch, in_flight: vec![] }
    }

    pub fn add(&mut self, start_bps: f64, wanted_max_bps: f64, source: Source) -> &mut Flow {
        self.flows.push(Flow {
            estimator: Estimator::new(self.instant(), start_bps as u64),
            source,
            wanted_max_bps,
            begins_us: self.now_us,
            moments: vec![],
            arrived_bytes: 0,
            register: TwccRegister::new(),
            backlog: VecDeque::new(),
            next_picture_us: self.now_us,
            budget: 0.0,
            next_seq: 65_000,
            probe: None,
            feedback: VecDeque::new(),
            last_queue_us: 0,
        });
        self.flows.last_mut().expect("just pushed")
    }

    pub fn instant(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now_us)
    }

    /// Runs for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        let until_us = self.now_us + ms * 1000;
        while self.now_us < until_us {
            if self.now_us.is_multiple_of(TICK_US) {
                (0..self.flows.len()).for_each(|flow| self.tick(flow));
            }
            self.serve();
            self.deliver();
            self.now_us += STEP_US;
        }
    }

    fn tick(&mut self, number: usize) {
        let now = self.instant();
        let now_us = self.now_us;
        let flow = &mut self.flows[number];
        if now_us < flow.begins_us {
            return;
        }
        flow.make_pictures(now, now_us, &mut self.random);
        let mut sent = flow.send(now, now_us);
        sent.iter_mut().for_each(|packet| packet.flow = number);
        let moment =
            Moment { at_us: now_us, estimate_bps: flow.estimator.estimate_bps() as f64, queue_us: flow.last_queue_us };
        flow.moments.push(moment);
        for packet in sent {
            if self.link.queue_bytes + packet.bytes <= self.link.queue_bytes_max {
                self.link.queue_bytes += packet.bytes;
                self.link.queue.push_back(packet);
            }
        }
    }

    /// Lets leave the queue what the rate allows.
    fn serve(&mut self) {
        let link = &mut self.link;
        link.credit += if link.is_stalled { 0.0 } else { link.bps * STEP_US as f64 / 8e6 };
        while let Some(packet) = link.queue.front().copied().filter(|packet| packet.bytes as f64 <= link.credit) {
            link.queue.pop_front();
            link.queue_bytes -= packet.bytes;
            link.credit -= packet.bytes as f64;
            self.flows[packet.flow].last_queue_us = self.now_us - packet.sent_us;
            if let Some((begin, end)) = link.burst {
                let turn = if link.is_bad { end } else { begin };
                link.is_bad ^= self.random.share() < turn;
            }
            if link.is_down || link.is_bad || self.random.share() < link.loss {
                continue;
            }
            let jitter_us = (self.random.share() * link.jitter_us as f64) as u64;
            let mut at_us = self.now_us + link.delay_us + jitter_us;
            if !link.reorders {
                at_us = at_us.max(link.last_arrival_us);
            }
            link.last_arrival_us = link.last_arrival_us.max(at_us);
            self.in_flight.push((at_us, packet));
        }
        if link.queue.is_empty() {
            link.credit = 0.0;
        }
    }

    fn deliver(&mut self) {
        let (now, now_us) = (self.instant(), self.now_us);
        let flows = &mut self.flows;
        self.in_flight.retain(|(at_us, packet)| {
            let is_due = *at_us <= now_us;
            if is_due {
                flows[packet.flow].register.handle_packet(now, packet.seq);
                flows[packet.flow].arrived_bytes += packet.bytes as u64;
            }
            !is_due
        });
        for flow in flows {
            while flow.register.next_timeout().is_some_and(|at| at <= now) {
                let mut out = [0; 1200];
                let Some(len) = flow.register.poll_feedback(now, Ssrc(1), Ssrc(2), &mut out) else { break };
                let bytes = out[..len].to_vec();
                if self.random.share() < self.link.feedback_again {
                    flow.feedback.push_back((now_us + 5 * self.link.delay_us, bytes.clone()));
                }
                if !self.link.is_down && self.random.share() >= self.link.feedback_loss {
                    flow.feedback.push_back((now_us + self.link.delay_us, bytes));
                }
            }
            while let Some(at) = flow.feedback.iter().position(|(at_us, _)| *at_us <= now_us) {
                let Some((_, bytes)) = flow.feedback.remove(at) else { break };
                for packet in packets(&bytes).flatten() {
                    let RtcpView::Twcc(feedback) = packet else { continue };
                    flow.estimator.handle_twcc(now, &feedback);
                }
            }
        }
    }
}

impl Flow {
    /// Mean estimate from one moment to another, in seconds.
    pub fn mean_bps(&self, from_s: f64, until_s: f64) -> f64 {
        let range = self.range(from_s, until_s);
        range.iter().map(|moment| moment.estimate_bps).sum::<f64>() / range.len() as f64
    }

    /// The waiting time in the queue that 95 % of moments stay below, in ms.
    pub fn queue_ms_p95(&self, from_s: f64, until_s: f64) -> f64 {
        let mut times: Vec<u64> = self.range(from_s, until_s).iter().map(|moment| moment.queue_us).collect();
        times.sort_unstable();
        times[times.len() * 95 / 100] as f64 / 1000.0
    }

    /// Seconds after `from_s` until the estimate satisfies.
    pub fn seconds_until(&self, from_s: f64, is_good: impl Fn(f64) -> bool) -> f64 {
        let range = self.range(from_s, f64::INFINITY);
        let good = range.iter().find(|moment| is_good(moment.estimate_bps));
        good.map_or(f64::INFINITY, |moment| moment.at_us as f64 / 1e6 - from_s)
    }

    /// The moments between two times in seconds.
    pub fn range(&self, from_s: f64, until_s: f64) -> Vec<Moment> {
        let is_in = |moment: &&Moment| (from_s..until_s).contains(&(moment.at_us as f64 / 1e6));
        self.moments.iter().filter(is_in).copied().collect()
    }

    fn make_pictures(&mut self, now: Instant, now_us: u64, random: &mut Random) {
        let (estimate_bps, budget_bps) = (self.estimator.estimate_bps() as f64, self.estimator.budget_bps() as f64);
        let bps = match &self.source {
            Source::Estimate(most) => budget_bps.min(*most),
            Source::Layers(layers) => {
                layers.iter().copied().rfind(|bps| *bps <= estimate_bps).or(layers.first().copied()).expect("a layer")
            }
            Source::Fixed(bps) | Source::Forced(bps) => *bps,
        };
        self.estimator.set_wanted(now, bps as u64, self.wanted_max_bps as u64);
        if now_us < self.next_picture_us {
            return;
        }
        self.next_picture_us += PICTURE_US;
        let mut bytes = (bps * PICTURE_US as f64 / 8e6 * (0.8 + 0.4 * random.share())) as usize;
        let count = bytes.div_ceil(PACKET_BYTES).max(1);
        for left in (1..=count).rev() {
            self.backlog.push_back(bytes / left);
            bytes -= bytes / left;
        }
    }

    /// What leaves in this tick.
    fn send(&mut self, now: Instant, now_us: u64) -> Vec<Packet> {
        if self.estimator.next_timeout().is_some_and(|at| at <= now) {
            self.estimator.handle_timeout(now);
        }
        let mut sent = vec![];
        if self.probe.is_none() {
            self.probe = self.estimator.poll_probe(now).map(|probe| (probe, probe.bytes, probe.packets));
        }
        if let Some((probe, bytes, packets)) = self.probe {
            let mut budget = probe.rate_bps as f64 * TICK_US as f64 / 8e6;
            let (mut bytes_left, mut packets_left) = (bytes, packets);
            while budget > 0.0 && (bytes_left > 0 || packets_left > 0) {
                let media = self.backlog.pop_front();
                let what = if media.is_some() { Sending::Media } else { Sending::Padding };
                let padding = (probe.bytes / probe.packets).clamp(200, 1200);
                let len = media.unwrap_or(padding as usize).max(200);
                budget -= len as f64;
                bytes_left = bytes_left.saturating_sub(len as u32);
                packets_left = packets_left.saturating_sub(1);
                sent.push(self.depart(now, now_us, len, what, Some(probe.id)));
            }
            let is_done = bytes_left == 0 && packets_left == 0;
            self.probe = if is_done { None } else { Some((probe, bytes_left, packets_left)) };
        }
        if self.probe.is_some() {
            self.estimator.handle_pacer(now, !self.backlog.is_empty());
            return sent;
        }
        let pacing_bps = self.estimator.pacing_bps().map_or(f64::INFINITY, |bps| bps as f64);
        let is_forced = matches!(self.source, Source::Forced(_));
        let forced_bps = if is_forced { self.backlog.iter().sum::<usize>() as f64 * 8.0 / 0.5 } else { 0.0 };
        let tick_bytes = pacing_bps.max(forced_bps) * TICK_US as f64 / 8e6;
        self.budget = (self.budget + tick_bytes).min(tick_bytes.max(0.0));
        while self.budget > 0.0 {
            let Some(len) = self.backlog.pop_front() else { break };
            self.budget -= len as f64;
            sent.push(self.depart(now, now_us, len, Sending::Media, None));
        }
        self.estimator.handle_pacer(now, !self.backlog.is_empty());
        sent
    }

    fn depart(&mut self, now: Instant, now_us: u64, bytes: usize, what: Sending, probe: Option<u32>) -> Packet {
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        self.estimator.handle_sent(now, seq, bytes, what, probe);
        Packet { flow: 0, seq, bytes, sent_us: now_us }
    }
}
