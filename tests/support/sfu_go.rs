//! An SFU-Go client for the contract tests.

use serde_json::{Value, json};

use super::{Client, Server};

pub async fn connect(server: &Server, user: &str) -> Client {
    server.connect(&format!("/ws?userId={user}&name={}", user.to_uppercase())).await
}

pub async fn send(client: &mut Client, kind: &str, data: Value) {
    // As the original clients do: encoded twice.
    client.send(json!({"type": kind, "data": data.to_string(), "timestamp": "2026-01-02T03:04:05Z"})).await;
}

/// A client in a room, what `join` answered, and `room-state`.
pub async fn joined_to(server: &Server, room: &str, user: &str, more: Value) -> (Client, Value, Value) {
    let mut client = connect(server, user).await;
    let mut data = json!({"roomId": room, "userId": user, "name": user.to_uppercase()});
    data.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    send(&mut client, "join", data).await;
    let welcome = client.hear().await;
    assert_eq!(welcome["type"], "join", "{welcome}");
    let state = client.hear().await;
    assert_eq!(state["type"], "room-state");
    (client, welcome["data"].clone(), state["data"]["peers"].clone())
}

pub async fn joined(server: &Server, user: &str) -> (Client, String) {
    let (client, welcome, _) = joined_to(server, "room-9", user, json!({})).await;
    (client, welcome["peerId"].as_str().unwrap().to_owned())
}

pub async fn refused(client: &mut Client, code: u16, says: &str) {
    let error = client.hear_named("error").await;
    assert_eq!(error["data"]["code"], code, "{error}");
    assert!(error["data"]["message"].as_str().unwrap().contains(says), "{error}");
}
