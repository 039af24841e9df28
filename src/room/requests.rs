//! What peers and the control plane ask of a room. A refused request changes nothing.

use std::sync::Arc;
use std::time::Instant;

use super::api::{CloseReason, Dialect, MediaState, Notice, PeerControl, PeerUpdate, RequestError};
use super::hub::Hub;
use crate::base::ids::PeerId;
use crate::proto::ice::LocalCredentials;
use crate::session::negotiate::NegotiateError;

/// A peer that sent no check for so long is in trouble: libwebrtc checks its pair every 2.5 s.
const CHECK_SILENCE_S: f32 = 5.0;

impl Hub {
    /// The client offers; the answer comes back.
    pub fn offer(&mut self, now: Instant, id: PeerId, sdp: &str) -> Result<String, RequestError> {
        if self.is_of_new_connection(id, sdp) {
            self.renew_session(now, id);
        }
        let wanted = self.wanted(id);
        let credentials = LocalCredentials::generate(&mut self.rng);
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let is_restart = peer.negotiation.restarts_ice(sdp);
        // Tried on a copy: a refused offer leaves everything as it was.
        let mut negotiation = peer.negotiation.clone();
        if is_restart {
            negotiation.ice_restart(credentials.ufrag().as_str().to_owned(), credentials.pwd().to_owned());
        }
        negotiation.set_wanted(&wanted);
        let answer = negotiation.accept_offer(sdp)?;
        peer.negotiation = negotiation;
        peer.offered_at = None;
        if is_restart {
            self.accept_checks_by(id, credentials);
        }
        self.handle_client_offer(now, id);
        self.handle_negotiated(now, id);
        Ok(answer)
    }

    /// The client answers our offer.
    pub fn answer(&mut self, now: Instant, id: PeerId, sdp: &str) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        peer.negotiation.accept_answer(sdp)?;
        peer.offered_at = None;
        peer.ignores_offers = false;
        self.handle_negotiated(now, id);
        Ok(())
    }

    /// A trickled candidate. ICE-lite learns every address from checks (RFC 8445 §7.3.1.3), so only its form counts.
    pub fn candidate(&self, id: PeerId, candidate: &str) -> Result<(), RequestError> {
        self.peers.get(&id).ok_or(RequestError::Gone)?;
        let text = candidate.trim();
        let text = text.strip_prefix("a=").unwrap_or(text);
        // An empty one means there are no more.
        if text.is_empty() || text.starts_with("candidate:") || text == "end-of-candidates" {
            return Ok(());
        }
        Err(NegotiateError::Syntax("a candidate begins with \"candidate:\"".to_owned()).into())
    }

    /// The client wants a fresh offer; one that restarts ICE when its path seems to be lost.
    pub fn renegotiate(&mut self, now: Instant, id: PeerId) -> Result<(), RequestError> {
        let peer = self.peers.get(&id).ok_or(RequestError::Gone)?;
        let is_lost = peer.media == Some(MediaState::Disconnected) || peer.silent_s > CHECK_SILENCE_S;
        let asks_for_restart = peer.dialect == Dialect::GrytDocumented;
        match peer.media.is_some() && (is_lost || asks_for_restart) {
            true => self.offer_restart(now, id),
            false => self.make_offer(now, id),
        }
        Ok(())
    }

    /// What a peer says about itself.
    pub fn update(&mut self, now: Instant, id: PeerId, update: PeerUpdate) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let before = peer.info.clone();
        let info = Arc::make_mut(&mut peer.info);
        info.audio_muted = update.audio_muted.unwrap_or(info.audio_muted);
        info.video_muted = update.video_muted.unwrap_or(info.video_muted);
        info.display_name = update.display_name.unwrap_or_else(|| info.display_name.clone());
        let mids: Vec<String> = peer.tracks.values().map(|track| track.mid.clone()).collect();
        let known = update.sources.into_iter().filter(|(mid, _)| mids.contains(mid));
        let changed: Vec<_> = known.filter(|(mid, source)| peer.sources.get(mid) != Some(source)).collect();
        let has_new_sources = !changed.is_empty();
        peer.sources.extend(changed);
        let (room, info) = (peer.room.clone(), peer.info.clone());
        if info != before {
            self.tell_room(&room, Some(id), &Notice::PeerUpdated(info));
            self.compare_voices(now, &room);
        }
        if has_new_sources {
            self.handle_negotiated(now, id);
            self.room_ids(&room).into_iter().for_each(|other| self.tell_tracks(other));
        }
        Ok(())
    }

    /// What somebody else decided about a peer. `false` when nobody has that name.
    pub fn control_user(&mut self, now: Instant, room: &str, user_id: &str, change: PeerControl) -> bool {
        let Some(id) = self.find(room, user_id) else { return false };
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        peer.is_server_muted = change.server_muted.unwrap_or(peer.is_server_muted);
        peer.is_deafened = change.deafened.unwrap_or(peer.is_deafened);
        peer.capabilities = change.capabilities.unwrap_or(peer.capabilities);
        if let Some(hidden) = change.hidden_user_ids {
            peer.hidden = hidden.into_iter().collect();
        }
        self.handle_negotiated(now, id);
        self.subscribe_room(now, room);
        self.compare_voices(now, room);
        true
    }

    /// Throws a user out. `false` when nobody has that name.
    pub fn disconnect_user(&mut self, now: Instant, room: &str, user_id: &str) -> bool {
        let Some(id) = self.find(room, user_id) else { return false };
        self.close(now, id, CloseReason::Kicked);
        true
    }
}
