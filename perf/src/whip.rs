//! WHIP and WHEP as a client (RFC 9725, draft-ietf-wish-whep): an offer by POST, an end by DELETE.
//!
//! Promises: works with any server that puts all its candidates into the answer.
//! Forbids: PATCH: there is nothing to trickle and no restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tramline::runtime::clock;
use ureq::Agent;

/// Longest wait for one response.
const PATIENCE: Duration = Duration::from_secs(10);
/// A player may come before the server has seen the publisher's first packets: it asks again as long as this.
const PLAY_PATIENCE: Duration = Duration::from_secs(10);
const PLAY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// What a server says when there is nothing to play yet: 404 (older drafts), 409 (WHEP), 503 (any).
const NOT_YET: [u16; 3] = [404, 409, 503];

/// What a peer comes for. Doors with rooms do not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To send, perhaps to receive as well.
    Publish,
    /// To receive only.
    Play,
}

/// The endpoints of one server.
#[derive(Clone, Debug)]
pub struct Whip {
    agent: Agent,
    publish: String,
    play: String,
    bearer: Option<String>,
}

/// A session by its URL.
#[derive(Debug)]
pub struct Resource {
    agent: Agent,
    url: String,
    bearer: Option<String>,
}

impl Whip {
    /// `publish` and `play` are URLs in which `{room}` is filled in.
    pub fn new(publish: String, play: String, token: Option<String>) -> Self {
        let config = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let bearer = token.map(|token| format!("Bearer {token}"));
        Self { agent: config.build().into(), publish, play, bearer }
    }

    /// Makes a session; gives it with the answer.
    pub fn create(&self, purpose: Purpose, room: &str, offer: &str) -> Result<(Resource, String)> {
        let template = if purpose == Purpose::Publish { &self.publish } else { &self.play };
        let url = template.replace("{room}", room);
        let until: Instant = clock::now() + PLAY_PATIENCE;
        loop {
            let mut request = self.agent.post(&url).header("Content-Type", "application/sdp");
            if let Some(bearer) = &self.bearer {
                request = request.header("Authorization", bearer);
            }
            let mut response = request.send(offer).with_context(|| format!("POST {url}"))?;
            let status = response.status().as_u16();
            let body = response.body_mut().read_to_string().with_context(|| format!("POST {url}: the body"))?;
            if purpose == Purpose::Play && NOT_YET.contains(&status) && clock::now() < until {
                std::thread::sleep(PLAY_AGAIN_AFTER);
                continue;
            }
            // RFC 9725 §4.2: 201; some answer 200.
            if !matches!(status, 200 | 201) {
                bail!("POST {url}: status {status}: {body}");
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let location = location.with_context(|| format!("POST {url}: no Location"))?;
            let resource =
                Resource { agent: self.agent.clone(), url: resolve(&url, location), bearer: self.bearer.clone() };
            return Ok((resource, body));
        }
    }
}

impl Resource {
    /// Ends the session. A server that has ended it already is right too.
    pub fn delete(self) {
        let mut request = self.agent.delete(&self.url);
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer);
        }
        let _ = request.call();
    }
}

/// RFC 3986 §5.2 as far as Locations go: absolute, from the host's root, or beside the endpoint.
fn resolve(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let authority = base.find("://").map_or(0, |at| at + 3);
    let path = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    if location.starts_with('/') {
        return format!("{}{location}", &base[..path]);
    }
    let directory = base.rfind('/').filter(|&at| at >= path).map_or(base, |at| &base[..at]);
    format!("{directory}/{location}")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_location_may_be_absolute_or_relative() {
        let base = "http://127.0.0.1:8889/live/whip";
        assert_eq!(resolve(base, "http://h/x"), "http://h/x");
        assert_eq!(resolve(base, "/live/whip/7"), "http://127.0.0.1:8889/live/whip/7");
        assert_eq!(resolve(base, "s/7"), "http://127.0.0.1:8889/live/s/7");
        assert_eq!(resolve("http://h:1", "/s"), "http://h:1/s");
        assert_eq!(resolve("http://h:1", "s"), "http://h:1/s");
    }

    /// A server that gives each request the next response; hands back the requests' heads.
    fn serve(responses: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut len) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        len = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push_str(&line);
                }
                reader.read_exact(&mut vec![0; len]).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
                heads.push(head);
            }
            heads
        });
        (address, thread)
    }

    #[test]
    fn a_player_waits_for_the_publisher_and_leaves_by_delete() {
        let (address, server) = serve(&[
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 201 Created\r\nLocation: /s/7\r\nContent-Length: 3\r\nConnection: close\r\n\r\nsdp",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ]);
        let whip = Whip::new(String::new(), format!("http://{address}/{{room}}/whep"), Some("key".to_owned()));
        let (resource, answer) = whip.create(Purpose::Play, "r1", "offer").unwrap();
        assert_eq!(answer, "sdp");
        resource.delete();
        let heads = server.join().unwrap();
        assert!(heads[1].starts_with("POST /r1/whep ") && heads[2].starts_with("DELETE /s/7 "), "{heads:?}");
        assert!(heads.iter().all(|head| head.to_lowercase().contains("authorization: bearer key")));
    }

    #[test]
    fn a_publisher_that_is_refused_hears_why() {
        let (address, server) =
            serve(&["HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntaken"]);
        let whip = Whip::new(format!("http://{address}/{{room}}"), String::new(), None);
        let error = whip.create(Purpose::Publish, "r1", "offer").unwrap_err().to_string();
        assert!(error.contains("409") && error.contains("taken"), "{error}");
        server.join().unwrap();
    }
}
