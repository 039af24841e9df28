//! What a worker's core costs per forwarded packet: one turn with a publisher's packets, unprotected, fanned out,
//! rewritten and protected for 1, 10, 100 and 1000 subscribers, without sockets. `burst` is a turn of ten packets to 100:
//! all of one size, near-equal as encoders cut their frames, and of sizes that have nothing in common.
//!
//!   cargo bench --features sim --bench forward
//!
//! The time shown is per turn; the throughput is forwarded packets per second of one core.

#![allow(clippy::disallowed_methods, missing_docs)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tramline::base::batch::{Path, RxDatagram, TxBatch};
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::{Mid, PeerId, SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::{SrtpKeys, SrtpSender, SrtpSuite};
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber};
use tramline::proto::dtls::{DtlsConfig, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::session::negotiate::RemoteTransport;
use tramline::session::streams::{EgressConfig, IngressConfig, MlineConfig, Payload, StreamsConfig};
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::Ext;
use tramline::wire::stun::BindingRequest;
use tramline::worker::command::{Command, Ticket};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };
const SOURCE: Ssrc = Ssrc(0x1111_1111);
const PT: u8 = 96;

struct Bench {
    core: WorkerCore,
    tx: TxBatch,
    publisher: SrtpSender,
    next: u64,
    now: Instant,
    _plan: Plan,
}

fn keys(suite: SrtpSuite, seed: u8) -> SrtpKeys {
    let material: Vec<u8> = (0..2 * (suite.key_len() + suite.salt_len())).map(|i| (i as u8) ^ seed).collect();
    SrtpKeys::from_exporter(suite, &material).expect("the right length")
}

fn path(index: u32) -> Path {
    let remote = SocketAddr::from(([10, (index >> 8) as u8, index as u8, 1], 4000));
    Path { remote, local: IpAddr::from([10, 0, 0, 254]) }
}

fn streams(is_publisher: bool) -> StreamsConfig {
    let payload =
        Payload { pt: PT, format: Format::Vp8, rtx_pt: Some(97), nack: true, pli: true, fir: true, transport_cc: true };
    let ingress = is_publisher.then(|| IngressConfig { track: TRACK, ssrcs: vec![(SOURCE, None)] });
    let egress = (!is_publisher).then_some(EgressConfig { ssrc: Ssrc(7), rtx_ssrc: Ssrc(8), track: Some(TRACK) });
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
            let username = format!("{}:peer", credentials.ufrag());
            let check = BindingRequest {
                transaction_id: [1; 12],
                username: Some(username.as_bytes()),
                use_candidate: true,
                key: Some(credentials.key()),
                has_fingerprint: true,
                ..BindingRequest::default()
            };
            let mut bytes = [0; 256];
            let len = check.write_to(&mut bytes).expect("room");
            core.handle_datagram(now, RxDatagram { path: path(index), bytes: &mut bytes[..len] }, &mut tx);
            let remote = Some(Arc::new(RemoteTransport {
                ufrag: String::new(),
                pwd: String::new(),
                fingerprint: certificate.fingerprint_sha256(),
                dtls_role: DtlsRole::Server,
            }));
            let streams = Arc::new(streams(index == 0));
            core.apply(now, Command::Configure { session, remote, streams }, &mut tx);
            core.adopt(now, session, &keys(suite, index as u8));
            tx.clear();
        }
        let all = (1..=subscribers).map(|index| Subscriber { session: SessionKey { index, epoch: 0 }, mline: 0 });
        plan.set(Route { track: TRACK, home: WorkerId(0), by_worker: Box::new([all.collect()]) });
        plan.publish();
        let (publisher, _) = keys(suite, 0).contexts(true).expect("keys");
        let mut bench = Self { core, tx, publisher, next: 1, now, _plan: plan };
        let sent = bench.turn(&[1200], true);
        assert_eq!(sent, subscribers as usize, "everybody gets the keyframe");
        bench
    }

    /// One turn with packets of these payload lengths; how many datagrams it sent.
    fn turn(&mut self, payload_lens: &[usize], is_keyframe: bool) -> usize {
        // So slowly that consent (30 s) outlasts the bench.
        self.now += Duration::from_nanos(100);
        payload_lens.iter().for_each(|len| self.publish(*len, is_keyframe));
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

    fn publish(&mut self, payload_len: usize, is_keyframe: bool) {
        let mut bytes = [0u8; 1500];
        let fixed =
            Fixed { marker: false, pt: PT, seq: self.next as u16, timestamp: self.next as u32 * 90, ssrc: SOURCE };
        let header_len = write_header(&mut bytes, &fixed, &[], None).expect("room");
        // VP8 payload descriptor with S=1, then the P bit: 0 is a keyframe (RFC 7741 §4.2, §4.3).
        bytes[header_len] = 0x10;
        bytes[header_len + 1] = u8::from(!is_keyframe);
        let len =
            self.publisher.protect_rtp(&mut bytes, header_len, header_len + payload_len, self.next).expect("keys");
        self.next += 1;
        self.core.handle_datagram(self.now, RxDatagram { path: path(0), bytes: &mut bytes[..len] }, &mut self.tx);
    }
}

fn forward(criterion: &mut Criterion) {
    for (suite, name) in [(SrtpSuite::AeadAes128Gcm, "gcm-128"), (SrtpSuite::Aes128CmSha1_80, "cm-sha1")] {
        let mut group = criterion.benchmark_group(format!("forward/{name}/1200B"));
        for subscribers in [1u32, 10, 100, 1000] {
            let mut bench = Bench::new(subscribers, suite);
            group.throughput(Throughput::Elements(subscribers.into()));
            group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
                bencher.iter(|| assert_eq!(bench.turn(&[1200], false), subscribers as usize));
            });
        }
        group.finish();
    }
}

fn burst(criterion: &mut Criterion) {
    const SUBSCRIBERS: u32 = 100;
    let mut group = criterion.benchmark_group("forward/gcm-128/burst");
    for (name, lens) in [
        ("equal", [1200; 10]),
        ("frames", [1101, 1101, 1101, 1102, 1102, 948, 948, 948, 949, 949]),
        ("mixed", [1180, 90, 1180, 620, 300, 1180, 1020, 75, 410, 800]),
    ] {
        let mut bench = Bench::new(SUBSCRIBERS, SrtpSuite::AeadAes128Gcm);
        let sent = lens.len() * SUBSCRIBERS as usize;
        group.throughput(Throughput::Elements(sent as u64));
        group.bench_function(name, |bencher| bencher.iter(|| assert_eq!(bench.turn(&lens, false), sent)));
    }
    group.finish();
}

criterion_group!(benches, forward, burst);
criterion_main!(benches);
