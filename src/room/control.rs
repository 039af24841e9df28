//! The one door from signalling to rooms: the hub behind a lock, its outputs dispatched in order.
//!
//! Owns: the hub, the ends of the queues to workers and peers. Promises: calls are short and never wait: a worker's
//! queue that is full is a counted fault, a peer that does not read is closed. What waits for the pace of the fanout
//! table leaves when it is due, also when nobody calls: [`Control::run`] sees to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select, tick};
use tokio::sync::{broadcast, mpsc};

use super::api::{
    JoinError, JoinRequest, Joined, Listening, Notice, PeerControl, PeerUpdate, RequestError, RoomEvent, RoomView,
    TrackName, Wish,
};
use super::hub::{Entered, Hub, Output};
use super::impair::{BadNetwork, ImpairError};
use super::record::{RecordError, RecordWish};
use super::restart::Restarted;
use super::showing::{LayerError, LayerWish, Picture, Showing};
use super::why::WhyError;
use crate::base::ids::{PeerId, WorkerId};
use crate::runtime::clock;
use crate::session::negotiate::IceCredentials;
use crate::telemetry::Snapshot;
use crate::worker::command::{Command, Event};

/// Notices a peer may leave unread. A room of hundreds announces itself in so many; who is slower than that for long
/// is not there any more.
const NOTICES_MAX: usize = 1024;
/// Room events a watcher may leave unread.
const ROOM_EVENTS_MAX: usize = 1024;
/// Commands that may wait for a worker: two thousand peers that join and negotiate twice before it takes one.
pub const COMMANDS_MAX: usize = 8192;
/// A worker takes its commands each turn: a queue that is full for so long belongs to one that is stuck.
const COMMAND_WAIT_MAX: Duration = Duration::from_millis(100);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Wakes a worker that sleeps.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A worker as control sees it.
pub struct WorkerLink {
    /// Its commands.
    pub commands: Sender<Command>,
    /// See [`Wake`].
    pub wake: Wake,
}

pub(super) struct Inner {
    pub(super) hub: Hub,
    pub(super) notices: HashMap<PeerId, mpsc::Sender<Arc<Notice>>>,
    /// When outputs that wait are due, as [`Control::run`] knows it.
    due_at: Option<Instant>,
}

impl Inner {
    /// From now on the peer is told its notices here.
    pub(super) fn seat(&mut self, Entered { peer, wire_id, others }: Entered) -> Joined {
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        self.notices.insert(peer, sender);
        Joined { peer, wire_id, others, notices }
    }
}

/// See the module.
pub struct Control {
    inner: Mutex<Inner>,
    workers: Vec<WorkerLink>,
    events: broadcast::Sender<RoomEvent>,
    /// Says that something waits that did not when [`Control::run`] went to sleep.
    nudge: (Sender<()>, Receiver<()>),
}

impl Control {
    /// A hub with its workers.
    pub fn new(hub: Hub, workers: Vec<WorkerLink>) -> Self {
        let inner = Mutex::new(Inner { hub, notices: HashMap::new(), due_at: None });
        Self { inner, workers, events: broadcast::channel(ROOM_EVENTS_MAX).0, nudge: bounded(1) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rooms are told the time by, for the requests that lie in other files.
    pub(super) fn now() -> (Instant, SystemTime) {
        (clock::now(), clock::wall())
    }

    /// Runs a request and sends out what follows from it, before anybody else's.
    pub(super) fn with<T>(&self, request: impl FnOnce(&mut Hub) -> T) -> T {
        let mut inner = self.lock();
        let result = request(&mut inner.hub);
        self.dispatch(&mut inner);
        result
    }

    pub(super) fn dispatch(&self, inner: &mut Inner) {
        let (now, mut woken, mut told) = (clock::now(), 0u64, None);
        while let Some(output) = inner.hub.poll_output(now) {
            match output {
                Output::ToWorker(worker, command) => woken |= self.send(worker, *command),
                Output::ToPeer(peer, notice) => tell(inner, peer, notice, &mut told),
                Output::ToWatchers(event) => drop(self.events.send(event)),
            }
        }
        for (index, worker) in self.workers.iter().enumerate() {
            if woken & (1 << index) != 0 {
                (worker.wake)();
            }
        }
        let due_at = inner.hub.next_timeout();
        if std::mem::replace(&mut inner.due_at, due_at) != due_at && due_at.is_some() {
            // One that is there already says the same.
            let _ = self.nudge.0.try_send(());
        }
    }

    /// Takes the workers' news and looks after deadlines until the workers are gone.
    pub fn run(&self, events: &Receiver<(WorkerId, Event)>) {
        let ticks = tick(TICK);
        loop {
            let due_at = self.lock().due_at;
            let due = due_at.map_or_else(never, at);
            select! {
                recv(events) -> event => match event {
                    Ok((worker, event)) => self.handle_event(worker, event),
                    Err(_) => return,
                },
                recv(ticks) -> _ => self.handle_timeout(),
                recv(due) -> _ => self.dispatch(&mut self.lock()),
                recv(self.nudge.1) -> _ => {}
            }
        }
    }

    fn send(&self, WorkerId(index): WorkerId, command: Command) -> u64 {
        let Some(worker) = self.workers.get(usize::from(index)) else { return 0 };
        if let Err(fault) = worker.commands.send_timeout(command, COMMAND_WAIT_MAX) {
            tracing::error!(worker = index, %fault, "a media worker does not take its commands; restart the server");
        }
        1 << index
    }

    /// Enters a room.
    pub fn join(&self, request: JoinRequest) -> Result<Joined, JoinError> {
        self.join_hiding(request, Vec::new())
    }

    /// The same for a peer that is not to get the media of these users.
    pub fn join_hiding(&self, request: JoinRequest, user_ids: Vec<String>) -> Result<Joined, JoinError> {
        let mut inner = self.lock();
        let hidden = user_ids.into_iter().collect();
        let entered = inner.hub.join_hiding((clock::now(), clock::wall()), request, hidden);
        let joined = entered.map(|entered| inner.seat(entered));
        self.dispatch(&mut inner);
        joined
    }

    /// The client offers; the answer comes back.
    pub fn offer(&self, peer: PeerId, sdp: &str) -> Result<String, RequestError> {
        self.with(|hub| hub.offer(clock::now(), peer, sdp))
    }

    /// The client answers our offer.
    pub fn answer(&self, peer: PeerId, sdp: &str) -> Result<(), RequestError> {
        self.with(|hub| hub.answer(clock::now(), peer, sdp))
    }

    /// A trickled candidate of the peer; ICE-lite needs none, it is only checked for form.
    pub fn candidate(&self, peer: PeerId, candidate: &str) -> Result<(), RequestError> {
        self.lock().hub.candidate(peer, candidate)
    }

    /// The client asks for a fresh offer.
    pub fn renegotiate(&self, peer: PeerId) -> Result<(), RequestError> {
        self.with(|hub| hub.renegotiate(clock::now(), peer))
    }

    /// An offer of ours that restarts ICE.
    pub fn restart_ice(&self, peer: PeerId) -> Result<(), RequestError> {
        self.with(|hub| hub.restart_ice(clock::now(), peer))
    }

    /// The peer's credentials came without a description; new ones restart ICE.
    pub fn exchange_ice(&self, peer: PeerId, remote: IceCredentials) -> Result<Option<Restarted>, RequestError> {
        self.with(|hub| hub.exchange_ice(peer, remote))
    }

    /// What a peer says about itself.
    pub fn update(&self, peer: PeerId, update: PeerUpdate) -> Result<(), RequestError> {
        self.with(|hub| hub.update(clock::now(), peer, update))
    }

    /// Whom a peer wants to hear.
    pub fn listen(&self, peer: PeerId, listening: Listening) -> Result<(), RequestError> {
        self.with(|hub| hub.listen(clock::now(), peer, listening))
    }

    /// The peer wants more or less of pictures.
    pub fn demand(&self, peer: PeerId, wishes: &[(TrackName, Wish)]) -> Result<(), RequestError> {
        self.with(|hub| hub.demand(peer, wishes))
    }

    /// What a viewer is shown; `None` when it is gone.
    pub fn showing(&self, peer: PeerId) -> Option<Showing> {
        self.lock().hub.showing(peer)
    }

    /// The peer chooses among the layers of a picture.
    pub fn choose_layer(&self, peer: PeerId, of: Picture<'_>, wish: &LayerWish) -> Result<(), LayerError> {
        self.with(|hub| hub.choose_layer(peer, of, wish))
    }

    /// Rooms take no more viewers than that.
    pub fn limit_viewers(&self, max: Option<usize>) {
        self.lock().hub.limit_viewers(max);
    }

    /// Closes a room: everybody in it is told and leaves. `false`: there is none.
    pub fn close_room(&self, room: &str) -> bool {
        self.with(|hub| hub.close_room(clock::now(), room))
    }

    /// The peer wants to be told how what it receives is doing, or no more.
    pub fn watch_quality(&self, peer: PeerId, is_on: bool) -> Result<(), RequestError> {
        self.lock().hub.watch_quality(peer, is_on)
    }

    /// The peer is gone.
    pub fn leave(&self, peer: PeerId) {
        let mut inner = self.lock();
        inner.notices.remove(&peer);
        inner.hub.leave(clock::now(), peer);
        self.dispatch(&mut inner);
    }

    /// What somebody else decided about a peer; `false` when nobody has that name.
    pub fn control_user(&self, room: &str, user_id: &str, change: PeerControl) -> bool {
        self.with(|hub| hub.control_user(clock::now(), room, user_id, change))
    }

    /// Throws a user out; `false` when nobody has that name.
    pub fn disconnect_user(&self, room: &str, user_id: &str) -> bool {
        self.with(|hub| hub.disconnect_user(clock::now(), room, user_id))
    }

    /// What rooms that are made from now on are recorded with.
    pub fn record_rooms(&self, wish: Option<RecordWish>) {
        self.lock().hub.record_rooms(wish);
    }

    /// Begins or ends the recording of a room.
    pub fn record(&self, room: &str, wish: Option<RecordWish>) -> Result<(), RecordError> {
        self.with(|hub| hub.record(room, wish))
    }

    /// How a room is recorded, if it is.
    pub fn recording(&self, room: &str) -> Result<Option<RecordWish>, RecordError> {
        self.lock().hub.recording(room)
    }

    /// Puts a peer behind a bad network.
    pub fn impair(&self, room: &str, peer: &str, network: BadNetwork) -> Result<(), ImpairError> {
        self.with(|hub| hub.impair(room, peer, network))
    }

    /// The network that a peer was put behind.
    pub fn impairment(&self, room: &str, peer: &str) -> Option<BadNetwork> {
        self.lock().hub.impairment(room, peer)
    }

    /// Somebody publishes in the room.
    pub fn has_publisher(&self, room: &str) -> bool {
        self.lock().hub.has_publisher(room)
    }

    /// Rooms with peers.
    pub fn rooms(&self) -> Vec<RoomView> {
        self.lock().hub.rooms()
    }

    /// Entries and departures from now on.
    pub fn watch(&self) -> broadcast::Receiver<RoomEvent> {
        self.events.subscribe()
    }

    /// `/debug/rooms`.
    pub fn debug_rooms(&self) -> serde_json::Value {
        self.lock().hub.debug_rooms()
    }

    /// What each worker carries.
    pub fn workers(&self) -> serde_json::Value {
        self.lock().hub.workers()
    }

    /// `/debug/peers`.
    pub fn debug_peers(&self) -> serde_json::Value {
        self.lock().hub.debug_peers()
    }

    /// `/debug/tracks`.
    pub fn debug_tracks(&self) -> serde_json::Value {
        self.lock().hub.debug_tracks()
    }

    /// `/debug/why`.
    pub fn why(&self, from: Option<&str>, to: Option<&str>) -> Result<serde_json::Value, WhyError> {
        self.lock().hub.why(clock::now(), from, to)
    }

    /// Every number for `/metrics`.
    pub fn counters(&self) -> Snapshot {
        self.lock().hub.counters()
    }

    /// Every worker's socket answered its self-check, and the server does not stop.
    pub fn is_ready(&self) -> bool {
        self.lock().hub.is_ready()
    }

    /// Workers whose socket has not answered yet.
    pub fn unchecked_workers(&self) -> usize {
        self.lock().hub.unchecked_workers()
    }

    /// Tells all peers that the server stops, and the workers too.
    pub fn stop(&self) {
        self.with(|hub| hub.stop(clock::now()));
    }

    /// News from a worker.
    pub fn handle_event(&self, worker: WorkerId, event: Event) {
        self.with(|hub| hub.handle_event(clock::now(), worker, event));
    }

    /// Deadlines; call about once a second.
    pub fn handle_timeout(&self) {
        self.with(|hub| hub.handle_timeout(clock::now()));
    }

    /// A command for every worker that concerns no peer.
    pub fn broadcast(&self, command: &Command) {
        let _order = self.lock();
        for index in 0..self.workers.len() {
            self.send(WorkerId(index as u8), command.clone());
            (self.workers[index].wake)();
        }
    }
}

/// `told` is what somebody was told just before: a room is told the same one by one.
fn tell(inner: &mut Inner, peer: PeerId, notice: Notice, told: &mut Option<Arc<Notice>>) {
    let is_last = matches!(notice, Notice::Closed(_));
    let Some(sender) = inner.notices.get(&peer) else { return };
    let notice = match told.take() {
        Some(told) if *told == notice => told,
        _ => Arc::new(notice),
    };
    if sender.try_send(Arc::clone(told.insert(notice))).is_err() {
        tracing::debug!(%peer, "does not read its notices");
        inner.notices.remove(&peer);
        inner.hub.handle_slow_peer(clock::now(), peer);
    } else if is_last {
        inner.notices.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::api::{Capabilities, Dialect, StreamNames};
    use super::super::hub::HubConfig;
    use super::*;
    use crate::base::ids::TrackKey;
    use crate::forward::plan::SharedTable;
    use crate::session::negotiate::{Policy, Role};

    const WORKERS: usize = 4;
    /// A hang is turned into a failure after this; nothing depends on its length.
    const WATCHDOG: Duration = Duration::from_secs(60);
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
        c=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\na=fingerprint:sha-256 \
        AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\r\n\
        a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";

    fn control() -> (Control, Vec<Receiver<Command>>) {
        let fingerprint = crate::crypto::cert::Certificate::generate().unwrap().fingerprint_sha256();
        let addresses = vec![vec!["192.0.2.1:3478".parse().unwrap()]];
        let config = HubConfig { seats: 10_000, workers: WORKERS, addresses, fingerprint };
        let (commands, queues): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| bounded(COMMANDS_MAX)).unzip();
        let link = |commands| WorkerLink { commands, wake: Box::new(|| {}) };
        let hub = Hub::new(config, StdRng::seed_from_u64(1));
        (Control::new(hub, commands.into_iter().map(link).collect()), queues)
    }

    fn join(control: &Control, room: usize) -> Joined {
        let request = JoinRequest {
            room: format!("room {room}"),
            user_id: None,
            display_name: "somebody".into(),
            dialect: Dialect::GrytDocumented,
            policy: Policy {
                server_offers_first: false,
                server_may_offer: true,
                live_binding: false,
                slots: &[],
                role: Role::Participant,
            },
            stream_names: StreamNames::Publisher,
            capabilities: Capabilities::ALL,
        };
        control.join(request).unwrap()
    }

    #[test]
    fn two_thousand_joins_fit_the_queues_of_workers_that_take_nothing() {
        let (control, queues) = control();
        let mut peers = Vec::new();
        for number in 0..2000 {
            let joined = join(&control, number / 100);
            control.offer(joined.peer, OFFER).unwrap();
            control.offer(joined.peer, OFFER).unwrap();
            assert!(queues.iter().all(|queue| !queue.is_full()), "after {number}");
            // Kept: who does not read its notices is closed.
            peers.push(joined);
        }
    }

    #[test]
    fn what_waits_for_the_pace_leaves_without_another_call() {
        let (control, queues) = control();
        let control = Arc::new(control);
        let (events, events_out) = bounded(9);
        let runner = std::thread::spawn({
            let control = Arc::clone(&control);
            move || control.run(&events_out)
        });
        let table: SharedTable = control.lock().hub.table();
        // Each round is too early for the table of the one before, unless the machine sleeps.
        for index in 0..20 {
            let track = TrackKey { index, epoch: 0 };
            control.with(|hub| hub.open_and_free(track));
            let mut commands = std::iter::from_fn(|| queues[0].recv_timeout(WATCHDOG).ok());
            let freed = commands.find(|command| matches!(command, Command::CloseTrack { .. }));
            assert!(freed.is_some());
            assert!(table.load().route(track).is_none());
        }
        drop(events);
        runner.join().unwrap();
    }
}
