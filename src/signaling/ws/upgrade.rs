//! How a WebSocket begins (RFC 6455 §4.2), and how long messages leave it.
//!
//! Owns: the answer to the opening handshake; the frames that messages are cut into. Promises: a connection keeps no more
//! memory for what it has sent than two frames take, whatever was the longest: the list of a room of thousands would stay
//! with each of them. Forbids: dialects.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::socket::FRAME_MAX;

/// Bytes read from a socket at once. The library's own 128 KiB would be written over, and so be resident, for every
/// client; a description of 10 KiB takes three reads.
const READ_BYTES: usize = 4 << 10;
/// Longest frame that leaves: most messages are shorter, a description takes three.
const CUT_BYTES: usize = 4 << 10;

/// An open WebSocket.
pub type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// A request to open one.
#[derive(Debug)]
pub struct Opening {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

/// Why a request opens none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoOpening(StatusCode, &'static str);

impl<S: Sync> FromRequestParts<S> for Opening {
    type Rejection = NoOpening;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoOpening> {
        let headers = &parts.headers;
        if !names(headers, header::CONNECTION, "upgrade") || !names(headers, header::UPGRADE, "websocket") {
            return Err(NoOpening(StatusCode::BAD_REQUEST, "this address is a WebSocket's; ask for an upgrade\n"));
        }
        // RFC 6455 §4.4: the version is 13.
        if !names(headers, header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(NoOpening(StatusCode::BAD_REQUEST, "only version 13 of WebSocket is spoken\n"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
        let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
            return Err(NoOpening(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n"));
        };
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or(NoOpening(StatusCode::UPGRADE_REQUIRED, "this connection cannot be upgraded\n"))?;
        Ok(Self { accept, upgrade })
    }
}

impl Opening {
    /// Agrees, and serves the socket once it is open.
    pub fn accept<F>(self, serve: impl FnOnce(Stream) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        tokio::spawn(async move {
            let upgraded = match self.upgrade.await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => return tracing::debug!(%error, "a websocket did not open"),
            };
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BYTES)
                .write_buffer_size(0)
                .max_message_size(Some(FRAME_MAX))
                .max_frame_size(Some(FRAME_MAX));
            serve(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await).await;
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

impl IntoResponse for NoOpening {
    fn into_response(self) -> Response {
        let Self(status, sentence) = self;
        (status, sentence).into_response()
    }
}

/// Sends a message of text, in several frames where it is long (RFC 6455 §5.4).
pub async fn send_text(sink: &mut SplitSink<Stream, Message>, text: Utf8Bytes) -> Result<(), Error> {
    if text.len() <= CUT_BYTES {
        return sink.send(Message::Text(text)).await;
    }
    let mut rest = tokio_tungstenite::tungstenite::Bytes::from(text);
    let mut kind = Data::Text;
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(CUT_BYTES));
        sink.send(Message::Frame(Frame::message(part, OpCode::Data(kind), rest.is_empty()))).await?;
        kind = Data::Continue;
    }
    Ok(())
}

/// A header's list has such an entry.
fn names(headers: &HeaderMap, header: HeaderName, entry: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(entry))
}
