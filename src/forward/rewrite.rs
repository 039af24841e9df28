//! Renumbering: how one subscriber sees a track's sequence numbers, timestamps and picture numbers.
//!
//! A subscriber's stream outlives the track behind it, changes between its encodings and leaves out what the subscriber
//! cannot use; its numbers go on as if nothing had happened. Owns: *stretches*, each of which shifts the numbers of one
//! encoding from some number on. Where something is withheld or another encoding goes on, a new stretch begins.
//! Promises: numbers are continuous over stretches; an index is given to one packet only (GCM loses its key when one
//! index protects two packets, RFC 7714 §8.3); a packet asked for again is found under the number it went by; what was
//! lost before it came here keeps its place.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::select::Cut;
use crate::base::packet::PacketMeta;
use crate::base::window::Window;

/// The first sequence number is below this, so that a late joiner's guess of the roll-over counter is right
/// (RFC 3711 §3.3.1).
pub const FIRST_SEQ_MAX: u64 = 1 << 15;
/// Numbers skipped at once: far below the 2^15 at which a receiver's guess of the roll-over counter fails
/// (RFC 3711 §3.3.1), far above what retransmission could fill. Beyond it the binding is over.
const GAP_MAX: u64 = 1 << 12;
/// Numbers kept for what is missing while nothing goes out: about what is repaired at once. They add up as long as a
/// picture is withheld, and without a bound they would come to where that guess fails.
const KEPT_MAX: u64 = 256;
/// Stretches remembered: every second frame left out at 30 frames a second makes 15 a second, and what is older than
/// four seconds is asked for by nobody. A run that is sent to who joins needs one for each picture, 100 at most.
const STRETCHES_MAX: usize = 128;

/// What is added to a packet's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Picture id of the payload descriptor, modulo its width.
    pub picture_id: u16,
    /// TL0PICIDX.
    pub tl0: u8,
    /// Frame number of the dependency descriptor.
    pub frame_number: u16,
}

/// Numbers of one outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// SRTP packet index; its low 16 bits are the sequence number.
    pub index: u64,
    /// For the rest of its numbers.
    pub shift: Shift,
    /// How its picture is cut.
    pub cut: Cut,
}

/// What went out under a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of which encoding.
    pub encoding: u8,
    /// The number there.
    pub seq: u64,
    /// The numbers it went by.
    pub numbers: Numbers,
}

/// Consecutive numbers of one encoding, all shifted alike.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    encoding: u8,
    /// First number.
    from: u64,
    /// The number after the last; the latest stretch has no end.
    until: u64,
    /// First outgoing index.
    first_index: u64,
    shift: Shift,
    cut: Cut,
}

/// What was left out since the last packet that went.
#[derive(Clone, Copy, Debug)]
struct Withheld {
    /// Whole pictures.
    pictures: u16,
    /// Index of what comes next.
    index: u64,
}

/// The latest picture that went out, by its own numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Picture {
    id: Option<u16>,
    tl0: Option<u8>,
    frame_number: Option<u16>,
}

/// See the module.
#[derive(Debug)]
pub struct Rewriter {
    next_index: u64,
    /// Oldest first.
    stretches: VecDeque<Stretch>,
    /// The number after the highest of the present encoding that came, sent or not.
    next_seq: u64,
    withheld: Option<Withheld>,
    last_picture_out: Picture,
    sent: Window,
    /// Indices from here on may be rebuilt bit by bit: the headers' meaning has not changed since.
    rebuild_from: u64,
    /// Padding of the latest packets, by index modulo length, once they are written; empty where nothing is rebuilt.
    paddings: Box<[Option<u8>]>,
    /// Last packet: what goes on from it after a new binding.
    last: Option<(Instant, u32)>,
    first_timestamp: u32,
}

impl Rewriter {
    /// `first_seq` is taken modulo [`FIRST_SEQ_MAX`]; both should be random (RFC 3550 §5.1).
    pub fn new(first_seq: u16, first_timestamp: u32) -> Self {
        Self {
            next_index: u64::from(first_seq) % FIRST_SEQ_MAX,
            stretches: VecDeque::new(),
            next_seq: 0,
            withheld: None,
            last_picture_out: Picture::default(),
            sent: Window::default(),
            rebuild_from: 0,
            paddings: Box::default(),
            last: None,
            first_timestamp,
        }
    }

    /// The track ends or another comes; numbers go on after the last one sent.
    pub fn unbind(&mut self) {
        self.stretches.clear();
        self.withheld = None;
    }

    /// Payload types, ids or mid changed: older packets cannot be rebuilt bit by bit any more.
    pub fn handle_header_change(&mut self) {
        self.rebuild_from = self.next_index;
    }

    /// Goes on with this packet, of whatever encoding: it gets the next number, and the timestamp given or one that is as
    /// far from the last one as time went by.
    pub fn bind(&mut self, now: Instant, meta: &PacketMeta, timestamp: Option<u32>) {
        let start = timestamp.unwrap_or_else(|| self.timestamp_now(now, meta.format.clock_rate_hz()));
        let (marks, last) = (&meta.marks, self.last_picture_out);
        let id = marks.picture_id.zip(last.id).map(|(id, last)| last.wrapping_add(1).wrapping_sub(id.value));
        let tl0 = marks.tl0.zip(last.tl0).map(|(tl0, last)| last.wrapping_add(1).wrapping_sub(tl0));
        let frame_number = marks.frame_number.zip(last.frame_number);
        let shift = Shift {
            timestamp: start.wrapping_sub(meta.timestamp),
            picture_id: id.unwrap_or_default(),
            tl0: tl0.unwrap_or_default(),
            frame_number: frame_number.map_or(0, |(own, last)| last.wrapping_add(1).wrapping_sub(own)),
        };
        // What was missing at the end of the present stretch keeps its place as well.
        let reserved =
            self.withheld.take().map(|withheld| withheld.index).max(self.stretches.back().map(|last| last.first_index));
        let first_index = reserved.map_or(self.next_index, |reserved| reserved.max(self.next_index));
        self.begin(meta.encoding, meta.seq, first_index, (shift, Cut::NONE));
        self.next_seq = meta.seq;
    }

    /// Goes on in the present encoding with this picture, at that timestamp; what lies between was never to go out. Numbers of
    /// pictures and frames stay as far apart as they are, but for picture ids that must have no gaps.
    pub fn skip_to(&mut self, meta: &PacketMeta, timestamp: u32, closes_picture_gaps: bool) {
        let Some(present) = self.stretches.back().copied() else { return };
        let mut shift = Shift { timestamp: timestamp.wrapping_sub(meta.timestamp), ..present.shift };
        if let Some((id, last)) = meta.marks.picture_id.zip(self.last_picture_out.id).filter(|_| closes_picture_gaps) {
            shift.picture_id = last.wrapping_add(1).wrapping_sub(id.value);
        }
        self.begin(present.encoding, meta.seq, self.next_index, (shift, present.cut));
        self.next_seq = meta.seq;
    }

    /// What goes out now would have this timestamp.
    pub fn timestamp_now(&self, now: Instant, clock_rate_hz: u32) -> u32 {
        self.last.map_or(self.first_timestamp, |(at, last)| {
            last.wrapping_add(ticks(now.saturating_duration_since(at), clock_rate_hz).max(1))
        })
    }

    /// Whether a packet is the one right after the last of the present encoding, as most are.
    #[inline]
    pub fn is_next(&self, meta: &PacketMeta) -> bool {
        meta.seq == self.next_seq && self.withheld.is_none() && self.encoding() == Some(meta.encoding)
    }

    /// [`number`](Self::number) of a packet that [`is_next`](Self::is_next) and goes on as the one before did. `None`, and
    /// nothing happened, if it does not.
    #[inline]
    pub fn number_next(&mut self, now: Instant, meta: &PacketMeta, cut: Cut) -> Option<Numbers> {
        let stretch = self.stretches.back().filter(|stretch| stretch.cut == cut && self.paddings.is_empty())?;
        let index = stretch.first_index + (meta.seq - stretch.from);
        if index != self.next_index || !self.sent.insert_next(index) {
            return None;
        }
        let shift = stretch.shift;
        self.next_seq = meta.seq + 1;
        self.note_last(now, index, meta, shift);
        Some(Numbers { index, shift, cut })
    }

    /// Numbers for a packet never sent here before, whose pictures are cut like this; `None` when it is older than the
    /// binding, was withheld, was sent already or is too late to know.
    pub fn number(&mut self, now: Instant, meta: &PacketMeta, cut: Cut) -> Option<Numbers> {
        let stretch = self.stretches.back()?;
        let is_next = stretch.encoding == meta.encoding && meta.seq >= self.next_seq;
        let stretch = match self.withheld {
            Some(withheld) if is_next => self.go_on(withheld, cut),
            None if is_next && stretch.cut != cut => {
                let index = stretch.first_index + (self.next_seq - stretch.from);
                self.go_on(Withheld { pictures: 0, index }, cut)
            }
            _ if is_next => *stretch,
            _ => *self.stretches.iter().rev().find(|stretch| stretch.has(meta.encoding, meta.seq))?,
        };
        let index = stretch.first_index + (meta.seq - stretch.from);
        if !self.sent.insert(index) {
            return None;
        }
        if is_next {
            self.next_seq = meta.seq + 1;
        }
        if index >= self.next_index {
            self.note_last(now, index, meta, stretch.shift);
        }
        // It may have to wait: before it is written nobody knows how it will be.
        self.note(index, None);
        Some(Numbers { index, shift: stretch.shift, cut: stretch.cut })
    }

    fn note_last(&mut self, now: Instant, index: u64, meta: &PacketMeta, shift: Shift) {
        self.next_index = index + 1;
        self.last = Some((now, meta.timestamp.wrapping_add(shift.timestamp)));
        self.last_picture_out = Picture {
            id: meta.marks.picture_id.map(|id| id.value.wrapping_add(shift.picture_id)),
            tl0: meta.marks.tl0.map(|tl0| tl0.wrapping_add(shift.tl0)),
            frame_number: meta.marks.frame_number.map(|own| own.wrapping_add(shift.frame_number)),
        };
    }

    /// The track goes on with packets of which `oldest` is the oldest and `seq` the first to go. Where some were withheld
    /// before them, numbers go on with `seq` without a gap, timestamps stay the publisher's, and what is older comes too
    /// late. The highest number that came before.
    pub fn resume(&mut self, oldest: u64, seq: u64) -> Option<u64> {
        let last = *self.stretches.back()?;
        let before = self.next_seq;
        if oldest > before {
            let first_index = self.withheld.take().map_or(last.first_index + (before - last.from), |it| it.index);
            self.begin(last.encoding, seq, first_index, (last.shift, last.cut));
            self.next_seq = seq;
        }
        before.checked_sub(1)
    }

    /// The packet does not go out, and its number is nobody's; with it a picture is skipped, or not.
    pub fn withhold(&mut self, meta: &PacketMeta, skips_picture: bool) {
        let Some(stretch) = self.stretches.back().copied() else { return };
        if stretch.encoding != meta.encoding || meta.seq < self.next_seq {
            return;
        }
        let last = *self
            .withheld
            .get_or_insert(Withheld { pictures: 0, index: stretch.first_index + (self.next_seq - stretch.from) });
        // What is missing before the beginning of a frame may be due to go and keeps its numbers; what is missing within
        // one is not sent either.
        let missing = if meta.marks.is_start { meta.seq - self.next_seq } else { 0 };
        let missing = missing.min((self.next_index + KEPT_MAX).saturating_sub(last.index));
        if missing > 0 {
            self.go_on(last, stretch.cut);
        }
        let pictures = if missing > 0 { 0 } else { last.pictures } + u16::from(skips_picture);
        let index = last.index + missing;
        self.withheld = Some(Withheld { pictures, index });
        if let Some(stretch) = self.stretches.back_mut() {
            stretch.until = stretch.from + (index - stretch.first_index);
        }
        self.next_seq = meta.seq + 1;
    }

    /// Begins the stretch after what was withheld.
    fn go_on(&mut self, withheld: Withheld, cut: Cut) -> Stretch {
        self.withheld = None;
        let (encoding, mut shift) =
            self.stretches.back().map_or((0, Shift::default()), |stretch| (stretch.encoding, stretch.shift));
        shift.picture_id = shift.picture_id.wrapping_sub(withheld.pictures);
        self.begin(encoding, self.next_seq, withheld.index, (shift, cut))
    }

    fn begin(&mut self, encoding: u8, from: u64, first_index: u64, (shift, cut): (Shift, Cut)) -> Stretch {
        if let Some(last) = self.stretches.back_mut() {
            // Its indices end where the next one's begin.
            last.until = last.from + (first_index - last.first_index);
        }
        if self.stretches.len() == STRETCHES_MAX {
            self.stretches.pop_front();
        }
        // Most streams take a few; who withholds much soon needs all.
        if self.stretches.len() == self.stretches.capacity() && !self.stretches.is_empty() {
            self.stretches.reserve_exact(STRETCHES_MAX - self.stretches.len());
        }
        let stretch = Stretch { encoding, from, until: u64::MAX, first_index, shift, cut };
        self.stretches.push_back(stretch);
        stretch
    }

    /// What went out with the 16-bit number `seq`; `None` when that is still to come or too long ago. It may have been
    /// skipped: then this is its first way out.
    pub fn find(&self, seq: u16) -> Option<Found> {
        self.found(crate::base::seq::extend_u16(self.next_index.checked_sub(1)?, seq))
    }

    /// What went out so many numbers before the last.
    pub fn latest(&self, before: u64) -> Option<Found> {
        self.found(self.next_index.checked_sub(1 + before)?)
    }

    fn found(&self, index: u64) -> Option<Found> {
        let stretch = self.stretches.iter().rev().find(|stretch| stretch.first_index <= index)?;
        let own = stretch.from + (index - stretch.first_index);
        let is_sent = index < self.next_index && own < stretch.until;
        let numbers = Numbers { index, shift: stretch.shift, cut: stretch.cut };
        is_sent.then_some(Found { encoding: stretch.encoding, seq: own, numbers })
    }

    /// Whether a packet follows so closely that the present stretch can number it.
    pub fn is_near(&self, encoding: u8, seq: u64) -> bool {
        self.stretches.back().is_some_and(|stretch| {
            let (from, first_index) =
                self.withheld.map_or((stretch.from, stretch.first_index), |withheld| (self.next_seq, withheld.index));
            let index = first_index.saturating_add(seq.saturating_sub(from));
            stretch.encoding == encoding && index < self.next_index + GAP_MAX
        })
    }

    /// How many of the present encoding are missing right before a packet.
    pub fn gap_before(&self, meta: &PacketMeta) -> u64 {
        meta.seq.saturating_sub(self.next_seq)
    }

    /// Remembers the padding of so many packets, so that they can be rebuilt. Older ones cannot any more.
    pub fn keep_paddings(&mut self, packets: usize) {
        if self.paddings.len() != packets {
            self.paddings = vec![None; packets].into_boxed_slice();
            self.rebuild_from = self.next_index;
        }
    }

    /// The packet of that index goes out with so much padding.
    pub fn note_padding(&mut self, index: u64, padding: u8) {
        self.note(index, Some(padding));
    }

    /// The padding with which the packet of that index is rebuilt exactly as it was. One that goes out for the first time
    /// has none, and its index is taken from now on. `None`: nobody knows how it was, or will be.
    pub fn rebuild(&mut self, index: u64) -> Option<u8> {
        if self.sent.insert(index) {
            self.note(index, Some(0));
            return Some(0);
        }
        if index < self.rebuild_from {
            return None;
        }
        *self.padding_mut(index)?
    }

    fn note(&mut self, index: u64, padding: Option<u8>) {
        if let Some(noted) = self.padding_mut(index) {
            *noted = padding;
        }
    }

    fn padding_mut(&mut self, index: u64) -> Option<&mut Option<u8>> {
        let kept = self.paddings.len() as u64;
        // A packet that far behind shares its place with a later one.
        if kept == 0 || index + kept < self.next_index {
            return None;
        }
        self.paddings.get_mut((index % kept) as usize)
    }

    /// A timestamp of the present encoding in this stream's numbering.
    pub fn translate_timestamp(&self, timestamp: u32) -> Option<u32> {
        self.stretches.back().map(|stretch| timestamp.wrapping_add(stretch.shift.timestamp))
    }

    /// The encoding that goes out.
    pub fn encoding(&self) -> Option<u8> {
        self.stretches.back().map(|stretch| stretch.encoding)
    }

    /// When a packet went out last, and its timestamp.
    pub fn last(&self) -> Option<(Instant, u32)> {
        self.last
    }
}

impl Stretch {
    fn has(&self, encoding: u8, seq: u64) -> bool {
        self.encoding == encoding && (self.from..self.until).contains(&seq)
    }
}

/// A duration in RTP clock ticks.
pub fn ticks(elapsed: Duration, clock_rate_hz: u32) -> u32 {
    (elapsed.as_micros() as u64).wrapping_mul(u64::from(clock_rate_hz)).div_euclid(1_000_000) as u32
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
