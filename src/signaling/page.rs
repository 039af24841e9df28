//! The pages, served from the binary: the room, and those of publishers and viewers.
//!
//! Owns: the table of files. Promises: a browser asks again each time and gets 304 while nothing changed.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal: $content_type:ident),* $(,)?) => {
        &[$(File { name: $name, content_type: $content_type, bytes: include_bytes!(concat!("page/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "index.html": HTML,
    "broadcast.css": STYLE,
    "broadcast.js": SCRIPT,
    "call.js": SCRIPT,
    "devices.js": SCRIPT,
    "grid.js": SCRIPT,
    "http_session.js": SCRIPT,
    "icon.svg": SVG,
    "lobby.js": SCRIPT,
    "main.js": SCRIPT,
    "params.js": SCRIPT,
    "pictures.js": SCRIPT,
    "player.html": HTML,
    "player.js": SCRIPT,
    "publisher.html": HTML,
    "publisher.js": SCRIPT,
    "records.css": STYLE,
    "records.html": HTML,
    "records.js": SCRIPT,
    "session.js": SCRIPT,
    "signaling.js": SCRIPT,
    "speaking.js": SCRIPT,
    "stats.js": SCRIPT,
    "style.css": STYLE,
    "web.html": HTML,
    "web.js": SCRIPT,
};

/// `/`.
pub fn index(headers: &HeaderMap) -> Response {
    respond("index.html", headers)
}

/// `/page/{name}`.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    respond(&name, &headers)
}

/// `/web/{name}`: pages only, by go-live's names.
pub async fn web(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match name.as_str() {
        "index.html" => respond("web.html", &headers),
        page if page.ends_with(".html") && page != "web.html" => respond(page, &headers),
        _ => respond("", &headers),
    }
}

/// `/web`: where the pages begin.
pub async fn web_root() -> Redirect {
    Redirect::permanent("/web/index.html")
}

fn respond(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let tag = format!("\"{:08x}-{:x}\"", crc32fast::hash(file.bytes), file.bytes.len());
    let caching = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, tag.as_str())];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let kind = [(header::CONTENT_TYPE, file.content_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (caching, kind, file.bytes).into_response()
}
