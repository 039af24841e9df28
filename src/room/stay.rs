//! Coming back: a peer whose socket is gone keeps its place for a while, and takes it again by what it was told when it
//! came. The others are not told of either.
//!
//! Owns: what opens a kept place, and until when. Promises: whoever comes back is the same peer to everybody; a media
//! session that ended meanwhile, or that is none of the connection that comes back, is made anew. Places of absent peers
//! are the first to go where seats are short.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::api::{CloseReason, Joined, MediaState, Notice};
use super::control::Control;
use super::hub::{Entered, Hub};
use super::join::uuid_v4;
use crate::base::ids::{PeerId, TrackKey};
use crate::worker::command::Command;

/// What a peer shows to come back.
#[derive(Clone, PartialEq, Eq)]
pub struct Pass {
    /// Names the stay.
    pub session_id: String,
    /// Nobody else knows it; each return brings a new one.
    pub session_token: String,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Pass").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl Pass {
    /// In a time that tells nothing about where the two differ.
    fn opens(&self, shown: &Self) -> bool {
        let same = |ours: &str, theirs: &str| {
            aws_lc_rs::constant_time::verify_slices_are_equal(ours.as_bytes(), theirs.as_bytes()).is_ok()
        };
        same(&self.session_id, &shown.session_id) & same(&self.session_token, &shown.session_token)
    }
}

/// A place that is kept.
#[derive(Debug)]
pub(super) struct Stay {
    pass: Pass,
    kept_for: Duration,
    /// The socket is gone, and then the place.
    away_until: Option<Instant>,
}

impl Hub {
    /// From now on the peer may come back within that time after its socket is gone.
    pub fn keep(&mut self, id: PeerId, kept_for: Duration) -> Option<Pass> {
        let session_token = format!("{:032x}", self.rng.random::<u128>());
        let pass = Pass { session_id: uuid_v4(&mut self.rng), session_token };
        self.peers.get_mut(&id)?.stay = Some(Stay { pass: pass.clone(), kept_for, away_until: None });
        Some(pass)
    }

    /// The peer's socket is gone.
    pub fn suspend(&mut self, now: Instant, id: PeerId) {
        match self.peers.get_mut(&id).map(|peer| peer.stay.as_mut()) {
            Some(Some(stay)) => stay.away_until = Some(now + stay.kept_for),
            Some(None) => self.leave(now, id),
            None => {}
        }
    }

    /// Somebody comes who says that he was here: with the right pass, he is. Whoever still sits there is told to go.
    pub fn resume(&mut self, room: &str, user_id: &str, shown: &Pass) -> Option<(Entered, Pass)> {
        let id = self.find(room, user_id)?;
        let session_token = format!("{:032x}", self.rng.random::<u128>());
        let peer = self.peers.get_mut(&id)?;
        let stay = peer.stay.as_mut().filter(|stay| stay.pass.opens(shown))?;
        stay.pass.session_token = session_token;
        let (pass, was_here) = (stay.pass.clone(), stay.away_until.take().is_none());
        // What it was told before is not known to have arrived.
        peer.negotiation.drop_pending_offer();
        (peer.offered_at, peer.asked_at, peer.asked_for) = (None, None, 0);
        (peer.ignores_offers, peer.told, peer.quality) = (false, Arc::default(), None);
        let wire_id = peer.info.wire_id.clone();
        if was_here {
            self.tell(id, Notice::Closed(CloseReason::Evicted));
        }
        Some((Entered { peer: id, wire_id, others: self.others(room, id) }, pass))
    }

    /// The one that came back is told what it receives.
    fn tell_anew(&mut self, now: Instant, id: PeerId) {
        self.subscribe(now, id);
        self.tell_tracks(id);
    }

    /// Places of peers that did not come back.
    pub(super) fn end_stays(&mut self, now: Instant) {
        let is_over = |until: &Instant| now >= *until;
        let gone: Vec<PeerId> = self.away().filter(|(until, _)| is_over(until)).map(|(_, id)| id).collect();
        gone.into_iter().for_each(|id| self.leave(now, id));
    }

    /// Makes room where all seats are taken. `false`: nobody is absent.
    pub(super) fn forget_longest_away(&mut self, now: Instant) -> bool {
        let longest = self.away().min().map(|(_, id)| id);
        longest.into_iter().for_each(|id| self.leave(now, id));
        longest.is_some()
    }

    fn away(&self) -> impl Iterator<Item = (Instant, PeerId)> {
        self.peers.iter().filter_map(|(id, peer)| Some((peer.stay.as_ref()?.away_until?, *id)))
    }

    /// The media session is over, but the peer may come with another.
    pub(super) fn handle_media_end(&mut self, now: Instant, id: PeerId) {
        if self.peers.get(&id).is_none_or(|peer| peer.stay.is_none()) {
            return self.close(now, id, CloseReason::MediaFailed);
        }
        self.renew_session(now, id);
        self.tell(id, Notice::Media(MediaState::Disconnected));
    }

    /// An offer of a connection that is not the one we know: a client that came back with a new one.
    pub(super) fn is_of_new_connection(&self, id: PeerId, offer: &str) -> bool {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.stay.is_some()) else { return false };
        let negotiation = &peer.negotiation;
        // A refused offer changes nothing, so it is tried before.
        negotiation.has_other_certificate(offer) && negotiation.renewed(0).accept_offer(offer).is_ok()
    }

    /// A media session that knows nothing of the one before; the peer stays who it is.
    pub(super) fn renew_session(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (room, worker, subscriptions) = (peer.room.clone(), peer.worker(), peer.bound.len());
        self.account(&room, subscriptions, worker, None);
        self.unroute(id);
        let (session, placed, local) = self.open_session(&room, id);
        let seed = self.rng.random();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.telling.note(peer.bound.drain(..).map(|(track, _)| track));
        let (old, old_placed) = (std::mem::replace(&mut peer.session, session), peer.placed);
        let tracks: Vec<TrackKey> = std::mem::take(&mut peer.tracks).into_values().map(|track| track.key).collect();
        peer.negotiation = peer.negotiation.renewed(seed).at(local);
        (peer.placed, peer.owner, peer.media, peer.silent_s) = (placed, None, None, 0.0);
        (peer.offered_at, peer.asked_at, peer.asked_for) = (None, None, 0);
        peer.sources.clear();
        self.by_session.remove(&old);
        self.by_session.insert(session, id);
        self.command_after_plan(old_placed, &Command::Close { session: old });
        self.sessions.give_back(old.index);
        self.settle(id, None, placed);
        self.withdraw(now, &room, &tracks);
        self.tell_anew(now, id);
    }
}

impl Control {
    /// See [`Hub::keep`].
    pub fn keep(&self, peer: PeerId, kept_for: Duration) -> Option<Pass> {
        self.with(|hub| hub.keep(peer, kept_for))
    }

    /// See [`Hub::suspend`]. What the peer would be told until it comes back is not kept.
    pub fn suspend(&self, peer: PeerId) {
        let mut inner = self.lock();
        inner.notices.remove(&peer);
        inner.hub.suspend(Self::now().0, peer);
        self.dispatch(&mut inner);
    }

    /// Takes a place again. `None`: the pass does not open it, or it is gone.
    pub fn resume(&self, room: &str, user_id: &str, pass: &Pass) -> Option<(Joined, Pass)> {
        let mut inner = self.lock();
        let (entered, pass) = inner.hub.resume(room, user_id, pass)?;
        // The word to whoever sits there still leaves before his queue is replaced.
        self.dispatch(&mut inner);
        let joined = inner.seat(entered);
        inner.hub.tell_anew(Self::now().0, joined.peer);
        self.dispatch(&mut inner);
        Some((joined, pass))
    }
}
