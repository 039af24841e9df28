//! The way out of one datagram: its stamps, its bytes in the batch, and what the estimate is told of it.
//!
//! Promises: a transport-wide number is taken only for what carries one. Forbids: which packet is next.

use std::time::Instant;

use super::discard::Discard;
use super::downlink::Downlink;
use super::egress::{Admitted, Outlet};
use super::slot::{Around, Slot};
use super::track::Tracks;
use crate::base::batch::TxBatch;
use crate::base::ids::Ssrc;
use crate::forward::rewrite::{Found, Numbers};
use crate::proto::bwe::Sending;
use crate::proto::history::Packet;
use crate::wire::rtp_ext::AbsSendTime;

/// RFC 3550 §5.1: one octet says how long the padding is.
const PADDING_BYTES_MAX: u8 = 255;

/// The way out of one datagram.
#[derive(Debug)]
pub(super) struct Way<'a> {
    /// When.
    pub(super) now: Instant,
    /// By which keys and path.
    pub(super) outlet: &'a Outlet<'a>,
    /// What is known of the line.
    pub(super) downlink: Option<&'a mut Downlink>,
}

impl Way<'_> {
    #[allow(clippy::too_many_arguments, reason = "the parts of a packet, each from somewhere else")]
    fn send(
        mut self,
        slot: &Slot,
        source: (u8, Ssrc),
        around: Around,
        packet: &Packet<'_>,
        numbers: &Numbers,
        what: Sending,
        tx: &mut TxBatch,
    ) -> Result<usize, Discard> {
        let out = tx.reserve().ok_or(Discard::TxFull)?;
        let (has_twcc, has_send_time) = (slot.exts.has_twcc(), slot.exts.has_send_time());
        let (mut twcc, mut send_time) = (0, AbsSendTime(0));
        if let Some(downlink) = &mut self.downlink {
            // A number that is not written would be missed as a packet lost.
            twcc = if has_twcc { downlink.take_twcc() } else { 0 };
            send_time = if has_send_time { downlink.send_time(self.now) } else { send_time };
        }
        let len = slot.write(source, around, packet, numbers, (twcc, send_time), (self.outlet, out))?;
        tx.commit(self.outlet.path, len);
        if let Some(downlink) = self.downlink
            && has_twcc
        {
            downlink.handle_sent(self.now, twcc, len, what);
        }
        Ok(len)
    }

    /// Sends an admitted packet for the first time.
    pub(super) fn send_media(
        self,
        slot: &mut Slot,
        admitted: &Admitted,
        padding: u8,
        packet: &Packet<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let (source, around) = ((admitted.pt, slot.ssrc), Around { original: None, padding });
        self.send(slot, source, around, packet, &admitted.numbers, Sending::Media, tx)?;
        slot.rewriter.note_padding(admitted.numbers.index, padding);
        slot.stats.handle_sent(packet.payload.len());
        Ok(())
    }

    /// Sends what went out before, or should have, once more.
    pub(super) fn send_again(
        mut self,
        slot: &mut Slot,
        found: &Found,
        tracks: &Tracks,
        what: Sending,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let track = slot.track.and_then(|track| tracks.track(track)).ok_or(Discard::StaleRoute)?;
        let packet = track.packet(found.encoding, found.seq).ok_or(Discard::TooOld)?;
        let payload = slot.payload_for(packet.meta.format).ok_or(Discard::FormatNotNegotiated)?;
        let original = found.numbers.index;
        let (source, around, numbers);
        match payload.rtx_pt {
            // RFC 4588 §4: the original sequence number goes before the payload.
            Some(rtx_pt) => {
                numbers = Numbers { index: slot.take_rtx_index(), ..found.numbers };
                source = (rtx_pt, slot.rtx_ssrc);
                around = Around { original: Some(original as u16), padding: 0 };
            }
            // RFC 7714 §8.3: an index must never protect two different packets. Rebuilt from the same history by the
            // same rules and with the same padding, the datagram is the one sent before; where the rules changed since
            // or the padding is forgotten, nothing is sent.
            None => {
                let padding = slot.rewriter.rebuild(original).ok_or(Discard::TooOld)?;
                numbers = found.numbers;
                source = (payload.pt, slot.ssrc);
                around = Around { original: None, padding };
            }
        }
        if let Some(downlink) = &mut self.downlink {
            downlink.handle_extra(packet.payload.len());
        }
        self.send(slot, source, around, &packet, &numbers, what, tx)?;
        Ok(())
    }

    /// Sends nothing but padding.
    pub(super) fn send_padding(self, slot: &Slot, pt: u8, numbers: Numbers, tx: &mut TxBatch) -> Result<(), Discard> {
        let (source, around) = ((pt, slot.rtx_ssrc), Around { original: None, padding: PADDING_BYTES_MAX });
        self.send(slot, source, around, &Packet::NOTHING, &numbers, Sending::Padding, tx)?;
        Ok(())
    }
}
