//! Media: its sockets and addresses, its workers, and how their datagrams leave.

use std::time::Duration;

use super::source::{Setting, Sources};
use super::{Config, ConfigError, parse};

/// Media port of Gryt's SFU: the STUN port, which most firewalls know.
pub(super) const MEDIA_PORT: u16 = 3478;
/// Workers that wake each other are the bits of a word.
pub(super) const WORKERS_LIMIT: usize = 64;
/// Gryt's default STUN server.
pub(super) const STUN_SERVER: &str = "stun:stun.l.google.com:19302";
/// More padding than that is no equalising any more.
const TRAIN_PADDING_PERCENT_LIMIT: usize = 25;
/// Longer would be heard and seen.
const TRAIN_HOLD_US_LIMIT: usize = 5000;

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

/// A server that tells the public address of the media port (RFC 8489).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
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
    /// Exactly the IP addresses that peers are told, comma list [env: ICE_ADVERTISE_IP, SFU_PUBLIC_IP] [default: those of the interfaces]
    #[arg(long, value_name = "IPS")]
    advertise_ip: Option<String>,
    /// STUN servers asked for the public address, comma list [env: STUN_SERVERS] [default: stun:stun.l.google.com:19302]
    #[arg(long, value_name = "URLS")]
    stun_servers: Option<String>,
    /// Do not ask for the public address: true or false [env: DISABLE_STUN] [default: true if addresses are advertised]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    disable_stun: Option<String>,
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
}

impl Config {
    pub(super) fn read_media(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        self.read_addresses(flags, from)?;
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
        if let Some(text) = from.first(&flags.workers, "--workers", &["TRAMLINE_WORKERS"]) {
            self.workers = text.read(|s| parse::count(s, 1, WORKERS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.io, "--io", &["TRAMLINE_IO"]) {
            self.io = text.read(parse::io_driver)?;
        }
        if let Some(text) = from.first(&flags.train_padding, "--train-padding", &["TRAMLINE_TRAIN_PADDING"]) {
            self.trains.padding_percent_max = text.read(|s| parse::count(s, 0, TRAIN_PADDING_PERCENT_LIMIT))? as u8;
        }
        if let Some(text) = from.first(&flags.train_hold, "--train-hold", &["TRAMLINE_TRAIN_HOLD"]) {
            let hold_us = text.read(|s| parse::count(s, 0, TRAIN_HOLD_US_LIMIT))?;
            self.trains.hold_max = Duration::from_micros(hold_us as u64);
        }
        Ok(())
    }

    fn read_addresses(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        if let Some(text) = from.first(&flags.media_bind, "--media-bind", &["MEDIA_HOST"]) {
            self.media_hosts = text.read(parse::media_hosts)?;
        }
        let single = from.first(&flags.media_port, "--media-port", &["ICE_UDP_MUX_PORT"]);
        let min = from.first(&flags.media_port_min, "--media-port-min", &["ICE_UDP_PORT_MIN"]);
        let max = from.first(&flags.media_port_max, "--media-port-max", &["ICE_UDP_PORT_MAX"]);
        self.media_ports = media_ports(single, min, max)?;
        if let Some(text) = from.first(&flags.advertise_ip, "--advertise-ip", &["ICE_ADVERTISE_IP", "SFU_PUBLIC_IP"]) {
            let (addresses, dropped) = parse::advertised(&text.value);
            for entry in dropped {
                from.warnings.push(format!("{}: `{entry}` is not an IP address and was dropped.", text.name));
            }
            if addresses.is_empty() {
                return Err(text.refuse("a comma-separated list with at least one IP address"));
            }
            self.advertise_ips = addresses;
        }
        Ok(())
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

/// As many workers as the machine has cores.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_LIMIT)
}
