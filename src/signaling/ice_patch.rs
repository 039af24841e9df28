//! PATCH of a session URL: candidates that trickle, and ICE restarts (RFC 9725 §4.3, RFC 8840).
//!
//! Owns: which fragment means what. Our answers hold every candidate we have and we are ICE-lite, so what trickles in is
//! checked and tells us nothing new. Credentials that we do not know restart ICE: the answer has ours, and a new entity tag.
//! Promises: a refused request changes nothing; the old ICE session serves until the new one validates.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::http_session::{self, Endpoint, Session, quoted};
use super::problem::Problem;
use crate::room::api::RequestError;
use crate::session::negotiate::IceCredentials;
use crate::wire::sdp::{FRAGMENT_BYTES_MAX, FragmentOut, IceFragment};

/// `Content-Type` of fragments.
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// `If-Match`, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Precondition {
    /// `*`, bare or in quotes: whatever the ICE session is now (RFC 9725 §4.3.3).
    is_any: bool,
    tags: Vec<String>,
}

/// PATCH of a session.
pub async fn patch(
    State(state): State<AppState>,
    Path(id): Path<String>,
    endpoint: Endpoint,
    request: Request,
) -> Result<Response, Problem> {
    let precondition = Precondition::read(request.headers());
    // Who has no session gets no other answer.
    let is_usable = |session: &mut Session| {
        http_session::check_type(request.headers(), FRAGMENT)?;
        precondition.as_ref().ok_or_else(no_precondition)?.check(&session.tag)
    };
    state.sessions.with(endpoint, &id, is_usable)?;
    let text = http_session::body(&state, request).await?;
    if text.len() > FRAGMENT_BYTES_MAX {
        let sentence = format!("a fragment has at most {FRAGMENT_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
    }
    let fragment = IceFragment::parse(&text)
        .map_err(|error| Problem::bad_request(format!("the fragment cannot be read: {error}")))?;
    let precondition = precondition.ok_or_else(no_precondition)?;
    // Looked at again: another request may have restarted ICE while this one was read.
    state.sessions.with(endpoint, &id, |session| apply(session, &precondition, fragment))
}

fn apply(session: &mut Session, precondition: &Precondition, fragment: IceFragment) -> Result<Response, Problem> {
    precondition.check(&session.tag)?;
    if fragment.ice_lite {
        return Err(unprocessable("the peer is ICE-lite, and so are we"));
    }
    let Some((ufrag, pwd)) = fragment.credentials else {
        return match precondition.is_any {
            true => Err(Problem::bad_request("an ICE restart needs a=ice-ufrag and a=ice-pwd")),
            false => Ok(StatusCode::NO_CONTENT.into_response()),
        };
    };
    match session.seat.control.exchange_ice(session.seat.peer, IceCredentials { ufrag, pwd }) {
        Ok(None) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Some(restarted)) => {
            let (local, mid) = (&restarted.local, restarted.mid.as_str());
            let (ufrag, pwd, kind) = (local.ufrag.as_str(), local.pwd.as_str(), restarted.kind);
            let body = FragmentOut { ufrag, pwd, kind, mid, candidates: &restarted.candidates }.write();
            session.tag.clone_from(&local.ufrag);
            let headers = [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, quoted(&session.tag))];
            Ok((StatusCode::OK, headers, body).into_response())
        }
        Err(RequestError::Gone) => Err(Problem::not_found("this session is over")),
        Err(RequestError::Negotiate(error)) => Err(unprocessable(error.to_string())),
    }
}

/// 422: understood, and not what we can do.
fn unprocessable(sentence: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
}

/// 428 (RFC 6585 §3): a fragment without a tag may belong to an ICE session that was.
fn no_precondition() -> Problem {
    let sentence = "If-Match is missing: the session's ETag, or \"*\" to restart ICE";
    Problem::new(StatusCode::PRECONDITION_REQUIRED, sentence)
}

impl Precondition {
    /// A list of entity tags (RFC 9110 §13.1.1). Some clients leave the quotes out.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::IF_MATCH).iter().filter_map(|value| value.to_str().ok());
        // Our tags have no commas.
        let tags: Vec<String> = values
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_matches('"').to_owned())
            .filter(|tag| !tag.is_empty())
            .collect();
        (!tags.is_empty()).then(|| Self { is_any: tags.iter().any(|tag| tag == "*"), tags })
    }

    /// 412 when another ICE session was meant. A weak tag begins with `W/` and so is none of ours: the comparison is a
    /// strong one.
    fn check(&self, tag: &str) -> Result<(), Problem> {
        if self.is_any || self.tags.iter().any(|one| one == tag) {
            return Ok(());
        }
        let sentence = "the ETag is that of an ICE session that was; restart ICE with If-Match: \"*\"";
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, sentence))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&'static str]) -> Option<Precondition> {
        let headers = values.iter().map(|value| (header::IF_MATCH, HeaderValue::from_static(value)));
        Precondition::read(&HeaderMap::from_iter(headers))
    }

    #[test]
    fn if_match_is_read_as_clients_write_it() {
        for (values, matches) in [
            (&["\"abc\""][..], true),
            (&["abc"], true),
            (&["*"], true),
            (&["\"*\""], true),
            (&["\"x\", \"abc\""], true),
            (&["\"x\"", "\"abc\""], true),
            (&["W/\"abc\""], false),
            (&["\"x\""], false),
            (&["\"ABC\""], false),
        ] {
            assert_eq!(read(values).unwrap().check("abc").is_ok(), matches, "{values:?}");
        }
        assert!(read(&["*"]).unwrap().is_any && !read(&["\"abc\""]).unwrap().is_any);
        assert_eq!((read(&[]), read(&[""]), read(&["\"\""])), (None, None, None));
    }
}
