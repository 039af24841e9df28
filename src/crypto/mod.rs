//! SRTP and certificates; everything keyed.
//!
//! Owns: key derivation, the suites' ciphers, replay windows, our certificate and the peers' fingerprints.
//! Promises: no allocation per packet; nothing from an unauthenticated packet changes state.
//! Forbids: sockets, clocks, sessions.

pub mod aead;
pub mod cert;
mod hmac;
pub mod kdf;
pub mod replay;
pub mod srtp;
