//! Every setting: flag, variable, unit, default.
//!
//! Owns: what was asked of the program at its start, checked. Sources, strongest first: flag, process environment,
//! `.env`, `config.env`. An empty variable counts as unset.
//! Promises: a [`Config`] that exists is usable; a value that is not stops the start with one sentence.
//! Forbids: sockets, name resolution.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Parser;

use crate::base::train::TrainLimits;

pub mod dialects;
mod parse;

/// HTTP port of Gryt's SFU.
const HTTP_PORT: u16 = 5005;
/// Media port of Gryt's SFU: the STUN port, which most firewalls know.
const MEDIA_PORT: u16 = 3478;
/// Gryt's documented seat count.
const MAX_CONNECTIONS: usize = 1000;
/// More seats than one process can serve; a larger value is a typing error.
const MAX_CONNECTIONS_LIMIT: usize = 1_000_000;
/// Workers that wake each other are the bits of a word.
const WORKERS_LIMIT: usize = 64;
/// Gryt's default STUN server.
const STUN_SERVER: &str = "stun:stun.l.google.com:19302";
/// More padding than that is no equalising any more.
const TRAIN_PADDING_PERCENT_LIMIT: usize = 25;
/// Longer would be heard and seen.
const TRAIN_HOLD_US_LIMIT: usize = 5000;
/// More people at once nobody can follow, and most calls are smaller and so not touched at all.
const AUDIO_LOUDEST: usize = 8;
/// Each packet of a voice looks at all places; more of them than that are as good as none.
const AUDIO_LOUDEST_LIMIT: usize = 64;
/// A day; longer pauses between pings detect nothing.
const SECONDS_LIMIT: u64 = 86_400;

/// A setting that cannot be used, said in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Ports of the media sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaPorts {
    /// One port for every worker (`ICE_UDP_MUX_PORT`); 0 takes any free one.
    Single(u16),
    /// One port per worker from `min` up (`ICE_UDP_PORT_MIN`, `ICE_UDP_PORT_MAX`).
    Range {
        /// First port.
        min: u16,
        /// Last port.
        max: u16,
    },
}

/// What carries media to and from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring, or the other one where that is refused.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// sendmmsg and recvmmsg.
    Mmsg,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Loudness of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a hand.
    Error,
    /// And what is odd.
    Warn,
    /// And what a day of operation is made of.
    Info,
    /// And every peer.
    Debug,
    /// And every packet.
    Trace,
}

/// A server that tells the public address of the media port (RFC 8489).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

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
    pub admin_token: Option<String>,
    /// Peers may be put behind bad networks (`/api/admin/impair`).
    pub impairments: bool,
    /// What other programs have settings for.
    pub dialects: dialects::Dialects,
    /// Sentences for the log, once it is set up: which of several variables won.
    pub notes: Vec<String>,
    /// Sentences for the log that deserve a look.
    pub warnings: Vec<String>,
}

/// The flags as typed; texts here, so that a bad value is said the same way from wherever it came.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "tramline",
    version,
    about = "Tramline: a WebRTC SFU.",
    after_help = "Every setting is also an environment variable, named in brackets; the first one that is set wins. \
                  A flag wins over the environment, the environment over ./.env, that over ./config.env."
)]
struct Flags {
    /// Port of the page, HTTP and WebSocket; 0 takes any free one [env: SFU_PORT, PORT, or HTTP_ADDR as ":8080"] [default: 5005]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Address of the page, HTTP and WebSocket [env: SFU_HOST] [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "IP")]
    bind: Option<String>,
    /// Local addresses of the media sockets, at most one IPv4 and one IPv6 [env: MEDIA_HOST] [default: all]
    #[arg(long, value_name = "IPS")]
    media_bind: Option<String>,
    /// The one UDP port of media; 0 takes any free one [env: ICE_UDP_MUX_PORT] [default: 3478]
    #[arg(long, value_name = "PORT")]
    media_port: Option<String>,
    /// First of a range of UDP ports, one per worker, instead of the one port [env: ICE_UDP_PORT_MIN]
    #[arg(long, value_name = "PORT")]
    media_port_min: Option<String>,
    /// Last of that range [env: ICE_UDP_PORT_MAX]
    #[arg(long, value_name = "PORT")]
    media_port_max: Option<String>,
    /// Exactly the IP addresses that peers are told, comma list [env: ICE_ADVERTISE_IP] [default: those of the interfaces]
    #[arg(long, value_name = "IPS")]
    advertise_ip: Option<String>,
    /// STUN servers asked for the public address, comma list [env: STUN_SERVERS] [default: stun:stun.l.google.com:19302]
    #[arg(long, value_name = "URLS")]
    stun_servers: Option<String>,
    /// Do not ask for the public address: true or false [env: DISABLE_STUN] [default: true if addresses are advertised]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    disable_stun: Option<String>,
    /// error, warn, info, debug or trace [env: LOG_LEVEL; without it VERBOSE_LOG=true or DEBUG=true mean debug] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [env: LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Peers served at once [env: MAX_PEERS, MAX_CONNECTIONS] [default: 1000]
    #[arg(long, value_name = "N")]
    max_connections: Option<String>,
    /// Media workers, one pinned thread each [env: TRAMLINE_WORKERS] [default: number of cores]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// How media workers talk to the kernel: auto, uring or mmsg; auto falls back to mmsg where io_uring is refused [env: TRAMLINE_IO] [default: auto]
    #[arg(long, value_name = "DRIVER")]
    io: Option<String>,
    /// Padding that may make packets alike, so that they leave together, in percent of their bytes; 0: none [env: TRAMLINE_TRAIN_PADDING] [default: 5]
    #[arg(long, value_name = "PERCENT")]
    train_padding: Option<String>,
    /// Microseconds that a busy worker waits for packets that could leave together; 0: never [env: TRAMLINE_TRAIN_HOLD] [default: 250]
    #[arg(long, value_name = "US")]
    train_hold: Option<String>,
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
        Self::resolve(&flags, &lookup, cores())
    }

    /// The defaults, as with no flag and an empty environment.
    pub fn defaults() -> Self {
        Self {
            http_host: None,
            http_port: HTTP_PORT,
            media_hosts: Vec::new(),
            media_ports: MediaPorts::Single(MEDIA_PORT),
            advertise_ips: Vec::new(),
            stun_servers: parse::stun_servers(STUN_SERVER).unwrap_or_default(),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            max_connections: MAX_CONNECTIONS,
            workers: cores(),
            io: IoDriver::Auto,
            trains: TrainLimits::default(),
            audio_loudest: AUDIO_LOUDEST,
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(90),
            require_client_token: true,
            admin_token: None,
            impairments: false,
            dialects: Default::default(),
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Where the HTTP listener binds, first choice first.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        match self.http_host {
            Some(host) => vec![SocketAddr::new(host, self.http_port)],
            None => vec![
                SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), self.http_port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.http_port),
            ],
        }
    }

    fn resolve(flags: &Flags, lookup: &dyn Fn(&str) -> Option<String>, cores: usize) -> Result<Self, ConfigError> {
        let from = Sources { lookup };
        let mut config = Self { workers: cores, ..Self::defaults() };
        config.read_http(flags, &from)?;
        config.read_media(flags, &from)?;
        config.read_trains(flags, &from)?;
        config.read_logs(flags, &from)?;
        if let Some(text) = from.first(&flags.max_connections, "--max-connections", &["MAX_PEERS", "MAX_CONNECTIONS"]) {
            config.note_choice("seats", &text, from.set(&["MAX_PEERS", "MAX_CONNECTIONS"]));
            config.max_connections = text.read(|s| parse::count(s, 1, MAX_CONNECTIONS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.workers, "--workers", &["TRAMLINE_WORKERS"]) {
            config.workers = text.read(|s| parse::count(s, 1, WORKERS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.io, "--io", &["TRAMLINE_IO"]) {
            config.io = text.read(parse::io_driver)?;
        }
        if let Some(text) = from.first(&flags.audio_loudest, "--audio-loudest", &["AUDIO_LOUDEST"]) {
            config.audio_loudest = text.read(|s| parse::count(s, 0, AUDIO_LOUDEST_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.ping_interval, "--ping-interval", &["SFU_PING_INTERVAL"]) {
            config.ping_interval = text.read(|s| parse::seconds(s, SECONDS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.pong_timeout, "--pong-timeout", &["SFU_PONG_TIMEOUT"]) {
            config.pong_timeout = text.read(|s| parse::seconds(s, SECONDS_LIMIT))?;
        }
        // A timeout below two intervals would cut off peers that answer every ping.
        config.pong_timeout = config.pong_timeout.max(config.ping_interval * 2);
        let token = from.first(&flags.require_client_token, "--require-client-token", &["SFU_REQUIRE_CLIENT_TOKEN"]);
        // As Gryt does: what cannot be read must not open the door.
        config.require_client_token = token.is_none_or(|text| parse::truth(&text.value).unwrap_or(true));
        config.admin_token = from.first(&flags.admin_token, "--admin-token", &["ADMIN_TOKEN"]).map(|text| text.value);
        if let Some(text) = from.first(&flags.impairments, "--impairments", &["TRAMLINE_IMPAIRMENTS"]) {
            config.impairments = text.read(parse::boolean)?;
        }
        Ok(config)
    }

    fn read_http(&mut self, flags: &Flags, from: &Sources<'_>) -> Result<(), ConfigError> {
        const PORTS: [&str; 3] = ["SFU_PORT", "PORT", "HTTP_ADDR"];
        if let Some(text) = from.first(&None, "", &["HTTP_ADDR"]) {
            let (host, port) = text.read(parse::listen_address)?;
            (self.http_host, self.http_port) = (host, port);
        }
        if let Some(text) = from.first(&flags.port, "--port", &PORTS) {
            if text.name != "HTTP_ADDR" {
                self.http_port = text.read(parse::port)?;
            }
            self.note_choice("HTTP port", &text, from.set(&PORTS));
        }
        if let Some(text) = from.first(&flags.bind, "--bind", &["SFU_HOST"]) {
            self.http_host = text.read(parse::host)?;
        }
        Ok(())
    }

    fn read_media(&mut self, flags: &Flags, from: &Sources<'_>) -> Result<(), ConfigError> {
        if let Some(text) = from.first(&flags.media_bind, "--media-bind", &["MEDIA_HOST"]) {
            self.media_hosts = text.read(parse::media_hosts)?;
        }
        let single = from.first(&flags.media_port, "--media-port", &["ICE_UDP_MUX_PORT"]);
        let min = from.first(&flags.media_port_min, "--media-port-min", &["ICE_UDP_PORT_MIN"]);
        let max = from.first(&flags.media_port_max, "--media-port-max", &["ICE_UDP_PORT_MAX"]);
        self.media_ports = media_ports(single, min, max)?;
        if let Some(text) = from.first(&flags.advertise_ip, "--advertise-ip", &["ICE_ADVERTISE_IP"]) {
            let (addresses, dropped) = parse::advertised(&text.value);
            for entry in dropped {
                self.warnings.push(format!("{}: `{entry}` is not an IP address and was dropped.", text.name));
            }
            if addresses.is_empty() {
                return Err(text.refuse("a comma-separated list with at least one IP address"));
            }
            self.advertise_ips = addresses;
        }
        if let Some(text) = from.first(&flags.stun_servers, "--stun-servers", &["STUN_SERVERS"]) {
            self.stun_servers = text.read(parse::stun_servers)?;
        }
        let disabled = match from.first(&flags.disable_stun, "--disable-stun", &["DISABLE_STUN"]) {
            Some(text) => text.read(parse::boolean)?,
            None => !self.advertise_ips.is_empty(),
        };
        if disabled {
            self.stun_servers.clear();
        }
        Ok(())
    }

    fn read_trains(&mut self, flags: &Flags, from: &Sources<'_>) -> Result<(), ConfigError> {
        if let Some(text) = from.first(&flags.train_padding, "--train-padding", &["TRAMLINE_TRAIN_PADDING"]) {
            self.trains.padding_percent_max = text.read(|s| parse::count(s, 0, TRAIN_PADDING_PERCENT_LIMIT))? as u8;
        }
        if let Some(text) = from.first(&flags.train_hold, "--train-hold", &["TRAMLINE_TRAIN_HOLD"]) {
            let hold_us = text.read(|s| parse::count(s, 0, TRAIN_HOLD_US_LIMIT))?;
            self.trains.hold_max = Duration::from_micros(hold_us as u64);
        }
        Ok(())
    }

    fn read_logs(&mut self, flags: &Flags, from: &Sources<'_>) -> Result<(), ConfigError> {
        // DEBUG belongs to many programs (`DEBUG=app:*`): only a clear yes counts.
        let verbose = ["VERBOSE_LOG", "DEBUG"]
            .iter()
            .any(|name| from.first(&None, "", &[name]).is_some_and(|text| parse::truth(&text.value) == Some(true)));
        if verbose {
            self.log_level = LogLevel::Debug;
        }
        if let Some(text) = from.first(&flags.log_level, "--log-level", &["LOG_LEVEL"]) {
            self.log_level = text.read(parse::log_level)?;
        }
        if let Some(text) = from.first(&flags.log_format, "--log-format", &["LOG_FORMAT"]) {
            self.log_format = text.read(parse::log_format)?;
        }
        Ok(())
    }

    fn note_choice(&mut self, what: &str, winner: &Setting, set: Vec<&'static str>) {
        let losers: Vec<&str> = set.into_iter().filter(|name| *name != winner.name).collect();
        let over = if losers.is_empty() { String::new() } else { format!(", over {}", losers.join(", ")) };
        self.notes.push(format!("{what} from {}={}{over}.", winner.name, winner.value));
    }
}

impl LogLevel {
    /// The word as `LOG_LEVEL` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
struct Setting {
    name: &'static str,
    value: String,
}

impl Setting {
    /// The parsed value, or the sentence: which setting, what was read, what is allowed.
    fn read<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        parse(self.value.trim()).map_err(|allowed| self.refuse(&allowed))
    }

    fn refuse(&self, allowed: &str) -> ConfigError {
        ConfigError(format!("{} is `{}`, but must be {allowed}.", self.name, self.value))
    }
}

struct Sources<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Sources<'_> {
    /// The flag, else the first variable that is set.
    fn first(&self, flag: &Option<String>, flag_name: &'static str, names: &[&'static str]) -> Option<Setting> {
        if let Some(value) = flag {
            return Some(Setting { name: flag_name, value: value.clone() });
        }
        names.iter().find_map(|name| self.value(name).map(|value| Setting { name, value }))
    }

    /// Those of the variables that are set.
    fn set(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.value(name).is_some()).collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }
}

fn media_ports(single: Option<Setting>, min: Option<Setting>, max: Option<Setting>) -> Result<MediaPorts, ConfigError> {
    match (single, min, max) {
        (None, None, None) => Ok(MediaPorts::Single(MEDIA_PORT)),
        (Some(port), None, None) => Ok(MediaPorts::Single(port.read(parse::port)?)),
        (Some(port), Some(range), _) | (Some(port), None, Some(range)) => Err(ConfigError(format!(
            "{} is `{}` and {} is `{}`, but only one of the single port and the range may be set.",
            port.name, port.value, range.name, range.value
        ))),
        (None, Some(min), Some(max)) => {
            let (first, last) = (min.read(parse::range_port)?, max.read(parse::range_port)?);
            if first > last {
                return Err(max.refuse(&format!("a port of at least {first}, which is {}", min.name)));
            }
            Ok(MediaPorts::Range { min: first, max: last })
        }
        (None, Some(only), None) => Err(half_a_range(&only, "ICE_UDP_PORT_MAX")),
        (None, None, Some(only)) => Err(half_a_range(&only, "ICE_UDP_PORT_MIN")),
    }
}

fn half_a_range(only: &Setting, missing: &str) -> ConfigError {
    ConfigError(format!("{} is `{}`, but a range also needs {missing}.", only.name, only.value))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_LIMIT)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    format!("{} (see --help).", line.strip_prefix("error: ").unwrap_or(line).trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        read_with(&[], env)
    }

    fn read_with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = Flags::try_parse_from(std::iter::once("tramline").chain(args.iter().copied()))
            .map_err(|error| ConfigError(first_line(&error.to_string())))?;
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::resolve(&flags, &lookup, 4)
    }

    fn refusal(env: &[(&str, &str)]) -> String {
        read(env).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_gives_gryts_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config, Config { workers: 4, ..Config::defaults() });
        assert_eq!(config.http_port, 5005);
        assert_eq!(config.media_ports, MediaPorts::Single(3478));
        assert_eq!(config.stun_servers, [StunServer { host: "stun.l.google.com".into(), port: 19302 }]);
    }

    #[test]
    fn sfu_port_wins_over_port_and_both_over_http_addr() {
        let all = [("SFU_PORT", "1"), ("PORT", "2"), ("HTTP_ADDR", "127.0.0.1:3")];
        let config = read(&all).unwrap();
        assert_eq!(config.http_port, 1);
        assert_eq!(config.notes, ["HTTP port from SFU_PORT=1, over PORT, HTTP_ADDR."]);
        assert_eq!(read(&all[1..]).unwrap().http_port, 2);
        let config = read(&all[2..]).unwrap();
        assert_eq!((config.http_host, config.http_port), (Some("127.0.0.1".parse().unwrap()), 3));
        assert_eq!(read_with(&["--port", "9"], &all).unwrap().http_port, 9);
    }

    #[test]
    fn an_empty_variable_is_unset() {
        assert_eq!(read(&[("SFU_PORT", " "), ("PORT", "7"), ("LOG_LEVEL", "")]).unwrap().http_port, 7);
    }

    #[test]
    fn a_bad_value_is_one_sentence_with_name_value_and_what_is_allowed() {
        assert_eq!(refusal(&[("PORT", "70000")]), "PORT is `70000`, but must be a port number from 0 to 65535.");
        let text = read_with(&["--workers", "0"], &[]).unwrap_err().to_string();
        assert_eq!(text, "--workers is `0`, but must be a whole number from 1 to 64.");
        assert_eq!(
            refusal(&[("LOG_LEVEL", "loud")]),
            "LOG_LEVEL is `loud`, but must be error, warn, info, debug or trace."
        );
        assert_eq!(refusal(&[("DISABLE_STUN", "maybe")]), "DISABLE_STUN is `maybe`, but must be true or false.");
        assert!(refusal(&[("ICE_UDP_MUX_PORT", "-1")]).starts_with("ICE_UDP_MUX_PORT is `-1`"));
        let text = read_with(&["--nonsense"], &[]).unwrap_err().to_string();
        assert_eq!(text, "unexpected argument '--nonsense' found (see --help).");
    }

    #[test]
    fn a_range_and_a_single_port_exclude_each_other() {
        let range = [("ICE_UDP_PORT_MIN", "40000"), ("ICE_UDP_PORT_MAX", "40003"), ("ICE_UDP_MUX_PORT", "3478")];
        assert_eq!(read(&range[..2]).unwrap().media_ports, MediaPorts::Range { min: 40000, max: 40003 });
        assert!(refusal(&range).contains("only one of"));
        assert!(refusal(&range[..1]).contains("also needs ICE_UDP_PORT_MAX"));
        assert!(
            refusal(&[("ICE_UDP_PORT_MIN", "9"), ("ICE_UDP_PORT_MAX", "8")]).starts_with("ICE_UDP_PORT_MAX is `8`")
        );
    }

    #[test]
    fn advertised_addresses_are_exact_and_turn_stun_off() {
        let config = read(&[("ICE_ADVERTISE_IP", "203.0.113.5, host.example ,2001:db8::5")]).unwrap();
        assert_eq!(config.advertise_ips, ["203.0.113.5".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
        assert_eq!(config.warnings.len(), 1);
        assert!(config.stun_servers.is_empty());
        assert!(
            !read(&[("ICE_ADVERTISE_IP", "203.0.113.5"), ("DISABLE_STUN", "false")]).unwrap().stun_servers.is_empty()
        );
        assert!(refusal(&[("ICE_ADVERTISE_IP", "a,b")]).contains("at least one IP address"));
    }

    #[test]
    fn the_driver_is_chosen_by_name() {
        assert_eq!(read_with(&["--io", "uring"], &[("TRAMLINE_IO", "mmsg")]).unwrap().io, IoDriver::Uring);
        assert_eq!(read(&[("TRAMLINE_IO", "MMSG")]).unwrap().io, IoDriver::Mmsg);
        assert_eq!(refusal(&[("TRAMLINE_IO", "epoll")]), "TRAMLINE_IO is `epoll`, but must be auto, uring or mmsg.");
    }

    #[test]
    fn everybody_may_be_heard() {
        assert_eq!(read(&[]).unwrap().audio_loudest, AUDIO_LOUDEST);
        assert_eq!(read_with(&["--audio-loudest", "0"], &[("AUDIO_LOUDEST", "3")]).unwrap().audio_loudest, 0);
        assert!(refusal(&[("AUDIO_LOUDEST", "65")]).starts_with("AUDIO_LOUDEST is `65`"));
    }

    #[test]
    fn trains_may_be_made_to_cost_nothing() {
        let config = read(&[("TRAMLINE_TRAIN_PADDING", "0"), ("TRAMLINE_TRAIN_HOLD", "0")]).unwrap();
        assert_eq!(config.trains, TrainLimits { padding_percent_max: 0, hold_max: Duration::ZERO });
        let config = read_with(&["--train-padding", "3", "--train-hold", "100"], &[]).unwrap();
        assert_eq!(config.trains, TrainLimits { padding_percent_max: 3, hold_max: Duration::from_micros(100) });
        let text = refusal(&[("TRAMLINE_TRAIN_PADDING", "26")]);
        assert_eq!(text, "TRAMLINE_TRAIN_PADDING is `26`, but must be a whole number from 0 to 25.");
    }

    #[test]
    fn max_peers_wins_over_max_connections() {
        assert_eq!(read(&[("MAX_PEERS", "5"), ("MAX_CONNECTIONS", "6")]).unwrap().max_connections, 5);
    }

    #[test]
    fn the_pong_timeout_is_at_least_two_intervals() {
        let config = read(&[("SFU_PING_INTERVAL", "60"), ("SFU_PONG_TIMEOUT", "10")]).unwrap();
        assert_eq!(config.pong_timeout, Duration::from_secs(120));
    }

    #[test]
    fn an_unreadable_token_switch_keeps_the_door_closed() {
        assert!(read(&[("SFU_REQUIRE_CLIENT_TOKEN", "nope?")]).unwrap().require_client_token);
        assert!(!read(&[("SFU_REQUIRE_CLIENT_TOKEN", "false")]).unwrap().require_client_token);
    }

    #[test]
    fn verbose_log_means_debug_unless_a_level_is_set() {
        assert_eq!(read(&[("VERBOSE_LOG", "true")]).unwrap().log_level, LogLevel::Debug);
        assert_eq!(read(&[("DEBUG", "app:*")]).unwrap().log_level, LogLevel::Info);
        assert_eq!(read(&[("DEBUG", "1"), ("LOG_LEVEL", "warn")]).unwrap().log_level, LogLevel::Warn);
    }

    #[test]
    fn the_help_is_well_formed() {
        use clap::CommandFactory;
        Flags::command().debug_assert();
    }
}
