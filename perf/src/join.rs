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

use crate::whip::{Purpose, Resource, Whip};

/// Longest wait for one message of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A signalling protocol in which the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Door {
    /// Flat JSON over WebSocket on `/ws`.
    Switchboard,
    /// Gryt's documented protocol over WebSocket on `/client`.
    Gryt,
    /// WHIP for publishers, WHEP for subscribers.
    Whip,
}

/// Where to go in, as flags.
#[derive(clap::Args, Clone, Debug)]
pub struct DoorArgs {
    /// Signalling protocol
    #[arg(long, value_enum, default_value_t = Door::Switchboard)]
    pub door: Door,
    /// Where publishers POST with `--door whip`; `{server}` and `{room}` are filled in
    #[arg(long, default_value = "http://{server}/whip/{room}", value_name = "URL")]
    pub whip_url: String,
    /// Where subscribers POST with `--door whip`
    #[arg(long, default_value = "http://{server}/whep/{room}", value_name = "URL")]
    pub whep_url: String,
    /// Bearer token for WHIP and WHEP
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// The door of one server. Cheap to share between threads.
#[derive(Clone, Debug)]
pub struct Entrance {
    door: Door,
    server: String,
    whip: Whip,
}

/// A peer's place in a room.
pub enum Seat {
    /// Kept by an open WebSocket.
    Socket(Box<WebSocket<MaybeTlsStream<TcpStream>>>),
    /// Kept by media alone; ended by DELETE.
    Resource(Resource),
}

impl Entrance {
    /// The door of `server`, given as `host:port`.
    pub fn new(args: &DoorArgs, server: &str) -> Self {
        let url = |template: &str| template.replace("{server}", server);
        let whip = Whip::new(url(&args.whip_url), url(&args.whep_url), args.token.clone());
        Self { door: args.door, server: server.to_owned(), whip }
    }

    /// Whether a connection carries one publisher's tracks and nothing else.
    pub fn is_one_way(&self) -> bool {
        self.door == Door::Whip
    }

    /// Joins a room and exchanges offer and answer.
    pub fn enter(&self, purpose: Purpose, room: &str, user: &str, offer: &str) -> Result<(Seat, String)> {
        let path = match self.door {
            Door::Whip => {
                let (resource, answer) = self.whip.create(purpose, room, offer)?;
                return Ok((Seat::Resource(resource), answer));
            }
            Door::Switchboard => "/ws",
            Door::Gryt => "/client",
        };
        let url = format!("ws://{}{path}", self.server);
        let (mut socket, _) = tungstenite::connect(&url).with_context(|| format!("connecting to {url}"))?;
        let stream = tcp(&mut socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let answer = self.exchange(&mut socket, room, user, offer)?;
        tcp(&mut socket)?.set_nonblocking(true)?;
        Ok((Seat::Socket(Box::new(socket)), answer))
    }

    fn exchange(
        &self,
        socket: &mut WebSocket<MaybeTlsStream<TcpStream>>,
        room: &str,
        user: &str,
        offer: &str,
    ) -> Result<String> {
        let (join, welcome, offer) = if self.door == Door::Gryt {
            (
                json!({"event": "join", "data": {"roomId": room, "userId": user, "displayName": user}}),
                "joined",
                json!({"event": "offer", "data": {"type": "offer", "sdp": offer}}),
            )
        } else {
            (json!({"type": "join", "roomId": room}), "welcome", json!({"type": "offer", "sdp": offer}))
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
        let Self::Socket(socket) = self else { return Ok(()) };
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
    pub fn leave(self) {
        match self {
            // Closing is a courtesy: the server notices the end of the stream as well.
            Self::Socket(mut socket) => {
                let _ = socket.close(None);
                let _ = socket.flush();
            }
            Self::Resource(resource) => resource.delete(),
        }
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
