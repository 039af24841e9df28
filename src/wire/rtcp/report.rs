//! Sender and receiver reports (RFC 3550 §6.4).

use super::super::ParseError;
use super::super::be::{Put, u24_at, u32_at, u64_at};
use super::{PT_RECEIVER_REPORT, PT_SENDER_REPORT, finish, put_header};
use crate::base::ids::Ssrc;

/// Size of a report block.
pub const REPORT_BLOCK_BYTES: usize = 24;

/// RFC 3550 §6.4.1: the reception report count has five bits.
pub const REPORT_BLOCKS_MAX: usize = 31;

/// What a receiver says about one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: Ssrc,
    /// Share lost since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning, 24 bits signed: duplicates may make it negative.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the last sender report, 0 without one.
    pub lsr: u32,
    /// Delay since that report in 1/65536 s, 0 without one.
    pub dlsr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let loss = u32_at(bytes, 4)?;
        Some(Self {
            ssrc: Ssrc(u32_at(bytes, 0)?),
            fraction_lost: (loss >> 24) as u8,
            // Sign extension of the lower 24 bits.
            cumulative_lost: ((u24_at(bytes, 5)? << 8) as i32) >> 8,
            highest_seq: u32_at(bytes, 8)?,
            jitter: u32_at(bytes, 12)?,
            lsr: u32_at(bytes, 16)?,
            dlsr: u32_at(bytes, 20)?,
        })
    }

    fn put(&self, put: &mut Put<'_>) -> Option<()> {
        put.u32(self.ssrc.0)?;
        put.u8(self.fraction_lost)?;
        // RFC 3550 §A.3: the cumulative number is clamped to 24 bits signed.
        put.u24(self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32)?;
        put.u32(self.highest_seq)?;
        put.u32(self.jitter)?;
        put.u32(self.lsr)?;
        put.u32(self.dlsr)
    }
}

/// What a sender says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: Ssrc,
    /// When this report was sent, NTP 32.32.
    pub ntp: u64,
    /// The same moment in timestamp units of the stream.
    pub rtp_ts: u32,
    /// Packets sent since the beginning, wrapping.
    pub packets: u32,
    /// Payload octets sent since the beginning, wrapping.
    pub octets: u32,
}

/// A sender report.
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// The sender's part.
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        let info = (|| {
            Some(SenderInfo {
                ssrc: Ssrc(u32_at(body, 0)?),
                ntp: u64_at(body, 4)?,
                rtp_ts: u32_at(body, 12)?,
                packets: u32_at(body, 16)?,
                octets: u32_at(body, 20)?,
            })
        })();
        Ok(Self { info: info.ok_or(ParseError::Truncated)?, blocks: block_bytes(body, 24, count)? })
    }

    /// What the sender received from others.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        read_blocks(self.blocks)
    }
}

/// A receiver report.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub sender: Ssrc,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        let sender = Ssrc(u32_at(body, 0).ok_or(ParseError::Truncated)?);
        Ok(Self { sender, blocks: block_bytes(body, 4, count)? })
    }

    /// What was received, per source.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        read_blocks(self.blocks)
    }
}

/// Writes a sender report; `None` also when there are more than [`REPORT_BLOCKS_MAX`] blocks.
pub fn write_sender_report(out: &mut [u8], info: &SenderInfo, blocks: &[ReportBlock]) -> Option<usize> {
    let mut put = Put::new(out);
    put_header(&mut put, block_count(blocks)?, PT_SENDER_REPORT)?;
    put.u32(info.ssrc.0)?;
    put.u64(info.ntp)?;
    put.u32(info.rtp_ts)?;
    put.u32(info.packets)?;
    put.u32(info.octets)?;
    blocks.iter().try_for_each(|block| block.put(&mut put))?;
    finish(put)
}

/// Writes a receiver report; `None` also when there are more than [`REPORT_BLOCKS_MAX`] blocks.
pub fn write_receiver_report(out: &mut [u8], sender: Ssrc, blocks: &[ReportBlock]) -> Option<usize> {
    let mut put = Put::new(out);
    put_header(&mut put, block_count(blocks)?, PT_RECEIVER_REPORT)?;
    put.u32(sender.0)?;
    blocks.iter().try_for_each(|block| block.put(&mut put))?;
    finish(put)
}

fn block_count(blocks: &[ReportBlock]) -> Option<u8> {
    u8::try_from(blocks.len()).ok().filter(|&count| usize::from(count) <= REPORT_BLOCKS_MAX)
}

/// The report blocks from `start`; profile-specific extensions behind them (RFC 3550 §6.4.3) are left out.
fn block_bytes(body: &[u8], start: usize, count: u8) -> Result<&[u8], ParseError> {
    body.get(start..start + usize::from(count) * REPORT_BLOCK_BYTES).ok_or(ParseError::Truncated)
}

fn read_blocks(blocks: &[u8]) -> impl Iterator<Item = ReportBlock> + '_ {
    blocks.chunks_exact(REPORT_BLOCK_BYTES).filter_map(ReportBlock::parse)
}
