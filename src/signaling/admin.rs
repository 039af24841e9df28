//! What only an administrator may ask: `/api/admin/*`.
//!
//! `PUT /api/admin/impair/{room}/{peer}` puts a peer behind a bad network, `GET` shows it, `DELETE` lifts it. Guarded like
//! `/debug/*`, and there only where the server was started with `--impairments`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::AppState;
use super::http::refused;
use crate::room::impair::{BadNetwork, ImpairError};

/// `/api/admin/impair/{room}/{peer}`.
pub async fn impair(
    State(state): State<AppState>,
    Path((room, peer)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !state.config.impairments {
        return problem(StatusCode::NOT_FOUND, "this server was not started with --impairments");
    }
    if let Some(refusal) = refused(&state, &headers).await {
        return refusal;
    }
    let network = match method {
        Method::PUT => match serde_json::from_slice(&body) {
            Ok(network) => network,
            Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body is not understood: {error}")),
        },
        Method::DELETE => BadNetwork::default(),
        _ => {
            return match state.control.impairment(&room, &peer) {
                Some(network) => Json(network).into_response(),
                None => problem(StatusCode::NOT_FOUND, &ImpairError::NoPeer.to_string()),
            };
        }
    };
    match state.control.impair(&room, &peer, network) {
        Ok(()) => Json(network).into_response(),
        Err(error @ ImpairError::NoPeer) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ ImpairError::Bad(_)) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn problem(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({"error": sentence}))).into_response()
}
