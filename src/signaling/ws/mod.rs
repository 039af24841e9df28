//! The WebSocket endpoints: which path and first message mean which dialect.

pub mod control_socket;
pub mod envelope;
pub mod gryt;
pub mod gryt_documented;
pub mod seat;
pub mod sfu_go;
mod sfu_go_beat;
mod sfu_go_frame;
mod sfu_go_tracks;
pub mod socket;
pub mod switchboard;
pub mod upgrade;
pub mod wishes;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::envelope::Envelope;
use self::socket::{Ending, Rate, Socket};
use self::upgrade::{NoOpening, Opening, Stream};
use super::auth::shown::Shown;
use super::limits::Place;
use super::{AppState, page};

/// Longest room id.
pub(super) const ROOM_MAX: usize = 256;
/// Longest id of a user or server, and longest password.
const ID_MAX: usize = 256;
/// Longest name for people.
pub(super) const NAME_MAX: usize = 256;
/// Longest token.
pub(super) const TOKEN_MAX: usize = 16 << 10;
/// Longest candidate line.
const CANDIDATE_MAX: usize = 4 << 10;
/// Sockets that have not joined yet may exist beside the seats; beyond that an upgrade is refused.
const UNJOINED_MAX: u64 = 1024;

/// A request for a WebSocket, and the place it takes where its client came through a proxy.
pub struct Upgrade {
    opening: Result<Opening, NoOpening>,
    place: Option<Arc<Place>>,
}

impl FromRequestParts<AppState> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let place = parts.extensions.remove();
        Ok(Self { opening: Opening::from_request_parts(parts, state).await, place })
    }
}

/// `/`: the page, or Gryt's client.
pub async fn root(state: State<AppState>, headers: HeaderMap, shown: Shown, upgrade: Upgrade) -> Response {
    if headers.contains_key(header::UPGRADE) { client(state, shown, upgrade).await } else { page::index(&headers) }
}

/// `/client`: Gryt's client; its first message decides which of the two protocols it speaks.
pub async fn client(State(state): State<AppState>, shown: Shown, upgrade: Upgrade) -> Response {
    if let Err(denied) = state.door.look(&shown).await {
        return denied.into_response();
    }
    accept(state, upgrade, |socket, state| async move {
        gryt_client(Socket::new(socket, &state, Rate::CLIENT).showing(shown), state).await;
    })
}

/// `/server`: Gryt's control socket, or where it is.
pub async fn server(state: State<AppState>, shown: Shown, upgrade: Upgrade) -> Response {
    match state.config.dialects.control_port {
        None => control(state, shown, upgrade).await,
        Some(port) => {
            let sentence = "servers connect to another port here; X-Gryt-Control-Port names it\n";
            (StatusCode::FORBIDDEN, [("x-gryt-control-port", port.to_string())], sentence).into_response()
        }
    }
}

/// Gryt's control socket. Where rooms are closed, a server that may close more of them, and sign tokens for them, shows who
/// it is.
pub async fn control(State(state): State<AppState>, shown: Shown, upgrade: Upgrade) -> Response {
    if let Err(denied) = state.door.admit_server(&shown).await {
        return denied.into_response();
    }
    accept(state, upgrade, |socket, state| async move {
        control_socket::run(Socket::new(socket, &state, Rate::SERVER), state).await;
    })
}

/// `/ws`: Switchboard, or SFU-Go where the query says who comes.
pub async fn ws(
    State(state): State<AppState>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    shown: Shown,
    upgrade: Upgrade,
) -> Response {
    if let Err(denied) = state.door.look(&shown).await {
        return denied.into_response();
    }
    let word = |name: &str| query.get(name).cloned();
    match (word("userId"), word("name")) {
        (None, None) => accept(state, upgrade, |socket, state| async move {
            switchboard::run(Socket::new(socket, &state, Rate::CLIENT).showing(shown), state, None).await;
        }),
        (user_id, name) => accept(state, upgrade, |socket, state| async move {
            let caller = sfu_go::Caller { user_id: user_id.unwrap_or_default(), name };
            let socket =
                Socket::new(socket, &state, Rate::COUNTED).showing(shown).with_message_max(sfu_go::MESSAGE_MAX);
            sfu_go_client(socket.with_pings(sfu_go::PING_INTERVAL, sfu_go::SILENCE_MAX), state, caller).await;
        }),
    }
}

fn accept<F>(state: AppState, upgrade: Upgrade, serve: impl FnOnce(Stream, AppState) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send,
{
    let Upgrade { opening, place } = upgrade;
    let opening = match opening {
        Ok(opening) => opening,
        Err(refusal) => return refusal.into_response(),
    };
    let sockets_max = state.config.max_connections as u64 + UNJOINED_MAX;
    if state.is_stopping() || state.sockets.snapshot().active >= sockets_max {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "no room for another connection\n")
            .into_response();
    }
    let open = state.sockets.open();
    opening.accept(move |socket| async move {
        serve(socket, state).await;
        drop((open, place));
    })
}

async fn sfu_go_client(mut socket: Socket, state: AppState, caller: sfu_go::Caller) {
    let first = match caller.user_id.is_empty() {
        true => Err(Ending::error(1008, "Missing userId", "bad-join", "userId is missing in the query")),
        false => socket.first(&state).await,
    };
    match first {
        Ok(text) if switchboard::is_join(&text) => switchboard::run(socket, state, Some(text)).await,
        Ok(text) => sfu_go::run(socket, state, caller, text).await,
        Err(ending) => {
            if let Some((code, sentence)) = &ending.error {
                let _ = socket.send(sfu_go::error(code, sentence));
            }
            socket.close(ending).await;
        }
    }
}

async fn gryt_client(mut socket: Socket, state: AppState) {
    let ending = match socket.first(&state).await {
        Err(ending) => ending,
        Ok(text) => match Envelope::parse(&text) {
            Ok(first) if first.event == "client_join" => return gryt::run(socket, state, first).await,
            Ok(first) if first.event == "join" => return gryt_documented::run(socket, state, first).await,
            Ok(_) => Ending::error(1008, "join first", "join-first", "Expected client_join event"),
            Err(sentence) => Ending::error(1008, "join first", "bad-message", sentence),
        },
    };
    // Nobody knows yet which of the two it speaks: it is said in both.
    if let Some((code, sentence)) = &ending.error {
        let _ = socket.send(gryt::room_error(sentence));
        let _ = socket.send(gryt_documented::error(code, sentence));
    }
    socket.close(ending).await;
}
