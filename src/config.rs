//! Every setting: flag, variable, unit, default.
//!
//! Owns: what was asked of the program at its start, checked. Sources, strongest first: flag, process environment,
//! `.env`, `config.env`. An empty variable counts as unset.
//! Promises: a [`Config`] that exists is usable; a value that is not stops the start with one sentence.
//! Forbids: sockets, name resolution.
//!
//! What belongs together lies in one file under `config/`: its flags, its limits, how it is read. A new group is such a
//! file with a struct that implements [`source::Group`], and one line in `groups!` below; the settings are then in the
//! field of that name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;

use self::source::Sources;
use crate::base::train::TrainLimits;

mod http;
mod logs;
mod media;
mod parse;
mod peers;
mod secret;
mod source;
#[cfg(test)]
mod tests;

pub use http::addresses;
pub use logs::{LogFormat, LogLevel};
pub use media::{IoDriver, MediaPorts, StunServer};
pub use secret::Secret;

/// A setting that cannot be used, said in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Makes [`Config`] of the settings that lie in it directly, and of the groups: file, type, what it is.
macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident: $Group:ident,)*) => {
        $(pub mod $name;)*

        /// Every setting, checked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            /// Address of HTTP and WebSocket; `None`: all, IPv6 and IPv4.
            pub http_host: Option<IpAddr>,
            /// Port of HTTP and WebSocket; 0 takes any free one.
            pub http_port: u16,
            /// Local addresses of the media sockets, one per family at most; empty: all.
            pub media_hosts: Vec<IpAddr>,
            /// Ports of the media sockets.
            pub media_ports: MediaPorts,
            /// Exactly the addresses that are advertised; empty: those of the interfaces.
            pub advertise_ips: Vec<IpAddr>,
            /// Servers asked for the public address; empty when that is off.
            pub stun_servers: Vec<StunServer>,
            /// Loudness of the log.
            pub log_level: LogLevel,
            /// Form of the log.
            pub log_format: LogFormat,
            /// Peers served at once.
            pub max_connections: usize,
            /// Media workers.
            pub workers: usize,
            /// What carries their datagrams.
            pub io: IoDriver,
            /// What trains may cost.
            pub trains: TrainLimits,
            /// Voices of a room that are heard at once, the loudest; 0: all.
            pub audio_loudest: usize,
            /// Pause between WebSocket pings.
            pub ping_interval: Duration,
            /// Silence after which a WebSocket is closed; at least two ping intervals.
            pub pong_timeout: Duration,
            /// Gryt clients must show a token signed with their server's password.
            pub require_client_token: bool,
            /// Opens `/debug/*`; `None`: they are open.
            pub admin_token: Option<Secret>,
            /// Peers may be put behind bad networks (`/api/admin/impair`).
            pub impairments: bool,
            /// Sentences for the log, once it is set up: which of several variables won.
            pub notes: Vec<String>,
            /// Sentences for the log that deserve a look.
            pub warnings: Vec<String>,
            $($(#[$doc])* pub $name: $name::$Group,)*
        }

        /// The flags as typed; texts, so that a bad value is said the same way from wherever it came.
        #[derive(Clone, Debug, Default, Parser)]
        #[command(
            name = "tramline",
            version,
            about = "Tramline: a WebRTC SFU.",
            after_help = "Every setting is also an environment variable, named in brackets; the first one that is set wins. \
                          A flag wins over the environment, the environment over ./.env, that over ./config.env."
        )]
        struct Flags {
            #[command(flatten)]
            http: http::Flags,
            #[command(flatten)]
            media: media::Flags,
            #[command(flatten)]
            logs: logs::Flags,
            #[command(flatten)]
            peers: peers::Flags,
            $(#[command(flatten)] $name: <$name::$Group as source::Group>::Flags,)*
        }

        impl Config {
            /// The defaults, as with no flag and an empty environment.
            pub fn defaults() -> Self {
                Self {
                    http_host: None,
                    http_port: http::HTTP_PORT,
                    media_hosts: Vec::new(),
                    media_ports: MediaPorts::Single(media::MEDIA_PORT),
                    advertise_ips: Vec::new(),
                    stun_servers: parse::stun_servers(media::STUN_SERVER).unwrap_or_default(),
                    log_level: LogLevel::Info,
                    log_format: LogFormat::Text,
                    max_connections: peers::MAX_CONNECTIONS,
                    workers: media::cores(),
                    io: IoDriver::Auto,
                    trains: TrainLimits::default(),
                    audio_loudest: peers::AUDIO_LOUDEST,
                    ping_interval: Duration::from_secs(30),
                    pong_timeout: Duration::from_secs(90),
                    require_client_token: true,
                    admin_token: None,
                    impairments: false,
                    notes: Vec::new(),
                    warnings: Vec::new(),
                    $($name: Default::default(),)*
                }
            }

            fn read_all(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
                self.read_http(&flags.http, from)?;
                self.read_media(&flags.media, from)?;
                self.read_logs(&flags.logs, from)?;
                self.read_peers(&flags.peers, from)?;
                $(self.$name = source::Group::read(&flags.$name, from)?;)*
                Ok(())
            }
        }
    };
}

groups! {
    /// Who may come in.
    auth: Auth,
    /// How much one address may ask.
    limits: Limits,
    /// The certificate of pages, HTTP and WebSockets.
    tls: Tls,
    /// STUN and TURN servers for clients.
    ice: Ice,
    /// What peers may send.
    ingest: Ingest,
    /// What WHIP publishers and WHEP viewers may do.
    broadcast: Broadcast,
    /// What is recorded.
    record: RecordConfig,
    /// What the programs we stand in for have settings for.
    dialects: Dialects,
}

impl Config {
    /// Reads flags, environment and the two files. Prints and exits for `--help` and `--version`.
    pub fn load() -> Result<Self, ConfigError> {
        let flags = match Flags::try_parse() {
            Ok(flags) => flags,
            Err(error) if !error.use_stderr() => error.exit(),
            Err(error) => return Err(ConfigError(first_line(&error.to_string()))),
        };
        let mut files = HashMap::new();
        for name in [".env", "config.env"] {
            parse::file(name, &mut files)?;
        }
        let lookup =
            |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty()).or_else(|| files.get(name).cloned());
        Self::resolve(&flags, &lookup, media::cores())
    }

    fn resolve(flags: &Flags, lookup: &dyn Fn(&str) -> Option<String>, cores: usize) -> Result<Self, ConfigError> {
        let mut from = Sources::new(lookup);
        let mut config = Self { workers: cores, ..Self::defaults() };
        config.read_all(flags, &mut from)?;
        Ok(Self { notes: from.notes, warnings: from.warnings, ..config })
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    format!("{} (see --help).", line.strip_prefix("error: ").unwrap_or(line).trim_end_matches('.'))
}
