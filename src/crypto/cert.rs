//! The DTLS certificate and fingerprints (RFC 8122).
