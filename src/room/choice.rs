//! What a peer picks of what it could receive: which tracks at all, and how much in all.
//!
//! Owns: the picks, which end with their tracks. Without any a peer receives everything.

use std::collections::HashSet;
use std::time::Instant;

use super::api::{PublishedTrack, RequestError, TrackName};
use super::control::Control;
use super::hub::Hub;
use super::peer::{Peer, Track};
use super::wishes::is_meant;
use crate::base::ids::{PeerId, TrackKey};

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// The peer is gone.
    #[error(transparent)]
    Gone(#[from] RequestError),
    /// Nothing of that name is published in the room.
    #[error("there is no track {0}")]
    NoTrack(String),
}

/// Which tracks a peer receives: all but these, or these only.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    only: bool,
    tracks: HashSet<TrackKey>,
}

impl Choice {
    /// Whether it is to be received.
    pub fn takes(&self, track: TrackKey) -> bool {
        self.only == self.tracks.contains(&track)
    }

    /// The track has ended.
    pub fn forget(&mut self, track: TrackKey) {
        self.tracks.remove(&track);
    }

    fn set(&mut self, track: TrackKey, takes: bool) {
        match self.only == takes {
            true => self.tracks.insert(track),
            false => self.tracks.remove(&track),
        };
    }
}

impl Hub {
    /// From now on the peer receives only what it subscribes to.
    pub fn choose_only(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.choice = Choice { only: true, tracks: HashSet::new() };
            self.subscribe(now, id);
        }
    }

    /// Subscribes to a track or to all of a stream, or not any more.
    pub fn choose(&mut self, now: Instant, id: PeerId, name: &TrackName, takes: bool) -> Result<(), ChoiceError> {
        let keys: Vec<TrackKey> = self.meant(id, name)?.map(|(_, track)| track.key).collect();
        if keys.is_empty() {
            return Err(no_track(name));
        }
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        keys.into_iter().for_each(|key| peer.choice.set(key, takes));
        self.subscribe(now, id);
        Ok(())
    }

    /// No more than so much is sent to the peer, in bits per second; `None`: as much as its line carries.
    pub fn limit_downlink(&mut self, id: PeerId, bps_max: Option<u64>) -> Result<(), RequestError> {
        self.peers.get_mut(&id).ok_or(RequestError::Gone)?.downlink_bps_max = bps_max;
        self.configure(id);
        Ok(())
    }

    /// What others publish in the peer's room.
    pub fn published(&self, id: PeerId) -> Vec<PublishedTrack> {
        let Some(me) = self.peers.get(&id) else { return Vec::new() };
        let others = self.room_peers(&me.room).filter(|other| other.info.peer != id && !me.hides(other));
        let tracks = others.flat_map(|other| other.tracks.values().map(move |track| (other, track)));
        tracks.filter(|(_, track)| track.is_live).map(|(other, track)| self.published_track(other, track)).collect()
    }

    /// A track as those are told of it who may not receive it.
    pub(super) fn published_track(&self, publisher: &Peer, track: &Track) -> PublishedTrack {
        PublishedTrack {
            track_id: track.id.clone(),
            kind: track.kind,
            source: publisher.source_of(track),
            wire_id: publisher.info.wire_id.clone(),
            user_id: publisher.info.user_id.clone(),
            layers: self.encoding_names(track.key).into_iter().flatten().collect(),
        }
    }

    fn meant(&self, id: PeerId, name: &TrackName) -> Result<impl Iterator<Item = (&Peer, &Track)>, RequestError> {
        let me = self.peers.get(&id).ok_or(RequestError::Gone)?;
        let others = self.room_peers(&me.room).filter(move |other| other.info.peer != id && !me.hides(other));
        let tracks = others.flat_map(|other| other.tracks.values().map(move |track| (other, track)));
        let name = name.clone();
        Ok(tracks.filter(move |(other, track)| is_meant(&name, other, track)))
    }
}

fn no_track(name: &TrackName) -> ChoiceError {
    let (TrackName::Stream(name) | TrackName::Track(name)) = name;
    ChoiceError::NoTrack(name.chars().take(64).collect())
}

impl Control {
    /// See [`Hub::choose_only`].
    pub fn choose_only(&self, peer: PeerId) {
        self.with(|hub| hub.choose_only(Self::now().0, peer));
    }

    /// See [`Hub::choose`].
    pub fn choose(&self, peer: PeerId, name: &TrackName, takes: bool) -> Result<(), ChoiceError> {
        self.with(|hub| hub.choose(Self::now().0, peer, name, takes))
    }

    /// See [`Hub::limit_downlink`].
    pub fn limit_downlink(&self, peer: PeerId, bps_max: Option<u64>) -> Result<(), RequestError> {
        self.with(|hub| hub.limit_downlink(peer, bps_max))
    }

    /// See [`Hub::published`].
    pub fn published(&self, peer: PeerId) -> Vec<PublishedTrack> {
        self.lock().hub.published(peer)
    }
}
