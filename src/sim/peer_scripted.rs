//! A peer that follows a script: no handshake, keys injected, nothing random but its seed.
//!
//! Owns: what is needed to speak to the server by the letter of a script: checks, SRTP, RTCP feedback.
//! Promises: the same seed gives the same datagrams at the same times.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::media::{PeerNo, Received, Tag};
use super::world::{Action, Endpoint};
use crate::base::format::MediaKind;
use crate::base::ids::Ssrc;
use crate::crypto::srtp::{SrtpKeys, SrtpReceiver, SrtpSender, SrtpSuite};
use crate::room::api::{Notice, RequestError};
use crate::wire::class::{Class, classify};
use crate::wire::rtcp::{self, RtcpView};
use crate::wire::rtp::{self, Fixed, RtpView};
use crate::wire::rtp_ext::ExtWriter;
use crate::wire::stun::{BindingRequest, IceRole, IntegrityKey};

/// As often as a browser checks its pair, or more.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// One Opus packet; every fifth time a picture of two packets.
const MEDIA_INTERVAL: Duration = Duration::from_millis(20);
/// Packets of a picture.
const VIDEO_PARTS: u8 = 2;
/// Packets kept to be sent again.
const KEPT_MAX: u64 = 512;

/// What the script says.
#[derive(Clone, Copy, Debug)]
pub struct ScriptedConfig {
    /// Hash of its room, for the tags.
    pub room: u32,
    /// Receiving m-lines besides the two it sends on, of each kind.
    pub receiving: usize,
    /// After so many video packets comes one that is nothing but padding; 0: never.
    pub padding_every: u32,
    /// Media packets carry so much padding.
    pub padding: u8,
    /// Says it knows RTX.
    pub has_rtx: bool,
}

#[derive(Debug)]
struct Stream {
    kind: MediaKind,
    pt: u8,
    ssrc: Ssrc,
    index: u64,
    timestamp: u32,
    number: u32,
    wants_key: bool,
    kept: BTreeMap<u64, Vec<u8>>,
}

/// See the module.
pub struct ScriptedPeer {
    me: PeerNo,
    config: ScriptedConfig,
    rng: StdRng,
    keys: SrtpKeys,
    sender: SrtpSender,
    receiver: SrtpReceiver,
    streams: [Stream; 2],
    /// Server's address, ufrag and password, from its answer.
    server: Option<(SocketAddr, String, IntegrityKey)>,
    check_at: Option<Instant>,
    media_at: Option<Instant>,
    ticks: u64,
    actions: VecDeque<Action>,
    received: Received,
    /// Sequence numbers of what came, by ssrc, in order of arrival.
    pub sequence: BTreeMap<u32, Vec<u16>>,
    /// Datagrams that could not be read.
    pub unreadable: u64,
    /// Binding successes that came.
    pub checks_answered: u64,
    /// What signalling refused.
    pub refusals: Vec<String>,
}

impl ScriptedPeer {
    /// A peer that has not spoken yet.
    #[allow(clippy::unwrap_used, reason = "keys of the right length")]
    pub fn new(mut rng: StdRng, me: PeerNo, config: ScriptedConfig) -> Self {
        let suite = SrtpSuite::AeadAes128Gcm;
        let mut material = vec![0; 2 * (suite.key_len() + suite.salt_len())];
        rng.fill_bytes(&mut material);
        let keys = SrtpKeys::from_exporter(suite, &material).unwrap();
        let (sender, receiver) = keys.contexts(true).unwrap();
        let mut stream = |kind, pt| Stream {
            kind,
            pt,
            ssrc: Ssrc(rng.random()),
            index: u64::from(rng.random::<u16>() >> 1),
            timestamp: rng.random(),
            number: 0,
            wants_key: true,
            kept: BTreeMap::new(),
        };
        let streams = [stream(MediaKind::Audio, 111), stream(MediaKind::Video, 96)];
        Self {
            me,
            config,
            rng,
            keys,
            sender,
            receiver,
            streams,
            server: None,
            check_at: None,
            media_at: None,
            ticks: 0,
            actions: VecDeque::new(),
            received: Received::default(),
            sequence: BTreeMap::new(),
            unreadable: 0,
            checks_answered: 0,
            refusals: Vec::new(),
        }
    }

    /// Server's address, ufrag and password, once known.
    pub fn server(&self) -> Option<&(SocketAddr, String, IntegrityKey)> {
        self.server.as_ref()
    }

    fn offer(&self) -> String {
        let lines = 2 + 2 * self.config.receiving;
        let mids: Vec<String> = (0..lines).map(|mid| mid.to_string()).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n\
             a=msid-semantic: WMS\r\n",
            mids.join(" ")
        );
        for mid in 0..lines {
            let (kind, stream) = if mid % 2 == 0 { ("audio", &self.streams[0]) } else { ("video", &self.streams[1]) };
            let direction = if mid < 2 { "sendrecv" } else { "recvonly" };
            let (pts, formats) = match (kind, self.config.has_rtx) {
                ("audio", _) => ("111", AUDIO),
                (_, false) => ("96", VIDEO),
                (_, true) => ("96 97", VIDEO_RTX),
            };
            sdp += &format!(
                "m={kind} 9 UDP/TLS/RTP/SAVPF {pts}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
                 a=ice-ufrag:scripted\r\na=ice-pwd:scriptedscriptedscripted\r\na=setup:actpass\r\n\
                 a=fingerprint:sha-256 {}\r\na={direction}\r\na=rtcp-mux\r\n{formats}",
                vec!["AB"; 32].join(":")
            );
            if mid < 2 {
                sdp += &format!("a=msid:s{0} t{mid}\r\na=ssrc:{1} cname:c\r\n", self.me.0, stream.ssrc.0);
            }
        }
        sdp
    }

    fn check(&mut self) {
        let Some((address, ufrag, key)) = &self.server else { return };
        let username = format!("{ufrag}:scripted");
        let request = BindingRequest {
            transaction_id: self.rng.random(),
            username: Some(username.as_bytes()),
            priority: Some(1_845_501_695),
            role: Some(IceRole::Controlling(1)),
            use_candidate: true,
            key: Some(key),
            has_fingerprint: true,
        };
        let mut out = vec![0; 256];
        if let Some(len) = request.write_to(&mut out) {
            out.truncate(len);
            self.actions.push_back(Action::Send(*address, out));
        }
    }

    fn send_media(&mut self) {
        self.ticks += 1;
        self.send_packet(0, true, 0);
        if self.ticks.is_multiple_of(5) {
            let is_key = std::mem::take(&mut self.streams[1].wants_key);
            self.streams[1].timestamp = self.streams[1].timestamp.wrapping_add(9_000);
            for part in 0..VIDEO_PARTS {
                self.send_packet(1, is_key, part);
            }
        }
    }

    fn send_packet(&mut self, at: usize, is_key: bool, part: u8) {
        let stream = &mut self.streams[at];
        let (publisher, room, kind) = (self.me, self.config.room, stream.kind);
        let (number, parts) = (stream.number, if kind == MediaKind::Audio { 1 } else { VIDEO_PARTS });
        let frame = number / u32::from(parts);
        let needs = if is_key { None } else { frame.checked_sub(1) };
        let tag = Tag { publisher, room, kind, track: 0, encoding: 0, is_key, part, parts, number, frame, needs };
        stream.number += 1;
        let payload = tag.payload(if kind == MediaKind::Audio { 80 } else { 600 + usize::from(part) });
        let is_padded = kind == MediaKind::Video && self.config.padding > 0;
        let is_due = self.config.padding_every > 0 && stream.number.is_multiple_of(self.config.padding_every);
        if kind == MediaKind::Audio {
            stream.timestamp = stream.timestamp.wrapping_add(960);
        }
        self.send_rtp(at, part == 1, &payload, if is_padded { self.config.padding } else { 0 });
        if kind == MediaKind::Video && is_due {
            self.send_rtp(at, false, &[], 200);
        }
    }

    fn send_rtp(&mut self, at: usize, marker: bool, payload: &[u8], padding: u8) {
        let Some((address, ..)) = &self.server else { return };
        let stream = &mut self.streams[at];
        let (pt, timestamp, ssrc) = (stream.pt, stream.timestamp, stream.ssrc);
        let fixed = Fixed { marker, pt, seq: stream.index as u16, timestamp, ssrc };
        let mut out = vec![0; 1500];
        // Who speaks changes every two seconds.
        let turn = (self.ticks / 100 + self.me.0 as u64).is_multiple_of(3);
        let mut block = [0; 8];
        let mut exts = ExtWriter::one_byte(&mut block);
        if at == 0 {
            exts.push(AUDIO_LEVEL_ID, &[if turn { 10 } else { 100 }]);
        }
        let (profile, ext_len) = exts.finish();
        let exts = (ext_len > 0).then_some((profile, &block[..ext_len]));
        let Some(header_len) = rtp::write_header(&mut out, &fixed, &[], exts) else { return };
        out[header_len..header_len + payload.len()].copy_from_slice(payload);
        let Some(len) = rtp::write_padding(&mut out, header_len + payload.len(), padding) else { return };
        if let Ok(len) = self.sender.protect_rtp(&mut out, header_len, len, stream.index) {
            out.truncate(len);
            stream.kept.insert(stream.index, out.clone());
            let oldest = stream.index.saturating_sub(KEPT_MAX);
            stream.kept.remove(&oldest);
            stream.index += 1;
            self.actions.push_back(Action::Send(*address, out));
        }
    }

    /// Sends one RTCP packet.
    pub fn send_rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let Some((address, ..)) = &self.server else { return };
        let mut out = vec![0; 1500];
        if let Some(len) = write(&mut out)
            && let Ok(len) = self.sender.protect_rtcp(&mut out, len)
        {
            out.truncate(len);
            self.actions.push_back(Action::Send(*address, out));
        }
    }

    /// Asks for these numbers of one of the server's sources again.
    pub fn nack(&mut self, media: Ssrc, seqs: &[u16]) {
        let me = self.streams[0].ssrc;
        self.send_rtcp(|out| rtcp::write_nack(out, me, media, seqs.iter().copied()));
    }

    fn handle_rtp(&mut self, now: Instant, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let Ok(plain) = self.receiver.unprotect_rtp(&mut bytes) else {
            self.unreadable += 1;
            return;
        };
        if let Ok(view) = RtpView::parse(&bytes[..plain.plain_len]) {
            self.sequence.entry(view.ssrc().0).or_default().push(view.seq());
            // RFC 4588 §4: a retransmission begins with the original's number.
            let payload = if view.pt() == 97 { view.payload().get(2..).unwrap_or_default() } else { view.payload() };
            self.received.handle_payload(now, payload);
        }
    }

    fn handle_rtcp(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let Ok(len) = self.receiver.unprotect_rtcp(&mut bytes) else {
            self.unreadable += 1;
            return;
        };
        let mut again = Vec::new();
        for packet in rtcp::packets(&bytes[..len]).flatten() {
            match packet {
                RtcpView::Pli(pli) => {
                    self.streams
                        .iter_mut()
                        .filter(|stream| stream.ssrc == pli.media)
                        .for_each(|it| it.wants_key = true);
                }
                RtcpView::Nack(nack) => {
                    for stream in self.streams.iter().filter(|stream| stream.ssrc == nack.media) {
                        let index = |seq| crate::base::seq::extend_u16(stream.index, seq);
                        again.extend(nack.seqs().filter_map(|seq| stream.kept.get(&index(seq)).cloned()));
                    }
                }
                _ => {}
            }
        }
        if let Some((address, ..)) = &self.server {
            self.actions.extend(again.into_iter().map(|bytes| Action::Send(*address, bytes)));
        }
    }
}

/// Of the audio level (RFC 6464), see [`AUDIO`].
const AUDIO_LEVEL_ID: u8 = 1;
const AUDIO: &str = "a=rtpmap:111 opus/48000/2\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";
const VIDEO: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n";
const VIDEO_RTX: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n\
                         a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";

/// The value of the first line that begins so.
fn value<'a>(sdp: &'a str, begin: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(begin)).map(str::trim)
}

pub(super) fn server_of(sdp: &str) -> Option<(SocketAddr, String, IntegrityKey)> {
    let candidate: Vec<&str> = value(sdp, "a=candidate:")?.split(' ').collect();
    let address = SocketAddr::new(candidate.get(4)?.parse().ok()?, candidate.get(5)?.parse().ok()?);
    let key = IntegrityKey::new(value(sdp, "a=ice-pwd:")?.as_bytes());
    Some((address, value(sdp, "a=ice-ufrag:")?.to_owned(), key))
}

impl Endpoint for ScriptedPeer {
    fn handle_joined(&mut self, _now: Instant) {
        self.actions.push_back(Action::Offer(self.offer()));
    }

    fn handle_notice(&mut self, _now: Instant, _notice: &Notice) {}

    fn handle_answer(&mut self, now: Instant, answer: Result<String, RequestError>) {
        match answer {
            Ok(sdp) => {
                self.server = server_of(&sdp);
                self.actions.push_back(Action::Keys(self.keys.clone()));
                self.check_at = Some(now);
                self.media_at = Some(now + Duration::from_millis(200));
            }
            Err(error) => self.refusals.push(error.to_string()),
        }
    }

    fn handle_datagram(&mut self, now: Instant, _from: SocketAddr, bytes: &[u8]) {
        match classify(bytes) {
            Class::Rtp => self.handle_rtp(now, bytes),
            Class::Rtcp => self.handle_rtcp(bytes),
            // RFC 8489 §5: a Binding success.
            Class::Stun if bytes.starts_with(&[1, 1]) => self.checks_answered += 1,
            _ => self.unreadable += 1,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.check_at.is_some_and(|at| now >= at) {
            self.check_at = Some(now + CHECK_INTERVAL);
            self.check();
        }
        if self.media_at.is_some_and(|at| now >= at) {
            self.media_at = Some(now + MEDIA_INTERVAL);
            self.send_media();
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.check_at.into_iter().chain(self.media_at).min()
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn received(&self) -> &Received {
        &self.received
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
