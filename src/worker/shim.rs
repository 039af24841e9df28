//! Bad networks on purpose: single peers of a running server behind links that lose, delay and throttle.
//!
//! Owns: the impaired links of this worker's sessions, and copies of the datagrams that are under way on them. What comes
//! in passes its link before the core looks at it, checks and handshakes too; what leaves passes after everything else.
//! Promises: what is held is bounded in bytes, and more counts as lost like a full queue's. Without an impaired session a
//! datagram costs one comparison. Copies are allocated one by one: this is for trying things out, not for load.
//! Forbids: knowing what datagrams carry, but for the ufrag of a check from an address that nobody has yet.
//!
//! A link ends with its session. Lifted earlier, what is under way still arrives at its time, and what comes later may
//! overtake it, as after a change of route.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use foldhash::fast::RandomState;
use rand::rngs::StdRng;

use super::command::Impairments;
use super::core::WorkerCore;
use crate::base::batch::{Path, RxDatagram, TxBatch};
use crate::base::ids::SessionKey;
use crate::proto::ice::{self, Incoming};
use crate::proto::link::Link;
use crate::session::discard::Discard;
use crate::wire::class::{Class, classify};
use crate::wire::stun::StunView;

/// Bytes under way in one direction, of all sessions of a worker: ten impaired peers with a second of 10 Mbit/s each.
const HELD_BYTES_MAX: usize = 12 << 20;
/// What a datagram costs besides its bytes, so that many small ones are bounded too.
const HELD_OVERHEAD_BYTES: usize = 128;
/// Room left in the batch when a datagram is let in: what it may answer by itself, a DTLS flight at most.
const ANSWERS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct Shim {
    links: HashMap<SessionKey, Links, RandomState>,
    up: Queue,
    down: Queue,
}

/// One session's links.
#[derive(Debug)]
struct Links {
    up: Option<Link>,
    down: Option<Link>,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the peer.
    Up,
    /// To the peer.
    Down,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its way is not impaired.
    Passes,
    /// It comes later.
    Held,
    /// It never comes.
    Lost,
}

/// Datagrams under way, in order of arrival.
#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Held>>,
    bytes: usize,
    last_number: u64,
}

#[derive(Debug)]
struct Held {
    at: Instant,
    /// Those of one moment keep their order.
    number: u64,
    path: Path,
    bytes: Box<[u8]>,
}

impl Shim {
    /// Sets or changes a session's links; a direction without one passes everything at once.
    pub fn set(&mut self, session: SessionKey, impairments: Impairments) {
        let links = self.links.entry(session).or_insert(Links { up: None, down: None });
        for (link, config) in [(&mut links.up, impairments.up), (&mut links.down, impairments.down)] {
            match (&mut *link, config) {
                (Some(link), Some(config)) => link.config = config,
                (_, config) => *link = config.map(Link::new),
            }
        }
        if links.up.is_none() && links.down.is_none() {
            self.links.remove(&session);
        }
    }

    /// The session has ended; its last words are still under way.
    pub fn remove(&mut self, session: SessionKey) {
        self.links.remove(&session);
    }

    /// When the next datagram arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        [&self.up, &self.down].into_iter().filter_map(Queue::next_timeout).min()
    }

    /// Nothing is impaired and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.links.is_empty() && self.next_timeout().is_none()
    }

    fn pass(&mut self, now: Instant, rng: &mut StdRng, session: SessionKey, way: Way, datagram: (Path, &[u8])) -> Fate {
        let links = self.links.get_mut(&session);
        let (link, queue) = match way {
            Way::Up => (links.and_then(|links| links.up.as_mut()), &mut self.up),
            Way::Down => (links.and_then(|links| links.down.as_mut()), &mut self.down),
        };
        let Some(link) = link else { return Fate::Passes };
        match link.pass(now, rng, datagram.1.len()) {
            Some(at) if queue.push(at, datagram) => Fate::Held,
            _ => Fate::Lost,
        }
    }
}

impl Queue {
    /// Copies a datagram; `false`: there is no room.
    fn push(&mut self, at: Instant, (path, bytes): (Path, &[u8])) -> bool {
        let cost = bytes.len() + HELD_OVERHEAD_BYTES;
        if self.bytes + cost > HELD_BYTES_MAX {
            return false;
        }
        self.bytes += cost;
        self.last_number += 1;
        self.heap.push(Reverse(Held { at, number: self.last_number, path, bytes: bytes.into() }));
        true
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(held)| held.at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Held> {
        self.next_timeout().filter(|at| *at <= now)?;
        let Reverse(held) = self.heap.pop()?;
        self.bytes -= held.bytes.len() + HELD_OVERHEAD_BYTES;
        Some(held)
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

impl WorkerCore {
    /// Sets a session's links.
    pub(super) fn set_impairments(&mut self, session: SessionKey, impairments: Impairments) {
        // A session that has gone meanwhile would keep its links for ever.
        if self.seats.seat_mut(session).is_some() {
            self.shim.get_or_insert_default().set(session, impairments);
        }
        self.shim.take_if(|shim| shim.is_idle());
    }

    /// Whether a link took what just came in.
    pub(super) fn impair_received(&mut self, now: Instant, datagram: &RxDatagram<'_>) -> bool {
        let Some(session) = self.session_behind(datagram.path, datagram.bytes) else { return false };
        let Some(shim) = &mut self.shim else { return false };
        let fate = shim.pass(now, &mut self.rng, session, Way::Up, (datagram.path, datagram.bytes));
        if fate == Fate::Lost {
            self.discards.count(Discard::Impaired);
        }
        fate != Fate::Passes
    }

    /// Takes what has come through the links by now, as far as the batch has room for the answers.
    pub(super) fn release_received(&mut self, now: Instant, tx: &mut TxBatch) {
        while tx.room() >= ANSWERS_MAX
            && !self.has_enough_work()
            && let Some(held) = self.shim.as_mut().and_then(|shim| shim.up.pop_due(now))
        {
            let mut bytes = held.bytes;
            self.demux_counted(now, RxDatagram::fresh(held.path, &mut bytes), tx);
        }
    }

    /// What is about to leave passes the impaired links: call before a batch is sent. Puts into the batch what has come
    /// through them by now, as far as there is room.
    pub fn impair(&mut self, now: Instant, tx: &mut TxBatch) {
        let Some(shim) = &mut self.shim else { return };
        let (seats, rng, discards) = (&self.seats, &mut self.rng, &mut self.discards);
        tx.retain(|path, bytes| {
            let Some(session) = seats.by_remote(path.remote) else { return true };
            let fate = shim.pass(now, rng, session, Way::Down, (path, bytes));
            if fate == Fate::Lost {
                discards.count(Discard::Impaired);
            }
            fate == Fate::Passes
        });
        while tx.has_room()
            && let Some(held) = shim.down.pop_due(now)
            && let Some(out) = tx.reserve()
        {
            out[..held.bytes.len()].copy_from_slice(&held.bytes);
            tx.commit(held.path, held.bytes.len());
        }
        self.shim.take_if(|shim| shim.is_idle());
    }

    fn session_behind(&self, path: Path, bytes: &[u8]) -> Option<SessionKey> {
        let known = self.seats.by_remote(path.remote);
        known.or_else(|| {
            let view = StunView::parse(bytes).ok().filter(|_| classify(bytes) == Class::Stun)?;
            match ice::screen(&view) {
                Ok(Incoming::Check(ufrag)) => self.seats.by_ufrag(ufrag),
                _ => None,
            }
        })
    }
}
