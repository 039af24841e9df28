//! VP8 packets as an encoder writes them and a viewer reads them: descriptor and frame header.
//!
//! Owns: its own reading of RFC 7741 and RFC 6386, so that a misreading in `wire::payload` shows.

/// What stands before the coded bytes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8Head {
    /// The frame begins here (S with partition 0).
    pub is_start: bool,
    /// A keyframe begins here, of this width and height.
    pub key: Option<(u16, u16)>,
    /// PictureID, 15 bits.
    pub picture_id: Option<u16>,
    /// TL0PICIDX.
    pub tl0: Option<u8>,
    /// Temporal layer, and the Y bit: builds on the base layer only.
    pub layer: Option<(u8, bool)>,
}

/// RFC 6386 §9.1: the frame tag of an interframe; the lowest bit is 1.
const DELTA_HEADER: [u8; 3] = [0x11, 0, 0];
/// RFC 6386 §9.1: frame tag and start code of a keyframe; width and height follow.
const KEY_HEADER: [u8; 6] = [0x10, 0, 0, 0x9d, 0x01, 0x2a];

impl Vp8Head {
    /// Appends descriptor and, where a frame begins, its header.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // RFC 7741 §4.2: X, S; then I, L, T.
        out.push(0x80 | if self.is_start { 0x10 } else { 0 });
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        out.push(
            flag(self.picture_id.is_some(), 0x80) | flag(self.tl0.is_some(), 0x40) | flag(self.layer.is_some(), 0x20),
        );
        if let Some(id) = self.picture_id {
            out.extend([0x80 | (id >> 8) as u8, id as u8]);
        }
        out.extend(self.tl0);
        out.extend(self.layer.map(|(tid, is_sync)| tid << 6 | flag(is_sync, 0x20)));
        match self.key {
            _ if !self.is_start => {}
            Some((width, height)) => {
                out.extend_from_slice(&KEY_HEADER);
                out.extend_from_slice(&width.to_le_bytes());
                out.extend_from_slice(&height.to_le_bytes());
            }
            None => out.extend_from_slice(&DELTA_HEADER),
        }
    }

    /// Reads what [`write_to`](Self::write_to) wrote, and how long it is.
    pub fn parse(payload: &[u8]) -> Option<(Self, usize)> {
        let first = *payload.first()?;
        let mut head = Self { is_start: first & 0x17 == 0x10, ..Self::default() };
        let mut at = 1;
        let mut next = || {
            at += 1;
            payload.get(at - 1).copied()
        };
        let extended = if first & 0x80 == 0 { 0 } else { next()? };
        if extended & 0x80 != 0 {
            let high = next()?;
            let is_long = high & 0x80 != 0;
            head.picture_id =
                Some(if is_long { u16::from(high & 0x7f) << 8 | u16::from(next()?) } else { u16::from(high) });
        }
        if extended & 0x40 != 0 {
            head.tl0 = Some(next()?);
        }
        if extended & 0x30 != 0 {
            let byte = next()?;
            head.layer = (extended & 0x20 != 0).then_some((byte >> 6, byte & 0x20 != 0));
        }
        if !head.is_start {
            return Some((head, at));
        }
        if payload.get(at)? & 1 != 0 {
            return Some((head, at + DELTA_HEADER.len()));
        }
        let size: &[u8; 4] = payload.get(at + KEY_HEADER.len()..)?.first_chunk()?;
        // The two highest bits of each are a scale.
        let side = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
        head.key = Some((side(size[0], size[1]), side(size[2], size[3])));
        Some((head, at + KEY_HEADER.len() + size.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::Format;
    use crate::wire::payload::is_keyframe_start;

    #[test]
    fn what_is_written_is_read() {
        for (picture_id, tl0, layer) in
            [(None, None, None), (Some(0x7fff), None, None), (Some(5), Some(255), Some((2, true)))]
        {
            for (is_start, key) in [(false, None), (true, None), (true, Some((1280, 720)))] {
                // A keyframe is of the base layer.
                let layer = layer.map(|(tid, is_sync)| (if key.is_some() { 0 } else { tid }, is_sync));
                let head = Vp8Head { is_start, key, picture_id, tl0, layer };
                let mut bytes = Vec::new();
                head.write_to(&mut bytes);
                assert_eq!(Vp8Head::parse(&bytes), Some((head, bytes.len())));
                bytes.push(1);
                assert_eq!(is_keyframe_start(Format::Vp8, &bytes), key.is_some());
            }
        }
        assert_eq!(Vp8Head::parse(&[]), None);
    }
}
