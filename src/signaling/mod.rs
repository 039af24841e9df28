//! HTTP and WebSocket: every dialect in, one room interface out.
//!
//! Owns: sockets, messages, who may come in. Knows rooms only through [`Control`], and media not at all.

pub mod access;
pub mod admin;
pub mod auth;
pub mod calls;
pub mod connections;
pub mod golive;
pub mod http;
pub mod http_session;
pub mod ice_patch;
pub mod ice_servers;
pub mod limits;
pub mod page;
pub mod problem;
pub mod records;
pub mod rest;
pub mod tls;
pub mod whep;
pub mod whep_events;
pub mod whep_layer;
pub mod whip;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_http::cors::CorsLayer;

use self::auth::grant::{Asked, Denied, Door, Grant, Role};
use self::auth::registry::Registry;
use self::auth::shown::Shown;
use self::calls::Calls;
use self::connections::Server;
use self::http_session::Sessions;
use self::limits::Limits;
use self::tls::Certificate;
use self::ws::socket::SocketCounters;
use crate::config::Config;
use crate::record::recorder::Board;
use crate::room::control::Control;
use crate::runtime::clock;

/// Requests and close handshakes that are under way when the server stops get this long.
const STOP_WAIT: Duration = Duration::from_secs(4);
/// How often the last connections are counted while stopping.
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
    /// Gryt's calls.
    pub calls: Arc<Calls>,
    /// Who may come in.
    pub door: Arc<Door>,
    /// How much each may ask.
    pub limits: Arc<Limits>,
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
            door: Arc::new(Door::new(&config)),
            limits: Arc::new(Limits::new(&config)),
            config,
            registry: Arc::default(),
            calls: Arc::default(),
            sockets: Arc::default(),
            sessions: Arc::default(),
            recordings: Arc::default(),
            stopping: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Whether whoever shows this may do that in the room, and what else; `user_id` is who they say they are.
    pub async fn admit(&self, shown: &Shown, room: &str, user_id: Option<&str>, role: Role) -> Result<Grant, Denied> {
        let grant = self.door.admit(clock::wall(), &self.registry, shown, Asked { room, user_id, role }).await?;
        if let Some(user) = &grant.identity {
            self.limits.ask_as(user).map_err(Denied::too_many)?;
        }
        Ok(grant)
    }

    /// Whether whoever shows this may do what only administrators do.
    pub async fn admit_admin(&self, shown: &Shown) -> Result<Grant, Denied> {
        self.door.admit_admin(shown).await
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
        .merge(rest::routes())
        .merge(records::routes(&state))
        .merge(ice_servers::routes())
        // The last: what nobody knows is answered with its headers.
        .merge(http_session::routes(&state))
        .layer(from_fn_with_state(state.clone(), access::check))
        .with_state(state)
}

/// Where Gryt's servers connect, if not at the main port.
pub fn control_router(state: AppState) -> Router {
    let checks = from_fn_with_state(state.clone(), access::check);
    Router::new().route("/server", get(ws::control)).layer(checks).with_state(state)
}

/// Metrics alone, for a port that is not shown to everybody.
pub fn metrics_router(state: AppState) -> Router {
    Router::new().route(&state.config.dialects.metrics_path, get(http::metrics)).with_state(state)
}

/// Serves what has a port of its own until [`AppState::stop`] is called.
pub async fn serve_beside(listener: TcpListener, state: AppState, router: Router) {
    let server = Server::new(state.clone(), router, None);
    tokio::select! {
        () = server.accept(listener) => {}
        () = state.stopped() => {}
    }
}

/// Serves until `shutdown` completes, then tells everybody, and returns when they are gone or have had a few seconds.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    tokio::spawn(calls::run(state.clone()));
    let certificate = state.config.tls.files.as_ref().map(Certificate::open).transpose();
    let certificate = certificate.map_err(std::io::Error::other)?;
    let tls = certificate.as_ref().map(Certificate::acceptor).transpose().map_err(std::io::Error::other)?;
    let follow = async {
        match &certificate {
            Some(certificate) => certificate.follow().await,
            None => std::future::pending().await,
        }
    };
    let server = Server::new(state.clone(), router(state.clone()), tls);
    tokio::select! {
        () = shutdown => {}
        () = server.accept(listener) => {}
        () = state.door.keep_fresh() => {}
        () = follow => {}
    }
    state.stop();
    let gone = async {
        while state.limits.open() > 0 || state.sockets.snapshot().active > 0 {
            sleep(STOP_STEP).await;
        }
    };
    // Whoever needs longer is left behind.
    let _ = timeout(STOP_WAIT, gone).await;
    Ok(())
}
