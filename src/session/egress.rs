//! What a peer receives: from a track's history to protected datagrams in the send batch.
//!
//! In two steps: what may go is admitted and gets its numbers; once all that is due to the peer is in order (see
//! [`crate::forward::order`]) it is written. Owns: per sending m-line the numbering, the cached payload type, statistics.
//! Promises: ciphertext is born in the buffer the kernel sends; an (ssrc, index) protects one packet only.
//! Forbids: publishers, other subscribers.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::discard::Discard;
use super::header_exts::{ExtRoom, HeaderExts};
use super::stats::EgressReport;
use super::streams::{MlineConfig, Payload, StreamsConfig};
use super::track::Track;
use crate::base::batch::{DATAGRAM_BYTES_MAX, Path, TxBatch};
use crate::base::format::{Format, MediaKind};
use crate::base::ids::{Ssrc, TrackKey};
use crate::crypto::srtp::SrtpSender;
use crate::forward::order::Due;
use crate::forward::rewrite::{Numbers, Rewriter, ticks};
use crate::proto::history::{self, Packet};
use crate::proto::report::SendStats;
use crate::wire::rtcp::{ReportBlock, SenderInfo};
use crate::wire::rtp::{self, FIXED_HEADER_BYTES, Fixed};

/// Longest payload we forward: with header, extensions, RTX number and tag it stays within a 1500-byte MTU, and a
/// browser never sends more than 1200.
pub const PAYLOAD_BYTES_MAX: usize = 1300;
/// Retransmissions per m-line in one [`RETRANSMISSION_WINDOW`]: a frame of a hundred packets twice over. Who asks for
/// more is beyond repair by retransmission, or means harm.
const RETRANSMISSIONS_MAX: u32 = 200;
/// See [`RETRANSMISSIONS_MAX`].
const RETRANSMISSION_WINDOW: Duration = Duration::from_millis(100);
/// Without a recognisable keyframe for so long, forwarding starts anyway: end-to-end encryption may hide it.
const AWAIT_KEYFRAME_MAX: Duration = Duration::from_secs(5);
/// What a peer's line is taken to carry as long as nobody has measured it: less than most lines that carry video at all.
const ASSUMED_RATE_BPS: u64 = 10_000_000;
/// Sound waits for pictures of the same turn at most as long as these take on the peer's line. A quarter of an Opus
/// packet: no jitter buffer grows for it.
const AUDIO_WAIT_MAX: Duration = Duration::from_millis(5);

/// One sending m-line.
#[derive(Debug)]
struct Slot {
    exts: HeaderExts,
    kind: MediaKind,
    ssrc: Ssrc,
    rtx_ssrc: Ssrc,
    track: Option<TrackKey>,
    payloads: Vec<Payload>,
    rewriter: Rewriter,
    /// Next index of the retransmission source.
    rtx_index: u64,
    /// Publisher's source that is being forwarded.
    source: Option<Ssrc>,
    awaits_keyframe_since: Option<Instant>,
    /// Payload type of the format sent last.
    cached: Option<(Format, Payload)>,
    stats: SendStats,
    retransmissions: u64,
    window_from: Option<Instant>,
    window_count: u32,
}

/// Where and how packets of a session leave.
#[derive(Debug)]
pub struct Outlet<'a> {
    /// Its keys.
    pub srtp: &'a SrtpSender,
    /// Its selected path.
    pub path: Path,
}

/// A packet that may go, with its numbers. Plain values: it is written when its place among the others is known.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    /// Whose it is.
    pub track: TrackKey,
    /// Its number there.
    pub seq: u64,
    /// The m-line it goes out on.
    pub mline: u16,
    pt: u8,
    numbers: Numbers,
}

/// See the module.
#[derive(Debug)]
pub struct Egress {
    /// Index is the m-line's.
    slots: Vec<Option<Slot>>,
    /// Bits per second that the peer's line carries.
    rate_bps: u64,
}

impl Default for Egress {
    fn default() -> Self {
        Self { slots: Vec::new(), rate_bps: ASSUMED_RATE_BPS }
    }
}

impl Egress {
    /// Obeys a new negotiation. m-lines whose ssrc stays go on with their numbers.
    pub fn configure(&mut self, rng: &mut impl Rng, streams: &StreamsConfig) {
        self.slots.reserve_exact(streams.mlines.len().saturating_sub(self.slots.len()));
        self.slots.resize_with(streams.mlines.len(), || None);
        for (index, mline) in streams.mlines.iter().enumerate() {
            let old = self.slots[index].take();
            let is_sending = mline.as_ref().is_some_and(|mline| mline.egress.is_some());
            self.slots[index] = match mline {
                Some(mline) if is_sending => slot(rng, mline, streams.ext_mixed, old),
                _ => old.map(Slot::rest),
            };
        }
    }

    /// Admits one packet of `track` to an m-line, if it is to go there: from now on its number is taken.
    pub fn admit(
        &mut self,
        now: Instant,
        mline: u16,
        (track, packet): (&Track, &Packet<'_>),
        outlet: &Outlet<'_>,
    ) -> Result<(Admitted, Due), Discard> {
        let slot = self.slot_mut(mline).filter(|slot| slot.track == Some(track.key)).ok_or(Discard::StaleRoute)?;
        let header_len = FIXED_HEADER_BYTES + slot.exts.len(packet.exts);
        let bytes = header_len + packet.payload.len() + outlet.srtp.suite().rtp_tag_len();
        // Seen here and not when it is written: others are padded to its length.
        if packet.payload.len() > PAYLOAD_BYTES_MAX || bytes > DATAGRAM_BYTES_MAX {
            return Err(Discard::TooLarge);
        }
        let payload = slot.payload_for(packet.meta.format).ok_or(Discard::FormatNotNegotiated)?;
        slot.start(now, packet)?;
        let seq = packet.meta.seq;
        let numbers = slot.rewriter.number(now, seq, packet.meta.timestamp).ok_or(Discard::TooOld)?;
        let due = Due { stream: mline, is_audio: slot.kind == MediaKind::Audio, bytes: bytes as u16 };
        Ok((Admitted { track: track.key, seq, mline, pt: payload.pt, numbers }, due))
    }

    /// An m-line gets its track from the packet `seq` on, and maybe not what came before: that was withheld and leaves no
    /// gap. The highest number it had, if it is bound.
    pub fn resume(&mut self, mline: u16, track: TrackKey, seq: u64) -> Option<u64> {
        let slot = self.slot_mut(mline).filter(|slot| slot.track == Some(track))?;
        slot.rewriter.resume(seq)
    }

    /// Remembers the padding that an admitted packet is going to have, for the case that it is asked for again. Without it
    /// there is none.
    pub fn note_padding(&mut self, admitted: &Admitted, padding: u8) {
        if let Some(slot) = self.slot_mut(admitted.mline) {
            slot.rewriter.note_padding(admitted.numbers.index, padding);
        }
    }

    /// Writes an admitted packet with its padding. `packet` is the one that was admitted.
    pub fn write(
        &mut self,
        admitted: &Admitted,
        padding: u8,
        packet: &Packet<'_>,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let slot = self.slot_mut(admitted.mline).ok_or(Discard::StaleRoute)?;
        let header = slot.header(admitted.pt, slot.ssrc, admitted.numbers, packet);
        slot.send(&header, Around { prefix: &[], padding }, packet, admitted.numbers.index, outlet, tx)?;
        slot.stats.handle_sent(packet.payload.len());
        Ok(())
    }

    /// Bytes that may leave ahead of sound.
    pub fn ahead_of_audio_bytes_max(&self) -> u32 {
        (self.rate_bps / 8 * AUDIO_WAIT_MAX.as_millis() as u64 / 1000).try_into().unwrap_or(u32::MAX)
    }

    /// Serves one number of a NACK (RFC 4585 §6.2.1): by RTX where negotiated, else the first datagram again.
    pub fn retransmit(
        &mut self,
        now: Instant,
        mline: u16,
        seq: u16,
        track: &Track,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let slot = self.slot_mut(mline).filter(|slot| slot.track == Some(track.key)).ok_or(Discard::StaleRoute)?;
        if !slot.may_retransmit(now) {
            return Err(Discard::RetransmissionLimit);
        }
        let (track_seq, index) = slot.rewriter.find(seq).ok_or(Discard::TooOld)?;
        let packet = track.history.packet(track_seq).ok_or(Discard::TooOld)?;
        let timestamp = slot.rewriter.translate_timestamp(packet.meta.timestamp).ok_or(Discard::TooOld)?;
        let payload = slot.payload_for(packet.meta.format).ok_or(Discard::FormatNotNegotiated)?;
        match payload.rtx_pt {
            Some(rtx_pt) => {
                let numbers = Numbers { index: slot.rtx_index, timestamp };
                slot.rtx_index += 1;
                let header = slot.header(rtx_pt, slot.rtx_ssrc, numbers, &packet);
                // RFC 4588 §4: the original sequence number goes before the payload.
                let around = Around { prefix: &(index as u16).to_be_bytes(), padding: 0 };
                slot.send(&header, around, &packet, numbers.index, outlet, tx)?;
            }
            // RFC 7714 §8.3: an index must never protect two different packets. Rebuilt from the same history by the
            // same rules and with the same padding, the datagram is the one sent before; where the rules changed since
            // or the padding is forgotten, nothing is sent.
            None => {
                let padding = slot.rewriter.rebuild(index).ok_or(Discard::TooOld)?;
                let header = slot.header(payload.pt, slot.ssrc, Numbers { index, timestamp }, &packet);
                slot.send(&header, Around { prefix: &[], padding }, &packet, index, outlet, tx)?;
            }
        }
        slot.retransmissions += 1;
        Ok(())
    }

    /// The m-line that sends with this source.
    pub fn mline_of(&self, ssrc: Ssrc) -> Option<u16> {
        self.active().find(|(_, slot)| slot.ssrc == ssrc).map(|(mline, _)| mline)
    }

    /// What an m-line sends now.
    pub fn track_of(&self, mline: u16) -> Option<TrackKey> {
        self.slots.get(usize::from(mline))?.as_ref()?.track
    }

    /// Tracks that cannot begin without a keyframe.
    pub fn awaiting_keyframe(&self) -> impl Iterator<Item = TrackKey> {
        self.active()
            .filter(|(_, slot)| slot.kind == MediaKind::Video && !slot.has_started())
            .filter_map(|(_, slot)| slot.track)
    }

    /// A block of the peer's receiver report (RFC 3550 §6.4.2).
    pub fn handle_report_block(&mut self, now: Instant, block: &ReportBlock) {
        if let Some(slot) = self.slots.iter_mut().flatten().find(|slot| slot.ssrc == block.ssrc) {
            slot.stats.handle_report_block(now, block);
        }
    }

    /// Sender reports due now, one per m-line that sent something: the publisher's clock in this stream's numbers, so
    /// that its tracks stay in sync at the subscriber.
    pub fn sender_infos<'a>(
        &'a mut self,
        now: Instant,
        track: impl Fn(TrackKey) -> Option<&'a Track> + 'a,
    ) -> impl Iterator<Item = SenderInfo> + 'a {
        self.slots.iter_mut().flatten().filter_map(move |slot| {
            let clock = track(slot.track?)?.clock.filter(|clock| slot.source == Some(clock.source))?;
            let (_, payload) = slot.cached.as_ref()?;
            let elapsed = now.saturating_duration_since(clock.heard_at);
            let rtp_then = slot.rewriter.translate_timestamp(clock.rtp_timestamp)?;
            let ntp = clock.ntp.wrapping_add(ntp_duration(elapsed));
            let rtp_now = rtp_then.wrapping_add(ticks(elapsed, payload.format.clock_rate_hz()));
            Some(slot.stats.sender_info(now, slot.ssrc, ntp, rtp_now))
        })
    }

    /// Numbers for people.
    pub fn numbers(&self) -> impl Iterator<Item = EgressReport> {
        self.active().map(|(mline, slot)| EgressReport {
            mline,
            track: slot.track,
            ssrc: slot.ssrc,
            packets: slot.stats.packets(),
            bytes: slot.stats.octets(),
            retransmissions: slot.retransmissions,
            fraction_lost: slot.stats.fraction_lost(),
            round_trip: slot.stats.rtt(),
            awaits_keyframe: slot.track.is_some() && slot.kind == MediaKind::Video && !slot.has_started(),
        })
    }

    fn active(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(mline, slot)| Some((mline as u16, slot.as_ref()?)))
    }

    fn slot_mut(&mut self, mline: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(mline))?.as_mut()
    }
}

impl Slot {
    fn has_started(&self) -> bool {
        self.source.is_some()
    }

    /// An m-line that sends nothing for a while keeps its numbers: its ssrc may send again, and under one key an index
    /// must never come twice (RFC 3711 §9.1, RFC 7714 §8.3).
    fn rest(mut self) -> Self {
        self.carry(None);
        self
    }

    fn carry(&mut self, track: Option<TrackKey>) {
        if self.track != track {
            self.track = track;
            self.source = None;
            self.awaits_keyframe_since = None;
            self.rewriter.unbind();
        }
    }

    /// Begins with the first packet of a track, of a track's new source or after a long absence; video begins with a
    /// keyframe.
    fn start(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), Discard> {
        if self.source == Some(packet.meta.source) && self.rewriter.is_near(packet.meta.seq) {
            return Ok(());
        }
        let since = *self.awaits_keyframe_since.get_or_insert(now);
        let is_patient = now.saturating_duration_since(since) < AWAIT_KEYFRAME_MAX;
        if self.kind == MediaKind::Video && !packet.meta.marks.begins() && is_patient {
            self.source = None;
            return Err(Discard::AwaitsKeyframe);
        }
        self.rewriter.bind(now, packet.meta.seq, packet.meta.timestamp, packet.meta.format.clock_rate_hz());
        self.source = Some(packet.meta.source);
        self.awaits_keyframe_since = None;
        Ok(())
    }

    fn payload_for(&mut self, format: Format) -> Option<Payload> {
        match self.cached {
            Some((cached, payload)) if cached == format => Some(payload),
            _ => {
                let payload = *self.payloads.iter().find(|payload| payload.format == format)?;
                self.cached = Some((format, payload));
                Some(payload)
            }
        }
    }

    fn may_retransmit(&mut self, now: Instant) -> bool {
        if self.window_from.is_none_or(|from| now >= from + RETRANSMISSION_WINDOW) {
            self.window_from = Some(now);
            self.window_count = 0;
        }
        self.window_count += 1;
        self.window_count <= RETRANSMISSIONS_MAX
    }

    fn header(&self, pt: u8, ssrc: Ssrc, numbers: Numbers, packet: &Packet<'_>) -> Fixed {
        Fixed { marker: packet.meta.marker, pt, seq: numbers.index as u16, timestamp: numbers.timestamp, ssrc }
    }

    /// Header, extensions and payload with what goes around it into a slot of the batch, protected in place.
    fn send(
        &self,
        header: &Fixed,
        around: Around<'_>,
        packet: &Packet<'_>,
        index: u64,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let out = tx.reserve().ok_or(Discard::TxFull)?;
        let mut room = ExtRoom::default();
        let exts = self.exts.write(packet.exts, &mut room);
        let header_len = rtp::write_header(out, header, &[], exts).ok_or(Discard::TooLarge)?;
        let payload_at = header_len + around.prefix.len();
        let payload_end = payload_at + packet.payload.len();
        out.get_mut(header_len..payload_at).ok_or(Discard::TooLarge)?.copy_from_slice(around.prefix);
        out.get_mut(payload_at..payload_end).ok_or(Discard::TooLarge)?.copy_from_slice(packet.payload);
        if packet.meta.format == Format::OpusRed
            && let Some(opus) = self.payloads.iter().find(|payload| payload.format == Format::Opus)
        {
            name_red_blocks(out.get_mut(payload_at..payload_end).unwrap_or_default(), opus.pt);
        }
        let plain_len = rtp::write_padding(out, payload_end, around.padding).ok_or(Discard::TooLarge)?;
        let len = outlet.srtp.protect_rtp(out, header_len, plain_len, index).map_err(|_| Discard::TooLarge)?;
        tx.commit(outlet.path, len);
        Ok(())
    }
}

/// What goes around a payload inside the encrypted part.
#[derive(Clone, Copy, Debug)]
struct Around<'a> {
    /// Before it.
    prefix: &'a [u8],
    /// Bytes of padding behind it.
    padding: u8,
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

/// The slot of an m-line by its new negotiation, with the state of the old where the source is the same.
fn slot(rng: &mut impl Rng, mline: &MlineConfig, has_two_byte: bool, old: Option<Slot>) -> Option<Slot> {
    let egress = mline.egress.as_ref()?;
    let exts = HeaderExts::new(mline, has_two_byte);
    let Some(mut slot) = old.filter(|old| old.ssrc == egress.ssrc) else {
        let mut rewriter = Rewriter::new(rng.random(), rng.random());
        rewriter.keep_paddings(kept_paddings(mline));
        return Some(Slot {
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

/// How many packets of an m-line may have to be sent again as they were: with RTX none, else as many as are kept.
fn kept_paddings(mline: &MlineConfig) -> usize {
    match mline.kind {
        _ if mline.payloads.iter().all(|payload| payload.rtx_pt.is_some()) => 0,
        MediaKind::Audio => history::AUDIO_PACKETS,
        MediaKind::Video => history::VIDEO_PACKETS,
    }
}

/// A duration in NTP's 32.32 seconds.
fn ntp_duration(elapsed: Duration) -> u64 {
    (elapsed.as_secs() << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000)
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
