//! How a peer comes in: socket, offer, door, answer.
//!
//! Owns: what all peers of a run share: the door and the certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result};
use tramline::base::ids::Ssrc;
use tramline::crypto::cert::Certificate;
use tramline::proto::dtls::DtlsConfig;
use tramline::runtime::clock;

use crate::join::{DoorArgs, Entrance, Seat};
use crate::net;
use crate::peer::Peer;
use crate::sdp::{Agreed, Answer, Credentials, Offer, Section};
use crate::whip::Purpose;

/// A peer that has its answer; its first check is due.
pub struct Entered {
    /// Connected to the server.
    pub socket: UdpSocket,
    /// The transport.
    pub peer: Peer,
    /// By m-line; `None` where the server refused it.
    pub sections: Vec<Option<Agreed>>,
    /// Retransmission sources with the source they repair.
    pub repairs: Vec<(Ssrc, Ssrc)>,
    /// Its place.
    pub seat: Seat,
}

/// Where the peers of a run go in. Cheap to share between threads.
#[derive(Clone)]
pub struct Entry {
    entrance: Entrance,
    dtls: DtlsConfig,
    /// Our address as the server sees it.
    local: IpAddr,
    twcc: bool,
}

impl Entry {
    /// The entry of the server whose signalling is at `server`, given as `host:port`.
    pub fn new(args: &DoorArgs, server: &str, twcc: bool) -> Result<Self> {
        let dtls = DtlsConfig::new(Arc::new(Certificate::generate()?))?;
        Ok(Self { entrance: Entrance::new(args, server), dtls, local: local_address(server)?, twcc })
    }

    /// Whether a connection carries one publisher's tracks and nothing else.
    pub fn is_one_way(&self) -> bool {
        self.entrance.is_one_way()
    }

    /// Comes in as a new peer.
    pub fn enter(&self, purpose: Purpose, room: &str, user: &str, wish: &Wish<'_>) -> Result<Entered> {
        let ours = Credentials::random();
        let mut socket = net::socket(self.local, wish.takes_trains)?;
        let fingerprint = self.dtls.certificate().fingerprint_sha256();
        let address = socket.local_addr()?;
        let offer = Offer { sections: wish.sections, ours: &ours, fingerprint, address, twcc: self.twcc };
        let joins = || format!("{user} joins {room}");
        let (seat, sdp) = self.entrance.enter(purpose, room, user, &offer.write()).with_context(joins)?;
        let Answer { remote, sections, repairs } =
            Answer::parse(&sdp).with_context(|| format!("the answer to {user}:\n{sdp}"))?;
        if remote.address.ip().is_loopback() != self.local.is_loopback() {
            // Announced for nothing: the server learns the other address from our check.
            socket = net::socket(local_toward(remote.address)?, wish.takes_trains)?;
        }
        socket.connect(remote.address).with_context(|| format!("connecting to {}", remote.address))?;
        let peer = Peer::new(clock::now(), &ours, remote, self.dtls.clone());
        Ok(Entered { socket, peer, sections, repairs, seat })
    }
}

/// What one peer wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its m-lines.
    pub sections: &'a [Section],
    /// Whether its socket takes whole trains.
    pub takes_trains: bool,
}

/// Our address on the way to `server`.
fn local_address(server: &str) -> Result<IpAddr> {
    let address = server.to_socket_addrs().with_context(|| format!("looking up {server}"))?.next();
    local_toward(address.with_context(|| format!("{server} has no address"))?)
}

/// Our address on the way to `remote`: connecting a UDP socket asks the routing table and sends nothing.
fn local_toward(remote: SocketAddr) -> Result<IpAddr> {
    if remote.ip().is_loopback() {
        return Ok(remote.ip());
    }
    let any: IpAddr =
        if remote.is_ipv6() { std::net::Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(remote).with_context(|| format!("there is no way to {remote}"))?;
    Ok(probe.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_address_is_the_one_the_server_sees() {
        assert!(local_address("127.0.0.1:9").unwrap().is_loopback());
        assert!(local_address("nobody").is_err());
    }
}
