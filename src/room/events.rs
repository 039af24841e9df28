//! News from the workers, and deadlines.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::api::{Dialect, MediaState, Notice};
use super::hub::Hub;
use crate::base::ids::{PeerId, SessionKey, WorkerId};
use crate::worker::command::{Event, WorkerReport};

/// How long an offer of ours may stay unanswered before the client counts as one that ignores offers.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Hub {
    /// News from a worker.
    pub fn handle_event(&mut self, now: Instant, worker: WorkerId, event: Event) {
        let peer_of = |session: SessionKey| self.by_session.get(&session).copied();
        match event {
            Event::Claimed { session } => {
                let Some(id) = peer_of(session) else { return };
                let Some(peer) = self.peers.get_mut(&id) else { return };
                let before = peer.worker();
                peer.owner = Some(worker);
                self.settle(id, before, Some(worker));
                self.route(id);
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
                self.handle_media_end(now, id);
            }
            Event::TrackLive { track } => self.handle_live(now, track),
            Event::Voices(voices) => self.handle_voices(now, worker, &voices),
            Event::Report(report) => self.handle_report(now, worker, *report),
            Event::PublicAddress(address) => self.handle_public_address(address),
            // The answer may have come to another worker than the one that asked.
            Event::PublicAddressUnknown if self.knows_public_address => {}
            Event::PublicAddressUnknown => tracing::warn!(
                "no STUN server answered: only the addresses of this machine are announced; \
                 if clients come from outside, set ICE_ADVERTISE_IP"
            ),
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
            self.tell(id, Notice::Media(state));
        }
    }

    fn handle_public_address(&mut self, address: SocketAddr) {
        self.knows_public_address = true;
        let Some(addresses) = self.config.addresses.first_mut() else { return };
        if !addresses.contains(&address) {
            tracing::info!(%address, "the public address of the media port is announced too");
            addresses.push(address);
        }
    }

    fn handle_report(&mut self, now: Instant, worker: WorkerId, report: WorkerReport) {
        self.placement.handle_report(now, worker, report.packets_forwarded);
        for session in &report.sessions {
            let peer = self.by_session.get(&session.session).and_then(|id| self.peers.get_mut(id));
            if let Some(peer) = peer {
                peer.handle_report(now, session);
            }
        }
        let index = usize::from(worker.0);
        if let (Some(slot), Some(earlier), Some(at)) =
            (self.reports.get_mut(index), self.earlier.get_mut(index), self.reported_at.get_mut(index))
        {
            let elapsed = at.replace(now).map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
            *earlier = (std::mem::replace(slot, report), elapsed);
        }
        self.tell_quality(now, worker);
    }

    /// Deadlines; call about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.plan.free_retired();
        self.end_stays(now);
        self.drop_empty_rooms(now);
        self.offer_to_the_silent(now);
        self.forget_silent_speakers(now);
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
                // Plain clients of these two know no offers from the server; the others answer late or are asked again.
                peer.ignores_offers = matches!(peer.dialect, Dialect::Switchboard | Dialect::SfuGo);
            }
            self.subscribe(now, id);
        }
    }
}
