//! `/server`: a Gryt server tells which rooms are its own and who may do what in them.
//!
//! Every message carries the server's id and password; the first registration sets the password.

use std::collections::HashSet;

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::super::AppState;
use super::super::auth::client_token::capabilities;
use super::envelope::{self, Envelope, Fields};
use super::gryt::room_error;
use super::socket::{Ending, Incoming, Socket};
use super::{ID_MAX, ROOM_MAX};
use crate::room::api::PeerControl;
use crate::room::api::RoomEvent;

/// People one user may have blocked.
const HIDDEN_MAX: usize = 4096;
/// Capabilities a server may name.
const CAPABILITIES_MAX: usize = 64;

/// Serves a Gryt server.
pub async fn run(mut socket: Socket, state: AppState) {
    let mut events = state.control.watch();
    let mut desk = Desk { state: state.clone(), servers: HashSet::new() };
    let mut heard_once = false;
    let ending = loop {
        let replies = if heard_once {
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Incoming::Text(text) => Ok(desk.heard(&text)),
                    Incoming::End(ending) => Err(ending),
                },
                event = events.recv() => match event {
                    Ok(event) => Ok(desk.pushed(event).into_iter().collect()),
                    // Too many at once to follow: the whole picture instead.
                    Err(RecvError::Lagged(_)) => Ok(desk.servers.iter().map(|id| desk.picture(id)).collect()),
                    Err(RecvError::Closed) => Err(Ending::stopping()),
                },
                () = state.stopped() => Err(Ending::stopping()),
            }
        } else {
            heard_once = true;
            socket.first(&state).await.map(|text| desk.heard(&text))
        };
        let sent = replies.and_then(|messages: Vec<String>| messages.into_iter().try_for_each(|m| socket.send(m)));
        if let Err(ending) = sent {
            break ending;
        }
    };
    if let Some((_, sentence)) = &ending.error {
        let _ = socket.send(room_error(sentence));
    }
    socket.close(ending).await;
}

struct Desk {
    state: AppState,
    /// Servers that registered over this socket.
    servers: HashSet<String>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.servers.iter().for_each(|server_id| self.state.registry.disconnected(server_id));
    }
}

impl Desk {
    fn heard(&mut self, text: &str) -> Vec<String> {
        match self.act(text) {
            Ok(reply) => reply.into_iter().collect(),
            Err(sentence) => {
                tracing::debug!(sentence, "control message refused");
                vec![room_error(&sentence)]
            }
        }
    }

    fn act(&mut self, text: &str) -> Result<Option<String>, String> {
        let Envelope { event, data } = Envelope::parse(text)?;
        if event == "keep_alive" {
            return Ok(None);
        }
        let fields = Fields::of(&data)?;
        let server_id = fields.required(&["server_id", "serverId"], ID_MAX)?;
        let password = fields.required(&["server_password", "serverPassword"], ID_MAX)?;
        if event == "sync_request" {
            self.state.registry.check(server_id, password).map_err(|refusal| refusal.to_string())?;
            return Ok(Some(self.picture(server_id)));
        }
        let room = fields.required(&["room_id", "roomId"], ROOM_MAX)?;
        if event == "server_register" {
            self.state.registry.register(server_id, password, room).map_err(|refusal| refusal.to_string())?;
            if self.servers.insert(server_id.to_owned()) {
                self.state.registry.connected(server_id);
                tracing::info!(server_id, "gryt server registered");
            }
            return Ok(Some(envelope::text("room_joined", "Server registered successfully")));
        }
        self.state.registry.check_room(server_id, password, room).map_err(|refusal| refusal.to_string())?;
        self.command(&event, fields, room)?;
        Ok(None)
    }

    fn command(&self, event: &str, fields: Fields<'_>, room: &str) -> Result<(), String> {
        let mut change = PeerControl::default();
        match event {
            "disconnect_user" => {}
            "user_audio_control" => {
                change.server_muted = fields.flag(&["is_muted", "isMuted"])?;
                change.deafened = fields.flag(&["is_deafened", "isDeafened"])?;
            }
            "user_hidden_peers" => {
                let hidden = fields.texts(&["hidden"], HIDDEN_MAX, ID_MAX)?;
                change.hidden_user_ids = Some(hidden.ok_or("hidden is missing")?);
            }
            "user_capabilities" => {
                let names = fields.texts(&["capabilities"], CAPABILITIES_MAX, ID_MAX)?;
                let names = names.ok_or("capabilities is missing")?;
                change.capabilities = Some(capabilities(names.iter().map(String::as_str)));
            }
            other => {
                tracing::debug!(event = other, "control event without effect");
                return Ok(());
            }
        }
        let user_id = fields.required(&["user_id", "userId"], ID_MAX)?;
        if let Some(hidden) = &change.hidden_user_ids {
            self.state.registry.hide(room, user_id, hidden);
        }
        let found = if event == "disconnect_user" {
            self.state.control.disconnect_user(room, user_id)
        } else {
            self.state.control.control_user(room, user_id, change)
        };
        tracing::debug!(event, room, user_id, found, "control message");
        Ok(())
    }

    fn pushed(&self, event: RoomEvent) -> Option<String> {
        let (name, room, user_id) = match event {
            RoomEvent::PeerJoined { room, user_id } => ("peer_joined", room, user_id),
            RoomEvent::PeerLeft { room, user_id } => ("peer_left", room, user_id),
        };
        let owner = self.state.registry.owner(&room)?;
        let data = json!({"room_id": room, "user_id": user_id}).to_string();
        self.servers.contains(&owner).then(|| envelope::text(name, data))
    }

    /// `sync_response`: the server's rooms that have users.
    fn picture(&self, server_id: &str) -> String {
        let rooms: Vec<_> = (self.state.control.rooms().into_iter())
            .filter(|room| !room.peers.is_empty())
            .filter(|room| self.state.registry.owner(&room.id).is_some_and(|owner| owner == server_id))
            .map(|room| {
                let users: Vec<&str> = room.peers.iter().map(|peer| peer.user_id.as_str()).collect();
                json!({"room_id": room.id, "user_ids": users})
            })
            .collect();
        envelope::text("sync_response", json!({"rooms": rooms}).to_string())
    }
}
