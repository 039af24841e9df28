//! Everything at once, by chance: whoever is still there in the end sees and hears everybody.

use rand::RngExt;

use super::*;
use crate::proto::link::{LinkConfig, Loss};

/// Seeds of this file only: each is another story.
const STORIES: std::ops::Range<u64> = 100..110;

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
