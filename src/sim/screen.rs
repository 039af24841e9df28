//! What somebody who watches a video sees: frames put together from packets, decoded where their references are, shown
//! at once.
//!
//! Owns: frames in the making, the decoder's state, and the books: what was shown, when, in which quality.
//! Promises: decides by what packets say (marker, sequence numbers, VP8 descriptor), as a receiver must; then looks at
//! the tags, and counts what a real decoder would have shown broken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::media::Tag;
use super::vp8::Vp8Head;

/// A video packet as it came.
#[derive(Clone, Copy, Debug)]
pub struct VideoPacket<'a> {
    /// Source.
    pub ssrc: u32,
    /// Extended sequence number.
    pub seq: u64,
    /// Extended timestamp.
    pub time: u64,
    /// RTP marker.
    pub marker: bool,
    /// RTP payload.
    pub payload: &'a [u8],
}

/// A frame that was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// When.
    pub at: Instant,
    /// Of which encoding.
    pub encoding: u8,
    /// Its number there.
    pub frame: u32,
    /// Temporal layer.
    pub temporal: u8,
    /// Lines, by the last keyframe.
    pub height: u16,
    /// A keyframe.
    pub is_key: bool,
}

/// Nothing was shown for so long while packets came: a keyframe is asked for.
const STALLED: Duration = Duration::from_millis(1000);
/// The same before the first picture.
const STALLED_FIRST: Duration = Duration::from_millis(500);
/// Between two such wishes.
const ASK_INTERVAL: Duration = Duration::from_millis(1000);
/// Pictures remembered, in picture ids: more than any repair takes.
const KEPT: u64 = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Screen {
    ssrc: Option<u32>,
    making: BTreeMap<u64, Making>,
    /// Whole frames by extended picture id.
    whole: BTreeMap<u64, Whole>,
    /// Decoded lately, by extended picture id.
    decoded: BTreeSet<u64>,
    /// The latest decoded frame of the base layer: picture id and TL0PICIDX.
    base: Option<(u64, Option<u8>)>,
    last_id: Option<u64>,
    height: u16,
    /// Frames whose pictures the decoder has: what a real one would build on.
    truth: HashSet<(u8, u32)>,
    first_packet_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// In order of showing.
    pub shown: Vec<Shown>,
    /// When each frame was whole, by encoding and number.
    pub completed: HashMap<(u8, u32), Instant>,
    /// Packets that came, by encoding and number of their frame.
    pub arrived: HashMap<(u8, u32), u8>,
    /// Frames a decoder would have shown on a picture it did not have, or that were not whole although they seemed so.
    pub broken: u64,
    /// Keyframes asked for.
    pub asked: u64,
    /// How often the source changed.
    pub sources: u64,
}

/// A frame of which packets came.
#[derive(Debug, Default)]
struct Making {
    seqs: BTreeSet<u64>,
    first: Option<(u64, Vp8Head)>,
    last: Option<u64>,
    tag: Option<Tag>,
}

#[derive(Clone, Copy, Debug)]
struct Whole {
    head: Vp8Head,
    tag: Tag,
    is_whole_in_truth: bool,
}

impl Screen {
    /// A packet came.
    pub fn handle_packet(&mut self, now: Instant, packet: &VideoPacket<'_>) {
        let (Some((head, _)), Some(tag)) = (Vp8Head::parse(packet.payload), Tag::parse(packet.payload)) else { return };
        if self.ssrc != Some(packet.ssrc) {
            self.ssrc = Some(packet.ssrc);
            self.sources += 1;
            self.making.clear();
        }
        self.first_packet_at.get_or_insert(now);
        let making = self.making.entry(packet.time).or_default();
        if !making.seqs.insert(packet.seq) {
            return;
        }
        *self.arrived.entry((tag.encoding, tag.frame)).or_default() += 1;
        making.tag.get_or_insert(tag);
        if head.is_start {
            making.first = Some((packet.seq, head));
        }
        if packet.marker {
            making.last = Some(packet.seq);
        }
        if let Some(whole) = making.whole() {
            self.making.remove(&packet.time);
            self.completed.entry((whole.tag.encoding, whole.tag.frame)).or_insert(now);
            self.queue(whole);
            self.play(now);
        }
        while self.making.len() as u64 > KEPT {
            self.making.pop_first();
        }
    }

    /// Whether it asks the sender for a keyframe now.
    pub fn wants_keyframe(&mut self, now: Instant) -> bool {
        let Some(first) = self.first_packet_at else { return false };
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_stalled = match self.shown.last() {
            Some(shown) => since(shown.at) > STALLED,
            None => since(first) > STALLED_FIRST,
        };
        if !is_stalled || self.asked_at.is_some_and(|at| since(at) < ASK_INTERVAL) {
            return false;
        }
        self.asked_at = Some(now);
        self.asked += 1;
        true
    }

    fn queue(&mut self, whole: Whole) {
        let Some(id) = whole.head.picture_id else { return };
        // RFC 7741 §4.2: 15 bits that roll over.
        let id = match self.last_id {
            None => u64::from(id) + (1 << 15),
            Some(last) => {
                let step = (u64::from(id).wrapping_sub(last) & 0x7fff) as i64;
                let step = if step >= 1 << 14 { step - (1 << 15) } else { step };
                last.saturating_add_signed(step)
            }
        };
        self.last_id = Some(self.last_id.map_or(id, |last| last.max(id)));
        if self.latest_shown().is_none_or(|shown| id > shown) {
            self.whole.insert(id, whole);
        }
    }

    fn latest_shown(&self) -> Option<u64> {
        self.decoded.last().copied()
    }

    /// Shows what can be decoded, in order.
    fn play(&mut self, now: Instant) {
        while let Some((&id, &whole)) = self.whole.iter().find(|(id, whole)| self.is_decodable(**id, &whole.head)) {
            // What is older comes too late.
            self.whole.retain(|other, _| *other > id);
            self.decode(id, &whole);
            let Tag { encoding, frame, is_key, .. } = whole.tag;
            let temporal = whole.head.layer.map_or(0, |(tid, _)| tid);
            self.shown.push(Shown { at: now, encoding, frame, temporal, height: self.height, is_key });
        }
    }

    fn is_decodable(&self, id: u64, head: &Vp8Head) -> bool {
        if head.key.is_some() {
            return true;
        }
        let Some((base_id, base_tl0)) = self.base else { return false };
        let Some((tid, is_sync)) = head.layer else { return self.decoded.contains(&(id - 1)) };
        match tid {
            0 => head.tl0 == base_tl0.map(|tl0| tl0.wrapping_add(1)),
            _ if head.tl0 != base_tl0 => false,
            _ => is_sync || (base_id..id).all(|between| self.decoded.contains(&between)),
        }
    }

    fn decode(&mut self, id: u64, whole: &Whole) {
        let Whole { head, tag, .. } = whole;
        if let Some((_, height)) = head.key {
            self.height = height;
            self.truth.clear();
        }
        let has_reference = tag.needs.is_none_or(|needs| self.truth.contains(&(tag.encoding, needs)));
        if !has_reference || !whole.is_whole_in_truth {
            self.broken += 1;
        }
        self.truth.insert((tag.encoding, tag.frame));
        if head.layer.is_none_or(|(tid, _)| tid == 0) {
            self.base = Some((id, head.tl0));
        }
        self.decoded.insert(id);
        while self.decoded.len() as u64 > KEPT {
            self.decoded.pop_first();
        }
    }
}

impl Making {
    /// Its first packet, its last and all between are there.
    fn whole(&self) -> Option<Whole> {
        let ((first, head), last, tag) = (self.first?, self.last?, self.tag?);
        let count = self.seqs.range(first..=last).count() as u64;
        (last >= first && count == last - first + 1).then_some(Whole {
            head,
            tag,
            is_whole_in_truth: count == u64::from(tag.parts),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use crate::sim::camera::{Camera, CameraConfig, EncodingConfig, TICKS_PER_PICTURE, interval};

    /// A second of small pictures with three layers: for each its packets.
    fn pictures(count: usize, key_at: &[usize]) -> Vec<Vec<Vec<u8>>> {
        let encodings = vec![EncodingConfig { rid: "", width: 640, height: 360, bps: 500_000 }];
        let mut camera = Camera::new(CameraConfig { encodings, ..CameraConfig::simulcast() });
        let take = |at| {
            if key_at.contains(&at) {
                camera.request_keyframe(None);
            }
            camera.take(clock::now(), Tag::EXAMPLE, |_| true).remove(0).1
        };
        (0..count).map(take).collect()
    }

    /// Shows pictures but for packets that `is_lost` names; returns the frames shown.
    fn show(pictures: &[Vec<Vec<u8>>], is_lost: impl Fn(usize, usize) -> bool) -> (Screen, Vec<u32>) {
        let (mut screen, now, mut seq) = (Screen::default(), clock::now(), 70_000);
        for (picture, packets) in pictures.iter().enumerate() {
            for (part, payload) in packets.iter().enumerate() {
                seq += 1;
                let time = picture as u64 * u64::from(TICKS_PER_PICTURE);
                let marker = part + 1 == packets.len();
                if !is_lost(picture, part) {
                    let packet = VideoPacket { ssrc: 1, seq, time, marker, payload };
                    screen.handle_packet(now + interval() * picture as u32, &packet);
                }
            }
        }
        let shown = screen.shown.iter().map(|shown| shown.frame).collect();
        (screen, shown)
    }

    #[test]
    fn all_is_shown_when_all_comes() {
        let (screen, shown) = show(&pictures(30, &[]), |_, _| false);
        assert_eq!((shown, screen.broken, screen.height), ((0..30).collect(), 0, 360));
    }

    #[test]
    fn what_builds_on_a_lost_frame_waits_for_a_keyframe() {
        let pictures = pictures(16, &[12]);
        // A frame of layer 2 that nothing builds on, but the one behind layer 1 cannot know; then one of the base layer.
        assert_eq!(show(&pictures, |picture, _| picture == 5).1, [0, 1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        let (mut screen, shown) = show(&pictures, |picture, part| picture == 4 && part == 0);
        assert_eq!((shown, screen.broken), (vec![0, 1, 2, 3, 12, 13, 14, 15], 0));
        let last = screen.shown.last().unwrap().at;
        assert!(!screen.wants_keyframe(last + STALLED) && screen.wants_keyframe(last + STALLED * 2));
        assert!(!screen.wants_keyframe(last + STALLED * 2));
    }

    #[test]
    fn a_reference_that_is_only_claimed_is_found_out() {
        // The base layer's frame 4 is left out, and the counters behind it are closed up as if it had never been.
        let mut pictures = pictures(9, &[]);
        pictures.remove(4);
        for packet in pictures[4..].iter_mut().flatten() {
            let (mut head, skipped) = Vp8Head::parse(packet).unwrap();
            head.picture_id = head.picture_id.map(|id| id - 1);
            head.tl0 = head.tl0.map(|tl0| tl0.wrapping_sub(1));
            let mut bytes = Vec::new();
            head.write_to(&mut bytes);
            bytes.extend_from_slice(&packet[skipped..]);
            *packet = bytes;
        }
        assert!(show(&pictures, |_, _| false).0.broken > 0);
    }
}
