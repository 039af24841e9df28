//! VP9 (RFC 9628).
//!
//! All that is needed stands in the payload descriptor, which stays readable under end-to-end encryption.

use crate::base::frame::{FrameMarks, PictureId, Sizes};
use crate::wire::be::u16_at;

/// RFC 9628 §4.2: "up to 3 times".
const P_DIFFS_MAX: usize = 3;

/// A payload descriptor as far as it concerns a picture, with the places of what can be rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Descriptor {
    /// P: the frame builds on earlier pictures.
    is_inter_predicted: bool,
    /// B.
    is_start: bool,
    /// E.
    is_end: bool,
    picture_id: Option<(usize, PictureId)>,
    tl0: Option<(usize, u8)>,
    temporal: u8,
    /// U.
    is_switching_up_point: bool,
    spatial: u8,
    /// D: the frame builds on the spatial layer below.
    is_inter_layer: bool,
    /// Where the scalability structure begins.
    structure_at: Option<usize>,
    /// Bytes up to there, or up to the frame where there is no structure.
    len: usize,
}

impl Descriptor {
    /// RFC 9628 §4.2. `None` where the payload ends before its descriptor does.
    fn parse(payload: &[u8]) -> Option<Self> {
        let flags = *payload.first()?;
        let has = |bit: u8| flags & bit != 0;
        // I P L F B E V Z.
        let mut this =
            Self { is_inter_predicted: has(0x40), is_start: has(0x08), is_end: has(0x04), ..Self::default() };
        let is_flexible = has(0x10);
        let mut at = 1;
        if has(0x80) {
            let id = PictureId::parse(payload.get(at..)?)?;
            this.picture_id = Some((at, id));
            at += id.encoded_len();
        }
        if has(0x20) {
            // TID U SID D.
            let indices = *payload.get(at)?;
            at += 1;
            this.temporal = indices >> 5;
            this.is_switching_up_point = indices & 0x10 != 0;
            this.spatial = indices >> 1 & 0x07;
            this.is_inter_layer = indices & 0x01 != 0;
            if !is_flexible {
                this.tl0 = Some((at, *payload.get(at)?));
                at += 1;
            }
        }
        if is_flexible && this.is_inter_predicted {
            // Each reference index says in its lowest bit whether another one follows.
            let diffs = payload.get(at..)?.iter().take(P_DIFFS_MAX);
            at += 1 + diffs.take_while(|diff| *diff & 0x01 != 0).count().min(P_DIFFS_MAX - 1);
            payload.get(at - 1)?;
        }
        this.structure_at = has(0x02).then_some(at);
        this.len = at;
        Some(this)
    }
}

/// What a payload says about its frame. A frame of a higher spatial layer counts as key where it needs nothing but the
/// layer below; whether that one's picture is a key picture, its own packets say.
pub fn marks(payload: &[u8]) -> FrameMarks {
    let Some(descriptor) = Descriptor::parse(payload) else { return FrameMarks::default() };
    FrameMarks {
        spatial: descriptor.spatial,
        temporal: descriptor.temporal,
        is_start: descriptor.is_start,
        is_end: descriptor.is_end,
        is_key: !descriptor.is_inter_predicted && descriptor.temporal == 0,
        is_switch_up: !descriptor.is_inter_predicted || descriptor.is_switching_up_point,
        // "The inter-layer dependency for the base spatial layer frame MUST be 0."
        needs_lower: descriptor.spatial > 0 && descriptor.is_inter_layer,
        needs_earlier: descriptor.is_inter_predicted,
        picture_id: descriptor.picture_id.map(|(_, id)| id),
        tl0: descriptor.tl0.map(|(_, tl0)| tl0),
        ..FrameMarks::default()
    }
}

/// Sizes in the scalability structure that a key picture begins with.
pub fn keyframe_sizes(payload: &[u8]) -> Option<Sizes> {
    let descriptor = Descriptor::parse(payload)?;
    let at = descriptor.structure_at?;
    // N_S Y G and three reserved bits.
    let head = *payload.get(at)?;
    if head & 0x10 == 0 {
        return None;
    }
    let mut sizes = Sizes { count: (head >> 5) + 1, ..Sizes::default() };
    for (index, size) in sizes.layers.iter_mut().take(usize::from(sizes.count)).enumerate() {
        let at = at + 1 + 4 * index;
        *size = (u16_at(payload, at)?, u16_at(payload, at + 2)?);
    }
    Some(sizes)
}

/// The frame's own bytes behind the descriptor.
pub fn body(payload: &[u8]) -> Option<&[u8]> {
    let descriptor = Descriptor::parse(payload)?;
    let mut at = descriptor.len;
    if descriptor.structure_at.is_some() {
        // N_S Y G and three reserved bits; sizes of N_S + 1 layers; N_G pictures of a byte and R references each.
        let head = *payload.get(at)?;
        at += 1 + if head & 0x10 != 0 { 4 * (usize::from(head >> 5) + 1) } else { 0 };
        if head & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(*payload.get(at)? >> 2 & 0x03);
            }
        }
    }
    payload.get(at..)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(payload: &[u8]) -> bool {
        marks(payload).begins()
    }

    #[test]
    fn a_picture_without_layers_begins_with_p_clear_and_b_set() {
        assert!(begins(&[0x08]));
        assert!(begins(&[0x8c, 0x80, 1]));
        assert!(!begins(&[0x48]));
        assert!(!begins(&[0x04]));
        assert!(marks(&[0x4c]).is_end && !marks(&[0x48]).is_end);
    }

    #[test]
    fn only_the_lowest_spatial_layer_begins_a_picture() {
        for id in [&[0x7f][..], &[0x80, 0xff][..]] {
            for sid in 0..8u8 {
                let mut payload = vec![0xa8];
                payload.extend(id);
                assert!(!begins(&payload), "the layer indices are missing");
                payload.push(0x11 | sid << 1);
                assert!(!begins(&payload), "TL0PICIDX is missing");
                payload.push(9);
                assert_eq!(begins(&payload), sid == 0);
                assert_eq!(marks(&payload).spatial, sid);
                assert_eq!(marks(&payload).needs_lower, sid > 0);
                assert_eq!(marks(&payload).tl0, Some(9));
            }
        }
    }

    #[test]
    fn flexible_mode_has_references_in_place_of_tl0picidx() {
        // I P L F B: TID 2, U, SID 1, D; then one to three P_DIFFs and a structure with a size.
        for diffs in [&[0x02][..], &[0x03, 0x04], &[0x03, 0x05, 0x06], &[0x03, 0x05, 0x07]] {
            let mut payload = vec![0xf8 | 0x02, 0x05, 0b0101_0011];
            payload.extend(diffs);
            payload.extend([0b0001_0000, 2, 128, 1, 104]);
            let found = marks(&payload);
            assert_eq!((found.temporal, found.spatial, found.tl0), (2, 1, None), "{diffs:?}");
            assert!(found.is_switch_up && found.needs_lower && found.needs_earlier && !found.is_key);
            assert_eq!(keyframe_sizes(&payload), Some(Sizes::one((640, 360))), "{diffs:?}");
        }
        assert_eq!(marks(&[0xf8, 0x05, 0b0101_0011, 0x03]), FrameMarks::default(), "a reference is missing");
    }

    #[test]
    fn the_structure_tells_the_size_of_each_layer() {
        // I L B V, picture id, TID 0 SID 0, TL0PICIDX; N_S 2, Y, G; three sizes; one picture of the group.
        let mut payload = vec![0xaa, 0x05, 0, 7, 0b0101_1000];
        for (width, height) in [(320u16, 180u16), (640, 360), (1280, 720)] {
            payload.extend(width.to_be_bytes());
            payload.extend(height.to_be_bytes());
        }
        payload.extend([1, 0x14, 1]);
        let sizes = keyframe_sizes(&payload).expect("sizes");
        assert_eq!(sizes.layers[..3], [(320, 180), (640, 360), (1280, 720)]);
        assert_eq!((sizes.count, sizes.highest()), (3, Some((1280, 720))));
        assert!(begins(&payload));
        assert_eq!(keyframe_sizes(&payload[..10]), None);
        payload[4] &= !0x10;
        assert_eq!(keyframe_sizes(&payload), None, "no sizes told");
    }

    #[test]
    fn the_frame_lies_behind_descriptor_and_structure() {
        assert_eq!(body(&[0x08, 7, 8]), Some(&[7, 8][..]));
        assert_eq!(body(&[0xa8, 0x81, 2, 0x10, 7, 1, 2]), Some(&[1, 2][..]));
        // V: two layers with sizes, two pictures with one and two references.
        let structure = [0x38, 1, 64, 0, 180, 2, 128, 1, 104, 2, 0x14, 1, 0x18, 1, 2];
        let payload = [&[0x0a][..], &structure, &[9]].concat();
        assert_eq!(body(&payload), Some(&[9][..]));
        for cut in 1..payload.len() - 1 {
            assert_eq!(body(&payload[..cut]), None, "{cut}");
        }
        assert_eq!(body(&[0x90, 0x80]), None);
    }

    #[test]
    fn numbers_are_shifted_within_their_bits() {
        let shifted = |payload: &[u8], picture, tl0| {
            let mut payload = payload.to_vec();
            shift_picture(&mut payload, picture, tl0);
            payload
        };
        assert_eq!(shifted(&[0xa8, 0x7f, 0, 255, 9], 2, 2), [0xa8, 0x01, 0, 1, 9]);
        assert_eq!(shifted(&[0xa8, 0xff, 0xff, 0, 0, 9], 1, 0), [0xa8, 0x80, 0, 0, 0, 9]);
        // Flexible mode has no TL0PICIDX; and what is cut short stays.
        assert_eq!(shifted(&[0xb8, 1, 0, 9], 1, 1), [0xb8, 2, 0, 9]);
        assert_eq!(shifted(&[0xa8, 0x80, 1, 2], 1, 1), [0xa8, 0x80, 1, 2]);
    }
}
