//! VP8 (RFC 7741).
//!
//! The payload descriptor is written by who packetises and stays readable under end-to-end encryption; the frame's own
//! first bytes do not always. So a key frame is known by its start code, too: noise has one in 2^25.

use crate::base::frame::{FrameMarks, PictureId, Sizes};

/// RFC 6386 §9.1: the three bytes after a key frame's tag.
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
/// RFC 6386 §9.1: frame tag.
const FRAME_TAG_BYTES: usize = 3;

/// A payload descriptor, with the places of what can be rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Descriptor {
    is_start: bool,
    picture_id: Option<(usize, PictureId)>,
    tl0: Option<(usize, u8)>,
    temporal: u8,
    is_layer_sync: bool,
    len: usize,
}

impl Descriptor {
    /// RFC 7741 §4.2. `None` where the payload ends before its descriptor does.
    fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        // S is the start of a VP8 partition, PID which one.
        let mut this = Self { is_start: first & 0x10 != 0 && first & 0x07 == 0, len: 1, ..Self::default() };
        if first & 0x80 == 0 {
            return Some(this);
        }
        let flags = *payload.get(1)?;
        this.len = 2;
        if flags & 0x80 != 0 {
            let id = PictureId::parse(payload.get(this.len..)?)?;
            this.picture_id = Some((this.len, id));
            this.len += id.encoded_len();
        }
        if flags & 0x40 != 0 {
            this.tl0 = Some((this.len, *payload.get(this.len)?));
            this.len += 1;
        }
        let has_temporal = flags & 0x20 != 0;
        let has_key_index = flags & 0x10 != 0;
        if has_temporal || has_key_index {
            let byte = *payload.get(this.len)?;
            this.len += 1;
            // "The TID and Y fields MUST be ignored" where T is 0.
            if has_temporal {
                this.temporal = byte >> 6;
                this.is_layer_sync = byte & 0x20 != 0;
            }
        }
        Some(this)
    }
}

/// What a payload says about its frame. Where the frame ends, only the RTP marker knows.
pub fn marks(payload: &[u8]) -> FrameMarks {
    let Some(descriptor) = Descriptor::parse(payload) else { return FrameMarks::default() };
    let is_key = descriptor.is_start && descriptor.temporal == 0 && key_size(payload, &descriptor).is_some();
    FrameMarks {
        temporal: descriptor.temporal,
        is_start: descriptor.is_start,
        is_key,
        // Y: "the current frame depends only on the base layer (TID = 0) frame". Of base frames that says nothing.
        is_switch_up: is_key || descriptor.temporal > 0 && descriptor.is_layer_sync,
        needs_earlier: !is_key,
        picture_id: descriptor.picture_id.map(|(_, id)| id),
        tl0: descriptor.tl0.map(|(_, tl0)| tl0),
        ..FrameMarks::default()
    }
}

/// Width and height that a key frame begins with.
pub fn keyframe_sizes(payload: &[u8]) -> Option<Sizes> {
    let descriptor = Descriptor::parse(payload).filter(|descriptor| descriptor.is_start)?;
    key_size(payload, &descriptor).map(Sizes::one)
}

/// The frame's own bytes behind the descriptor.
pub fn body(payload: &[u8]) -> Option<&[u8]> {
    payload.get(Descriptor::parse(payload)?.len..)
}

/// Adds to picture id and TL0PICIDX, each in as many bits as it has.
pub fn shift_picture(payload: &mut [u8], picture_id_shift: u16, tl0_shift: u8) {
    let Some(descriptor) = Descriptor::parse(payload) else { return };
    if let Some((at, id)) = descriptor.picture_id {
        id.shifted(picture_id_shift).write(&mut payload[at..]);
    }
    if let Some((at, tl0)) = descriptor.tl0 {
        payload[at] = tl0.wrapping_add(tl0_shift);
    }
}

/// RFC 6386 §9.1: P, the inverse key frame flag, is the lowest bit of the tag; after it come start code and two 16-bit
/// little-endian numbers, 14 bits of size and two of scaling.
fn key_size(payload: &[u8], descriptor: &Descriptor) -> Option<(u16, u16)> {
    let frame = payload.get(descriptor.len..)?;
    let code: &[u8; 3] = frame.get(FRAME_TAG_BYTES..)?.first_chunk()?;
    if frame.first()? & 0x01 != 0 || *code != START_CODE {
        return None;
    }
    let [w0, w1, h0, h1] = *frame.get(FRAME_TAG_BYTES + START_CODE.len()..)?.first_chunk()?;
    Some((u16::from_le_bytes([w0, w1]) & 0x3fff, u16::from_le_bytes([h0, h1]) & 0x3fff))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6386 §9.1: tag with P=0, start code, 640 by 360.
    const KEY: [u8; 10] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
    /// P=1.
    const DELTA: [u8; 10] = [0x11, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];

    fn begins(descriptor: &[u8], frame: &[u8]) -> bool {
        marks(&[descriptor, frame].concat()).begins()
    }

    #[test]
    fn the_examples_of_the_rfc_begin_keyframes() {
        // RFC 7741 §4.6.1 and §4.6.4: X=1 S=1 PID=0, I=1, picture ids 17 and 4711.
        assert!(begins(&[0x90, 0x80, 17], &KEY));
        assert!(begins(&[0x90, 0x80, 0x92, 0x67], &KEY));
        assert!(!begins(&[0x90, 0x80, 17], &DELTA));
        let short = marks(&[0x90, 0x80, 17]).picture_id;
        assert_eq!(short, Some(PictureId { value: 17, is_long: false }));
        let long = marks(&[0x90, 0x80, 0x92, 0x67]).picture_id;
        assert_eq!(long, Some(PictureId { value: 4711, is_long: true }));
    }

    #[test]
    fn every_combination_of_optional_fields_is_read() {
        for flags in 0..16u8 {
            for is_long in [false, true] {
                let mut payload = vec![0x90, flags << 4];
                let has = |bit: u8| flags & bit != 0;
                if has(0b1000) {
                    payload.extend(if is_long { &[0x81, 0xff][..] } else { &[0x7f][..] });
                }
                payload.extend(has(0b0100).then_some(0xfe));
                payload.extend(has(0b0011).then_some(0b0010_0000));
                assert!(!marks(&payload).begins(), "{flags:04b}: nothing after the descriptor");
                let value = if is_long { 0x1ff } else { 0x7f };
                let found = marks(&payload);
                assert_eq!(found.picture_id, has(0b1000).then_some(PictureId { value, is_long }), "{flags:04b}");
                assert_eq!(found.tl0, has(0b0100).then_some(0xfe));
                payload.extend(KEY);
                assert!(marks(&payload).begins(), "{flags:04b}");
                assert_eq!(keyframe_sizes(&payload), Some(Sizes::one((640, 360))));
                let at = payload.len() - KEY.len();
                payload[at] |= 1;
                assert!(!marks(&payload).begins(), "{flags:04b}");
            }
        }
    }

    #[test]
    fn temporal_layers_and_their_sync_points_are_read() {
        let found = |byte| marks(&[&[0x90, 0x20, byte][..], &DELTA].concat());
        assert_eq!((found(0b1000_0000).temporal, found(0b1000_0000).is_switch_up), (2, false));
        assert_eq!((found(0b0110_0000).temporal, found(0b0110_0000).is_switch_up), (1, true));
        // Y of a base frame says nothing; without T neither TID nor Y says anything.
        assert!(!found(0b0010_0000).is_switch_up);
        let untold = marks(&[&[0x90, 0x10, 0b0110_0000][..], &DELTA].concat());
        assert_eq!((untold.temporal, untold.is_switch_up), (0, false));
        // A key frame is of the base layer.
        assert!(!marks(&[&[0x90, 0x20, 0b0100_0000][..], &KEY].concat()).begins());
    }

    #[test]
    fn the_middle_of_a_frame_begins_nothing() {
        assert!(begins(&[0x10], &KEY));
        assert!(!begins(&[0x00], &KEY));
        assert!(!begins(&[0x11], &KEY));
        assert!(!begins(&[0x10], &KEY[..9]));
    }

    #[test]
    fn noise_with_a_clear_bit_is_no_keyframe() {
        let mut noise = KEY;
        noise[4] = 0;
        assert!(!begins(&[0x10], &noise));
    }

    #[test]
    fn numbers_are_shifted_within_their_bits() {
        let shifted = |payload: &[u8], picture, tl0| {
            let mut payload = payload.to_vec();
            shift_picture(&mut payload, picture, tl0);
            payload
        };
        assert_eq!(shifted(&[0x80, 0xc0, 0x7f, 0xff, 9], 2, 2), [0x80, 0xc0, 0x01, 0x01, 9]);
        assert_eq!(shifted(&[0x80, 0xe0, 0xff, 0xff, 7, 0x60, 9], 1, 255), [0x80, 0xe0, 0x80, 0x00, 6, 0x60, 9]);
        assert_eq!(shifted(&[0x80, 0x80, 0x80, 0x00], 0xffff, 1), [0x80, 0x80, 0xff, 0xff]);
        assert_eq!(shifted(&[0x80, 0x40, 3, 4], 1, 1), [0x80, 0x40, 4, 4]);
        // Nothing to shift, or cut short.
        for untouched in [&[][..], &[0x10, 1, 2], &[0x80], &[0x80, 0x80, 0x80], &[0x80, 0x20, 1, 2]] {
            assert_eq!(shifted(untouched, 1, 1), untouched);
        }
    }
}
