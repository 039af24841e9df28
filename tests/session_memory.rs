//! What a peer costs in memory on its worker: sessions with real handshakes, first idle, then with media that flowed.
//!
//!   cargo test --features sim --test session_memory -- --nocapture
//!
//! prints the figures: heap bytes as the allocator rounds them, aws-lc's included. The limits asserted are those that
//! tuning.md names.
#![allow(clippy::unwrap_used, clippy::panic)]

mod heap_support;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use heap_support::Heap;
use heap_support::peer::{AUDIO, Peer, SENT, TRACKS, VIDEO, streams};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tramline::base::batch::{Path, RxDatagram, TxBatch};
use tramline::base::ids::{SessionKey, Ssrc, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::{SrtpKeys, SrtpSender, SrtpSuite};
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber};
use tramline::proto::dtls::{Dtls, DtlsConfig, DtlsOutput, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::room::api::{Capabilities, Dialect, JoinRequest, StreamNames};
use tramline::room::hub::{Hub, HubConfig};
use tramline::runtime::clock;
use tramline::session::negotiate::{Policy, RemoteTransport, Role};
use tramline::session::peer::Session;
use tramline::wire::rtcp::{ReportBlock, write_receiver_report};
use tramline::worker::command::{Command, Event};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

const SESSIONS: u32 = 200;
/// Of a subscriber that is connected, before and after media flowed to it.
const SESSION_BYTES_MAX: i64 = 26 * 1024;
/// Of a listener in the rooms' books.
const PEER_BYTES_MAX: i64 = 6 * 1024;

/// A worker core, its clock and both certificates.
struct Bench {
    core: WorkerCore,
    tx: TxBatch,
    now: Instant,
    server: Arc<Certificate>,
    client: DtlsConfig,
    rng: StdRng,
    plan: Plan,
}

impl Bench {
    fn new() -> Self {
        let server = Arc::new(Certificate::generate().unwrap());
        let dtls = Arc::new(DtlsConfig::new(Arc::clone(&server)).unwrap());
        let client = DtlsConfig::new(Arc::new(Certificate::generate().unwrap())).unwrap();
        let plan = Plan::default();
        let lanes = Lanes::mesh(1).pop().unwrap();
        let core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(1), dtls, plan.shared(), lanes);
        let (tx, rng) = (TxBatch::with_capacity(256), StdRng::seed_from_u64(2));
        Self { core, tx, now: clock::now(), server, client, rng, plan }
    }

    fn open(&mut self, peer: &Peer) {
        let (ticket, credentials) = (Arc::clone(&peer.ticket), peer.credentials.clone());
        self.core.apply(self.now, Command::Open { ticket, credentials }, &mut self.tx);
        self.hear(peer.path, peer.check());
    }

    fn configure(&mut self, session: SessionKey, is_publisher: bool) {
        let remote = Some(Arc::new(RemoteTransport {
            ufrag: "peer".into(),
            pwd: "password of the peer's side".into(),
            fingerprint: self.client.certificate().fingerprint_sha256(),
            dtls_role: DtlsRole::Server,
        }));
        let streams = Arc::new(streams(is_publisher));
        self.core.apply(self.now, Command::Configure { session, remote, streams }, &mut self.tx);
    }

    fn hear(&mut self, path: Path, mut bytes: Vec<u8>) {
        self.core.handle_datagram(self.now, RxDatagram::fresh(path, &mut bytes), &mut self.tx);
        while let Some(event) = self.core.poll_event() {
            assert!(!matches!(event, Event::Ended { .. }), "{event:?}");
        }
    }

    /// Both tracks go to these.
    fn publish(&mut self, subscribers: &[Peer]) {
        for (mline, track) in TRACKS.into_iter().enumerate() {
            let subscribers = subscribers.iter().map(|peer| Subscriber { session: peer.key, mline: mline as u16 });
            self.plan.set(Route { by_worker: Box::new([subscribers.collect()]), ..Route::new(track, WorkerId(0)) });
        }
        self.plan.publish();
    }

    /// A handshake to its end; the keys it made.
    fn connect(&mut self, path: Path) -> SrtpKeys {
        let mut dtls = Dtls::new(self.now, &self.client, DtlsRole::Client, self.server.fingerprint_sha256());
        let (mut out, mut connected) = ([0; 1500], None);
        loop {
            let mut is_quiet = true;
            while let Some(output) = dtls.poll(&mut out) {
                is_quiet = false;
                match output {
                    DtlsOutput::Datagram(len) => self.hear(path, out[..len].to_vec()),
                    DtlsOutput::Connected(keys) => connected = Some(keys),
                    other => panic!("{other:?}"),
                }
            }
            for entry in self.tx.entries() {
                is_quiet = false;
                dtls.handle_datagram(self.now, self.tx.bytes(entry));
            }
            self.tx.clear();
            if is_quiet {
                return connected.expect("the handshake ends");
            }
        }
    }

    /// Lets `ms` milliseconds of audio and video flow, with receiver reports of everybody every second.
    fn flow(&mut self, publisher: &mut Peer, senders: &mut [(Path, SrtpSender)], ms: u64) {
        for tick in 1..=ms {
            self.now += Duration::from_millis(1);
            if tick % 20 == 0 {
                self.hear(publisher.path, publisher.media(AUDIO, 160, false));
            }
            if tick % 4 == 0 {
                self.hear(publisher.path, publisher.media(VIDEO, 1150, tick == 4));
            }
            if tick % 1000 == 500 {
                senders.iter_mut().for_each(|(path, sender)| self.hear(*path, report(sender)));
            }
            self.core.handle_timeout(self.now, &mut self.tx);
            while !self.core.forward(self.now, &mut self.tx) {
                self.tx.clear();
            }
            self.tx.clear();
            while self.core.poll_event().is_some() {}
        }
    }
}

fn report(sender: &mut SrtpSender) -> Vec<u8> {
    let block = ReportBlock { ssrc: SENT[VIDEO], ..ReportBlock::default() };
    let mut out = vec![0; 256];
    let len = write_receiver_report(&mut out, Ssrc(1), &[block]).unwrap();
    let len = sender.protect_rtcp(&mut out, len).unwrap();
    out.truncate(len);
    out
}

#[test]
fn a_subscriber_takes_little_memory() {
    let mut bench = Bench::new();
    let peers: Vec<Peer> = (0..=SESSIONS)
        .map(|index| Peer::new(index, SrtpSuite::AeadAes128Gcm, LocalCredentials::generate(&mut bench.rng)))
        .collect();
    let (publisher, subscribers) = peers.split_first().unwrap();
    // What a first session makes for all: tables, the library's own.
    bench.open(publisher);
    bench.configure(publisher.key, true);
    let mut keys = Vec::with_capacity(subscribers.len());
    let mut figures = vec![("size of the session itself", size_of::<Session>() as i64)];
    let mut tell = |part, heap: Heap| {
        let bytes = heap.since().bytes / i64::from(SESSIONS);
        figures.push((part, bytes));
        bytes
    };

    let start = Heap::now();
    subscribers.iter().for_each(|peer| bench.open(peer));
    bench.tx.clear();
    tell("announced, as every worker keeps it", start);
    subscribers.iter().for_each(|peer| bench.configure(peer.key, false));
    tell("negotiated", start);
    keys.extend(subscribers.iter().map(|peer| bench.connect(peer.path)));
    let connected = tell("connected, no media yet", start);

    let mut publisher = Peer::new(0, SrtpSuite::AeadAes128Gcm, publisher.credentials.clone());
    bench.core.adopt(bench.now, publisher.key, &publisher.keys);
    // What the tracks and the turns' lists take is not the subscribers'.
    bench.publish(&subscribers[..1]);
    bench.flow(&mut publisher, &mut [], 4000);
    let sender = |(peer, keys): (&Peer, &SrtpKeys)| (peer.path, keys.contexts(true).unwrap().0);
    let mut senders: Vec<_> = subscribers.iter().zip(&keys).map(sender).collect();
    let before = Heap::now();
    bench.publish(subscribers);
    bench.flow(&mut publisher, &mut senders, 8000);
    let more = tell("more, with media and reports of it", before);
    figures.iter().for_each(|(part, bytes)| println!("{bytes:>8}  {part}"));
    assert!(connected + more <= SESSION_BYTES_MAX, "{connected} and {more} bytes");
}

/// What a browser that only listens offers, in short.
fn offer() -> String {
    let mut sdp = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n");
    let extensions = "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
                      a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                      a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    for (mid, kind, formats) in [(0, "audio", AUDIO_FORMATS), (1, "video", VIDEO_FORMATS)] {
        let pts: Vec<String> = formats.iter().enumerate().map(|(at, _)| (100 + at).to_string()).collect();
        sdp += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=ice-ufrag:peer\r\na=ice-pwd:peerpeerpeerpeerpeerpeer\r\na=setup:actpass\r\n\
             a=fingerprint:sha-256 {}\r\n{extensions}",
            pts.join(" "),
            vec!["AB"; 32].join(":")
        );
        for (pt, format) in pts.iter().zip(formats) {
            sdp += &format!("a=rtpmap:{pt} {}\r\n", format.0);
            if !format.1.is_empty() {
                sdp += &format!("a=fmtp:{pt} {}\r\n", format.1);
            }
            for feedback in ["nack", "nack pli", "ccm fir", "transport-cc"] {
                sdp += &format!("a=rtcp-fb:{pt} {feedback}\r\n");
            }
        }
    }
    sdp
}

/// Name and parameters.
const AUDIO_FORMATS: &[(&str, &str)] = &[("opus/48000/2", "minptime=10;useinbandfec=1"), ("PCMU/8000", "")];
const VIDEO_FORMATS: &[(&str, &str)] = &[
    ("VP8/90000", ""),
    ("rtx/90000", "apt=100"),
    ("VP9/90000", "profile-id=0"),
    ("rtx/90000", "apt=102"),
    ("H264/90000", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    ("rtx/90000", "apt=104"),
    ("AV1/90000", "level-idx=5;profile=0;tier=0"),
    ("rtx/90000", "apt=106"),
];

#[test]
fn the_room_keeps_little_of_a_listener() {
    let certificate = Certificate::generate().unwrap();
    let address = "192.0.2.1:3478".parse().unwrap();
    let config = HubConfig {
        seats: 1000,
        workers: 1,
        addresses: vec![vec![address]],
        fingerprint: certificate.fingerprint_sha256(),
    };
    let mut hub = Hub::new(config, StdRng::seed_from_u64(1));
    let now = clock::now();
    let mut join = |index: u32| {
        let request = JoinRequest {
            room: format!("room {}", index / 10),
            user_id: Some(format!("user {index}")),
            display_name: "A person's name".into(),
            dialect: Dialect::Switchboard,
            policy: Policy {
                server_offers_first: false,
                server_may_offer: true,
                live_binding: true,
                slots: &[],
                role: Role::Participant,
            },
            stream_names: StreamNames::Publisher,
            capabilities: Capabilities::ALL,
        };
        let entered = hub.join(now, SystemTime::UNIX_EPOCH, request).unwrap();
        hub.offer(now, entered.peer, &offer()).unwrap();
        while hub.poll_output(now).is_some() {}
    };
    join(SESSIONS + 10);
    let start = Heap::now();
    (0..SESSIONS).for_each(join);
    let bytes = start.since().bytes / i64::from(SESSIONS);
    println!("{bytes:>8}  in the room");
    assert!(bytes <= PEER_BYTES_MAX, "{bytes} bytes");
}
