//! Readers of single settings. An error is the end of the sentence "X is `…`, but must be …".

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{ConfigError, IoDriver, LogFormat, LogLevel, StunServer};

/// RFC 8489 §9: "the default port for STUN requests is 3478".
const STUN_PORT: u16 = 3478;

/// Adds the file's variables that are not there yet; no file is fine.
pub(super) fn file(name: &str, into: &mut HashMap<String, String>) -> Result<(), ConfigError> {
    let entries = match dotenvy::from_filename_iter(name) {
        Ok(entries) => entries,
        Err(error) if error.not_found() => return Ok(()),
        Err(error) => return Err(ConfigError(format!("{name} cannot be read: {error}."))),
    };
    for entry in entries {
        let (key, value) =
            entry.map_err(|error| ConfigError(format!("{name} has a line that is not NAME=value: {error}.")))?;
        if !value.trim().is_empty() {
            into.entry(key).or_insert(value);
        }
    }
    Ok(())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "a port number from 0 to 65535".to_owned())
}

/// A port of a range: 0 would be any, which is no range.
pub(super) fn range_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| "a port number from 1 to 65535".to_owned())
}

pub(super) fn count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

/// Whole seconds, with or without the unit (`30`, `30s`).
pub(super) fn seconds(text: &str, max: u64) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse().ok().filter(|number| (1..=max).contains(number));
    number.map(Duration::from_secs).ok_or_else(|| format!("a whole number of seconds from 1 to {max}"))
}

/// The usual spellings of yes and no.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    truth(text).ok_or_else(|| "true or false".to_owned())
}

pub(super) fn io_driver(text: &str) -> Result<IoDriver, String> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(IoDriver::Auto),
        "uring" => Ok(IoDriver::Uring),
        "mmsg" => Ok(IoDriver::Mmsg),
        _ => Err("auto, uring or mmsg".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err("error, warn, info, debug or trace".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".to_owned()),
    }
}

/// An address to listen on; `None` for all. Brackets around IPv6 are welcome.
pub(super) fn host(text: &str) -> Result<Option<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare {
        "*" => Ok(None),
        "localhost" => Ok(Some(IpAddr::from([127, 0, 0, 1]))),
        _ => bare.parse().map(Some).map_err(|_| "an IP address, localhost or *".to_owned()),
    }
}

/// `:8080`, `host:8080` or `[v6]:8080`.
pub(super) fn listen_address(text: &str) -> Result<(Option<IpAddr>, u16), String> {
    let allowed = || "an address and port like :8080 or 127.0.0.1:8080".to_owned();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(address.ip()), address.port()));
    }
    let (name, digits) = text.rsplit_once(':').ok_or_else(allowed)?;
    let number = port(digits).map_err(|_| allowed())?;
    if name.is_empty() {
        return Ok((None, number));
    }
    host(name).map(|host| (host, number)).map_err(|_| allowed())
}

/// A comma list where every entry must be an address; each worker has one socket per family.
pub(super) fn media_hosts(text: &str) -> Result<Vec<IpAddr>, String> {
    let (addresses, dropped) = advertised(text);
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if dropped.is_empty() && !addresses.is_empty() && v4 <= 1 && addresses.len() - v4 <= 1 {
        return Ok(addresses);
    }
    Err("a comma-separated list of IP addresses, at most one IPv4 and one IPv6".to_owned())
}

/// A comma list: the addresses, each once, and the entries that are none.
pub(super) fn advertised(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut dropped) = (Vec::new(), Vec::new());
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.parse::<IpAddr>() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) => dropped.push(entry.to_owned()),
        }
    }
    (addresses, dropped)
}

/// A comma list of `stun:host[:port]` (RFC 7064); the scheme may be left out.
pub(super) fn stun_servers(text: &str) -> Result<Vec<StunServer>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let servers: Option<Vec<StunServer>> = entries.map(stun_server).collect();
    let allowed = || "a comma-separated list like stun:stun.example.org:3478".to_owned();
    servers.filter(|servers| !servers.is_empty()).ok_or_else(allowed)
}

fn stun_server(entry: &str) -> Option<StunServer> {
    let rest = entry.strip_prefix("stun:").unwrap_or(entry);
    let (host, port) = if let Ok(address) = rest.parse::<SocketAddr>() {
        (address.ip().to_string(), address.port())
    } else if let Ok(address) = rest.trim_matches(['[', ']']).parse::<IpAddr>() {
        (address.to_string(), STUN_PORT)
    } else {
        match rest.split_once(':') {
            Some((name, digits)) => (name.to_owned(), digits.parse().ok().filter(|port| *port > 0)?),
            None => (rest.to_owned(), STUN_PORT),
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(plain)).then_some(StunServer { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_may_leave_out_the_host() {
        assert_eq!(listen_address(":8080"), Ok((None, 8080)));
        assert_eq!(listen_address("localhost:1"), Ok((Some(IpAddr::from([127, 0, 0, 1])), 1)));
        assert_eq!(listen_address("[::1]:2"), Ok((Some("::1".parse().unwrap()), 2)));
        assert!(listen_address("8080").is_err());
        assert!(listen_address("example.org:80").is_err());
    }

    #[test]
    fn hosts_are_addresses() {
        assert_eq!(host("[::]"), Ok(Some("::".parse().unwrap())));
        assert_eq!(host("*"), Ok(None));
        assert!(host("example.org").is_err());
    }

    #[test]
    fn stun_servers_have_a_default_port() {
        let read = stun_servers("stun:a.example, b.example:99,stun:[2001:db8::1]:5,192.0.2.1").unwrap();
        let shown: Vec<String> = read.iter().map(|server| format!("{} {}", server.host, server.port)).collect();
        assert_eq!(shown, ["a.example 3478", "b.example 99", "2001:db8::1 5", "192.0.2.1 3478"]);
        for bad in ["stuns:a.example:1:2", "turn:a?x", "stun:", ",", "a:0", "stun:a.example:http"] {
            assert!(stun_servers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_whole_and_at_least_one() {
        assert_eq!(seconds("30s", 100), Ok(Duration::from_secs(30)));
        assert!(seconds("0", 100).is_err());
        assert!(seconds("1.5", 100).is_err());
        assert!(seconds("101", 100).is_err());
    }

    #[test]
    fn counts_keep_their_bounds() {
        assert_eq!(count("255", 1, 255), Ok(255));
        assert!(count("256", 1, 255).is_err());
        assert!(count("", 1, 255).is_err());
    }

    #[test]
    fn media_addresses_admit_no_stray_entry() {
        assert!(media_hosts("192.0.2.1,::1").is_ok());
        assert!(media_hosts("192.0.2.1,eth0").is_err());
        assert!(media_hosts("192.0.2.1,192.0.2.2").is_err());
        assert!(media_hosts(",").is_err());
    }

    #[test]
    fn levels_and_formats_are_read_in_any_case() {
        assert_eq!(log_level("WARN"), Ok(LogLevel::Warn));
        assert_eq!(log_format("Json"), Ok(LogFormat::Json));
        assert!(log_format("xml").is_err());
    }
}
