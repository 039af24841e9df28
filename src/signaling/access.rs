//! What every request passes first: whose it is, whether its page may call us, and whether it is one too many.
//!
//! Owns: the address of a client behind a proxy, the `Origin` check, 429, and which origin CORS names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde_json::json;

use super::AppState;
use super::limits::Entry;

/// Proxies behind one another; nobody has more.
const PROXIES_MAX: usize = 16;
/// A client with too many connections is told to come back after this.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// How a request came to us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The other end of the connection, IPv4 as such.
    pub remote: IpAddr,
    /// Its address has too many connections.
    pub is_too_many: bool,
}

/// See the module.
pub async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let may_call = may_call(state.config.limits.origins.as_deref(), origin.as_ref());
    let mut response = match pass(&state, request, may_call) {
        Ok(request) => next.run(request).await,
        Err(mut refusal) => {
            // A page shall see why.
            refusal.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            *refusal
        }
    };
    if state.config.limits.origins.is_some() {
        name_origin(response.headers_mut(), origin.filter(|_| may_call));
    }
    response
}

/// The request as it goes on, or the answer.
fn pass(state: &AppState, mut request: Request, may_call: bool) -> Result<Request, Box<Response>> {
    // Only tests call the routes without a connection.
    let arrival = request.extensions().get::<Arrival>().copied();
    let arrival = arrival.unwrap_or(Arrival { remote: IpAddr::from([127, 0, 0, 1]), is_too_many: false });
    if arrival.is_too_many {
        return Err(too_many(CONNECTION_WAIT, "this address has too many connections: close some"));
    }
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !is_upgrade;
    if !may_call && !only_looks {
        let sentence = "pages of this origin may not call this server: add it to ALLOWED_ORIGIN";
        return Err(Box::new((StatusCode::FORBIDDEN, Json(json!({"error": sentence}))).into_response()));
    }
    let client = client_address(arrival.remote, request.headers(), &state.config.limits.proxies);
    if is_upgrade || asks_for_rooms(request.uri().path()) {
        let asked = state.limits.ask(client);
        asked.map_err(|wait| too_many(wait, "too many requests: wait as long as Retry-After says"))?;
    }
    // What a proxy brings is counted here, what comes directly when it connects.
    if is_upgrade && client != arrival.remote {
        match state.limits.enter(Some(client)) {
            Entry::Fine(place) => drop(request.extensions_mut().insert(Arc::new(place))),
            Entry::TooMany(_) | Entry::Full => {
                return Err(too_many(CONNECTION_WAIT, "this address has too many connections: close some"));
            }
        }
    }
    Ok(request)
}

/// Pages, health and numbers cost little and are asked for by browsers and monitors.
fn asks_for_rooms(path: &str) -> bool {
    ["/api/", "/whip/", "/whep/"].iter().any(|start| path.starts_with(start))
}

/// A request without an origin is no page's.
fn may_call(allowed: Option<&[String]>, origin: Option<&HeaderValue>) -> bool {
    let (Some(allowed), Some(origin)) = (allowed, origin) else { return true };
    origin.to_str().is_ok_and(|origin| allowed.iter().any(|one| one.eq_ignore_ascii_case(origin)))
}

/// Fetch §3.2: the answer is for that origin only, and no other may get it from a cache.
fn name_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        match origin {
            Some(origin) => headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            None => headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN),
        };
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

fn too_many(wait: Duration, sentence: &str) -> Box<Response> {
    // Whole seconds (RFC 9110 §10.2.3), and never none.
    let seconds = wait.as_secs() + 1;
    let headers = [(header::RETRY_AFTER, seconds.to_string()), (header::CONNECTION, "close".to_owned())];
    Box::new((StatusCode::TOO_MANY_REQUESTS, headers, Json(json!({"error": sentence}))).into_response())
}

/// Each proxy adds whom it heard from at the end, so the list is believed from there, for as long as the next one is a
/// proxy of ours too.
fn client_address(remote: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let lists: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|list| list.to_str().ok()).collect();
    let mut heard_from = lists.iter().rev().flat_map(|list| list.rsplit(',')).take(PROXIES_MAX);
    let mut client = remote.to_canonical();
    while is_proxy(client, proxies) {
        let Some(next) = heard_from.next().and_then(address) else { break };
        client = next;
    }
    client
}

/// An address, with a port behind it as some proxies write it, or without.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let read = text.parse().or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    let read = read.or_else(|_| text.trim_matches(['[', ']']).parse::<IpAddr>());
    read.ok().map(|address| address.to_canonical())
}

/// Whether connections from there bring other people's requests.
pub fn is_proxy(remote: IpAddr, proxies: &[IpNet]) -> bool {
    proxies.iter().any(|network| network.contains(&remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(remote: &str, forwarded: &[&'static str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let name = header::HeaderName::from_static("x-forwarded-for");
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(&name, HeaderValue::from_static(list));
        }
        client_address(remote.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_proxies_of_ours_are_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "anybody can write the header");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.2.3.4"]),
            "198.51.100.7",
            "the first is made up"
        );
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::1", &["[2001:db8::1]:9"]), "2001:db8::1");
        for silent in [&[][..], &["unknown"], &["198.51.100.7, junk"]] {
            assert_eq!(client("10.0.0.1", silent), "10.0.0.1", "{silent:?}");
        }
        let endless: Vec<&'static str> = vec!["10.0.0.2"; 100];
        assert_eq!(client("10.0.0.1", &endless), "10.0.0.2");
    }

    #[test]
    fn listed_origins_may_call_and_programs_may() {
        let listed = ["https://a.example".to_owned()];
        let of = |text| HeaderValue::from_static(text);
        assert!(may_call(None, Some(&of("https://b.example"))) && may_call(Some(&listed), None));
        assert!(may_call(Some(&listed), Some(&of("https://A.example"))));
        for other in ["https://b.example", "http://a.example", "https://a.example.b", "null"] {
            assert!(!may_call(Some(&listed), Some(&of(other))), "{other}");
        }
    }
}
