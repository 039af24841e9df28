//! AV1 (AOM "RTP payload format for AV1").

const OBU_SEQUENCE_HEADER: u8 = 1;

/// Whether a coded video sequence begins here.
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    let Some((&aggregation, rest)) = payload.split_first() else { return false };
    // §4.4: Z Y W W N; Z says that the first element continues one of the packet before.
    if aggregation & 0x80 != 0 {
        return false;
    }
    // §4.4: N "MUST be set to 1 if the packet is the first packet of a coded video sequence".
    if aggregation & 0x08 != 0 {
        return true;
    }
    // Encoders may repeat the sequence header at a keyframe without starting a new sequence. W=1 is the one case in
    // which no length stands before the first element.
    let element_count = aggregation >> 4 & 0x03;
    let element = if element_count == 1 { Some(rest) } else { skip_leb128(rest) };
    // OBU header: a forbidden bit, four bits of type.
    element
        .and_then(|element| element.first())
        .is_some_and(|header| header & 0x80 == 0 && header >> 3 & 0x0f == OBU_SEQUENCE_HEADER)
}

/// What follows a leb128 number, which has at most 8 bytes.
fn skip_leb128(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.iter().take(8).position(|byte| byte & 0x80 == 0)?;
    bytes.get(last + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_n_bit_begins_a_sequence() {
        assert!(is_keyframe_start(&[0x08]));
        assert!(is_keyframe_start(&[0x18, 0x0a]));
        assert!(!is_keyframe_start(&[0x88]));
    }

    #[test]
    fn a_sequence_header_in_front_begins_a_keyframe() {
        assert!(is_keyframe_start(&[0x10, 0x0a]));
        assert!(is_keyframe_start(&[0x20, 2, 0x0a, 0x0b, 0x30]));
        assert!(is_keyframe_start(&[0x00, 0x82, 0x00, 0x0a, 0x0b]));
        // Continued from the packet before; a frame; the forbidden bit; only a length.
        assert!(!is_keyframe_start(&[0x90, 0x0a]));
        assert!(!is_keyframe_start(&[0x10, 0x30]));
        assert!(!is_keyframe_start(&[0x10, 0x8a]));
        assert!(!is_keyframe_start(&[0x20, 2]));
        assert!(!is_keyframe_start(&[0x20, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0a]));
    }
}
