//! The WebSocket endpoints: which path and first message mean which dialect.

pub mod control_socket;
pub mod envelope;
pub mod gryt;
pub mod gryt_documented;
pub mod seat;
pub mod socket;
pub mod switchboard;
pub mod upgrade;
pub mod wishes;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::envelope::Envelope;
use self::socket::{Ending, Rate, Socket};
use self::upgrade::{NoOpening, Opening, Stream};
use super::{AppState, page};

/// Longest room id.
pub(super) const ROOM_MAX: usize = 256;
/// Longest id of a user or server, and longest password.
const ID_MAX: usize = 256;
/// Longest name for people.
const NAME_MAX: usize = 256;
/// Longest token.
pub(super) const TOKEN_MAX: usize = 16 << 10;
/// Longest candidate line.
const CANDIDATE_MAX: usize = 4 << 10;
/// Sockets that have not joined yet may exist beside the seats; beyond that an upgrade is refused.
const UNJOINED_MAX: u64 = 1024;

type Upgrade = Result<Opening, NoOpening>;

/// `/`: the page, or Gryt's client.
pub async fn root(state: State<AppState>, headers: HeaderMap, upgrade: Upgrade) -> Response {
    if headers.contains_key(header::UPGRADE) { client(state, upgrade).await } else { page::index(&headers) }
}

/// `/client`: Gryt's client; its first message decides which of the two protocols it speaks.
pub async fn client(State(state): State<AppState>, upgrade: Upgrade) -> Response {
    accept(state, upgrade, |socket, state| async move {
        gryt_client(Socket::new(socket, &state, Rate::CLIENT), state).await;
    })
}

/// `/server`: Gryt's control socket.
pub async fn server(State(state): State<AppState>, upgrade: Upgrade) -> Response {
    accept(state, upgrade, |socket, state| async move {
        control_socket::run(Socket::new(socket, &state, Rate::SERVER), state).await;
    })
}

/// `/ws`: Switchboard. With `userId` in the query it would be SFU-Go.
pub async fn ws(
    State(state): State<AppState>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    upgrade: Upgrade,
) -> Response {
    if query.contains_key("userId") {
        let sentence =
            "The SFU-Go protocol (/ws?userId=) is not spoken yet; use /ws for Switchboard or /client for Gryt.\n";
        return (StatusCode::NOT_IMPLEMENTED, sentence).into_response();
    }
    accept(state, upgrade, |socket, state| async move {
        switchboard::run(Socket::new(socket, &state, Rate::CLIENT), state).await;
    })
}

fn accept<F>(
    state: AppState,
    upgrade: Upgrade,
    serve: impl FnOnce(Stream, AppState) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let sockets_max = state.config.max_connections as u64 + UNJOINED_MAX;
    if state.is_stopping() || state.sockets.snapshot().active >= sockets_max {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "no room for another connection\n")
            .into_response();
    }
    let open = state.sockets.open();
    upgrade.accept(move |socket| async move {
        serve(socket, state).await;
        drop(open);
    })
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
