//! Simulcast: by rid as browsers offer it, by ssrc group as older clients do, and what only looks like it.

use str0m::Rtc;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind as Kind, Simulcast, SimulcastLayer};

use super::browsers::{answer, chromium, firefox, line};
use super::*;
use crate::base::frame::ENCODINGS_MAX;
use crate::runtime::clock::now;
use crate::session::streams::EncodingConfig;
use crate::wire::rtp_ext::Ext;

/// The lines Chromium writes for `addTransceiver(track, {sendEncodings: [{rid: 'q'}, {rid: 'h'}, {rid: 'f'}]})`.
const CHROMIUM: &str = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";

/// A Chromium offer of one video; `lines` in place of its simulcast.
fn offer(direction: &'static str, lines: &str) -> String {
    let mut video = line("video", "0", direction);
    video.simulcast = true;
    let own = "a=rid:l send\r\na=rid:m send\r\na=rid:h send\r\na=simulcast:send l;m;h\r\n";
    chromium(&[video], "abcd").replace(own, lines)
}

fn encodings(peer: &Negotiation) -> Vec<EncodingConfig> {
    peer.streams(any_key).mlines[0].as_ref().unwrap().ingress.as_ref().unwrap().encodings.clone()
}

fn rids(peer: &Negotiation) -> Vec<String> {
    encodings(peer).iter().map(|encoding| encoding.rid.map_or_else(String::new, |rid| rid.to_string())).collect()
}

/// The lines of a description that are about simulcast.
fn lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|line| line.starts_with("a=rid") || line.starts_with("a=simulcast")).collect()
}

#[test]
fn chromiums_three_streams_are_taken_in_its_order() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let answer = peer.accept_offer(&offer("sendonly", CHROMIUM)).unwrap();
    assert_eq!(lines(&answer), ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"]);
    let exts = media(&answer, 0).exts;
    assert!([Ext::Mid, Ext::Rid, Ext::RepairedRid].iter().all(|ext| exts.iter().any(|(_, known)| known == ext)));
    assert_eq!(rids(&peer), ["q", "h", "f"]);
    assert!(encodings(&peer).iter().all(|encoding| encoding.ssrcs.is_empty()));
    // Repeated with every offer; one that has none any more ends it.
    let again = peer.accept_offer(&offer("sendonly", CHROMIUM)).unwrap();
    assert_eq!(lines(&again), lines(&answer));
    peer.accept_offer(&offer("sendonly", "")).unwrap();
    assert_eq!(rids(&peer), [""]);
}

#[test]
fn a_stream_that_is_paused_or_limited_to_formats_is_taken() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let limited = "a=rid:a send pt=98,118\r\na=rid:b send pt=39;max-width=640\r\na=rid:c send pt=118\r\na=simulcast:send x,a;~b;c\r\n";
    let answer = peer.accept_offer(&offer("sendrecv", limited)).unwrap();
    // 118 is H.265, which we do not know; another description of the same size has VP9 and AV1.
    assert_eq!(lines(&answer), ["a=rid:a recv pt=98", "a=rid:b recv pt=39", "a=simulcast:recv a;b"]);
    assert_eq!(rids(&peer), ["a", "b"]);
}

#[test]
fn firefoxes_streams_are_known_by_name_and_not_by_the_sources_it_lists() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let more = "a=extmap:8 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
        a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
        a=rid:hi send max-width=1280;max-height=720\r\na=rid:lo send\r\na=simulcast:send hi;lo\r\n";
    let answer = peer.accept_offer(&(firefox() + more)).unwrap();
    assert_eq!(lines(&answer), ["a=rid:hi recv", "a=rid:lo recv", "a=simulcast:recv hi;lo"]);
    let streams = peer.streams(any_key);
    let ingress = streams.mlines[1].as_ref().unwrap().ingress.as_ref().unwrap();
    assert_eq!(ingress.encodings.len(), 2);
    assert!(ingress.encodings.iter().all(|encoding| encoding.rid.is_some() && encoding.ssrcs.is_empty()));
}

#[test]
fn a_group_of_sources_is_a_simulcast_too() {
    let group = "a=ssrc-group:SIM 11 12 13\r\na=ssrc-group:FID 11 21\r\na=ssrc-group:FID 12 22\r\na=ssrc-group:FID 13 23\r\n\
        a=ssrc:11 cname:c\r\na=ssrc:12 cname:c\r\na=ssrc:13 cname:c\r\na=ssrc:21 cname:c\r\na=ssrc:22 cname:c\r\na=ssrc:23 cname:c\r\n";
    let pairs = |peer: &Negotiation| {
        let pair = |encoding: EncodingConfig| (encoding.rid.is_none(), encoding.ssrcs);
        encodings(peer).into_iter().map(pair).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (11..14).map(|n| (true, vec![(Ssrc(n), Some(Ssrc(n + 10)))])).collect();
    let mut peer = negotiation(&CLIENT_ONLY);
    let answer = peer.accept_offer(&offer("sendonly", group)).unwrap();
    assert_eq!((lines(&answer), pairs(&peer)), (vec![], expected.clone()));
    // Also in an answer to an offer of ours.
    let mut peer = negotiation(&GRYT);
    let ours = peer.create_offer().unwrap();
    let theirs = answer_with(&ours, group);
    peer.accept_answer(&theirs).unwrap();
    let streams = peer.streams(any_key);
    let ingress = streams.mlines[1].as_ref().unwrap().ingress.as_ref().unwrap();
    assert_eq!(ingress.encodings.iter().map(|it| (true, it.ssrcs.clone())).collect::<Vec<_>>(), expected);
    // A group of one, or of sources that are not described, is none.
    let mut peer = negotiation(&CLIENT_ONLY);
    peer.accept_offer(&offer("sendonly", "a=ssrc-group:SIM 1 2\r\na=ssrc:1 cname:c\r\n")).unwrap();
    assert_eq!(pairs(&peer), [(true, vec![(Ssrc(1), None)])]);
}

/// The second m-line, a video, is answered with the sources of `group`.
fn answer_with(offer: &str, group: &str) -> String {
    let sdp = answer(offer, "active", |mid| Some(if mid == "1" { "sendonly" } else { "inactive" }));
    let (before, after) = sdp.split_once("a=mid:1\r\n").unwrap();
    let (sources, rest): (Vec<&str>, Vec<&str>) = after.lines().partition(|line| line.starts_with("a=ssrc"));
    assert_eq!(sources.len(), 1);
    format!("{before}a=mid:1\r\n{group}{}\r\n", rest.join("\r\n"))
}

#[test]
fn what_cannot_be_told_apart_is_not_a_simulcast() {
    let rid_ext = "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n";
    let mid_ext = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    for (without, direction) in [(rid_ext, "sendonly"), (mid_ext, "sendonly"), ("", "recvonly")] {
        let mut peer = negotiation(&CLIENT_ONLY);
        let answer = peer.accept_offer(&offer(direction, CHROMIUM).replace(without, "")).unwrap();
        assert!(lines(&answer).is_empty() && !answer.contains("rtp-stream-id"), "{answer}");
    }
}

#[test]
fn a_hostile_simulcast_is_bounded() {
    let many: String = (0..400).map(|n| format!("a=rid:r{n} send\r\n")).collect();
    let list = (0..400).map(|n| format!("r{n}")).collect::<Vec<_>>().join(";");
    let names = |count: usize| (0..count).map(|n| format!("r{n}")).collect::<Vec<_>>();
    for (lines, expected) in [
        (format!("{many}a=simulcast:send {list}\r\n"), names(ENCODINGS_MAX)),
        (format!("{many}a=simulcast:send {}\r\n", "r0;".repeat(1000)), names(1)),
        (format!("a=rid:r0 send\r\na=simulcast:send r0;r1;{}\r\n", "~,".repeat(1000)), names(1)),
        (many.clone(), vec![String::new()]),
        ("a=rid:x send\r\na=rid:x send\r\na=simulcast:send x\r\n".into(), vec![String::new()]),
        ("a=simulcast:send nowhere\r\n".into(), vec![String::new()]),
        ("a=rid:\r\na=rid: send\r\na=simulcast:send\r\na=simulcast:\r\n".into(), vec![String::new()]),
    ] {
        let mut peer = negotiation(&CLIENT_ONLY);
        let answer = peer.accept_offer(&offer("sendonly", &lines)).unwrap();
        assert_eq!(rids(&peer), expected);
        assert!(answer.len() < 8192);
    }
    let group = format!("a=ssrc-group:SIM {}\r\n", (1..400).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
    let sources: String = (1..400).map(|n| format!("a=ssrc:{n} cname:c\r\n")).collect();
    let mut peer = negotiation(&CLIENT_ONLY);
    peer.accept_offer(&offer("sendonly", &(group + &sources))).unwrap();
    assert_eq!(encodings(&peer).len(), ENCODINGS_MAX);
}

#[test]
fn our_offers_keep_the_simulcast_that_was_agreed_and_ask_for_no_other() {
    let mut peer = negotiation(&NAMED);
    peer.accept_offer(&offer("sendonly", CHROMIUM)).unwrap();
    peer.set_wanted(&[video(1)]);
    let ours = peer.create_offer().unwrap();
    assert_eq!(lines(&ours), ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"]);
    assert!(
        media(&ours, 0).exts.contains(&(10, Ext::Rid)) && !media(&ours, 1).exts.iter().any(|(_, e)| *e == Ext::Rid)
    );
    // It may send less of it than we would take.
    let theirs = answer(&ours, "active", |mid| Some(if mid == "0" { "sendonly" } else { "recvonly" }));
    let theirs = theirs.replace("rid:q recv", "rid:q send").replace("rid:f recv", "rid:f send");
    peer.accept_answer(&theirs.replace("simulcast:recv q;h;f", "simulcast:send q;f")).unwrap();
    assert_eq!(rids(&peer), ["q", "f"]);
    assert!(lines(&negotiation(&GRYT).create_offer().unwrap()).is_empty());
}

#[test]
fn str0m_offers_a_simulcast_and_takes_our_answer() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let mut rtc = Rtc::builder().build(now());
    let mut api = rtc.sdp_api();
    let send = ["h", "m", "l"].map(SimulcastLayer::new).to_vec();
    let simulcast = Simulcast { send, recv: Vec::new() };
    let mid = api.add_media(Kind::Video, Direction::SendOnly, None, None, Some(simulcast));
    let (theirs, pending) = api.apply().unwrap();
    let answer = peer.accept_offer(&theirs.to_sdp_string()).unwrap();
    assert_eq!(rids(&peer), ["h", "m", "l"]);
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
    assert!(rtc.media(mid).is_some_and(|media| media.direction().is_sending()));
}
