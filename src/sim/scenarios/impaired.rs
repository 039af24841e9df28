//! Networks made bad by an administrator: the shim does to a peer what it was told, and nobody else notices.

use super::*;
use crate::room::impair::{BadLink, BadNetwork};

/// Three in a call: who speaks, who is behind the bad network, who is not.
fn call(seed: u64, workers: usize) -> (World, [PeerNo; 3]) {
    let mut world = world(seed, workers);
    let peers = [(); 3].map(|()| join(&mut world, "room"));
    expect_all_see_all(&mut world, seconds(5), &peers);
    (world, peers)
}

fn impair(world: &mut World, peer: PeerNo, up: Option<BadLink>, down: Option<BadLink>) {
    world.impair("room", peer, BadNetwork { up, down }).expect("a peer in the room");
}

/// Packets of the publisher's sound that were sent and that came, since `since` as the peer saw it.
fn heard(world: &World, me: PeerNo, publisher: PeerNo, since: std::time::Instant) -> (f64, f64) {
    let numbers = &world.received(me).of(publisher, MediaKind::Audio).expect("sound").numbers;
    let heard: Vec<_> = numbers.iter().filter(|(_, at)| **at >= since).map(|(number, _)| *number).collect();
    let (first, last) = (heard.first().expect("some"), heard.last().expect("some"));
    (f64::from(last - first + 1), heard.len() as f64)
}

#[test]
fn the_share_that_is_lost_is_what_was_asked_for_and_only_there() {
    for (seed, workers) in cases() {
        let (mut world, [speaker, bad, good]) = call(seed, workers);
        for burst in [None, Some(5.0)] {
            impair(&mut world, bad, None, Some(BadLink { loss: 0.2, burst, ..BadLink::default() }));
            let since = world.now + seconds(1);
            world.run_for(seconds(25));
            let (sent, came) = heard(&world, bad, speaker, since);
            assert!((0.12..0.28).contains(&(1.0 - came / sent)), "seed {seed} x{workers} {burst:?}: {came} of {sent}");
            for (me, publisher) in [(good, speaker), (good, bad), (speaker, bad)] {
                let (sent, came) = heard(&world, me, publisher, since);
                assert_eq!(sent, came, "seed {seed} x{workers}: {me:?} misses sound of {publisher:?}");
            }
        }
        impair(&mut world, bad, Some(BadLink { loss: 0.3, ..BadLink::default() }), None);
        let since = world.now + seconds(1);
        world.run_for(seconds(20));
        let (sent, came) = heard(&world, good, bad, since);
        assert!((0.2..0.4).contains(&(1.0 - came / sent)), "seed {seed} x{workers}: {came} of {sent} came up");
        assert_eq!(heard(&world, bad, speaker, since).0, heard(&world, bad, speaker, since).1, "down is healed");
        assert!(world.discards("impaired") > 100);
        assert_sound(&mut world, &[speaker, bad, good]);
    }
}

#[test]
fn delay_comes_on_top_and_keeps_the_order() {
    for (seed, workers) in cases() {
        let (mut world, [speaker, bad, good]) = call(seed, workers);
        impair(&mut world, bad, None, Some(BadLink { delay_ms: 150, jitter_ms: 30, ..BadLink::default() }));
        let since = world.now + seconds(1);
        world.run_for(seconds(10));
        let of = |me| &world.received(me).of(speaker, MediaKind::Audio).expect("sound").numbers;
        let late = of(bad).iter().filter(|(_, at)| **at >= since);
        let delays: Vec<_> = late.map(|(number, at)| at.saturating_duration_since(of(good)[number])).collect();
        let range = Duration::from_millis(149)..Duration::from_millis(185);
        assert!(delays.len() > 400 && delays.iter().all(|delay| range.contains(delay)), "seed {seed}: {delays:?}");
        let in_order = of(bad).values().is_sorted();
        assert!(in_order, "seed {seed} x{workers}");
        // Checks and answers pass too: the path holds, and the way back is as it was.
        impair(&mut world, bad, Some(BadLink { delay_ms: 400, ..BadLink::default() }), None);
        world.run_for(seconds(10));
        assert_eq!(world.closed(bad), None);
        assert_sound(&mut world, &[speaker, bad, good]);
    }
}

#[test]
fn a_bottleneck_lets_through_what_it_was_told() {
    for (seed, workers) in cases() {
        let (mut world, [speaker, bad, good]) = call(seed, workers);
        let narrow = BadLink { rate_kbps: Some(60), queue_ms: Some(300), ..BadLink::default() };
        impair(&mut world, bad, None, Some(narrow));
        world.run_for(seconds(1));
        let before = world.links(bad).1.bytes;
        world.run_for(seconds(10));
        let kbps = (world.links(bad).1.bytes - before) as f64 * 8.0 / 10_000.0;
        assert!((50.0..61.0).contains(&kbps), "seed {seed} x{workers}: {kbps} kbit/s");
        impair(&mut world, bad, None, None);
        let since = world.now + seconds(3);
        world.run_for(seconds(6));
        let (sent, came) = heard(&world, bad, speaker, since);
        assert_eq!(sent, came, "lifted, nothing is lost");
        assert_sound(&mut world, &[speaker, bad, good]);
    }
}

#[test]
fn a_peer_may_join_through_a_bad_network() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers = [join(&mut world, "room"), join(&mut world, "room")];
        let bad = BadLink { loss: 0.1, delay_ms: 100, jitter_ms: 40, reorder: true, ..BadLink::default() };
        // Before its first check: it is known by its ufrag only.
        impair(&mut world, peers[1], Some(bad), Some(bad));
        expect_all_see_all(&mut world, seconds(20), &peers);
        assert!(world.discards("impaired") > 0);
        world.leave(peers[1]);
        world.run_for(seconds(3));
        assert_sound(&mut world, &[peers[0]]);
    }
}
