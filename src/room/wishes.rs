//! How large a picture each subscriber wants of each track, and what publishers learn of it.
//!
//! Owns: the wishes of subscribers, the sums over all who watch a track, and the pace at which these are told.
//! Promises: wishes are no more than the room has tracks, and end with the track or the subscriber. A wish for what is not
//! there (any more) changes nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::api::{Notice, RequestError, TrackName, VideoWanted, Wish};
use super::hub::Hub;
use super::peer::{Peer, Track};
use crate::base::format::MediaKind;
use crate::base::ids::{PeerId, TrackKey};

/// Publishers are told no more often: a window that is dragged larger changes what is wanted with every frame.
pub(super) const TOLD_INTERVAL: Duration = Duration::from_millis(250);
/// Tracks whose publishers are told in one interval: in a room of thousands each costs a look at all of them.
const TOLD_MAX: usize = 64;

/// What publishers are still to be told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    tracks: BTreeSet<TrackKey>,
    /// Nothing is told before.
    not_before: Option<Instant>,
}

impl Telling {
    /// Who watches these tracks has changed.
    pub fn note(&mut self, tracks: impl IntoIterator<Item = TrackKey>) {
        self.tracks.extend(tracks);
    }

    /// When the next is due, if anything is to be told that was not at once.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.tracks.is_empty())
    }
}

impl Hub {
    /// A subscriber says how much of pictures it wants.
    pub fn demand(&mut self, id: PeerId, wishes: &[(TrackName, Wish)]) -> Result<(), RequestError> {
        let me = self.peers.get(&id).ok_or(RequestError::Gone)?;
        let mut meant = Vec::new();
        for other in self.room_peers(&me.room).filter(|other| other.info.peer != id) {
            for track in other.tracks.values().filter(|track| track.kind == MediaKind::Video) {
                let of_track = wishes.iter().filter(|(name, _)| is_meant(name, other, track));
                meant.extend(of_track.map(|(_, wish)| (track.key, *wish)));
            }
        }
        let Some(me) = self.peers.get_mut(&id) else { return Err(RequestError::Gone) };
        let mut is_changed = false;
        for (key, wish) in meant {
            let demand = me.demands.entry(key).or_default();
            let before = *demand;
            match wish {
                Wish::Size { width, height, fps } => (demand.size, demand.fps) = (Some((width, height)), fps),
                Wish::TemporalMax(max) => demand.temporal_max = max,
            }
            if *demand != before {
                self.telling.tracks.insert(key);
                is_changed |= me.bound.iter().any(|(bound, _)| *bound == key);
            }
        }
        if is_changed {
            self.configure(id);
        }
        Ok(())
    }

    /// A track has ended.
    pub(super) fn forget_wishes(&mut self, room: &str, key: TrackKey) {
        self.telling.tracks.remove(&key);
        for id in self.room_ids(room) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.demands.remove(&key);
                peer.choice.forget(key);
            }
        }
    }

    /// Tells publishers what is wanted of them, where that is due.
    pub(super) fn tell_wishes(&mut self, now: Instant) {
        if self.telling.tracks.is_empty() || self.telling.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.telling.not_before = Some(now + TOLD_INTERVAL);
        for _ in 0..TOLD_MAX {
            let Some(key) = self.telling.tracks.pop_first() else { break };
            let Some((publisher, track)) = self.track(key) else { continue };
            if track.kind != MediaKind::Video {
                continue;
            }
            let (id, wanted, has_socket) =
                (publisher.info.peer, self.wanted_of(publisher, track), publisher.dialect.has_socket());
            let mline = self.publishers.get(&key).map_or(0, |(_, mline)| *mline);
            let track = self.peers.get_mut(&id).and_then(|publisher| publisher.tracks.get_mut(&mline));
            let Some(track) = track else { continue };
            // A recording wants all of it.
            let pixels = wanted.pixels().filter(|_| !track.is_recorded);
            // Its session says what it can in the words of RTCP.
            let has_changed = std::mem::replace(&mut track.pixels_wanted, pixels) != pixels;
            let is_news = track.wanted.replace(wanted.clone()) != Some(wanted.clone());
            if has_changed {
                self.configure(id);
            }
            if is_news && has_socket {
                self.tell(id, Notice::VideoWanted(wanted));
            }
        }
    }

    /// The largest that anybody wants.
    fn wanted_of(&self, publisher: &Peer, track: &Track) -> VideoWanted {
        let mut wanted = VideoWanted { mid: track.mid.clone(), ..VideoWanted::default() };
        for watcher in self.room_peers(&publisher.room) {
            if !watcher.bound.iter().any(|(bound, _)| *bound == track.key) {
                continue;
            }
            let demand = watcher.demands.get(&track.key).copied().unwrap_or_default();
            if demand.is_hidden() {
                continue;
            }
            wanted.watchers += 1;
            match demand.needs() {
                None => wanted.unknown += 1,
                Some((width, height)) => {
                    wanted.width = wanted.width.max(width);
                    wanted.height = wanted.height.max(height);
                    wanted.fps = wanted.fps.max(demand.fps.unwrap_or(0));
                }
            }
        }
        wanted
    }
}

/// A stream or track is named as it was told to the subscriber: by its publisher's names or by ours.
pub(super) fn is_meant(name: &TrackName, publisher: &Peer, track: &Track) -> bool {
    match name {
        TrackName::Stream(name) => *name == track.stream_id || *name == publisher.info.wire_id,
        TrackName::Track(name) => *name == track.id || *name == track.track_id,
    }
}
