//! RTP header extensions (RFC 8285): elements in both forms, a writer for both, and the values we read ourselves.
//!
//! Promises: an element never reaches beyond its block; a truncated one ends the iteration quietly, as the packet's
//! media is still good.
//! Forbids: which id means what; that is negotiated per session.

/// "Defined by profile" value of the one-byte form (RFC 8285 §4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xbede;

/// "Defined by profile" value of the two-byte form with appbits 0 (RFC 8285 §4.3).
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The extensions we know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ext {
    /// SDES MID (RFC 9143 §15.1).
    Mid,
    /// SDES RtpStreamId (RFC 8852).
    Rid,
    /// SDES RepairedRtpStreamId (RFC 8852).
    RepairedRid,
    /// Client-to-mixer audio level (RFC 6464).
    AudioLevel,
    /// Mixer-to-client audio level (RFC 6465).
    CsrcAudioLevel,
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc,
    /// Absolute send time (WebRTC experiment).
    AbsSendTime,
    /// Transmission time offset (RFC 5450).
    TransmissionOffset,
    /// Coordination of video orientation (3GPP TS 26.114 §7.4.5).
    VideoOrientation,
    /// Limits for the playout delay (WebRTC experiment).
    PlayoutDelay,
    /// Camera or screen (WebRTC experiment).
    VideoContentType,
    /// Where a frame spent its time (WebRTC experiment).
    VideoTiming,
    /// Colour space and HDR metadata (WebRTC experiment).
    ColorSpace,
    /// NTP time of capture (WebRTC experiment).
    AbsCaptureTime,
    /// Dependency descriptor (AV1 RTP specification, appendix A).
    DependencyDescriptor,
    /// Video layers allocation (WebRTC experiment).
    VideoLayersAllocation,
}

impl Ext {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 16] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AudioLevel,
        Self::CsrcAudioLevel,
        Self::TransportCc,
        Self::AbsSendTime,
        Self::TransmissionOffset,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::VideoContentType,
        Self::VideoTiming,
        Self::ColorSpace,
        Self::AbsCaptureTime,
        Self::DependencyDescriptor,
        Self::VideoLayersAllocation,
    ];

    /// The URI in `a=extmap`.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::CsrcAudioLevel => "urn:ietf:params:rtp-hdrext:csrc-audio-level",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::VideoContentType => "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
            Self::VideoTiming => "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
            Self::ColorSpace => "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::VideoLayersAllocation => "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
        }
    }

    /// The extension behind a URI of `a=extmap`.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ext| ext.uri() == uri)
    }

    /// Speaks about one hop only: written anew for each subscriber or left out, never copied.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(self, Self::Mid | Self::Rid | Self::RepairedRid | Self::TransportCc | Self::AbsSendTime)
    }
}

/// The elements of a header extension block, as id and value. A profile that is neither form has none.
pub fn elements(profile: u16, block: &[u8]) -> Elements<'_> {
    // RFC 8285 §4.3: the two-byte form is 0x100 followed by four "appbits", which receivers ignore.
    match profile {
        ONE_BYTE_PROFILE => Elements { rest: block, is_two_byte: false },
        _ if profile & 0xfff0 == TWO_BYTE_PROFILE => Elements { rest: block, is_two_byte: true },
        _ => Elements { rest: &[], is_two_byte: false },
    }
}

/// The value of the first element with this id.
pub fn find(profile: u16, block: &[u8], id: u8) -> Option<&[u8]> {
    elements(profile, block).find(|(found, _)| *found == id).map(|(_, value)| value)
}

/// Iterator of [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    is_two_byte: bool,
}

impl<'a> Elements<'a> {
    /// Id, value and what follows; `None` at the end or where the block stops making sense.
    fn split(&self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (&first, rest) = self.rest.split_first()?;
        let (id, len, rest) = if self.is_two_byte {
            let (&len, rest) = rest.split_first()?;
            (first, usize::from(len), rest)
        } else {
            // RFC 8285 §4.2: at id 15 "processing of the entire extension SHOULD terminate". Id 0 is padding, which
            // has no length: libwebrtc stops there as well.
            let id = first >> 4;
            if id == 15 || id == 0 {
                return None;
            }
            (id, usize::from(first & 0x0f) + 1, rest)
        };
        let (value, rest) = rest.split_at_checked(len)?;
        Some((id, value, rest))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 8285 §4.1.2: padding bytes have the value 0 and may stand between any elements.
        while let [0, rest @ ..] = self.rest {
            self.rest = rest;
        }
        match self.split() {
            Some((id, value, rest)) => {
                self.rest = rest;
                Some((id, value))
            }
            None => {
                self.rest = &[];
                None
            }
        }
    }
}

/// Whether an element cannot be said in the one-byte form, which has ids 1 to 14 and lengths 1 to 16.
pub const fn needs_two_byte(id: u8, len: usize) -> bool {
    id > 14 || len == 0 || len > 16
}

/// Writes header extension elements into a buffer; the result goes to `rtp::write_header`.
#[derive(Debug)]
pub struct ExtWriter<'a> {
    out: &'a mut [u8],
    len: usize,
    is_two_byte: bool,
}

impl<'a> ExtWriter<'a> {
    /// Ids 1 to 14, values of 1 to 16 bytes.
    pub fn one_byte(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, is_two_byte: false }
    }

    /// The same behind `len` bytes of elements that `out` has already.
    pub fn one_byte_after(out: &'a mut [u8], len: usize) -> Self {
        Self { len, ..Self::one_byte(out) }
    }

    /// Ids 1 to 255, values of 0 to 255 bytes. Needs `a=extmap-allow-mixed` or a session that began with this form.
    pub fn two_byte(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, is_two_byte: true }
    }

    /// Appends an element; `false`, and nothing written, when the form or the buffer cannot hold it.
    pub fn push(&mut self, id: u8, value: &[u8]) -> bool {
        let overhead = if self.is_two_byte { 2 } else { 1 };
        let cannot_say = if self.is_two_byte { value.len() > 255 } else { needs_two_byte(id, value.len()) };
        let end = self.len + overhead + value.len();
        if id == 0 || cannot_say || end.next_multiple_of(4) > self.out.len() {
            return false;
        }
        if self.is_two_byte {
            self.out[self.len] = id;
            self.out[self.len + 1] = value.len() as u8;
        } else {
            self.out[self.len] = id << 4 | (value.len() - 1) as u8;
        }
        self.out[self.len + overhead..end].copy_from_slice(value);
        self.len = end;
        true
    }

    /// Pads to 32 bits; returns the profile and the length in bytes (0 when nothing was pushed: then write no
    /// extension at all).
    pub fn finish(self) -> (u16, usize) {
        let padded = self.len.next_multiple_of(4);
        self.out[self.len..padded].fill(0);
        (if self.is_two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE }, padded)
    }
}

/// How loud a packet's sound is (RFC 6464 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender believes that this is voice.
    pub voice: bool,
    /// Loudness in -dBov: 0 is the loudest, 127 silence.
    pub level: u8,
}

impl AudioLevel {
    /// Reads an element's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let &byte = value.first()?;
        Some(Self { voice: byte & 0x80 != 0, level: byte & 0x7f })
    }

    /// The element's value.
    pub const fn to_bytes(self) -> [u8; 1] {
        [(self.voice as u8) << 7 | self.level & 0x7f]
    }
}

/// When a packet left, as seconds in 6.18 fixed point, wrapping every 64 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(pub u32);

impl AbsSendTime {
    /// From a 64-bit NTP timestamp: the lowest 6 bits of the seconds and the highest 18 of the fraction.
    pub const fn from_ntp(ntp: u64) -> Self {
        Self((ntp >> 14) as u32 & 0x00ff_ffff)
    }

    /// Reads an element's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        super::be::u24_at(value, 0).map(Self)
    }

    /// The element's value.
    pub const fn to_bytes(self) -> [u8; 3] {
        let [_, high, mid, low] = self.0.to_be_bytes();
        [high, mid, low]
    }
}

/// Reads the value of a [`Ext::TransportCc`] element; to write it, use `seq.to_be_bytes()`.
pub fn parse_transport_cc(value: &[u8]) -> Option<u16> {
    super::be::u16_at(value, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(profile: u16, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        elements(profile, block).map(|(id, value)| (id, value.to_vec())).collect()
    }

    #[test]
    fn the_one_byte_example_of_the_rfc_is_read() {
        // RFC 8285 §4.2, the figure: ids 1 (1 byte), 2 (2 bytes), padding, 3 (4 bytes).
        let block = [0x10, 0xa0, 0x21, 0xb0, 0xb1, 0, 0, 0x33, 1, 2, 3, 4];
        assert_eq!(read(0xbede, &block), [(1, vec![0xa0]), (2, vec![0xb0, 0xb1]), (3, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn the_two_byte_example_of_the_rfc_is_read() {
        // RFC 8285 §4.3, the figure: ids 1 (empty), 2 (1 byte), padding, 3 (4 bytes).
        let block = [1, 0, 2, 1, 0xb0, 0, 3, 4, 1, 2, 3, 4];
        for profile in [0x1000, 0x100f] {
            assert_eq!(read(profile, &block), [(1, vec![]), (2, vec![0xb0]), (3, vec![1, 2, 3, 4])]);
        }
        assert!(read(0x2000, &block).is_empty());
    }

    #[test]
    fn id_fifteen_ends_the_one_byte_form() {
        assert_eq!(read(0xbede, &[0x10, 7, 0xf0, 1, 0x20, 8, 0, 0]), [(1, vec![7])]);
    }

    #[test]
    fn a_truncated_element_ends_the_iteration() {
        assert_eq!(read(0xbede, &[0x10, 7, 0x2f, 1]), [(1, vec![7])]);
        assert_eq!(read(0x1000, &[1, 1, 7, 2]), [(1, vec![7])]);
        assert_eq!(read(0x1000, &[1, 1, 7, 2, 255, 0, 0, 0]), [(1, vec![7])]);
    }

    #[test]
    fn the_writer_refuses_what_its_form_cannot_say() {
        let mut out = [0xaa; 8];
        let mut writer = ExtWriter::one_byte(&mut out);
        assert!(!writer.push(15, &[1]) && !writer.push(0, &[1]) && !writer.push(1, &[]) && !writer.push(1, &[0; 17]));
        assert!(writer.push(1, &[1, 2, 3, 4, 5]));
        assert!(!writer.push(2, &[1, 2]));
        assert_eq!(writer.finish(), (0xbede, 8));
        assert_eq!(out, [0x14, 1, 2, 3, 4, 5, 0, 0]);
        assert_eq!(ExtWriter::two_byte(&mut out).finish(), (0x1000, 0));
    }

    #[test]
    fn every_uri_names_its_extension() {
        for (index, ext) in Ext::ALL.into_iter().enumerate() {
            assert_eq!(ext as usize, index);
            assert_eq!(Ext::from_uri(ext.uri()), Some(ext));
        }
        assert_eq!(Ext::from_uri("urn:ietf:params:rtp-hdrext:encrypt"), None);
        assert_eq!(Ext::ALL.into_iter().filter(|ext| ext.is_hop_by_hop()).count(), 5);
    }

    #[test]
    fn typed_values_go_both_ways() {
        let level = AudioLevel { voice: true, level: 42 };
        assert_eq!(AudioLevel::parse(&level.to_bytes()), Some(level));
        // 1.5 s past a multiple of 64 s is 1.5 * 2^18.
        let time = AbsSendTime::from_ntp((64 << 32) | (1 << 32) | (1 << 31));
        assert_eq!((time.0, AbsSendTime::parse(&time.to_bytes())), (0x6_0000, Some(time)));
        assert_eq!(parse_transport_cc(&[0x12, 0x34]), Some(0x1234));
        assert_eq!((AudioLevel::parse(&[]), AbsSendTime::parse(&[1, 2]), parse_transport_cc(&[1])), (None, None, None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            pushed in proptest::collection::vec((1u8..=255, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut out = [0xaa; 400];
            let is_two_byte = pushed.iter().any(|(id, value)| needs_two_byte(*id, value.len()));
            let mut writer =
                if is_two_byte { ExtWriter::two_byte(&mut out) } else { ExtWriter::one_byte(&mut out) };
            for (id, value) in &pushed {
                prop_assert!(writer.push(*id, value));
            }
            let (profile, len) = writer.finish();
            prop_assert_eq!(len % 4, 0);
            prop_assert_eq!(read(profile, &out[..len]), pushed);
        }

        #[test]
        fn any_block_can_be_read(profile in prop_oneof![Just(0xbede), Just(0x1000)], block: Vec<u8>) {
            let total: usize = elements(profile, &block).map(|(_, value)| value.len()).sum();
            prop_assert!(total <= block.len());
        }
    }
}
