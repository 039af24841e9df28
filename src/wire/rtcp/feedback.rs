//! Feedback messages: NACK and PLI (RFC 4585), FIR (RFC 5104), REMB (draft-alvestrand-rmcat-remb-03).

use super::super::ParseError;
use super::super::be::{Put, u16_at, u24_at, u32_at};
use super::{PT_PAYLOAD_FEEDBACK, PT_TRANSPORT_FEEDBACK, finish, put_header};
use crate::base::ids::Ssrc;

pub(super) const FMT_NACK: u8 = 1;
pub(super) const FMT_PLI: u8 = 1;
pub(super) const FMT_FIR: u8 = 4;
/// Application layer feedback; REMB is one.
pub(super) const FMT_AFB: u8 = 15;

/// Sender and media ssrc stand before every feedback control information (RFC 4585 §6.1).
const FCI_OFFSET: usize = 8;

/// Packets a receiver asks for again.
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender: Ssrc,
    /// The stream asked about.
    pub media: Ssrc,
    fci: &'a [u8],
}

/// A lost packet and which of the 16 after it are lost as well (RFC 4585 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NackPair {
    /// Packet ID: the first lost sequence number.
    pub pid: u16,
    /// Bitmask of following lost packets: bit i stands for `pid + i + 1`.
    pub blp: u16,
}

impl NackPair {
    /// The sequence numbers it names, ascending.
    pub fn seqs(self) -> impl Iterator<Item = u16> {
        let following = (0..16u16).filter(move |bit| self.blp >> bit & 1 == 1);
        std::iter::once(self.pid).chain(following.map(move |bit| self.pid.wrapping_add(bit + 1)))
    }
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender, media) = parties(body)?;
        let fci = body.get(FCI_OFFSET..).unwrap_or(&[]);
        // RFC 4585 §6.2.1: "The FCI field MUST contain at least one and MAY contain more than one Generic NACK."
        if fci.is_empty() || !fci.len().is_multiple_of(4) {
            return Err(ParseError::Malformed);
        }
        Ok(Self { sender, media, fci })
    }

    /// The pairs as they were sent.
    pub fn pairs(&self) -> impl Iterator<Item = NackPair> + 'a {
        self.fci.chunks_exact(4).filter_map(|pair| Some(NackPair { pid: u16_at(pair, 0)?, blp: u16_at(pair, 2)? }))
    }

    /// All sequence numbers asked for; at most 17 for every 4 bytes of the packet.
    pub fn seqs(&self) -> impl Iterator<Item = u16> + 'a {
        self.pairs().flat_map(NackPair::seqs)
    }
}

/// A receiver has lost the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender: Ssrc,
    /// The stream asked about.
    pub media: Ssrc,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let (sender, media) = parties(body)?;
        Ok(Self { sender, media })
    }
}

/// Someone commands a keyframe.
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    /// Who asks. The media ssrc of the header is unused (RFC 5104 §4.3.1.2); the entries name the streams.
    pub sender: Ssrc,
    fci: &'a [u8],
}

/// One stream a [`Fir`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream that shall send a keyframe.
    pub ssrc: Ssrc,
    /// Command sequence number: a repetition has the same, a new command the next.
    pub seq_nr: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender, _) = parties(body)?;
        let fci = body.get(FCI_OFFSET..).unwrap_or(&[]);
        if fci.is_empty() || !fci.len().is_multiple_of(8) {
            return Err(ParseError::Malformed);
        }
        Ok(Self { sender, fci })
    }

    /// The commands, one per stream.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + 'a {
        self.fci
            .chunks_exact(8)
            .filter_map(|entry| Some(FirEntry { ssrc: Ssrc(u32_at(entry, 0)?), seq_nr: *entry.get(4)? }))
    }
}

/// A receiver's estimate of what it can take.
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender: Ssrc,
    /// Total bits per second; saturates where exponent and mantissa say more than 64 bits can.
    pub bitrate_bps: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(FCI_OFFSET..FCI_OFFSET + 4) == Some(b"REMB")
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender, _) = parties(body)?;
        let &count = body.get(12).ok_or(ParseError::Truncated)?;
        // 6 bits of exponent, 18 bits of mantissa.
        let value = u24_at(body, 13).ok_or(ParseError::Truncated)?;
        let (exponent, mantissa) = (value >> 18, u64::from(value & 0x3_ffff));
        let bitrate_bps = if exponent > mantissa.leading_zeros() { u64::MAX } else { mantissa << exponent.min(63) };
        let ssrcs = body.get(16..16 + 4 * usize::from(count)).ok_or(ParseError::Truncated)?;
        Ok(Self { sender, bitrate_bps, ssrcs })
    }

    /// The streams the estimate is for.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.ssrcs.chunks_exact(4).filter_map(|ssrc| u32_at(ssrc, 0).map(Ssrc))
    }
}

/// Writes a NACK for `seqs`, which ascend (modulo 2^16). `None` also when there are none.
pub fn write_nack(out: &mut [u8], sender: Ssrc, media: Ssrc, seqs: impl IntoIterator<Item = u16>) -> Option<usize> {
    let mut put = Put::new(out);
    put_feedback(&mut put, FMT_NACK, PT_TRANSPORT_FEEDBACK, sender, media)?;
    let mut seqs = seqs.into_iter();
    let mut pair = NackPair { pid: seqs.next()?, blp: 0 };
    for seq in seqs {
        match seq.wrapping_sub(pair.pid) {
            0 => {}
            offset @ 1..=16 => pair.blp |= 1 << (offset - 1),
            _ => {
                put.u16(pair.pid)?;
                put.u16(pair.blp)?;
                pair = NackPair { pid: seq, blp: 0 };
            }
        }
    }
    put.u16(pair.pid)?;
    put.u16(pair.blp)?;
    finish(put)
}

/// Writes a picture loss indication.
pub fn write_pli(out: &mut [u8], sender: Ssrc, media: Ssrc) -> Option<usize> {
    let mut put = Put::new(out);
    put_feedback(&mut put, FMT_PLI, PT_PAYLOAD_FEEDBACK, sender, media)?;
    finish(put)
}

/// Writes a full intra request.
pub fn write_fir(out: &mut [u8], sender: Ssrc, entries: &[FirEntry]) -> Option<usize> {
    let mut put = Put::new(out);
    // RFC 5104 §4.3.1.2: "The 'SSRC of media source' is not used and SHALL be set to 0."
    put_feedback(&mut put, FMT_FIR, PT_PAYLOAD_FEEDBACK, sender, Ssrc(0))?;
    for entry in entries {
        put.u32(entry.ssrc.0)?;
        put.u8(entry.seq_nr)?;
        put.u24(0)?;
    }
    finish(put)
}

/// Writes an estimate for up to 255 streams, rounded down to what 18 bits of mantissa can say.
pub fn write_remb(out: &mut [u8], sender: Ssrc, bitrate_bps: u64, ssrcs: &[Ssrc]) -> Option<usize> {
    let mut put = Put::new(out);
    // draft-alvestrand-rmcat-remb §2.2: "SSRC of media source: Always 0".
    put_feedback(&mut put, FMT_AFB, PT_PAYLOAD_FEEDBACK, sender, Ssrc(0))?;
    put.bytes(b"REMB")?;
    put.u8(u8::try_from(ssrcs.len()).ok()?)?;
    let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
    put.u24(exponent << 18 | (bitrate_bps >> exponent) as u32)?;
    ssrcs.iter().try_for_each(|ssrc| put.u32(ssrc.0))?;
    finish(put)
}

/// Writes the header of a feedback message and its two parties.
pub(super) fn put_feedback(put: &mut Put<'_>, fmt: u8, pt: u8, sender: Ssrc, media: Ssrc) -> Option<()> {
    put_header(put, fmt, pt)?;
    put.u32(sender.0)?;
    put.u32(media.0)
}

/// Sender and media ssrc of a feedback message.
pub(super) fn parties(body: &[u8]) -> Result<(Ssrc, Ssrc), ParseError> {
    match (u32_at(body, 0), u32_at(body, 4)) {
        (Some(sender), Some(media)) => Ok((Ssrc(sender), Ssrc(media))),
        _ => Err(ParseError::Truncated),
    }
}
