//! Negotiations with browsers as they speak, and with what is no browser.

mod browsers;
mod client_offers;
mod hostile;
mod independent;
mod one_way;
mod server_offers;
mod simulcast;

use super::*;
use crate::wire::sdp::{Fingerprint, HashFunction, Media};

pub(super) const CLIENT_ONLY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: false,
    live_binding: true,
    slots: &[],
    role: Role::Participant,
};
pub(super) const NAMED: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: Role::Participant,
};
pub(super) const LIVE_BOTH: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: true,
    slots: &[],
    role: Role::Participant,
};
pub(super) const GRYT: Policy = Policy {
    server_offers_first: true,
    server_may_offer: true,
    live_binding: false,
    slots: &[MediaKind::Audio, MediaKind::Video, MediaKind::Video, MediaKind::Audio],
    role: Role::Participant,
};

pub(super) fn negotiation(policy: &Policy) -> Negotiation {
    let local = LocalTransport {
        ufrag: "ours".into(),
        pwd: "our-password-has-22-chars".into(),
        fingerprint: Fingerprint::new(HashFunction::Sha256, &[0xab; 32]).unwrap(),
        candidates: vec!["192.0.2.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()],
        cname: "cname".into(),
    };
    Negotiation::new(policy.clone(), local, 7)
}

pub(super) fn key(index: u32) -> TrackKey {
    TrackKey { index, epoch: 0 }
}

pub(super) fn track(index: u32, kind: MediaKind) -> WantedTrack {
    WantedTrack { key: key(index), kind, stream_id: format!("s{index}"), track_id: format!("t{index}") }
}

pub(super) fn audio(index: u32) -> WantedTrack {
    track(index, MediaKind::Audio)
}

pub(super) fn video(index: u32) -> WantedTrack {
    track(index, MediaKind::Video)
}

pub(super) fn read(sdp: &str) -> Description {
    Description::parse(sdp).unwrap()
}

pub(super) fn media(sdp: &str, index: usize) -> Media {
    read(sdp).media.swap_remove(index)
}

pub(super) fn bound(negotiation: &Negotiation) -> Vec<(String, u32)> {
    negotiation.bindings().into_iter().map(|(mid, key)| (mid, key.index)).collect()
}

pub(super) fn pairs(list: &[(&str, u32)]) -> Vec<(String, u32)> {
    list.iter().map(|(mid, index)| ((*mid).to_owned(), *index)).collect()
}

/// The direction lines of all m-lines.
pub(super) fn directions(sdp: &str) -> Vec<&'static str> {
    read(sdp).media.iter().map(|media| if media.disabled { "rejected" } else { media.direction.as_str() }).collect()
}

pub(super) fn any_key(index: usize) -> Option<TrackKey> {
    Some(key(100 + index as u32))
}
