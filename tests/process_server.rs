//! The built program as a process: settings, ports, endpoints, signals.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use process_support::server::{QUIET, Server, refused, with};
use process_support::wait_for;
use serde_json::{Value, json};

/// The issue's promise: told, closed and gone within this.
const STOP_MAX: Duration = Duration::from_secs(10);

#[test]
fn every_endpoint_answers() {
    let server = Server::start();
    server.healthy();
    let health = server.json("/health");
    assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!("sfu")));
    assert_eq!(server.get("/healthz"), (200, "ok".to_owned()));
    for path in ["/debug/rooms", "/debug/peers", "/debug/tracks"] {
        assert_eq!(server.json(path), json!([]), "{path}");
    }
    assert!(server.get("/").1.contains("<html"));
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "gryt_sfu_rooms_active",
        "gryt_sfu_peers_active",
        "gryt_sfu_websocket_connections_active",
        "gryt_sfu_tracks_active",
        "sfu_active_rooms_total",
        "sfu_active_peers_total",
        "sfu_connections_total",
        "sfu_messages_sent_total",
        "sfu_messages_received_total",
        "sfu_bytes_transferred_total",
        "sfu_pli_requests_total",
        "sfu_nack_requests_total",
        "live_rooms",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is missing in\n{metrics}");
    }
    for name in [
        "live_subscribers",
        "live_rtp_bytes",
        "live_rtp_packets",
        "tramline_discards",
        "tramline_io_errors",
        "tramline_turns",
        "tramline_enters",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(&format!("# TYPE {name} "))), "{name}:\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[test]
fn debug_views_show_who_is_there() {
    let server = Server::start();
    let mut ana = server.ws("/");
    ana.send(&json!({"event": "join", "data": {"roomId": "lobby", "userId": "ana", "displayName": "Ana"}}));
    ana.hear("joined");
    assert_eq!(server.json("/debug/rooms")[0]["peers"], json!(["ana"]));
    let peer = &server.json("/debug/peers")[0];
    assert_eq!(
        (&peer["displayName"], &peer["room"], &peer["media"]),
        (&json!("Ana"), &json!("lobby"), &json!("connecting"))
    );
    assert_eq!(server.metric("gryt_sfu_peers_active"), 1);
    assert_eq!(server.metric("gryt_sfu_websocket_connections_active"), 1);
}

#[test]
fn sigterm_and_sigint_tell_everybody_and_exit_with_zero() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        let mut ana = server.ws("/ws");
        ana.send(&json!({"type": "join", "roomId": "r"}));
        ana.hear("welcome");
        let mut ben = server.ws("/client");
        ben.send(&json!({"event": "join", "data": {"roomId": "r", "userId": "ben"}}));
        ben.hear("joined");
        // A socket that never said anything is closed as well.
        let mut mute = server.ws("/ws");
        let asked = Instant::now();
        server.signal(signal);
        for socket in [&mut ana, &mut ben, &mut mute] {
            let (code, _) = socket.closed();
            assert!([1001, 1012].contains(&code), "{code}");
        }
        let status = server.ended();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(asked.elapsed() < STOP_MAX, "{:?}", asked.elapsed());
        server.logged(&format!("SIG{signal}"));
        server.logged("stopped");
        // Both ports are free again.
        TcpListener::bind(server.http).unwrap();
        UdpSocket::bind(("0.0.0.0", server.media_port)).unwrap();
    }
}

#[test]
fn a_client_that_never_closes_does_not_hold_up_the_end() {
    let mut server = Server::start();
    let mut ana = server.ws("/ws");
    ana.send(&json!({"type": "join", "roomId": "r"}));
    ana.hear("welcome");
    // A request that was begun and never finished.
    let half = std::net::TcpStream::connect(server.http).unwrap();
    std::io::Write::write_all(&mut &half, b"GET /health HTTP/1.1\r\n").unwrap();
    server.healthy();
    let asked = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    assert!(asked.elapsed() < STOP_MAX, "{:?}", asked.elapsed());
}

#[test]
fn a_taken_media_port_is_a_start_error_that_names_the_way_out() {
    let first = Server::start();
    let port = first.media_port.to_string();
    let said = refused(&with(&QUIET, &[("ICE_UDP_MUX_PORT", &port)]));
    assert_eq!(sentences(&said), 1, "{said}");
    assert!(said.contains(&port) && said.contains("ICE_UDP_MUX_PORT"), "{said}");
    // A port held on one family only is taken too.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let said = refused(&with(&QUIET, &[("ICE_UDP_MUX_PORT", &port)]));
    assert!(said.contains("already in use"), "{said}");
    // The range names its own variables.
    let range = [("ICE_UDP_MUX_PORT", ""), ("ICE_UDP_PORT_MIN", &*port), ("ICE_UDP_PORT_MAX", &*port)];
    let said = refused(&with(&QUIET, &range));
    assert!(said.contains("ICE_UDP_PORT_MIN"), "{said}");
    first.healthy();
}

#[test]
fn a_taken_http_port_is_a_start_error_that_names_the_way_out() {
    let first = Server::start();
    let port = first.http.port().to_string();
    let said = refused(&with(&QUIET, &[("SFU_PORT", &port)]));
    assert_eq!(sentences(&said), 1, "{said}");
    assert!(said.contains(&port) && said.contains("SFU_PORT"), "{said}");
    first.healthy();
}

#[test]
fn a_bad_value_is_refused_in_one_sentence() {
    for (name, value, allowed) in [
        ("SFU_PORT", "http", "from 0 to 65535"),
        ("PORT", "65536", "from 0 to 65535"),
        ("HTTP_ADDR", "8080", "like :8080"),
        ("SFU_HOST", "example.org", "an IP address"),
        ("MEDIA_HOST", "eth0", "IP addresses"),
        ("MEDIA_HOST", "192.0.2.1,192.0.2.2", "at most one IPv4"),
        ("ICE_UDP_MUX_PORT", "-1", "from 0 to 65535"),
        ("ICE_ADVERTISE_IP", "host.example, eth0", "at least one IP address"),
        ("STUN_SERVERS", "stun:a:b:c", "like stun:stun.example.org:3478"),
        ("DISABLE_STUN", "perhaps", "true or false"),
        ("LOG_LEVEL", "loud", "error, warn, info, debug or trace"),
        ("LOG_FORMAT", "xml", "text or json"),
        ("MAX_CONNECTIONS", "0", "from 1 to"),
        ("MAX_PEERS", "many", "from 1 to"),
        ("TRAMLINE_WORKERS", "65", "from 1 to 64"),
        ("TRAMLINE_IO", "epoll", "auto, uring or mmsg"),
        ("SFU_PING_INTERVAL", "0", "from 1 to"),
        ("SFU_PONG_TIMEOUT", "1.5", "from 1 to"),
    ] {
        // Only the weaker names are read when the stronger ones are unset.
        let base = with(&QUIET, &[("SFU_PORT", ""), ("SFU_HOST", "127.0.0.1")]);
        let base = if name == "SFU_HOST" { with(&base, &[("SFU_HOST", "")]) } else { base };
        let said = refused(&with(&base, &[(name, value)]));
        assert_eq!(sentences(&said), 1, "{said}");
        assert!(said.starts_with(&format!("{name} is `{value}`, but must be ")), "{said}");
        assert!(said.contains(allowed), "{said}");
    }
}

#[test]
fn a_range_and_a_single_port_together_are_refused() {
    let range = [("ICE_UDP_PORT_MIN", "40000"), ("ICE_UDP_PORT_MAX", "40001")];
    let said = refused(&with(&QUIET, &range));
    assert_eq!(sentences(&said), 1, "{said}");
    assert!(said.contains("ICE_UDP_MUX_PORT") && said.contains("ICE_UDP_PORT_MIN"), "{said}");
    let said = refused(&with(&QUIET, &[("ICE_UDP_MUX_PORT", ""), range[0]]));
    assert!(said.contains("ICE_UDP_PORT_MAX"), "{said}");
}

#[test]
fn logs_are_text_or_json() {
    let server = Server::with(&[("LOG_FORMAT", "text")]);
    assert!(server.log().iter().all(|line| serde_json::from_str::<Value>(line).is_err()));
    let mut server = Server::with(&[("LOG_FORMAT", "json")]);
    server.logged("open http");
    let log = server.log();
    for line in &log {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let media = log.iter().find(|line| line.contains("media_port")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(media).unwrap()["media_port"], server.media_port);
}

#[test]
fn one_seat_means_one_peer() {
    let server = Server::with(&[("MAX_CONNECTIONS", "1")]);
    let join = |user: &str| json!({"event": "join", "data": {"roomId": "r", "userId": user}});
    let mut ana = server.ws("/client");
    ana.send(&join("ana"));
    ana.hear("joined");
    let mut ben = server.ws("/client");
    ben.send(&join("ben"));
    let (code, heard) = ben.closed();
    assert_eq!(code, 1013);
    assert!(heard.iter().any(|message| message["event"] == "error"), "said before it is closed: {heard:?}");
    drop(ana);
    wait_for("the free seat", || {
        let mut cleo = server.ws("/client");
        cleo.send(&join("cleo"));
        cleo.joined_or_closed().then_some(())
    });
}

#[test]
fn files_in_the_working_directory_are_read_after_the_environment() {
    let (mut command, directory) = process_support::server::command(&[("SFU_PORT", "x")], &[]);
    std::fs::write(directory.join(".env"), "SFU_PORT=y\nLOG_FORMAT=z\n").unwrap();
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("SFU_PORT is `x`"));
    let (mut command, second) = process_support::server::command(&[], &[]);
    std::fs::write(second.join(".env"), "SFU_PORT=y\n").unwrap();
    std::fs::write(second.join("config.env"), "SFU_PORT=z\n").unwrap();
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("SFU_PORT is `y`"));
    std::fs::remove_dir_all(directory).unwrap();
    std::fs::remove_dir_all(second).unwrap();
}

#[test]
fn media_may_be_bound_to_certain_addresses() {
    let mut server = Server::with(&[("MEDIA_HOST", "127.0.0.3"), ("ICE_ADVERTISE_IP", "")]);
    let line = server.logged("media is served");
    assert!(line.contains(&format!("127.0.0.3:{}", server.media_port)), "what is bound is announced: {line}");
    server.healthy();
    // Any other address has the port free.
    UdpSocket::bind(("127.0.0.1", server.media_port)).unwrap();
    let server = Server::with(&[("MEDIA_HOST", "0.0.0.0"), ("ICE_ADVERTISE_IP", "")]);
    server.healthy();
}

/// Lines that were said, without colours and the logger's time stamps in mind: each is one sentence.
fn sentences(said: &str) -> usize {
    said.lines().filter(|line| !line.trim().is_empty() && !line.contains(" INFO ")).count()
}
