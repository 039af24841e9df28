//! Recordings over HTTP: the list, the files, and what an administrator may begin and end.
//!
//! `GET /api/records` lists files, newest first; `/records/{name}` gives them out, also by ranges, so that players can jump;
//! `POST` and `DELETE /api/admin/rooms/{room}/record` begin and end the recording of a room, `GET` shows it. Promises: only
//! recordings are listed and given out, wherever else a path may point.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tower_http::services::ServeDir;

use super::AppState;
use super::auth::grant::Denied;
use super::auth::shown::Shown;
use super::http::refused;
use super::problem::Problem;
use crate::room::record::RecordWish;

/// Endings of what is listed.
const LISTED: [&str; 4] = ["ivf", "ogg", "h264", "webm"];
/// Endings of what is given out: sidecars, too.
const GIVEN_OUT: [&str; 5] = ["ivf", "ogg", "h264", "webm", "json"];

/// The routes. Where rooms are closed, recordings are for those who may watch in all of them.
pub fn routes(state: &AppState) -> Router<AppState> {
    let guests_only = middleware::from_fn_with_state(state.clone(), guests_only);
    let files = Router::new()
        .fallback_service(ServeDir::new(&state.config.record.directory).append_index_html_on_directories(false))
        .layer(middleware::from_fn(only_recordings))
        .layer(guests_only.clone());
    Router::new()
        .route("/api/records", get(list).layer(guests_only))
        .route("/api/admin/rooms/{room}/record", post(record).delete(record).get(record))
        .nest_service("/records", files)
}

/// A file of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    size: u64,
    mod_time: String,
    url: String,
    #[serde(skip)]
    changed_at: SystemTime,
}

async fn list(State(state): State<AppState>) -> Response {
    let directory = state.config.record.directory.clone();
    match tokio::task::spawn_blocking(move || entries(directory)).await {
        Ok(entries) => ([(header::CACHE_CONTROL, "no-store")], Json(entries)).into_response(),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the recordings cannot be listed").into_response(),
    }
}

/// Recordings of a directory, newest first; one that is not there has none.
fn entries(directory: PathBuf) -> Vec<Entry> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut entries: Vec<Entry> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok().filter(|name| has_ending(name, &LISTED))?;
            let facts = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let changed_at = facts.modified().ok()?;
            let mod_time = jiff::Timestamp::try_from(changed_at).ok()?.to_string();
            // Names are plain (see `record::file`): they need no escaping.
            let url = format!("/records/{name}");
            Some(Entry { name, size: facts.len(), mod_time, url, changed_at })
        })
        .collect();
    entries.sort_by(|left, right| (right.changed_at, &right.name).cmp(&(left.changed_at, &left.name)));
    entries
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let ending = FilePath::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with('.') && ending.is_some_and(|ending| endings.contains(&ending))
}

async fn guests_only(
    State(state): State<AppState>,
    shown: Shown,
    request: Request,
    next: Next,
) -> Result<Response, Denied> {
    state.door.admit_everywhere(&shown).await?;
    Ok(next.run(request).await)
}

/// Nothing but recordings, of which no browser guesses that they are pages.
async fn only_recordings(request: Request, next: Next) -> Response {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    if name.contains('/') || !has_ending(&name, &GIVEN_OUT) {
        return Problem::not_found("there is no such recording").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    match FilePath::new(&name).extension().and_then(OsStr::to_str) {
        Some("ogg") => drop(set(header::CONTENT_TYPE, "audio/ogg")),
        Some("webm") => drop(set(header::CONTENT_TYPE, "video/webm")),
        Some("json") => drop(set(header::CONTENT_TYPE, "application/json")),
        _ => drop(set(header::CONTENT_TYPE, "application/octet-stream")),
    }
    response
}

/// `/api/admin/rooms/{room}/record`; `?webm=1` also makes one file for each publisher.
async fn record(
    State(state): State<AppState>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refused(&state, &headers).await {
        return refusal;
    }
    let is_muxed = match query.get("webm").map(String::as_str) {
        None => state.config.record.is_muxed,
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        Some(_) => return Problem::bad_request("webm is 1 or 0").into_response(),
    };
    let done = match method {
        Method::POST => state.control.record(&room, Some(RecordWish { is_muxed })),
        Method::DELETE => state.control.record(&room, None),
        _ => Ok(()),
    };
    match done.and_then(|()| state.control.recording(&room)) {
        Ok(wish) => {
            let recordings = state.recordings.read().into_iter().filter(|progress| progress.room == room);
            let files: Vec<_> = recordings
                .map(|progress| {
                    json!({
                        "track": progress.track,
                        "file": progress.file,
                        "seconds": progress.seconds,
                        "error": progress.failure,
                    })
                })
                .collect();
            let webm = wish.is_some_and(|wish| wish.is_muxed);
            Json(json!({"room": room, "recording": wish.is_some(), "webm": webm, "tracks": files})).into_response()
        }
        Err(error) => Problem::not_found(error.to_string()).into_response(),
    }
}
