//! Writes `seeds/`, what every run begins with: valid packets of every kind, made by the writers that the tests check.

use std::fs;
use std::path::Path;

use tramline::base::ids::Ssrc;
use tramline::proto::ice::LocalCredentials;
use tramline::wire::rtcp;
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::stun::{BindingRequest, IceRole, write_binding_success};

const SSRC: Ssrc = Ssrc(0x1234_5678);

fn main() {
    let mut out = [0; 1500];
    stun(&mut out);
    rtp(&mut out);
    rtcp(&mut out);
    let payloads: [(&str, &[u8]); 5] = [
        ("vp8-key", &[0x90, 0x80, 0x01, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]),
        ("vp9-key", &[0x8a, 0x81, 0x00, 0x18, 0x02]),
        ("h264-idr", &[0x65, 0x88, 0x84]),
        ("h264-stap", &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce]),
        ("av1-key", &[0x18, 0x0a, 0x0b, 0, 0, 0]),
    ];
    payloads.iter().for_each(|(name, bytes)| seed("payload", name, bytes));
    seed("dependency", "frame", &[0x86, 0x01, 0x73, 0x40, 0xfc]);
    seed("negotiation", "offer", OFFER.as_bytes());
    seed("negotiation", "answer", OFFER.replace("actpass", "active").as_bytes());
    seed("token", "v1", b"u|r|5|n");
    seed("token", "v2", b"u|r|5|n|speak,video_checked,share_screen");
}

fn stun(out: &mut [u8]) {
    let credentials = LocalCredentials::from_parts("fuzzfuzzfuzz", "aaaaaaaaaaaaaaaaaaaaaaaa").expect("valid");
    let full = BindingRequest {
        username: Some(b"fuzzfuzzfuzz:peer"),
        priority: Some(0x6e00_1eff),
        role: Some(IceRole::Controlling(1)),
        use_candidate: true,
        key: Some(credentials.key()),
        has_fingerprint: true,
        ..BindingRequest::default()
    };
    let conflict = BindingRequest { role: Some(IceRole::Controlled(1)), use_candidate: false, ..full };
    let bare = BindingRequest::default();
    for (name, request) in [("check", full), ("conflict", conflict), ("bare", bare)] {
        let len = request.write_to(out).expect("room");
        seed("stun", name, &out[..len]);
        seed("ice", name, &out[..len]);
    }
    for (name, address) in [("success-v4", "192.0.2.1:32853"), ("success-v6", "[2001:db8::1]:32853")] {
        let address = address.parse().expect("an address");
        let len = write_binding_success(out, Default::default(), address, credentials.key()).expect("room");
        seed("stun", name, &out[..len]);
    }
}

fn rtp(out: &mut [u8]) {
    let fixed = Fixed { marker: true, pt: 96, seq: 1, timestamp: 90_000, ssrc: SSRC };
    let one_byte = [0x10, 0xaa, 0x21, 0x12, 0x34, 0x30, 0x37, 0];
    let two_byte = [1, 1, 0xaa, 2, 2, 0x12, 0x34, 0];
    let cases: [(&str, &[u8], Option<(u16, &[u8])>); 4] = [
        ("plain", &[], None),
        ("csrc", &[1, 2, 3, 4], None),
        ("one-byte", &[], Some((0xbede, &one_byte))),
        ("two-byte", &[], Some((0x1000, &two_byte))),
    ];
    for (name, csrcs, ext) in cases {
        let len = write_header(out, &fixed, csrcs, ext).expect("room");
        let packet = [&out[..len], b"payload"].concat();
        seed("rtp", name, &packet);
        for choice in [0, 2, 4] {
            seed("srtp", &format!("rtp-{name}-{choice}"), &[&[choice], &packet[..]].concat());
        }
    }
}

fn rtcp(out: &mut [u8]) {
    let block = rtcp::ReportBlock {
        ssrc: SSRC,
        fraction_lost: 3,
        cumulative_lost: -1,
        highest_seq: 70_000,
        jitter: 9,
        lsr: 1,
        dlsr: 2,
    };
    let info = rtcp::SenderInfo { ssrc: SSRC, ntp: 1 << 32, rtp_ts: 9, packets: 4, octets: 400 };
    let header = rtcp::TwccHeader {
        sender: SSRC,
        media: SSRC,
        base_seq: 65_535,
        status_count: 4,
        reference_time: 7,
        feedback_count: 1,
    };
    type Writer<'a> = &'a dyn Fn(&mut [u8]) -> Option<usize>;
    let writers: [(&str, Writer<'_>); 8] = [
        ("sr", &|out| rtcp::write_sender_report(out, &info, &[block])),
        ("rr", &|out| rtcp::write_receiver_report(out, SSRC, &[block, block])),
        ("sdes", &|out| rtcp::write_sdes_cname(out, SSRC, "fuzz")),
        ("bye", &|out| rtcp::write_bye(out, &[SSRC])),
        ("nack", &|out| rtcp::write_nack(out, SSRC, SSRC, [1, 3, 17, 65_535])),
        ("pli", &|out| rtcp::write_pli(out, SSRC, SSRC)),
        ("fir", &|out| rtcp::write_fir(out, SSRC, &[rtcp::FirEntry { ssrc: SSRC, seq_nr: 1 }])),
        ("twcc", &|out| rtcp::write_twcc(out, &header, &[Some(4), None, Some(-300), Some(1000)])),
    ];
    let mut compound = Vec::new();
    for (name, write) in writers {
        let len = write(out).expect("room");
        seed("rtcp", name, &out[..len]);
        seed("srtp", &format!("rtcp-{name}"), &[&[1], &out[..len]].concat());
        compound.extend_from_slice(&out[..len]);
    }
    seed("rtcp", "compound", &compound);
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("a seed can be written");
}

/// A browser's microphone and camera, shortened to one codec each.
const OFFER: &str = concat!(
    "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
    "a=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS s\r\n",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
    "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
    "a=setup:actpass\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=sendrecv\r\na=msid:s a\r\n",
    "a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ssrc:1001 cname:c\r\n",
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
    "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
    "a=setup:actpass\r\na=mid:1\r\na=sendrecv\r\na=msid:s v\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:96 VP8/90000\r\n",
    "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
    "a=ssrc-group:FID 1002 1003\r\na=ssrc:1002 cname:c\r\na=ssrc:1003 cname:c\r\n",
);
