//! RTP packets (RFC 3550 §5.1): a header that is read before decryption, a view of the plain packet, a header writer.
//!
//! Promises: `parse` proves every bound once, the accessors of a view cannot fail.
//! Forbids: header extension contents (`rtp_ext`), payload formats (`payload`).

use std::ops::Range;

use super::ParseError;
use super::be::{Put, u16_at, u32_at};
use crate::base::ids::Ssrc;

/// The fixed part of every RTP header, in bytes.
pub const FIXED_HEADER_BYTES: usize = 12;

/// RFC 3550 §5.1: the CC field has four bits.
pub const CSRCS_MAX: usize = 15;

/// The fields a sender chooses for each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The M bit; its meaning is the payload format's.
    pub marker: bool,
    /// Payload type, 7 bits.
    pub pt: u8,
    /// Sequence number.
    pub seq: u16,
    /// Media time in units of the format's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: Ssrc,
}

impl Fixed {
    /// The fixed part of a header without CSRCs; `has_ext`: an extension follows.
    pub const fn to_bytes(&self, has_ext: bool) -> [u8; FIXED_HEADER_BYTES] {
        let [seq_high, seq_low] = self.seq.to_be_bytes();
        let [time_0, time_1, time_2, time_3] = self.timestamp.to_be_bytes();
        let [ssrc_0, ssrc_1, ssrc_2, ssrc_3] = self.ssrc.0.to_be_bytes();
        let (flags, kind) = (0x80 | (has_ext as u8) << 4, (self.marker as u8) << 7 | self.pt & 0x7f);
        [flags, kind, seq_high, seq_low, time_0, time_1, time_2, time_3, ssrc_0, ssrc_1, ssrc_2, ssrc_3]
    }
}

/// What the header of a packet says. It lies in the clear in SRTP too, so it is read before `unprotect`; the length of
/// the padding does not (see [`padding_len`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// The M bit; its meaning is the payload format's.
    pub marker: bool,
    /// Payload type, 7 bits.
    pub pt: u8,
    /// Sequence number.
    pub seq: u16,
    /// Media time in units of the format's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// The P bit: the payload ends with padding.
    pub has_padding: bool,
    /// Number of contributing sources, at most [`CSRCS_MAX`].
    pub csrc_count: u8,
    /// "Defined by profile" field of the header extension; `None` when the X bit is clear.
    pub ext_profile: Option<u16>,
    header_len: usize,
}

impl RtpHeader {
    /// Reads the header at the start of `packet`. [`ParseError::Truncated`] when CSRCs or the extension run over the
    /// end, [`ParseError::Malformed`] when the version is not 2.
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let fixed: &[u8; FIXED_HEADER_BYTES] = packet.first_chunk().ok_or(ParseError::Truncated)?;
        // RFC 3550 §5.1: "The version defined by this specification is two (2)."
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Malformed);
        }
        let csrc_count = fixed[0] & 0x0f;
        let csrc_end = FIXED_HEADER_BYTES + 4 * usize::from(csrc_count);
        let (ext_profile, header_len) = if fixed[0] & 0x10 == 0 {
            (None, csrc_end)
        } else {
            let profile = u16_at(packet, csrc_end).ok_or(ParseError::Truncated)?;
            // RFC 3550 §5.3.1: the length counts 32-bit words and excludes the four-octet extension header.
            let words = u16_at(packet, csrc_end + 2).ok_or(ParseError::Truncated)?;
            (Some(profile), csrc_end + 4 + 4 * usize::from(words))
        };
        if header_len > packet.len() {
            return Err(ParseError::Truncated);
        }
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            pt: fixed[1] & 0x7f,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            has_padding: fixed[0] & 0x20 != 0,
            csrc_count,
            ext_profile,
            header_len,
        })
    }

    /// Length in bytes of header, CSRCs and extension: where the payload begins.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Where the CSRC list lies in the packet.
    pub fn csrc_range(&self) -> Range<usize> {
        FIXED_HEADER_BYTES..FIXED_HEADER_BYTES + 4 * usize::from(self.csrc_count)
    }

    /// Where the extension elements lie in the packet, without the four-byte extension header; empty without one.
    pub fn ext_range(&self) -> Range<usize> {
        match self.ext_profile {
            Some(_) => self.csrc_range().end + 4..self.header_len,
            None => self.header_len..self.header_len,
        }
    }

    /// The fields a sender chooses.
    pub fn fixed(&self) -> Fixed {
        let Self { marker, pt, seq, timestamp, ssrc, .. } = *self;
        Fixed { marker, pt, seq, timestamp, ssrc }
    }
}

/// How many bytes at the end of a *plain* packet are padding. `header` must be the packet's own.
pub fn padding_len(packet: &[u8], header: &RtpHeader) -> Result<usize, ParseError> {
    if !header.has_padding {
        return Ok(0);
    }
    let body = packet.get(header.header_len..).ok_or(ParseError::Truncated)?;
    // RFC 3550 §5.1: the last octet of the padding counts the padding octets "including itself".
    match body.last() {
        Some(&count) if count > 0 && usize::from(count) <= body.len() => Ok(usize::from(count)),
        _ => Err(ParseError::Malformed),
    }
}

/// A plain RTP packet whose bounds are all proven.
#[derive(Clone, Copy, Debug)]
pub struct RtpView<'a> {
    packet: &'a [u8],
    header: RtpHeader,
    padding_len: usize,
}

impl<'a> RtpView<'a> {
    /// Reads header and padding of a plain packet. Errors as [`RtpHeader::parse`] and [`padding_len`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        let header = RtpHeader::parse(packet)?;
        let padding_len = padding_len(packet, &header)?;
        Ok(Self { packet, header, padding_len })
    }

    /// The whole header as a value.
    pub fn header(&self) -> &RtpHeader {
        &self.header
    }

    /// The M bit.
    pub fn marker(&self) -> bool {
        self.header.marker
    }

    /// Payload type.
    pub fn pt(&self) -> u8 {
        self.header.pt
    }

    /// Sequence number.
    pub fn seq(&self) -> u16 {
        self.header.seq
    }

    /// Media time in units of the format's clock.
    pub fn timestamp(&self) -> u32 {
        self.header.timestamp
    }

    /// Synchronisation source.
    pub fn ssrc(&self) -> Ssrc {
        self.header.ssrc
    }

    /// Contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.csrc_bytes().chunks_exact(4).filter_map(|csrc| u32_at(csrc, 0).map(Ssrc))
    }

    /// The CSRC list as it stands in the packet; [`write_header`] takes it like this.
    pub fn csrc_bytes(&self) -> &'a [u8] {
        &self.packet[self.header.csrc_range()]
    }

    /// "Defined by profile" field and elements of the header extension, for `rtp_ext::elements`.
    pub fn ext(&self) -> Option<(u16, &'a [u8])> {
        Some((self.header.ext_profile?, &self.packet[self.header.ext_range()]))
    }

    /// Length in bytes of header, CSRCs and extension.
    pub fn header_len(&self) -> usize {
        self.header.header_len
    }

    /// The payload without padding.
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.payload_range()]
    }

    /// Where the payload lies in the packet, without padding.
    pub fn payload_range(&self) -> Range<usize> {
        self.header.header_len..self.packet.len() - self.padding_len
    }

    /// Bytes of padding at the end, 0 without the P bit.
    pub fn padding_len(&self) -> usize {
        self.padding_len
    }
}

/// Writes an RTP header without the P bit and returns its length. `csrcs` is a list of 32-bit words in network order
/// (see [`RtpView::csrc_bytes`]), `ext` the profile and the padded elements that `rtp_ext::ExtWriter` made. `None`
/// when `out` is too short, or a list is no whole number of words or longer than its length field can say.
pub fn write_header(out: &mut [u8], fixed: &Fixed, csrcs: &[u8], ext: Option<(u16, &[u8])>) -> Option<usize> {
    if !csrcs.len().is_multiple_of(4) || csrcs.len() / 4 > CSRCS_MAX {
        return None;
    }
    let mut head = fixed.to_bytes(ext.is_some());
    head[0] |= (csrcs.len() / 4) as u8;
    let mut put = Put::new(out);
    put.bytes(&head)?;
    put.bytes(csrcs)?;
    if let Some((profile, block)) = ext {
        if !block.len().is_multiple_of(4) {
            return None;
        }
        put.u16(profile)?;
        put.u16(u16::try_from(block.len() / 4).ok()?)?;
        put.bytes(block)?;
    }
    Some(put.len())
}

/// Pads the plain packet in `out[..len]` by `padding` bytes, sets the P bit and returns the new length. `padding` 0
/// changes nothing; `None` when it does not fit.
pub fn write_padding(out: &mut [u8], len: usize, padding: u8) -> Option<usize> {
    let Some(zeros) = usize::from(padding).checked_sub(1) else { return Some(len) };
    let last = len.checked_add(zeros)?;
    *out.get_mut(last)? = padding;
    out.get_mut(len..last)?.fill(0);
    *out.first_mut()? |= 0x20;
    Some(last + 1)
}

/// Fuzz body: any bytes as an RTP packet, every accessor and every extension element.
#[doc(hidden)]
pub fn fuzz_rtp(bytes: &[u8]) {
    let Ok(view) = RtpView::parse(bytes) else { return };
    let sum = view.header_len() + view.payload().len() + view.padding_len();
    assert_eq!(sum, bytes.len(), "the parts are the packet");
    assert_eq!(view.csrcs().count(), usize::from(view.header().csrc_count));
    if let Some((profile, block)) = view.ext() {
        let values: usize = super::rtp_ext::elements(profile, block).map(|(_, value)| value.len()).sum();
        assert!(values <= block.len(), "elements lie in their block");
    }
    let mut again = [0; 512];
    if let Some(len) = write_header(&mut again, &view.header().fixed(), view.csrc_bytes(), view.ext()) {
        again[0] |= bytes[0] & 0x20;
        assert_eq!(again[..len], bytes[..len], "a header is written as it was read");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc_shared::marshal::{Marshal, Unmarshal};

    use super::*;
    use crate::wire::be::hostile::Mutator;

    const FIXED: Fixed = Fixed { marker: true, pt: 96, seq: 0xfffe, timestamp: 0xdead_beef, ssrc: Ssrc(0x1234_5678) };

    fn packet(csrcs: &[u8], ext: Option<(u16, &[u8])>, payload: &[u8], padding: u8) -> Vec<u8> {
        let mut out = vec![0xaa; 1500];
        let header = write_header(&mut out, &FIXED, csrcs, ext).expect("room");
        out[header..header + payload.len()].copy_from_slice(payload);
        let len = write_padding(&mut out, header + payload.len(), padding).expect("room");
        out.truncate(len);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = packet(&[1, 2, 3, 4, 5, 6, 7, 8], Some((0xbede, &[0x10, 7, 0, 0])), b"media", 3);
        let view = RtpView::parse(&bytes).expect("valid");
        assert_eq!(view.header().fixed(), FIXED);
        assert_eq!(view.csrcs().collect::<Vec<_>>(), [Ssrc(0x0102_0304), Ssrc(0x0506_0708)]);
        assert_eq!(view.ext(), Some((0xbede, &[0x10, 7, 0, 0][..])));
        assert_eq!((view.header_len(), view.payload(), view.padding_len()), (28, &b"media"[..], 3));
    }

    #[test]
    fn a_packet_may_be_padding_only() {
        let bytes = packet(&[], None, b"", 255);
        let view = RtpView::parse(&bytes).expect("valid");
        assert_eq!((view.payload().len(), view.padding_len()), (0, 255));
    }

    #[test]
    fn bad_padding_is_malformed_only_once_it_is_plain() {
        for count in [0, 7] {
            let mut bytes = packet(&[], None, b"media", 1);
            *bytes.last_mut().expect("bytes") = count;
            assert!(RtpHeader::parse(&bytes).expect("header").has_padding);
            assert_eq!(RtpView::parse(&bytes).err(), Some(ParseError::Malformed));
        }
        let mut bytes = packet(&[], None, b"", 0);
        bytes[0] |= 0x20;
        assert_eq!(RtpView::parse(&bytes).err(), Some(ParseError::Malformed));
    }

    #[test]
    fn every_truncation_of_a_header_is_noticed() {
        let bytes = packet(&[0; 60], Some((0x1000, &[1, 1, 7, 0])), b"", 0);
        for len in 0..bytes.len() {
            assert_eq!(RtpHeader::parse(&bytes[..len]), Err(ParseError::Truncated), "{len}");
        }
        assert!(RtpView::parse(&bytes).is_ok());
    }

    #[test]
    fn another_version_is_malformed() {
        let mut bytes = packet(&[], None, b"", 0);
        bytes[0] = 0x40;
        assert_eq!(RtpHeader::parse(&bytes), Err(ParseError::Malformed));
    }

    #[test]
    fn the_packet_that_panics_other_stacks_is_read() {
        // A two-byte element that claims more than the packet has.
        let hex = "9060000100000001cafebabe10000003125102033100074030508000";
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        let view = RtpView::parse(&bytes).expect("framing is valid");
        let (profile, block) = view.ext().expect("extension");
        assert_eq!(crate::wire::rtp_ext::elements(profile, block).count(), 0);
    }

    #[test]
    fn a_list_that_is_no_whole_number_of_words_is_not_written() {
        let mut out = [0; 200];
        assert_eq!(write_header(&mut out, &FIXED, &[0; 6], None), None);
        assert_eq!(write_header(&mut out, &FIXED, &[0; 64], None), None);
        assert_eq!(write_header(&mut out, &FIXED, &[], Some((0xbede, &[0; 3]))), None);
        assert_eq!(write_header(&mut out[..11], &FIXED, &[], None), None);
    }

    #[test]
    fn mutated_packets_never_panic() {
        let seeds = [
            packet(&[9; 8], Some((0xbede, &[0x12, 1, 2, 3, 0x30, 7, 0, 0])), b"payload", 4),
            packet(&[], Some((0x1000, &[1, 2, 1, 2, 200, 0, 0, 0])), b"payload", 0),
            packet(&[], None, b"payload", 0),
        ];
        let mut mutator = Mutator::new(0x7274_7001);
        for _ in 0..200_000 {
            fuzz_rtp(&mutator.next(&seeds));
        }
    }

    proptest! {
        #[test]
        fn another_implementation_reads_and_writes_the_same(
            marker: bool, pt in 0u8..128, seq: u16, timestamp: u32, ssrc: u32,
            csrcs in proptest::collection::vec(any::<u32>(), 0..=15),
            ext in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..16)),
            payload in proptest::collection::vec(any::<u8>(), 1..64),
            padding in 0u8..8,
        ) {
            let fixed = Fixed { marker, pt, seq, timestamp, ssrc: Ssrc(ssrc) };
            let csrc_bytes: Vec<u8> = csrcs.iter().flat_map(|csrc| csrc.to_be_bytes()).collect();
            let mut elements = [0; 64];
            let block = ext.as_ref().map(|value| {
                let mut writer = crate::wire::rtp_ext::ExtWriter::one_byte(&mut elements);
                assert!(writer.push(3, value));
                writer.finish()
            });
            let mut out = vec![0; 300];
            let header = write_header(
                &mut out, &fixed, &csrc_bytes, block.map(|(profile, len)| (profile, &elements[..len])),
            ).expect("room");
            out[header..header + payload.len()].copy_from_slice(&payload);
            let len = write_padding(&mut out, header + payload.len(), padding).expect("room");
            out.truncate(len);

            let theirs = rtc_rtp::packet::Packet::unmarshal(&mut &out[..]).expect("their parser takes it");
            prop_assert_eq!(theirs.header.marker, marker);
            prop_assert_eq!(theirs.header.payload_type, pt);
            prop_assert_eq!(theirs.header.sequence_number, seq);
            prop_assert_eq!(theirs.header.timestamp, timestamp);
            prop_assert_eq!(theirs.header.ssrc, ssrc);
            prop_assert_eq!(&theirs.header.csrc, &csrcs);
            prop_assert_eq!(&theirs.payload[..], &payload[..]);
            prop_assert_eq!(theirs.header.extensions.first().map(|found| found.payload.to_vec()), ext.clone());

            let header_bytes = theirs.header.marshal().expect("their writer");
            let mut expected = out[..header].to_vec();
            expected[0] |= u8::from(padding > 0) << 5;
            prop_assert_eq!(&header_bytes[..], &expected[..]);
            let ours = RtpView::parse(&out).expect("our parser takes it");
            prop_assert_eq!(ours.payload(), &payload[..]);
        }
    }
}
