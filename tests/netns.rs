//! The built program in a network namespace of its own, with several local addresses, and peers in another.
//!
//! Needs root and `ip` of iproute2. `TRAMLINE_SKIP_NETNS=1` leaves these tests out where a machine permits neither.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;

use process_support::peer::{Peer, candidates};
use process_support::server::{QUIET, Server, get, with};
use process_support::wait_for;
use process_support::ws::Ws;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's addresses; a wildcard socket that forgets where a check came to would answer from the first of a family.
const SERVER: [&str; 4] = ["10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"];
/// The clients' addresses.
const CLIENT: [&str; 2] = ["10.77.0.10", "fd77::10"];

/// Two namespaces and a cable between them; gone when dropped.
struct Cable {
    server: String,
    client: String,
}

impl Cable {
    /// `None` if these tests are to be skipped.
    fn lay(name: &str) -> Option<Self> {
        if std::env::var("TRAMLINE_SKIP_NETNS").is_ok_and(|value| value == "1") {
            eprintln!("skipped: TRAMLINE_SKIP_NETNS=1");
            return None;
        }
        let id = std::process::id();
        let cable = Self { server: format!("tl-{name}s-{id}"), client: format!("tl-{name}c-{id}") };
        for (namespace, end) in [(&cable.server, "s"), (&cable.client, "c")] {
            let made = Command::new("ip").args(["netns", "add", namespace]).output();
            let is_made = made.as_ref().is_ok_and(|output| output.status.success());
            assert!(
                is_made,
                "no network namespace can be made here ({made:?}): run as root with iproute2 installed, or set \
                 TRAMLINE_SKIP_NETNS=1"
            );
            cable.ip(&format!("netns exec {namespace} sysctl -q -w net.ipv6.conf.default.accept_dad=0"));
            if end == "c" {
                let (a, b) = (&cable.server, &cable.client);
                cable.ip(&format!("link add v{name}s netns {a} type veth peer name v{name}c netns {b}"));
            }
        }
        let set_up = |namespace: &str, link: String, addresses: &[&str]| {
            for address in addresses {
                let (bits, nodad) = if address.contains(':') { (64, " nodad") } else { (24, "") };
                cable.ip(&format!("-n {namespace} addr add {address}/{bits} dev {link}{nodad}"));
            }
            cable.ip(&format!("-n {namespace} link set {link} up"));
        };
        set_up(&cable.server, format!("v{name}s"), &SERVER);
        set_up(&cable.client, format!("v{name}c"), &CLIENT);
        Some(cable)
    }

    fn loopback(&self, state: &str) {
        self.ip(&format!("-n {} link set lo {state}", self.server));
    }

    fn ip(&self, line: &str) {
        let output = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The program in the server's namespace.
    fn serve(&self, more: &[(&str, &str)]) -> Server {
        let settings = with(&with(&QUIET, &[("SFU_HOST", "10.77.0.1")]), more);
        let mut server = Server::run(&settings, &["ip", "netns", "exec", &self.server]);
        server.http.set_ip(SERVER[0].parse().unwrap());
        server
    }

    /// Makes a socket in the clients' namespace; it stays there wherever it is used.
    fn among_clients<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.client)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                make()
            });
            thread.join().unwrap()
        })
    }

    fn connect(&self, server: &Server) -> TcpStream {
        self.among_clients(|| TcpStream::connect(server.http).unwrap())
    }

    fn udp(&self, family_of: IpAddr) -> UdpSocket {
        let local = if family_of.is_ipv4() { CLIENT[0] } else { CLIENT[1] };
        self.among_clients(|| UdpSocket::bind((local, 0)).unwrap())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The cable goes with its ends.
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let Some(cable) = Cable::lay("a") else { return };
    cable.loopback("up");
    let server = cable.serve(&[("ICE_ADVERTISE_IP", &SERVER.join(","))]);
    let mut peers = Vec::new();
    for (number, address) in SERVER.iter().enumerate() {
        let target = SocketAddr::new(address.parse().unwrap(), server.media_port);
        let ws = Ws::connect(cable.connect(&server), "/ws");
        // Its socket is connected: the kernel drops whatever comes from another address of the server.
        let room = ["v4", "v6"][number / 2];
        let peer = Peer::join(ws, room, number as u32, cable.udp(target.ip()), Some(target));
        assert_eq!(candidates(&peer.answer).len(), SERVER.len());
        peers.push(peer);
    }
    for (one, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        peers[one].hears_and_sees(other, 50);
    }
}

#[test]
fn health_waits_until_every_media_socket_answers() {
    let Some(cable) = Cable::lay("h") else { return };
    // Without loopback the self-check cannot reach the media sockets, but HTTP can be reached over the cable.
    let server = cable.serve(&[("ICE_ADVERTISE_IP", SERVER[0]), ("ICE_UDP_MUX_PORT", "3478")]);
    for _ in 0..5 {
        let (status, body) = get(cable.connect(&server), "/health");
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("starting"), "{body}");
        assert_eq!(get(cable.connect(&server), "/healthz").0, 200);
    }
    cable.loopback("up");
    wait_for("health", || (get(cable.connect(&server), "/health").0 == 200).then_some(()));
}
