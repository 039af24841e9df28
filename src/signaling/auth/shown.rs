//! The token that a request shows, wherever its client can put one.

use std::convert::Infallible;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;

use crate::config::Secret;

/// `Authorization: Bearer`, go-live's `X-Auth-Token`, or `?token=`, since a browser cannot give a WebSocket headers.
#[derive(Clone, Debug, Default)]
pub struct Shown(Option<Secret>);

impl Shown {
    /// Of these headers.
    pub fn in_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        Self::token(bearer.or_else(|| text("x-auth-token")))
    }

    /// Of a message; empty is none.
    pub fn token(token: Option<&str>) -> Self {
        Self(token.map(str::trim).filter(|token| !token.is_empty()).map(Secret::from))
    }

    /// This one, or else the other.
    pub fn or(self, other: &Self) -> Self {
        Self(self.0.or_else(|| other.0.clone()))
    }

    /// What is kept to know the token again.
    pub fn mark(&self) -> Option<Mark> {
        let digest = |token: &str| digest(&SHA256, token.as_bytes()).as_ref().try_into().ok();
        self.reveal().and_then(digest).map(Mark)
    }

    /// The token, not to be logged.
    pub fn reveal(&self) -> Option<&str> {
        self.0.as_ref().map(Secret::reveal)
    }
}

/// A token that was shown, by its digest: equal for equal tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; 32]);

impl<S: Sync> FromRequestParts<S> for Shown {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        #[derive(Default, Deserialize)]
        struct Asked {
            token: Option<String>,
        }
        let Query(asked) = Query::<Asked>::try_from_uri(&parts.uri).unwrap_or_default();
        Ok(Self::in_headers(&parts.headers).or(&Self::token(asked.token.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(uri: &str, name: &'static str, value: &'static str) -> Option<String> {
        let request = Request::builder().uri(uri).header(name, value).body(()).unwrap();
        let Ok(shown) = Shown::from_request_parts(&mut request.into_parts().0, &()).await;
        shown.reveal().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_token_comes_as_bearer_in_go_lives_header_or_in_the_address() {
        assert_eq!(read("/", "authorization", "bearer  key ").await.as_deref(), Some("key"));
        assert_eq!(read("/", "x-auth-token", "key").await.as_deref(), Some("key"));
        assert_eq!(read("/ws?a=b&token=k%2Bey", "host", "x").await.as_deref(), Some("k+ey"));
        assert_eq!(read("/ws?token=other", "authorization", "Bearer key").await.as_deref(), Some("key"));
        for (uri, value) in [("/", "Basic a2V5"), ("/", "Bearer"), ("/?token=", "Bearer "), ("/?%ff", "x")] {
            assert_eq!(read(uri, "authorization", value).await, None, "{uri} {value}");
        }
    }
}
