//! Ports of their own for Gryt's servers and for metrics, and the settings of the programs we stand in for.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::net::{SocketAddr, TcpListener, TcpStream};

use process_support::server::{QUIET, Server, get, refused, with};
use process_support::ws::Ws;
use serde_json::json;

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap()
}

#[test]
fn gryts_servers_may_have_a_port_of_their_own() {
    let port = free_port();
    let server = Server::with(&[("SFU_CONTROL_PORT", &port.to_string()), ("SFU_CONTROL_HOST", "127.0.0.1")]);
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = server.request("GET", "/server", upgrade, "");
    assert_eq!((answer.status, answer.header("x-gryt-control-port")), (403, Some(port.to_string().as_str())));
    assert_eq!(get(connect(port), "/server").0, 400, "no upgrade was asked for");
    assert_eq!(get(connect(port), "/health").0, 404, "nothing else is there");
    let mut control = Ws::connect(connect(port), "/server");
    let register = json!({"server_id": "acme", "server_password": "pw", "room_id": "acme_1"}).to_string();
    control.send(&json!({"event": "server_register", "data": register}));
    assert_eq!(control.hear("room_joined")["data"], "Server registered successfully");
}

#[test]
fn a_port_that_is_taken_stops_the_start_and_says_which() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (port_name, host_name) in [("SFU_CONTROL_PORT", "SFU_CONTROL_HOST"), ("SFU_METRICS_PORT", "SFU_METRICS_HOST")] {
        let text = refused(&with(&QUIET, &[(port_name, &port), (host_name, "127.0.0.1")]));
        assert!(text.contains(port_name), "{text}");
    }
}

#[test]
fn metrics_may_have_a_port_of_their_own_beside() {
    let port = free_port();
    let more = [("METRICS_PORT", &*port.to_string()), ("SFU_METRICS_HOST", "127.0.0.1"), ("METRICS_PATH", "/m")];
    let server = Server::with(&more);
    for (status, text) in [get(connect(port), "/m"), server.get("/metrics")] {
        assert_eq!(status, 200);
        assert!(text.contains("sfu_active_rooms_total 0"), "{text}");
    }
    assert_eq!(get(connect(port), "/health").0, 404);
}

#[test]
fn sfu_gos_settings_are_heeded() {
    let server =
        Server::with(&[("SFU_MAX_PEERS_PER_ROOM", "1"), ("INSTANCE_ID", "sfu-7"), ("DIALECT_ROOMS", "golive")]);
    server.healthy();
    assert_eq!(server.json("/health")["instanceId"], "sfu-7");
    let mut ana = server.ws("/ws?userId=ana&name=Ana");
    ana.send(&json!({"type": "join", "data": {"roomId": "r"}}));
    assert_eq!(ana.hear("join")["data"]["success"], true);
    let mut bo = server.ws("/ws?userId=bo&name=Bo");
    bo.send(&json!({"type": "join", "data": {"roomId": "r"}}));
    assert_eq!(bo.next()["data"]["code"], 400);
    assert_eq!(server.json("/api/rooms")[0]["name"], "r");
}
