//! A room of twenty, of whom a few talk: who hears whom.

use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::room::api::{Listening, Notice};

const PEERS: usize = 20;
const HEARD: usize = 3;
const PACKET: Duration = Duration::from_millis(20);
/// Packets of the first 200 ms.
const FIRST: u32 = 10;
/// Who is in the room but does not talk.
const ROOM_NOISE: u8 = 100;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Twenty people with microphones; everybody has m-lines for all others.
fn room(seed: u64, workers: usize) -> (World, Vec<PeerNo>) {
    let config = WorldConfig { seed, workers, audio_loudest: HEARD, ..WorldConfig::default() };
    let mut world = World::new(clock::now(), config);
    world.oracle.is_continuous = true;
    let script = || Script { video: 0, receiving: (PEERS - 1, 0), level_dbov: ROOM_NOISE, ..Script::caller("room") };
    let peers: Vec<PeerNo> = (0..PEERS)
        .map(|at| {
            let request = JoinRequest { user_id: Some(format!("user {at}")), ..request("room", &LIVE) };
            let peer = enter(&mut world, request, script());
            world.run_for(ms(50));
            peer
        })
        .collect();
    world.run_for(seconds(3));
    (world, peers)
}

fn speak(world: &mut World, peer: PeerNo, level: u8) -> u32 {
    str_peer(world, peer, |peer| {
        peer.speak(level);
        peer.sent.get(&(MediaKind::Audio, 0)).copied().unwrap_or_default()
    })
}

/// Who is heard by a peer since a moment.
fn heard_since(world: &World, peer: PeerNo, since: Instant) -> BTreeSet<PeerNo> {
    let tracks = world.received(peer).tracks().filter(|(_, it)| it.count_since(since) > 0);
    tracks.map(|(source, _)| source.publisher).collect()
}

/// How many voices a peer hears in each tenth of a second, at most.
fn heard_at_once(world: &World, peer: PeerNo, from: Instant, until: Instant) -> usize {
    let mut most = 0;
    let mut at = from;
    while at < until {
        let tracks = world.received(peer).tracks();
        let tracks = tracks.filter(|(_, it)| it.numbers.values().any(|came| *came >= at && *came < at + ms(100)));
        most = most.max(tracks.count());
        at += ms(100);
    }
    most
}

fn audio_packets(world: &mut World, peers: &[PeerNo]) -> (usize, usize) {
    let sent = |world: &mut World, peer| str_peer(world, peer, |peer| peer.sent[&(MediaKind::Audio, 0)] as usize);
    let sent: usize = peers.iter().map(|peer| sent(world, *peer)).sum();
    let received = peers.iter().flat_map(|peer| world.received(*peer).tracks()).map(|(_, it)| it.numbers.len());
    (sent * (PEERS - 1), received.sum())
}

/// No number was missed, so nothing was asked for.
fn assert_nothing_missed(world: &mut World, peers: &[PeerNo]) {
    assert_eq!(world.reports().map(|report| report.nacks_received).sum::<u64>(), 0);
    assert_sound(world, peers);
}

/// Three of five talk at any time; as one ends, the next begins.
#[test]
fn the_first_syllables_of_every_turn_are_heard_by_all() {
    for (seed, workers) in cases() {
        let (mut world, peers) = room(seed, workers);
        let (start, talkers) = (world.now, &peers[..5]);
        let mut turns: Vec<(PeerNo, u32)> = Vec::new();
        for turn in 0..15 {
            let peer = talkers[turn % 5];
            // The last word of the one who is to end lies one packet before.
            if let Some((silent, _)) = turn.checked_sub(3).map(|turn| turns[turn]) {
                speak(&mut world, silent, ROOM_NOISE);
                world.run_for(PACKET);
            }
            let first = speak(&mut world, peer, 20 + 4 * (turn % 5) as u8);
            turns.push((peer, first));
            world.run_for(seconds(1));
        }
        for (peer, first) in &turns {
            for listener in peers.iter().filter(|listener| *listener != peer) {
                let heard = world.received(*listener).of(*peer, MediaKind::Audio).expect("a voice");
                let missing: Vec<u32> =
                    (*first..first + FIRST).filter(|number| !heard.numbers.contains_key(number)).collect();
                assert!(missing.is_empty(), "seed {seed} x{workers}: {listener:?} misses {missing:?} of {peer:?}");
            }
        }
        let most = peers.iter().map(|peer| heard_at_once(&world, *peer, start + seconds(3), world.now)).max();
        assert!(most.is_some_and(|most| most <= HEARD + 1), "{most:?}: the one who ends and those who talk");
        let silent = peers[5..].iter().any(|quiet| world.received(peers[0]).of(*quiet, MediaKind::Audio).is_some());
        assert!(!silent, "who never spoke was sent");
        let (all, received) = audio_packets(&mut world, &peers);
        println!("turns, seed {seed} x{workers}: {received} of {all} packets sent on");
        assert!(received * 6 < all, "{received} of {all}");
        assert_nothing_missed(&mut world, &peers);
    }
}

#[test]
fn of_five_who_talk_at_once_everybody_hears_the_loudest_three_others() {
    for (seed, workers) in cases() {
        let (mut world, peers) = room(seed, workers);
        // The quietest first, so that each has to be displaced.
        let levels = [46, 38, 30, 22, 14];
        for (peer, level) in peers.iter().zip(levels) {
            speak(&mut world, *peer, level);
            world.run_for(ms(300));
        }
        world.run_for(seconds(1));
        let since = world.now;
        world.run_for(seconds(4));
        let loudest = BTreeSet::from_iter(peers[2..5].iter().copied());
        for peer in &peers {
            let mut expected = loudest.clone();
            if expected.remove(peer) {
                expected.insert(peers[1]);
            }
            assert_eq!(heard_since(&world, *peer, since), expected, "seed {seed} x{workers}: {peer:?}");
            for publisher in &expected {
                let voice = world.received(*peer).of(*publisher, MediaKind::Audio).expect("a voice");
                assert!(voice.count_since(since) >= 190, "{}", voice.count_since(since));
            }
        }
        let told = world.hub().debug_tracks().to_string();
        assert!(told.contains("\"notAmongLoudest\":true") && told.contains("\"notAmongLoudest\":false"));
        let (all, received) = audio_packets(&mut world, &peers);
        println!("at once, seed {seed} x{workers}: {received} of {all} packets sent on");
        assert_nothing_missed(&mut world, &peers);
    }
}

#[test]
fn a_pinned_voice_passes_and_a_muted_one_does_not() {
    for (seed, workers) in cases() {
        let (mut world, peers) = room(seed, workers);
        for (peer, level) in peers.iter().zip([40, 30, 20]) {
            speak(&mut world, *peer, level);
        }
        let listening = Listening {
            pinned_user_ids: Some(vec!["user 9".to_owned()]),
            muted_user_ids: Some(vec!["user 0".to_owned()]),
        };
        world.run_for(seconds(1));
        world.listen(peers[15], listening);
        world.run_for(seconds(1));
        let since = world.now;
        world.run_for(seconds(2));
        assert_eq!(heard_since(&world, peers[15], since), BTreeSet::from([peers[1], peers[2], peers[9]]));
        assert_eq!(heard_since(&world, peers[16], since), BTreeSet::from([peers[0], peers[1], peers[2]]));
        let pinned = world.received(peers[15]).of(peers[9], MediaKind::Audio).expect("pinned");
        assert!(pinned.count_since(since) >= 95 && pinned.repeats == 0 && pinned.completeness() == 1.0);
        world.listen(peers[15], Listening { pinned_user_ids: Some(Vec::new()), ..Listening::default() });
        world.run_for(ms(200));
        let since = world.now;
        world.run_for(seconds(1));
        assert_eq!(heard_since(&world, peers[15], since), BTreeSet::from([peers[1], peers[2]]));
        assert_nothing_missed(&mut world, &peers);
    }
}

#[test]
fn who_speaks_is_told_within_about_a_second() {
    for (seed, workers) in cases() {
        let (mut world, peers) = room(seed, workers);
        for (turn, peer) in [peers[4], peers[7], peers[4]].into_iter().enumerate() {
            let at = world.now;
            speak(&mut world, peer, 25);
            world.run_for(seconds(3));
            speak(&mut world, peer, ROOM_NOISE);
            let told = world.notices(peers[12]).iter().filter_map(|(told_at, notice)| match notice {
                Notice::Speaker(Some(info)) => Some((*told_at, info.user_id.clone())),
                _ => None,
            });
            let told: Vec<_> = told.collect();
            assert_eq!(told.len(), turn + 1, "seed {seed} x{workers}: {told:?}");
            let (told_at, who) = &told[turn];
            assert_eq!(*who, format!("user {}", peer.0));
            assert!(*told_at - at < ms(1_200), "seed {seed} x{workers}: {:?}", *told_at - at);
        }
    }
}
