//! Replay windows (RFC 3711 §3.3.2), one per synchronisation source.
//!
//! Owns: which packet indices were accepted.
//! Promises: `check` changes nothing; `commit` is for authenticated packets only.

use super::srtp::SrtpError;

/// Packets a late one may lie behind the newest and still be accepted. RFC 3711 §3.3.2 asks for at least 64. A
/// retransmission of a key frame at a high rate arrives some hundred packets late; 2048 is a second at 25 Mbit/s.
pub const REPLAY_WINDOW: u64 = 2048;

/// Sources one peer may have in one direction. Eight tracks of three layers and their retransmissions are 48. When
/// full, a further source is refused: forgetting one would let its old packets be replayed.
pub const SSRCS_MAX: usize = 64;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// The last 2048 indices of one source.
#[derive(Clone, Debug)]
pub(super) struct ReplayWindow {
    highest: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// A window that has seen exactly `index`.
    fn starting_at(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.set(index);
        window
    }

    /// The highest index accepted so far.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` may still be accepted.
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index > self.highest {
            return Ok(());
        }
        if self.highest - index >= REPLAY_WINDOW {
            return Err(SrtpError::TooOld);
        }
        let (word, bit) = slot(index);
        if self.seen[word] & bit != 0 { Err(SrtpError::Replayed) } else { Ok(()) }
    }

    /// Marks an authenticated `index` that `check` let through.
    fn commit(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= REPLAY_WINDOW {
                self.seen.fill(0);
            } else {
                for skipped in self.highest + 1..index {
                    let (word, bit) = slot(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.set(index);
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = slot(index);
        self.seen[word] |= bit;
    }
}

/// Position of an index in the ring of bits.
fn slot(index: u64) -> (usize, u64) {
    let position = index % REPLAY_WINDOW;
    ((position / 64) as usize, 1 << (position % 64))
}

/// The windows of all sources of one peer. The ssrcs lie apart from the windows, so a lookup reads a few cache lines.
#[derive(Debug, Default)]
pub(super) struct ReplayTable {
    ssrcs: Vec<u32>,
    windows: Vec<ReplayWindow>,
}

impl ReplayTable {
    /// The window of `ssrc`: `None` for a source not heard yet, an error for one that would be too many.
    pub(super) fn window(&self, ssrc: u32) -> Result<Option<&ReplayWindow>, SrtpError> {
        match self.position(ssrc) {
            Some(at) => Ok(self.windows.get(at)),
            None if self.ssrcs.len() >= SSRCS_MAX => Err(SrtpError::TooManySsrcs),
            None => Ok(None),
        }
    }

    /// Marks an authenticated packet; a source's first one creates its window.
    pub(super) fn commit(&mut self, ssrc: u32, index: u64) {
        match self.position(ssrc).and_then(|at| self.windows.get_mut(at)) {
            Some(window) => window.commit(index),
            None => {
                self.ssrcs.push(ssrc);
                self.windows.push(ReplayWindow::starting_at(index));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn the_window_is_exactly_as_wide_as_promised() {
        let mut window = ReplayWindow::starting_at(10_000);
        assert_eq!(window.check(10_000), Err(SrtpError::Replayed));
        assert_eq!(window.check(10_000 - REPLAY_WINDOW), Err(SrtpError::TooOld));
        assert_eq!(window.check(10_000 - REPLAY_WINDOW + 1), Ok(()));
        window.commit(10_000 - REPLAY_WINDOW + 1);
        assert_eq!(window.check(10_000 - REPLAY_WINDOW + 1), Err(SrtpError::Replayed));
    }

    proptest! {
        #[test]
        fn no_index_is_accepted_twice(steps in prop::collection::vec((0u64..6000, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::starting_at(1 << 20);
            let mut accepted = HashSet::from([1u64 << 20]);
            for (distance, ahead) in steps {
                let index = if ahead { window.highest() + distance / 8 } else { window.highest() - distance };
                let fresh = !accepted.contains(&index) && index + REPLAY_WINDOW > window.highest();
                prop_assert_eq!(window.check(index).is_ok(), fresh);
                if fresh {
                    window.commit(index);
                    accepted.insert(index);
                }
            }
        }
    }
}
