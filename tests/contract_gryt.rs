//! Gryt's real client protocol and its control socket, message by message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::gryt::{PASSWORD, answer_to, client_join, from_server, joined, registered, token};
use support::{CANDIDATE, Server, gryt, inner};
use tramline::config::Config;
use tramline::config::ingest::Ingest;

#[tokio::test]
async fn the_server_offers_right_after_the_join_and_takes_the_answer() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let mut ana = joined(&server, "ana").await;
    let offer = ana.hear().await;
    assert_eq!(offer["event"], "offer");
    let offer = inner(&offer);
    assert_eq!(offer["type"], "offer");
    let kinds: Vec<&str> =
        offer["sdp"].as_str().unwrap().split("\r\nm=").skip(1).map(|section| &section[..5]).collect();
    assert_eq!(kinds, ["audio", "video", "video", "audio"], "microphone, camera, screen, screen sound");
    assert_eq!(offer["sdp"].as_str().unwrap().matches("a=recvonly").count(), 4);
    let candidate = json!({"candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "F7gI"});
    ana.send(gryt("candidate", candidate)).await;
    ana.send(gryt("candidate", json!({"candidate": "", "sdpMid": "0"}))).await;
    for (event, data) in [
        ("keep_alive", json!({"timestamp": 1})),
        ("set_layer", json!({"track_id": "t", "max_temporal_layer": 1})),
        ("still_here", json!({})),
        ("video_demand", json!({"stream_id": "s", "width": 0, "height": 0, "fps": 0})),
        ("some_day", json!({})),
    ] {
        ana.send(gryt(event, data)).await;
    }
    ana.send(gryt("answer", json!({"type": "answer", "sdp": "nonsense"}))).await;
    let error = ana.hear_named("room_error").await;
    assert!(error["data"].as_str().unwrap().contains("SDP"), "the first complaint is about the answer: {error}");
}

#[tokio::test]
async fn a_cap_on_what_may_be_sent_is_told_and_never_as_zero() {
    for max_kbps in [Some(2500), None] {
        let server = Server::with(Config { ingest: Ingest { max_kbps }, ..Config::defaults() }).await;
        let _control = registered(&server).await;
        let mut client = server.connect("/client").await;
        client.send(client_join("ana", "acme_general")).await;
        let told = inner(&client.hear().await).get("max_ingest_kbps").cloned();
        assert_eq!(told, max_kbps.map(|kbps| json!(kbps)));
    }
}

#[tokio::test]
async fn renegotiate_brings_a_fresh_offer() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let mut ana = joined(&server, "ana").await;
    let offer = inner(&ana.hear_named("offer").await);
    ana.send(gryt("answer", json!({"type": "answer", "sdp": answer_to(offer["sdp"].as_str().unwrap(), &[])}))).await;
    ana.send(json!({"event": "renegotiate", "data": ""})).await;
    assert_eq!(inner(&ana.hear_named("offer").await)["type"], "offer");
}

#[tokio::test]
async fn a_join_is_validated_and_every_refusal_is_a_sentence() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let good = |room: &str, user: &str, token: String| {
        gryt("client_join", json!({"room_id": room, "server_id": "acme", "user_id": user, "user_token": token}))
    };
    for (first, says) in [
        (json!({"event": "client_join", "data": "hello"}), "Invalid join data"),
        (gryt("client_join", json!({"server_id": "acme"})), "Join validation failed: room_id is missing"),
        (gryt("client_join", json!({"room_id": 5, "server_id": "acme"})), "room_id must be text"),
        (gryt("client_join", json!({"room_id": "r", "server_id": "nobody"})), "server nobody is not registered"),
        (good("acme_general", "ana", "v1.a.b".into()), "malformed"),
        (good("acme_general", "ana", token("ana", "acme_general", "guess")), "signature"),
        (good("acme_general", "eve", token("ana", "acme_general", PASSWORD)), "different user or room"),
        (good("acme_private", "ana", token("ana", "acme_general", PASSWORD)), "different user or room"),
        (json!({"event": "answer", "data": ""}), "Expected client_join event"),
    ] {
        let mut client = server.connect("/client").await;
        client.send(first).await;
        let error = client.hear().await;
        assert_eq!(error["event"], "room_error");
        assert!(error["data"].as_str().unwrap().contains(says), "{error}");
        assert_eq!(client.closed().await.0, 1008);
    }
}

#[tokio::test]
async fn bad_messages_get_room_error_and_the_connection_stays() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let mut ana = joined(&server, "ana").await;
    ana.hear_named("offer").await;
    for text in ["{", "7", r#"{"event":{}}"#, r#"{"event":"offer","data":""}"#, r#"{"event":"answer","data":"{}"}"#] {
        ana.send_text(text).await;
        assert_eq!(ana.hear().await["event"], "room_error", "{text}");
    }
    let text = "a=x:y\r\n".repeat((1 << 20) / 7);
    ana.send(gryt("answer", json!({"type": "answer", "sdp": text}))).await;
    assert_eq!(ana.hear().await["event"], "room_error");
}

#[tokio::test]
async fn a_full_server_says_it_as_gryt_does() {
    let server = Server::with(Config { max_connections: 1, ..Config::defaults() }).await;
    let _control = registered(&server).await;
    let _ana = joined(&server, "ana").await;
    let mut ben = server.connect("/client").await;
    ben.send(client_join("ben", "acme_general")).await;
    let sentence = "Sorry, there are no seats left in this voice server (1/1). Try again later.";
    assert_eq!(ben.hear().await, json!({"event": "room_error", "data": sentence}));
    assert_eq!(ben.closed().await, (1013, "server full".to_owned()));
}

#[tokio::test]
async fn without_the_requirement_an_unsigned_token_passes() {
    let server = Server::with(Config { require_client_token: false, ..Config::defaults() }).await;
    let _control = registered(&server).await;
    let mut ana = server.connect("/").await;
    let join = json!({"room_id": "acme_general", "server_id": "acme", "user_id": "ana", "user_token": "eyJ9"});
    ana.send(gryt("client_join", join)).await;
    assert_eq!(ana.hear().await["event"], "room_joined");
}

#[tokio::test]
async fn the_control_socket_sees_and_commands_its_rooms() {
    let server = Server::start().await;
    let mut control = registered(&server).await;
    let mut ana = joined(&server, "ana").await;
    let joined = control.hear_named("peer_joined").await;
    assert_eq!(inner(&joined), json!({"room_id": "acme_general", "user_id": "ana"}));
    control.send(from_server("sync_request", json!({}))).await;
    let rooms = json!({"rooms": [{"room_id": "acme_general", "user_ids": ["ana"]}]});
    assert_eq!(inner(&control.hear_named("sync_response").await), rooms);
    let user = json!({"room_id": "acme_general", "user_id": "ana"});
    for (event, more) in [
        ("user_audio_control", json!({"is_muted": true, "is_deafened": false})),
        ("user_hidden_peers", json!({"hidden": ["eve"]})),
        ("user_capabilities", json!({"capabilities": ["speak"]})),
        ("keep_alive", json!({})),
        ("from_the_future", json!({})),
    ] {
        let mut fields = user.clone();
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        control.send(from_server(event, fields)).await;
    }
    control.send(from_server("disconnect_user", user)).await;
    assert_eq!(ana.closed().await.0, 1000);
    assert_eq!(control.hear().await["event"], "peer_left", "no complaint about the commands came before");
}

#[tokio::test]
async fn the_control_socket_refuses_what_is_wrong_and_stays() {
    let server = Server::start().await;
    let mut control = registered(&server).await;
    let other = |event: &str, fields: Value| gryt(event, fields);
    for (message, says) in [
        (json!({"event": "server_register", "data": "{}"}), "server_id is missing"),
        (
            other("server_register", json!({"server_id": "acme", "server_password": "guess", "room_id": "r"})),
            "invalid server password",
        ),
        (other("sync_request", json!({"server_id": "nobody", "server_password": "x"})), "not registered"),
        (from_server("disconnect_user", json!({"room_id": "acme_general"})), "user_id is missing"),
        (from_server("user_hidden_peers", json!({"room_id": "acme_general", "hidden": "eve"})), "hidden must be"),
        (from_server("user_audio_control", json!({"room_id": "acme_general", "is_muted": 1})), "is_muted must be"),
        (json!([]), "not understood"),
    ] {
        control.send(message).await;
        let error = control.hear().await;
        assert_eq!(error["event"], "room_error");
        assert!(error["data"].as_str().unwrap().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_gryt_room_is_closed_to_other_dialects_without_its_token() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let mut eve = server.connect("/").await;
    eve.send(json!({"event": "join", "data": {"roomId": "acme_general", "userId": "eve"}})).await;
    assert_eq!(eve.hear().await["data"]["code"], "unauthorized");
    let token = token("eve", "acme_general", PASSWORD);
    eve.send(json!({"event": "join", "data": {"roomId": "acme_general", "userId": "eve", "token": token}})).await;
    assert_eq!(eve.hear().await["event"], "joined");
    let mut mallory = server.connect("/ws").await;
    mallory.send(json!({"type": "join", "roomId": "acme_general"})).await;
    assert_eq!(mallory.hear().await["type"], "error");
}
