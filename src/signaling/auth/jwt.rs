//! Signed tokens (RFC 7519): which key may have signed one, and what it grants.
//!
//! Owns: the algorithms that are accepted, one per kind of key, and the claims.
//! Promises: nothing of a token is believed before its signature is checked with a key of ours, by the algorithm that
//! belongs to that key. What the header says of keys (`jwk`, `jku`, `x5u`) is not read.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::grant::{Denied, Grant};
use super::jwks::KeySet;
use crate::config::auth::Auth;
use crate::room::api::Capabilities;

/// Clocks may differ that much, in seconds.
const LEEWAY_S: u64 = 30;
/// Longer ones are not read.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Checks signed tokens.
pub struct Verifier {
    secret: Option<DecodingKey>,
    keys: Option<KeySet>,
    audience: Option<String>,
    issuer: Option<String>,
}

/// What a token says; whatever else it says is ignored.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: Option<String>,
    room: Option<String>,
    role: Option<String>,
    admin: Option<bool>,
    publish: Option<bool>,
    subscribe: Option<bool>,
}

impl Verifier {
    /// With the keys that were configured.
    pub fn new(settings: &Auth) -> Self {
        Self {
            secret: settings.jwt_secret.as_ref().map(|secret| DecodingKey::from_secret(secret.reveal().as_bytes())),
            keys: settings.jwks_url.as_deref().map(KeySet::new),
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
        }
    }

    /// The set that others publish, where there is one.
    pub fn keys(&self) -> Option<&KeySet> {
        self.keys.as_ref()
    }

    /// What the token grants.
    pub async fn verify(&self, token: &str) -> Result<Grant, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::invalid("the token is too long"));
        }
        let header = decode_header(token).map_err(|error| self.refused(error.kind()))?;
        // RFC 7515 §4.1.11: what is critical and not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(Denied::invalid("the token has critical extensions that are not understood: leave out crit"));
        }
        let key = match (header.alg, &self.secret, &self.keys) {
            (Algorithm::HS256, Some(secret), _) => secret.clone(),
            (Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA, _, Some(keys)) => {
                keys.key(header.kid.as_deref(), header.alg).await?
            }
            _ => return Err(self.wrong_algorithm()),
        };
        let token = decode::<Claims>(token, &key, &self.rules(header.alg));
        token.map_err(|error| self.refused(error.kind()))?.claims.grant()
    }

    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut rules = Validation::new(algorithm);
        (rules.leeway, rules.validate_nbf) = (LEEWAY_S, true);
        rules.validate_aud = self.audience.is_some();
        let mut needed = vec!["exp"];
        if let Some(audience) = &self.audience {
            rules.set_audience(&[audience]);
            needed.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            needed.push("iss");
        }
        rules.set_required_spec_claims(&needed);
        rules
    }

    /// Why a token opens nothing, and what to do about it.
    fn refused(&self, error: &ErrorKind) -> Denied {
        Denied::invalid(match error {
            ErrorKind::ExpiredSignature => "the token has expired: get a new one from its issuer",
            ErrorKind::ImmatureSignature => "the token is not valid yet: wait, or check the clock of its issuer",
            ErrorKind::InvalidSignature => {
                "the signature of the token does not verify: get one that is signed with our key"
            }
            ErrorKind::InvalidAudience => "the token is for another audience: get one with our aud (JWT_AUDIENCE)",
            ErrorKind::InvalidIssuer => "the token is from another issuer: get one with our iss (JWT_ISSUER)",
            ErrorKind::MissingRequiredClaim(claim) => {
                return Denied::invalid(format!("the token has no {claim}: get one that has"));
            }
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => return self.wrong_algorithm(),
            // An algorithm that the library does not know, `none` among them, fails as JSON.
            ErrorKind::Json(error) if error.to_string().contains("variant") => return self.wrong_algorithm(),
            _ => "the token is not understood: send one that was made for this server",
        })
    }

    fn wrong_algorithm(&self) -> Denied {
        let accepted = match (&self.secret, &self.keys) {
            (Some(_), Some(_)) => "HS256, RS256, ES256 or EdDSA",
            (Some(_), None) => "HS256",
            _ => "RS256, ES256 or EdDSA",
        };
        Denied::invalid(format!("the algorithm of the token is not accepted: sign it with {accepted}"))
    }
}

impl Claims {
    fn grant(self) -> Result<Grant, Denied> {
        let is_admin = self.admin == Some(true) || self.role.as_deref() == Some("admin");
        let (publish, subscribe) = match self.role.as_deref() {
            None | Some("admin" | "participant" | "member") => (true, true),
            Some("publisher" | "publish") => (true, false),
            Some("viewer" | "subscriber" | "subscribe" | "player") => (false, true),
            Some(_) => {
                let roles = "admin, participant, publisher or viewer";
                return Err(Denied::forbidden(format!("the role of the token is not known: it must be {roles}")));
            }
        };
        let may_publish = is_admin || self.publish.unwrap_or(publish);
        Ok(Grant {
            room: self.room.filter(|room| !is_admin && !room.is_empty() && room != "*"),
            capabilities: if may_publish { Capabilities::ALL } else { Capabilities::NONE },
            may_publish,
            may_subscribe: is_admin || self.subscribe.unwrap_or(subscribe),
            may_manage: is_admin,
            is_admin,
            identity: self.sub.filter(|identity| !identity.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn verifier() -> Verifier {
        Verifier::new(&Auth { jwt_secret: Some(KEY.into()), audience: Some("calls".into()), ..Auth::default() })
    }

    fn signed(claims: Value, header: &Header, key: &str) -> String {
        let mut all = json!({"aud": "calls", "exp": get_current_timestamp() + 600});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        encode(header, &all, &EncodingKey::from_secret(key.as_bytes())).unwrap()
    }

    async fn read(claims: Value) -> Result<Grant, Denied> {
        verifier().verify(&signed(claims, &Header::default(), KEY)).await
    }

    async fn refusal(token: &str) -> String {
        verifier().verify(token).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn claims_become_grants() {
        let all = read(json!({})).await.unwrap();
        assert!(all.may_publish && all.may_subscribe && !all.is_admin && !all.may_manage && all.room.is_none());
        let one = read(json!({"room": "r", "sub": "ana", "role": "viewer"})).await.unwrap();
        assert_eq!((one.room.as_deref(), one.identity.as_deref()), (Some("r"), Some("ana")));
        assert!(!one.may_publish && one.may_subscribe && one.capabilities == Capabilities::NONE);
        let sender = read(json!({"role": "publisher", "subscribe": false})).await.unwrap();
        assert!(sender.may_publish && !sender.may_subscribe);
        let listener = read(json!({"publish": false, "room": "*"})).await.unwrap();
        assert!(!listener.may_publish && listener.may_subscribe && listener.room.is_none());
        for claims in [json!({"admin": true, "room": "r"}), json!({"role": "admin"})] {
            let admin = read(claims).await.unwrap();
            assert!(admin.is_admin && admin.may_manage && admin.room.is_none());
        }
        assert_eq!(read(json!({"role": "king"})).await.unwrap_err().status(), 403);
    }

    #[tokio::test]
    async fn times_and_audience_are_checked() {
        let now = get_current_timestamp();
        for (claims, word) in [
            (json!({"exp": now - 600}), "expired"),
            (json!({"exp": null}), "no exp"),
            (json!({"exp": "soon"}), "no exp"),
            (json!({"nbf": now + 600}), "not valid yet"),
            (json!({"aud": "mail"}), "audience"),
            (json!({"aud": ["mail"]}), "audience"),
            (json!({"aud": null}), "no aud"),
        ] {
            let error = read(claims.clone()).await.unwrap_err();
            assert!(error.status() == 401 && error.to_string().contains(word), "{claims}: {error}");
        }
        assert!(read(json!({"aud": ["mail", "calls"]})).await.is_ok());
        let issued = Auth { jwt_secret: Some(KEY.into()), issuer: Some("us".into()), ..Auth::default() };
        for (issuer, is_fine) in [("us", true), ("them", false)] {
            let token = signed(json!({"iss": issuer}), &Header::default(), KEY);
            assert_eq!(Verifier::new(&issued).verify(&token).await.is_ok(), is_fine, "{issuer}");
        }
    }

    #[tokio::test]
    async fn only_our_algorithm_with_our_key_counts() {
        let other = signed(json!({}), &Header::default(), "another key, that is long enough");
        assert!(refusal(&other).await.contains("signature"));
        let longer = signed(json!({}), &Header::new(Algorithm::HS512), KEY);
        assert!(refusal(&longer).await.contains("sign it with HS256"));
        let good = signed(json!({}), &Header::default(), KEY);
        let parts: Vec<&str> = good.split('.').collect();
        // {"alg":"none"}, {"alg":"None","typ":"JWT"}, {"alg":"RS256"}, {"alg":"HS256","crit":["x"],"x":1}
        for (head, word) in [
            ("eyJhbGciOiJub25lIn0", "algorithm"),
            ("eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0", "algorithm"),
            ("eyJhbGciOiJSUzI1NiJ9", "algorithm"),
            ("eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ", "crit"),
        ] {
            for token in [format!("{head}.{}.{}", parts[1], parts[2]), format!("{head}.{}.", parts[1])] {
                assert!(refusal(&token).await.contains(word), "{token}: {}", refusal(&token).await);
            }
        }
        let header = Header { crit: Some(vec!["x".into()]), ..Header::default() };
        assert!(refusal(&signed(json!({}), &header, KEY)).await.contains("crit"));
        for junk in ["", "a", "a.b", "a.b.c", "...", "ä.ö.ü", &"x.".repeat(20_000)] {
            assert_eq!(verifier().verify(junk).await.unwrap_err().status(), 401);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(head: String, payload: String, mac: String) {
            use base64::Engine;
            let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for token in [format!("{head}.{payload}.{mac}"), format!("{}.{}.{}", encode(&head), encode(&payload), mac)] {
                proptest::prop_assert!(runtime.block_on(verifier().verify(&token)).is_err());
            }
        }
    }
}
