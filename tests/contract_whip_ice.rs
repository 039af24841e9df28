//! PATCH of WHIP and WHEP sessions: trickle and ICE restarts, status by status.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::Server;
use support::whip::{Answer, ask, created, post, publishing, watching};

const TYPE: &str = "Content-Type: application/trickle-ice-sdpfrag\r\n";
/// As in the offer.
const KNOWN: (&str, &str) = ("F7gI", "x9cml/YzichV2+XlhiMu8gKw");
const NEW: (&str, &str) = ("anew", "anew-anew-anew-anew-anew");

fn media_level((ufrag, pwd): (&str, &str)) -> String {
    format!(
        "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host\r\n"
    )
}

fn session_level((ufrag, pwd): (&str, &str)) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2 0d1f.local 9 typ host\r\na=candidate:1 1 tcp 2 what is this\r\na=end-of-candidates\r\n"
    )
}

async fn patch(server: &Server, session: &str, tag: &str, body: &str) -> Answer {
    ask(server, "PATCH", session, &format!("{TYPE}If-Match: {tag}\r\n"), body).await
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
}

/// The entity tag of an answer: our ufrag. The header is known in lower case only.
fn tag_of(answer: &Answer) -> String {
    let tag = format!("\"{}\"", line(&answer.body, "a=ice-ufrag:"));
    assert_eq!(answer.header("etag").unwrap(), tag.to_ascii_lowercase());
    tag
}

/// A session and its entity tag.
async fn begun(server: &Server, path: &str, offer: &str) -> (String, String) {
    let answer = post(server, path, offer).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    (answer.header("location").unwrap().to_owned(), tag_of(&answer))
}

#[tokio::test]
async fn what_trickles_in_is_taken_and_changes_nothing() {
    let server = Server::start().await;
    let (publisher, tag) = begun(&server, "/whip/room", &publishing()).await;
    for fragment in
        [media_level(KNOWN), session_level(KNOWN), "m=audio 9 X 0\r\na=mid:0\r\na=end-of-candidates\r\n".into()]
    {
        let answer = patch(&server, &publisher, &tag, &fragment).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{fragment}");
        assert!(answer.header("etag").is_none(), "a trickle has none: {}", answer.head);
    }
    // It matches whatever is there, and nothing in it is new.
    assert_eq!(patch(&server, &publisher, "*", &media_level(KNOWN)).await.status, 204);
    let (viewer, tag) = begun(&server, "/whep/room", &watching()).await;
    assert_eq!(patch(&server, &viewer, &tag, &media_level(KNOWN)).await.status, 204);
    // As some clients write it.
    assert_eq!(patch(&server, &viewer, tag.trim_matches('"'), &media_level(KNOWN)).await.status, 204);
}

#[tokio::test]
async fn each_refusal_has_its_status_and_changes_nothing() {
    let server = Server::start().await;
    let (session, tag) = begun(&server, "/whip/room", &publishing()).await;
    let fine = media_level(KNOWN);
    for (headers, body, status, says) in [
        (format!("If-Match: {tag}\r\n"), fine.as_str(), 415, "trickle-ice-sdpfrag"),
        (format!("Content-Type: application/sdp\r\nIf-Match: {tag}\r\n"), &fine, 415, "trickle-ice-sdpfrag"),
        (TYPE.to_owned(), &fine, 428, "If-Match is missing"),
        (format!("{TYPE}If-Match: \"another\"\r\n"), &fine, 412, "was"),
        (format!("{TYPE}If-Match: W/{tag}\r\n"), &fine, 412, "was"),
        (format!("{TYPE}If-Match: {tag}\r\n"), "hello", 400, "no line of SDP"),
        (format!("{TYPE}If-Match: {tag}\r\n"), "a=ice-ufrag:EsAw\r\n", 400, "missing"),
        (format!("{TYPE}If-Match: {tag}\r\n"), "a=ice-ufrag:E\r\na=ice-pwd:short\r\n", 400, "ice-chars"),
        (format!("{TYPE}If-Match: *\r\n"), "m=audio 9 X 0\r\na=mid:0\r\n", 400, "restart needs"),
        (format!("{TYPE}If-Match: {tag}\r\n"), "a=ice-lite\r\n", 422, "ICE-lite"),
        (format!("{TYPE}If-Match: *\r\n"), &media_level((NEW.0, KNOWN.1)), 422, "both"),
        (format!("{TYPE}If-Match: *\r\n"), &media_level((KNOWN.0, NEW.1)), 422, "both"),
        (format!("{TYPE}If-Match: {tag}\r\n"), &"a=candidate:1\r\n".repeat(5000), 413, "bytes"),
    ] {
        let answer = ask(&server, "PATCH", &session, &headers, body).await;
        assert_eq!(answer.status, status, "{says}: {}", answer.body);
        assert!(answer.error().contains(says), "{says}: {}", answer.body);
    }
    for unknown in ["/whip/s/00000000000000000000000000000000", &session.replace("whip", "whep")] {
        assert_eq!(patch(&server, unknown, &tag, &fine).await.status, 404);
    }
    assert_eq!(patch(&server, &session, &tag, &fine).await.status, 204, "the session is as it was");
}

#[tokio::test]
async fn new_credentials_restart_ice() {
    let server = Server::start().await;
    for (path, offer) in [("/whip/room", publishing()), ("/whep/room", watching())] {
        let (session, first) = begun(&server, path, &offer).await;
        let mut tag = first.clone();
        let restarts = [
            ("\"*\"".to_owned(), media_level(NEW)),
            ("*".to_owned(), session_level(("anew2", "anew-anew-anew-anew-anew2"))),
            // The current tag may stand there, too.
            ("current".to_owned(), media_level(("anew3", "anew-anew-anew-anew-anew3"))),
        ];
        for (condition, fragment) in restarts {
            let condition = if condition == "current" { tag.clone() } else { condition };
            let answer = patch(&server, &session, &condition, &fragment).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.header("content-type"), Some("application/trickle-ice-sdpfrag"));
            assert!(answer.body.starts_with("a=ice-lite\r\n") && answer.body.ends_with("a=end-of-candidates\r\n"));
            assert!(answer.body.contains("a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\r\n"));
            assert!(line(&answer.body, "a=ice-pwd:").len() >= 22);
            let now = tag_of(&answer);
            assert!(now != tag && now != first);
            // What still trickles for the session before is too late.
            assert_eq!(patch(&server, &session, &tag, &fragment).await.status, 412);
            assert_eq!(patch(&server, &session, &now, &fragment).await.status, 204);
            tag = now;
        }
    }
}

#[tokio::test]
async fn a_session_that_is_asked_too_often_says_when_to_come_again() {
    let server = Server::start().await;
    let session = created(&server, "/whip/room", &publishing()).await;
    for _ in 0..2000 {
        let answer = ask(&server, "GET", &session, "", "").await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(ask(&server, "DELETE", &session, "", "").await.status, 200, "the end is always taken");
            return;
        }
        assert_eq!(answer.status, 204);
    }
    panic!("never refused");
}
