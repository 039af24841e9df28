//! What a peer receives: from a track's history to protected datagrams in the send batch.
//!
//! In two steps: what may go is admitted and gets its numbers; once all that is due to the peer is in order (see
//! [`crate::forward::order`]) it is written. What its line does not carry yet waits between the two ([`super::downlink`]).
//! Owns: the sending m-lines ([`super::slot`]). Promises: ciphertext is born in the buffer the kernel sends.
//! Forbids: publishers, other subscribers.

use std::time::{Duration, Instant};

use rand::Rng;

use super::discard::Discard;
use super::downlink::{Downlink, Resend};
use super::header_exts::DescriptorChange;
use super::layers::Layers;
use super::slot::{Slot, descriptor_change};
use super::stats::EgressReport;
use super::streams::StreamsConfig;
use super::track::{Fresh, Track, Tracks};
use super::way::Way;
use crate::base::batch::{DATAGRAM_BYTES_MAX, Path, TxBatch};
use crate::base::format::MediaKind;
use crate::base::ids::{Ssrc, TrackKey};
use crate::crypto::srtp::SrtpSender;
use crate::forward::order::Due;
use crate::forward::rewrite::{Numbers, Shift, ticks};
use crate::forward::select::Cut;
use crate::proto::bwe::Sending;
use crate::proto::history::Packet;
use crate::proto::report::ntp_duration;
use crate::wire::rtcp::{ReportBlock, SenderInfo, TwccFeedback};
use crate::wire::rtp::FIXED_HEADER_BYTES;

/// Longest payload we forward: with header, extensions, RTX number and tag it stays within a 1500-byte MTU, and a
/// browser never sends more than 1200.
pub const PAYLOAD_BYTES_MAX: usize = 1300;
/// What a peer's line is taken to carry as long as nobody has measured it: less than most lines that carry video at all.
const ASSUMED_RATE_BPS: u64 = 10_000_000;
/// Sound waits for pictures of the same turn at most as long as these take on the peer's line. A quarter of an Opus
/// packet: no jitter buffer grows for it.
const AUDIO_WAIT_MAX: Duration = Duration::from_millis(5);
/// Round trip to a subscriber before it is measured.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(50);
/// Of so many latest packets one is taken in turn where something is sent only to fill the line.
const FILLERS: u64 = 8;

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
    /// Which stream of that.
    pub encoding: u8,
    /// Its number there.
    pub seq: u64,
    /// The m-line it goes out on.
    pub mline: u16,
    pub(super) pt: u8,
    pub(super) numbers: Numbers,
}

impl Admitted {
    /// SRTP packet index.
    pub fn index(&self) -> u64 {
        self.numbers.index
    }
}

/// See the module.
#[derive(Debug)]
pub struct Egress {
    /// Index is the m-line's.
    pub(super) slots: Vec<Option<Slot>>,
    /// Of peers that tell us about it.
    pub(super) downlink: Option<Box<Downlink>>,
    /// Of peers that get video.
    pub(super) layers: Option<Box<Layers>>,
    /// Without a downlink nothing waits but this.
    resend: Option<Resend>,
    fillers: u64,
    /// The peer wants no more, in bits per second.
    pub(super) bps_max: u64,
}

impl Default for Egress {
    fn default() -> Self {
        Self { slots: Vec::new(), downlink: None, layers: None, resend: None, fillers: 0, bps_max: u64::MAX }
    }
}

impl Egress {
    /// Obeys a new negotiation. m-lines whose ssrc stays go on with their numbers.
    pub fn configure(&mut self, now: Instant, rng: &mut impl Rng, streams: &StreamsConfig) {
        self.bps_max = streams.downlink_bps_max.unwrap_or(u64::MAX);
        let is_estimated = streams.sends_video();
        self.slots.reserve_exact(streams.mlines.len().saturating_sub(self.slots.len()));
        self.slots.resize_with(streams.mlines.len(), || None);
        for (index, mline) in streams.mlines.iter().enumerate() {
            let old = self.slots[index].take();
            let before = old.as_ref().map(|slot| (slot.ssrc, slot.track));
            let is_sending = mline.as_ref().is_some_and(|mline| mline.egress.is_some());
            self.slots[index] = match mline {
                Some(mline) if is_sending => Slot::new(rng, mline, (streams.ext_mixed, is_estimated), old),
                _ => old.map(Slot::rest),
            };
            if let Some(downlink) = &mut self.downlink
                && before.is_some()
                && self.slots[index].as_ref().map(|slot| (slot.ssrc, slot.track)) != before
            {
                downlink.forget(index as u16);
            }
        }
        if self.downlink.is_none() && streams.mlines.iter().flatten().any(|mline| mline.gives_feedback()) {
            self.downlink = Some(Box::new(Downlink::new(now)));
        }
    }

    /// Admits packets of `track` to an m-line, as far as they are to go there: from now on their numbers are taken.
    pub fn admit(
        &mut self,
        now: Instant,
        mline: u16,
        (track, fresh): (&Track, &[Fresh]),
        outlet: &Outlet<'_>,
        (admitted, due): (&mut Vec<Admitted>, &mut Vec<Due>),
        mut refuse: impl FnMut(Discard),
    ) {
        let Some(slot) = bound_slot(&mut self.slots, mline, track) else {
            return fresh.iter().for_each(|_| refuse(Discard::StaleRoute));
        };
        for fresh in fresh {
            let Some(packet) = track.packet(fresh.encoding, fresh.seq) else {
                refuse(Discard::TooOld);
                continue;
            };
            if let Some((packet, length)) = admit_next(slot, now, mline, &packet, outlet) {
                admitted.push(packet);
                due.push(length);
                continue;
            }
            match admit(slot, now, mline, (track, &packet), outlet) {
                Ok((packet, length)) => {
                    admitted.push(packet);
                    due.push(length);
                }
                Err(discard) => refuse(discard),
            }
        }
    }

    /// Admits a packet that is a subscriber's only one, and writes it at once. What has to wait first comes back, for
    /// [`pace`](Self::pace).
    pub fn send(
        &mut self,
        now: Instant,
        mline: u16,
        (track, fresh): (&Track, Fresh),
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<Option<(Admitted, Due)>, Discard> {
        let slot = bound_slot(&mut self.slots, mline, track).ok_or(Discard::StaleRoute)?;
        let packet = track.packet(fresh.encoding, fresh.seq).ok_or(Discard::TooOld)?;
        let (admitted, due) = match admit_next(slot, now, mline, &packet, outlet) {
            Some(admitted) => admitted,
            None => admit(slot, now, mline, (track, &packet), outlet)?,
        };
        if self.downlink.as_mut().is_some_and(|downlink| !downlink.lets_pass(now, &due)) {
            return Ok(Some((admitted, due)));
        }
        let way = Way { now, outlet, downlink: self.downlink.as_deref_mut() };
        way.send_media(slot, &admitted, 0, &packet, tx)?;
        Ok(None)
    }

    /// Leaves in `admitted` and `due` what may leave now; the rest waits. How many find no place to wait.
    pub fn pace(&mut self, now: Instant, admitted: &mut Vec<Admitted>, due: &mut Vec<Due>) -> u64 {
        let (Some(downlink), slots, mut left_out) = (&mut self.downlink, &mut self.slots, 0) else { return 0 };
        downlink.pace(now, admitted, due, |mline| {
            left_out += 1;
            if let Some(slot) = slot_mut(slots, mline) {
                slot.restart();
            }
        });
        left_out
    }

    /// An m-line gets packets of its track, and maybe not what came before: that was withheld and leaves no gap, see
    /// [`Rewriter::resume`](crate::forward::rewrite::Rewriter::resume). The highest number it had, if it is bound.
    pub fn resume(&mut self, mline: u16, track: TrackKey, planned: &[Fresh]) -> Option<u64> {
        let slot = slot_mut(&mut self.slots, mline).filter(|slot| slot.track == Some(track))?;
        let oldest = planned.iter().map(|fresh| fresh.seq).min()?;
        slot.rewriter.resume(oldest, planned.first()?.seq)
    }

    /// Writes an admitted packet with its padding, which is remembered for the case that it is asked for again. `packet`
    /// is the one that was admitted.
    pub fn write(
        &mut self,
        now: Instant,
        admitted: &Admitted,
        padding: u8,
        packet: &Packet<'_>,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let slot = slot_mut(&mut self.slots, admitted.mline).ok_or(Discard::StaleRoute)?;
        let way = Way { now, outlet, downlink: self.downlink.as_deref_mut() };
        way.send_media(slot, admitted, padding, packet, tx)
    }

    /// Bytes that may leave ahead of sound.
    pub fn ahead_of_audio_bytes_max(&self) -> u32 {
        let measured = self.downlink.as_ref().filter(|downlink| downlink.is_measured());
        let rate_bps = measured.map_or(ASSUMED_RATE_BPS, |downlink| downlink.estimator.estimate_bps());
        (rate_bps / 8 * AUDIO_WAIT_MAX.as_millis() as u64 / 1000).try_into().unwrap_or(u32::MAX)
    }

    /// A number of a NACK (RFC 4585 §6.2.1) that is to be sent again when its time comes, see
    /// [`next_resend`](Self::next_resend).
    pub fn want_resend(&mut self, now: Instant, mline: u16, seq: u16) -> Result<(), Discard> {
        let rtt = self.rtt();
        let slot = slot_mut(&mut self.slots, mline).ok_or(Discard::StaleRoute)?;
        slot.may_resend(now, seq, rtt)?;
        let resend = Resend { mline, seq };
        let has_room = match &mut self.downlink {
            Some(downlink) => downlink.want_resend(resend),
            None => self.resend.replace(resend).is_none(),
        };
        if has_room { Ok(()) } else { Err(Discard::RetransmissionLimit) }
    }

    /// The next number to send again, of those that wait.
    pub fn next_resend(&mut self, now: Instant) -> Option<Resend> {
        self.resend.take().or_else(|| self.downlink.as_mut()?.next_resend(now))
    }

    /// Sends one number again: by RTX where negotiated, else the first datagram again.
    pub fn retransmit(
        &mut self,
        now: Instant,
        Resend { mline, seq }: Resend,
        tracks: &Tracks,
        outlet: &Outlet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let slot = slot_mut(&mut self.slots, mline).ok_or(Discard::StaleRoute)?;
        let found = slot.rewriter.find(seq).ok_or(Discard::TooOld)?;
        let way = Way { now, outlet, downlink: self.downlink.as_deref_mut() };
        way.send_again(slot, &found, tracks, Sending::Retransmission, tx)?;
        slot.retransmissions += 1;
        Ok(())
    }

    /// Whether something is to be sent only to find out what the line carries.
    pub fn is_padding_due(&mut self, now: Instant) -> bool {
        self.downlink.as_mut().is_some_and(|downlink| downlink.is_padding_due(now))
    }

    /// Nothing that waits is sent, and nothing only to find out what the line carries; video goes on with a keyframe. How
    /// much was given up of what is new.
    pub fn give_up_waiting(&mut self, now: Instant) -> usize {
        let (Some(downlink), slots) = (&mut self.downlink, &mut self.slots) else { return 0 };
        downlink.give_up_waiting(now, |mline| slot_mut(slots, mline).into_iter().for_each(Slot::restart))
    }

    /// What waits, and its time has come.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(Admitted, Due)> {
        self.downlink.as_mut()?.next_waiting(now)
    }

    /// Sends something only to find out what the line carries: a late packet again, or nothing but padding where none went
    /// yet. `false`: there is nothing to send.
    pub fn write_padding(&mut self, now: Instant, tracks: &Tracks, outlet: &Outlet<'_>, tx: &mut TxBatch) -> bool {
        self.fillers += 1;
        let fits = |slot: &&mut Slot| slot.exts.has_twcc() && slot.rtx_pt().is_some();
        let Some(slot) = self.slots.iter_mut().flatten().filter(fits).max_by_key(|slot| slot.stats.octets()) else {
            self.downlink.iter_mut().for_each(|downlink| downlink.give_up_probe(now));
            return false;
        };
        let filler = slot.rewriter.latest(self.fillers % FILLERS);
        if let Some(found) = filler {
            let way = Way { now, outlet, downlink: self.downlink.as_deref_mut() };
            if way.send_again(slot, &found, tracks, Sending::Padding, tx).is_ok() {
                return true;
            }
        }
        let Some(pt) = slot.rtx_pt() else { return false };
        let timestamp = slot.rewriter.last().map_or(0, |(_, timestamp)| timestamp);
        let shift = Shift { timestamp, ..Shift::default() };
        let numbers = Numbers { index: slot.take_rtx_index(), shift, cut: Cut::NONE };
        let way = Way { now, outlet, downlink: self.downlink.as_deref_mut() };
        way.send_padding(slot, pt, numbers, tx).is_ok()
    }

    /// The m-line that sends with this source.
    pub fn mline_of(&self, ssrc: Ssrc) -> Option<u16> {
        self.active().find(|(_, slot)| slot.ssrc == ssrc).map(|(mline, _)| mline)
    }

    /// The track and the stream of it that an m-line sends.
    pub fn keyframe_of(&self, mline: u16) -> Option<(TrackKey, u8)> {
        let slot = self.slots.get(usize::from(mline))?.as_ref()?;
        Some((slot.track?, slot.wants_keyframe().or(slot.rewriter.encoding()).unwrap_or_default()))
    }

    /// A block of the peer's receiver report (RFC 3550 §6.4.2).
    pub fn handle_report_block(&mut self, now: Instant, block: &ReportBlock) {
        if let Some(slot) = self.slots.iter_mut().flatten().find(|slot| slot.ssrc == block.ssrc) {
            slot.stats.handle_report_block(now, block);
            if let Some(downlink) = &mut self.downlink {
                downlink.handle_report(now, slot.stats.fraction_lost(), slot.stats.rtt());
            }
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
            let clock = track(slot.track?)?.clock(slot.rewriter.encoding()?)?;
            let clock = Some(clock).filter(|clock| slot.source == Some(clock.source))?;
            let (_, payload) = slot.cached.as_ref()?;
            let elapsed = now.saturating_duration_since(clock.heard_at);
            let rtp_then = slot.rewriter.translate_timestamp(clock.rtp_timestamp)?;
            let ntp = clock.ntp.wrapping_add(ntp_duration(elapsed));
            let rtp_now = rtp_then.wrapping_add(ticks(elapsed, payload.format.clock_rate_hz()));
            Some(slot.stats.sender_info(now, slot.ssrc, ntp, rtp_now))
        })
    }

    /// Numbers for people.
    pub fn numbers(&self, now: Instant) -> impl Iterator<Item = EgressReport> {
        self.active().map(move |(mline, slot)| EgressReport {
            mline,
            track: slot.track,
            ssrc: slot.ssrc,
            packets: slot.stats.packets(),
            bytes: slot.stats.octets(),
            retransmissions: slot.retransmissions,
            fraction_lost: slot.stats.fraction_lost(),
            round_trip: slot.stats.rtt(),
            waits: slot.awaits_since.map(|since| now.saturating_duration_since(since)),
            layer: slot.layer(),
            allocation: slot.allocation,
        })
    }

    fn active(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(mline, slot)| Some((mline as u16, slot.as_ref()?)))
    }

    /// Round trip to the peer, as far as its feedback about what we send tells. The least of what is known: transport-wide
    /// feedback lies at the peer for a while before it leaves.
    pub fn round_trip(&self) -> Option<Duration> {
        let measured = self.downlink.as_ref().and_then(|downlink| downlink.estimator.rtt());
        let active = self.slots.iter().flatten().filter(|slot| slot.track.is_some());
        let reported = active.filter_map(|slot| slot.stats.rtt());
        reported.chain(measured).min()
    }

    fn rtt(&self) -> Duration {
        self.round_trip().unwrap_or(ROUND_TRIP_ASSUMED)
    }

    /// Transport-wide feedback.
    pub fn handle_twcc(&mut self, now: Instant, feedback: &TwccFeedback<'_>) {
        if let Some(downlink) = &mut self.downlink {
            downlink.estimator.handle_twcc(now, feedback);
            downlink.handle_estimate(now);
        }
    }

    /// The peer's own estimate.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        if let Some(downlink) = &mut self.downlink {
            downlink.estimator.handle_remb(now, bps);
            downlink.handle_estimate(now);
        }
    }

    /// Whether something waits for the peer's line.
    pub fn has_backlog(&self) -> bool {
        self.downlink.as_ref().is_some_and(|downlink| downlink.has_backlog())
    }

    /// Deadlines that passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(downlink) = &mut self.downlink {
            downlink.handle_timeout(now);
        }
    }

    /// When something may leave that waits.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.downlink.as_ref()?.next_timeout()
    }

    /// What is known of the peer's line.
    pub fn downlink(&self) -> Option<&Downlink> {
        self.downlink.as_deref()
    }
}

/// Admits a packet that follows the one before and goes the same way, as most do. `None`, and its number is not taken: it is
/// one for [`admit`].
#[inline]
fn admit_next(
    slot: &mut Slot,
    now: Instant,
    mline: u16,
    packet: &Packet<'_>,
    outlet: &Outlet<'_>,
) -> Option<(Admitted, Due)> {
    let others = FIXED_HEADER_BYTES + packet.payload.len() + outlet.srtp.suite().rtp_tag_len();
    let is_small = others + slot.exts.len_max(packet.exts) <= DATAGRAM_BYTES_MAX;
    if packet.payload.len() > PAYLOAD_BYTES_MAX || !is_small {
        return None;
    }
    let (pt, numbers) = slot.number_next(now, &packet.meta)?;
    admitted(slot, (mline, pt), numbers, packet, outlet).ok()
}

/// Admits one packet, if it is to go out.
fn admit(
    slot: &mut Slot,
    now: Instant,
    mline: u16,
    (track, packet): (&Track, &Packet<'_>),
    outlet: &Outlet<'_>,
) -> Result<(Admitted, Due), Discard> {
    // Seen here and not when it is written: others are padded to its length, and its number is taken.
    let others = FIXED_HEADER_BYTES + packet.payload.len() + outlet.srtp.suite().rtp_tag_len();
    let fits = |exts_len| others + exts_len <= DATAGRAM_BYTES_MAX;
    let is_small = fits(slot.exts.len_max(packet.exts)) || fits(slot.exts.len(packet.exts, DescriptorChange::MOST));
    if packet.payload.len() > PAYLOAD_BYTES_MAX || !is_small {
        return Err(Discard::TooLarge);
    }
    let payload = slot.payload_for(packet.meta.format).ok_or(Discard::FormatNotNegotiated)?;
    let numbers = slot.number(now, track, packet)?;
    admitted(slot, (mline, payload.pt), numbers, packet, outlet)
}

/// A packet with its numbers, and what it takes to send it.
#[inline]
pub(super) fn admitted(
    slot: &Slot,
    (mline, pt): (u16, u8),
    numbers: Numbers,
    packet: &Packet<'_>,
    outlet: &Outlet<'_>,
) -> Result<(Admitted, Due), Discard> {
    let meta = &packet.meta;
    // A descriptor's change costs a look; most packets have none.
    let change = if packet.exts.is_empty() { DescriptorChange::default() } else { descriptor_change(&numbers, meta) };
    let bytes = FIXED_HEADER_BYTES
        + slot.exts.len(packet.exts, change)
        + packet.payload.len()
        + outlet.srtp.suite().rtp_tag_len();
    let track = slot.track.filter(|_| bytes <= DATAGRAM_BYTES_MAX).ok_or(Discard::TooLarge)?;
    let due = Due { stream: mline, is_audio: slot.kind == MediaKind::Audio, bytes: bytes as u16 };
    Ok((Admitted { track, encoding: meta.encoding, seq: meta.seq, mline, pt, numbers }, due))
}

/// The m-line that carries a track.
fn bound_slot<'a>(slots: &'a mut [Option<Slot>], mline: u16, track: &Track) -> Option<&'a mut Slot> {
    slot_mut(slots, mline).filter(|slot| slot.track == Some(track.key))
}

fn slot_mut(slots: &mut [Option<Slot>], mline: u16) -> Option<&mut Slot> {
    slots.get_mut(usize::from(mline))?.as_mut()
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
