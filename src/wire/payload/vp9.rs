//! VP9 (RFC 9628).

/// Whether the base layer of a picture that needs no other picture begins here.
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    let Some((&descriptor, rest)) = payload.split_first() else { return false };
    // RFC 9628 §4.2: I P L F B E V Z.
    let has_picture_id = descriptor & 0x80 != 0;
    let is_inter_predicted = descriptor & 0x40 != 0;
    let has_layer_indices = descriptor & 0x20 != 0;
    let is_frame_start = descriptor & 0x08 != 0;
    if is_inter_predicted || !is_frame_start {
        return false;
    }
    if !has_layer_indices {
        return true;
    }
    // The M bit of the first picture id byte makes it two.
    let is_long_id = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    let picture_id_len = if has_picture_id { 1 + usize::from(is_long_id) } else { 0 };
    // TID U SID D; a higher spatial layer builds on the one below.
    rest.get(picture_id_len).is_some_and(|indices| indices >> 1 & 0x07 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_without_layers_begins_with_p_clear_and_b_set() {
        assert!(is_keyframe_start(&[0x08]));
        assert!(is_keyframe_start(&[0x8c, 0x80, 1]));
        assert!(!is_keyframe_start(&[0x48]));
        assert!(!is_keyframe_start(&[0x04]));
    }

    #[test]
    fn only_the_lowest_spatial_layer_begins_a_picture() {
        for id in [&[0x7f][..], &[0x80, 0xff][..]] {
            for sid in 0..8u8 {
                let mut payload = vec![0xa8];
                payload.extend(id);
                assert!(!is_keyframe_start(&payload), "the layer indices are missing");
                payload.push(0xf1 | sid << 1);
                assert_eq!(is_keyframe_start(&payload), sid == 0);
            }
        }
        assert!(is_keyframe_start(&[0x28, 0x00]));
        assert!(!is_keyframe_start(&[0x28, 0x02]));
    }
}
