//! Tests of the allocator: whole sessions, ten rounds a second.

use super::*;
use crate::runtime::clock;
use proptest::prelude::*;
use std::collections::HashMap;

const ROUND: Duration = Duration::from_millis(100);

/// Encodings of (bit/s, pixels), each of three temporal layers.
fn simulcast(encodings: &[(u64, u32)]) -> Vec<Offer> {
    let of = |(encoding, (bps, pixels)): (usize, &(u64, u32))| {
        [(0, 50, 7.5), (1, 70, 15.0), (2, 100, 30.0)].map(|(temporal, share, fps)| Offer {
            layer: Layer { encoding: encoding as u8, spatial: 0, temporal },
            bps: bps * share / 100,
            pixels: Some(*pixels),
            fps: Some(fps),
        })
    };
    encodings.iter().enumerate().flat_map(of).collect()
}

const SMALL: (u64, u32) = (150_000, 320 * 180);
const MIDDLE: (u64, u32) = (500_000, 640 * 360);
const LARGE: (u64, u32) = (2_500_000, 1280 * 720);

fn layer(encoding: u8, temporal: u8) -> Layer {
    Layer { encoding, spatial: 0, temporal }
}

struct Session {
    allocator: Allocator,
    now: Instant,
    videos: Vec<(Want, Vec<Offer>)>,
    targets: HashMap<u16, Option<Layer>>,
    switches: HashMap<u16, u32>,
}

impl Session {
    fn new(videos: u16) -> Self {
        let video = |id| (Want::best(id), simulcast(&[SMALL, MIDDLE, LARGE]));
        Self {
            allocator: Allocator::default(),
            now: clock::now(),
            videos: (0..videos).map(video).collect(),
            targets: HashMap::new(),
            switches: HashMap::new(),
        }
    }

    fn round(&mut self, budget_bps: u64) -> Vec<Allocation> {
        self.now += ROUND;
        self.allocator.begin();
        for (want, offers) in &self.videos {
            self.allocator.add(want, offers.iter().copied());
        }
        let allocations = self.allocator.allocate(self.now, budget_bps).to_vec();
        for allocation in &allocations {
            let former = self.targets.insert(allocation.id, allocation.target);
            let is_switch = former.is_some_and(|former| former != allocation.target);
            *self.switches.entry(allocation.id).or_default() += u32::from(is_switch);
        }
        allocations
    }

    fn rounds(&mut self, seconds: u64, budget_bps: u64) -> Vec<Allocation> {
        (0..seconds * 10).map(|_| self.round(budget_bps)).last().expect("a round")
    }

    /// The highest number of switches of one subscription since it was asked last.
    fn switches(&mut self) -> u32 {
        self.switches.drain().map(|(_, switches)| switches).max().unwrap_or(0)
    }
}

fn targets(allocations: &[Allocation]) -> Vec<Option<Layer>> {
    allocations.iter().map(|allocation| allocation.target).collect()
}

#[test]
fn nobody_is_black() {
    let mut session = Session::new(5);
    for _ in 0..50 {
        assert_eq!(targets(&session.round(0)), vec![Some(layer(0, 0)); 5]);
    }
    session.rounds(20, 50_000_000);
    assert_eq!(targets(&session.round(0)), vec![Some(layer(0, 0)); 5], "down at once");
}

#[test]
fn a_first_estimate_below_the_lowest_is_no_failure() {
    let mut session = Session::new(8);
    assert_eq!(targets(&session.rounds(1, 300_000)), vec![Some(layer(0, 0)); 8]);
    assert_eq!(targets(&session.round(30_000_000)), vec![Some(layer(2, 2)); 8]);
}

#[test]
fn a_fast_link_gets_the_best_at_once() {
    let mut session = Session::new(3);
    assert_eq!(targets(&session.round(10_000_000)), vec![Some(layer(2, 2)); 3]);
    assert_eq!(session.allocator.allocated_bps(), 7_500_000);
    assert_eq!(session.allocator.wanted_bps(), 7_500_000);
    let mut endless = Session::new(3);
    assert_eq!(targets(&endless.round(u64::MAX)), vec![Some(layer(2, 2)); 3]);
}

#[test]
fn the_same_wish_gets_about_the_same() {
    for budget_bps in (300_000..12_000_000).step_by(230_000) {
        let mut session = Session::new(4);
        let allocations = session.rounds(1, budget_bps);
        let encodings = || allocations.iter().filter_map(|allocation| Some(allocation.target?.encoding));
        let (lowest, highest) = (encodings().min(), encodings().max());
        assert!(highest <= lowest.map(|lowest| lowest + 1), "{allocations:?} of {budget_bps}");
        let at_lowest = allocations.iter().filter(|allocation| allocation.target == Some(layer(0, 0))).count();
        assert!(at_lowest == 0 || highest == Some(0), "{allocations:?} of {budget_bps}");
        assert_eq!(session.allocator.wanted_bps(), 10_000_000);
    }
}

#[test]
fn who_is_pinned_goes_first_and_at_once() {
    let mut session = Session::new(4);
    session.rounds(10, 3_600_000);
    session.rounds(1, 3_500_000);
    session.videos[2].0.priority = 1;
    let allocations = session.round(3_500_000);
    assert_eq!(allocations[2].target, Some(layer(2, 2)));
    assert!(allocations[0].bps <= 150_000, "{allocations:?}");
}

#[test]
fn a_large_tile_goes_before_small_ones() {
    let mut session = Session::new(6);
    for (want, _) in &mut session.videos[1..] {
        want.max_pixels = Some(320 * 180);
    }
    let allocations = session.round(3_800_000);
    assert_eq!(allocations[0].target, Some(layer(2, 2)));
    assert_eq!(targets(&allocations[1..]), vec![Some(layer(0, 2)); 5]);
    assert_eq!(allocations[1].why, Why::CappedByRequest { max_pixels: Some(320 * 180), max_fps: None });
}

#[test]
fn what_nobody_looks_at_costs_nothing() {
    let mut session = Session::new(2);
    session.rounds(10, 2_000_000);
    session.videos[1].0.is_visible = false;
    let allocations = session.round(2_000_000);
    assert_eq!((allocations[1].target, allocations[1].why), (None, Why::HiddenByRequest));
    assert_eq!(session.allocator.wanted_bps(), 2_500_000);
    session.rounds(10, 3_200_000);
    session.videos[1].0.is_visible = true;
    let allocations = session.round(3_200_000);
    assert!(allocations[1].bps > 150_000, "it comes back with what it is due: {allocations:?}");
}

#[test]
fn somebody_new_gets_a_share() {
    let mut session = Session::new(1);
    assert_eq!(session.rounds(10, 3_000_000)[0].target, Some(layer(2, 2)));
    session.videos.push((Want::best(9), simulcast(&[SMALL, MIDDLE, LARGE])));
    let allocations = session.round(3_000_000);
    assert!(allocations.iter().all(|allocation| allocation.bps <= 1_750_000), "{allocations:?}");
    assert!(allocations.iter().all(|allocation| allocation.bps >= 500_000), "{allocations:?}");
}

#[test]
fn a_layer_that_ends_is_replaced_and_comes_back() {
    let mut session = Session::new(1);
    session.rounds(10, 5_000_000);
    session.videos[0].1.truncate(6);
    assert_eq!(session.round(5_000_000)[0].target, Some(layer(1, 2)));
    session.rounds(3, 5_000_000);
    session.videos[0].1 = simulcast(&[SMALL, MIDDLE, LARGE]);
    assert_eq!(session.round(5_000_000)[0].target, Some(layer(2, 2)));
    session.videos[0].1.clear();
    let nothing = session.round(5_000_000)[0];
    assert_eq!((nothing.target, nothing.why), (None, Why::PublisherSilent { silent: None }));
}

#[test]
fn what_replaces_a_layer_does_not_wait() {
    let mut session = Session::new(1);
    session.rounds(10, 3_000_000);
    assert_eq!(session.round(2_000_000)[0].target, Some(layer(2, 1)));
    session.videos[0].1.truncate(6);
    assert_eq!(session.round(2_000_000)[0].target, Some(layer(1, 2)), "though the link was just too slow");
}

#[test]
fn a_wish_is_answered_at_once() {
    let mut session = Session::new(1);
    session.rounds(10, 3_000_000);
    session.videos[0].0.max_temporal = Some(0);
    assert_eq!(session.round(3_000_000)[0].target, Some(layer(2, 0)));
    session.videos[0].0.max_temporal = None;
    assert_eq!(session.round(3_000_000)[0].target, Some(layer(2, 2)));
}

#[test]
fn small_gains_are_rare() {
    let mut session = Session::new(1);
    let offers = simulcast(&[SMALL, MIDDLE, (700_000, 800 * 450), LARGE]);
    session.videos[0].1 = offers.into_iter().filter(|offer| offer.layer.temporal == 2).collect();
    session.rounds(10, 400_000);
    session.rounds(2, 600_000);
    assert_eq!(session.targets[&0], Some(layer(1, 2)));
    session.rounds(3, 1_000_000);
    assert_eq!(session.targets[&0], Some(layer(1, 2)));
    session.rounds(3, 1_000_000);
    assert_eq!(session.targets[&0], Some(layer(2, 2)));
}

#[test]
fn two_who_cannot_both_have_it_do_not_take_turns() {
    let mut session = Session::new(2);
    let offers: Vec<_> = simulcast(&[SMALL, LARGE]).into_iter().filter(|offer| offer.layer.temporal == 2).collect();
    session.videos[0].1.clear();
    session.videos[1].1 = offers.clone();
    session.rounds(10, 3_200_000);
    session.videos[0].1 = offers;
    let allocations = session.rounds(10, 3_200_000);
    assert_eq!(targets(&allocations), [Some(layer(0, 2)), Some(layer(1, 2))]);
}

#[test]
fn each_step_of_the_network_costs_two_switches_at_most() {
    for encodings in [&[SMALL, MIDDLE, LARGE][..], &[MIDDLE, LARGE][..]] {
        let mut session = Session::new(1);
        session.videos[0].1 = simulcast(encodings);
        session.rounds(15, 3_000_000);
        assert_eq!(session.targets[&0], session.allocator.allocations[0].wanted);
        session.switches();
        // The estimate follows the capacity as estimators do: down within a few rounds, up within some seconds.
        let mut estimate = 3_000_000.0_f64;
        for capacity in [500_000.0_f64, 2_000_000.0, 400_000.0, 3_000_000.0, 1_000_000.0] {
            for _ in 0..150 {
                estimate =
                    if capacity < estimate { capacity.max(estimate * 0.7) } else { capacity.min(estimate * 1.05) };
                session.round(estimate as u64);
            }
            let switches = session.switches();
            assert!(switches <= 2, "{switches} switches to {capacity} with {} encodings", encodings.len());
            let used = session.allocator.allocated_bps() as f64;
            assert!(used <= capacity && used >= capacity * 0.25, "{used} of {capacity}");
        }
    }
}

#[test]
fn after_a_step_up_of_the_network_it_is_used_within_four_seconds() {
    let mut session = Session::new(1);
    session.rounds(10, 3_000_000);
    session.rounds(10, 500_000);
    assert_eq!(session.targets[&0], Some(layer(1, 1)));
    session.rounds(4, 3_000_000);
    assert_eq!(session.targets[&0], Some(layer(2, 2)));
}

#[test]
fn a_small_overshoot_is_borne_for_a_while() {
    let mut session = Session::new(1);
    session.rounds(10, 3_000_000);
    session.rounds(1, 2_400_000);
    assert_eq!(session.switches(), 0);
    session.round(2_400_000);
    assert_eq!(session.switches(), 1, "not for long");
    session.rounds(30, 3_000_000);
    session.switches();
    session.round(2_250_000);
    assert_eq!(session.switches(), 1, "more than small");
}

#[test]
fn what_fails_is_tried_more_and_more_seldom() {
    let mut session = Session::new(1);
    session.rounds(10, 3_000_000);
    session.switches();
    // A link that looks free as long as little is sent, and never carries the best.
    let mut attempts = Vec::new();
    for round in 0..1200 {
        let was_high = session.targets[&0] == Some(layer(2, 2));
        let before = session.targets[&0];
        session.round(if was_high { 1_500_000 } else { 3_000_000 });
        if session.targets[&0] == Some(layer(2, 2)) && before != session.targets[&0] {
            attempts.push(round / 10);
        }
    }
    let waits: Vec<i32> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // By a second or so: rounds and trials do not begin together.
    assert!(waits.windows(2).all(|pair| pair[1] + 1 >= pair[0]), "{waits:?}");
    assert!(waits.len() >= 6 && waits.last().is_some_and(|wait| (8..16).contains(wait)), "{waits:?}");
    // When the link becomes another one, that is forgotten.
    session.rounds(1, 1_500_000);
    session.rounds(3, 10_000_000);
    assert_eq!(session.targets[&0], Some(layer(2, 2)));
}

#[test]
fn reasons_have_numbers() {
    let mut session = Session::new(1);
    let why = session.rounds(10, 600_000)[0].why;
    assert_eq!(why, Why::Bandwidth { estimate_bps: 600_000, allocated_bps: 500_000, needed_bps: 1_750_000 });
    let why = session.round(5_000_000)[0].why;
    assert!(matches!(why, Why::Settling { estimate_bps: 5_000_000, needed_bps: 1_750_000, .. }), "{why:?}");
    assert_eq!(session.rounds(10, 5_000_000)[0].why, Why::Best);
    session.videos[0].0.forced = Some(Layer { encoding: 3, spatial: u8::MAX, temporal: u8::MAX });
    assert_eq!(session.round(5_000_000)[0].why, Why::LayerNotSent);
    session.videos[0].0.forced = Some(layer(0, u8::MAX));
    let allocation = session.round(5_000_000)[0];
    assert_eq!(allocation.target, Some(layer(0, 2)));
    assert_eq!(allocation.why, Why::CappedByRequest { max_pixels: None, max_fps: None });
}

#[test]
fn who_leaves_is_forgotten() {
    let mut session = Session::new(3);
    session.rounds(1, 3_000_000);
    session.videos.remove(1);
    assert_eq!(session.round(3_000_000).iter().map(|allocation| allocation.id).collect::<Vec<_>>(), [0, 2]);
    session.videos.reverse();
    assert_eq!(session.round(3_000_000).len(), 2, "in any order");
    assert_eq!(session.allocator.members.len(), 2);
}

fn any_want(id: u16) -> impl Strategy<Value = Want> {
    (0u8..2, prop::option::of(1u32..2_000_000), prop::option::of(1u8..40), prop::option::of(0u8..3), any::<[bool; 2]>())
        .prop_map(move |(priority, max_pixels, max_fps, max_temporal, [is_visible, is_screen])| Want {
            priority,
            max_pixels,
            max_fps,
            max_temporal,
            is_visible,
            is_screen,
            ..Want::best(id)
        })
}

fn any_video(id: u16) -> impl Strategy<Value = (Want, Vec<Offer>)> {
    (any_want(id), prop::collection::vec((20_000u64..4_000_000, 1000u32..2_000_000), 0..4))
        .prop_map(|(want, encodings)| (want, simulcast(&encodings)))
}

fn any_videos() -> impl Strategy<Value = Vec<(Want, Vec<Offer>)>> {
    (1u16..7).prop_flat_map(|count| (0..count).map(any_video).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// An estimate that errs by a tenth, around a mean that is anywhere, and rates that err by some percent.
    #[test]
    fn noise_makes_no_oscillation(
        mean in 200_000u64..12_000_000, count in 1u16..5, noise in prop::collection::vec(-100i64..=100, 700),
    ) {
        let mut session = Session::new(count);
        let offers = simulcast(&[SMALL, MIDDLE, LARGE]);
        for (round, noise) in noise.iter().enumerate() {
            for (place, (_, noisy)) in session.videos.iter_mut().enumerate() {
                for (offer, noisy) in offers.iter().zip(noisy) {
                    let error = (round * 7 + place * 13 + usize::from(offer.layer.temporal)) as u64 % 7;
                    noisy.bps = offer.bps * (97 + error) / 100;
                }
            }
            session.round(mean.saturating_add_signed(mean as i64 * noise / 1000));
            if round == 100 {
                session.switches();
            }
        }
        let switches = session.switches();
        prop_assert!(switches <= 2, "{switches} switches in a minute");
    }

    #[test]
    fn it_gives_what_it_may_and_no_more(videos in any_videos(), budgets in prop::collection::vec(0u64..10_000_000, 1..30)) {
        let mut session = Session { videos, ..Session::new(0) };
        for budget_bps in budgets {
            let allocations = session.round(budget_bps);
            for (allocation, (want, offers)) in allocations.iter().zip(&session.videos) {
                let is_due = want.is_visible && !offers.is_empty();
                prop_assert_eq!(allocation.target.is_some(), is_due, "no more black than asked for");
                prop_assert!(allocation.bps <= allocation.wanted_bps);
                if let Some(target) = allocation.target {
                    prop_assert!(offers.iter().any(|offer| offer.layer == target));
                    prop_assert!(want.max_temporal.is_none_or(|max| target.temporal <= max));
                }
            }
            let least: u64 = (session.allocator.members.iter()).map(|member| member.cost(&session.allocator.steps, 0)).sum();
            let spent = session.allocator.allocated_bps();
            prop_assert!(spent <= (budget_bps * (100 + OVERSHOOT_PERCENT) / 100).max(least), "{spent} of {budget_bps}, at least {least}");
        }
    }

    /// When nothing changes any more, all that fits is given in the end, and then nothing changes.
    #[test]
    fn it_settles(videos in any_videos(), before in prop::collection::vec(0u64..10_000_000, 0..10), budget_bps in 0u64..10_000_000) {
        let mut session = Session { videos, ..Session::new(0) };
        for before in before {
            session.rounds(1, before);
        }
        session.rounds(60, budget_bps);
        session.switches();
        let allocator = &session.allocator;
        let goal_bps = budget_bps * 100 / (100 + MARGIN_PERCENT);
        for member in &allocator.members {
            let next = member.cost(&allocator.steps, member.level + 1).saturating_sub(member.bps);
            let is_best = member.level == member.top();
            prop_assert!(is_best || allocator.allocated_bps() + next > goal_bps, "{:?}", member);
        }
        session.rounds(60, budget_bps);
        prop_assert_eq!(session.switches(), 0);
    }
}
