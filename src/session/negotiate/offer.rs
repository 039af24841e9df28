//! We offer, the client answers.

use super::answer::{Side, accept_transport};
use super::mline::{Mline, State, is_for_simulcast};
use super::{NegotiateError, Negotiation, OFFERED_MLINES_MAX, WantedTrack, assign, unusable};
use crate::base::format::{Format, MediaKind};
use crate::base::ids::Mid;
use crate::wire::rtp_ext::Ext;
use crate::wire::sdp::{Codec, Description, Media, OriginOut, offered};

/// Extension ids of our offers. 1 to 14 have the one-byte form (RFC 8285 §4.2).
const EXT_IDS: [(u8, Ext); 13] = [
    (1, Ext::AudioLevel),
    (2, Ext::AbsSendTime),
    (3, Ext::TransportCc),
    (4, Ext::Mid),
    (5, Ext::AbsCaptureTime),
    (6, Ext::VideoOrientation),
    (7, Ext::PlayoutDelay),
    (8, Ext::VideoContentType),
    (9, Ext::VideoTiming),
    (10, Ext::ColorSpace),
    (11, Ext::DependencyDescriptor),
    (12, Ext::Rid),
    (13, Ext::RepairedRid),
];

impl Negotiation {
    /// Our offer. `None` while one is out, or where the client must offer (first).
    pub fn create_offer(&mut self) -> Option<String> {
        if self.pending.is_some() || !self.may_offer() {
            return None;
        }
        let mut next = self.state.clone();
        if let Some(fresh) = self.fresh_ice.take() {
            next.ice = fresh;
        }
        if next.mlines.is_empty() {
            for (slot, kind) in self.policy.slots.iter().enumerate() {
                add_mline(&mut next, *kind, Some(slot));
            }
        }
        if self.policy.live_binding {
            place_live(&mut next, &self.wanted);
        } else {
            place_described(&mut next, &self.wanted);
        }
        describe(&mut next);
        self.give_ssrcs(&mut next);
        self.version += 1;
        let origin = OriginOut { session_id: self.session_id, version: self.version };
        let sdp = next.write(&self.local, origin, true, &self.policy);
        self.pending = Some(next);
        Some(sdp)
    }

    /// Accepts the client's answer to our offer.
    ///
    /// # Errors
    /// When no offer is out, or the answer does not fit it; then nothing has changed and the offer is still out.
    pub fn accept_answer(&mut self, sdp: &str) -> Result<(), NegotiateError> {
        let Some(pending) = &self.pending else { return Err(NegotiateError::UnexpectedAnswer) };
        let answer = Description::parse(sdp)?;
        let mut next = pending.clone();
        next.refused.clone_from(&self.state.refused);
        accept(&mut next, &answer, self.policy.live_binding)?;
        accept_transport(&mut next, &answer, Side::Answerer)?;
        if self.policy.live_binding {
            // Tracks may have moved while the offer was out.
            for (mline, now) in next.mlines.iter_mut().zip(&self.state.mlines) {
                mline.bound = now.bound.clone().filter(|_| mline.mid == now.mid);
            }
            assign::live(&mut next, &self.wanted);
        }
        self.pending = None;
        self.state = next;
        Ok(())
    }
}

fn add_mline(state: &mut State, kind: MediaKind, slot: Option<usize>) -> Option<usize> {
    let recycled = state.mlines.iter().position(assign::is_recyclable);
    let index = recycled.or((state.mlines.len() < OFFERED_MLINES_MAX).then_some(state.mlines.len()))?;
    let mline = Mline::ours(kind, unused_mid(state)?, slot);
    match state.mlines.get_mut(index) {
        Some(place) => *place = mline,
        None => state.mlines.push(mline),
    }
    Some(index)
}

/// The smallest number no m-line has; short, since it travels in every packet's header.
fn unused_mid(state: &State) -> Option<Mid> {
    (0..=state.mlines.len())
        .filter_map(|number| Mid::new(number.to_string().as_bytes()))
        .find(|mid| !state.mlines.iter().any(|mline| mline.mid == *mid))
}

fn place_live(state: &mut State, wanted: &[WantedTrack]) {
    for kind in [MediaKind::Audio, MediaKind::Video] {
        for _ in 0..assign::missing_live(state, wanted, kind) {
            let Some(mline) = add_mline(state, kind, None).and_then(|index| state.mlines.get_mut(index)) else {
                return;
            };
            mline.we_send = true;
            // Until the answer says otherwise.
            mline.peer_receives = true;
        }
    }
}

fn place_described(state: &mut State, wanted: &[WantedTrack]) {
    for track in assign::described(state, wanted, assign::can_offer_to_send) {
        let Some(index) = add_mline(state, track.kind, None) else { break };
        if let Some(mline) = state.mlines.get_mut(index) {
            mline.bound = Some(track);
        }
    }
    for mline in &mut state.mlines {
        mline.we_send = mline.bound.is_some();
    }
}

/// Fills in what an offer says about each m-line in use.
fn describe(state: &mut State) {
    let codecs = our_codecs(state);
    let exts = our_exts(state);
    state.bundle = true;
    state.ext_mixed = true;
    for mline in state.mlines.iter_mut().filter(|mline| mline.live) {
        let Some(kind) = mline.kind else { continue };
        // To be ready wherever the peer may send; the answer says whether it does.
        mline.peer_sends = !mline.send_only;
        mline.mid_written = true;
        let agreed = std::mem::replace(&mut mline.codecs, codecs[kind as usize].clone());
        // The first format is what a browser sends: an offer made for other people's tracks must not switch encoders.
        let place = |codec: &Codec| agreed.iter().position(|known| known.format == codec.format);
        mline.codecs.sort_by_key(|codec| place(codec).unwrap_or(usize::MAX));
        // What the peer offered to send as simulcast stays one. We never ask for one: a page that made no encodings of
        // its own would be made to send three of them.
        let is_simulcast = !mline.simulcast.is_empty();
        let fits = |ext| fits_kind(ext, kind) && (is_simulcast || !is_for_simulcast(ext));
        mline.exts = exts.iter().copied().filter(|(_, ext)| fits(*ext)).collect();
    }
}

fn fits_kind(ext: Ext, kind: MediaKind) -> bool {
    match ext {
        Ext::Mid | Ext::AbsSendTime | Ext::TransportCc | Ext::AbsCaptureTime => true,
        Ext::AudioLevel => kind == MediaKind::Audio,
        _ => kind == MediaKind::Video,
    }
}

/// Our formats under numbers that do not contradict what was agreed before (RFC 9143 §10.1.2: within a BUNDLE a
/// payload type has one meaning). Index is the media kind.
fn our_codecs(state: &State) -> [Vec<Codec>; 2] {
    let mut codecs = [offered(MediaKind::Audio), offered(MediaKind::Video)];
    let preferred = codecs.iter().flatten().fold(0, |mask, codec| mask | pt_bits(codec));
    let agreed: Vec<&Codec> = state.mlines.iter().filter(|mline| mline.live).flat_map(|mline| &mline.codecs).collect();
    let mut taken = agreed.iter().fold(state.peer_pts, |mask, codec| mask | pt_bits(codec));
    for list in &mut codecs {
        list.retain_mut(|codec| {
            let same = agreed.iter().find(|known| known.format == codec.format);
            let Some(pt) = same.map(|known| known.pt).or_else(|| take_pt(&mut taken, codec.pt, preferred)) else {
                return false;
            };
            codec.pt = pt;
            let rtx_pt = same.and_then(|known| known.rtx_pt);
            codec.rtx_pt = codec.rtx_pt.and_then(|wish| rtx_pt.or_else(|| take_pt(&mut taken, wish, preferred)));
            true
        });
    }
    let [audio, _] = &mut codecs;
    let opus_pt = audio.iter().find(|codec| codec.format == Format::Opus).map(|codec| codec.pt);
    match (opus_pt, audio.iter_mut().find(|codec| codec.format == Format::OpusRed)) {
        (Some(pt), Some(red)) => red.params = format!("{pt}/{pt}"),
        _ => audio.retain(|codec| codec.format != Format::OpusRed),
    }
    codecs
}

fn pt_bits(codec: &Codec) -> u128 {
    (1 << codec.pt) | codec.rtx_pt.map_or(0, |pt| 1 << pt)
}

/// The number we wish for, or another dynamic one (RFC 3551 §6) that none of our formats wishes for.
/// RFC 5761 §4: 64 to 95 would be taken for RTCP.
fn take_pt(taken: &mut u128, wish: u8, preferred: u128) -> Option<u8> {
    let others = (96..=127).rev().chain((35..=63).rev()).filter(|pt| preferred & (1 << *pt) == 0);
    let pt = [wish].into_iter().chain(others).find(|pt| *taken & (1 << *pt) == 0)?;
    *taken |= 1 << pt;
    Some(pt)
}

/// Our extensions under ids that do not contradict what was agreed before (RFC 9143 §10.1.3).
fn our_exts(state: &State) -> Vec<(u8, Ext)> {
    let mut taken = state.peer_ext_ids;
    let agreed: Vec<(u8, Ext)> =
        state.mlines.iter().filter(|mline| mline.live).flat_map(|mline| mline.exts.iter().copied()).collect();
    for (id, _) in agreed.iter().filter(|(id, _)| *id < 16) {
        taken |= 1 << id;
    }
    let mut exts: Vec<(u8, Ext)> = Vec::new();
    for (preferred, ext) in EXT_IDS {
        let same = agreed.iter().find(|(_, known)| *known == ext).map(|(id, _)| *id);
        let free = |id: &u8| taken & (1 << *id) == 0;
        let Some(id) = same.or_else(|| [preferred].into_iter().chain(1..=14).find(free)) else { continue };
        if id < 16 {
            taken |= 1 << id;
        }
        exts.push((id, ext));
    }
    exts
}

/// Puts the answer into the agreement that our offer proposed.
fn accept(state: &mut State, answer: &Description, live_binding: bool) -> Result<(), NegotiateError> {
    if answer.ice_lite {
        return Err(unusable("the peer is ICE-lite, and so are we"));
    }
    if answer.media.len() != state.mlines.len() {
        return Err(unusable(format!("{} m-lines answer an offer of {}", answer.media.len(), state.mlines.len())));
    }
    let mut refused = Vec::new();
    for (mline, media) in state.mlines.iter_mut().zip(&answer.media) {
        if media.mid.is_some_and(|mid| mid != mline.mid) {
            return Err(unusable(format!("the m-line with mid {} is answered as another one", mline.mid)));
        }
        if !mline.live {
            continue;
        }
        let (offered_to_send, kind, track) = (mline.we_send, mline.kind, mline.bound.as_ref().map(|track| track.key));
        accept_media(mline, media, answer)?;
        if offered_to_send && !mline.we_send {
            refused.push((kind, track));
        }
    }
    for (kind, track) in refused {
        match (live_binding, kind, track) {
            (true, Some(kind), _) => state.refused_mlines[kind as usize] += 1,
            (false, _, Some(track)) => state.refused.push(track),
            _ => {}
        }
    }
    state.ext_mixed = answer.ext_mixed;
    Ok(())
}

fn accept_media(mline: &mut Mline, media: &Media, answer: &Description) -> Result<(), NegotiateError> {
    if media.kind != mline.kind {
        return Err(unusable(format!("the m-line with mid {} is answered with another media type", mline.mid)));
    }
    let codecs: Vec<Codec> = media.codecs.iter().filter_map(|codec| agreed_codec(&mline.codecs, codec)).collect();
    if media.disabled || codecs.is_empty() {
        mline.disable();
        return Ok(());
    }
    // RFC 9143 §7.3.3: an answerer that bundles nothing would need a transport per m-line.
    if !answer.bundle.as_ref().is_some_and(|group| group.contains(&mline.mid)) && answer.media.len() > 1 {
        return Err(unusable(format!("the answer leaves the m-line with mid {} out of BUNDLE", mline.mid)));
    }
    if !media.rtcp_mux {
        return Err(unusable(format!("the answer has no a=rtcp-mux for the m-line with mid {}", mline.mid)));
    }
    mline.codecs = codecs;
    mline.exts.retain(|ext| media.exts.contains(ext));
    // RFC 3264 §6.1: the answer is within the offer.
    mline.peer_sends = mline.peer_sends && media.direction.send;
    if mline.we_send {
        // Where we offered nothing the answer does not tell whether it would have been taken.
        mline.peer_receives = media.direction.recv;
    }
    mline.we_send = mline.we_send && media.direction.recv;
    if !mline.we_send {
        mline.bound = None;
    }
    mline.take_sources(media);
    let has_rid = mline.peer_sends && mline.exts.iter().any(|(_, ext)| *ext == Ext::Rid);
    mline.simulcast.retain(|ours| has_rid && media.simulcast.iter().any(|theirs| theirs.rid == ours.rid));
    mline.msid.clone_from(&media.msid);
    Ok(())
}

/// What both sides have of a format. Another number than we offered would be one number with two meanings.
fn agreed_codec(offered: &[Codec], answered: &Codec) -> Option<Codec> {
    let ours = offered.iter().find(|ours| ours.format == answered.format && ours.pt == answered.pt)?;
    let mut codec = ours.clone();
    codec.feedback = ours.feedback.and(answered.feedback);
    codec.rtx_pt = ours.rtx_pt.filter(|rtx_pt| answered.rtx_pt == Some(*rtx_pt));
    Some(codec)
}
