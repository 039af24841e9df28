//! More than a worker can do: what is late is left out, audio stays whole, and it is over as soon as the load is.

use super::*;

/// A machine so slow that twelve cameras watched by twelve are too much for it.
fn slow_world(seed: u64, workers: usize) -> World {
    // Everybody is heard: loudest voices alone would be bearable.
    let send_cost = Duration::from_micros(100);
    let config = WorldConfig { seed, workers, send_cost, audio_loudest: 0, ..WorldConfig::default() };
    World::new(clock::now(), config)
}

#[test]
fn an_overloaded_worker_keeps_audio_fresh_and_recovers() {
    for seed in SEEDS {
        let mut world = slow_world(seed, 1);
        let peers: Vec<PeerNo> = (0..4).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(20), &peers);
        assert_eq!(world.discards("overload"), 0, "four are not too many");
        let more: Vec<PeerNo> = (0..8).map(|_| join(&mut world, "room")).collect();
        world.run_for(seconds(8));
        assert!(world.discards("overload") > 100, "seed {seed}: {}", world.discards("overload"));
        let from = world.now;
        world.run_for(seconds(5));
        for (me, other) in pairs(&peers) {
            let audio = world.received(me).of(other, MediaKind::Audio).expect("audio").count_since(from);
            assert!(audio >= 240, "seed {seed}: {me:?} heard {audio} of 250 packets of {other:?}");
        }
        more.iter().for_each(|peer| world.leave(*peer));
        let from = world.now + seconds(1);
        world.run_for(seconds(3));
        for (me, other) in pairs(&peers) {
            let video = world.received(me).of(other, MediaKind::Video).expect("video").count_since(from);
            assert!(video >= 20, "seed {seed}: {me:?} saw {video} packets of {other:?} in two seconds");
        }
        assert_sound(&mut world, &peers);
    }
}
