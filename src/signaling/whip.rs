//! WHIP (RFC 9725): a publisher, such as OBS, comes by one POST.
//!
//! Owns: what a publisher's offer must be. One MediaStream with at most one audio and one video, sent and not received.

use axum::extract::{Path, Request, State};
use axum::response::Response;

use super::AppState;
use super::http_session::{self, Endpoint};
use super::problem::Problem;
use super::whep::check_go_live_room;
use crate::base::format::MediaKind;
use crate::room::api::{Dialect, JoinRequest, StreamNames};
use crate::session::negotiate::{Policy, Role};
use crate::wire::sdp::Description;

const POLICY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: false,
    live_binding: false,
    slots: &[],
    role: Role::Publisher,
};

/// `POST /whip/{room}`.
pub async fn create(
    State(state): State<AppState>,
    Path(room): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let offer = http_session::read(&state, &room, request).await?;
    check(&offer.description)?;
    let request = JoinRequest {
        room,
        user_id: None,
        display_name: "WHIP".to_owned(),
        dialect: Dialect::Whip,
        policy: POLICY,
        stream_names: StreamNames::Publisher,
        capabilities: offer.capabilities,
    };
    http_session::start(&state, Endpoint::Whip, request, &offer)
}

/// `POST /api/whip/publish/{room}`: go-live's path, with go-live's room names.
pub async fn create_go_live(
    state: State<AppState>,
    Path(room): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    check_go_live_room(&room)?;
    create(state, Path(room), request).await
}

/// RFC 9725 §4.4.2: more tracks or streams than we take are 406, never a part of them.
fn check(offer: &Description) -> Result<(), Problem> {
    let sent = |kind| offer.media.iter().filter(|m| !m.disabled && m.kind == Some(kind) && m.direction.send).count();
    match (sent(MediaKind::Audio), sent(MediaKind::Video)) {
        (0, 0) => Err(Problem::not_acceptable("a publisher's offer needs an audio or video m-line that is sendonly")),
        (0 | 1, 0 | 1) => Ok(()),
        (audio, video) => {
            let sentence = format!("one audio and one video at most, but the offer has {audio} and {video}");
            Err(Problem::not_acceptable(sentence))
        }
    }
}
