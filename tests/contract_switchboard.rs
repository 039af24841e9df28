//! The Switchboard protocol, message by message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use support::{CANDIDATE, Client, OFFER, Server};

async fn joined(server: &Server) -> (Client, String) {
    let mut client = server.connect("/ws").await;
    client.send(json!({"type": "join", "roomId": "r1"})).await;
    let welcome = client.hear().await;
    assert_eq!(welcome["type"], "welcome");
    (client, welcome["peerId"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn peers_meet_and_part() {
    let server = Server::start().await;
    let (mut ana, ana_id) = joined(&server).await;
    let mut ben = server.connect("/ws").await;
    ben.send(json!({"type": "join", "roomId": "r1"})).await;
    let welcome = ben.hear().await;
    assert_eq!(welcome["peers"], json!([ana_id]));
    let ben_id = welcome["peerId"].as_str().unwrap();
    // RFC 9562 §5.4: version 4 in the 13th hex digit.
    assert_eq!((ben_id.len(), ben_id.as_bytes()[14]), (36, b'4'));
    assert_eq!(ana.hear_named("peerJoined").await, json!({"type": "peerJoined", "peerId": ben_id}));
    ben.close().await;
    assert_eq!(ana.hear_named("peerLeft").await, json!({"type": "peerLeft", "peerId": ben_id}));
}

#[tokio::test]
async fn offers_are_answered_more_than_once() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server).await;
    for _ in 0..2 {
        ana.send(json!({"type": "offer", "sdp": OFFER})).await;
        assert!(ana.hear_named("answer").await["sdp"].as_str().unwrap().starts_with("v=0"));
    }
    for index in ["sdpMLineIndex", "sdpMlineIndex", "sdp_mline_index"] {
        ana.send(json!({"type": "iceCandidate", "candidate": CANDIDATE, "sdpMid": "0", index: 0})).await;
    }
    ana.send(json!({"type": "iceCandidate", "candidate": ""})).await;
    ana.send(json!({"type": "dance"})).await;
    let error = ana.hear_named("error").await;
    assert!(error["message"].as_str().unwrap().contains("dance"), "the candidates passed silently: {error}");
}

#[tokio::test]
async fn every_bad_message_gets_an_error_and_the_connection_stays() {
    let server = Server::start().await;
    let mut ana = server.connect("/ws").await;
    for (text, says) in [
        ("{", "bad message: "),
        ("[]", "bad message: "),
        (r#"{"roomId":"r1"}"#, "bad message: type is missing"),
        (r#"{"type":1}"#, "bad message: type must be text"),
        (r#"{"type":"join"}"#, "bad message: roomId is missing"),
        (r#"{"type":"join","roomId":7}"#, "bad message: roomId must be text"),
        (r#"{"type":"offer","sdp":"v=0"}"#, "join a room before offer"),
        (r#"{"type":"dance"}"#, "bad message: there is no type dance"),
    ] {
        ana.send_text(text).await;
        let error = ana.hear().await;
        assert_eq!(error["type"], "error");
        assert!(error["message"].as_str().unwrap().starts_with(says), "{text}: {error}");
    }
    ana.send(json!({"type": "join", "roomId": "r1"})).await;
    assert_eq!(ana.hear().await["type"], "welcome");
    for (text, says) in [
        ("nonsense", "bad message: "),
        (r#"{"type":"offer"}"#, "bad message: sdp is missing"),
        (r#"{"type":"offer","sdp":"hello"}"#, "the description"),
        (r#"{"type":"answer","sdp":"v=0\r\n"}"#, "an answer came"),
        (r#"{"type":"iceCandidate","candidate":[]}"#, "bad message: candidate must be text"),
        (r#"{"type":"join","roomId":"r2"}"#, "this connection has joined"),
    ] {
        ana.send_text(text).await;
        let error = ana.hear_named("error").await;
        assert!(error["message"].as_str().unwrap().starts_with(says), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_megabyte_of_sdp_and_a_flood_get_clear_ends() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server).await;
    ana.send(json!({"type": "offer", "sdp": "v".repeat((1 << 20) + 1)})).await;
    assert!(ana.hear_named("error").await["message"].as_str().unwrap().contains("too long"));
    for _ in 0..10_000 {
        ana.send(json!({"type": "iceCandidate", "candidate": ""})).await;
    }
    assert!(ana.hear_named("error").await["message"].as_str().unwrap().contains("too many messages"));
    assert_eq!(ana.closed().await.0, 1008);
}

#[tokio::test]
async fn gryt_and_switchboard_peers_share_a_room() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server).await;
    let mut ben = server.connect("/").await;
    ben.send(json!({"event": "join", "data": {"roomId": "r1", "userId": "ben"}})).await;
    assert_eq!(ben.hear().await["data"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(ana.hear_named("peerJoined").await["type"], "peerJoined");
}
