//! What WHIP and WHEP share: a peer that comes by one POST and goes by one DELETE (RFC 9725 §4.2).
//!
//! Owns: session URLs and the seat behind each, and CORS. Beside this file: `ice_patch` (trickle and ICE restarts),
//! `whep_events` and `whep_layer` (WHEP's extensions).
//! Promises: a seat is given back when its client deletes the session, when its media ends or never begins, and when the
//! room closes it. What a request may cost before it is refused is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::limits::TokenBucket;
use super::problem::Problem;
use super::whep_events::{Events, Reconnect};
use super::ws::seat::Seat;
use super::ws::{ROOM_MAX, TOKEN_MAX};
use super::{AppState, golive, ice_patch, whep, whep_events, whep_layer, whip};
use crate::room::api::{Capabilities, JoinRequest, MediaState, Notice, Notices};
use crate::runtime::clock;
use crate::session::negotiate::is_usable;
use crate::wire::sdp::{Description, SDP_BYTES_MAX};

/// Offers being read at once, of up to 1 MiB each. One is usually 5 KB and comes in one piece.
const OFFERS_READ_MAX: usize = 128;
/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// How long a session may take until its media is up: nobody else would notice that it never will be. Longer than a
/// DTLS handshake is tried for.
const CONNECT_WAIT: Duration = Duration::from_secs(45);
/// Requests to a session that are answered: some a second for long, as many as candidates that trickle one by one at
/// once. Each restart is told to every worker.
const REQUESTS_PER_S: u32 = 10;
const REQUESTS_BURST: u32 = 100;
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
    /// The session URL; relative to the server, so that it holds behind a proxy too. 128 bits that nobody guesses (RFC 9725
    /// §5).
    fn url(self, number: u128) -> String {
        let name = match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        };
        format!("/{name}/s/{number:032x}")
    }
}

/// A session: a seat, and what belongs to its URL.
pub struct Session {
    /// The peer's place in the room.
    pub seat: Seat,
    /// Names the ICE session (RFC 9725 §4.3.1): our ufrag.
    pub tag: String,
    /// The event stream that its viewer asked for.
    pub events: Option<Events>,
    requests: TokenBucket,
}

/// All sessions. As many as there are seats: each one holds one.
pub struct Sessions {
    by_url: Mutex<HashMap<(Endpoint, u128), Session>>,
    readers: Semaphore,
    reconnect: watch::Sender<Option<Reconnect>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { by_url: Mutex::default(), readers: Semaphore::new(OFFERS_READ_MAX), reconnect: watch::Sender::new(None) }
    }
}

impl Sessions {
    /// Tells all viewers that listen to events to come again, at another endpoint or at the one they know, and those who
    /// begin to listen later too.
    pub fn reconnect(&self, url: Option<String>) {
        self.reconnect.send_replace(Some(Reconnect { url }));
    }

    /// What [`Self::reconnect`] was told last.
    pub(super) fn reconnects(&self) -> watch::Receiver<Option<Reconnect>> {
        self.reconnect.subscribe()
    }

    /// Looks at a session, or changes it. Short: all others wait.
    ///
    /// # Errors
    /// 404 when there is none under that URL, 429 when it is asked too often.
    pub(super) fn with<T>(
        &self,
        endpoint: Endpoint,
        id: &str,
        act: impl FnOnce(&mut Session) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let mut sessions = self.lock();
        let session = number(id).and_then(|number| sessions.get_mut(&(endpoint, number))).ok_or_else(no_session)?;
        if !session.requests.take(clock::now()) {
            return Err(Problem::too_often());
        }
        act(session)
    }

    fn keep(&self, endpoint: Endpoint, seat: Seat, tag: String) -> u128 {
        let requests = TokenBucket::new(clock::now(), REQUESTS_PER_S, REQUESTS_BURST);
        let number = rand::random();
        self.lock().insert((endpoint, number), Session { seat, tag, events: None, requests });
        number
    }

    /// Takes a session out; dropped, its seat is free and its event stream ends.
    fn take(&self, endpoint: Endpoint, number: u128) -> Option<Session> {
        self.lock().remove(&(endpoint, number))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Endpoint, u128), Session>> {
        self.by_url.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number in a URL.
pub(super) fn number(text: &str) -> Option<u128> {
    let is_number = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_number)
}

fn no_session() -> Problem {
    Problem::not_found("there is no such session")
}

/// Every path of WHIP and WHEP: our own and those of go-live.
pub fn routes() -> Router<AppState> {
    let endpoint = |post: MethodRouter<AppState>| post.get(async || StatusCode::NO_CONTENT).options(preflight);
    let session = |endpoint| {
        delete(move |state, id| end(state, id, endpoint))
            .get(move |state, id| probe(state, id, endpoint))
            .patch(move |state, id, request| ice_patch::patch(state, id, endpoint, request))
            .options(preflight)
    };
    Router::new()
        .route("/whip/{room}", endpoint(post(whip::create)))
        .route("/whep/{room}", endpoint(post(whep::create)))
        .route("/api/whip/publish/{room}", endpoint(post(whip::create_go_live)))
        .route("/api/whep/play/{room}", endpoint(post(whep::create_go_live)))
        .route("/whip/s/{id}", session(Endpoint::Whip))
        .route("/whep/s/{id}", session(Endpoint::Whep))
        .route("/whep/s/{id}/layer", post(whep_layer::choose).options(preflight))
        .route("/whep/s/{id}/sse", post(whep_events::create).options(preflight))
        .route("/whep/s/{id}/sse/{stream}", get(whep_events::listen).delete(whep_events::end).options(preflight))
        .layer(DefaultBodyLimit::max(SDP_BYTES_MAX))
        .layer(map_response(finish))
}

/// RFC 9725 §4.2: browsers ask before they post from another origin, without credentials.
async fn preflight() -> impl IntoResponse {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, PATCH, DELETE, OPTIONS"),
        // Named one by one: a wildcard does not cover Authorization (Fetch §3.2.3).
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match, X-Auth-Token"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (HeaderName::from_static("accept-post"), SDP),
        (HeaderName::from_static("accept-patch"), ice_patch::FRAGMENT),
    ];
    (StatusCode::NO_CONTENT, headers)
}

/// CORS, and words where axum has none.
async fn finish(method: Method, mut response: Response) -> Response {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} means nothing here")).into_response();
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = HeaderValue::from_static("Location, ETag, Link, Retry-After");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
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
    check_type(request.headers(), SDP)?;
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

/// 415 for what comes as something else.
pub(super) fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let sentence = format!("the body must come as Content-Type: {wanted}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence))
}

/// A body that is text, of bounded length and soon.
pub(super) async fn body(state: &AppState, request: Request) -> Result<String, Problem> {
    let Ok(_permit) = state.sessions.readers.try_acquire() else {
        return Err(Problem::busy("too many requests are being read"));
    };
    let body = timeout(BODY_WAIT, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?;
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    String::from_utf8(body.into()).map_err(|_| Problem::bad_request("the body is not text"))
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
    let tag = ice_id(&answer).to_owned();
    let number = state.sessions.keep(endpoint, seat, tag.clone());
    tokio::spawn(attend(Arc::clone(&state.sessions), (endpoint, number), joined.notices, CONNECT_WAIT));
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, endpoint.url(number)),
        (header::ETAG, quoted(&tag)),
        // The next request comes when all is over; until then an open connection would only cost memory.
        (header::CONNECTION, "close".to_owned()),
    ];
    let mut links = golive::ice_server_links(&state.config);
    if endpoint == Endpoint::Whep {
        links.extend([whep_events::link(&endpoint.url(number)), whep_layer::link(&endpoint.url(number))]);
    }
    let links = AppendHeaders(links.into_iter().map(|link| (header::LINK, link)));
    Ok((StatusCode::CREATED, headers, links, answer).into_response())
}

/// A strong entity tag (RFC 9110 §8.8.3).
pub(super) fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
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

/// GET of a session URL: it is there.
async fn probe(
    State(state): State<AppState>,
    Path(id): Path<String>,
    endpoint: Endpoint,
) -> Result<StatusCode, Problem> {
    state.sessions.with(endpoint, &id, |_| Ok(StatusCode::NO_CONTENT))
}

/// DELETE of a session URL. `If-Match` means nothing here.
async fn end(State(state): State<AppState>, Path(id): Path<String>, endpoint: Endpoint) -> Result<StatusCode, Problem> {
    let session = number(&id).and_then(|number| state.sessions.take(endpoint, number));
    session.map(|_| StatusCode::OK).ok_or_else(no_session)
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
        let number = sessions.keep(Endpoint::Whep, seat, String::new());
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
