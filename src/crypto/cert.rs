//! The DTLS certificate and its fingerprint (RFC 8122).
//!
//! Owns: our key pair, made at start and never stored. Identity in WebRTC is the fingerprint in the SDP, not a name.

use std::fmt;

use aws_lc_rs::digest;

use crate::wire::sdp::{Fingerprint, HashFunction};

/// Our certificate and its private key.
#[derive(Clone)]
pub struct Certificate {
    inner: dimpl::DtlsCertificate,
}

/// Why no certificate could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate could not be generated")]
pub struct CertificateError;

impl Certificate {
    /// A fresh self-signed ECDSA P-256 certificate.
    // RFC 8827 §6.5: every implementation supports ECDHE_ECDSA with P-256, so one certificate serves all.
    pub fn generate() -> Result<Self, CertificateError> {
        dimpl::certificate::generate_self_signed_certificate().map(|inner| Self { inner }).map_err(|_| CertificateError)
    }

    /// The certificate in DER form.
    pub fn der(&self) -> &[u8] {
        &self.inner.certificate
    }

    /// What our SDP announces.
    pub fn fingerprint_sha256(&self) -> Fingerprint {
        Fingerprint::of(HashFunction::Sha256, self.der())
    }

    /// Certificate and key as the DTLS library takes them.
    pub(crate) fn to_dimpl(&self) -> dimpl::DtlsCertificate {
        self.inner.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint_sha256())
    }
}

// The value is `wire`'s; only here it meets certificates, so only here it hashes.
impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(algorithm: HashFunction, der: &[u8]) -> Self {
        let digest = match algorithm {
            HashFunction::Sha256 => &digest::SHA256,
            HashFunction::Sha384 => &digest::SHA384,
            HashFunction::Sha512 => &digest::SHA512,
        };
        Self::new(algorithm, digest::digest(digest, der).as_ref()).expect("a digest is as long as its hash")
    }

    /// Whether `der` is the certificate this fingerprint was taken of.
    pub fn matches(&self, der: &[u8]) -> bool {
        Self::of(self.algorithm(), der) == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_fingerprint_survives_the_sdp() {
        let certificate = Certificate::generate().expect("generated");
        let announced = certificate.fingerprint_sha256();
        let text = announced.to_string();
        assert!(text.starts_with("sha-256 "));
        assert_eq!(text.len(), "sha-256 ".len() + 32 * 3 - 1);
        let heard: Fingerprint = text.to_lowercase().parse().expect("parsed");
        assert_eq!(heard, announced);
        assert!(heard.matches(certificate.der()));
        assert!(!heard.matches(Certificate::generate().expect("generated").der()));
    }

    #[test]
    fn the_digest_of_abc_is_the_known_one() {
        let print = Fingerprint::of(HashFunction::Sha256, b"abc");
        assert!(print.to_string().starts_with("sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE"));
    }

    #[test]
    fn longer_hashes_are_taken() {
        for algorithm in [HashFunction::Sha384, HashFunction::Sha512] {
            let print = Fingerprint::of(algorithm, b"der");
            assert_eq!(Fingerprint::parse(&print.to_string()), Ok(print));
        }
    }
}
