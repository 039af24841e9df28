//! WHIP and WHEP, request by request.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::whip::{TYPE, ask, created, peers, post, publishing, watching};
use support::{OFFER, Server};
use tramline::base::ids::{SessionKey, WorkerId};
use tramline::config::Config;
use tramline::config::broadcast::Broadcast;
use tramline::crypto::srtp::SrtpSuite;
use tramline::worker::command::Event;

/// Asks again until so many peers are left: the keeper of a session is a task of its own.
async fn peers_become(server: &Server, wanted: usize) {
    for _ in 0..1000 {
        if peers(server).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never {wanted} peers");
}

#[tokio::test]
async fn a_publisher_comes_and_goes() {
    let server = Server::start().await;
    for path in ["/whip/room", "/api/whip/publish/room"] {
        let answer = post(&server, path, &publishing()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/sdp"));
        let location = answer.header("location").unwrap();
        let id = location.strip_prefix("/whip/s/").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{location}");
        let tag = answer.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 5, "{tag}");
        for line in
            ["a=recvonly", "a=setup:passive", "a=ice-lite", "a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host"]
        {
            assert!(answer.body.contains(line), "{line} is missing in\n{}", answer.body);
        }
        assert!(!answer.body.contains("a=sendrecv") && !answer.body.contains(" 0 UDP/TLS"), "{}", answer.body);
        let (_, _, tracks) = server.http("/debug/tracks", "").await;
        assert_eq!(serde_json::from_str::<Vec<Value>>(&tracks).unwrap().len(), 2);

        assert_eq!(ask(&server, "DELETE", location, "If-Match: \"any\"\r\n", "").await.status, 200);
        assert_eq!(peers(&server).await, 0);
        let again = ask(&server, "DELETE", location, "", "").await;
        assert_eq!((again.status, again.error().as_str()), (404, "there is no such session"));
    }
}

#[tokio::test]
async fn a_viewer_is_answered_with_one_stream() {
    let server = Server::start().await;
    created(&server, "/whip/room", &publishing()).await;
    for path in ["/whep/room", "/api/whep/play/room"] {
        let answer = post(&server, path, &watching()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(answer.body.matches("a=sendonly\r\n").count(), 2);
        let streams: Vec<&str> = answer.body.lines().filter_map(|line| line.strip_prefix("a=msid:")).collect();
        assert_eq!(streams, ["tramline slot-0", "tramline slot-1"]);
        let location = answer.header("location").unwrap();
        assert!(location.starts_with("/whep/s/"));
        // The URL of a viewer is none of a publisher.
        assert_eq!(ask(&server, "DELETE", &location.replace("whep", "whip"), "", "").await.status, 404);
        assert_eq!(ask(&server, "DELETE", location, "", "").await.status, 200);
    }
    // What it may not do it is not told that it may.
    let answer = post(&server, "/whep/room", OFFER).await;
    assert_eq!((answer.status, answer.body.matches("a=sendonly\r\n").count()), (201, 2));
    assert_eq!(peers(&server).await, 2);
    let (_, _, tracks) = server.http("/debug/tracks", "").await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&tracks).unwrap().len(), 2, "only the publisher's");
}

#[tokio::test]
async fn a_viewer_before_the_publisher_is_refused_or_waits() {
    let server = Server::start().await;
    let early = post(&server, "/whep/room", &watching()).await;
    assert_eq!(early.status, 409);
    assert!(early.header("retry-after").is_some() && early.error().contains("nobody publishes"));
    let early = post(&server, "/api/whep/play/room", &watching()).await;
    assert_eq!(early.status, 404);
    assert!(early.error().contains("nobody publishes"));
    assert_eq!(post(&server, "/whep/room?wait=0", &watching()).await.status, 409);
    created(&server, "/whep/room?wait=1", &watching()).await;
    created(&server, "/api/whep/play/room?wait=1", &watching()).await;
    assert_eq!(post(&server, "/whep/room", &watching()).await.status, 409, "viewers are no publishers");
}

#[tokio::test]
async fn a_room_has_one_whip_publisher_beside_people() {
    let server = Server::start().await;
    let mut ana = server.connect("/").await;
    ana.send(json!({"event": "join", "data": {"roomId": "room", "userId": "ana"}})).await;
    ana.hear_named("joined").await;
    let first = created(&server, "/whip/room", &publishing()).await;
    assert_eq!(ana.hear_named("user-joined").await["data"]["displayName"], "WHIP");
    let second = post(&server, "/whip/room", &publishing()).await;
    assert_eq!(second.status, 409);
    assert!(second.error().contains("publisher") && second.header("retry-after").is_some());
    created(&server, "/whip/other", &publishing()).await;
    // Viewers are not announced.
    created(&server, "/whep/room", &watching()).await;
    assert_eq!(ask(&server, "DELETE", &first, "", "").await.status, 200);
    let told = ana.hear().await;
    assert_eq!(told["event"], "user-left", "{told}");
    created(&server, "/whip/room", &publishing()).await;
}

#[tokio::test]
async fn browsers_may_ask_first() {
    let server = Server::start().await;
    let session = created(&server, "/whip/room", &publishing()).await;
    let asks = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n";
    for path in ["/whip/room", "/whep/room", "/api/whip/publish/room", "/api/whep/play/room", &session] {
        let answer = ask(&server, "OPTIONS", path, asks, "").await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("accept-post"), Some("application/sdp"));
        assert_eq!(answer.header("accept-patch"), Some("application/trickle-ice-sdpfrag"));
        assert!(answer.header("link").is_none(), "nobody has shown who asks");
        assert_eq!(answer.header("access-control-allow-methods"), Some("post, patch, delete, options"));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(["authorization", "content-type", "if-match"].iter().all(|name| allowed.contains(name)), "{allowed}");
    }
}

#[tokio::test]
async fn endpoints_and_sessions_can_be_probed() {
    let server = Server::start().await;
    let session = created(&server, "/whip/room", &publishing()).await;
    for path in ["/whip/room", "/whep/room", "/api/whip/publish/room", "/api/whep/play/room", &session] {
        for method in ["GET", "HEAD"] {
            let answer = ask(&server, method, path, "", "").await;
            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{method} {path}");
        }
    }
    ask(&server, "DELETE", &session, "", "").await;
    assert_eq!(ask(&server, "GET", &session, "", "").await.status, 404);
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let server = Server::start().await;
    let session = created(&server, "/whip/room", &publishing()).await;
    for (method, path, allow) in [
        ("PATCH", "/whip/room", "post"),
        ("PUT", "/api/whip/publish/room", "post"),
        ("DELETE", "/whip/room", "post"),
        ("POST", session.as_str(), "delete"),
        ("PUT", session.as_str(), "patch"),
    ] {
        let answer = ask(&server, method, path, "", "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").unwrap().contains(allow), "{method} {path}: {}", answer.head);
        assert!(answer.error().starts_with(method), "{}", answer.body);
    }
    assert_eq!(peers(&server).await, 1);
}

#[tokio::test]
async fn the_answer_names_stun_servers_where_there_are_some() {
    let server = Server::start().await;
    let answer = post(&server, "/whip/room", &publishing()).await;
    assert_eq!(answer.header("link"), Some("<stun:stun.l.google.com:19302>; rel=\"ice-server\""));
    let server = Server::with(Config { stun_servers: Vec::new(), ..Config::defaults() }).await;
    assert!(post(&server, "/whip/room", &publishing()).await.header("link").is_none());
}

/// The video m-line of a simulcast: as browsers and OBS write it, with the extensions that tell the streams apart.
fn simulcast(rids: &[&str], rid_lines: bool) -> String {
    let mut lines = String::from(
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
         a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n",
    );
    if rid_lines {
        rids.iter().for_each(|rid| lines += &format!("a=rid:{rid} send\r\n"));
    }
    lines += &format!("a=simulcast:send {}\r\n", rids.join(";"));
    let offer = publishing();
    let at = offer.rfind("a=ssrc:1002").unwrap();
    // Neither names sources of a simulcast.
    offer[..at].to_owned() + &lines
}

#[tokio::test]
async fn a_simulcast_is_taken_whole() {
    let server = Server::start().await;
    // Chromium's pages choose their own names; OBS counts.
    for (room, rids) in [("chromium", &["q", "h", "f"][..]), ("obs", &["0", "1", "2"]), ("two", &["lo", "hi"])] {
        let answer = post(&server, &format!("/whip/{room}"), &simulcast(rids, true)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert!(answer.body.contains(&format!("a=simulcast:recv {}\r\n", rids.join(";"))), "{}", answer.body);
        for rid in rids {
            assert!(answer.body.contains(&format!("a=rid:{rid} recv")), "{rid}: {}", answer.body);
        }
        assert!(answer.body.contains("a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"), "{}", answer.body);
        assert_eq!(answer.body.matches("a=recvonly").count(), 2);
    }
}

#[tokio::test]
async fn what_is_no_usable_offer_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let offer = publishing();
    for (headers, status) in [
        ("", 415),
        ("Content-Type: application/json\r\n", 415),
        ("Content-Type: application/sdpx\r\n", 415),
        ("Content-Type: Application/SDP; charset=utf-8\r\n", 201),
    ] {
        let answer = ask(&server, "POST", &format!("/whip/type{status}"), headers, &offer).await;
        assert_eq!(answer.status, status, "{headers}");
    }
    let before = peers(&server).await;
    let one_codec_unknown = offer.replace("VP8/90000", "HOLO/90000");
    let three = offer.clone() + &offer[offer.find("m=video").unwrap()..].replace("a=mid:1", "a=mid:2");
    let three = three.replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    for (body, status, says) in [
        ("", 400, "cannot be read"),
        ("hello", 400, "cannot be read"),
        ("v=0\r\n", 400, "cannot be read"),
        (&offer.replace("a=group:BUNDLE 0 1\r\n", ""), 400, "BUNDLE"),
        (&offer.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), 400, "fingerprint"),
        (&offer.replace("a=ice-pwd", "a=x-pwd"), 400, "ice-pwd"),
        (&one_codec_unknown, 406, "m-line 1"),
        (&offer.replacen("a=rtcp-mux\r\n", "", 1), 406, "m-line 0"),
        (&three, 406, "1 and 2"),
        (&watching(), 406, "sendonly"),
    ] {
        let answer = post(&server, "/whip/room", body).await;
        assert_eq!(answer.status, status, "{says}: {}", answer.body);
        assert!(answer.error().contains(says), "{says}: {}", answer.body);
    }
    assert_eq!(post(&server, "/whip/room", &format!("v=0\r\n{}", "a".repeat(1 << 20))).await.status, 413);
    let answer = post(&server, "/whep/room?wait=1", &publishing()).await;
    assert_eq!(answer.status, 406);
    assert!(answer.error().contains("recvonly"));
    assert_eq!(post(&server, "/api/whip/publish/a%20room", &offer).await.status, 400);
    assert_eq!(post(&server, &format!("/whip/{}", "r".repeat(257)), &offer).await.status, 400);
    for id in ["", "1", "g", &"0".repeat(32), &"f".repeat(33), "..%2F"] {
        assert_eq!(server.request("DELETE", &format!("/whip/s/{id}"), "", "").await.0, 404, "{id}");
    }
    assert_eq!(peers(&server).await, before);
}

#[tokio::test]
async fn a_full_or_stopping_server_says_when_to_come_again() {
    let mut server = Server::with(Config { max_connections: 1, ..Config::defaults() }).await;
    created(&server, "/whip/room", &publishing()).await;
    let full = post(&server, "/whep/room", &watching()).await;
    assert_eq!(full.status, 503);
    assert!(full.header("retry-after").is_some() && full.error().contains("no seats left"));
    assert_eq!(peers(&server).await, 1);
    server.ask_to_stop();
    server.stopped().await;
}

#[tokio::test]
async fn a_room_takes_as_many_viewers_as_it_may() {
    let broadcast = Broadcast { viewers_max: Some(2) };
    let server = Server::with(Config { broadcast, ..Config::defaults() }).await;
    created(&server, "/whip/room", &publishing()).await;
    let first = created(&server, "/whep/room", &watching()).await;
    created(&server, "/api/whep/play/room", &watching()).await;
    for path in ["/whep/room", "/api/whep/play/room"] {
        let answer = post(&server, path, &watching()).await;
        assert_eq!(answer.status, 403);
        assert!(answer.error().contains("2 viewers"), "{}", answer.body);
    }
    created(&server, "/whep/other?wait=1", &watching()).await;
    assert_eq!(ask(&server, "DELETE", &first, "", "").await.status, 200);
    created(&server, "/whep/room", &watching()).await;
}

#[tokio::test]
async fn the_room_of_a_registered_server_wants_its_token() {
    let server = Server::start().await;
    server.state.registry.register("acme", "secret", "acme_room").unwrap();
    let answer = post(&server, "/whip/acme_room", &publishing()).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("bearer")));
    for token in ["Authorization: Bearer v1.a.b\r\n", "X-Auth-Token: v1.a.b\r\n"] {
        let answer = ask(&server, "POST", "/whip/acme_room", &format!("{TYPE}{token}"), &publishing()).await;
        assert_eq!(answer.status, 403, "{}", answer.body);
    }
    // Where nothing is registered a token is taken as it is: encoders always send one.
    let answer =
        ask(&server, "POST", "/whip/open", &format!("{TYPE}Authorization: Bearer key\r\n"), &publishing()).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_session_ends_with_its_media() {
    let server = Server::start().await;
    let tell = |event| server.state.control.handle_event(WorkerId(0), event);
    // Keys are given in order, and an index that comes again has the next epoch.
    let session = SessionKey { index: 0, epoch: 0 };
    let url = created(&server, "/whip/room", &publishing()).await;
    tell(Event::Claimed { session });
    tell(Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    tell(Event::Lost { session });
    peers_become(&server, 0).await;
    assert_eq!(ask(&server, "DELETE", &url, "", "").await.status, 404);

    let session = SessionKey { index: 0, epoch: 1 };
    let url = created(&server, "/whip/room", &publishing()).await;
    tell(Event::Claimed { session });
    tell(Event::Connected { session, suite: SrtpSuite::AeadAes128Gcm });
    tell(Event::Ended { session, reason: tramline::session::peer::EndReason::PeerClosed });
    assert_eq!(peers(&server).await, 0);
    // The keeper hears of it a moment later.
    while ask(&server, "DELETE", &url, "", "").await.status == 200 {}
}

#[tokio::test]
async fn closed_sessions_leave_no_url_behind() {
    let server = Server::start().await;
    let url = created(&server, "/whip/room", &publishing()).await;
    let (_, _, body) = server.http("/debug/peers", "").await;
    let user = serde_json::from_str::<Value>(&body).unwrap()[0]["userId"].as_str().unwrap().to_owned();
    assert!(server.state.control.disconnect_user("room", &user));
    // One that was thrown out and not noticed yet may still delete itself, once.
    let statuses =
        [ask(&server, "DELETE", &url, "", "").await.status, ask(&server, "DELETE", &url, "", "").await.status];
    assert_eq!(statuses[1], 404, "{statuses:?}");
}
