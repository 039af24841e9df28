//! Who speaks and who is heard: the activity that workers tell, whom the room sees first, what listeners want to hear.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::api::{Listening, Notice, RequestError};
use super::hub::Hub;
use super::peer::{Peer, Track};
use crate::base::ids::{PeerId, TrackKey, WorkerId};
use crate::forward::speaker::Activity;
use crate::forward::table::Subscriber;

/// Whoever spoke last stays dominant through a pause, and a pause for thought is shorter than this.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A microphone that sends nothing at all for so long is off, whether its client says so or not: the longest that Opus
/// leaves out (DTX) is less than half a second, and packets are counted once a second.
const OFF_AFTER: Duration = Duration::from_secs(3);

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
        let voice = |peer: &Peer| Some((peer.info.peer, peer.voices().map(|track| track.activity).max()?));
        let voices: Vec<(PeerId, Activity)> = self.room_peers(room).filter_map(voice).collect();
        let Some(state) = self.rooms.get_mut(room) else { return };
        let has_changed = state.speaker.update(voices.iter().copied());
        let is_active = |who: PeerId| voices.iter().any(|(peer, voice)| *peer == who && *voice != Activity::default());
        if has_changed || state.speaker.current().is_some_and(is_active) {
            state.heard_at = Some(now);
        }
        if !has_changed {
            return;
        }
        let speaker = state.speaker.current();
        if let Some(speaker) = speaker {
            state.speakers.retain(|other| *other != speaker);
            state.speakers.insert(0, speaker);
        }
        self.tell_speaker(room, speaker);
        if let Some(speaker) = speaker {
            self.show(now, speaker);
        }
    }

    /// Nobody is dominant where who was has been silent for long, or has no microphone on.
    pub(super) fn forget_silent_speakers(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for (name, room) in &mut self.rooms {
            let Some(peer) = room.speaker.current().and_then(|speaker| self.peers.get(&speaker)) else { continue };
            let is_on = |track: &Track| track.moved_at.is_none_or(|at| now < at + OFF_AFTER);
            let has_paused = room.heard_at.is_none_or(|at| now >= at + PAUSE_MAX);
            if (has_paused || !peer.voices().any(is_on)) && room.speaker.clear() {
                silent.push(name.clone());
            }
        }
        silent.into_iter().for_each(|room| self.tell_speaker(&room, None));
    }

    fn tell_speaker(&mut self, room: &str, speaker: Option<PeerId>) {
        let info = speaker.and_then(|speaker| self.peers.get(&speaker)).map(|peer| peer.info.clone());
        self.tell_room(room, None, &Notice::Speaker(info));
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
