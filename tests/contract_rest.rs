//! `/api/rooms` in both shapes, and what else programs ask over plain HTTP.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::Server;
use tramline::config::Config;
use tramline::config::dialects::{Dialects, RoomsApi};

fn read(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

async fn joined(server: &Server, room: &str, user: &str) -> support::Client {
    let mut client = server.connect("/client").await;
    client.send(json!({"event": "join", "data": {"roomId": room, "userId": user}})).await;
    client.hear_named("joined").await;
    client
}

#[tokio::test]
async fn rooms_are_made_listed_shown_and_deleted() {
    let server = Server::start().await;
    let (status, head, body) = server.http("/api/rooms", "").await;
    assert_eq!((status, read(&body)), (200, json!({"rooms": [], "total": 0})));
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let (status, _, body) = server.request("POST", "/api/rooms", "", r#"{"name":"standup","maxPeers":1}"#).await;
    assert_eq!(status, 200, "{body}");
    let room = read(&body);
    let made = json!({
        "id": "standup", "name": "standup", "state": "inactive", "peerCount": 0, "trackCount": 0,
        "createdAt": room["createdAt"], "updatedAt": room["updatedAt"],
    });
    assert_eq!(room, made);
    assert!(room["createdAt"].as_str().unwrap().ends_with('Z'));
    let ana = joined(&server, "standup", "ana").await;
    let (_, _, body) = server.http("/api/rooms/standup", "").await;
    assert_eq!((&read(&body)["state"], &read(&body)["peerCount"]), (&json!("active"), &json!(1)));
    let (_, _, body) = server.http("/api/rooms", "").await;
    assert_eq!((&read(&body)["total"], &read(&body)["rooms"][0]["id"]), (&json!(1), &json!("standup")));
    let mut ben = server.connect("/client").await;
    ben.send(json!({"event": "join", "data": {"roomId": "standup", "userId": "ben"}})).await;
    assert_eq!(ben.hear_named("error").await["data"]["code"], "room-full");
    ana.close().await;
    let (status, _, body) = server.http("/api/rooms/standup", "").await;
    assert_eq!((status, &read(&body)["id"]), (200, &json!("standup")), "it waits for peers");
    let mut ana = joined(&server, "standup", "ana").await;
    assert_eq!(server.request("DELETE", "/api/rooms/standup", "", "").await.0, 204);
    assert_eq!(ana.hear_named("closed").await["data"]["reason"], "kicked");
    assert_eq!(server.http("/api/rooms/standup", "").await.0, 404);
    assert_eq!(server.request("DELETE", "/api/rooms/standup", "", "").await.0, 404);
}

#[tokio::test]
async fn a_name_that_is_no_id_or_is_taken_gets_another() {
    let server = Server::start().await;
    for name in ["Monday meeting", "standup", "standup"] {
        let body = json!({"name": name}).to_string();
        let (status, _, body) = server.request("POST", "/api/rooms", "Content-Type: application/json\r\n", &body).await;
        assert_eq!((status, &read(&body)["name"]), (200, &json!(name)));
    }
    let (_, _, body) = server.http("/api/rooms", "").await;
    let body = read(&body);
    let ids: Vec<&str> = body["rooms"].as_array().unwrap().iter().map(|room| room["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids.iter().filter(|id| **id == "standup").count()), (3, 1));
}

#[tokio::test]
async fn what_makes_no_room_is_refused_in_words() {
    let server = Server::start().await;
    for (body, says) in [
        ("", "not understood"),
        ("[]", "must be an object"),
        ("{}", "name is missing"),
        (r#"{"name":7}"#, "name must be text"),
        (r#"{"name":"a","maxPeers":"2"}"#, "maxPeers must be"),
        (r#"{"name":"a","maxPeers":-1}"#, "maxPeers must be"),
    ] {
        let (status, _, answer) = server.request("POST", "/api/rooms", "", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(read(&answer)["error"].as_str().unwrap().contains(says), "{answer}");
    }
    let long = json!({"name": "x".repeat(20 << 10)}).to_string();
    assert_eq!(server.request("POST", "/api/rooms", "", &long).await.0, 413);
    assert_eq!(server.request("PUT", "/api/rooms", "", "").await.0, 405);
}

#[tokio::test]
async fn rooms_are_as_many_as_may_be() {
    let dialects = Dialects { rooms_max: Some(1), ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    assert_eq!(server.request("POST", "/api/rooms", "", r#"{"name":"a"}"#).await.0, 200);
    let (status, head, _) = server.request("POST", "/api/rooms", "", r#"{"name":"b"}"#).await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after"), "{head}");
    let mut ben = server.connect("/client").await;
    ben.send(json!({"event": "join", "data": {"roomId": "b"}})).await;
    assert_eq!(ben.closed().await, (1013, "server full".to_owned()));
}

#[tokio::test]
async fn rooms_are_changed_with_the_admin_token_only() {
    let server = Server::with(Config { admin_token: Some("key".into()), ..Config::defaults() }).await;
    let body = r#"{"name":"a"}"#;
    assert_eq!(server.request("POST", "/api/rooms", "", body).await.0, 401);
    assert_eq!(server.request("DELETE", "/api/rooms/a", "", "").await.0, 401);
    assert_eq!(server.request("POST", "/api/rooms", "Authorization: Bearer key\r\n", body).await.0, 200);
    assert_eq!(server.http("/api/rooms/a", "").await.0, 200);
}

#[tokio::test]
async fn the_list_may_be_go_lives() {
    let dialects = Dialects { rooms_api: RoomsApi::GoLive, ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let _ana = joined(&server, "studio", "ana").await;
    let (status, _, body) = server.http("/api/rooms", "").await;
    let room = json!([{"name": "studio", "hasPublisher": false, "tracks": 0, "subscribers": 0}]);
    assert_eq!((status, read(&body)), (200, room));
}

#[tokio::test]
async fn health_says_what_sfu_gos_clients_look_for() {
    let dialects = Dialects { instance_id: "sfu-7".into(), ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let (_, _, body) = server.http("/health", "").await;
    let body = read(&body);
    for (name, value) in [
        ("status", json!("healthy")),
        ("instanceId", json!("sfu-7")),
        ("redis", json!("disabled")),
        ("rooms", json!(0)),
    ] {
        assert_eq!(body[name], value, "{body}");
    }
}

#[tokio::test]
async fn metrics_may_be_off() {
    let dialects = Dialects { metrics: false, ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    assert_eq!(server.http("/metrics", "").await.0, 404);
}
