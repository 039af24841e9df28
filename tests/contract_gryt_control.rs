//! What Gryt's control socket does to people in its rooms, and what ends calls.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::gryt::{answer_to, from_server, joined, joined_room, registered, registered_room};
use support::{Client, Server, gryt, inner};
use tramline::base::ids::{SessionKey, WorkerId};
use tramline::crypto::srtp::SrtpSuite;
use tramline::runtime::clock;
use tramline::signaling::calls;
use tramline::worker::command::Event;

const WORKER: WorkerId = WorkerId(0);

/// Takes the next offer and answers it. What it forwards, as `(mid, kind, is sent)`.
async fn negotiated(client: &mut Client, sending: &[usize]) -> Vec<(String, String, bool)> {
    let offer = inner(&client.hear_named("offer").await)["sdp"].as_str().unwrap().to_owned();
    client.send(gryt("answer", json!({"type": "answer", "sdp": answer_to(&offer, sending)}))).await;
    let mline = |section: &str| {
        let mid = section.lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap();
        (mid.to_owned(), section[..5].to_owned(), section.contains("a=sendonly"))
    };
    // The first four are the slots.
    offer.split("\r\nm=").skip(5).map(mline).collect()
}

/// Those that carry something.
fn sent(mlines: &[(String, String, bool)]) -> Vec<&str> {
    mlines.iter().filter(|(_, _, is_sent)| *is_sent).map(|(_, kind, _)| kind.as_str()).collect()
}

/// Ana's microphone and camera are live, and Ben receives them.
async fn call(server: &Server) -> (Client, Client, Vec<(String, String, bool)>) {
    let control = &server.state.control;
    let (mut ana, mut ben) = (joined(server, "ana").await, joined(server, "ben").await);
    negotiated(&mut ben, &[0]).await;
    negotiated(&mut ana, &[0, 1]).await;
    for index in 0..2 {
        let session = SessionKey { index, epoch: 0 };
        control.handle_event(WORKER, Event::Claimed { session });
        control.handle_event(WORKER, Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    }
    // Whether the answers have come is seen in the tracks.
    let tracks = published(server, 3).await;
    let of_ana = tracks.iter().filter(|track| track["publisher"] == "ana");
    of_ana.for_each(|track| server.is_live(track));
    let mut got = negotiated(&mut ben, &[0]).await;
    while sent(&got).len() < 2 {
        got = negotiated(&mut ben, &[0]).await;
    }
    (ana, ben, got)
}

async fn published(server: &Server, count: usize) -> Vec<Value> {
    loop {
        let Value::Array(tracks) = server.state.control.debug_tracks() else { panic!("no list") };
        if tracks.len() == count {
            return tracks;
        }
        tokio::task::yield_now().await;
    }
}

async fn command(control: &mut Client, event: &str, user: &str, more: Value) {
    let mut fields = json!({"room_id": "acme_general", "user_id": user});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    control.send(from_server(event, fields)).await;
}

#[tokio::test]
async fn the_deaf_hear_nobody_and_the_muted_are_not_heard() {
    let server = Server::start().await;
    let mut control = registered(&server).await;
    let (_ana, mut ben, got) = call(&server).await;
    assert_eq!(sent(&got), ["audio", "video"]);
    let states = |muted: bool, deafened: bool| json!({"is_muted": muted, "is_deafened": deafened});
    command(&mut control, "user_audio_control", "ben", states(false, true)).await;
    assert_eq!(sent(&negotiated(&mut ben, &[0]).await), ["video"]);
    command(&mut control, "user_audio_control", "ben", states(false, false)).await;
    let again = negotiated(&mut ben, &[0]).await;
    assert_eq!(again, got, "on the same m-lines");
    command(&mut control, "user_audio_control", "ana", states(true, false)).await;
    assert_eq!(sent(&negotiated(&mut ben, &[0]).await), ["video"]);
    command(&mut control, "user_audio_control", "ana", states(false, false)).await;
    assert_eq!(sent(&negotiated(&mut ben, &[0]).await), ["audio", "video"]);
}

#[tokio::test]
async fn whom_one_hides_is_not_sent_to_him_also_when_he_comes_back() {
    let server = Server::start().await;
    let mut control = registered(&server).await;
    let (_ana, mut ben, got) = call(&server).await;
    command(&mut control, "user_hidden_peers", "ben", json!({"hidden": ["ana", "elsewhere"]})).await;
    assert_eq!(sent(&negotiated(&mut ben, &[0]).await), [""; 0]);
    ben.close().await;
    let mut ben = joined(&server, "ben").await;
    assert_eq!(sent(&negotiated(&mut ben, &[0]).await), [""; 0]);
    // The list is replaced.
    command(&mut control, "user_hidden_peers", "ben", json!({"hidden": []})).await;
    let again = negotiated(&mut ben, &[0]).await;
    assert_eq!(sent(&again), sent(&got));
}

#[tokio::test]
async fn capabilities_change_while_one_talks() {
    let server = Server::start().await;
    let mut control = registered(&server).await;
    let (_ana, mut ben, got) = call(&server).await;
    let able = |names: &[&str]| json!({"capabilities": names});
    command(&mut control, "user_capabilities", "ana", able(&["speak", "video_checked"])).await;
    let mut now = negotiated(&mut ben, &[0]).await;
    while sent(&now) != ["audio"] {
        now = negotiated(&mut ben, &[0]).await;
    }
    command(&mut control, "user_capabilities", "ana", able(&["speak", "share_video", "video_checked"])).await;
    let tracks = published(&server, 3).await;
    let camera = tracks.iter().find(|track| track["publisher"] == "ana" && track["kind"] == "video").unwrap();
    server.is_live(camera);
    let mut again = negotiated(&mut ben, &[0]).await;
    while sent(&again).len() < 2 {
        again = negotiated(&mut ben, &[0]).await;
    }
    assert_eq!(again, got, "on the same m-lines");
}

fn ufrag(message: &Value) -> String {
    let sdp = inner(message)["sdp"].as_str().unwrap().to_owned();
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().to_owned()
}

#[tokio::test]
async fn lost_consent_brings_an_offer_that_restarts_ice() {
    let server = Server::start().await;
    let _control = registered(&server).await;
    let mut ana = joined(&server, "ana").await;
    let first = ana.hear_named("offer").await;
    let answer = answer_to(inner(&first)["sdp"].as_str().unwrap(), &[0]);
    ana.send(gryt("answer", json!({"type": "answer", "sdp": answer}))).await;
    published(&server, 1).await;
    let session = SessionKey { index: 0, epoch: 0 };
    let happens = |event| server.state.control.handle_event(WORKER, event);
    happens(Event::Claimed { session });
    happens(Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    happens(Event::Lost { session });
    let second = ana.hear_named("offer").await;
    assert_ne!(ufrag(&second), ufrag(&first));
    // And so does the wish for an offer meanwhile.
    ana.send(json!({"event": "renegotiate", "data": ""})).await;
    let third = ana.hear_named("offer").await;
    assert_ne!(ufrag(&third), ufrag(&second));
}

#[tokio::test]
async fn a_call_ends_when_one_is_alone_in_it_and_a_channel_does_not() {
    let server = Server::start().await;
    let room = format!("acme_dm_{}", "a1b2".repeat(8));
    let _control = registered_room(&server, &room).await;
    let _channel = registered(&server).await;
    let mut ana = joined_room(&server, "ana", &room).await;
    let mut ben = joined_room(&server, "ben", &room).await;
    let mut eve = joined(&server, "eve").await;
    let start = clock::now();
    let sweep = |seconds| calls::sweep(&server.state, start + Duration::from_secs(seconds));
    sweep(0);
    sweep(130);
    ben.send(json!({"event": "leave", "data": ""})).await;
    ben.closed().await;
    sweep(200);
    ana.send(json!({"event": "still_here", "data": "{}"})).await;
    ana.send(gryt("offer", json!({}))).await;
    ana.hear_named("room_error").await;
    // Its clock began at the press, which was now and so before the sweep.
    sweep(start.elapsed().as_secs() + 119);
    ana.send(gryt("offer", json!({}))).await;
    ana.hear_named("room_error").await;
    sweep(400);
    assert_eq!(ana.closed().await, (1000, "removed".to_owned()));
    eve.send(gryt("offer", json!({}))).await;
    eve.hear_named("room_error").await;
}
