//! Everything at once, by chance: whoever is still there in the end sees and hears everybody.

use rand::RngExt;

use super::*;
use crate::proto::link::{LinkConfig, Loss};
use crate::room::api::Wish;
use crate::room::impair::{BadLink, BadNetwork};
use crate::sim::camera::{CameraConfig, EncodingConfig};

/// Seeds of this file only: each is another story.
const STORIES: std::ops::Range<u64> = 100..110;
/// The same of stories with layers.
const LAYERED_STORIES: std::ops::Range<u64> = 200..206;

fn random_links(world: &mut World) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(world.rng.random_range(1..80)),
        jitter: Duration::from_millis(world.rng.random_range(0..40)),
        reorders: world.rng.random_bool(0.5),
        loss: if world.rng.random_bool(0.5) {
            Loss::Uniform(world.rng.random_range(0.0..0.1))
        } else {
            Loss::Bursty { to_bad: world.rng.random_range(0.0..0.02), to_good: 0.3 }
        },
        rate: world.rng.random_bool(0.3).then_some((6_000_000, 100_000)),
    }
}

fn someone_comes(world: &mut World) -> PeerNo {
    let room = "room";
    let peer = match world.rng.random_range(0..4) {
        0 => enter(world, request(room, &SERVER_OFFERS), Script { offers: false, ..Script::caller(room) }),
        1 => enter(world, request(room, &LIVE), Script::caller(room)),
        _ => join(world, room),
    };
    let links = random_links(world);
    world.set_links(peer, links);
    peer
}

fn something_happens(world: &mut World, present: &mut Vec<PeerNo>) {
    let one = present[world.rng.random_range(0..present.len())];
    match world.rng.random_range(0..10) {
        0..=2 if present.len() < 6 => {
            let peer = someone_comes(world);
            present.push(peer);
        }
        3 if present.len() > 2 => {
            present.retain(|peer| *peer != one);
            world.leave(one);
        }
        4 => drop(world.nat.rebind(one)),
        5 => {
            let is_offerer = str_peer(world, one, |peer| peer.offers());
            if is_offerer {
                world.act(one, |now, peer: &mut StrPeer| peer.restart_ice(now));
            }
        }
        6 => {
            let links = random_links(world);
            world.set_links(one, links);
        }
        7 => str_peer(world, one, StrPeer::ask_for_keyframes),
        8 => {
            let is_paused = world.rng.random_bool(0.3);
            str_peer(world, one, |peer| peer.pause(MediaKind::Video, is_paused));
        }
        _ => {
            let level = world.rng.random_range(0..120);
            str_peer(world, one, |peer| peer.speak(level));
        }
    }
}

#[test]
fn whatever_happens_the_oracles_hold_and_the_call_goes_on() {
    for seed in STORIES {
        let workers = 1 + (seed % 4) as usize;
        let mut world = world(seed, workers);
        let mut present = vec![join(&mut world, "room"), someone_comes(&mut world)];
        for _ in 0..40 {
            let pause = Duration::from_millis(world.rng.random_range(0..1_500));
            world.run_for(pause);
            something_happens(&mut world, &mut present);
        }
        for peer in &present {
            world.set_links(*peer, LinkConfig::default());
            str_peer(&mut world, *peer, |peer| peer.pause(MediaKind::Video, false));
        }
        world.run_for(seconds(12));
        let since = world.now - seconds(2);
        for (me, other) in pairs(&present) {
            for kind in BOTH {
                let count = world.received(me).of(other, kind).map_or(0, |track| track.count_since(since));
                assert!(
                    count > 60,
                    "{me:?} has {count} {kind:?} of {other:?} x{workers} {}",
                    story(&mut world, &present)
                );
            }
        }
        assert_sound(&mut world, &present);
    }
}

/// Three encodings, in any order of quality; small, as a story is long.
fn camera(world: &mut World) -> CameraConfig {
    let encoding = |rid, width, height, bps| EncodingConfig { rid, width, height, bps };
    let mut encodings =
        vec![encoding("q", 160, 90, 80_000), encoding("h", 320, 180, 250_000), encoding("f", 640, 360, 700_000)];
    let turn = world.rng.random_range(0..encodings.len());
    encodings.rotate_left(turn);
    if world.rng.random_bool(0.2) {
        encodings.truncate(1);
    }
    let (has_layers, seed) = (world.rng.random_bool(0.8), world.rng.random());
    CameraConfig { encodings, has_layers, seed, ..CameraConfig::simulcast() }
}

/// A line that is good, narrow, or narrow and bad.
fn random_line(world: &mut World) -> LinkConfig {
    let delay = Duration::from_millis(world.rng.random_range(1..80));
    let rate = world.rng.random_bool(0.6).then(|| (world.rng.random_range(150_000..3_000_000), 40_000));
    let line = LinkConfig { delay, rate, ..LinkConfig::default() };
    if world.rng.random_bool(0.3) { LinkConfig { rate: line.rate, ..random_links(world) } } else { line }
}

/// Somebody with a camera, or who only watches. Where `is_clean`, what they send comes in order.
fn someone_with_layers_comes(world: &mut World, is_clean: bool) -> PeerNo {
    let script = match world.rng.random_range(0..3) {
        0 => Script::viewer("room"),
        _ => Script { watches: true, ..Script::publisher("room", camera(world)) },
    };
    let policy = if world.rng.random_bool(0.3) { LIVE } else { CLIENT_OFFERS };
    let peer = enter(world, request("room", &policy), script);
    let line = random_line(world);
    world.links(peer).1.config = line;
    world.links(peer).0.config =
        if is_clean { LinkConfig { delay: line.delay, ..LinkConfig::default() } } else { random_links(world) };
    peer
}

fn random_wish(world: &mut World) -> Wish {
    let fps = world.rng.random_bool(0.3).then_some(10);
    match world.rng.random_range(0..5) {
        0 => Wish::Size { width: 0, height: 0, fps: None },
        1 => Wish::Size { width: 160, height: 90, fps },
        2 => Wish::Size { width: 320, height: 180, fps },
        3 => Wish::Size { width: 1920, height: 1080, fps: None },
        _ => Wish::TemporalMax(world.rng.random_bool(0.7).then(|| world.rng.random_range(0..3))),
    }
}

fn bad_link(world: &mut World) -> BadLink {
    BadLink {
        loss: world.rng.random_range(0.0..0.15),
        delay_ms: world.rng.random_range(0..100),
        rate_kbps: world.rng.random_bool(0.5).then(|| world.rng.random_range(100..2_000)),
        ..BadLink::default()
    }
}

fn something_happens_to_layers(world: &mut World, present: &mut Vec<PeerNo>, is_clean: bool) {
    let one = present[world.rng.random_range(0..present.len())];
    let other = present[world.rng.random_range(0..present.len())];
    match world.rng.random_range(0..14) {
        0..=1 if present.len() < 5 => present.push(someone_with_layers_comes(world, is_clean)),
        2 if present.len() > 3 => {
            present.retain(|peer| *peer != one);
            world.leave(one);
        }
        3 if !is_clean => drop(world.nat.rebind(one)),
        4 if !is_clean => {
            let (up, down) = (bad_link(world), bad_link(world));
            let network = if world.rng.random_bool(0.5) { (None, None) } else { (Some(up), Some(down)) };
            world.impair("room", one, BadNetwork { up: network.0, down: network.1 }).expect("a peer in the room");
        }
        5 => world.act(one, |now, peer: &mut StrPeer| peer.restart_ice(now)),
        6 => world.act(one, |now, peer: &mut StrPeer| match peer.publishes(MediaKind::Video) {
            _ if !peer.is_settled() => {}
            1 => peer.add_track(now, MediaKind::Video),
            2 => peer.remove_track(now, MediaKind::Video),
            _ => {}
        }),
        7 => str_peer(world, one, StrPeer::ask_for_keyframes),
        8 => {
            let is_paused = world.rng.random_bool(0.3);
            str_peer(world, one, |peer| peer.pause(MediaKind::Video, is_paused));
        }
        9..=10 => {
            let line = random_line(world);
            world.links(one).1.config = line;
        }
        _ => {
            let wish = random_wish(world);
            world.demand_of(one, other, wish);
        }
    }
}

#[test]
fn layers_lines_and_wishes_change_and_the_oracles_hold() {
    for seed in LAYERED_STORIES {
        let (workers, is_clean) = (1 + (seed % 3) as usize, seed % 2 == 0);
        let mut world = world(seed, workers);
        world.oracle.is_ordered = is_clean;
        let camera = camera(&mut world);
        let first = enter(&mut world, request("room", &CLIENT_OFFERS), Script::publisher("room", camera));
        let mut present = vec![first, someone_with_layers_comes(&mut world, is_clean)];
        for _ in 0..30 {
            let pause = Duration::from_millis(world.rng.random_range(0..1_500));
            world.run_for(pause);
            something_happens_to_layers(&mut world, &mut present, is_clean);
        }
        for (me, other) in pairs(&present) {
            world.demand_of(me, other, Wish::Size { width: 1920, height: 1080, fps: None });
            world.demand_of(me, other, Wish::TemporalMax(None));
        }
        for peer in &present {
            world.set_links(*peer, LinkConfig::default());
            world.impair("room", *peer, BadNetwork::default()).expect("a peer in the room");
            str_peer(&mut world, *peer, |peer| peer.pause(MediaKind::Video, false));
        }
        world.run_for(seconds(12));
        let since = world.now - seconds(2);
        for (me, other) in pairs(&present) {
            for (kind, least) in [(MediaKind::Audio, 60), (MediaKind::Video, 10)] {
                if str_peer(&mut world, other, |peer| peer.publishes(kind)) == 0 {
                    continue;
                }
                // Tracks were replaced meanwhile: some have ended.
                let of_other = |source: &SourceNo| source.publisher == other && source.kind == kind;
                let tracks = world.received(me).tracks().filter(|(source, _)| of_other(source));
                let count = tracks.map(|(_, track)| track.count_since(since)).max().unwrap_or(0);
                assert!(
                    count > least,
                    "{me:?} has {count} {kind:?} of {other:?} x{workers} {}",
                    story(&mut world, &present)
                );
            }
        }
        assert_sound(&mut world, &present);
    }
}
