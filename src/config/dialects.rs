//! What the programs we stand in for have settings for: rooms, limits and times of SFU-Go, ports and calls of Gryt.

use std::net::IpAddr;
use std::time::Duration;

use super::source::{Group, Sources};
use super::{ConfigError, parse};

/// More rooms or places than one process can serve; a larger value is a typing error.
const COUNT_LIMIT: usize = 1_000_000;
/// More messages per second are no signalling.
const MESSAGES_LIMIT: usize = 100_000;
/// Longer nobody waits for a picture.
const RENEGOTIATION_DELAY_MS_LIMIT: usize = 10_000;
/// More often nothing new is known.
const STATS_INTERVAL_MS_MIN: usize = 100;
/// A day.
const MS_LIMIT: usize = 86_400_000;
/// The same.
const SECONDS_LIMIT: u64 = 86_400;
/// Longest name of an instance.
const NAME_MAX: usize = 128;

/// Which of two bodies `GET /api/rooms` has: the programs contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomsApi {
    /// SFU-Go's object with rooms to create and delete.
    SfuGo,
    /// go-live's array.
    GoLive,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialects {
    /// Rooms at once; `None`: 1000, or as many as there are seats.
    pub rooms_max: Option<usize>,
    /// Peers of a room; `None`: as many as there are seats.
    pub room_places: Option<usize>,
    /// Messages per second of an SFU-Go client; more get an error and are dropped.
    pub messages_per_s: u32,
    /// So many may come at once.
    pub messages_burst: u32,
    /// Tracks that come or go within it are one wish for an offer.
    pub renegotiation_delay: Duration,
    /// Between two words on everybody's connection.
    pub stats_interval: Duration,
    /// How long an SFU-Go client whose socket is gone may come back.
    pub session_ttl: Duration,
    /// SFU-Go clients receive all tracks; else those they subscribe to.
    pub auto_subscribe: bool,
    /// Name of this server among others.
    pub instance_id: String,
    /// What `/api/rooms` speaks.
    pub rooms_api: RoomsApi,
    /// Where Gryt's servers connect, if not at the main port.
    pub control_port: Option<u16>,
    /// Address of that; `None`: all.
    pub control_host: Option<IpAddr>,
    /// Metrics are shown.
    pub metrics: bool,
    /// Metrics also have a port of their own.
    pub metrics_port: Option<u16>,
    /// Address of that; `None`: all.
    pub metrics_host: Option<IpAddr>,
    /// Where metrics are found there.
    pub metrics_path: String,
    /// A call that one person is alone in ends then; zero: never.
    pub call_alone_timeout: Duration,
}

impl Default for Dialects {
    fn default() -> Self {
        Self {
            rooms_max: None,
            room_places: None,
            messages_per_s: 20,
            messages_burst: 40,
            renegotiation_delay: Duration::from_millis(150),
            stats_interval: Duration::from_secs(3),
            session_ttl: Duration::from_secs(120),
            auto_subscribe: true,
            instance_id: "tramline".to_owned(),
            rooms_api: RoomsApi::SfuGo,
            control_port: None,
            control_host: None,
            metrics: true,
            metrics_port: None,
            metrics_host: None,
            metrics_path: "/metrics".to_owned(),
            call_alone_timeout: Duration::from_secs(120),
        }
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Rooms at once [env: SFU_MAX_ROOMS] [default: 1000, or as many as there are seats]
    #[arg(long, value_name = "N")]
    max_rooms: Option<String>,
    /// Peers of one room, without WHEP's viewers; 0: as many as there are seats [env: SFU_MAX_PEERS_PER_ROOM] [default: 0]
    #[arg(long, value_name = "N")]
    max_room_peers: Option<String>,
    /// Messages per second of an SFU-Go client; more are dropped with error 429 [env: SFU_RATE_LIMIT_PER_SEC] [default: 20]
    #[arg(long, value_name = "N")]
    message_rate: Option<String>,
    /// Messages of such a client that may come at once [env: SFU_RATE_LIMIT_BURST] [default: 40]
    #[arg(long, value_name = "N")]
    message_burst: Option<String>,
    /// Milliseconds for which changes are collected before an SFU-Go client is asked to offer [env: SFU_RENEGOTIATION_DELAY_MS] [default: 150]
    #[arg(long, value_name = "MS")]
    renegotiation_delay: Option<String>,
    /// Milliseconds between two quality-stats [env: SFU_STATS_INTERVAL_MS] [default: 3000]
    #[arg(long, value_name = "MS")]
    stats_interval: Option<String>,
    /// Seconds in which an SFU-Go client whose socket is gone may come back [env: SFU_SESSION_TTL_SEC] [default: 120]
    #[arg(long, value_name = "SECONDS")]
    session_ttl: Option<String>,
    /// SFU-Go clients receive every track, also what they do not subscribe to: true or false [env: SFU_AUTO_SUBSCRIBE] [default: true]
    #[arg(long, value_name = "BOOL")]
    auto_subscribe: Option<String>,
    /// Name of this server among others, shown by /health [env: INSTANCE_ID, HOSTNAME] [default: tramline]
    #[arg(long, value_name = "NAME")]
    instance_id: Option<String>,
    /// What GET /api/rooms answers: sfu-go (an object) or golive (an array) [env: DIALECT_ROOMS] [default: sfu-go]
    #[arg(long, value_name = "NAME")]
    rooms_api: Option<String>,
    /// Port of its own for Gryt's servers (/server); 0: the main one [env: SFU_CONTROL_PORT] [default: 0]
    #[arg(long, value_name = "PORT")]
    control_port: Option<String>,
    /// Address of that port [env: SFU_CONTROL_HOST] [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "IP")]
    control_host: Option<String>,
    /// Shows metrics: true or false [env: METRICS_ENABLED] [default: true]
    #[arg(long, value_name = "BOOL")]
    metrics: Option<String>,
    /// Port of its own for metrics, beside /metrics on the main one; 0: none [env: SFU_METRICS_PORT, METRICS_PORT] [default: 0]
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Address of that port [env: SFU_METRICS_HOST] [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "IP")]
    metrics_host: Option<String>,
    /// Path of metrics on that port [env: METRICS_PATH] [default: /metrics]
    #[arg(long, value_name = "PATH")]
    metrics_path: Option<String>,
    /// Seconds after which a Gryt call ends that one person is alone in; 0: never [env: SFU_CALL_ALONE_TIMEOUT] [default: 120]
    #[arg(long, value_name = "SECONDS")]
    call_alone_timeout: Option<String>,
}

impl Group for Dialects {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let mut read = Self::default();
        read.read_rooms(flags, from)?;
        read.read_clients(flags, from)?;
        read.read_ports(flags, from)?;
        Ok(read)
    }
}

impl Dialects {
    fn read_rooms(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        if let Some(text) = from.first(&flags.max_rooms, "--max-rooms", &["SFU_MAX_ROOMS"]) {
            self.rooms_max = Some(text.read(|s| parse::count(s, 1, COUNT_LIMIT))?);
        }
        if let Some(text) = from.first(&flags.max_room_peers, "--max-room-peers", &["SFU_MAX_PEERS_PER_ROOM"]) {
            self.room_places = Some(text.read(|s| parse::count(s, 0, COUNT_LIMIT))?).filter(|places| *places > 0);
        }
        if let Some(text) = from.first(&flags.rooms_api, "--rooms-api", &["DIALECT_ROOMS"]) {
            self.rooms_api = text.read(rooms_api)?;
        }
        if let Some(text) = from.first(&flags.call_alone_timeout, "--call-alone-timeout", &["SFU_CALL_ALONE_TIMEOUT"]) {
            let seconds = text.read(|s| parse::count(s.strip_suffix('s').unwrap_or(s), 0, SECONDS_LIMIT as usize))?;
            self.call_alone_timeout = Duration::from_secs(seconds as u64);
        }
        if let Some(text) = from.first(&flags.instance_id, "--instance-id", &["INSTANCE_ID", "HOSTNAME"]) {
            self.instance_id = text.read(instance_id)?;
        }
        Ok(())
    }

    fn read_clients(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        if let Some(text) = from.first(&flags.message_rate, "--message-rate", &["SFU_RATE_LIMIT_PER_SEC"]) {
            self.messages_per_s = text.read(|s| parse::count(s, 1, MESSAGES_LIMIT))? as u32;
        }
        if let Some(text) = from.first(&flags.message_burst, "--message-burst", &["SFU_RATE_LIMIT_BURST"]) {
            self.messages_burst = text.read(|s| parse::count(s, 1, MESSAGES_LIMIT))? as u32;
        }
        if let Some(text) =
            from.first(&flags.renegotiation_delay, "--renegotiation-delay", &["SFU_RENEGOTIATION_DELAY_MS"])
        {
            let ms = text.read(|s| milliseconds(s, 0, RENEGOTIATION_DELAY_MS_LIMIT))?;
            self.renegotiation_delay = ms;
        }
        if let Some(text) = from.first(&flags.stats_interval, "--stats-interval", &["SFU_STATS_INTERVAL_MS"]) {
            self.stats_interval = text.read(|s| milliseconds(s, STATS_INTERVAL_MS_MIN, MS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.session_ttl, "--session-ttl", &["SFU_SESSION_TTL_SEC"]) {
            self.session_ttl = text.read(|s| parse::seconds(s, SECONDS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.auto_subscribe, "--auto-subscribe", &["SFU_AUTO_SUBSCRIBE"]) {
            self.auto_subscribe = text.read(parse::boolean)?;
        }
        Ok(())
    }

    fn read_ports(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        const METRICS: [&str; 2] = ["SFU_METRICS_PORT", "METRICS_PORT"];
        let used = |port: u16| Some(port).filter(|port| *port > 0);
        if let Some(text) = from.first(&flags.control_port, "--control-port", &["SFU_CONTROL_PORT"]) {
            self.control_port = used(text.read(parse::port)?);
        }
        if let Some(text) = from.first(&flags.control_host, "--control-host", &["SFU_CONTROL_HOST"]) {
            self.control_host = text.read(parse::host)?;
        }
        if let Some(text) = from.first(&flags.metrics, "--metrics", &["METRICS_ENABLED"]) {
            self.metrics = text.read(parse::boolean)?;
        }
        if let Some(text) = from.first(&flags.metrics_port, "--metrics-port", &METRICS) {
            from.note_choice("metrics port", &text, &METRICS);
            self.metrics_port = used(text.read(parse::port)?);
        }
        if let Some(text) = from.first(&flags.metrics_host, "--metrics-host", &["SFU_METRICS_HOST"]) {
            self.metrics_host = text.read(parse::host)?;
        }
        if let Some(text) = from.first(&flags.metrics_path, "--metrics-path", &["METRICS_PATH"]) {
            self.metrics_path = text.read(path)?;
        }
        Ok(())
    }
}

fn milliseconds(text: &str, min: usize, max: usize) -> Result<Duration, String> {
    let number = parse::count(text.strip_suffix("ms").unwrap_or(text), min, max);
    let ms = number.map_err(|_| format!("a whole number of milliseconds from {min} to {max}"))?;
    Ok(Duration::from_millis(ms as u64))
}

fn rooms_api(text: &str) -> Result<RoomsApi, String> {
    match text.to_ascii_lowercase().as_str() {
        "sfu-go" | "sfugo" => Ok(RoomsApi::SfuGo),
        "golive" | "go-live" => Ok(RoomsApi::GoLive),
        _ => Err("sfu-go or golive".to_owned()),
    }
}

fn instance_id(text: &str) -> Result<String, String> {
    let is_name = text.len() <= NAME_MAX && text.chars().all(|c| !c.is_control());
    if is_name { Ok(text.to_owned()) } else { Err(format!("a name of at most {NAME_MAX} bytes")) }
}

/// A path that is one for the router as well: no braces.
fn path(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let is_path = text.starts_with('/') && text.chars().all(is_plain);
    if is_path { Ok(text.to_owned()) } else { Err("a path like /metrics".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Dialects, String> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Dialects::read(&Flags::default(), &mut Sources::new(&lookup)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_names_of_both_programs_are_read() {
        assert_eq!(read(&[]), Ok(Dialects::default()));
        let all = [
            ("SFU_MAX_ROOMS", "5"),
            ("SFU_MAX_PEERS_PER_ROOM", "6"),
            ("SFU_RATE_LIMIT_PER_SEC", "7"),
            ("SFU_RATE_LIMIT_BURST", "8"),
            ("SFU_RENEGOTIATION_DELAY_MS", "9"),
            ("SFU_STATS_INTERVAL_MS", "1000"),
            ("SFU_SESSION_TTL_SEC", "11"),
            ("SFU_AUTO_SUBSCRIBE", "false"),
            ("INSTANCE_ID", "a"),
            ("HOSTNAME", "b"),
            ("DIALECT_ROOMS", "golive"),
            ("SFU_CONTROL_PORT", "12"),
            ("SFU_CONTROL_HOST", "127.0.0.1"),
            ("METRICS_ENABLED", "false"),
            ("METRICS_PORT", "13"),
            ("SFU_METRICS_HOST", "127.0.0.1"),
            ("METRICS_PATH", "/m"),
            ("SFU_CALL_ALONE_TIMEOUT", "0"),
        ];
        let localhost = Some(IpAddr::from([127, 0, 0, 1]));
        let want = Dialects {
            rooms_max: Some(5),
            room_places: Some(6),
            messages_per_s: 7,
            messages_burst: 8,
            renegotiation_delay: Duration::from_millis(9),
            stats_interval: Duration::from_secs(1),
            session_ttl: Duration::from_secs(11),
            auto_subscribe: false,
            instance_id: "a".into(),
            rooms_api: RoomsApi::GoLive,
            control_port: Some(12),
            control_host: localhost,
            metrics: false,
            metrics_port: Some(13),
            metrics_host: localhost,
            metrics_path: "/m".into(),
            call_alone_timeout: Duration::ZERO,
        };
        assert_eq!(read(&all), Ok(want));
        assert_eq!(read(&[("SFU_METRICS_PORT", "0"), ("METRICS_PORT", "9")]).unwrap().metrics_port, None);
    }

    #[test]
    fn bad_values_are_refused_in_words() {
        for (name, value, word) in [
            ("SFU_MAX_ROOMS", "0", "from 1"),
            ("SFU_STATS_INTERVAL_MS", "1", "milliseconds"),
            ("DIALECT_ROOMS", "both", "sfu-go or golive"),
            ("METRICS_PATH", "metrics", "a path"),
            ("METRICS_PATH", "/{m}", "a path"),
            ("SFU_CONTROL_PORT", "x", "port"),
        ] {
            assert!(read(&[(name, value)]).unwrap_err().contains(word), "{name}");
        }
    }
}
