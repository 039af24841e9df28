//! What an HTTP request is refused with: a status, a sentence as `{"error"}`, and where it helps when to come again.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::auth::grant::Denied;
use crate::room::api::{JoinError, RequestError};
use crate::room::showing::LayerError;

/// What a client that finds no place is told to wait, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    sentence: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A refusal that asking again does not change.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after_s: None }
    }

    /// 400.
    pub fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// 404.
    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    /// 429: less often, please.
    pub fn too_often() -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait a moment");
        Self { retry_after_s: Some(1), ..problem }
    }

    /// 406: fine SDP with m-lines that we do not take.
    pub fn not_acceptable(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, sentence)
    }

    /// 503.
    pub fn busy(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence).for_now()
    }

    /// It may be different in a moment.
    pub fn for_now(self) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), sentence = self.sentence, "request refused");
        let mut response = (self.status, Json(json!({"error": self.sentence}))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::HasPublisher => Self::new(StatusCode::CONFLICT, error.to_string()).for_now(),
            JoinError::TooManyViewers { .. } => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            JoinError::Full { .. } | JoinError::RoomFull { .. } | JoinError::TooManyRooms(_) | JoinError::Stopping => {
                Self::busy(error.to_string())
            }
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Gone => Self::busy(error.to_string()),
            RequestError::Negotiate(error) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let retry_after_s = denied.retry_after_s();
        Self { retry_after_s, ..Self::new(denied.status(), denied.to_string()) }
    }
}

impl From<LayerError> for Problem {
    fn from(error: LayerError) -> Self {
        let status = match error {
            LayerError::Gone(_) | LayerError::NoPicture(_) => StatusCode::NOT_FOUND,
            LayerError::NothingShown => StatusCode::CONFLICT,
            LayerError::NoEncoding { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}
