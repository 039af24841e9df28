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
    /// The frame's last packet. The picture's last one has the RTP marker.
    pub is_end: bool,
    /// Its picture needs none before: a decoder may begin with the picture's first frame.
    pub is_key: bool,
    /// A decoder that got lower temporal layers only may take this one from here on.
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

/// A picture's number as payload descriptors have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// The number.
    pub value: u16,
    /// It has 15 bits and not 7.
    pub is_long: bool,
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
