//! The client is the offerer.

use super::browsers::{chromium, firefox, line, main_ssrc};
use super::*;
use crate::base::format::{Format, H264Profile};
use crate::wire::rtp_ext::Ext;
use crate::wire::sdp::Setup;

#[test]
fn a_chromium_offer_is_answered_with_the_formats_we_know_in_its_order() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let answer = peer
        .accept_offer(&chromium(&[line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")], "abcd"))
        .unwrap();
    let pts = |index| media(&answer, index).codecs.iter().map(|c| (c.pt, c.rtx_pt)).collect::<Vec<_>>();
    assert_eq!(pts(0), [(111, None), (63, None), (9, None), (0, None), (8, None)]);
    let rtx = |pt, rtx| (pt, Some(rtx));
    let video = [rtx(96, 97), rtx(102, 103), rtx(104, 105), rtx(106, 107), rtx(108, 109), rtx(127, 125), rtx(39, 40)];
    assert_eq!(pts(1)[..7], video);
    assert_eq!(pts(1)[7..], [rtx(45, 46), rtx(98, 99), rtx(100, 101)]);
    for absent in ["ulpfec", "flexfec", "red/90000", "H265", "telephone-event", "CN/"] {
        assert!(!answer.contains(absent), "{absent} is not answered");
    }
    for present in
        ["a=ice-lite", "a=group:BUNDLE 0 1", "a=setup:passive", "a=rtcp-mux", "a=rtcp-rsize", "a=extmap-allow-mixed"]
    {
        assert!(answer.contains(present), "{present}");
    }
    assert!(answer.contains("a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\r\n"));
    assert!(answer.contains(" 2001:db8::1 3478 typ host\r\na=end-of-candidates\r\n"));
    assert!(answer.contains("a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"));
    let remote = peer.remote().unwrap();
    assert_eq!((remote.ufrag.as_str(), remote.dtls_role), ("abcd", DtlsRole::Server));
    assert_eq!(remote.fingerprint.to_string(), browsers::FINGERPRINT);
}

#[test]
fn the_streams_say_what_was_negotiated() {
    let mut peer = negotiation(&CLIENT_ONLY);
    peer.accept_offer(&chromium(&[line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")], "abcd")).unwrap();
    let streams = peer.streams(any_key);
    assert!(streams.ext_mixed);
    let video = streams.mlines[1].as_ref().unwrap();
    let vp8 = video.payloads[0];
    assert_eq!((vp8.format, vp8.rtx_pt), (Format::Vp8, Some(97)));
    assert!(vp8.nack && vp8.pli && vp8.fir && vp8.transport_cc);
    let profile = H264Profile::ConstrainedBaseline;
    assert!(video.payloads.iter().any(|p| p.pt == 106 && p.format == Format::H264 { profile, packetization_mode: 1 }));
    assert!(video.exts.contains(&(4, Ext::Mid)) && video.exts.contains(&(3, Ext::TransportCc)));
    assert!(!video.exts.iter().any(|(_, ext)| matches!(ext, Ext::Rid | Ext::RepairedRid)));
    let ingress = video.ingress.as_ref().unwrap();
    assert_eq!(ingress.track, key(101));
    let ssrc = main_ssrc("1");
    assert_eq!(ingress.encodings[0].ssrcs, [(Ssrc(ssrc), Some(Ssrc(ssrc + 1)))]);
    let egress = video.egress.as_ref().unwrap();
    assert_ne!(egress.ssrc, egress.rtx_ssrc);
    assert_eq!(egress.track, None);
    let publications = peer.publications();
    assert_eq!(publications.len(), 2);
    assert_eq!((publications[1].stream_id.as_str(), publications[1].track_id.as_str()), ("stream-a", "track-1"));
}

#[test]
fn a_firefox_offer_keeps_its_numbers_and_its_bundle_only_m_line() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let answer = peer.accept_offer(&firefox()).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "sendrecv"]);
    let video = media(&answer, 1);
    let pts: Vec<_> = video.codecs.iter().map(|c| (c.pt, c.rtx_pt)).collect();
    assert_eq!(pts, [(120, Some(124)), (121, Some(125)), (126, Some(127)), (97, Some(98))]);
    assert!(answer.contains("a=fmtp:109 minptime=10;useinbandfec=1;stereo=1\r\n"));
    assert!(!answer.contains("csrc-audio-level"), "one-way extensions are left out");
    assert!(!answer.contains("extmap-allow-mixed"), "Firefox did not offer it");
    let publications = peer.publications();
    assert_eq!(publications[0].stream_id, "{5f2c3a61-8e0e-4f7c-9d55-5a6ee5d5f8b6}");
    assert_eq!(peer.streams(any_key).mlines[1].as_ref().unwrap().ingress.as_ref().unwrap().encodings[0].ssrcs.len(), 1);
}

#[test]
fn a_data_channel_in_the_middle_keeps_its_place_with_port_0() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let lines = [line("audio", "a", "sendonly"), line("application", "d", ""), line("video", "v", "recvonly")];
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert!(answer.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(answer.contains("a=group:BUNDLE a v\r\n"));
    assert_eq!(directions(&answer), ["recvonly", "rejected", "sendonly"]);
    let streams = peer.streams(any_key);
    assert!(streams.mlines[1].is_none() && streams.mlines[2].is_some());
}

#[test]
fn an_m_line_of_an_unknown_kind_keeps_its_place_with_port_0() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let lines = [line("audio", "0", "sendrecv"), line("application", "1", ""), line("video", "2", "sendrecv")];
    let offer = chromium(&lines, "abcd").replace("m=application", "m=hologram");
    let answer = peer.accept_offer(&offer).unwrap();
    assert!(answer.contains("m=hologram 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert_eq!(directions(&answer), ["sendrecv", "rejected", "sendrecv"]);
    let again = peer.accept_offer(&offer).unwrap();
    assert_eq!(directions(&again), directions(&answer));
}

#[test]
fn feedback_about_what_we_send_is_asked_for_too() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let lines = [line("video", "0", "recvonly"), line("audio", "1", "recvonly")];
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    for index in 0..2 {
        let media = media(&answer, index);
        assert!(media.codecs[0].feedback.transport_cc);
        assert!([Ext::TransportCc, Ext::AbsSendTime].iter().all(|ext| media.exts.iter().any(|(_, it)| it == ext)));
    }
    assert!(answer.contains("a=rtcp-fb:96 goog-remb\r\n") && answer.contains("a=rtcp-fb:96 nack pli\r\n"));
    assert!(!answer.contains("rrtr") && !answer.contains("rtcp-xr"), "not offered");
}

#[test]
fn receiver_reference_times_are_answered_where_they_are_offered() {
    let offer = chromium(&[line("video", "0", "sendrecv")], "abcd");
    let mut peer = negotiation(&CLIENT_ONLY);
    let with_both = offer
        .replace("a=rtcp-fb:96 nack\r\n", "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 rrtr\r\na=rtcp-xr:rcvr-rtt=all:10\r\n");
    let answer = peer.accept_offer(&with_both).unwrap();
    assert!(answer.contains("a=rtcp-fb:96 rrtr\r\n") && answer.contains("a=rtcp-xr:rcvr-rtt=all\r\n"));
    assert!(!answer.contains("a=rtcp-fb:98 rrtr"));
}

#[test]
fn live_binding_shows_the_first_wanted_tracks_and_moves_only_what_changes() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let lines = [line("video", "0", "sendrecv"), line("video", "1", "recvonly"), line("audio", "2", "recvonly")];
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "sendonly", "sendonly"]);
    assert!(answer.contains("a=msid:tramline-1 slot-1\r\n"));
    assert!(peer.set_wanted(&[video(1), video(2), video(3), audio(9)]));
    assert_eq!(bound(&peer), pairs(&[("0", 1), ("1", 2), ("2", 9)]));
    assert_eq!((peer.unplaced(), peer.wanted_count()), (1, 4));
    assert!(!peer.set_wanted(&[video(2), video(1), video(3), audio(9)]), "order within the shown ones changes nothing");
    assert!(peer.set_wanted(&[video(3), video(2), video(1), audio(9)]));
    assert_eq!(bound(&peer), pairs(&[("0", 3), ("1", 2), ("2", 9)]));
    assert!(peer.set_wanted(&[video(3)]));
    assert_eq!(bound(&peer), pairs(&[("0", 3)]));
    assert!(!peer.needs_offer() && peer.create_offer().is_none(), "this client offers");
}

#[test]
fn a_reoffer_keeps_ssrc_mid_and_role_and_adds_m_lines() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let mut lines = vec![line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")];
    let first = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    peer.set_wanted(&[video(1), video(2)]);
    lines.push(line("video", "2", "recvonly"));
    let offer = chromium(&lines, "abcd").replace("a=setup:actpass", "a=setup:active");
    let second = peer.accept_offer(&offer).unwrap();
    assert!(second.contains("a=setup:passive"));
    assert_eq!(media(&first, 1).ssrcs, media(&second, 1).ssrcs);
    assert!(!media(&second, 1).ssrcs.is_empty());
    assert_ne!(media(&second, 1).ssrcs, media(&second, 2).ssrcs);
    assert_eq!(bound(&peer), pairs(&[("1", 1), ("2", 2)]));
    let origin = |sdp: &str| sdp.lines().nth(1).unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(origin(&first)[1], origin(&second)[1]);
    assert_eq!((origin(&first)[2].as_str(), origin(&second)[2].as_str()), ("1", "2"));
}

#[test]
fn stopping_and_reusing_an_m_line_makes_a_new_one_in_its_place() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let mut lines = vec![line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")];
    let first = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    peer.set_wanted(&[video(1)]);
    lines[1].stopped = true;
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "rejected"]);
    assert!(peer.streams(any_key).mlines[1].is_none() && bound(&peer).is_empty());
    lines[1] = line("video", "7", "sendrecv");
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert_ne!(media(&first, 1).ssrcs, media(&answer, 1).ssrcs);
    assert_eq!(bound(&peer), pairs(&[("7", 1)]));
    lines[1].mid = "8".into();
    let error = peer.accept_offer(&chromium(&lines, "abcd")).unwrap_err();
    assert!(matches!(error, NegotiateError::Unusable(_)), "a live m-line does not change its mid");
    assert_eq!(bound(&peer), pairs(&[("7", 1)]));
}

#[test]
fn muting_by_direction_takes_the_publication_away() {
    let mut peer = negotiation(&CLIENT_ONLY);
    peer.accept_offer(&chromium(&[line("audio", "0", "sendrecv")], "abcd")).unwrap();
    assert_eq!(peer.publications().len(), 1);
    peer.accept_offer(&chromium(&[line("audio", "0", "recvonly")], "abcd")).unwrap();
    assert!(peer.publications().is_empty());
    assert!(peer.streams(any_key).mlines[0].as_ref().unwrap().ingress.is_none());
}

#[test]
fn named_tracks_are_sent_under_their_msid_only_where_one_is_bound() {
    let mut peer = negotiation(&NAMED);
    peer.set_wanted(&[video(5)]);
    let lines = [line("video", "0", "sendrecv"), line("video", "1", "recvonly"), line("audio", "2", "recvonly")];
    let answer = peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "inactive", "inactive"]);
    assert!(answer.contains("a=msid:s5 t5\r\n"));
    assert!(!peer.set_wanted(&[video(5), video(6)]), "a new track has to be told first");
    assert!(peer.needs_offer());
    assert!(peer.set_wanted(&[video(6)]), "a vanished one is not sent any more");
    assert!(bound(&peer).is_empty());
}

#[test]
fn an_ice_restart_is_answered_with_fresh_credentials() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let lines = [line("audio", "0", "sendrecv")];
    peer.accept_offer(&chromium(&lines, "abcd")).unwrap();
    assert!(!peer.restarts_ice(&chromium(&lines, "abcd")));
    assert!(peer.restarts_ice(&chromium(&lines, "efgh")));
    peer.ice_restart("anew".into(), "anew-anew-anew-anew-anew".into());
    assert!(peer.accept_offer(&chromium(&lines, "abcd")).unwrap().contains("a=ice-ufrag:ours\r\n"));
    assert!(peer.accept_offer(&chromium(&lines, "efgh")).unwrap().contains("a=ice-ufrag:anew\r\n"));
    assert_eq!(peer.local_ice().0, "anew");
    assert_eq!(peer.remote().unwrap().ufrag, "efgh");
}

#[test]
fn setup_decides_the_dtls_role() {
    for (offered, answered, role) in [
        ("actpass", Setup::Passive, DtlsRole::Server),
        ("active", Setup::Passive, DtlsRole::Server),
        ("passive", Setup::Active, DtlsRole::Client),
    ] {
        let mut peer = negotiation(&CLIENT_ONLY);
        let offer = chromium(&[line("audio", "0", "sendrecv")], "abcd");
        let answer = peer.accept_offer(&offer.replace("setup:actpass", &format!("setup:{offered}"))).unwrap();
        assert_eq!(media(&answer, 0).transport.setup, Some(answered));
        assert_eq!(peer.remote().unwrap().dtls_role, role);
        let again = peer.accept_offer(&offer).unwrap();
        assert_eq!(media(&again, 0).transport.setup, Some(answered), "the role stays");
    }
}

#[test]
fn a_single_m_line_needs_no_bundle_and_no_mid() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let offer = chromium(&[line("audio", "0", "sendrecv")], "abcd");
    let offer = offer.replace("a=group:BUNDLE 0\r\n", "").replace("a=mid:0\r\n", "");
    let answer = peer.accept_offer(&offer).unwrap();
    assert!(!answer.contains("a=group") && !answer.contains("a=mid:"));
    assert_eq!(directions(&answer), ["sendrecv"]);
    assert_eq!(peer.publications().len(), 1);
}

#[test]
fn an_m_line_outside_the_bundle_is_rejected() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let offer = chromium(&[line("audio", "0", "sendrecv"), line("video", "1", "sendrecv")], "abcd");
    let answer = peer.accept_offer(&offer.replace("BUNDLE 0 1", "BUNDLE 0")).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "rejected"]);
    let answer = peer.accept_offer(&offer).unwrap();
    assert_eq!(directions(&answer), ["sendrecv", "sendrecv"]);
}

#[test]
fn a_missing_msid_gets_a_stable_name() {
    let mut peer = negotiation(&CLIENT_ONLY);
    let offer = chromium(&[line("audio", "0", "sendrecv"), line("audio", "1", "sendrecv")], "abcd");
    let offer = offer.replace("stream-a track-0", "-").replace("stream-a", "-").replace(" track-1", "");
    peer.accept_offer(&offer).unwrap();
    let first = peer.publications();
    assert_eq!(first[0].stream_id, first[1].stream_id);
    assert_ne!(first[0].track_id, first[1].track_id);
    peer.accept_offer(&offer).unwrap();
    assert_eq!(peer.publications(), first);
}
