//! Rooms as such: made by themselves or by their first peer, counted, limited, listed, closed.
//!
//! Owns: how many there may be and how many peers in each. Promises: a room that was made by itself waits for peers, and
//! is dropped when none has been there for long; any other ends with its last peer.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::api::{CloseReason, JoinError, JoinRequest, RoomView};
use super::control::Control;
use super::hub::{Hub, Room};
use super::join::uuid_v4;
use crate::base::ids::RoomKey;
use crate::forward::speaker::DominantSpeaker;

/// A room that was made and is not used is dropped then, as Gryt's SFU does it.
pub const EMPTY_MAX: Duration = Duration::from_secs(30 * 60);

/// How many rooms, and how many peers in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Rooms at once.
    pub rooms: usize,
    /// Peers of one room that are announced, so without WHEP's viewers. `None`: as many as there are seats.
    pub peers: Option<usize>,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self { rooms: usize::MAX, peers: None }
    }
}

impl Hub {
    /// Sets the limits for all who come from now on.
    pub fn set_room_limits(&mut self, limits: RoomLimits) {
        self.limits = limits;
    }

    /// Makes a room that waits for peers. Its id is its name where that can be one and is not taken, as `is_id` says.
    pub fn create_room(
        &mut self,
        (now, wall): (Instant, SystemTime),
        name: &str,
        places: Option<usize>,
        is_id: bool,
    ) -> Result<RoomView, JoinError> {
        self.check_room_count()?;
        let is_free = is_id && !self.rooms.contains_key(name);
        let id = if is_free { name.to_owned() } else { uuid_v4(&mut self.rng) };
        self.open_room((now, wall), &id, name);
        if let Some(room) = self.rooms.get_mut(&id) {
            (room.is_kept, room.places) = (true, places);
        }
        self.room(&id).ok_or(JoinError::Stopping)
    }

    /// Ends a room: all its peers leave. `false`: there is none.
    pub fn close_room(&mut self, now: Instant, id: &str) -> bool {
        let Some(room) = self.rooms.get_mut(id) else { return false };
        room.is_kept = false;
        let peers = room.peers.clone();
        if peers.is_empty() {
            self.close_room_of_nobody(id);
        }
        peers.into_iter().for_each(|peer| self.close(now, peer, CloseReason::Kicked));
        true
    }

    /// One room.
    pub fn room(&self, id: &str) -> Option<RoomView> {
        self.rooms.get(id).map(|room| self.room_view(id, room))
    }

    pub(super) fn room_view(&self, id: &str, room: &Room) -> RoomView {
        let (made_at, created_at) = room.created_at;
        RoomView {
            id: id.to_owned(),
            name: room.name.clone(),
            created_at,
            updated_at: created_at + room.changed_at.saturating_duration_since(made_at),
            peers: self.room_peers(id).map(|peer| peer.info.clone()).collect(),
            tracks: self.room_peers(id).map(|peer| peer.tracks.len()).sum(),
            subscribers: self.room_peers(id).filter(|peer| !peer.bound.is_empty()).count(),
        }
    }

    pub(super) fn check_limits(&self, request: &JoinRequest) -> Result<(), JoinError> {
        let Some(room) = self.rooms.get(&request.room) else { return self.check_room_count() };
        let Some(places) = room.places.or(self.limits.peers).filter(|_| request.dialect.is_announced()) else {
            return Ok(());
        };
        let taken = room.peers.len() - room.viewers;
        if taken >= places { Err(JoinError::RoomFull { taken, places }) } else { Ok(()) }
    }

    fn check_room_count(&self) -> Result<(), JoinError> {
        match self.is_stopping {
            true => Err(JoinError::Stopping),
            false if self.rooms.len() >= self.limits.rooms => Err(JoinError::TooManyRooms(self.limits.rooms)),
            false => Ok(()),
        }
    }

    pub(super) fn open_room(&mut self, (now, wall): (Instant, SystemTime), id: &str, name: &str) {
        let (index, epoch) = self.room_keys.take();
        let room = Room {
            key: RoomKey { index, epoch },
            name: name.to_owned(),
            created_at: (now, wall),
            changed_at: now,
            is_kept: false,
            places: None,
            peers: Vec::new(),
            by_user: HashMap::new(),
            by_worker: vec![0; self.config.workers],
            speaker: DominantSpeaker::default(),
            speakers: Vec::new(),
            heard_at: None,
            recording: self.recording,
            viewers: 0,
        };
        self.rooms.insert(id.to_owned(), room);
    }

    pub(super) fn close_room_of_nobody(&mut self, id: &str) {
        if let Some(room) = self.rooms.remove(id) {
            self.room_keys.give_back(room.key.index);
        }
    }

    /// Rooms that wait for peers in vain.
    pub(super) fn drop_empty_rooms(&mut self, now: Instant) {
        let is_over = |room: &Room| room.peers.is_empty() && now >= room.changed_at + EMPTY_MAX;
        let over: Vec<_> = self.rooms.iter().filter(|(_, room)| is_over(room)).map(|(id, _)| id.clone()).collect();
        over.iter().for_each(|id| self.close_room_of_nobody(id));
    }
}

impl Control {
    /// See [`Hub::create_room`].
    pub fn create_room(&self, name: &str, places: Option<usize>, is_id: bool) -> Result<RoomView, JoinError> {
        self.with(|hub| hub.create_room(Self::now(), name, places, is_id))
    }

    /// One room.
    pub fn room(&self, id: &str) -> Option<RoomView> {
        self.lock().hub.room(id)
    }
}
