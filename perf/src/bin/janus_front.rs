//! WHIP and WHEP in front of Janus' videoroom, so that the same peers drive it as drive the others.
//!
//! Publishing is an offer handed on. Receiving goes the other way round in Janus: it offers and the client answers. Both
//! sides' offers are at hand then, so each gets an answer made of the other's transport: nothing is terminated here, and
//! media goes straight to Janus. Payload types pass unchanged: publishers and subscribers must use the same ones.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

#[path = "shared/front.rs"]
mod front;
#[path = "shared/swap.rs"]
mod swap;

use front::{Answer, Call, SessionId};

/// Janus forgets sessions that are silent for a minute.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// Longest wait for one message.
const PATIENCE: Duration = Duration::from_secs(10);
/// "No such room" is no error when it is to be made; "room exists" is none either.
const ROOM_EXISTS: u64 = 427;

/// WHIP and WHEP in front of Janus' videoroom
#[derive(Parser)]
struct Args {
    /// Address of WHIP and WHEP
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Janus' WebSocket API
    #[arg(long, default_value = "ws://127.0.0.1:8188")]
    janus: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut janus = Janus::connect(&args.janus)?;
    let (calls, inbox) = channel();
    front::start(args.http, move |call| {
        // Without this thread there is no process.
        let _ = calls.send(call);
    })?;
    loop {
        // Whoever asked may have gone.
        match inbox.recv_timeout(KEEPALIVE_EVERY) {
            Ok(Call::Publish(room, offer, reply)) => drop(reply.send(janus.publish(&room, &offer))),
            Ok(Call::Subscribe(room, offer, reply)) => drop(reply.send(janus.subscribe(&room, &offer))),
            Ok(Call::Leave(handle)) => drop(janus.leave(handle)),
            Err(RecvTimeoutError::Timeout) => drop(janus.ask(json!({"janus": "keepalive"}))?),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// One session of Janus with a handle for each client; a handle is the client's session to the front.
struct Janus {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: Option<u64>,
    transaction: u64,
    /// Publishers by room, as Janus names them.
    feeds: HashMap<String, Vec<(SessionId, Value)>>,
}

impl Janus {
    fn connect(url: &str) -> Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("janus-protocol"));
        let (mut socket, _) = tungstenite::connect(request).with_context(|| format!("connecting to {url}"))?;
        let MaybeTlsStream::Plain(stream) = socket.get_mut() else { bail!("only plain ws:// is spoken") };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut janus = Self { socket, session: None, transaction: 0, feeds: HashMap::new() };
        let created = janus.ask(json!({"janus": "create"}))?;
        janus.session = created.pointer("/data/id").and_then(Value::as_u64);
        ensure!(janus.session.is_some(), "Janus gives no session: {created}");
        Ok(janus)
    }

    fn publish(&mut self, room: &str, offer: &str) -> Answer {
        self.open_room(room)?;
        let handle = self.attach()?;
        let joined = self.tell(handle, json!({"request": "join", "ptype": "publisher", "room": room}), None)?;
        let feed = joined.pointer("/plugindata/data/id").context("Janus gives the publisher no id")?.clone();
        let jsep = json!({"type": "offer", "sdp": offer});
        let answer = self.tell(handle, json!({"request": "publish"}), Some(jsep))?;
        self.feeds.entry(room.to_owned()).or_default().push((handle, feed));
        Ok((handle, sdp_of(&answer)?))
    }

    fn subscribe(&mut self, room: &str, offer: &str) -> Answer {
        let streams: Vec<Value> =
            self.feeds.get(room).into_iter().flatten().map(|(_, feed)| json!({"feed": feed})).collect();
        ensure!(!streams.is_empty(), "nobody publishes in {room}");
        let handle = self.attach()?;
        let join = json!({"request": "join", "ptype": "subscriber", "room": room, "streams": streams});
        let theirs = sdp_of(&self.tell(handle, join, None)?)?;
        let answers = swap::answers(offer, &theirs)?;
        let jsep = json!({"type": "answer", "sdp": answers.to_sender});
        self.tell(handle, json!({"request": "start"}), Some(jsep))?;
        Ok((handle, answers.to_receiver))
    }

    fn leave(&mut self, handle: SessionId) -> Result<Value> {
        self.feeds.values_mut().for_each(|feeds| feeds.retain(|(of, _)| *of != handle));
        self.ask(json!({"janus": "detach", "handle_id": handle}))
    }

    /// Fast settings: no limit of bitrate, nothing periodical, no extension but what the offers bring.
    fn open_room(&mut self, room: &str) -> Result<()> {
        if self.feeds.contains_key(room) {
            return Ok(());
        }
        let handle = self.attach()?;
        let create = json!({
            "request": "create", "room": room, "publishers": 1000, "bitrate": 0, "fir_freq": 0,
            "audiocodec": "opus", "videocodec": "vp8", "record": false, "notify_joining": false,
            "audiolevel_event": false, "transport_wide_cc_ext": false,
        });
        let made = self.tell(handle, create, None);
        self.ask(json!({"janus": "detach", "handle_id": handle}))?;
        match made {
            Err(error) if !error.to_string().contains(&ROOM_EXISTS.to_string()) => Err(error),
            _ => Ok(()),
        }
    }

    fn attach(&mut self) -> Result<u64> {
        let attached = self.ask(json!({"janus": "attach", "plugin": "janus.plugin.videoroom"}))?;
        attached.pointer("/data/id").and_then(Value::as_u64).context("Janus gives no handle")
    }

    /// A message to the plugin and what it says to it.
    fn tell(&mut self, handle: u64, body: Value, jsep: Option<Value>) -> Result<Value> {
        let mut message = json!({"janus": "message", "handle_id": handle, "body": body});
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        let answer = self.ask(message)?;
        let data = answer.pointer("/plugindata/data");
        if let Some(code) = data.and_then(|data| data.get("error_code")) {
            bail!(
                "the videoroom refuses ({code}): {}",
                data.and_then(|data| data.get("error")).unwrap_or(&Value::Null)
            );
        }
        Ok(answer)
    }

    /// Sends a request and waits for what belongs to it; a bare acknowledgement is passed over unless it is all.
    fn ask(&mut self, mut request: Value) -> Result<Value> {
        self.transaction += 1;
        let transaction = self.transaction.to_string();
        let is_keepalive = request["janus"] == "keepalive";
        request["transaction"] = transaction.as_str().into();
        if let Some(session) = self.session {
            request["session_id"] = session.into();
        }
        self.socket.send(Message::text(request.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read().context("waiting for Janus")? else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message["transaction"] != transaction.as_str() {
                continue;
            }
            match message["janus"].as_str() {
                Some("ack") if !is_keepalive => {}
                Some("error") => bail!("Janus refuses: {}", message["error"]),
                _ => return Ok(message),
            }
        }
    }
}

fn sdp_of(message: &Value) -> Result<String> {
    let sdp = message.pointer("/jsep/sdp").and_then(Value::as_str);
    Ok(sdp.with_context(|| format!("Janus' message has no SDP: {message}"))?.to_owned())
}
