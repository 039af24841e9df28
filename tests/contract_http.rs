//! What plain HTTP shows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::Server;
use tramline::config::Config;

#[tokio::test]
async fn health_speaks_json_and_plain_text() {
    let server = Server::start().await;
    let (status, head, body) = server.http("/health", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["status"], &body["service"]), (&json!("healthy"), &json!("sfu")));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&body["workers"][0]["peers"], &body["workers"][0]["load"]), (&json!(0), &json!(0.0)));
    let (status, _, body) = server.http("/health", "Accept: text/plain\r\n").await;
    assert_eq!((status, body.as_str()), (200, "ok"));
    let (status, _, body) = server.http("/healthz", "").await;
    assert_eq!((status, body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn metrics_count_sockets_and_messages() {
    let server = Server::start().await;
    let mut client = server.connect("/").await;
    client.send(json!({"event": "join", "data": {"roomId": "lobby"}})).await;
    client.hear_named("joined").await;
    let (status, head, body) = server.http("/metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("openmetrics-text"), "{head}");
    for line in ["gryt_sfu_websocket_connections_active 1", "sfu_messages_received_total 1", "gryt_sfu_peers_active 1"]
    {
        assert!(body.lines().any(|have| have == line), "{line} is missing in\n{body}");
    }
}

#[tokio::test]
async fn debug_views_are_arrays_and_obey_the_admin_token() {
    let server = Server::start().await;
    for path in ["/debug/rooms", "/debug/peers", "/debug/tracks"] {
        let (status, _, body) = server.http(path, "").await;
        assert_eq!(status, 200);
        assert!(serde_json::from_str::<Value>(&body).unwrap().is_array());
    }
    let server = Server::with(Config { admin_token: Some("key".into()), ..Config::defaults() }).await;
    for (header, status) in [("", 401), ("Authorization: Bearer kez\r\n", 401), ("Authorization: Bearer key\r\n", 200)]
    {
        assert_eq!(server.http("/debug/rooms", header).await.0, status, "{header}");
    }
}

#[tokio::test]
async fn the_page_and_its_files_come_with_types_and_tags() {
    let server = Server::start().await;
    let (status, head, body) = server.http("/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(body.contains("<html"));
    let (status, head, _) = server.http("/page/main.js", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/javascript"), "{head}");
    assert!(head.contains("cache-control: no-cache"), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert_eq!(server.http("/page/main.js", &format!("If-None-Match: {tag}\r\n")).await.0, 304);
    assert_eq!(server.http("/page/nothing.js", "").await.0, 404);
    assert_eq!(server.http("/page/..%2Fmod.rs", "").await.0, 404);
    assert_eq!(server.http("/client", "").await.0 / 100, 4);
}
