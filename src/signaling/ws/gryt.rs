//! Gryt's real client protocol: we are the offerer, `data` is always text, often JSON encoded a second time.
//!
//! The first message is `client_join`; `room_joined` and `offer` follow at once. Our offers begin with four fixed
//! slots: microphone, camera, screen, screen sound.

use serde_json::{Value, json};

use super::super::AppState;
use super::super::auth::registry::Ticket;
use super::envelope::{self, Envelope, Fields};
use super::gryt_documented::sdp;
use super::seat::{self, Failure, Seat, Words};
use super::socket::{Ending, Socket};
use super::{CANDIDATE_MAX, ID_MAX, ROOM_MAX, TOKEN_MAX, wishes};
use crate::base::format::MediaKind;
use crate::room::api::{Capabilities, CloseReason, Dialect, JoinError, JoinRequest, Joined, Notice, StreamNames};
use crate::runtime::clock;
use crate::session::negotiate::{Policy, Role};

const POLICY: Policy = Policy {
    server_offers_first: true,
    server_may_offer: true,
    live_binding: false,
    slots: &[MediaKind::Audio, MediaKind::Video, MediaKind::Video, MediaKind::Audio],
    role: Role::Participant,
};

/// Serves a client whose first message was `client_join`.
pub async fn run(socket: Socket, state: AppState, first: Envelope) {
    let ending = match join(&state, &first) {
        Ok(joined) => {
            let seat = Seat { control: state.control.clone(), peer: joined.peer };
            match socket.send(envelope::text("room_joined", welcome(state.config.ingest.max_kbps).to_string())) {
                Ok(()) => return seat::serve(socket, seat, joined.into_notices(), Gryt).await,
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

fn join(state: &AppState, envelope: &Envelope) -> Result<Joined, Ending> {
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
    let user_id = user_id.map(str::to_owned).or_else(|| claims.as_ref().map(|claims| claims.user_id.clone()));
    let request = JoinRequest {
        room: room.to_owned(),
        display_name: user_id.clone().unwrap_or_default(),
        user_id,
        dialect: Dialect::Gryt,
        policy: POLICY,
        stream_names: StreamNames::Publisher,
        capabilities: claims.map_or(Capabilities::ALL, |claims| claims.capabilities),
    };
    state.control.join(request).map_err(|error| match &error {
        JoinError::Full { taken, seats } => {
            let sentence =
                format!("Sorry, there are no seats left in this voice server ({taken}/{seats}). Try again later.");
            Ending::error(1013, "server full", "server-full", sentence)
        }
        other => seat::refused(other),
    })
}

/// What `room_joined` says. Only what we keep to is promised: no call_alone_timeout_seconds. Without a cap on what may be
/// sent there is none in it: clients would take 0 for one.
fn welcome(max_ingest_kbps: Option<usize>) -> Value {
    let mut welcome = json!({"message": "Successfully joined room"});
    if let Some(kbps) = max_ingest_kbps {
        welcome["max_ingest_kbps"] = json!(kbps);
    }
    welcome
}

/// The `room_error` event: a plain sentence.
pub fn room_error(sentence: &str) -> String {
    envelope::text("room_error", sentence)
}

struct Gryt;

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

    fn told(&mut self, notice: Notice) -> Option<String> {
        match notice {
            Notice::Offer { sdp } => Some(envelope::text("offer", json!({"type": "offer", "sdp": sdp}).to_string())),
            Notice::VideoWanted(wanted) => {
                Some(envelope::text("video_wanted", wishes::video_wanted(&wanted).to_string()))
            }
            // The app learns of people from its own server and of tracks from the msid.
            _ => None,
        }
    }

    fn error(&self, _code: &'static str, sentence: &str) -> String {
        room_error(sentence)
    }

    fn closed(&self, _reason: CloseReason) -> Option<String> {
        None
    }
}
