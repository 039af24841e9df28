//! Clients that offer themselves and are asked to when something changed (SFU-Go).
//!
//! Promises: asked once for what one offer can settle. A client that does not offer then, or whose offer leaves tracks
//! without a place, gets our offer; one that ignores that is left alone until there is more for it.

use std::time::{Duration, Instant};

use super::api::Notice;
use super::control::Control;
use super::hub::Hub;
use crate::base::ids::PeerId;

/// How long a client that was asked may take to offer; then we do.
const OFFER_WAIT: Duration = Duration::from_secs(3);

impl Hub {
    /// Something waits that only a description can tell.
    pub(super) fn ask_for_offer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let negotiation = &peer.negotiation;
        let is_in_vain = peer.asked_for > 0 && negotiation.wanted_count() <= peer.asked_for;
        // Before its first offer there is nothing to ask for, and one of ours settles everything.
        if !negotiation.needs_offer() || negotiation.has_pending_offer() || is_in_vain {
            return;
        }
        // Clients make as many m-lines as they are told there are tracks; who has enough is not to make more.
        let track_count = if negotiation.has_place_for_all() { 0 } else { negotiation.wanted_count() };
        if peer.asked_at.is_some_and(|(_, asked_for)| asked_for >= track_count) {
            return;
        }
        peer.asked_at = Some((now, track_count));
        self.tell(id, Notice::NeedsOffer { track_count });
    }

    /// The client has offered.
    pub(super) fn handle_client_offer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_asked = peer.asked_at.take().is_some();
        let is_left = was_asked && peer.negotiation.needs_offer();
        peer.asked_for = if is_left && peer.ignores_offers { peer.negotiation.wanted_count() } else { 0 };
        if is_left && !peer.ignores_offers {
            self.make_offer(now, id);
        }
    }

    /// Clients that were asked and did not offer.
    pub(super) fn offer_to_the_silent(&mut self, now: Instant) {
        let is_late = |(at, _)| now >= at + OFFER_WAIT;
        let asked = self.peers.iter().filter(|(_, peer)| peer.asked_at.is_some_and(is_late));
        let late: Vec<PeerId> = asked.map(|(id, _)| *id).collect();
        for id in late {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.asked_at = None;
            if !peer.ignores_offers {
                self.make_offer(now, id);
            }
        }
    }
}

impl Control {
    /// Whether an offer of the peer would meet none of ours.
    pub fn may_renegotiate(&self, peer: PeerId) -> bool {
        self.lock().hub.may_renegotiate(peer)
    }
}

impl Hub {
    /// See [`Control::may_renegotiate`].
    pub fn may_renegotiate(&self, id: PeerId) -> bool {
        self.peers.get(&id).is_some_and(|peer| !peer.negotiation.has_pending_offer())
    }
}
