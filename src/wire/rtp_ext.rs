//! RTP header extensions (RFC 8285).
