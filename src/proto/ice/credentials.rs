//! Our user fragment and password.

use std::fmt;

use rand::CryptoRng;

use crate::wire::stun::IntegrityKey;

/// Length of our ufrags: 72 bits (RFC 8445 §5.3 asks for 24), so that two sessions never draw the same.
pub const UFRAG_BYTES: usize = 12;
/// Length of our passwords: 144 bits (RFC 8445 §5.3 asks for 128).
pub const PWD_BYTES: usize = 24;

/// RFC 8839 §5.4: ice-char = ALPHA / DIGIT / "+" / "/". 64 of them: six random bits choose one without bias.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A user fragment of ours, as every worker looks sessions up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ufrag([u8; UFRAG_BYTES]);

impl Ufrag {
    /// `None` when it cannot be one of ours: another length, or not ice-chars.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        ice_chars(bytes).map(Self)
    }

    /// As in `a=ice-ufrag`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What a peer must know to have its checks answered.
#[derive(Clone)]
pub struct LocalCredentials {
    ufrag: Ufrag,
    pwd: [u8; PWD_BYTES],
    key: IntegrityKey,
}

impl LocalCredentials {
    /// Draws new ones; the generator must be one that nobody can predict, seeded only in simulation.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut draw = |bytes: &mut [u8]| {
            rng.fill_bytes(bytes);
            for byte in bytes {
                *byte = ICE_CHARS[usize::from(*byte % 64)];
            }
        };
        let (mut ufrag, mut pwd) = ([0; UFRAG_BYTES], [0; PWD_BYTES]);
        draw(&mut ufrag);
        draw(&mut pwd);
        Self { ufrag: Ufrag(ufrag), pwd, key: IntegrityKey::new(&pwd) }
    }

    /// Credentials that already exist; `None` unless both have our lengths and are ice-chars.
    pub fn from_parts(ufrag: &str, pwd: &str) -> Option<Self> {
        let pwd = ice_chars(pwd.as_bytes())?;
        Some(Self { ufrag: Ufrag::parse(ufrag.as_bytes())?, pwd, key: IntegrityKey::new(&pwd) })
    }

    /// As in `a=ice-ufrag`.
    pub fn ufrag(&self) -> Ufrag {
        self.ufrag
    }

    /// As in `a=ice-pwd`.
    pub fn pwd(&self) -> &str {
        std::str::from_utf8(&self.pwd).unwrap_or_default()
    }

    /// The password, ready to sign and verify with.
    pub fn key(&self) -> &IntegrityKey {
        &self.key
    }
}

fn ice_chars<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let chars: [u8; N] = bytes.try_into().ok()?;
    chars.iter().all(|char| char.is_ascii_alphanumeric() || matches!(char, b'+' | b'/')).then_some(chars)
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ufrag:{}", self.as_str())
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LocalCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        f.debug_struct("LocalCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn generated_credentials_are_ice_chars_and_follow_the_seed() {
        let mut rng = StdRng::seed_from_u64(1);
        let first = LocalCredentials::generate(&mut rng);
        let second = LocalCredentials::generate(&mut rng);
        let again = LocalCredentials::generate(&mut StdRng::seed_from_u64(1));
        assert_eq!((first.ufrag(), first.pwd()), (again.ufrag(), again.pwd()));
        assert_ne!(first.ufrag(), second.ufrag());
        assert_ne!(first.pwd(), second.pwd());
        assert!(LocalCredentials::from_parts(first.ufrag().as_str(), first.pwd()).is_some());
    }

    #[test]
    fn what_is_not_our_ufrag_is_not_looked_up() {
        assert!(Ufrag::parse(b"abcdefgh1+/Z").is_some());
        for other in [&b"abcdefgh1+/"[..], b"abcdefgh1+/ZZ", b"abcdefgh1+/:", b""] {
            assert!(Ufrag::parse(other).is_none());
        }
    }

    #[test]
    fn credentials_travel_between_threads_and_hide_the_password() {
        fn assert_shareable<T: Send + Sync>(_: &T) {}
        let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(2));
        assert_shareable(&credentials);
        assert!(!format!("{credentials:?}").contains(credentials.pwd()));
    }
}
