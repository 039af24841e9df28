//! One sending m-line of a peer: what it carries now, under which numbers, and how a packet is written.
//!
//! Owns: numbering, cached payload type, statistics, what was sent again lately. Promises: an (ssrc, index) protects one
//! packet only. Forbids: other m-lines; when something may leave.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::discard::Discard;
use super::egress::Outlet;
use super::header_exts::{ExtRoom, HeaderExts, Stamp};
use super::streams::{MlineConfig, Payload};
use crate::base::batch::TxBatch;
use crate::base::format::{Format, MediaKind};
use crate::base::ids::{Ssrc, TrackKey};
use crate::forward::rewrite::{Numbers, Rewriter};
use crate::proto::history::{self, Packet};
use crate::proto::report::SendStats;
use crate::wire::payload;
use crate::wire::rtp::{self, Fixed};

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
    /// Publisher's source that is being forwarded.
    pub(super) source: Option<Ssrc>,
    awaits_keyframe_since: Option<Instant>,
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
pub(super) struct Around<'a> {
    /// Before it.
    pub(super) prefix: &'a [u8],
    /// Bytes of padding behind it.
    pub(super) padding: u8,
}

impl Slot {
    /// The slot of an m-line by its new negotiation, with the state of the old where the source is the same.
    pub(super) fn new(rng: &mut impl Rng, mline: &MlineConfig, has_two_byte: bool, old: Option<Self>) -> Option<Self> {
        let egress = mline.egress.as_ref()?;
        let exts = HeaderExts::new(mline, has_two_byte, !is_rebuilt(mline));
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
                source: None,
                awaits_keyframe_since: None,
                cached: None,
                stats: SendStats::default(),
                retransmissions: 0,
                window_from: None,
                window_count: 0,
                resent: Box::default(),
            });
        };
        slot.carry(egress.track);
        if slot.exts != exts || slot.payloads != mline.payloads {
            slot.exts = exts;
            slot.payloads.clone_from(&mline.payloads);
            slot.cached = None;
            slot.rewriter.handle_header_change();
            slot.rewriter.keep_paddings(kept_paddings(mline));
        }
        Some(slot)
    }

    pub(super) fn has_started(&self) -> bool {
        self.source.is_some()
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
            self.restart();
        }
    }

    /// Video goes on with a keyframe.
    pub(super) fn restart(&mut self) {
        self.source = None;
        self.awaits_keyframe_since = None;
    }

    /// Begins with the first packet of a track, of a track's new source or after a long absence; video begins with a
    /// keyframe.
    pub(super) fn start(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), Discard> {
        let meta = &packet.meta;
        if self.source == Some(meta.source) && self.rewriter.is_near(meta.encoding, meta.seq) {
            return Ok(());
        }
        let since = *self.awaits_keyframe_since.get_or_insert(now);
        let is_patient = now.saturating_duration_since(since) < AWAIT_KEYFRAME_MAX;
        if self.kind == MediaKind::Video && !meta.marks.begins() && is_patient {
            self.source = None;
            return Err(Discard::AwaitsKeyframe);
        }
        self.rewriter.bind(now, meta, None);
        self.source = Some(meta.source);
        self.awaits_keyframe_since = None;
        Ok(())
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

    /// Whether a packet ends its picture, as the subscriber gets it.
    pub(super) fn marker(&self, packet: &Packet<'_>) -> bool {
        packet.meta.marker
    }

    pub(super) fn header(&self, pt: u8, ssrc: Ssrc, numbers: Numbers, packet: &Packet<'_>, marker: bool) -> Fixed {
        let timestamp = packet.meta.timestamp.wrapping_add(numbers.shift.timestamp);
        Fixed { marker, pt, seq: numbers.index as u16, timestamp, ssrc }
    }

    /// Header, extensions and payload with what goes around it into a slot of the batch, protected in place. Bytes of the
    /// datagram.
    #[allow(clippy::too_many_arguments, reason = "the parts of a packet, each from somewhere else")]
    pub(super) fn send(
        &self,
        header: &Fixed,
        around: Around<'_>,
        packet: &Packet<'_>,
        numbers: Numbers,
        stamp: &Stamp,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<usize, Discard> {
        let out = tx.reserve().ok_or(Discard::TxFull)?;
        let mut room = ExtRoom::default();
        let exts = self.exts.write(packet.exts, stamp, &mut room);
        let header_len = rtp::write_header(out, header, &[], exts).ok_or(Discard::TooLarge)?;
        let payload_at = header_len + around.prefix.len();
        let payload_end = payload_at + packet.payload.len();
        out.get_mut(header_len..payload_at).ok_or(Discard::TooLarge)?.copy_from_slice(around.prefix);
        let payload = out.get_mut(payload_at..payload_end).ok_or(Discard::TooLarge)?;
        payload.copy_from_slice(packet.payload);
        self.rewrite_payload(packet.meta.format, payload, numbers);
        let plain_len = rtp::write_padding(out, payload_end, around.padding).ok_or(Discard::TooLarge)?;
        let len = outlet.srtp.protect_rtp(out, header_len, plain_len, numbers.index).map_err(|_| Discard::TooLarge)?;
        tx.commit(outlet.path, len);
        Ok(len)
    }

    /// What in a payload speaks of numbers: pictures, and the payload types in RED.
    fn rewrite_payload(&self, format: Format, payload: &mut [u8], numbers: Numbers) {
        let shift = numbers.shift;
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
