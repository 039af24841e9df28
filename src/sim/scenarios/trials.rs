//! Bounds of the trials: what is promised of calls over bad networks. The tables of all trials are made by
//! `cargo bench --features sim --bench networks`.

use super::*;
use crate::proto::link::Loss;
use crate::sim::camera::CameraConfig;
use crate::sim::trials::bandwidth::{self, Sender};
use crate::sim::trials::loss::{BPS, LossResult, LossTrial, SLOW_BPS, Side, bursty};
use crate::sim::trials::{Stage, joins};

/// A loss trial of ten seconds.
fn lossy(loss: Loss, side: Side, (round_trip_ms, bps): (u64, u64)) -> LossResult {
    let round_trip = Duration::from_millis(round_trip_ms);
    LossTrial { loss, bps, side, round_trip, duration: seconds(10), seed: 1 }.play()
}

/// Nothing broken, and at least so much of packets and of frames in time, for at most that many bytes per lost byte.
fn assert_repaired(result: &LossResult, packets: f64, in_time: f64, cost: f64) {
    let LossResult { delivery, traffic, broken, .. } = result;
    assert_eq!(*broken, 0, "{result:#?}");
    assert!(delivery.packets >= packets && delivery.in_time >= in_time, "{result:#?}");
    assert!(traffic.repair_cost() <= cost, "{} {result:#?}", traffic.repair_cost());
}

#[test]
fn a_tenth_lost_on_the_way_to_the_server_is_repaired() {
    for network in [(20, BPS), (100, BPS), (300, SLOW_BPS)] {
        let result = lossy(Loss::Uniform(0.1), Side::Up, network);
        assert_repaired(&result, 0.998, 0.95, 1.3);
        // A third retransmission takes three round trips.
        assert!(result.look.freezes <= usize::from(network.0 == 300), "{network:?}: {result:#?}");
    }
    assert_repaired(&lossy(Loss::Uniform(0.1), Side::Up, (300, BPS)), 0.99, 0.9, 1.3);
}

#[test]
fn a_tenth_lost_on_the_way_to_the_viewer_is_repaired() {
    for network in [(20, BPS), (100, BPS), (300, SLOW_BPS)] {
        let result = lossy(Loss::Uniform(0.1), Side::Down, network);
        assert_repaired(&result, 0.998, 0.95, 1.3);
        // A third retransmission takes three round trips.
        assert!(result.look.freezes <= usize::from(network.0 == 300), "{network:?}: {result:#?}");
    }
    assert_repaired(&lossy(Loss::Uniform(0.1), Side::Down, (300, BPS)), 0.99, 0.9, 1.3);
}

#[test]
fn bursts_are_repaired() {
    for side in [Side::Up, Side::Down] {
        assert_repaired(&lossy(bursty(0.05), side, (100, BPS)), 0.995, 0.97, 1.3);
    }
}

/// What a phase of a trial has to come to.
#[derive(Clone, Copy)]
struct Bound {
    /// Within so many seconds, for good.
    settled: Option<f64>,
    /// Beside the goal.
    estimate: f64,
    queued_ms: u64,
    freezes: usize,
}

/// A link that is found out and kept to. What the worst of several runs came to is in `perf/results/networks.md`; str0m's hash
/// maps have no seed, so bounds leave some room beyond it.
const FOLLOWED: Bound = Bound { settled: Some(8.0), estimate: 0.9, queued_ms: 100, freezes: 0 };
/// The same where the line is worse than slow.
const DISTURBED: Bound = Bound { settled: None, estimate: 0.85, queued_ms: 100, freezes: 1 };

/// Nothing broken, and each phase within its bound.
fn assert_followed(trial: &bandwidth::BandwidthTrial, bounds: &[Bound]) {
    let (course, phases) = trial.play(Sender::Tramline, 1);
    assert_eq!((course.broken, phases.len()), (0, bounds.len()));
    for (phase, bound) in phases.iter().zip(bounds) {
        let has_settled = bound.settled.is_none_or(|most| phase.settled.is_some_and(|it| it.as_secs_f64() <= most));
        assert!(has_settled && phase.estimate.is_some_and(|share| share >= bound.estimate), "{phase:#?}");
        assert!(phase.queued_p95 < Duration::from_millis(bound.queued_ms), "{phase:#?}");
        assert!(phase.look.freezes <= bound.freezes && phase.look.switches <= 10, "{phase:#?}");
    }
}

#[test]
fn every_encoding_is_shown_to_people() {
    let mut stage = Stage::new(1, CameraConfig::simulcast());
    stage.world.run_for(seconds(6));
    let tracks = stage.world.hub().debug_tracks();
    let video = tracks.as_array().and_then(|all| all.iter().find(|track| track["kind"] == "video")).expect("a video");
    let encodings = video["encodings"].as_array().expect("a list");
    let rids: Vec<_> = encodings.iter().map(|encoding| encoding["rid"].as_str()).collect();
    assert_eq!(rids, [Some("q"), Some("h"), Some("f")]);
    for (encoding, bps) in encodings.iter().zip([150_000.0, 500_000.0, 1_700_000.0]) {
        let measured = encoding["bitsPerSecond"].as_f64().unwrap_or_default() / bps;
        assert!((0.6..1.4).contains(&measured), "{measured} {tracks:#}");
    }
    let sum: u64 = encodings.iter().filter_map(|encoding| encoding["packets"].as_u64()).sum();
    assert_eq!(video["packets"].as_u64(), Some(sum), "{tracks:#}");
}

#[test]
fn a_video_follows_its_link() {
    // A second of the slow line is a queue of tens of packets, and the estimate swings about the goal's tenth.
    let slow = Bound { settled: None, freezes: 0, ..DISTURBED };
    assert_followed(&bandwidth::steps(), &[FOLLOWED, slow, FOLLOWED]);
}

#[test]
fn jitter_is_no_congestion() {
    assert_followed(&bandwidth::jitter(), &[DISTURBED]);
}

#[test]
fn after_an_outage_all_is_as_before() {
    assert_followed(&bandwidth::outage(), &[Bound { freezes: 2, ..DISTURBED }]);
}

#[test]
fn a_slow_line_that_loses_is_used() {
    // What is sent before anything is known of the line stands in its queue for a while.
    assert_followed(&bandwidth::narrow(), &[Bound { estimate: 0.8, queued_ms: 500, freezes: 3, ..DISTURBED }]);
}

#[test]
fn others_on_the_line_leave_us_a_share() {
    assert_followed(&bandwidth::constant(), &[DISTURBED, FOLLOWED]);
    // Who fills the queue decides how long it is.
    let beside_tcp = Bound { estimate: 0.25, queued_ms: 200, freezes: 1, ..DISTURBED };
    assert_followed(&bandwidth::reno(), &[beside_tcp, FOLLOWED]);
}

#[test]
fn the_other_sender_is_a_fair_one() {
    for sender in [Sender::Str0m, Sender::Str0mPadding] {
        let (course, phases) = bandwidth::steps().play(sender, 1);
        assert_eq!(course.broken, 0);
        for phase in phases {
            let has_estimate = phase.estimate.is_some_and(|share| share > 0.4);
            assert!(has_estimate && phase.look.freezes <= 3 && phase.look.fps > 15.0, "{sender:?} {phase:#?}");
        }
    }
}

#[test]
fn who_joins_sees_something_soon() {
    for is_watched in [false, true] {
        let result = joins::start(1, is_watched);
        assert!(result.first.is_some_and(|first| first <= Duration::from_millis(300)), "{result:?}");
        assert!(result.best.is_some_and(|best| best <= seconds(2)), "{result:?}");
    }
}

#[test]
fn many_who_join_at_once_cost_the_publisher_nothing_where_it_is_kept_and_little_else() {
    // Goal: none where it is fresh. Two of ten miss it by their estimate, see `perf/results/joins.md`.
    for is_fresh in [true, false] {
        let (viewers, keyframes_max) = (10, 1);
        let result = joins::crowd(1, viewers, is_fresh);
        assert!(result.keyframes.iter().all(|(_, count)| *count <= keyframes_max), "{is_fresh} {result:?}");
        assert!(result.seeing == viewers && result.broken == 0 && result.first_p99 < seconds(1), "{result:?}");
    }
}

#[test]
fn a_publisher_leaves_out_what_nobody_wants_and_sends_it_again_when_somebody_does() {
    let long = seconds(10);
    let wishes = [
        ((640, 360), long),
        ((1280, 720), seconds(4)),
        // For a moment only: nothing stops.
        ((160, 90), seconds(3)),
        ((1280, 720), seconds(4)),
        ((0, 0), long),
        ((640, 360), seconds(4)),
    ];
    let result = joins::unneeded(1, &wishes);
    let [all, two, one] = [[true; 3], [true, true, false], [true, false, false]];
    assert_eq!(result.made, [two, all, all, all, one, two], "{result:?}");
    for (at, answered) in result.answered.iter().enumerate().filter(|(at, _)| wishes[*at].0 != (0, 0)) {
        assert!(answered.is_some_and(|answered| answered <= seconds(1)), "{at}: {result:?}");
    }
    assert_eq!((&result.lines[..4], result.lines[5], result.broken), (&[360, 720, 180, 720][..], 360, 0), "{result:?}");
}

#[test]
fn what_is_not_looked_at_is_not_sent() {
    let sizes = [(1280, 720), (160, 90), (0, 0), (640, 360), (0, 0), (320, 180)];
    let joins::DemandsResult { seen, keyframes } = joins::demands(1, &sizes);
    let lines: Vec<u16> = seen.iter().map(|(height, _)| *height).collect();
    assert_eq!(lines, [720, 180, 0, 360, 0, 180], "{seen:?}");
    assert!(seen.iter().all(|(height, count)| (*height == 0 && *count == 0) || *count > 50), "{seen:?}");
    assert!(keyframes.iter().all(|(rid, _)| rid != "f"), "of what is not wanted: {keyframes:?}");
}
