//! WHEP (draft-ietf-wish-whep): a viewer comes by one POST, and what the room's publisher sends is put on its m-lines.
//!
//! Owns: what a viewer's offer must be. Its m-lines are there from the start; media that comes later, or a publisher
//! that follows another, needs no new description. `?wait=1` comes before the publisher.

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::AppState;
use super::http_session::{self, Endpoint, Offer};
use super::problem::Problem;
use crate::room::api::{Capabilities, Dialect, JoinRequest, StreamNames};
use crate::session::negotiate::{Policy, Role};

const POLICY: Policy =
    Policy { server_offers_first: false, server_may_offer: false, live_binding: true, slots: &[], role: Role::Viewer };

/// Longest room name of go-live.
const GO_LIVE_ROOM_MAX: usize = 64;

/// The query of a POST.
#[derive(Debug, Default, Deserialize)]
pub struct Wish {
    wait: Option<String>,
}

impl Wish {
    /// The session shall be held until somebody publishes.
    fn waits(&self) -> bool {
        self.wait.as_deref().is_some_and(|word| !matches!(word, "0" | "false"))
    }
}

/// `POST /whep/{room}`. The draft says 409 when there is nothing to watch yet.
pub async fn create(
    State(state): State<AppState>,
    Path(room): Path<String>,
    Query(wish): Query<Wish>,
    request: Request,
) -> Result<Response, Problem> {
    let offer = read(&state, &room, request).await?;
    if !wish.waits() && !state.control.has_publisher(&room) {
        return Err(Problem::new(StatusCode::CONFLICT, "nobody publishes in this room yet").for_now());
    }
    start(&state, room, &offer)
}

/// `POST /api/whep/play/{room}`: go-live's path, with its room names and its 404.
pub async fn create_go_live(
    State(state): State<AppState>,
    Path(room): Path<String>,
    Query(wish): Query<Wish>,
    request: Request,
) -> Result<Response, Problem> {
    check_go_live_room(&room)?;
    let offer = read(&state, &room, request).await?;
    if !wish.waits() && !state.control.has_publisher(&room) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "nobody publishes in this room").for_now());
    }
    start(&state, room, &offer)
}

async fn read(state: &AppState, room: &str, request: Request) -> Result<Offer, Problem> {
    let offer = http_session::read(state, room, request).await?;
    let mut media = offer.description.media.iter().filter(|media| media.kind.is_some() && !media.disabled);
    if !media.any(|media| media.direction.recv) {
        return Err(Problem::not_acceptable("a viewer's offer needs an audio or video m-line that is recvonly"));
    }
    Ok(offer)
}

fn start(state: &AppState, room: String, offer: &Offer) -> Result<Response, Problem> {
    let request = JoinRequest {
        room,
        user_id: None,
        display_name: "WHEP".to_owned(),
        dialect: Dialect::Whep,
        policy: POLICY,
        stream_names: StreamNames::Publisher,
        capabilities: Capabilities { speak: false, share_video: false, share_screen: false },
    };
    http_session::start(state, Endpoint::Whep, request, offer)
}

/// Room names as go-live has them: `^[A-Za-z0-9_-]{1,64}$`.
pub fn check_go_live_room(room: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=GO_LIVE_ROOM_MAX).contains(&room.len()) && room.bytes().all(allowed) {
        return Ok(());
    }
    Err(Problem::bad_request("a room name has 1 to 64 letters, digits, _ and -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_lives_room_names_are_checked() {
        for good in ["a", "Room_1-b", &"x".repeat(64)] {
            assert_eq!(check_go_live_room(good), Ok(()));
        }
        for bad in ["", "a b", "a/b", "ä", "a.b", &"x".repeat(65)] {
            assert!(check_go_live_room(bad).is_err(), "{bad}");
        }
    }
}
