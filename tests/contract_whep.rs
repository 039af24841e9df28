//! WHEP's extensions, event by event and layer by layer, and go-live's other paths.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::Server;
use support::whip::{Answer, ask, created, post, publishing, watching};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tramline::base::frame::Layer;
use tramline::base::ids::{SessionKey, TrackKey, WorkerId};
use tramline::config::Config;
use tramline::crypto::srtp::SrtpSuite;
use tramline::forward::rates::Offer;
use tramline::session::stats::LayerReport;
use tramline::worker::command::{Event, SessionReport, WorkerReport};

const WORKER: WorkerId = WorkerId(0);
const JSON: &str = "Content-Type: application/json\r\n";
/// A hang becomes a failure after this.
const PATIENCE: Duration = Duration::from_secs(30);
/// The publisher's picture: keys are given in the order of m-lines.
const PICTURE: TrackKey = TrackKey { index: 1, epoch: 0 };

fn simulcast() -> String {
    let offer = publishing();
    let at = offer.rfind("a=ssrc:1002").unwrap();
    offer[..at].to_owned()
        + "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
           a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
           a=rid:q send\r\na=rid:h send\r\na=simulcast:send q;h\r\n"
}

/// The publisher is session 0 and sends both streams of its simulcast, of two temporal layers each.
fn media(server: &Server) {
    let tell = |event| server.state.control.handle_event(WORKER, event);
    let session = SessionKey { index: 0, epoch: 0 };
    tell(Event::Claimed { session });
    tell(Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    tell(Event::TrackLive { track: TrackKey { index: 0, epoch: 0 } });
    tell(Event::TrackLive { track: PICTURE });
    let layer = |encoding: u8, temporal: u8, bps, size: (u16, u16)| {
        let pixels = Some(u32::from(size.0) * u32::from(size.1));
        let offer = Offer { layer: Layer { encoding, spatial: 0, temporal }, bps, pixels, fps: Some(30.0) };
        LayerReport { track: PICTURE, offer, size: Some(size) }
    };
    let layers = vec![
        layer(0, 0, 60_000, (320, 180)),
        layer(0, 1, 100_000, (320, 180)),
        layer(1, 0, 300_000, (640, 360)),
        layer(1, 1, 500_000, (640, 360)),
    ];
    let report = SessionReport {
        session,
        remote: None,
        suite: None,
        has_consent: true,
        silent: Duration::ZERO,
        ingress: Vec::new(),
        layers,
        egress: Vec::new(),
        downlink: None,
    };
    tell(Event::Report(Box::new(WorkerReport { sessions: vec![report], ..WorkerReport::default() })));
}

/// Someone who listens to an event stream.
struct Listener {
    stream: TcpStream,
    text: String,
}

impl Listener {
    async fn open(server: &Server, path: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut listener = Self { stream, text: String::new() };
        let head = listener.until("\r\n\r\n").await.expect("a head").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for line in ["content-type: text/event-stream", "access-control-allow-origin: *"] {
            assert!(head.contains(line), "{line}: {head}");
        }
        listener
    }

    /// The text up to a mark, without it. `None` when the stream ends.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some((text, rest)) = self.text.split_once(mark) {
                let (text, rest) = (text.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(text);
            }
            let mut bytes = [0; 4096];
            let read =
                tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("in time").unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.text += std::str::from_utf8(&bytes[..read]).unwrap();
        }
    }

    /// Name and data of the next event.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let line = self.until("\n").await?;
            let Some(name) = line.strip_prefix("event: ") else { continue };
            let name = name.to_owned();
            let data = self.until("\n").await?;
            let data = data.strip_prefix("data: ").expect("data in one line");
            return Some((name, serde_json::from_str(data).unwrap()));
        }
    }

    async fn hear(&mut self, name: &str) -> Value {
        loop {
            let (heard, data) = self.event().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if heard == name {
                return data;
            }
        }
    }
}

/// A viewer's session URL and the URL of its event stream.
async fn listening(server: &Server, wanted: &str) -> (String, String) {
    let session = created(server, "/whep/room?wait=1", &watching()).await;
    let stream = stream_of(server, &session, wanted).await;
    (session, stream)
}

async fn stream_of(server: &Server, session: &str, wanted: &str) -> String {
    let answer = ask(server, "POST", &format!("{session}/sse"), JSON, wanted).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn the_answer_to_a_viewer_names_the_extensions() {
    let server = Server::start().await;
    let answer = post(&server, "/whep/room?wait=1", &watching()).await;
    let session = answer.header("location").unwrap();
    let links: Vec<&str> = answer.head.lines().filter_map(|line| line.strip_prefix("link: ")).collect();
    assert_eq!(links.len(), 3, "{links:?}");
    assert_eq!(links[0], "<stun:stun.l.google.com:19302>; rel=\"ice-server\"");
    let events = "events=\"active,inactive,layers,reconnect,viewercount\"";
    assert_eq!(
        links[1],
        format!("<{session}/sse>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; {events}")
    );
    assert_eq!(links[2], format!("<{session}/layer>; rel=\"urn:ietf:params:whep:ext:core:layer\""));
}

#[tokio::test]
async fn a_listener_is_told_what_becomes_of_the_room() {
    let server = Server::start().await;
    let (viewer, stream) = listening(&server, "").await;
    let mut ear = Listener::open(&server, &stream).await;
    // Never "inactive" at first.
    assert_eq!(ear.event().await, Some(("layers".into(), json!({}))));
    assert_eq!(ear.event().await, Some(("viewercount".into(), json!({"viewercount": 1}))));
    let publisher = created(&server, "/whip/room", &simulcast()).await;
    let session = SessionKey { index: 1, epoch: 0 };
    let tell = |event| server.state.control.handle_event(WORKER, event);
    tell(Event::Claimed { session });
    tell(Event::TrackLive { track: PICTURE });
    assert_eq!(ear.hear("active").await, json!({}));
    let other = created(&server, "/whep/room", &watching()).await;
    assert_eq!(ear.hear("viewercount").await, json!({"viewercount": 2}));
    ask(&server, "DELETE", &other, "", "").await;
    assert_eq!(ear.hear("viewercount").await, json!({"viewercount": 1}));
    ask(&server, "DELETE", &publisher, "", "").await;
    assert_eq!(ear.hear("inactive").await, json!({}));
    server.state.sessions.reconnect(Some("https://b.example/whep/room".to_owned()));
    assert_eq!(ear.hear("reconnect").await, json!({"url": "https://b.example/whep/room"}));
    ask(&server, "DELETE", &viewer, "", "").await;
    while ear.event().await.is_some() {}
    assert_eq!(ask(&server, "GET", &stream, "", "").await.status, 404);
}

#[tokio::test]
async fn layers_are_told_and_can_be_chosen() {
    let server = Server::start().await;
    created(&server, "/whip/room", &simulcast()).await;
    media(&server);
    let (viewer, stream) = listening(&server, "[\"layers\"]").await;
    let mut ear = Listener::open(&server, &stream).await;
    let layer = |rid: &str, temporal: u8, bps: u64, width: u16, height: u16| json!({"rid": rid, "spatialLayerId": 0, "temporalLayerId": temporal, "bitrate": bps, "width": width, "height": height});
    let told = ear.hear("layers").await;
    let wanted = [
        layer("q", 0, 60_000, 320, 180),
        layer("q", 1, 100_000, 320, 180),
        layer("h", 0, 300_000, 640, 360),
        layer("h", 1, 500_000, 640, 360),
    ];
    assert_eq!(told, json!({"1": wanted}));
    let path = format!("{viewer}/layer");
    let choose = async |body: &str| ask(&server, "POST", &path, JSON, body).await;
    for body in [
        json!({"mediaId": "1", "rid": "h"}),
        json!({"mediaId": "1", "encodingId": "q"}),
        json!({"mediaId": 1, "rid": "h", "spatialLayerId": 0, "temporalLayerId": 1}),
        json!({"rid": "q", "maxSpatialLayerId": 1, "maxTemporalLayerId": 0}),
        json!({"maxWidth": 640}),
        json!({"mediaId": "1", "maxWidth": 640, "maxHeight": 360}),
        json!({"mediaId": "1"}),
        json!({}),
    ] {
        let answer = choose(&body.to_string()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{body}");
    }
    for (body, status, says) in [
        (json!({"mediaId": "1", "rid": "x"}), 422, "q, h"),
        (json!({"mediaId": "0", "rid": "h"}), 404, "no picture"),
        (json!({"mediaId": "9"}), 404, "no picture"),
        (json!({"spatialLayerId": "top"}), 400, "not understood"),
        (json!([1]), 400, "not understood"),
    ] {
        let answer: Answer = choose(&body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.error().contains(says), "{}", answer.body);
    }
    assert_eq!(ask(&server, "POST", &path, "", "{}").await.status, 415);
    assert_eq!(choose(&format!("{{\"x\":\"{}\"}}", "x".repeat(5000))).await.status, 413);
    assert_eq!(server.request("POST", &path.replace("whep", "whip"), JSON, "{}").await.0, 404);
}

#[tokio::test]
async fn a_choice_needs_a_picture() {
    let server = Server::start().await;
    let viewer = created(&server, "/whep/room?wait=1", &watching()).await;
    let answer = ask(&server, "POST", &format!("{viewer}/layer"), JSON, "{\"mediaId\":\"1\",\"rid\":\"h\"}").await;
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("nothing is shown"), "{}", answer.body);
}

#[tokio::test]
async fn one_stream_per_session_and_one_listener_per_stream() {
    let server = Server::start().await;
    let (viewer, first) = listening(&server, "[\"viewercount\", \"scte35\"]").await;
    let mut ear = Listener::open(&server, &first).await;
    assert_eq!(ear.event().await, Some(("viewercount".into(), json!({"viewercount": 1}))));
    let mut later = Listener::open(&server, &first).await;
    assert_eq!(later.hear("viewercount").await, json!({"viewercount": 1}), "who comes later is told all");
    while ear.event().await.is_some() {}
    let second = stream_of(&server, &viewer, "[]").await;
    while later.event().await.is_some() {}
    assert_eq!(ask(&server, "GET", &first, "", "").await.status, 404);
    let mut silent = Listener::open(&server, &second).await;
    assert_eq!(ask(&server, "DELETE", &first, "", "").await.status, 404);
    assert_eq!(ask(&server, "DELETE", &second, "", "").await.status, 200);
    assert_eq!(silent.event().await, None);
    assert_eq!(ask(&server, "DELETE", &second, "", "").await.status, 404);

    let path = format!("{viewer}/sse");
    assert_eq!(ask(&server, "POST", &path, "Content-Type: text/plain\r\n", "[]").await.status, 415);
    assert_eq!(ask(&server, "POST", &path, JSON, "{}").await.status, 400);
    assert_eq!(ask(&server, "POST", &path, JSON, &" ".repeat(5000)).await.status, 413);
    assert_eq!(ask(&server, "POST", "/whep/s/00/sse", JSON, "[]").await.status, 404);
    assert_eq!(ask(&server, "GET", &path, "", "").await.status, 405);
    assert_eq!(ask(&server, "OPTIONS", &path, "", "").await.status, 204);
    // Told once, it holds for those who come later.
    server.state.sessions.reconnect(None);
    let third = stream_of(&server, &viewer, "[\"reconnect\"]").await;
    assert_eq!(Listener::open(&server, &third).await.hear("reconnect").await, json!({}));
}

#[tokio::test]
async fn a_page_learns_what_the_server_can() {
    let server = Server::start().await;
    let (status, head, body) = server.http("/api/bootstrap", "").await;
    assert!(status == 200 && head.contains("content-type: application/json"), "{head}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["iceServers"], json!([{"urls": ["stun:stun.l.google.com:19302"]}]));
    for name in ["authEnabled", "recordEnabled"] {
        assert!(told[name].is_boolean(), "{body}");
    }
    assert!(told["features"]["rooms"].is_boolean() && told["features"]["records"].is_boolean(), "{body}");
}

#[tokio::test]
async fn an_administrator_closes_a_room() {
    let server = Server::with(Config { admin_token: Some("secret".into()), ..Config::defaults() }).await;
    let publisher = created(&server, "/whip/room", &publishing()).await;
    created(&server, "/whep/room?wait=1", &watching()).await;
    let path = "/api/admin/rooms/room/close";
    for headers in ["", "Authorization: Bearer wrong\r\n"] {
        let (status, _, body) = server.request("POST", path, headers, "").await;
        assert_eq!(status, 401);
        assert!(body.contains("\"error\""), "{body}");
    }
    let admin = "Authorization: Bearer secret\r\n";
    assert_eq!(server.request("POST", "/api/admin/rooms/other/close", admin, "").await.0, 404);
    assert_eq!(server.request("POST", path, admin, "").await.0, 200);
    assert_eq!(server.request("POST", path, admin, "").await.0, 404, "there is no room any more");
    assert_eq!(server.http("/debug/peers", admin).await.2, "[]");
    // The keeper of the session hears of it a moment later.
    while ask(&server, "GET", &publisher, "", "").await.status == 204 {}
    let open = Server::start().await;
    created(&open, "/whip/room", &publishing()).await;
    let (status, _, body) = open.request("POST", path, "", "").await;
    assert_eq!(status, 401, "without an admin token nobody may");
    assert!(body.contains("ADMIN_TOKEN"), "{body}");
}
