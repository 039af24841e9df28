//! What else go-live's clients ask for: how a page begins, and the end of a room.
//!
//! `GET /api/bootstrap` tells a page what this server can do; `POST /api/admin/rooms/{room}/close` throws everybody out.

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::AppState;
use super::auth::shown::Shown;
use super::http::refused;
use super::ice_servers::ice_servers;
use super::problem::Problem;
use crate::runtime::clock;

/// go-live's paths that are neither WHIP nor WHEP.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/bootstrap", get(bootstrap)).route("/api/admin/rooms/{room}/close", post(close))
}

/// `GET /api/bootstrap`.
async fn bootstrap(State(state): State<AppState>, shown: Shown) -> Json<Value> {
    // Who is not let in yet is told of no relay.
    let guest = state.door.admit_anywhere(&shown).await.ok();
    let identity = guest.as_ref().map(|grant| grant.identity.as_deref().unwrap_or_default());
    let auth = &state.config.auth;
    Json(json!({
        "authEnabled": auth.closes_rooms() || !auth.room_tokens.is_empty(),
        "recordEnabled": state.config.record.is_enabled,
        "iceServers": ice_servers(&state.config, clock::wall(), identity),
        "features": {"rooms": true, "records": true},
    }))
}

/// `POST /api/admin/rooms/{room}/close`. Without an admin token nobody may.
async fn close(
    State(state): State<AppState>,
    Path(room): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !state.door.knows_administrators() {
        let sentence = "this server has no admin token; start it with ADMIN_TOKEN to close rooms";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, sentence));
    }
    if let Some(refusal) = refused(&state, &headers).await {
        return Ok(refusal);
    }
    match state.control.close_room(&room) {
        true => Ok(Json(json!({"room": room, "closed": true})).into_response()),
        false => Err(Problem::not_found("there is no such room")),
    }
}
