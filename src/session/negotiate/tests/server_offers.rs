//! We are the offerer.

use super::browsers::{Line, answer, chromium, line};
use super::*;

/// What Gryt's client answers: it sends its microphone and takes all we send.
fn gryt_answer(offer: &str) -> String {
    let wants = directions(offer);
    answer(offer, "active", |mid| {
        let index: usize = mid.parse().unwrap();
        Some(match wants[index] {
            "recvonly" if index == 0 => "sendonly",
            "sendonly" => "recvonly",
            _ => "inactive",
        })
    })
}

fn exchange(peer: &mut Negotiation) -> String {
    let offer = peer.create_offer().unwrap();
    assert!(peer.has_pending_offer() && peer.create_offer().is_none());
    peer.accept_answer(&gryt_answer(&offer)).unwrap();
    offer
}

#[test]
fn gryts_first_offer_has_four_slots_with_its_numbers() {
    let mut peer = negotiation(&GRYT);
    assert!(peer.needs_offer());
    let offer = peer.create_offer().unwrap();
    assert_eq!(directions(&offer), ["recvonly"; 4]);
    let starts: Vec<&str> = offer.lines().filter(|l| l.starts_with("m=")).collect();
    assert_eq!(starts[0], "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8");
    assert!(starts[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 125 123 127 108 98 100 96 35 121 "));
    for present in [
        "a=setup:actpass",
        "a=ice-lite",
        "a=group:BUNDLE 0 1 2 3",
        "a=extmap-allow-mixed",
        "a=rtcp-fb:96 goog-remb",
        "a=rtcp-fb:111 transport-cc",
        "dependency-descriptor",
        "a=fmtp:63 111/111",
        "a=fmtp:111 minptime=10;useinbandfec=1",
    ] {
        assert!(offer.contains(present), "{present}");
    }
    assert!(!offer.contains("a=ssrc") && !offer.contains("a=msid:"));
    peer.accept_answer(&gryt_answer(&offer)).unwrap();
    assert!(!peer.needs_offer());
    let publications = peer.publications();
    assert_eq!(publications.len(), 1);
    assert_eq!((publications[0].slot, publications[0].track_id.as_str()), (Some(0), "track-0"));
    assert_eq!(peer.remote().unwrap().dtls_role, DtlsRole::Server);
}

#[test]
fn tracks_come_stay_vanish_and_their_m_lines_are_used_again() {
    let mut peer = negotiation(&GRYT);
    peer.set_wanted(&[audio(1), video(2)]);
    let first = exchange(&mut peer);
    assert_eq!(directions(&first)[4..], ["sendonly", "sendonly"]);
    assert!(first.contains("a=msid:s1 t1\r\n") && first.contains("a=msid:s2 t2\r\n"));
    assert_eq!(bound(&peer), pairs(&[("4", 1), ("5", 2)]));
    let ssrcs = media(&first, 5).ssrcs;
    assert!(ssrcs[0].1.is_some());

    assert!(peer.set_wanted(&[audio(1)]), "the picture ends at once");
    assert!(peer.needs_offer());
    let second = exchange(&mut peer);
    assert_eq!(directions(&second)[4..], ["sendonly", "inactive"]);
    assert!(!peer.needs_offer());

    assert!(!peer.set_wanted(&[audio(1), video(3), video(4)]));
    assert!(peer.needs_offer() && peer.unplaced() == 2);
    let third = exchange(&mut peer);
    assert_eq!(directions(&third)[4..], ["sendonly", "sendonly", "sendonly"]);
    assert!(third.contains("a=msid:s3 t3\r\n"));
    assert_eq!(media(&third, 5).ssrcs, ssrcs, "an m-line keeps its ssrcs");
    assert_eq!(bound(&peer), pairs(&[("4", 1), ("5", 3), ("6", 4)]));
    assert!(!peer.needs_offer());
}

#[test]
fn nothing_is_sent_under_a_binding_the_peer_has_not_heard_of() {
    let mut peer = negotiation(&GRYT);
    exchange(&mut peer);
    peer.set_wanted(&[video(2)]);
    let offer = peer.create_offer().unwrap();
    assert!(bound(&peer).is_empty() && !peer.needs_offer());
    peer.set_wanted(&[video(3)]);
    assert!(peer.needs_offer(), "the offer that is out does not tell this");
    peer.accept_answer(&gryt_answer(&offer)).unwrap();
    assert!(bound(&peer).is_empty(), "its track has gone while it was out");
    exchange(&mut peer);
    assert_eq!(bound(&peer), pairs(&[("4", 3)]));
}

#[test]
fn a_passive_answer_makes_us_the_dtls_client_for_good() {
    let mut peer = negotiation(&GRYT);
    let offer = peer.create_offer().unwrap();
    let passive = |offer: &str| gryt_answer(offer).replace("setup:active", "setup:passive");
    peer.accept_answer(&passive(&offer)).unwrap();
    assert_eq!(peer.remote().unwrap().dtls_role, DtlsRole::Client);
    let offer = peer.create_offer().unwrap();
    assert!(offer.contains("a=setup:actpass"));
    assert!(peer.accept_answer(&gryt_answer(&offer)).is_err(), "RFC 8842 §5.5: the roles stay");
    peer.accept_answer(&passive(&offer)).unwrap();
    let offer = peer.create_offer().unwrap();
    assert!(peer.accept_answer(&gryt_answer(&offer).replace("setup:active", "setup:actpass")).is_err());
}

#[test]
fn an_answer_must_fit_the_offer() {
    let mut peer = negotiation(&GRYT);
    assert_eq!(peer.accept_answer("v=0"), Err(NegotiateError::UnexpectedAnswer));
    let offer = peer.create_offer().unwrap();
    let good = gryt_answer(&offer);
    assert!(matches!(peer.accept_answer("hello"), Err(NegotiateError::Syntax(_))));
    let short = &good[..good.rfind("m=").unwrap()];
    for bad in [
        short.to_owned(),
        good.replace("a=mid:2", "a=mid:9"),
        good.replace("BUNDLE 0 1 2 3", "BUNDLE 0 1 2"),
        good.replace("a=rtcp-mux\r\n", ""),
        good.replace("a=fingerprint", "a=x"),
        good.replace("a=ice-pwd", "a=x"),
        good.replacen("m=audio", "m=video", 1),
    ] {
        assert!(matches!(peer.accept_answer(&bad), Err(NegotiateError::Unusable(_))), "{bad}");
        assert!(peer.has_pending_offer() && peer.remote().is_none());
    }
    peer.accept_answer(&good).unwrap();
    assert_eq!(peer.accept_answer(&good), Err(NegotiateError::UnexpectedAnswer));
}

#[test]
fn a_refused_track_is_not_offered_for_ever() {
    for policy in [GRYT, LIVE_BOTH] {
        let mut peer = negotiation(&policy);
        if !policy.server_offers_first {
            peer.accept_offer(&chromium(&[line("audio", "0", "sendonly")], "brow")).unwrap();
        }
        peer.set_wanted(&[video(1)]);
        let offer = peer.create_offer().unwrap();
        let last = (read(&offer).media.len() - 1).to_string();
        let refuse = |mid: &str| (mid != last).then_some("inactive");
        peer.accept_answer(&answer(&offer, "active", refuse)).unwrap();
        assert!(!peer.needs_offer() && bound(&peer).is_empty());
        peer.set_wanted(&[video(1), video(2)]);
        assert!(peer.needs_offer(), "another track is another chance");
        let offer = peer.create_offer().unwrap();
        assert_eq!(
            read(&offer).media.len().to_string(),
            (last.parse::<usize>().unwrap() + 1).to_string(),
            "the rejected m-line is recycled"
        );
        assert_ne!(media(&offer, last.parse().unwrap()).mid.unwrap().as_str(), last);
    }
}

#[test]
fn a_refusal_is_forgotten_when_the_client_offers_or_the_track_comes_anew() {
    let mut peer = negotiation(&NAMED);
    let lines = [line("audio", "0", "sendonly")];
    peer.accept_offer(&chromium(&lines, "brow")).unwrap();
    let refuse = |peer: &mut Negotiation| {
        let offer = peer.create_offer().unwrap();
        peer.accept_answer(&answer(&offer, "active", |mid| (mid == "0").then_some("sendonly"))).unwrap();
    };
    peer.set_wanted(&[video(1)]);
    refuse(&mut peer);
    assert!(!peer.needs_offer());
    let mut grown = lines.to_vec();
    grown.push(Line { stopped: true, ..line("video", "1", "inactive") });
    peer.accept_offer(&chromium(&grown, "brow")).unwrap();
    assert!(peer.needs_offer());
    refuse(&mut peer);
    assert!(!peer.needs_offer());
    let offer = peer.create_offer().unwrap();
    peer.set_wanted(&[]);
    peer.set_wanted(&[video(1)]);
    peer.accept_answer(&answer(&offer, "active", |mid| (mid == "0").then_some("sendonly"))).unwrap();
    assert!(peer.needs_offer(), "it went and came while the offer was out");
}

#[test]
fn a_clients_m_line_is_free_again_after_its_track_vanished() {
    let mut peer = negotiation(&NAMED);
    peer.set_wanted(&[video(1)]);
    peer.accept_offer(&chromium(&[line("video", "0", "sendrecv")], "brow")).unwrap();
    peer.set_wanted(&[]);
    let offer = peer.create_offer().unwrap();
    assert_eq!(directions(&offer), ["recvonly"]);
    peer.accept_answer(&answer(&offer, "active", |_| Some("sendonly"))).unwrap();
    peer.set_wanted(&[video(2)]);
    let offer = peer.create_offer().unwrap();
    assert_eq!(directions(&offer), ["sendrecv"], "no new m-line is made");
    peer.accept_answer(&answer(&offer, "active", |_| Some("sendrecv"))).unwrap();
    assert_eq!(bound(&peer), pairs(&[("0", 2)]));
}

#[test]
fn in_glare_the_clients_offer_wins_and_ours_comes_again() {
    let mut peer = negotiation(&NAMED);
    let lines = [line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")];
    assert!(!peer.needs_offer() && peer.create_offer().is_none(), "the client is first");
    peer.accept_offer(&chromium(&lines, "brow")).unwrap();
    peer.set_wanted(&[video(1), video(2), video(3)]);
    let ours = peer.create_offer().unwrap();
    let lost = peer
        .accept_offer(&chromium(&[lines[0].clone(), lines[1].clone(), line("video", "2", "sendonly")], "brow"))
        .unwrap();
    assert!(!peer.has_pending_offer() && peer.needs_offer());
    assert_eq!(directions(&lost), ["recvonly", "sendrecv", "recvonly"]);
    assert_eq!(peer.accept_answer(&gryt_answer(&ours)), Err(NegotiateError::UnexpectedAnswer));
    let offer = peer.create_offer().unwrap();
    assert_eq!(directions(&offer), ["recvonly", "sendrecv", "recvonly", "sendonly", "sendonly"]);
    assert_eq!(media(&offer, 3).mid.unwrap().as_str(), "3");
    let take = |mid: &str| {
        Some(match mid {
            "0" | "2" => "sendonly",
            "1" => "sendrecv",
            _ => "recvonly",
        })
    };
    peer.accept_answer(&answer(&offer, "active", take)).unwrap();
    assert_eq!(bound(&peer), pairs(&[("1", 1), ("3", 2), ("4", 3)]));
    assert_eq!(peer.publications().len(), 3);
}

#[test]
fn our_offer_keeps_the_numbers_the_client_gave() {
    let mut peer = negotiation(&NAMED);
    peer.accept_offer(&browsers::firefox()).unwrap();
    peer.set_wanted(&[audio(1), video(2), video(3), audio(4)]);
    let offer = peer.create_offer().unwrap();
    for present in [
        "a=rtpmap:109 opus/48000/2",
        "a=rtpmap:120 VP8/90000",
        "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=fmtp:63 109/109",
    ] {
        assert!(offer.contains(present), "{present}");
    }
    let mut meanings = std::collections::HashMap::new();
    for line in offer.lines().filter_map(|l| l.strip_prefix("a=rtpmap:").or(l.strip_prefix("a=fmtp:"))) {
        let (pt, meaning) = line.split_once(' ').unwrap();
        let what = if meaning.contains('/') && !meaning.starts_with("109") { "rtpmap" } else { "fmtp" };
        let known = meanings.entry((pt, what)).or_insert(meaning);
        assert_eq!(*known, meaning, "payload type {pt} has one meaning");
    }
    let mut ids = std::collections::HashMap::new();
    for (id, uri) in offer.lines().filter_map(|l| l.strip_prefix("a=extmap:")?.split_once(' ')) {
        assert_eq!(*ids.entry(id).or_insert(uri), uri, "extension id {id} has one meaning");
    }
}

#[test]
fn our_offer_does_not_switch_the_encoder_of_a_client_that_offered() {
    let mut peer = negotiation(&NAMED);
    let answered = peer.accept_offer(&browsers::firefox()).unwrap();
    let first = |sdp: &str, index: usize| media(sdp, index).codecs[0].format;
    peer.set_wanted(&[audio(1), video(2)]);
    let offer = peer.create_offer().unwrap();
    for index in 0..2 {
        assert_eq!(first(&offer, index), first(&answered, index), "m-line {index}");
    }
}

#[test]
fn our_offer_leaves_alone_numbers_of_formats_we_do_not_know() {
    let mut peer = negotiation(&NAMED);
    peer.accept_offer(&chromium(&[line("video", "0", "sendonly")], "brow")).unwrap();
    peer.set_wanted(&[video(1)]);
    let offer = peer.create_offer().unwrap();
    assert!(!offer.contains("a=rtpmap:118 "), "118 is H.265 to this peer");
    assert!(offer.contains("profile-level-id=640032"), "High has another number for its retransmissions");
}

#[test]
fn live_bindings_survive_an_offer_that_adds_m_lines() {
    let mut peer = negotiation(&LIVE_BOTH);
    peer.accept_offer(&chromium(&[line("video", "0", "sendrecv"), line("video", "1", "sendrecv")], "brow")).unwrap();
    peer.set_wanted(&[video(1), video(2), video(3)]);
    assert_eq!(bound(&peer), pairs(&[("0", 1), ("1", 2)]));
    assert!(peer.needs_offer());
    let offer = peer.create_offer().unwrap();
    assert!(!peer.needs_offer(), "the offer that is out makes room");
    peer.set_wanted(&[video(3), video(1)]);
    assert!(peer.set_wanted(&[video(2), video(3), video(1)]), "live bindings change meanwhile");
    assert_eq!(bound(&peer), pairs(&[("0", 2), ("1", 3)]));
    let take = |mid: &str| Some(if mid == "2" { "recvonly" } else { "sendrecv" });
    peer.accept_answer(&answer(&offer, "active", take)).unwrap();
    assert_eq!(bound(&peer), pairs(&[("0", 2), ("1", 3), ("2", 1)]));
    assert!(!peer.needs_offer());
}

#[test]
fn an_ice_restart_waits_for_our_next_offer_and_survives_glare() {
    let mut peer = negotiation(&GRYT);
    exchange(&mut peer);
    peer.ice_restart("anew".into(), "anew-anew-anew-anew-anew".into());
    assert!(peer.needs_offer());
    assert!(peer.create_offer().unwrap().contains("a=ice-ufrag:anew\r\n"));
    assert!(!peer.needs_offer());
    peer.drop_pending_offer();
    assert!(peer.needs_offer());
    let offer = peer.create_offer().unwrap();
    assert_eq!(peer.local_ice().0, "ours");
    peer.accept_answer(&gryt_answer(&offer)).unwrap();
    assert_eq!(peer.local_ice().0, "anew");
}

#[test]
fn a_crowd_gets_as_many_m_lines_as_the_limit() {
    let mut peer = negotiation(&GRYT);
    let crowd: Vec<WantedTrack> = (0..300).map(video).collect();
    peer.set_wanted(&crowd);
    let offer = exchange(&mut peer);
    assert_eq!(read(&offer).media.len(), OFFERED_MLINES_MAX);
    assert_eq!(peer.unplaced(), 300 - (OFFERED_MLINES_MAX - 4));
    assert!(!peer.needs_offer(), "no m-line is left to offer");
    assert!(offer.len() < crate::wire::sdp::SDP_BYTES_MAX);
}
