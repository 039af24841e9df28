//! WHIP and WHEP through the built program, with real media: who publishes, who watches, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Instant;

use process_support::peer::{HttpPeer, Peer};
use process_support::server::Server;
use process_support::wait_for;

fn peers(server: &Server) -> u64 {
    server.metric("gryt_sfu_peers_active")
}

#[test]
fn an_encoder_a_viewer_and_a_person_share_a_room() {
    let server = Server::start();
    // Before there is anything to see: its m-lines wait.
    let early = HttpPeer::watch(&server, "/whep/r?wait=1");
    early.connected();
    let encoder = HttpPeer::publish(&server, "/whip/r", 1);
    early.hears_and_sees(1, 50);
    let person = Peer::join(server.ws("/ws"), "r", 2, UdpSocket::bind("127.0.0.1:0").unwrap(), None);
    person.hears_and_sees(1, 50);
    let late = HttpPeer::watch(&server, "/api/whep/play/r");
    late.hears_and_sees(1, 50);
    assert_eq!(server.metric("gryt_sfu_tracks_active"), 4);

    // The encoder leaves; the person is what remains to be watched, on the same m-lines.
    assert_eq!(server.request("DELETE", &encoder.session, "", "").status, 200);
    early.hears_and_sees(2, 50);
    let next = HttpPeer::publish(&server, "/api/whip/publish/r", 3);
    person.hears_and_sees(3, 50);

    assert!(person.shared.audio.lock().unwrap().keys().all(|number| [1, 3].contains(number)), "nobody sees a viewer");
    drop((person, next));
}

#[test]
fn a_session_ends_when_its_client_closes_dtls() {
    let server = Server::start();
    let encoder = HttpPeer::publish(&server, "/whip/r", 1);
    let viewer = HttpPeer::watch(&server, "/whep/r");
    viewer.hears_and_sees(1, 10);
    encoder.hang_up();
    wait_for("the publisher's end", || (peers(&server) == 1).then_some(()));
    assert_eq!(server.request("POST", "/whep/r", "Content-Type: application/sdp\r\n", "v=0\r\n").status, 400);
    // The room takes the next one at once, and who watched goes on watching.
    let next = HttpPeer::publish(&server, "/whip/r", 2);
    viewer.hears_and_sees(2, 10);
    wait_for("an end of the URL", || (server.request("DELETE", &encoder.session, "", "").status == 404).then_some(()));
    viewer.hang_up();
    next.hang_up();
    wait_for("an empty server", || (peers(&server) == 0).then_some(()));
    assert_eq!(server.metric("gryt_sfu_rooms_active"), 0);
}

#[test]
fn who_moves_to_another_address_goes_on_after_an_ice_restart() {
    let server = Server::start();
    let encoder = HttpPeer::publish(&server, "/whip/r", 1);
    let viewer = HttpPeer::watch(&server, "/whep/r");
    viewer.hears_and_sees(1, 50);
    for (mover, address) in [(&encoder, "127.0.0.2:0"), (&viewer, "127.0.0.3:0"), (&encoder, "127.0.0.4:0")] {
        let start = Instant::now();
        mover.move_to(&server, UdpSocket::bind(address).unwrap());
        viewer.hears_and_sees(1, 1);
        println!("media is back {} ms after the move to {address}", start.elapsed().as_millis());
        viewer.hears_and_sees(1, 50);
    }
    for peer in [&encoder, &viewer] {
        assert!(!peer.shared.is_closed.load(Ordering::SeqCst), "DTLS stays");
        assert_eq!(server.request("DELETE", &peer.session, "", "").status, 200);
    }
}

#[test]
fn a_stop_closes_every_session() {
    let mut server = Server::start();
    let encoder = HttpPeer::publish(&server, "/whip/r", 1);
    let viewer = HttpPeer::watch(&server, "/whep/r");
    viewer.hears_and_sees(1, 5);
    server.signal("TERM");
    for peer in [&encoder, &viewer] {
        wait_for("close_notify", || peer.shared.is_closed.load(Ordering::SeqCst).then_some(()));
    }
    assert_eq!(server.ended().code(), Some(0));
}
