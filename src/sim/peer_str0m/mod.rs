//! A peer that is str0m: another implementation of everything we speak, so that our misreadings show.
//!
//! Owns: its side of the signalling, what it sends (`sending`), and its books of what came.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequest, KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::camera::Camera;
use super::media::{PeerNo, Received, Tag};
use super::screen::{Screen, VideoPacket};
use super::world::{Action, Endpoint};
use crate::base::format::MediaKind;
use crate::room::api::{Notice, RequestError};

mod offers;
mod script;
mod sending;

pub use script::Script;
use sending::Sending;

/// What `Rtc` calls never.
const NEVER: Duration = Duration::from_secs(3600);

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
    /// The same by RID (empty: none), and when.
    pub keyframes_asked: Vec<(Instant, String)>,
    /// Rates that it was told to keep to (REMB), and when.
    pub ceilings: Vec<(Instant, u64)>,
    /// When its first offer's answer was there.
    pub answered_at: Option<Instant>,
    /// What is seen on each m-line, if it watches.
    pub screens: HashMap<Mid, Screen>,
    /// str0m's estimate of what can be sent, whenever it changed.
    pub estimates: Vec<(Instant, u64)>,
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
        let config = Rtc::builder().enable_bwe(script.estimate_bps.map(Bitrate::bps));
        Self::with_config(now, me, address, script, config)
    }

    /// The same with settings of str0m.
    pub fn with_config(now: Instant, me: PeerNo, address: SocketAddr, script: Script, config: RtcConfig) -> Self {
        let mut rtc = config.set_rtp_mode(true).set_stats_interval(None).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("an address of a host"));
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
            keyframes_asked: Vec::new(),
            ceilings: Vec::new(),
            answered_at: None,
            screens: HashMap::new(),
            estimates: Vec::new(),
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

    /// Its last offer is answered, and there is none to come.
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && !self.wants_to_offer
    }

    /// Tracks of that kind that it publishes now.
    pub fn publishes(&self, kind: MediaKind) -> usize {
        self.sending.iter().filter(|sending| sending.kind == kind).count()
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
            Event::KeyframeRequest(request) => self.handle_keyframe_request(now, &request),
            Event::RtpPacket(packet) => self.handle_packet(now, &packet),
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => {
                let bps = estimate.as_u64();
                self.estimates.push((now, bps));
                let next_bps: u64 = self.cameras_mut().map(|camera| camera.handle_estimate(now, bps)).sum();
                self.want_bitrate(next_bps);
            }
            Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }) => {
                self.ceilings.push((now, estimate.as_u64()));
                self.cameras_mut().for_each(|camera| camera.handle_ceiling(estimate.as_u64()));
            }
            _ => {}
        }
    }

    fn handle_keyframe_request(&mut self, now: Instant, request: &KeyframeRequest) {
        self.keyframe_requests += 1;
        self.keyframes_asked.push((now, request.rid.map(|rid| rid.to_string()).unwrap_or_default()));
        let asked = self.sending.iter_mut().filter(|it| it.mid == request.mid);
        asked.for_each(|sending| sending.handle_keyframe_request(request));
    }

    fn handle_packet(&mut self, now: Instant, packet: &RtpPacket) {
        let ssrc = *packet.header.ssrc;
        let mid = packet.header.ext_vals.mid.or_else(|| self.mid_of_ssrc.get(&ssrc).copied());
        self.received.handle_payload(now, &packet.payload);
        let (Some(mid), Some(tag)) = (mid, Tag::parse(&packet.payload)) else { return };
        self.mid_of_ssrc.insert(ssrc, mid);
        self.last_by_mid.insert(mid, (tag, now));
        if !self.script.watches || tag.kind != MediaKind::Video {
            return;
        }
        let screen = self.screens.entry(mid).or_default();
        let (seq, time, marker) = (*packet.seq_no, packet.time.numer(), packet.header.marker);
        screen.handle_packet(now, &VideoPacket { ssrc, seq, time, marker, payload: &packet.payload });
        if screen.wants_keyframe(now)
            && let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None)
        {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// Its cameras, in order of publishing.
    pub fn cameras(&self) -> impl Iterator<Item = &Camera> {
        self.sending.iter().filter_map(|sending| sending.camera.as_ref())
    }

    fn cameras_mut(&mut self) -> impl Iterator<Item = &mut Camera> {
        self.sending.iter_mut().filter_map(|sending| sending.camera.as_mut())
    }

    /// What the only m-line shows that shows anything.
    pub fn screen(&self) -> Option<&Screen> {
        self.screens.values().next()
    }

    /// It probes for all that the cameras have; padding up to what the next better quality needs is what str0m's
    /// documentation tells servers that forward.
    fn want_bitrate(&mut self, next_bps: u64) {
        if self.script.estimate_bps.is_some() {
            let best_bps = self.cameras().map(Camera::bps_max).sum();
            let minimum_bps = if self.script.pads { next_bps } else { 0 };
            self.rtc.bwe().set_bitrate(Bitrate::bps(minimum_bps), Bitrate::bps(best_bps));
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
                self.answered_at.get_or_insert(now);
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
        let media = self.sending.iter().map(Sending::next_at).filter(|_| self.connected_at.is_some());
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
