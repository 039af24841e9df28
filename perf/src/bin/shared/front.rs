//! WHIP and WHEP in front of something else: HTTP requests become calls, answers to calls become responses.
//!
//! Owns: a thread with the HTTP listener. Every room has one resource to publish into and one to receive from
//! (`/whip/{room}`, `/whep/{room}`); a session ends with DELETE on its location.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use tokio::sync::oneshot;

/// Names a session in its location.
pub type SessionId = u64;

/// The session and its SDP answer.
pub type Answer = Result<(SessionId, String)>;

/// What a client wants.
pub enum Call {
    /// The room, the offer and where the answer goes.
    Publish(String, String, oneshot::Sender<Answer>),
    /// The same for one that receives.
    Subscribe(String, String, oneshot::Sender<Answer>),
    /// The session ends.
    Leave(SessionId),
}

/// Listens from now on and hands each call to `take`, which must not block.
pub fn start(address: SocketAddr, take: impl Fn(Call) + Clone + Send + Sync + 'static) -> Result<()> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let app = Router::new()
        .route("/whip/{room}", post(publish))
        .route("/whep/{room}", post(subscribe))
        .route("/session/{id}", delete(leave))
        .with_state(Front { take });
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, app).await
        })
    })?;
    Ok(())
}

#[derive(Clone)]
struct Front<F> {
    take: F,
}

async fn publish<F: Fn(Call)>(State(front): State<Front<F>>, Path(room): Path<String>, offer: String) -> Response {
    let (reply, answer) = oneshot::channel();
    (front.take)(Call::Publish(room, offer, reply));
    respond(answer).await
}

async fn subscribe<F: Fn(Call)>(State(front): State<Front<F>>, Path(room): Path<String>, offer: String) -> Response {
    let (reply, answer) = oneshot::channel();
    (front.take)(Call::Subscribe(room, offer, reply));
    respond(answer).await
}

async fn leave<F: Fn(Call)>(State(front): State<Front<F>>, Path(id): Path<SessionId>) -> StatusCode {
    (front.take)(Call::Leave(id));
    StatusCode::OK
}

async fn respond(answer: oneshot::Receiver<Answer>) -> Response {
    match answer.await {
        Ok(Ok((id, sdp))) => {
            let headers = [("content-type", "application/sdp".to_owned()), ("location", format!("/session/{id}"))];
            (StatusCode::CREATED, headers, sdp).into_response()
        }
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
