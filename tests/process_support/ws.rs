//! A blocking WebSocket that speaks JSON.

use std::net::TcpStream;

use serde_json::Value;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::PATIENCE;

/// See the module.
pub struct Ws(WebSocket<TcpStream>);

impl Ws {
    /// Upgrades a connection.
    pub fn connect(stream: TcpStream, path: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}{path}", stream.peer_addr().unwrap());
        Self(client(url, stream).unwrap().0)
    }

    /// Says something.
    pub fn send(&mut self, message: &Value) {
        self.0.send(Message::Text(message.to_string().into())).unwrap();
    }

    /// The next message with that `type` or `event`; others are passed over.
    pub fn hear(&mut self, name: &str) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == name || message["event"] == name {
                        return message;
                    }
                    assert_ne!(message["type"], "error", "{message}");
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The next message, whatever it is.
    pub fn next(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Whether `joined` comes, and not the end.
    pub fn joined_or_closed(&mut self) -> bool {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) if text.contains("\"joined\"") => return true,
                Message::Close(_) => return false,
                _ => {}
            }
        }
    }

    /// The close code; messages before it are returned too.
    pub fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut heard = Vec::new();
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => heard.push(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return (frame.expect("never a bare close").code.into(), heard),
                _ => {}
            }
        }
    }
}
