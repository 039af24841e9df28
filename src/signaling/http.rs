//! Plain HTTP: health, metrics and the debug views.

use std::collections::HashMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::AppState;
use super::auth::shown::Shown;
use crate::runtime::clock;
use crate::telemetry::metrics::{self, Sockets};

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
    let counters = state.control.counters();
    let body = json!({
        "status": status,
        "service": "sfu",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": rfc3339(clock::wall()),
        "instanceId": state.config.dialects.instance_id,
        // SFU-Go's clients look for it; rooms of several servers are not one yet.
        "redis": "disabled",
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
    if !state.config.dialects.metrics {
        return (StatusCode::NOT_FOUND, "metrics are off: METRICS_ENABLED is false\n").into_response();
    }
    let recordings = state.recordings.read();
    let failed = recordings.iter().filter(|recording| recording.failure.is_some()).count();
    let mut counters = state.control.counters();
    (counters.recordings, counters.recordings_failed) = (recordings.len() as u64, failed as u64);
    let sockets = Sockets { refused: state.limits.refused(), ..state.sockets.snapshot() };
    let text = metrics::render(counters, sockets);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// `/debug/rooms`.
pub async fn debug_rooms(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_rooms()).await
}

/// `/debug/peers`.
pub async fn debug_peers(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_peers()).await
}

/// `/debug/tracks`.
pub async fn debug_tracks(state: State<AppState>, headers: HeaderMap) -> Response {
    guarded(&state, &headers, |state| state.control.debug_tracks()).await
}

/// `/debug/why?from=&to=`.
pub async fn debug_why(
    State(state): State<AppState>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refused(&state, &headers).await {
        return refusal;
    }
    let id = |name| query.get(name).map(String::as_str).filter(|id: &&str| !id.is_empty());
    match state.control.why(id("from"), id("to")) {
        Ok(view) => Json(view).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, Json(json!({"error": error.to_string()}))).into_response(),
    }
}

pub(super) fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

async fn guarded(state: &AppState, headers: &HeaderMap, view: impl FnOnce(&AppState) -> Value) -> Response {
    refused(state, headers).await.unwrap_or_else(|| Json(view(state)).into_response())
}

/// The answer to whoever is no administrator.
pub(super) async fn refused(state: &AppState, headers: &HeaderMap) -> Option<Response> {
    state.admit_admin(&Shown::in_headers(headers)).await.err().map(IntoResponse::into_response)
}
