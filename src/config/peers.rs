//! Peers: how many, what they are asked for at the door, and how long they may be silent.

use super::source::Sources;
use super::{Config, ConfigError, Secret, parse};

/// Gryt's documented seat count.
pub(super) const MAX_CONNECTIONS: usize = 1000;
/// More seats than one process can serve; a larger value is a typing error.
const MAX_CONNECTIONS_LIMIT: usize = 1_000_000;
/// More people at once nobody can follow, and most calls are smaller and so not touched at all.
pub(super) const AUDIO_LOUDEST: usize = 8;
/// Each packet of a voice looks at all places; more of them than that are as good as none.
const AUDIO_LOUDEST_LIMIT: usize = 64;
/// A day; longer pauses between pings detect nothing.
const SECONDS_LIMIT: u64 = 86_400;

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Peers served at once [env: MAX_PEERS, MAX_CONNECTIONS] [default: 1000]
    #[arg(long, value_name = "N")]
    max_connections: Option<String>,
    /// Voices of a room that are heard at once, the loudest; 0: all [env: AUDIO_LOUDEST] [default: 8]
    #[arg(long, value_name = "N")]
    audio_loudest: Option<String>,
    /// Seconds between WebSocket pings [env: SFU_PING_INTERVAL] [default: 30]
    #[arg(long, value_name = "SECONDS")]
    ping_interval: Option<String>,
    /// Seconds of silence after which a WebSocket is closed, at least two ping intervals [env: SFU_PONG_TIMEOUT] [default: 90]
    #[arg(long, value_name = "SECONDS")]
    pong_timeout: Option<String>,
    /// Gryt clients need a token signed by their server: true or false [env: SFU_REQUIRE_CLIENT_TOKEN] [default: true]
    #[arg(long, value_name = "BOOL")]
    require_client_token: Option<String>,
    /// Bearer token that opens /debug/*; without it they are open [env: ADMIN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// Lets /api/admin/impair put peers behind bad networks, to try things out; without an admin token everybody may: true or false [env: TRAMLINE_IMPAIRMENTS] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    impairments: Option<String>,
}

impl Config {
    pub(super) fn read_peers(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        const SEATS: [&str; 2] = ["MAX_PEERS", "MAX_CONNECTIONS"];
        if let Some(text) = from.first(&flags.max_connections, "--max-connections", &SEATS) {
            from.note_choice("seats", &text, &SEATS);
            self.max_connections = text.read(|s| parse::count(s, 1, MAX_CONNECTIONS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.audio_loudest, "--audio-loudest", &["AUDIO_LOUDEST"]) {
            self.audio_loudest = text.read(|s| parse::count(s, 0, AUDIO_LOUDEST_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.ping_interval, "--ping-interval", &["SFU_PING_INTERVAL"]) {
            self.ping_interval = text.read(|s| parse::seconds(s, SECONDS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.pong_timeout, "--pong-timeout", &["SFU_PONG_TIMEOUT"]) {
            self.pong_timeout = text.read(|s| parse::seconds(s, SECONDS_LIMIT))?;
        }
        // A timeout below two intervals would cut off peers that answer every ping.
        self.pong_timeout = self.pong_timeout.max(self.ping_interval * 2);
        let token = from.first(&flags.require_client_token, "--require-client-token", &["SFU_REQUIRE_CLIENT_TOKEN"]);
        // As Gryt does: what cannot be read must not open the door.
        self.require_client_token = token.is_none_or(|text| parse::truth(&text.value).unwrap_or(true));
        self.admin_token = from
            .first(&flags.admin_token, "--admin-token", &["ADMIN_TOKEN"])
            .map(|text| Secret::from(text.value.trim()));
        if let Some(text) = from.first(&flags.impairments, "--impairments", &["TRAMLINE_IMPAIRMENTS"]) {
            self.impairments = text.read(parse::boolean)?;
        }
        Ok(())
    }
}
