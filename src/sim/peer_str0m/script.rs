//! What a peer is to do.

use crate::sim::camera::CameraConfig;
use crate::sim::oracle::hash_of;

/// What a peer does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Hash of its room, for the tags.
    pub room: u32,
    /// Offers first.
    pub offers: bool,
    /// Tracks it publishes.
    pub audio: usize,
    /// Tracks it publishes.
    pub video: usize,
    /// Receiving m-lines it offers from the beginning besides those it sends on.
    pub receiving: (usize, usize),
    /// As in RFC 6464: 0 is loudest, 127 silence.
    pub level_dbov: u8,
    /// Offers again when told to; an unmodified client of some protocols does not.
    pub offers_again: bool,
    /// Its video tracks come from such a camera; else they are small and all alike.
    pub camera: Option<CameraConfig>,
    /// Keeps books of what is seen, and asks for keyframes like a viewer.
    pub watches: bool,
    /// Estimates what it can send, beginning so.
    pub estimate_bps: Option<u64>,
    /// Fills up with padding to what the next better quality needs.
    pub pads: bool,
}

impl Script {
    /// Offers one audio and one video track.
    pub fn caller(room: &str) -> Self {
        Self {
            room: hash_of(room.as_bytes()) as u32,
            offers: true,
            audio: 1,
            video: 1,
            receiving: (0, 0),
            level_dbov: 30,
            offers_again: true,
            camera: None,
            watches: false,
            estimate_bps: None,
            pads: false,
        }
    }

    /// Offers to receive only.
    pub fn listener(room: &str) -> Self {
        Self { audio: 0, video: 0, receiving: (1, 1), ..Self::caller(room) }
    }

    /// Publishes what a camera makes, and a microphone.
    pub fn publisher(room: &str, camera: CameraConfig) -> Self {
        Self { camera: Some(camera), ..Self::caller(room) }
    }

    /// A listener with eyes.
    pub fn viewer(room: &str) -> Self {
        Self { watches: true, ..Self::listener(room) }
    }
}
