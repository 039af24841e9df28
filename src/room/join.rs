//! Coming and going: who is in which room.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::{Rng, RngExt};

use super::api::{CloseReason, Dialect, JoinError, JoinRequest, Notice, PeerInfo, RoomEvent};
use super::hub::{Entered, Hub};
use super::impair::BadNetwork;
use super::peer::Peer;
use crate::base::ids::{PeerId, SessionKey, WorkerId};
use crate::proto::ice::LocalCredentials;
use crate::session::feedback::CNAME;
use crate::session::negotiate::{LocalTransport, Negotiation};
use crate::worker::command::{Command, Ticket};

impl Hub {
    /// Enters a room, which is made if it is not there. An older self leaves first.
    pub fn join(&mut self, now: Instant, wall: SystemTime, request: JoinRequest) -> Result<Entered, JoinError> {
        self.join_hiding((now, wall), request, HashSet::new())
    }

    /// The same for a peer that is not to get the media of these users.
    pub fn join_hiding(
        &mut self,
        (now, wall): (Instant, SystemTime),
        request: JoinRequest,
        hidden: HashSet<String>,
    ) -> Result<Entered, JoinError> {
        self.make_way(now, &request)?;
        self.last_peer += 1;
        let id = PeerId(self.last_peer);
        let uuid = uuid_v4(&mut self.rng);
        let user_id = request.user_id.unwrap_or_else(|| uuid.clone());
        let wire_id = if request.dialect.has_peer_ids() { uuid } else { user_id.clone() };
        let display_name = request.display_name;
        let info = PeerInfo { peer: id, wire_id, user_id, display_name, audio_muted: false, video_muted: false };
        let info = Arc::new(info);
        self.enter_room((now, wall), &request.room, request.dialect, &info);
        let (session, placed, local) = self.open_session(&request.room, id);
        let peer = Peer {
            info: Arc::clone(&info),
            room: request.room.clone(),
            dialect: request.dialect,
            stream_names: request.stream_names,
            capabilities: request.capabilities,
            is_server_muted: false,
            is_deafened: false,
            hidden,
            muted: Default::default(),
            pinned: Default::default(),
            negotiation: Negotiation::new(request.policy, local, self.rng.random()),
            session,
            owner: None,
            placed,
            media: None,
            tracks: BTreeMap::new(),
            sources: HashMap::new(),
            bound: Vec::new(),
            told: Arc::default(),
            asked_for: 0,
            asked_at: None,
            offered_at: None,
            ignores_offers: false,
            demands: HashMap::new(),
            choice: Default::default(),
            downlink_bps_max: None,
            stay: None,
            watches_quality: false,
            quality: None,
            network: BadNetwork::default(),
            silent_s: 0.0,
        };
        self.by_session.insert(session, id);
        self.peers.insert(id, peer);
        self.settle(id, None, placed);
        let others = self.others(&request.room, id);
        if request.dialect.is_announced() {
            self.tell_room(&request.room, Some(id), &Notice::PeerJoined(Arc::clone(&info)));
            self.tell_watchers(RoomEvent::PeerJoined { room: request.room, user_id: info.user_id.clone() });
        }
        self.subscribe(now, id);
        Ok(Entered { peer: id, wire_id: info.wire_id.clone(), others })
    }

    /// Whether somebody may enter. An older self leaves, and who is absent where seats are short.
    fn make_way(&mut self, now: Instant, request: &JoinRequest) -> Result<(), JoinError> {
        if self.is_stopping {
            return Err(JoinError::Stopping);
        }
        let is_publisher = |peer: &Peer| peer.dialect == Dialect::Whip;
        if request.dialect == Dialect::Whip && self.room_peers(&request.room).any(is_publisher) {
            return Err(JoinError::HasPublisher);
        }
        let viewers = self.rooms.get(&request.room).map_or(0, |room| room.viewers);
        if let Some(max) = self.viewers_max.filter(|max| !request.dialect.is_announced() && viewers >= *max) {
            return Err(JoinError::TooManyViewers { max });
        }
        let old = request.user_id.as_ref().and_then(|user_id| self.find(&request.room, user_id));
        if let Some(old) = old {
            self.close(now, old, CloseReason::Evicted);
        }
        if self.peers.len() >= self.config.seats && !self.forget_longest_away(now) {
            return Err(JoinError::Full { taken: self.peers.len(), seats: self.config.seats });
        }
        self.check_limits(request)
    }

    /// Whom a peer finds in its room.
    pub(super) fn others(&self, room: &str, id: PeerId) -> Vec<Arc<PeerInfo>> {
        let others = self.room_peers(room).filter(|peer| peer.info.peer != id && peer.dialect.is_announced());
        others.map(|peer| Arc::clone(&peer.info)).collect()
    }

    fn enter_room(&mut self, at: (Instant, SystemTime), room: &str, dialect: Dialect, info: &PeerInfo) {
        if !self.rooms.contains_key(room) {
            self.open_room(at, room, room);
        }
        if let Some(room) = self.rooms.get_mut(room) {
            room.changed_at = at.0;
            room.peers.push(info.peer);
            room.viewers += usize::from(!dialect.is_announced());
            room.by_user.insert(info.user_id.clone(), info.peer);
        }
    }

    /// The peer counts for another worker from now on.
    pub(super) fn settle(&mut self, id: PeerId, from: Option<WorkerId>, to: Option<WorkerId>) {
        let Some(peer) = self.peers.get(&id) else { return };
        self.account(&peer.room.clone(), peer.bound.len(), from, to);
    }

    pub(super) fn account(&mut self, room: &str, subscriptions: usize, from: Option<WorkerId>, to: Option<WorkerId>) {
        if from == to {
            return;
        }
        let Some(room) = self.rooms.get_mut(room) else { return };
        if let Some(worker) = from {
            self.placement.leave(worker, subscriptions);
            room.by_worker[usize::from(worker.0)] -= 1;
        }
        if let Some(worker) = to {
            self.placement.enter(worker, subscriptions);
            room.by_worker[usize::from(worker.0)] += 1;
        }
    }

    /// The media session of a new peer: workers answer its checks from here on.
    pub(super) fn open_session(&mut self, room: &str, id: PeerId) -> (SessionKey, Option<WorkerId>, LocalTransport) {
        let (index, epoch) = self.sessions.take();
        let session = SessionKey { index, epoch };
        let by_worker = self.rooms.get(room).map_or(&[][..], |room| &room.by_worker);
        let placed = (self.config.addresses.len() > 1).then(|| self.placement.choose(by_worker));
        let credentials = LocalCredentials::generate(&mut self.rng);
        let local = LocalTransport {
            ufrag: credentials.ufrag().as_str().to_owned(),
            pwd: credentials.pwd().to_owned(),
            fingerprint: self.config.fingerprint,
            candidates: self.candidates(placed),
            cname: CNAME.to_owned(),
        };
        let ticket = Arc::new(Ticket::new(session, id));
        self.opening(placed, &Command::Open { ticket, credentials });
        (session, placed, local)
    }

    /// A peer goes.
    pub fn leave(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (room, worker, subscriptions) = (peer.room.clone(), peer.worker(), peer.bound.len());
        self.account(&room, subscriptions, worker, None);
        self.unroute(id);
        let Some(peer) = self.peers.remove(&id) else { return };
        self.telling.note(peer.bound.iter().map(|(track, _)| *track));
        self.by_session.remove(&peer.session);
        self.command_after_plan(peer.placed, &Command::Close { session: peer.session });
        self.sessions.give_back(peer.session.index);
        let was_speaker = self.leave_room(now, &peer);
        if peer.dialect.is_announced() {
            self.tell_room(&room, None, &Notice::PeerLeft(Arc::clone(&peer.info)));
            self.tell_watchers(RoomEvent::PeerLeft { room: room.clone(), user_id: peer.info.user_id.clone() });
        }
        let tracks: Vec<_> = peer.tracks.values().map(|track| track.key).collect();
        self.withdraw(now, &room, &tracks);
        if was_speaker && !self.is_stopping {
            self.compare_voices(now, &room);
        }
    }

    /// Whether it was the room's speaker.
    fn leave_room(&mut self, now: Instant, peer: &Peer) -> bool {
        let id = peer.info.peer;
        let Some(room) = self.rooms.get_mut(&peer.room) else { return false };
        room.changed_at = now;
        if let Ok(at) = room.peers.binary_search(&id) {
            room.peers.remove(at);
        }
        room.speakers.retain(|other| *other != id);
        room.viewers -= usize::from(!peer.dialect.is_announced());
        room.by_user.remove(&peer.info.user_id);
        let was_speaker = room.speaker.current() == Some(id);
        if room.peers.is_empty() && !room.is_kept {
            self.close_room_of_nobody(&peer.room);
        }
        was_speaker
    }

    pub(super) fn close(&mut self, now: Instant, id: PeerId, reason: CloseReason) {
        self.tell(id, Notice::Closed(reason));
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

    pub(super) fn candidates(&self, placed: Option<WorkerId>) -> Vec<SocketAddr> {
        let list = placed.map_or(0, |worker| usize::from(worker.0));
        self.config.addresses.get(list).cloned().unwrap_or_default()
    }
}

/// A random UUID (RFC 9562 §5.4).
pub(super) fn uuid_v4(rng: &mut impl Rng) -> String {
    let bits = (rng.random::<u128>() & !(0xf << 76) | (4 << 76)) & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
