//! Transport attributes of SDP: ICE credentials (RFC 8839), DTLS fingerprint and role (RFC 8122, RFC 8842).

use super::fingerprint::Fingerprint;

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
                    |new: &Fingerprint| self.fingerprint.as_ref().is_none_or(|old| new.algorithm() < old.algorithm());
                if let Some(new) = Fingerprint::parse(value).ok().filter(better) {
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
        self.fingerprint = self.fingerprint.or(session.fingerprint);
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
