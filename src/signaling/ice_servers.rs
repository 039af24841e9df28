//! STUN and TURN servers for clients, in each dialect's form.
//!
//! Owns: the time-limited credentials, made the way coturn's REST interface has them (draft-uberti-behave-turn-rest):
//! the user name is `expiry:identity`, the password the HMAC-SHA1 of that under the secret that the TURN server shares.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;
use tower_http::cors::CorsLayer;

use super::AppState;
use super::auth::shown::Shown;
use crate::config::Config;
use crate::config::ice::TurnCredentials;
use crate::runtime::clock;

/// More of an identity tells nothing in the log of a TURN server.
const IDENTITY_MAX: usize = 64;

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    /// Its addresses.
    pub urls: Vec<String>,
    /// The user, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// The servers for one client. `identity` is what a TURN server may know of it; `None`: no TURN servers.
pub fn ice_servers(config: &Config, wall: SystemTime, identity: Option<&str>) -> Vec<IceServer> {
    let own = || {
        config.stun_servers.iter().map(|server| {
            let host = &server.host;
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            format!("stun:{host}:{}", server.port)
        })
    };
    let stun = config.ice.stun_urls.clone().unwrap_or_else(|| own().collect());
    let mut servers = Vec::new();
    if !stun.is_empty() {
        servers.push(IceServer { urls: stun, username: None, credential: None });
    }
    if let (Some(identity), Some(turn), false) = (identity, &config.ice.turn, config.ice.turn_urls.is_empty()) {
        let (username, credential) = match turn {
            TurnCredentials::Static { username, password } => (username.clone(), password.reveal().to_owned()),
            TurnCredentials::Shared { secret, ttl } => {
                let expiry_s = (wall + *ttl).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let username = format!("{expiry_s}:{}", plain(identity));
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
                let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
                (username, password)
            }
        };
        let urls = config.ice.turn_urls.clone();
        servers.push(IceServer { urls, username: Some(username), credential: Some(credential) });
    }
    servers
}

/// What may stand in a user name and in a header.
fn plain(identity: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text: String = identity.chars().filter(fits).take(IDENTITY_MAX).collect();
    if text.is_empty() { "client".to_owned() } else { text }
}

/// RFC 9725 §4.6: a `Link` for each address.
pub fn links(servers: &[IceServer]) -> Vec<String> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let link = |server: &IceServer, url: &String| match (&server.username, &server.credential) {
        (Some(username), Some(credential)) => {
            let (username, credential) = (quoted(username), quoted(credential));
            let secret = format!("username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"");
            format!("<{url}>; rel=\"ice-server\"; {secret}")
        }
        _ => format!("<{url}>; rel=\"ice-server\""),
    };
    servers.iter().flat_map(|server| server.urls.iter().map(move |url| link(server, url))).collect()
}

impl AppState {
    /// The servers for a client that was let in.
    pub fn ice_servers(&self, identity: Option<&str>) -> Vec<IceServer> {
        ice_servers(&self.config, clock::wall(), Some(identity.unwrap_or_default()))
    }
}

/// `GET /api/ice-servers`.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/ice-servers", get(list)).layer(CorsLayer::permissive())
}

/// Who may come into no room gets no relay.
async fn list(State(state): State<AppState>, shown: Shown) -> Response {
    match state.door.admit_anywhere(&shown).await {
        Ok(grant) => {
            let servers = state.ice_servers(grant.identity.as_deref());
            ([(header::CACHE_CONTROL, "no-store")], Json(json!({"iceServers": servers}))).into_response()
        }
        Err(denied) => denied.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ice::Ice;

    fn config(turn: TurnCredentials) -> Config {
        let (stun_urls, turn_urls) = (Some(vec!["stun:s.example".into()]), vec!["turn:t.example?transport=udp".into()]);
        Config { ice: Ice { stun_urls, turn_urls, turn: Some(turn) }, ..Config::defaults() }
    }

    #[test]
    fn shared_secrets_make_credentials_that_expire() {
        let config = config(TurnCredentials::Shared { secret: "north".into(), ttl: Duration::from_secs(3600) });
        let servers = ice_servers(&config, UNIX_EPOCH + Duration::from_secs(1_000_000), Some("a na\"ü"));
        let shown = serde_json::to_value(&servers).unwrap();
        // Made with: printf 1003600:ana | openssl dgst -sha1 -hmac north -binary | base64
        let turn = json!({"urls": ["turn:t.example?transport=udp"], "username": "1003600:ana", "credential": "KXWD2a4Aj3z55UDDgasdVMG7d+M="});
        assert_eq!(shown, json!([{"urls": ["stun:s.example"]}, turn]));
        assert_eq!(ice_servers(&config, UNIX_EPOCH, None).len(), 1);
    }

    #[test]
    fn links_name_one_address_each() {
        let config = config(TurnCredentials::Static { username: "u\"s".into(), password: "p\\w".into() });
        let links = links(&ice_servers(&config, UNIX_EPOCH, Some("ana")));
        let turn = r#"<turn:t.example?transport=udp>; rel="ice-server"; username="u\"s"; credential="p\\w"; credential-type="password""#;
        assert_eq!(links, [r#"<stun:s.example>; rel="ice-server""#, turn]);
    }

    #[test]
    fn without_urls_of_their_own_clients_ask_the_servers_we_ask() {
        let servers = ice_servers(&Config::defaults(), UNIX_EPOCH, Some(""));
        assert_eq!(servers[0].urls, ["stun:stun.l.google.com:19302"]);
    }
}
