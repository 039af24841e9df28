//! Payload descriptors: where keyframes begin.
//!
//! Promises: any payload gets an answer; one that makes no sense begins nothing.
//! Forbids: decoding; only what lies in front of the codec's own bits, and the first of those.

pub mod av1;
pub mod h264;
pub mod vp8;
pub mod vp9;

use crate::base::format::Format;
use crate::base::frame::FrameMarks;

/// Whether a decoder that knows nothing yet can begin with this packet. Audio can begin anywhere.
pub fn is_keyframe_start(format: Format, payload: &[u8]) -> bool {
    match format {
        Format::Opus | Format::OpusRed | Format::G722 | Format::Pcmu | Format::Pcma => true,
        Format::Vp8 => vp8::is_keyframe_start(payload),
        Format::Vp9 { .. } => vp9::is_keyframe_start(payload),
        Format::H264 { .. } => h264::is_keyframe_start(payload),
        Format::Av1 { .. } => av1::is_keyframe_start(payload),
    }
}

/// What a payload says about its frame.
pub fn frame_marks(format: Format, payload: &[u8]) -> FrameMarks {
    if is_keyframe_start(format, payload) { FrameMarks::WHOLE } else { FrameMarks::default() }
}

/// Fuzz body: any bytes as a payload of every format.
#[doc(hidden)]
pub fn fuzz_payload(bytes: &[u8]) {
    let answers = [vp8::is_keyframe_start, vp9::is_keyframe_start, h264::is_keyframe_start, av1::is_keyframe_start]
        .map(|is_keyframe_start| is_keyframe_start(bytes));
    assert!(!bytes.is_empty() || answers == [false; 4], "nothing begins with nothing");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::H264Profile;
    use crate::wire::be::hostile::Mutator;

    #[test]
    fn each_format_is_asked_its_own_question() {
        let video = [
            (Format::Vp8, &[0x10, 0x00][..]),
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
            vec![0x90, 0xf0, 0x80, 1, 2, 3, 0x00],
            vec![0xa8, 0x81, 2, 0x10, 7, 1, 2],
            vec![0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 1, 2, 0, 1, 0x65],
            vec![0x7c, 0x85, 1, 2, 3],
            vec![0x20, 2, 0x0a, 0x0b, 0x30, 1],
        ];
        let mut mutator = Mutator::new(0x7061_796c);
        for _ in 0..200_000 {
            fuzz_payload(&mutator.next(&seeds));
        }
    }
}
/// stub
pub fn shift_picture(_format: Format, _payload: &mut [u8], _picture_id: u16, _tl0: u8) {}
