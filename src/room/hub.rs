//! Rooms as a pure state machine: requests and worker events in, commands and notices out.
//!
//! Owns: peers, rooms, keys, the fanout plan. Promises: commands leave in the order of their causes; a refused request
//! changes nothing. Forbids: sockets, tasks, clocks; the simulator drives the very same hub.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::api::{
    CloseReason, Dialect, JoinError, JoinRequest, MediaState, Notice, PeerControl, PeerInfo, PeerUpdate, RequestError,
    RoomEvent,
};
use super::peer::{Peer, Track};
use crate::base::ids::{KeyPool, PeerId, SessionKey, TrackKey, WorkerId};
use crate::crypto::cert::Fingerprint;
use crate::forward::plan::{Plan, SharedTable};
use crate::forward::speaker::DominantSpeaker;
use crate::proto::ice::LocalCredentials;
use crate::session::feedback::CNAME;
use crate::session::negotiate::{LocalTransport, NegotiateError, Negotiation};
use crate::worker::command::{Command, Event, RemoteTransport, Ticket, WorkerReport};

/// How long an offer of ours may stay unanswered before the client counts as one that ignores offers.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A peer that sent no check for so long is in trouble: libwebrtc checks its pair every 2.5 s.
const CHECK_SILENCE_S: f32 = 5.0;

/// What a hub is made with.
#[derive(Debug)]
pub struct HubConfig {
    /// Most peers at once.
    pub seats: usize,
    /// Media workers.
    pub workers: usize,
    /// Addresses to announce: one list for all workers, or one list for each (own ports).
    pub addresses: Vec<Vec<SocketAddr>>,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
}

/// What the hub wants done.
#[derive(Debug)]
pub enum Output {
    /// A command for a worker.
    ToWorker(WorkerId, Box<Command>),
    /// Something a peer must be told.
    ToPeer(PeerId, Notice),
    /// For those who watch all rooms.
    ToWatchers(RoomEvent),
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub created_at: SystemTime,
    /// In order of joining.
    pub peers: Vec<PeerId>,
    pub speaker: DominantSpeaker<PeerId>,
    /// Who spoke, latest first.
    pub speakers: Vec<PeerId>,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: HubConfig,
    rng: StdRng,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) rooms: HashMap<String, Room>,
    by_session: HashMap<SessionKey, PeerId>,
    /// Publisher of each track.
    pub(super) publishers: HashMap<TrackKey, PeerId>,
    sessions: KeyPool,
    track_keys: KeyPool,
    last_peer: u64,
    pub(super) plan: Plan,
    pub(super) outputs: VecDeque<Output>,
    pub(super) reports: Vec<WorkerReport>,
    self_checked: Vec<bool>,
    is_stopping: bool,
}

/// What a join brings.
#[derive(Clone, Debug)]
pub struct Entered {
    /// Handle.
    pub peer: PeerId,
    /// The id others see.
    pub wire_id: String,
    /// Who was there before.
    pub others: Vec<PeerInfo>,
}

impl Hub {
    /// No rooms yet. `rng` makes passwords: it must be unpredictable, except in simulation.
    pub fn new(config: HubConfig, rng: StdRng) -> Self {
        let workers = config.workers;
        Self {
            config,
            rng,
            peers: BTreeMap::new(),
            rooms: HashMap::new(),
            by_session: HashMap::new(),
            publishers: HashMap::new(),
            sessions: KeyPool::default(),
            track_keys: KeyPool::default(),
            last_peer: 0,
            plan: Plan::default(),
            outputs: VecDeque::new(),
            reports: vec![WorkerReport::default(); workers],
            self_checked: vec![false; workers],
            is_stopping: false,
        }
    }

    /// The table that workers read.
    pub fn table(&self) -> SharedTable {
        self.plan.shared()
    }

    /// What is to be done, in order. The fanout plan is published before the last of it is handed out.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.plan.publish();
        }
        self.outputs.pop_front()
    }

    /// Enters a room, which is made if it is not there. An older self leaves first.
    pub fn join(&mut self, now: Instant, wall: SystemTime, request: JoinRequest) -> Result<Entered, JoinError> {
        if self.is_stopping {
            return Err(JoinError::Stopping);
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
        let (index, epoch) = self.sessions.take();
        let session = SessionKey { index, epoch };
        let placed = (self.config.addresses.len() > 1).then(|| self.least_loaded());
        let credentials = LocalCredentials::generate(&mut self.rng);
        let local = LocalTransport {
            ufrag: credentials.ufrag().as_str().to_owned(),
            pwd: credentials.pwd().to_owned(),
            fingerprint: self.config.fingerprint.to_string(),
            candidates: self.candidates(placed),
            cname: CNAME.to_owned(),
        };
        let ticket = Arc::new(Ticket::new(session, id));
        self.command(None, &Command::Open { ticket, credentials });
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
        self.tell(&request.room, id, &Notice::PeerJoined(info.clone()));
        self.peers.insert(id, peer);
        let room = self.rooms.entry(request.room.clone()).or_insert_with(|| Room {
            created_at: wall,
            peers: Vec::new(),
            speaker: DominantSpeaker::default(),
            speakers: Vec::new(),
        });
        room.peers.push(id);
        let entered = Entered { peer: id, wire_id: info.wire_id, others };
        self.outputs.push_back(Output::ToWatchers(RoomEvent::PeerJoined { room: request.room, user_id: info.user_id }));
        self.subscribe(now, id);
        Ok(entered)
    }

    fn others(&self, room: &str, except: PeerId) -> Vec<PeerInfo> {
        self.room_peers(room).filter(|peer| peer.info.peer != except).map(|peer| peer.info.clone()).collect()
    }

    /// The client offers; the answer comes back.
    pub fn offer(&mut self, now: Instant, id: PeerId, sdp: &str) -> Result<String, RequestError> {
        let wanted = self.wanted(id);
        let credentials = LocalCredentials::generate(&mut self.rng);
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let is_restart = peer.negotiation.restarts_ice(sdp);
        // Tried on a copy: a refused offer leaves everything as it was.
        let mut negotiation = peer.negotiation.clone();
        if is_restart {
            negotiation.ice_restart(credentials.ufrag().as_str().to_owned(), credentials.pwd().to_owned());
        }
        negotiation.set_wanted(&wanted);
        let answer = negotiation.accept_offer(sdp)?;
        peer.negotiation = negotiation;
        peer.offered_at = None;
        peer.asked_for = 0;
        if is_restart {
            let (session, owner) = (peer.session, peer.owner);
            self.command(owner, &Command::Restart { session, credentials });
        }
        self.handle_negotiated(now, id);
        Ok(answer)
    }

    /// The client answers our offer.
    pub fn answer(&mut self, now: Instant, id: PeerId, sdp: &str) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        peer.negotiation.accept_answer(sdp)?;
        peer.offered_at = None;
        peer.ignores_offers = false;
        self.handle_negotiated(now, id);
        Ok(())
    }

    /// A trickled candidate. ICE-lite learns every address from checks (RFC 8445 §7.3.1.3), so only its form counts.
    pub fn candidate(&self, id: PeerId, candidate: &str) -> Result<(), RequestError> {
        self.peers.get(&id).ok_or(RequestError::Gone)?;
        let text = candidate.trim();
        let text = text.strip_prefix("a=").unwrap_or(text);
        // An empty one means there are no more.
        if text.is_empty() || text.starts_with("candidate:") || text == "end-of-candidates" {
            return Ok(());
        }
        Err(NegotiateError::Syntax("a candidate begins with \"candidate:\"".to_owned()).into())
    }

    /// The client wants a fresh offer; one that restarts ICE when its path seems to be lost.
    pub fn renegotiate(&mut self, now: Instant, id: PeerId) -> Result<(), RequestError> {
        let credentials = LocalCredentials::generate(&mut self.rng);
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let is_lost = peer.media == Some(MediaState::Disconnected) || peer.silent_s > CHECK_SILENCE_S;
        let asks_for_restart = peer.dialect == Dialect::GrytDocumented;
        if peer.media.is_some() && (is_lost || asks_for_restart) {
            peer.negotiation.drop_pending_offer();
            peer.negotiation.ice_restart(credentials.ufrag().as_str().to_owned(), credentials.pwd().to_owned());
            let (session, owner) = (peer.session, peer.owner);
            self.command(owner, &Command::Restart { session, credentials });
        }
        self.make_offer(now, id);
        Ok(())
    }

    /// What a peer says about itself.
    pub fn update(&mut self, now: Instant, id: PeerId, update: PeerUpdate) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let before = peer.info.clone();
        peer.info.audio_muted = update.audio_muted.unwrap_or(peer.info.audio_muted);
        peer.info.video_muted = update.video_muted.unwrap_or(peer.info.video_muted);
        peer.info.display_name = update.display_name.unwrap_or_else(|| peer.info.display_name.clone());
        let mids: Vec<String> = peer.tracks.values().map(|track| track.mid.clone()).collect();
        let known = update.sources.into_iter().filter(|(mid, _)| mids.contains(mid));
        let changed: Vec<_> = known.filter(|(mid, source)| peer.sources.get(mid) != Some(source)).collect();
        let has_new_sources = !changed.is_empty();
        peer.sources.extend(changed);
        let (room, info) = (peer.room.clone(), peer.info.clone());
        if info != before {
            self.tell(&room, id, &Notice::PeerUpdated(info));
        }
        if has_new_sources {
            self.handle_negotiated(now, id);
            self.room_ids(&room).into_iter().for_each(|other| self.tell_tracks(other));
        }
        Ok(())
    }

    /// What somebody else decided about a peer. `false` when nobody has that name.
    pub fn control_user(&mut self, now: Instant, room: &str, user_id: &str, change: PeerControl) -> bool {
        let Some(id) = self.find(room, user_id) else { return false };
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        peer.is_server_muted = change.server_muted.unwrap_or(peer.is_server_muted);
        peer.is_deafened = change.deafened.unwrap_or(peer.is_deafened);
        peer.capabilities = change.capabilities.unwrap_or(peer.capabilities);
        if let Some(hidden) = change.hidden_user_ids {
            peer.hidden = hidden.into_iter().collect();
        }
        self.handle_negotiated(now, id);
        self.subscribe_room(now, room);
        true
    }

    /// Throws a user out. `false` when nobody has that name.
    pub fn disconnect_user(&mut self, now: Instant, room: &str, user_id: &str) -> bool {
        let Some(id) = self.find(room, user_id) else { return false };
        self.close(now, id, CloseReason::Kicked);
        true
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
        self.tell(&peer.room, id, &Notice::PeerLeft(peer.info.clone()));
        let event = RoomEvent::PeerLeft { room: peer.room.clone(), user_id: peer.info.user_id.clone() };
        self.outputs.push_back(Output::ToWatchers(event));
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

    /// News from a worker.
    pub fn handle_event(&mut self, now: Instant, worker: WorkerId, event: Event) {
        let peer_of = |session: SessionKey| self.by_session.get(&session).copied();
        match event {
            Event::Claimed { session } => {
                let Some(id) = peer_of(session) else { return };
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.owner = Some(worker);
                    let tracks: Vec<_> = peer.tracks.values().map(|track| track.key).collect();
                    let bound: Vec<_> = peer.bound.iter().map(|(track, _)| *track).collect();
                    tracks.into_iter().chain(bound).for_each(|track| self.route(track));
                }
            }
            Event::Connected { session, suite } => {
                tracing::debug!(peer = ?peer_of(session), worker = worker.0, %suite, "media is up");
                self.handle_media(peer_of(session), MediaState::Connected);
            }
            Event::Lost { session } => self.handle_media(peer_of(session), MediaState::Disconnected),
            Event::Recovered { session } => self.handle_media(peer_of(session), MediaState::Connected),
            Event::Ended { session, reason } => {
                let Some(id) = peer_of(session) else { return };
                tracing::debug!(peer = %id, %reason, "media ended");
                self.close(now, id, CloseReason::MediaFailed);
            }
            Event::TrackLive { track } => self.handle_live(now, track),
            Event::Levels(levels) => self.handle_levels(now, worker, &levels),
            Event::Report(report) => self.handle_report(worker, *report),
            Event::PublicAddress(address) => self.handle_public_address(address),
            Event::SelfChecked => {
                if let Some(checked) = self.self_checked.get_mut(usize::from(worker.0)) {
                    *checked = true;
                }
            }
        }
    }

    fn handle_media(&mut self, id: Option<PeerId>, state: MediaState) {
        if let Some(id) = id
            && let Some(peer) = self.peers.get_mut(&id)
            && peer.media.replace(state) != Some(state)
        {
            self.outputs.push_back(Output::ToPeer(id, Notice::Media(state)));
        }
    }

    fn handle_public_address(&mut self, address: SocketAddr) {
        let Some(addresses) = self.config.addresses.first_mut() else { return };
        if !addresses.contains(&address) {
            tracing::info!(%address, "the public address of the media port is announced too");
            addresses.push(address);
        }
    }

    fn handle_report(&mut self, worker: WorkerId, report: WorkerReport) {
        for session in &report.sessions {
            let peer = self.by_session.get(&session.session).and_then(|id| self.peers.get_mut(id));
            if let Some(peer) = peer {
                peer.silent_s = session.silent.as_secs_f32();
            }
        }
        if let Some(slot) = self.reports.get_mut(usize::from(worker.0)) {
            *slot = report;
        }
    }

    /// Where a peer lives in the workers' tables; for the simulator, which gives scripted peers their keys.
    #[cfg(any(test, feature = "sim"))]
    pub fn session_of(&self, id: PeerId) -> Option<SessionKey> {
        self.peers.get(&id).map(|peer| peer.session)
    }

    /// Deadlines; call about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.offered_at.is_some_and(|at| now >= at + ANSWER_MAX))
            .map(|peer| peer.info.peer)
            .collect();
        for id in late {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.negotiation.drop_pending_offer();
                peer.offered_at = None;
                // Where we are the only one who offers, we go on trying.
                peer.ignores_offers = peer.dialect != Dialect::Gryt;
            }
            self.subscribe(now, id);
        }
    }

    /// Whether every worker's socket answered.
    pub fn is_ready(&self) -> bool {
        !self.is_stopping && self.self_checked.iter().all(|checked| *checked)
    }

    /// Workers whose socket has not answered yet.
    pub fn unchecked_workers(&self) -> usize {
        self.self_checked.iter().filter(|checked| !**checked).count()
    }

    pub(super) fn find(&self, room: &str, user_id: &str) -> Option<PeerId> {
        self.room_peers(room).find(|peer| peer.info.user_id == user_id).map(|peer| peer.info.peer)
    }

    pub(super) fn room_ids(&self, room: &str) -> Vec<PeerId> {
        self.rooms.get(room).map(|room| room.peers.clone()).unwrap_or_default()
    }

    pub(super) fn room_peers<'a>(&'a self, room: &str) -> impl Iterator<Item = &'a Peer> {
        let ids = self.rooms.get(room).map_or(&[][..], |room| &room.peers);
        ids.iter().filter_map(|id| self.peers.get(id))
    }

    /// Tells everybody in the room but one.
    pub(super) fn tell(&mut self, room: &str, except: PeerId, notice: &Notice) {
        for id in self.room_ids(room).into_iter().filter(|id| *id != except) {
            self.outputs.push_back(Output::ToPeer(id, notice.clone()));
        }
    }

    /// A command for the owner of a session, or for all workers while it has none.
    pub(super) fn command(&mut self, owner: Option<WorkerId>, command: &Command) {
        let all = 0..self.config.workers as u8;
        let to = owner.map_or_else(|| all.map(WorkerId).collect(), |owner| vec![owner]);
        self.outputs.extend(to.into_iter().map(|worker| Output::ToWorker(worker, Box::new(command.clone()))));
    }

    /// What the session must obey now.
    pub(super) fn configure(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let tracks = &peer.tracks;
        let streams = peer.negotiation.streams(|mline| tracks.get(&mline).map(|track| track.key));
        let bound = streams.mlines.iter().enumerate().filter_map(|(index, mline)| {
            let track = mline.as_ref()?.egress.as_ref()?.track?;
            Some((track, index as u16))
        });
        let before = std::mem::replace(&mut peer.bound, bound.collect());
        let changed: Vec<TrackKey> = before
            .iter()
            .filter(|entry| !peer.bound.contains(entry))
            .chain(peer.bound.iter().filter(|entry| !before.contains(entry)))
            .map(|(track, _)| *track)
            .collect();
        let remote = peer.negotiation.remote().and_then(|remote| {
            let fingerprint = Fingerprint::parse(&remote.fingerprint.to_string()).ok()?;
            Some(Arc::new(RemoteTransport { role: remote.dtls_role, fingerprint }))
        });
        let (session, owner) = (peer.session, peer.owner);
        self.command(owner, &Command::Configure { session, remote, streams: Arc::new(streams) });
        changed.into_iter().for_each(|track| self.route(track));
    }

    /// Brings the peer's tracks in line with its negotiation.
    fn handle_negotiated(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let publications: Vec<_> =
            peer.negotiation.publications().into_iter().filter(|publication| peer.may_publish(publication)).collect();
        let is_current = |mline: &usize, track: &Track| {
            publications.iter().any(|publication| publication.mline == *mline && publication.kind == track.kind)
        };
        let ended: Vec<(usize, TrackKey)> = peer
            .tracks
            .iter()
            .filter(|(mline, track)| !is_current(mline, track))
            .map(|(mline, track)| (*mline, track.key))
            .collect();
        for publication in publications {
            let track = peer.tracks.entry(publication.mline).or_insert_with(|| {
                let (index, epoch) = self.track_keys.take();
                let key = TrackKey { index, epoch };
                self.publishers.insert(key, id);
                Track {
                    key,
                    id: format!("t-{index}-{epoch}"),
                    kind: publication.kind,
                    mid: publication.mid.as_str().to_owned(),
                    stream_id: String::new(),
                    track_id: String::new(),
                    slot: publication.slot,
                    is_live: false,
                    loudness: 0,
                }
            });
            track.stream_id = publication.stream_id;
            track.track_id = publication.track_id;
        }
        for (mline, _) in &ended {
            peer.tracks.remove(mline);
        }
        let room = peer.room.clone();
        self.configure(id);
        self.subscribe(now, id);
        self.tell_tracks(id);
        if !ended.is_empty() {
            // Subscribers let go first, so that no configuration names a track that is gone.
            self.subscribe_room(now, &room);
            ended.into_iter().for_each(|(_, key)| self.end_track(key));
        }
    }

    fn end_track(&mut self, key: TrackKey) {
        self.publishers.remove(&key);
        self.plan.remove(key);
        self.command(None, &Command::CloseTrack { track: key });
        self.track_keys.give_back(key.index);
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
