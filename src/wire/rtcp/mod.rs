//! RTCP (RFC 3550 §6, RFC 3611, RFC 4585, RFC 5104): a compound packet as an iterator of views, and writers into a slice.
//!
//! Promises: nothing is allocated; a view's bounds are proven when it is made. Writers return the bytes written, `None`
//! when the slice is too short, so that a compound is one writer after another.
//! Forbids: clocks. NTP timestamps are handed in as 32.32 fixed point.

mod feedback;
mod report;
mod source;
mod twcc;
mod xr;

pub use feedback::{Fir, FirEntry, Nack, NackPair, Pli, Remb, write_fir, write_nack, write_pli, write_remb};
pub use report::{
    REPORT_BLOCK_BYTES, REPORT_BLOCKS_MAX, ReceiverReport, ReportBlock, SenderInfo, SenderReport,
    write_receiver_report, write_sender_report,
};
pub use source::{Bye, Sdes, SdesChunk, write_bye, write_sdes_cname};
pub use twcc::{TWCC_DELTA_US, TWCC_REFERENCE_US, TwccFeedback, TwccHeader, TwccPackets, write_twcc};
pub use xr::{Delay, Delays, ExtendedReport, XrBlock, write_extended_report};

use super::ParseError;
use super::be::{Put, u16_at};

const PT_SENDER_REPORT: u8 = 200;
const PT_RECEIVER_REPORT: u8 = 201;
const PT_SDES: u8 = 202;
const PT_BYE: u8 = 203;
const PT_TRANSPORT_FEEDBACK: u8 = 205;
const PT_PAYLOAD_FEEDBACK: u8 = 206;
const PT_EXTENDED_REPORT: u8 = 207;
const HEADER_BYTES: usize = 4;

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpView<'a> {
    /// RFC 3550 §6.4.1.
    SenderReport(SenderReport<'a>),
    /// RFC 3550 §6.4.2.
    ReceiverReport(ReceiverReport<'a>),
    /// RFC 3550 §6.5.
    Sdes(Sdes<'a>),
    /// RFC 3550 §6.6.
    Bye(Bye<'a>),
    /// RFC 4585 §6.2.1.
    Nack(Nack<'a>),
    /// Transport-wide congestion control feedback.
    Twcc(TwccFeedback<'a>),
    /// RFC 4585 §6.3.1.
    Pli(Pli),
    /// RFC 5104 §4.3.1.
    Fir(Fir<'a>),
    /// draft-alvestrand-rmcat-remb.
    Remb(Remb<'a>),
    /// RFC 3611.
    ExtendedReport(ExtendedReport<'a>),
    /// Something we have no use for: APP, other feedback.
    Unknown {
        /// Packet type.
        pt: u8,
        /// The five bits beside it: count or feedback message type.
        fmt: u8,
    },
}

/// The packets of a compound, or of a reduced-size one (RFC 5506: any type may come first).
///
/// A packet whose inside is wrong yields an error and the next one is read; where the framing is wrong, the error is
/// the last item.
pub fn packets(bytes: &[u8]) -> Packets<'_> {
    Packets { rest: bytes }
}

/// Iterator of [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<RtcpView<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Frame::split(self.rest) {
            Ok((frame, rest)) => {
                self.rest = rest;
                Some(frame.parse())
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// One packet's common header and its body without padding.
struct Frame<'a> {
    pt: u8,
    /// Report count, source count or feedback message type.
    fmt: u8,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The validity checks of RFC 3550 §A.2 for the packet at the start of `bytes`.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let &[first, pt, ..] = bytes else { return Err(ParseError::Truncated) };
        let words = u16_at(bytes, 2).ok_or(ParseError::Truncated)?;
        if first >> 6 != 2 {
            return Err(ParseError::Malformed);
        }
        // RFC 3550 §6.4.1: the length is "in 32-bit words minus one, including the header and any padding".
        let end = HEADER_BYTES + 4 * usize::from(words);
        let (packet, rest) = bytes.split_at_checked(end).ok_or(ParseError::Truncated)?;
        let mut body = packet.get(HEADER_BYTES..).unwrap_or(&[]);
        // RFC 3550 §A.2 says that padding "should only be applied" to the last packet; libwebrtc pads transport-wide
        // feedback by 1 to 3 bytes wherever it stands, so padding is taken anywhere.
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last().ok_or(ParseError::Malformed)?);
            let plain = body.len().checked_sub(padding).filter(|_| padding > 0).ok_or(ParseError::Malformed)?;
            body = body.get(..plain).unwrap_or(&[]);
        }
        Ok((Self { pt, fmt: first & 0x1f, body }, rest))
    }

    fn parse(&self) -> Result<RtcpView<'a>, ParseError> {
        let Self { pt, fmt, body } = *self;
        match (pt, fmt) {
            (PT_SENDER_REPORT, count) => SenderReport::parse(body, count).map(RtcpView::SenderReport),
            (PT_RECEIVER_REPORT, count) => ReceiverReport::parse(body, count).map(RtcpView::ReceiverReport),
            (PT_SDES, _) => Ok(RtcpView::Sdes(Sdes::new(body))),
            (PT_BYE, count) => Bye::parse(body, count).map(RtcpView::Bye),
            (PT_TRANSPORT_FEEDBACK, feedback::FMT_NACK) => Nack::parse(body).map(RtcpView::Nack),
            (PT_TRANSPORT_FEEDBACK, twcc::FMT_TWCC) => TwccFeedback::parse(body).map(RtcpView::Twcc),
            (PT_PAYLOAD_FEEDBACK, feedback::FMT_PLI) => Pli::parse(body).map(RtcpView::Pli),
            (PT_PAYLOAD_FEEDBACK, feedback::FMT_FIR) => Fir::parse(body).map(RtcpView::Fir),
            (PT_PAYLOAD_FEEDBACK, feedback::FMT_AFB) if Remb::is_remb(body) => Remb::parse(body).map(RtcpView::Remb),
            (PT_EXTENDED_REPORT, _) => ExtendedReport::parse(body).map(RtcpView::ExtendedReport),
            _ => Ok(RtcpView::Unknown { pt, fmt }),
        }
    }
}

/// The middle 32 bits of an NTP timestamp: 16.16 fixed point, as LSR has it (RFC 3550 §6.4.1).
pub const fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Writes the common header, its length still 0.
fn put_header(put: &mut Put<'_>, fmt: u8, pt: u8) -> Option<()> {
    put.u8(0x80 | fmt & 0x1f)?;
    put.u8(pt)?;
    put.u16(0)
}

/// Writes the length of the packet that `put` holds; its size is a whole number of words.
fn finish(mut put: Put<'_>) -> Option<usize> {
    let words = u16::try_from(put.len() / 4 - 1).ok()?;
    put.patch(2, &words.to_be_bytes())?;
    Some(put.len())
}

fn block_items(block: XrBlock<'_>) -> usize {
    match block {
        XrBlock::ReferenceTime(_) => 1,
        XrBlock::Delays(delays) => delays.iter().count(),
    }
}

/// Fuzz body: any bytes as a compound, every view to its end.
#[doc(hidden)]
pub fn fuzz_rtcp(bytes: &[u8]) {
    for packet in packets(bytes).flatten() {
        let items = match packet {
            RtcpView::SenderReport(report) => report.blocks().count(),
            RtcpView::ReceiverReport(report) => report.blocks().count(),
            RtcpView::Sdes(sdes) => sdes.chunks().filter(|chunk| chunk.cname.is_some()).count(),
            RtcpView::Bye(bye) => bye.ssrcs().count(),
            RtcpView::Nack(nack) => nack.seqs().count() / 17,
            RtcpView::Fir(fir) => fir.entries().count(),
            RtcpView::Remb(remb) => remb.ssrcs().count().min(remb.bitrate_bps as usize),
            RtcpView::Twcc(feedback) => {
                assert_eq!(feedback.packets().count(), usize::from(feedback.header.status_count));
                let reference = feedback.header.reference_after(1 << 24);
                assert_eq!(feedback.arrivals(reference).count(), usize::from(feedback.header.status_count));
                0
            }
            RtcpView::ExtendedReport(report) => report.blocks().map(block_items).sum(),
            RtcpView::Pli(_) | RtcpView::Unknown { .. } => 0,
        };
        assert!(items <= bytes.len() / 4, "items lie in the packet");
    }
}

#[cfg(test)]
mod tests;
