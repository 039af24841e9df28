//! AV1 (AOM "RTP payload format for AV1").
//!
//! The aggregation header is written by who packetises and stays readable under end-to-end encryption. Layers are not
//! told by every packet; who needs them sends the dependency descriptor ([`crate::wire::dependency`]).

use crate::base::frame::{FrameMarks, Sizes};
use crate::wire::bits::BitReader;

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TILE_GROUP: u8 = 4;
const OBU_TILE_LIST: u8 = 8;
/// AV1 §6.4.1: "It is a requirement of bitstream conformance that seq_profile is not greater than 2".
const PROFILE_MAX: u32 = 2;

/// What a payload says about its frame.
pub fn marks(payload: &[u8]) -> FrameMarks {
    let Some(&aggregation) = payload.first() else { return FrameMarks::default() };
    let kind = first_element(payload).and_then(obu_kind);
    // §4.4: N "MUST be set to 1 if the packet is the first packet of a coded video sequence". Encoders may repeat the
    // sequence header at a keyframe without starting a new sequence. Z: the first element continues one of the packet
    // before, so nothing starts here.
    let is_continued = aggregation & 0x80 != 0;
    let is_sequence = kind == Some(OBU_SEQUENCE_HEADER) && keyframe_sizes(payload).is_some();
    let is_key = !is_continued && (aggregation & 0x08 != 0 || is_sequence);
    // What is left of a frame are its tile groups, or noise.
    let is_inner = kind.is_none_or(|kind| kind == 0 || kind >= OBU_TILE_LIST || kind == OBU_TILE_GROUP);
    FrameMarks {
        is_start: !is_continued && (is_key || !is_inner),
        is_key,
        is_switch_up: is_key,
        needs_earlier: !is_key,
        ..FrameMarks::default()
    }
}

/// The largest size in the sequence header that a payload begins with.
pub fn keyframe_sizes(payload: &[u8]) -> Option<Sizes> {
    let element = first_element(payload).filter(|element| obu_kind(element) == Some(OBU_SEQUENCE_HEADER))?;
    let header = *element.first()?;
    // AV1 §5.3.2: obu_extension_flag, obu_has_size_field.
    let mut rest = element.get(1 + usize::from(header >> 2 & 1)..)?;
    if header & 0x02 != 0 {
        rest = skip_leb128(rest)?;
    }
    sequence_size(&mut BitReader::new(rest)).map(Sizes::one)
}

/// The OBU elements of a payload (§4.4), each with whether it goes on what the packet before began (Z), and whether the
/// next packet goes on with it (Y). What makes no sense ends the list.
pub fn elements(payload: &[u8]) -> impl Iterator<Item = (&[u8], bool, bool)> {
    let (aggregation, mut rest) = payload.split_first().map_or((0, &[][..]), |(head, rest)| (*head, rest));
    let count = usize::from(aggregation >> 4 & 0x03);
    let mut index = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Without a count each element has its length before it; with one the last has none.
        let element = if count > 0 && index + 1 >= count {
            std::mem::take(&mut rest)
        } else {
            let (len, behind) = leb128(rest)?;
            let (element, behind) = behind.split_at_checked(len)?;
            rest = behind;
            element
        };
        let is_continued = index == 0 && aggregation & 0x80 != 0;
        index += 1;
        Some((element, is_continued, rest.is_empty() && aggregation & 0x40 != 0))
    })
}

/// A leb128 number of what can be a length, and what follows it.
pub fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let rest = skip_leb128(bytes)?;
    let digits = &bytes[..bytes.len() - rest.len()];
    let value = digits.iter().rev().fold(0u64, |value, digit| value << 7 | u64::from(digit & 0x7f));
    Some((usize::try_from(value).ok()?, rest))
}

/// The first OBU, or its beginning, unless the packet before has that. W=1 is the one case in which no length stands
/// before it (§4.4: Z Y W W N).
fn first_element(payload: &[u8]) -> Option<&[u8]> {
    let (&aggregation, rest) = payload.split_first().filter(|(aggregation, _)| **aggregation & 0x80 == 0)?;
    let element_count = aggregation >> 4 & 0x03;
    if element_count == 1 { Some(rest) } else { skip_leb128(rest) }
}

/// The type in an OBU header; `None` where the forbidden or the reserved bit says that it is none.
fn obu_kind(element: &[u8]) -> Option<u8> {
    element.first().filter(|header| *header & 0x81 == 0).map(|header| header >> 3 & 0x0f)
}

/// What follows a leb128 number, which has at most 8 bytes.
fn skip_leb128(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.iter().take(8).position(|byte| byte & 0x80 == 0)?;
    bytes.get(last + 1..)
}

/// max_frame_width and max_frame_height of a sequence header (AV1 §5.5.1).
fn sequence_size(reader: &mut BitReader<'_>) -> Option<(u16, u16)> {
    reader.bits(3).filter(|profile| *profile <= PROFILE_MAX)?;
    // still_picture.
    reader.skip(1)?;
    if reader.bit()? {
        // reduced_still_picture_header: only the level.
        reader.skip(5)?;
    } else {
        skip_operating_points(reader)?;
    }
    let width_bits = reader.bits(4)? + 1;
    let height_bits = reader.bits(4)? + 1;
    let width = reader.bits(width_bits)? + 1;
    let height = reader.bits(height_bits)? + 1;
    Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
}

/// Timing, decoder model and operating points.
fn skip_operating_points(reader: &mut BitReader<'_>) -> Option<()> {
    let mut delay_bits = None;
    if reader.bit()? {
        // num_units_in_display_tick, time_scale; equal_picture_interval, num_ticks_per_picture_minus_1.
        reader.skip(64)?;
        if reader.bit()? {
            // uvlc is the code that H.264 calls ue (AV1 §4.10.3).
            reader.ue()?;
        }
        if reader.bit()? {
            delay_bits = Some(reader.bits(5)? as usize + 1);
            reader.skip(32 + 5 + 5)?;
        }
    }
    let has_display_delay = reader.bit()?;
    for _ in 0..=reader.bits(5)? {
        reader.skip(12)?;
        // seq_level_idx above 7 has a tier.
        if reader.bits(5)? > 7 {
            reader.skip(1)?;
        }
        if let Some(bits) = delay_bits
            && reader.bit()?
        {
            reader.skip(2 * bits + 1)?;
        }
        if has_display_delay && reader.bit()? {
            reader.skip(4)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bits::BitWriter;

    /// A sequence header of profile 0 with one operating point, 640 by 360.
    fn sequence_header(has_size: bool) -> Vec<u8> {
        let mut bytes = [0; 32];
        let mut writer = BitWriter::new(&mut bytes);
        // Profile, still, reduced; timing, display delay, one operating point: idc 0, level 8 with a tier.
        for (value, bits) in [(0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (8, 5), (0, 1)] {
            writer.bits(value, bits).unwrap();
        }
        for (value, bits) in [(9, 4), (8, 4), (639, 10), (359, 9)] {
            writer.bits(value, bits).unwrap();
        }
        let len = writer.finish().unwrap();
        let head = if has_size { vec![0x0a, len as u8] } else { vec![0x08] };
        [&head, &bytes[..len]].concat()
    }

    #[test]
    fn the_n_bit_begins_a_sequence() {
        assert!(marks(&[0x08]).begins());
        assert!(marks(&[0x18, 0x0a]).begins());
        assert!(!marks(&[0x88]).begins());
    }

    #[test]
    fn a_sequence_header_in_front_begins_a_keyframe() {
        let header = sequence_header(false);
        let alone = [&[0x10][..], &header].concat();
        let counted = [&[0x20, header.len() as u8][..], &header, &[0x30]].concat();
        let padded = [&[0x00, header.len() as u8 | 0x80, 0][..], &sequence_header(true)].concat();
        for payload in [&alone, &counted, &padded] {
            assert!(marks(payload).begins(), "{payload:x?}");
            assert_eq!(keyframe_sizes(payload), Some(Sizes::one((640, 360))));
        }
        // Continued from the packet before; a frame; the forbidden and the reserved bit; noise of an unknown profile.
        for (at, byte) in [(0, 0x90), (1, 0x30), (1, 0x88), (1, 0x09), (2, 0xe0)] {
            let mut payload = alone.clone();
            payload[at] = byte;
            assert!(!marks(&payload).begins(), "{at}: {byte:x}");
        }
        assert!(!marks(&[0x20, 2]).begins());
        assert!(!marks(&[0x20, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0a]).begins());
    }

    #[test]
    fn elements_are_told_apart() {
        let list = |payload: &[u8]| -> Vec<(Vec<u8>, bool, bool)> {
            elements(payload).map(|(bytes, before, after)| (bytes.to_vec(), before, after)).collect()
        };
        assert_eq!(list(&[0x10, 1, 2]), [(vec![1, 2], false, false)]);
        assert_eq!(list(&[0xe0, 1, 7, 8, 9]), [(vec![7], true, false), (vec![8, 9], false, true)]);
        assert_eq!(list(&[0x40, 1, 7, 0x82, 0, 8, 9]), [(vec![7], false, false), (vec![8, 9], false, true)]);
        assert_eq!(list(&[0x00, 5, 1]), []);
        assert_eq!(list(&[]), []);
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 1]), Some((624_485, &[1][..])));
        assert_eq!(leb128(&[0x80]), None);
    }

    #[test]
    fn tile_groups_and_continued_elements_start_nothing() {
        assert!(marks(&[0x10, 0x30]).is_start, "a frame");
        assert!(!marks(&[0x10, 0x20]).is_start, "a tile group");
        assert!(!marks(&[0x90, 0x30]).is_start);
        assert!(!marks(&[0x10]).is_start);
    }

    #[test]
    fn a_header_with_everything_optional_is_read() {
        let mut bytes = [0; 64];
        let mut writer = BitWriter::new(&mut bytes);
        // Timing with an interval of 4 (uvlc 00100), a decoder model with delays of 10 bits.
        for (value, bits) in [(1, 3), (0, 2), (1, 1), (1, 32), (2, 32), (1, 1), (0b00100, 5), (1, 1), (9, 5), (0, 32)] {
            writer.bits(value, bits).unwrap();
        }
        for (value, bits) in [(7, 5), (7, 5), (1, 1), (1, 5)] {
            writer.bits(value, bits).unwrap();
        }
        // Two operating points: with model and delay, and without.
        for (value, bits) in [(0x103, 12), (9, 5), (1, 1), (1, 1), (5, 10), (5, 10), (1, 1), (1, 1), (3, 4)] {
            writer.bits(value, bits).unwrap();
        }
        for (value, bits) in [(0x101, 12), (5, 5), (0, 1), (0, 1), (15, 4), (15, 4), (3839, 16), (2159, 16)] {
            writer.bits(value, bits).unwrap();
        }
        let len = writer.finish().unwrap();
        let payload = [&[0x10, 0x08][..], &bytes[..len]].concat();
        assert_eq!(keyframe_sizes(&payload), Some(Sizes::one((3840, 2160))));
        for cut in 0..payload.len() {
            assert_eq!(keyframe_sizes(&payload[..cut]), None, "{cut}");
        }
    }
}
