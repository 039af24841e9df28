//! What the rooms cost under their lock: joins and leaves of a room with one publisher, and of a meeting where everybody
//! publishes. The hub alone, without sockets and workers; their events are made up here.
//!
//!   cargo bench --bench control
//!
//! The time shown is CPU time of the whole scene; the throughput counts peers.

#![allow(clippy::disallowed_methods, missing_docs)]

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tramline::base::ids::{PeerId, SessionKey, TrackKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::SrtpSuite;
use tramline::room::api::{Capabilities, Dialect, JoinRequest, Notice, StreamNames};
use tramline::room::hub::{Hub, HubConfig, Output};
use tramline::session::negotiate::{Policy, Role};
use tramline::worker::command::{Command, Event};

const WORKERS: usize = 4;
/// Longer than the pace of publishing: no scene waits for a table.
const STEP: Duration = Duration::from_millis(10);

struct Scene {
    hub: Hub,
    now: Instant,
    policy: Policy,
    /// The session and the tracks of the peer that was served last, as workers would see them.
    session: Option<SessionKey>,
    tracks: Vec<TrackKey>,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        let certificate = Certificate::generate().expect("a certificate");
        let addresses = vec![vec!["192.0.2.1:3478".parse().expect("an address")]];
        let fingerprint = certificate.fingerprint_sha256();
        let config = HubConfig { seats: 100_000, workers: WORKERS, addresses, fingerprint };
        let hub = Hub::new(config, StdRng::seed_from_u64(1));
        Self { hub, now: Instant::now(), policy, session: None, tracks: Vec::new() }
    }

    /// A peer comes, offers these m-lines, and its media comes up; what it publishes goes live.
    fn enter(&mut self, user: usize, lines: &[(&str, &str)]) -> PeerId {
        let request = JoinRequest {
            room: "room".into(),
            user_id: Some(format!("user-{user}")),
            display_name: format!("Somebody {user}"),
            dialect: Dialect::GrytDocumented,
            policy: self.policy.clone(),
            stream_names: StreamNames::Publisher,
            capabilities: Capabilities::ALL,
        };
        let peer = self.hub.join(self.now, SystemTime::UNIX_EPOCH, request).expect("a seat").peer;
        self.obey();
        let session = self.session.expect("was opened");
        self.hub.offer(self.now, peer, &offer(user, lines)).expect("an answer");
        self.tracks.clear();
        self.obey();
        let worker = WorkerId((user % WORKERS) as u8);
        let tracks = std::mem::take(&mut self.tracks);
        let connected = Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm };
        for event in [Event::Claimed { session }, connected] {
            self.tell(worker, event);
        }
        for track in tracks {
            self.tell(worker, Event::TrackLive { track });
        }
        peer
    }

    fn tell(&mut self, worker: WorkerId, event: Event) {
        self.hub.handle_event(self.now, worker, event);
        self.obey();
    }

    fn leave(&mut self, peer: PeerId) {
        self.hub.leave(self.now, peer);
        self.obey();
    }

    /// Takes what the hub wants done; offers are answered at once.
    fn obey(&mut self) {
        self.now += STEP;
        while let Some(output) = self.hub.poll_output(self.now) {
            match output {
                Output::ToWorker(_, command) => match *command {
                    Command::Open { ticket, .. } => self.session = Some(ticket.session),
                    Command::Configure { streams, session, .. } if self.session == Some(session) => {
                        let ingress = streams.mlines.iter().flatten().filter_map(|mline| mline.ingress.as_ref());
                        self.tracks = ingress.map(|ingress| ingress.track).collect();
                    }
                    _ => {}
                },
                Output::ToPeer(peer, Notice::Offer { sdp }) => {
                    self.hub.answer(self.now, peer, &answer(&sdp)).expect("fits");
                }
                _ => {}
            }
        }
    }
}

/// An offer with these m-lines, each a kind and a direction, in one codec each.
fn offer(user: usize, lines: &[(&str, &str)]) -> String {
    let mids: Vec<String> = (0..lines.len()).map(|mid| mid.to_string()).collect();
    let mut sdp = format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for ((kind, direction), mid) in lines.iter().zip(&mids) {
        let (pt, map) = if *kind == "audio" { (111, "opus/48000/2") } else { (96, "VP8/90000") };
        let _ = write!(
            sdp,
            "m={kind} 9 UDP/TLS/RTP/SAVPF {pt}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\n\
             a=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:{mid}\r\n\
             a={direction}\r\na=msid:stream-{user} track-{user}-{mid}\r\na=rtcp-mux\r\na=rtpmap:{pt} {map}\r\n",
            ["AB"; 32].join(":")
        );
    }
    sdp
}

/// Yes to everything.
fn answer(offer: &str) -> String {
    let ours = |line: &str| match line {
        "a=setup:actpass" => "a=setup:active".to_owned(),
        "a=sendonly" => "a=recvonly".to_owned(),
        line if line.starts_with("a=ice-ufrag") => "a=ice-ufrag:F7gI".to_owned(),
        line if line.starts_with("a=ice-pwd") => "a=ice-pwd:x9cml/YzichV2+XlhiMu8gKw".to_owned(),
        line if line.starts_with("a=fingerprint") => format!("a=fingerprint:sha-256 {}", ["AB"; 32].join(":")),
        line => line.to_owned(),
    };
    let lines = offer.lines().filter(|line| !["a=ice-lite"].contains(line) && !line.starts_with("a=candidate"));
    lines.map(|line| ours(line) + "\r\n").collect()
}

/// The client offers; we may offer what it lacks.
const CLIENT_OFFERS: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: Role::Participant,
};

/// One publisher and `subscribers` that come and go.
fn one_to_many(subscribers: usize) {
    let mut scene = Scene::new(CLIENT_OFFERS);
    scene.enter(0, &[("audio", "sendonly"), ("video", "sendonly")]);
    let lines = [("audio", "recvonly"), ("video", "recvonly")];
    let peers: Vec<PeerId> = (1..=subscribers).map(|user| scene.enter(user, &lines)).collect();
    peers.into_iter().for_each(|peer| scene.leave(peer));
}

/// Everybody has m-lines for everybody, comes with sound and picture, and goes.
fn meeting(people: usize) {
    let mut scene = Scene::new(Policy { server_may_offer: false, live_binding: true, ..CLIENT_OFFERS });
    let own = [("audio", "sendonly"), ("video", "sendonly")];
    let others = [("audio", "recvonly"), ("video", "recvonly")].repeat(people - 1);
    let lines = [&own[..], &others].concat();
    let peers: Vec<PeerId> = (0..people).map(|user| scene.enter(user, &lines)).collect();
    peers.into_iter().for_each(|peer| scene.leave(peer));
}

/// Everybody comes with two m-lines and is offered the others' tracks one by one.
fn offered_meeting(people: usize) {
    let mut scene = Scene::new(CLIENT_OFFERS);
    let lines = [("audio", "sendrecv"), ("video", "sendrecv")];
    let peers: Vec<PeerId> = (0..people).map(|user| scene.enter(user, &lines)).collect();
    peers.into_iter().for_each(|peer| scene.leave(peer));
}

/// CPU time of this thread: a busy machine does not change it much.
fn cpu(scene: impl Fn()) -> Duration {
    let clock = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime));
    let before = clock().unwrap_or_default();
    scene();
    clock().unwrap_or_default().saturating_sub(before)
}

type Case = (&'static str, &'static [usize], fn(usize));

fn control(criterion: &mut Criterion) {
    let cases: [Case; 3] = [
        ("one_to_many", &[100, 1000], one_to_many),
        ("meeting", &[10, 100], meeting),
        ("offered_meeting", &[10, 20], offered_meeting),
    ];
    for (name, sizes, scene) in cases {
        let mut group = criterion.benchmark_group(format!("control/{name}"));
        group.sample_size(10);
        for size in sizes {
            group.throughput(Throughput::Elements(*size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| cpu(|| scene(*size))).sum());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, control);
criterion_main!(benches);
