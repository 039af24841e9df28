//! Networks as they are: loss, jitter, rebinding, silence.

use super::*;
use crate::proto::link::{LinkConfig, Loss};
use crate::room::api::{MediaState, Notice};

fn in_call(seed: u64, workers: usize, count: usize) -> (World, Vec<PeerNo>) {
    let mut world = world(seed, workers);
    let peers: Vec<PeerNo> = (0..count).map(|_| join(&mut world, "room")).collect();
    expect_all_see_all(&mut world, seconds(5), &peers);
    (world, peers)
}

fn completeness(world: &World, peers: &[PeerNo], kind: MediaKind) -> f64 {
    pairs(peers)
        .iter()
        .map(|(me, other)| world.received(*me).of(*other, kind).map_or(0.0, |it| it.completeness()))
        .fold(1.0, f64::min)
}

#[test]
fn five_per_cent_loss_is_repaired() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 3);
        peers.iter().for_each(|peer| world.set_links(*peer, LinkConfig::lossy(0.05)));
        world.run_for(seconds(20));
        peers.iter().for_each(|peer| world.set_links(*peer, LinkConfig::default()));
        world.run_for(seconds(1));
        let video = completeness(&world, &peers, MediaKind::Video);
        assert!(video >= 0.99, "seed {seed} x{workers}: {video} of the video came {}", story(&mut world, &peers));
        let audio = completeness(&world, &peers, MediaKind::Audio);
        assert!(audio >= 0.85, "seed {seed} x{workers}: {audio} of the audio came");
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn loss_in_bursts_with_jitter_and_reordering_is_survived() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 3);
        let config = LinkConfig {
            loss: Loss::Bursty { to_bad: 0.01, to_good: 0.3 },
            jitter: Duration::from_millis(30),
            reorders: true,
            ..LinkConfig::default()
        };
        peers.iter().for_each(|peer| world.set_links(*peer, config));
        world.run_for(seconds(20));
        peers.iter().for_each(|peer| world.set_links(*peer, LinkConfig::default()));
        world.run_for(seconds(1));
        let video = completeness(&world, &peers, MediaKind::Video);
        assert!(video >= 0.97, "seed {seed} x{workers}: {video} of the video came {}", story(&mut world, &peers));
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn joining_over_a_lossy_and_narrow_network_works() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "room")).collect();
        let config = LinkConfig {
            loss: Loss::Uniform(0.1),
            jitter: Duration::from_millis(20),
            reorders: true,
            rate: Some((2_000_000, 60_000)),
            ..LinkConfig::default()
        };
        peers.iter().for_each(|peer| world.set_links(*peer, config));
        expect_all_see_all(&mut world, seconds(20), &peers);
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn a_rebound_nat_mapping_heals() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 2);
        for round in 0..3 {
            world.run_for(seconds(3));
            world.nat.rebind(peers[0]);
            let at = world.now;
            world.run_for(seconds(6));
            for (me, other) in pairs(&peers) {
                for kind in BOTH {
                    let count = world.received(me).of(other, kind).map_or(0, |it| it.count_since(at + seconds(4)));
                    assert!(
                        count > 50,
                        "seed {seed} x{workers} round {round}: {me:?} got {count} {kind:?} {}",
                        story(&mut world, &peers)
                    );
                }
            }
        }
        assert_eq!(world.closed(peers[0]), None);
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn ice_restarts_mid_call_and_after_a_change_of_network() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 2);
        for is_rebound in [false, true, true] {
            if is_rebound {
                world.nat.rebind(peers[0]);
            }
            world.act(peers[0], |now, peer: &mut StrPeer| peer.restart_ice(now));
            let at = world.now;
            world.run_for(seconds(8));
            for (me, other) in pairs(&peers) {
                let count =
                    world.received(me).of(other, MediaKind::Audio).map_or(0, |it| it.count_since(at + seconds(5)));
                assert!(count > 100, "seed {seed} x{workers}: {me:?} got {count} {}", story(&mut world, &peers));
            }
        }
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn without_checks_for_thirty_seconds_nothing_is_sent() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 2);
        world.run_for(seconds(2));
        world.silence(peers[1]);
        world.run_for(seconds(29));
        let before = world.links(peers[1]).1.counts.0;
        world.run_for(seconds(6));
        let at_expiry = world.links(peers[1]).1.counts.0;
        assert!(at_expiry > before, "it had stopped before its time");
        world.run_for(seconds(10));
        assert_eq!(world.links(peers[1]).1.counts.0, at_expiry, "seed {seed} x{workers}: it goes on sending");
        let lost =
            world.notices(peers[1]).iter().find(|(_, notice)| *notice == Notice::Media(MediaState::Disconnected));
        assert!(lost.is_some());
        assert_sound(&mut world, &[peers[0]]);
    }
}

#[test]
fn a_silent_minute_is_forgiven_when_checks_come_again() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers, 2);
        let dead = LinkConfig { loss: Loss::Uniform(1.0), ..LinkConfig::default() };
        world.set_links(peers[1], dead);
        world.run_for(seconds(20));
        world.set_links(peers[1], LinkConfig::default());
        world.run_for(seconds(10));
        let since = world.now - seconds(2);
        // str0m may have given up by itself; ours must not have.
        assert_eq!(world.closed(peers[1]), None);
        let count = world.received(peers[0]).of(peers[1], MediaKind::Audio).map_or(0, |it| it.count_since(since));
        assert!(count > 80, "seed {seed} x{workers}: {count} {}", story(&mut world, &peers));
        assert_sound(&mut world, &[peers[0]]);
    }
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    for (seed, workers) in cases() {
        let addresses = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().expect("an address")).to_vec();
        let config = WorldConfig { seed, workers, addresses, ..WorldConfig::default() };
        let mut world = World::new(clock::now(), config);
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        world.run_for(seconds(5));
        assert_sound(&mut world, &peers);
    }
}
