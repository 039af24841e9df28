//! Rooms as a pure state machine: requests and worker events in, commands and notices out.
//!
//! Owns: peers, rooms, keys, the fanout plan. Promises: commands leave in the order of their causes; a refused request
//! changes nothing. Forbids: sockets, tasks, clocks; the simulator drives the very same hub.
//!
//! Its methods lie beside this file: `join` (coming and going), `stay` (coming back), `list` (rooms made by themselves,
//! limits), `requests` (what peers ask), `restart` (ICE anew), `renegotiate` (clients that are asked to offer), `events`
//! (what workers tell), `publish` (tracks and configurations), `subscribe` (who receives what), `wishes` (how large),
//! `choice` (what a peer picks), `showing` (what viewers see and choose), `voices` (who speaks), `record` (what is
//! recorded), `quality`, `impair` (bad networks on purpose), `views` and `why` (for people).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::RandomState;
use rand::rngs::StdRng;

use super::api::{Notice, PeerInfo, RoomEvent};
use super::list::RoomLimits;
use super::peer::{Peer, Track};
use super::placement::Placement;
use super::record::RecordWish;
use super::wishes::Telling;
use crate::base::ids::{KeyPool, PeerId, RoomKey, SessionKey, TrackKey, WorkerId};
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
    /// What its voices are found by in the workers' tables.
    pub key: RoomKey,
    pub name: String,
    pub created_at: (Instant, SystemTime),
    /// When somebody came or went last.
    pub changed_at: Instant,
    /// It was made by itself and waits for peers; others end with their last peer.
    pub is_kept: bool,
    pub places: Option<usize>,
    /// In order of joining, which is the order of ids.
    pub peers: Vec<PeerId>,
    pub by_user: HashMap<String, PeerId>,
    /// Peers by the worker they live on.
    pub by_worker: Vec<usize>,
    pub speaker: DominantSpeaker<PeerId>,
    /// When the dominant speaker was heard last.
    pub heard_at: Option<Instant>,
    /// Who spoke, latest first.
    pub speakers: Vec<PeerId>,
    /// What its publishers send is recorded.
    pub recording: Option<RecordWish>,
    /// Peers that nobody is told of.
    pub viewers: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: HubConfig,
    pub(super) rng: StdRng,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    /// In order, so that the same causes have the same effects in the same order.
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) by_session: HashMap<SessionKey, PeerId, RandomState>,
    /// Publisher of each track, and its m-line there.
    pub(super) publishers: HashMap<TrackKey, (PeerId, usize), RandomState>,
    pub(super) sessions: KeyPool,
    pub(super) track_keys: KeyPool,
    pub(super) room_keys: KeyPool,
    pub(super) limits: RoomLimits,
    pub(super) ice_restarts: u64,
    pub(super) last_peer: u64,
    pub(super) plan: Plan,
    /// What people are told.
    notices: VecDeque<Output>,
    /// What workers are told about sessions that none of them owns yet.
    openings: VecDeque<Output>,
    /// What workers are told else, each with the number of the table that has to be out before.
    commands: VecDeque<(u64, Output)>,
    pub(super) placement: Placement,
    pub(super) reports: Vec<WorkerReport>,
    /// Those before, and how long they were before.
    pub(super) earlier: Vec<(WorkerReport, Duration)>,
    pub(super) reported_at: Vec<Option<Instant>>,
    /// Tracks of each worker that were not silent by its last word.
    pub(super) loud: Vec<Vec<TrackKey>>,
    pub(super) self_checked: Vec<bool>,
    pub(super) knows_public_address: bool,
    pub(super) telling: Telling,
    /// New rooms are recorded.
    pub(super) recording: Option<RecordWish>,
    /// Viewers that a room may have.
    pub(super) viewers_max: Option<usize>,
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
    pub others: Vec<Arc<PeerInfo>>,
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
            by_session: HashMap::default(),
            publishers: HashMap::default(),
            sessions: KeyPool::default(),
            track_keys: KeyPool::default(),
            room_keys: KeyPool::default(),
            limits: RoomLimits::default(),
            ice_restarts: 0,
            last_peer: 0,
            plan: Plan::default(),
            notices: VecDeque::new(),
            openings: VecDeque::new(),
            commands: VecDeque::new(),
            placement: Placement::new(workers),
            reports: vec![WorkerReport::default(); workers],
            earlier: vec![Default::default(); workers],
            reported_at: vec![None; workers],
            loud: vec![Vec::new(); workers],
            self_checked: vec![false; workers],
            knows_public_address: false,
            telling: Telling::default(),
            recording: None,
            viewers_max: None,
            is_stopping: false,
        }
    }

    /// Rooms take no more viewers than that; `None`: as many as come.
    pub fn limit_viewers(&mut self, max: Option<usize>) {
        self.viewers_max = max;
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

    /// What a peer's streams are called; for the simulator, whose peers do not read their lists of tracks.
    #[cfg(any(test, feature = "sim"))]
    pub fn wire_id_of(&self, id: PeerId) -> Option<&str> {
        self.peers.get(&id).map(|peer| peer.info.wire_id.as_str())
    }

    /// What is to be done now: notices in their order, then what opens sessions, then all other commands. The fanout plan is published before a
    /// command that depends on it is handed out: a track has no route any more when workers are told to free it, and
    /// has one when a subscriber asks for its keyframe. As the plan is published at a pace, `None` may also mean not
    /// yet; [`Self::next_timeout`] tells. Notices never wait: an answer, which is returned at once, must not overtake
    /// an offer that was made before it. Openings never wait either: a peer's first check and ClientHello follow its
    /// answer at once, and what comes before its session is known is lost for half a second.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        self.tell_wishes(now);
        let published = self.plan.poll(now);
        let command = |hub: &mut Self| hub.commands.pop_front_if(|(needs, _)| *needs <= published);
        let at_once = self.notices.pop_front().or_else(|| self.openings.pop_front());
        at_once.or_else(|| command(self).map(|(_, output)| output))
    }

    /// When to call [`Self::poll_output`] at the latest, once it gave nothing.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.plan.next_timeout().into_iter().chain(self.telling.next_timeout()).min()
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
        self.rooms.get(room)?.by_user.get(user_id).copied()
    }

    pub(super) fn track(&self, key: TrackKey) -> Option<(&Peer, &Track)> {
        let (publisher, mline) = self.publishers.get(&key)?;
        let publisher = self.peers.get(publisher)?;
        Some((publisher, publisher.tracks.get(mline).filter(|track| track.key == key)?))
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
    pub(super) fn tell_room(&mut self, room: &str, except: Option<PeerId>, notice: &Notice) {
        let ids = self.rooms.get(room).map_or(&[][..], |room| &room.peers);
        let hears = |id: &PeerId| self.peers.get(id).is_some_and(|peer| peer.dialect.has_socket());
        let others = ids.iter().filter(|id| Some(**id) != except && hears(id));
        self.notices.extend(others.map(|id| Output::ToPeer(*id, notice.clone())));
    }

    /// Tells of a track whoever hears of tracks, except a publisher and those who hide him.
    pub(super) fn tell_of_track(&mut self, room: &str, publisher: Option<PeerId>, notice: &Notice) {
        let ids = self.rooms.get(room).map_or(&[][..], |room| &room.peers);
        let of = publisher.and_then(|publisher| self.peers.get(&publisher));
        let hears = |id: &&PeerId| {
            let me = self.peers.get(id).filter(|me| me.dialect.hears_of_tracks() && Some(**id) != publisher);
            me.is_some_and(|me| of.is_none_or(|of| !me.hides(of)))
        };
        self.notices.extend(ids.iter().filter(hears).map(|id| Output::ToPeer(*id, notice.clone())));
    }

    pub(super) fn tell(&mut self, id: PeerId, notice: Notice) {
        self.notices.push_back(Output::ToPeer(id, notice));
    }

    pub(super) fn tell_watchers(&mut self, event: RoomEvent) {
        self.notices.push_back(Output::ToWatchers(event));
    }

    /// A command for one worker or for all.
    pub(super) fn command(&mut self, to: Option<WorkerId>, command: &Command) {
        self.push_command(to, command, 0);
    }

    /// A command that must not come before the workers read the plan as it is now.
    pub(super) fn command_after_plan(&mut self, to: Option<WorkerId>, command: &Command) {
        self.push_command(to, command, self.plan.version());
    }

    /// What a session without an owner begins with; nothing of the plan concerns it. It overtakes what waits, also the
    /// end of the session that had its key's index before: whoever opens the new one ends the old.
    pub(super) fn opening(&mut self, to: Option<WorkerId>, command: &Command) {
        self.openings.extend(copies(self.config.workers, to, command));
    }

    fn push_command(&mut self, to: Option<WorkerId>, command: &Command, needs: u64) {
        self.commands.extend(copies(self.config.workers, to, command).map(|output| (needs, output)));
    }
}

/// A command for one worker or for each.
fn copies(workers: usize, to: Option<WorkerId>, command: &Command) -> impl Iterator<Item = Output> {
    let (first, count) = to.map_or((0, workers), |WorkerId(index)| (index, 1));
    (0..count as u8).map(move |index| Output::ToWorker(WorkerId(first + index), Box::new(command.clone())))
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
