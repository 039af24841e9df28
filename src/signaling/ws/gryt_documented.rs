//! Gryt's protocol as its documents tell it: the client offers. The room page speaks it, with our additions.
//!
//! Client: `join` `leave` `offer` `answer` `ice-candidate`, ours: `media-state` `renegotiate` `video_demand` `set_layer`
//! `quality` `listen`. Server: `joined` `user-joined` `user-left` `offer` `answer`, ours: `user-updated` `tracks` `speaker` `media`
//! `video_wanted` `quality` (when asked for) `renegotiate` `error` `closed`. `data` is an object; text with JSON in it is read too.

use serde_json::{Value, json};

use super::super::AppState;
use super::super::auth::grant::Role;
use super::super::auth::shown::Shown;
use super::envelope::{self, Envelope, Fields};
use super::seat::{self, Failure, Seat, Words};
use super::socket::{Ending, SDP_MAX, Socket};
use super::{CANDIDATE_MAX, ID_MAX, NAME_MAX, ROOM_MAX, wishes};
use crate::room::api::{
    CloseReason, Dialect, JoinRequest, Joined, Listening, MediaState, Notice, PeerInfo, PeerUpdate, Source,
    StreamNames, TrackInfo, TrackQuality,
};
use crate::room::layer_view;
use crate::session::negotiate::{Policy, Role as MediaRole};

/// M-lines a client may name in one `media-state`.
const SOURCES_MAX: usize = 64;
/// People whom a client may name in one list of `listen`: more than anybody could tell apart.
const LISTENING_MAX: usize = 256;

const POLICY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: MediaRole::Participant,
};

/// Serves a client whose first message was `join`.
pub async fn run(mut socket: Socket, state: AppState, first: Envelope) {
    let mut envelope = Ok(first);
    let ending = loop {
        let joined = match envelope {
            Ok(envelope) => join(&state, &socket.shown, &envelope).await,
            Err(sentence) => Err(Failure::bad_message(sentence)),
        };
        match joined {
            Ok((joined, welcome)) => {
                let seat = Seat { control: state.control.clone(), peer: joined.peer };
                match socket.send(welcome) {
                    Ok(()) => return seat::serve(socket, seat, joined.into_notices(), Documented).await,
                    Err(ending) => break ending,
                }
            }
            Err(Failure::Error(code, sentence)) => {
                if let Err(ending) = socket.send(error(code, &sentence)) {
                    break ending;
                }
            }
            Err(Failure::End(ending)) => break ending,
        }
        match socket.first(&state).await {
            Ok(text) => envelope = Envelope::parse(&text),
            Err(ending) => break ending,
        }
    };
    if let Some((code, sentence)) = &ending.error {
        let _ = socket.send(error(code, sentence));
    }
    socket.close(ending).await;
}

async fn join(state: &AppState, shown: &Shown, envelope: &Envelope) -> Result<(Joined, String), Failure> {
    if envelope.event != "join" {
        return Err(Failure::Error("join-first", format!("join a room before {}", envelope.event)));
    }
    let bad = |sentence: String| Failure::Error("bad-join", sentence);
    let fields = Fields::of(&envelope.data).map_err(bad)?;
    let room = fields.required(&["roomId", "room_id", "room"], ROOM_MAX).map_err(bad)?;
    let user_id = fields.text(&["userId", "user_id"], ID_MAX).map_err(bad)?;
    let name = fields.text(&["displayName", "display_name", "name"], NAME_MAX).map_err(bad)?;
    let token = fields.text(&["token", "user_token"], super::TOKEN_MAX).map_err(bad)?;
    let grant = state.admit(&Shown::token(token).or(shown), room, user_id, Role::Participate).await?;
    let user_id = grant.user_id(user_id)?;
    let request = JoinRequest {
        room: room.to_owned(),
        display_name: name.or(user_id.as_deref()).unwrap_or_default().to_owned(),
        user_id: user_id.clone(),
        dialect: Dialect::GrytDocumented,
        policy: POLICY,
        stream_names: StreamNames::Publisher,
        capabilities: grant.capabilities,
    };
    let joined = state.control.join(request).map_err(|error| Failure::End(seat::refused(&error)))?;
    let peers: Vec<Value> = joined.others.iter().map(|info| person(info)).collect();
    let user_id = user_id.unwrap_or_else(|| joined.wire_id.clone());
    let ice_servers = state.ice_servers(Some(&user_id));
    let welcome = json!({"roomId": room, "userId": user_id, "peers": peers, "iceServers": ice_servers});
    let welcome = envelope::object("joined", welcome);
    Ok((joined, welcome))
}

struct Documented;

impl Words for Documented {
    fn heard(&mut self, seat: &Seat, text: &str) -> Result<Vec<String>, Failure> {
        let Envelope { event, data } = Envelope::parse(text).map_err(Failure::bad_message)?;
        match event.as_str() {
            "offer" => {
                let answer = seat.offer(&sdp(&data)?)?;
                Ok(vec![envelope::object("answer", json!({"type": "answer", "sdp": answer}))])
            }
            "answer" => seat.answer(&sdp(&data)?).map(|()| Vec::new()),
            "ice-candidate" | "candidate" => {
                let line = envelope::candidate(&data, CANDIDATE_MAX).map_err(Failure::bad_message)?;
                line.map_or(Ok(()), |line| seat.control.candidate(seat.peer, line))?;
                Ok(Vec::new())
            }
            "media-state" => {
                seat.control.update(seat.peer, update(&data).map_err(Failure::bad_message)?)?;
                Ok(Vec::new())
            }
            "listen" => {
                seat.control.listen(seat.peer, listening(&data).map_err(Failure::bad_message)?)?;
                Ok(Vec::new())
            }
            "renegotiate" => {
                seat.control.renegotiate(seat.peer)?;
                Ok(Vec::new())
            }
            "video_demand" => wishes::video_demand(seat, &data).map(|()| Vec::new()),
            "set_layer" => wishes::set_layer(seat, &data).map(|()| Vec::new()),
            "quality" => {
                let is_on = Fields::of(&data).and_then(|fields| fields.flag(&["on"])).map_err(Failure::bad_message)?;
                seat.control.watch_quality(seat.peer, is_on.unwrap_or(true))?;
                Ok(Vec::new())
            }
            "leave" => Err(Failure::End(Ending::normal())),
            "join" => Err(Failure::Error("already-joined", "this connection has joined a room already".to_owned())),
            "keep_alive" | "ping" => Ok(Vec::new()),
            _ => Err(Failure::Error("unknown-event", format!("there is no event {}", event.escape_default()))),
        }
    }

    fn told(&mut self, _seat: &Seat, notice: Notice) -> Vec<String> {
        spoken(notice).into_iter().collect()
    }

    fn error(&self, code: &'static str, sentence: &str) -> String {
        error(code, sentence)
    }

    fn closed(&self, reason: CloseReason) -> Option<String> {
        let word = match reason {
            CloseReason::Evicted => "evicted",
            CloseReason::Kicked => "kicked",
            CloseReason::MediaFailed => "media-failed",
            CloseReason::TooSlow => "too-slow",
            CloseReason::ServerStopping => "server-stopping",
        };
        Some(envelope::object("closed", json!({"reason": word})))
    }
}

/// A notice in the words of the dialect, where it has some.
fn spoken(notice: Notice) -> Option<String> {
    let (event, data) = match notice {
        Notice::Offer { sdp } => ("offer", json!({"type": "offer", "sdp": sdp})),
        Notice::NeedsOffer { track_count } => ("renegotiate", json!({"trackCount": track_count})),
        Notice::Tracks(tracks) => ("tracks", json!({"tracks": tracks.iter().map(track).collect::<Vec<_>>()})),
        Notice::PeerJoined(info) => ("user-joined", person(&info)),
        Notice::PeerUpdated(info) => ("user-updated", person(&info)),
        Notice::PeerLeft(info) => ("user-left", json!({"userId": info.user_id})),
        Notice::Speaker(info) => ("speaker", json!({"userId": info.map(|info| info.user_id.clone())})),
        Notice::Media(MediaState::Connected) => ("media", json!({"state": "connected"})),
        Notice::Media(MediaState::Disconnected) => ("media", json!({"state": "disconnected"})),
        Notice::Quality(tracks) => ("quality", json!({"tracks": tracks.iter().map(quality).collect::<Vec<_>>()})),
        Notice::VideoWanted(wanted) => ("video_wanted", wishes::video_wanted(&wanted)),
        Notice::Closed(_) | Notice::Published(_) | Notice::Unpublished(_) => return None,
    };
    Some(envelope::object(event, data))
}

/// The `error` event.
pub fn error(code: &str, sentence: &str) -> String {
    envelope::object("error", json!({"code": code, "message": sentence}))
}

/// The description in an offer or answer: a field, or the whole data.
pub fn sdp(data: &Value) -> Result<String, Failure> {
    if let Value::String(text) = data
        && text.starts_with("v=0")
    {
        return Ok(text.clone());
    }
    let fields = Fields::of(data).map_err(Failure::bad_message)?;
    match fields.text(&["sdp"], SDP_MAX) {
        Ok(Some(sdp)) => Ok(sdp.to_owned()),
        Ok(None) => Err(Failure::bad_message("sdp is missing")),
        Err(sentence) if sentence.contains("too long") => Err(Failure::Error("sdp-too-long", sentence)),
        Err(sentence) => Err(Failure::bad_message(sentence)),
    }
}

fn person(info: &PeerInfo) -> Value {
    json!({
        "userId": info.user_id,
        "displayName": info.display_name,
        "audioMuted": info.audio_muted,
        "videoMuted": info.video_muted,
    })
}

fn track(info: &TrackInfo) -> Value {
    json!({
        "mid": info.mid,
        "kind": info.kind.as_str(),
        "source": source_name(info.source),
        "userId": info.user_id,
        "streamId": info.stream_id,
        "trackId": info.track_id,
    })
}

fn quality(track: &TrackQuality) -> Value {
    json!({
        "mid": track.mid,
        "trackId": track.track_id,
        "state": track.state,
        "reason": track.reason,
        "sentence": track.sentence,
        "layer": track.layer.map(layer_view),
    })
}

fn update(data: &Value) -> Result<PeerUpdate, String> {
    let fields = Fields::of(data)?;
    let mut sources = Vec::new();
    match fields.value(&["sources"]) {
        None => {}
        Some(Value::Object(map)) if map.len() <= SOURCES_MAX => {
            for (mid, word) in map {
                let source = word
                    .as_str()
                    .and_then(source)
                    .ok_or_else(|| "a source must be camera, microphone, screen or screen-audio".to_owned())?;
                sources.push((mid.clone(), source));
            }
        }
        Some(_) => return Err(format!("sources must be an object of at most {SOURCES_MAX} m-lines")),
    }
    Ok(PeerUpdate {
        audio_muted: fields.flag(&["audioMuted", "audio_muted"])?,
        video_muted: fields.flag(&["videoMuted", "video_muted"])?,
        display_name: fields.text(&["displayName", "display_name"], NAME_MAX)?.map(str::to_owned),
        sources,
    })
}

/// Lists of user ids: `pinned`, who is heard however quiet, and `muted`, who is not heard. One left out stays as it is.
fn listening(data: &Value) -> Result<Listening, String> {
    let fields = Fields::of(data)?;
    let pinned_user_ids = fields.texts(&["pinned"], LISTENING_MAX, ID_MAX)?;
    Ok(Listening { pinned_user_ids, muted_user_ids: fields.texts(&["muted"], LISTENING_MAX, ID_MAX)? })
}

fn source(word: &str) -> Option<Source> {
    match word {
        "camera" => Some(Source::Camera),
        "microphone" => Some(Source::Microphone),
        "screen" => Some(Source::Screen),
        "screen-audio" => Some(Source::ScreenAudio),
        _ => None,
    }
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Microphone => "microphone",
        Source::Camera => "camera",
        Source::Screen => "screen",
        Source::ScreenAudio => "screen-audio",
        Source::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_state_is_read_and_checked() {
        let read = update(&json!({"audioMuted": true, "sources": {"1": "screen"}})).unwrap();
        assert_eq!(read.audio_muted, Some(true));
        assert_eq!(read.sources, [("1".to_owned(), Source::Screen)]);
        assert!(update(&json!({"audioMuted": "yes"})).is_err());
        assert!(update(&json!({"sources": {"1": "tv"}})).is_err());
        assert!(update(&json!({"sources": []})).is_err());
    }

    #[test]
    fn whom_to_hear_is_read_and_checked() {
        let read = listening(&json!({"pinned": ["ann"]})).unwrap();
        assert_eq!(read, Listening { pinned_user_ids: Some(vec!["ann".into()]), muted_user_ids: None });
        assert_eq!(listening(&json!({"muted": []})).unwrap().muted_user_ids, Some(Vec::new()));
        assert!(listening(&json!({"muted": "ann"})).is_err());
        assert!(listening(&json!({"pinned": vec!["x"; LISTENING_MAX + 1]})).is_err());
    }

    #[test]
    fn a_description_comes_as_object_or_text() {
        assert_eq!(sdp(&json!({"type": "offer", "sdp": "v=0\r\n"})), Ok("v=0\r\n".into()));
        assert_eq!(sdp(&json!("v=0\r\n")), Ok("v=0\r\n".into()));
        assert!(sdp(&json!({"type": "offer"})).is_err());
        assert!(sdp(&json!({"sdp": 1})).is_err());
        let long = "v".repeat(SDP_MAX + 1);
        assert!(matches!(sdp(&json!({"sdp": long})), Err(Failure::Error("sdp-too-long", _))));
    }

    #[test]
    fn a_track_is_told_with_all_its_names() {
        let info = TrackInfo {
            mid: "3".into(),
            kind: crate::base::format::MediaKind::Video,
            source: Source::ScreenAudio,
            wire_id: "w".into(),
            user_id: "u".into(),
            stream_id: "s".into(),
            track_id: "t".into(),
        };
        let text = spoken(Notice::Tracks([info].into())).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        let one = json!({"mid": "3", "kind": "video", "source": "screen-audio", "userId": "u", "streamId": "s", "trackId": "t"});
        assert_eq!(told, json!({"event": "tracks", "data": {"tracks": [one]}}));
    }

    #[test]
    fn silence_is_told_as_null() {
        assert_eq!(spoken(Notice::Speaker(None)).unwrap(), r#"{"data":{"userId":null},"event":"speaker"}"#);
    }
}
