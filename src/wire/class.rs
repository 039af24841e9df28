//! What a datagram on the media port is, by its first bytes (RFC 7983, RFC 5761).
//!
//! Promises: a class other than [`Class::Other`] is long enough for that protocol's fixed header; nothing else is known.

/// Shortest RTP packet: the fixed header (RFC 3550 §5.1).
pub const RTP_BYTES_MIN: usize = 12;
/// Shortest RTCP packet: an empty receiver report (RFC 3550 §6.4.2).
pub const RTCP_BYTES_MIN: usize = 8;
/// Shortest STUN message: the header (RFC 8489 §5).
pub const STUN_BYTES_MIN: usize = 20;
/// Shortest DTLS 1.2 record: its header (RFC 6347 §4.1).
pub const DTLS_BYTES_MIN: usize = 13;

/// The protocol a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// STUN.
    Stun,
    /// DTLS.
    Dtls,
    /// Nothing we speak on this port (ZRTP, TURN channels, noise), or too short to be what it begins like.
    Other,
}

/// Sorts a datagram by RFC 7983 §7; media first, since nearly every datagram is media.
#[inline]
pub fn classify(bytes: &[u8]) -> Class {
    let Some(&first) = bytes.first() else { return Class::Other };
    match first {
        128..=191 => classify_media(bytes),
        20..=63 if bytes.len() >= DTLS_BYTES_MIN => Class::Dtls,
        0..=3 if bytes.len() >= STUN_BYTES_MIN => Class::Stun,
        _ => Class::Other,
    }
}

/// Tells RTP from RTCP on one port.
#[inline]
fn classify_media(bytes: &[u8]) -> Class {
    // RFC 5761 §4: RTCP packet types 192 to 223 are where RTP would have the marker bit and payload types 64 to 95,
    // which therefore MUST NOT be used.
    match bytes.get(1) {
        Some(192..=223) if bytes.len() >= RTCP_BYTES_MIN => Class::Rtcp,
        Some(192..=223) => Class::Other,
        Some(_) if bytes.len() >= RTP_BYTES_MIN => Class::Rtp,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (slot, value) in bytes.iter_mut().zip([first, second]) {
            *slot = value;
        }
        bytes
    }

    #[test]
    fn the_first_byte_tells_the_protocol() {
        for first in 0..=255_u8 {
            let expected = match first {
                0..=3 => Class::Stun,
                20..=63 => Class::Dtls,
                128..=191 => Class::Rtp,
                _ => Class::Other,
            };
            assert_eq!(classify(&datagram(first, 96, 64)), expected, "first byte {first}");
        }
    }

    #[test]
    fn the_second_byte_tells_rtcp_from_rtp() {
        for second in 0..=255_u8 {
            let expected = if (192..=223).contains(&second) { Class::Rtcp } else { Class::Rtp };
            assert_eq!(classify(&datagram(0x80, second, 64)), expected, "second byte {second}");
        }
    }

    #[test]
    fn what_is_too_short_is_other() {
        for (first, second, min, class) in [
            (0x80, 96, RTP_BYTES_MIN, Class::Rtp),
            (0x80, 200, RTCP_BYTES_MIN, Class::Rtcp),
            (0, 1, STUN_BYTES_MIN, Class::Stun),
            (22, 254, DTLS_BYTES_MIN, Class::Dtls),
        ] {
            assert_eq!(classify(&datagram(first, second, min)), class);
            for len in 0..min {
                assert_eq!(classify(&datagram(first, second, len)), Class::Other, "{class:?} of {len} bytes");
            }
        }
    }
}
