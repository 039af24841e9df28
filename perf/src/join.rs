//! Doors into a server: how a peer hands in its offer and gets the answer.
//!
//! Owns: the signalling connections; they stay open as long as the peers stay in the room.
//! A new protocol is one more `Door`.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Longest wait for one message of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A signalling protocol in which the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Door {
    /// Flat JSON over WebSocket on `/ws`.
    Switchboard,
    /// Gryt's documented protocol over WebSocket on `/client`.
    Gryt,
}

/// A peer's place in a room.
pub enum Seat {
    /// Kept by an open WebSocket.
    Socket(Box<WebSocket<MaybeTlsStream<TcpStream>>>),
}

impl Door {
    /// Joins a room and exchanges offer and answer. `server` is `host:port`.
    pub fn enter(self, server: &str, room: &str, user: &str, offer: &str) -> Result<(Seat, String)> {
        let path = match self {
            Self::Switchboard => "/ws",
            Self::Gryt => "/client",
        };
        let url = format!("ws://{server}{path}");
        let (mut socket, _) = tungstenite::connect(&url).with_context(|| format!("connecting to {url}"))?;
        let stream = tcp(&mut socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let answer = self.exchange(&mut socket, room, user, offer)?;
        tcp(&mut socket)?.set_nonblocking(true)?;
        Ok((Seat::Socket(Box::new(socket)), answer))
    }

    fn exchange(
        self,
        socket: &mut WebSocket<MaybeTlsStream<TcpStream>>,
        room: &str,
        user: &str,
        offer: &str,
    ) -> Result<String> {
        let (join, welcome, offer) = match self {
            Self::Switchboard => {
                (json!({"type": "join", "roomId": room}), "welcome", json!({"type": "offer", "sdp": offer}))
            }
            Self::Gryt => (
                json!({"event": "join", "data": {"roomId": room, "userId": user, "displayName": user}}),
                "joined",
                json!({"event": "offer", "data": {"type": "offer", "sdp": offer}}),
            ),
        };
        socket.send(Message::text(join.to_string()))?;
        wait_for(socket, welcome)?;
        socket.send(Message::text(offer.to_string()))?;
        let answer = wait_for(socket, "answer")?;
        let sdp = answer.get("sdp").or_else(|| answer.get("data")?.get("sdp"));
        Ok(sdp.and_then(Value::as_str).context("the answer has no sdp")?.to_owned())
    }
}

impl Seat {
    /// Reads what came and answers pings. An error says that the server has closed the connection.
    pub fn tend(&mut self) -> Result<()> {
        let Self::Socket(socket) = self;
        loop {
            match socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the server closed a signalling connection"),
            }
        }
        match socket.flush() {
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => Ok(result?),
        }
    }

    /// Leaves the room.
    pub fn leave(mut self) {
        let Self::Socket(socket) = &mut self;
        // Closing is a courtesy: the server notices the end of the stream as well.
        let _ = socket.close(None);
        let _ = socket.flush();
    }
}

fn tcp(socket: &mut WebSocket<MaybeTlsStream<TcpStream>>) -> Result<&mut TcpStream> {
    match socket.get_mut() {
        MaybeTlsStream::Plain(stream) => Ok(stream),
        _ => bail!("only plain ws:// is spoken"),
    }
}

/// The next message of that name; others are passed over, an error ends the wait.
fn wait_for(socket: &mut WebSocket<MaybeTlsStream<TcpStream>>, name: &str) -> Result<Value> {
    loop {
        let text = match socket.read().with_context(|| format!("waiting for {name}"))? {
            Message::Text(text) => text,
            Message::Close(frame) => bail!("the server closed the connection: {frame:?}"),
            _ => continue,
        };
        let message: Value = serde_json::from_str(&text)?;
        match message.get("type").or_else(|| message.get("event")).and_then(Value::as_str) {
            Some(kind) if kind == name => return Ok(message),
            Some("error" | "room_error") => bail!("the server refuses: {message}"),
            _ => {}
        }
    }
}
