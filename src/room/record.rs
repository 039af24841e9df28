//! What is recorded: a setting of each room, and what its workers are told of it.
//!
//! Promises: a track is recorded from its first packet on, or from the request on; a room keeps its setting for its life.
//! Forbids: files.

use std::sync::Arc;

use super::hub::Hub;
use crate::base::ids::PeerId;
use crate::worker::command::{Command, Recorded};

/// How a room is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordWish {
    /// Also one file for each publisher, with all that it sends in sync.
    pub is_muxed: bool,
}

/// Why a room cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is no such room.
    #[error("there is no such room; a room is there while somebody is in it")]
    NoRoom,
}

impl Hub {
    /// What rooms that are made from now on are recorded with.
    pub fn record_rooms(&mut self, wish: Option<RecordWish>) {
        self.recording = wish;
    }

    /// How a room is recorded, if it is.
    pub fn recording(&self, room: &str) -> Result<Option<RecordWish>, RecordError> {
        self.rooms.get(room).map(|room| room.recording).ok_or(RecordError::NoRoom)
    }

    /// Begins or ends the recording of a room. What goes on goes on as it was.
    pub fn record(&mut self, room: &str, wish: Option<RecordWish>) -> Result<(), RecordError> {
        self.rooms.get_mut(room).ok_or(RecordError::NoRoom)?.recording = wish;
        for id in self.room_ids(room) {
            self.record_tracks(id);
        }
        Ok(())
    }

    /// Tells the peer's worker which of its tracks are recorded, where that changed.
    pub(super) fn record_tracks(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (owner, placed) = (peer.owner, peer.placed);
        let wish = self.rooms.get(&peer.room).and_then(|room| room.recording);
        let mut commands = Vec::new();
        for track in peer.tracks.values_mut().filter(|track| track.is_recorded != wish.is_some()) {
            track.is_recorded = wish.is_some();
            // Its publisher is asked for more, or may send less again.
            self.telling.note([track.key]);
            commands.push(match wish {
                Some(wish) => Command::Record(Arc::new(Recorded {
                    track: track.key,
                    kind: track.kind,
                    id: track.id.clone(),
                    room: peer.room.clone(),
                    publisher: id,
                    user_id: peer.info.user_id.clone(),
                    is_muxed: wish.is_muxed,
                })),
                None => Command::StopRecording { track: track.key },
            });
        }
        for command in &commands {
            match owner {
                Some(owner) => self.command(Some(owner), command),
                // Whoever comes to own it has it recorded from the first packet on.
                None => self.opening(placed, command),
            }
        }
    }
}
