//! Who may come in: tokens, and who signs them.

use std::collections::HashMap;

use super::source::{Group, Setting, Sources};
use super::{ConfigError, Secret};

/// Shorter keys of HS256 are guessed: RFC 7518 §3.2 asks for the size of the hash.
const JWT_SECRET_BYTES_MIN: usize = 32;
/// Rooms with a token of their own; more of them are a job for signed tokens.
const ROOM_TOKENS_MAX: usize = 4096;

/// Tokens that open rooms. Where nothing is set, everybody may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Opens every room.
    pub token: Option<Secret>,
    /// Tokens that open one room each.
    pub room_tokens: HashMap<String, Secret>,
    /// Key of HS256 tokens.
    pub jwt_secret: Option<Secret>,
    /// Where the public keys of RS256, ES256 and EdDSA tokens are.
    pub jwks_url: Option<String>,
    /// What `aud` must hold.
    pub audience: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
}

impl Auth {
    /// Signed tokens are understood.
    pub fn has_jwt(&self) -> bool {
        self.jwt_secret.is_some() || self.jwks_url.is_some()
    }

    /// Rooms without a token of their own are closed too.
    pub fn closes_rooms(&self) -> bool {
        self.token.is_some() || self.has_jwt()
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Token that opens every room [env: AUTH_TOKEN] [default: rooms are open]
    #[arg(long, value_name = "TOKEN")]
    auth_token: Option<String>,
    /// Tokens that open one room each, like room1:token1;room2:token2 [env: ROOM_TOKENS]
    #[arg(long, value_name = "LIST")]
    room_tokens: Option<String>,
    /// Key of HS256 tokens (JWT), at least 32 bytes [env: JWT_SECRET]
    #[arg(long, value_name = "KEY")]
    jwt_secret: Option<String>,
    /// Audience that signed tokens must be for [env: JWT_AUDIENCE] [default: any]
    #[arg(long, value_name = "NAME")]
    jwt_audience: Option<String>,
    /// Issuer that signed tokens must be from [env: JWT_ISSUER] [default: any]
    #[arg(long, value_name = "NAME")]
    jwt_issuer: Option<String>,
    /// Where the public keys of RS256, ES256 and EdDSA tokens are: a JWK set over https, or http on this machine [env: JWKS_URL]
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
}

impl Group for Auth {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let secret = |text: Setting| Secret::from(text.value.trim());
        let plain = |text: Setting| text.value.trim().to_owned();
        let mut auth = Self {
            token: from.first(&flags.auth_token, "--auth-token", &["AUTH_TOKEN"]).map(secret),
            audience: from.first(&flags.jwt_audience, "--jwt-audience", &["JWT_AUDIENCE"]).map(plain),
            issuer: from.first(&flags.jwt_issuer, "--jwt-issuer", &["JWT_ISSUER"]).map(plain),
            ..Self::default()
        };
        if let Some(text) = from.first(&flags.room_tokens, "--room-tokens", &["ROOM_TOKENS"]) {
            auth.room_tokens = text.read_secret(room_tokens)?;
        }
        if let Some(text) = from.first(&flags.jwt_secret, "--jwt-secret", &["JWT_SECRET"]) {
            auth.jwt_secret = Some(text.read_secret(jwt_secret)?);
        }
        if let Some(text) = from.first(&flags.jwks_url, "--jwks-url", &["JWKS_URL"]) {
            auth.jwks_url = Some(text.read(jwks_url)?);
        }
        Ok(auth)
    }
}

fn jwt_secret(text: &str) -> Result<Secret, String> {
    if text.len() < JWT_SECRET_BYTES_MIN {
        return Err(format!("a key of at least {JWT_SECRET_BYTES_MIN} bytes, such as `openssl rand -hex 32` prints"));
    }
    Ok(Secret::from(text))
}

/// `room:token` pairs with `;` between them. A token may hold `:`, a room may not.
fn room_tokens(text: &str) -> Result<HashMap<String, Secret>, String> {
    let pairs = text.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (room, token) = pair.split_once(':')?;
        let (room, token) = (room.trim(), token.trim());
        (!room.is_empty() && !token.is_empty()).then(|| (room.to_owned(), Secret::from(token)))
    };
    let read: Option<Vec<_>> = pairs.map(pair).collect();
    let count = read.as_ref().map_or(0, Vec::len);
    let tokens: HashMap<_, _> = read.into_iter().flatten().collect();
    if tokens.is_empty() || tokens.len() != count || count > ROOM_TOKENS_MAX {
        return Err(format!("a list like room1:token1;room2:token2, each room once, at most {ROOM_TOKENS_MAX}"));
    }
    Ok(tokens)
}

/// Keys that came over an open line could be anybody's.
fn jwks_url(text: &str) -> Result<String, String> {
    let is_local = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|start| {
        text.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    if is_local || text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Ok(text.to_owned());
    }
    Err("an https:// address (http:// only on this machine)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_tokens_are_pairs() {
        let read = room_tokens("r1:t1; r2:a:b ;").unwrap();
        assert!(read["r1"].is("t1") && read["r2"].is("a:b"));
        for bad in ["", ";", "r1", "r1:", ":t", "r1:a;r1:b"] {
            assert!(room_tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_come_over_lines_that_nobody_changes() {
        for good in ["https://id.example/jwks", "http://localhost:8080/k", "http://[::1]/", "http://127.0.0.1:1"] {
            assert!(jwks_url(good).is_ok(), "{good}");
        }
        for bad in ["http://id.example/", "http://localhost.example/", "https:///x", "file:///k", ""] {
            assert!(jwks_url(bad).is_err(), "{bad}");
        }
    }
}
