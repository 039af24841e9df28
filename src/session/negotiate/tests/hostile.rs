//! What is no offer at all, and what is nearly one.

use super::browsers::{answer, chromium, firefox, line};
use super::*;

fn refused(sdp: &str) -> NegotiateError {
    let mut peer = negotiation(&CLIENT_ONLY);
    let error = peer.accept_offer(sdp).unwrap_err();
    assert!(peer.remote().is_none() && peer.streams(|_| None).mlines.is_empty());
    error
}

#[test]
fn what_is_not_sdp_is_a_syntax_error() {
    for sdp in ["", "hello", "v=0", "v=1\r\n", "v=0\r\no=x\r\n", "\u{0}\u{0}", "{\"type\":\"offer\"}", "a=\r\n=\r\n"] {
        let error = refused(sdp);
        assert!(!error.to_string().is_empty() && error.to_string().len() < 300);
    }
}

#[test]
fn unusable_offers_say_why() {
    let good = chromium(&[line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")], "abcd");
    let head = &good[..good.find("m=").unwrap()];
    for (bad, reason) in [
        (head.to_owned(), "no m-lines"),
        (good.replace("a=group:BUNDLE 0 1\r\n", ""), "BUNDLE"),
        (good.replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (good.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), "fingerprint"),
        (good.replace("a=ice-ufrag:abcd\r\n", ""), "ice-ufrag"),
        (good.replace("a=ice-ufrag:abcd\r\n", "a=ice-ufrag:ab\r\n"), "ice-ufrag"),
        (good.replace("setup:actpass", "setup:holdconn"), "holdconn"),
        (good.replace("a=extmap-allow-mixed\r\n", "a=ice-lite\r\n"), "ICE-lite"),
        (good.replace("a=mid:1", "a=mid:0"), "same a=mid"),
        (good.replace("a=mid:1", "a=mid:0123456789abcdefg"), "16 bytes"),
        (good.replace("a=mid:1", "a=mid:a b"), "token"),
        (good.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "no audio or video"),
        (chromium(&[line("application", "0", "")], "abcd"), "no audio or video"),
        (format!("{head}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(257)), "256"),
        ("x".repeat((1 << 20) + 1), "1 MiB"),
    ] {
        let error = refused(&bad);
        assert!(
            matches!(error, NegotiateError::Unusable(_)) && error.to_string().contains(reason),
            "{reason}: {error}"
        );
    }
}

#[test]
fn a_later_offer_may_not_shrink_or_change_the_certificate() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let good = chromium(&[line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")], "abcd");
    peer.accept_offer(&good).unwrap();
    let before = peer.streams(|_| None);
    let short = chromium(&[line("audio", "0", "sendrecv")], "abcd");
    for bad in [short, good.replace("0C:1D", "1D:0C"), good.replace("setup:actpass", "setup:passive")] {
        assert!(matches!(peer.accept_offer(&bad), Err(NegotiateError::Unusable(_))));
        assert_eq!(peer.streams(|_| None), before);
    }
}

#[test]
fn a_peers_text_cannot_break_our_lines() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let offer = chromium(&[line("audio", "0", "sendrecv"), line("application", "1", "")], "abcd");
    let offer = offer
        .replace("stream-a track-0", "evil\ra=x tr\ra=ack")
        .replace("webrtc-datachannel", "x\ra=evil")
        .replace("minptime=10", "minptime=10\ra=evil");
    let answer = peer.accept_offer(&offer).unwrap();
    assert!(!answer.contains("evil"));
    assert!(!answer.replace("\r\n", "").contains('\r'));
    let publication = peer.publications().swap_remove(0);
    assert!(crate::wire::sdp::is_token(&publication.stream_id) && crate::wire::sdp::is_token(&publication.track_id));
    let mut other = negotiation(&NAMED);
    let evil = WantedTrack { stream_id: "a\r\na=evil".into(), track_id: " ".into(), ..video(1) };
    other.set_wanted(&[evil]);
    let answer = other.accept_offer(&chromium(&[line("video", "0", "recvonly")], "abcd")).unwrap();
    assert!(answer.contains("a=msid:aaevil track\r\n"));
}

/// Mutates text by the line: drops, doubles, swaps, cuts, and changes of single bytes.
fn mutate(text: &str, random: &mut SplitMix) -> String {
    let mut lines: Vec<Vec<u8>> = text.split("\r\n").map(|line| line.as_bytes().to_vec()).collect();
    for _ in 0..=random.next() % 4 {
        let at = (random.next() % lines.len() as u64) as usize;
        let other = (random.next() % lines.len() as u64) as usize;
        let byte = random.next();
        match random.next() % 7 {
            0 if lines.len() > 1 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => {
                let len = byte as usize % (lines[at].len() + 1);
                lines[at].truncate(len);
            }
            4 => lines.truncate(at + 1),
            5 => {
                let digits = ["0", "255", "65536", "4294967296", "-1", "99999999999999999999"];
                lines[at].extend_from_slice(digits[byte as usize % digits.len()].as_bytes());
            }
            _ => {
                let len = lines[at].len();
                if let Some(place) = lines[at].get_mut((byte >> 8) as usize % len.max(1)) {
                    *place = (byte % 128) as u8;
                }
            }
        }
    }
    lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn twenty_thousand_mutated_descriptions_do_no_harm() {
    let mut random = SplitMix(42);
    let lines = [line("audio", "0", "sendrecv"), line("application", "1", ""), line("video", "2", "sendrecv")];
    let offers = [chromium(&lines, "abcd"), firefox()];
    let mut accepted = 0;
    for round in 0..20_000u32 {
        let policy = [CLIENT_ONLY, NAMED, LIVE_BOTH, GRYT][round as usize % 4].clone();
        let mut peer = negotiation(&policy);
        peer.set_wanted(&[audio(1), video(2), video(3)]);
        if policy.server_offers_first {
            let offer = peer.create_offer().unwrap();
            let good = answer(&offer, "active", |_| Some("recvonly"));
            accepted += u32::from(peer.accept_answer(&mutate(&good, &mut random)).is_ok());
        } else {
            let offer = mutate(&offers[round as usize / 4 % 2], &mut random);
            if let Ok(answer) = peer.accept_offer(&offer) {
                accepted += 1;
                let read = Description::parse(&answer).expect("our own answer is SDP");
                assert_eq!(read.media.len(), peer.streams(|_| None).mlines.len());
            }
        }
        if let Some(offer) = peer.create_offer() {
            Description::parse(&offer).expect("our own offer is SDP");
        }
    }
    assert!(accepted > 2_000, "the mutations must reach past the parser: {accepted}");
}
