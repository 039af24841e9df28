//! Fragments of a description that only carry ICE: `application/trickle-ice-sdpfrag` (RFC 8840 §9).
//!
//! Owns: their grammar, as far as an ICE-lite side needs it. Candidates are not read: the addresses of a peer are learnt
//! from its checks. Promises: bounded by the text it is given; lines nobody knows are skipped (RFC 8840 §9.2).

use std::fmt::Write;
use std::net::SocketAddr;

use super::transport::Transport;
use super::write::write_candidates;
use super::{SdpError, printable};
use crate::base::format::MediaKind;

/// Longest fragment we read: candidates by the hundred.
pub const FRAGMENT_BYTES_MAX: usize = 64 << 10;

/// A fragment, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceFragment {
    /// `a=ice-ufrag` and `a=ice-pwd`: those of the first m-line that has them (RFC 9143 §9: all others share them), else
    /// those of the session level.
    pub credentials: Option<(String, String)>,
    /// `a=ice-lite`.
    pub ice_lite: bool,
}

impl IceFragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// When it is longer than [`FRAGMENT_BYTES_MAX`], a line is none of SDP, or credentials are half or no ice-chars.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > FRAGMENT_BYTES_MAX {
            return Err(SdpError::Limit("longer than 64 KiB"));
        }
        let mut ice_lite = false;
        let mut session = Transport::default();
        // The first m-line with credentials, or the one that is read and has none yet.
        let mut media: Option<Transport> = None;
        let mut is_past = false;
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match split(line)? {
                ("m", _) if media.as_ref().is_some_and(has_any) => is_past = true,
                ("m", _) => media = Some(Transport::default()),
                ("a", "ice-lite") => ice_lite = true,
                ("a", attribute) if !is_past => {
                    let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
                    let level = media.as_mut().unwrap_or(&mut session);
                    level.read(key, value);
                    let is_read = match key {
                        "ice-ufrag" => level.ufrag.as_deref() == Some(value),
                        "ice-pwd" => level.pwd.as_deref() == Some(value),
                        _ => true,
                    };
                    if !is_read {
                        return Err(SdpError::Attribute("a=ice-ufrag has 4 and a=ice-pwd 22 to 256 ice-chars"));
                    }
                }
                _ => {}
            }
        }
        let level = media.filter(has_any).unwrap_or(session);
        let credentials = match (level.ufrag, level.pwd) {
            (Some(ufrag), Some(pwd)) => Some((ufrag, pwd)),
            (None, None) => None,
            _ => return Err(SdpError::Attribute("one of a=ice-ufrag and a=ice-pwd is missing")),
        };
        Ok(Self { credentials, ice_lite })
    }
}

fn has_any(level: &Transport) -> bool {
    level.ufrag.is_some() || level.pwd.is_some()
}

/// RFC 8866 §5: a letter, an equals sign, something.
fn split(line: &str) -> Result<(&str, &str), SdpError> {
    let parts = line.split_once('=').filter(|(kind, _)| kind.len() == 1 && kind.as_bytes()[0].is_ascii_lowercase());
    parts.ok_or_else(|| SdpError::Syntax(format!("no line of SDP: {}", printable(line))))
}

/// The answer to a fragment that restarts ICE: all that is new on our side, which is lite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentOut<'a> {
    /// `a=ice-ufrag`.
    pub ufrag: &'a str,
    /// `a=ice-pwd`.
    pub pwd: &'a str,
    /// The m-line whose transport all others share.
    pub kind: MediaKind,
    /// Its `a=mid`.
    pub mid: &'a str,
    /// Host addresses, best first; all there are.
    pub candidates: &'a [SocketAddr],
}

impl FragmentOut<'_> {
    /// The text.
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(512);
        // Writing into a String cannot fail.
        let _ = self.write_into(&mut out);
        out
    }

    fn write_into(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)?;
        // RFC 8840 §9.2: the m-line only names the one that is meant; its formats count for nothing.
        write!(out, "m={} 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{}\r\n", self.kind.as_str(), self.mid)?;
        write_candidates(out, self.candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PWD: &str = "x9cml/YzichV2+XlhiMu8gKw";

    fn credentials(text: &str) -> Option<(String, String)> {
        IceFragment::parse(text).unwrap().credentials
    }

    #[test]
    fn credentials_stand_at_either_level_and_the_first_m_lines_count() {
        let of = |ufrag: &str| format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{PWD}\r\n");
        let wanted = Some(("EsAw".to_owned(), PWD.to_owned()));
        let media = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n";
        let candidates =
            "a=candidate:1 1 udp 2 192.0.2.1 9 typ host\r\na=candidate:nonsense\r\na=end-of-candidates\r\n";
        assert_eq!(credentials(&format!("{}{media}{candidates}", of("EsAw"))), wanted);
        assert_eq!(credentials(&format!("a=ice-options:trickle\r\n{media}{}{candidates}", of("EsAw"))), wanted);
        assert_eq!(credentials(&format!("{}{media}{}", of("other"), of("EsAw"))), wanted, "media level wins");
        assert_eq!(credentials(&format!("{media}{}{media}{}", of("EsAw"), of("other"))), wanted);
        assert_eq!(credentials(&format!("{media}{media}{}", of("EsAw"))), wanted);
        assert_eq!(credentials(&of("EsAw").replace("\r\n", "\n")), wanted);
        assert_eq!(credentials(&format!("{media}{candidates}")), None);
        assert_eq!(credentials(""), None);
        assert!(IceFragment::parse("a=ice-lite\r\n").unwrap().ice_lite);
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        for text in [
            "hello",
            "=",
            "aa=mid:0",
            "A=mid:0",
            "{\"candidate\":\"\"}",
            "a=ice-ufrag:EsAw\r\n",
            "a=ice-ufrag:E\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
            "a=ice-ufrag:EsAw\r\na=ice-pwd:short\r\n",
            "m=audio 9 X 0\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
        ] {
            assert!(IceFragment::parse(text).is_err(), "{text}");
        }
        assert!(IceFragment::parse(&"a=x\n".repeat(FRAGMENT_BYTES_MAX)).is_err());
    }

    #[test]
    fn what_we_write_is_a_fragment() {
        let candidates = ["192.0.2.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()];
        let out =
            FragmentOut { ufrag: "EsAw", pwd: PWD, kind: MediaKind::Audio, mid: "0", candidates: &candidates }.write();
        let read = IceFragment::parse(&out).unwrap();
        assert_eq!(read, IceFragment { credentials: Some(("EsAw".into(), PWD.into())), ice_lite: true });
        assert!(out.contains("a=candidate:2 1 udp 2130706175 2001:db8::1 3478 typ host\r\na=end-of-candidates\r\n"));
    }
}
