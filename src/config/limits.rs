//! How much one address may ask of us, which pages may, and how an address is known behind a proxy.

use std::num::NonZeroU32;

use ipnet::IpNet;

use super::source::{Group, Sources};
use super::{ConfigError, parse};

/// Faster than any client has a reason for; a larger value is a typing error.
const RATE_LIMIT: usize = 1_000_000;
/// As many as there may be seats.
const CONNECTIONS_LIMIT: usize = 1_000_000;
/// Origins and proxies are compared one by one.
const LIST_MAX: usize = 64;

/// Bounds of what others may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Origins whose pages may call us; `None`: all.
    pub origins: Option<Vec<String>>,
    /// Requests per second of one address, and of one user; `None`: any number.
    pub rate: Option<Rate>,
    /// Connections of one address at once; `None`: all but the last thousand.
    pub connections_per_address: Option<NonZeroU32>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpNet>,
}

/// So many on average, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// On average.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Origins whose pages may call us, comma list like https://app.example.org, or * for all [env: ALLOWED_ORIGIN] [default: *]
    #[arg(long, value_name = "ORIGINS")]
    allowed_origin: Option<String>,
    /// Requests to rooms per second that one address, or one user, may make; 0: any number [env: RATE_LIMIT_RPS] [default: 0]
    #[arg(long, value_name = "N")]
    rate_limit_rps: Option<String>,
    /// The same at once [env: RATE_LIMIT_BURST] [default: twice as many]
    #[arg(long, value_name = "N")]
    rate_limit_burst: Option<String>,
    /// Connections that one address may have at once, an IPv6 network of 64 bits counting as one; 0: no limit of its own [env: MAX_CONNECTIONS_PER_IP] [default: 0]
    #[arg(long, value_name = "N")]
    max_connections_per_ip: Option<String>,
    /// Networks of proxies whose X-Forwarded-For is believed, comma list like 10.0.0.0/8,::1 [env: TRUSTED_PROXIES] [default: none]
    #[arg(long, value_name = "NETWORKS")]
    trusted_proxies: Option<String>,
}

impl Group for Limits {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let mut limits = Self::default();
        if let Some(text) = from.first(&flags.allowed_origin, "--allowed-origin", &["ALLOWED_ORIGIN"]) {
            limits.origins = text.read(origins)?;
        }
        let burst = from.first(&flags.rate_limit_burst, "--rate-limit-burst", &["RATE_LIMIT_BURST"]);
        let burst = burst.map(|text| text.read(|s| number(s, 1, RATE_LIMIT))).transpose()?.flatten();
        if let Some(text) = from.first(&flags.rate_limit_rps, "--rate-limit-rps", &["RATE_LIMIT_RPS"]) {
            let per_second = text.read(|s| number(s, 0, RATE_LIMIT))?;
            limits.rate = per_second
                .map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second.saturating_add(per_second.get())) });
        }
        let per_ip = from.first(&flags.max_connections_per_ip, "--max-connections-per-ip", &["MAX_CONNECTIONS_PER_IP"]);
        if let Some(text) = per_ip {
            limits.connections_per_address = text.read(|s| number(s, 0, CONNECTIONS_LIMIT))?;
        }
        if let Some(text) = from.first(&flags.trusted_proxies, "--trusted-proxies", &["TRUSTED_PROXIES"]) {
            limits.proxies = text.read(networks)?;
        }
        Ok(limits)
    }
}

/// A number, or `None` for 0.
fn number(text: &str, min: usize, max: usize) -> Result<Option<NonZeroU32>, String> {
    parse::count(text, min, max).map(|number| NonZeroU32::new(number as u32))
}

/// `scheme://host[:port]`, as browsers write it (RFC 6454 §6.1), so that comparing them is comparing texts.
fn origins(text: &str) -> Result<Option<Vec<String>>, String> {
    let entries: Vec<String> = list(text).map(|entry| entry.trim_end_matches('/').to_ascii_lowercase()).collect();
    if entries.iter().any(|entry| entry == "*") {
        return Ok(None);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let is_origin = |entry: &String| {
        entry.split_once("://").is_some_and(|(scheme, host)| {
            matches!(scheme, "http" | "https") && !host.is_empty() && host.chars().all(plain)
        })
    };
    if entries.is_empty() || entries.len() > LIST_MAX || !entries.iter().all(is_origin) {
        return Err("* or a comma-separated list like https://app.example.org,http://localhost:8000".to_owned());
    }
    Ok(Some(entries))
}

/// Networks, or single addresses.
fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |entry: &str| entry.parse().or_else(|_| entry.parse::<std::net::IpAddr>().map(IpNet::from)).ok();
    let read: Option<Vec<IpNet>> = list(text).map(network).collect();
    let read = read.filter(|networks| !networks.is_empty() && networks.len() <= LIST_MAX);
    read.ok_or_else(|| "a comma-separated list of networks like 10.0.0.0/8,::1".to_owned())
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        assert_eq!(origins("*"), Ok(None));
        assert_eq!(origins("https://A.example/, http://[::1]:8"), Ok(Some(vec!["https://a.example".into(), "http://[::1]:8".into()])));
        for bad in ["", "a.example", "https://", "https://a/b", "ftp://a", "https://a b"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn proxies_are_networks_or_addresses() {
        let read = networks("10.0.0.0/8, ::1").unwrap();
        assert!(read[0].contains(&"10.1.2.3".parse::<std::net::IpAddr>().unwrap()) && read[1].prefix_len() == 128);
        assert!(networks("10.0.0.0/33").is_err() && networks("proxy").is_err() && networks(",").is_err());
    }
}
