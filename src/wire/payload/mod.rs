//! Payload descriptors: where frames begin, of which layer they are, how large; and their numbers, rewritten in place.
//!
//! Promises: any payload gets an answer; one that makes no sense begins nothing. No allocation.
//! Forbids: decoding; only what lies in front of the codec's own bits, and the first of those.

pub mod av1;
pub mod h264;
pub mod vp8;
pub mod vp9;

use crate::base::format::{Format, H264Profile};
use crate::base::frame::{FrameMarks, Sizes};

/// What a payload says about its frame. Audio stands for itself.
///
/// Under end-to-end encryption the descriptors of VP8 and VP9 stay readable and true, and so does AV1's first byte. Of
/// H.264, and of keyframes of VP8, only noise is left unless the sender keeps the first bytes of a frame clear.
pub fn frame_marks(format: Format, payload: &[u8]) -> FrameMarks {
    match format {
        Format::Opus | Format::OpusRed | Format::G722 | Format::Pcmu | Format::Pcma => FrameMarks::WHOLE,
        Format::Vp8 => vp8::marks(payload),
        Format::Vp9 { .. } => vp9::marks(payload),
        Format::H264 { .. } => h264::marks(payload),
        Format::Av1 { .. } => av1::marks(payload),
    }
}

/// Whether a decoder that knows nothing yet can begin with this packet. Audio can begin anywhere.
pub fn is_keyframe_start(format: Format, payload: &[u8]) -> bool {
    frame_marks(format, payload).begins()
}

/// The sizes of a picture's spatial layers, where the packet tells them: at keyframes, as a rule.
pub fn keyframe_sizes(format: Format, payload: &[u8]) -> Option<Sizes> {
    match format {
        Format::Opus | Format::OpusRed | Format::G722 | Format::Pcmu | Format::Pcma => None,
        Format::Vp8 => vp8::keyframe_sizes(payload),
        Format::Vp9 { .. } => vp9::keyframe_sizes(payload),
        Format::H264 { .. } => h264::keyframe_sizes(payload),
        Format::Av1 { .. } => av1::keyframe_sizes(payload),
    }
}

/// Width and height of the best there is in a picture, where the packet tells them.
pub fn keyframe_size(format: Format, payload: &[u8]) -> Option<(u16, u16)> {
    keyframe_sizes(format, payload).and_then(|sizes| sizes.highest())
}

/// Adds to the numbers of the picture in a payload descriptor, in place and within their bits; formats that have none
/// stay as they are.
pub fn shift_picture(format: Format, payload: &mut [u8], picture_id_shift: u16, tl0_shift: u8) {
    match format {
        Format::Vp8 => vp8::shift_picture(payload, picture_id_shift, tl0_shift),
        Format::Vp9 { .. } => vp9::shift_picture(payload, picture_id_shift, tl0_shift),
        _ => {}
    }
}

/// Whether pictures that are withheld must leave no gap in the picture ids. A VP8 receiver takes a gap for a loss. VP9
/// refers to pictures by the distance of their ids (RFC 9628 §4.2: P_DIFF, in the descriptor or in the group of pictures),
/// so that they must stay as they are between two keyframes.
pub fn closes_picture_gaps(format: Format) -> bool {
    format == Format::Vp8
}

/// Fuzz body: any bytes as a payload of every format.
#[doc(hidden)]
pub fn fuzz_payload(bytes: &[u8]) {
    let h264 = Format::H264 { profile: H264Profile::ConstrainedBaseline, packetization_mode: 1 };
    let mut shifted = [0; 256];
    for format in [Format::Vp8, Format::Vp9 { profile: 0 }, h264, Format::Av1 { profile: 0 }] {
        let marks = frame_marks(format, bytes);
        assert!(!bytes.is_empty() || !marks.begins(), "nothing begins with nothing");
        assert!(!marks.begins() || !marks.needs_earlier && !marks.needs_lower);
        let sizes = keyframe_sizes(format, bytes);
        assert_eq!(keyframe_size(format, bytes).is_some(), sizes.is_some());
        // There and back again.
        let len = bytes.len().min(shifted.len());
        shifted[..len].copy_from_slice(&bytes[..len]);
        let before = frame_marks(format, &shifted[..len]);
        shift_picture(format, &mut shifted[..len], 5, 7);
        let after = frame_marks(format, &shifted[..len]);
        assert_eq!(after.picture_id, before.picture_id.map(|id| id.shifted(5)));
        assert_eq!(after.tl0, before.tl0.map(|tl0| tl0.wrapping_add(7)));
        shift_picture(format, &mut shifted[..len], 5u16.wrapping_neg(), 7u8.wrapping_neg());
        assert_eq!(shifted[..len], bytes[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::be::hostile::Mutator;

    #[test]
    fn each_format_is_asked_its_own_question() {
        let video = [
            (Format::Vp8, &[0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a, 0, 1, 0, 1][..]),
            (Format::Vp9 { profile: 0 }, &[0x08][..]),
            (Format::H264 { profile: H264Profile::ConstrainedBaseline, packetization_mode: 1 }, &[0x67][..]),
            (Format::Av1 { profile: 0 }, &[0x08][..]),
        ];
        for (format, keyframe) in video {
            assert!(is_keyframe_start(format, keyframe), "{format:?}");
            assert!(!is_keyframe_start(format, &[]), "{format:?}");
        }
        assert!(is_keyframe_start(Format::Opus, &[]));
    }

    #[test]
    fn mutated_payloads_never_panic() {
        let seeds = [
            vec![0x90, 0xf0, 0x80, 1, 2, 3, 0x00, 0, 0, 0x9d, 0x01, 0x2a, 0, 1, 0, 1],
            vec![0xa8, 0x81, 2, 0x10, 7, 1, 2],
            vec![0xfa, 0x81, 2, 0x33, 3, 5, 6, 0x58, 0, 1, 0, 1, 0, 2, 0, 2, 0, 4, 0, 4, 1, 0x14, 1],
            vec![0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 1, 2, 0, 1, 0x65],
            vec![0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0, 0, 3, 0, 0x10],
            vec![0x7c, 0x85, 1, 2, 3],
            vec![0x20, 2, 0x0a, 0x0b, 0x30, 1],
            vec![0x18, 0x08, 0, 0, 0, 0x42, 0xa7, 0xbf, 0xe6, 0x2e],
        ];
        let mut mutator = Mutator::new(0x7061_796c);
        for _ in 0..200_000 {
            fuzz_payload(&mutator.next(&seeds));
        }
    }
}
