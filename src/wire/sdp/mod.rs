//! SDP attributes as WebRTC uses them: typed readers on top of `rtc-sdp`, and a writer.
//!
//! Owns: the grammar. What a description *means* for a session is `session::negotiate`.
//! Promises: one pass over the attributes; everything kept is bounded and checked against its grammar, so that a text
//! taken from a peer can be written into another description without breaking its lines.
//! Forbids: state, clocks, randomness.

mod codec;
mod fingerprint;
mod fragment;
mod media;
mod simulcast;
mod transport;
mod write;

use std::borrow::Cow;
use std::io::Cursor;

use rtc_sdp::SessionDescription;

use crate::base::ids::Mid;

pub use codec::{Codec, Feedback, offered};
pub use fingerprint::{Fingerprint, FingerprintError, HashFunction};
pub use fragment::{FRAGMENT_BYTES_MAX, FragmentOut, IceFragment};
pub use media::{Direction, Media, Msid};
pub use simulcast::SimulcastStream;
pub use transport::{Setup, Transport};
pub use write::{DescriptionOut, MediaOut, OriginOut, SourceOut, TransportOut};

/// Longest description we read. A browser with a hundred m-lines stays below 500 kB.
pub const SDP_BYTES_MAX: usize = 1 << 20;

/// Most m-lines we read: four times the largest grid a page shows; every later step is linear or quadratic in it.
pub const MLINES_MAX: usize = 256;

/// Why a text is no description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The grammar of RFC 8866 is broken.
    #[error("{0}")]
    Syntax(String),
    /// A limit of ours is passed.
    #[error("{0}")]
    Limit(&'static str),
    /// An attribute makes no sense.
    #[error("{0}")]
    Attribute(&'static str),
}

/// A description, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The first `a=group:BUNDLE` (RFC 9143); `None` when there is none.
    pub bundle: Option<Vec<Mid>>,
    /// `a=extmap-allow-mixed` for the whole session (RFC 8285 §6).
    pub ext_mixed: bool,
    /// `a=ice-lite`.
    pub ice_lite: bool,
    /// All m-lines in order.
    pub media: Vec<Media>,
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// When it is not SDP, is larger than our limits, or names an m-line twice.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > SDP_BYTES_MAX {
            return Err(SdpError::Limit("longer than 1 MiB"));
        }
        let (text, foreign) = without_foreign_media(text);
        let parsed = SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
            .map_err(|error| SdpError::Syntax(printable(&error.to_string())))?;
        if parsed.media_descriptions.len() > MLINES_MAX {
            return Err(SdpError::Limit("more than 256 m-lines"));
        }
        let mut session = Transport::default();
        let mut direction = Direction::BOTH;
        let mut description = Self { bundle: None, ext_mixed: false, ice_lite: false, media: Vec::new() };
        for attribute in &parsed.attributes {
            let value = attribute.value.as_deref().unwrap_or("");
            match attribute.key.as_str() {
                "group" if description.bundle.is_none() => description.bundle = bundle(value),
                "extmap-allow-mixed" => description.ext_mixed = true,
                "ice-lite" => description.ice_lite = true,
                key => {
                    session.read(key, value);
                    direction = Direction::parse(key).unwrap_or(direction);
                }
            }
        }
        for media in &parsed.media_descriptions {
            description.media.push(Media::read(media, &session, direction)?);
        }
        for (index, word) in foreign {
            if let Some(media) = description.media.get_mut(index) {
                media.media = word;
            }
        }
        let mut mids: Vec<&str> = description.media.iter().filter_map(|m| Some(m.mid.as_ref()?.as_str())).collect();
        mids.sort_unstable();
        if mids.windows(2).any(|pair| pair.first() == pair.last()) {
            // RFC 5888 §9.1: identification tags are unique.
            return Err(SdpError::Attribute("two m-lines have the same a=mid"));
        }
        let media_mixed = |media: &Media| media.ext_mixed || media.kind.is_none();
        description.ext_mixed |= !description.media.is_empty() && description.media.iter().all(media_mixed);
        Ok(description)
    }
}

/// The parser refuses m-lines whose media type it does not know; an answerer rejects just those (RFC 3264 §6).
/// So they go through it as `text`, and their words are given back by m-line index.
fn without_foreign_media(text: &str) -> (Cow<'_, str>, Vec<(usize, String)>) {
    const KNOWN: [&str; 6] = ["audio", "video", "text", "application", "message", "image"];
    let mut foreign = Vec::new();
    let mlines = text.split_inclusive('\n').filter_map(|line| line.strip_prefix("m="));
    for (index, word) in mlines.filter_map(|line| line.split_ascii_whitespace().next()).enumerate() {
        if is_token(word) && !KNOWN.contains(&word) {
            foreign.push((index, word.to_owned()));
        }
    }
    if foreign.is_empty() {
        return (Cow::Borrowed(text), foreign);
    }
    let replaced = |line: &str| {
        let word = line.strip_prefix("m=").and_then(|rest| rest.split_ascii_whitespace().next());
        match word.filter(|word| is_token(word) && !KNOWN.contains(word)) {
            Some(word) => line.replacen(word, "text", 1),
            None => line.to_owned(),
        }
    };
    (Cow::Owned(text.split_inclusive('\n').map(replaced).collect()), foreign)
}

/// RFC 9143 §7.1: `a=group:BUNDLE <mid> ..`. Tags that cannot be a mid of ours belong to no m-line we take.
fn bundle(value: &str) -> Option<Vec<Mid>> {
    let mut words = value.split_ascii_whitespace();
    if words.next() != Some("BUNDLE") {
        return None;
    }
    Some(words.take(MLINES_MAX).filter_map(|word| Mid::new(word.as_bytes())).collect())
}

/// RFC 8866 §9: token-char; what may stand in a mid, a stream id or a protocol.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_char)
}

/// A text as one token of at most 64 characters (RFC 8830 §2: msid-id); other characters are dropped. `None`: none left.
pub fn to_token(text: &str) -> Option<String> {
    let token: String = text.chars().filter(|c| u8::try_from(*c).is_ok_and(is_token_char)).take(64).collect();
    (!token.is_empty()).then_some(token)
}

fn is_token_char(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x27 | 0x2a | 0x2b | 0x2d | 0x2e | 0x30..=0x39 | 0x41..=0x5a | 0x5e..=0x7e)
}

/// An error text that quotes the peer, cut to a length that fits a log line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect()
}
