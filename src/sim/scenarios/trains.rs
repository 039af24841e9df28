//! Trains of mixed tracks: padded, held, and nobody hears or sees a difference.

use super::*;
use crate::base::train::{TrainLimits, TrainNumbers};
use crate::proto::link::LinkConfig;

fn world_with(seed: u64, workers: usize, padding_percent_max: u8, is_busy: bool) -> World {
    let trains = TrainLimits { padding_percent_max, ..TrainLimits::default() };
    let lag_max = Duration::from_micros(50);
    World::new(clock::now(), WorldConfig { seed, workers, trains, is_busy, lag_max, ..WorldConfig::default() })
}

fn numbers(world: &World) -> TrainNumbers {
    let mut sum = TrainNumbers::default();
    world.reports().for_each(|report| sum.add(&report.trains));
    sum
}

fn mean_length(numbers: &TrainNumbers) -> f64 {
    numbers.packets as f64 / numbers.by_length.iter().sum::<u64>() as f64
}

/// A call of four for ten seconds over links with that jitter; everything arrives, once and whole.
fn call(mut world: World, jitter: Duration) -> TrainNumbers {
    world.oracle.is_continuous = true;
    let peers: Vec<PeerNo> = (0..4).map(|_| join(&mut world, "room")).collect();
    peers.iter().for_each(|peer| world.set_links(*peer, LinkConfig { jitter, ..LinkConfig::default() }));
    expect_all_see_all(&mut world, seconds(5), &peers);
    world.run_for(seconds(10));
    for (me, other) in pairs(&peers) {
        for kind in BOTH {
            let track = world.received(me).of(other, kind).expect("media");
            assert!((track.completeness() - 1.0).abs() < 1e-9, "seed {}: {}", world.seed(), track.completeness());
            assert_eq!(track.repeats, 0);
            assert!(track.longest_silence < Duration::from_millis(200), "{:?}", track.longest_silence);
        }
    }
    assert_sound(&mut world, &peers);
    let forwarded: u64 = world.reports().map(|report| report.packets_forwarded).sum();
    let numbers = numbers(&world);
    assert_eq!(numbers.packets, forwarded, "what was arranged has left");
    numbers
}

#[test]
fn padded_media_arrives_as_it_was() {
    for (seed, workers) in cases() {
        let plain = call(world_with(seed, workers, 0, false), Duration::ZERO);
        let padded = call(world_with(seed, workers, 5, false), Duration::ZERO);
        assert_eq!(plain.padding_bytes, 0);
        assert!(padded.padding_bytes > 0);
        let (short, long) = (mean_length(&plain), mean_length(&padded));
        assert!(long > short, "seed {seed} x{workers}: {short} {long}");
    }
}

#[test]
fn a_busy_worker_waits_and_its_trains_grow() {
    // The packets of a frame come one after the other.
    let jitter = Duration::from_micros(500);
    for (seed, workers) in cases() {
        let idle = mean_length(&call(world_with(seed, workers, 5, false), jitter));
        let busy = mean_length(&call(world_with(seed, workers, 5, true), jitter));
        assert!(busy > idle, "seed {seed} x{workers}: {idle} {busy}");
    }
}

#[test]
fn what_is_held_when_the_server_stops_hurts_nobody() {
    for (seed, workers) in cases() {
        let mut world = world_with(seed, workers, 2, true);
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        world.leave(peers[0]);
        world.run_for(seconds(1));
        world.stop();
        world.run_for(seconds(1));
        assert!(world.is_stopped());
        assert_eq!(world.oracle.faults, Vec::<String>::new());
    }
}
