//! Who may do what: one door for every dialect.
//!
//! Owns: the order in which a token is looked at. A room that a Gryt server registered opens to that server's client
//! tokens. Then, for any room: its own token, the token of all rooms, a signed token. Where none of these is configured
//! for a room, it is open. `ADMIN_TOKEN`, or a signed token that says so, opens what administrators may do.
//! Promises: a refusal says what to do about it, and no secret.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::client_token::Claims;
use super::jwt::{TOKEN_BYTES_MAX, Verifier};
use super::registry::{Refusal, Registry};
use super::shown::Shown;
use crate::config::{Config, Secret};
use crate::room::api::Capabilities;

/// What a client that cannot be served now is told to wait, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// What somebody wants to do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Send only.
    Publish,
    /// Receive only.
    Subscribe,
    /// Take part: to receive, and to send what the grant allows.
    Participate,
    /// Make rooms, end them, record them.
    Manage,
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The one room it is for; `None`: all.
    pub room: Option<String>,
    /// What may be published, where not all of it.
    pub capabilities: Capabilities,
    /// May send.
    pub may_publish: bool,
    /// May receive.
    pub may_subscribe: bool,
    /// May make and end rooms.
    pub may_manage: bool,
    /// May do what administrators do.
    pub is_admin: bool,
    /// Whose it is.
    pub identity: Option<String>,
}

impl Grant {
    /// Everything but what administrators do, in all rooms.
    pub const OPEN: Self = Self {
        room: None,
        capabilities: Capabilities::ALL,
        may_publish: true,
        may_subscribe: true,
        may_manage: true,
        is_admin: false,
        identity: None,
    };

    /// What a Gryt server's client token allows.
    pub fn of_claims(claims: Claims) -> Self {
        let Claims { user_id, room, capabilities } = claims;
        Self { room: Some(room), capabilities, identity: Some(user_id), may_manage: false, ..Self::OPEN }
    }

    /// The user id of a peer: the token's, which one that the client names must equal.
    pub fn user_id(&self, named: Option<&str>) -> Result<Option<String>, Denied> {
        match (&self.identity, named) {
            (Some(identity), Some(named)) if identity != named => {
                Err(Denied::forbidden("the token is for a different user: use the user id that it names"))
            }
            (Some(identity), _) => Ok(Some(identity.clone())),
            (None, named) => Ok(named.map(str::to_owned)),
        }
    }

    fn check(&self, room: &str, role: Role) -> Result<(), Denied> {
        if self.room.as_deref().is_some_and(|own| own != room) {
            return Err(Denied::forbidden("the token is for a different room: get one for this room"));
        }
        let (is_fine, sentence) = match role {
            Role::Publish => (self.may_publish, "the token does not allow to publish: get one whose role is publisher"),
            Role::Subscribe => (self.may_subscribe, "the token does not allow to watch: get one whose role is viewer"),
            Role::Participate => (
                self.may_subscribe,
                "the token does not allow to watch, so it takes part in no call: publish by WHIP, or get one whose role is participant",
            ),
            Role::Manage => (self.may_manage, "the token does not allow to manage rooms: get one whose role is admin"),
        };
        if is_fine { Ok(()) } else { Err(Denied::forbidden(sentence)) }
    }
}

/// Somebody was turned away. The sentence says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Denied {
    status: StatusCode,
    sentence: String,
    retry_after_s: Option<u64>,
}

impl Denied {
    /// 401: no token, or one that is worth nothing.
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, sentence)
    }

    /// 403: a good token for something else.
    pub fn forbidden(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, sentence)
    }

    /// 503: nobody can tell at the moment.
    pub fn unavailable(sentence: impl Into<String>) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence) }
    }

    /// 429: this user asks too often.
    pub fn too_many(wait: Duration) -> Self {
        let denied = Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of this user: wait a little");
        Self { retry_after_s: Some(wait.as_secs() + 1), ..denied }
    }

    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after_s: None }
    }

    /// The HTTP status that says the same.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// When to come again, in seconds, where that helps.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// The word for dialects whose errors have codes of their own.
    pub fn code(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::TOO_MANY_REQUESTS => "rate-limited",
            _ => "unavailable",
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.sentence}))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 names the scheme.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TokenRequired => Self::invalid(refusal.to_string()),
            _ => Self::forbidden(refusal.to_string()),
        }
    }
}

/// The door: tokens in, grants out.
pub struct Door {
    token: Option<Secret>,
    room_tokens: std::collections::HashMap<String, Secret>,
    admin_token: Option<Secret>,
    signed: Option<Verifier>,
    needs_client_token: bool,
}

impl Door {
    /// As the settings have it.
    pub fn new(config: &Config) -> Self {
        let auth = &config.auth;
        Self {
            token: auth.token.clone(),
            room_tokens: auth.room_tokens.clone(),
            admin_token: config.admin_token.clone(),
            signed: auth.has_jwt().then(|| Verifier::new(auth)),
            needs_client_token: config.require_client_token,
        }
    }

    /// Whether anybody can be told from everybody else as an administrator.
    pub fn knows_administrators(&self) -> bool {
        self.admin_token.is_some() || self.signed.is_some()
    }

    /// Keeps what is fetched from others fresh, for as long as it is polled.
    pub async fn keep_fresh(&self) {
        match self.signed.as_ref().and_then(Verifier::keys) {
            Some(keys) => keys.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// What the token that is shown allows in a room, if that is enough for the role.
    pub async fn admit(
        &self,
        wall: SystemTime,
        registry: &Registry,
        shown: &Shown,
        asked: Asked<'_>,
    ) -> Result<Grant, Denied> {
        let grant =
            match registry.admit_stranger(wall, asked.room, asked.user_id, shown.reveal(), self.needs_client_token) {
                Ok(Some(claims)) => Grant::of_claims(claims),
                Ok(None) => self.open(shown, asked.room, true).await?,
                // The room is a Gryt server's: what we were configured with opens it too, but open it is not. What is no
                // signed token is spoken of as a client token.
                Err(refusal) => match self.open(shown, asked.room, false).await {
                    Ok(grant) => grant,
                    Err(denied) if self.reads(shown) => return Err(denied),
                    Err(_) => return Err(refusal.into()),
                },
            };
        grant.check(asked.room, asked.role)?;
        Ok(grant)
    }

    /// Whether a token that comes with a WebSocket's upgrade can open anything: then the room, which is named later,
    /// decides.
    pub async fn look(&self, shown: &Shown) -> Result<(), Denied> {
        let Some(token) = shown.reveal() else { return Ok(()) };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::invalid("the token is too long"));
        }
        let known = self.token.iter().chain(&self.admin_token).chain(self.room_tokens.values());
        // All of them are compared, so that the time tells nothing.
        let is_known = known.fold(false, |found, secret| secret.is(token) | found);
        if self.is_open() || is_known || is_client_token(shown) {
            return Ok(());
        }
        match &self.signed {
            Some(signed) => signed.verify(token).await.map(|_| ()),
            None => Err(wrong_token()),
        }
    }

    /// What whoever shows this may do in some room: for what concerns no room in particular.
    pub async fn admit_anywhere(&self, shown: &Shown) -> Result<Grant, Denied> {
        let is_closed = self.token.is_some() || self.signed.is_some();
        match shown.reveal() {
            Some(token) if self.room_tokens.values().fold(false, |found, own| own.is(token) | found) => Ok(Grant::OPEN),
            None if !is_closed => Ok(Grant::OPEN),
            _ => self.open(shown, "", true).await,
        }
    }

    /// Whether whoever shows this may watch in every room: for recordings, whose names tell nothing certain of theirs.
    pub async fn admit_everywhere(&self, shown: &Shown) -> Result<Grant, Denied> {
        if self.is_open() {
            return Ok(Grant::OPEN);
        }
        let grant = self.open(shown, "", false).await?;
        let sentence = "recordings are for tokens that are good for all rooms: get one without room";
        let is_fine = grant.room.is_none() && grant.may_subscribe;
        if is_fine { Ok(grant) } else { Err(Denied::forbidden(sentence)) }
    }

    /// Whether a Gryt server may register, where rooms are closed: it could close more of them, and sign tokens for them.
    pub async fn admit_server(&self, shown: &Shown) -> Result<(), Denied> {
        let token = shown.reveal().unwrap_or_default();
        if self.is_open() || self.token.as_ref().is_some_and(|own| own.is(token)) {
            return Ok(());
        }
        self.admit_admin(shown).await.map(|_| ())
    }

    /// Whether whoever shows this may do what administrators do. Where nothing at all is configured, everybody may.
    pub async fn admit_admin(&self, shown: &Shown) -> Result<Grant, Denied> {
        let admin = Grant { is_admin: true, ..Grant::OPEN };
        let is_open = self.admin_token.is_none() && self.is_open();
        let needed = || Denied::invalid("the admin token is required: Authorization: Bearer <ADMIN_TOKEN>");
        let token = match shown.reveal() {
            _ if is_open => return Ok(admin),
            None => return Err(needed()),
            Some(token) => token,
        };
        if self.admin_token.as_ref().is_some_and(|own| own.is(token)) {
            return Ok(admin);
        }
        match &self.signed {
            Some(signed) if self.reads(shown) => {
                let grant = signed.verify(token).await?;
                let sentence = "the token is not an administrator's: get one with admin: true";
                if grant.is_admin { Ok(grant) } else { Err(Denied::forbidden(sentence)) }
            }
            _ => Err(needed()),
        }
    }

    async fn open(&self, shown: &Shown, room: &str, may_be_open: bool) -> Result<Grant, Denied> {
        let own = self.room_tokens.get(room);
        if may_be_open && own.is_none() && self.token.is_none() && self.signed.is_none() {
            return Ok(Grant::OPEN);
        }
        let token = shown.reveal().ok_or_else(|| {
            Denied::invalid(
                "a token is required: Authorization: Bearer <token>, ?token= in the address, or token when joining",
            )
        })?;
        if own.is_some_and(|own| own.is(token)) {
            return Ok(Grant { room: Some(room.to_owned()), ..Grant::OPEN });
        }
        if self.token.as_ref().is_some_and(|own| own.is(token)) {
            return Ok(Grant::OPEN);
        }
        if self.admin_token.as_ref().is_some_and(|own| own.is(token)) {
            return Ok(Grant { is_admin: true, ..Grant::OPEN });
        }
        match &self.signed {
            Some(signed) if self.reads(shown) => signed.verify(token).await,
            _ => Err(wrong_token()),
        }
    }

    /// Whether no room is closed.
    fn is_open(&self) -> bool {
        self.token.is_none() && self.room_tokens.is_empty() && self.signed.is_none()
    }

    /// Whether the token has the form of a signed one and we check those.
    fn reads(&self, shown: &Shown) -> bool {
        let is_signed = shown.reveal().is_some_and(|token| token.starts_with("ey") && token.split('.').count() == 3);
        self.signed.is_some() && is_signed
    }
}

/// What somebody asks for at the door.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where to.
    pub room: &'a str,
    /// What for.
    pub role: Role,
    /// Who they say they are.
    pub user_id: Option<&'a str>,
}

fn wrong_token() -> Denied {
    Denied::invalid("the token opens nothing here: check it, or ask for a new one")
}

/// Gryt's client tokens are checked when their room is known.
fn is_client_token(shown: &Shown) -> bool {
    shown.reveal().is_some_and(|token| token.starts_with("v1.") || token.starts_with("v2."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::auth::Auth;

    fn door(auth: Auth, admin: Option<&str>) -> Door {
        Door::new(&Config { auth, admin_token: admin.map(Secret::from), ..Config::defaults() })
    }

    fn of_rooms() -> Auth {
        Auth { room_tokens: [("r".to_owned(), Secret::from("own"))].into(), ..Auth::default() }
    }

    async fn status(door: &Door, token: &str, room: &str, role: Role) -> u16 {
        let (registry, wall) = (Registry::default(), SystemTime::UNIX_EPOCH);
        let asked = Asked { room, role, user_id: None };
        let admitted = door.admit(wall, &registry, &Shown::token(Some(token)), asked).await;
        admitted.map_or_else(|denied| denied.status.as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn a_room_is_open_until_something_closes_it() {
        for (auth, other_room) in
            [(Auth::default(), 200), (of_rooms(), 200), (Auth { token: Some("all".into()), ..of_rooms() }, 401)]
        {
            let is_open = auth == Auth::default();
            let door = door(auth, None);
            assert_eq!(status(&door, "", "other", Role::Publish).await, other_room);
            assert_eq!(status(&door, "", "r", Role::Publish).await, if is_open { 200 } else { 401 });
        }
    }

    #[tokio::test]
    async fn tokens_open_what_they_are_for() {
        let door = door(Auth { token: Some("all".into()), ..of_rooms() }, Some("admin"));
        for (token, room, wanted) in [
            ("own", "r", 200),
            ("own", "other", 401),
            ("all", "r", 200),
            ("all", "other", 200),
            ("admin", "other", 200),
            ("al", "r", 401),
            ("a.b.c", "r", 401),
        ] {
            assert_eq!(status(&door, token, room, Role::Manage).await, wanted, "{token} {room}");
        }
        for (token, wanted) in [("admin", true), ("all", false), ("own", false), ("", false)] {
            assert_eq!(door.admit_admin(&Shown::token(Some(token))).await.is_ok(), wanted, "{token}");
        }
        for (token, wanted) in
            [("admin", true), ("all", true), ("own", true), ("", true), ("v2.x.y", true), ("x", false)]
        {
            assert_eq!(door.look(&Shown::token(Some(token))).await.is_ok(), wanted, "{token}");
        }
    }

    #[tokio::test]
    async fn what_administrators_do_is_open_only_where_all_is() {
        assert!(door(Auth::default(), None).admit_admin(&Shown::default()).await.is_ok());
        let closed = Auth { token: Some("t".into()), ..Auth::default() };
        for door in [door(Auth::default(), Some("a")), door(closed, None), door(of_rooms(), None)] {
            assert_eq!(door.admit_admin(&Shown::default()).await.unwrap_err().status, 401);
            assert_eq!(door.admit_admin(&Shown::token(Some("t"))).await.unwrap_err().status, 401);
        }
    }

    #[tokio::test]
    async fn recordings_are_for_who_may_watch_everywhere() {
        let both = door(Auth { token: Some("all".into()), ..of_rooms() }, Some("admin"));
        for (token, is_fine) in [("all", true), ("admin", true), ("own", false), ("", false), ("x", false)] {
            assert_eq!(both.admit_everywhere(&Shown::token(Some(token))).await.is_ok(), is_fine, "{token}");
        }
        assert!(door(Auth::default(), Some("admin")).admit_everywhere(&Shown::default()).await.is_ok());
        assert!(door(of_rooms(), None).admit_everywhere(&Shown::default()).await.is_err());
    }

    #[tokio::test]
    async fn a_gryt_servers_room_opens_to_our_tokens_but_is_not_open() {
        let registry = Registry::default();
        registry.register("acme", "pw", "acme_1").unwrap();
        let asked = Asked { room: "acme_1", role: Role::Subscribe, user_id: None };
        let (open, closed) =
            (door(Auth::default(), None), door(Auth { token: Some("all".into()), ..Auth::default() }, None));
        for (door, token, wanted) in
            [(&open, "", 401), (&open, "v2.x.y", 403), (&closed, "", 401), (&closed, "all", 200), (&closed, "x", 403)]
        {
            let admitted = door.admit(SystemTime::UNIX_EPOCH, &registry, &Shown::token(Some(token)), asked).await;
            let status = admitted.map_or_else(|denied| denied.status.as_u16(), |_| 200);
            assert_eq!(status, wanted, "{token}");
        }
    }

    #[test]
    fn a_grant_names_its_user_and_is_for_what_it_says() {
        let grant = Grant { identity: Some("ana".into()), room: Some("r".into()), may_publish: false, ..Grant::OPEN };
        assert_eq!(grant.user_id(None), Ok(Some("ana".into())));
        assert_eq!(grant.user_id(Some("ben")).unwrap_err().status, 403);
        assert_eq!(Grant::OPEN.user_id(Some("ben")), Ok(Some("ben".into())));
        for (room, role, is_fine) in
            [("r", Role::Participate, true), ("r", Role::Publish, false), ("s", Role::Subscribe, false)]
        {
            assert_eq!(grant.check(room, role).is_ok(), is_fine, "{room} {role:?}");
        }
    }
}
