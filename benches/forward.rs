//! What a worker's core costs per forwarded packet: turns with packets of one publisher, unprotected, fanned out,
//! rewritten and protected for 1, 10, 100 and 1000 subscribers, without sockets.
//!
//!   cargo bench --features sim --bench forward
//!
//! With one subscriber every packet bears its own decryption; with many that share is small. `burst` is a turn of ten
//! packets to 100: all of one size, near-equal as encoders cut their frames, and of sizes that have nothing in common.
//! `audio` is a turn of five voices to 200 listeners: with everybody heard because nobody chooses (`all`), because there are
//! places enough (`loudest-8`), and with three heard. Per packet that was forwarded, so the last one bears those that were not.
//!
//! Instructions: `valgrind --tool=callgrind --toggle-collect='forward::Bench::run'` around the program, with `--bench
//! --profile-time 5 ID`; their sum over the calls of `run` is what one run takes.

#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{CpuTime, PT, SSRC, SUITES, check, keys, measure, path, payload};
use tramline::base::batch::{RxDatagram, TxBatch};
use tramline::base::format::MediaKind;
use tramline::base::ids::{Mid, PeerId, RoomKey, SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::{SrtpSender, SrtpSuite};
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber, Voice};
use tramline::proto::dtls::{DtlsConfig, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::session::negotiate::RemoteTransport;
use tramline::session::streams::{Demand, EgressConfig, IngressConfig, MlineConfig, StreamsConfig};
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::{Ext, ExtWriter};
use tramline::worker::command::{Command, Ticket};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

/// One publisher of 1200-byte packets.
const PICTURES: Scene = Scene { kind: MediaKind::Video, publishers: 1, heard: 0, pause: Duration::from_nanos(100) };
/// Five voices.
const VOICES: Scene = Scene { kind: MediaKind::Audio, publishers: 5, heard: 0, pause: Duration::from_millis(20) };
const LISTENERS: u32 = 200;
/// A voice's payload.
const VOICE_BYTES: usize = 100;
/// Turns after which it is clear who speaks: a second.
const SETTLED: usize = 50;
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
/// Consent lasts 30 s (RFC 7675 §5.1).
const CHECKS_EVERY: Duration = Duration::from_secs(10);

/// What is published.
#[derive(Clone, Copy)]
struct Scene {
    kind: MediaKind,
    publishers: u32,
    /// Voices that are heard at once; 0: all.
    heard: usize,
    /// From one turn to the next.
    pause: Duration,
}

struct Bench {
    core: WorkerCore,
    tx: TxBatch,
    scene: Scene,
    publishers: Vec<SrtpSender>,
    subscribers: usize,
    /// What the publishers send, turn by turn, already protected.
    turns: Vec<Vec<(u32, Vec<u8>)>>,
    next: u64,
    now: Instant,
    credentials: Vec<LocalCredentials>,
    checked_at: Instant,
    _plan: Plan,
}

fn track(publisher: u32) -> TrackKey {
    TrackKey { index: publisher, epoch: 0 }
}

fn mline(scene: Scene, mid: u32, ingress: Option<IngressConfig>, egress: Option<EgressConfig>) -> Option<MlineConfig> {
    Some(MlineConfig {
        mid: Mid::new(&[b'0' + mid as u8]).expect("a mid"),
        kind: scene.kind,
        exts: vec![(1, Ext::AudioLevel), (4, Ext::Mid), (3, Ext::TransportCc)],
        payloads: vec![payload(scene.kind)],
        ingress,
        egress,
    })
}

/// What peer number `index` negotiated; publishers come first.
fn streams(scene: Scene, index: u32) -> StreamsConfig {
    let ingress = |publisher| IngressConfig::single(track(publisher), vec![(SSRC, None)]);
    let egress = |publisher: u32| EgressConfig {
        ssrc: Ssrc(100 + publisher),
        rtx_ssrc: Ssrc(200 + publisher),
        track: Some(track(publisher)),
        demand: Demand::default(),
    };
    let mlines = if index < scene.publishers {
        vec![mline(scene, 0, Some(ingress(index)), None)]
    } else {
        (0..scene.publishers).map(|publisher| mline(scene, publisher, None, Some(egress(publisher)))).collect()
    };
    StreamsConfig { mlines, ext_mixed: true, downlink_bps_max: None }
}

impl Bench {
    fn new(scene: Scene, subscribers: u32, suite: SrtpSuite) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let certificate = Arc::new(Certificate::generate().expect("a certificate"));
        let dtls = Arc::new(DtlsConfig::new(certificate.clone()).expect("DTLS"));
        let mut plan = Plan::default();
        let lanes = Lanes::mesh(1).pop().expect("one end");
        let mut core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(2), dtls, plan.shared(), lanes);
        core.set_voices_heard(scene.heard);
        let mut tx = TxBatch::with_capacity(1024);
        let peers = scene.publishers + subscribers;
        let credentials: Vec<_> = (0..peers).map(|_| LocalCredentials::generate(&mut rng)).collect();
        for index in 0..peers {
            let session = SessionKey { index, epoch: 0 };
            let credentials = credentials[index as usize].clone();
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
            let streams = Arc::new(streams(scene, index));
            core.apply(now, Command::Configure { session, remote, streams }, &mut tx);
            core.adopt(now, session, &keys(suite, index));
            tx.clear();
        }
        for publisher in 0..scene.publishers {
            let subscriber = |index| Subscriber { session: SessionKey { index, epoch: 0 }, mline: publisher as u16 };
            let all = (scene.publishers..peers).map(subscriber).collect();
            plan.set(route(scene, publisher, all));
        }
        plan.publish();
        let publisher = |index| keys(suite, index).contexts(true).expect("keys").0;
        let mut bench = Self {
            core,
            tx,
            scene,
            publishers: (0..scene.publishers).map(publisher).collect(),
            subscribers: subscribers as usize,
            turns: Vec::new(),
            next: 1,
            now,
            credentials,
            checked_at: now,
            _plan: plan,
        };
        let (settling, len) = if scene.kind == MediaKind::Audio { (SETTLED, VOICE_BYTES) } else { (1, 1200) };
        bench.fill(settling, &[len], true);
        while bench.turns.len() > 1 {
            let mut turn = bench.turns.remove(0);
            bench.turn(&mut turn);
        }
        bench.run();
        bench
    }

    /// The publishers' packets for some turns.
    fn fill(&mut self, turns: usize, payload_lens: &[usize], is_keyframe: bool) {
        self.turns.clear();
        for _ in 0..turns {
            let of = |bench: &mut Self, publisher, len| (publisher, bench.packet(publisher, len, is_keyframe));
            let mut turn = Vec::new();
            for len in payload_lens {
                turn.extend((0..self.scene.publishers).map(|publisher| of(self, publisher, *len)));
                self.next += 1;
            }
            self.turns.push(turn);
        }
        if self.now >= self.checked_at + CHECKS_EVERY {
            self.checked_at = self.now;
            for (credentials, index) in self.credentials.iter().zip(0..) {
                let mut bytes = [0; 256];
                let len = check(&mut bytes, credentials);
                self.core.handle_datagram(self.now, RxDatagram::fresh(path(index), &mut bytes[..len]), &mut self.tx);
                self.tx.clear();
            }
        }
    }

    fn packet(&self, publisher: u32, payload_len: usize, is_keyframe: bool) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let is_video = self.scene.kind == MediaKind::Video;
        let timestamp = self.next as u32 * if is_video { 90 } else { 960 };
        let fixed = Fixed { marker: false, pt: PT, seq: self.next as u16, timestamp, ssrc: SSRC };
        let mut block = [0; 4];
        let mut exts = ExtWriter::one_byte(&mut block);
        // Voice activity, and one louder than the next (RFC 6464 §3).
        exts.push(1, &[0x80 | (20 + 5 * publisher as u8)]);
        let (profile, block_len) = exts.finish();
        let ext = (!is_video).then_some((profile, &block[..block_len]));
        let header_len = write_header(&mut bytes, &fixed, &[], ext).expect("room");
        if is_video {
            // VP8 payload descriptor with S=1, then the P bit: 0 is a keyframe (RFC 7741 §4.2, §4.3).
            bytes[header_len] = 0x10;
            bytes[header_len + 1] = u8::from(!is_keyframe);
            // RFC 6386 §9.1: the start code of a key frame.
            bytes[header_len + 4..header_len + 7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        }
        let srtp = &self.publishers[publisher as usize];
        let len = srtp.protect_rtp(&mut bytes, header_len, header_len + payload_len, self.next).expect("keys");
        bytes.truncate(len);
        bytes
    }

    /// The worker's turns.
    #[inline(never)]
    fn run(&mut self) {
        let mut turns = std::mem::take(&mut self.turns);
        for turn in &mut turns {
            let (expected, sent) = (self.expected(turn.len()), self.turn(turn));
            assert_eq!(sent, expected, "everybody gets everything there is for them");
        }
        self.turns = turns;
    }

    /// Datagrams in, everything forwarded; how many that were.
    fn turn(&mut self, turn: &mut [(u32, Vec<u8>)]) -> usize {
        // So slowly that consent (30 s) outlasts the bench, or is renewed.
        self.now += self.scene.pause;
        for (publisher, bytes) in turn {
            self.core.handle_datagram(self.now, RxDatagram::fresh(path(*publisher), bytes), &mut self.tx);
        }
        let mut sent = 0;
        loop {
            let is_done = self.core.forward(self.now, &mut self.tx);
            sent += self.tx.entries().len();
            self.tx.clear();
            if is_done {
                return sent;
            }
        }
    }

    /// Packets that leave for so many that come.
    fn expected(&self, packets: usize) -> usize {
        let publishers = self.scene.publishers as usize;
        let heard = if self.scene.heard == 0 { publishers } else { self.scene.heard.min(publishers) };
        self.subscribers * packets * heard / publishers
    }
}

/// Of a voice the room is told, where it is to be chosen.
fn route(scene: Scene, publisher: u32, subscribers: Box<[Subscriber]>) -> Route {
    let session = SessionKey { index: publisher, epoch: 0 };
    let voice = Voice { room: RoomKey { index: 0, epoch: 0 }, publisher: session };
    let voice = (scene.kind == MediaKind::Audio).then_some(voice);
    Route { by_worker: Box::new([subscribers]), voice, ..Route::new(track(publisher), WorkerId(0)) }
}

/// Turns with packets of these lengths, as many as make a run.
fn turns(group: &mut BenchmarkGroup<'_, CpuTime>, id: &str, bench: &mut Bench, payload_lens: &[usize]) {
    let forwarded = bench.expected(payload_lens.len() * bench.publishers.len());
    let turns = FORWARDED_MIN.div_ceil(forwarded);
    let fill = |bench: &mut Bench| bench.fill(turns, payload_lens, false);
    measure(group, BenchmarkId::from_parameter(id), turns * forwarded, bench, fill, Bench::run);
}

fn forward(criterion: &mut Criterion<CpuTime>) {
    for (suite, name) in SUITES {
        let mut group = support::group(criterion, &format!("forward/{name}/1200B"));
        for subscribers in [1, 10, 100, 1000] {
            turns(&mut group, &subscribers.to_string(), &mut Bench::new(PICTURES, subscribers, suite), &[1200]);
        }
        group.finish();
    }
    let mut group = support::group(criterion, "forward/gcm-128/burst");
    for (name, payload_lens) in BURSTS {
        let mut bench = Bench::new(PICTURES, BURST_SUBSCRIBERS, SrtpSuite::AeadAes128Gcm);
        turns(&mut group, name, &mut bench, &payload_lens);
    }
    group.finish();
    let mut group = support::group(criterion, "forward/gcm-128/audio");
    for (name, heard) in [("all", 0), ("loudest-8", 8), ("loudest-3", 3)] {
        let mut bench = Bench::new(Scene { heard, ..VOICES }, LISTENERS, SrtpSuite::AeadAes128Gcm);
        turns(&mut group, name, &mut bench, &[VOICE_BYTES]);
    }
    group.finish();
}

criterion_group! { name = benches; config = support::criterion(); targets = forward }
criterion_main!(benches);
