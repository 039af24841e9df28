//! Descriptions: what is offered, answered and refused.

use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::media::{Direction, MediaKind as StrKind, Mid, Simulcast, SimulcastLayer};

use super::StrPeer;
use super::sending::Sending;
use crate::base::format::MediaKind;
use crate::sim::camera::Camera;
use crate::sim::world::Action;

impl StrPeer {
    pub(super) fn offer(&mut self, now: Instant) {
        if self.pending.is_some() {
            self.wants_to_offer = true;
            return;
        }
        self.wants_to_offer = false;
        let have = |kind| self.sending.iter().filter(|sending| sending.kind == kind).count();
        let audio = self.script.audio.saturating_sub(have(MediaKind::Audio));
        let video = self.script.video.saturating_sub(have(MediaKind::Video));
        let simulcast = self.simulcast();
        let (audio_rx, video_rx) = std::mem::take(&mut self.wanted_receiving);
        let mut api = self.rtc.sdp_api();
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
                let is_mine = dir == Direction::SendRecv && mine == MediaKind::Video;
                let mid = api.add_media(kind, dir, None, None, simulcast.clone().filter(|_| is_mine));
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

    /// What is offered for each camera, when it has more than one encoding.
    fn simulcast(&self) -> Option<Simulcast> {
        let rids = Camera::new(self.script.camera.clone()?).rids();
        let mut simulcast = Simulcast::new();
        rids.iter().for_each(|rid| simulcast.add_send_layer(SimulcastLayer::new(rid)));
        (!rids.is_empty()).then_some(simulcast)
    }

    fn start_sending(&mut self, now: Instant, mid: Mid, kind: MediaKind) {
        let track = self.started[kind as usize];
        self.started[kind as usize] += 1;
        // Near the roll-over, which is met within seconds.
        let seq = 65_536 - 300 + u64::from(track);
        let seq = if self.me.0.is_multiple_of(2) { seq - 200 } else { 1000 };
        let camera = self.script.camera.clone().filter(|_| kind == MediaKind::Video).map(Camera::new);
        self.sending.push(Sending::new(now, mid, kind, track, seq, camera));
        self.want_bitrate(0);
    }

    pub(super) fn send_offer(&mut self, now: Instant, sdp: &str) {
        let sdp = self.munged(sdp);
        self.last_sdp.0.clone_from(&sdp);
        self.actions.push_back(Action::Offer(sdp));
        self.drain(now);
    }

    fn munged(&self, sdp: &str) -> String {
        self.munge.map_or_else(|| sdp.to_owned(), |munge| munge(sdp.to_owned()))
    }

    pub(super) fn accept_offer(&mut self, now: Instant, sdp: &str) {
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
    pub(super) fn fill_slots(&mut self, now: Instant, mid: Mid, kind: StrKind, direction: Direction) {
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
}
