//! Calls as they should be: people come, see and hear each other, and go.

use super::*;

#[test]
fn three_peers_see_and_hear_each_other() {
    for seed in SEEDS {
        let mut world = world(seed, 1);
        world.oracle.is_continuous = true;
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        assert!(world.run_until(seconds(5), |world| all_see_all(world, &peers, &BOTH)), "seed {seed}");
        let settled = world.now;
        world.run_for(seconds(10));
        for (me, other) in peers.iter().flat_map(|me| peers.iter().map(move |other| (me, other))) {
            if me == other {
                continue;
            }
            for (kind, per_second) in [(MediaKind::Audio, 50), (MediaKind::Video, 40)] {
                let track = world.received(*me).of(*other, kind).expect("media");
                assert!((track.completeness() - 1.0).abs() < 1e-9, "seed {seed}: {:?}", track.completeness());
                let count = track.count_since(settled);
                assert!(count >= per_second * 10 - 5, "seed {seed}: {count} {kind:?} packets in 10 s");
                assert_eq!(track.repeats, 0);
                assert!(track.longest_silence < Duration::from_millis(200), "{:?}", track.longest_silence);
                assert!(kind == MediaKind::Audio || track.first.is_some_and(|tag| tag.is_key && tag.part == 0));
            }
        }
        assert_sound(&mut world, &peers);
    }
}
