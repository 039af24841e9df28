//! Rooms without media: who is in, who is told, and what workers must do.

use rand::SeedableRng;

use super::super::api::{Capabilities, CloseReason, Dialect, JoinError, JoinRequest, StreamNames};
use super::*;
use crate::base::ids::TrackKey;
use crate::crypto::srtp::SrtpSuite;
use crate::forward::table::Route;
use crate::runtime::clock;
use crate::session::negotiate::Policy;
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
        policy: Policy { server_offers_first: false, server_may_offer: true, live_binding: false, slots: &[] },
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

#[test]
fn the_table_is_published_before_the_first_command() {
    let mut hub = hub(9);
    join(&mut hub, "ann").unwrap();
    let track = TrackKey { index: 0, epoch: 0 };
    hub.plan.set(Route { track, home: WorkerId(0), by_worker: Box::new([]) });
    assert!(hub.poll_output(clock::now()).is_some());
    assert!(hub.table().load().route(track).is_some());
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
