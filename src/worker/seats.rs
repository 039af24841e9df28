//! The sessions a worker knows: its own, and those that may still arrive anywhere.
//!
//! Owns: a dense table by session key, and the ways to find a session by what a datagram shows: source address, ufrag.
//! Promises: whatever a seat put into the look-up tables goes with it; both are bounded by what a session may have.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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

    /// Whose place the index is now.
    pub fn tenant(&self, index: u32) -> Option<SessionKey> {
        self.seats.get(index as usize)?.as_ref().map(|seat| seat.ticket.session)
    }

    /// Removes a session from everywhere.
    pub fn close(&mut self, key: SessionKey) -> Option<Box<Seat>> {
        self.seat_mut(key)?;
        let mut seat = self.seats.get_mut(key.index as usize)?.take()?;
        for ufrag in seat.ice().ufrags() {
            self.by_ufrag.remove(&ufrag);
        }
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
    pub fn handle_outcome(&mut self, now: Instant, key: SessionKey, path: Path, outcome: &CheckOutcome) {
        if !outcome.is_accepted {
            return;
        }
        let holder = self.by_remote(path.remote).filter(|holder| *holder != key);
        if !holder
            .and_then(|holder| self.seat_mut(holder))
            .is_some_and(|seat| seat.ice().holds_remote(now, path.remote))
        {
            self.by_remote.insert(path.remote, key);
        }
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

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::base::ids::PeerId;
    use crate::proto::ice::CheckRequest;
    use crate::runtime::clock;

    /// A seat on a worker that does not own it, and a check for it.
    fn open(seats: &mut Seats, now: Instant, index: u32) -> (SessionKey, CheckRequest) {
        let key = SessionKey { index, epoch: 0 };
        let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(u64::from(index)));
        let check = CheckRequest {
            ufrag: credentials.ufrag(),
            transaction_id: [0; 12],
            priority: Some(1),
            use_candidate: true,
        };
        let state = State::Waiting(Box::new(IceLite::new(now, credentials)));
        seats.open(Seat { ticket: Arc::new(Ticket::new(key, PeerId(1))), state, remote: None, streams: None });
        (key, check)
    }

    fn handle(seats: &mut Seats, now: Instant, (key, check): (SessionKey, CheckRequest), path: Path) {
        let outcome = seats.seat_mut(key).unwrap().ice().handle_check(now, path, &check);
        seats.handle_outcome(now, key, path, &outcome);
    }

    #[test]
    fn an_address_in_use_cannot_be_taken_by_another_sessions_check() {
        let (now, mut seats) = (clock::now(), Seats::default());
        let (victim, thief) = (open(&mut seats, now, 0), open(&mut seats, now, 1));
        let path = Path { remote: ([192, 0, 2, 9], 9).into(), local: [192, 0, 2, 1].into() };
        handle(&mut seats, now, victim, path);
        handle(&mut seats, now, thief, path);
        assert_eq!(seats.by_remote(path.remote), Some(victim.0));
        // A NAT gives a port to another peer once the one before is silent.
        handle(&mut seats, now + crate::proto::ice::REMOTE_HELD_FOR, thief, path);
        assert_eq!(seats.by_remote(path.remote), Some(thief.0));
        seats.close(thief.0);
        assert_eq!(seats.by_remote(path.remote), None);
    }

    #[test]
    fn what_a_seat_put_into_the_tables_goes_with_it() {
        let (now, mut seats) = (clock::now(), Seats::default());
        let seat = open(&mut seats, now, 3);
        for port in 1..60 {
            handle(&mut seats, now, seat, Path { remote: ([192, 0, 2, 9], port).into(), local: [192, 0, 2, 1].into() });
        }
        assert!(seats.by_remote.len() <= 16, "evicted paths left the table");
        seats.restart(seat.0, LocalCredentials::generate(&mut StdRng::seed_from_u64(50)));
        seats.restart(seat.0, LocalCredentials::generate(&mut StdRng::seed_from_u64(51)));
        assert_eq!(seats.by_ufrag.len(), 2);
        seats.close(seat.0);
        assert!(seats.by_remote.is_empty() && seats.by_ufrag.is_empty());
    }
}
