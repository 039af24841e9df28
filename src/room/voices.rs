//! Who speaks: the loudness that workers tell, and whom the room sees first.

use std::collections::BTreeSet;
use std::time::Instant;

use super::api::{Notice, Source};
use super::hub::Hub;
use super::peer::Peer;
use crate::base::ids::{PeerId, TrackKey, WorkerId};

impl Hub {
    /// Loudness of a worker's tracks; those not named are silent. Rooms without a change are not looked at.
    pub(super) fn handle_levels(&mut self, now: Instant, worker: WorkerId, levels: &[(TrackKey, u8)]) {
        let Some(loud) = self.loud.get_mut(usize::from(worker.0)) else { return };
        let before = std::mem::replace(loud, levels.iter().map(|(key, _)| *key).collect());
        let mut rooms = BTreeSet::new();
        for (key, loudness) in before.into_iter().map(|key| (key, 0)).chain(levels.iter().copied()) {
            let Some((publisher, mline)) = self.publishers.get(&key) else { continue };
            let Some(publisher) = self.peers.get_mut(publisher) else { continue };
            if let Some(track) = publisher.tracks.get_mut(mline) {
                track.loudness = loudness;
            }
            if !rooms.contains(&publisher.room) {
                rooms.insert(publisher.room.clone());
            }
        }
        rooms.into_iter().for_each(|room| self.compare_voices(now, &room));
    }

    pub(super) fn compare_voices(&mut self, now: Instant, room: &str) {
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
        self.tell_room(room, None, &Notice::Speaker(info));
        if let Some(speaker) = speaker {
            self.show(now, speaker);
        }
    }
}
