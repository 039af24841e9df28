//! The world: one agenda of what happens when, and everybody to whom it happens.
//!
//! Owns: the clock, the seed, the server's parts (hub and worker cores as shipped), peers, network, oracle.
//! Promises: things happen in order of time, ties in order of causes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::access::Access;
use super::media::{PeerNo, Received};
use super::net::{Nat, private_address};
use super::oracle::Oracle;
use crate::base::batch::TxBatch;
use crate::base::ids::{PeerId, WorkerId};
use crate::crypto::cert::Certificate;
use crate::crypto::srtp::SrtpKeys;
use crate::proto::dtls::DtlsConfig;
use crate::proto::link::{Link, LinkConfig};
use crate::room::api::{JoinError, JoinRequest, Listening, Notice, PeerControl, RequestError, TrackName, Wish};
use crate::room::hub::{Hub, HubConfig};
use crate::room::impair::{BadNetwork, ImpairError};
use crate::worker::command::{Command, Event, WorkerReport};
use crate::worker::core::WorkerCore;
use crate::worker::lane::Lanes;

mod books;
mod config;
mod server;

pub use config::WorldConfig;

/// The media port, or the first one's.
pub const PORT: u16 = 3478;
/// How often the hub looks at its deadlines.
const HUB_TICK: Duration = Duration::from_millis(500);
/// What a worker takes upon itself at most.
const TEN_MILLISECONDS: Duration = Duration::from_millis(10);
/// Datagrams of peers kept to be mutated.
const TAPPED_MAX: usize = 256;

/// What a peer does besides waiting.
#[derive(Debug)]
pub enum Action {
    /// A datagram to an address of the server.
    Send(SocketAddr, Vec<u8>),
    /// An offer by signalling.
    Offer(String),
    /// An answer by signalling.
    Answer(String),
    /// Keys to be used instead of a handshake's.
    Keys(SrtpKeys),
}

/// A simulated peer.
pub trait Endpoint {
    /// It has entered a room.
    fn handle_joined(&mut self, now: Instant);
    /// Signalling tells it something.
    fn handle_notice(&mut self, now: Instant, notice: &Notice);
    /// Its offer was answered.
    fn handle_answer(&mut self, now: Instant, answer: Result<String, RequestError>);
    /// A datagram came from the server's address `from`.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]);
    /// A deadline passed.
    fn handle_timeout(&mut self, now: Instant);
    /// The next deadline.
    fn next_timeout(&self) -> Option<Instant>;
    /// What it does now.
    fn poll(&mut self) -> Option<Action>;
    /// Its books.
    fn received(&self) -> &Received;
    /// For tests that know what it is.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// A datagram under way to the server.
#[derive(Debug)]
struct Inbound {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    /// When it came to the server's socket.
    came_at: Instant,
    /// Sent by a peer, not by the test.
    is_genuine: bool,
}

#[derive(Debug)]
enum Happening {
    ToServer(Inbound),
    ToPeer { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Turn(usize),
    Event(WorkerId, Event),
    Notice(PeerNo, Notice),
    Request(PeerNo, Action),
    Answer(PeerNo, Result<String, RequestError>),
}

struct Entry {
    at: Instant,
    order: u64,
    what: Happening,
}

struct Worker {
    core: WorkerCore,
    commands: VecDeque<Command>,
    inbox: VecDeque<Inbound>,
    turn_at: Option<Instant>,
    /// The last turn's work lasts so long.
    busy_until: Instant,
    turns_at_once: (Option<Instant>, u32),
    report: WorkerReport,
}

struct Seat {
    id: PeerId,
    endpoint: Box<dyn Endpoint>,
    up: Access,
    down: Access,
    notices: Vec<(Instant, Notice)>,
    is_gone: bool,
}

/// See the module.
pub struct World {
    config: WorldConfig,
    /// When it began.
    pub start: Instant,
    /// What time it is.
    pub now: Instant,
    /// Network and schedule.
    pub rng: StdRng,
    hub: Hub,
    hub_tick_at: Instant,
    workers: Vec<Worker>,
    seats: Vec<Seat>,
    /// Who is seen where.
    pub nat: Nat,
    agenda: BinaryHeap<Reverse<Entry>>,
    order: u64,
    tx: TxBatch,
    /// Judges what leaves.
    pub oracle: Oracle,
    /// Hash over every decision of the server: datagrams that left, commands, notices, each with its time.
    pub trace: u64,
    /// Datagrams of peers, latest last.
    pub tapped: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Datagrams that went to an address nobody has.
    pub unreachable: u64,
}

impl World {
    /// A server without peers. `now` is where virtual time begins.
    pub fn new(now: Instant, config: WorldConfig) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        #[allow(clippy::unwrap_used, reason = "a simulation without a certificate is none")]
        let certificate = Arc::new(Certificate::generate().unwrap());
        let fingerprint = certificate.fingerprint_sha256();
        #[allow(clippy::unwrap_used, reason = "as above")]
        let dtls = Arc::new(DtlsConfig::new(certificate).unwrap());
        let ports = PORT..PORT + if config.has_own_ports { config.workers as u16 } else { 1 };
        let list = |port| config.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let addresses = ports.map(list).collect();
        let hub_config = HubConfig { seats: 1000, workers: config.workers, addresses, fingerprint };
        let hub = Hub::new(hub_config, StdRng::seed_from_u64(rng.random()));
        let worker = |(index, lanes)| {
            let (id, seed) = (WorkerId(index as u8), rng.random());
            let mut core = WorkerCore::new(id, StdRng::seed_from_u64(seed), Arc::clone(&dtls), hub.table(), lanes);
            core.set_train_limits(config.trains);
            if !config.send_cost.is_zero() {
                core.set_sends_due_max((TEN_MILLISECONDS.as_nanos() / config.send_cost.as_nanos()) as usize);
            }
            core.set_voices_heard(config.audio_loudest);
            Worker {
                core,
                commands: VecDeque::new(),
                inbox: VecDeque::new(),
                turn_at: None,
                busy_until: now,
                turns_at_once: (None, 0),
                report: WorkerReport::default(),
            }
        };
        let workers: Vec<Worker> = Lanes::mesh(config.workers).into_iter().enumerate().map(worker).collect();
        let mut world = Self {
            start: now,
            now,
            rng,
            hub,
            hub_tick_at: now + HUB_TICK,
            workers,
            seats: Vec::new(),
            nat: Nat::default(),
            agenda: BinaryHeap::new(),
            order: 0,
            tx: TxBatch::with_capacity(config.batch_datagrams),
            oracle: Oracle::default(),
            trace: 0,
            tapped: VecDeque::new(),
            unreachable: 0,
            config,
        };
        (0..world.workers.len()).for_each(|worker| world.wake(worker));
        world
    }

    /// A peer enters; `make` gets its number and the address it sends from.
    pub fn join<E: Endpoint + 'static>(
        &mut self,
        request: JoinRequest,
        make: impl FnOnce(Instant, PeerNo, SocketAddr) -> E,
    ) -> Result<PeerNo, JoinError> {
        let wall = SystemTime::UNIX_EPOCH + (self.now - self.start);
        let entered = self.hub.join(self.now, wall, request)?;
        let peer = self.nat.add();
        self.seats.push(Seat {
            id: entered.peer,
            endpoint: Box::new(make(self.now, peer, private_address(peer))),
            up: Access::new(LinkConfig::default()),
            down: Access::new(LinkConfig::default()),
            notices: Vec::new(),
            is_gone: false,
        });
        self.dispatch();
        self.with_peer(peer, |now, endpoint| endpoint.handle_joined(now));
        Ok(peer)
    }

    /// Lets a peer's program do something, and carries out what follows from it.
    pub fn act<E: Endpoint + 'static, T>(&mut self, peer: PeerNo, act: impl FnOnce(Instant, &mut E) -> T) -> T {
        let (now, seat) = (self.now, &mut self.seats[peer.0]);
        #[allow(clippy::expect_used, reason = "the test knows what it made")]
        let result = act(now, seat.endpoint.as_any().downcast_mut().expect("a peer of that type"));
        self.with_peer(peer, |_, _| {});
        result
    }

    /// The peer leaves by signalling; its program ends.
    pub fn leave(&mut self, peer: PeerNo) {
        self.seats[peer.0].is_gone = true;
        self.hub.leave(self.now, self.seats[peer.0].id);
        self.dispatch();
    }

    /// The server stops.
    pub fn stop(&mut self) {
        self.hub.stop(self.now);
        self.dispatch();
    }

    /// Every worker has stopped.
    pub fn is_stopped(&self) -> bool {
        self.workers.iter().all(|worker| worker.core.is_stopped())
    }

    /// The peer's program stops without a word: no datagram comes from it any more.
    pub fn silence(&mut self, peer: PeerNo) {
        self.seats[peer.0].is_gone = true;
    }

    /// As the control socket does.
    pub fn control_user(&mut self, room: &str, user_id: &str, change: PeerControl) -> bool {
        let found = self.hub.control_user(self.now, room, user_id, change);
        self.dispatch();
        found
    }

    /// The peer says whom it wants to hear.
    pub fn listen(&mut self, peer: PeerNo, listening: Listening) {
        let _ = self.hub.listen(self.now, self.seats[peer.0].id, listening);
        self.dispatch();
    }

    /// The peer says how much of another's pictures it wants.
    pub fn demand_of(&mut self, peer: PeerNo, of: PeerNo, wish: Wish) {
        let Some(name) = self.hub.wire_id_of(self.seats[of.0].id) else { return };
        let name = TrackName::Stream(name.to_owned());
        self.demand(peer, &[(name, wish)]);
    }

    /// The peer says how much it wants of what another one sends.
    pub fn demand(&mut self, peer: PeerNo, wishes: &[(TrackName, Wish)]) {
        let _ = self.hub.demand(self.seats[peer.0].id, wishes);
        self.dispatch();
    }

    /// As an administrator does: the server itself makes the peer's network bad.
    pub fn impair(&mut self, room: &str, peer: PeerNo, network: BadNetwork) -> Result<(), ImpairError> {
        let name = self.seats[peer.0].id.to_string();
        let result = self.hub.impair(room, &name, network);
        self.dispatch();
        result
    }

    /// The peer's links, to and from the server.
    pub fn links(&mut self, peer: PeerNo) -> (&mut Link, &mut Link) {
        let (up, down) = self.accesses(peer);
        (&mut up.link, &mut down.link)
    }

    /// The same with what happens on them over time.
    pub fn accesses(&mut self, peer: PeerNo) -> (&mut Access, &mut Access) {
        let seat = &mut self.seats[peer.0];
        (&mut seat.up, &mut seat.down)
    }

    /// Both links of a peer become so.
    pub fn set_links(&mut self, peer: PeerNo, config: LinkConfig) {
        let (up, down) = self.links(peer);
        (up.config, down.config) = (config, config);
    }

    /// Goes on until `time` has gone by.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Goes on until `is_so`; `false` when that takes longer than `time_max`.
    pub fn run_until(&mut self, time_max: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + time_max;
        loop {
            if is_so(self) {
                return true;
            }
            let next = self.now + Duration::from_millis(10);
            if next > end {
                return false;
            }
            self.run_for(Duration::from_millis(10));
        }
    }

    /// The next thing that happens, if it happens before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let agenda_at = self.agenda.peek().map(|Reverse(entry)| entry.at);
        let peer = self.seats.iter().enumerate().filter(|(_, seat)| !seat.is_gone);
        let peer = peer.filter_map(|(at, seat)| Some((seat.endpoint.next_timeout()?, at))).min();
        let worker = self.workers.iter().enumerate();
        let worker =
            worker.filter_map(|(at, worker)| Some((worker.core.next_timeout()?.max(worker.busy_until), at))).min();
        let times = [
            agenda_at,
            peer.map(|(at, _)| at),
            worker.map(|(at, _)| at),
            Some(self.hub_tick_at),
            self.hub.next_timeout(),
        ];
        let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        if agenda_at == Some(next) {
            if let Some(Reverse(entry)) = self.agenda.pop() {
                self.happen(entry.what);
            }
        } else if let Some((_, at)) = worker.filter(|(at, _)| *at == next) {
            self.turn(at);
        } else if let Some((_, at)) = peer.filter(|(at, _)| *at == next) {
            self.with_peer(PeerNo(at), |now, endpoint| endpoint.handle_timeout(now));
        } else {
            if self.hub_tick_at == next {
                self.hub_tick_at = next + HUB_TICK;
                self.hub.handle_timeout(self.now);
            }
            self.dispatch();
        }
        true
    }

    fn push(&mut self, at: Instant, what: Happening) {
        self.order += 1;
        self.agenda.push(Reverse(Entry { at, order: self.order, what }));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToServer(inbound) => self.receive(inbound),
            Happening::ToPeer { from, to, bytes } => {
                let Some(peer) = self.nat.receiver(to).filter(|peer| !self.seats[peer.0].is_gone) else {
                    self.unreachable += 1;
                    return;
                };
                self.with_peer(peer, |now, endpoint| endpoint.handle_datagram(now, from, &bytes));
            }
            Happening::Turn(worker) => {
                if self.workers[worker].busy_until > self.now {
                    // A deadline had its turn since this one was planned.
                    let at = self.workers[worker].busy_until;
                    self.workers[worker].turn_at = Some(at);
                    self.push(at, Happening::Turn(worker));
                } else if self.workers[worker].turn_at.take_if(|at| *at <= self.now).is_some() {
                    self.turn(worker);
                }
            }
            Happening::Event(worker, event) => {
                self.hub.handle_event(self.now, worker, event);
                self.dispatch();
            }
            Happening::Notice(peer, notice) => {
                let (now, seat) = (self.now, &mut self.seats[peer.0]);
                seat.notices.push((now, notice.clone()));
                if !seat.is_gone {
                    self.with_peer(peer, |now, endpoint| endpoint.handle_notice(now, &notice));
                }
            }
            Happening::Request(peer, action) => self.request(peer, action),
            Happening::Answer(peer, answer) => {
                if !self.seats[peer.0].is_gone {
                    self.with_peer(peer, |now, endpoint| endpoint.handle_answer(now, answer));
                }
            }
        }
    }

    fn request(&mut self, peer: PeerNo, action: Action) {
        let id = self.seats[peer.0].id;
        match action {
            Action::Offer(sdp) => {
                let answer = self.hub.offer(self.now, id, &sdp);
                self.push(self.now + self.config.signalling_delay, Happening::Answer(peer, answer));
            }
            Action::Answer(sdp) => {
                if let Err(error) = self.hub.answer(self.now, id, &sdp)
                    && !self.seats[peer.0].is_gone
                {
                    self.oracle.fault(format!("an answer of {peer:?} was refused: {error}"));
                }
            }
            Action::Keys(keys) => {
                let owner = self.worker_of(self.nat.mapped(peer), SocketAddr::new(self.config.addresses[0], PORT));
                if let Some(session) = self.hub.session_of(id) {
                    self.workers[owner].core.adopt(self.now, session, &keys);
                    self.wake(owner);
                }
            }
            Action::Send(..) => {}
        }
        self.dispatch();
    }

    fn with_peer(&mut self, peer: PeerNo, act: impl FnOnce(Instant, &mut dyn Endpoint)) {
        let now = self.now;
        act(now, &mut *self.seats[peer.0].endpoint);
        while let Some(action) = self.seats[peer.0].endpoint.poll() {
            match action {
                Action::Send(to, bytes) => self.send(peer, to, bytes),
                action => self.push(now + self.config.signalling_delay, Happening::Request(peer, action)),
            }
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
