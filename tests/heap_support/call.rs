//! A call on worker cores as shipped: one publisher with audio and video in two encodings of two temporal layers each,
//! subscribers who want all of it, the lower temporal layers or the smaller encoding, who report, tell of every packet, ask
//! for what they miss and for keyframes; packets that come late or not at all; lines that get worse. Every call into a
//! core is watched for what it does to the heap.
//!
//! Owns: the cores, their peers, the virtual time. Promises: a tick is a millisecond, with one turn of every core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tramline::base::batch::{Path, RxDatagram, TxBatch};
use tramline::base::ids::{Ssrc, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::SrtpSuite;
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber};
use tramline::proto::dtls::{DtlsConfig, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::session::negotiate::RemoteTransport;
use tramline::session::streams::Demand;
use tramline::wire::rtcp::{ReportBlock, SenderInfo, write_pli, write_receiver_report, write_sender_report};
use tramline::worker::command::{Command, Event};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

use super::Heap;
use super::peer::{AUDIO, Peer, SENT, SMALL, SOURCES, TRACKS, VIDEO, streams_wanted};

/// Payload bytes of a packet of each source.
const PAYLOAD_BYTES: [usize; 3] = [160, 1150, 600];
/// From the server to a subscriber; every third one's line is worse for a second of five.
const DELAY_MS: u64 = 20;
/// No limits.
const WHOLE: Demand = Demand { size: None, fps: None, temporal_max: None, layer: None, size_max: None };
/// What subscribers want, in turn.
const DEMANDS: [Demand; 3] =
    [WHOLE, Demand { temporal_max: Some(0), ..WHOLE }, Demand { size: Some((320, 180)), ..WHOLE }];
/// A video packet of so many comes behind the next three.
const LATE_EVERY: u64 = 97;
/// One of so many does not come; it is sent again 60 ms later.
const LOST_EVERY: u64 = 211;
const RESENT_AFTER_MS: u64 = 60;

/// See the module.
pub struct Call {
    cores: Vec<WorkerCore>,
    tx: TxBatch,
    now: Instant,
    ms: u64,
    /// The publisher first.
    pub peers: Vec<Peer>,
    /// What is due later: tick, datagram of the publisher.
    later: VecDeque<(u64, Vec<u8>)>,
    /// Allocations of the cores' calls, but those that tell numbers to people.
    pub allocations: u64,
    /// Calls that told numbers to people (`Event::Report`, `Event::Levels`).
    pub tellings: u64,
    _plan: Plan,
}

impl Call {
    /// A call that has begun, on `workers` cores; every second subscriber lives on the last one.
    pub fn new(workers: usize, subscribers: u32, suite: SrtpSuite) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let certificate = Arc::new(Certificate::generate().unwrap());
        let dtls = Arc::new(DtlsConfig::new(Arc::clone(&certificate)).unwrap());
        let mut plan = Plan::default();
        let core = |(index, lanes)| {
            let rng = StdRng::seed_from_u64(index as u64);
            WorkerCore::new(WorkerId(index as u8), rng, Arc::clone(&dtls), plan.shared(), lanes)
        };
        let cores = Lanes::mesh(workers).into_iter().enumerate().map(core).collect();
        let peers = (0..=subscribers).map(|index| Peer::new(index, suite, LocalCredentials::generate(&mut rng)));
        let mut call = Self {
            cores,
            tx: TxBatch::with_capacity(256),
            now: Instant::now(),
            ms: 0,
            peers: peers.collect(),
            later: VecDeque::new(),
            allocations: 0,
            tellings: 0,
            _plan: Plan::default(),
        };
        for (mline, track) in TRACKS.into_iter().enumerate() {
            let of = |worker| {
                let all = (1..=subscribers).filter(|index| call.home(*index as usize) == worker);
                all.map(|index| Subscriber { session: call.peers[index as usize].key, mline: mline as u16 }).collect()
            };
            plan.set(Route { by_worker: (0..workers).map(of).collect(), ..Route::new(track, WorkerId(0)) });
        }
        plan.publish();
        call._plan = plan;
        (0..call.peers.len()).for_each(|peer| call.enter(peer, &certificate));
        call
    }

    /// Index of the core where a peer's session lives.
    fn home(&self, peer: usize) -> usize {
        if peer % 2 == 1 { self.cores.len() - 1 } else { 0 }
    }

    /// Index of the core that hears a peer: not always the one where its session lives.
    fn ear(&self, peer: usize) -> usize {
        if peer == 1 { 0 } else { self.home(peer) }
    }

    fn enter(&mut self, peer: usize, certificate: &Certificate) {
        let remote = Arc::new(RemoteTransport {
            ufrag: String::new(),
            pwd: String::new(),
            fingerprint: certificate.fingerprint_sha256(),
            dtls_role: DtlsRole::Server,
        });
        let streams = Arc::new(streams_wanted(peer == 0, DEMANDS[peer % DEMANDS.len()]));
        let (home, now) = (self.home(peer), self.now);
        for core in &mut self.cores {
            let Peer { ticket, credentials, key, .. } = &self.peers[peer];
            let (ticket, credentials, session) = (Arc::clone(ticket), credentials.clone(), *key);
            core.apply(now, Command::Open { ticket, credentials }, &mut self.tx);
            let (remote, streams) = (Some(Arc::clone(&remote)), Arc::clone(&streams));
            core.apply(now, Command::Configure { session, remote, streams }, &mut self.tx);
        }
        let check = self.peers[peer].check();
        self.hear(home, peer, check);
        let Peer { key, keys, .. } = &self.peers[peer];
        self.cores[home].adopt(now, *key, keys);
        self.tick_feedback(peer);
    }

    /// So many milliseconds go by.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            self.now += Duration::from_millis(1);
            self.publish();
            (0..self.peers.len()).for_each(|peer| self.tick_feedback(peer));
            self.turns();
        }
    }

    /// Media packets that subscribers got, without retransmissions.
    pub fn received(&self) -> u64 {
        self.peers.iter().map(|peer| peer.received).sum()
    }

    /// What the publisher sends in this millisecond.
    fn publish(&mut self) {
        let ms = self.ms;
        if ms.is_multiple_of(20) {
            let audio = self.peers[0].media(AUDIO, PAYLOAD_BYTES[AUDIO], false);
            self.hear(0, 0, audio);
        }
        if ms.is_multiple_of(4) {
            let small = self.peers[0].media(SMALL, PAYLOAD_BYTES[SMALL], ms % 3000 == 4);
            self.hear(0, 0, small);
        }
        let seq = self.peers[0].next_seq(VIDEO);
        let video = self.peers[0].media(VIDEO, PAYLOAD_BYTES[VIDEO], ms % 3000 == 1);
        if ms.is_multiple_of(LOST_EVERY) {
            let again = self.peers[0].retransmission(seq);
            self.later.push_back((ms + RESENT_AFTER_MS, again));
        } else if ms.is_multiple_of(LATE_EVERY) {
            self.later.push_back((ms + 3, video));
        } else {
            self.hear(0, 0, video);
        }
        while let Some(at) = self.later.iter().position(|(due, _)| *due <= ms)
            && let Some((_, datagram)) = self.later.remove(at)
        {
            self.hear(0, 0, datagram);
        }
    }

    /// Checks and RTCP of a peer, each in its rhythm and not all peers at once.
    fn tick_feedback(&mut self, peer: usize) {
        let (ms, ear) = (self.ms + 7 * peer as u64, self.ear(peer));
        if self.ms == 0 || ms.is_multiple_of(2500) {
            let check = self.peers[peer].check();
            self.hear(ear, peer, check);
        }
        if peer == 0 {
            if ms.is_multiple_of(500) {
                let reports = self.peers[0].rtcp(|out| sender_reports(out, ms));
                self.hear(ear, 0, reports);
            }
            return;
        }
        let newest = self.peers[peer].newest;
        if ms.is_multiple_of(100) {
            let report = self.peers[peer].rtcp(|out| receiver_report(out, newest));
            self.hear(ear, peer, report);
        }
        if ms % 50 == 20 {
            let now_ms = self.ms;
            let feedback = self.peers[peer].transport_feedback(now_ms);
            feedback.into_iter().for_each(|feedback| self.hear(ear, peer, feedback));
            let nack = self.peers[peer].nack();
            nack.into_iter().for_each(|nack| self.hear(ear, peer, nack));
        }
        if ms % 4000 == 1500 {
            let pli = self.peers[peer].rtcp(|out| write_pli(out, Ssrc(1), SENT[VIDEO]));
            self.hear(ear, peer, pli);
        }
    }

    /// A datagram of a peer arrives at a core.
    fn hear(&mut self, core: usize, peer: usize, mut bytes: Vec<u8>) {
        let (now, path) = (self.now, self.peers[peer].path);
        self.watch(core, |core, tx| core.handle_datagram(now, RxDatagram::fresh(path, &mut bytes), tx));
    }

    /// Turns of all cores until nobody has anything to do, in the order of the loop.
    fn turns(&mut self) {
        let now = self.now;
        loop {
            for core in 0..self.cores.len() {
                self.watch(core, |core, tx| core.handle_lanes(now, tx));
                self.watch(core, |core, tx| core.handle_timeout(now, tx));
                while !self.watch(core, |core, tx| core.forward(now, tx)) {}
                self.watch(core, |core, _| core.take_wakes());
            }
            if !self.cores.iter().any(WorkerCore::has_lane_items) {
                return;
            }
        }
    }

    /// One call into a core, its allocations counted; what it sends is delivered.
    fn watch<T>(&mut self, core: usize, call: impl FnOnce(&mut WorkerCore, &mut TxBatch) -> T) -> T {
        let before = Heap::now();
        let result = call(&mut self.cores[core], &mut self.tx);
        let mut allocations = before.since().allocations;
        while let Some(event) = self.cores[core].poll_event() {
            if matches!(event, Event::Report(_) | Event::Voices(_)) {
                self.tellings += 1;
                allocations = 0;
            }
        }
        self.allocations += allocations;
        for entry in self.tx.entries() {
            deliver(&mut self.peers, self.ms, entry.path, self.tx.bytes(entry));
        }
        self.tx.clear();
        result
    }
}

fn deliver(peers: &mut [Peer], ms: u64, path: Path, bytes: &[u8]) {
    if let Some((index, peer)) = peers.iter_mut().enumerate().find(|(_, peer)| peer.path == path) {
        // The queue grows for half a second and falls again.
        let queue_ms = if index % 3 == 0 { (ms % 5000).min(1000 - (ms % 5000).min(1000)) / 4 } else { 0 };
        peer.handle_datagram(bytes, ms + DELAY_MS + queue_ms);
    }
}

/// Sender reports of the publisher's sources, `ms` after the start of its clock.
fn sender_reports(out: &mut [u8], ms: u64) -> Option<usize> {
    let mut used = 0;
    for (ssrc, rate) in SOURCES.into_iter().zip([48, 90, 90]) {
        let info = SenderInfo { ssrc, ntp: ms << 22, rtp_ts: (ms * rate) as u32, packets: 1, octets: 1 };
        used += write_sender_report(&mut out[used..], &info, &[])?;
    }
    Some(used)
}

/// A receiver report on what comes from the server.
fn receiver_report(out: &mut [u8], newest: [u16; 2]) -> Option<usize> {
    let block = |mline: usize| ReportBlock {
        ssrc: SENT[mline],
        fraction_lost: 3,
        cumulative_lost: 10,
        highest_seq: newest[mline].into(),
        jitter: 20,
        lsr: 1,
        dlsr: 1,
    };
    write_receiver_report(out, Ssrc(1), &[block(AUDIO), block(VIDEO)])
}
