//! SRTP key derivation (RFC 3711 §4.3).
