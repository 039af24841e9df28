//! Who speaks: audio levels (RFC 6464) smoothed per track, and the loudest with hysteresis.
//!
//! Owns: plain numbers. A worker meters its tracks, the room compares them.

use std::time::{Duration, Instant};

/// How much of a new level enters the mean per packet of 20 ms: about 200 ms of memory.
const SMOOTHING: f32 = 0.1;
/// Without packets a track is silent after this.
const SILENCE_AFTER: Duration = Duration::from_millis(500);
/// Mean loudness (0 silent, 127 full scale) above which somebody counts as speaking: -50 dBov is a quiet voice.
pub const SPEAKING_MIN: u8 = 127 - 50;
/// A challenger must be this much louder to take over, so that two voices do not flicker.
const TAKE_OVER_MARGIN: u8 = 6;

/// Smoothed loudness of one track.
#[derive(Debug, Default)]
pub struct LevelMeter {
    mean: f32,
    heard_at: Option<Instant>,
}

impl LevelMeter {
    /// `level_dbov` as the extension has it: 0 is the loudest, 127 is silence (RFC 6464 §3).
    pub fn handle_level(&mut self, now: Instant, level_dbov: u8) {
        let loudness = f32::from(127 - level_dbov.min(127));
        self.mean += (loudness - self.mean) * SMOOTHING;
        self.heard_at = Some(now);
    }

    /// Loudness from 0 to 127.
    pub fn loudness(&self, now: Instant) -> u8 {
        let is_heard = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < SILENCE_AFTER);
        if is_heard { self.mean as u8 } else { 0 }
    }
}

/// The dominant speaker among candidates named by `T`.
#[derive(Debug)]
pub struct DominantSpeaker<T> {
    current: Option<T>,
}

impl<T> Default for DominantSpeaker<T> {
    fn default() -> Self {
        Self { current: None }
    }
}

impl<T: Copy + PartialEq> DominantSpeaker<T> {
    /// Compares the latest loudness of everybody; `true` when the dominant speaker changed. Silence keeps the last one:
    /// whoever spoke last stays in the picture.
    pub fn update(&mut self, loudness: impl Iterator<Item = (T, u8)> + Clone) -> bool {
        let current_loudness =
            loudness.clone().find(|(who, _)| Some(*who) == self.current).map(|(_, loudness)| loudness);
        let loudest = loudness.filter(|(_, loudness)| *loudness >= SPEAKING_MIN).max_by_key(|(_, loudness)| *loudness);
        let next = match (loudest, current_loudness) {
            (Some((who, loudness)), Some(mine)) if loudness >= mine.saturating_add(TAKE_OVER_MARGIN) => Some(who),
            (Some((who, _)), None) => Some(who),
            (_, Some(_)) => self.current,
            (None, None) => None,
        };
        let is_changed = next != self.current;
        self.current = next;
        is_changed
    }

    /// Who it is.
    pub fn current(&self) -> Option<T> {
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn a_voice_is_heard_and_fades() {
        let now = clock::now();
        let mut meter = LevelMeter::default();
        for packet in 0..30 {
            meter.handle_level(now + Duration::from_millis(20 * packet), 20);
        }
        assert!(meter.loudness(now + Duration::from_millis(600)) > SPEAKING_MIN);
        assert_eq!(meter.loudness(now + Duration::from_secs(5)), 0);
    }

    #[test]
    fn a_slightly_louder_voice_does_not_take_over() {
        let mut speaker = DominantSpeaker::default();
        assert!(speaker.update([("a", 90), ("b", 10)].into_iter()));
        assert!(!speaker.update([("a", 90), ("b", 93)].into_iter()));
        assert!(speaker.update([("a", 90), ("b", 100)].into_iter()));
        assert_eq!(speaker.current(), Some("b"));
        assert!(!speaker.update([("a", 0), ("b", 0)].into_iter()), "silence keeps the last speaker");
        assert!(speaker.update([("a", 0)].into_iter()), "who left is not the speaker");
        assert_eq!(speaker.current(), None);
    }
}
