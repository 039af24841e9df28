//! Requests of WHIP and WHEP clients.

use serde_json::Value;

use super::{OFFER, Server};

pub const TYPE: &str = "Content-Type: application/sdp\r\n";

pub fn publishing() -> String {
    OFFER.replace("a=sendrecv", "a=sendonly")
}

pub fn watching() -> String {
    let kept = |line: &&str| !line.starts_with("a=msid:") && !line.starts_with("a=ssrc");
    let lines = OFFER.lines().filter(kept).map(|line| format!("{line}\r\n"));
    lines.collect::<String>().replace("a=sendrecv", "a=recvonly")
}

/// An answer of the server.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn error(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        serde_json::from_str::<Value>(&self.body).unwrap()["error"].as_str().unwrap().to_owned()
    }
}

pub async fn ask(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let (status, head, body) = server.request(method, path, headers, body).await;
    // Browsers of other origins may read every answer, also a refusal.
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    assert!(head.contains("access-control-expose-headers: location, etag, link, retry-after"), "{head}");
    Answer { status, head, body }
}

pub async fn post(server: &Server, path: &str, body: &str) -> Answer {
    ask(server, "POST", path, TYPE, body).await
}

/// A session, by its URL.
pub async fn created(server: &Server, path: &str, body: &str) -> String {
    let answer = post(server, path, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.header("location").unwrap().to_owned()
}

pub async fn peers(server: &Server) -> usize {
    let (_, _, body) = server.http("/debug/peers", "").await;
    serde_json::from_str::<Vec<Value>>(&body).unwrap().len()
}
