//! A peer that is str0m: another implementation of everything we speak, so that our misreadings show.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as StrKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::media::{PeerNo, Received, Tag};
use super::world::{Action, Endpoint};
use crate::base::format::MediaKind;
use crate::room::api::{Notice, RequestError};

/// One Opus packet.
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// 20 pictures a second.
const VIDEO_INTERVAL: Duration = Duration::from_millis(50);
/// Packets of a keyframe.
const KEY_PARTS: u8 = 4;
/// Packets of another picture.
const DELTA_PARTS: u8 = 2;
/// What `Rtc` calls never.
const NEVER: Duration = Duration::from_secs(3600);

/// What a peer does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Hash of its room, for the tags.
    pub room: u32,
    /// Offers first.
    pub offers: bool,
    /// Tracks it publishes.
    pub audio: usize,
    /// Tracks it publishes.
    pub video: usize,
    /// Receiving m-lines it offers from the beginning besides those it sends on.
    pub receiving: (usize, usize),
    /// As in RFC 6464: 0 is loudest, 127 silence.
    pub level_dbov: u8,
    /// Offers again when told to; an unmodified client of some protocols does not.
    pub offers_again: bool,
}

impl Script {
    /// Offers one audio and one video track.
    pub fn caller(room: &str) -> Self {
        Self {
            room: super::oracle::hash_of(room.as_bytes()) as u32,
            offers: true,
            audio: 1,
            video: 1,
            receiving: (0, 0),
            level_dbov: 30,
            offers_again: true,
        }
    }

    /// Offers to receive only.
    pub fn listener(room: &str) -> Self {
        Self { audio: 0, video: 0, receiving: (1, 1), ..Self::caller(room) }
    }
}

#[derive(Debug)]
struct Sending {
    mid: Mid,
    kind: MediaKind,
    track: u8,
    number: u32,
    frame: u32,
    seq: u64,
    wants_key: bool,
    next_at: Instant,
    is_paused: bool,
}

/// See the module.
pub struct StrPeer {
    rtc: Rtc,
    me: PeerNo,
    address: SocketAddr,
    script: Script,
    pending: Option<SdpPendingOffer>,
    /// Changes wait for the pending offer's answer.
    wants_to_offer: bool,
    /// Receive-only m-lines to be added by the next offer.
    wanted_receiving: (usize, usize),
    sending: Vec<Sending>,
    /// Tracks ever published, by kind.
    started: [u8; 2],
    rtc_timeout: Instant,
    actions: VecDeque<Action>,
    received: Received,
    mid_of_ssrc: HashMap<u32, Mid>,
    /// When ICE and DTLS were up.
    pub connected_at: Option<Instant>,
    /// DTLS was closed by the other side.
    pub is_closed: bool,
    /// Keyframe requests that came.
    pub keyframe_requests: u64,
    /// Media packets by m-line: from whom the last one was.
    pub last_by_mid: HashMap<Mid, (Tag, Instant)>,
    /// Packets sent per kind.
    pub sent: HashMap<(MediaKind, u8), u32>,
    /// Offers refused, in words.
    pub refusals: Vec<String>,
    /// SDP of our last offer and its answer, or of the last offer and our answer.
    pub last_sdp: (String, String),
    /// Changes our descriptions on their way out.
    pub munge: Option<fn(String) -> String>,
    /// Changes the server's offers on their way in.
    pub munge_offer: Option<fn(String) -> String>,
    ice_restart: bool,
}

impl StrPeer {
    /// A peer that has not spoken yet.
    pub fn new(now: Instant, me: PeerNo, address: SocketAddr, script: Script) -> Self {
        Self::with_config(now, me, address, script, Rtc::builder())
    }

    /// The same with settings of str0m.
    pub fn with_config(now: Instant, me: PeerNo, address: SocketAddr, script: Script, config: RtcConfig) -> Self {
        let mut rtc = config.set_rtp_mode(true).set_stats_interval(None).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            me,
            address,
            script,
            pending: None,
            wants_to_offer: false,
            wanted_receiving: (0, 0),
            sending: Vec::new(),
            started: [0; 2],
            rtc_timeout: now,
            actions: VecDeque::new(),
            received: Received::default(),
            mid_of_ssrc: HashMap::new(),
            connected_at: None,
            is_closed: false,
            keyframe_requests: 0,
            last_by_mid: HashMap::new(),
            sent: HashMap::new(),
            refusals: Vec::new(),
            last_sdp: Default::default(),
            munge: None,
            munge_offer: None,
            ice_restart: false,
        }
    }

    /// One more track to publish; offered at once.
    pub fn add_track(&mut self, now: Instant, kind: MediaKind) {
        match kind {
            MediaKind::Audio => self.script.audio += 1,
            MediaKind::Video => self.script.video += 1,
        }
        self.offer(now);
    }

    /// The last track of a kind ends: its m-line becomes receive-only.
    pub fn remove_track(&mut self, now: Instant, kind: MediaKind) {
        let at = self.sending.iter().rposition(|sending| sending.kind == kind).expect("a track of that kind");
        let mid = self.sending.remove(at).mid;
        match kind {
            MediaKind::Audio => self.script.audio -= 1,
            MediaKind::Video => self.script.video -= 1,
        }
        let mut api = self.rtc.sdp_api();
        api.set_direction(mid, Direction::RecvOnly);
        let (offer, pending) = api.apply().expect("a change");
        self.pending = Some(pending);
        self.send_offer(now, &offer.to_sdp_string());
    }

    /// Restarts ICE with an offer.
    pub fn restart_ice(&mut self, now: Instant) {
        self.ice_restart = true;
        self.offer(now);
    }

    /// Nothing is sent on tracks of that kind for a while.
    pub fn pause(&mut self, kind: MediaKind, is_paused: bool) {
        self.sending.iter_mut().filter(|sending| sending.kind == kind).for_each(|it| it.is_paused = is_paused);
    }

    /// Loudness from now on.
    pub fn speak(&mut self, level_dbov: u8) {
        self.script.level_dbov = level_dbov;
    }

    /// Closes DTLS and all.
    pub fn close(&mut self, now: Instant) {
        let _ = self.rtc.close();
        self.drain(now);
    }

    /// It offers; else the server does.
    pub fn offers(&self) -> bool {
        self.script.offers
    }

    /// Asks for a picture on every video m-line that receives.
    pub fn ask_for_keyframes(&mut self) {
        let mids: Vec<Mid> = self.last_by_mid.keys().copied().collect();
        for mid in mids {
            if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    fn offer(&mut self, now: Instant) {
        if self.pending.is_some() {
            self.wants_to_offer = true;
            return;
        }
        self.wants_to_offer = false;
        let have = |kind| self.sending.iter().filter(|sending| sending.kind == kind).count();
        let audio = self.script.audio.saturating_sub(have(MediaKind::Audio));
        let video = self.script.video.saturating_sub(have(MediaKind::Video));
        let first = self.rtc.sdp_api();
        let (audio_rx, video_rx) = std::mem::take(&mut self.wanted_receiving);
        let mut api = first;
        if std::mem::take(&mut self.ice_restart) {
            api.ice_restart(true);
        }
        let mut added = Vec::new();
        for (kind, mine, count, dir) in [
            (StrKind::Audio, MediaKind::Audio, audio, Direction::SendRecv),
            (StrKind::Video, MediaKind::Video, video, Direction::SendRecv),
            (StrKind::Audio, MediaKind::Audio, audio_rx, Direction::RecvOnly),
            (StrKind::Video, MediaKind::Video, video_rx, Direction::RecvOnly),
        ] {
            for _ in 0..count {
                let mid = api.add_media(kind, dir, None, None, None);
                if dir == Direction::SendRecv {
                    added.push((mid, mine));
                }
            }
        }
        let Some((offer, pending)) = api.apply() else { return };
        self.pending = Some(pending);
        for (mid, kind) in added {
            self.start_sending(now, mid, kind);
        }
        self.send_offer(now, &offer.to_sdp_string());
    }

    fn start_sending(&mut self, now: Instant, mid: Mid, kind: MediaKind) {
        let track = self.started[kind as usize];
        self.started[kind as usize] += 1;
        // Near the roll-over, which is met within seconds.
        let seq = 65_536 - 300 + u64::from(track);
        let seq = if self.me.0.is_multiple_of(2) { seq - 200 } else { 1000 };
        let (number, frame, wants_key, is_paused) = (0, 0, true, false);
        self.sending.push(Sending { mid, kind, track, number, frame, seq, wants_key, next_at: now, is_paused });
    }

    fn send_offer(&mut self, now: Instant, sdp: &str) {
        let sdp = self.munged(sdp);
        self.last_sdp.0.clone_from(&sdp);
        self.actions.push_back(Action::Offer(sdp));
        self.drain(now);
    }

    fn munged(&self, sdp: &str) -> String {
        self.munge.map_or_else(|| sdp.to_owned(), |munge| munge(sdp.to_owned()))
    }

    fn accept_offer(&mut self, now: Instant, sdp: &str) {
        let sdp = &self.munge_offer.map_or_else(|| sdp.to_owned(), |munge| munge(sdp.to_owned()));
        let offer = match SdpOffer::from_sdp_string(sdp) {
            Ok(offer) => offer,
            Err(error) => return self.refusals.push(format!("{error}: {sdp}")),
        };
        // In glare the client's offer wins; the server drops its own and makes it again.
        if self.pending.is_some() {
            return;
        }
        match self.rtc.sdp_api().accept_offer(offer) {
            Ok(answer) => {
                let answer = self.munged(&answer.to_sdp_string());
                self.last_sdp = (sdp.clone(), answer.clone());
                self.actions.push_back(Action::Answer(answer));
            }
            Err(error) => self.refusals.push(format!("{error}: {sdp}")),
        }
        self.drain(now);
    }

    /// Our slots in an offer of the server: the first m-lines that it only receives on are for what we publish.
    fn fill_slots(&mut self, now: Instant, mid: Mid, kind: StrKind, direction: Direction) {
        if !direction.is_sending() || self.script.offers || self.sending.iter().any(|it| it.mid == mid) {
            return;
        }
        let (mine, wanted) = match kind {
            StrKind::Audio => (MediaKind::Audio, self.script.audio),
            StrKind::Video => (MediaKind::Video, self.script.video),
        };
        if self.sending.iter().filter(|sending| sending.kind == mine).count() < wanted {
            self.start_sending(now, mid, mine);
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    // str0m may name a time that has passed; it is asked again a moment later.
                    self.rtc_timeout = at.max(now + Duration::from_micros(100));
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.actions.push_back(Action::Send(transmit.destination, transmit.contents.to_vec()));
                }
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Err(error) => {
                    self.refusals.push(format!("str0m: {error}"));
                    self.rtc_timeout = now + NEVER;
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => self.connected_at = self.connected_at.or(Some(now)),
            Event::Closed => self.is_closed = true,
            Event::MediaAdded(added) => self.fill_slots(now, added.mid, added.kind, added.direction),
            Event::MediaChanged(changed) => {
                if let Some(kind) = self.rtc.media(changed.mid).map(|media| media.kind()) {
                    self.fill_slots(now, changed.mid, kind, changed.direction);
                }
            }
            Event::KeyframeRequest(request) => {
                self.keyframe_requests += 1;
                self.sending.iter_mut().filter(|it| it.mid == request.mid).for_each(|it| it.wants_key = true);
            }
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let mid = packet.header.ext_vals.mid.or_else(|| self.mid_of_ssrc.get(&ssrc).copied());
                self.received.handle_payload(now, &packet.payload);
                if let (Some(mid), Some(tag)) = (mid, Tag::parse(&packet.payload)) {
                    self.mid_of_ssrc.insert(ssrc, mid);
                    self.last_by_mid.insert(mid, (tag, now));
                }
            }
            _ => {}
        }
    }

    fn send_media(&mut self, now: Instant) {
        if self.connected_at.is_none() {
            return;
        }
        for at in 0..self.sending.len() {
            if self.sending[at].next_at <= now {
                self.send_frame(now, at);
            }
        }
    }

    fn send_frame(&mut self, now: Instant, at: usize) {
        let sending = &mut self.sending[at];
        let (interval, codec) = match sending.kind {
            MediaKind::Audio => (AUDIO_INTERVAL, Codec::Opus),
            MediaKind::Video => (VIDEO_INTERVAL, Codec::Vp8),
        };
        sending.next_at = now + interval;
        let Some(media) = self.rtc.media(sending.mid) else { return };
        if !media.direction().is_sending() || sending.is_paused {
            return;
        }
        let Some(pt) = payload_type(&self.rtc, media.remote_pts(), codec) else { return };
        let is_key = std::mem::take(&mut sending.wants_key);
        let (parts, len, ticks) = match sending.kind {
            MediaKind::Audio => (1, 80, 960),
            MediaKind::Video if is_key => (KEY_PARTS, 900, 4_500),
            MediaKind::Video => (DELTA_PARTS, 700, 4_500),
        };
        let (publisher, room, kind, track) = (self.me, self.script.room, sending.kind, sending.track);
        let time = 4_000_000_000u32.wrapping_add(sending.frame.wrapping_mul(ticks));
        let level = self.script.level_dbov;
        for part in 0..parts {
            let tag = Tag { publisher, room, kind, track, is_key, part, number: sending.number };
            let ext_vals = ExtensionValues {
                audio_level: (kind == MediaKind::Audio).then_some(-(level as i8)),
                voice_activity: (kind == MediaKind::Audio).then_some(level < 100),
                ..ExtensionValues::default()
            };
            // Encoders cut a frame into near-equal packets, the longer ones behind; pictures differ.
            let len = match kind {
                MediaKind::Audio => len + sending.number as usize % 7,
                MediaKind::Video => len + sending.frame as usize % 90 + usize::from(part >= parts / 2),
            };
            let write = RtpWrite::new(pt, sending.seq.into(), time, now, tag.payload(len))
                .marker(kind == MediaKind::Video && part + 1 == parts)
                .nackable(kind == MediaKind::Video)
                .ext_vals(ext_vals);
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(sending.mid, None) else { return };
            stream.write_rtp(write);
            sending.number += 1;
            sending.seq += 1;
            *self.sent.entry((kind, track)).or_default() += 1;
        }
        sending.frame += 1;
        // What was written goes out when str0m is told the time.
        if self.rtc.handle_input(Input::Timeout(now)).is_ok() {
            self.drain(now);
        }
    }
}

impl Endpoint for StrPeer {
    fn handle_joined(&mut self, now: Instant) {
        if self.script.offers {
            self.wanted_receiving = self.script.receiving;
            self.offer(now);
        }
    }

    fn handle_notice(&mut self, now: Instant, notice: &Notice) {
        match notice {
            Notice::Offer { sdp } => self.accept_offer(now, sdp),
            Notice::NeedsOffer { .. } if self.script.offers_again => {
                self.wanted_receiving = (1, 1);
                self.offer(now);
            }
            _ => {}
        }
    }

    fn handle_answer(&mut self, now: Instant, answer: Result<String, RequestError>) {
        // Rolled back meanwhile.
        let Some(pending) = self.pending.take() else { return };
        match answer {
            Ok(sdp) => {
                self.last_sdp.1.clone_from(&sdp);
                let answer = SdpAnswer::from_sdp_string(&sdp).map_err(|error| error.to_string());
                let accepted = answer
                    .and_then(|answer| self.rtc.sdp_api().accept_answer(pending, answer).map_err(|it| it.to_string()));
                if let Err(error) = accepted {
                    self.refusals.push(format!("{error}: {sdp}"));
                }
            }
            Err(error) => self.refusals.push(error.to_string()),
        }
        self.drain(now);
        if self.wants_to_offer {
            self.offer(now);
        }
    }

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, from, self.address, bytes)
            && let Err(error) = self.rtc.handle_input(Input::Receive(now, receive))
        {
            self.refusals.push(format!("str0m: {error}"));
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.rtc_timeout {
            if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                self.refusals.push(format!("str0m: {error}"));
            }
            self.drain(now);
        }
        self.send_media(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let media = self.sending.iter().map(|sending| sending.next_at).filter(|_| self.connected_at.is_some());
        media.chain([self.rtc_timeout]).min()
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

fn payload_type(rtc: &Rtc, pts: &[Pt], codec: Codec) -> Option<Pt> {
    let is_ours = |pt: &&Pt| rtc.codec_config().iter().any(|it| it.pt() == **pt && it.spec().codec == codec);
    pts.iter().find(is_ours).copied()
}
