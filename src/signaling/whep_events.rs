//! WHEP's server-sent events (draft-ietf-wish-whep): what becomes of what is watched, told while it is watched.
//!
//! Owns: the five events and one stream per session. `POST /whep/s/{id}/sse` makes it, GET of its URL listens, DELETE ends
//! it. Promises: events are made when the listener can take them, from what is true then, so none pile up; a new listener
//! is told all that is true; a stream ends with its session.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::stream;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::AppState;
use super::http_session::{self, Endpoint, number};
use super::problem::Problem;
use crate::base::ids::PeerId;
use crate::room::control::Control;
use crate::room::showing::{Showing, ShownLayer};

/// Workers report once a second: looking more often would show nothing new.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bitrates never stand still; they are told every so many looks.
const BITRATES_EVERY: u32 = 5;
/// Proxies close a connection that is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// No list of events is longer.
const BYTES_MAX: usize = 4 << 10;

/// What a viewer may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Active,
    Inactive,
    Layers,
    Reconnect,
    ViewerCount,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Active, "active"),
    (Kind::Inactive, "inactive"),
    (Kind::Layers, "layers"),
    (Kind::Reconnect, "reconnect"),
    (Kind::ViewerCount, "viewercount"),
];

/// The viewer shall begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// At this endpoint; `None`: at the one that it knows.
    pub url: Option<String>,
}

/// The event stream of a session.
#[derive(Debug)]
pub struct Events {
    stream: u128,
    wanted: Vec<Kind>,
    /// Dropped, whoever listens hears the end.
    listener: Option<watch::Sender<()>>,
}

/// The `Link` of the answer that tells of them.
pub fn link(session: &str) -> String {
    let events = KINDS.map(|(_, name)| name).join(",");
    format!("<{session}/sse>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; events=\"{events}\"")
}

/// `POST /whep/s/{id}/sse`: which events, or all. Instead of the stream that was there.
pub async fn create(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    state.sessions.with(Endpoint::Whep, &id, |_| match kind {
        Some(_) => http_session::check_type(request.headers(), "application/json"),
        None => Ok(()),
    })?;
    let text = http_session::body(&state, request).await?;
    let wanted = wanted(&text)?;
    let stream = rand::random();
    state.sessions.with(Endpoint::Whep, &id, |session| {
        session.events = Some(Events { stream, wanted, listener: None });
        Ok(())
    })?;
    let location = format!("/whep/s/{id}/sse/{stream:032x}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
}

/// A list of names; those that nobody knows are left out.
fn wanted(text: &str) -> Result<Vec<Kind>, Problem> {
    if text.len() > BYTES_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {BYTES_MAX} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(KINDS.map(|(kind, _)| kind).to_vec());
    }
    let names: Vec<String> = serde_json::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the body must be a list of names of events: {error}")))?;
    let is_wanted = |(kind, name): (Kind, &str)| names.iter().any(|wanted| wanted == name).then_some(kind);
    Ok(KINDS.into_iter().filter_map(is_wanted).collect())
}

/// GET of the stream. Whoever listens later listens instead.
pub async fn listen(
    State(state): State<AppState>,
    Path((id, stream)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (listener, over) = watch::channel(());
    let (control, peer, wanted) = state.sessions.with(Endpoint::Whep, &id, |session| {
        let events = session.events.as_mut().filter(|events| Some(events.stream) == number(&stream));
        let events = events.ok_or_else(no_stream)?;
        events.listener = Some(listener);
        Ok((Arc::clone(&session.seat.control), session.seat.peer, events.wanted.clone()))
    })?;
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconnects = state.sessions.reconnects();
    reconnects.mark_changed();
    let told = Told::default();
    let teller = Teller { control, peer, wanted, over, looks, reconnects, told, queue: VecDeque::new() };
    let events =
        stream::unfold(teller, |mut teller| async move { Some((Ok::<_, Infallible>(teller.next().await?), teller)) });
    let body = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Proxies would collect them.
    let headers = AppendHeaders([
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ]);
    Ok((headers, body).into_response())
}

/// DELETE of the stream.
pub async fn end(
    State(state): State<AppState>,
    Path((id, stream)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    state.sessions.with(Endpoint::Whep, &id, |session| {
        let taken = session.events.take_if(|events| Some(events.stream) == number(&stream));
        taken.map(|_| StatusCode::OK).ok_or_else(no_stream)
    })
}

fn no_stream() -> Problem {
    Problem::not_found("there is no such event stream")
}

/// Tells one listener.
struct Teller {
    control: Arc<Control>,
    peer: PeerId,
    wanted: Vec<Kind>,
    over: watch::Receiver<()>,
    looks: Interval,
    reconnects: watch::Receiver<Option<Reconnect>>,
    told: Told,
    /// What is to be said next; no more than there are kinds.
    queue: VecDeque<Event>,
}

/// What the listener knows.
#[derive(Debug, Default)]
struct Told {
    showing: Option<Showing>,
    looks: u32,
}

impl Teller {
    /// The next event. `None`: the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            tokio::select! {
                // Nothing is ever sent here.
                _ = self.over.changed() => return None,
                Ok(()) = self.reconnects.changed() => {
                    let reconnect = self.reconnects.borrow_and_update().clone();
                    let data = reconnect.map(|reconnect| reconnect.url.map_or(json!({}), |url| json!({"url": url})));
                    self.queue.extend(data.filter(|_| self.wanted.contains(&Kind::Reconnect)).map(|data| event(Kind::Reconnect, &data)));
                }
                _ = self.looks.tick() => {
                    let showing = self.control.showing(self.peer)?;
                    let news = self.told.news(showing);
                    let wanted = news.into_iter().filter(|(kind, _)| self.wanted.contains(kind));
                    self.queue.extend(wanted.map(|(kind, data)| event(kind, &data)));
                }
            }
        }
    }
}

impl Told {
    /// What is new.
    fn news(&mut self, now: Showing) -> Vec<(Kind, Value)> {
        let before = self.showing.as_ref();
        let mut news = Vec::new();
        // Nobody is told at first that nothing is there.
        match (before.is_some_and(|before| before.is_active), now.is_active) {
            (false, true) => news.push((Kind::Active, json!({}))),
            (true, false) => news.push((Kind::Inactive, json!({}))),
            _ => {}
        }
        let is_due =
            self.looks.is_multiple_of(BITRATES_EVERY) && before.is_none_or(|before| before.pictures != now.pictures);
        if is_due || before.is_some_and(|before| !is_same_choice(before, &now)) {
            news.push((Kind::Layers, layers(&now)));
        }
        if before.is_none_or(|before| before.viewers != now.viewers) {
            news.push((Kind::ViewerCount, json!({"viewercount": now.viewers})));
        }
        self.looks = self.looks.wrapping_add(1);
        // Bitrates that were not told count as not known.
        let is_told = news.iter().any(|(kind, _)| *kind == Kind::Layers);
        let pictures = match self.showing.take() {
            Some(before) if !is_told => before.pictures,
            _ => now.pictures,
        };
        self.showing = Some(Showing { pictures, ..now });
        news
    }
}

/// The same layers, at whatever rates.
fn is_same_choice(a: &Showing, b: &Showing) -> bool {
    let is_same = |a: &ShownLayer, b: &ShownLayer| {
        (&a.rid, a.spatial, a.temporal, a.size) == (&b.rid, b.spatial, b.temporal, b.size)
    };
    a.pictures.len() == b.pictures.len()
        && a.pictures.iter().zip(&b.pictures).all(|((a_mline, a), (b_mline, b))| {
            a_mline == b_mline && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        })
}

/// By m-line, best last as they come.
fn layers(showing: &Showing) -> Value {
    let layer = |layer: &ShownLayer| {
        let mut fields = Map::new();
        fields.extend(layer.rid.as_ref().map(|rid| ("rid".to_owned(), json!(rid))));
        fields.insert("spatialLayerId".to_owned(), json!(layer.spatial));
        fields.insert("temporalLayerId".to_owned(), json!(layer.temporal));
        fields.insert("bitrate".to_owned(), json!(layer.bps));
        if let Some((width, height)) = layer.size {
            fields.insert("width".to_owned(), json!(width));
            fields.insert("height".to_owned(), json!(height));
        }
        Value::Object(fields)
    };
    let picture = |(mline, layers): &(u16, Vec<ShownLayer>)| (mline.to_string(), layers.iter().map(layer).collect());
    Value::Object(showing.pictures.iter().map(picture).collect())
}

fn event(kind: Kind, data: &Value) -> Event {
    let name = KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name);
    Event::default().event(name).data(data.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn showing(is_active: bool, viewers: usize, bps: &[u64]) -> Showing {
        let layer = |(at, bps): (usize, &u64)| ShownLayer {
            rid: Some(format!("r{at}")),
            spatial: 0,
            temporal: 0,
            bps: *bps,
            size: Some((640, 360)),
        };
        Showing { is_active, viewers, pictures: vec![(1, bps.iter().enumerate().map(layer).collect())] }
    }

    fn kinds(news: &[(Kind, Value)]) -> Vec<Kind> {
        news.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn only_what_changed_is_told_and_at_first_all_that_is_there() {
        let mut told = Told::default();
        let first = told.news(showing(false, 1, &[]));
        assert_eq!(kinds(&first), [Kind::Layers, Kind::ViewerCount], "never inactive at first");
        assert_eq!(first[1].1, json!({"viewercount": 1}));
        assert!(told.news(showing(false, 1, &[])).is_empty());
        let active = told.news(showing(true, 1, &[9]));
        assert_eq!(kinds(&active), [Kind::Active, Kind::Layers]);
        let layer =
            json!({"rid": "r0", "spatialLayerId": 0, "temporalLayerId": 0, "bitrate": 9, "width": 640, "height": 360});
        assert_eq!(active[1].1, json!({"1": [layer]}));
        assert_eq!(kinds(&told.news(showing(false, 2, &[9]))), [Kind::Inactive, Kind::ViewerCount]);
    }

    #[test]
    fn rates_are_told_now_and_then_and_new_layers_at_once() {
        let mut told = Told::default();
        let news: Vec<_> =
            (1..=12).map(|bps| kinds(&told.news(showing(true, 1, &[bps]))).contains(&Kind::Layers)).collect();
        let at: Vec<usize> = (0..news.len()).filter(|at| news[*at]).collect();
        assert_eq!(at, [0, 5, 10]);
        assert_eq!(kinds(&told.news(showing(true, 1, &[13, 1]))), [Kind::Layers]);
    }

    #[test]
    fn a_list_of_events_is_read_with_patience() {
        assert_eq!(wanted("").unwrap().len(), 5);
        assert_eq!(wanted(r#"["layers","scte35","active"]"#).unwrap(), [Kind::Active, Kind::Layers]);
        assert!(wanted("[]").unwrap().is_empty());
        for bad in ["{}", "layers", "[1]", &" ".repeat(BYTES_MAX + 1)] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }
}
