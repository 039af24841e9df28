//! A peer that follows a script: keys injected, no handshake, no sockets. It speaks SRTP and RTCP as browsers do.
//!
//! Owns: its keys and books. Promises: every packet it is given authenticates, or it panics.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tramline::base::batch::Path;
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::{Mid, PeerId, SessionKey, Ssrc, TrackKey};
use tramline::crypto::srtp::{SrtpKeys, SrtpReceiver, SrtpSender, SrtpSuite};
use tramline::proto::ice::LocalCredentials;
use tramline::proto::twcc::TwccRegister;
use tramline::session::streams::{Demand, EgressConfig, IngressConfig, MlineConfig, Payload, StreamsConfig};
use tramline::wire::class::{Class, classify};
use tramline::wire::rtp::{self, Fixed, RtpView};
use tramline::wire::rtp_ext::{self, Ext, ExtWriter};
use tramline::wire::stun::BindingRequest;
use tramline::worker::command::Ticket;

/// m-line of the audio, payload type, index of track and source.
pub const AUDIO: usize = 0;
/// The same of the video.
pub const VIDEO: usize = 1;
/// Payload type by m-line.
const PTS: [u8; 2] = [111, 96];
const RTX_PT: u8 = 97;
const TWCC_ID: u8 = 3;
/// What is published, by m-line.
pub const TRACKS: [TrackKey; 2] = [TrackKey { index: 0, epoch: 0 }, TrackKey { index: 1, epoch: 0 }];
/// The publisher's sources by m-line.
pub const SOURCES: [Ssrc; 2] = [Ssrc(0x1111_1111), Ssrc(0x2222_2222)];
const RTX_SOURCE: Ssrc = Ssrc(0x3333_3333);
/// The server's sources by m-line, the same for every subscriber.
pub const SENT: [Ssrc; 2] = [Ssrc(0x4444_4444), Ssrc(0x5555_5555)];
const SENT_RTX: Ssrc = Ssrc(0x6666_6666);

/// See the module.
pub struct Peer {
    pub key: SessionKey,
    pub ticket: Arc<Ticket>,
    pub credentials: LocalCredentials,
    pub path: Path,
    pub keys: SrtpKeys,
    sender: SrtpSender,
    receiver: SrtpReceiver,
    /// Next number of each source: audio, video, retransmissions.
    next: [u64; 3],
    timestamps: [u32; 2],
    next_twcc: u16,
    /// Media packets that came.
    pub received: u64,
    /// Retransmissions that came.
    pub retransmitted: u64,
    /// RTCP packets that came.
    pub reports: u64,
    /// Newest number of each of the server's sources.
    pub newest: [u16; 2],
    /// What came of the server's transport-wide numbers, and when.
    pub arrivals: TwccRegister,
}

/// How a payload type is negotiated on an m-line.
fn payload(mline: usize) -> Payload {
    let (format, rtx_pt) = if mline == AUDIO { (Format::Opus, None) } else { (Format::Vp8, Some(RTX_PT)) };
    Payload {
        pt: PTS[mline],
        format,
        rtx_pt,
        nack: true,
        pli: mline == VIDEO,
        fir: false,
        transport_cc: true,
        remb: false,
    }
}

/// What the publisher, or a subscriber, negotiated.
pub fn streams(is_publisher: bool) -> StreamsConfig {
    let mline = |at: usize| {
        let rtx = (at == VIDEO).then_some(RTX_SOURCE);
        let ingress = IngressConfig::single(TRACKS[at], vec![(SOURCES[at], rtx)]);
        let egress =
            EgressConfig { ssrc: SENT[at], rtx_ssrc: SENT_RTX, track: Some(TRACKS[at]), demand: Demand::default() };
        Some(MlineConfig {
            mid: Mid::new(&[b'0' + at as u8]).unwrap(),
            kind: if at == AUDIO { MediaKind::Audio } else { MediaKind::Video },
            exts: vec![(1, Ext::AudioLevel), (TWCC_ID, Ext::TransportCc), (4, Ext::Mid)],
            payloads: vec![payload(at)],
            ingress: is_publisher.then_some(ingress),
            egress: (!is_publisher).then_some(egress),
        })
    };
    StreamsConfig { mlines: vec![mline(AUDIO), mline(VIDEO)], ext_mixed: true }
}

impl Peer {
    pub fn new(index: u32, suite: SrtpSuite, credentials: LocalCredentials) -> Self {
        let material: Vec<u8> = (0..2 * (suite.key_len() + suite.salt_len())).map(|i| i as u8 ^ index as u8).collect();
        let keys = SrtpKeys::from_exporter(suite, &material).unwrap();
        let (sender, receiver) = keys.contexts(true).unwrap();
        let key = SessionKey { index, epoch: 0 };
        let remote = SocketAddr::from(([10, (index >> 8) as u8, index as u8, 1], 4000));
        Self {
            key,
            ticket: Arc::new(Ticket::new(key, PeerId(index.into()))),
            credentials,
            path: Path { remote, local: IpAddr::from([10, 0, 0, 254]) },
            keys,
            sender,
            receiver,
            next: [1, 1, 1],
            timestamps: [0; 2],
            next_twcc: 0,
            received: 0,
            retransmitted: 0,
            reports: 0,
            newest: [0; 2],
            arrivals: TwccRegister::new(),
        }
    }

    /// A check that nominates.
    pub fn check(&self) -> Vec<u8> {
        let username = format!("{}:peer", self.credentials.ufrag());
        let check = BindingRequest {
            transaction_id: [1; 12],
            username: Some(username.as_bytes()),
            use_candidate: true,
            key: Some(self.credentials.key()),
            has_fingerprint: true,
            ..BindingRequest::default()
        };
        let mut out = vec![0; 256];
        let len = check.write_to(&mut out).unwrap();
        out.truncate(len);
        out
    }

    /// The next media packet of an m-line.
    pub fn media(&mut self, mline: usize, payload_len: usize, is_keyframe: bool) -> Vec<u8> {
        self.timestamps[mline] = self.timestamps[mline].wrapping_add([960, 90][mline]);
        let mut payload = vec![0; payload_len];
        // VP8 payload descriptor with S=1, then the P bit: 0 is a keyframe (RFC 7741 §4.2, §4.3).
        payload[0] = 0x10;
        payload[1] = u8::from(!is_keyframe);
        // RFC 6386 §9.1: the start code of a key frame.
        payload[4..7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        self.packet(mline, PTS[mline], SOURCES[mline], self.timestamps[mline], &payload)
    }

    /// The last media packet of the video, sent again (RFC 4588 §4).
    pub fn retransmission(&mut self, original: u16, payload_len: usize) -> Vec<u8> {
        let mut payload = vec![0; payload_len + 2];
        payload[..2].copy_from_slice(&original.to_be_bytes());
        payload[2] = 0x10;
        payload[3] = 1;
        self.packet(2, RTX_PT, RTX_SOURCE, self.timestamps[VIDEO], &payload)
    }

    /// The number of the media packet that comes next on an m-line.
    pub fn next_seq(&self, mline: usize) -> u16 {
        self.next[mline] as u16
    }

    fn packet(&mut self, at: usize, pt: u8, ssrc: Ssrc, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let index = self.next[at];
        self.next[at] += 1;
        self.next_twcc = self.next_twcc.wrapping_add(1);
        let fixed = Fixed { marker: false, pt, seq: index as u16, timestamp, ssrc };
        let mut block = [0; 32];
        let mut exts = ExtWriter::one_byte(&mut block);
        exts.push(1, &[20]);
        exts.push(TWCC_ID, &self.next_twcc.to_be_bytes());
        let (profile, ext_len) = exts.finish();
        let mut out = vec![0; 1500];
        let header_len = rtp::write_header(&mut out, &fixed, &[], Some((profile, &block[..ext_len]))).unwrap();
        out[header_len..header_len + payload.len()].copy_from_slice(payload);
        let len = self.sender.protect_rtp(&mut out, header_len, header_len + payload.len(), index).unwrap();
        out.truncate(len);
        out
    }

    /// One RTCP packet.
    pub fn rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
        let mut out = vec![0; 1500];
        let len = write(&mut out).unwrap();
        let len = self.sender.protect_rtcp(&mut out, len).unwrap();
        out.truncate(len);
        out
    }

    /// A datagram of the server.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        match classify(&bytes) {
            Class::Rtp => {
                let plain = self.receiver.unprotect_rtp(&mut bytes).expect("authentic");
                let view = RtpView::parse(&bytes[..plain.plain_len]).unwrap();
                let twcc = view.ext().and_then(|(profile, block)| rtp_ext::find(profile, block, TWCC_ID));
                if let Some(seq) = twcc.and_then(rtp_ext::parse_transport_cc) {
                    self.arrivals.handle_packet(now, seq);
                }
                match SENT.iter().position(|sent| *sent == view.ssrc()) {
                    Some(mline) => {
                        self.received += 1;
                        self.newest[mline] = plain.index as u16;
                    }
                    None => self.retransmitted += 1,
                }
            }
            Class::Rtcp => {
                self.receiver.unprotect_rtcp(&mut bytes).expect("authentic");
                self.reports += 1;
            }
            _ => {}
        }
    }
}
