//! Packets in order made frames: what a decoder gets for one moment.
//!
//! VP8 (RFC 7741) and VP9 (RFC 9628) as they are, a VP9 picture of several spatial layers as a superframe; H.264 (RFC 6184)
//! with start codes (ITU-T H.264 Annex B); AV1 as a temporal unit whose OBUs have sizes (AV1 §7.5, §5.3.1). Owns: the
//! frame under way. Promises: what comes out can be decoded by who has got all before it since a keyframe; after a gap
//! nothing comes until the next one. Forbids: times, files.

use std::time::Instant;

use super::reorder::Taken;
use crate::base::format::Format;
use crate::base::ids::Ssrc;
use crate::wire::bits::BitReader;
use crate::wire::payload::{self, av1, vp8, vp9};

/// A frame larger than this is none: a keyframe of 8K takes a few megabytes.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// ITU-T H.264 Annex B.
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// RFC 6184 §5.2.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// An OBU header of type OBU_TEMPORAL_DELIMITER with a size, and the size (AV1 §5.3.2).
const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0];
/// Types of OBUs that are not stored (AV1 RTP §5).
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_TILE_LIST: u8 = 8;

/// A whole picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub format: Format,
    /// Whose timestamps it has.
    pub source: Ssrc,
    /// RTP timestamp.
    pub timestamp: u32,
    /// When its first packet came.
    pub arrived_at: Instant,
    /// A decoder may begin with it.
    pub is_key: bool,
    /// Width and height, where it tells them.
    pub size: Option<(u16, u16)>,
    /// What a decoder gets.
    pub data: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Assembler {
    frame: Option<Frame>,
    /// Where the spatial layers of a VP9 picture begin.
    layers: Vec<usize>,
    /// An OBU or a fragmented unit whose end is to come.
    part: Vec<u8>,
    needs_keyframe: bool,
    /// Keyframes by their packets that were none by their own bytes.
    noise: u32,
}

impl Default for Assembler {
    fn default() -> Self {
        Self { frame: None, layers: Vec::new(), part: Vec::new(), needs_keyframe: true, noise: 0 }
    }
}

impl Assembler {
    /// The next packet. What it completes: the frame before, where that had no mark at its end, and its own.
    pub fn handle_packet(&mut self, packet: &Taken) -> [Option<Frame>; 2] {
        let meta = &packet.meta;
        let is_same = |frame: &Frame| {
            frame.timestamp == meta.timestamp && frame.source == meta.source && frame.format == meta.format
        };
        let before = if self.frame.as_ref().is_some_and(is_same) { None } else { self.finish() };
        if self.frame.is_none() {
            let begins = meta.marks.begins();
            if !begins && (self.needs_keyframe || !meta.marks.is_start) {
                self.needs_keyframe = true;
                return [before, None];
            }
            let size = if begins { payload::keyframe_size(meta.format, &packet.payload) } else { None };
            let data = if matches!(meta.format, Format::Av1 { .. }) { TEMPORAL_DELIMITER.to_vec() } else { Vec::new() };
            self.layers.clear();
            self.part.clear();
            self.frame = Some(Frame {
                format: meta.format,
                source: meta.source,
                timestamp: meta.timestamp,
                arrived_at: packet.arrived_at,
                is_key: begins,
                size,
                data,
            });
        }
        if self.add(packet).is_none() {
            self.handle_gap();
            return [before, None];
        }
        [before, if meta.marker { self.finish() } else { None }]
    }

    /// Something is missing.
    pub fn handle_gap(&mut self) {
        self.frame = None;
        self.needs_keyframe = true;
    }

    /// Nothing comes out before a keyframe does.
    pub fn needs_keyframe(&self) -> bool {
        self.needs_keyframe
    }

    /// Its keyframes cannot be read: the publisher encrypts them for others than us.
    pub fn is_noise(&self) -> bool {
        self.noise > 1
    }

    /// `None` where the payload makes no sense.
    fn add(&mut self, packet: &Taken) -> Option<()> {
        let (frame, payload) = (self.frame.as_mut()?, &packet.payload[..]);
        if frame.data.len() + self.part.len() + payload.len() > FRAME_BYTES_MAX {
            return None;
        }
        match frame.format {
            Format::Vp8 => frame.data.extend(vp8::body(payload)?),
            Format::Vp9 { .. } => {
                if packet.meta.marks.is_start {
                    self.layers.push(frame.data.len());
                }
                frame.data.extend(vp9::body(payload)?);
            }
            Format::H264 { .. } => add_h264(&mut frame.data, &mut self.part, payload)?,
            Format::Av1 { .. } => add_av1(&mut frame.data, &mut self.part, payload)?,
            _ => return None,
        }
        Some(())
    }

    fn finish(&mut self) -> Option<Frame> {
        let mut frame = self.frame.take()?;
        if !self.part.is_empty() {
            self.needs_keyframe = true;
            return None;
        }
        if self.layers.len() > 1 {
            add_superframe_index(&mut frame.data, &self.layers);
        }
        if frame.is_key {
            if !is_readable(&frame) {
                self.noise += 1;
                self.needs_keyframe = true;
                return None;
            }
            if frame.size.is_none() && matches!(frame.format, Format::Vp9 { .. }) {
                frame.size = vp9_size(&frame.data);
            }
            (self.noise, self.needs_keyframe) = (0, false);
        }
        Some(frame)
    }
}

/// Whether a keyframe is one by its own first bytes, too. Those that are found by such bytes are.
fn is_readable(frame: &Frame) -> bool {
    match frame.format {
        // VP9 §6.2: frame_marker 2, and behind the first byte of profiles 0 to 2 the sync code.
        Format::Vp9 { profile: 0..=2 } => {
            frame.data.first().is_some_and(|byte| byte >> 6 == 2) && frame.data.get(1..4) == Some(&[0x49, 0x83, 0x42])
        }
        Format::Av1 { .. } => frame.data.get(2).is_some_and(|header| *header & 0x81 == 0 && header >> 3 == 1),
        _ => true,
    }
}

/// The size in a VP9 keyframe's own header (VP9 §6.2), for senders that leave it out of the descriptor.
fn vp9_size(data: &[u8]) -> Option<(u16, u16)> {
    let mut reader = BitReader::new(data);
    reader.skip(2)?;
    let profile = reader.bits(1)? | reader.bits(1)? << 1;
    // A reserved bit of profile 3; four flags, of which the second says that it is a keyframe; the sync code.
    reader.skip(usize::from(profile == 3) + 4 + 24)?;
    if profile >= 2 {
        reader.skip(1)?;
    }
    const SRGB: u32 = 7;
    let is_rgb = reader.bits(3)? == SRGB;
    let subsampling = if profile & 1 == 1 { 3 } else { 0 };
    reader.skip(match is_rgb {
        true => subsampling / 3,
        false => 1 + subsampling,
    })?;
    let (width, height) = (reader.bits(16)? + 1, reader.bits(16)? + 1);
    Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
}

fn add_h264(data: &mut Vec<u8>, part: &mut Vec<u8>, payload: &[u8]) -> Option<()> {
    let mut add = |unit: &[u8]| {
        data.extend(START_CODE);
        data.extend(unit);
    };
    let (header, rest) = payload.split_first()?;
    match header & 0x1f {
        1..STAP_A => add(payload),
        STAP_A => {
            let mut rest = rest;
            while let Some((len, behind)) = rest.split_first_chunk() {
                let (unit, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
                add(unit);
                rest = behind;
            }
        }
        // RFC 6184 §5.8: NRI of the indicator and type of the FU header make the unit's own header.
        FU_A => {
            let (fu, body) = rest.split_first()?;
            if fu & 0x80 != 0 {
                part.clear();
                part.push(header & 0xe0 | fu & 0x1f);
            } else if part.is_empty() {
                return None;
            }
            part.extend(body);
            if fu & 0x40 != 0 {
                add(part);
                part.clear();
            }
        }
        _ => return None,
    }
    Some(())
}

fn add_av1(data: &mut Vec<u8>, part: &mut Vec<u8>, payload: &[u8]) -> Option<()> {
    for (element, is_continued, goes_on) in av1::elements(payload) {
        if is_continued == part.is_empty() {
            return None;
        }
        part.extend(element);
        if !goes_on {
            add_obu(data, part)?;
            part.clear();
        }
    }
    Some(())
}

/// An OBU with its size, which on the way it need not have (AV1 §5.3.2).
fn add_obu(data: &mut Vec<u8>, obu: &[u8]) -> Option<()> {
    const HAS_SIZE: u8 = 0x02;
    let header = *obu.first()?;
    let head_len = 1 + usize::from(header >> 2 & 1);
    let (head, mut body) = obu.split_at_checked(head_len)?;
    if header & HAS_SIZE != 0 {
        let (len, behind) = av1::leb128(body)?;
        body = behind.get(..len)?;
    }
    if matches!(header >> 3 & 0x0f, OBU_TEMPORAL_DELIMITER | OBU_TILE_LIST) {
        return Some(());
    }
    data.push(header | HAS_SIZE);
    data.extend(&head[1..]);
    let mut len = body.len();
    while len >= 0x80 {
        data.push(len as u8 | 0x80);
        len >>= 7;
    }
    data.push(len as u8);
    data.extend(body);
    Some(())
}

/// VP9 Annex B: sizes of the frames between two equal bytes that say how many there are (three bits) and how many bytes
/// each size has (two bits).
fn add_superframe_index(data: &mut Vec<u8>, starts: &[usize]) {
    let starts = &starts[..starts.len().min(8)];
    let ends = starts[1..].iter().copied().chain([data.len()]);
    let sizes: Vec<u32> = starts.iter().zip(ends).map(|(start, end)| (end - start) as u32).collect();
    let marker = 0xc0 | 0x03 << 3 | (sizes.len() - 1) as u8;
    data.push(marker);
    sizes.iter().for_each(|size| data.extend(size.to_le_bytes()));
    data.push(marker);
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
