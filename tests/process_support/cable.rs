//! Two network namespaces and a cable between them.
//!
//! Needs root and `ip` of iproute2. `TRAMLINE_SKIP_NETNS=1` leaves these tests out where a machine permits neither.

use std::fs::File;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::server::{QUIET, Server, with};

/// The server's addresses; a wildcard socket that forgets where a check came to would answer from the first of a family.
pub const SERVER: [&str; 4] = ["10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"];
/// The clients' addresses.
pub const CLIENT: [&str; 2] = ["10.77.0.10", "fd77::10"];

/// See the module; gone when dropped.
pub struct Cable {
    /// The server's namespace; its end is named `v` and the name given and `s`.
    pub server: String,
    /// The clients' namespace; its end ends in `c`.
    pub client: String,
}

impl Cable {
    /// `None` if these tests are to be skipped.
    pub fn lay(name: &str) -> Option<Self> {
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

    /// Up or down, for the server.
    pub fn loopback(&self, state: &str) {
        self.ip(&format!("-n {} link set lo {state}", self.server));
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, line: &str) {
        let output = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The program in the server's namespace.
    pub fn serve(&self, more: &[(&str, &str)]) -> Server {
        let settings = with(&with(&QUIET, &[("SFU_HOST", "10.77.0.1")]), more);
        let mut server = Server::run(&settings, &["ip", "netns", "exec", &self.server]);
        server.http.set_ip(SERVER[0].parse().unwrap());
        server
    }

    /// Makes a socket in the clients' namespace; it stays there wherever it is used.
    pub fn among_clients<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        Self::within(&self.client, make)
    }

    /// Does something on a thread that lives in a namespace.
    pub fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// A connection of a client to HTTP.
    pub fn connect(&self, server: &Server) -> TcpStream {
        self.among_clients(|| TcpStream::connect(server.http).unwrap())
    }

    /// A client's socket.
    pub fn udp(&self, family_of: IpAddr) -> UdpSocket {
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
