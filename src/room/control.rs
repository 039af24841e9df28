//! The one door from signalling to rooms.
//!
//! Owns: who is in which room. This is the smallest version with the agreed signatures: it keeps rooms and passes
//! notices, and has no media plane behind it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{broadcast, mpsc};

use super::api::{
    CloseReason, Dialect, JoinError, JoinRequest, Joined, Notice, PeerControl, PeerInfo, PeerUpdate, RequestError,
    RoomView,
};
use crate::base::ids::PeerId;
use crate::session::negotiate::NegotiateError;
use crate::telemetry::Snapshot;

const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";

/// For the servers that own rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// A user entered.
    PeerJoined {
        /// Room id.
        room: String,
        /// User id.
        user_id: String,
    },
    /// A user left.
    PeerLeft {
        /// Room id.
        room: String,
        /// User id.
        user_id: String,
    },
}

struct Seat {
    room: String,
    info: PeerInfo,
    notices: mpsc::Sender<Notice>,
    expects_answer: bool,
}

#[derive(Default)]
struct Rooms {
    next: u64,
    seats: HashMap<PeerId, Seat>,
    stopping: bool,
}

/// See the module.
pub struct Control {
    rooms: Mutex<Rooms>,
    seats_max: usize,
    events: broadcast::Sender<RoomEvent>,
}

impl Control {
    /// Rooms for `seats_max` peers.
    pub fn new(seats_max: usize) -> Self {
        Self { rooms: Mutex::default(), seats_max, events: broadcast::channel(256).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a room.
    pub fn join(&self, request: JoinRequest) -> Result<Joined, JoinError> {
        let mut rooms = self.lock();
        if rooms.stopping {
            return Err(JoinError::Stopping);
        }
        if rooms.seats.len() >= self.seats_max {
            return Err(JoinError::Full { taken: rooms.seats.len(), seats: self.seats_max });
        }
        rooms.next += 1;
        let peer = PeerId(rooms.next);
        let uuid = format!("00000000-0000-4000-8000-{:012x}", peer.0);
        let user_id = request.user_id.clone().unwrap_or_else(|| uuid.clone());
        let wire_id = if request.dialect == Dialect::Switchboard { uuid } else { user_id.clone() };
        let same = |seat: &Seat| seat.room == request.room && seat.info.user_id == user_id;
        let old = rooms.seats.iter().find(|(_, seat)| same(seat)).map(|(peer, _)| *peer);
        if let Some(old) = old {
            Self::remove(&mut rooms, old, Some(CloseReason::Evicted), &self.events);
        }
        let display_name = request.display_name.clone();
        let info =
            PeerInfo { peer, wire_id: wire_id.clone(), user_id, display_name, audio_muted: false, video_muted: false };
        let others: Vec<PeerInfo> =
            rooms.seats.values().filter(|seat| seat.room == request.room).map(|seat| seat.info.clone()).collect();
        Self::tell(&rooms, &request.room, None, &Notice::PeerJoined(info.clone()));
        let (notices, receiver) = mpsc::channel(256);
        if request.policy.server_offers_first {
            let _ = notices.try_send(Notice::Offer { sdp: ANSWER.to_owned() });
        }
        let expects_answer = request.policy.server_offers_first;
        let user_id = info.user_id.clone();
        rooms.seats.insert(peer, Seat { room: request.room.clone(), info, notices, expects_answer });
        let _ = self.events.send(RoomEvent::PeerJoined { room: request.room, user_id });
        Ok(Joined { peer, wire_id, others, notices: receiver })
    }

    /// The client offers; the answer comes back.
    pub fn offer(&self, peer: PeerId, sdp: &str) -> Result<String, RequestError> {
        let rooms = self.lock();
        rooms.seats.get(&peer).ok_or(RequestError::Gone)?;
        if !sdp.starts_with("v=0") {
            return Err(NegotiateError::Syntax("no v= line".into()).into());
        }
        Ok(ANSWER.to_owned())
    }

    /// The client answers our offer.
    pub fn answer(&self, peer: PeerId, sdp: &str) -> Result<(), RequestError> {
        let mut rooms = self.lock();
        let seat = rooms.seats.get_mut(&peer).ok_or(RequestError::Gone)?;
        if !std::mem::take(&mut seat.expects_answer) {
            return Err(NegotiateError::UnexpectedAnswer.into());
        }
        if !sdp.starts_with("v=0") {
            return Err(NegotiateError::Syntax("no v= line".into()).into());
        }
        Ok(())
    }

    /// Trickled candidate of the peer; ICE-lite needs none, it is only checked for form.
    pub fn candidate(&self, peer: PeerId, candidate: &str) -> Result<(), RequestError> {
        self.lock().seats.get(&peer).ok_or(RequestError::Gone)?;
        let bare = candidate.strip_prefix("a=").unwrap_or(candidate);
        if !bare.starts_with("candidate:") {
            return Err(NegotiateError::Syntax("not a candidate".into()).into());
        }
        Ok(())
    }

    /// The client asks for a fresh offer.
    pub fn renegotiate(&self, peer: PeerId) -> Result<(), RequestError> {
        let mut rooms = self.lock();
        let seat = rooms.seats.get_mut(&peer).ok_or(RequestError::Gone)?;
        seat.expects_answer = true;
        let _ = seat.notices.try_send(Notice::Offer { sdp: ANSWER.to_owned() });
        Ok(())
    }

    /// What a peer says about itself.
    pub fn update(&self, peer: PeerId, update: PeerUpdate) -> Result<(), RequestError> {
        let mut rooms = self.lock();
        let seat = rooms.seats.get_mut(&peer).ok_or(RequestError::Gone)?;
        seat.info.audio_muted = update.audio_muted.unwrap_or(seat.info.audio_muted);
        seat.info.video_muted = update.video_muted.unwrap_or(seat.info.video_muted);
        let (room, info) = (seat.room.clone(), seat.info.clone());
        Self::tell(&rooms, &room, Some(peer), &Notice::PeerUpdated(info));
        Ok(())
    }

    /// The peer is gone.
    pub fn leave(&self, peer: PeerId) {
        Self::remove(&mut self.lock(), peer, None, &self.events);
    }

    /// What somebody else decided about a peer; false when nobody has that name.
    pub fn control_user(&self, room: &str, user_id: &str, _change: PeerControl) -> bool {
        self.lock().seats.values().any(|seat| seat.room == room && seat.info.user_id == user_id)
    }

    /// Throws a user out; false when nobody has that name.
    pub fn disconnect_user(&self, room: &str, user_id: &str) -> bool {
        let mut rooms = self.lock();
        let found = rooms.seats.iter().find(|(_, seat)| seat.room == room && seat.info.user_id == user_id);
        let Some(peer) = found.map(|(peer, _)| *peer) else { return false };
        Self::remove(&mut rooms, peer, Some(CloseReason::Kicked), &self.events);
        true
    }

    /// Rooms with peers.
    pub fn rooms(&self) -> Vec<RoomView> {
        let mut views: HashMap<String, RoomView> = HashMap::new();
        for seat in self.lock().seats.values() {
            let fresh =
                || RoomView { id: seat.room.clone(), created_at: SystemTime::UNIX_EPOCH, peers: Vec::new(), tracks: 0 };
            views.entry(seat.room.clone()).or_insert_with(fresh).peers.push(seat.info.clone());
        }
        views.into_values().collect()
    }

    /// Entries and departures from now on.
    pub fn watch(&self) -> broadcast::Receiver<RoomEvent> {
        self.events.subscribe()
    }

    /// `/debug/rooms`.
    pub fn debug_rooms(&self) -> serde_json::Value {
        self.rooms().iter().map(|room| serde_json::json!({"id": room.id, "peers": room.peers.len()})).collect()
    }

    /// `/debug/peers`.
    pub fn debug_peers(&self) -> serde_json::Value {
        self.lock().seats.values().map(|seat| serde_json::json!({"userId": seat.info.user_id})).collect()
    }

    /// `/debug/tracks`.
    pub fn debug_tracks(&self) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }

    /// Every number for `/metrics`.
    pub fn counters(&self) -> Snapshot {
        Snapshot { rooms: self.rooms().len() as u64, peers: self.lock().seats.len() as u64, ..Snapshot::default() }
    }

    /// Every worker's socket answered its self-check.
    pub fn is_ready(&self) -> bool {
        !self.lock().stopping
    }

    /// Tells all peers that the server stops.
    pub fn stop(&self) {
        let mut rooms = self.lock();
        rooms.stopping = true;
        for peer in rooms.seats.keys().copied().collect::<Vec<_>>() {
            Self::remove(&mut rooms, peer, Some(CloseReason::ServerStopping), &self.events);
        }
    }

    fn remove(rooms: &mut Rooms, peer: PeerId, reason: Option<CloseReason>, events: &broadcast::Sender<RoomEvent>) {
        let Some(seat) = rooms.seats.remove(&peer) else { return };
        if let Some(reason) = reason {
            let _ = seat.notices.try_send(Notice::Closed(reason));
        }
        Self::tell(rooms, &seat.room, None, &Notice::PeerLeft(seat.info.clone()));
        let _ = events.send(RoomEvent::PeerLeft { room: seat.room, user_id: seat.info.user_id });
    }

    fn tell(rooms: &Rooms, room: &str, except: Option<PeerId>, notice: &Notice) {
        for seat in rooms.seats.values().filter(|seat| seat.room == room && Some(seat.info.peer) != except) {
            let _ = seat.notices.try_send(notice.clone());
        }
    }
}
