//! Who receives what: subscriptions, and what peers are told about them.
//!
//! Promises: what changes one track touches each peer of the room once, and nobody whom it does not concern; a peer's
//! whole list is made anew only when it negotiates or its own rights change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::api::{Dialect, Notice, StreamNames, TrackInfo};
use super::hub::{Hub, Room};
use super::peer::{Peer, Track};
use crate::base::format::MediaKind;
use crate::base::ids::{PeerId, TrackKey};
use crate::session::negotiate::WantedTrack;

impl Hub {
    /// The tracks a peer should receive, the active speaker's first, then who spoke lately, then in order of joining.
    pub(super) fn wanted(&self, id: PeerId) -> Vec<WantedTrack> {
        let Some(me) = self.peers.get(&id) else { return Vec::new() };
        let Some(room) = self.rooms.get(&me.room) else { return Vec::new() };
        let spoke: HashSet<PeerId> = room.speakers.iter().copied().collect();
        let quiet = room.peers.iter().filter(|other| !spoke.contains(other));
        let order = room.speakers.iter().chain(quiet).filter(|other| **other != id);
        let publishers = order.filter_map(|other| self.peers.get(other));
        let tracks = publishers.flat_map(|publisher| publisher.tracks.values().map(move |track| (publisher, track)));
        tracks.filter_map(|(publisher, track)| wanted_track(me, publisher, track)).collect()
    }

    pub(super) fn subscribe_room(&mut self, now: Instant, room: &str) {
        self.room_ids(room).into_iter().for_each(|id| self.subscribe(now, id));
    }

    /// Brings a peer's subscriptions in line with its room.
    pub(super) fn subscribe(&mut self, now: Instant, id: PeerId) {
        let wanted = self.wanted(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_changed = peer.negotiation.set_wanted(&wanted);
        self.handle_wanted(now, id, is_changed);
    }

    /// A publisher's tracks are there, or have another place in the order than before.
    pub(super) fn show(&mut self, now: Instant, publisher: PeerId) {
        let Some(room) = self.peers.get(&publisher).map(|publisher| publisher.room.clone()) else { return };
        self.room_ids(&room).into_iter().filter(|id| *id != publisher).for_each(|id| self.want(now, id, publisher));
    }

    fn want(&mut self, now: Instant, id: PeerId, publisher: PeerId) {
        let (Some(me), Some(publisher)) = (self.peers.get(&id), self.peers.get(&publisher)) else { return };
        let tracks = publisher
            .tracks
            .iter()
            .filter_map(|(mline, track)| Some(((publisher.info.peer, *mline), wanted_track(me, publisher, track)?)));
        let tracks: Vec<_> = tracks.collect();
        let Some(room) = self.rooms.get(&me.room) else { return };
        let Some(me) = self.peers.get_mut(&id).filter(|_| !tracks.is_empty()) else { return };
        let mut is_changed = false;
        for (place, track) in tracks {
            let mine = rank(room, place);
            let is_before = |other| self.publishers.get(&other).is_some_and(|place| rank(room, *place) < mine);
            is_changed |= me.negotiation.want(&track, is_before);
        }
        self.handle_wanted(now, id, is_changed);
    }

    /// Tracks end; whoever had not wanted them is not touched.
    pub(super) fn unwant(&mut self, now: Instant, id: PeerId, tracks: &[TrackKey]) {
        let Some(me) = self.peers.get_mut(&id) else { return };
        let tracks: Vec<_> = tracks.iter().filter(|key| me.negotiation.wants(**key)).collect();
        if tracks.is_empty() {
            return;
        }
        let is_changed = tracks.into_iter().fold(false, |is_changed, key| me.negotiation.unwant(*key) | is_changed);
        self.handle_wanted(now, id, is_changed);
    }

    /// The peer's wishes are others than before, and maybe what its m-lines carry.
    fn handle_wanted(&mut self, now: Instant, id: PeerId, is_changed: bool) {
        if is_changed {
            self.configure(id);
            self.tell_tracks(id);
        }
        self.ask_for_mlines(now, id);
    }

    /// Where tracks wait for what only SDP can give: our offer, or the wish that the client offers.
    fn ask_for_mlines(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.dialect == Dialect::SfuGo {
            return self.ask_for_offer(now, id);
        }
        if !peer.ignores_offers && peer.negotiation.needs_offer() {
            if !peer.negotiation.has_pending_offer() {
                self.make_offer(now, id);
            }
            return;
        }
        let waiting = peer.negotiation.unplaced();
        let is_client = peer.dialect != Dialect::Gryt && peer.dialect.has_socket();
        if is_client && waiting > 0 && peer.asked_for < peer.negotiation.wanted_count() {
            peer.asked_for = peer.negotiation.wanted_count();
            let notice = Notice::NeedsOffer { track_count: peer.asked_for };
            self.tell(id, notice);
        }
    }

    /// Makes an offer, unless one is out: then the next answer brings the next offer.
    pub(super) fn make_offer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(sdp) = peer.negotiation.create_offer() {
            peer.offered_at = Some(now);
            self.tell(id, Notice::Offer { sdp });
        }
    }

    /// Says which track each receiving m-line carries, when that changed.
    pub(super) fn tell_tracks(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.dialect.has_socket()) else { return };
        let infos: Arc<[TrackInfo]> =
            peer.negotiation.bindings().into_iter().filter_map(|(mid, key)| self.track_info(mid, key)).collect();
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.told != infos
        {
            peer.told = Arc::clone(&infos);
            self.tell(id, Notice::Tracks(infos));
        }
    }

    fn track_info(&self, mid: String, key: TrackKey) -> Option<TrackInfo> {
        let (publisher, track) = self.track(key)?;
        Some(TrackInfo {
            mid,
            kind: track.kind,
            source: publisher.source_of(track),
            wire_id: publisher.info.wire_id.clone(),
            user_id: publisher.info.user_id.clone(),
            stream_id: track.stream_id.clone(),
            track_id: track.id.clone(),
        })
    }

    /// A track's first media came: now it is worth a subscription.
    pub(super) fn handle_live(&mut self, now: Instant, key: TrackKey) {
        let Some((publisher, mline)) = self.publishers.get(&key).copied() else { return };
        let track = self.peers.get_mut(&publisher).and_then(|publisher| publisher.tracks.get_mut(&mline));
        let Some(track) = track.filter(|track| track.key == key) else { return };
        track.is_live = true;
        self.announce(publisher, mline);
        self.show(now, publisher);
    }
}

impl Hub {
    fn announce(&mut self, id: PeerId, mline: usize) {
        let Some(publisher) = self.peers.get(&id) else { return };
        let Some(track) = publisher.tracks.get(&mline) else { return };
        let (room, track) = (publisher.room.clone(), self.published_track(publisher, track));
        self.tell_of_track(&room, Some(id), &Notice::Published(Arc::new(track)));
    }
}

/// A publisher's place in the order of a room, and that of its m-line.
fn rank(room: &Room, (publisher, mline): (PeerId, usize)) -> (usize, PeerId, usize) {
    let spoke = room.speakers.iter().position(|speaker| *speaker == publisher);
    (spoke.unwrap_or(usize::MAX), publisher, mline)
}

fn is_allowed(me: &Peer, publisher: &Peer, track: &Track) -> bool {
    let is_audio = track.kind == MediaKind::Audio;
    let is_muted = publisher.is_server_muted || me.muted.contains(&publisher.info.user_id);
    let is_silenced = is_muted && publisher.is_voice(track);
    !(is_silenced || is_audio && me.is_deafened || me.hides(publisher))
}

/// The track as this peer should receive it, if it should.
fn wanted_track(me: &Peer, publisher: &Peer, track: &Track) -> Option<WantedTrack> {
    if !track.is_live || !is_allowed(me, publisher, track) || !me.choice.takes(track.key) {
        return None;
    }
    let (stream_id, track_id) = match me.stream_names {
        StreamNames::Publisher => (track.stream_id.clone(), track.track_id.clone()),
        StreamNames::PeerId => (publisher.info.wire_id.clone(), track.id.clone()),
        StreamNames::PeerIdAndReceiver => {
            (publisher.info.wire_id.clone(), format!("{}_to_{}", track.id, me.info.wire_id))
        }
    };
    Some(WantedTrack { key: track.key, kind: track.kind, stream_id, track_id })
}
