//! What a worker's core costs per forwarded packet: turns with packets of one publisher, unprotected, fanned out,
//! rewritten and protected for 1, 10, 100 and 1000 subscribers, without sockets.
//!
//!   cargo bench --features sim --bench forward
//!
//! With one subscriber every packet bears its own decryption; with many that share is small. `burst` is a turn of ten
//! packets to 100: all of one size, near-equal as encoders cut their frames, and of sizes that have nothing in common.

#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{CpuTime, PT, SSRC, SUITES, check, keys, measure, path};
use tramline::base::batch::{RxDatagram, TxBatch};
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::{Mid, PeerId, SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::{SrtpSender, SrtpSuite};
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber};
use tramline::proto::dtls::{DtlsConfig, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::session::negotiate::RemoteTransport;
use tramline::session::streams::{Demand, EgressConfig, IngressConfig, MlineConfig, Payload, StreamsConfig};
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::Ext;
use tramline::worker::command::{Command, Ticket};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };
/// Payload lengths of the packets of one turn.
const BURSTS: [(&str, [usize; 10]); 3] = [
    ("equal", [1200; 10]),
    ("frames", [1101, 1101, 1101, 1102, 1102, 948, 948, 948, 949, 949]),
    ("mixed", [1180, 90, 1180, 620, 300, 1180, 1020, 75, 410, 800]),
];
/// Subscribers of a burst.
const BURST_SUBSCRIBERS: u32 = 100;
/// Packets forwarded in one run, so that a run is far longer than reading the clock.
const FORWARDED_MIN: usize = 1000;

struct Bench {
    core: WorkerCore,
    tx: TxBatch,
    publisher: SrtpSender,
    subscribers: usize,
    /// What the publisher sends, turn by turn, already protected.
    turns: Vec<Vec<Vec<u8>>>,
    next: u64,
    now: Instant,
    _plan: Plan,
}

fn streams(is_publisher: bool) -> StreamsConfig {
    let payload = Payload {
        pt: PT,
        format: Format::Vp8,
        rtx_pt: Some(97),
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
        remb: false,
    };
    let ingress = is_publisher.then(|| IngressConfig::single(TRACK, vec![(SSRC, None)]));
    let egress = (!is_publisher).then_some(EgressConfig {
        ssrc: Ssrc(7),
        rtx_ssrc: Ssrc(8),
        track: Some(TRACK),
        demand: Demand::default(),
    });
    let mline = MlineConfig {
        mid: Mid::new(b"0").expect("a mid"),
        kind: MediaKind::Video,
        exts: vec![(4, Ext::Mid), (3, Ext::TransportCc)],
        payloads: vec![payload],
        ingress,
        egress,
    };
    StreamsConfig { mlines: vec![Some(mline)], ext_mixed: true }
}

impl Bench {
    fn new(subscribers: u32, suite: SrtpSuite) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let certificate = Arc::new(Certificate::generate().expect("a certificate"));
        let dtls = Arc::new(DtlsConfig::new(certificate.clone()).expect("DTLS"));
        let mut plan = Plan::default();
        let lanes = Lanes::mesh(1).pop().expect("one end");
        let mut core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(2), dtls, plan.shared(), lanes);
        let mut tx = TxBatch::with_capacity(1024);
        for index in 0..=subscribers {
            let session = SessionKey { index, epoch: 0 };
            let credentials = LocalCredentials::generate(&mut rng);
            let ticket = Arc::new(Ticket::new(session, PeerId(index.into())));
            core.apply(now, Command::Open { ticket, credentials: credentials.clone() }, &mut tx);
            let mut bytes = [0; 256];
            let len = check(&mut bytes, &credentials);
            core.handle_datagram(now, RxDatagram::fresh(path(index), &mut bytes[..len]), &mut tx);
            let remote = Some(Arc::new(RemoteTransport {
                ufrag: String::new(),
                pwd: String::new(),
                fingerprint: certificate.fingerprint_sha256(),
                dtls_role: DtlsRole::Server,
            }));
            let streams = Arc::new(streams(index == 0));
            core.apply(now, Command::Configure { session, remote, streams }, &mut tx);
            core.adopt(now, session, &keys(suite, index));
            tx.clear();
        }
        let all = (1..=subscribers).map(|index| Subscriber { session: SessionKey { index, epoch: 0 }, mline: 0 });
        plan.set(Route { by_worker: Box::new([all.collect()]), ..Route::new(TRACK, WorkerId(0)) });
        plan.publish();
        let (publisher, _) = keys(suite, 0).contexts(true).expect("keys");
        let subscribers = subscribers as usize;
        let mut bench = Self { core, tx, publisher, subscribers, turns: Vec::new(), next: 1, now, _plan: plan };
        bench.fill(1, &[1200], true);
        bench.run();
        bench
    }

    /// The publisher's packets for some turns.
    fn fill(&mut self, turns: usize, payload_lens: &[usize], is_keyframe: bool) {
        self.turns.clear();
        for _ in 0..turns {
            let turn = payload_lens.iter().map(|len| self.packet(*len, is_keyframe)).collect();
            self.turns.push(turn);
        }
    }

    fn packet(&mut self, payload_len: usize, is_keyframe: bool) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let fixed =
            Fixed { marker: false, pt: PT, seq: self.next as u16, timestamp: self.next as u32 * 90, ssrc: SSRC };
        let header_len = write_header(&mut bytes, &fixed, &[], None).expect("room");
        // VP8 payload descriptor with S=1, then the P bit: 0 is a keyframe (RFC 7741 §4.2, §4.3).
        bytes[header_len] = 0x10;
        bytes[header_len + 1] = u8::from(!is_keyframe);
        // RFC 6386 §9.1: the start code of a key frame.
        bytes[header_len + 4..header_len + 7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        let len =
            self.publisher.protect_rtp(&mut bytes, header_len, header_len + payload_len, self.next).expect("keys");
        self.next += 1;
        bytes.truncate(len);
        bytes
    }

    /// The worker's turns: datagrams in, everything forwarded.
    fn run(&mut self) {
        for turn in &mut self.turns {
            // So slowly that consent (30 s) outlasts the bench.
            self.now += Duration::from_nanos(100);
            for bytes in &mut *turn {
                self.core.handle_datagram(self.now, RxDatagram::fresh(path(0), bytes), &mut self.tx);
            }
            let mut sent = 0;
            loop {
                let is_done = self.core.forward(self.now, &mut self.tx);
                sent += self.tx.entries().len();
                self.tx.clear();
                if is_done {
                    break;
                }
            }
            assert_eq!(sent, self.subscribers * turn.len(), "everybody gets everything");
        }
    }
}

/// Turns with packets of these lengths, as many as make a run.
fn turns(group: &mut BenchmarkGroup<'_, CpuTime>, id: &str, bench: &mut Bench, payload_lens: &[usize]) {
    let forwarded = payload_lens.len() * bench.subscribers;
    let turns = FORWARDED_MIN.div_ceil(forwarded);
    let fill = |bench: &mut Bench| bench.fill(turns, payload_lens, false);
    measure(group, BenchmarkId::from_parameter(id), turns * forwarded, bench, fill, Bench::run);
}

fn forward(criterion: &mut Criterion<CpuTime>) {
    for (suite, name) in SUITES {
        let mut group = support::group(criterion, &format!("forward/{name}/1200B"));
        for subscribers in [1, 10, 100, 1000] {
            turns(&mut group, &subscribers.to_string(), &mut Bench::new(subscribers, suite), &[1200]);
        }
        group.finish();
    }
    let mut group = support::group(criterion, "forward/gcm-128/burst");
    for (name, payload_lens) in BURSTS {
        let mut bench = Bench::new(BURST_SUBSCRIBERS, SrtpSuite::AeadAes128Gcm);
        turns(&mut group, name, &mut bench, &payload_lens);
    }
    group.finish();
}

criterion_group! { name = benches; config = support::criterion(); targets = forward }
criterion_main!(benches);
