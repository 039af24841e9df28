//! RTP headers (RFC 3550).
