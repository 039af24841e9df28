//! What a negotiation changes: published tracks come and go, and the worker is told.

use std::sync::Arc;
use std::time::Instant;

use super::hub::Hub;
use super::peer::Track;
use crate::base::ids::{PeerId, TrackKey};
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
        for publication in publications {
            let track = peer.tracks.entry(publication.mline).or_insert_with(|| {
                let (index, epoch) = self.track_keys.take();
                let key = TrackKey { index, epoch };
                self.publishers.insert(key, id);
                Track {
                    key,
                    id: format!("t-{index}-{epoch}"),
                    kind: publication.kind,
                    mid: publication.mid.as_str().to_owned(),
                    stream_id: String::new(),
                    track_id: String::new(),
                    slot: publication.slot,
                    is_live: false,
                    loudness: 0,
                }
            });
            track.stream_id = publication.stream_id;
            track.track_id = publication.track_id;
        }
        for (mline, _) in &ended {
            peer.tracks.remove(mline);
        }
        let room = peer.room.clone();
        self.configure(id);
        self.subscribe(now, id);
        self.tell_tracks(id);
        if !ended.is_empty() {
            // Subscribers let go first, so that no configuration names a track that is gone.
            self.subscribe_room(now, &room);
            ended.into_iter().for_each(|(_, key)| self.end_track(key));
        }
    }

    pub(super) fn end_track(&mut self, key: TrackKey) {
        self.publishers.remove(&key);
        self.plan.remove(key);
        self.command(None, &Command::CloseTrack { track: key });
        self.track_keys.give_back(key.index);
    }

    /// What the session must obey now.
    pub(super) fn configure(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let tracks = &peer.tracks;
        let streams = peer.negotiation.streams(|mline| tracks.get(&mline).map(|track| track.key));
        let bound = streams.mlines.iter().enumerate().filter_map(|(index, mline)| {
            let track = mline.as_ref()?.egress.as_ref()?.track?;
            Some((track, index as u16))
        });
        let before = std::mem::replace(&mut peer.bound, bound.collect());
        let changed: Vec<TrackKey> = before
            .iter()
            .filter(|entry| !peer.bound.contains(entry))
            .chain(peer.bound.iter().filter(|entry| !before.contains(entry)))
            .map(|(track, _)| *track)
            .collect();
        let remote = peer.negotiation.remote().cloned().map(Arc::new);
        let (session, owner) = (peer.session, peer.owner);
        self.command(owner, &Command::Configure { session, remote, streams: Arc::new(streams) });
        changed.into_iter().for_each(|track| self.route(track));
    }
}
