//! SDP to streams and back: one peer's negotiation (RFC 8829, RFC 9429), whoever offers.
//!
//! Owns: the m-lines of a peer, their ssrcs, which track each of them carries, and the offer that waits for an answer.
//! Promises: every step is taken whole or not at all. An m-line keeps its place, mid and ssrcs for its life.
//! Forbids: rooms, sockets, clocks. It is told which tracks are wanted and says what the worker must obey.

mod answer;
mod assign;
mod mline;
mod offer;

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::base::format::MediaKind;
use crate::base::ids::{Mid, Rid, Ssrc, TrackKey};
use crate::session::streams::StreamsConfig;
use crate::wire::sdp::{Description, Fingerprint, SdpError, to_token};

pub use crate::proto::dtls::DtlsRole;
pub use answer::is_usable;
use mline::{Mline, State};

/// Most m-lines our own offers grow to: 60 people with sound and picture, beyond what a browser decodes.
/// Tracks past it stay unplaced. A client's offer may have up to [`crate::wire::sdp::MLINES_MAX`].
pub const OFFERED_MLINES_MAX: usize = 128;

/// Who makes offers, and what m-lines our own offers begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// We make the first offer (Gryt's real protocol); else the client does.
    pub server_offers_first: bool,
    /// We may offer too when tracks wait for an m-line, also where the client offered first.
    pub server_may_offer: bool,
    /// The track behind a sending m-line may change without an offer (clients that do not read msid).
    pub live_binding: bool,
    /// Receive-only m-lines at the head of our first offer.
    pub slots: &'static [MediaKind],
    /// What the peer is here for.
    pub role: Role,
}

/// What a peer is here for; what its offers say beyond that is answered with no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To send and to receive.
    Participant,
    /// To send only (RFC 9725 §4.2: WHIP is one-way); `sendrecv` is answered `recvonly`.
    Publisher,
    /// To receive only; `sendrecv` is answered `sendonly`. With live binding all it gets is one MediaStream.
    Viewer,
}

/// Why a description cannot be used. The negotiation stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// Not SDP.
    #[error("the description is not valid SDP: {0}")]
    Syntax(String),
    /// Valid SDP that WebRTC cannot use.
    #[error("the description cannot be used: {0}")]
    Unusable(String),
    /// An answer came and no offer was out.
    #[error("an answer came, but no offer of ours is waiting for one")]
    UnexpectedAnswer,
}

/// Our side of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTransport {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Hash of our certificate.
    pub fingerprint: Fingerprint,
    /// Addresses we are reached at, best first.
    pub candidates: Vec<SocketAddr>,
    /// RTCP CNAME of everything we send to this peer.
    pub cname: String,
}

/// The peer's side of the transport, as it described itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTransport {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Hash its certificate must have.
    pub fingerprint: Fingerprint,
    /// Our DTLS role; the same for the whole session.
    pub dtls_role: DtlsRole,
}

/// A track this peer should receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTrack {
    /// Which.
    pub key: TrackKey,
    /// Audio or video.
    pub kind: MediaKind,
    /// MediaStream id to tell the peer.
    pub stream_id: String,
    /// Track id to tell the peer.
    pub track_id: String,
}

impl WantedTrack {
    /// What another peer named goes into this peer's SDP: one token each.
    fn in_tokens(&self) -> Self {
        let stream_id = to_token(&self.stream_id).unwrap_or_else(|| "-".into());
        let track_id = to_token(&self.track_id).unwrap_or_else(|| "track".into());
        Self { stream_id, track_id, ..*self }
    }
}

/// A track the peer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Index of the m-line.
    pub mline: usize,
    /// Its mid.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// The peer's MediaStream id, or one that we made for this session.
    pub stream_id: String,
    /// The peer's track id, or one that we made for this m-line.
    pub track_id: String,
    /// Which of [`Policy::slots`].
    pub slot: Option<usize>,
}

/// Keys are ours: nobody can make them collide.
type Keys = HashSet<TrackKey, foldhash::fast::RandomState>;

/// One peer's negotiation.
#[derive(Clone, Debug)]
pub struct Negotiation {
    policy: Policy,
    local: LocalTransport,
    random: SplitMix,
    session_id: u64,
    /// Of the last description we wrote.
    version: u64,
    /// What both sides agreed on.
    state: State,
    /// What they will have agreed on when our offer is answered.
    pending: Option<State>,
    /// ICE credentials for the next restart.
    fresh_ice: Option<IceCredentials>,
    wanted: Vec<WantedTrack>,
    wanted_keys: Keys,
}

/// One side's ICE credentials (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password stays out of logs.
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

impl Negotiation {
    /// A negotiation before its first description. `seed` (random, from the caller) makes ssrcs and the session id.
    pub fn new(policy: Policy, local: LocalTransport, seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let ice = IceCredentials { ufrag: local.ufrag.clone(), pwd: local.pwd.clone() };
        Self {
            policy,
            local,
            // RFC 9429 §5.2.1: a 64-bit number whose highest bit is zero. 53 bits fit JavaScript too.
            session_id: random.next() >> 11,
            random,
            version: 0,
            state: State::new(ice),
            pending: None,
            fresh_ice: None,
            wanted: Vec::new(),
            wanted_keys: Keys::default(),
        }
    }

    /// Credentials that the next ICE restart carries: our next offer, or our answer to an offer that restarts.
    pub fn ice_restart(&mut self, ufrag: String, pwd: String) {
        self.fresh_ice = Some(IceCredentials { ufrag, pwd });
    }

    /// Says which tracks the peer should receive, most important first. Returns whether [`Self::streams`] changed now.
    pub fn set_wanted(&mut self, wanted: &[WantedTrack]) -> bool {
        let before: Vec<_> = self.carried(&self.state).collect();
        self.wanted_keys.clear();
        self.wanted.clear();
        for track in wanted {
            if self.wanted_keys.insert(track.key) {
                self.wanted.push(track.in_tokens());
            }
        }
        let keys = &self.wanted_keys;
        self.state.refused.retain(|key| keys.contains(key));
        if self.policy.live_binding {
            assign::live(&mut self.state, &self.wanted);
        }
        before != self.carried(&self.state).collect::<Vec<_>>()
    }

    /// One more track that the peer should receive, or a known one that has another name or place: behind those that
    /// `is_before` says. Returns whether [`Self::streams`] changed now.
    pub fn want(&mut self, track: &WantedTrack, is_before: impl Fn(TrackKey) -> bool) -> bool {
        let is_new = self.wanted_keys.insert(track.key);
        if !is_new {
            self.wanted.retain(|known| known.key != track.key);
        }
        let at = self.wanted.partition_point(|other| is_before(other.key));
        self.wanted.insert(at, track.in_tokens());
        if !self.policy.live_binding {
            // It may still lie on an m-line from before.
            return is_new && self.carried(&self.state).any(|(_, key)| key == track.key);
        }
        is_new && assign::live_one(&mut self.state, &self.wanted[at]) || self.rebind()
    }

    /// A track that the peer should not receive any more. Returns whether [`Self::streams`] changed now.
    pub fn unwant(&mut self, key: TrackKey) -> bool {
        let was_carried = self.carried(&self.state).any(|(_, carried)| carried == key);
        self.wanted_keys.remove(&key);
        self.wanted.retain(|known| known.key != key);
        self.state.refused.retain(|refused| *refused != key);
        if self.policy.live_binding && was_carried {
            assign::live(&mut self.state, &self.wanted);
        }
        was_carried
    }

    /// Whether the peer should receive that track.
    pub fn wants(&self, key: TrackKey) -> bool {
        self.wanted_keys.contains(&key)
    }

    fn rebind(&mut self) -> bool {
        let before: Vec<_> = self.carried(&self.state).collect();
        assign::live(&mut self.state, &self.wanted);
        before != self.carried(&self.state).collect::<Vec<_>>()
    }

    /// Forgets our offer that nobody answers; [`Self::needs_offer`] tells whether another is due.
    pub fn drop_pending_offer(&mut self) {
        if let Some(pending) = self.pending.take() {
            // Credentials of the dropped offer were never used by the peer: the next description carries them.
            if pending.ice != self.state.ice && self.fresh_ice.is_none() {
                self.fresh_ice = Some(pending.ice);
            }
        }
    }

    /// An offer of ours waits for its answer.
    pub fn has_pending_offer(&self) -> bool {
        self.pending.is_some()
    }

    /// There is something to tell that only an offer of ours can tell, beyond the one that is out.
    pub fn needs_offer(&self) -> bool {
        if !self.may_offer() {
            return false;
        }
        let base = self.pending.as_ref().unwrap_or(&self.state);
        base.mlines.is_empty() || self.fresh_ice.is_some() || assign::offer_would_change(base, self)
    }

    /// Wanted tracks that no m-line carries now.
    pub fn unplaced(&self) -> usize {
        self.wanted.len().saturating_sub(self.carried(&self.state).count())
    }

    /// Tracks the peer could receive, had it enough m-lines.
    pub fn wanted_count(&self) -> usize {
        self.wanted.len()
    }

    /// Tracks the peer should receive, in their order.
    #[cfg(test)]
    pub fn wanted(&self) -> &[WantedTrack] {
        &self.wanted
    }

    /// What a worker must obey. `ingress` gives the key under which the room keeps what the peer sends on an m-line.
    pub fn streams(&self, ingress: impl Fn(usize) -> Option<TrackKey>) -> StreamsConfig {
        let config = |(index, mline): (usize, &Mline)| mline.config(ingress(index), &self.wanted_keys);
        StreamsConfig {
            mlines: self.state.mlines.iter().enumerate().map(config).collect(),
            ext_mixed: self.state.ext_mixed,
            downlink_bps_max: None,
        }
    }

    /// What the peer sends now.
    pub fn publications(&self) -> Vec<Publication> {
        let publication = |(index, mline): (usize, &Mline)| mline.publication(index, self.session_id);
        self.state.mlines.iter().enumerate().filter_map(publication).collect()
    }

    /// The streams of what the peer sends on an m-line, in the order of their encodings, by name where they have one.
    pub fn rids(&self, mline: usize) -> Vec<Option<Rid>> {
        let mline = self.state.mlines.get(mline);
        mline.map(|mline| mline.encodings().into_iter().map(|encoding| encoding.rid).collect()).unwrap_or_default()
    }

    /// Which m-line carries which track now.
    pub fn bindings(&self) -> Vec<(String, TrackKey)> {
        self.carried(&self.state).map(|(mid, key)| (mid.as_str().to_owned(), key)).collect()
    }

    /// The m-line for pictures that is meant by its index or its mid.
    pub fn picture_mline(&self, name: &str) -> Option<usize> {
        let mlines = &self.state.mlines;
        let is_picture = |index: &usize| mlines.get(*index).is_some_and(|mline| mline.kind == Some(MediaKind::Video));
        let by_index = name.parse().ok().filter(is_picture);
        by_index.or_else(|| mlines.iter().position(|mline| mline.mid.as_str() == name).filter(is_picture))
    }

    /// The peer's transport; `None` before its first description.
    pub fn remote(&self) -> Option<&RemoteTransport> {
        self.state.remote.as_ref()
    }

    /// Our ICE credentials in force, as `(ufrag, pwd)`.
    pub fn local_ice(&self) -> (&str, &str) {
        (&self.state.ice.ufrag, &self.state.ice.pwd)
    }

    /// Whether an offer restarts ICE: then give fresh credentials by [`Self::ice_restart`] before accepting it
    /// (RFC 8839 §4.4.1.1.1: the answer to a restart has new ones). `false` for what is no offer.
    pub fn restarts_ice(&self, offer: &str) -> bool {
        let Some(remote) = &self.state.remote else { return false };
        let Ok(offer) = Description::parse(offer) else { return false };
        answer::credentials(&offer).is_some_and(|(ufrag, pwd)| ufrag != remote.ufrag || pwd != remote.pwd)
    }

    /// Whether an offer is of another connection of the peer: its certificate is not the one we know. `false` for what is
    /// no offer, and before the first one.
    pub fn has_other_certificate(&self, offer: &str) -> bool {
        let Some(remote) = &self.state.remote else { return false };
        let Ok(offer) = Description::parse(offer) else { return false };
        answer::fingerprint(&offer).is_some_and(|fingerprint| fingerprint != remote.fingerprint)
    }

    /// A negotiation of the same kind before its first description.
    pub fn renewed(&self, seed: u64) -> Self {
        Self::new(self.policy.clone(), self.local.clone(), seed)
    }

    /// The same with another transport of ours; before the first description.
    pub fn at(self, local: LocalTransport) -> Self {
        Self { state: State::new(IceCredentials { ufrag: local.ufrag.clone(), pwd: local.pwd.clone() }), local, ..self }
    }

    /// Whether m-lines on which the peer only receives are free for all tracks that wait.
    pub fn has_place_for_all(&self) -> bool {
        [MediaKind::Audio, MediaKind::Video].into_iter().all(|kind| assign::spare(&self.state, &self.wanted, kind) >= 0)
    }

    /// Restarts ICE without a description (RFC 8840 §4): both sides' new credentials at once. An offer of ours that is
    /// out is dropped; DTLS and its roles stay. `false` before the peer's first description: there is nothing to restart.
    pub fn exchange_ice(&mut self, remote: IceCredentials, local: IceCredentials) -> bool {
        let Some(transport) = &mut self.state.remote else { return false };
        (transport.ufrag, transport.pwd) = (remote.ufrag, remote.pwd);
        self.state.ice = local;
        self.pending = None;
        self.fresh_ice = None;
        true
    }

    /// The m-line whose transport all others share (RFC 9143 §7.2.1), as `(kind, mid)`.
    pub fn bundle_tag(&self) -> Option<(MediaKind, Mid)> {
        self.state.mlines.iter().find(|mline| mline.live).and_then(|mline| Some((mline.kind?, mline.mid)))
    }

    /// Whether we may make an offer now, or could as soon as the one that is out is answered.
    pub fn may_offer(&self) -> bool {
        // Where the client offers first, the first description is the client's.
        self.policy.server_offers_first || (self.policy.server_may_offer && !self.state.mlines.is_empty())
    }

    fn carried(&self, state: &State) -> impl Iterator<Item = (Mid, TrackKey)> {
        state.mlines.iter().filter_map(|mline| Some((mline.mid, mline.carried(&self.wanted_keys)?)))
    }

    /// Gives ssrcs to sending m-lines that have none.
    fn give_ssrcs(&mut self, state: &mut State) {
        for index in 0..state.mlines.len() {
            let Some(mline) = state.mlines.get(index).filter(|m| m.we_send && m.egress.is_none()) else { continue };
            debug_assert!(mline.live);
            let egress = (self.fresh_ssrc(state, Ssrc(0)), Ssrc(0));
            let egress = (egress.0, self.fresh_ssrc(state, egress.0));
            if let Some(mline) = state.mlines.get_mut(index) {
                mline.egress = Some(egress);
            }
        }
    }

    /// RFC 3550 §8.1: unique in the session, so not one of ours and none the peer named.
    fn fresh_ssrc(&mut self, state: &State, not: Ssrc) -> Ssrc {
        loop {
            let ssrc = Ssrc((self.random.next() >> 32) as u32);
            let taken = |mline: &Mline| {
                mline.egress.is_some_and(|(a, b)| a == ssrc || b == ssrc)
                    || mline.ssrcs.iter().any(|(a, b)| *a == ssrc || *b == Some(ssrc))
            };
            if ssrc.0 != 0 && ssrc != not && !state.mlines.iter().any(taken) {
                return ssrc;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): ssrcs have to differ, not to be secret.
#[derive(Clone, Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl From<SdpError> for NegotiateError {
    fn from(error: SdpError) -> Self {
        match error {
            SdpError::Syntax(text) => Self::Syntax(text),
            SdpError::Limit(text) | SdpError::Attribute(text) => Self::Unusable(text.into()),
        }
    }
}

fn unusable(text: impl Into<String>) -> NegotiateError {
    NegotiateError::Unusable(text.into())
}

#[cfg(test)]
mod tests;
