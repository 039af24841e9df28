//! Wishes for larger, smaller or no pictures, as Gryt's newer clients and our page write them, and what publishers hear of
//! them.

use serde_json::{Value, json};

use super::ID_MAX;
use super::envelope::Fields;
use super::seat::{Failure, Seat};
use crate::room::api::{TrackName, VideoWanted, Wish};

/// Wishes in one message: nobody shows more pictures at once.
const WISHES_MAX: usize = 128;
/// No screen is larger.
const PIXELS_MAX: f64 = 16_384.0;
/// No screen is faster.
const FPS_MAX: f64 = 480.0;
/// The highest temporal layer that a codec tells (three bits in VP9).
const TEMPORAL_MAX: i64 = 7;

/// `video_demand`: `{stream_id, width, height, fps}`, 0 × 0 for what is hidden. Ours: `track_id` names one track, and
/// `tracks` is a list of such wishes.
pub fn video_demand(seat: &Seat, data: &Value) -> Result<(), Failure> {
    let wishes = match Fields::of(data).map_err(Failure::bad_message)?.value(&["tracks"]) {
        None => size(data).map(|wish| vec![wish]),
        Some(Value::Array(list)) if list.len() <= WISHES_MAX => list.iter().map(size).collect(),
        Some(_) => Err(format!("tracks must be a list of at most {WISHES_MAX}")),
    };
    Ok(seat.control.demand(seat.peer, &wishes.map_err(Failure::bad_message)?)?)
}

/// `set_layer`: `{track_id, max_temporal_layer}`, -1 for all.
pub fn set_layer(seat: &Seat, data: &Value) -> Result<(), Failure> {
    let wish = temporal_max(data).map_err(Failure::bad_message)?;
    Ok(seat.control.demand(seat.peer, &[wish])?)
}

fn size(data: &Value) -> Result<(TrackName, Wish), String> {
    let fields = Fields::of(data)?;
    let size = (number(fields, "width", PIXELS_MAX)?, number(fields, "height", PIXELS_MAX)?);
    let (Some(width), Some(height)) = size else { return Err("width and height are missing".to_owned()) };
    let fps = number(fields, "fps", FPS_MAX)?.filter(|fps| *fps > 0);
    Ok((name(fields)?, Wish::Size { width, height, fps }))
}

fn temporal_max(data: &Value) -> Result<(TrackName, Wish), String> {
    let fields = Fields::of(data)?;
    let max = fields.value(&["max_temporal_layer", "maxTemporalLayer"]).and_then(Value::as_i64);
    let max = max.ok_or_else(|| "max_temporal_layer must be a whole number".to_owned())?;
    Ok((name(fields)?, Wish::TemporalMax((max >= 0).then_some(max.min(TEMPORAL_MAX) as u8))))
}

/// What `video_wanted` says.
pub fn video_wanted(wanted: &VideoWanted) -> Value {
    json!({
        "mid": wanted.mid,
        "width": wanted.width,
        "height": wanted.height,
        "fps": wanted.fps,
        "watchers": wanted.watchers,
        "unknown": wanted.unknown,
    })
}

fn name(fields: Fields<'_>) -> Result<TrackName, String> {
    if let Some(track) = fields.text(&["track_id", "trackId"], ID_MAX)? {
        return Ok(TrackName::Track(track.to_owned()));
    }
    Ok(TrackName::Stream(fields.required(&["stream_id", "streamId"], ID_MAX)?.to_owned()))
}

/// A number from 0 to `max`; what is beyond is taken for the nearest, and parts of a pixel for a whole one.
fn number(fields: Fields<'_>, name: &str, max: f64) -> Result<Option<u16>, String> {
    match fields.value(&[name]) {
        None => Ok(None),
        Some(value) => {
            let value = value.as_f64().ok_or_else(|| format!("{name} must be a number"))?;
            Ok(Some(value.clamp(0.0, max).ceil() as u16))
        }
    }
}
