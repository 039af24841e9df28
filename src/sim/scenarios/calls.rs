//! Calls as they should be: people come, see and hear each other, and go.

use super::*;
use crate::room::api::{CloseReason, Notice};

#[test]
fn three_peers_see_and_hear_each_other() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        world.oracle.is_continuous = true;
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        let settled = world.now;
        world.run_for(seconds(10));
        for (me, other) in pairs(&peers) {
            for (kind, per_second) in [(MediaKind::Audio, 50), (MediaKind::Video, 40)] {
                let track = world.received(me).of(other, kind).expect("media");
                assert!((track.completeness() - 1.0).abs() < 1e-9, "seed {seed} x{workers}: {}", track.completeness());
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

#[test]
fn a_late_joiner_has_a_picture_within_two_seconds() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        world.oracle.is_continuous = true;
        let early = [join(&mut world, "room"), join(&mut world, "room")];
        expect_all_see_all(&mut world, seconds(5), &early);
        world.run_for(seconds(20));
        let joined_at = world.now;
        let late = join(&mut world, "room");
        let all = [early[0], early[1], late];
        expect_all_see_all(&mut world, seconds(5), &all);
        for other in early {
            let track = world.received(late).of(other, MediaKind::Video).expect("video");
            let (first, _) = track.span.expect("packets");
            let took = first.saturating_duration_since(joined_at);
            assert!(took < seconds(2), "seed {seed} x{workers}: the picture took {took:?}");
            assert!(track.first.is_some_and(|tag| tag.is_key && tag.part == 0), "it began within a picture");
        }
        assert_sound(&mut world, &all);
    }
}

#[test]
fn who_leaves_is_gone_within_two_seconds() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        let left_at = world.now;
        world.leave(peers[1]);
        world.run_for(seconds(5));
        for me in [peers[0], peers[2]] {
            let told = world.notices(me).iter().find(|(_, notice)| matches!(notice, Notice::PeerLeft(_)));
            let (told_at, _) = told.expect("told");
            assert!(told_at.saturating_duration_since(left_at) < seconds(2));
            for kind in BOTH {
                let (_, last) = world.received(me).of(peers[1], kind).and_then(|track| track.span).expect("media");
                assert!(last.saturating_duration_since(left_at) < seconds(2), "media of who left");
            }
        }
        assert_eq!(world.received(peers[0]).of(peers[2], MediaKind::Video).map(|it| it.completeness()), Some(1.0));
        assert_sound(&mut world, &[peers[0], peers[2]]);
    }
}

#[test]
fn the_same_user_again_evicts_the_first() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let other = join(&mut world, "room");
        let again = || JoinRequest { user_id: Some("ada".to_owned()), ..request("room", &CLIENT_OFFERS) };
        let first = enter(&mut world, again(), Script::caller("room"));
        assert!(world.run_until(seconds(5), |world| all_see_all(world, &[other, first], &BOTH)));
        let second = enter(&mut world, again(), Script::caller("room"));
        assert!(world.run_until(seconds(5), |world| all_see_all(world, &[other, second], &BOTH)), "seed {seed}");
        assert_eq!(world.closed(first), Some(CloseReason::Evicted));
        world.run_for(seconds(2));
        let since = world.now - seconds(1);
        assert_eq!(world.received(other).of(first, MediaKind::Audio).map(|it| it.count_since(since)), Some(0));
        assert!(str_peer(&mut world, first, |peer| peer.is_closed), "close_notify came");
        assert_sound(&mut world, &[other, second]);
    }
}

#[test]
fn a_track_comes_and_goes_mid_call() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        world.oracle.is_continuous = true;
        let (ada, bob) = (join(&mut world, "room"), join(&mut world, "room"));
        assert!(world.run_until(seconds(5), |world| all_see_all(world, &[ada, bob], &BOTH)));
        let screen = SourceNo { publisher: ada, kind: MediaKind::Video, track: 1 };
        world.act(ada, |now, peer: &mut StrPeer| peer.add_track(now, MediaKind::Video));
        assert!(world.run_until(seconds(3), |world| world.received(bob).track(screen).is_some()), "seed {seed}");
        world.run_for(seconds(3));
        world.act(ada, |now, peer: &mut StrPeer| peer.remove_track(now, MediaKind::Video));
        let removed_at = world.now;
        world.run_for(seconds(3));
        let (_, last) = world.received(bob).track(screen).and_then(|track| track.span).expect("media");
        assert!(last.saturating_duration_since(removed_at) < seconds(1));
        // And again: a new track, on the same m-line or another.
        world.act(ada, |now, peer: &mut StrPeer| peer.add_track(now, MediaKind::Video));
        let screen = SourceNo { track: 2, ..screen };
        let again = |world: &mut World| world.received(bob).track(screen).is_some();
        let is_there = world.run_until(seconds(3), again);
        assert!(is_there, "seed {seed} x{workers} {}", story(&mut world, &[ada, bob]));
        world.run_for(seconds(2));
        for (me, other) in [(ada, bob), (bob, ada)] {
            for kind in BOTH {
                let track = world.received(me).of(other, kind).expect("media");
                assert!((track.completeness() - 1.0).abs() < 1e-9, "seed {seed} x{workers}: {}", track.completeness());
            }
        }
        assert_sound(&mut world, &[ada, bob]);
    }
}

#[test]
fn two_rooms_do_not_mix() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let red: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "red")).collect();
        let blue: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "blue")).collect();
        assert!(
            world.run_until(seconds(5), |world| all_see_all(world, &red, &BOTH) && all_see_all(world, &blue, &BOTH))
        );
        world.run_for(seconds(3));
        // Somebody goes, and the tables' places are taken by the other room.
        world.leave(red[0]);
        let late = join(&mut world, "blue");
        let blue = [blue[0], blue[1], late];
        expect_all_see_all(&mut world, seconds(5), &blue);
        world.run_for(seconds(3));
        for me in red.iter().chain(&blue) {
            assert_eq!(world.received(*me).rooms.len(), 1);
        }
        assert_sound(&mut world, &[red[1], blue[0], blue[1], late]);
    }
}

#[test]
fn gryts_slots_are_offered_and_answered() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        world.oracle.is_continuous = true;
        let script = || Script { offers: false, ..Script::caller("room") };
        let peers: Vec<PeerNo> = (0..3).map(|_| enter(&mut world, request("room", &SERVER_OFFERS), script())).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        // A client that offers joins the same room.
        let late = join(&mut world, "room");
        let all = [peers[0], peers[1], peers[2], late];
        expect_all_see_all(&mut world, seconds(5), &all);
        world.run_for(seconds(3));
        assert_sound(&mut world, &all);
    }
}

#[test]
fn we_are_dtls_client_when_the_answer_is_passive() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..2)
            .map(|_| {
                let make = |now, me, address| {
                    let mut peer = StrPeer::new(now, me, address, Script { offers: false, ..Script::caller("room") });
                    // str0m answers "active" to "actpass"; offered "active" it must be passive.
                    peer.munge_offer = Some(|sdp| sdp.replace("a=setup:actpass", "a=setup:active"));
                    peer
                };
                world.join(request("room", &SERVER_OFFERS), make).expect("a seat")
            })
            .collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        assert!(str_peer(&mut world, peers[0], |peer| peer.last_sdp.1.contains("a=setup:passive")));
        assert_sound(&mut world, &peers);
    }
}

#[test]
fn with_few_mlines_the_active_speaker_is_seen() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let policy = Policy { server_may_offer: false, ..LIVE };
        let quiet = || Script { level_dbov: 100, ..Script::caller("room") };
        let speakers: Vec<PeerNo> = (0..3).map(|_| enter(&mut world, request("room", &policy), quiet())).collect();
        let script = Script { offers_again: false, ..Script::listener("room") };
        let listener = enter(&mut world, request("room", &policy), script);
        world.run_for(seconds(3));
        for speaker in [speakers[2], speakers[0], speakers[1]] {
            str_peer(&mut world, speaker, |peer| peer.speak(10));
            let at = world.now;
            let is_seen = |world: &mut World| {
                let video = world.received(listener).of(speaker, MediaKind::Video);
                video.is_some_and(|track| track.count_since(at + seconds(1)) > 0)
            };
            assert!(world.run_until(seconds(4), is_seen), "seed {seed} x{workers}: {speaker:?} is not seen");
            world.run_for(seconds(2));
            let since = world.now - Duration::from_millis(500);
            let seen = |other: &&PeerNo| {
                world.received(listener).of(**other, MediaKind::Video).is_some_and(|it| it.count_since(since) > 0)
            };
            assert_eq!(speakers.iter().filter(seen).collect::<Vec<_>>(), [&speaker]);
            str_peer(&mut world, speaker, |peer| peer.speak(100));
        }
        assert_sound(&mut world, &[listener]);
    }
}

#[test]
fn who_closes_the_media_session_is_gone() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..2).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        let closed_at = world.now;
        world.act(peers[1], |now, peer: &mut StrPeer| peer.close(now));
        world.run_for(seconds(2));
        assert_eq!(world.closed(peers[1]), Some(CloseReason::MediaFailed), "seed {seed} x{workers}");
        let told = world.notices(peers[0]).iter().find(|(_, notice)| matches!(notice, Notice::PeerLeft(_)));
        assert!(told.is_some_and(|(at, _)| at.saturating_duration_since(closed_at) < seconds(2)));
        assert_eq!(world.oracle.faults, Vec::<String>::new());
    }
}

#[test]
fn when_the_server_stops_everybody_is_told_by_signalling_and_by_dtls() {
    for (seed, workers) in cases() {
        let mut world = world(seed, workers);
        let peers: Vec<PeerNo> = (0..3).map(|_| join(&mut world, "room")).collect();
        expect_all_see_all(&mut world, seconds(5), &peers);
        world.stop();
        world.run_for(seconds(1));
        for peer in &peers {
            assert_eq!(world.closed(*peer), Some(CloseReason::ServerStopping));
            assert!(str_peer(&mut world, *peer, |peer| peer.is_closed), "seed {seed} x{workers}: close_notify came");
        }
        assert!(world.is_stopped());
    }
}
