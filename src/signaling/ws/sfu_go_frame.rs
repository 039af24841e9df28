//! SFU-Go's frame, `{"type", "data", "timestamp"}`, and the small things that its messages are made of.

use serde_json::{Value, json};

use super::envelope::Fields;
use super::seat::Failure;
use crate::runtime::clock;

/// Longest id.
const ID_MAX: usize = 128;

/// A message now.
pub fn frame(kind: &str, data: &Value) -> String {
    json!({"type": kind, "data": data, "timestamp": timestamp()}).to_string()
}

/// A message without content.
pub fn bare(kind: &str) -> String {
    json!({"type": kind, "timestamp": timestamp()}).to_string()
}

/// The `error` message; its codes are those of HTTP.
pub fn error(code: &str, sentence: &str) -> String {
    let status = match code {
        "unauthorized" => 401,
        "forbidden" => 403,
        "gone" | "no-track" | "join-first" => 404,
        "rate-limited" => 429,
        "server-full" | "too-many-rooms" | "server-stopping" | "unavailable" => 500,
        _ => 400,
    };
    frame("error", &json!({"code": status, "message": sentence}))
}

/// RFC 3339, with milliseconds.
pub fn timestamp() -> String {
    jiff::Timestamp::try_from(clock::wall()).map(|now| format!("{now:.3}")).unwrap_or_default()
}

/// An id as SFU-Go allows it: letters, digits, `_`, `-` and `.`.
pub fn is_id(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && text.len() <= ID_MAX && text.chars().all(is_allowed)
}

/// An id that must be there, from the message or from the query.
pub fn id<'a>(fields: Fields<'a>, name: &str, or: Option<&'a str>) -> Result<&'a str, Failure> {
    let text = fields.text(&[name], usize::MAX).map_err(Failure::bad_message)?.or(or);
    match text {
        Some(text) if is_id(text) => Ok(text),
        Some(_) => Err(Failure::bad_message(format!(
            "{name} may have at most {ID_MAX} letters, digits, and the characters _ - ."
        ))),
        None => Err(Failure::bad_message(format!("{name} is missing"))),
    }
}

/// The candidates of a description, as they would be trickled.
pub fn candidates(sdp: &str, peer_id: &str) -> Vec<String> {
    let mid = sdp.lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap_or_default();
    let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    let message = |line: &str| {
        let candidate = format!("candidate:{line}");
        json!({"candidate": candidate, "sdpMid": mid, "sdpMLineIndex": 0, "peerId": peer_id})
    };
    lines.map(|line| frame("ice-candidate", &message(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_pattern() {
        for good in ["a", "room-9", "A.b_C", &"x".repeat(128)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn frames_have_the_time_to_the_millisecond() {
        let read: Value = serde_json::from_str(&frame("x", &json!({"a": 1}))).unwrap();
        assert_eq!((&read["type"], &read["data"]["a"]), (&json!("x"), &json!(1)));
        let timestamp = read["timestamp"].as_str().unwrap();
        assert_eq!((timestamp.len(), &timestamp[19..20], &timestamp[23..]), (24, ".", "Z"));
    }

    #[test]
    fn candidates_are_those_of_the_description() {
        let sdp = "v=0\r\nm=audio 9 x\r\na=mid:7\r\na=candidate:1 1 udp 5 192.0.2.1 3478 typ host\r\n";
        let told = candidates(sdp, "p");
        assert_eq!(told.len(), 1);
        let read: Value = serde_json::from_str(&told[0]).unwrap();
        let want = json!({
            "candidate": "candidate:1 1 udp 5 192.0.2.1 3478 typ host", "sdpMid": "7", "sdpMLineIndex": 0, "peerId": "p",
        });
        assert_eq!(read["data"], want);
    }
}
