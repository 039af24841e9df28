//! A media packet's numbers and what it says about itself, from its publisher to its subscribers.
//!
//! Owns: plain values, small enough to be copied.

use super::format::Format;
use super::frame::FrameMarks;
use super::ids::Ssrc;

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Extended sequence number of the track's encoding, gaps of absorbed packets closed.
    pub seq: u64,
    /// Publisher's ssrc. Another source counts other timestamps.
    pub source: Ssrc,
    /// Publisher's RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// What the payload is.
    pub format: Format,
    /// Which stream of the track's simulcast it belongs to.
    pub encoding: u8,
    /// What it says about its picture.
    pub marks: FrameMarks,
}

impl PacketMeta {
    /// Of a packet that carries nothing.
    pub const NOTHING: Self = Self {
        seq: 0,
        source: Ssrc(0),
        timestamp: 0,
        marker: false,
        format: Format::Opus,
        encoding: 0,
        marks: FrameMarks::WHOLE,
    };
}
