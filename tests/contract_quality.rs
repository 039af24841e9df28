//! How large pictures are asked for, and what people are told about why they are not better.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, OFFER, Server, gryt};
use tramline::base::frame::Layer;
use tramline::base::ids::{SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::config::Config;
use tramline::crypto::srtp::SrtpSuite;
use tramline::forward::allocate::Allocation;
use tramline::forward::why::Why;
use tramline::proto::bwe::BweNumbers;
use tramline::session::stats::{DownlinkReport, EgressReport};
use tramline::worker::command::{Event, SessionReport, Unheard, WorkerReport};

const WORKER: WorkerId = WorkerId(0);

async fn joined(server: &Server, user: &str) -> Client {
    let mut client = server.connect("/client").await;
    client.send(json!({"event": "join", "data": {"roomId": "lobby", "userId": user}})).await;
    client.hear_named("joined").await;
    client
}

async fn offer(client: &mut Client) {
    client.send(json!({"event": "offer", "data": {"type": "offer", "sdp": OFFER}})).await;
    client.hear_named("answer").await;
}

/// Ann publishes sound and a picture that came to the server; Ben receives them. The sessions in order of joining.
async fn call(server: &Server) -> (Client, Client) {
    let control = &server.state.control;
    // What waits for its pace leaves when somebody asks for it, as the control thread does.
    let ticking = std::sync::Arc::clone(control);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ticking.handle_timeout();
        }
    });
    let (mut ann, mut ben) = (joined(server, "ann").await, joined(server, "ben").await);
    for index in 0..2 {
        let session = SessionKey { index, epoch: 0 };
        control.handle_event(WORKER, Event::Claimed { session });
        control.handle_event(WORKER, Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    }
    offer(&mut ann).await;
    for index in 0..2 {
        control.handle_event(WORKER, Event::TrackLive { track: TrackKey { index, epoch: 0 } });
    }
    offer(&mut ben).await;
    (ann, ben)
}

async fn wanted(client: &mut Client, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = client.hear_named("video_wanted").await;
        if is_it(&message["data"]) {
            return message["data"].clone();
        }
    }
}

#[tokio::test]
async fn a_publisher_hears_how_large_it_is_seen() {
    let server = Server::start().await;
    let (mut ann, mut ben) = call(&server).await;
    let first = wanted(&mut ann, |data| data["watchers"] == 1).await;
    assert_eq!(first, json!({"mid": "1", "width": 0, "height": 0, "fps": 0, "watchers": 1, "unknown": 1}));
    let demand = |width, height| json!({"stream_id": "stream-a", "width": width, "height": height, "fps": 15});
    ben.send(json!({"event": "video_demand", "data": demand(320.4, 99_999.0)})).await;
    let sized = wanted(&mut ann, |data| data["unknown"] == 0).await;
    assert_eq!(sized, json!({"mid": "1", "width": 321, "height": 16384, "fps": 15, "watchers": 1, "unknown": 0}));
    // Ours: several at once, by the ids that `tracks` told.
    let gone = json!({"trackId": "gone", "width": 1, "height": 1});
    ben.send(json!({"event": "video_demand", "data": {"tracks": [demand(0.0, 0.0), gone]}})).await;
    let hidden = wanted(&mut ann, |data| data["watchers"] == 0).await;
    assert_eq!(hidden["width"], 0);
    for (event, data, word) in [
        ("video_demand", json!({"stream_id": "stream-a"}), "width"),
        ("video_demand", json!({"stream_id": "stream-a", "width": "1", "height": 1}), "width must be a number"),
        ("video_demand", json!({"width": 1, "height": 1}), "stream_id"),
        ("video_demand", json!({"tracks": {}}), "list"),
        ("set_layer", json!({"track_id": "track-v"}), "max_temporal_layer"),
    ] {
        ben.send(json!({"event": event, "data": data})).await;
        let error = ben.hear_named("error").await;
        assert!(error["data"]["message"].as_str().unwrap().contains(word), "{error}");
    }
}

#[tokio::test]
async fn gryts_client_says_and_hears_it_in_its_own_form() {
    let server = Server::with(Config { require_client_token: false, ..Config::defaults() }).await;
    let mut room = server.connect("/server").await;
    let register = json!({"server_id": "acme", "server_password": "secret", "room_id": "acme_general"});
    room.send(gryt("server_register", register)).await;
    room.hear_named("room_joined").await;
    let mut client = server.connect("/client").await;
    let join = json!({"room_id": "acme_general", "server_id": "acme", "user_token": "", "user_id": "u-17"});
    client.send(gryt("client_join", join)).await;
    client.hear_named("room_joined").await;
    // What nobody publishes (any more) is no error: wishes and ends cross on their way.
    client.send(gryt("video_demand", json!({"stream_id": "gone", "width": 1, "height": 1, "fps": 1}))).await;
    client.send(gryt("set_layer", json!({"track_id": "gone", "max_temporal_layer": -1}))).await;
    client.send(gryt("video_demand", json!({"stream_id": "gone"}))).await;
    let error = client.hear_named("room_error").await;
    assert!(error["data"].as_str().unwrap().contains("width"), "only the last one is refused: {error}");
}

async fn why(server: &Server, query: &str) -> (u16, Value) {
    let (status, _, body) = server.http(&format!("/debug/why{query}"), "").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn every_track_and_subscriber_has_one_reason() {
    let server = Server::start().await;
    let (_ann, mut ben) = call(&server).await;
    let (status, all) = why(&server, "").await;
    assert_eq!((status, all.as_array().unwrap().len()), (200, 4), "two tracks each way: {all}");
    let (_, from_ann) = why(&server, "?from=ann&to=ben").await;
    let entries = from_ann.as_array().unwrap();
    let [audio, video] = [&entries[0], &entries[1]];
    assert_eq!((&audio["kind"], &video["kind"]), (&json!("audio"), &json!("video")));
    assert_eq!((&audio["from"]["userId"], &audio["to"]["userId"]), (&json!("ann"), &json!("ben")));
    assert_eq!((&video["state"], &video["reason"]), (&json!("flowing"), &json!("best")));
    // Ben's own tracks never came to the server.
    let (_, from_ben) = why(&server, "?from=ben").await;
    assert_eq!((&from_ben[0]["state"], &from_ben[0]["reason"]), (&json!("withheld"), &json!("publisher_silent")));
    assert!(from_ben[0]["sentence"].as_str().unwrap().ends_with('.') && from_ben[0]["numbers"].is_object());

    ben.send(json!({"event": "video_demand", "data": {"track_id": "track-v", "width": 0, "height": 0}})).await;
    ben.send(json!({"event": "no-such-event"})).await;
    ben.hear_named("error").await;
    let (_, hidden) = why(&server, "?from=ann&to=ben").await;
    assert_eq!(hidden[1]["reason"], "hidden_by_request");
    let deafened = tramline::room::api::PeerControl { deafened: Some(true), ..Default::default() };
    server.state.control.control_user("lobby", "ben", deafened);
    let (_, deaf) = why(&server, "?to=ben").await;
    assert_eq!(deaf[0]["reason"], "deafened");
    server.state.control.handle_event(WORKER, Event::Lost { session: SessionKey { index: 1, epoch: 0 } });
    let (_, lost) = why(&server, "?to=ben").await;
    assert_eq!((&lost[1]["reason"], &lost[1]["state"]), (&json!("no_consent"), &json!("withheld")));
}

#[tokio::test]
async fn unknown_peers_are_refused_in_words_and_the_token_is_asked_for() {
    let server = Server::start().await;
    let _ann = joined(&server, "ann").await;
    let mut eve = server.connect("/client").await;
    eve.send(json!({"event": "join", "data": {"roomId": "elsewhere", "userId": "eve"}})).await;
    eve.hear_named("joined").await;
    for (query, word) in [("?from=bob", "bob"), ("?to=bob", "bob"), ("?from=ann&to=eve", "not in one room")] {
        let (status, answer) = why(&server, query).await;
        assert!(status == 404 && answer["error"].as_str().unwrap().contains(word), "{query}: {answer}");
    }
    let server = Server::with(Config { admin_token: Some("key".into()), ..Config::defaults() }).await;
    assert_eq!(why(&server, "").await.0, 401);
}

#[tokio::test]
async fn quality_is_told_to_who_asks_for_it() {
    let server = Server::start().await;
    let (_ann, mut ben) = call(&server).await;
    let report = || server.state.control.handle_event(WORKER, Event::Report(Box::default()));
    report();
    ben.send(json!({"event": "quality", "data": {"on": true}})).await;
    ben.send(json!({"event": "no-such-event"})).await;
    ben.hear_named("error").await;
    report();
    let told = ben.hear_named("quality").await;
    let one = &told["data"]["tracks"][0];
    assert_eq!(
        (&one["mid"], &one["state"], &one["reason"]),
        (&json!("1"), &json!("flowing"), &json!("best")),
        "{told}"
    );
    ben.send(json!({"event": "video_demand", "data": {"trackId": one["trackId"], "width": 0, "height": 0}})).await;
    ben.send(json!({"event": "no-such-event"})).await;
    ben.hear_named("error").await;
    report();
    report();
    let told = ben.hear_named("quality").await;
    assert_eq!(told["data"]["tracks"][0]["reason"], "hidden_by_request");
    // What did not change is not said again.
    ben.send(json!({"event": "no-such-event"})).await;
    assert_eq!(ben.hear().await["event"], "error");
}

#[tokio::test]
async fn what_a_worker_says_is_the_reason_of_what_it_sends() {
    let server = Server::start().await;
    let (_ann, mut ben) = call(&server).await;
    ben.send(json!({"event": "quality", "data": {"on": true}})).await;
    ben.send(json!({"event": "no-such-event"})).await;
    ben.hear_named("error").await;
    let (voice, picture) = (TrackKey { index: 0, epoch: 0 }, TrackKey { index: 1, epoch: 0 });
    let (_, _, tracks) = server.http("/debug/tracks", "").await;
    let tracks: Value = serde_json::from_str(&tracks).unwrap();
    let of_ben = |at: usize| tracks[at]["subscribers"].as_array().unwrap().iter().find(|one| one["userId"] == "ben");
    let mline = |at| of_ben(at).unwrap()["mline"].as_u64().unwrap() as u16;
    let layer = Layer { encoding: 1, spatial: 0, temporal: u8::MAX };
    let reason = Why::Bandwidth { estimate_bps: 480_000, allocated_bps: 150_000, needed_bps: 1_250_000 };
    let wanted = Some(Layer { encoding: 2, ..layer });
    let allocation =
        Allocation { id: mline(1), target: Some(layer), bps: 150_000, wanted, wanted_bps: 1_250_000, why: reason };
    let egress = |mline, track, layer, allocation, waits| EgressReport {
        mline,
        track: Some(track),
        ssrc: Ssrc(1 + u32::from(mline)),
        packets: 1,
        bytes: 1,
        retransmissions: 0,
        fraction_lost: 0.0,
        round_trip: None,
        waits,
        layer,
        allocation,
    };
    let report = |waits| {
        let of_voice = egress(mline(0), voice, None, None, None);
        let of_picture = egress(mline(1), picture, Some(layer), Some(allocation), waits);
        let estimate = BweNumbers { estimate_bps: 480_000, ..BweNumbers::default() };
        let session = SessionReport {
            session: SessionKey { index: 1, epoch: 0 },
            remote: None,
            suite: None,
            has_consent: true,
            silent: Duration::ZERO,
            ingress: Vec::new(),
            layers: Vec::new(),
            egress: vec![of_voice, of_picture],
            downlink: Some(DownlinkReport { estimate, waiting: (3, Duration::from_millis(20)) }),
        };
        let unheard = vec![Unheard { track: voice, except: Vec::new() }];
        Box::new(WorkerReport { voices_heard: 4, unheard, sessions: vec![session], ..WorkerReport::default() })
    };
    server.state.control.handle_event(WORKER, Event::Report(report(None)));
    let (_, told) = why(&server, "?from=ann&to=ben").await;
    assert_eq!((&told[0]["reason"], &told[0]["numbers"]), (&json!("not_loudest"), &json!({"heard": 4})));
    assert_eq!((&told[1]["reason"], &told[1]["numbers"]["neededBps"]), (&json!("bandwidth"), &json!(1_250_000)));
    let shown = json!({"encoding": 1, "spatial": 0, "temporal": null});
    assert_eq!((&told[1]["layer"], &told[1]["target"]), (&shown, &shown));
    let quality = ben.hear_named("quality").await["data"]["tracks"][0].clone();
    assert_eq!((&quality["reason"], &quality["layer"]), (&json!("bandwidth"), &shown));
    let (_, _, peers) = server.http("/debug/peers", "").await;
    let peers: Value = serde_json::from_str(&peers).unwrap();
    let line = &peers.as_array().unwrap().iter().find(|peer| peer["userId"] == "ben").unwrap()["downlink"];
    assert_eq!((&line["estimateBps"], &line["waitingPackets"]), (&json!(480_000), &json!(3)));
    // Before a keyframe no layer matters.
    server.state.control.handle_event(WORKER, Event::Report(report(Some(Duration::from_millis(300)))));
    let (_, told) = why(&server, "?from=ann&to=ben").await;
    assert_eq!((&told[1]["reason"], &told[1]["numbers"]), (&json!("no_keyframe_yet"), &json!({"waitedMs": 300})));
}
