//! Who speaks and who is heard: the activity that workers tell, whom the room sees first, what listeners want to hear.

use std::collections::BTreeSet;
use std::time::Instant;

use super::api::{Listening, Notice, RequestError};
use super::hub::Hub;
use super::peer::Peer;
use crate::base::ids::{PeerId, TrackKey, WorkerId};
use crate::forward::speaker::Activity;
use crate::forward::table::Subscriber;

impl Hub {
    /// How active a worker's voices are; those not named are silent. Rooms without a change are not looked at.
    pub(super) fn handle_voices(&mut self, now: Instant, worker: WorkerId, voices: &[(TrackKey, Activity)]) {
        let Some(loud) = self.loud.get_mut(usize::from(worker.0)) else { return };
        let before = std::mem::replace(loud, voices.iter().map(|(key, _)| *key).collect());
        let mut rooms = BTreeSet::new();
        let silent = before.into_iter().map(|key| (key, Activity::default()));
        for (key, activity) in silent.chain(voices.iter().copied()) {
            let Some((publisher, mline)) = self.publishers.get(&key) else { continue };
            let Some(publisher) = self.peers.get_mut(publisher) else { continue };
            if let Some(track) = publisher.tracks.get_mut(mline) {
                track.activity = activity;
            }
            if !rooms.contains(&publisher.room) {
                rooms.insert(publisher.room.clone());
            }
        }
        rooms.into_iter().for_each(|room| self.compare_voices(now, &room));
    }

    pub(super) fn compare_voices(&mut self, now: Instant, room: &str) {
        let voice = |peer: &Peer| {
            let voices = peer.tracks.values().filter(|track| peer.is_voice(track));
            (peer.info.peer, voices.map(|track| track.activity).max().unwrap_or_default())
        };
        let voices: Vec<(PeerId, Activity)> = self.room_peers(room).map(voice).collect();
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
        self.tell_room(room, None, &Notice::Speaker(info));
        if let Some(speaker) = speaker {
            self.show(now, speaker);
        }
    }

    /// Whom a peer wants to hear however quiet they are, and whom not at all.
    pub fn listen(&mut self, now: Instant, id: PeerId, listening: Listening) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        if let Some(pinned) = listening.pinned_user_ids {
            peer.pinned = pinned.into_iter().collect();
        }
        if let Some(muted) = listening.muted_user_ids {
            peer.muted = muted.into_iter().collect();
        }
        self.pin(id);
        self.subscribe(now, id);
        Ok(())
    }

    /// Brings the pins of what a peer receives in line with its wishes.
    pub(super) fn pin(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.owner.is_some()) else { return };
        let is_pinned = |(key, mline): &(TrackKey, u16)| {
            let (publisher, track) = self.track(*key).filter(|(publisher, track)| publisher.is_voice(track))?;
            let subscriber = Subscriber { session: peer.session, mline: *mline };
            Some((track.key, subscriber, peer.pinned.contains(&publisher.info.user_id)))
        };
        let pins: Vec<_> = peer.bound.iter().filter_map(is_pinned).collect();
        pins.into_iter().for_each(|(track, subscriber, is_pinned)| self.plan.pin(track, subscriber, is_pinned));
    }

    /// Whether a voice does not reach a peer as others are louder.
    pub(super) fn is_unheard(&self, listener: &Peer, track: TrackKey) -> bool {
        let report = listener.owner.and_then(|owner| self.reports.get(usize::from(owner.0)));
        report.is_some_and(|report| report.is_unheard(track, listener.session))
    }
}
