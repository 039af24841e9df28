//! A range of ports: each worker has its own, and the room says which one a peer is told.

use super::*;

fn own_ports(seed: u64, workers: usize) -> World {
    World::new(clock::now(), WorldConfig { seed, workers, has_own_ports: true, ..WorldConfig::default() })
}

/// How many peers live on each worker, by room.
fn homes(world: &World, room: &str, workers: usize) -> Vec<usize> {
    let peers = world.hub().debug_peers();
    let here = peers.as_array().into_iter().flatten().filter(|peer| peer["room"] == room);
    let owners: Vec<_> = here.filter_map(|peer| peer["worker"].as_u64()).collect();
    (0..workers as u64).map(|worker| owners.iter().filter(|owner| **owner == worker).count()).collect()
}

#[test]
fn small_rooms_live_on_one_worker_each_and_share_them() {
    for seed in SEEDS {
        let mut world = own_ports(seed, 3);
        world.oracle.is_continuous = true;
        let names = ["red", "green", "blue"];
        let rooms = names.map(|name| (0..3).map(|_| join(&mut world, name)).collect::<Vec<PeerNo>>());
        rooms.iter().for_each(|peers| expect_all_see_all(&mut world, seconds(5), peers));
        world.run_for(seconds(5));
        for (worker, (name, peers)) in names.iter().zip(&rooms).enumerate() {
            assert_eq!(homes(&world, name, 3)[worker], 3, "seed {seed}: {name}");
            for (me, other) in pairs(peers) {
                for kind in BOTH {
                    let track = world.received(me).of(other, kind).expect("media");
                    assert!((track.completeness() - 1.0).abs() < 1e-9, "seed {seed}: {}", track.completeness());
                    assert_eq!(track.repeats, 0);
                }
            }
            assert_sound(&mut world, peers);
        }
        assert_eq!((world.unreachable, world.discards("lane_full")), (0, 0));
    }
}

#[test]
fn a_room_too_big_for_one_worker_is_served_by_more() {
    let mut world = own_ports(SEEDS[0], 3);
    world.oracle.is_continuous = true;
    let publisher = join(&mut world, "room");
    let listen = |world: &mut World| enter(world, request("room", &CLIENT_OFFERS), Script::listener("room"));
    let listeners: Vec<PeerNo> = (0..120).map(|_| listen(&mut world)).collect();
    let elsewhere = [join(&mut world, "other"), join(&mut world, "other")];
    let has_all = |world: &mut World| {
        let mut pairs = listeners.iter().flat_map(|me| BOTH.map(|kind| (*me, kind)));
        pairs.all(|(me, kind)| world.received(me).of(publisher, kind).is_some())
    };
    assert!(world.run_until(seconds(10), has_all), "not everybody sees and hears the publisher");
    world.run_for(seconds(3));
    assert_eq!(homes(&world, "room", 3), [100, 21, 0]);
    assert_eq!(homes(&world, "other", 3), [0, 0, 2]);
    for me in &listeners {
        for kind in BOTH {
            let track = world.received(*me).of(publisher, kind).expect("media");
            assert!((track.completeness() - 1.0).abs() < 1e-9, "{me:?}: {}", track.completeness());
            assert_eq!(track.repeats, 0);
        }
    }
    assert_sound(&mut world, &listeners);
    assert_sound(&mut world, &elsewhere);
}
