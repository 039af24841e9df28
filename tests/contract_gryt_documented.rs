//! Gryt's documented protocol, message by message, with our additions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{CANDIDATE, Client, OFFER, Server};
use tramline::config::Config;

async fn joined(server: &Server, user: &str) -> Client {
    let mut client = server.connect("/").await;
    client.send(json!({"event": "join", "data": {"roomId": "lobby", "userId": user, "displayName": user}})).await;
    assert_eq!(client.hear().await["event"], "joined");
    client
}

#[tokio::test]
async fn a_joiner_learns_who_is_there_and_the_others_learn_of_it() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    let mut ben = server.connect("/client").await;
    // Double-encoded, other spellings, unknown fields.
    let data = json!({"room_id": "lobby", "user_id": "ben", "display_name": "Ben", "colour": "red"}).to_string();
    ben.send(json!({"event": "join", "data": data, "id": 1})).await;
    let person = json!({"userId": "ana", "displayName": "ana", "audioMuted": false, "videoMuted": false});
    let welcome = json!({"roomId": "lobby", "userId": "ben", "peers": [person]});
    assert_eq!(ben.hear().await, json!({"event": "joined", "data": welcome}));
    let told = ana.hear_named("user-joined").await;
    assert_eq!((&told["data"]["userId"], &told["data"]["displayName"]), (&json!("ben"), &json!("Ben")));
    ben.send(json!({"event": "media-state", "data": {"audioMuted": true, "sources": {"1": "camera"}}})).await;
    assert_eq!(ana.hear_named("user-updated").await["data"]["audioMuted"], true);
    ben.send(json!({"event": "leave"})).await;
    assert_eq!(ben.closed().await.0, 1000);
    assert_eq!(ana.hear_named("user-left").await["data"], json!({"userId": "ben"}));
}

/// A long message leaves in frames, cut anywhere; what arrives is one message.
#[tokio::test]
async fn a_list_of_many_arrives_whole() {
    let server = Server::start().await;
    let name = "ö".repeat(127);
    let mut here = Vec::new();
    for number in 0..60 {
        let mut client = server.connect("/client").await;
        let data = json!({"roomId": "lobby", "userId": format!("user {number}"), "displayName": name});
        client.send(json!({"event": "join", "data": data})).await;
        let peers = client.hear().await["data"]["peers"].as_array().unwrap().clone();
        assert_eq!(peers.len(), number);
        assert!(peers.iter().all(|peer| peer["displayName"] == name));
        here.push(client);
    }
    // 18 KiB of it in the last.
    let told = here[0].hear_named("user-joined").await;
    assert_eq!(told["data"]["userId"], "user 1");
}

#[tokio::test]
async fn a_request_that_opens_no_socket_is_told_why() {
    let server = Server::start().await;
    for (headers, status, word) in [
        ("", 400, "upgrade"),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", 400, "version 13"),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 400, "Sec-WebSocket-Key"),
    ] {
        let (told, _, body) = server.http("/client", headers).await;
        assert!(told == status && body.contains(word), "{headers}: {told} {body}");
    }
}

#[tokio::test]
async fn an_offer_is_answered() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": OFFER}})).await;
    let answer = ana.hear_named("answer").await;
    assert_eq!(answer["data"]["type"], "answer");
    assert!(answer["data"]["sdp"].as_str().unwrap().starts_with("v=0"));
    let candidate = json!({"candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0});
    ana.send(json!({"event": "ice-candidate", "data": candidate})).await;
    ana.send(json!({"event": "ice-candidate", "data": {"candidate": ""}})).await;
    ana.send(json!({"event": "no-such-event"})).await;
    assert_eq!(ana.hear_named("error").await["data"]["code"], "unknown-event", "the candidates passed silently");
}

#[tokio::test]
async fn a_client_without_user_id_gets_one() {
    let server = Server::start().await;
    let mut client = server.connect("/").await;
    client.send(json!({"event": "join", "data": {"roomId": "lobby"}})).await;
    assert!(!client.hear().await["data"]["userId"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn the_same_user_evicts_the_older_connection() {
    let server = Server::start().await;
    let mut older = joined(&server, "ana").await;
    let _newer = joined(&server, "ana").await;
    assert_eq!(older.hear_named("closed").await["data"], json!({"reason": "evicted"}));
    assert_eq!(older.closed().await.0, 1000, "any other code would make it come back");
}

#[tokio::test]
async fn every_bad_message_gets_a_clear_error_and_the_connection_stays() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    for (text, code) in [
        ("{", "bad-message"),
        ("[1]", "bad-message"),
        (r#"{"event":7}"#, "bad-message"),
        (r#"{"event":"offer","data":5}"#, "bad-message"),
        (r#"{"event":"offer","data":{"sdp":5}}"#, "bad-message"),
        (r#"{"event":"offer","data":{}}"#, "bad-message"),
        (r#"{"event":"offer","data":{"type":"offer","sdp":"hello"}}"#, "bad-sdp"),
        (r#"{"event":"answer","data":{"type":"answer","sdp":"v=0\r\n"}}"#, "unexpected-answer"),
        (r#"{"event":"ice-candidate","data":{"candidate":5}}"#, "bad-message"),
        (r#"{"event":"media-state","data":{"audioMuted":"yes"}}"#, "bad-message"),
        (r#"{"event":"join","data":{"roomId":"lobby"}}"#, "already-joined"),
        (r#"{"event":"dance"}"#, "unknown-event"),
    ] {
        ana.send_text(text).await;
        let error = ana.hear_named("error").await;
        assert_eq!(error["data"]["code"], code, "{text}: {error}");
        assert!(error["data"]["message"].as_str().unwrap().len() > 10);
    }
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": OFFER}})).await;
    ana.hear_named("answer").await;
}

#[tokio::test]
async fn a_bad_join_may_be_tried_again() {
    let server = Server::start().await;
    let mut ana = server.connect("/").await;
    for data in [json!({}), json!(5), json!({"roomId": 5}), json!({"roomId": "x".repeat(300)})] {
        ana.send(json!({"event": "join", "data": data})).await;
        assert_eq!(ana.hear().await["data"]["code"], "bad-join");
    }
    ana.send(json!({"event": "offer", "data": {"sdp": OFFER}})).await;
    assert_eq!(ana.hear().await["data"]["code"], "join-first");
    ana.send(json!({"event": "join", "data": {"roomId": "lobby"}})).await;
    assert_eq!(ana.hear().await["event"], "joined");
}

#[tokio::test]
async fn anything_before_join_is_refused_in_both_of_gryts_dialects() {
    let server = Server::start().await;
    for first in [r#"{"event":"offer","data":{"sdp":"v=0"}}"#, "{", r#"{"event":"dance"}"#] {
        let mut client = server.connect("/").await;
        client.send_text(first).await;
        assert_eq!(client.hear().await["event"], "room_error", "{first}");
        assert_eq!(client.hear().await["event"], "error", "{first}");
        assert_eq!(client.closed().await, (1008, "join first".to_owned()));
    }
}

#[tokio::test]
async fn a_megabyte_of_sdp_gets_an_error_and_the_connection_stays() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    let text = "a=x:y\r\n".repeat((1 << 20) / 7);
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": text}})).await;
    assert_eq!(ana.hear_named("error").await["data"]["code"], "bad-sdp");
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": "v".repeat((1 << 20) + 1)}})).await;
    assert_eq!(ana.hear_named("error").await["data"]["code"], "sdp-too-long");
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": OFFER}})).await;
    ana.hear_named("answer").await;
}

#[tokio::test]
async fn a_message_beyond_two_megabytes_is_closed_with_1009() {
    let server = Server::start().await;
    for size in [(2 << 20) + 1, 3 << 20] {
        let mut ana = joined(&server, &format!("ana-{size}")).await;
        ana.send_text("x".repeat(size)).await;
        assert_eq!(ana.hear_named("error").await["data"]["code"], "too-big");
        assert_eq!(ana.closed().await, (1009, "message too big".to_owned()));
    }
}

#[tokio::test]
async fn ten_thousand_messages_at_once_get_one_error_and_a_close_code() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    let mut ben = joined(&server, "ben").await;
    for _ in 0..10_000 {
        ana.send(json!({"event": "ice-candidate", "data": {"candidate": ""}})).await;
    }
    assert_eq!(ana.hear_named("error").await["data"]["code"], "rate-limited");
    assert_eq!(ana.closed().await, (1008, "too many messages".to_owned()));
    assert_eq!(ben.hear_named("user-left").await["data"]["userId"], "ana");
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = Server::with(Config { max_connections: 1, ..Config::defaults() }).await;
    let _ana = joined(&server, "ana").await;
    let mut ben = server.connect("/").await;
    ben.send(json!({"event": "join", "data": {"roomId": "other", "userId": "ben"}})).await;
    assert_eq!(ben.hear().await["data"]["code"], "server-full");
    assert_eq!(ben.closed().await, (1013, "server full".to_owned()));
}

#[tokio::test]
async fn a_client_may_ask_for_an_offer() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    ana.send(json!({"event": "offer", "data": {"type": "offer", "sdp": OFFER}})).await;
    ana.hear_named("answer").await;
    ana.send(json!({"event": "renegotiate"})).await;
    assert_eq!(ana.hear_named("offer").await["data"]["type"], "offer");
}

#[tokio::test]
async fn a_client_that_closes_gets_a_close_frame_back_and_leaves() {
    let server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    let mut ben = joined(&server, "ben").await;
    ben.close_with(1000).await;
    assert_eq!(ben.closed().await.0, 1000);
    assert_eq!(ana.hear_named("user-left").await["data"]["userId"], "ben");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_with_4000() {
    let brief = Duration::from_millis(50);
    let server = Server::with(Config { ping_interval: brief, pong_timeout: 2 * brief, ..Config::defaults() }).await;
    let mut ana = joined(&server, "ana").await;
    let mut ben = joined(&server, "ben").await;
    // Ben does not read and so answers no ping; Ana does, until she hears that he is gone.
    assert_eq!(ana.hear_named("user-left").await["data"]["userId"], "ben");
    assert_eq!(ben.closed().await, (4000, "ping timeout".to_owned()));
}

#[tokio::test]
async fn a_stopping_server_tells_its_peers_and_is_gone() {
    let mut server = Server::start().await;
    let mut ana = joined(&server, "ana").await;
    let mut undecided = server.connect("/").await;
    let mut control = server.connect("/server").await;
    server.ask_to_stop();
    assert_eq!(ana.hear_named("closed").await["data"], json!({"reason": "server-stopping"}));
    assert_eq!(ana.closed().await, (1012, "server stopping".to_owned()));
    assert_eq!(undecided.closed().await.0, 1012);
    assert_eq!(control.closed().await.0, 1012);
    server.stopped().await;
}
