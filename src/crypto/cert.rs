//! The DTLS certificate and fingerprints (RFC 8122).
//!
//! Owns: our key pair, made at start and never stored. Identity in WebRTC is the fingerprint in the SDP, not a name.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

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
        Fingerprint::of(FingerprintAlgorithm::Sha256, self.der())
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

/// Hash of a fingerprint. SHA-1 and MD5 are refused: RFC 8122 §5 forbids new uses of MD2 and MD5, and a second preimage
/// is all that stands between a peer and an impostor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FingerprintAlgorithm {
    /// `sha-256`, which every WebRTC endpoint speaks (RFC 8122 §5).
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl FingerprintAlgorithm {
    /// The IANA hash name, as SDP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// Longest digest accepted, in bytes.
const DIGEST_MAX: usize = 64;

/// The hash of a certificate, as `a=fingerprint` carries it (RFC 8122 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    algorithm: FingerprintAlgorithm,
    /// Zeros behind the digest.
    bytes: [u8; DIGEST_MAX],
}

/// Why an `a=fingerprint` value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A hash that no longer protects (sha-1, md5).
    #[error("the fingerprint's hash is too weak: sha-256, sha-384 or sha-512 is needed")]
    WeakAlgorithm,
    /// A hash this server does not know.
    #[error("the fingerprint's hash is unknown: sha-256, sha-384 or sha-512 is needed")]
    UnknownAlgorithm,
    /// Not `hash-func SP 2UHEX *(":" 2UHEX)`, or not as long as its hash.
    #[error("the fingerprint is malformed")]
    Malformed,
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(algorithm: FingerprintAlgorithm, der: &[u8]) -> Self {
        let hash = digest::digest(algorithm.digest(), der);
        let mut bytes = [0; DIGEST_MAX];
        for (to, from) in bytes.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Self { algorithm, bytes }
    }

    /// Parses the value of `a=fingerprint`, e.g. `sha-256 AB:CD:..`; case does not matter.
    pub fn parse(value: &str) -> Result<Self, FingerprintError> {
        let (name, digits) = value.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
        let algorithm = match name.to_ascii_lowercase().as_str() {
            "sha-256" => FingerprintAlgorithm::Sha256,
            "sha-384" => FingerprintAlgorithm::Sha384,
            "sha-512" => FingerprintAlgorithm::Sha512,
            "sha-1" | "md5" | "md2" => return Err(FingerprintError::WeakAlgorithm),
            _ => return Err(FingerprintError::UnknownAlgorithm),
        };
        let len = algorithm.digest().output_len();
        let mut bytes = [0; DIGEST_MAX];
        let mut count = 0;
        for pair in digits.trim().split(':') {
            let to = bytes.get_mut(..len).and_then(|room| room.get_mut(count)).ok_or(FingerprintError::Malformed)?;
            *to = hex_byte(pair).ok_or(FingerprintError::Malformed)?;
            count += 1;
        }
        if count != len {
            return Err(FingerprintError::Malformed);
        }
        Ok(Self { algorithm, bytes })
    }

    /// The hash used.
    pub fn algorithm(&self) -> FingerprintAlgorithm {
        self.algorithm
    }

    /// The digest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest().output_len()]
    }

    /// Whether `der` is the certificate this fingerprint was taken of.
    pub fn matches(&self, der: &[u8]) -> bool {
        Self::of(self.algorithm, der) == *self
    }
}

/// Two hexadecimal digits, nothing else (`from_str_radix` would take a sign).
fn hex_byte(pair: &str) -> Option<u8> {
    let [high, low] = pair.as_bytes() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? << 4 | digit(*low)?) as u8)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        let mut separator = ' ';
        for byte in self.bytes() {
            // RFC 8122 §5: UHEX, uppercase digits.
            write!(f, "{separator}{byte:02X}")?;
            separator = ':';
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Self::parse(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let print = Fingerprint::of(FingerprintAlgorithm::Sha256, b"abc");
        assert!(print.to_string().starts_with("sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE"));
    }

    #[test]
    fn longer_hashes_are_taken() {
        for algorithm in [FingerprintAlgorithm::Sha384, FingerprintAlgorithm::Sha512] {
            let print = Fingerprint::of(algorithm, b"der");
            assert_eq!(Fingerprint::parse(&print.to_string()), Ok(print));
        }
    }

    #[test]
    fn weak_unknown_and_malformed_fingerprints_are_told_apart() {
        assert_eq!(Fingerprint::parse("sha-1 AA:BB"), Err(FingerprintError::WeakAlgorithm));
        assert_eq!(Fingerprint::parse("sha-3 AA:BB"), Err(FingerprintError::UnknownAlgorithm));
        let full = Fingerprint::of(FingerprintAlgorithm::Sha256, b"").to_string();
        for bad in ["", "sha-256", "sha-256 ", "sha-256 AA:BB", "sha-256 AABB", &format!("{full}:00"), &full[..100]] {
            assert_eq!(Fingerprint::parse(bad), Err(FingerprintError::Malformed), "{bad}");
        }
        assert_eq!(Fingerprint::parse(&full.replacen(' ', " +", 1)), Err(FingerprintError::Malformed));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(sha-(1|256|512) )?[0-9a-fA-F:é+ ]{0,200}") {
            let _ = Fingerprint::parse(&text);
        }
    }
}
