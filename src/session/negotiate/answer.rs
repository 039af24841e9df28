//! The client offers, we answer.

use super::mline::{Mline, State, is_for_simulcast};
use super::{NegotiateError, Negotiation, RemoteTransport, Role, assign, unusable};
use crate::base::format::MediaKind;
use crate::base::ids::Mid;
use crate::proto::dtls::DtlsRole;
use crate::wire::rtp_ext::Ext;
use crate::wire::sdp::{Description, Fingerprint, Media, OriginOut, Setup, SimulcastStream, Transport};

impl Negotiation {
    /// Accepts the client's offer and returns the answer. An offer of ours that is out is dropped: the client's wins.
    ///
    /// # Errors
    /// When the offer is not SDP or cannot be used; then nothing has changed.
    pub fn accept_offer(&mut self, sdp: &str) -> Result<String, NegotiateError> {
        let offer = Description::parse(sdp)?;
        let mut next = self.state.clone();
        let restarts = accept(&mut next, &offer, self.policy.role)?;
        self.drop_pending_offer();
        if restarts && let Some(fresh) = self.fresh_ice.take() {
            next.ice = fresh;
        }
        // A peer that offers anew may have changed its mind.
        next.refused.clear();
        next.refused_mlines = [0; 2];
        if self.policy.live_binding {
            for mline in &mut next.mlines {
                mline.we_send = mline.live && mline.slot.is_none() && mline.peer_receives;
            }
            assign::live(&mut next, &self.wanted);
        } else {
            assign::described(&mut next, &self.wanted, |m| m.live && m.slot.is_none() && m.peer_receives);
            for mline in &mut next.mlines {
                mline.we_send = mline.bound.is_some();
            }
        }
        self.give_ssrcs(&mut next);
        self.state = next;
        self.version += 1;
        let origin = OriginOut { session_id: self.session_id, version: self.version };
        Ok(self.state.write(&self.local, origin, false, &self.policy))
    }
}

/// Puts the offer into the agreement. Returns whether it restarts ICE.
fn accept(state: &mut State, offer: &Description, role: Role) -> Result<bool, NegotiateError> {
    check_shape(state, offer)?;
    for (index, media) in offer.media.iter().enumerate() {
        let old = state.mlines.get(index).cloned();
        let mline = accept_media(old, media, index, offer, role);
        match state.mlines.get_mut(index) {
            Some(place) => *place = mline,
            None => state.mlines.push(mline),
        }
        state.peer_pts |= media.pts;
        state.peer_ext_ids |= media.ext_ids;
    }
    state.bundle = offer.bundle.is_some();
    state.ext_mixed = offer.ext_mixed;
    let first = state.remote.is_none();
    if first && !state.mlines.iter().any(|mline| mline.live) {
        return Err(unusable("no audio or video m-line has a codec we know, BUNDLE and rtcp-mux"));
    }
    let restarts = accept_transport(state, offer, Side::Offerer)?;
    Ok(restarts && !first)
}

fn check_shape(state: &State, offer: &Description) -> Result<(), NegotiateError> {
    if offer.media.is_empty() {
        return Err(unusable("it has no m-lines"));
    }
    if offer.ice_lite {
        // RFC 8445 §6.1.1: two lite agents would both wait for checks.
        return Err(unusable("the peer is ICE-lite, and so are we"));
    }
    if offer.bundle.is_none() && offer.media.len() > 1 {
        return Err(unusable("several m-lines without a=group:BUNDLE"));
    }
    // RFC 9429 §5.2.2: m-lines stay in their order and number.
    if offer.media.len() < state.mlines.len() {
        return Err(unusable(format!("{} m-lines, but there were {}", offer.media.len(), state.mlines.len())));
    }
    for (old, media) in state.mlines.iter().zip(&offer.media) {
        let same = media.kind == old.kind && media.mid == old.mid_written.then_some(old.mid);
        if old.live && !same && !media.disabled {
            return Err(unusable(format!("the m-line with mid {} has become another one", old.mid)));
        }
    }
    Ok(())
}

fn accept_media(old: Option<Mline>, media: &Media, index: usize, offer: &Description, role: Role) -> Mline {
    let mid = media.mid.unwrap_or_else(|| made_up_mid(index));
    let mut mline = match old {
        // One that was disabled and has another mid now is a new one in an old place.
        Some(old) if old.mid == mid && old.kind == media.kind => old,
        _ => Mline::theirs(media, mid),
    };
    if !is_usable(media, offer) {
        mline.disable();
        return mline;
    }
    mline.live = true;
    mline.proto.clone_from(&media.proto);
    mline.format.clone_from(&media.format);
    mline.peer_sends = media.direction.send && role != Role::Viewer;
    mline.peer_receives = media.direction.recv && role != Role::Publisher;
    if mline.peer_sends {
        // It may send here after all.
        mline.send_only = false;
    }
    mline.codecs.clone_from(&media.codecs);
    mline.simulcast = simulcast(media, mline.peer_sends);
    mline.rcvr_rtt = media.rcvr_rtt;
    let wanted = |ext| !is_for_simulcast(ext) || !mline.simulcast.is_empty();
    mline.exts = media.exts.iter().copied().filter(|(_, ext)| wanted(*ext)).collect();
    mline.take_sources(media);
    mline.msid.clone_from(&media.msid);
    mline
}

/// The simulcast we take of an offer: streams of formats we know, where the extensions tell them apart (RFC 8853 §5.5).
fn simulcast(media: &Media, peer_sends: bool) -> Vec<SimulcastStream> {
    let has = |wanted| media.exts.iter().any(|(_, ext)| *ext == wanted);
    if !peer_sends || media.kind != Some(MediaKind::Video) || !has(Ext::Mid) || !has(Ext::Rid) {
        return Vec::new();
    }
    let known = media.codecs.iter().fold(0u128, |bits, codec| bits | 1 << codec.pt);
    media.simulcast.iter().copied().filter(|stream| stream.pts.is_none_or(|pts| pts & known != 0)).collect()
}

/// Audio or video over DTLS-SRTP, in the BUNDLE, with rtcp-mux and a codec we know: what an answer takes.
pub fn is_usable(media: &Media, offer: &Description) -> bool {
    let bundled = match (&offer.bundle, media.mid) {
        (Some(group), Some(mid)) => group.contains(&mid),
        (Some(_), None) => false,
        (None, _) => true,
    };
    // RFC 9429 §5.1.2: any "RTP/SAVPF" profile is taken as UDP/TLS/RTP/SAVPF.
    !media.disabled && bundled && media.rtcp_mux && media.proto.ends_with("RTP/SAVPF") && !media.codecs.is_empty()
}

/// For an m-line without `a=mid`; not written in an answer.
fn made_up_mid(index: usize) -> Mid {
    Mid::new(format!("nomid-{index}").as_bytes()).expect("an index below 256 makes at most nine bytes")
}

/// Who wrote the description.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Offerer,
    Answerer,
}

/// The peer's ICE credentials: those of the first m-line in use that has them (RFC 9143 §9: all others share it).
pub(super) fn credentials(description: &Description) -> Option<(&str, &str)> {
    let transport = transport_of(description)?;
    Some((transport.ufrag.as_deref()?, transport.pwd.as_deref()?))
}

/// The peer's certificate.
pub(super) fn fingerprint(description: &Description) -> Option<Fingerprint> {
    transport_of(description)?.fingerprint
}

fn transport_of(description: &Description) -> Option<&Transport> {
    let complete = |media: &&Media| media.transport.ufrag.is_some() && media.transport.pwd.is_some();
    let bundled = |media: &&Media| match (&description.bundle, &media.mid) {
        (Some(group), Some(mid)) => group.contains(mid),
        (group, _) => group.is_none(),
    };
    // m-lines out of use come last: they may still show what they had.
    let live = description.media.iter().filter(|media| !media.disabled).filter(bundled);
    live.chain(&description.media).find(complete).map(|media| &media.transport)
}

/// Puts the peer's transport into the agreement. Returns whether its ICE credentials are new.
pub(super) fn accept_transport(
    state: &mut State,
    description: &Description,
    side: Side,
) -> Result<bool, NegotiateError> {
    let live = state.mlines.iter().any(|mline| mline.live);
    let Some(transport) = transport_of(description) else {
        // With every m-line stopped a browser writes no transport; what we had stays.
        return if live || state.remote.is_none() {
            Err(unusable("a=ice-ufrag or a=ice-pwd is missing"))
        } else {
            Ok(false)
        };
    };
    let fingerprint = transport
        .fingerprint
        .or_else(|| state.remote.as_ref().filter(|_| !live).map(|remote| remote.fingerprint))
        .ok_or_else(|| unusable("a=fingerprint with sha-256, sha-384 or sha-512 is missing"))?;
    let old = state.remote.as_ref();
    if old.is_some_and(|old| old.fingerprint != fingerprint) {
        // RFC 8842 §5.5 would have a new DTLS association; a browser's connection never changes its certificate.
        return Err(unusable("the certificate fingerprint changed; join again for a new connection"));
    }
    let dtls_role = role(old.map(|old| old.dtls_role), transport.setup, side)?;
    let remote = RemoteTransport {
        ufrag: transport.ufrag.clone().unwrap_or_default(),
        pwd: transport.pwd.clone().unwrap_or_default(),
        fingerprint,
        dtls_role,
    };
    let changed = old.is_none_or(|old| old.ufrag != remote.ufrag || old.pwd != remote.pwd);
    state.remote = Some(remote);
    Ok(changed)
}

/// RFC 8842 §5.3: to actpass we answer passive. §5.5: with the association kept, so are the roles.
fn role(old: Option<DtlsRole>, setup: Option<Setup>, side: Side) -> Result<DtlsRole, NegotiateError> {
    let asked = match (setup, side) {
        (Some(Setup::ActPass), Side::Offerer) => return Ok(old.unwrap_or(DtlsRole::Server)),
        (Some(Setup::ActPass), Side::Answerer) => return Err(unusable("an answer cannot have a=setup:actpass")),
        (Some(Setup::HoldConn), _) => return Err(unusable("a=setup:holdconn")),
        (Some(Setup::Passive), _) => DtlsRole::Client,
        // RFC 4145 §4: active is the default of a side that does not say.
        (Some(Setup::Active) | None, _) => DtlsRole::Server,
    };
    match old {
        Some(old) if old != asked && setup.is_some() => Err(unusable("a=setup changes the DTLS roles")),
        Some(old) => Ok(old),
        None => Ok(asked),
    }
}
