//! The built program in a network namespace of its own, with several local addresses, and peers in another.
//!
//! Needs root and `ip` of iproute2. `TRAMLINE_SKIP_NETNS=1` leaves these tests out where a machine permits neither.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::net::SocketAddr;

use process_support::cable::{Cable, SERVER};
use process_support::peer::{Peer, candidates};
use process_support::server::get;
use process_support::wait_for;
use process_support::ws::Ws;

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    for io in ["auto", "mmsg"] {
        let Some(cable) = Cable::lay(&io[..1]) else { return };
        cable.loopback("up");
        replies_come_from_where_they_were_asked(&cable, io);
    }
}

fn replies_come_from_where_they_were_asked(cable: &Cable, io: &str) {
    let server = cable.serve(&[("ICE_ADVERTISE_IP", &SERVER.join(",")), ("TRAMLINE_IO", io)]);
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
