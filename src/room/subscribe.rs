//! Who receives what: subscriptions, routes, and what peers are told about them.

use std::time::Instant;

use super::api::{Dialect, Notice, Source, StreamNames, TrackInfo};
use super::hub::{Hub, Output};
use super::peer::{Peer, Track};
use crate::base::format::MediaKind;
use crate::base::ids::{PeerId, TrackKey, WorkerId};
use crate::forward::table::{Route, Subscriber};
use crate::session::negotiate::WantedTrack;

impl Hub {
    /// The tracks a peer should receive, the active speaker's first, then who spoke lately, then in order of joining.
    pub(super) fn wanted(&self, id: PeerId) -> Vec<WantedTrack> {
        let Some(me) = self.peers.get(&id) else { return Vec::new() };
        let Some(room) = self.rooms.get(&me.room) else { return Vec::new() };
        let quiet = room.peers.iter().filter(|other| !room.speakers.contains(other));
        let order = room.speakers.iter().chain(quiet).filter(|other| **other != id);
        let publishers = order.filter_map(|other| self.peers.get(other));
        let tracks = publishers.flat_map(|publisher| publisher.tracks.values().map(move |track| (publisher, track)));
        tracks
            .filter(|(publisher, track)| track.is_live && is_allowed(me, publisher, track))
            .map(|(publisher, track)| wanted_track(me.stream_names, publisher, track))
            .collect()
    }

    pub(super) fn subscribe_room(&mut self, now: Instant, room: &str) {
        self.room_ids(room).into_iter().for_each(|id| self.subscribe(now, id));
    }

    /// Brings a peer's subscriptions in line with its room.
    pub(super) fn subscribe(&mut self, now: Instant, id: PeerId) {
        let wanted = self.wanted(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.negotiation.set_wanted(&wanted) {
            self.configure(id);
            self.tell_tracks(id);
        }
        self.ask_for_mlines(now, id);
    }

    /// Where tracks wait for what only SDP can give: our offer, or the wish that the client offers.
    fn ask_for_mlines(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.negotiation.needs_offer() && !peer.ignores_offers {
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
            self.outputs.push_back(Output::ToPeer(id, notice));
        }
    }

    /// Makes an offer, unless one is out: then the next answer brings the next offer.
    pub(super) fn make_offer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(sdp) = peer.negotiation.create_offer() {
            peer.offered_at = Some(now);
            self.outputs.push_back(Output::ToPeer(id, Notice::Offer { sdp }));
        }
    }

    /// Says which track each receiving m-line carries, when that changed.
    pub(super) fn tell_tracks(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.dialect.has_socket()) else { return };
        let infos: Vec<TrackInfo> =
            peer.negotiation.bindings().into_iter().filter_map(|(mid, key)| self.track_info(mid, key)).collect();
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.told != infos
        {
            peer.told.clone_from(&infos);
            self.outputs.push_back(Output::ToPeer(id, Notice::Tracks(infos)));
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

    pub(super) fn track(&self, key: TrackKey) -> Option<(&Peer, &Track)> {
        let publisher = self.peers.get(self.publishers.get(&key)?)?;
        let track = publisher.tracks.values().find(|track| track.key == key)?;
        Some((publisher, track))
    }

    /// Compiles a track's route anew.
    pub(super) fn route(&mut self, key: TrackKey) {
        let Some((publisher, _)) = self.track(key) else { return self.plan.remove(key) };
        let Some(home) = publisher.owner else { return self.plan.remove(key) };
        let mut by_worker = vec![Vec::new(); self.config.workers];
        for peer in self.room_peers(&publisher.room) {
            let Some(WorkerId(owner)) = peer.owner else { continue };
            let mlines = peer.bound.iter().filter(|(track, _)| *track == key).map(|(_, mline)| *mline);
            if let Some(subscribers) = by_worker.get_mut(usize::from(owner)) {
                subscribers.extend(mlines.map(|mline| Subscriber { session: peer.session, mline }));
            }
        }
        let by_worker = by_worker.into_iter().map(Vec::into_boxed_slice).collect();
        self.plan.set(Route { track: key, home, by_worker });
    }

    /// A track's first media came: now it is worth a subscription.
    pub(super) fn handle_live(&mut self, now: Instant, key: TrackKey) {
        let Some(publisher) = self.publishers.get(&key).and_then(|id| self.peers.get_mut(id)) else { return };
        let Some(track) = publisher.tracks.values_mut().find(|track| track.key == key) else { return };
        track.is_live = true;
        let room = publisher.room.clone();
        self.subscribe_room(now, &room);
    }

    /// Loudness of a worker's tracks; those not named are silent.
    pub(super) fn handle_levels(&mut self, now: Instant, worker: WorkerId, levels: &[(TrackKey, u8)]) {
        for peer in self.peers.values_mut().filter(|peer| peer.owner == Some(worker)) {
            for track in peer.tracks.values_mut() {
                track.loudness = levels.iter().find(|(key, _)| *key == track.key).map_or(0, |(_, loudness)| *loudness);
            }
        }
        let rooms: Vec<String> = self.rooms.keys().cloned().collect();
        rooms.into_iter().for_each(|room| self.compare_voices(now, &room));
    }

    fn compare_voices(&mut self, now: Instant, room: &str) {
        let voice = |peer: &Peer| {
            let speech = peer.tracks.values().filter(|track| peer.source_of(track) != Source::ScreenAudio);
            (peer.info.peer, speech.map(|track| track.loudness).max().unwrap_or(0))
        };
        let voices: Vec<(PeerId, u8)> = self.room_peers(room).map(voice).collect();
        let Some(state) = self.rooms.get_mut(room) else { return };
        if !state.speaker.update(voices.iter().copied()) {
            return;
        }
        let speaker = state.speaker.current();
        if let Some(speaker) = speaker {
            state.speakers.retain(|other| *other != speaker);
            state.speakers.insert(0, speaker);
        }
        let info = speaker.and_then(|speaker| self.peers.get(&speaker)).map(|peer| peer.info.clone());
        for id in self.listeners(room) {
            self.outputs.push_back(Output::ToPeer(id, Notice::Speaker(info.clone())));
        }
        self.subscribe_room(now, room);
    }
}

fn is_allowed(me: &Peer, publisher: &Peer, track: &Track) -> bool {
    let is_audio = track.kind == MediaKind::Audio;
    let is_silenced = is_audio && publisher.is_server_muted && publisher.source_of(track) != Source::ScreenAudio;
    !(is_silenced || is_audio && me.is_deafened || me.hidden.contains(&publisher.info.user_id))
}

fn wanted_track(names: StreamNames, publisher: &Peer, track: &Track) -> WantedTrack {
    let (stream_id, track_id) = match names {
        StreamNames::Publisher => (track.stream_id.clone(), track.track_id.clone()),
        StreamNames::PeerId => (publisher.info.wire_id.clone(), track.id.clone()),
    };
    WantedTrack { key: track.key, kind: track.kind, stream_id, track_id }
}
