//! What an administrator may do over HTTP.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::Server;
use tramline::config::Config;

const PATH: &str = "/api/admin/impair/lobby/ann";

async fn with_ann(config: Config) -> (Server, support::Client) {
    let server = Server::with(config).await;
    let mut ann = server.connect("/client").await;
    ann.send(json!({"event": "join", "data": {"roomId": "lobby", "userId": "ann"}})).await;
    ann.hear_named("joined").await;
    (server, ann)
}

async fn ask(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, _, body) = server.request(method, path, "Content-Type: application/json\r\n", body).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test]
async fn a_network_is_made_bad_shown_and_healed() {
    let (server, _ann) = with_ann(Config { impairments: true, ..Config::defaults() }).await;
    let bad = json!({"up": {"loss": 0.05}, "down": {"rate_kbps": 300, "delay_ms": 50}});
    let (status, shown) = ask(&server, "PUT", PATH, &bad.to_string()).await;
    assert_eq!((status, &shown["up"]["loss"], &shown["down"]["rate_kbps"]), (200, &json!(0.05), &json!(300)));
    assert_eq!(ask(&server, "GET", PATH, "").await, (200, shown.clone()));
    // A peer has more names than one.
    let (_, _, peers) = server.http("/debug/peers", "").await;
    let peer = serde_json::from_str::<Value>(&peers).unwrap()[0]["peerId"].as_str().unwrap().to_owned();
    assert_eq!(ask(&server, "GET", &format!("/api/admin/impair/lobby/{peer}"), "").await, (200, shown));
    let healed = json!({"up": null, "down": null});
    assert_eq!(ask(&server, "DELETE", PATH, "").await, (200, healed.clone()));
    assert_eq!(ask(&server, "GET", PATH, "").await, (200, healed));
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let (server, _ann) = with_ann(Config { impairments: true, ..Config::defaults() }).await;
    for (path, body, status, word) in [
        ("/api/admin/impair/lobby/bob", "{}", 404, "nobody"),
        ("/api/admin/impair/elsewhere/ann", "{}", 404, "nobody"),
        (PATH, r#"{"up": {"loss": 2}}"#, 400, "loss"),
        (PATH, r#"{"sideways": {}}"#, 400, "sideways"),
        (PATH, "loss=1", 400, "not understood"),
        (PATH, "", 400, "not understood"),
    ] {
        let (is, answer) = ask(&server, "PUT", path, body).await;
        assert!(is == status && answer["error"].as_str().unwrap().contains(word), "{path} {body}: {is} {answer}");
    }
    assert_eq!(ask(&server, "GET", "/api/admin/impair/lobby/bob", "").await.0, 404);
}

#[tokio::test]
async fn it_needs_the_flag_and_the_token() {
    let (server, _ann) = with_ann(Config::defaults()).await;
    for method in ["PUT", "GET", "DELETE"] {
        let (status, answer) = ask(&server, method, PATH, "{}").await;
        assert!(status == 404 && answer["error"].as_str().unwrap().contains("--impairments"), "{method}: {answer}");
    }
    let config = Config { impairments: true, admin_token: Some("key".into()), ..Config::defaults() };
    let (server, _ann) = with_ann(config).await;
    assert_eq!(ask(&server, "PUT", PATH, "{}").await.0, 401);
    let (status, _, _) = server.request("PUT", PATH, "Authorization: Bearer key\r\n", "{}").await;
    assert_eq!(status, 200);
}
