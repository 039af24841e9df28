//! Gryt's client token: the server that owns a room tells us who its bearer is and what they may publish.
//!
//! `v1.<payload>.<mac>` with payload `userId|roomId|expiryUnixMs|nonce`; `v2.` adds `|capability,capability`. Both
//! parts are base64url without padding; the mac is HMAC-SHA256 of the payload bytes under the server's password.
//! Promises: constant-time comparison; nothing of the payload is believed before the mac is checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::room::api::Capabilities;

/// A real token has some 300 bytes; nothing longer is decoded.
const LENGTH_MAX: usize = 8192;

/// What a token says about its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// User id.
    pub user_id: String,
    /// The one room it opens.
    pub room: String,
    /// What may be published.
    pub capabilities: Capabilities,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form above.
    #[error("client token is malformed")]
    Malformed,
    /// Signed with another password, or changed.
    #[error("client token signature does not verify")]
    Signature,
    /// Too old.
    #[error("client token has expired")]
    Expired,
    /// Of somebody else, or for somewhere else.
    #[error("client token is for a different user or room")]
    Mismatch,
}

/// What the token says, if `password` signed it and it has not expired.
pub fn verify(wall: SystemTime, password: &str, token: &str) -> Result<Claims, TokenError> {
    if token.len() > LENGTH_MAX {
        return Err(TokenError::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(version), Some(payload), Some(mac), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let fields_wanted = match version {
        "v1" => 4,
        "v2" => 5,
        _ => return Err(TokenError::Malformed),
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let (payload, mac) = (decode(payload)?, decode(mac)?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes());
    hmac::verify(&key, &payload, &mac).map_err(|_| TokenError::Signature)?;
    let payload = String::from_utf8(payload).map_err(|_| TokenError::Malformed)?;
    let fields: Vec<&str> = payload.split('|').collect();
    // An exact count: trailing text would be signed but unread.
    if fields.len() != fields_wanted {
        return Err(TokenError::Malformed);
    }
    let expiry_ms: u64 = fields[2].parse().map_err(|_| TokenError::Malformed)?;
    let now = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    if now > Duration::from_millis(expiry_ms) {
        return Err(TokenError::Expired);
    }
    let granted = fields.get(4).map(|list| capabilities(list.split(',')));
    Ok(Claims {
        user_id: fields[0].to_owned(),
        room: fields[1].to_owned(),
        // A v1 token comes from a server that knows no capabilities: everything is allowed.
        capabilities: granted.unwrap_or(Capabilities::ALL),
    })
}

/// Capability names to what may be published. A server that does not say it checks video (an older one) allows it.
pub fn capabilities<'a>(names: impl Iterator<Item = &'a str>) -> Capabilities {
    let mut granted = Capabilities { speak: false, share_video: false, share_screen: false };
    let mut video_is_checked = false;
    for name in names {
        match name.trim() {
            "speak" => granted.speak = true,
            "share_video" => granted.share_video = true,
            "share_screen" => granted.share_screen = true,
            other => video_is_checked |= other.contains("video") && other.contains("checked"),
        }
    }
    if !video_is_checked {
        granted.share_video = true;
        granted.share_screen = true;
    }
    granted
}

/// Whether two secrets are equal, in constant time for equal lengths.
pub fn same_secret(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "harbour";

    fn sealed(version: &str, payload: &str, password: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes());
        let mac = hmac::sign(&key, payload.as_bytes());
        format!("{version}.{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(mac))
    }

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn a_token_made_elsewhere_verifies() {
        // Made with Python's hmac and base64 modules.
        let token = concat!(
            "v2.dS0xN3xhY21lX2dlbmVyYWx8NDEwMjQ0NDgwMDAwMHx4MX",
            "xzcGVhayx2aWRlb19jaGVja2VkLHNoYXJlX3ZpZGVvLHNoYXJlX3NjcmVlbg",
            ".4h4h2Mm_psZsc7JTMBu0-jLa3FNIndjoob0Su0vJsjg",
        );
        let claims = verify(at(1000), PASSWORD, token).unwrap();
        assert_eq!((claims.user_id.as_str(), claims.room.as_str()), ("u-17", "acme_general"));
        assert_eq!(claims.capabilities, Capabilities::ALL);
    }

    #[test]
    fn a_v1_token_grants_everything() {
        let claims = verify(at(5), PASSWORD, &sealed("v1", "u|r|5|n", PASSWORD)).unwrap();
        assert_eq!(claims, Claims { user_id: "u".into(), room: "r".into(), capabilities: Capabilities::ALL });
    }

    #[test]
    fn a_v2_token_grants_what_it_names() {
        let read = |caps: &str| {
            verify(at(0), PASSWORD, &sealed("v2", &format!("u|r|9|n|{caps}"), PASSWORD)).unwrap().capabilities
        };
        assert_eq!(read(""), Capabilities { speak: false, share_video: true, share_screen: true });
        assert_eq!(read("speak"), Capabilities::ALL);
        let checked = Capabilities { speak: true, share_video: false, share_screen: true };
        assert_eq!(read("speak,video_checked,share_screen"), checked);
    }

    #[test]
    fn an_expired_token_opens_nothing() {
        let token = sealed("v1", "u|r|5|n", PASSWORD);
        assert_eq!(verify(at(6), PASSWORD, &token), Err(TokenError::Expired));
    }

    #[test]
    fn another_password_or_a_changed_payload_opens_nothing() {
        let token = sealed("v1", "u|r|5|n", PASSWORD);
        assert_eq!(verify(at(0), "other", &token), Err(TokenError::Signature));
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("v1.{}.{}", URL_SAFE_NO_PAD.encode("admin|r|5|n"), parts[2]);
        assert_eq!(verify(at(0), PASSWORD, &forged), Err(TokenError::Signature));
    }

    #[test]
    fn the_field_count_is_exact() {
        for (version, payload) in [("v1", "u|r|5"), ("v1", "u|r|5|n|speak"), ("v2", "u|r|5|n"), ("v2", "u|r|5|n|c|x")] {
            assert_eq!(verify(at(0), PASSWORD, &sealed(version, payload, PASSWORD)), Err(TokenError::Malformed));
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let long = "v1.".repeat(10_000);
        for token in ["", "v1", "v1..", "v3.a.b", "v1.a.b.c", "v1.!!.b", "v1.YQ==.YQ==", "..", long.as_str()] {
            assert!(verify(at(0), PASSWORD, token).is_err(), "{token:.20}");
        }
        assert_eq!(verify(at(0), PASSWORD, &sealed("v1", "u|r|soon|n", PASSWORD)), Err(TokenError::Malformed));
    }
}
