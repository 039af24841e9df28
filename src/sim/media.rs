//! What simulated peers send each other: payloads that name their sender, and the books of what arrived.
//!
//! Owns: the tag inside each payload, and per received track which numbers came when.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use super::vp8::Vp8Head;
use crate::base::format::MediaKind;

/// A peer of the world, in order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNo(pub usize);

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Who sent it.
    pub publisher: PeerNo,
    /// Hash of the room it was sent in.
    pub room: u32,
    /// Audio or video.
    pub kind: MediaKind,
    /// Which of the sender's tracks of that kind.
    pub track: u8,
    /// Which of the track's simulcast encodings.
    pub encoding: u8,
    /// Belongs to a keyframe.
    pub is_key: bool,
    /// Packet of its frame.
    pub part: u8,
    /// Packets of its frame.
    pub parts: u8,
    /// Counts the track's packets, those of all encodings together.
    pub number: u32,
    /// Counts the encoding's frames.
    pub frame: u32,
    /// The frame that it builds on.
    pub needs: Option<u32>,
}

/// Marks a payload as ours.
const MAGIC: [u8; 4] = *b"tram";
const TAG_BYTES: usize = 32;
/// RFC 6716 §3.1: a TOC byte for 20 ms of fullband CELT.
const OPUS_TOC: u8 = 0xfc;
/// Says that a frame builds on none.
const NONE: u32 = u32::MAX;

impl Tag {
    /// A packet of a picture, to begin with in tests.
    #[cfg(test)]
    pub const EXAMPLE: Self = Self {
        publisher: PeerNo(1),
        room: 2,
        kind: MediaKind::Video,
        track: 0,
        encoding: 0,
        is_key: false,
        part: 0,
        parts: 0,
        number: 0,
        frame: 0,
        needs: None,
    };

    /// An RTP payload of about `len` bytes, Opus-like for audio and VP8-like for video, with picture ids but no layers.
    pub fn payload(&self, len: usize) -> Vec<u8> {
        let head = Vp8Head {
            is_start: self.part == 0,
            key: (self.is_key && self.part == 0).then_some((320, 180)),
            picture_id: Some(self.frame as u16 & 0x7fff),
            ..Vp8Head::default()
        };
        self.payload_after(&head, len)
    }

    /// The same with a head of one's own for video.
    pub fn payload_after(&self, head: &Vp8Head, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        match self.kind {
            MediaKind::Audio => out.push(OPUS_TOC),
            MediaKind::Video => head.write_to(&mut out),
        }
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(self.publisher.0 as u32).to_be_bytes());
        out.extend_from_slice(&self.room.to_be_bytes());
        out.extend([self.kind as u8, self.track, self.encoding, u8::from(self.is_key)]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.frame.to_be_bytes());
        out.extend_from_slice(&self.needs.unwrap_or(NONE).to_be_bytes());
        out.extend([self.part, self.parts, 0, 0]);
        while out.len() < len {
            out.push(out.len() as u8);
        }
        out
    }

    /// Reads a payload made by [`payload`](Self::payload); `None` when one byte of it is not as it was.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let skipped = if *payload.first()? == OPUS_TOC { 1 } else { Vp8Head::parse(payload)?.1 };
        let tag: &[u8; TAG_BYTES] = payload.get(skipped..)?.first_chunk()?;
        let word = |at: usize| Some(u32::from_be_bytes(*tag.get(at..)?.first_chunk()?));
        let is_whole = payload.iter().enumerate().skip(skipped + TAG_BYTES).all(|(at, byte)| *byte == at as u8);
        if tag[..4] != MAGIC || !is_whole {
            return None;
        }
        Some(Self {
            publisher: PeerNo(word(4)? as usize),
            room: word(8)?,
            kind: if tag[12] == 0 { MediaKind::Audio } else { MediaKind::Video },
            track: tag[13],
            encoding: tag[14],
            is_key: tag[15] == 1,
            number: word(16)?,
            frame: word(20)?,
            needs: word(24).filter(|frame| *frame != NONE),
            part: tag[28],
            parts: tag[29],
        })
    }

    /// The track it belongs to.
    pub fn source(&self) -> SourceNo {
        SourceNo { publisher: self.publisher, kind: self.kind, track: self.track }
    }
}

/// A published track as receivers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceNo {
    /// Who publishes.
    pub publisher: PeerNo,
    /// Audio or video.
    pub kind: MediaKind,
    /// Which of the kind.
    pub track: u8,
}

/// What came of one track.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Packet number and when it came first.
    pub numbers: BTreeMap<u32, Instant>,
    /// Packets that came again.
    pub repeats: u64,
    /// The first packet's tag.
    pub first: Option<Tag>,
    /// When the first and the last came.
    pub span: Option<(Instant, Instant)>,
    /// The longest time without a packet.
    pub longest_silence: std::time::Duration,
    /// Keyframes begun.
    pub keyframes: u64,
}

impl Arrivals {
    /// Share of the numbers from the first to the last that came.
    pub fn completeness(&self) -> f64 {
        match (self.numbers.first_key_value(), self.numbers.last_key_value()) {
            (Some((first, _)), Some((last, _))) => self.numbers.len() as f64 / f64::from(last - first + 1),
            _ => 0.0,
        }
    }

    /// Packets that came at or after `since`.
    pub fn count_since(&self, since: Instant) -> usize {
        self.numbers.values().filter(|at| **at >= since).count()
    }
}

/// A peer's books.
#[derive(Clone, Debug, Default)]
pub struct Received {
    tracks: BTreeMap<SourceNo, Arrivals>,
    /// Payloads that nobody in the world sent.
    pub strangers: u64,
    /// Rooms seen in tags.
    pub rooms: std::collections::BTreeSet<u32>,
}

impl Received {
    /// A media packet came.
    pub fn handle_payload(&mut self, now: Instant, payload: &[u8]) {
        let Some(tag) = Tag::parse(payload) else {
            self.strangers += 1;
            return;
        };
        self.rooms.insert(tag.room);
        let track = self.tracks.entry(tag.source()).or_default();
        if let Some((_, last)) = track.span {
            track.longest_silence = track.longest_silence.max(now.saturating_duration_since(last));
        }
        track.span = Some((track.span.map_or(now, |(first, _)| first), now));
        track.first.get_or_insert(tag);
        if let Entry::Vacant(place) = track.numbers.entry(tag.number) {
            place.insert(now);
            track.keyframes += u64::from(tag.is_key && tag.part == 0);
        } else {
            track.repeats += 1;
        }
    }

    /// One track's books.
    pub fn track(&self, source: SourceNo) -> Option<&Arrivals> {
        self.tracks.get(&source)
    }

    /// The first track of a kind of a publisher.
    pub fn of(&self, publisher: PeerNo, kind: MediaKind) -> Option<&Arrivals> {
        self.track(SourceNo { publisher, kind, track: 0 })
    }

    /// All tracks.
    pub fn tracks(&self) -> impl Iterator<Item = (SourceNo, &Arrivals)> {
        self.tracks.iter().map(|(source, arrivals)| (*source, arrivals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::wire::payload::is_keyframe_start;

    #[test]
    fn a_payload_names_its_sender_and_its_keyframes() {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            for (is_key, part) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
                let (publisher, needs) = (PeerNo(7), (!is_key).then_some(4));
                let numbers = (70_000, 5);
                let tag = Tag {
                    publisher,
                    room: 9,
                    kind,
                    track: 1,
                    encoding: 2,
                    is_key,
                    part,
                    parts: 2,
                    number: numbers.0,
                    frame: numbers.1,
                    needs,
                };
                let payload = tag.payload(200);
                assert_eq!(Tag::parse(&payload), Some(tag));
                if kind == MediaKind::Video {
                    assert_eq!(is_keyframe_start(Format::Vp8, &payload), is_key && part == 0);
                }
            }
        }
        assert_eq!(Tag::parse(b""), None);
        assert_eq!(Tag::parse(&[0xfc; 60]), None);
    }
}
