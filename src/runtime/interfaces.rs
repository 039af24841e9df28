//! Which addresses of this machine a peer could reach, when none were configured.

use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Name prefixes of interfaces that lead to containers or virtual machines, not to peers. Tunnels (`tun`, `wg`) are real.
const VIRTUAL_PREFIXES: [&str; 12] =
    ["docker", "br-", "veth", "cni", "flannel", "cali", "virbr", "lxc", "lxd", "podman", "vmnet", "vnet"];

/// One address of one interface, as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    address: IpAddr,
    is_up: bool,
    is_bridge: bool,
}

/// Addresses of real interfaces that are up: no loopback unless there is nothing else, no link-local IPv6, no bridges
/// and container interfaces. IPv4 first, otherwise in the system's order, each once.
///
/// # Errors
/// The system does not list its interfaces.
pub fn real_addresses() -> io::Result<Vec<IpAddr>> {
    let candidates = if_addrs::get_if_addrs()?.into_iter().map(|interface| Candidate {
        address: interface.ip(),
        // Tunnels and loopback have no carrier to report: their state is unknown.
        is_up: matches!(interface.oper_status, if_addrs::IfOperStatus::Up | if_addrs::IfOperStatus::Unknown),
        is_bridge: is_bridge(&interface.name),
        name: interface.name,
    });
    Ok(choose(&candidates.collect::<Vec<_>>()))
}

fn is_bridge(name: &str) -> bool {
    // An alias such as `eth0:1` belongs to the interface before the colon.
    let device = name.split(':').next().unwrap_or(name);
    Path::new("/sys/class/net").join(device).join("bridge").exists()
}

fn choose(candidates: &[Candidate]) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> =
        candidates.iter().filter(|candidate| is_real(candidate)).map(|candidate| candidate.address).collect();
    if chosen.is_empty() {
        // A machine without a network still serves itself.
        chosen = candidates.iter().map(|candidate| candidate.address).filter(IpAddr::is_loopback).collect();
    }
    // A stable sort keeps the system's order within a family.
    chosen.sort_by_key(IpAddr::is_ipv6);
    let mut seen = Vec::with_capacity(chosen.len());
    chosen.retain(|address| {
        let is_new = !seen.contains(address);
        seen.push(*address);
        is_new
    });
    chosen
}

fn is_real(candidate: &Candidate) -> bool {
    let is_virtual = VIRTUAL_PREFIXES.iter().any(|prefix| candidate.name.starts_with(prefix));
    let is_usable = match candidate.address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified(),
        // RFC 4291 §2.5.6: link-local addresses mean nothing without an interface, which SDP cannot name.
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    };
    candidate.is_up && !candidate.is_bridge && !is_virtual && is_usable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, address: &str) -> Candidate {
        Candidate { name: name.to_owned(), address: address.parse().unwrap(), is_up: true, is_bridge: false }
    }

    fn chosen(candidates: &[Candidate]) -> Vec<String> {
        choose(candidates).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn only_real_interfaces_are_announced() {
        let down = Candidate { is_up: false, ..candidate("eth1", "192.0.2.2") };
        let bridge = Candidate { is_bridge: true, ..candidate("lan", "192.0.2.3") };
        let list = [
            candidate("lo", "127.0.0.1"),
            candidate("eth0", "2001:db8::1"),
            candidate("eth0", "fe80::1"),
            candidate("eth0", "192.0.2.1"),
            candidate("eth0:1", "192.0.2.1"),
            candidate("docker0", "172.17.0.1"),
            candidate("br-0a1b", "172.18.0.1"),
            candidate("wg0", "10.8.0.1"),
            down,
            bridge,
        ];
        assert_eq!(chosen(&list), ["192.0.2.1", "10.8.0.1", "2001:db8::1"]);
    }

    #[test]
    fn a_machine_without_a_network_announces_loopback() {
        let list = [candidate("lo", "127.0.0.1"), candidate("lo", "::1"), candidate("docker0", "172.17.0.1")];
        assert_eq!(chosen(&list), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn this_machine_has_an_address() {
        assert!(!real_addresses().unwrap().is_empty());
    }
}
