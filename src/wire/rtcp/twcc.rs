//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use super::super::ParseError;
use super::super::be::{Put, u16_at, u24_at};
use super::PT_TRANSPORT_FEEDBACK;
use super::feedback::{parties, put_feedback};
use crate::base::ids::Ssrc;

pub(super) const FMT_TWCC: u8 = 15;

/// Unit of receive deltas.
pub const TWCC_DELTA_US: u64 = 250;

/// Unit of the reference time.
pub const TWCC_REFERENCE_US: u64 = 64_000;

const CHUNKS_OFFSET: usize = 16;
const RUN_LENGTH_MAX: usize = 0x1fff;
const ONE_BIT_SYMBOLS: usize = 14;
const TWO_BIT_SYMBOLS: usize = 7;

const NOT_RECEIVED: u16 = 0;
const SMALL_DELTA: u16 = 1;
const LARGE_DELTA: u16 = 2;

/// Values of the reference time before it wraps: 24 bits, 12 days.
const REFERENCE_WRAP: i64 = 1 << 24;

/// The fixed fields of a feedback packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwccHeader {
    /// Who reports.
    pub sender: Ssrc,
    /// A stream of the reported transport; which one has no meaning.
    pub media: Ssrc,
    /// Transport-wide sequence number of the first packet reported on.
    pub base_seq: u16,
    /// Number of packets reported on, received or not.
    pub status_count: u16,
    /// When the first delta begins, in units of [`TWCC_REFERENCE_US`]; 24 bits, wrapping, the reporter's own clock.
    pub reference_time: u32,
    /// Counts feedback packets, so that a lost one is noticed.
    pub feedback_count: u8,
}

impl TwccHeader {
    /// The reference time without its wrap: of the values it may stand for, the one nearest to `previous`.
    pub fn reference_after(&self, previous: i64) -> i64 {
        let step = (i64::from(self.reference_time) - previous).rem_euclid(REFERENCE_WRAP);
        let backwards = if step >= REFERENCE_WRAP / 2 { REFERENCE_WRAP } else { 0 };
        previous + step - backwards
    }
}

/// A feedback packet.
#[derive(Clone, Copy, Debug)]
pub struct TwccFeedback<'a> {
    /// The fixed fields.
    pub header: TwccHeader,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TwccFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender, media) = parties(body)?;
        let header = (|| {
            Some(TwccHeader {
                sender,
                media,
                base_seq: u16_at(body, 8)?,
                status_count: u16_at(body, 10)?,
                reference_time: u24_at(body, 12)?,
                feedback_count: *body.get(15)?,
            })
        })();
        let header = header.ok_or(ParseError::Truncated)?;
        let rest = body.get(CHUNKS_OFFSET..).unwrap_or(&[]);
        let (chunks_len, deltas_len) = measure(rest, usize::from(header.status_count))?;
        let (chunks, rest) = rest.split_at_checked(chunks_len).ok_or(ParseError::Truncated)?;
        let deltas = rest.get(..deltas_len).ok_or(ParseError::Truncated)?;
        Ok(Self { header, chunks, deltas })
    }

    /// Each packet reported on: its transport-wide sequence number and, if it was received, the time since the one
    /// received before it (or since the reference time) in units of [`TWCC_DELTA_US`].
    pub fn packets(&self) -> TwccPackets<'a> {
        TwccPackets {
            seq: self.header.base_seq,
            left: self.header.status_count,
            chunk: Chunk::EMPTY,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }

    /// Each packet reported on, with its arrival in microseconds of the reporter's clock if it was received. `reference`
    /// is the reference time without its wrap ([`TwccHeader::reference_after`]); below 2^40 nothing here overflows.
    pub fn arrivals(&self, reference: i64) -> impl Iterator<Item = (u16, Option<i64>)> + use<'a> {
        // 65,535 deltas of 16 bits are 9 minutes at most.
        let mut at_us = reference.saturating_mul(TWCC_REFERENCE_US as i64);
        self.packets().map(move |(seq, delta)| {
            let arrival = delta.map(|delta| {
                at_us = at_us.saturating_add(i64::from(delta) * TWCC_DELTA_US as i64);
                at_us
            });
            (seq, arrival)
        })
    }
}

/// Iterator of [`TwccFeedback::packets`].
#[derive(Clone, Debug)]
pub struct TwccPackets<'a> {
    seq: u16,
    left: u16,
    chunk: Chunk,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for TwccPackets<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.chunk.left == 0 {
            self.chunk = Chunk::new(u16_at(self.chunks, 0)?);
            self.chunks = self.chunks.get(2..).unwrap_or(&[]);
        }
        let delta = match self.chunk.next_symbol() {
            SMALL_DELTA => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i16::from(delta))
            }
            LARGE_DELTA => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i16::from_be_bytes(*delta))
            }
            _ => None,
        };
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        Some((seq, delta))
    }
}

/// A packet status chunk and how many of its symbols are still to be read.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    bits: u16,
    left: u16,
}

impl Chunk {
    const EMPTY: Self = Self { bits: 0, left: 0 };

    fn new(bits: u16) -> Self {
        // §3.1.3 run length chunk: T=0, S, 13 bits of length. §3.1.4 status vector chunk: T=1, S, 14 or 7 symbols.
        let left = match bits >> 14 {
            0b10 => ONE_BIT_SYMBOLS as u16,
            0b11 => TWO_BIT_SYMBOLS as u16,
            _ => bits & RUN_LENGTH_MAX as u16,
        };
        Self { bits, left }
    }

    /// The next symbol; `left` must not be 0.
    fn next_symbol(&mut self) -> u16 {
        self.left = self.left.saturating_sub(1);
        match self.bits >> 14 {
            0b10 => self.bits >> self.left & 1,
            0b11 => self.bits >> (2 * self.left) & 3,
            _ => self.run_symbol(),
        }
    }

    fn is_run(self) -> bool {
        self.bits >> 15 == 0
    }

    fn run_symbol(self) -> u16 {
        self.bits >> 13 & 3
    }
}

/// Lengths in bytes of the chunks and of the deltas that `status_count` packets take.
fn measure(bytes: &[u8], status_count: usize) -> Result<(usize, usize), ParseError> {
    // A report on nothing has no meaning; libwebrtc drops it too.
    if status_count == 0 {
        return Err(ParseError::Malformed);
    }
    let (mut at, mut deltas, mut left) = (0, 0, status_count);
    while left > 0 {
        let mut chunk = Chunk::new(u16_at(bytes, at).ok_or(ParseError::Truncated)?);
        at += 2;
        let symbols = left.min(usize::from(chunk.left));
        left -= symbols;
        if chunk.is_run() {
            deltas += symbols * delta_len(chunk.run_symbol())?;
        } else {
            for _ in 0..symbols {
                deltas += delta_len(chunk.next_symbol())?;
            }
        }
    }
    Ok((at, deltas))
}

fn delta_len(symbol: u16) -> Result<usize, ParseError> {
    match symbol {
        NOT_RECEIVED => Ok(0),
        SMALL_DELTA => Ok(1),
        LARGE_DELTA => Ok(2),
        // §3.1.1: symbol 3 is reserved.
        _ => Err(ParseError::Malformed),
    }
}

/// Writes a feedback packet. `statuses` are the packets from `header.base_seq` on, as [`TwccFeedback::packets`] has
/// them; `header.status_count` is not read. `None` also when there are none, or more than the packet can count.
///
/// The packet may end with padding: put it last in a compound.
pub fn write_twcc(out: &mut [u8], header: &TwccHeader, statuses: &[Option<i16>]) -> Option<usize> {
    let count = u16::try_from(statuses.len()).ok().filter(|&count| count > 0)?;
    let mut put = Put::new(out);
    put_feedback(&mut put, FMT_TWCC, PT_TRANSPORT_FEEDBACK, header.sender, header.media)?;
    put.u16(header.base_seq)?;
    put.u16(count)?;
    put.u24(header.reference_time & 0x00ff_ffff)?;
    put.u8(header.feedback_count)?;
    let mut rest = statuses;
    while !rest.is_empty() {
        let (chunk, len) = encode_chunk(rest);
        put.u16(chunk)?;
        rest = rest.get(len..).unwrap_or(&[]);
    }
    for &delta in statuses.iter().flatten() {
        match u8::try_from(delta) {
            Ok(small) => put.u8(small)?,
            Err(_) => put.bytes(&delta.to_be_bytes())?,
        }
    }
    // As libwebrtc does: padding with the P bit, its last byte counting it.
    let padding = put.len().next_multiple_of(4) - put.len();
    for left in (0..padding).rev() {
        put.u8(if left == 0 { padding as u8 } else { 0 })?;
    }
    if padding > 0 {
        put.patch(0, &[0x80 | 0x20 | FMT_TWCC])?;
    }
    super::finish(put)
}

/// The chunk for the beginning of `statuses`, which is not empty, and how many it covers.
fn encode_chunk(statuses: &[Option<i16>]) -> (u16, usize) {
    let first = statuses.first().map_or(NOT_RECEIVED, |status| symbol(*status));
    let run = statuses.iter().take(RUN_LENGTH_MAX).take_while(|status| symbol(**status) == first).count();
    let one_bit = statuses.get(..ONE_BIT_SYMBOLS.min(statuses.len())).unwrap_or(&[]);
    if run >= one_bit.len() {
        return (first << 13 | run as u16, run);
    }
    if one_bit.iter().all(|status| symbol(*status) != LARGE_DELTA) {
        let bits = (0..).zip(one_bit).fold(0, |bits, (at, status)| bits | symbol(*status) << (13 - at));
        return (0b10 << 14 | bits, one_bit.len());
    }
    let two_bit = statuses.get(..TWO_BIT_SYMBOLS.min(statuses.len())).unwrap_or(&[]);
    if run >= two_bit.len() {
        return (first << 13 | run as u16, run);
    }
    let bits = (0..).zip(two_bit).fold(0, |bits, (at, status)| bits | symbol(*status) << (12 - 2 * at));
    (0b11 << 14 | bits, two_bit.len())
}

fn symbol(status: Option<i16>) -> u16 {
    match status {
        None => NOT_RECEIVED,
        Some(0..=255) => SMALL_DELTA,
        Some(_) => LARGE_DELTA,
    }
}
