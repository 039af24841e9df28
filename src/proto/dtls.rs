//! The DTLS handshake of one session (RFC 6347, RFC 5764).
