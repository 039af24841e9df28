//! WHEP's layer selection (draft-ietf-wish-whep): `POST /whep/s/{id}/layer`.
//!
//! Owns: the words. A layer that was chosen is the best one that is given; a line that does not carry it gets less.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::AppState;
use super::http_session::{self, Endpoint};
use super::problem::Problem;
use crate::room::showing::{LayerWish, Picture};

/// No body is longer: some numbers and two names.
const BYTES_MAX: usize = 4 << 10;

/// The body. What is missing is without a limit; only a mediaId gives the choice back to us.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    media_id: Option<MediaId>,
    rid: Option<String>,
    /// broadcast-box's word for it.
    encoding_id: Option<String>,
    spatial_layer_id: Option<u8>,
    temporal_layer_id: Option<u8>,
    max_spatial_layer_id: Option<u8>,
    max_temporal_layer_id: Option<u8>,
    max_width: Option<u16>,
    max_height: Option<u16>,
}

/// The index of the m-line as text, or as it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum MediaId {
    Text(String),
    Index(u16),
}

/// The `Link` of the answer that tells of it.
pub fn link(session: &str) -> String {
    format!("<{session}/layer>; rel=\"urn:ietf:params:whep:ext:core:layer\"")
}

/// `POST /whep/s/{id}/layer`.
pub async fn choose(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    state.sessions.with(Endpoint::Whep, &id, |_| http_session::check_type(request.headers(), "application/json"))?;
    let text = http_session::body(&state, request).await?;
    if text.len() > BYTES_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {BYTES_MAX} bytes")));
    }
    let choice: Choice = serde_json::from_str(&text)
        .map_err(|error| Problem::bad_request(format!("the choice is not understood: {error}")))?;
    let media = choice.media_id.as_ref().map(|id| match id {
        MediaId::Text(text) => text.clone(),
        MediaId::Index(index) => index.to_string(),
    });
    let of = media.as_deref().map_or(Picture::First, Picture::Media);
    let wish = choice.wish();
    state.sessions.with(Endpoint::Whep, &id, |session| {
        session.seat.control.choose_layer(session.seat.peer, of, &wish)?;
        Ok(StatusCode::OK)
    })
}

impl Choice {
    fn wish(self) -> LayerWish {
        let lower = |a: Option<u8>, b: Option<u8>| a.into_iter().chain(b).min();
        LayerWish {
            rid: self.rid.or(self.encoding_id),
            spatial: lower(self.spatial_layer_id, self.max_spatial_layer_id),
            temporal: lower(self.temporal_layer_id, self.max_temporal_layer_id),
            width_max: self.max_width,
            height_max: self.max_height,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> LayerWish {
        serde_json::from_str::<Choice>(text).unwrap().wish()
    }

    #[test]
    fn every_word_of_a_choice_is_understood() {
        assert_eq!(wish(r#"{"mediaId":"0"}"#), LayerWish::default());
        for text in [r#"{"mediaId":"0","rid":"h"}"#, r#"{"mediaId":0,"encodingId":"h","more":1}"#] {
            assert_eq!(wish(text), LayerWish { rid: Some("h".into()), ..LayerWish::default() });
        }
        let all = r#"{"spatialLayerId":2,"maxSpatialLayerId":1,"temporalLayerId":1,"maxTemporalLayerId":2,"maxWidth":640,"maxHeight":360}"#;
        let (spatial, temporal) = (Some(1), Some(1));
        let limits = LayerWish { rid: None, spatial, temporal, width_max: Some(640), height_max: Some(360) };
        assert_eq!(wish(all), limits);
        for bad in ["", "[]x", "1", r#"{"spatialLayerId":-1}"#, r#"{"maxWidth":"wide"}"#, r#"{"mediaId":[]}"#] {
            assert!(serde_json::from_str::<Choice>(bad).is_err(), "{bad}");
        }
    }
}
