//! What a test packet carries: a VP8 or Opus payload with its source, a number, a time and a check at its end.
//!
//! Promises: what `write` wrote, `read` accepts, and nothing else; a payload cut short or mixed up is noticed.

/// VP8 descriptor (4 bytes), frame tag (3) and keyframe header (7); the other packets of a frame have filler there.
const VP8_BYTES: usize = 14;
const MAGIC: u32 = 0x7472_616d;
const STAMP_BYTES: usize = 4 + 4 + 8 + 8;
const CHECK_BYTES: usize = 8;
/// Makes the check differ from the number itself.
const CHECK_XOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The shortest payload that holds all of it, in bytes.
pub const PAYLOAD_BYTES_MIN: usize = VP8_BYTES + STAMP_BYTES + CHECK_BYTES;

/// One packet's place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which of the run's sources sent it.
    pub source: u32,
    /// Counts the source's packets from 0.
    pub number: u64,
    /// When it was sent, in nanoseconds since the run's epoch.
    pub sent_ns: u64,
}

/// Where a packet lies in its VP8 frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Counts frames; its low 15 bits are the picture id.
    pub number: u64,
    /// The packet is the first one of the frame.
    pub is_start: bool,
    /// The frame is a keyframe.
    pub is_key: bool,
    /// It has no picture id: its descriptor is the shortest there is.
    pub is_bare: bool,
}

/// Fills a payload: VP8 with a frame, Opus without. It must be at least [`PAYLOAD_BYTES_MIN`] long; `None` when it is
/// not.
pub fn write(payload: &mut [u8], stamp: Stamp, frame: Option<Frame>) -> Option<()> {
    let head = payload.get_mut(..VP8_BYTES)?;
    match frame {
        Some(frame) => write_vp8(head, frame)?,
        None => write_opus(head)?,
    }
    let check_at = payload.len().checked_sub(CHECK_BYTES).filter(|&at| at >= VP8_BYTES + STAMP_BYTES)?;
    let (middle, check) = payload.get_mut(VP8_BYTES..)?.split_at_mut(check_at - VP8_BYTES);
    let (magic, rest) = middle.split_at_mut(4);
    magic.copy_from_slice(&MAGIC.to_be_bytes());
    rest.get_mut(..4)?.copy_from_slice(&stamp.source.to_be_bytes());
    rest.get_mut(4..12)?.copy_from_slice(&stamp.number.to_be_bytes());
    rest.get_mut(12..20)?.copy_from_slice(&stamp.sent_ns.to_be_bytes());
    rest.get_mut(20..)?.fill(stamp.number as u8);
    check.copy_from_slice(&check_of(stamp.source, stamp.number).to_be_bytes());
    Some(())
}

/// The stamp of a payload; `None` when it is none of ours or was damaged.
pub fn read(payload: &[u8]) -> Option<Stamp> {
    let stamp = payload.get(VP8_BYTES..VP8_BYTES + STAMP_BYTES)?;
    let word = |at: usize| Some(u64::from_be_bytes(stamp.get(at..at + 8)?.try_into().ok()?));
    let source = u32::from_be_bytes(stamp.get(4..8)?.try_into().ok()?);
    let (number, sent_ns) = (word(8)?, word(16)?);
    let check = payload.get(VP8_BYTES + STAMP_BYTES..)?.last_chunk::<CHECK_BYTES>()?;
    let is_ours = stamp.starts_with(&MAGIC.to_be_bytes()) && u64::from_be_bytes(*check) == check_of(source, number);
    is_ours.then_some(Stamp { source, number, sent_ns })
}

fn check_of(source: u32, number: u64) -> u64 {
    number ^ CHECK_XOR ^ u64::from(source) << 32
}

fn write_opus(out: &mut [u8]) -> Option<()> {
    out.fill(0);
    // RFC 6716 §3.1: configuration 31 (CELT, full band, 20 ms), stereo, one frame.
    *out.first_mut()? = 31 << 3 | 1 << 2;
    Some(())
}

fn write_vp8(out: &mut [u8], frame: Frame) -> Option<()> {
    out.fill(0);
    let picture_id = (frame.number as u16) & 0x7fff;
    // RFC 7741 §4.2: X, then S on the first packet of the only partition; I, and M for a 15-bit picture id.
    let start = if frame.is_start { 0x10 } else { 0x00 };
    let descriptor = [0x80 | start, 0x80, 0x80 | (picture_id >> 8) as u8, picture_id as u8];
    let descriptor = if frame.is_bare { &[start] } else { &descriptor[..] };
    out.get_mut(..descriptor.len())?.copy_from_slice(descriptor);
    let out = out.get_mut(descriptor.len()..)?;
    if frame.is_start {
        // RFC 6386 §9.1: the inverse key frame flag is bit 0, show_frame bit 4; the partition's length matters to nobody.
        *out.first_mut()? = 0x10 | u8::from(!frame.is_key);
        if frame.is_key {
            // RFC 6386 §9.1: the start code, then width 1280 and height 720.
            out.get_mut(3..10)?.copy_from_slice(&[0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline::wire::payload::vp8;

    const STAMP: Stamp = Stamp { source: 9, number: 0x0102_0304_0506, sent_ns: 77 };

    fn payload(len: usize, is_start: bool, is_key: bool) -> Vec<u8> {
        let mut payload = vec![0xee; len];
        write(&mut payload, STAMP, Some(Frame { number: 40_000, is_start, is_key, is_bare: false })).unwrap();
        payload
    }

    #[test]
    fn a_stamp_reads_back() {
        for len in [PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MIN + 1, 1188] {
            assert_eq!(read(&payload(len, true, true)), Some(STAMP), "{len}");
        }
    }

    #[test]
    fn a_payload_cut_short_or_changed_is_noticed() {
        let good = payload(200, true, false);
        for len in 0..good.len() {
            assert_eq!(read(&good[..len]), None, "{len}");
        }
        for at in (VP8_BYTES..VP8_BYTES + 16).chain(192..200) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad), None, "{at}");
        }
    }

    #[test]
    fn a_short_payload_is_refused() {
        let frame = Frame { number: 0, is_start: true, is_key: true, is_bare: false };
        assert_eq!(write(&mut [0; PAYLOAD_BYTES_MIN - 1], STAMP, Some(frame)), None);
    }

    #[test]
    fn sound_has_a_stamp_too() {
        let mut payload = [0xee; 88];
        write(&mut payload, STAMP, None).unwrap();
        assert_eq!(read(&payload), Some(STAMP));
        assert_eq!(payload[0], 0xfc);
    }

    #[test]
    fn a_server_sees_keyframes_where_they_start_and_nowhere_else() {
        assert!(vp8::marks(&payload(200, true, true)).begins());
        assert!(!vp8::marks(&payload(200, false, true)).begins());
        assert!(!vp8::marks(&payload(200, true, false)).begins());
    }

    #[test]
    fn without_a_picture_id_the_descriptor_is_one_byte_and_the_stamp_stays() {
        let mut payload = [0xee; 200];
        let frame = Frame { number: 40_000, is_start: true, is_key: true, is_bare: true };
        write(&mut payload, STAMP, Some(frame)).unwrap();
        // RFC 7741 §4.2: neither X nor anything after it.
        assert_eq!((payload[0], read(&payload)), (0x10, Some(STAMP)));
        assert!(vp8::marks(&payload).begins());
        write(&mut payload, STAMP, Some(Frame { is_start: false, ..frame })).unwrap();
        assert_eq!((payload[0], vp8::marks(&payload).begins()), (0x00, false));
    }
}
