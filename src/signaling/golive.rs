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
use super::http::refused;
use super::problem::Problem;
use crate::config::Config;

/// go-live's paths that are neither WHIP nor WHEP.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/bootstrap", get(bootstrap)).route("/api/admin/rooms/{room}/close", post(close))
}

/// STUN servers for clients, as URLs (RFC 7064).
fn ice_server_urls(config: &Config) -> impl Iterator<Item = String> {
    config.stun_servers.iter().map(|server| match server.host.contains(':') {
        true => format!("stun:[{}]:{}", server.host, server.port),
        false => format!("stun:{}:{}", server.host, server.port),
    })
}

/// The `Link`s of an answer that name them (RFC 9725 §4.6), one each.
pub fn ice_server_links(config: &Config) -> Vec<String> {
    ice_server_urls(config).map(|url| format!("<{url}>; rel=\"ice-server\"")).collect()
}

/// `GET /api/bootstrap`.
async fn bootstrap(State(state): State<AppState>) -> Json<Value> {
    let auth = &state.config.auth;
    Json(json!({
        "authEnabled": auth.closes_rooms() || !auth.room_tokens.is_empty(),
        "recordEnabled": false,
        "iceServers": ice_server_urls(&state.config).map(|url| json!({"urls": url})).collect::<Vec<_>>(),
        "features": {"rooms": true, "records": false},
    }))
}

/// `POST /api/admin/rooms/{room}/close`. Without an admin token nobody may.
async fn close(
    State(state): State<AppState>,
    Path(room): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if state.config.admin_token.is_none() {
        let sentence = "this server has no admin token; start it with ADMIN_TOKEN to close rooms";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, sentence));
    }
    if let Some(refusal) = refused(&state, &headers) {
        return Ok(refusal);
    }
    match state.control.close_room(&room) {
        true => Ok(Json(json!({"room": room, "closed": true})).into_response()),
        false => Err(Problem::not_found("there is no such room")),
    }
}
