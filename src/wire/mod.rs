//! Bytes to values and back: no state, no clock, no allocation while parsing a datagram, no panicking index.

pub(crate) mod be;
pub(crate) mod bits;
pub mod class;
pub mod dependency;
pub mod payload;
pub mod rtcp;
pub mod rtp;
pub mod rtp_ext;
pub mod sdp;
pub mod stun;

/// Why bytes from the network are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than its own length fields say.
    Truncated,
    /// A fixed field has a value its RFC forbids.
    Malformed,
    /// Well-formed, but of a kind we do not speak.
    Unsupported,
}
