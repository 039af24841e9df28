//! H.264 (RFC 6184).
//!
//! Under end-to-end encryption the units' headers may be noise, of which one byte in 32 looks like a parameter set.

use crate::base::frame::{FrameMarks, Sizes};
use crate::wire::bits::BitReader;

const NAL_SLICE: u8 = 1;
const NAL_IDR: u8 = 5;
const NAL_SEI: u8 = 6;
const NAL_SPS: u8 = 7;
const NAL_DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Bytes of a parameter set that are read: what stands before the size is far shorter, but for scaling lists.
const SPS_BYTES_MAX: usize = 256;
/// Profiles whose parameter sets tell the chroma format (ITU-T H.264 §7.3.2.1.1).
const CHROMA_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// A unit, or the beginning of one: header, and what follows it.
#[derive(Clone, Copy, Debug)]
struct Unit<'a> {
    kind: u8,
    body: &'a [u8],
}

impl Unit<'_> {
    /// A picture's first slice: first_mb_in_slice, the first field of a slice, is 0, coded as a single one
    /// (ITU-T H.264 §7.3.3).
    fn is_first_slice(&self) -> bool {
        matches!(self.kind, NAL_SLICE | NAL_IDR) && self.body.first().is_some_and(|byte| byte & 0x80 != 0)
    }

    /// It can only stand at a picture's beginning (§7.4.1.2.3).
    fn begins_picture(&self) -> bool {
        matches!(self.kind, NAL_SEI | NAL_SPS | NAL_DELIMITER) || self.is_first_slice()
    }
}

/// What a payload says about its frame. RFC 7742 §6.2: parameter sets travel in band; so a decoder begins with one, and an
/// IDR picture without any begins nothing: what describes it was lost, and comes again or will be asked for. Where a
/// frame ends, only the RTP marker knows.
pub fn marks(payload: &[u8]) -> FrameMarks {
    let (mut is_start, mut has_idr, mut has_sps) = (false, false, false);
    for unit in units(payload) {
        is_start |= unit.begins_picture();
        has_idr |= unit.kind == NAL_IDR;
        has_sps |= unit.kind == NAL_SPS;
    }
    let is_key = has_sps || has_idr;
    FrameMarks {
        is_start: if is_key { has_sps } else { is_start },
        is_key,
        is_switch_up: is_key,
        needs_earlier: !is_key,
        ..FrameMarks::default()
    }
}

/// The size in the payload's parameter set.
pub fn keyframe_sizes(payload: &[u8]) -> Option<Sizes> {
    let unit = units(payload).find(|unit| unit.kind == NAL_SPS)?;
    sps_size(unit.body).map(Sizes::one)
}

/// The units that begin in a payload: one, those of a STAP-A, or the one of which it is the first fragment.
fn units(payload: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    let (header, rest) = payload.split_first().map_or((0, &[][..]), |(header, rest)| (*header, rest));
    let kind = header & 0x1f;
    let single = match kind {
        STAP_A => None,
        // RFC 6184 §5.8: the FU header has the S bit and the type of the fragmented unit.
        FU_A => rest.split_first().filter(|(fu, _)| **fu & 0x80 != 0).map(|(fu, body)| Unit { kind: fu & 0x1f, body }),
        _ => Some(Unit { kind, body: rest }),
    };
    single.into_iter().chain(aggregated(if kind == STAP_A { rest } else { &[] }))
}

/// The units in a STAP-A (RFC 6184 §5.7.1): a 16-bit size before each. A truncated unit ends the list.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    std::iter::from_fn(move || {
        let (size, after) = rest.split_first_chunk()?;
        let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        rest = after;
        // A unit of size 0 has no header; type 0 is unspecified and begins nothing.
        let (header, body) = unit.split_first().map_or((0, unit), |(header, body)| (*header, body));
        Some(Unit { kind: header & 0x1f, body })
    })
}

/// Width and height after cropping (ITU-T H.264 §7.3.2.1.1).
fn sps_size(escaped: &[u8]) -> Option<(u16, u16)> {
    let mut bytes = [0; SPS_BYTES_MAX];
    let len = unescape(escaped, &mut bytes);
    let mut reader = BitReader::new(&bytes[..len]);
    let profile = reader.bits(8)?;
    // Constraints and level.
    reader.skip(16)?;
    reader.ue()?;
    let mut chroma_format = 1;
    let mut has_separate_planes = false;
    if CHROMA_PROFILES.contains(&profile) {
        chroma_format = reader.ue()?;
        has_separate_planes = chroma_format == 3 && reader.bit()?;
        reader.ue()?;
        reader.ue()?;
        reader.skip(1)?;
        if reader.bit()? {
            skip_scaling_lists(&mut reader, if chroma_format == 3 { 12 } else { 8 })?;
        }
    }
    reader.ue()?;
    skip_order_count(&mut reader)?;
    reader.ue()?;
    reader.skip(1)?;
    let width_mbs = reader.ue()?.checked_add(1)?;
    let height_units = reader.ue()?.checked_add(1)?;
    let is_progressive = reader.bit()?;
    if !is_progressive {
        reader.skip(1)?;
    }
    reader.skip(1)?;
    let mut crop = [0; 4];
    if reader.bit()? {
        for side in &mut crop {
            *side = reader.ue()?;
        }
    }
    let fields = 2 - u64::from(is_progressive);
    // §6.2, table 6-1: 4:2:0 halves both, 4:2:2 the width; monochrome and separate planes none.
    let chroma_format = if has_separate_planes { 0 } else { chroma_format };
    let unit_width = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
    let unit_height = fields * if chroma_format == 1 { 2 } else { 1 };
    let [left, right, top, bottom] = crop.map(u64::from);
    let width = (u64::from(width_mbs) * 16).checked_sub((left + right) * unit_width)?;
    let height = (u64::from(height_units) * 16 * fields).checked_sub((top + bottom) * unit_height)?;
    Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
}

/// §7.3.2.1.1.1: eight or twelve lists, of which the first six have 16 values and the others 64.
fn skip_scaling_lists(reader: &mut BitReader<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if !reader.bit()? {
            continue;
        }
        let mut next = 8i32;
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next == 0 {
                break;
            }
            next = next.wrapping_add(reader.se()?) & 0xff;
        }
    }
    Some(())
}

/// The fields that depend on pic_order_cnt_type.
fn skip_order_count(reader: &mut BitReader<'_>) -> Option<()> {
    match reader.ue()? {
        0 => {
            reader.ue()?;
        }
        1 => {
            reader.skip(1)?;
            reader.se()?;
            reader.se()?;
            // "num_ref_frames_in_pic_order_cnt_cycle [...] shall be in the range of 0 to 255"
            let count = reader.ue().filter(|count| *count <= 255)?;
            for _ in 0..count {
                reader.se()?;
            }
        }
        _ => {}
    }
    Some(())
}

/// Takes out emulation prevention bytes (§7.4.1): the 3 after two zeros. What does not fit is left out.
fn unescape(escaped: &[u8], out: &mut [u8]) -> usize {
    let (mut len, mut zeros) = (0, 0);
    for byte in escaped {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(room) = out.get_mut(len) else { break };
        *room = *byte;
        len += 1;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(payload: &[u8]) -> bool {
        marks(payload).begins()
    }

    #[test]
    fn single_units_are_told_by_their_type() {
        assert!(begins(&[0x67, 0x42]));
        // An IDR slice whose parameter set is not there; a P slice, a PPS, SEI, access unit delimiter.
        for header in [0x65, 0x41, 0x68, 0x06, 0x09] {
            assert!(!begins(&[header, 0x80]));
        }
        assert!(marks(&[0x65, 0x80]).is_key);
    }

    #[test]
    fn a_picture_starts_with_its_first_slice_or_what_stands_before() {
        for start in [&[0x41, 0x9a][..], &[0x06, 1], &[0x09, 1], &[0x5c, 0x81, 0x9a], &[0x78, 0, 2, 0x41, 0x80]] {
            assert!(marks(start).is_start, "{start:x?}");
        }
        for inner in [&[0x41, 0x1a][..], &[0x68, 1], &[0x5c, 0x81, 0x1a], &[0x5c, 0x01, 0x9a], &[0x5c, 0x41, 0x9a]] {
            assert!(!marks(inner).is_start, "{inner:x?}");
        }
    }

    #[test]
    fn an_aggregate_begins_with_any_of_its_units() {
        assert!(begins(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68]));
        assert!(begins(&[0x78, 0, 0, 0, 1, 0x09, 0, 2, 0x67, 1, 0, 2, 0x65, 0x80]));
        assert!(!begins(&[0x78, 0, 1, 0x68, 0, 1, 0x41]));
        // Sizes that run over the packet.
        assert!(!begins(&[0x78, 0, 3, 0x67, 1]));
        assert!(!begins(&[0x78, 0xff, 0xff]));
        assert!(!begins(&[0x78, 0]));
    }

    #[test]
    fn only_the_first_fragment_begins() {
        assert!(begins(&[0x7c, 0x87, 1]));
        assert!(marks(&[0x7c, 0x85, 0x80]).is_key);
        assert!(!begins(&[0x7c, 0x07, 1]));
        assert!(!begins(&[0x7c, 0x47, 1]));
        assert!(!begins(&[0x7c, 0x81, 1]));
        assert!(!begins(&[0x7c]));
    }

    /// Writes the bits of a text of ones and zeros, with emulation prevention.
    fn sps(profile: u8, fields: &str) -> Vec<u8> {
        let mut bits: String = format!("{profile:08b}{:08b}{:08b}", 0, 31);
        bits.extend(fields.chars().filter(|bit| *bit != ' '));
        // rbsp_trailing_bits.
        bits.push('1');
        while !bits.len().is_multiple_of(8) {
            bits.push('0');
        }
        let mut out = vec![0x67];
        for byte in bits.as_bytes().chunks(8) {
            let byte = byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
            if out.ends_with(&[0, 0]) && byte <= 3 {
                out.push(3);
            }
            out.push(byte);
        }
        out
    }

    fn ue(value: u32) -> String {
        let bits = format!("{:b}", value + 1);
        format!("{}{bits} ", "0".repeat(bits.len() - 1))
    }

    #[test]
    fn the_size_of_a_baseline_stream_is_read() {
        // 80 by 45 macroblocks: 1280 by 720, no cropping; sps id 0, frame_num 4 bits, order count type 2, one reference.
        let fields = [ue(0), ue(0), ue(2), ue(1), "0".into(), ue(79), ue(44), "1 1 0 0".into()].concat();
        assert_eq!(keyframe_sizes(&sps(66, &fields)), Some(Sizes::one((1280, 720))));
        // 1080 lines are 68 macroblocks cropped by 4 units of two lines; order count types 0 and 1.
        for order in [ue(0) + &ue(4), ue(1) + "1 1 010" + &ue(2) + "1 011"] {
            let fields = [ue(0), ue(0), order, ue(1), "0".into(), ue(119), ue(67), "1 1 1".into()].concat();
            let fields = fields + &[ue(0), ue(0), ue(0), ue(4)].concat() + "0";
            assert_eq!(keyframe_sizes(&sps(66, &fields)), Some(Sizes::one((1920, 1080))), "{fields}");
        }
    }

    #[test]
    fn high_profiles_and_interlaced_streams_are_read() {
        // Chroma 4:4:4 with one plane each; depths; a first scaling list that ends after its first value.
        let chroma = [ue(3), "1".into(), ue(0), ue(0), "0".into(), "1 1".into(), ue(16), "0".repeat(11)].concat();
        let rest = [ue(0), ue(2), ue(1), "0".into(), ue(19), ue(7), "0 0 1 1".into(), ue(1), ue(1), ue(2), ue(2)];
        let fields = ue(0) + &chroma + &rest.concat() + "0";
        // 320 less 2, and two fields of 8 macroblocks, 256 less 4 units of two lines.
        assert_eq!(keyframe_sizes(&sps(244, &fields)), Some(Sizes::one((318, 248))));
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        let mut out = [0; 8];
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 0, 3, 3], &mut out), 7);
        assert_eq!(out[..7], [0, 0, 1, 0, 0, 0, 3]);
        assert_eq!(unescape(&[1; 20], &mut out), 8);
    }

    #[test]
    fn a_size_that_makes_no_sense_is_none() {
        let cropped =
            [ue(0), ue(0), ue(2), ue(1), "0".into(), ue(0), ue(0), "1 1 1".into(), ue(9), ue(0), ue(0), ue(0)];
        assert_eq!(keyframe_sizes(&sps(66, &cropped.concat())), None);
        assert_eq!(keyframe_sizes(&[0x67, 66]), None);
        assert_eq!(keyframe_sizes(&[0x41, 66]), None);
    }
}
