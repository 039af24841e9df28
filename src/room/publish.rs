//! What a negotiation changes: published tracks come and go, and the worker is told.

use std::sync::Arc;
use std::time::Instant;

use super::api::Notice;
use super::hub::Hub;
use super::peer::Track;
use crate::base::ids::{PeerId, TrackKey};
use crate::forward::speaker::Activity;
use crate::forward::table::Subscriber;
use crate::worker::command::Command;

impl Hub {
    /// Brings the peer's tracks in line with its negotiation.
    pub(super) fn handle_negotiated(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let publications: Vec<_> =
            peer.negotiation.publications().into_iter().filter(|publication| peer.may_publish(publication)).collect();
        let is_current = |mline: &usize, track: &Track| {
            publications.iter().any(|publication| publication.mline == *mline && publication.kind == track.kind)
        };
        let ended: Vec<(usize, TrackKey)> = peer
            .tracks
            .iter()
            .filter(|(mline, track)| !is_current(mline, track))
            .map(|(mline, track)| (*mline, track.key))
            .collect();
        let Some(room) = self.rooms.get(&peer.room).map(|room| room.key) else { return };
        for publication in publications {
            let track = peer.tracks.entry(publication.mline).or_insert_with(|| {
                let (index, epoch) = self.track_keys.take();
                let key = TrackKey { index, epoch };
                self.publishers.insert(key, (id, publication.mline));
                self.telling.note([key]);
                Track {
                    key,
                    id: id_of(key),
                    kind: publication.kind,
                    mid: publication.mid.as_str().to_owned(),
                    stream_id: String::new(),
                    track_id: String::new(),
                    slot: publication.slot,
                    is_live: false,
                    is_recorded: false,
                    activity: Activity::default(),
                    packets: 0,
                    moved_at: None,
                    wanted: None,
                    pixels_wanted: None,
                }
            });
            track.stream_id = publication.stream_id;
            track.track_id = publication.track_id;
        }
        for (mline, _) in &ended {
            peer.tracks.remove(mline);
        }
        if let Some(owner) = peer.owner {
            peer.tracks.values().for_each(|track| self.plan.open(track.key, owner, peer.voice(room, track)));
        }
        let room = peer.room.clone();
        self.configure(id);
        self.record_tracks(id);
        self.subscribe(now, id);
        self.tell_tracks(id);
        let ended: Vec<TrackKey> = ended.into_iter().map(|(_, key)| key).collect();
        self.withdraw(now, &room, &ended);
        if !ended.is_empty() {
            self.compare_voices(now, &room);
        }
    }

    /// Tracks end: subscribers let go first, so that no configuration names a track that is gone.
    pub(super) fn withdraw(&mut self, now: Instant, room: &str, tracks: &[TrackKey]) {
        if !tracks.is_empty() && !self.is_stopping {
            self.room_ids(room).into_iter().for_each(|id| self.unwant(now, id, tracks));
        }
        for key in tracks {
            self.tell_of_track(room, None, &Notice::Unpublished(id_of(*key)));
            self.publishers.remove(key);
            self.forget_wishes(room, *key);
            self.plan.remove(*key);
            self.command_after_plan(None, &Command::CloseTrack { track: *key });
            self.track_keys.give_back(key.index);
        }
    }

    /// What the session must obey now.
    pub(super) fn configure(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let tracks = &peer.tracks;
        let mut streams = peer.negotiation.streams(|mline| tracks.get(&mline).map(|track| track.key));
        streams.downlink_bps_max = peer.downlink_bps_max;
        for ingress in streams.mlines.iter_mut().flatten().filter_map(|mline| mline.ingress.as_mut()) {
            let track = tracks.values().find(|track| track.key == ingress.track);
            ingress.pixels_wanted = track.and_then(|track| track.pixels_wanted);
        }
        for egress in streams.mlines.iter_mut().flatten().filter_map(|mline| mline.egress.as_mut()) {
            egress.demand = egress.track.and_then(|track| peer.demands.get(&track)).copied().unwrap_or_default();
        }
        let bound = streams.mlines.iter().enumerate().filter_map(|(index, mline)| {
            let track = mline.as_ref()?.egress.as_ref()?.track?;
            Some((track, index as u16))
        });
        let before = std::mem::replace(&mut peer.bound, bound.collect());
        let (session, placed, owner) = (peer.session, peer.placed, peer.owner);
        let remote = peer.negotiation.remote().cloned().map(Arc::new);
        let configure = Command::Configure { session, remote, streams: Arc::new(streams) };
        if let Some(worker) = peer.worker() {
            self.placement.resubscribe(worker, before.len(), peer.bound.len());
        }
        if before == peer.bound {
            return match owner {
                Some(owner) => self.command(Some(owner), &configure),
                None => self.opening(placed, &configure),
            };
        }
        self.telling.note(before.iter().chain(&peer.bound).map(|(track, _)| *track));
        let Some(owner) = owner else { return self.opening(placed, &configure) };
        let subscriber = |mline| Subscriber { session, mline };
        // Both are in the order of m-lines.
        let is_in = |list: &[(TrackKey, u16)], entry: &(TrackKey, u16)| {
            list.binary_search_by_key(&entry.1, |(_, mline)| *mline).is_ok_and(|at| list[at].0 == entry.0)
        };
        for (track, mline) in before.iter().filter(|entry| !is_in(&peer.bound, entry)) {
            self.plan.unsubscribe(*track, owner, subscriber(*mline));
        }
        for (track, mline) in peer.bound.iter().filter(|entry| !is_in(&before, entry)) {
            self.plan.subscribe(*track, owner, subscriber(*mline));
        }
        if !peer.pinned.is_empty() {
            self.pin(id);
        }
        self.command_after_plan(Some(owner), &configure);
    }

    /// A worker owns the peer now: what it publishes and receives has a route from here on.
    pub(super) fn route(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(owner) = peer.owner else { return };
        let Some(room) = self.rooms.get(&peer.room).map(|room| room.key) else { return };
        peer.tracks.values().for_each(|track| self.plan.open(track.key, owner, peer.voice(room, track)));
        for (track, mline) in &peer.bound {
            self.plan.subscribe(*track, owner, Subscriber { session: peer.session, mline: *mline });
        }
        self.pin(id);
    }

    /// It receives nothing any more.
    pub(super) fn unroute(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(owner) = peer.owner else { return };
        for (track, mline) in &peer.bound {
            self.plan.unsubscribe(*track, owner, Subscriber { session: peer.session, mline: *mline });
        }
    }
}

/// The stable id of a publication.
fn id_of(TrackKey { index, epoch }: TrackKey) -> String {
    format!("t-{index}-{epoch}")
}
