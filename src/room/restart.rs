//! ICE restarts (RFC 8445 §9), whoever asks for them and in whatever words: an offer of the client, an offer of ours, or a
//! fragment that carries credentials only.
//!
//! Promises: both sides' credentials change together; DTLS and its roles stay. What the peer knew before serves until the
//! new credentials validate a path, and for as long as they do not.

use std::net::SocketAddr;
use std::time::Instant;

use super::api::RequestError;
use super::hub::Hub;
use crate::base::format::MediaKind;
use crate::base::ids::{Mid, PeerId};
use crate::proto::ice::LocalCredentials;
use crate::session::negotiate::{IceCredentials, NegotiateError};
use crate::worker::command::Command;

/// Our side of an ICE session that a fragment restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// Our new credentials.
    pub local: IceCredentials,
    /// Where we are reached, best first.
    pub candidates: Vec<SocketAddr>,
    /// The m-line whose transport all others share.
    pub kind: MediaKind,
    /// Its mid.
    pub mid: Mid,
}

impl Hub {
    /// We offer, with new credentials; the peer answers as it answers any offer. An offer that is out is dropped.
    ///
    /// # Errors
    /// When the peer is gone, has not come so far, or is one that takes no offers of ours: it must offer by itself.
    pub fn restart_ice(&mut self, now: Instant, id: PeerId) -> Result<(), RequestError> {
        let peer = self.peers.get(&id).ok_or(RequestError::Gone)?;
        if peer.negotiation.remote().is_none() || !peer.negotiation.may_offer() || peer.ignores_offers {
            let sentence = "ICE cannot be restarted by an offer of the server here; the client has to offer";
            return Err(NegotiateError::Unusable(sentence.to_owned()).into());
        }
        self.offer_restart(now, id);
        Ok(())
    }

    /// An offer with new credentials, or none where the client must offer.
    pub(super) fn offer_restart(&mut self, now: Instant, id: PeerId) {
        let credentials = LocalCredentials::generate(&mut self.rng);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.negotiation.drop_pending_offer();
        let IceCredentials { ufrag, pwd } = described(&credentials);
        peer.negotiation.ice_restart(ufrag, pwd);
        self.accept_checks_by(id, credentials);
        self.make_offer(now, id);
    }

    /// The peer's credentials came without a description (RFC 8840, RFC 9725 §4.3). `None`: they are those we know, so
    /// nothing restarts.
    ///
    /// # Errors
    /// When the peer is gone, or only one of the two is new (RFC 8839 §5.4: both change in a restart).
    pub fn exchange_ice(&mut self, id: PeerId, remote: IceCredentials) -> Result<Option<Restarted>, RequestError> {
        let credentials = LocalCredentials::generate(&mut self.rng);
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        let known = peer.negotiation.remote().ok_or(RequestError::Gone)?;
        match (known.ufrag == remote.ufrag, known.pwd == remote.pwd) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => {
                let sentence = "an ICE restart changes both a=ice-ufrag and a=ice-pwd";
                return Err(NegotiateError::Unusable(sentence.to_owned()).into());
            }
        }
        let (kind, mid) = peer.negotiation.bundle_tag().ok_or(RequestError::Gone)?;
        let local = described(&credentials);
        peer.negotiation.exchange_ice(remote, local.clone());
        let placed = peer.placed;
        self.accept_checks_by(id, credentials);
        self.configure(id);
        Ok(Some(Restarted { local, candidates: self.candidates(placed), kind, mid }))
    }

    /// Workers take checks with these credentials too.
    pub(super) fn accept_checks_by(&mut self, id: PeerId, credentials: LocalCredentials) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (session, placed) = (peer.session, peer.placed);
        self.ice_restarts += 1;
        // Checks with them come over a path that is new, so maybe to another worker than the owner.
        self.command(placed, &Command::Restart { session, credentials });
    }
}

/// As a description carries them.
fn described(credentials: &LocalCredentials) -> IceCredentials {
    IceCredentials { ufrag: credentials.ufrag().as_str().to_owned(), pwd: credentials.pwd().to_owned() }
}
