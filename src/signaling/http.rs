//! Plain HTTP: health, metrics and the debug views.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::AppState;
use crate::runtime::clock;
use crate::telemetry::metrics;

/// `/health`: 503 until every worker's UDP socket has answered its self-check.
pub async fn health(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let (code, status) = if state.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if state.control.is_ready() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting")
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/plain") && !accept.contains("json") {
        let word = if code == StatusCode::OK { "ok" } else { status };
        return (code, word).into_response();
    }
    let timestamp = jiff::Timestamp::try_from(clock::wall()).map(|time| time.to_string()).unwrap_or_default();
    let counters = state.control.counters();
    let body = json!({
        "status": status,
        "service": "sfu",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": timestamp,
        "rooms": counters.rooms,
        "peers": counters.peers,
        "workers": state.control.workers(),
    });
    (code, Json(body)).into_response()
}

/// `/healthz`: the process answers.
pub async fn healthz() -> &'static str {
    "ok"
}

/// `/metrics`.
pub async fn metrics(State(state): State<AppState>) -> Response {
    let text = metrics::render(state.control.counters(), state.sockets.snapshot());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// `/debug/rooms`.
pub async fn debug_rooms(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_rooms())
}

/// `/debug/peers`.
pub async fn debug_peers(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_peers())
}

/// `/debug/tracks`.
pub async fn debug_tracks(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_tracks())
}

/// `/debug/why?from=&to=`.
pub async fn debug_why(
    State(state): State<AppState>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refused(&state, &headers) {
        return refusal;
    }
    let id = |name| query.get(name).map(String::as_str).filter(|id: &&str| !id.is_empty());
    match state.control.why(id("from"), id("to")) {
        Ok(view) => Json(view).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, Json(json!({"error": error.to_string()}))).into_response(),
    }
}

fn guarded(state: &AppState, headers: &HeaderMap, view: impl FnOnce(&AppState) -> Value) -> Response {
    refused(state, headers).unwrap_or_else(|| Json(view(state)).into_response())
}

/// The answer to whoever does not show the admin token, where there is one.
pub(super) fn refused(state: &AppState, headers: &HeaderMap) -> Option<Response> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match &state.config.admin_token {
        Some(token) if !token.is(shown) => {
            let body = Json(json!({"error": "the admin token is required: Authorization: Bearer <ADMIN_TOKEN>"}));
            Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response())
        }
        _ => None,
    }
}
