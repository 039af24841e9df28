//! Replay windows (RFC 3711 §3.3.2), one per synchronisation source.
//!
//! Owns: which packet indices were accepted.
//! Promises: looking changes nothing; `commit` is for authenticated packets only.

use super::srtp::SrtpError;
use crate::base::window::{Stale, WINDOW, Window};

/// Sources one peer may have in one direction. Eight tracks of three layers and their retransmissions are 48. When
/// full, a further source is refused: forgetting one would let its old packets be replayed.
pub const SSRCS_MAX: usize = 64;

/// The windows of all sources of one peer. The ssrcs lie apart from the windows, so a lookup reads a few cache lines.
#[derive(Debug, Default)]
pub(super) struct ReplayTable {
    ssrcs: Vec<u32>,
    windows: Vec<Window>,
}

impl ReplayTable {
    /// The window of `ssrc`: `None` for a source not heard yet, an error for one that would be too many.
    pub(super) fn window(&self, ssrc: u32) -> Result<Option<&Window>, SrtpError> {
        match self.position(ssrc) {
            Some(at) => Ok(self.windows.get(at)),
            None if self.ssrcs.len() >= SSRCS_MAX => Err(SrtpError::TooManySsrcs),
            None => Ok(None),
        }
    }

    /// Marks an authenticated packet; a source's first one creates its window.
    pub(super) fn commit(&mut self, ssrc: u32, index: u64) {
        match self.position(ssrc).and_then(|at| self.windows.get_mut(at)) {
            Some(window) => {
                window.insert(index);
            }
            None => {
                let mut window = Window::default();
                window.insert(index);
                self.ssrcs.push(ssrc);
                self.windows.push(window);
            }
        }
    }

    /// Sources heard so far.
    pub(super) fn len(&self) -> usize {
        self.ssrcs.len()
    }

    fn position(&self, ssrc: u32) -> Option<usize> {
        self.ssrcs.iter().position(|&known| known == ssrc)
    }
}

impl From<Stale> for SrtpError {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Seen => Self::Replayed,
            Stale::TooOld => Self::TooOld,
        }
    }
}

// RFC 3711 §3.3.2 asks for at least 64. A retransmission of a key frame at a high rate arrives some hundred packets
// late; 2048 is a second at 25 Mbit/s.
const _: () = assert!(WINDOW >= 2048);
