//! The frame of Gryt's dialects, `{"event": …, "data": …}`, and that of SFU-Go, which says `type` for it; and readers that forgive what clients spell differently.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Longest name of an event; it may come back in an error and in the log.
const EVENT_MAX: usize = 64;
/// How much of the JSON parser's complaint a client is told.
const QUOTED_MAX: usize = 200;

/// A message as it came. `data` is an object or text, whichever way it was encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// What it is about.
    pub event: String,
    /// The rest.
    pub data: Value,
}

impl Envelope {
    /// Reads a frame; the error is a sentence for the client.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Raw {
            event: String,
            #[serde(default)]
            data: Value,
        }
        let raw: Raw = serde_json::from_str(text).map_err(not_understood)?;
        Self::checked(raw.event, raw.data)
    }

    /// Reads a frame that calls the event `type` (SFU-Go).
    pub fn parse_typed(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Raw {
            r#type: String,
            #[serde(default)]
            data: Value,
        }
        let raw: Raw = serde_json::from_str(text).map_err(not_understood)?;
        Self::checked(raw.r#type, raw.data)
    }

    fn checked(event: String, data: Value) -> Result<Self, String> {
        if event.len() > EVENT_MAX {
            return Err("the message is not understood: its name is too long".to_owned());
        }
        Ok(Self { event, data: unwrapped(data) })
    }
}

fn not_understood(error: serde_json::Error) -> String {
    // The parser quotes what it found, however long.
    let quoted: String = error.to_string().chars().take(QUOTED_MAX).collect();
    format!("the message is not understood: {quoted}")
}

/// `data` may be JSON encoded a second time, or plain text.
fn unwrapped(data: Value) -> Value {
    match data {
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(inner @ (Value::Object(_) | Value::Null)) => inner,
            _ => Value::String(text),
        },
        other => other,
    }
}

/// A message whose `data` is an object.
pub fn object(event: &str, data: Value) -> String {
    json!({"event": event, "data": data}).to_string()
}

/// A message whose `data` is text: plain, or JSON encoded a second time.
pub fn text(event: &str, data: impl Into<String>) -> String {
    json!({"event": event, "data": data.into()}).to_string()
}

/// The fields of a message's data.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    /// Of an object; `null` and empty text have none.
    pub fn of(data: &'a Value) -> Result<Self, String> {
        match data {
            Value::Object(map) => Ok(Self(Some(map))),
            Value::Null => Ok(Self(None)),
            Value::String(text) if text.trim().is_empty() => Ok(Self(None)),
            _ => Err("data must be an object".to_owned()),
        }
    }

    /// The first of the spellings that is there and not null.
    pub fn value(self, names: &[&str]) -> Option<&'a Value> {
        names.iter().find_map(|name| self.0?.get(*name)).filter(|value| !value.is_null())
    }

    /// Text of at most `max` bytes; empty counts as absent.
    pub fn text(self, names: &[&str], max: usize) -> Result<Option<&'a str>, String> {
        let name = names.first().copied().unwrap_or_default();
        match self.value(names) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() > max => {
                Err(format!("{name} is too long: {} bytes, at most {max} are allowed", text.len()))
            }
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(format!("{name} must be text")),
        }
    }

    /// The same, and it must be there.
    pub fn required(self, names: &[&str], max: usize) -> Result<&'a str, String> {
        self.text(names, max)?.ok_or_else(|| format!("{} is missing", names.first().copied().unwrap_or_default()))
    }

    /// A truth value.
    pub fn flag(self, names: &[&str]) -> Result<Option<bool>, String> {
        match self.value(names) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(format!("{} must be true or false", names.first().copied().unwrap_or_default())),
        }
    }

    /// A list of texts, each of at most `max` bytes.
    pub fn texts(self, names: &[&str], count_max: usize, max: usize) -> Result<Option<Vec<String>>, String> {
        let name = names.first().copied().unwrap_or_default();
        let list = match self.value(names) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() <= count_max => list,
            Some(_) => return Err(format!("{name} must be a list of at most {count_max} texts")),
        };
        let texts = list.iter().map(|entry| entry.as_str().filter(|text| text.len() <= max).map(str::to_owned));
        let texts: Option<Vec<String>> = texts.collect();
        texts.map(Some).ok_or_else(|| format!("{name} must be a list of texts"))
    }
}

/// A trickled candidate: its line, or `None` for the end of candidates.
pub fn candidate(data: &Value, max: usize) -> Result<Option<&str>, String> {
    if let Value::String(line) = data {
        return Ok(Some(line.as_str()).filter(|line| !line.is_empty()));
    }
    let fields = Fields::of(data)?;
    for name in ["sdpMid", "sdp_mid"] {
        fields.text(&[name], 256)?;
    }
    let index = fields.value(&["sdpMLineIndex", "sdpMlineIndex", "sdp_mline_index"]);
    if index.is_some_and(|index| index.as_u64().is_none()) {
        return Err("sdpMLineIndex must be a whole number".to_owned());
    }
    fields.text(&["candidate"], max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_object_or_encoded_twice() {
        let once = Envelope::parse(r#"{"event":"offer","data":{"sdp":"x"},"extra":1}"#).unwrap();
        let twice = Envelope::parse(r#"{"event":"offer","data":"{\"sdp\":\"x\"}"}"#).unwrap();
        assert_eq!(once, twice);
        assert_eq!(Envelope::parse(r#"{"event":"renegotiate"}"#).unwrap().data, Value::Null);
        assert_eq!(Envelope::parse(r#"{"event":"e","data":"plain"}"#).unwrap().data, json!("plain"));
    }

    #[test]
    fn frames_without_an_event_are_refused_with_a_sentence() {
        for bad in ["", "{", "[]", "1", "null", r#"{"data":{}}"#, r#"{"event":7}"#] {
            assert!(Envelope::parse(bad).unwrap_err().starts_with("the message is not understood"), "{bad}");
        }
        let long = "x".repeat(10_000);
        for bad in [format!("\"{long}\""), format!(r#"{{"event":"{long}"}}"#)] {
            assert!(Envelope::parse(&bad).unwrap_err().len() < 300);
        }
        let deep = "[".repeat(100_000);
        assert!(Envelope::parse(&deep).is_err());
        let deep = format!(r#"{{"event":"x","data":"{}"}}"#, "[".repeat(100_000));
        assert!(matches!(Envelope::parse(&deep).unwrap().data, Value::String(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text: String, data: String, line: String) {
            let _ = Envelope::parse(&text);
            let _ = Envelope::parse_typed(&text);
            let framed = json!({"event": text, "data": data}).to_string();
            if let Ok(envelope) = Envelope::parse(&framed) {
                let _ = candidate(&envelope.data, 64);
                let _ = Fields::of(&envelope.data);
            }
            let nested = json!({"event": "e", "data": json!({"candidate": line}).to_string()}).to_string();
            let read = Envelope::parse(&nested).map(|envelope| envelope.data);
            proptest::prop_assert_eq!(read, Ok(json!({"candidate": line})));
        }
    }

    #[test]
    fn fields_have_types_and_bounds() {
        let data = json!({"a": "text", "b": 1, "c": true, "d": "", "e": null, "f": ["x"], "g": [1]});
        let fields = Fields::of(&data).unwrap();
        assert_eq!(fields.text(&["z", "a"], 4), Ok(Some("text")));
        assert!(fields.text(&["a"], 3).unwrap_err().contains("too long"));
        assert_eq!(fields.text(&["b"], 9), Err("b must be text".into()));
        assert_eq!(fields.required(&["d"], 9), Err("d is missing".into()));
        assert_eq!(fields.text(&["e"], 9), Ok(None));
        assert_eq!(fields.flag(&["c"]), Ok(Some(true)));
        assert!(fields.flag(&["a"]).is_err());
        assert_eq!(fields.texts(&["f"], 1, 1), Ok(Some(vec!["x".into()])));
        assert!(fields.texts(&["g"], 1, 1).is_err());
        assert!(fields.texts(&["f"], 0, 1).is_err());
        assert!(Fields::of(&json!([1])).is_err());
    }

    #[test]
    fn candidates_come_as_objects_or_text_and_empty_means_the_end() {
        assert_eq!(
            candidate(&json!({"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0}), 99),
            Ok(Some("candidate:1"))
        );
        assert_eq!(candidate(&json!("candidate:1"), 99), Ok(Some("candidate:1")));
        for end in [json!({"candidate": ""}), json!({"candidate": null}), json!(null), json!("")] {
            assert_eq!(candidate(&end, 99), Ok(None));
        }
        assert!(candidate(&json!({"candidate": 7}), 99).is_err());
        assert!(candidate(&json!({"candidate": "c", "sdpMLineIndex": "0"}), 99).is_err());
        assert!(candidate(&json!([]), 99).is_err());
    }
}
