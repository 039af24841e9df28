//! IVF: a header and frames, each with its length and time.
//!
//! Times count in the RTP clock of video, 90,000 a second. The header's last field is what players read as the duration in
//! such units; it is 0 until it is known, which they take for unknown. Owns: nothing but the layout.

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Bytes before each frame.
pub const FRAME_HEADER_BYTES: usize = 12;
/// Where the header keeps the duration.
pub const DURATION_AT: u64 = 24;
/// Units of time in a second.
pub const RATE_HZ: u32 = 90_000;

/// The header of a file.
pub fn header(fourcc: [u8; 4], (width, height): (u16, u16)) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..4].copy_from_slice(b"DKIF");
    out[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    out[8..12].copy_from_slice(&fourcc);
    out[12..14].copy_from_slice(&width.to_le_bytes());
    out[14..16].copy_from_slice(&height.to_le_bytes());
    out[16..20].copy_from_slice(&RATE_HZ.to_le_bytes());
    out[20..24].copy_from_slice(&1u32.to_le_bytes());
    out
}

/// What stands before a frame of so many bytes.
pub fn frame_header(len: usize, time: u64) -> [u8; FRAME_HEADER_BYTES] {
    let mut out = [0; FRAME_HEADER_BYTES];
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out[4..].copy_from_slice(&time.to_le_bytes());
    out
}

/// Length and time of a frame by what stands before it.
pub fn parse_frame_header(bytes: &[u8; FRAME_HEADER_BYTES]) -> (usize, u64) {
    let [a, b, c, d, time @ ..] = *bytes;
    (u32::from_le_bytes([a, b, c, d]) as usize, u64::from_le_bytes(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_format() {
        let head = header(*b"VP80", (640, 360));
        assert_eq!(&head[..16], b"DKIF\0\0\x20\0VP80\x80\x02\x68\x01");
        assert_eq!(head[16..], [0x90, 0x5f, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let frame = frame_header(0x0102, 0x0304);
        assert_eq!(frame, [2, 1, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse_frame_header(&frame), (0x0102, 0x0304));
    }
}
