//! Datagrams that nobody should send, while a call goes on.

use std::net::SocketAddr;

use rand::RngExt;
use rand::rngs::StdRng;

use super::*;
use crate::wire::stun::{BindingRequest, IceRole, IntegrityKey};

const STRANGER: &str = "192.0.2.66:6666";

fn in_call(seed: u64, workers: usize) -> (World, Vec<PeerNo>) {
    let mut world = world(seed, workers);
    let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
    expect_all_see_all(&mut world, seconds(5), &peers);
    world.run_for(seconds(1));
    (world, peers)
}

/// Everything sent since `since` has come to everybody.
fn assert_unharmed(world: &mut World, peers: &[PeerNo], per_second: usize, since_s: usize) {
    world.run_for(seconds(1));
    for (me, other) in pairs(peers) {
        let track = world.received(me).of(other, MediaKind::Audio).expect("audio");
        assert!((track.completeness() - 1.0).abs() < 1e-9, "{me:?} misses audio of {other:?}: {}", story(world, peers));
        let track = world.received(me).of(other, MediaKind::Video).expect("video");
        assert!((track.completeness() - 1.0).abs() < 1e-9, "{me:?} misses video of {other:?}: {}", story(world, peers));
        assert!(track.numbers.len() >= per_second * since_s);
    }
    assert_sound(world, peers);
}

fn random_bytes(rng: &mut StdRng) -> Vec<u8> {
    let len = if rng.random_bool(0.02) { rng.random_range(0..1500) } else { rng.random_range(0..120) };
    let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
    // Half of it looks like something: STUN, DTLS, RTP, RTCP.
    if rng.random_bool(0.5) && bytes.len() > 8 {
        match rng.random_range(0..4) {
            0 => bytes[..8].copy_from_slice(&[0, 1, 0, (len as u8).wrapping_sub(20), 0x21, 0x12, 0xa4, 0x42]),
            1 => bytes[..3].copy_from_slice(&[rng.random_range(20..64), 0xfe, 0xfd]),
            2 => bytes[..2].copy_from_slice(&[0x80, 96]),
            _ => bytes[..2].copy_from_slice(&[0x81, rng.random_range(200..208)]),
        }
    }
    bytes
}

/// A real datagram with something wrong.
fn mutated(rng: &mut StdRng, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..rng.random_range(1..4) {
        match rng.random_range(0..4) {
            0 if !bytes.is_empty() => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            1 => bytes.truncate(rng.random_range(0..=bytes.len())),
            2 => bytes.extend((0..rng.random_range(1..20)).map(|_| rng.random::<u8>())),
            _ if bytes.len() > 12 => {
                let (from, to) = (rng.random_range(0..bytes.len() - 4), rng.random_range(0..bytes.len() - 4));
                bytes.copy_within(from..from + 4, to);
            }
            _ => {}
        }
    }
    if bytes == original {
        bytes.push(0);
    }
    bytes
}

#[test]
fn a_hundred_thousand_bad_datagrams_do_not_harm_a_call() {
    let (mut world, peers) = in_call(7, 2);
    let mut counted = Vec::new();
    for round in 0..1_000u32 {
        for _ in 0..100 {
            let is_own = world.rng.random_bool(0.5);
            let peer = peers[world.rng.random_range(0..peers.len())];
            let unknown = SocketAddr::from(([192, 0, 2, world.rng.random()], world.rng.random_range(1024..65_535)));
            let (bytes, source) = if world.rng.random_bool(0.5) {
                (random_bytes(&mut world.rng), None)
            } else {
                let at = world.rng.random_range(0..world.tapped.len());
                let (source, original) = world.tapped[at].clone();
                (mutated(&mut world.rng, &original), Some(source))
            };
            let from = if is_own { source.unwrap_or(world.nat.mapped(peer)) } else { unknown };
            world.inject(from, bytes);
        }
        world.run_for(Duration::from_millis(10));
        if round % 100 == 99 {
            counted.push(world.reports().flat_map(|report| &report.discards).map(|(_, count)| count).sum::<u64>());
        }
    }
    assert_unharmed(&mut world, &peers, 35, 10);
    let total: u64 = world.reports().flat_map(|report| &report.discards).map(|(_, count)| count).sum();
    assert!(total >= 95_000, "{total} discards of 100000: {}", story(&mut world, &peers));
    for name in ["not_webrtc", "unknown_source", "stun_malformed", "srtp_forged"] {
        assert!(world.discards(name) > 1_000, "{name}: {}", world.discards(name));
    }
    assert!(counted.is_sorted());
}

#[test]
fn a_wrong_password_and_an_unknown_ufrag_open_nothing() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers);
        let sdp = str_peer(&mut world, peers[0], |peer| peer.last_sdp.0.clone() + &peer.last_sdp.1);
        let ours = crate::sim::peer_scripted::server_of(&sdp).or_else(|| {
            let answer = str_peer(&mut world, peers[0], |peer| peer.last_sdp.1.clone());
            crate::sim::peer_scripted::server_of(&answer)
        });
        let (_, ufrag, _) = ours.expect("credentials");
        let stranger: SocketAddr = STRANGER.parse().expect("an address");
        for name in [ufrag.as_str(), "AAAAAAAAAAAA", "x"] {
            for _ in 0..10 {
                let (username, key) = (format!("{name}:them"), IntegrityKey::new(b"not the password at all!"));
                let request = BindingRequest {
                    transaction_id: world.rng.random(),
                    username: Some(username.as_bytes()),
                    priority: Some(1),
                    role: Some(IceRole::Controlling(1)),
                    use_candidate: true,
                    key: Some(&key),
                    has_fingerprint: true,
                };
                let mut out = vec![0; 300];
                let len = request.write_to(&mut out).expect("room");
                world.inject(stranger, out[..len].to_vec());
                world.run_for(Duration::from_millis(1));
            }
        }
        world.run_for(seconds(2));
        let refused = world.discards("stun_bad_integrity") + world.discards("stun_unknown_ufrag");
        assert_eq!(refused, 30, "seed {seed} x{workers} {}", story(&mut world, &peers));
        assert_unharmed(&mut world, &peers, 1, 1);
    }
}

#[test]
fn dtls_and_rtp_of_strangers_are_ignored() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "room")).collect();
        let stranger: SocketAddr = STRANGER.parse().expect("an address");
        let mut injected = 0;
        for _ in 0..40 {
            world.run_for(Duration::from_millis(25));
            // RFC 7983: DTLS is 20 to 63, RTP and RTCP 128 to 191.
            let copied: Vec<Vec<u8>> = world
                .tapped
                .iter()
                .filter(|(_, bytes)| bytes.first().is_some_and(|first| *first >= 20))
                .map(|(_, bytes)| bytes.clone())
                .collect();
            injected += copied.len() as u64;
            copied.into_iter().for_each(|bytes| world.inject(stranger, bytes));
        }
        expect_all_see_all(&mut world, seconds(5), &peers);
        world.run_for(seconds(2));
        assert_eq!(world.discards("unknown_source"), injected, "seed {seed} x{workers}");
        assert!(injected > 1_000);
        assert_unharmed(&mut world, &peers, 1, 1);
    }
}

#[test]
fn replayed_and_forged_srtp_is_counted_and_goes_nowhere() {
    for (seed, workers) in cases() {
        let (mut world, peers) = in_call(seed, workers);
        let media: Vec<(SocketAddr, Vec<u8>)> =
            world.tapped.iter().filter(|(_, bytes)| bytes.first().is_some_and(|it| *it >= 128)).cloned().collect();
        world.run_for(seconds(1));
        let forwarded = |world: &World| world.reports().map(|report| report.packets_forwarded).sum::<u64>();
        for (source, bytes) in &media {
            world.inject(*source, bytes.clone());
            let mut forged = bytes.clone();
            // Another number than the original's, or it would count as a replay: in RTP it is in the header, in SRTCP
            // in the last word.
            let at = if (192..224).contains(&forged[1]) { forged.len() - 2 } else { 2 };
            forged[at] ^= 0x10;
            world.inject(*source, forged);
            world.run_for(Duration::from_millis(1));
        }
        world.run_for(seconds(2));
        let (replayed, forged) = (world.discards("srtp_replayed"), world.discards("srtp_forged"));
        assert_eq!(replayed, media.len() as u64, "seed {seed} x{workers}: forged {forged}");
        assert_eq!(forged, media.len() as u64, "seed {seed} x{workers}");
        assert!(forwarded(&world) > 0);
        for (me, other) in pairs(&peers) {
            assert!(BOTH.iter().all(|kind| world.received(me).of(other, *kind).is_some_and(|it| it.repeats == 0)));
        }
        assert_unharmed(&mut world, &peers, 1, 1);
    }
}

#[test]
fn a_handshake_survives_bad_datagrams_from_its_own_address() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "room")).collect();
        for _ in 0..300 {
            world.run_for(Duration::from_millis(1));
            if !world.tapped.is_empty() {
                let at = world.rng.random_range(0..world.tapped.len());
                let (source, original) = world.tapped[at].clone();
                // Not the handshake itself: DTLS authenticates it only in its end (RFC 6347 §4.2.6), so whoever can
                // write into it can stop it.
                let is_handshake = original.first().is_some_and(|first| (20..64).contains(first));
                if !is_handshake {
                    let bytes = mutated(&mut world.rng, &original);
                    world.inject(source, bytes);
                }
                let bytes = random_bytes(&mut world.rng);
                world.inject(source, bytes);
            }
        }
        expect_all_see_all(&mut world, seconds(10), &peers);
        assert_unharmed(&mut world, &peers, 1, 1);
    }
}
