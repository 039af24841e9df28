//! Coming and going: who is in which room.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::{Rng, RngExt};

use super::api::{CloseReason, Dialect, JoinError, JoinRequest, Notice, PeerInfo, RoomEvent};
use super::hub::{Entered, Hub, Output, Room};
use super::peer::Peer;
use crate::base::ids::{PeerId, SessionKey, WorkerId};
use crate::forward::speaker::DominantSpeaker;
use crate::proto::ice::LocalCredentials;
use crate::session::feedback::CNAME;
use crate::session::negotiate::{LocalTransport, Negotiation};
use crate::worker::command::{Command, Ticket};

impl Hub {
    /// Enters a room, which is made if it is not there. An older self leaves first.
    pub fn join(&mut self, now: Instant, wall: SystemTime, request: JoinRequest) -> Result<Entered, JoinError> {
        if self.is_stopping {
            return Err(JoinError::Stopping);
        }
        let is_publisher = |peer: &Peer| peer.dialect == Dialect::Whip;
        if request.dialect == Dialect::Whip && self.room_peers(&request.room).any(is_publisher) {
            return Err(JoinError::HasPublisher);
        }
        let old = request.user_id.as_ref().and_then(|user_id| self.find(&request.room, user_id));
        if let Some(old) = old {
            self.close(now, old, CloseReason::Evicted);
        }
        if self.peers.len() >= self.config.seats {
            return Err(JoinError::Full { taken: self.peers.len(), seats: self.config.seats });
        }
        self.last_peer += 1;
        let id = PeerId(self.last_peer);
        let uuid = uuid_v4(&mut self.rng);
        let user_id = request.user_id.unwrap_or_else(|| uuid.clone());
        let wire_id = if request.dialect == Dialect::Switchboard { uuid } else { user_id.clone() };
        let display_name = request.display_name;
        let info = PeerInfo { peer: id, wire_id, user_id, display_name, audio_muted: false, video_muted: false };
        let (session, placed, local) = self.open_session(id);
        let peer = Peer {
            info: info.clone(),
            room: request.room.clone(),
            dialect: request.dialect,
            stream_names: request.stream_names,
            capabilities: request.capabilities,
            is_server_muted: false,
            is_deafened: false,
            hidden: Default::default(),
            negotiation: Negotiation::new(request.policy, local, self.rng.random()),
            session,
            owner: None,
            placed,
            media: None,
            tracks: BTreeMap::new(),
            sources: HashMap::new(),
            bound: Vec::new(),
            told: Vec::new(),
            asked_for: 0,
            offered_at: None,
            ignores_offers: false,
            silent_s: 0.0,
        };
        self.by_session.insert(session, id);
        let others = self.others(&request.room, id);
        if request.dialect.is_announced() {
            self.tell(&request.room, id, &Notice::PeerJoined(info.clone()));
        }
        self.peers.insert(id, peer);
        let room = self.rooms.entry(request.room.clone()).or_insert_with(|| Room {
            created_at: wall,
            peers: Vec::new(),
            speaker: DominantSpeaker::default(),
            speakers: Vec::new(),
        });
        room.peers.push(id);
        let entered = Entered { peer: id, wire_id: info.wire_id, others };
        if request.dialect.is_announced() {
            let event = RoomEvent::PeerJoined { room: request.room, user_id: info.user_id };
            self.outputs.push_back(Output::ToWatchers(event));
        }
        self.subscribe(now, id);
        Ok(entered)
    }

    /// The media session of a new peer: workers answer its checks from here on.
    fn open_session(&mut self, id: PeerId) -> (SessionKey, Option<WorkerId>, LocalTransport) {
        let (index, epoch) = self.sessions.take();
        let session = SessionKey { index, epoch };
        let placed = (self.config.addresses.len() > 1).then(|| self.least_loaded());
        let credentials = LocalCredentials::generate(&mut self.rng);
        let local = LocalTransport {
            ufrag: credentials.ufrag().as_str().to_owned(),
            pwd: credentials.pwd().to_owned(),
            fingerprint: self.config.fingerprint,
            candidates: self.candidates(placed),
            cname: CNAME.to_owned(),
        };
        let ticket = Arc::new(Ticket::new(session, id));
        self.command(None, &Command::Open { ticket, credentials });
        (session, placed, local)
    }

    fn others(&self, room: &str, except: PeerId) -> Vec<PeerInfo> {
        let others = self.room_peers(room).filter(|peer| peer.info.peer != except && peer.dialect.is_announced());
        others.map(|peer| peer.info.clone()).collect()
    }

    /// A peer goes.
    pub fn leave(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        self.by_session.remove(&peer.session);
        self.command(None, &Command::Close { session: peer.session });
        self.sessions.give_back(peer.session.index);
        for (track, _) in &peer.bound {
            self.route(*track);
        }
        for track in peer.tracks.values() {
            self.end_track(track.key);
        }
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.peers.retain(|other| *other != id);
            room.speakers.retain(|other| *other != id);
            if room.peers.is_empty() {
                self.rooms.remove(&peer.room);
            }
        }
        if peer.dialect.is_announced() {
            self.tell(&peer.room, id, &Notice::PeerLeft(peer.info.clone()));
            let event = RoomEvent::PeerLeft { room: peer.room.clone(), user_id: peer.info.user_id.clone() };
            self.outputs.push_back(Output::ToWatchers(event));
        }
        if !self.is_stopping {
            self.subscribe_room(now, &peer.room);
        }
    }

    pub(super) fn close(&mut self, now: Instant, id: PeerId, reason: CloseReason) {
        self.outputs.push_back(Output::ToPeer(id, Notice::Closed(reason)));
        self.leave(now, id);
    }

    /// A peer does not read its notices.
    pub fn handle_slow_peer(&mut self, now: Instant, id: PeerId) {
        self.leave(now, id);
    }

    /// All peers are told and leave; no more come.
    pub fn stop(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        let ids: Vec<_> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(now, id, CloseReason::ServerStopping));
        self.command(None, &Command::Stop);
    }

    fn candidates(&self, placed: Option<WorkerId>) -> Vec<SocketAddr> {
        let list = placed.map_or(0, |worker| usize::from(worker.0));
        self.config.addresses.get(list).cloned().unwrap_or_default()
    }

    fn least_loaded(&self) -> WorkerId {
        let load = |worker: &u8| self.peers.values().filter(|peer| peer.placed == Some(WorkerId(*worker))).count();
        WorkerId((0..self.config.workers as u8).min_by_key(load).unwrap_or(0))
    }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid_v4(rng: &mut impl Rng) -> String {
    let bits = (rng.random::<u128>() & !(0xf << 76) | (4 << 76)) & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
