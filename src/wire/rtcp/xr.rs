//! Extended reports (RFC 3611): the two blocks by which one who only receives learns the round trip.
//!
//! A receiver names its time (RRTR); the sender says how long ago it heard that (DLRR).

use super::super::ParseError;
use super::super::be::{Put, u16_at, u32_at, u64_at};
use super::{PT_EXTENDED_REPORT, finish, put_header};
use crate::base::ids::Ssrc;

/// Receiver reference time (RFC 3611 §4.4).
const BT_REFERENCE_TIME: u8 = 4;
/// Delay since the last receiver report (RFC 3611 §4.5).
const BT_DLRR: u8 = 5;
/// One DLRR sub-block.
const SUB_BLOCK_BYTES: usize = 12;

/// An extended report.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub sender: Ssrc,
    blocks: &'a [u8],
}

/// A block of an extended report; others are passed over.
#[derive(Clone, Copy, Debug)]
pub enum XrBlock<'a> {
    /// The receiver's time when it sent this, NTP 32.32.
    ReferenceTime(u64),
    /// What a sender answers to such times.
    Delays(Delays<'a>),
}

/// The sub-blocks of a DLRR block.
#[derive(Clone, Copy, Debug)]
pub struct Delays<'a>(&'a [u8]);

/// How long ago a receiver's time was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The receiver.
    pub ssrc: Ssrc,
    /// Middle 32 bits of the time it named, 0 without one.
    pub last_rr: u32,
    /// Since then, in 1/65536 s.
    pub delay: u32,
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let sender = Ssrc(u32_at(body, 0).ok_or(ParseError::Truncated)?);
        Ok(Self { sender, blocks: body.get(4..).unwrap_or(&[]) })
    }

    /// The blocks we know; a truncated one ends the iteration quietly.
    pub fn blocks(&self) -> impl Iterator<Item = XrBlock<'a>> + use<'a> {
        let mut rest = self.blocks;
        let known = std::iter::from_fn(move || {
            // RFC 3611 §3: type, 8 bits of its own, length in words after these four bytes.
            let kind = *rest.first()?;
            let end = 4 + 4 * usize::from(u16_at(rest, 2)?);
            let (block, after) = rest.split_at_checked(end)?;
            rest = after;
            Some(read_block(kind, block.get(4..).unwrap_or(&[])))
        });
        known.flatten()
    }
}

impl<'a> Delays<'a> {
    /// One per receiver.
    pub fn iter(&self) -> impl Iterator<Item = Delay> + use<'a> {
        self.0.chunks_exact(SUB_BLOCK_BYTES).filter_map(|bytes| {
            Some(Delay { ssrc: Ssrc(u32_at(bytes, 0)?), last_rr: u32_at(bytes, 4)?, delay: u32_at(bytes, 8)? })
        })
    }
}

/// RFC 3611 §3: "Block types that are not understood are to be ignored."
fn read_block(kind: u8, body: &[u8]) -> Option<XrBlock<'_>> {
    match kind {
        BT_REFERENCE_TIME => u64_at(body, 0).map(XrBlock::ReferenceTime),
        BT_DLRR => Some(XrBlock::Delays(Delays(body))),
        _ => None,
    }
}

/// Writes an extended report: our reference time where `ntp` is one, and what we answer to those of others. `None` also
/// when there is nothing to say.
pub fn write_extended_report(out: &mut [u8], sender: Ssrc, ntp: Option<u64>, delays: &[Delay]) -> Option<usize> {
    if ntp.is_none() && delays.is_empty() {
        return None;
    }
    let mut put = Put::new(out);
    put_header(&mut put, 0, PT_EXTENDED_REPORT)?;
    put.u32(sender.0)?;
    if let Some(ntp) = ntp {
        put.u8(BT_REFERENCE_TIME)?;
        put.u8(0)?;
        put.u16(2)?;
        put.u64(ntp)?;
    }
    if !delays.is_empty() {
        put.u8(BT_DLRR)?;
        put.u8(0)?;
        put.u16(u16::try_from(delays.len() * SUB_BLOCK_BYTES / 4).ok()?)?;
        for delay in delays {
            put.u32(delay.ssrc.0)?;
            put.u32(delay.last_rr)?;
            put.u32(delay.delay)?;
        }
    }
    finish(put)
}
