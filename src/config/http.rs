//! Where pages, HTTP and WebSockets are served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::source::Sources;
use super::{Config, ConfigError, parse};

/// HTTP port of Gryt's SFU.
pub(super) const HTTP_PORT: u16 = 5005;

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Port of the page, HTTP and WebSocket; 0 takes any free one [env: SFU_PORT, PORT, or HTTP_ADDR as ":8080"] [default: 5005]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Address of the page, HTTP and WebSocket [env: SFU_HOST] [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "IP")]
    bind: Option<String>,
}

impl Config {
    /// Where the HTTP listener binds, first choice first.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        addresses(self.http_host, self.http_port)
    }

    pub(super) fn read_http(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        const PORTS: [&str; 3] = ["SFU_PORT", "PORT", "HTTP_ADDR"];
        if let Some(text) = from.first(&None, "", &["HTTP_ADDR"]) {
            let (host, port) = text.read(parse::listen_address)?;
            (self.http_host, self.http_port) = (host, port);
        }
        if let Some(text) = from.first(&flags.port, "--port", &PORTS) {
            if text.name != "HTTP_ADDR" {
                self.http_port = text.read(parse::port)?;
            }
            from.note_choice("HTTP port", &text, &PORTS);
        }
        if let Some(text) = from.first(&flags.bind, "--bind", &["SFU_HOST"]) {
            self.http_host = text.read(parse::host)?;
        }
        Ok(())
    }
}

/// Where to listen on a port, first choice first; without a host on all addresses.
pub fn addresses(host: Option<IpAddr>, port: u16) -> Vec<SocketAddr> {
    match host {
        Some(host) => vec![SocketAddr::new(host, port)],
        None => vec![
            SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        ],
    }
}
