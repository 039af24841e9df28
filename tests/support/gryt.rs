//! Gryt's server and client for the contract tests.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Client, OFFER, Server, gryt, inner};

pub const PASSWORD: &str = "harbour";

pub fn token(user: &str, room: &str, password: &str) -> String {
    let payload = format!("{user}|{room}|4102444800000|nonce|speak");
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes()), payload.as_bytes());
    format!("v2.{}.{}", URL_SAFE_NO_PAD.encode(&payload), URL_SAFE_NO_PAD.encode(mac))
}

pub fn client_join(user: &str, room: &str) -> Value {
    let token = token(user, room, PASSWORD);
    gryt("client_join", json!({"room_id": room, "server_id": "acme", "user_id": user, "user_token": token}))
}

pub fn from_server(event: &str, mut fields: Value) -> Value {
    fields["server_id"] = json!("acme");
    fields["server_password"] = json!(PASSWORD);
    gryt(event, fields)
}

pub async fn registered(server: &Server) -> Client {
    registered_room(server, "acme_general").await
}

pub async fn registered_room(server: &Server, room: &str) -> Client {
    let mut control = server.connect("/server").await;
    control.send(from_server("server_register", json!({"room_id": room}))).await;
    assert_eq!(control.hear().await, json!({"event": "room_joined", "data": "Server registered successfully"}));
    control
}

pub async fn joined(server: &Server, user: &str) -> Client {
    joined_room(server, user, "acme_general").await
}

pub async fn joined_room(server: &Server, user: &str, room: &str) -> Client {
    let mut client = server.connect("/client").await;
    client.send(client_join(user, room)).await;
    let welcome = client.hear().await;
    assert_eq!(welcome["event"], "room_joined");
    let stun = json!([{"urls": ["stun:stun.l.google.com:19302"]}]);
    let told = json!({"message": "Successfully joined room", "call_alone_timeout_seconds": 120, "iceServers": stun});
    assert_eq!(inner(&welcome), told);
    client
}

/// Answers an offer: with devices on the m-lines of these numbers, receiving where we send, and `inactive` else.
pub fn answer_to(offer: &str, sending: &[usize]) -> String {
    let (session, _) = OFFER.split_once("m=audio").unwrap();
    let mut answer: String =
        session.lines().filter(|line| !line.starts_with("a=")).map(|l| format!("{l}\r\n")).collect();
    for line in offer.lines().filter(|line| line.starts_with("a=group:")) {
        answer.push_str(&format!("{line}\r\n"));
    }
    for (index, section) in offer.split("\r\nm=").skip(1).enumerate() {
        let first = section.lines().next().unwrap();
        let direction = match sending.contains(&index) {
            true => "sendonly",
            false if section.contains("a=sendonly") => "recvonly",
            false => "inactive",
        };
        answer.push_str(&format!("m={first}\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na={direction}\r\n"));
        if sending.contains(&index) {
            answer.push_str(&format!("a=msid:stream track-{index}\r\n"));
        }
        let keep = ["a=mid:", "a=rtpmap:", "a=fmtp:"];
        for line in section.lines().filter(|line| keep.iter().any(|start| line.starts_with(start))) {
            answer.push_str(&format!("{line}\r\n"));
        }
        for line in OFFER.lines().filter(|line| line.starts_with("a=ice-") || line.starts_with("a=fingerprint")).take(4)
        {
            answer.push_str(&format!("{line}\r\n"));
        }
        answer.push_str("a=setup:active\r\n");
    }
    answer
}
