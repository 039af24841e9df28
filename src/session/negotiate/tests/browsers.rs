//! Descriptions as Chromium and Firefox write them.

use std::fmt::Write;

pub(super) const FINGERPRINT: &str =
    "sha-256 0C:1D:2E:3F:40:51:62:73:84:95:A6:B7:C8:D9:EA:FB:0C:1D:2E:3F:40:51:62:73:84:95:A6:B7:C8:D9:EA:FB";

/// One m-line of an offer.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) kind: &'static str,
    pub(super) mid: String,
    pub(super) direction: &'static str,
    pub(super) simulcast: bool,
    pub(super) stopped: bool,
}

pub(super) fn line(kind: &'static str, mid: &str, direction: &'static str) -> Line {
    Line { kind, mid: mid.into(), direction, simulcast: false, stopped: false }
}

/// A Chromium offer; `ufrag` tells ICE generations apart.
pub(super) fn chromium(lines: &[Line], ufrag: &str) -> String {
    let mut sdp = String::from("v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let live: Vec<&str> = lines.iter().filter(|l| !l.stopped).map(|l| l.mid.as_str()).collect();
    write!(sdp, "a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS stream-a\r\n", live.join(" "))
        .unwrap();
    for line in lines {
        let (formats, attributes) = match line.kind {
            "audio" => CHROMIUM_AUDIO,
            "video" => CHROMIUM_VIDEO,
            _ => ("webrtc-datachannel", "a=sctp-port:5000\r\na=max-message-size:262144\r\n"),
        };
        let proto = if line.kind == "application" { "UDP/DTLS/SCTP" } else { "UDP/TLS/RTP/SAVPF" };
        let port = if line.stopped { 0 } else { 9 };
        write!(sdp, "m={} {port} {proto} {formats}\r\nc=IN IP4 0.0.0.0\r\n", line.kind).unwrap();
        if !line.stopped {
            write!(sdp, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{ufrag}-password-of-22-chars\r\na=ice-options:trickle\r\n")
                .unwrap();
            write!(sdp, "a=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n").unwrap();
        }
        write!(sdp, "a=mid:{}\r\n", line.mid).unwrap();
        if line.kind == "application" {
            sdp.push_str(attributes);
            continue;
        }
        write!(sdp, "a=rtcp:9 IN IP4 0.0.0.0\r\na={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n", line.direction).unwrap();
        let sends = line.direction.starts_with("send");
        if sends {
            write!(sdp, "a=msid:stream-a track-{}\r\n", line.mid).unwrap();
        }
        sdp.push_str(attributes);
        if line.simulcast {
            sdp.push_str("a=rid:l send\r\na=rid:m send\r\na=rid:h send\r\na=simulcast:send l;m;h\r\n");
        } else if sends {
            sdp.push_str(&sources(line));
        }
    }
    sdp
}

fn sources(line: &Line) -> String {
    let ssrc = main_ssrc(&line.mid);
    let msid = format!("msid:stream-a track-{}", line.mid);
    if line.kind == "audio" {
        return format!("a=ssrc:{ssrc} cname:c1\r\na=ssrc:{ssrc} {msid}\r\n");
    }
    let rtx = ssrc + 1;
    format!(
        "a=ssrc-group:FID {ssrc} {rtx}\r\na=ssrc:{ssrc} cname:c1\r\na=ssrc:{ssrc} {msid}\r\na=ssrc:{rtx} cname:c1\r\n"
    )
}

pub(super) fn main_ssrc(mid: &str) -> u32 {
    1_000_000 + mid.bytes().fold(0, |sum, b| sum * 256 + u32::from(b)) * 16
}

/// A Firefox offer with sound and picture: curly ids, its own numbers, one session-level fingerprint, bundle-only.
pub(super) fn firefox() -> String {
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 7561892213443334521 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
         a=fingerprint:{FINGERPRINT}\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n{FIREFOX_MEDIA}"
    )
}

/// What a browser answers to our offer; `wish` gives its direction for an m-line, `None` rejects it.
pub(super) fn answer(offer: &str, setup: &str, wish: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut head = String::from("v=0\r\no=- 991 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let mut body = String::new();
    let mut bundle = Vec::new();
    for section in offer.split("\r\nm=").skip(1) {
        let mut lines: Vec<&str> = section.lines().collect();
        let media = lines.remove(0).to_owned();
        let mid = lines.iter().find_map(|l| l.strip_prefix("a=mid:")).unwrap().to_owned();
        let words: Vec<&str> = media.split(' ').collect();
        let Some(direction) = wish(&mid).filter(|_| words[1] != "0") else {
            let (kind, proto, format) = (words[0], words[2], words[3]);
            write!(body, "m={kind} 0 {proto} {format}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n").unwrap();
            continue;
        };
        write!(body, "m={media}\r\na=ice-ufrag:brow\r\na=ice-pwd:brow-password-of-22-chars\r\n").unwrap();
        write!(body, "a=fingerprint:{FINGERPRINT}\r\na=setup:{setup}\r\na={direction}\r\n").unwrap();
        let drop = ["a=ice-", "a=fingerprint", "a=setup", "a=ssrc", "a=msid", "a=candidate", "a=end-of"];
        let directions = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
        for line in lines.iter().filter(|l| !drop.iter().any(|d| l.starts_with(d)) && !directions.contains(l)) {
            write!(body, "{line}\r\n").unwrap();
        }
        if direction.starts_with("send") {
            let ssrc = main_ssrc(&mid);
            write!(body, "a=msid:stream-a track-{mid}\r\na=ssrc:{ssrc} cname:c1\r\n").unwrap();
        }
        bundle.push(mid);
    }
    write!(head, "a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n", bundle.join(" ")).unwrap();
    head + &body
}

const CHROMIUM_AUDIO: (&str, &str) = (
    "111 63 9 0 8 13 110 126",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
     a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
     a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
     a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
     a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
     a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
     a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
     a=rtpmap:126 telephone-event/8000\r\n",
);

const CHROMIUM_VIDEO: (&str, &str) = (
    "96 97 102 103 104 105 106 107 108 109 127 125 39 40 45 46 98 99 100 101 112 113 116 117 118",
    "a=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r\n\
     a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
     a=extmap:13 urn:3gpp:video-orientation\r\n\
     a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
     a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
     a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/video-content-type\r\n\
     a=extmap:7 http://www.webrtc.org/experiments/rtp-hdrext/video-timing\r\n\
     a=extmap:8 http://www.webrtc.org/experiments/rtp-hdrext/color-space\r\n\
     a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
     a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
     a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
     a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\n\
     a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
     a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 goog-remb\r\na=rtcp-fb:102 transport-cc\r\na=rtcp-fb:102 ccm fir\r\n\
     a=rtcp-fb:102 nack\r\na=rtcp-fb:102 nack pli\r\n\
     a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
     a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
     a=rtpmap:104 H264/90000\r\na=rtcp-fb:104 nack\r\n\
     a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r\n\
     a=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=104\r\n\
     a=rtpmap:106 H264/90000\r\na=rtcp-fb:106 nack\r\n\
     a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
     a=rtpmap:107 rtx/90000\r\na=fmtp:107 apt=106\r\n\
     a=rtpmap:108 H264/90000\r\na=rtcp-fb:108 nack\r\n\
     a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f\r\n\
     a=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n\
     a=rtpmap:127 H264/90000\r\na=rtcp-fb:127 nack\r\n\
     a=fmtp:127 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f\r\n\
     a=rtpmap:125 rtx/90000\r\na=fmtp:125 apt=127\r\n\
     a=rtpmap:39 AV1/90000\r\na=rtcp-fb:39 nack\r\na=rtcp-fb:39 nack pli\r\na=fmtp:39 level-idx=5;profile=0;tier=0\r\n\
     a=rtpmap:40 rtx/90000\r\na=fmtp:40 apt=39\r\n\
     a=rtpmap:45 AV1/90000\r\na=fmtp:45 level-idx=5;profile=1;tier=0\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n\
     a=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtcp-fb:98 nack pli\r\na=fmtp:98 profile-id=0\r\n\
     a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n\
     a=rtpmap:100 VP9/90000\r\na=rtcp-fb:100 nack\r\na=fmtp:100 profile-id=2\r\na=rtpmap:101 rtx/90000\r\n\
     a=fmtp:101 apt=100\r\n\
     a=rtpmap:112 red/90000\r\na=rtpmap:113 rtx/90000\r\na=fmtp:113 apt=112\r\na=rtpmap:116 ulpfec/90000\r\n\
     a=rtpmap:117 flexfec-03/90000\r\na=fmtp:117 repair-window=10000000\r\na=rtpmap:118 H265/90000\r\n",
);

const FIREFOX_MEDIA: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n\
     a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
     a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
     a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=fmtp:101 0-15\r\na=ice-pwd:firefoxfirefoxfirefox1234\r\n\
     a=ice-ufrag:fire\r\na=mid:0\r\na=msid:{5f2c3a61-8e0e-4f7c-9d55-5a6ee5d5f8b6} {0f7d3b02-2c27-4b0e-b0a4-0b8c61d5d1c1}\r\n\
     a=rtcp-mux\r\na=rtpmap:109 opus/48000/2\r\na=rtpmap:9 G722/8000/1\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
     a=rtpmap:101 telephone-event/8000/1\r\na=setup:actpass\r\na=ssrc:3058526221 cname:{c1}\r\n\
     m=video 0 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127 97 98\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=sendrecv\r\n\
     a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
     a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
     a=extmap:5 urn:ietf:params:rtp-hdrext:toffset\r\n\
     a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
     a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\n\
     a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r\na=fmtp:120 max-fs=12288;max-fr=60\r\n\
     a=fmtp:124 apt=120\r\na=fmtp:121 max-fs=12288;max-fr=60\r\na=fmtp:125 apt=121\r\na=fmtp:127 apt=126\r\n\
     a=fmtp:98 apt=97\r\na=mid:1\r\n\
     a=msid:{5f2c3a61-8e0e-4f7c-9d55-5a6ee5d5f8b6} {9d0f3b02-2c27-4b0e-b0a4-0b8c61d5d1c1}\r\n\
     a=rtcp-fb:120 nack\r\na=rtcp-fb:120 nack pli\r\na=rtcp-fb:120 ccm fir\r\na=rtcp-fb:120 goog-remb\r\n\
     a=rtcp-fb:120 transport-cc\r\na=rtcp-fb:126 nack\r\na=rtcp-fb:126 nack pli\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
     a=rtpmap:120 VP8/90000\r\na=rtpmap:124 rtx/90000\r\na=rtpmap:121 VP9/90000\r\na=rtpmap:125 rtx/90000\r\n\
     a=rtpmap:126 H264/90000\r\na=rtpmap:127 rtx/90000\r\na=rtpmap:97 H264/90000\r\na=rtpmap:98 rtx/90000\r\n\
     a=ssrc:1770526222 cname:{c1}\r\na=ssrc:2270526223 cname:{c1}\r\na=ssrc-group:FID 1770526222 2270526223\r\n";
