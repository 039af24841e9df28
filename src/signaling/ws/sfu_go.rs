//! SFU-Go: `/ws?userId=&name=`, the client offers, also when we ask it to; peers have ids of their own.
//!
//! Client: `join` `leave` `offer` `answer` `ice-candidate` `layer-switch` `subscribe` `unsubscribe` `set-bandwidth-limit`
//! `is-allow-renegotiation` `ice-restart-request` `ping` `pong`. Server: `join` `room-state` `peer-joined` `peer-left`
//! `answer` `offer` `ice-candidate` `renegotiate` `allow-renegotiation` `ice-restart-offer` `track-published`
//! `track-added` `track-removed` `layer-available` `subscription-ack` `dominant-speaker` `quality-stats`
//! `network-condition` `set-bandwidth-limit` `ping` `pong` `error`. A client whose socket is gone may come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::super::AppState;
use super::super::auth::grant::Role;
use super::super::auth::shown::Shown;
use super::super::limits::TokenBucket;
use super::envelope::{self, Envelope, Fields};
use super::gryt_documented::sdp;
use super::seat::{self, Failure, Seat, Words};
use super::sfu_go_beat::Beat;
use super::sfu_go_frame::{bare, candidates, frame, id};
pub use super::sfu_go_frame::{error, is_id};
use super::sfu_go_tracks::Tracks;
use super::socket::{Ending, GOING_AWAY, Socket};
use super::{CANDIDATE_MAX, ID_MAX, NAME_MAX, TOKEN_MAX};
use crate::config::Config;
use crate::room::api::{
    CloseReason, Dialect, JoinError, JoinRequest, Joined, MediaState, Notice, PeerInfo, StreamNames, TrackName,
};
use crate::room::showing::{LayerWish, Picture};
use crate::room::stay::Pass;
use crate::runtime::clock;
use crate::session::negotiate::{Policy, Role as MediaRole};

/// Longest frame.
pub const MESSAGE_MAX: usize = 512 << 10;
/// Between WebSocket pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(54);
/// Silence that ends the connection.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bits per second; nobody has a wider line.
const BANDWIDTH_MAX: f64 = 1e12;

const POLICY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: MediaRole::Participant,
};

/// Who comes, by the query.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `userId`.
    pub user_id: String,
    /// `name`.
    pub name: Option<String>,
}

/// Serves a connection from its first message on.
pub async fn run(mut socket: Socket, state: AppState, caller: Caller, first: Utf8Bytes) {
    let mut bucket = bucket(&state.config);
    let mut text = first;
    let ending = loop {
        let sent = match enter(&state, &caller, &socket.shown, &text, &mut bucket).await {
            Ok(Some(entry)) => {
                let seat = Seat { control: state.control.clone(), peer: entry.joined.peer };
                let (words, messages) = SfuGo::new(&state, bucket.clone(), &seat, &entry);
                match messages.into_iter().try_for_each(|message| socket.send(message)) {
                    Ok(()) => return seat::serve(socket, seat, entry.joined.into_notices(), words).await,
                    Err(ending) => Err(ending),
                }
            }
            Ok(None) => Ok(()),
            Err(Failure::Error(code, sentence)) => socket.send(error(code, &sentence)),
            Err(Failure::End(ending)) => Err(ending),
        };
        if let Err(ending) = sent {
            break ending;
        }
        match socket.first(&state).await {
            Ok(next) => text = next,
            Err(ending) => break ending,
        }
    };
    if let Some((code, sentence)) = &ending.error {
        let _ = socket.send(error(code, sentence));
    }
    socket.close(ending).await;
}

fn bucket(config: &Config) -> TokenBucket {
    TokenBucket::new(clock::now(), config.dialects.messages_per_s, config.dialects.messages_burst)
}

fn take(bucket: &mut TokenBucket) -> Result<(), Failure> {
    let sentence = || "too many messages; this one was dropped".to_owned();
    if bucket.take(clock::now()) { Ok(()) } else { Err(Failure::Error("rate-limited", sentence())) }
}

/// A successful join.
struct Entry {
    joined: Joined,
    room: String,
    pass: Option<Pass>,
    is_resumed: bool,
}

/// `None` for what needs no answer.
async fn enter(
    state: &AppState,
    caller: &Caller,
    shown: &Shown,
    text: &str,
    bucket: &mut TokenBucket,
) -> Result<Option<Entry>, Failure> {
    take(bucket)?;
    let Envelope { event, data } = Envelope::parse_typed(text).map_err(Failure::bad_message)?;
    match event.as_str() {
        "join" => join(state, caller, shown, &data).await.map(Some),
        "ping" | "pong" | "leave" => Ok(None),
        _ => Err(Failure::Error("join-first", format!("join a room before {event}"))),
    }
}

async fn join(state: &AppState, caller: &Caller, shown: &Shown, data: &Value) -> Result<Entry, Failure> {
    let fields = Fields::of(data).map_err(Failure::bad_message)?;
    let text = |name, max| fields.text(&[name], max).map_err(Failure::bad_message);
    let room = id(fields, "roomId", None)?;
    let user_id = id(fields, "userId", Some(&caller.user_id))?;
    let name = text("name", NAME_MAX)?.or(caller.name.as_deref()).unwrap_or(user_id);
    let token = text("token", TOKEN_MAX)?;
    let shown = Shown::token(token).or(shown);
    let grant = state.admit(&shown, room, Some(user_id), Role::Participate).await?;
    grant.user_id(Some(user_id))?;
    if let (Some(session_id), Some(session_token)) = (text("sessionId", ID_MAX)?, text("sessionToken", ID_MAX)?) {
        let pass = Pass { session_id: session_id.to_owned(), session_token: session_token.to_owned() };
        if let Some((joined, pass)) = state.control.resume(room, user_id, &pass) {
            return Ok(Entry { joined, room: room.to_owned(), pass: Some(pass), is_resumed: true });
        }
    }
    let request = JoinRequest {
        room: room.to_owned(),
        user_id: Some(user_id.to_owned()),
        display_name: name.chars().take(NAME_MAX).collect(),
        dialect: Dialect::SfuGo,
        policy: POLICY,
        stream_names: StreamNames::PeerIdAndReceiver,
        capabilities: grant.capabilities,
    };
    let joined = state.control.join(request).map_err(|error| match error {
        JoinError::RoomFull { .. } => Failure::Error("room-full", error.to_string()),
        JoinError::TooManyRooms(_) => Failure::Error("too-many-rooms", error.to_string()),
        _ => Failure::End(seat::refused(&error)),
    })?;
    let settings = &state.config.dialects;
    if !settings.auto_subscribe {
        state.control.choose_only(joined.peer);
    }
    let pass = state.control.keep(joined.peer, settings.session_ttl);
    Ok(Entry { joined, room: room.to_owned(), pass, is_resumed: false })
}

struct SfuGo {
    me: String,
    room: String,
    bucket: TokenBucket,
    beat: Beat,
    tracks: Tracks,
    speaker: String,
    /// Our next offer restarts ICE.
    restarts: bool,
    has_trickled: bool,
    has_left: bool,
}

impl SfuGo {
    /// With what it says first.
    fn new(state: &AppState, bucket: TokenBucket, seat: &Seat, entry: &Entry) -> (Self, Vec<String>) {
        let Entry { joined, room, pass, is_resumed } = entry;
        let mut welcome = json!({"success": true, "peerId": joined.wire_id, "roomId": room, "resumed": is_resumed});
        welcome["iceServers"] = json!(state.ice_servers(Some(&joined.wire_id)));
        if let Some(pass) = pass {
            welcome["sessionId"] = json!(pass.session_id);
            welcome["sessionToken"] = json!(pass.session_token);
        }
        let person =
            |info: &Arc<PeerInfo>| json!({"peerId": info.wire_id, "userId": info.user_id, "name": info.display_name});
        let peers: Vec<Value> = joined.others.iter().map(person).collect();
        let mut messages = vec![frame("join", &welcome), frame("room-state", &json!({"peers": peers}))];
        let mut tracks = Tracks::new(joined.wire_id.clone());
        messages.extend(seat.control.published(seat.peer).iter().flat_map(|track| tracks.publish(track)));
        let words = Self {
            me: joined.wire_id.clone(),
            room: room.clone(),
            bucket,
            beat: Beat::new(clock::now(), &state.config.dialects),
            tracks,
            speaker: String::new(),
            restarts: false,
            has_trickled: false,
            has_left: false,
        };
        (words, messages)
    }

    fn description(&self, kind: &str, sdp: &str) -> Value {
        json!({"sdp": sdp, "type": kind, "peerId": self.me})
    }

    fn offered(&mut self, seat: &Seat, data: &Value) -> Result<Vec<String>, Failure> {
        self.beat.forget_wish();
        let answer = seat.offer(&sdp(data)?)?;
        let mut messages = vec![frame("answer", &self.description("answer", &answer))];
        if !std::mem::replace(&mut self.has_trickled, true) {
            messages.extend(candidates(&answer, &self.me));
        }
        Ok(messages)
    }

    fn subscribed(&self, seat: &Seat, data: &Value, takes: bool) -> Result<Vec<String>, Failure> {
        let fields = Fields::of(data).map_err(Failure::bad_message)?;
        let text = |name| fields.text(&[name], ID_MAX).map_err(Failure::bad_message);
        let (key, shown, name) = match (text("trackId")?, text("peerId")?) {
            (Some(track), _) => ("trackId", track, TrackName::Track(self.tracks.meant(track).to_owned())),
            (None, Some(peer)) => ("peerId", peer, TrackName::Stream(peer.to_owned())),
            (None, None) => return Err(Failure::bad_message("trackId is missing")),
        };
        seat.control.choose(seat.peer, &name, takes)?;
        Ok(vec![frame("subscription-ack", &json!({key: shown, "subscribed": takes}))])
    }

    fn layer_switched(&self, seat: &Seat, data: &Value) -> Result<Vec<String>, Failure> {
        let fields = Fields::of(data).map_err(Failure::bad_message)?;
        let track = fields.required(&["trackId"], ID_MAX).map_err(Failure::bad_message)?;
        let target = fields.text(&["targetRid"], ID_MAX).map_err(Failure::bad_message)?;
        // `auto` leaves it to us again.
        let rid = target.filter(|target| *target != "auto").map(str::to_owned);
        let wish = LayerWish { rid, ..LayerWish::default() };
        seat.control.choose_layer(seat.peer, Picture::Track(self.tracks.meant(track)), &wish)?;
        Ok(Vec::new())
    }

    fn event(&self, kind: &str, info: &PeerInfo) -> String {
        let PeerInfo { wire_id, user_id, display_name, .. } = info;
        frame(kind, &json!({"peerId": wire_id, "userId": user_id, "name": display_name, "roomId": self.room}))
    }

    fn spoke(&mut self, new: Option<Arc<PeerInfo>>) -> String {
        let new = new.map(|info| info.wire_id.clone()).unwrap_or_default();
        let old = std::mem::replace(&mut self.speaker, new);
        frame("dominant-speaker", &json!({"oldPeerId": old, "newPeerId": self.speaker}))
    }

    fn offer(&mut self, sdp: &str) -> String {
        self.beat.forget_wish();
        let kind = if std::mem::take(&mut self.restarts) { "ice-restart-offer" } else { "offer" };
        frame(kind, &self.description("offer", sdp))
    }
}

impl Words for SfuGo {
    fn heard(&mut self, seat: &Seat, text: &str) -> Result<Vec<String>, Failure> {
        take(&mut self.bucket)?;
        let Envelope { event, data } = Envelope::parse_typed(text).map_err(Failure::bad_message)?;
        match event.as_str() {
            "offer" => return self.offered(seat, &data),
            "answer" => seat.answer(&sdp(&data)?)?,
            "ice-candidate" => {
                let line = envelope::candidate(&data, CANDIDATE_MAX).map_err(Failure::bad_message)?;
                line.map_or(Ok(()), |line| seat.control.candidate(seat.peer, line))?;
            }
            "layer-switch" => return self.layer_switched(seat, &data),
            "subscribe" => return self.subscribed(seat, &data, true),
            "unsubscribe" => return self.subscribed(seat, &data, false),
            "set-bandwidth-limit" => return limit(seat, &data),
            "is-allow-renegotiation" => {
                let allowed = seat.control.may_renegotiate(seat.peer);
                return Ok(vec![frame("allow-renegotiation", &json!({"allowed": allowed}))]);
            }
            "ice-restart-request" => {
                seat.control.restart_ice(seat.peer)?;
                self.restarts = true;
            }
            "ping" => return Ok(vec![bare("pong")]),
            "leave" => {
                self.has_left = true;
                return Err(Failure::End(Ending::normal()));
            }
            "join" => {
                return Err(Failure::Error("already-joined", "this connection has joined a room already".to_owned()));
            }
            // Also `pong`: that it came is enough.
            other => tracing::trace!(peer = %seat.peer, kind = other, "message without effect"),
        }
        Ok(Vec::new())
    }

    fn told(&mut self, seat: &Seat, notice: Notice) -> Vec<String> {
        match notice {
            Notice::Offer { sdp } => vec![self.offer(&sdp)],
            Notice::NeedsOffer { track_count } => {
                self.beat.wish_for_offer(clock::now(), track_count);
                Vec::new()
            }
            Notice::Tracks(tracks) => self.tracks.receive(&tracks),
            Notice::Published(track) => self.tracks.publish(&track),
            Notice::Unpublished(track_id) => self.tracks.end(&track_id),
            Notice::PeerJoined(info) => vec![self.event("peer-joined", &info)],
            Notice::PeerLeft(info) => vec![self.event("peer-left", &info)],
            Notice::Speaker(info) => vec![self.spoke(info)],
            Notice::Media(MediaState::Disconnected) => {
                // One that is gone meanwhile, or has to come with a new connection, needs none.
                self.restarts = seat.control.restart_ice(seat.peer).is_ok();
                vec![frame("network-condition", &json!({"condition": "poor"}))]
            }
            // There is no word for the rest.
            _ => Vec::new(),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.beat.next_timeout())
    }

    fn handle_timeout(&mut self, now: Instant, seat: &Seat) -> Vec<String> {
        self.beat.handle_timeout(now, seat, &self.me)
    }

    /// Whose page is closed or who says goodbye does not.
    fn may_return(&self, ending: &Ending) -> bool {
        !self.has_left && ending.code != GOING_AWAY
    }

    fn error(&self, code: &'static str, sentence: &str) -> String {
        error(code, sentence)
    }

    fn closed(&self, _reason: CloseReason) -> Option<String> {
        None
    }
}

/// `set-bandwidth-limit`: bits per second, 0 for none.
fn limit(seat: &Seat, data: &Value) -> Result<Vec<String>, Failure> {
    let value = Fields::of(data).map_err(Failure::bad_message)?.value(&["bandwidth"]).and_then(Value::as_f64);
    let bandwidth = value.filter(|bps| (0.0..=BANDWIDTH_MAX).contains(bps));
    let bandwidth = bandwidth.ok_or_else(|| Failure::bad_message("bandwidth must be a number of bits per second"))?;
    let bps = bandwidth as u64;
    seat.control.limit_downlink(seat.peer, Some(bps).filter(|bps| *bps > 0))?;
    Ok(vec![frame("set-bandwidth-limit", &json!({"success": true, "bandwidth": bps}))])
}
