//! What is played, and what must come of it.

mod calls;
mod chaos;
mod hostile;
mod impaired;
mod networks;
mod overload;
mod ranges;
mod scripted;
mod trains;
mod trials;
mod voices;

use std::time::Duration;

use super::media::{PeerNo, SourceNo};
use super::peer_str0m::{Script, StrPeer};
use super::world::{World, WorldConfig};
use crate::base::format::MediaKind;
use crate::room::api::{Capabilities, Dialect, JoinRequest, StreamNames};
use crate::runtime::clock;
use crate::session::negotiate::{Policy, Role};

/// Every scenario is played with each of these. A seed that once failed is added here or in its own test.
const SEEDS: [u64; 3] = [1, 2, 3];

/// The client offers; we may offer what it lacks.
const CLIENT_OFFERS: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: Role::Participant,
};
/// The client offers once; the tracks behind its m-lines change.
const LIVE: Policy = Policy { live_binding: true, ..CLIENT_OFFERS };
/// Gryt's real protocol.
const SERVER_OFFERS: Policy = Policy {
    server_offers_first: true,
    server_may_offer: true,
    live_binding: false,
    slots: &[MediaKind::Audio, MediaKind::Video, MediaKind::Video, MediaKind::Audio],
    role: Role::Participant,
};

/// An open world.
fn world(seed: u64, workers: usize) -> World {
    World::new(clock::now(), WorldConfig { seed, workers, ..WorldConfig::default() })
}

fn request(room: &str, policy: &Policy) -> JoinRequest {
    JoinRequest {
        room: room.to_owned(),
        user_id: None,
        display_name: "someone".to_owned(),
        dialect: if policy.server_offers_first { Dialect::Gryt } else { Dialect::GrytDocumented },
        policy: policy.clone(),
        stream_names: StreamNames::PeerId,
        capabilities: Capabilities::ALL,
    }
}

/// A peer with a camera and a microphone enters.
fn join(world: &mut World, room: &str) -> PeerNo {
    enter(world, request(room, &CLIENT_OFFERS), Script::caller(room))
}

fn enter(world: &mut World, request: JoinRequest, script: Script) -> PeerNo {
    world.join(request, |now, me, address| StrPeer::new(now, me, address, script)).expect("a seat")
}

fn str_peer<T>(world: &mut World, peer: PeerNo, act: impl FnOnce(&mut StrPeer) -> T) -> T {
    world.act(peer, |_, peer: &mut StrPeer| act(peer))
}

/// Everybody sees and hears everybody.
fn all_see_all(world: &World, peers: &[PeerNo], kinds: &[MediaKind]) -> bool {
    peers.iter().all(|me| {
        let others = peers.iter().filter(|other| *other != me);
        let mut tracks = others.flat_map(|other| kinds.iter().map(move |kind| (*other, *kind)));
        tracks.all(|(other, kind)| world.received(*me).of(other, kind).is_some())
    })
}

/// Every seed with one worker and with three.
fn cases() -> impl Iterator<Item = (u64, usize)> {
    SEEDS.into_iter().flat_map(|seed| [(seed, 1), (seed, 3)])
}

fn pairs(peers: &[PeerNo]) -> Vec<(PeerNo, PeerNo)> {
    let pairs = peers.iter().flat_map(|me| peers.iter().map(move |other| (*me, *other)));
    pairs.filter(|(me, other)| me != other).collect()
}

fn expect_all_see_all(world: &mut World, time_max: Duration, peers: &[PeerNo]) {
    let is_so = world.run_until(time_max, |world| all_see_all(world, peers, &BOTH));
    assert!(is_so, "not everybody sees and hears everybody: {}", story(world, peers));
}

const BOTH: [MediaKind; 2] = [MediaKind::Audio, MediaKind::Video];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nothing that may never happen has happened.
fn assert_sound(world: &mut World, peers: &[PeerNo]) {
    assert_eq!(world.oracle.faults, Vec::<String>::new());
    for peer in peers {
        let books = world.received(*peer);
        assert_eq!(books.strangers, 0, "{peer:?} got payloads that nobody sent");
        assert!(books.rooms.len() <= 1, "{peer:?} got media of rooms {:?}", books.rooms);
        assert!(books.tracks().all(|(source, _)| source.publisher != *peer), "{peer:?} got its own media");
        assert_eq!(str_peer(world, *peer, |peer| peer.refusals.clone()), Vec::<String>::new(), "{peer:?}");
    }
}

/// Why it did not come to what was expected.
fn story(world: &mut World, peers: &[PeerNo]) -> String {
    let mut story = format!("seed {} at {:?}\n", world.seed(), world.now - world.start);
    for peer in peers {
        let heard: Vec<_> = world.received(*peer).tracks().map(|(source, it)| (source, it.numbers.len())).collect();
        let notices: Vec<_> = world
            .notices(*peer)
            .iter()
            .map(|(at, notice)| (*at - world.start, format!("{notice:?}").chars().take(60).collect::<String>()))
            .collect();
        let (connected, refusals) = str_peer(world, *peer, |it| (it.connected_at.is_some(), it.refusals.clone()));
        story +=
            &format!("{peer:?} connected {connected} refusals {refusals:?}\n heard {heard:?}\n told {notices:#?}\n");
    }
    for report in world.reports() {
        let discards: Vec<_> = report.discards.iter().filter(|(_, count)| *count > 0).collect();
        story += &format!("forwarded {} discards {discards:?}\n", report.packets_forwarded);
    }
    story + &format!("faults {:?}\n{:#}", world.oracle.faults, world.hub().debug_tracks())
}
