//! SRTP and certificates; everything keyed.

pub mod aead;
pub mod cert;
pub mod kdf;
pub mod srtp;
