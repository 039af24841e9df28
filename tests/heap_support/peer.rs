//! A peer that follows a script: keys injected, no handshake, no sockets. It speaks SRTP and RTCP as browsers do.
//!
//! Owns: its keys and books. Promises: every packet it is given authenticates, or it panics.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tramline::base::batch::Path;
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::{Mid, PeerId, SessionKey, Ssrc, TrackKey};
use tramline::crypto::srtp::{SrtpKeys, SrtpReceiver, SrtpSender, SrtpSuite};
use tramline::proto::ice::LocalCredentials;
use tramline::session::streams::{
    Demand, EgressConfig, EncodingConfig, IngressConfig, MlineConfig, Payload, StreamsConfig,
};
use tramline::wire::class::{Class, classify};
use tramline::wire::rtcp::{TwccHeader, write_nack, write_twcc};
use tramline::wire::rtp::{self, Fixed, RtpHeader};
use tramline::wire::rtp_ext::{Ext, ExtWriter, find, parse_transport_cc};
use tramline::wire::stun::BindingRequest;
use tramline::worker::command::Ticket;

/// m-line of the audio, payload type, index of track and source.
pub const AUDIO: usize = 0;
/// The same of the video.
pub const VIDEO: usize = 1;
/// Index of the source of the video's second, smaller encoding.
pub const SMALL: usize = 2;
/// Index of the source of retransmissions.
const RTX: usize = 3;
/// Payload type by m-line.
const PTS: [u8; 2] = [111, 96];
const RTX_PT: u8 = 97;
/// What is published, by m-line.
pub const TRACKS: [TrackKey; 2] = [TrackKey { index: 0, epoch: 0 }, TrackKey { index: 1, epoch: 0 }];
/// The publisher's sources: audio, video, its smaller encoding, retransmissions of the larger one.
pub const SOURCES: [Ssrc; 4] = [Ssrc(0x1111_1111), Ssrc(0x2222_2222), Ssrc(0x7777_7777), Ssrc(0x3333_3333)];
/// Timestamps from one packet of a source to the next.
const TICKS: [u32; 3] = [960, 90, 360];
/// Width and height of the encodings.
const SIZES: [(u16, u16); 2] = [(1280, 720), (320, 180)];
/// A packet of so many gets lost on its way to a subscriber.
const LOST_EVERY: u16 = 100;
/// Id of the transport-wide sequence number.
const TWCC_ID: u8 = 3;
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
    /// Next number of each source.
    next: [u64; 4],
    timestamps: [u32; 3],
    next_twcc: u16,
    /// Payload of the larger encoding sent last.
    last_picture: Vec<u8>,
    /// Transport-wide numbers since the last feedback, when they came, if they did.
    came: Vec<(u16, u64, bool)>,
    feedback_count: u8,
    /// Numbers of the video that got lost since the last NACK.
    missed: Vec<u16>,
    /// Media packets that came.
    pub received: u64,
    /// Retransmissions that came.
    pub retransmitted: u64,
    /// RTCP packets that came.
    pub reports: u64,
    /// Newest number of each of the server's sources.
    pub newest: [u16; 2],
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
    streams_wanted(is_publisher, Demand::default())
}

/// The same of a subscriber who wants so much of the video.
pub fn streams_wanted(is_publisher: bool, demand: Demand) -> StreamsConfig {
    let mline = |at: usize| {
        let rtx = (at == VIDEO).then_some(SOURCES[RTX]);
        let mut ingress = IngressConfig::single(TRACKS[at], vec![(SOURCES[at], rtx)]);
        if at == VIDEO {
            ingress.encodings.push(EncodingConfig { rid: None, ssrcs: vec![(SOURCES[SMALL], None)] });
        }
        let egress = EgressConfig { ssrc: SENT[at], rtx_ssrc: SENT_RTX, track: Some(TRACKS[at]), demand };
        Some(MlineConfig {
            mid: Mid::new(&[b'0' + at as u8]).unwrap(),
            kind: if at == AUDIO { MediaKind::Audio } else { MediaKind::Video },
            exts: vec![(1, Ext::AudioLevel), (TWCC_ID, Ext::TransportCc), (4, Ext::Mid)],
            payloads: vec![payload(at)],
            ingress: is_publisher.then_some(ingress),
            egress: (!is_publisher).then_some(egress),
        })
    };
    StreamsConfig { mlines: vec![mline(AUDIO), mline(VIDEO)], ext_mixed: true, downlink_bps_max: None }
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
            next: [1; 4],
            timestamps: [0; 3],
            next_twcc: 0,
            last_picture: Vec::new(),
            came: Vec::new(),
            feedback_count: 0,
            missed: Vec::new(),
            received: 0,
            retransmitted: 0,
            reports: 0,
            newest: [0; 2],
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

    /// The next media packet of a source; of video it is a picture.
    pub fn media(&mut self, at: usize, payload_len: usize, is_keyframe: bool) -> Vec<u8> {
        self.timestamps[at] = self.timestamps[at].wrapping_add(TICKS[at]);
        let mut payload = vec![0; payload_len];
        if at != AUDIO {
            let number = self.next[at] as u16;
            // Every second picture is of the upper temporal layer, but for keyframes.
            let temporal = if is_keyframe { 0 } else { number as u8 % 2 };
            let (width, height) = SIZES[at - VIDEO];
            // RFC 7741 §4.2: X, S; I, L and T; a picture id of 15 bits, TL0PICIDX, TID and Y.
            let [high, low] = ((number / 2) | 0x8000).to_be_bytes();
            payload[..6].copy_from_slice(&[0x90, 0xe0, high, low, (number / 2) as u8, temporal << 6 | 0x20]);
            // RFC 6386 §9.1: P, which is 0 in a key frame, start code and size.
            payload[6..12].copy_from_slice(&[u8::from(!is_keyframe), 0, 0, 0x9d, 0x01, 0x2a]);
            payload[12..14].copy_from_slice(&width.to_le_bytes());
            payload[14..16].copy_from_slice(&height.to_le_bytes());
        }
        let packet = self.packet(at, PTS[at.min(VIDEO)], self.timestamps[at], &payload);
        if at == VIDEO {
            self.last_picture = payload;
        }
        packet
    }

    /// The last media packet of the larger encoding, sent again (RFC 4588 §4).
    pub fn retransmission(&mut self, original: u16) -> Vec<u8> {
        let payload = [&original.to_be_bytes()[..], &self.last_picture].concat();
        self.packet(RTX, RTX_PT, self.timestamps[VIDEO], &payload)
    }

    /// The number of the media packet that comes next on an m-line.
    pub fn next_seq(&self, mline: usize) -> u16 {
        self.next[mline] as u16
    }

    fn packet(&mut self, at: usize, pt: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let index = self.next[at];
        self.next[at] += 1;
        self.next_twcc = self.next_twcc.wrapping_add(1);
        let fixed = Fixed { marker: at != AUDIO, pt, seq: index as u16, timestamp, ssrc: SOURCES[at] };
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

    /// Transport-wide feedback on all that came until `ms` (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub fn transport_feedback(&mut self, ms: u64) -> Option<Vec<u8>> {
        let told = self.came.iter().take_while(|(_, at_ms, _)| *at_ms <= ms).count();
        let (base_seq, at_ms, _) = *self.came.first().filter(|_| told > 0)?;
        let header = TwccHeader {
            sender: Ssrc(1),
            media: SENT[VIDEO],
            base_seq,
            status_count: told as u16,
            reference_time: (at_ms / 64) as u32,
            feedback_count: self.feedback_count,
        };
        self.feedback_count = self.feedback_count.wrapping_add(1);
        let mut before_ms = at_ms / 64 * 64;
        let status = |(_, at_ms, is_received): (u16, u64, bool)| {
            // In units of 250 us.
            let delta = (at_ms as i64 - before_ms as i64) * 4;
            before_ms = if is_received { at_ms } else { before_ms };
            is_received.then_some(delta as i16)
        };
        let statuses: Vec<_> = self.came.drain(..told).map(status).collect();
        Some(self.rtcp(|out| write_twcc(out, &header, &statuses)))
    }

    /// Asks for what got lost since the last time (RFC 4585 §6.2.1).
    pub fn nack(&mut self) -> Option<Vec<u8>> {
        let missed = std::mem::take(&mut self.missed);
        (!missed.is_empty()).then(|| self.rtcp(|out| write_nack(out, Ssrc(1), SENT[VIDEO], missed)))
    }

    /// A datagram of the server, which is there at `ms`.
    pub fn handle_datagram(&mut self, bytes: &[u8], ms: u64) {
        let mut bytes = bytes.to_vec();
        match classify(&bytes) {
            Class::Rtp => {
                let plain = self.receiver.unprotect_rtp(&mut bytes).expect("authentic");
                let header = RtpHeader::parse(&bytes).expect("RTP");
                let profile = header.ext_profile.expect("extensions");
                let twcc = find(profile, &bytes[header.ext_range()], TWCC_ID).and_then(parse_transport_cc);
                let is_lost = header.ssrc == SENT[VIDEO] && header.seq.is_multiple_of(LOST_EVERY);
                self.came.extend(twcc.map(|twcc| (twcc, ms, !is_lost)));
                match SENT.iter().position(|sent| *sent == header.ssrc) {
                    Some(_) if is_lost => self.missed.push(header.seq),
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
