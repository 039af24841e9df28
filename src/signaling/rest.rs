//! `/api/rooms`: rooms to create, list, look at and delete, as SFU-Go has them; where the settings say so, the list is
//! go-live's.
//!
//! What changes something is for those who may manage rooms.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::cors::CorsLayer;

use super::AppState;
use super::auth::grant::{Denied, Grant, Role};
use super::auth::shown::Shown;
use super::http::rfc3339;
use super::problem::Problem;
use super::ws::envelope::Fields;
use super::ws::{NAME_MAX, sfu_go};
use crate::config::Config;
use crate::config::dialects::RoomsApi;
use crate::room::api::RoomView;
use crate::room::list::RoomLimits;

/// A name and a number.
const BODY_BYTES_MAX: usize = 16 << 10;
/// SFU-Go's limit, where the seats are not more.
const ROOMS_MAX: usize = 1000;

/// The paths.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/rooms", get(list).post(create))
        .route("/api/rooms/{id}", get(show).delete(delete))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CorsLayer::permissive())
}

/// The limits that the settings ask for.
pub fn limits(config: &Config) -> RoomLimits {
    let rooms = config.dialects.rooms_max.unwrap_or(config.max_connections.max(ROOMS_MAX));
    RoomLimits { rooms, peers: config.dialects.room_places }
}

/// Where rooms are closed, the list is for who may come into some room, and of who may come into one only, it has no other.
async fn list(State(state): State<AppState>, shown: Shown) -> Response {
    let grant = match state.door.admit_anywhere(&shown).await {
        Ok(grant) => grant,
        Err(denied) => return denied.into_response(),
    };
    let mut rooms = state.control.rooms();
    rooms.retain(|room| grant.room.as_ref().is_none_or(|own| *own == room.id));
    match state.config.dialects.rooms_api {
        RoomsApi::GoLive => Json(rooms.iter().map(live).collect::<Value>()).into_response(),
        RoomsApi::SfuGo => {
            let views: Vec<Value> = rooms.iter().map(view).collect();
            Json(json!({"total": views.len(), "rooms": views})).into_response()
        }
    }
}

async fn create(State(state): State<AppState>, shown: Shown, body: Bytes) -> Response {
    let (name, places) = match wish(&body) {
        Ok(wish) => wish,
        Err(sentence) => return Problem::bad_request(sentence).into_response(),
    };
    if let Err(denied) = manage(&state, &shown, &name).await {
        return denied.into_response();
    }
    match state.control.create_room(&name, places, sfu_go::is_id(&name)) {
        Ok(room) => Json(view(&room)).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

async fn show(State(state): State<AppState>, Path(id): Path<String>, shown: Shown) -> Response {
    match state.door.admit_anywhere(&shown).await {
        Ok(grant) if grant.room.as_ref().is_none_or(|own| *own == id) => {}
        Ok(_) => return unknown(),
        Err(denied) => return denied.into_response(),
    }
    match state.control.room(&id) {
        Some(room) => Json(view(&room)).into_response(),
        None => unknown(),
    }
}

async fn delete(State(state): State<AppState>, Path(id): Path<String>, shown: Shown) -> Response {
    if let Err(denied) = manage(&state, &shown, &id).await {
        return denied.into_response();
    }
    if state.control.close_room(&id) { StatusCode::NO_CONTENT.into_response() } else { unknown() }
}

/// Whether rooms may be made and ended. Where there are administrators, whoever comes in as everybody may does not do it.
async fn manage(state: &AppState, shown: &Shown, room: &str) -> Result<(), Denied> {
    let is_nobody = |grant: &Grant| !grant.is_admin && grant.identity.is_none() && state.door.knows_administrators();
    match state.admit(shown, room, None, Role::Manage).await {
        Ok(grant) if !is_nobody(&grant) => Ok(()),
        Ok(_) => state.admit_admin(shown).await.map(drop),
        Err(denied) => state.admit_admin(shown).await.map(drop).map_err(|_| denied),
    }
}

/// The name and the number of places; 0 means the usual number.
fn wish(body: &[u8]) -> Result<(String, Option<usize>), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not understood: {error}"))?;
    let fields = Fields::of(&body).map_err(|_| "the body must be an object".to_owned())?;
    let name = fields.required(&["name"], NAME_MAX)?.to_owned();
    let places = match fields.value(&["maxPeers", "max_peers"]) {
        None => None,
        Some(number) => Some(number.as_u64().ok_or("maxPeers must be a whole number")?),
    };
    Ok((name, places.filter(|places| *places > 0).map(|places| places.try_into().unwrap_or(usize::MAX))))
}

fn view(room: &RoomView) -> Value {
    json!({
        "id": room.id,
        "name": room.name,
        "state": if room.peers.is_empty() { "inactive" } else { "active" },
        "peerCount": room.peers.len(),
        "trackCount": room.tracks,
        "createdAt": rfc3339(room.created_at),
        "updatedAt": rfc3339(room.updated_at),
    })
}

fn live(room: &RoomView) -> Value {
    json!({"name": room.id, "hasPublisher": room.tracks > 0, "tracks": room.tracks, "subscribers": room.subscribers})
}

fn unknown() -> Response {
    Problem::not_found("there is no room with this id").into_response()
}
