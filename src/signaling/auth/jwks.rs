//! The public keys of who signs tokens (RFC 7517): fetched, kept, fetched again.
//!
//! Owns: the last good set. It is fetched anew every few minutes, and when a token names a key that is not in it.
//! Promises: an unreachable or confused provider changes nothing; what clients can make us ask it is bounded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::grant::Denied;

/// Between two looks at the provider.
const REFRESH: Duration = Duration::from_secs(300);
/// The same while it does not answer.
const RETRY: Duration = Duration::from_secs(30);
/// How long an answer may take, all of it. A client waits for it when its token names a new key.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// A key rotation is one fetch; these many at once because of unknown keys, and then one per [`RETRY`].
const UNKNOWN_BURST: std::num::NonZeroU32 = std::num::NonZeroU32::MIN.saturating_add(4);
/// A set is a few KiB.
const SET_BYTES_MAX: usize = 1 << 20;
/// More keys than any provider has at once.
const KEYS_MAX: usize = 256;

/// See the module.
pub struct KeySet {
    url: String,
    keys: ArcSwap<Vec<Key>>,
    /// One fetch at a time; who waited for it looks again first. Counts the fetches that brought keys.
    fetches: tokio::sync::Mutex<u64>,
    unknown: DefaultDirectRateLimiter,
    /// The last failure, so that each is said once.
    fault: Mutex<Option<String>>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    /// An empty set.
    pub fn new(url: &str) -> Self {
        let quota = Quota::with_period(RETRY).unwrap_or(Quota::per_minute(UNKNOWN_BURST)).allow_burst(UNKNOWN_BURST);
        Self {
            url: url.to_owned(),
            keys: ArcSwap::default(),
            fetches: tokio::sync::Mutex::default(),
            unknown: RateLimiter::direct(quota),
            fault: Mutex::default(),
        }
    }

    /// The key that a token names, fetched if it is new.
    pub async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Denied> {
        if let Some(key) = self.find(id, algorithm) {
            return Ok(key);
        }
        let fetched = self.fetches.lock().await;
        // Somebody else may have brought it meanwhile.
        if self.find(id, algorithm).is_none() && self.unknown.check().is_ok() {
            self.fetch(fetched).await;
        }
        if let Some(key) = self.find(id, algorithm) {
            return Ok(key);
        }
        if self.keys.load().is_empty() {
            return Err(Denied::unavailable(
                "the keys that tokens are checked with cannot be fetched now: try again soon",
            ));
        }
        Err(Denied::invalid(match id {
            Some(_) => "the token is signed with a key that its issuer does not publish: get a new one",
            None => "the token does not name its key: get one with a kid",
        }))
    }

    /// Keeps the set fresh for as long as it is polled.
    pub async fn keep_fresh(&self) {
        loop {
            let is_good = self.fetch(self.fetches.lock().await).await;
            tokio::time::sleep(if is_good { REFRESH } else { RETRY }).await;
        }
    }

    /// Without an id there must be no choice.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = self.keys.load();
        let mut fitting =
            keys.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then(|| first.key.clone())
    }

    async fn fetch(&self, mut fetched: tokio::sync::MutexGuard<'_, u64>) -> bool {
        let outcome = match download(&self.url).await {
            Ok(bytes) => read(&bytes),
            Err(error) => Err(error),
        };
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(keys) => {
                *fetched += 1;
                if *fetched == 1 || fault.is_some() {
                    tracing::info!(keys = keys.len(), "keys for tokens are fetched");
                }
                self.keys.store(keys.into());
                *fault = None;
                true
            }
            Err(error) => {
                if fault.as_ref() != Some(&error) {
                    let kept = self.keys.load().len();
                    tracing::warn!(error, kept, "keys for tokens cannot be fetched; check JWKS_URL and its server");
                    *fault = Some(error);
                }
                false
            }
        }
    }
}

async fn download(url: &str) -> Result<Vec<u8>, String> {
    // Where the answer sends us elsewhere, it must not be to an open line.
    let is_https = url.starts_with("https://");
    let client = reqwest::Client::builder().https_only(is_https).timeout(ANSWER_WAIT).build();
    let client = client.map_err(|error| words(&error))?;
    let mut answer = client.get(url).send().await.map_err(|error| words(&error))?;
    if !answer.status().is_success() {
        return Err(format!("the server answers {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| words(&error))? {
        if bytes.len() + part.len() > SET_BYTES_MAX {
            return Err(format!("the set has more than {SET_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// An error with what caused it, without the address, which may hold a key.
fn words(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    if causes.is_empty() { "the answer did not come in time".to_owned() } else { causes.join(": ") }
}

/// The keys of a set that we can use; one that we cannot does not spoil the others.
fn read(bytes: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|error| format!("this is not a JWK set: {error:.200}"))?;
    let keys: Vec<Key> = set.keys.into_iter().take(KEYS_MAX).filter_map(usable).collect();
    if keys.is_empty() {
        return Err("the set has no key for RS256, ES256 or EdDSA".to_owned());
    }
    Ok(keys)
}

fn usable(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    // The key says by which algorithm it is used, never the token. A shared secret has no place in a public set.
    let algorithm = match key.family() {
        AlgorithmFamily::Rsa => Algorithm::RS256,
        AlgorithmFamily::Ec => Algorithm::ES256,
        AlgorithmFamily::Ed => Algorithm::EdDSA,
        AlgorithmFamily::Hmac => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => Some(algorithm),
        Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
        Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
        Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
        Some(_) => None,
    };
    let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    (signs && named == Some(algorithm)).then_some(Key { id: jwk.common.key_id, algorithm, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn set(keys: Value) -> Result<Vec<Key>, String> {
        read(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_we_cannot_use_do_not_spoil_the_others() {
        let keys = set(json!([
            {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": X},
            {"kty": "oct", "kid": "shared", "k": "AAAA"},
            {"kty": "new", "kid": "b"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "c", "use": "enc", "x": X},
            {"kty": "RSA", "kid": "d", "alg": "RS512", "n": "AQAB", "e": "AQAB"},
            7,
        ]));
        let keys = keys.unwrap();
        assert_eq!(keys.iter().filter_map(|key| key.id.as_deref()).collect::<Vec<_>>(), ["a"]);
        assert!(keys[0].algorithm == Algorithm::EdDSA);
        for bad in [json!([]), json!([{"kty": "oct", "k": "AAAA"}]), json!("x")] {
            assert!(set(bad).is_err());
        }
    }

    #[test]
    fn a_token_without_a_key_id_needs_a_set_without_choice() {
        let both = KeySet::new("http://localhost/");
        let key = |id: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": X});
        both.keys.store(set(json!([key("a")])).unwrap().into());
        assert!(both.find(None, Algorithm::EdDSA).is_some() && both.find(Some("a"), Algorithm::EdDSA).is_some());
        assert!(both.find(Some("b"), Algorithm::EdDSA).is_none() && both.find(Some("a"), Algorithm::RS256).is_none());
        both.keys.store(set(json!([key("a"), key("b")])).unwrap().into());
        assert!(both.find(None, Algorithm::EdDSA).is_none() && both.find(Some("b"), Algorithm::EdDSA).is_some());
    }
}
