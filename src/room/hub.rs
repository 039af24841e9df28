//! Rooms as a pure state machine: requests and worker events in, commands and notices out.
//!
//! Owns: peers, rooms, keys, the fanout plan. Promises: commands leave in the order of their causes; a refused request
//! changes nothing. Forbids: sockets, tasks, clocks; the simulator drives the very same hub.
//!
//! Its methods lie beside this file: `join` (coming and going), `requests` (what peers ask), `events` (what workers
//! tell), `publish` (tracks and configurations), `subscribe` (who receives what), `views` (for people).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::SystemTime;

use rand::rngs::StdRng;

use super::api::{Notice, PeerInfo, RoomEvent};
use super::peer::Peer;
use crate::base::ids::{KeyPool, PeerId, SessionKey, TrackKey, WorkerId};
use crate::forward::plan::{Plan, SharedTable};
use crate::forward::speaker::DominantSpeaker;
use crate::wire::sdp::Fingerprint;
use crate::worker::command::{Command, WorkerReport};

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
    pub(super) rng: StdRng,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    /// In order, so that the same causes have the same effects in the same order.
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) by_session: HashMap<SessionKey, PeerId>,
    /// Publisher of each track.
    pub(super) publishers: HashMap<TrackKey, PeerId>,
    pub(super) sessions: KeyPool,
    pub(super) track_keys: KeyPool,
    pub(super) last_peer: u64,
    pub(super) plan: Plan,
    pub(super) outputs: VecDeque<Output>,
    pub(super) reports: Vec<WorkerReport>,
    pub(super) self_checked: Vec<bool>,
    pub(super) knows_public_address: bool,
    pub(super) is_stopping: bool,
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
            rooms: BTreeMap::new(),
            by_session: HashMap::new(),
            publishers: HashMap::new(),
            sessions: KeyPool::default(),
            track_keys: KeyPool::default(),
            last_peer: 0,
            plan: Plan::default(),
            outputs: VecDeque::new(),
            reports: vec![WorkerReport::default(); workers],
            self_checked: vec![false; workers],
            knows_public_address: false,
            is_stopping: false,
        }
    }

    /// The table that workers read.
    pub fn table(&self) -> SharedTable {
        self.plan.shared()
    }

    /// Where a peer lives in the workers' tables; for the simulator, which gives scripted peers their keys.
    #[cfg(any(test, feature = "sim"))]
    pub fn session_of(&self, id: PeerId) -> Option<SessionKey> {
        self.peers.get(&id).map(|peer| peer.session)
    }

    /// What is to be done, in order. The fanout plan is published before the first of it is handed out: a track
    /// has no route any more when workers are told to free it, and has one when a subscriber asks for its keyframe.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.plan.publish();
        self.outputs.pop_front()
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

    /// Somebody publishes in the room.
    pub fn has_publisher(&self, room: &str) -> bool {
        self.room_peers(room).any(|peer| !peer.tracks.is_empty())
    }

    /// Tells everybody in the room but one.
    pub(super) fn tell(&mut self, room: &str, except: PeerId, notice: &Notice) {
        for id in self.listeners(room).into_iter().filter(|id| *id != except) {
            self.outputs.push_back(Output::ToPeer(id, notice.clone()));
        }
    }

    /// Peers that hear of their room.
    pub(super) fn listeners(&self, room: &str) -> Vec<PeerId> {
        self.room_peers(room).filter(|peer| peer.dialect.has_socket()).map(|peer| peer.info.peer).collect()
    }

    /// A command for the owner of a session, or for all workers while it has none.
    pub(super) fn command(&mut self, owner: Option<WorkerId>, command: &Command) {
        let all = 0..self.config.workers as u8;
        let to = owner.map_or_else(|| all.map(WorkerId).collect(), |owner| vec![owner]);
        self.outputs.extend(to.into_iter().map(|worker| Output::ToWorker(worker, Box::new(command.clone()))));
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
