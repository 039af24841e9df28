//! RTP header extensions (RFC 8285).

/// A header extension we know; filled in by its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ext {
    /// urn:ietf:params:rtp-hdrext:sdes:mid
    Mid,
}
