//! Which track goes on which m-line.
//!
//! Promises: a track stays where it is while it is wanted and has its turn; only what changes moves.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::mline::{Mline, State};
use super::{Negotiation, OFFERED_MLINES_MAX, WantedTrack};
use crate::base::format::MediaKind;
use crate::base::ids::TrackKey;

const KINDS: [MediaKind; 2] = [MediaKind::Audio, MediaKind::Video];

/// Live binding: per kind, the first n wanted tracks are on the n m-lines we may send on.
pub(super) fn live(state: &mut State, wanted: &[WantedTrack]) {
    for kind in KINDS {
        let here = |mline: &&mut Mline| mline.kind == Some(kind) && mline.is_sendable();
        let room = state.mlines.iter_mut().filter(here).count();
        let first: Vec<&WantedTrack> = wanted.iter().filter(|track| track.kind == kind).take(room).collect();
        let keys: HashSet<TrackKey> = first.iter().map(|track| track.key).collect();
        let mut placed: HashSet<TrackKey> = HashSet::default();
        for mline in state.mlines.iter_mut().filter(here) {
            mline.bound = mline.bound.take().filter(|track| keys.contains(&track.key) && placed.insert(track.key));
        }
        let mut waiting = first.into_iter().filter(|track| !placed.contains(&track.key));
        for mline in state.mlines.iter_mut().filter(here).filter(|mline| mline.bound.is_none()) {
            mline.bound = waiting.next().cloned();
        }
    }
}

/// Live binding: a new track takes a free m-line. `false`: there is none, and [`live`] says who has to make room.
pub(super) fn live_one(state: &mut State, track: &WantedTrack) -> bool {
    let free = |mline: &&mut Mline| mline.kind == Some(track.kind) && mline.is_sendable() && mline.bound.is_none();
    let mline = state.mlines.iter_mut().find(free);
    mline.is_some_and(|mline| mline.bound.replace(track.clone()).is_none())
}

/// By description: tracks stay, m-lines whose track is gone are free, and free m-lines that `usable` says can be used
/// take what waits. Returns what found no place.
pub(super) fn described(
    state: &mut State,
    wanted: &[WantedTrack],
    usable: impl Fn(&Mline) -> bool,
) -> Vec<WantedTrack> {
    let mut placed: HashSet<TrackKey> = HashSet::default();
    for mline in &mut state.mlines {
        let still = |track: &WantedTrack| wanted.iter().find(|wanted| wanted.key == track.key).cloned();
        // The wanted list's names win: they may have changed.
        mline.bound = mline.bound.take().filter(|_| usable(mline)).and_then(|track| still(&track));
        if mline.bound.as_ref().is_some_and(|track| !placed.insert(track.key)) {
            mline.bound = None;
        }
    }
    let mut left = Vec::new();
    for track in wanted.iter().filter(|track| !placed.contains(&track.key) && !state.refused.contains(&track.key)) {
        let free = |mline: &&mut Mline| mline.kind == Some(track.kind) && mline.bound.is_none() && usable(mline);
        match state.mlines.iter_mut().find(free) {
            Some(mline) => mline.bound = Some(track.clone()),
            None => left.push(track.clone()),
        }
    }
    left
}

/// With live binding: how many m-lines of a kind are missing.
pub(super) fn missing_live(state: &State, wanted: &[WantedTrack], kind: MediaKind) -> usize {
    let tracks = wanted.iter().filter(|track| track.kind == kind).count();
    let mlines = state.mlines.iter().filter(|m| m.kind == Some(kind) && m.is_sendable()).count();
    tracks.saturating_sub(mlines + refused(state, kind))
}

fn refused(state: &State, kind: MediaKind) -> usize {
    state.refused_mlines[kind as usize]
}

/// How many m-lines on which the peer only receives are free beyond those that waiting tracks of a kind need; negative
/// where some are missing.
pub(super) fn spare(state: &State, wanted: &[WantedTrack], kind: MediaKind) -> isize {
    let bound: HashSet<TrackKey> = state.mlines.iter().filter_map(|m| Some(m.bound.as_ref()?.key)).collect();
    let waits = |track: &&WantedTrack| track.kind == kind && !bound.contains(&track.key);
    let is_free = |mline: &&Mline| {
        let is_gone = |track: &WantedTrack| !wanted.iter().any(|wanted| wanted.key == track.key);
        mline.kind == Some(kind)
            && can_offer_to_send(mline)
            && !mline.peer_sends
            && mline.bound.as_ref().is_none_or(is_gone)
    };
    let count = |mlines: usize, tracks: usize| mlines as isize - tracks as isize;
    count(state.mlines.iter().filter(is_free).count(), wanted.iter().filter(waits).count())
}

/// An m-line may be made or made anew for one more track.
pub(super) fn has_room(state: &State) -> bool {
    state.mlines.len() < OFFERED_MLINES_MAX || state.mlines.iter().any(is_recyclable)
}

/// RFC 8829 §5.2.2: an m-line with port 0 in the last answer may get another mid and another meaning.
pub(super) fn is_recyclable(mline: &Mline) -> bool {
    !mline.live && mline.kind.is_some()
}

/// An offer made now would say something else than `base`.
pub(super) fn offer_would_change(base: &State, negotiation: &Negotiation) -> bool {
    let (policy, wanted) = (&negotiation.policy, &negotiation.wanted);
    if policy.live_binding {
        return has_room(base) && KINDS.into_iter().any(|kind| missing_live(base, wanted, kind) > 0);
    }
    let by_key: HashMap<TrackKey, &WantedTrack, RandomState> = wanted.iter().map(|track| (track.key, track)).collect();
    let mut placed: HashSet<TrackKey, RandomState> = HashSet::default();
    let mut bound = base.mlines.iter().filter_map(|mline| Some((mline, mline.bound.as_ref()?)));
    // What `described` would change, without making it: this is asked for every peer of a room when a track comes.
    let stays = |(mline, track): (&Mline, &WantedTrack)| {
        can_offer_to_send(mline) && by_key.get(&track.key) == Some(&track) && placed.insert(track.key)
    };
    if !bound.all(stays) {
        return true;
    }
    let has_place = KINDS.map(|kind| {
        let is_free = |mline: &Mline| mline.kind == Some(kind) && mline.bound.is_none() && can_offer_to_send(mline);
        has_room(base) || base.mlines.iter().any(is_free)
    });
    let waits = |track: &&WantedTrack| !placed.contains(&track.key) && !base.refused.contains(&track.key);
    wanted.iter().filter(waits).any(|track| has_place[track.kind as usize])
}

/// An offer of ours may say that we send here.
pub(super) fn can_offer_to_send(mline: &Mline) -> bool {
    mline.live && mline.slot.is_none() && (mline.send_only || mline.peer_receives)
}
