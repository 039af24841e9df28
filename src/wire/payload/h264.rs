//! H.264 (RFC 6184).

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether a sequence parameter set or a slice of an IDR picture begins here.
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    let Some((&header, rest)) = payload.split_first() else { return false };
    match header & 0x1f {
        STAP_A => aggregated(rest).any(begins),
        // RFC 6184 §5.8: the FU header has the S bit and the type of the fragmented unit.
        FU_A => rest.first().is_some_and(|&fu_header| fu_header & 0x80 != 0 && begins(fu_header)),
        _ => begins(header),
    }
}

/// By the type in the lowest five bits of a NAL unit or FU header.
fn begins(header: u8) -> bool {
    matches!(header & 0x1f, NAL_IDR | NAL_SPS)
}

/// Headers of the units in a STAP-A (RFC 6184 §5.7.1): a 16-bit size before each. A truncated unit ends the list.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (size, after) = rest.split_first_chunk()?;
        let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        rest = after;
        // A unit of size 0 has no header; type 0 is unspecified and begins nothing.
        Some(unit.first().copied().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_units_are_told_by_their_type() {
        assert!(is_keyframe_start(&[0x67, 0x42]));
        assert!(is_keyframe_start(&[0x65]));
        // A P slice, a PPS, SEI, access unit delimiter.
        for header in [0x41, 0x68, 0x06, 0x09] {
            assert!(!is_keyframe_start(&[header, 1]));
        }
    }

    #[test]
    fn an_aggregate_begins_with_any_of_its_units() {
        assert!(is_keyframe_start(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68]));
        assert!(is_keyframe_start(&[0x78, 0, 0, 0, 1, 0x09, 0, 2, 0x65, 1]));
        assert!(!is_keyframe_start(&[0x78, 0, 1, 0x68, 0, 1, 0x41]));
        // Sizes that run over the packet.
        assert!(!is_keyframe_start(&[0x78, 0, 3, 0x67, 1]));
        assert!(!is_keyframe_start(&[0x78, 0xff, 0xff]));
        assert!(!is_keyframe_start(&[0x78, 0]));
    }

    #[test]
    fn only_the_first_fragment_begins() {
        assert!(is_keyframe_start(&[0x7c, 0x85, 1]));
        assert!(!is_keyframe_start(&[0x7c, 0x05, 1]));
        assert!(!is_keyframe_start(&[0x7c, 0x45, 1]));
        assert!(!is_keyframe_start(&[0x7c, 0x81, 1]));
        assert!(!is_keyframe_start(&[0x7c]));
    }
}
