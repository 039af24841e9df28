//! Rooms without media: who is in, who is told, and what workers must do.

use rand::{RngExt, SeedableRng};

use super::super::api::{
    Capabilities, CloseReason, Dialect, JoinError, JoinRequest, Listening, PeerControl, PeerUpdate, RequestError,
    StreamNames, TrackName, VideoWanted, Wish,
};
use super::*;
use crate::base::format::MediaKind;
use crate::crypto::srtp::SrtpSuite;
use crate::forward::plan::PUBLISH_INTERVAL;
use crate::forward::speaker::Activity;
use crate::forward::table::Subscriber;
use crate::runtime::clock;
use crate::session::negotiate::{IceCredentials, Policy, Role, WantedTrack};
use crate::worker::command::Event;

fn hub(seats: usize) -> Hub {
    let fingerprint = crate::crypto::cert::Certificate::generate().unwrap().fingerprint_sha256();
    let addresses = vec![vec!["192.0.2.1:3478".parse().unwrap()]];
    Hub::new(HubConfig { seats, workers: 2, addresses, fingerprint }, StdRng::seed_from_u64(1))
}

fn request(user_id: &str) -> JoinRequest {
    JoinRequest {
        room: "room".into(),
        user_id: Some(user_id.into()),
        display_name: user_id.into(),
        dialect: Dialect::GrytDocumented,
        policy: Policy {
            server_offers_first: false,
            server_may_offer: true,
            live_binding: false,
            slots: &[],
            role: Role::Participant,
        },
        stream_names: StreamNames::Publisher,
        capabilities: Capabilities::ALL,
    }
}

fn join(hub: &mut Hub, user_id: &str) -> Result<Entered, JoinError> {
    hub.join(clock::now(), clock::wall(), request(user_id))
}

fn outputs(hub: &mut Hub) -> Vec<Output> {
    std::iter::from_fn(|| hub.poll_output(clock::now())).collect()
}

/// What every worker is told, by name.
fn commands(outputs: &[Output]) -> Vec<(u8, &'static str)> {
    let name = |command: &Command| match command {
        Command::Open { .. } => "open",
        Command::Restart { .. } => "restart",
        Command::Configure { .. } => "configure",
        Command::Close { .. } => "close",
        Command::Stop => "stop",
        _ => "other",
    };
    let command = |output: &Output| match output {
        Output::ToWorker(worker, command) => Some((worker.0, name(command))),
        _ => None,
    };
    outputs.iter().filter_map(command).collect()
}

#[test]
fn who_joins_is_announced_and_any_worker_may_get_it() {
    let mut hub = hub(9);
    let first = join(&mut hub, "ann").unwrap();
    assert_eq!(commands(&outputs(&mut hub)), [(0, "open"), (1, "open")]);
    let second = join(&mut hub, "bob").unwrap();
    assert_eq!(second.others.iter().map(|info| info.peer).collect::<Vec<_>>(), [first.peer]);
    let told = outputs(&mut hub);
    assert!(told.iter().any(|output| matches!(
        output,
        Output::ToPeer(to, Notice::PeerJoined(info)) if *to == first.peer && info.peer == second.peer
    )));
    hub.leave(clock::now(), second.peer);
    let told = outputs(&mut hub);
    assert_eq!(commands(&told)[..2], [(0, "close"), (1, "close")]);
    assert!(told.iter().any(|output| matches!(output, Output::ToPeer(to, Notice::PeerLeft(_)) if *to == first.peer)));
    hub.leave(clock::now(), first.peer);
    assert!(hub.rooms().is_empty() && hub.by_session.is_empty() && hub.publishers.is_empty());
}

#[test]
fn a_full_server_says_so_and_an_older_self_makes_room() {
    let mut hub = hub(1);
    let old = join(&mut hub, "ann").unwrap();
    assert_eq!(join(&mut hub, "bob").unwrap_err(), JoinError::Full { taken: 1, seats: 1 });
    outputs(&mut hub);
    let new = join(&mut hub, "ann").unwrap();
    assert!(outputs(&mut hub).iter().any(|output| matches!(
        output,
        Output::ToPeer(to, Notice::Closed(CloseReason::Evicted)) if *to == old.peer
    )));
    assert_eq!(hub.peers.keys().copied().collect::<Vec<_>>(), [new.peer]);
}

#[test]
fn new_credentials_reach_every_worker_also_when_one_owns_the_session() {
    let mut hub = hub(9);
    let peer = join(&mut hub, "ann").unwrap().peer;
    let (now, session) = (clock::now(), hub.peers[&peer].session);
    hub.handle_event(now, WorkerId(1), Event::Claimed { session });
    hub.handle_event(now, WorkerId(1), Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    outputs(&mut hub);
    hub.renegotiate(now, peer).unwrap();
    // The peer restarts because its address changed: its checks may land anywhere.
    assert_eq!(commands(&outputs(&mut hub)), [(0, "restart"), (1, "restart")]);
}

/// The credentials of a description.
fn ice_of(sdp: &str) -> (&str, &str) {
    let of = |name| sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    (of("a=ice-ufrag:"), of("a=ice-pwd:"))
}

#[test]
fn credentials_without_a_description_restart_ice() {
    let (mut hub, now) = (hub(9), clock::now());
    let peer = join(&mut hub, "ann").unwrap().peer;
    let theirs = |ufrag: &str, pwd: &str| IceCredentials { ufrag: ufrag.into(), pwd: pwd.into() };
    assert_eq!(hub.exchange_ice(peer, theirs("abcd", "x")), Err(RequestError::Gone), "nothing is there to restart");
    let offer = offer(&[("audio", "sendonly")]);
    let answer = hub.offer(now, peer, &offer).unwrap();
    let (ufrag, pwd) = ice_of(&offer);
    outputs(&mut hub);
    assert_eq!(hub.exchange_ice(peer, theirs(ufrag, pwd)), Ok(None));
    assert!(
        hub.exchange_ice(peer, theirs("anew", pwd)).is_err() && hub.exchange_ice(peer, theirs(ufrag, "anew")).is_err()
    );
    assert!(commands(&outputs(&mut hub)).is_empty());
    let restarted = hub.exchange_ice(peer, theirs("anew", "anew-anew-anew-anew-anew")).unwrap().unwrap();
    assert_eq!(commands(&outputs(&mut hub))[..2], [(0, "configure"), (1, "configure")]);
    assert_eq!((restarted.kind, restarted.mid.as_str()), (MediaKind::Audio, "0"));
    assert_eq!(restarted.candidates, hub.config.addresses[0]);
    let before = ice_of(&answer);
    assert!(restarted.local.ufrag != before.0 && restarted.local.pwd != before.1);
    // The next description goes on from there.
    let again = offer.replace(ufrag, "anew").replace(pwd, "anew-anew-anew-anew-anew");
    let answer = hub.offer(now, peer, &again).unwrap();
    assert_eq!(ice_of(&answer), (restarted.local.ufrag.as_str(), restarted.local.pwd.as_str()));
    assert_eq!(hub.exchange_ice(peer, theirs("anew", "anew-anew-anew-anew-anew")), Ok(None));
}

#[test]
fn an_offer_of_ours_restarts_ice_where_the_client_takes_one() {
    let (mut hub, now) = (hub(9), clock::now());
    let peer = join(&mut hub, "ann").unwrap().peer;
    assert!(hub.restart_ice(now, peer).is_err(), "it has not come so far");
    let answer = hub.offer(now, peer, &offer(&[("audio", "sendonly")])).unwrap();
    outputs(&mut hub);
    for _ in 0..2 {
        // The second one while the first is not answered.
        hub.restart_ice(now, peer).unwrap();
        let told = outputs(&mut hub);
        assert_eq!(commands(&told), [(0, "restart"), (1, "restart")]);
        let sdp = told.iter().find_map(|output| match output {
            Output::ToPeer(to, Notice::Offer { sdp }) if *to == peer => Some(sdp),
            _ => None,
        });
        assert_ne!(ice_of(sdp.unwrap()), ice_of(&answer));
    }
    let policy = Policy { server_may_offer: false, ..request("bob").policy };
    let bob = hub.join(now, clock::wall(), JoinRequest { policy, ..request("bob") }).unwrap().peer;
    hub.offer(now, bob, &offer(&[("audio", "sendonly")])).unwrap();
    assert!(hub.restart_ice(now, bob).is_err());
}

#[test]
fn what_depends_on_the_table_waits_for_it_and_what_does_not_leaves_at_once() {
    let (mut hub, start) = (hub(9), clock::now());
    let track = TrackKey { index: 0, epoch: 0 };
    hub.plan.open(track, WorkerId(0), None);
    assert!(hub.poll_output(start).is_none());
    assert!(hub.table().load().route(track).is_some(), "after a quiet time at once");
    let peer = join(&mut hub, "ann").unwrap().peer;
    hub.plan.remove(track);
    hub.command_after_plan(Some(WorkerId(0)), &Command::CloseTrack { track });
    hub.renegotiate(start, peer).unwrap();
    let bob = join(&mut hub, "bob").unwrap().peer;
    hub.offer(start, bob, &offer(&[("audio", "sendrecv")])).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| hub.poll_output(start)).collect();
    let openings = [(0, "open"), (1, "open"), (0, "open"), (1, "open"), (0, "configure"), (1, "configure")];
    assert_eq!(commands(&told), openings, "whoever comes can be heard at once");
    let is_told = |output: &Output| matches!(output, Output::ToPeer(to, Notice::PeerJoined(_)) if *to == peer);
    assert!(told.iter().any(is_told), "people are told at once of what came after");
    assert_eq!(hub.next_timeout(), Some(start + PUBLISH_INTERVAL));
    assert!(hub.poll_output(start + PUBLISH_INTERVAL / 2).is_none() && hub.table().load().route(track).is_some());
    let due = start + PUBLISH_INTERVAL;
    let first = hub.poll_output(due);
    assert!(matches!(first, Some(Output::ToWorker(_, command)) if matches!(*command, Command::CloseTrack { .. })));
    assert!(hub.table().load().route(track).is_none());
    assert!(hub.poll_output(due).is_none());
    assert_eq!(hub.next_timeout(), None);
}

#[test]
fn who_publishes_nothing_concerns_nobody_elses_media() {
    let mut room = Crowd::new(1);
    let publisher = room.enter("ann", &["audio", "video"], 0);
    let listener = room.enter("bob", &[], 2);
    room.take();
    let newcomer = room.enter("eve", &[], 2);
    room.hub.leave(room.now, newcomer);
    let told = room.take();
    let concerned = |output: &Output| match output {
        Output::ToWorker(_, command) => matches!(**command, Command::Configure { session, .. }
            if [publisher, listener].map(|peer| room.hub.peers[&peer].session).contains(&session)),
        Output::ToPeer(to, Notice::PeerJoined(_) | Notice::PeerLeft(_)) => *to == newcomer,
        Output::ToPeer(to, _) => *to != newcomer,
        Output::ToWatchers(_) => false,
    };
    let concerned: Vec<_> = told.iter().filter(|output| concerned(output)).collect();
    assert!(concerned.is_empty(), "{concerned:?}");
}

#[test]
fn who_received_a_track_is_told_of_its_end_once_and_before_it_is_freed() {
    let mut room = Crowd::new(1);
    let publisher = room.enter("ann", &["audio", "video"], 0);
    let listeners = ["bob", "eve"].map(|user| room.enter(user, &[], 2));
    let listeners = listeners.map(|listener| room.hub.peers[&listener].session);
    room.take();
    room.hub.leave(room.now, publisher);
    let told = room.take();
    let place = |matches: &dyn Fn(&Command) -> bool| -> Vec<usize> {
        let here = |output: &Output| matches!(output, Output::ToWorker(_, command) if matches(command));
        told.iter().enumerate().filter(|(_, output)| here(output)).map(|(at, _)| at).collect()
    };
    let freed = place(&|command| matches!(command, Command::CloseTrack { .. }));
    assert_eq!(freed.len(), 4, "two tracks on two workers");
    for listener in listeners {
        let told = place(&|command| matches!(command, Command::Configure { session, .. } if *session == listener));
        assert!(told.len() == 1 && told[0] < freed[0], "{told:?} {freed:?}");
    }
}

/// What was changed step by step is what would be made anew: wishes, m-lines, routes, what workers carry.
#[test]
fn step_by_step_leads_where_a_fresh_look_would() {
    for seed in 0..6 {
        let mut room = Crowd::new(seed);
        let kinds: [&[&str]; 3] = [&[], &["audio"], &["audio", "video"]];
        for step in 0..120 {
            let peers: Vec<PeerId> = room.hub.peers.keys().copied().collect();
            match room.dice.random_range(0..11) {
                0..4 if peers.len() < 12 => {
                    let (kinds, lines) = (kinds[room.dice.random_range(0..3)], room.dice.random_range(0..5));
                    let user_id = format!("user {}", room.dice.random_range(0..15));
                    room.enter(&user_id, kinds, lines);
                }
                4..6 if !peers.is_empty() => {
                    let peer = peers[room.dice.random_range(0..peers.len())];
                    room.hub.leave(room.now, peer);
                }
                6..9 => room.speak(),
                9 if !peers.is_empty() => {
                    let peer = peers[room.dice.random_range(0..peers.len())];
                    room.listen(peer);
                }
                _ if !peers.is_empty() => {
                    let user_id = room.hub.peers[&peers[room.dice.random_range(0..peers.len())]].info.user_id.clone();
                    let change = PeerControl { deafened: Some(room.dice.random_bool(0.5)), ..PeerControl::default() };
                    room.hub.control_user(room.now, "room", &user_id, change);
                }
                _ => {}
            }
            room.take();
            room.check(&format!("seed {seed} step {step}"));
        }
    }
}

impl Hub {
    /// A route that comes and goes, for the tests of who drives a hub: two tables, and a command that needs the second.
    pub(in crate::room) fn open_and_free(&mut self, track: TrackKey) {
        self.plan.open(track, WorkerId(0), None);
        self.plan.publish();
        self.plan.remove(track);
        self.command_after_plan(None, &Command::CloseTrack { track });
    }
}

/// A room in which people come with media.
struct Crowd {
    hub: Hub,
    now: Instant,
    dice: StdRng,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        Self { hub: hub(99), now: clock::now(), dice: StdRng::seed_from_u64(seed) }
    }

    /// Somebody comes who publishes these kinds and can receive so many tracks of each; media comes up.
    fn enter(&mut self, user_id: &str, kinds: &[&str], lines: usize) -> PeerId {
        let policy = Policy { live_binding: self.dice.random_bool(0.5), ..request(user_id).policy };
        let request = JoinRequest { policy, ..request(user_id) };
        let peer = self.hub.join(self.now, clock::wall(), request).unwrap().peer;
        let sending = kinds.iter().map(|kind| (*kind, "sendonly"));
        let receiving = ["audio", "video"].repeat(lines).into_iter().map(|kind| (kind, "recvonly"));
        let lines: Vec<_> = sending.chain(receiving).collect();
        if lines.is_empty() {
            return peer;
        }
        self.hub.offer(self.now, peer, &offer(&lines)).unwrap();
        let (session, worker) = (self.hub.peers[&peer].session, WorkerId(self.dice.random_range(0..2)));
        self.hub.handle_event(self.now, worker, Event::Claimed { session });
        let tracks: Vec<_> = self.hub.peers[&peer].tracks.values().map(|track| track.key).collect();
        for track in tracks {
            self.hub.handle_event(self.now, worker, Event::TrackLive { track });
        }
        peer
    }

    /// A worker hears somebody.
    fn speak(&mut self) {
        let worker = WorkerId(self.dice.random_range(0..2));
        let here = self.hub.peers.values().filter(|peer| peer.owner == Some(worker));
        let dice = &mut self.dice;
        let mut activity = || Activity {
            long: dice.random_range(0..=10),
            medium: dice.random_range(0..=5),
            immediate: dice.random_range(0..=13),
        };
        let voices = here.flat_map(|peer| peer.tracks.values()).map(|track| (track.key, activity()));
        let voices = Event::Voices(voices.collect());
        self.hub.handle_event(self.now, worker, voices);
    }

    /// Somebody chooses whom to hear.
    fn listen(&mut self, peer: PeerId) {
        let mut list = || Some((0..3).map(|_| format!("user {}", self.dice.random_range(0..15))).collect());
        let listening = Listening { pinned_user_ids: list(), muted_user_ids: list() };
        self.hub.listen(self.now, peer, listening).unwrap();
    }

    /// All outputs, a while later.
    fn take(&mut self) -> Vec<Output> {
        self.now += PUBLISH_INTERVAL;
        std::iter::from_fn(|| self.hub.poll_output(self.now)).collect()
    }

    fn check(&mut self, when: &str) {
        let hub = &mut self.hub;
        let (table, ids) = (hub.table().load_full(), hub.peers.keys().copied().collect::<Vec<_>>());
        let keys = |wanted: &[WantedTrack]| wanted.iter().map(|track| track.key).collect::<Vec<_>>();
        for id in &ids {
            let wanted = hub.wanted(*id);
            let negotiation = &mut hub.peers.get_mut(id).unwrap().negotiation;
            assert_eq!(keys(negotiation.wanted()), keys(&wanted), "{when}");
            assert!(!negotiation.set_wanted(&wanted), "{when}: {id} would get other tracks");
        }
        for key in hub.publishers.keys() {
            let route = table.route(*key).unwrap_or_else(|| panic!("{when}: {key:?} has no route"));
            for worker in [WorkerId(0), WorkerId(1)] {
                let here = hub.peers.values().filter(|peer| peer.owner == Some(worker));
                let bound =
                    here.flat_map(|peer| peer.bound.iter().map(|(track, mline)| (*track, peer.session, *mline)));
                let bound = bound.filter(|(track, ..)| track == key);
                let mut all: Vec<_> = bound.map(|(_, session, mline)| Subscriber { session, mline }).collect();
                all.sort();
                assert_eq!(route.local(worker), all, "{when}: {key:?}");
            }
            let (publisher, track) = hub.track(*key).unwrap();
            assert_eq!(route.voice.is_some(), track.kind == MediaKind::Audio, "{when}: {key:?}");
            let wishes = |peer: &&Peer| peer.pinned.contains(&publisher.info.user_id) && route.voice.is_some();
            let pins = hub.peers.values().filter(wishes).flat_map(|peer| {
                let here = peer.bound.iter().filter(|(track, _)| track == key && peer.owner.is_some());
                here.map(|(_, mline)| Subscriber { session: peer.session, mline: *mline })
            });
            let mut pins: Vec<_> = pins.collect();
            pins.sort();
            assert_eq!(*route.pins, *pins, "{when}: {key:?}");
        }
        let carried = [WorkerId(0), WorkerId(1)].map(|worker| {
            let here: Vec<_> = hub.peers.values().filter(|peer| peer.worker() == Some(worker)).collect();
            (here.len(), here.iter().map(|peer| peer.bound.len()).sum())
        });
        let loads = hub.placement.workers.iter().map(|load| (load.peers, load.subscriptions));
        assert_eq!(loads.collect::<Vec<_>>(), carried, "{when}");
        if let Some(room) = hub.rooms.get("room") {
            assert_eq!(room.by_worker, carried.map(|(peers, _)| peers), "{when}");
            assert_eq!((&room.peers, room.by_user.len()), (&ids, ids.len()), "{when}");
        }
    }
}

fn offer(lines: &[(&str, &str)]) -> String {
    let mids: Vec<String> = (0..lines.len()).map(|mid| mid.to_string()).collect();
    let mut sdp = format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for ((kind, direction), mid) in lines.iter().zip(&mids) {
        let (pt, map) = if *kind == "audio" { (111, "opus/48000/2") } else { (96, "VP8/90000") };
        let fingerprint = ["AB"; 32].join(":");
        sdp += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {pt}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n\
             a=rtpmap:{pt} {map}\r\n"
        );
    }
    sdp
}

#[test]
fn the_worker_of_each_publisher_is_told_what_is_recorded() {
    let mut room = Crowd::new(1);
    let told = |room: &mut Crowd| -> Vec<(WorkerId, String)> {
        let recorded = room.take().into_iter().filter_map(|output| match output {
            Output::ToWorker(worker, command) => match *command {
                Command::Record(about) => Some((worker, format!("{} of {}", about.kind.as_str(), about.user_id))),
                Command::StopRecording { .. } => Some((worker, "stop".to_owned())),
                _ => None,
            },
            _ => None,
        });
        recorded.collect()
    };
    let ann = room.enter("ann", &["audio"], 0);
    assert_eq!(told(&mut room), [], "nothing is recorded unless asked for");
    let worker = room.hub.peers[&ann].owner.unwrap();
    room.hub.record("room", Some(RecordWish::default())).unwrap();
    assert_eq!(told(&mut room), [(worker, "audio of ann".to_owned())]);
    let bob = room.enter("bob", &["video"], 0);
    let bobs = room.hub.peers[&bob].owner.unwrap();
    let all = [0, 1].map(|worker| (WorkerId(worker), "video of bob".to_owned()));
    assert_eq!(told(&mut room), all, "before one of them owns him; and nothing twice");
    room.hub.record("room", None).unwrap();
    assert_eq!(told(&mut room), [(worker, "stop".to_owned()), (bobs, "stop".to_owned())]);
    assert!(room.hub.record("elsewhere", None).is_err());
    assert_eq!(room.hub.recording("room"), Ok(None));
}

#[test]
fn who_is_in_when_the_server_stops_is_told_and_nobody_comes_after() {
    let mut hub = hub(9);
    let peer = join(&mut hub, "ann").unwrap().peer;
    outputs(&mut hub);
    hub.stop(clock::now());
    let told = outputs(&mut hub);
    assert!(matches!(told[0], Output::ToPeer(to, Notice::Closed(CloseReason::ServerStopping)) if to == peer));
    assert_eq!(commands(&told)[2..], [(0, "stop"), (1, "stop")]);
    assert_eq!(join(&mut hub, "bob").unwrap_err(), JoinError::Stopping);
    assert!(!hub.is_ready());
}

/// What a browser with a camera offers, shortened to one codec.
const CAMERA: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
    c=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\na=fingerprint:sha-256 \
    AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=msid:stream track\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 nack pli\r\na=ssrc:1001 cname:c\r\n";

/// What the outputs say about sizes: what publishers are told, and what workers are to obey.
fn sizes(outputs: &[Output]) -> (Vec<VideoWanted>, Vec<Option<(u16, u16)>>) {
    let wanted = outputs.iter().filter_map(|output| match output {
        Output::ToPeer(_, Notice::VideoWanted(wanted)) => Some(wanted.clone()),
        _ => None,
    });
    let obeyed = outputs.iter().filter_map(|output| match output {
        Output::ToWorker(_, command) => match &**command {
            Command::Configure { streams, .. } => Some(streams.mlines[0].as_ref()?.egress.as_ref()?.demand.size),
            _ => None,
        },
        _ => None,
    });
    (wanted.collect(), obeyed.filter(Option::is_some).collect())
}

/// The sizes that somebody wants of what peers publish, as their workers are told.
fn sizes_wanted(outputs: &[Output]) -> Vec<u32> {
    let wanted = outputs.iter().filter_map(|output| match output {
        Output::ToWorker(_, command) => match &**command {
            Command::Configure { streams, .. } => {
                streams.mlines[0].as_ref()?.ingress.as_ref()?.pixels_wanted.filter(|pixels| *pixels > 0)
            }
            _ => None,
        },
        _ => None,
    });
    wanted.collect()
}

#[test]
fn a_wish_for_a_size_reaches_the_worker_and_the_publisher() {
    let (mut hub, mut now) = (hub(9), clock::now());
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| join(&mut hub, name).unwrap().peer);
    for (worker, peer) in [(0, ann), (1, bob), (1, eve)] {
        let session = hub.peers[&peer].session;
        hub.handle_event(now, WorkerId(worker), Event::Claimed { session });
    }
    hub.offer(now, ann, CAMERA).unwrap();
    let key = hub.peers[&ann].tracks[&0].key;
    hub.handle_event(now, WorkerId(0), Event::TrackLive { track: key });
    for peer in [bob, eve] {
        hub.offer(now, peer, CAMERA).unwrap();
    }
    let mut outputs = |hub: &mut Hub, is_due: bool| {
        now += if is_due { super::super::wishes::TOLD_INTERVAL } else { PUBLISH_INTERVAL };
        std::iter::from_fn(|| hub.poll_output(now)).collect::<Vec<_>>()
    };
    let (wanted, _) = sizes(&outputs(&mut hub, true));
    let of_ann = wanted.iter().find(|wanted| wanted.watchers > 0).unwrap();
    assert_eq!((of_ann.mid.as_str(), of_ann.watchers, of_ann.unknown, of_ann.width), ("0", 2, 2, 0));
    let ask = |hub: &mut Hub, peer, name: TrackName, size| {
        let (width, height) = size;
        hub.demand(peer, &[(name, Wish::Size { width, height, fps: None })]).unwrap();
    };
    ask(&mut hub, bob, TrackName::Stream("stream".into()), (320, 180));
    let (wanted, obeyed) = sizes(&outputs(&mut hub, false));
    assert_eq!((wanted, obeyed), (vec![], vec![Some((320, 180))]), "the worker at once, the publisher at its pace");
    ask(&mut hub, eve, TrackName::Track("track".into()), (0, 0));
    let said = outputs(&mut hub, true);
    assert_eq!(sizes_wanted(&said), [320 * 180], "and the publisher's worker");
    let (wanted, obeyed) = sizes(&said);
    assert_eq!(obeyed, [Some((0, 0))]);
    assert_eq!((wanted.len(), wanted[0].watchers, wanted[0].unknown), (1, 1, 0), "who hides it does not watch");
    assert_eq!((wanted[0].width, wanted[0].height), (320, 180));
    // A recording needs all there is.
    for (wish, pixels) in [(Some(RecordWish::default()), None), (None, Some(320 * 180))] {
        hub.record("room", wish).unwrap();
        outputs(&mut hub, true);
        assert_eq!(hub.peers[&ann].tracks[&0].pixels_wanted, pixels);
    }
    // Said twice, or of nothing that is there, it changes nothing.
    ask(&mut hub, eve, TrackName::Track("track".into()), (0, 0));
    ask(&mut hub, eve, TrackName::Track("elsewhere".into()), (10, 10));
    assert_eq!(sizes(&outputs(&mut hub, true)), (vec![], vec![]));
    hub.leave(clock::now(), ann);
    assert!(hub.peers.values().all(|peer| !peer.demands.contains_key(&key)), "wishes end with the track");
}

/// Whom everybody is told to look at.
fn speakers(outputs: &[Output]) -> Vec<Option<String>> {
    let mut speakers: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::ToPeer(_, Notice::Speaker(info)) => Some(info.as_ref().map(|info| info.user_id.clone())),
            _ => None,
        })
        .collect();
    speakers.dedup();
    speakers
}

impl Crowd {
    /// A while goes by in which this peer speaks, or nobody.
    fn hear(&mut self, speaker: Option<PeerId>, time: Duration) -> Vec<Option<String>> {
        let (until, mut told) = (self.now + time, Vec::new());
        while self.now < until {
            self.now += Duration::from_millis(500);
            let speaks = Activity { long: 10, medium: 5, immediate: 13 };
            for worker in [0, 1].map(WorkerId) {
                let here = self.hub.peers.values().filter(|peer| peer.owner == Some(worker));
                let here = here.filter(|peer| Some(peer.info.peer) == speaker);
                let voices = here.flat_map(|peer| peer.tracks.values()).map(|track| (track.key, speaks)).collect();
                self.hub.handle_event(self.now, worker, Event::Voices(voices));
            }
            self.hub.handle_timeout(self.now);
            told.extend(speakers(&self.take()));
        }
        told
    }
}

#[test]
fn who_mutes_leaves_or_is_silent_for_long_is_not_dominant() {
    let mut room = Crowd::new(1);
    let [ann, bob] = ["ann", "bob"].map(|name| room.enter(name, &["audio"], 2));
    room.take();
    let (name, second) = (|name: &str| Some(name.to_owned()), Duration::from_secs(1));
    assert_eq!(room.hear(Some(ann), second), [name("ann")]);
    assert_eq!(room.hear(None, 9 * second), [], "a pause");
    assert_eq!(room.hear(Some(ann), second), []);
    assert_eq!(room.hear(None, 11 * second), [None]);
    assert_eq!(room.hear(None, 11 * second), []);
    // Muted by herself, by others, and nobody else speaks.
    assert_eq!(room.hear(Some(ann), second), [name("ann")]);
    let mute = |audio_muted| PeerUpdate { audio_muted: Some(audio_muted), ..PeerUpdate::default() };
    room.hub.update(room.now, ann, mute(true)).unwrap();
    assert_eq!(speakers(&room.take()), [None]);
    assert_eq!(room.hear(Some(ann), second), [], "she said that she is not heard");
    room.hub.update(room.now, ann, mute(false)).unwrap();
    assert_eq!(room.hear(Some(ann), second), [name("ann")]);
    let change = |muted| PeerControl { server_muted: Some(muted), ..PeerControl::default() };
    room.hub.control_user(room.now, "room", "ann", change(true));
    assert_eq!(speakers(&room.take()), [None]);
    room.hub.control_user(room.now, "room", "ann", change(false));
    assert_eq!(room.hear(Some(ann), second), [name("ann")]);
    // Her microphone is off and nobody said so: no packet came for a while.
    room.hub.peers.get_mut(&ann).unwrap().tracks.get_mut(&0).unwrap().moved_at = Some(room.now);
    assert_eq!(room.hear(None, 2 * second), []);
    assert_eq!(room.hear(None, 2 * second), [None]);
    assert_eq!(room.hear(Some(bob), second), [name("bob")]);
    room.hub.leave(room.now, bob);
    assert_eq!(speakers(&room.take()), [None]);
}
