//! Transport attributes of SDP: ICE credentials (RFC 8839), DTLS fingerprint and role (RFC 8122, RFC 8842).

use std::fmt;

/// `a=setup` (RFC 4145, RFC 8842).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Will be DTLS client.
    Active,
    /// Will be DTLS server.
    Passive,
    /// The answerer decides.
    ActPass,
    /// No connection for now; of no use to us.
    HoldConn,
}

impl Setup {
    /// `None` for an unknown word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "passive" => Some(Self::Passive),
            "actpass" => Some(Self::ActPass),
            "holdconn" => Some(Self::HoldConn),
            _ => None,
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }
}

/// Hash functions we check certificates with. MD2, MD5 and SHA-1 are left out: they can be forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashFunction {
    /// What every browser writes.
    Sha256,
    /// RFC 8122 §5.
    Sha384,
    /// RFC 8122 §5.
    Sha512,
}

impl HashFunction {
    /// Name as in `a=fingerprint`.
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

/// A certificate's hash (`a=fingerprint`, RFC 8122 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash function.
    pub algorithm: HashFunction,
    /// Hash of the DER certificate.
    pub bytes: Vec<u8>,
}

impl Fingerprint {
    /// `sha-256 AA:BB:..`; `None` for other hash functions or a value of the wrong length.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once(' ')?;
        let algorithm = [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512]
            .into_iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_str()))?;
        let bytes: Option<Vec<u8>> = value.trim().split(':').take(65).map(hex_byte).collect();
        bytes.filter(|bytes| bytes.len() == algorithm.len_bytes()).map(|bytes| Self { algorithm, bytes })
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    // from_str_radix alone would take "+f".
    let is_hex = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex { u8::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.algorithm.as_str())?;
        for (index, byte) in self.bytes.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// Transport attributes of one m-line; what it leaves out comes from the session level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// `a=ice-ufrag`, 4 to 256 ice-chars.
    pub ufrag: Option<String>,
    /// `a=ice-pwd`, 22 to 256 ice-chars.
    pub pwd: Option<String>,
    /// The best `a=fingerprint` of those given: SHA-256 first, since everybody has it.
    pub fingerprint: Option<Fingerprint>,
    /// `a=setup`.
    pub setup: Option<Setup>,
}

impl Transport {
    /// Takes one attribute if it is one of ours. Values outside their grammar count as absent.
    pub(super) fn read(&mut self, key: &str, value: &str) {
        match key {
            "ice-ufrag" if is_ice_text(value, 4) => self.ufrag = Some(value.to_owned()),
            "ice-pwd" if is_ice_text(value, 22) => self.pwd = Some(value.to_owned()),
            "setup" => self.setup = Setup::parse(value),
            "fingerprint" => {
                let better =
                    |new: &Fingerprint| self.fingerprint.as_ref().is_none_or(|old| new.algorithm < old.algorithm);
                if let Some(new) = Fingerprint::parse(value).filter(better) {
                    self.fingerprint = Some(new);
                }
            }
            _ => {}
        }
    }

    /// Fills gaps from the session level (RFC 8839 §5.4, RFC 8842 §4: media level wins).
    pub(super) fn inherit(&mut self, session: &Self) {
        // ufrag and pwd belong together: one level gives both.
        if self.ufrag.is_none() && self.pwd.is_none() {
            self.ufrag.clone_from(&session.ufrag);
            self.pwd.clone_from(&session.pwd);
        }
        if self.fingerprint.is_none() {
            self.fingerprint.clone_from(&session.fingerprint);
        }
        self.setup = self.setup.or(session.setup);
    }
}

/// RFC 8839 §5.4: ice-char = ALPHA / DIGIT / "+" / "/"; at most 256 of them.
/// "-", "_" and "=" are taken too, since some clients use URL-safe base64.
fn is_ice_text(text: &str, at_least: usize) -> bool {
    (at_least..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_and_written_alike() {
        let text = format!("sha-256 {}", ["0A"; 32].join(":"));
        let parsed = Fingerprint::parse(&text.to_lowercase()).unwrap();
        assert_eq!(parsed.bytes, vec![10; 32]);
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn a_fingerprint_of_the_wrong_length_or_hash_is_none() {
        assert!(Fingerprint::parse(&format!("sha-256 {}", ["0A"; 31].join(":"))).is_none());
        assert!(Fingerprint::parse(&format!("sha-1 {}", ["0A"; 20].join(":"))).is_none());
        assert!(Fingerprint::parse(&format!("sha-256 {}", ["+A"; 32].join(":"))).is_none());
        assert!(Fingerprint::parse("sha-256").is_none());
    }

    #[test]
    fn media_level_credentials_win_as_a_pair() {
        let mut session = Transport::default();
        session.read("ice-ufrag", "aaaa");
        session.read("ice-pwd", "aaaaaaaaaaaaaaaaaaaaaa");
        let mut media = Transport::default();
        media.read("ice-ufrag", "bbbb");
        media.inherit(&session);
        assert_eq!(media.ufrag.as_deref(), Some("bbbb"));
        assert_eq!(media.pwd, None, "a password of another level does not belong to this ufrag");
    }
}
