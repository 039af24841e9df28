//! Certificate fingerprints (`a=fingerprint`, RFC 8122 §5) as values. Taking and checking them is `crypto::cert`'s.

use std::fmt;
use std::str::FromStr;

/// Hash of a fingerprint. SHA-1 and MD5 are refused: RFC 8122 §5 forbids new uses of MD2 and MD5, and a second preimage
/// is all that stands between a peer and an impostor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashFunction {
    /// `sha-256`, which every WebRTC endpoint speaks (RFC 8122 §5).
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl HashFunction {
    /// The IANA hash name, as SDP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// Length of its value in bytes.
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Longest digest accepted, in bytes.
const DIGEST_MAX: usize = 64;

/// The hash of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    algorithm: HashFunction,
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
    /// `None` for a digest that is not as long as its hash.
    pub fn new(algorithm: HashFunction, digest: &[u8]) -> Option<Self> {
        if digest.len() != algorithm.len_bytes() {
            return None;
        }
        let mut bytes = [0; DIGEST_MAX];
        bytes.get_mut(..digest.len())?.copy_from_slice(digest);
        Some(Self { algorithm, bytes })
    }

    /// Parses the value of `a=fingerprint`, e.g. `sha-256 AB:CD:..`; case does not matter.
    pub fn parse(value: &str) -> Result<Self, FingerprintError> {
        let (name, digits) = value.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
        let algorithm = match name.to_ascii_lowercase().as_str() {
            "sha-256" => HashFunction::Sha256,
            "sha-384" => HashFunction::Sha384,
            "sha-512" => HashFunction::Sha512,
            "sha-1" | "md5" | "md2" => return Err(FingerprintError::WeakAlgorithm),
            _ => return Err(FingerprintError::UnknownAlgorithm),
        };
        // One more than fits is enough to see that there are too many.
        let pairs = digits.trim().split(':').take(DIGEST_MAX + 1);
        let digest: Option<Vec<u8>> = pairs.map(hex_byte).collect();
        digest.and_then(|digest| Self::new(algorithm, &digest)).ok_or(FingerprintError::Malformed)
    }

    /// The hash used.
    pub fn algorithm(&self) -> HashFunction {
        self.algorithm
    }

    /// The digest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len_bytes()]
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
        f.write_str(self.algorithm.as_str())?;
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
    fn a_fingerprint_is_read_and_written_alike() {
        for algorithm in [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512] {
            let text = format!("{} {}", algorithm.as_str(), vec!["0A"; algorithm.len_bytes()].join(":"));
            let parsed = Fingerprint::parse(&text.to_lowercase()).unwrap();
            assert_eq!((parsed.algorithm(), parsed.bytes()), (algorithm, &vec![10; algorithm.len_bytes()][..]));
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn weak_unknown_and_malformed_fingerprints_are_told_apart() {
        assert_eq!(
            Fingerprint::parse(&format!("sha-1 {}", ["0A"; 20].join(":"))),
            Err(FingerprintError::WeakAlgorithm)
        );
        assert_eq!(Fingerprint::parse("sha-3 AA:BB"), Err(FingerprintError::UnknownAlgorithm));
        let full = format!("sha-256 {}", ["0A"; 32].join(":"));
        assert!(Fingerprint::parse(&full).is_ok());
        let signed = full.replace("0A", "+A");
        let spaced = full.replacen(' ', " +", 1);
        for bad in [
            "",
            "sha-256",
            "sha-256 ",
            "sha-256 AA:BB",
            "sha-256 AABB",
            &format!("{full}:00"),
            &full[..100],
            &signed,
            &spaced,
        ] {
            assert_eq!(Fingerprint::parse(bad), Err(FingerprintError::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(sha-(1|256|512) )?[0-9a-fA-F:é+ ]{0,200}") {
            let _ = Fingerprint::parse(&text);
        }
    }
}
