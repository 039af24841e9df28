//! A published track on one worker: the packets kept, and what its subscribers here need to know.
//!
//! Owns: per stream of its simulcast the history, the keyframe wish and the publisher's clock; the packets not forwarded
//! yet.
//! Promises: the same on the publisher's worker and on every other that has subscribers.

use std::time::{Duration, Instant};

use super::discard::Discard;
use super::header_exts;

use crate::base::format::MediaKind;
use crate::base::frame::{DecodeTargets, ENCODINGS_MAX};
use crate::base::ids::{SessionKey, Ssrc, TrackKey};
use crate::forward::rates::EncodingRates;
use crate::proto::history::{self, History, Packet, PacketMeta};
use crate::proto::keyframe::KeyframeRequester;
use crate::proto::run::{Bounds, KeyframeRun, Replay};
use crate::wire::dependency::Structure;
use crate::wire::payload;

/// Packets of one track that wait at most. A turn handles some hundred datagrams; more wait in the socket. What a busy
/// worker holds or has planned is less.
const FRESH_MAX: usize = 1024;

/// Without a recognisable keyframe for so long, left-out video goes on anyway: end-to-end encryption may hide it.
const SHED_MAX: Duration = Duration::from_secs(5);

/// What goes around a payload on a subscriber's line: RTP header, extensions, authentication tag.
pub const HEADERS_BYTES: u64 = 40;

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

/// A packet that came and is not forwarded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Its stream.
    pub encoding: u8,
    /// Its number there.
    pub seq: u64,
}

/// One stream of a track's simulcast, or its only one.
#[derive(Debug)]
pub struct Encoding {
    /// Latest packets.
    history: History,
    /// What can be replayed to who joins.
    run: KeyframeRun,
    /// What it costs, layer by layer.
    pub rates: EncodingRates,
    /// The wish for a keyframe.
    pub keyframe: KeyframeRequester,
    /// What its dependency descriptors said; none came yet where there is none.
    structure: Option<Box<Structure>>,
    /// Keyframes begun.
    pub keyframes: u64,
    /// The publisher's clock.
    pub clock: Option<SenderClock>,
    /// Since when it is left out; it goes on with a keyframe.
    shed_since: Option<Instant>,
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
    /// Copies of its packets go to the recorder.
    pub is_recorded: bool,
    /// By index; those that nothing came of yet take no memory, but for the first.
    encodings: [Option<Box<Encoding>>; ENCODINGS_MAX],
    /// What came and is not forwarded yet, in order of arrival.
    pub fresh: Vec<Fresh>,
    /// How many of them are being forwarded. The others wait until that is done, so that nobody gets them first.
    planned: usize,
    /// How many of them went to other workers.
    pub copied: usize,
    /// Subscribers here, as the table said when it was last asked; what a packet costs this worker.
    pub fanout: usize,
}

impl Encoding {
    /// Memory is taken here, with the first packet at the latest, and never later.
    fn new(kind: MediaKind) -> Self {
        let history = match kind {
            MediaKind::Audio => History::new(history::AUDIO_BYTES, history::AUDIO_PACKETS),
            MediaKind::Video => History::new(history::VIDEO_BYTES, history::VIDEO_PACKETS),
        };
        Self {
            history,
            run: KeyframeRun::default(),
            rates: EncodingRates::default(),
            keyframe: KeyframeRequester::default(),
            structure: None,
            keyframes: 0,
            clock: None,
            shed_since: None,
        }
    }

    fn insert(&mut self, now: Instant, packet: Packet<'_>) -> bool {
        let meta = packet.meta;
        let bytes = packet.payload.len() + HEADERS_BYTES as usize;
        let told = self.structure.as_ref().and_then(|structure| structure.sizes());
        let read = || payload::keyframe_sizes(meta.format, packet.payload);
        let sizes = if meta.marks.begins() { told.or_else(read) } else { None };
        if !self.history.insert(packet) {
            return false;
        }
        if meta.format.kind() == MediaKind::Video {
            self.run.handle_packet(now, &self.history, &meta);
            self.rates.handle_packet(now, bytes, meta.timestamp, &meta.marks);
            for (spatial, size) in sizes.iter().flat_map(|sizes| sizes.layers().iter().enumerate()) {
                self.rates.set_size(spatial as u8, *size);
            }
        }
        if meta.marks.begins() {
            self.keyframes += 1;
            self.keyframe.handle_keyframe();
            if let Some(bytes) = self.rates.keyframe_bytes() {
                self.keyframe.set_price(bytes, self.rates.bps(now));
            }
        }
        true
    }

    /// What somebody who joins can be served now.
    pub fn replay(&self, now: Instant, bounds: &Bounds) -> Option<Replay<'_>> {
        self.run.fits(now, &self.history, bounds)
    }
}

impl Track {
    /// A track nothing came of yet.
    pub fn new(key: TrackKey, kind: MediaKind) -> Self {
        let mut encodings = [const { None }; ENCODINGS_MAX];
        encodings[0] = Some(Box::new(Encoding::new(kind)));
        Self {
            key,
            kind,
            home: None,
            is_recorded: false,
            encodings,
            fresh: Vec::with_capacity(FRESH_MAX),
            planned: 0,
            copied: 0,
            fanout: 0,
        }
    }

    /// Completes what a packet says about its frame by its dependency descriptor, where it has one.
    pub fn refine(&mut self, packet: &mut Packet<'_>) {
        let meta = &mut packet.meta;
        if let Some(value) = header_exts::descriptor(packet.exts)
            && let Some(encoding) = self.ensure(meta.encoding)
        {
            let structure = encoding.structure.get_or_insert_default();
            // What cannot be read says nothing more than the payload did.
            let _ = structure.refine(value, meta.seq, &mut meta.marks);
        }
    }

    /// What can be asked for of an encoding with a dependency descriptor.
    pub fn targets(&self, encoding: u8) -> Option<&DecodeTargets> {
        self.encoding(encoding)?.structure.as_ref()?.targets()
    }

    /// Whether a packet goes further that may be `too_late`. Once video was left out, it goes on with a keyframe.
    pub fn admit(&mut self, now: Instant, too_late: bool, meta: &PacketMeta) -> Result<(), Discard> {
        let is_video = self.kind == MediaKind::Video;
        let encoding = self.ensure(meta.encoding).ok_or(Discard::UnknownRid)?;
        if too_late {
            encoding.shed_since = is_video.then(|| encoding.shed_since.unwrap_or(now));
            return Err(Discard::Overload);
        }
        let Some(since) = encoding.shed_since else { return Ok(()) };
        if !meta.marks.begins() && now.saturating_duration_since(since) < SHED_MAX {
            return Err(Discard::AwaitsKeyframe);
        }
        encoding.shed_since = None;
        Ok(())
    }

    /// Keeps a packet to be forwarded. `false` when it is too old or too many wait.
    pub fn insert(&mut self, now: Instant, packet: Packet<'_>) -> bool {
        if self.fresh.len() == FRESH_MAX {
            return false;
        }
        let meta = packet.meta;
        let Some(encoding) = self.ensure(meta.encoding) else { return false };
        if !encoding.insert(now, packet) {
            return false;
        }
        self.fresh.push(Fresh { encoding: meta.encoding, seq: meta.seq });
        true
    }

    /// How many packets wait to be planned.
    pub fn waiting(&self) -> usize {
        self.fresh.len() - self.planned
    }

    /// Plans all that is fresh: how many packets.
    pub fn plan(&mut self) -> usize {
        self.planned = self.fresh.len();
        self.planned
    }

    /// What is planned.
    pub fn planned(&self) -> &[Fresh] {
        &self.fresh[..self.planned]
    }

    /// What was planned has been forwarded.
    pub fn forget_planned(&mut self) {
        self.fresh.drain(..self.planned);
        self.copied = self.copied.saturating_sub(self.planned);
        self.planned = 0;
    }

    /// A packet, while it is kept.
    pub fn packet(&self, encoding: u8, seq: u64) -> Option<Packet<'_>> {
        self.encoding(encoding)?.history.packet(seq)
    }

    /// The clock of an encoding.
    pub fn clock(&self, encoding: u8) -> Option<SenderClock> {
        self.encoding(encoding)?.clock
    }

    /// One stream of it, if something came of it.
    pub fn encoding(&self, encoding: u8) -> Option<&Encoding> {
        self.encodings.get(usize::from(encoding))?.as_deref()
    }

    /// The same to change.
    pub fn encoding_mut(&mut self, encoding: u8) -> Option<&mut Encoding> {
        self.encodings.get_mut(usize::from(encoding))?.as_deref_mut()
    }

    /// The streams that something came of, with their index.
    pub fn encodings(&self) -> impl Iterator<Item = (u8, &Encoding)> {
        self.encodings.iter().enumerate().filter_map(|(index, encoding)| Some((index as u8, encoding.as_deref()?)))
    }

    /// Nothing comes any more, or not all: what is kept is nothing to begin with for who joins later.
    pub fn forget_runs(&mut self) {
        self.encodings.iter_mut().flatten().for_each(|encoding| encoding.run.forget());
    }

    /// One stream of it, made where nothing came of it yet; `None` where there cannot be so many.
    pub fn ensure(&mut self, encoding: u8) -> Option<&mut Encoding> {
        let kind = self.kind;
        let slot = self.encodings.get_mut(usize::from(encoding))?;
        Some(slot.get_or_insert_with(|| Box::new(Encoding::new(kind))))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::runtime::clock;

    fn track(kind: MediaKind) -> Track {
        Track::new(TrackKey { index: 0, epoch: 0 }, kind)
    }

    fn meta(begins: bool) -> PacketMeta {
        let marks = if begins { FrameMarks::WHOLE } else { FrameMarks::default() };
        PacketMeta { seq: 1, source: Ssrc(1), timestamp: 0, marker: false, format: Format::Vp8, encoding: 0, marks }
    }

    #[test]
    fn after_a_gap_video_goes_on_with_a_keyframe() {
        let (mut track, now) = (track(MediaKind::Video), clock::now());
        assert_eq!(track.admit(now, false, &meta(false)), Ok(()));
        assert_eq!(track.admit(now, true, &meta(true)), Err(Discard::Overload), "late is late");
        assert_eq!(track.admit(now, false, &meta(false)), Err(Discard::AwaitsKeyframe));
        assert_eq!(track.admit(now, false, &meta(true)), Ok(()));
        assert_eq!(track.admit(now, false, &meta(false)), Ok(()));
    }

    #[test]
    fn a_keyframe_that_cannot_be_seen_is_not_waited_for_for_ever() {
        let (mut track, now) = (track(MediaKind::Video), clock::now());
        assert!(track.admit(now, true, &meta(false)).is_err());
        assert!(track.admit(now + SHED_MAX / 2, true, &meta(false)).is_err());
        assert!(track.admit(now + SHED_MAX - Duration::from_millis(1), false, &meta(false)).is_err());
        assert_eq!(track.admit(now + SHED_MAX, false, &meta(false)), Ok(()));
    }

    #[test]
    fn audio_waits_for_nothing() {
        let (mut track, now) = (track(MediaKind::Audio), clock::now());
        assert_eq!(track.admit(now, true, &meta(false)), Err(Discard::Overload));
        assert_eq!(track.admit(now, false, &meta(false)), Ok(()));
    }
}
