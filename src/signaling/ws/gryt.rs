//! Gryt's real client protocol: we are the offerer, `data` is always text, often JSON encoded a second time.
//!
//! The first message is `client_join`; `room_joined` and `offer` follow at once. Our offers begin with four fixed
//! slots: microphone, camera, screen, screen sound.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::AppState;
use super::super::auth::grant::{Grant, Role};
use super::super::auth::registry::Ticket;
use super::super::auth::shown::Shown;
use super::super::calls::Calls;
use super::super::limits::TokenBucket;
use super::envelope::{self, Envelope, Fields};
use super::gryt_documented::sdp;
use super::seat::{self, Failure, Seat, Words};
use super::socket::{Ending, Socket};
use super::{CANDIDATE_MAX, ID_MAX, ROOM_MAX, TOKEN_MAX, wishes};
use crate::base::format::MediaKind;
use crate::room::api::{CloseReason, Dialect, JoinError, JoinRequest, Joined, MediaState, Notice, StreamNames};
use crate::runtime::clock;
use crate::session::negotiate::{Policy, Role as MediaRole};

/// How often somebody may say that he is still there.
const PRESSES_PER_S: u32 = 1;
/// So often at once.
const PRESSES_BURST: u32 = 5;

const POLICY: Policy = Policy {
    server_offers_first: true,
    server_may_offer: true,
    live_binding: false,
    slots: &[MediaKind::Audio, MediaKind::Video, MediaKind::Video, MediaKind::Audio],
    role: MediaRole::Participant,
};

/// Serves a client whose first message was `client_join`.
pub async fn run(socket: Socket, state: AppState, first: Envelope) {
    let ending = match join(&state, &socket.shown, &first).await {
        Ok(Entry { joined, room, user_id }) => {
            let seat = Seat { control: state.control.clone(), peer: joined.peer };
            let words = Gryt::new(&state, room);
            let welcome = welcome(&state, user_id.as_deref()).to_string();
            match socket.send(envelope::text("room_joined", welcome)) {
                Ok(()) => return seat::serve(socket, seat, joined.into_notices(), words).await,
                Err(ending) => ending,
            }
        }
        Err(ending) => ending,
    };
    if let Some((_, sentence)) = &ending.error {
        let _ = socket.send(room_error(sentence));
    }
    socket.close(ending).await;
}

/// A successful join.
struct Entry {
    joined: Joined,
    room: String,
    user_id: Option<String>,
}

async fn join(state: &AppState, shown: &Shown, envelope: &Envelope) -> Result<Entry, Ending> {
    let invalid = |sentence: String| {
        Ending::error(1008, "join refused", "bad-join", format!("Join validation failed: {sentence}"))
    };
    if !envelope.data.is_object() {
        return Err(Ending::error(1008, "join refused", "bad-join", "Invalid join data"));
    }
    let fields = Fields::of(&envelope.data).map_err(invalid)?;
    let room = fields.required(&["room_id", "roomId"], ROOM_MAX).map_err(invalid)?;
    let server_id = fields.required(&["server_id", "serverId"], ID_MAX).map_err(invalid)?;
    let user_id = fields.text(&["user_id", "userId"], ID_MAX).map_err(invalid)?;
    let token = fields.text(&["user_token", "userToken", "token"], TOKEN_MAX).map_err(invalid)?;
    let password = fields.text(&["server_password", "serverPassword"], ID_MAX).map_err(invalid)?;
    let ticket = Ticket { server_id, room, user_id, token: token.unwrap_or_default(), password };
    let claims = state
        .registry
        .admit(clock::wall(), &ticket, state.config.require_client_token)
        .map_err(|refusal| invalid(refusal.to_string()))?;
    let grant = match claims {
        Some(claims) => Grant::of_claims(claims),
        // An old server's token says nothing: what else is shown counts.
        None => {
            let admitted = state.admit(&Shown::token(token).or(shown), room, user_id, Role::Participate).await;
            admitted.map_err(|denied| invalid(denied.to_string()))?
        }
    };
    let user_id = grant.user_id(user_id).map_err(|denied| invalid(denied.to_string()))?;
    let request = JoinRequest {
        room: room.to_owned(),
        display_name: user_id.clone().unwrap_or_default(),
        user_id: user_id.clone(),
        dialect: Dialect::Gryt,
        policy: POLICY,
        stream_names: StreamNames::Publisher,
        capabilities: grant.capabilities,
    };
    let hidden = user_id.as_ref().and_then(|user_id| state.registry.hidden_from(room, user_id)).unwrap_or_default();
    let joined = state.control.join_hiding(request, hidden).map_err(|error| match &error {
        JoinError::Full { taken, seats } => {
            let sentence =
                format!("Sorry, there are no seats left in this voice server ({taken}/{seats}). Try again later.");
            Ending::error(1013, "server full", "server-full", sentence)
        }
        other => seat::refused(other),
    })?;
    Ok(Entry { joined, room: room.to_owned(), user_id })
}

/// What `room_joined` says. Without a cap on what may be sent there is none in it: clients would take 0 for one.
fn welcome(state: &AppState, user_id: Option<&str>) -> Value {
    let mut welcome = json!({
        "message": "Successfully joined room",
        "call_alone_timeout_seconds": state.config.dialects.call_alone_timeout.as_secs(),
        "iceServers": state.ice_servers(user_id),
    });
    if let Some(kbps) = state.config.ingest.max_kbps {
        welcome["max_ingest_kbps"] = json!(kbps);
    }
    welcome
}

/// The `room_error` event: a plain sentence.
pub fn room_error(sentence: &str) -> String {
    envelope::text("room_error", sentence)
}

struct Gryt {
    calls: Arc<Calls>,
    room: String,
    /// Of `still_here`: a person presses a button.
    presses: TokenBucket,
}

impl Gryt {
    fn new(state: &AppState, room: String) -> Self {
        let presses = TokenBucket::new(clock::now(), PRESSES_PER_S, PRESSES_BURST);
        Self { calls: Arc::clone(&state.calls), room, presses }
    }
}

impl Words for Gryt {
    fn heard(&mut self, seat: &Seat, text: &str) -> Result<Vec<String>, Failure> {
        let Envelope { event, data } = Envelope::parse(text).map_err(Failure::bad_message)?;
        match event.as_str() {
            "answer" => seat.answer(&sdp(&data)?)?,
            "candidate" | "ice-candidate" => {
                let line = envelope::candidate(&data, CANDIDATE_MAX).map_err(Failure::bad_message)?;
                line.map_or(Ok(()), |line| seat.control.candidate(seat.peer, line))?;
            }
            "renegotiate" => seat.control.renegotiate(seat.peer)?,
            "still_here" => {
                let now = clock::now();
                if self.presses.take(now) {
                    self.calls.still_here(now, &self.room);
                }
            }
            "video_demand" => wishes::video_demand(seat, &data)?,
            "set_layer" => wishes::set_layer(seat, &data)?,
            "offer" => {
                return Err(Failure::bad_message(
                    "in this protocol the server offers; send renegotiate to ask for one",
                ));
            }
            "client_join" | "join" => {
                return Err(Failure::Error("already-joined", "this connection has joined a room already".to_owned()));
            }
            "leave" => return Err(Failure::End(Ending::normal())),
            // Newer clients say more; nothing breaks when we do not act on it.
            other => tracing::debug!(peer = %seat.peer, event = other, "event without effect"),
        }
        Ok(Vec::new())
    }

    fn told(&mut self, seat: &Seat, notice: Notice) -> Vec<String> {
        let (event, data) = match notice {
            Notice::Media(MediaState::Disconnected) => {
                // The client cannot restart ICE by itself: it only answers. One that is gone meanwhile needs none.
                let _ = seat.control.restart_ice(seat.peer);
                return Vec::new();
            }
            Notice::Offer { sdp } => ("offer", json!({"type": "offer", "sdp": sdp})),
            Notice::VideoWanted(wanted) => ("video_wanted", wishes::video_wanted(&wanted)),
            // The app learns of people from its own server and of tracks from the msid.
            _ => return Vec::new(),
        };
        vec![envelope::text(event, data.to_string())]
    }

    fn error(&self, _code: &'static str, sentence: &str) -> String {
        room_error(sentence)
    }

    fn closed(&self, _reason: CloseReason) -> Option<String> {
        None
    }
}
