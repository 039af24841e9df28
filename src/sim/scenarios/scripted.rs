//! Scripted peers: the same seed, the same trace; one worker and three agree.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::base::ids::Ssrc;
use crate::proto::link::LinkConfig;
use crate::sim::oracle::hash_of;
use crate::sim::peer_scripted::{ScriptedConfig, ScriptedPeer};

/// The client offers once, and that is all.
const ALONE: Policy = Policy { server_may_offer: false, ..LIVE };

fn config(room: &str, receiving: usize) -> ScriptedConfig {
    let room = hash_of(room.as_bytes()) as u32;
    ScriptedConfig { room, receiving, padding_every: 0, padding: 0, has_rtx: true }
}

fn scripted(world: &mut World, room: &str, config: ScriptedConfig) -> PeerNo {
    let rng = StdRng::seed_from_u64(world.rng.random());
    world.join(request(room, &ALONE), |_, me, _| ScriptedPeer::new(rng, me, config)).expect("a seat")
}

fn peer<T>(world: &mut World, peer: PeerNo, act: impl FnOnce(&mut ScriptedPeer) -> T) -> T {
    world.act(peer, |_, peer: &mut ScriptedPeer| act(peer))
}

fn scripted_call(seed: u64, workers: usize, count: usize, receiving: usize, links: LinkConfig) -> (World, Vec<PeerNo>) {
    let mut world = world(seed, workers);
    let peers: Vec<PeerNo> = (0..count)
        .map(|index| {
            let room = if index % 2 == 1 { "other" } else { "room" };
            let peer = scripted(&mut world, room, config(room, receiving));
            world.set_links(peer, links);
            world.run_for(Duration::from_millis(100));
            peer
        })
        .collect();

    world.run_for(seconds(8));
    (world, peers)
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for (seed, workers) in cases() {
        let links = LinkConfig { jitter: Duration::from_millis(20), reorders: true, ..LinkConfig::lossy(0.05) };
        // Fewer m-lines than tracks: who speaks decides who is heard.
        let (first, peers) = scripted_call(seed, workers, 7, 0, links);
        let (second, _) = scripted_call(seed, workers, 7, 0, links);
        assert!(first.oracle.rtp_datagrams > 1_000, "{}", first.oracle.rtp_datagrams);
        assert_eq!(first.trace, second.trace, "seed {seed} x{workers}");
        let (other, _) = scripted_call(seed + 100, workers, 7, 0, links);
        assert_ne!(first.trace, other.trace);
        assert_eq!(first.oracle.faults, Vec::<String>::new());
        assert_eq!(peers.len(), 7);
    }
}

#[test]
fn one_worker_and_three_agree_on_what_was_delivered() {
    for seed in SEEDS {
        let delivered = |workers| {
            let (world, peers) = scripted_call(seed, workers, 5, 3, LinkConfig::default());
            assert_eq!(world.oracle.faults, Vec::<String>::new());
            let books = peers.iter().map(|peer| {
                let tracks = world.received(*peer).tracks();
                let tracks = tracks.map(|(source, it)| (source, it.completeness(), it.repeats));
                tracks.collect::<Vec<_>>()
            });
            (books.collect::<Vec<_>>(), world.reports().map(|report| report.packets_forwarded).sum::<u64>())
        };
        let (one, one_count) = delivered(1);
        let (three, three_count) = delivered(3);
        assert_eq!(one, three, "seed {seed}");
        assert!(one.iter().filter(|books| books.len() >= 2).count() >= 4, "{one:?}");
        assert!(one.iter().flatten().all(|(_, completeness, repeats)| *completeness == 1.0 && *repeats == 0));
        assert!(one_count.abs_diff(three_count) < one_count / 50, "{one_count} {three_count}");
    }
}

#[test]
fn a_batch_that_fills_up_loses_nothing() {
    for (seed, workers) in cases() {
        let sent = |batch_datagrams| {
            let mut world =
                World::new(clock::now(), WorldConfig { seed, workers, batch_datagrams, ..WorldConfig::default() });
            (0..6).for_each(|_| {
                scripted(&mut world, "room", config("room", 6));
            });
            world.run_for(seconds(5));
            assert!(world.oracle.rtp_datagrams > 5_000, "{}", world.oracle.rtp_datagrams);
            assert_eq!(world.oracle.faults, Vec::<String>::new());
            world.oracle.rtp_datagrams
        };
        // It ends the turn, so all moves by some microseconds.
        let (roomy, narrow) = (sent(64), sent(9));
        assert!(roomy.abs_diff(narrow) < roomy / 100, "seed {seed} x{workers}: {roomy} {narrow}");
    }
}

#[test]
fn padding_of_a_publisher_leaves_no_gap() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        world.oracle.is_continuous = true;
        let padded = ScriptedConfig { padding_every: 3, padding: 40, ..config("room", 0) };
        let publisher = scripted(&mut world, "room", padded);
        world.run_for(seconds(1));
        let subscriber = join(&mut world, "room");
        world.run_for(seconds(10));
        let track = world.received(subscriber).of(publisher, MediaKind::Video).expect("video");
        assert!(track.numbers.len() > 70 && (track.completeness() - 1.0).abs() < 1e-9, "{}", track.numbers.len());
        assert!(world.discards("padding_only") > 20);
        assert_sound(&mut world, &[subscriber]);
    }
}

#[test]
fn without_rtx_the_first_datagram_comes_again_or_nothing() {
    for (seed, workers) in cases() {
        for has_rtx in [false, true] {
            let mut world = world(seed, workers);
            let publisher = scripted(&mut world, "room", ScriptedConfig { padding: 17, ..config("room", 0) });
            world.run_for(seconds(1));
            let subscriber = scripted(&mut world, "room", ScriptedConfig { has_rtx, ..config("room", 0) });
            world.run_for(seconds(4));
            let (ssrc, seqs) = peer(&mut world, subscriber, |peer| {
                let video = peer.sequence.iter().min_by_key(|(_, seqs)| seqs.len()).expect("video");
                (*video.0, video.1.clone())
            });
            let repeats = world.oracle.rtp_repeats;
            let wanted = &seqs[seqs.len() - 20..];
            peer(&mut world, subscriber, |peer| peer.nack(Ssrc(ssrc), wanted));
            world.run_for(Duration::from_millis(200));
            let track = world.received(subscriber).of(publisher, MediaKind::Video).expect("video").clone();
            if has_rtx {
                assert_eq!(world.oracle.rtp_repeats, repeats, "seed {seed}: RTX has numbers of its own");
                assert_eq!(track.repeats, 20);
            } else {
                assert_eq!(world.oracle.rtp_repeats, repeats + 20, "seed {seed} x{workers}");
                // Its replay window refuses what it had; on a lossy network this is what was missing.
                assert_eq!(peer(&mut world, subscriber, |peer| peer.unreadable), 20);
            }
            assert!(world.reports().any(|report| report.trains.padding_bytes > 0), "padded packets were among them");
            assert_eq!(world.oracle.faults, Vec::<String>::new());
        }
    }
}
