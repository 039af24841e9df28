//! Sequence numbers that do not wrap.

/// Extends a wrapping 16-bit counter to 64 bits: the candidate nearest to `reference` (RFC 3711 §3.3.1 guesses the
/// roll-over counter the same way). Never goes below zero.
pub fn extend_u16(reference: u64, low: u16) -> u64 {
    let delta = i64::from(low.wrapping_sub(reference as u16) as i16);
    let guess = reference as i64 + delta;
    if guess < 0 { guess as u64 & 0xffff } else { guess as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_candidate_wins() {
        assert_eq!(extend_u16(65_535, 0), 65_536);
        assert_eq!(extend_u16(65_536, 65_535), 65_535);
        assert_eq!(extend_u16(5, 3), 3);
        assert_eq!(extend_u16(3 << 16, 0x8001), (3 << 16) - 0x7fff);
    }

    #[test]
    fn before_the_beginning_there_is_nothing() {
        assert_eq!(extend_u16(5, 65_535), 65_535);
    }
}
