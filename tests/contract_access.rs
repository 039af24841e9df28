//! Who may come in: every kind of token against every way in, origins, proxies, and how much one address may ask.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod access_support;
mod process_support;
#[path = "support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use access_support::{
    AUDIENCE, Outcome, Provider, SECRET, Signer, join, join_sfu_go, join_switchboard, now_s, post, upgrade,
};
use process_support::peer::{HttpPeer, Peer};
use process_support::server::Server;
use serde_json::{Value, json};
use support::OFFER;

/// A token, what is wrong with it, and how it is refused where somebody wants to: publish, watch, take part, administer.
struct Row {
    name: &'static str,
    token: String,
    wanted: [u16; 4],
    word: &'static str,
}

fn row(name: &'static str, token: String, wanted: [u16; 4], word: &'static str) -> Row {
    Row { name, token, wanted, word }
}

const FINE: u16 = 0;

/// What each token is worth; `good` signs the fine ones.
fn table(good: &Signer) -> Vec<Row> {
    let here = |claims: Value| {
        let mut all = json!({"room": "r"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        all
    };
    let unsigned = |alg: &str| {
        let token = good.sign(&json!({"alg": alg}), here(json!({"admin": true})));
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let stranger = Signer::ed("nobody");
    vec![
        row("participant", good.token(here(json!({}))), [FINE, FINE, FINE, 403], "admin"),
        row("any room", good.token(json!({})), [FINE, FINE, FINE, 403], "admin"),
        row("admin", good.token(json!({"admin": true})), [FINE; 4], ""),
        row("publisher", good.token(here(json!({"role": "publisher"}))), [FINE, 403, 403, 403], ""),
        row("viewer", good.token(here(json!({"role": "viewer"}))), [403, FINE, FINE, 403], ""),
        row("no grant", good.token(here(json!({"publish": false, "subscribe": false}))), [403, 403, 403, 403], ""),
        row("unknown role", good.token(here(json!({"role": "king"}))), [403; 4], "role"),
        row("other room", good.token(json!({"room": "s"})), [403; 4], ""),
        row("none", String::new(), [401; 4], "token is required"),
        row("expired", good.token(here(json!({"exp": now_s() - 3600}))), [401; 4], "expired"),
        row("not yet", good.token(here(json!({"nbf": now_s() + 3600}))), [401; 4], "not valid yet"),
        row("no expiry", good.token(here(json!({"exp": null}))), [401; 4], "exp"),
        row("other audience", good.token(here(json!({"aud": "mail"}))), [401; 4], "audience"),
        row("alg none", unsigned("none"), [401; 4], "algorithm"),
        row("alg NONE", unsigned("NONE"), [401; 4], "algorithm"),
        row("alg HS512", unsigned("HS512"), [401; 4], "algorithm"),
        row("other secret", Signer::Hmac("another-secret-of-more-than-32-bytes").token(here(json!({}))), [401; 4], ""),
        row("unknown key", stranger.token(here(json!({}))), [401; 4], ""),
        row("junk", "xyzzy".to_owned(), [401; 4], ""),
        row("client token of nobody", "v2.bm8.bm8".to_owned(), [401; 4], ""),
    ]
}

/// Every way in with that token: to publish, to watch, to take part, to administer.
fn ways_in(server: &Server, token: &str) -> Vec<(String, usize, Outcome)> {
    let mut tried: Vec<(String, usize, Outcome)> = Vec::new();
    let query = format!("token={token}");
    for (name, header) in
        [("bearer", format!("Authorization: Bearer {token}\r\n")), ("own header", format!("X-Auth-Token: {token}\r\n"))]
    {
        let header = if token.is_empty() { String::new() } else { header };
        for (path, want) in
            [("/whip/r", 0), ("/api/whip/publish/r", 0), ("/whep/r?wait=1", 1), ("/api/whep/play/r?wait=1", 1)]
        {
            tried.push((format!("{path} {name}"), want, post(server, path, &header, OFFER)));
        }
        let debug = server.request("GET", "/debug/rooms", &header, "");
        let seen = if debug.status == 200 { Ok(()) } else { Err((debug.status, debug.body)) };
        tried.push((format!("/debug/rooms {name}"), 3, seen));
    }
    let stream = || TcpStream::connect(server.http).unwrap();
    for path in ["/", "/client"] {
        // The token comes with the upgrade, in the address or in a header, or with the message.
        let by_query = upgrade(stream(), &format!("{path}?{query}"), &[]);
        tried.push((format!("{path}?token="), 2, by_query.and_then(|mut socket| join(&mut socket, "r", None))));
        if !token.is_empty() {
            let bearer = format!("Bearer {token}");
            let by_header = upgrade(stream(), path, &[("authorization", &bearer)]);
            tried.push((format!("{path} bearer"), 2, by_header.and_then(|mut socket| join(&mut socket, "r", None))));
        }
        let mut late = upgrade(stream(), path, &[]).unwrap();
        tried.push((format!("{path} message"), 2, join(&mut late, "r", Some(token))));
    }
    let by_query = upgrade(stream(), &format!("/ws?userId=ana&{query}"), &[("x-about", "SFU-Go")]);
    tried.push(("SFU-Go ?token=".into(), 2, by_query.and_then(|mut socket| join_sfu_go(&mut socket, "r", None))));
    let mut late = upgrade(stream(), "/ws?userId=ben", &[]).unwrap();
    tried.push(("SFU-Go message".into(), 2, join_sfu_go(&mut late, "r", Some(token))));
    tried
}

fn closed(keys: &[(&str, &str)]) -> Server {
    let base = [("JWT_AUDIENCE", AUDIENCE), ("ADMIN_TOKEN", "the-admin-token"), ("LOG_LEVEL", "trace")];
    Server::with(&[&base[..], keys].concat())
}

fn check_table(server: &Server, good: &Signer) {
    server.healthy();
    for Row { name, token, wanted, word } in table(good) {
        for (way, role, outcome) in ways_in(server, &token) {
            let (status, said) = outcome.err().unwrap_or_default();
            // A token for nobody's client is known to be worthless only when its room is named.
            let is_fine = status == wanted[role] || (name == "client token of nobody" && [401, 403].contains(&status));
            assert!(is_fine, "{name} at {way}: {status} instead of {} {said}", wanted[role]);
            assert!(status == 0 || said.len() > 20, "{name} at {way} says what to do: {said}");
            if status == 401 && role != 3 {
                assert!(said.contains(word), "{name} at {way}: {said}");
            }
        }
        let mut socket = upgrade(TcpStream::connect(server.http).unwrap(), "/ws", &[]).unwrap();
        let joined = join_switchboard(&mut socket, "r", Some(&token));
        assert_eq!(joined.is_ok(), wanted[2] == FINE, "{name} at /ws: {joined:?}");
    }
}

/// Nothing that was shown or configured may stand in the log.
fn check_log(server: &Server, secrets: &[&str]) {
    let log = server.log().join("\n");
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}

#[test]
fn tokens_of_a_shared_secret_against_every_way_in() {
    let server = closed(&[("JWT_SECRET", SECRET)]);
    let good = Signer::Hmac(SECRET);
    check_table(&server, &good);
    let tokens: Vec<String> = table(&good).into_iter().map(|row| row.token).filter(|token| token.len() > 9).collect();
    let mut secrets = vec![SECRET, "the-admin-token"];
    // The signature is what makes it a token.
    secrets.extend(tokens.iter().filter_map(|token| token.rsplit('.').next()).filter(|end| end.len() > 9));
    check_log(&server, &secrets);
}

#[test]
fn tokens_of_published_keys_against_every_way_in() {
    let (rsa, ec, ed) = (Signer::rsa("k-rsa"), Signer::ec("k-ec"), Signer::ed("k-ed"));
    let provider = Provider::start(&[&rsa, &ec, &ed]);
    let url = provider.url();
    let server = closed(&[("JWKS_URL", &url)]);
    for signer in [&ed, &ec, &rsa] {
        check_table(&server, signer);
    }
    // A public key is no shared secret, and a key of one kind signs no token of another.
    let public = Signer::Hmac("k-ed").sign(&json!({"alg": "HS256", "kid": "k-ed"}), json!({}));
    let mixed = ed.sign(&json!({"alg": "ES256", "kid": "k-ed"}), json!({}));
    let other = ed.sign(&json!({"alg": "EdDSA", "kid": "k-rsa"}), json!({}));
    for token in [public, mixed, other] {
        let refused = post(&server, "/whip/r", &format!("Authorization: Bearer {token}\r\n"), OFFER).unwrap_err();
        assert_eq!(refused.0, 401, "{}", refused.1);
    }
    // Tokens with made-up keys make us ask only a few times.
    for number in 0..40 {
        let token = Signer::ed(&format!("made-up-{number}")).token(json!({}));
        assert!(post(&server, "/whip/r", &format!("Authorization: Bearer {token}\r\n"), OFFER).is_err());
    }
    assert!(provider.fetches() <= 10, "{}", provider.fetches());
}

#[test]
fn keys_change_and_their_provider_goes_away_while_calls_run() {
    let (old, new) = (Signer::ed("old"), Signer::ec("new"));
    let mut provider = Provider::start(&[&old]);
    let url = provider.url();
    let mut server = closed(&[("JWKS_URL", &url), ("LOG_LEVEL", "info")]);
    let (ana, ben) = (enter(&server, &old, "r", 1), enter(&server, &old, "r", 2));
    ana.hears_and_sees(2, 20);
    provider.publish(&[&new]);
    let cleo = enter(&server, &new, "s", 3);
    let refused = post(&server, "/whip/r", &format!("Authorization: Bearer {}\r\n", old.token(json!({}))), OFFER);
    assert_eq!(refused.unwrap_err().0, 401, "a key that is taken back opens nothing");
    provider.end();
    // A key that nobody has seen: it is asked for, in vain.
    let unseen = format!("Authorization: Bearer {}\r\n", Signer::ed("unseen").token(json!({})));
    assert_eq!(post(&server, "/whip/r", &unseen, OFFER).unwrap_err().0, 401);
    server.logged("keys for tokens cannot be fetched");
    let dan = enter(&server, &new, "s", 4);
    let viewer = HttpPeer::watch(&server, &format!("/whep/s?wait=1&token={}", new.token(json!({"role": "viewer"}))));
    viewer.connected();
    cleo.hears_and_sees(4, 20);
    ana.hears_and_sees(2, 50);
    ben.hears_and_sees(1, 50);
    drop(dan);
}

/// Joins with a token of that signer in the address.
fn enter(server: &Server, signer: &Signer, room: &str, number: u32) -> Peer {
    let path = format!("/ws?token={}", signer.token(json!({"room": room})));
    Peer::join(server.ws(&path), room, number, UdpSocket::bind("127.0.0.1:0").unwrap(), None)
}

#[test]
fn a_session_is_changed_by_whoever_may_begin_it() {
    let server = closed(&[("JWT_SECRET", SECRET)]);
    server.healthy();
    let good = Signer::Hmac(SECRET);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let own = good.token(json!({"room": "r", "role": "publisher"}));
    let begin = |token: &str| {
        let answer =
            server.request("POST", "/whip/r", &format!("Content-Type: application/sdp\r\n{}", bearer(token)), OFFER);
        assert_eq!(answer.status, 201, "{}", answer.body);
        (answer.header("location").unwrap().to_owned(), answer.header("etag").unwrap().to_owned())
    };
    let (session, _) = begin(&own);
    let fragment = "Content-Type: application/trickle-ice-sdpfrag\r\nIf-Match: \"*\"\r\n";
    for (token, wanted) in [
        (String::new(), 401),
        (good.token(json!({"room": "s"})), 403),
        (good.token(json!({"room": "r", "role": "viewer"})), 403),
        (good.token(json!({"room": "r", "exp": now_s() - 3600})), 401),
    ] {
        let header = if token.is_empty() { String::new() } else { bearer(&token) };
        assert_eq!(server.request("DELETE", &session, &header, "").status, wanted, "DELETE");
        let patched = server.request("PATCH", &session, &format!("{fragment}{header}"), "a=mid:0\r\n");
        assert_eq!(patched.status, wanted, "PATCH: {}", patched.body);
    }
    // Asking what may be done, and whether it is there, is free: the address itself is not guessed.
    assert_eq!(server.request("OPTIONS", &session, "", "").status, 204);
    assert_eq!(server.request("GET", &session, "", "").status, 204);
    let patched = server.request("PATCH", &session, &format!("{fragment}{}", bearer(&own)), "a=mid:0\r\n");
    assert!(![401, 403].contains(&patched.status), "{}", patched.body);
    assert_eq!(server.request("DELETE", "/whip/s/0123", &bearer(&own), "").status, 404);
    let another = good.token(json!({"room": "r"}));
    assert_eq!(server.request("DELETE", &session, &bearer(&another), "").status, 200);
    let (session, _) = begin(&own);
    assert_eq!(server.request("DELETE", &format!("{session}?token={own}"), "", "").status, 200);
}

#[test]
fn rooms_by_rest_are_for_guests_and_administrators() {
    let server = closed(&[("JWT_SECRET", SECRET)]);
    server.healthy();
    let good = Signer::Hmac(SECRET);
    let ask = |method: &str, path: &str, token: &str, body: &str| {
        let header = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let answer = server.request(method, path, &format!("Content-Type: application/json\r\n{header}"), body);
        (answer.status, answer.body)
    };
    let (admin, guest, other) =
        (good.token(json!({"admin": true})), good.token(json!({"room": "r"})), good.token(json!({"room": "s"})));
    let room = json!({"name": "r"}).to_string();
    for (token, wanted) in [("", 401), (&*guest, 403), (&*other, 403), ("the-admin-token", 200)] {
        assert_eq!(ask("POST", "/api/rooms", token, &room).0, wanted, "POST {token}");
    }
    let id = serde_json::from_str::<Value>(&ask("GET", "/api/rooms", &admin, "").1).unwrap();
    let id = id["rooms"][0]["id"].as_str().unwrap().to_owned();
    let one = format!("/api/rooms/{id}");
    assert_eq!(ask("GET", "/api/rooms", "", "").0, 401);
    assert_eq!(
        (ask("GET", &one, "", "").0, ask("GET", &one, &other, "").0, ask("GET", &one, &guest, "").0),
        (401, 404, 200)
    );
    let seen =
        |token: &str| serde_json::from_str::<Value>(&ask("GET", "/api/rooms", token, "").1).unwrap()["total"].clone();
    assert_eq!((seen(&guest), seen(&other), seen(&admin)), (json!(1), json!(0), json!(1)));
    for (token, wanted) in [("", 401), (&*guest, 403), (&*other, 403), (&*admin, 204)] {
        assert_eq!(ask("DELETE", &one, token, "").0, wanted, "DELETE {token}");
    }
    for (path, token, wanted) in [
        ("/api/records", "", 401),
        ("/api/records", &*guest, 403),
        ("/records/x.ivf", "", 401),
        ("/api/records", &*admin, 200),
    ] {
        assert_eq!(ask("GET", path, token, "").0, wanted, "{path} {token}");
    }
}

#[test]
fn tokens_of_rooms_and_of_all_rooms() {
    let server = Server::with(&[("ROOM_TOKENS", "r:room-token;s:other-token"), ("LOG_LEVEL", "trace")]);
    server.healthy();
    let publish = |server: &Server, room: &str, token: &str| {
        let header = if token.is_empty() { String::new() } else { format!("X-Auth-Token: {token}\r\n") };
        post(server, &format!("/api/whip/publish/{room}"), &header, OFFER).err().unwrap_or_default().0
    };
    for (room, token, wanted) in [
        ("r", "room-token", FINE),
        ("r", "other-token", 401),
        ("r", "room-toke", 401),
        ("r", "", 401),
        ("open", "", FINE),
    ] {
        assert_eq!(publish(&server, room, token), wanted, "{room} {token}");
    }
    check_log(&server, &["room-token", "other-token"]);
    let server = Server::with(&[("ROOM_TOKENS", "r:room-token"), ("AUTH_TOKEN", "all-rooms")]);
    server.healthy();
    for (room, token, wanted) in
        [("r", "all-rooms", FINE), ("any", "all-rooms", FINE), ("any", "room-token", 401), ("any", "", 401)]
    {
        assert_eq!(publish(&server, room, token), wanted, "{room} {token}");
    }
    // Who may register servers could sign tokens.
    let stream = || TcpStream::connect(server.http).unwrap();
    assert_eq!(upgrade(stream(), "/server", &[]).err().unwrap().0, 401);
    assert!(upgrade(stream(), "/server?token=all-rooms", &[]).is_ok());
}

#[test]
fn only_listed_origins_may_call() {
    let server = Server::with(&[("ALLOWED_ORIGIN", "https://a.example")]);
    server.healthy();
    let stream = || TcpStream::connect(server.http).unwrap();
    for path in ["/", "/client", "/ws", "/server"] {
        assert!(upgrade(stream(), path, &[("origin", "https://a.example")]).is_ok(), "{path}");
        assert!(upgrade(stream(), path, &[]).is_ok(), "{path}: programs have no origin");
        let (status, said) = upgrade(stream(), path, &[("origin", "https://b.example")]).err().unwrap();
        assert!(status == 403 && said.contains("ALLOWED_ORIGIN"), "{path}: {status} {said}");
    }
    let seen = |method: &str, path: &str, origin: &str| {
        let asked = "Access-Control-Request-Method: POST\r\nContent-Type: application/sdp\r\n";
        let answer = server.request(method, path, &format!("Origin: {origin}\r\n{asked}"), "");
        (answer.status, answer.header("access-control-allow-origin").map(str::to_owned))
    };
    for (method, path) in [("GET", "/health"), ("OPTIONS", "/health"), ("OPTIONS", "/whip/r"), ("OPTIONS", "/whep/r")] {
        assert_eq!(seen(method, path, "https://a.example").1.as_deref(), Some("https://a.example"), "{method} {path}");
        assert_eq!(seen(method, path, "https://b.example").1, None, "{method} {path}");
    }
    assert_eq!(seen("POST", "/whip/r", "https://b.example").0, 403);
    assert_eq!(seen("POST", "/whip/r", "https://a.example").0, 400);
    let open = Server::start();
    open.healthy();
    let answer = open.request("GET", "/health", "Origin: https://b.example\r\n", "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(upgrade(TcpStream::connect(open.http).unwrap(), "/ws", &[("origin", "https://b.example")]).is_ok());
}

/// A connection from a certain loopback address.
fn from(address: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::from(address), 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(process_support::PATIENCE))?;
    Ok(stream)
}

/// Asks over a connection that stays open; the status, or `None` where it was closed.
fn ask(stream: &mut TcpStream, path: &str, headers: &str) -> Option<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").ok()?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).ok()?;
    Some((head[9..12].parse().unwrap(), head))
}

#[test]
fn a_thousand_connections_of_one_address_leave_room_for_others() {
    let server = Server::with(&[("MAX_CONNECTIONS_PER_IP", "100")]);
    server.healthy();
    let mut held = Vec::new();
    let (mut fine, mut told, mut dropped) = (0, 0, 0);
    for _ in 0..1000 {
        let Ok(mut stream) = from([127, 0, 0, 3], server.http) else { continue };
        match ask(&mut stream, "/healthz", "") {
            Some((200, _)) => fine += 1,
            Some((429, head)) => {
                assert!(head.contains("\r\nretry-after: "), "{head}");
                told += 1;
            }
            Some((status, head)) => panic!("{status}: {head}"),
            None => dropped += 1,
        }
        held.push(stream);
    }
    assert_eq!(fine, 100, "{told} were told, {dropped} dropped");
    assert!(told > 0);
    let mut other = from([127, 0, 0, 4], server.http).unwrap();
    assert_eq!(ask(&mut other, "/healthz", "").unwrap().0, 200);
    let answer = upgrade(from([127, 0, 0, 4], server.http).unwrap(), "/ws", &[]);
    assert!(answer.is_ok());
    drop(held);
    process_support::wait_for("room for the first address", || {
        let mut again = from([127, 0, 0, 3], server.http).ok()?;
        ask(&mut again, "/healthz", "").filter(|(status, _)| *status == 200)
    });
}

#[test]
fn requests_of_one_address_are_counted_and_a_proxys_are_its_clients() {
    let proxied = [("RATE_LIMIT_RPS", "1"), ("RATE_LIMIT_BURST", "3"), ("TRUSTED_PROXIES", "127.0.0.2/32")];
    let server = Server::with(&[&proxied[..], &[("MAX_CONNECTIONS_PER_IP", "4")]].concat());
    server.healthy();
    let asks = |source: [u8; 4], headers: &str| {
        let mut stream = from(source, server.http).unwrap();
        (0..60)
            .filter_map(|_| ask(&mut stream, "/api/ice-servers", headers))
            .map(|(status, _)| status)
            .collect::<Vec<_>>()
    };
    let counts = |statuses: &[u16]| (statuses.contains(&200), statuses.contains(&429));
    // The connection is closed with the first refusal.
    assert_eq!(counts(&asks([127, 0, 0, 2], "X-Forwarded-For: 198.51.100.1\r\n")), (true, true));
    assert_eq!(counts(&asks([127, 0, 0, 2], "X-Forwarded-For: 198.51.100.2\r\n")), (true, true));
    assert_eq!(counts(&asks([127, 0, 0, 5], "")), (true, true));
    let mut forger = from([127, 0, 0, 6], server.http).unwrap();
    let statuses: Vec<u16> = (0..60)
        .filter_map(|n| ask(&mut forger, "/api/ice-servers", &format!("X-Forwarded-For: 203.0.113.{n}\r\n")))
        .map(|(status, _)| status)
        .collect();
    assert!(statuses.contains(&429), "a header that anybody can write changes nothing");
    // Health is asked for by monitors, and costs nothing.
    let mut monitor = from([127, 0, 0, 7], server.http).unwrap();
    assert!((0..60).all(|_| ask(&mut monitor, "/healthz", "").unwrap().0 == 200));
}

#[test]
fn a_proxy_brings_many_and_each_client_has_its_own_connections() {
    let server = Server::with(&[("TRUSTED_PROXIES", "127.0.0.2"), ("MAX_CONNECTIONS_PER_IP", "4")]);
    server.healthy();
    let through =
        |client: &str| upgrade(from([127, 0, 0, 2], server.http).unwrap(), "/ws", &[("x-forwarded-for", client)]);
    let held: Vec<_> = (0..6).map(|_| through("198.51.100.1")).collect();
    assert_eq!(held.iter().filter(|socket| socket.is_ok()).count(), 4);
    assert!(held.iter().filter_map(|socket| socket.as_ref().err()).all(|(status, _)| *status == 429));
    let others: Vec<_> = (2..12).map(|n| through(&format!("198.51.100.{n}"))).collect();
    assert!(others.iter().all(Result::is_ok));
    drop(held);
    process_support::wait_for("room for the first client", || through("198.51.100.1").ok());
}

#[test]
fn clients_are_told_of_stun_and_turn_servers() {
    let server = Server::with(&[
        ("STUN_URLS", "stun:s.example"),
        ("TURN_URLS", "turn:t.example?transport=udp"),
        ("TURN_SECRET", "turn-secret"),
        ("TURN_TTL", "600"),
        ("AUTH_TOKEN", "all-rooms"),
        ("LOG_LEVEL", "trace"),
    ]);
    server.healthy();
    let check = |servers: &Value, identity: &str| {
        assert_eq!(servers[0], json!({"urls": ["stun:s.example"]}), "{servers}");
        assert_eq!(servers[1]["urls"], json!(["turn:t.example?transport=udp"]));
        let (expiry, who) = servers[1]["username"].as_str().unwrap().split_once(':').unwrap();
        assert!((now_s() + 500..=now_s() + 600).contains(&expiry.parse().unwrap()), "{servers}");
        assert_eq!(who, identity);
        assert_eq!(servers[1]["credential"].as_str().unwrap().len(), 28);
    };
    assert_eq!(server.get("/api/ice-servers").0, 401, "relays are for guests");
    let answer = server.request("GET", "/api/ice-servers", "Authorization: Bearer all-rooms\r\n", "");
    check(&serde_json::from_str::<Value>(&answer.body).unwrap()["iceServers"], "client");
    let bootstrap = server.json("/api/bootstrap");
    assert_eq!(
        (&bootstrap["authEnabled"], &bootstrap["iceServers"]),
        (&json!(true), &json!([{"urls": ["stun:s.example"]}]))
    );
    check(&server.json("/api/bootstrap?token=all-rooms")["iceServers"], "client");
    let posted = server.request("POST", "/whip/r?token=all-rooms", "Content-Type: application/sdp\r\n", OFFER);
    let links: Vec<&str> = posted.headers("link").collect();
    assert_eq!(links[0], r#"<stun:s.example>; rel="ice-server""#);
    assert!(links[1].starts_with(r#"<turn:t.example?transport=udp>; rel="ice-server"; username=""#), "{links:?}");
    assert!(links[1].ends_with(r#""; credential-type="password""#) && links.len() == 2, "{links:?}");
    assert_eq!(server.request("OPTIONS", "/whip/r", "", "").header("link"), None, "no credentials before a token");
    let stream = || TcpStream::connect(server.http).unwrap();
    let mut ana = upgrade(stream(), "/client?token=all-rooms", &[]).unwrap();
    let joined = ana.ask(&json!({"event": "join", "data": {"roomId": "r", "userId": "ana"}}));
    check(&joined["data"]["iceServers"], "ana");
    let mut ben = upgrade(stream(), "/ws?token=all-rooms", &[]).unwrap();
    let welcome = ben.ask(&json!({"type": "join", "roomId": "r"}));
    check(&welcome["iceServers"], welcome["peerId"].as_str().unwrap());
    check_log(&server, &["turn-secret", "all-rooms", joined["data"]["iceServers"][1]["credential"].as_str().unwrap()]);
}
