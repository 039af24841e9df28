//! What a packet says about the picture it belongs to, and the qualities a track comes in.
//!
//! A *picture* is what is shown at one moment; a *frame* is one spatial layer of it; an *encoding* is one stream of a
//! simulcast (W3C's word). Owns: plain values. Forbids: knowing how a codec writes them.

/// Streams of one simulcast: browsers send three at most, and one more finds its place.
pub const ENCODINGS_MAX: usize = 4;

/// One quality of a track. Indices only name it: which encoding is the better one is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// Index of the simulcast stream, in the order of its negotiation.
    pub encoding: u8,
    /// Spatial layer within it.
    pub spatial: u8,
    /// Temporal layer within that.
    pub temporal: u8,
}

/// What the head of a packet says about its frame; what is unknown is as if there were one layer only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMarks {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// The frame's first packet.
    pub is_start: bool,
    /// The frame's last packet, where the payload says so. The picture's last one has the RTP marker in any case.
    pub is_end: bool,
    /// Its picture needs none before: a decoder may begin with the picture's first frame. Some formats say it in the
    /// frame's first packet only.
    pub is_key: bool,
    /// A decoder that got lower temporal layers only may take this one from here on. In a frame of temporal layer 0: all
    /// higher ones after it.
    pub is_switch_up: bool,
    /// The frame builds on the spatial layer below, in its own picture.
    pub needs_lower: bool,
    /// The frame builds on its own spatial layer in an earlier picture.
    pub needs_earlier: bool,
    /// Number of the picture in the payload descriptor (VP8, VP9).
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts pictures of the lowest temporal layer (VP8, VP9).
    pub tl0: Option<u8>,
    /// Frame number of the dependency descriptor.
    pub frame_number: Option<u16>,
    /// Decode targets of the dependency descriptor that the frame belongs to, as bits. 0 without a descriptor.
    pub targets: u32,
    /// Decode targets that may be begun with this frame, as bits.
    pub switches: u32,
}

/// Decode targets that a dependency descriptor can name.
pub const DECODE_TARGETS_MAX: usize = 32;

/// What a receiver may ask of a stream with a dependency descriptor: each decode target is a set of frames that can be
/// decoded without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeTargets {
    /// How many there are; places beyond are empty.
    pub count: u8,
    /// Highest spatial and temporal layer of each.
    pub layers: [(u8, u8); DECODE_TARGETS_MAX],
    /// Targets, as bits, all of whose frames belong to this one, too: who got this one may go on with any of them.
    pub covers: [u32; DECODE_TARGETS_MAX],
    /// Targets that the sender sends now, as bits.
    pub active: u32,
}

impl DecodeTargets {
    /// None at all.
    pub const NONE: Self =
        Self { count: 0, layers: [(0, 0); DECODE_TARGETS_MAX], covers: [0; DECODE_TARGETS_MAX], active: 0 };

    /// All of them, as bits.
    pub fn all(&self) -> u32 {
        ((1u64 << self.count.min(DECODE_TARGETS_MAX as u8)) - 1) as u32
    }
}

/// Which decode targets can still be decoded where others were cut off, as the dependency descriptor says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveTargets {
    /// The targets, as bits; the first one is the lowest bit.
    pub mask: u32,
    /// How many targets there are with the others.
    pub count: u8,
}

/// A picture's number as payload descriptors have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// The number.
    pub value: u16,
    /// It has 15 bits and not 7.
    pub is_long: bool,
}

impl PictureId {
    /// Reads one; the first bit says how long it is (RFC 7741 §4.2, RFC 9628 §4.2). `None` where it is cut short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        if first & 0x80 == 0 {
            return Some(Self { value: u16::from(first), is_long: false });
        }
        Some(Self { value: u16::from_be_bytes([first & 0x7f, *bytes.get(1)?]), is_long: true })
    }

    /// Bytes it takes.
    pub fn encoded_len(self) -> usize {
        1 + usize::from(self.is_long)
    }

    /// The number so many later, in as many bits.
    pub fn shifted(self, by: u16) -> Self {
        let bits = if self.is_long { 0x7fff } else { 0x7f };
        Self { value: self.value.wrapping_add(by) & bits, is_long: self.is_long }
    }

    /// Writes it to the front of `out`, which has [`encoded_len`](Self::encoded_len) bytes at least; else nothing.
    pub fn write(self, out: &mut [u8]) {
        if self.is_long {
            if let Some(room) = out.first_chunk_mut() {
                *room = (self.value | 0x8000).to_be_bytes();
            }
        } else if let Some(room) = out.first_mut() {
            *room = self.value as u8 & 0x7f;
        }
    }
}

/// Spatial layers whose sizes can be told: as many as three bits can number.
pub const SIZES_MAX: usize = 8;

/// Sizes of a picture's spatial layers, the lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// How many there are.
    pub count: u8,
    /// Width and height of each.
    pub layers: [(u16, u16); SIZES_MAX],
}

impl Sizes {
    /// That of a picture without spatial layers.
    pub fn one(size: (u16, u16)) -> Self {
        let mut layers = [(0, 0); SIZES_MAX];
        layers[0] = size;
        Self { count: 1, layers }
    }

    /// Width and height of each layer, the lowest first.
    pub fn layers(&self) -> &[(u16, u16)] {
        &self.layers[..usize::from(self.count).min(SIZES_MAX)]
    }

    /// The size of the highest layer.
    pub fn highest(&self) -> Option<(u16, u16)> {
        self.layers.get(usize::from(self.count).checked_sub(1)?).copied()
    }
}

impl FrameMarks {
    /// What a packet is that stands for itself, as all of audio.
    pub const WHOLE: Self = Self {
        spatial: 0,
        temporal: 0,
        is_start: true,
        is_end: true,
        is_key: true,
        is_switch_up: true,
        needs_lower: false,
        needs_earlier: false,
        picture_id: None,
        tl0: None,
        frame_number: None,
        targets: 0,
        switches: 0,
    };

    /// A decoder that knows nothing yet can begin with this packet.
    pub fn begins(&self) -> bool {
        self.is_start && self.is_key && self.spatial == 0
    }
}
