//! A published track on one worker: the packets kept, and what its subscribers here need to know.
//!
//! Owns: history, the packets not forwarded yet, the keyframe wish, the publisher's clock.
//! Promises: the same on the publisher's worker and on every other that has subscribers.

use std::time::Instant;

use crate::base::format::MediaKind;
use crate::base::ids::{SessionKey, Ssrc, TrackKey};
use crate::forward::speaker::LevelMeter;
use crate::proto::history::{self, History, Packet};
use crate::proto::keyframe::KeyframeRequester;

/// Packets of one track that one turn may bring. A turn handles some hundred datagrams; more wait in the socket. What a
/// busy worker holds for the next turn is less.
const FRESH_MAX: usize = 1024;

/// What a publisher said about its clock (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// Publisher's ssrc: another source counts other timestamps.
    pub source: Ssrc,
    /// Its NTP time (32.32).
    pub ntp: u64,
    /// Its RTP timestamp at that time.
    pub rtp_timestamp: u32,
    /// When we heard.
    pub heard_at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Track {
    /// Identity.
    pub key: TrackKey,
    /// Media type.
    pub kind: MediaKind,
    /// The publisher's session and m-line, when it lives on this worker.
    pub home: Option<(SessionKey, u16)>,
    /// Latest packets.
    pub history: History,
    /// What came and is not forwarded yet, in order of arrival.
    pub fresh: Vec<u64>,
    /// How many of them went to other workers.
    pub copied: usize,
    /// The wish for a keyframe.
    pub keyframe: KeyframeRequester,
    /// The publisher's clock.
    pub clock: Option<SenderClock>,
    /// Loudness, for audio.
    pub level: LevelMeter,
}

impl Track {
    /// Memory is taken here and never on the packet path.
    pub fn new(key: TrackKey, kind: MediaKind) -> Self {
        let history = match kind {
            MediaKind::Audio => History::new(history::AUDIO_BYTES, history::AUDIO_PACKETS),
            MediaKind::Video => History::new(history::VIDEO_BYTES, history::VIDEO_PACKETS),
        };
        Self {
            key,
            kind,
            home: None,
            history,
            fresh: Vec::with_capacity(FRESH_MAX),
            copied: 0,
            keyframe: KeyframeRequester::default(),
            clock: None,
            level: LevelMeter::default(),
        }
    }

    /// Keeps a packet for this turn's forwarding. `false` when it is too old or the turn brought too many.
    pub fn insert(&mut self, packet: Packet<'_>) -> bool {
        if self.fresh.len() == FRESH_MAX || !self.history.insert(packet) {
            return false;
        }
        if packet.meta.keyframe_start {
            self.keyframe.handle_keyframe();
        }
        self.fresh.push(packet.meta.seq);
        true
    }

    /// What was fresh has been forwarded.
    pub fn forget_fresh(&mut self) {
        self.fresh.clear();
        self.copied = 0;
    }
}

/// The tracks of a worker by their keys.
#[derive(Debug, Default)]
pub struct Tracks(Vec<Option<Box<Track>>>);

impl Tracks {
    /// The track, unless the key is stale.
    pub fn track(&self, key: TrackKey) -> Option<&Track> {
        self.0.get(key.index as usize)?.as_deref().filter(|track| track.key == key)
    }

    /// The same to change.
    pub fn track_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.0.get_mut(key.index as usize)?.as_deref_mut().filter(|track| track.key == key)
    }

    /// The track, made when it is not there. A newer tenant of the index replaces an older one.
    pub fn ensure(&mut self, key: TrackKey, kind: MediaKind) -> &mut Track {
        let index = key.index as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        let slot = &mut self.0[index];
        if slot.as_ref().is_some_and(|track| track.key != key) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Box::new(Track::new(key, kind)))
    }

    /// Frees a track.
    pub fn remove(&mut self, key: TrackKey) {
        if let Some(slot) = self.0.get_mut(key.index as usize)
            && slot.as_ref().is_some_and(|track| track.key == key)
        {
            *slot = None;
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Track> {
        self.0.iter().flatten().map(|track| &**track)
    }
}
