//! The sessions a worker knows: its own, and those that may still arrive anywhere.
//!
//! Owns: a dense table by session key, and the ways to find a session by what a datagram shows: source address, ufrag.
//! Promises: whatever a seat put into the look-up tables goes with it; both are bounded by what a session may have.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::command::Ticket;
use crate::base::batch::Path;
use crate::base::ids::SessionKey;
use crate::proto::ice::{CheckOutcome, IceLite, LocalCredentials, Ufrag};
use crate::session::negotiate::RemoteTransport;
use crate::session::peer::Session;
use crate::session::streams::StreamsConfig;

/// Where a session stands on this worker.
#[derive(Debug)]
pub enum State {
    /// No DTLS came here yet: the agent answers checks, for itself or for the owner elsewhere.
    Waiting(Box<IceLite>),
    /// This worker owns it.
    Mine(Box<Session>),
}

/// One session on one worker.
#[derive(Debug)]
pub struct Seat {
    /// Identity and claim, shared by all workers.
    pub ticket: Arc<Ticket>,
    /// See [`State`].
    pub state: State,
    /// The peer's half, once known.
    pub remote: Option<Arc<RemoteTransport>>,
    /// What was negotiated last.
    pub streams: Option<Arc<StreamsConfig>>,
}

impl Seat {
    /// The agent.
    pub fn ice(&mut self) -> &mut IceLite {
        match &mut self.state {
            State::Waiting(ice) => ice,
            State::Mine(session) => &mut session.ice,
        }
    }

    /// The session, if it lives here.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Waiting(_) => None,
            State::Mine(session) => Some(session),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Seats {
    seats: Vec<Option<Box<Seat>>>,
    by_remote: HashMap<SocketAddr, SessionKey, RandomState>,
    by_ufrag: HashMap<Ufrag, SessionKey, RandomState>,
}

impl Seats {
    /// Adds a session that may come.
    pub fn open(&mut self, seat: Seat) {
        let key = seat.ticket.session;
        let index = key.index as usize;
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, || None);
        }
        let mut seat = Box::new(seat);
        self.by_ufrag.insert(seat.ice().credentials().ufrag(), key);
        self.seats[index] = Some(seat);
    }

    /// Removes a session from everywhere.
    pub fn close(&mut self, key: SessionKey) -> Option<Box<Seat>> {
        self.seat_mut(key)?;
        let mut seat = self.seats.get_mut(key.index as usize)?.take()?;
        self.by_ufrag.retain(|_, of| *of != key);
        let by_remote = &mut self.by_remote;
        for path in seat.ice().paths() {
            if by_remote.get(&path.remote) == Some(&key) {
                by_remote.remove(&path.remote);
            }
        }
        Some(seat)
    }

    /// The seat, unless the key is stale.
    pub fn seat_mut(&mut self, key: SessionKey) -> Option<&mut Seat> {
        self.seats.get_mut(key.index as usize)?.as_deref_mut().filter(|seat| seat.ticket.session == key)
    }

    /// The session, if the key is fresh and it lives here.
    pub fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.seat_mut(key)?.session()
    }

    /// Whose address this is.
    pub fn by_remote(&self, remote: SocketAddr) -> Option<SessionKey> {
        self.by_remote.get(&remote).copied()
    }

    /// Whose ufrag this is.
    pub fn by_ufrag(&self, ufrag: Ufrag) -> Option<SessionKey> {
        self.by_ufrag.get(&ufrag).copied()
    }

    /// New credentials beside the old.
    pub fn restart(&mut self, key: SessionKey, credentials: LocalCredentials) {
        let Some(seat) = self.seat_mut(key) else { return };
        let ufrag = credentials.ufrag();
        let retired = seat.ice().restart(credentials).retired;
        self.by_ufrag.insert(ufrag, key);
        if let Some(retired) = retired {
            self.by_ufrag.remove(&retired);
        }
    }

    /// Notes what a valid check changed.
    pub fn handle_outcome(&mut self, key: SessionKey, path: Path, outcome: &CheckOutcome) {
        if !outcome.is_accepted {
            return;
        }
        self.by_remote.insert(path.remote, key);
        if let Some(retired) = outcome.retired {
            self.by_ufrag.remove(&retired);
        }
        // Another local address of ours may still be reached from the same remote one.
        if let Some(evicted) = outcome.evicted
            && self.by_remote(evicted.remote) == Some(key)
            && !self.seat_mut(key).is_some_and(|seat| seat.ice().paths().any(|path| path.remote == evicted.remote))
        {
            self.by_remote.remove(&evicted.remote);
        }
    }

    /// All sessions that live here.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.seats.iter().flatten().filter_map(|seat| match &seat.state {
            State::Mine(session) => Some(&**session),
            State::Waiting(_) => None,
        })
    }

    /// Keys of all seats.
    pub fn keys(&self) -> Vec<SessionKey> {
        self.seats.iter().flatten().map(|seat| seat.ticket.session).collect()
    }
}
