//! What WHIP and WHEP share: a peer that comes by one POST and goes by one DELETE (RFC 9725 §4.2).
//!
//! Owns: session URLs and the seat behind each, CORS, and HTTP's words for what is refused.
//! Promises: a seat is given back when its client deletes the session, when its media ends or never begins, and when the
//! room closes it. What a POST may cost before it is refused is bounded.
//!
//! Not spoken: PATCH. Our answer holds every candidate and we are ICE-lite, so trickled ones would tell nothing new;
//! sessions without it answer 405 (RFC 9725 §4.3 leaves both trickle and restarts to the server).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::auth::registry::Refusal;
use super::ws::seat::Seat;
use super::ws::{ROOM_MAX, TOKEN_MAX};
use super::{AppState, whep, whip};
use crate::room::api::{Capabilities, JoinError, JoinRequest, MediaState, Notice, Notices, RequestError};
use crate::runtime::clock;
use crate::session::negotiate::is_usable;
use crate::wire::sdp::{Description, SDP_BYTES_MAX};

/// Offers being read at once, of up to 1 MiB each. One is usually 5 KB and comes in one piece.
const OFFERS_READ_MAX: usize = 128;
/// How long an offer may take to arrive.
const OFFER_WAIT: Duration = Duration::from_secs(10);
/// How long a session may take until its media is up: nobody else would notice that it never will be. Longer than a
/// DTLS handshake is tried for.
const CONNECT_WAIT: Duration = Duration::from_secs(45);
/// What a client that finds no place is told to wait, in seconds.
const RETRY_AFTER_S: u32 = 5;
/// `Content-Type` of offers and answers.
const SDP: &str = "application/sdp";

/// Which of the two a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Publishes.
    Whip,
    /// Watches.
    Whep,
}

impl Endpoint {
    /// The session URL; relative to the server, so that it holds behind a proxy too.
    fn url(self, number: u128) -> String {
        let name = match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        };
        format!("/{name}/s/{number:032x}")
    }
}

/// All sessions. As many as there are seats: each one holds one.
pub struct Sessions {
    seats: Mutex<HashMap<(Endpoint, u128), Seat>>,
    readers: Semaphore,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { seats: Mutex::default(), readers: Semaphore::new(OFFERS_READ_MAX) }
    }
}

impl Sessions {
    /// Keeps a seat under a URL that nobody guesses (RFC 9725 §5).
    fn keep(&self, endpoint: Endpoint, seat: Seat) -> u128 {
        let number = rand::random();
        self.lock().insert((endpoint, number), seat);
        number
    }

    /// Takes a seat out; dropped, it is free.
    fn take(&self, endpoint: Endpoint, number: u128) -> Option<Seat> {
        self.lock().remove(&(endpoint, number))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Endpoint, u128), Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every path of WHIP and WHEP: our own and those of go-live.
pub fn routes() -> Router<AppState> {
    let session = |endpoint| delete(move |state, id| end(state, id, endpoint)).options(preflight);
    Router::new()
        .route("/whip/{room}", post(whip::create).options(preflight))
        .route("/whep/{room}", post(whep::create).options(preflight))
        .route("/api/whip/publish/{room}", post(whip::create_go_live).options(preflight))
        .route("/api/whep/play/{room}", post(whep::create_go_live).options(preflight))
        .route("/whip/s/{id}", session(Endpoint::Whip))
        .route("/whep/s/{id}", session(Endpoint::Whep))
        .layer(DefaultBodyLimit::max(SDP_BYTES_MAX))
        .layer(map_response(allow_origins))
}

/// RFC 9725 §4.2: browsers ask before they post from another origin, without credentials.
async fn preflight() -> impl IntoResponse {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, PATCH, DELETE, OPTIONS"),
        // Named one by one: a wildcard does not cover Authorization (Fetch §3.2.3).
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match, X-Auth-Token"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (header::HeaderName::from_static("accept-post"), SDP),
    ];
    (StatusCode::NO_CONTENT, headers)
}

async fn allow_origins(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Location, ETag, Link"));
    response
}

/// An offer that was read, of somebody who may come in.
pub struct Offer {
    text: String,
    /// What it says.
    pub description: Description,
    /// What its sender may publish.
    pub capabilities: Capabilities,
}

/// Reads a POST: its type, who sends it, the description.
pub async fn read(state: &AppState, room: &str, request: Request) -> Result<Offer, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(SDP) {
        let sentence = format!("the offer must come as Content-Type: {SDP}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    if room.is_empty() || room.len() > ROOM_MAX {
        return Err(Problem::bad_request(format!("a room id has 1 to {ROOM_MAX} bytes")));
    }
    let token = token(request.headers());
    if token.is_some_and(|token| token.len() > TOKEN_MAX) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "the token is too long"));
    }
    let required = state.config.require_client_token;
    let claims = state.registry.admit_stranger(clock::wall(), room, None, token, required)?;
    let text = body(state, request).await?;
    let description = Description::parse(&text)
        .map_err(|error| Problem::bad_request(format!("the offer cannot be read: {error}")))?;
    // RFC 9725 §4.4: no session that is half of what was offered.
    let mut media = description.media.iter().map(|m| m.kind.is_none() || m.disabled || is_usable(m, &description));
    if let Some(index) = media.position(|is_fine| !is_fine) {
        let needs = "a codec we know, DTLS-SRTP, rtcp-mux and a place in the BUNDLE";
        return Err(Problem::not_acceptable(format!("m-line {index} cannot be used: it needs {needs}")));
    }
    Ok(Offer { text, description, capabilities: claims.map_or(Capabilities::ALL, |claims| claims.capabilities) })
}

async fn body(state: &AppState, request: Request) -> Result<String, Problem> {
    let Ok(_permit) = state.sessions.readers.try_acquire() else {
        return Err(Problem::busy("too many offers are being read"));
    };
    let body = timeout(OFFER_WAIT, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the offer did not arrive in time"))?;
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    String::from_utf8(body.into()).map_err(|_| Problem::bad_request("the offer is not text"))
}

/// `Authorization: Bearer`, or go-live's own header.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| text("x-auth-token"))
}

/// Takes a seat and answers: the session is there.
pub fn start(state: &AppState, endpoint: Endpoint, request: JoinRequest, offer: &Offer) -> Result<Response, Problem> {
    let joined = state.control.join(request)?;
    let seat = Seat { control: Arc::clone(&state.control), peer: joined.peer };
    let answer = state.control.offer(joined.peer, &offer.text)?;
    let number = state.sessions.keep(endpoint, seat);
    tokio::spawn(attend(Arc::clone(&state.sessions), (endpoint, number), joined.notices, CONNECT_WAIT));
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, endpoint.url(number)),
        (header::ETAG, format!("\"{}\"", ice_id(&answer))),
        // The next request comes when all is over; until then an open connection would only cost memory.
        (header::CONNECTION, "close".to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

/// RFC 9725 §4.3.1: the entity tag names the ICE session.
fn ice_id(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or_default()
}

/// Follows a session to its end: there is no socket whose close would tell it.
async fn attend(
    sessions: Arc<Sessions>,
    (endpoint, number): (Endpoint, u128),
    mut notices: Notices,
    connect_wait: Duration,
) {
    if timeout(connect_wait, media_turns(&mut notices, MediaState::Connected)).await == Ok(true) {
        // RFC 9725 §4.2: expired consent ends the session, since nothing could bring it back.
        media_turns(&mut notices, MediaState::Disconnected).await;
    }
    drop(sessions.take(endpoint, number));
}

/// Waits for a state of the media; `false` when the peer has left the room first.
async fn media_turns(notices: &mut Notices, wanted: MediaState) -> bool {
    loop {
        match notices.recv().await.as_deref() {
            Some(Notice::Media(state)) if *state == wanted => return true,
            Some(Notice::Closed(_)) | None => return false,
            Some(_) => {}
        }
    }
}

/// DELETE of a session URL. `If-Match` means nothing here.
async fn end(State(state): State<AppState>, Path(id): Path<String>, endpoint: Endpoint) -> Result<StatusCode, Problem> {
    let number = u128::from_str_radix(&id, 16).ok().filter(|_| id.len() == 32);
    let seat = number.and_then(|number| state.sessions.take(endpoint, number));
    seat.map(|_| StatusCode::OK).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such session"))
}

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    sentence: String,
    retry_after_s: Option<u32>,
}

impl Problem {
    /// A refusal that asking again does not change.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after_s: None }
    }

    /// 400.
    pub fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// 406: fine SDP with m-lines that we do not take.
    pub fn not_acceptable(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, sentence)
    }

    /// 503.
    pub fn busy(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence).for_now()
    }

    /// It may be different in a moment.
    pub fn for_now(self) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), sentence = self.sentence, "request refused");
        let mut response = (self.status, Json(json!({"error": self.sentence}))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::HasPublisher => Self::new(StatusCode::CONFLICT, error.to_string()).for_now(),
            JoinError::TooManyViewers { .. } => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            JoinError::Full { .. } | JoinError::RoomFull { .. } | JoinError::TooManyRooms(_) | JoinError::Stopping => {
                Self::busy(error.to_string())
            }
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Gone => Self::busy(error.to_string()),
            RequestError::NoTrack(_) => Self::bad_request(error.to_string()),
            RequestError::Negotiate(error) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::TokenRequired => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        Self::new(status, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::room::api::{Dialect, StreamNames};
    use crate::room::control::Control;
    use crate::room::hub::{Hub, HubConfig};
    use crate::session::negotiate::{Policy, Role};
    use crate::wire::sdp::{Fingerprint, HashFunction};

    fn control() -> Arc<Control> {
        let fingerprint = Fingerprint::new(HashFunction::Sha256, &[0xab; 32]).unwrap();
        let addresses = vec![vec!["192.0.2.1:3478".parse().unwrap()]];
        let config = HubConfig { seats: 9, workers: 1, addresses, fingerprint };
        Arc::new(Control::new(Hub::new(config, StdRng::seed_from_u64(1)), Vec::new()))
    }

    fn viewer() -> JoinRequest {
        JoinRequest {
            room: "room".into(),
            user_id: None,
            display_name: String::new(),
            dialect: Dialect::Whep,
            policy: Policy {
                server_offers_first: false,
                server_may_offer: false,
                live_binding: true,
                slots: &[],
                role: Role::Viewer,
            },
            stream_names: StreamNames::Publisher,
            capabilities: Capabilities::ALL,
        }
    }

    #[tokio::test]
    async fn a_session_whose_media_never_comes_gives_its_seat_back() {
        let (control, sessions) = (control(), Arc::<Sessions>::default());
        let joined = control.join(viewer()).unwrap();
        let seat = Seat { control: Arc::clone(&control), peer: joined.peer };
        let number = sessions.keep(Endpoint::Whep, seat);
        assert_eq!(control.rooms().len(), 1);
        attend(Arc::clone(&sessions), (Endpoint::Whep, number), joined.notices, Duration::ZERO).await;
        assert!(control.rooms().is_empty() && sessions.take(Endpoint::Whep, number).is_none());
    }

    #[test]
    fn a_token_comes_as_bearer_or_in_go_lives_header() {
        let read = |name: &'static str, value: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::HeaderName::from_static(name), HeaderValue::from_static(value))]);
            token(&headers).map(str::to_owned)
        };
        assert_eq!(read("authorization", "bearer  key "), Some("key".into()));
        assert_eq!(read("x-auth-token", "key"), Some("key".into()));
        assert_eq!(read("authorization", "Basic a2V5"), None);
        assert_eq!(read("authorization", "Bearer"), None);
    }
}
