//! The SFU-Go protocol, message by message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::sfu_go::{connect, joined, joined_to, refused, send};
use support::{CANDIDATE, Client, OFFER, Server};
use tramline::base::ids::{SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::config::Config;
use tramline::config::dialects::Dialects;
use tramline::crypto::srtp::SrtpSuite;
use tramline::forward::speaker::Activity;
use tramline::session::stats::EgressReport;
use tramline::worker::command::{Event, SessionReport, WorkerReport};

const WORKER: WorkerId = WorkerId(0);

#[tokio::test]
async fn peers_meet_and_part() {
    let server = Server::start().await;
    let (mut ana, welcome, peers) = joined_to(&server, "room-9", "ana", json!({})).await;
    assert_eq!(peers, json!([]));
    let ana_id = welcome["peerId"].as_str().unwrap();
    let told = json!({
        "success": true, "peerId": ana_id, "roomId": "room-9", "resumed": false,
        "sessionId": welcome["sessionId"], "sessionToken": welcome["sessionToken"],
        "iceServers": [{"urls": ["stun:stun.l.google.com:19302"]}],
    });
    assert_eq!(welcome, told);
    assert!(welcome["sessionToken"].as_str().unwrap().len() >= 32);
    let (mut bo, welcome, peers) = joined_to(&server, "room-9", "bo", json!({"metadata": {"x": 1}})).await;
    let bo_id = welcome["peerId"].as_str().unwrap();
    assert_eq!(peers, json!([{"peerId": ana_id, "userId": "ana", "name": "ANA"}]));
    let event = json!({"peerId": bo_id, "userId": "bo", "name": "BO", "roomId": "room-9"});
    let heard = ana.hear_named("peer-joined").await;
    assert_eq!(heard["data"], event);
    assert!(heard["timestamp"].as_str().unwrap().ends_with('Z'), "{heard}");
    send(&mut bo, "leave", json!({})).await;
    assert_eq!(ana.hear_named("peer-left").await["data"], event);
    assert_eq!(bo.closed().await.0, 1000);
}

#[tokio::test]
async fn offers_are_answered_and_candidates_trickled_both_ways() {
    let server = Server::start().await;
    let (mut ana, id) = joined(&server, "ana").await;
    // As an object, too.
    ana.send(json!({"type": "offer", "data": {"sdp": OFFER, "type": "offer", "peerId": id}})).await;
    let answer = ana.hear_named("answer").await["data"].clone();
    assert_eq!((&answer["type"], &answer["peerId"]), (&json!("answer"), &json!(id)));
    assert!(answer["sdp"].as_str().unwrap().starts_with("v=0"));
    let candidate = ana.hear_named("ice-candidate").await["data"].clone();
    assert!(candidate["candidate"].as_str().unwrap().starts_with("candidate:"), "{candidate}");
    assert_eq!((&candidate["sdpMid"], &candidate["sdpMLineIndex"]), (&json!("0"), &json!(0)));
    let mine = json!({"candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0, "peerId": id});
    for data in [mine, json!({"candidate": ""}), json!({"candidate": null})] {
        send(&mut ana, "ice-candidate", data).await;
    }
    ana.send(json!({"type": "ping"})).await;
    assert_eq!(ana.hear().await["type"], "pong", "the candidates passed silently");
    for kind in ["pong", "from-the-future"] {
        ana.send(json!({"type": kind, "unknown": 1})).await;
    }
    send(&mut ana, "is-allow-renegotiation", json!({})).await;
    assert_eq!(ana.hear().await["data"], json!({"allowed": true}));
    send(&mut ana, "set-bandwidth-limit", json!({"bandwidth": 500_000})).await;
    let echo = ana.hear().await;
    assert_eq!(
        (&echo["type"], &echo["data"]),
        (&json!("set-bandwidth-limit"), &json!({"success": true, "bandwidth": 500_000}))
    );
}

#[tokio::test]
async fn every_bad_message_gets_its_code_and_the_connection_stays() {
    let server = Server::start().await;
    let mut ana = connect(&server, "ana").await;
    let long = "x".repeat(129);
    for (text, code, says) in [
        ("{".to_owned(), 400, "not understood"),
        ("[]".to_owned(), 400, "not understood"),
        (json!({"data": {}}).to_string(), 400, "not understood"),
        (json!({"type": 1}).to_string(), 400, "not understood"),
        (json!({"type": "offer", "data": {"sdp": OFFER}}).to_string(), 404, "join a room before offer"),
        (json!({"type": "layer-switch", "data": {}}).to_string(), 404, "join a room before"),
        (json!({"type": "join", "data": "{}"}).to_string(), 400, "roomId is missing"),
        (json!({"type": "join", "data": {"roomId": "a b"}}).to_string(), 400, "roomId may have"),
        (json!({"type": "join", "data": {"roomId": long}}).to_string(), 400, "roomId may have"),
        (json!({"type": "join", "data": {"roomId": 7}}).to_string(), 400, "roomId must be text"),
        (json!({"type": "join", "data": {"roomId": "r", "userId": "a/b"}}).to_string(), 400, "userId may have"),
    ] {
        ana.send_text(text).await;
        refused(&mut ana, code, says).await;
    }
    // Who comes is known by the query.
    send(&mut ana, "join", json!({"roomId": "room-9"})).await;
    assert_eq!(ana.hear().await["data"]["success"], true);
    ana.hear_named("room-state").await;
    for (kind, data, code, says) in [
        ("join", json!({"roomId": "other"}), 400, "has joined a room already"),
        ("offer", json!({}), 400, "sdp is missing"),
        ("offer", json!({"sdp": "hello"}), 400, "description"),
        ("answer", json!({"sdp": "v=0\r\n", "type": "answer"}), 400, "an answer came"),
        ("ice-candidate", json!({"candidate": 7}), 400, "candidate must be text"),
        ("ice-candidate", json!({"candidate": "nonsense"}), 400, "candidate"),
        ("layer-switch", json!({"targetRid": "l"}), 400, "trackId is missing"),
        ("layer-switch", json!({"trackId": "gone", "targetRid": "l"}), 404, "no picture"),
        ("subscribe", json!({"trackId": "gone"}), 404, "no track gone"),
        ("unsubscribe", json!({}), 400, "trackId is missing"),
        ("set-bandwidth-limit", json!({"bandwidth": "much"}), 400, "bandwidth must be"),
        ("set-bandwidth-limit", json!({"bandwidth": -1}), 400, "bandwidth must be"),
    ] {
        send(&mut ana, kind, data).await;
        refused(&mut ana, code, says).await;
    }
}

#[tokio::test]
async fn who_does_not_say_who_comes_is_closed() {
    let server = Server::start().await;
    for path in ["/ws?userId=", "/ws?name=Bo"] {
        let mut client = server.connect(path).await;
        refused(&mut client, 400, "userId is missing").await;
        assert_eq!(client.closed().await, (1008, "Missing userId".to_owned()));
    }
}

#[tokio::test]
async fn the_first_message_decides_where_the_query_names_somebody() {
    let server = Server::start().await;
    let mut client = connect(&server, "ana").await;
    client.send(json!({"type": "join", "roomId": "room-9"})).await;
    assert_eq!(client.hear().await["type"], "welcome", "that is Switchboard");
}

#[tokio::test]
async fn a_burst_passes_and_then_messages_are_dropped_with_429() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server, "ana").await;
    for _ in 0..100 {
        ana.send(json!({"type": "ping"})).await;
    }
    let (mut answered, mut dropped) = (0, 0);
    while answered + dropped < 100 {
        match ana.hear().await {
            message if message["type"] == "pong" => answered += 1,
            message => {
                assert_eq!(message["data"]["code"], 429, "{message}");
                dropped += 1;
            }
        }
    }
    assert!(answered >= 39 && dropped > 0, "{answered} answered, {dropped} dropped");
}

#[tokio::test]
async fn half_a_megabyte_is_the_longest_frame() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server, "ana").await;
    ana.send(json!({"type": "offer", "data": {"sdp": "v".repeat(500 << 10)}})).await;
    refused(&mut ana, 400, "description").await;
    ana.send(json!({"type": "offer", "data": {"sdp": "v".repeat(512 << 10)}})).await;
    refused(&mut ana, 400, "too big").await;
    assert_eq!(ana.closed().await.0, 1009);
}

#[tokio::test]
async fn the_same_user_evicts_who_was_there() {
    let server = Server::start().await;
    let (mut old, old_id) = joined(&server, "ana").await;
    let (_new, new_id) = joined(&server, "ana").await;
    assert_ne!(old_id, new_id);
    assert_eq!(old.closed().await.0, 1000);
}

#[tokio::test]
async fn rooms_and_their_places_are_limited() {
    let dialects = Dialects { rooms_max: Some(1), room_places: Some(1), ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let (_ana, _) = joined(&server, "ana").await;
    let mut bo = connect(&server, "bo").await;
    send(&mut bo, "join", json!({"roomId": "room-9"})).await;
    refused(&mut bo, 400, "the room is full (1/1)").await;
    send(&mut bo, "join", json!({"roomId": "other"})).await;
    refused(&mut bo, 500, "there are 1 rooms already").await;
}

#[tokio::test]
async fn who_comes_back_in_time_was_never_away() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server, "ana").await;
    let (mut bo, welcome, _) = joined_to(&server, "room-9", "bo", json!({})).await;
    ana.hear_named("peer-joined").await;
    // The network breaks: no close frame.
    drop(bo);
    let wrong = json!({"sessionId": welcome["sessionId"], "sessionToken": "guess"});
    let pass = json!({"sessionId": welcome["sessionId"], "sessionToken": welcome["sessionToken"]});
    let (again, resumed, peers) = joined_to(&server, "room-9", "bo", pass.clone()).await;
    assert_eq!((&resumed["resumed"], &resumed["peerId"]), (&json!(true), &welcome["peerId"]));
    assert_eq!(resumed["sessionId"], welcome["sessionId"]);
    assert_ne!(resumed["sessionToken"], welcome["sessionToken"], "each return brings a new one");
    assert_eq!(peers.as_array().unwrap().len(), 1);
    bo = again;
    ana.send(json!({"type": "ping"})).await;
    assert_eq!(ana.hear().await["type"], "pong", "nobody was told that somebody left and came");
    // While the old socket still stands: it has to go, and the place stays taken.
    let pass = json!({"sessionId": resumed["sessionId"], "sessionToken": resumed["sessionToken"]});
    let (third, resumed, _) = joined_to(&server, "room-9", "bo", pass).await;
    assert_eq!(resumed["resumed"], true);
    assert_eq!(bo.closed().await.0, 1000);
    ana.send(json!({"type": "ping"})).await;
    assert_eq!(ana.hear().await["type"], "pong");
    // A wrong pass is a new peer, who evicts the old.
    let (_fourth, fresh, _) = joined_to(&server, "room-9", "bo", wrong).await;
    assert_eq!(fresh["resumed"], false);
    assert_ne!(fresh["peerId"], welcome["peerId"]);
    assert_eq!(ana.hear_named("peer-left").await["data"]["peerId"], welcome["peerId"]);
    drop(third);
}

#[tokio::test]
async fn who_closes_the_page_or_stays_away_too_long_has_left() {
    let dialects = Dialects { session_ttl: Duration::from_millis(1), ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let (mut ana, _) = joined(&server, "ana").await;
    let (mut bo, _) = joined(&server, "bo").await;
    // RFC 6455 §7.4.1: going away.
    bo.close_with(1001).await;
    assert_eq!(ana.hear_named("peer-left").await["data"]["userId"], "bo");
    let (bo, _) = joined(&server, "bo").await;
    ana.hear_named("peer-joined").await;
    drop(bo);
    let ticking = std::sync::Arc::clone(&server.state.control);
    let ticks = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ticking.handle_timeout();
        }
    });
    assert_eq!(ana.hear_named("peer-left").await["data"]["userId"], "bo");
    ticks.abort();
}

/// Ana publishes sound and a simulcast, and Bo, who offered before that, hears of it.
async fn call(server: &Server, offer: &str) -> (Client, String, Client, String) {
    let control = &server.state.control;
    let (mut ana, ana_id) = joined(server, "ana").await;
    let (mut bo, bo_id) = joined(server, "bo").await;
    for index in 0..2 {
        let session = SessionKey { index, epoch: 0 };
        control.handle_event(WORKER, Event::Claimed { session });
        control.handle_event(WORKER, Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    }
    let idle = OFFER.replace("a=sendrecv", "a=recvonly");
    send(&mut bo, "offer", json!({"sdp": idle, "type": "offer"})).await;
    bo.hear_named("answer").await;
    send(&mut ana, "offer", json!({"sdp": offer, "type": "offer"})).await;
    ana.hear_named("answer").await;
    for index in 0..2 {
        control.handle_event(WORKER, Event::TrackLive { track: TrackKey { index, epoch: 0 } });
    }
    (ana, ana_id, bo, bo_id)
}

fn simulcast_offer() -> String {
    let simulcast = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
        a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
        a=rid:l send\r\na=rid:m send\r\na=rid:h send\r\na=simulcast:send l;m;h\r\na=ssrc:1002";
    OFFER.replace("a=ssrc:1002", simulcast)
}

#[tokio::test]
async fn new_tracks_are_told_asked_for_once_and_named_by_their_publisher() {
    let server = Server::start().await;
    let (_ana, ana_id, mut bo, bo_id) = call(&server, &simulcast_offer()).await;
    for kind in ["audio", "video"] {
        let published = bo.hear_named("track-published").await["data"].clone();
        assert_eq!((&published["kind"], &published["peerId"]), (&json!(kind), &json!(ana_id)), "{published}");
    }
    let available = bo.hear_named("layer-available").await["data"].clone();
    assert_eq!(available["layers"], json!(["l", "m", "h"]));
    let asked = bo.hear_named("renegotiate").await["data"].clone();
    assert_eq!(asked["peerId"], json!(bo_id));
    assert!(asked["reason"].is_string() && asked["trackCount"].is_u64(), "{asked}");
    let idle = OFFER.replace("a=sendrecv", "a=recvonly");
    send(&mut bo, "offer", json!({"sdp": idle, "type": "offer", "peerId": bo_id})).await;
    let answer = bo.hear_named("answer").await["data"]["sdp"].as_str().unwrap().to_owned();
    let names: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("a=msid:")).collect();
    let named = |track: &str| format!("{ana_id} {track}_to_{bo_id}");
    assert_eq!(names, [named("t-0-0"), named("t-1-0")]);
    let mut added = [bo.hear_named("track-added").await, bo.hear_named("track-added").await];
    added.sort_by_key(|message| message["data"]["kind"].to_string());
    assert_eq!(added[1]["data"]["trackId"], available["trackId"]);
    assert_eq!(added[1]["data"]["streamId"], json!(ana_id));
    for target in ["l", "h", "auto"] {
        send(&mut bo, "layer-switch", json!({"trackId": available["trackId"], "targetRid": target})).await;
    }
    send(&mut bo, "layer-switch", json!({"trackId": available["trackId"], "targetRid": "x"})).await;
    refused(&mut bo, 400, "has: l, m, h").await;
    send(&mut bo, "unsubscribe", json!({"trackId": available["trackId"]})).await;
    let ack = bo.hear_named("subscription-ack").await["data"].clone();
    assert_eq!(ack, json!({"trackId": available["trackId"], "subscribed": false}));
    assert_eq!(bo.hear_named("track-removed").await["data"]["trackId"], available["trackId"]);
}

#[tokio::test]
async fn tracks_that_were_there_are_in_the_first_answer() {
    let server = Server::start().await;
    let (_ana, ana_id, _bo, _) = call(&server, OFFER).await;
    let (mut cy, cy_id) = joined(&server, "cy").await;
    let published = cy.hear_named("track-published").await["data"]["trackId"].clone();
    assert_eq!(published, json!(format!("t-0-0_to_{cy_id}")));
    send(&mut cy, "offer", json!({"sdp": OFFER, "type": "offer"})).await;
    let answer = cy.hear_named("answer").await["data"]["sdp"].as_str().unwrap().to_owned();
    assert_eq!(answer.matches(&format!("a=msid:{ana_id} ")).count(), 2);
}

#[tokio::test]
async fn a_client_that_makes_too_few_m_lines_gets_our_offer() {
    let server = Server::start().await;
    let (_ana, _, mut bo, _) = call(&server, OFFER).await;
    let (mut cy, _) = joined(&server, "cy").await;
    send(&mut cy, "offer", json!({"sdp": OFFER, "type": "offer"})).await;
    cy.hear_named("answer").await;
    let session = SessionKey { index: 2, epoch: 0 };
    server.state.control.handle_event(WORKER, Event::Claimed { session });
    for index in 2..4 {
        server.state.control.handle_event(WORKER, Event::TrackLive { track: TrackKey { index, epoch: 0 } });
    }
    // Asked before for the two that it has m-lines for, or not yet.
    while bo.hear_named("renegotiate").await["data"]["trackCount"] != 4 {}
    let idle = OFFER.replace("a=sendrecv", "a=recvonly");
    send(&mut bo, "offer", json!({"sdp": idle, "type": "offer"})).await;
    bo.hear_named("answer").await;
    let offer = bo.hear_named("offer").await["data"].clone();
    assert_eq!(offer["type"], "offer");
    assert_eq!(offer["sdp"].as_str().unwrap().matches("\r\nm=").count(), 4);
    send(&mut bo, "is-allow-renegotiation", json!({})).await;
    assert_eq!(bo.hear_named("allow-renegotiation").await["data"], json!({"allowed": false}));
}

#[tokio::test]
async fn who_picks_gets_only_that() {
    let dialects = Dialects { auto_subscribe: false, ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let (_ana, ana_id, mut bo, _) = call(&server, OFFER).await;
    let track = bo.hear_named("track-published").await["data"]["trackId"].clone();
    let offer = json!({"sdp": OFFER.replace("a=sendrecv", "a=recvonly"), "type": "offer"});
    send(&mut bo, "offer", offer.clone()).await;
    let answer = bo.hear_named("answer").await["data"]["sdp"].as_str().unwrap().to_owned();
    assert!(!answer.contains("a=msid:"), "{answer}");
    send(&mut bo, "subscribe", json!({"trackId": track})).await;
    assert_eq!(bo.hear_named("subscription-ack").await["data"], json!({"trackId": track, "subscribed": true}));
    bo.hear_named("renegotiate").await;
    send(&mut bo, "offer", offer).await;
    let answer = bo.hear_named("answer").await["data"]["sdp"].as_str().unwrap().to_owned();
    assert_eq!(answer.matches("a=msid:").count(), 1);
    send(&mut bo, "subscribe", json!({"peerId": ana_id})).await;
    assert_eq!(bo.hear_named("subscription-ack").await["data"], json!({"peerId": ana_id, "subscribed": true}));
}

#[tokio::test]
async fn the_ends_of_tracks_and_the_speaker_are_told() {
    let server = Server::start().await;
    let (mut ana, ana_id, mut bo, _) = call(&server, OFFER).await;
    let loud = vec![(TrackKey { index: 0, epoch: 0 }, Activity { long: 10, medium: 5, immediate: 13 })];
    server.state.control.handle_event(WORKER, Event::Voices(loud));
    let told = bo.hear_named("dominant-speaker").await["data"].clone();
    assert_eq!(told, json!({"oldPeerId": "", "newPeerId": ana_id}));
    send(&mut ana, "leave", json!({})).await;
    let removed = bo.hear_named("track-removed").await["data"].clone();
    assert_eq!(removed["peerId"], json!(ana_id));
}

#[tokio::test]
async fn peers_of_all_dialects_share_a_room() {
    let server = Server::start().await;
    let (mut ana, _) = joined(&server, "ana").await;
    let mut bo = server.connect("/client").await;
    bo.send(json!({"event": "join", "data": {"roomId": "room-9", "userId": "bo", "displayName": "Bo"}})).await;
    assert_eq!(bo.hear_named("joined").await["data"]["peers"][0]["userId"], "ana");
    let told = ana.hear_named("peer-joined").await["data"].clone();
    assert_eq!(told, json!({"peerId": "bo", "userId": "bo", "name": "Bo", "roomId": "room-9"}));
    let mut cy = server.connect("/ws").await;
    cy.send(json!({"type": "join", "roomId": "room-9"})).await;
    let id = cy.hear_named("welcome").await["peerId"].clone();
    assert_eq!(ana.hear_named("peer-joined").await["data"]["peerId"], id);
}

#[tokio::test]
async fn ice_is_restarted_when_asked_for_and_when_the_path_is_lost() {
    let server = Server::start().await;
    let (mut ana, id) = joined(&server, "ana").await;
    send(&mut ana, "ice-restart-request", json!({})).await;
    refused(&mut ana, 400, "client has to offer").await;
    send(&mut ana, "offer", json!({"sdp": OFFER, "type": "offer"})).await;
    let ufrag = |message: &Value| {
        let sdp = message["data"]["sdp"].as_str().unwrap().to_owned();
        sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().to_owned()
    };
    let first = ufrag(&ana.hear_named("answer").await);
    send(&mut ana, "ice-restart-request", json!({})).await;
    let offer = ana.hear_named("ice-restart-offer").await;
    assert_eq!((&offer["data"]["type"], &offer["data"]["peerId"]), (&json!("offer"), &json!(id)));
    assert_ne!(ufrag(&offer), first);
    let session = SessionKey { index: 0, epoch: 0 };
    let happens = |event| server.state.control.handle_event(WORKER, event);
    happens(Event::Claimed { session });
    happens(Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    happens(Event::Lost { session });
    assert_eq!(ana.hear_named("network-condition").await["data"], json!({"condition": "poor"}));
    assert_ne!(ufrag(&ana.hear_named("ice-restart-offer").await), ufrag(&offer));
}

#[tokio::test]
async fn a_new_connection_of_the_same_peer_is_taken() {
    let server = Server::start().await;
    let (mut ana, ana_id, mut bo, bo_id) = call(&server, OFFER).await;
    let published = bo.hear_named("track-published").await["data"]["trackId"].clone();
    // Another certificate, as after a page was reloaded with its pass.
    let offer = OFFER.replace("D2:FA:0E", "D3:FA:0E").replace("F7gI", "G8hJ");
    send(&mut ana, "offer", json!({"sdp": offer, "type": "offer"})).await;
    assert!(ana.hear_named("answer").await["data"]["sdp"].as_str().unwrap().starts_with("v=0"));
    let removed = bo.hear_named("track-removed").await["data"].clone();
    assert_eq!(removed, json!({"trackId": published, "peerId": ana_id}));
    let Value::Array(tracks) = server.state.control.debug_tracks() else { panic!("no list") };
    tracks.iter().filter(|track| track["publisher"] == "ana").for_each(|track| server.is_live(track));
    let again = loop {
        let again = bo.hear_named("track-published").await["data"].clone();
        if again["trackId"] != json!(format!("t-1-0_to_{bo_id}")) {
            break again;
        }
    };
    assert_eq!(again["peerId"], json!(ana_id));
    assert_ne!(again["trackId"], published);
}

#[tokio::test]
async fn everybodys_connection_is_told_in_levels() {
    let dialects = Dialects { stats_interval: Duration::from_millis(20), ..Dialects::default() };
    let server = Server::with(Config { dialects, ..Config::defaults() }).await;
    let (_ana, ana_id, mut bo, bo_id) = call(&server, OFFER).await;
    let session = |index, fraction_lost| SessionReport {
        session: SessionKey { index, epoch: 0 },
        remote: None,
        suite: Some(SrtpSuite::AeadAes128Gcm),
        has_consent: true,
        silent: Duration::ZERO,
        ingress: Vec::new(),
        egress: vec![EgressReport {
            mline: 0,
            track: None,
            ssrc: Ssrc(1),
            packets: 9,
            bytes: 9,
            retransmissions: 0,
            fraction_lost,
            round_trip: None,
            waits: None,
            layer: None,
            allocation: None,
        }],
        layers: Vec::new(),
        downlink: None,
    };
    let report = WorkerReport { sessions: vec![session(0, 0.01), session(1, 0.25)], ..WorkerReport::default() };
    server.state.control.handle_event(WORKER, Event::Report(Box::new(report)));
    let mine = bo.hear_named("quality-stats").await["data"].clone();
    assert_eq!(mine, json!({"peerId": bo_id, "level": "critical", "packetLoss": 25.0}));
    assert_eq!(bo.hear().await["data"], json!({"condition": "poor"}));
    let anas = bo.hear_named("quality-stats").await["data"].clone();
    assert_eq!(anas, json!({"peerId": ana_id, "level": "good", "packetLoss": 1.0}));
}
