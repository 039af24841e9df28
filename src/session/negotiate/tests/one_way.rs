//! Publishers and viewers: peers that only send or only receive, as encoders and players describe themselves.

use super::browsers::{FINGERPRINT, chromium, line};
use super::*;

const PUBLISHER: Policy = Policy { live_binding: false, role: Role::Publisher, ..CLIENT_ONLY };
const VIEWER: Policy = Policy { role: Role::Viewer, ..CLIENT_ONLY };

/// A description of `head` and these m-lines; each m-line gets `transport` too.
fn offer(head: &str, transport: &str, media: &[&str]) -> String {
    let start = "v=0\r\no=- 3767197920 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    let media: String = media.iter().map(|media| format!("{media}{transport}")).collect();
    format!("{start}{head}{media}")
}

fn transport(setup: &str) -> String {
    format!(
        "a=ice-ufrag:enco\r\na=ice-pwd:encoder-encoder-encoder1\r\na=fingerprint:{FINGERPRINT}\r\na=setup:{setup}\r\n"
    )
}

/// As libdatachannel writes it, which OBS uses: the transport once for the session, real ports and candidates.
fn obs() -> String {
    let head = format!(
        "a=group:BUNDLE 0 1\r\na=group:LS 0 1\r\na=msid-semantic:WMS *\r\na=ice-options:ice2,trickle\r\n{}",
        transport("actpass")
    );
    let audio = "m=audio 57110 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 192.0.2.7\r\na=mid:0\r\na=sendonly\r\n\
        a=ssrc:5001 cname:obs\r\na=ssrc:5001 msid:stream stream-audio\r\na=msid:stream stream-audio\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;useinbandfec=1\r\n\
        a=candidate:1 1 UDP 2114977791 192.0.2.7 57110 typ host\r\na=end-of-candidates\r\n";
    let video = "m=video 57110 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 192.0.2.7\r\na=mid:1\r\na=sendonly\r\n\
        a=ssrc:5002 cname:obs\r\na=ssrc:5002 msid:stream stream-video\r\na=msid:stream stream-video\r\na=rtcp-mux\r\n\
        a=rtpmap:96 H264/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\n\
        a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1\r\n";
    offer(&head, "", &[audio, video])
}

/// As FFmpeg's muxer writes it: it waits for our DTLS.
fn ffmpeg() -> String {
    let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=msid:FFmpeg audio\r\n\
        a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:6001 cname:FFmpeg\r\na=ssrc:6001 msid:FFmpeg audio\r\n";
    let video = "m=video 9 UDP/TLS/RTP/SAVPF 106 105\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=msid:FFmpeg video\r\n\
        a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:106 H264/90000\r\n\
        a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42c01f\r\na=rtcp-fb:106 nack\r\n\
        a=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=106\r\na=ssrc-group:FID 6002 6003\r\na=ssrc:6002 cname:FFmpeg\r\n\
        a=ssrc:6002 msid:FFmpeg video\r\n";
    let head = "a=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n";
    offer(head, &transport("passive"), &[audio, video])
}

/// As GStreamer's webrtcbin writes it: mids that are words, the stream named at the source only.
fn gstreamer() -> String {
    let video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=sendonly\r\n\
        a=rtpmap:96 H264/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=framerate:30\r\n\
        a=fmtp:96 packetization-mode=1;profile-level-id=42c015;sprop-parameter-sets=Z0LAFdoFB+wEQAAAAwBAAAAPA8WLqA==,aM4PyA==\r\n\
        a=ssrc:7001 msid:user1 transceiver0\r\na=ssrc:7001 cname:user1\r\na=mid:video0\r\na=rtcp-mux-only\r\n";
    let audio = "m=audio 0 UDP/TLS/RTP/SAVPF 97\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
        a=sendonly\r\na=rtpmap:97 OPUS/48000/2\r\na=rtcp-fb:97 transport-cc\r\na=fmtp:97 sprop-stereo=1\r\n\
        a=ssrc:7002 msid:user1 transceiver1\r\na=ssrc:7002 cname:user1\r\na=mid:audio1\r\n";
    offer("a=ice-options:trickle\r\na=group:BUNDLE video0 audio1\r\n", &transport("actpass"), &[video, audio])
}

/// As aiortc writes it: several fingerprints, candidates before the credentials.
fn aiortc(direction: &str) -> String {
    let more = "a=fingerprint:sha-384 00:11\r\na=candidate:9e5 1 udp 2130706431 192.0.2.9 45443 typ host\r\na=end-of-candidates\r\n";
    let audio = format!(
        "m=audio 45443 UDP/TLS/RTP/SAVPF 96 0 8\r\nc=IN IP4 192.0.2.9\r\na={direction}\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=mid:0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=ssrc:8001 cname:py\r\na=rtpmap:96 opus/48000/2\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n{more}"
    );
    let video = format!(
        "m=video 45443 UDP/TLS/RTP/SAVPF 97 98\r\nc=IN IP4 192.0.2.9\r\na={direction}\r\na=mid:1\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=rtpmap:97 VP8/90000\r\na=rtcp-fb:97 nack\r\na=rtcp-fb:97 nack pli\r\n\
         a=rtcp-fb:97 goog-remb\r\na=rtpmap:98 rtx/90000\r\na=fmtp:98 apt=97\r\n{more}"
    );
    offer("a=group:BUNDLE 0 1\r\na=msid-semantic:WMS *\r\n", &transport("actpass"), &[&audio, &video])
}

#[test]
fn encoders_publish_one_audio_and_one_video() {
    let browser = chromium(&[line("audio", "0", "sendonly"), line("video", "1", "sendonly")], "abcd");
    for (offer, setup) in [
        (obs(), "passive"),
        (ffmpeg(), "active"),
        (gstreamer(), "passive"),
        (aiortc("sendonly"), "passive"),
        (browser, "passive"),
    ] {
        let read = read(&offer);
        assert!(read.media.iter().all(|media| is_usable(media, &read)), "{offer}");
        let mut peer = negotiation(&PUBLISHER);
        let answer = peer.accept_offer(&offer).unwrap();
        assert_eq!(directions(&answer), ["recvonly", "recvonly"], "{offer}");
        assert!(answer.contains(&format!("a=setup:{setup}\r\n")), "{answer}");
        let mut kinds: Vec<_> = peer.publications().iter().map(|publication| publication.kind.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["audio", "video"]);
        assert!(peer.streams(any_key).mlines.iter().flatten().all(|mline| mline.ingress.is_some()));
    }
}

#[test]
fn a_publisher_that_would_receive_is_not_sent_anything() {
    let mut peer = negotiation(&PUBLISHER);
    peer.set_wanted(&[audio(1), video(2)]);
    let answer = peer.accept_offer(&aiortc("sendrecv")).unwrap();
    assert_eq!(directions(&answer), ["recvonly", "recvonly"]);
    assert!(peer.bindings().is_empty() && !peer.needs_offer());
    assert!(peer.streams(any_key).mlines.iter().flatten().all(|mline| mline.egress.is_none()));
}

#[test]
fn a_viewer_gets_one_stream_and_what_comes_later_needs_no_description() {
    let browser = chromium(&[line("audio", "a", "recvonly"), line("video", "v", "recvonly")], "abcd");
    for (offer, mids) in [(aiortc("recvonly"), ["0", "1"]), (browser, ["a", "v"])] {
        let mut peer = negotiation(&VIEWER);
        let answer = peer.accept_offer(&offer).unwrap();
        assert_eq!(directions(&answer), ["sendonly", "sendonly"]);
        for mid in mids {
            assert!(answer.contains(&format!("a=msid:tramline slot-{mid}\r\n")), "{answer}");
        }
        assert!(bound(&peer).is_empty());
        let before = peer.streams(|_| None);
        assert!(peer.set_wanted(&[video(2)]));
        assert_eq!(bound(&peer), pairs(&[(mids[1], 2)]));
        assert!(peer.set_wanted(&[video(2), audio(1), audio(3)]));
        assert_eq!(bound(&peer), pairs(&[(mids[0], 1), (mids[1], 2)]));
        // The next publisher takes the same sources.
        assert!(peer.set_wanted(&[video(5), audio(4)]));
        assert_eq!(bound(&peer), pairs(&[(mids[0], 4), (mids[1], 5)]));
        let after = peer.streams(|_| None);
        let ssrcs = |streams: &StreamsConfig| {
            let egress = |mline: &Option<_>| {
                mline.as_ref().and_then(|m: &crate::session::streams::MlineConfig| m.egress.clone())
            };
            streams.mlines.iter().filter_map(egress).map(|egress| egress.ssrc).collect::<Vec<_>>()
        };
        assert_eq!((ssrcs(&before).len(), ssrcs(&before)), (2, ssrcs(&after)));
        assert!(!peer.needs_offer());
    }
}

#[test]
fn a_viewer_that_would_send_is_told_no() {
    let mut peer = negotiation(&VIEWER);
    let answer = peer.accept_offer(&aiortc("sendrecv")).unwrap();
    assert_eq!(directions(&answer), ["sendonly", "sendonly"]);
    assert!(peer.publications().is_empty());
    assert!(peer.streams(any_key).mlines.iter().flatten().all(|mline| mline.ingress.is_none()));
}
