//! A served router on a free port, and a WebSocket client that speaks JSON.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod gryt;
pub mod sfu_go;
pub mod whip;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tramline::base::ids::{TrackKey, WorkerId};
use tramline::config::Config;
use tramline::crypto::cert::Certificate;
use tramline::room::control::{Control, WorkerLink};
use tramline::room::hub::{Hub, HubConfig};
use tramline::signaling::{AppState, serve};
use tramline::worker::command::Event;

/// Generous: two cores may be busy with a build.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a browser with one microphone and one camera offers, shortened to one codec each.
pub const OFFER: &str = concat!(
    "v=0\r\n",
    "o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n",
    "s=-\r\n",
    "t=0 0\r\n",
    "a=group:BUNDLE 0 1\r\n",
    "a=extmap-allow-mixed\r\n",
    "a=msid-semantic: WMS stream-a\r\n",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
    "c=IN IP4 0.0.0.0\r\n",
    "a=rtcp:9 IN IP4 0.0.0.0\r\n",
    "a=ice-ufrag:F7gI\r\n",
    "a=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
    "a=ice-options:trickle\r\n",
    "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
    "a=setup:actpass\r\n",
    "a=mid:0\r\n",
    "a=sendrecv\r\n",
    "a=msid:stream-a track-a\r\n",
    "a=rtcp-mux\r\n",
    "a=rtpmap:111 opus/48000/2\r\n",
    "a=fmtp:111 minptime=10;useinbandfec=1\r\n",
    "a=ssrc:1001 cname:c\r\n",
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
    "c=IN IP4 0.0.0.0\r\n",
    "a=rtcp:9 IN IP4 0.0.0.0\r\n",
    "a=ice-ufrag:F7gI\r\n",
    "a=ice-pwd:x9cml/YzichV2+XlhiMu8gKw\r\n",
    "a=ice-options:trickle\r\n",
    "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
    "a=setup:actpass\r\n",
    "a=mid:1\r\n",
    "a=sendrecv\r\n",
    "a=msid:stream-a track-v\r\n",
    "a=rtcp-mux\r\n",
    "a=rtcp-rsize\r\n",
    "a=rtpmap:96 VP8/90000\r\n",
    "a=rtcp-fb:96 nack pli\r\n",
    "a=ssrc:1002 cname:c\r\n",
);

/// A candidate as a browser trickles it.
pub const CANDIDATE: &str = "candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host";

/// The rooms under test, with one worker that takes every command and does nothing.
pub fn control(config: &Config) -> Arc<Control> {
    let certificate = Certificate::generate().unwrap();
    let mut hub = Hub::new(
        HubConfig {
            seats: config.max_connections,
            workers: 1,
            addresses: vec![vec!["192.0.2.1:3478".parse().unwrap()]],
            fingerprint: certificate.fingerprint_sha256(),
        },
        StdRng::seed_from_u64(1),
    );
    hub.set_room_limits(tramline::signaling::rest::limits(config));
    let (commands, taken) = crossbeam_channel::unbounded();
    // The receiver is gone with the last link, and so is the thread.
    std::thread::spawn(move || for _ in taken {});
    let control = Control::new(hub, vec![WorkerLink { commands, wake: Box::new(|| {}) }]);
    control.handle_event(WorkerId(0), Event::SelfChecked);
    Arc::new(control)
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub state: AppState,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Config::defaults()).await
    }

    pub async fn with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = AppState::new(control(&config), Arc::new(config));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, state.clone(), async move {
            let _ = stopped.await;
        }));
        Self { address, state, stop: Some(stop), task }
    }

    pub fn ask_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.task).await.expect("stops in time").unwrap().unwrap();
    }

    pub async fn connect(&self, path: &str) -> Client {
        let (socket, _) = connect_async(format!("ws://{}{path}", self.address)).await.unwrap();
        Client(socket)
    }

    /// The first media of a track came, as the debug view shows it. Its id is made of its key.
    pub fn is_live(&self, track: &Value) {
        let numbers = track["id"].as_str().unwrap().split('-').skip(1).map(|number| number.parse().unwrap());
        let numbers: Vec<u32> = numbers.collect();
        let track = TrackKey { index: numbers[0], epoch: numbers[1] };
        self.state.control.handle_event(WorkerId(0), Event::TrackLive { track });
    }

    /// Status, headers in lower case and body of a GET.
    pub async fn http(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.request("GET", path, headers, "").await
    }

    /// The same of any request.
    pub async fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who refuses early does not read all of it.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {answer}"));
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }
}

/// One WebSocket.
pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.0.send(Message::Text(text.into().into())).await.unwrap();
    }

    /// The next message.
    pub async fn hear(&mut self) -> Value {
        match self.frame().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// The next message of that name; others before it are passed over.
    pub async fn hear_named(&mut self, name: &str) -> Value {
        loop {
            let message = self.hear().await;
            if message["event"] == name || message["type"] == name {
                return message;
            }
        }
    }

    /// Code and reason of the close frame; messages before it are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.frame().await {
                let frame = frame.expect("never a bare close");
                return (u16::from(frame.code), frame.reason.to_string());
            }
        }
    }

    pub async fn close(mut self) {
        let _ = self.0.close(None).await;
    }

    /// Code with which the server answers our close.
    pub async fn close_with(&mut self, code: u16) {
        use tokio_tungstenite::tungstenite::protocol::CloseFrame;
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.0.close(Some(frame)).await.unwrap();
    }

    async fn frame(&mut self) -> Message {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an answer in time");
            match frame.expect("the connection is open").expect("a frame") {
                Message::Ping(_) | Message::Pong(_) => {}
                other => return other,
            }
        }
    }
}

/// `data` of Gryt's real dialect: always text, here JSON.
pub fn inner(message: &Value) -> Value {
    serde_json::from_str(message["data"].as_str().expect("data is text")).expect("JSON in data")
}

/// A message of Gryt's real dialect.
pub fn gryt(event: &str, data: Value) -> Value {
    json!({"event": event, "data": data.to_string()})
}
