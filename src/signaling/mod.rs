//! HTTP and WebSocket: every dialect in, one room interface out.
//!
//! Owns: sockets, messages, who may come in. Knows rooms only through [`Control`], and media not at all.

pub mod admin;
pub mod auth;
pub mod golive;
pub mod http;
pub mod http_session;
pub mod ice_patch;
pub mod limits;
pub mod page;
pub mod problem;
pub mod records;
pub mod whep;
pub mod whep_events;
pub mod whep_layer;
pub mod whip;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, put};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_http::cors::CorsLayer;

use self::auth::registry::Registry;
use self::http_session::Sessions;
use self::ws::socket::SocketCounters;
use crate::config::Config;
use crate::record::recorder::Board;
use crate::room::control::Control;

/// Requests and close handshakes that are under way when the server stops get this long.
const STOP_WAIT: Duration = Duration::from_secs(4);
/// How often the last sockets are counted while stopping.
const STOP_STEP: Duration = Duration::from_millis(20);

/// What every request handler shares.
#[derive(Clone)]
pub struct AppState {
    /// The rooms.
    pub control: Arc<Control>,
    /// The settings.
    pub config: Arc<Config>,
    /// Gryt servers and their rooms.
    pub registry: Arc<Registry>,
    /// Numbers of the WebSockets.
    pub sockets: Arc<SocketCounters>,
    /// Peers that came by WHIP or WHEP.
    pub sessions: Arc<Sessions>,
    /// What is recorded now.
    pub recordings: Arc<Board>,
    stopping: Arc<watch::Sender<bool>>,
}

impl AppState {
    /// Nothing registered, nobody connected.
    pub fn new(control: Arc<Control>, config: Arc<Config>) -> Self {
        control.limit_viewers(config.broadcast.viewers_max);
        Self {
            control,
            config,
            registry: Arc::default(),
            sockets: Arc::default(),
            sessions: Arc::default(),
            recordings: Arc::default(),
            stopping: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The same with a recorder.
    pub fn with_recordings(self, recordings: Arc<Board>) -> Self {
        Self { recordings, ..self }
    }

    /// Tells every client that the server stops, and lets no more in.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.control.stop();
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until [`Self::stop`] is called.
    pub async fn stopped(&self) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// Every endpoint.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/", get(ws::root))
        .route("/client", get(ws::client))
        .route("/server", get(ws::server))
        .route("/ws", get(ws::ws))
        .route("/page/{name}", get(page::file))
        .route("/web", get(page::web_root))
        .route("/web/", get(page::web_root))
        .route("/web/{name}", get(page::web))
        .route("/health", get(http::health))
        .route("/healthz", get(http::healthz))
        .route("/metrics", get(http::metrics))
        .route("/debug/rooms", get(http::debug_rooms))
        .route("/debug/peers", get(http::debug_peers))
        .route("/debug/tracks", get(http::debug_tracks))
        .route("/debug/why", get(http::debug_why))
        .route("/api/admin/impair/{room}/{peer}", put(admin::impair).get(admin::impair).delete(admin::impair))
        .merge(golive::routes())
        .layer(CorsLayer::permissive())
        .merge(http_session::routes())
        .merge(records::routes(&state.config.record.directory))
        .with_state(state)
}

/// Serves until `shutdown` completes, then tells everybody, and returns when they are gone or have had a few seconds.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Small messages should not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let told = state.clone();
    let server = axum::serve(listener, router(state.clone())).with_graceful_shutdown(async move {
        shutdown.await;
        told.stop();
    });
    let deadline = async {
        state.stopped().await;
        tokio::time::sleep(STOP_WAIT).await;
    };
    let orderly = async {
        server.await?;
        // Upgraded connections are no longer the server's; they are counted.
        while state.sockets.snapshot().active > 0 {
            tokio::time::sleep(STOP_STEP).await;
        }
        Ok(())
    };
    tokio::select! {
        result = orderly => result,
        () = deadline => Ok(()),
    }
}
