//! Switchboard: flat JSON tagged by `type`, the client offers, peers are UUIDs.
//!
//! Client: `join` `offer` `iceCandidate`, ours: `answer` and re-offers. Server: `welcome` `answer` `peerJoined`
//! `peerLeft` `error`, ours: `offer`. An error never ends the connection.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::super::AppState;
use super::super::auth::grant::Role;
use super::super::auth::shown::Shown;
use super::envelope::{self, Fields};
use super::seat::{self, Failure, Seat, Words};
use super::socket::Socket;
use super::{CANDIDATE_MAX, NAME_MAX, ROOM_MAX, TOKEN_MAX};
use crate::room::api::{CloseReason, Dialect, JoinRequest, Joined, Notice, StreamNames};
use crate::session::negotiate::{Policy, Role as MediaRole};

const POLICY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: true,
    slots: &[],
    role: MediaRole::Participant,
};

/// Whether a first message is this dialect's: SFU-Go's has its fields one deeper.
pub fn is_join(text: &str) -> bool {
    let message = parse(text).unwrap_or_default();
    message.get("data").is_none() && message.get("roomId").is_some()
}

/// Serves a connection from its first message on, which may have been read already.
pub async fn run(mut socket: Socket, state: AppState, mut first: Option<Utf8Bytes>) {
    let ending = loop {
        let text = match first.take() {
            Some(text) => Ok(text),
            None => socket.first(&state).await,
        };
        let text = match text {
            Ok(text) => text,
            Err(ending) => break ending,
        };
        let sent = match join(&state, &socket.shown, &text).await {
            Ok((joined, welcome)) => {
                let seat = Seat { control: state.control.clone(), peer: joined.peer };
                match socket.send(welcome) {
                    Ok(()) => return seat::serve(socket, seat, joined.into_notices(), Switchboard).await,
                    Err(ending) => Err(ending),
                }
            }
            Err(Failure::Error(_, sentence)) => socket.send(error(&sentence)),
            Err(Failure::End(ending)) => Err(ending),
        };
        if let Err(ending) = sent {
            break ending;
        }
    };
    if let Some((_, sentence)) = &ending.error {
        let _ = socket.send(error(sentence));
    }
    socket.close(ending).await;
}

async fn join(state: &AppState, shown: &Shown, text: &str) -> Result<(Joined, String), Failure> {
    let message = parse(text)?;
    match kind(&message)? {
        "join" => {}
        other @ ("offer" | "answer" | "iceCandidate") => {
            return Err(Failure::Error("join-first", format!("join a room before {other}")));
        }
        other => return Err(unknown(other)),
    }
    let fields = Fields::of(&message).map_err(bad)?;
    let room = fields.required(&["roomId", "room_id", "room"], ROOM_MAX).map_err(bad)?;
    let name = fields.text(&["displayName", "name"], NAME_MAX).map_err(bad)?;
    let token = fields.text(&["token"], TOKEN_MAX).map_err(bad)?;
    let shown = Shown::token(token).or(shown);
    let grant = state.admit(&shown, room, None, Role::Participate).await?;
    let request = JoinRequest {
        room: room.to_owned(),
        user_id: grant.user_id(None)?,
        display_name: name.unwrap_or_default().to_owned(),
        dialect: Dialect::Switchboard,
        policy: POLICY,
        stream_names: StreamNames::PeerId,
        capabilities: grant.capabilities,
    };
    let joined = state.control.join(request).map_err(|error| Failure::End(seat::refused(&error)))?;
    let peers: Vec<&str> = joined.others.iter().map(|info| info.wire_id.as_str()).collect();
    let ice_servers = state.ice_servers(Some(&joined.wire_id));
    let welcome = json!({"type": "welcome", "peerId": joined.wire_id, "peers": peers, "iceServers": ice_servers});
    Ok((joined, welcome.to_string()))
}

struct Switchboard;

impl Words for Switchboard {
    fn heard(&mut self, seat: &Seat, text: &str) -> Result<Vec<String>, Failure> {
        let message = parse(text)?;
        let description = || Fields::of(&message).and_then(|fields| fields.required(&["sdp"], usize::MAX)).map_err(bad);
        match kind(&message)? {
            "offer" => {
                let answer = seat.offer(description()?)?;
                Ok(vec![json!({"type": "answer", "sdp": answer}).to_string()])
            }
            "answer" => seat.answer(description()?).map(|()| Vec::new()),
            "iceCandidate" => {
                let line = envelope::candidate(&message, CANDIDATE_MAX).map_err(bad)?;
                line.map_or(Ok(()), |line| seat.control.candidate(seat.peer, line))?;
                Ok(Vec::new())
            }
            "join" => Err(Failure::Error("already-joined", "this connection has joined a room already".to_owned())),
            other => Err(unknown(other)),
        }
    }

    fn told(&mut self, _seat: &Seat, notice: Notice) -> Vec<String> {
        let message = match notice {
            Notice::Offer { sdp } => json!({"type": "offer", "sdp": sdp}),
            Notice::PeerJoined(info) => json!({"type": "peerJoined", "peerId": info.wire_id}),
            Notice::PeerLeft(info) => json!({"type": "peerLeft", "peerId": info.wire_id}),
            // The dialect has no word for the rest, and its clients fail on types they do not know.
            _ => return Vec::new(),
        };
        vec![message.to_string()]
    }

    fn error(&self, _code: &'static str, sentence: &str) -> String {
        error(sentence)
    }

    fn closed(&self, _reason: CloseReason) -> Option<String> {
        None
    }
}

/// The `error` message.
pub fn error(sentence: &str) -> String {
    json!({"type": "error", "message": sentence}).to_string()
}

fn parse(text: &str) -> Result<Value, Failure> {
    let message: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    if message.is_object() { Ok(message) } else { Err(bad("not an object".to_owned())) }
}

fn kind(message: &Value) -> Result<&str, Failure> {
    match message.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        Some(_) => Err(bad("type must be text".to_owned())),
        None => Err(bad("type is missing".to_owned())),
    }
}

fn unknown(kind: &str) -> Failure {
    bad(format!("there is no type {:.64}", kind.escape_default()))
}

fn bad(sentence: String) -> Failure {
    Failure::bad_message(format!("bad message: {sentence}"))
}
