//! One sending m-line of a peer: what it carries now, under which numbers, and how a packet is written.
//!
//! Owns: numbering, cached payload type, statistics, what was sent again lately. Promises: an (ssrc, index) protects one
//! packet only. Forbids: other m-lines; when something may leave.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::discard::Discard;
use super::egress::Outlet;
use super::header_exts::{DescriptorChange, HeaderExts, Stamp};
use super::streams::{Demand, MlineConfig, Payload};
use super::track::Track;
use crate::base::format::{Format, MediaKind};
use crate::base::frame::Layer;
use crate::base::ids::{Ssrc, TrackKey};
use crate::base::packet::PacketMeta;
use crate::forward::allocate::Allocation;
use crate::forward::rewrite::{Numbers, Rewriter, Shift};
use crate::forward::select::{Cut, PacketHead, Selector, Verdict};
use crate::proto::history::{self, Packet};
use crate::proto::report::SendStats;
use crate::wire::payload;
use crate::wire::rtp::{self, FIXED_HEADER_BYTES, Fixed};
use crate::wire::rtp_ext::AbsSendTime;

/// Retransmissions per m-line in one [`RETRANSMISSION_WINDOW`]: a frame of a hundred packets twice over. Who asks for
/// more is beyond repair by retransmission, or means harm.
pub(super) const RETRANSMISSIONS_MAX: u32 = 200;
/// See [`RETRANSMISSIONS_MAX`].
const RETRANSMISSION_WINDOW: Duration = Duration::from_millis(100);
/// Numbers remembered with the time they were sent again: all that can be on the way within a round trip of half a
/// second, at the limit above, and be asked for twice.
const RESENT_KEPT: usize = 256;
/// Without a recognisable keyframe for so long, forwarding starts anyway: end-to-end encryption may hide it.
const AWAIT_KEYFRAME_MAX: Duration = Duration::from_secs(5);
/// Packets missing before a keyframe that may still come: more than are lost in a row, or late. A worker that could not
/// keep up left out more.
const GAP_KEPT_MAX: u64 = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) exts: HeaderExts,
    pub(super) kind: MediaKind,
    pub(super) ssrc: Ssrc,
    pub(super) rtx_ssrc: Ssrc,
    pub(super) track: Option<TrackKey>,
    payloads: Vec<Payload>,
    pub(super) rewriter: Rewriter,
    /// Next index of the retransmission source.
    rtx_index: u64,
    /// Which layers go out; sound has but one.
    pub(super) selector: Selector,
    /// Publisher's source that is being forwarded.
    pub(super) source: Option<Ssrc>,
    /// Since when nothing goes out although something should.
    pub(super) awaits_since: Option<Instant>,
    /// What the allocator said last.
    pub(super) allocation: Option<Allocation>,
    /// Its target costs more than the one before.
    pub(super) rises: bool,
    /// What the subscriber asked for.
    pub(super) demand: Demand,
    /// Payload type of the format sent last.
    pub(super) cached: Option<(Format, Payload)>,
    pub(super) stats: SendStats,
    pub(super) retransmissions: u64,
    window_from: Option<Instant>,
    window_count: u32,
    /// Numbers sent again and when, by number modulo length; empty until the first.
    resent: Box<[Option<(u16, Instant)>]>,
}

/// What goes around a payload inside the encrypted part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Before it, of what is sent again: the number it had (RFC 4588 §4).
    pub(super) original: Option<u16>,
    /// Bytes of padding behind it.
    pub(super) padding: u8,
}

impl Slot {
    /// The slot of an m-line by its new negotiation, with the state of the old where the source is the same.
    /// `is_estimated`: its peer is to tell of what arrives.
    pub(super) fn new(
        rng: &mut impl Rng,
        mline: &MlineConfig,
        (has_two_byte, is_estimated): (bool, bool),
        old: Option<Self>,
    ) -> Option<Self> {
        let egress = mline.egress.as_ref()?;
        let exts = HeaderExts::new(mline, has_two_byte, is_estimated && !is_rebuilt(mline));
        let Some(mut slot) = old.filter(|old| old.ssrc == egress.ssrc) else {
            let mut rewriter = Rewriter::new(rng.random(), rng.random());
            rewriter.keep_paddings(kept_paddings(mline));
            return Some(Self {
                exts,
                kind: mline.kind,
                ssrc: egress.ssrc,
                rtx_ssrc: egress.rtx_ssrc,
                track: egress.track,
                payloads: mline.payloads.clone(),
                rewriter,
                rtx_index: u64::from(rng.random::<u16>() >> 1),
                selector: first_selector(),
                source: None,
                awaits_since: None,
                allocation: None,
                rises: true,
                demand: egress.demand,
                cached: None,
                stats: SendStats::default(),
                retransmissions: 0,
                window_from: None,
                window_count: 0,
                resent: Box::default(),
            });
        };
        slot.carry(egress.track);
        slot.demand = egress.demand;
        if slot.exts != exts || slot.payloads != mline.payloads {
            slot.exts = exts;
            slot.payloads.clone_from(&mline.payloads);
            slot.cached = None;
            slot.rewriter.handle_header_change();
            slot.rewriter.keep_paddings(kept_paddings(mline));
        }
        Some(slot)
    }

    /// An m-line that sends nothing for a while keeps its numbers: its ssrc may send again, and under one key an index
    /// must never come twice (RFC 3711 §9.1, RFC 7714 §8.3).
    pub(super) fn rest(mut self) -> Self {
        self.carry(None);
        self
    }

    fn carry(&mut self, track: Option<TrackKey>) {
        if self.track != track {
            self.track = track;
            self.rewriter.unbind();
            self.allocation = None;
            self.rises = true;
            self.restart();
            self.selector = first_selector();
        }
    }

    /// Video goes on with a keyframe.
    pub(super) fn restart(&mut self) {
        self.source = None;
        self.awaits_since = None;
        self.selector.restart();
    }

    /// The stream of the track that cannot go where it should without a keyframe.
    pub(super) fn wants_keyframe(&self) -> Option<u8> {
        if self.kind == MediaKind::Audio { None } else { self.selector.wants_keyframe() }
    }

    /// Payload type and numbers for a packet that follows the last one and goes the same way, as most do. `None`: its number
    /// is not taken, and it takes a closer look.
    #[inline]
    pub(super) fn number_next(&mut self, now: Instant, meta: &PacketMeta) -> Option<(u8, Numbers)> {
        let (_, payload) = self.cached.as_ref().filter(|(format, _)| *format == meta.format)?;
        if self.source != Some(meta.source) || !self.rewriter.is_next(meta) {
            return None;
        }
        let cut = if self.kind == MediaKind::Audio { Cut::NONE } else { self.selector.pass(meta)? };
        let numbers = self.rewriter.number_next(now, meta, cut)?;
        self.awaits_since = None;
        Some((payload.pt, numbers))
    }

    /// Numbers for a packet that goes out. Video begins with a keyframe: of a track, of a track's new source, of another
    /// of its encodings, after a long absence.
    pub(super) fn number(&mut self, now: Instant, track: &Track, packet: &Packet<'_>) -> Result<Numbers, Discard> {
        let meta = &packet.meta;
        let is_present = self.rewriter.encoding() == Some(meta.encoding);
        let goes_on = self.source == Some(meta.source) && self.rewriter.is_near(meta.encoding, meta.seq);
        let cut = match self.kind {
            MediaKind::Audio => Cut::NONE,
            MediaKind::Video => {
                if is_present && self.source.is_some() && !goes_on {
                    self.restart();
                }
                self.select(now, track, meta)?
            }
        };
        // What was left out before a keyframe is missed by nobody.
        let jumps = goes_on && meta.marks.begins() && self.rewriter.gap_before(meta) > GAP_KEPT_MAX;
        if !goes_on || jumps {
            let timestamp = match jumps {
                true => self.rewriter.translate_timestamp(meta.timestamp),
                false => self.timestamp_after(track, meta),
            };
            self.rewriter.bind(now, meta, timestamp);
            self.source = Some(meta.source);
        }
        self.awaits_since = None;
        self.rewriter.number(now, meta, cut).ok_or(Discard::TooOld)
    }

    /// How a packet's picture is cut, if it goes out.
    fn select(&mut self, now: Instant, track: &Track, meta: &PacketMeta) -> Result<Cut, Discard> {
        if self.selector.current().is_none() {
            let since = *self.awaits_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= AWAIT_KEYFRAME_MAX {
                self.selector.begin_blind();
            }
        }
        // Without a descriptor nothing is known of targets.
        let targets = if meta.marks.targets == 0 { None } else { track.targets(meta.encoding) };
        match self.selector.handle_packet(&head(meta), targets) {
            Verdict::Pass(cut) => Ok(cut),
            Verdict::Withhold { skips_picture } => {
                self.rewriter.withhold(meta, skips_picture && payload::closes_picture_gaps(meta.format));
                let is_silent = self.selector.current().is_none();
                Err(if is_silent { Discard::AwaitsKeyframe } else { Discard::NotSelected })
            }
        }
    }

    /// The timestamp of the first packet of another encoding, or after a pause: as long after the last one as the
    /// publisher's clocks say (RFC 3550 §6.4.1), so that sound and picture stay together. `None` where they say nothing.
    pub(super) fn timestamp_after(&self, track: &Track, meta: &PacketMeta) -> Option<u32> {
        let (_, last) = self.rewriter.last()?;
        let present = track.clock(self.rewriter.encoding()?).filter(|clock| self.source == Some(clock.source))?;
        let next = track.clock(meta.encoding).filter(|clock| clock.source == meta.source)?;
        let ticks = |ntp: u64| {
            let seconds = ntp.wrapping_sub(present.ntp).cast_signed() as f64 / 4_294_967_296.0;
            (seconds * f64::from(meta.format.clock_rate_hz())) as i64 as u32
        };
        let at_present = present.rtp_timestamp.wrapping_add(ticks(next.ntp));
        let same_moment = at_present.wrapping_add(meta.timestamp.wrapping_sub(next.rtp_timestamp));
        let translated = self.rewriter.translate_timestamp(same_moment)?;
        // What is shown next is never before what was shown.
        let is_later = translated.wrapping_sub(last).cast_signed() > 0;
        Some(if is_later { translated } else { last.wrapping_add(1) })
    }

    /// What goes out, where there are layers.
    pub(super) fn layer(&self) -> Option<Layer> {
        if self.kind == MediaKind::Audio { None } else { self.selector.current() }
    }

    /// What the allocator says. `sheds`: for a moment not even that can be sent; frames are left out then, not sizes.
    pub(super) fn obey(&mut self, allocation: Allocation, sheds: bool) {
        let shed = |layer: Layer| if sheds { Layer { temporal: 0, ..layer } } else { layer };
        // As long as nothing is known of a track, its first packets tell.
        let is_silent = allocation.target.is_none() && !self.demand.is_hidden();
        if !is_silent {
            self.selector.set_target(allocation.target.map(shed));
        }
        let before = self.allocation.unwrap_or(allocation);
        if before.target != allocation.target {
            self.rises = allocation.bps >= before.bps;
        }
        self.allocation = Some(allocation);
        self.selector.set_pressed(self.is_pressed());
        if self.is_pressed() {
            self.selector.thin_out();
        }
    }

    pub(super) fn payload_for(&mut self, format: Format) -> Option<Payload> {
        match self.cached {
            Some((cached, payload)) if cached == format => Some(payload),
            _ => {
                let payload = *self.payloads.iter().find(|payload| payload.format == format)?;
                self.cached = Some((format, payload));
                Some(payload)
            }
        }
    }

    /// Whether a number may be sent again: once in a round trip, and not too many at once.
    pub(super) fn may_resend(&mut self, now: Instant, seq: u16, rtt: Duration) -> Result<(), Discard> {
        if self.resent.is_empty() {
            self.resent = vec![None; RESENT_KEPT].into_boxed_slice();
        }
        let place = &mut self.resent[usize::from(seq) % RESENT_KEPT];
        if place.is_some_and(|(sent, at)| sent == seq && now.saturating_duration_since(at) < rtt) {
            return Err(Discard::RetransmittedLately);
        }
        if self.window_from.is_none_or(|from| now >= from + RETRANSMISSION_WINDOW) {
            self.window_from = Some(now);
            self.window_count = 0;
        }
        self.window_count += 1;
        if self.window_count > RETRANSMISSIONS_MAX {
            return Err(Discard::RetransmissionLimit);
        }
        *place = Some((seq, now));
        Ok(())
    }

    /// The next index of the retransmission source.
    pub(super) fn take_rtx_index(&mut self) -> u64 {
        self.rtx_index += 1;
        self.rtx_index - 1
    }

    /// Where padding can go: a payload type for retransmissions.
    pub(super) fn rtx_pt(&self) -> Option<u8> {
        self.payloads.iter().find_map(|payload| payload.rtx_pt)
    }

    /// Writes a packet by these numbers, type and source, with what goes around it to `out`, protected in place. Bytes of
    /// the datagram.
    pub(super) fn write(
        &self,
        (pt, ssrc): (u8, Ssrc),
        around: Around,
        packet: &Packet<'_>,
        numbers: &Numbers,
        (twcc, send_time): (u16, AbsSendTime),
        (outlet, out): (&Outlet<'_>, &mut [u8]),
    ) -> Result<usize, Discard> {
        let marker = numbers.cut.marker(packet.meta.marker, &packet.meta.marks);
        let timestamp = packet.meta.timestamp.wrapping_add(numbers.shift.timestamp);
        let header = Fixed { marker, pt, seq: numbers.index as u16, timestamp, ssrc };
        let stamp = Stamp { twcc, send_time, descriptor: descriptor_change(numbers, &packet.meta) };
        let (head, rest) = out.split_first_chunk_mut::<FIXED_HEADER_BYTES>().ok_or(Discard::TooLarge)?;
        let exts_len = self.exts.write(packet.exts, &stamp, rest).ok_or(Discard::TooLarge)?;
        *head = header.to_bytes(exts_len > 0);
        let header_len = FIXED_HEADER_BYTES + exts_len;
        let mut payload_at = header_len;
        if let Some(original) = around.original {
            let room = out.get_mut(payload_at..).and_then(<[u8]>::first_chunk_mut).ok_or(Discard::TooLarge)?;
            *room = original.to_be_bytes();
            payload_at += room.len();
        }
        let payload_end = payload_at + packet.payload.len();
        let payload = out.get_mut(payload_at..payload_end).ok_or(Discard::TooLarge)?;
        payload.copy_from_slice(packet.payload);
        self.rewrite_payload(packet.meta.format, payload, numbers.shift);
        let plain_len = rtp::write_padding(out, payload_end, around.padding).ok_or(Discard::TooLarge)?;
        outlet.srtp.protect_rtp(out, header_len, plain_len, numbers.index).map_err(|_| Discard::TooLarge)
    }

    /// What in a payload speaks of numbers: pictures, and the payload types in RED.
    fn rewrite_payload(&self, format: Format, payload: &mut [u8], shift: Shift) {
        if shift.picture_id != 0 || shift.tl0 != 0 {
            payload::shift_picture(format, payload, shift.picture_id, shift.tl0);
        }
        if format == Format::OpusRed
            && let Some(opus) = self.payloads.iter().find(|payload| payload.format == Format::Opus)
        {
            name_red_blocks(payload, opus.pt);
        }
    }
}

/// Before anything is known of a track: its first encoding, all of it.
fn first_selector() -> Selector {
    let mut selector = Selector::default();
    selector.set_target(Some(Layer { encoding: 0, spatial: u8::MAX, temporal: u8::MAX }));
    selector
}

/// What becomes of a packet's dependency descriptor.
pub(super) fn descriptor_change(numbers: &Numbers, meta: &PacketMeta) -> DescriptorChange {
    let active = numbers.cut.active_targets.filter(|_| meta.marks.is_start);
    DescriptorChange { frame_number_shift: numbers.shift.frame_number, active }
}

pub(super) fn head(meta: &PacketMeta) -> PacketHead {
    let PacketMeta { encoding, seq, timestamp, marker, marks, .. } = *meta;
    PacketHead { encoding, seq, timestamp, marker, marks }
}

/// The blocks of a RED payload name their format by payload type: that of this subscriber (RFC 2198 §3: a header of four
/// bytes while the F bit is set, then one of a single byte).
fn name_red_blocks(mut red: &mut [u8], pt: u8) {
    while let Some(header) = red.first_mut() {
        let is_last = *header & 0x80 == 0;
        *header = *header & 0x80 | pt;
        if is_last {
            return;
        }
        red = red.get_mut(4..).unwrap_or_default();
    }
}

/// Whether packets of an m-line are sent again as they were, bit by bit: NACK without RTX.
fn is_rebuilt(mline: &MlineConfig) -> bool {
    mline.payloads.iter().any(|payload| payload.nack && payload.rtx_pt.is_none())
}

/// How many packets of an m-line may have to be sent again as they were: with RTX none, else as many as are kept.
fn kept_paddings(mline: &MlineConfig) -> usize {
    match mline.kind {
        _ if !is_rebuilt(mline) => 0,
        MediaKind::Audio => history::AUDIO_PACKETS,
        MediaKind::Video => history::VIDEO_PACKETS,
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
