//! What the estimator must do on paths of every kind; times are virtual, seeds are fixed.

use super::bench::{Bench, Flow, Source};

const SEEDS: [u64; 2] = [1, 2];

/// A camera that follows the estimate, alone on a link.
fn camera(seed: u64, bps: f64) -> Bench {
    let mut bench = Bench::new(seed, bps);
    bench.add(1e6, 5e6, Source::Estimate(5e6));
    bench
}

fn assert_within(flow: &Flow, what: &str, value: f64, range: std::ops::Range<f64>) {
    assert!(range.contains(&value), "{what}: {value} is not in {range:?}; {:?}", flow.estimator.state());
}

#[test]
fn steps_of_capacity_are_followed() {
    for seed in SEEDS {
        let mut bench = camera(seed, 3e6);
        bench.run(15_000);
        bench.link.bps = 0.5e6;
        bench.run(15_000);
        bench.link.bps = 2e6;
        bench.run(15_000);
        let flow = &bench.flows[0];
        assert_within(flow, "s to 3 Mbit/s", flow.seconds_until(0.0, |bps| bps >= 2.7e6), 0.0..4.0);
        assert_within(flow, "s to 500 kbit/s", flow.seconds_until(15.0, |bps| bps <= 0.5e6), 0.0..1.0);
        assert_within(flow, "s to 2 Mbit/s", flow.seconds_until(30.0, |bps| bps >= 1.8e6), 0.0..4.0);
        for (from, bps) in [(4.0, 3e6), (19.0, 0.5e6), (34.0, 2e6)] {
            assert_within(flow, "queue in ms", flow.queue_ms_p95(from, from + 11.0), 0.0..120.0);
            assert_within(flow, "mean", flow.mean_bps(from, from + 11.0), 0.85 * bps..1.05 * bps);
        }
    }
}

#[test]
fn jitter_does_not_starve() {
    for (seed, reorders) in [(1, false), (2, true)] {
        let mut bench = camera(seed, 2e6);
        (bench.link.jitter_us, bench.link.reorders) = (50_000, reorders);
        bench.run(40_000);
        let flow = &bench.flows[0];
        assert_within(flow, "mean", flow.mean_bps(5.0, 40.0), 1.4e6..2.1e6);
        assert_within(flow, "queue in ms", flow.queue_ms_p95(5.0, 40.0), 0.0..100.0);
    }
}

#[test]
fn random_loss_is_not_congestion() {
    for seed in SEEDS {
        for loss in [0.01, 0.05, 0.1] {
            let mut bench = camera(seed, 2e6);
            bench.link.loss = loss;
            bench.run(40_000);
            let flow = &bench.flows[0];
            assert_within(flow, "mean", flow.mean_bps(5.0, 40.0), 1.6e6..2.1e6);
            assert_within(flow, "queue in ms", flow.queue_ms_p95(5.0, 40.0), 0.0..100.0);
        }
    }
}

#[test]
fn a_slow_link_that_loses_is_used_whatever_is_sent_on_it() {
    let layers = Source::Layers(vec![0.1e6, 0.2e6, 0.6e6]);
    for (seed, source) in [(1, Source::Estimate(5e6)), (2, Source::Estimate(5e6)), (3, layers.clone()), (4, layers)] {
        let mut bench = Bench::new(seed, 0.3e6);
        (bench.link.loss, bench.link.feedback_loss) = (0.05, 0.05);
        bench.link.queue_bytes_max = 20_000;
        bench.add(1e6, 0.8e6, source);
        bench.run(60_000);
        let flow = &bench.flows[0];
        let low = flow.range(6.0, 60.0).iter().filter(|moment| moment.estimate_bps < 0.8 * 0.3e6).count();
        assert_within(flow, "share of time below 80 %", low as f64 / (54.0 * 200.0), 0.0..0.2);
        assert_within(flow, "mean", flow.mean_bps(6.0, 60.0), 0.25e6..0.5e6);
        assert_within(flow, "queue in ms", flow.queue_ms_p95(6.0, 60.0), 0.0..150.0);
    }
}

#[test]
fn what_is_sent_all_the_same_and_gets_through_is_carried() {
    for seed in SEEDS {
        let mut bench = Bench::new(seed, 15e6);
        bench.add(1e6, 0.0, Source::Forced(9.6e6));
        bench.run(10_000);
        let flow = &bench.flows[0];
        assert_within(flow, "s to 7 Mbit/s", flow.seconds_until(0.0, |bps| bps >= 7e6), 0.0..2.5);
        assert_within(flow, "mean", flow.mean_bps(5.0, 10.0), 8.5e6..15e6);
    }
}

#[test]
fn loss_in_bursts_is_not_congestion() {
    for seed in SEEDS {
        let mut bench = camera(seed, 2e6);
        bench.link.burst = Some((0.01, 0.2));
        bench.run(40_000);
        let flow = &bench.flows[0];
        assert_within(flow, "mean", flow.mean_bps(5.0, 40.0), 1.6e6..2.1e6);
    }
}

#[test]
fn a_link_without_a_queue_is_found_by_its_loss() {
    for seed in SEEDS {
        let mut bench = camera(seed, 2e6);
        bench.link.queue_bytes_max = 6_000;
        bench.run(40_000);
        let flow = &bench.flows[0];
        assert_within(flow, "mean", flow.mean_bps(5.0, 40.0), 1.5e6..2.1e6);
        assert_within(flow, "arrived", flow.arrived_bytes as f64 * 8.0 / 40.0, 1.3e6..2.0e6);
    }
}

#[test]
fn an_outage_is_over_when_it_is_over() {
    for seed in SEEDS {
        for stalls in [false, true] {
            let mut bench = camera(seed, 2e6);
            bench.run(15_000);
            (bench.link.is_down, bench.link.is_stalled) = (!stalls, stalls);
            bench.run(1_000);
            let state = bench.flows[0].estimator.state();
            assert!(state.is_outage, "{state:?}");
            let pacing_bps = bench.flows[0].estimator.pacing_bps();
            assert!(pacing_bps.is_some_and(|bps| bps <= state.estimate_bps), "{pacing_bps:?}");
            (bench.link.is_down, bench.link.is_stalled) = (false, false);
            bench.run(14_000);
            let flow = &bench.flows[0];
            assert_within(flow, "mean after 4 s", flow.mean_bps(20.0, 30.0), 1.7e6..2.1e6);
            assert_within(flow, "queue in ms", flow.queue_ms_p95(20.0, 30.0), 0.0..100.0);
        }
    }
}

#[test]
fn a_long_outage_lowers_the_estimate_and_its_end_restores_half_at_once() {
    let mut bench = camera(1, 2e6);
    bench.run(15_000);
    bench.link.is_down = true;
    bench.run(4_000);
    let flow = &bench.flows[0];
    assert_within(flow, "in it", flow.mean_bps(18.9, 19.0), 0.03e6..0.5e6);
    bench.link.is_down = false;
    bench.run(6_000);
    let flow = &bench.flows[0];
    let back = flow.seconds_until(19.0, |bps| bps >= 0.8e6);
    let step = flow.range(19.0, 25.0).windows(2).any(|pair| pair[1].estimate_bps > 2.0 * pair[0].estimate_bps);
    assert!(step, "{back}");
    assert_within(flow, "s to half of it", back, 0.0..1.0);
    assert_within(flow, "mean after 4 s", flow.mean_bps(23.0, 25.0), 1.6e6..2.1e6);
}

#[test]
fn two_flows_share_a_link_without_a_standing_queue() {
    for seed in SEEDS {
        let mut bench = camera(seed, 3e6);
        bench.add(1e6, 5e6, Source::Estimate(5e6)).begins_us = 10_000_000;
        bench.run(70_000);
        let means = [0, 1].map(|flow: usize| bench.flows[flow].mean_bps(20.0, 70.0));
        let share = means[0] / (means[0] + means[1]);
        assert_within(&bench.flows[0], "share", share, 0.25..0.75);
        assert_within(&bench.flows[0], "sum", means[0] + means[1], 2.2e6..3.1e6);
        let mut times: Vec<u64> = bench.flows[0].range(20.0, 70.0).iter().map(|moment| moment.queue_us).collect();
        times.sort_unstable();
        assert_within(&bench.flows[0], "median of the queue in ms", times[times.len() / 2] as f64 / 1e3, 0.0..60.0);
    }
}

#[test]
fn probes_find_what_a_small_stream_cannot() {
    for seed in SEEDS {
        let mut bench = Bench::new(seed, 5e6);
        bench.add(0.3e6, 0.3e6, Source::Fixed(0.3e6));
        bench.run(10_000);
        let probes = bench.flows[0].estimator.state().probes;
        assert!(bench.flows[0].estimator.is_app_limited() || bench.flows[0].estimator.estimate_bps() < 500_000);
        assert_within(&bench.flows[0], "unasked", bench.flows[0].mean_bps(5.0, 10.0), 0.25e6..0.6e6);
        bench.flows[0].wanted_max_bps = 4e6;
        bench.run(10_000);
        let flow = &bench.flows[0];
        assert!(flow.estimator.is_app_limited() && flow.estimator.state().probes > probes);
        assert_within(flow, "s to 3 Mbit/s", flow.seconds_until(10.0, |bps| bps >= 3e6), 0.0..2.0);
        assert_within(flow, "found", flow.mean_bps(12.0, 20.0), 3e6..5.2e6);
    }
}

#[test]
fn layers_are_reached_by_probing_and_kept() {
    let mut bench = Bench::new(1, 4e6);
    bench.add(1e6, 2.5e6, Source::Layers(vec![0.15e6, 0.5e6, 2.5e6]));
    bench.run(30_000);
    let flow = &bench.flows[0];
    assert_within(flow, "s to the best", flow.seconds_until(0.0, |bps| bps >= 2.5e6), 0.0..1.0);
    let lost = flow.range(1.0, 30.0).iter().filter(|moment| moment.estimate_bps < 2.5e6).count();
    assert_eq!(lost, 0, "{:?}", flow.estimator.state());
}

#[test]
fn a_fast_link_is_found_at_the_start() {
    for seed in SEEDS {
        let mut bench = Bench::new(seed, 5e6);
        bench.add(1e6, 10e6, Source::Estimate(10e6));
        bench.run(20_000);
        let flow = &bench.flows[0];
        assert_within(flow, "s to 3 Mbit/s", flow.seconds_until(0.0, |bps| bps >= 3e6), 0.0..1.5);
        assert_within(flow, "mean", flow.mean_bps(5.0, 20.0), 4.2e6..5.2e6);
    }
}

#[test]
fn slow_links_and_long_ones_are_used_too() {
    for (bps, delay_us) in [(0.15e6, 25_000), (0.3e6, 50_000), (2e6, 150_000), (15e6, 10_000)] {
        let mut bench = Bench::new(1, bps);
        bench.link.delay_us = delay_us;
        bench.link.queue_bytes_max = bench.link.queue_bytes_max.max(20_000);
        bench.add(1e6, 20e6, Source::Estimate(20e6));
        bench.run(30_000);
        let flow = &bench.flows[0];
        assert_within(flow, "mean", flow.mean_bps(6.0, 30.0), 0.7 * bps..1.1 * bps);
        assert_within(flow, "queue in ms", flow.queue_ms_p95(6.0, 30.0), 0.0..150.0);
    }
}

#[test]
fn lost_and_repeated_feedback_changes_little() {
    let mut bench = camera(1, 2e6);
    (bench.link.feedback_loss, bench.link.feedback_again) = (0.2, 0.2);
    bench.run(40_000);
    let flow = &bench.flows[0];
    assert_within(flow, "mean", flow.mean_bps(5.0, 40.0), 1.4e6..2.1e6);
}
