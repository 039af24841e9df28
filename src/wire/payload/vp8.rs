//! VP8 (RFC 7741).

/// Whether the first partition of a key frame begins here.
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    let Some((&descriptor, mut rest)) = payload.split_first() else { return false };
    // RFC 7741 §4.2: S is the start of a VP8 partition, PID which one.
    let is_frame_start = descriptor & 0x10 != 0 && descriptor & 0x07 == 0;
    if !is_frame_start {
        return false;
    }
    if descriptor & 0x80 != 0 {
        let Some((&extended, after)) = rest.split_first() else { return false };
        let has_picture_id = extended & 0x80 != 0;
        let has_tl0_pic_idx = extended & 0x40 != 0;
        let has_tid_or_keyidx = extended & 0x30 != 0;
        // The M bit of the first picture id byte makes it two.
        let is_long_id = after.first().is_some_and(|byte| byte & 0x80 != 0);
        let picture_id_len = if has_picture_id { 1 + usize::from(is_long_id) } else { 0 };
        let len = picture_id_len + usize::from(has_tl0_pic_idx) + usize::from(has_tid_or_keyidx);
        let Some(after) = after.get(len..) else { return false };
        rest = after;
    }
    // RFC 7741 §4.3: P, the inverse key frame flag, is the lowest bit of the payload header.
    rest.first().is_some_and(|byte| byte & 0x01 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_begin_keyframes() {
        // RFC 7741 §4.6.1 and §4.6.4: X=1 S=1 PID=0, I=1, picture ids 17 and 4711; then §4.6.1's P=0.
        assert!(is_keyframe_start(&[0x90, 0x80, 17, 0x10]));
        assert!(is_keyframe_start(&[0x90, 0x80, 0x92, 0x67, 0x10]));
        assert!(!is_keyframe_start(&[0x90, 0x80, 17, 0x11]));
    }

    #[test]
    fn every_combination_of_optional_fields_is_skipped() {
        for flags in 0..16u8 {
            for is_long_id in [false, true] {
                let mut payload = vec![0x90, flags << 4];
                if flags & 0b1000 != 0 {
                    payload.extend(if is_long_id { &[0x81, 0xff][..] } else { &[0x7f][..] });
                }
                payload.extend((flags & 0b0100 != 0).then_some(0xff));
                payload.extend((flags & 0b0011 != 0).then_some(0xff));
                assert!(!is_keyframe_start(&payload), "{flags:04b}: nothing after the descriptor");
                payload.push(0xfe);
                assert!(is_keyframe_start(&payload), "{flags:04b}");
                *payload.last_mut().expect("bytes") = 0x01;
                assert!(!is_keyframe_start(&payload), "{flags:04b}");
            }
        }
    }

    #[test]
    fn the_middle_of_a_frame_begins_nothing() {
        assert!(is_keyframe_start(&[0x10, 0x00]));
        assert!(!is_keyframe_start(&[0x00, 0x00]));
        assert!(!is_keyframe_start(&[0x11, 0x00]));
        assert!(!is_keyframe_start(&[0x10]));
    }
}
