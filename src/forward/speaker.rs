//! Who speaks: how active a voice was lately, and the dominant speaker among many.
//!
//! After I. Volfin and I. Cohen, "Dominant speaker identification for multipoint videoconferencing", Computer Speech and
//! Language 27 (2013), 895-910 (online 2012). Activity is judged over an immediate, a medium and a long time, and only
//! who surpasses the present speaker in all three takes over: neither a noise nor a short "yes" does. The paper counts
//! active sub-bands of the signal; we have its level (RFC 6464), so steps of it above the microphone's own noise stand
//! for them.
//!
//! Owns: plain numbers. A worker meters the tracks it has, the room compares them.

use std::time::{Duration, Instant};

use crate::wire::rtp_ext::AudioLevel;

/// Length of the immediate time: one Opus packet of the usual length, and the paper's frame.
const SLOT: Duration = Duration::from_millis(20);
/// The longest time that one packet speaks for (RFC 6716 §2.1.4: 120 ms), in slots. Longer gaps are silence.
const PACKET_SLOTS_MAX: u32 = 6;
/// Sub-bands of the immediate time.
const BANDS: u8 = 13;
/// So much louder is the next band, in dB: the bands span what lies between a soft voice and a firm one.
const BAND_DB: u8 = 2;
/// A slot is active with so many: speech stands at least 14 dB above the noise of its room.
const ACTIVE_BANDS_MIN: u8 = 7;
/// Slots of the medium time, and what makes it active.
const MEDIUM_SLOTS: u8 = 5;
const ACTIVE_SLOTS_MIN: u8 = 4;
/// Medium times of the long time: a second.
const LONG_BLOCKS: u8 = 10;
/// Who has been active for less of the last second has not begun to speak: he coughed, or something fell.
const LONG_MIN: u8 = 4;
/// Slots of a medium time that make a voice talk: two, so that a click of one packet is none.
const TALKING_SLOTS_MIN: u8 = 2;

/// Loudness (0 silent, 127 full scale) that counts as noise in any room: with [`ACTIVE_BANDS_MIN`] a voice begins at
/// -50 dBov, which is a quiet one.
const NOISE_MIN: u8 = 127 - 50 - ACTIVE_BANDS_MIN * BAND_DB;
/// A sound that stays for long is noise: its estimate rises by 2 dB a second, and falls with the first pause.
const NOISE_RISE_PER_SLOT: f32 = 0.04;
const NOISE_FALL: f32 = 0.2;
/// What a client's own voice detector takes for no voice (the V bit) counts as so much quieter. It errs, too: a loud
/// sound still gets through.
const NO_VOICE_DB: u8 = 12;
/// How much of a new level enters the loudness of a voice: 400 ms of speech make it.
const SMOOTHING: f32 = 0.05;

/// Thresholds of the relative activity in the immediate, medium and long time, and the activity of silence. From the
/// paper, section "Dominant speaker identification".
const C: [f32; 3] = [3.0, 2.0, 0.0];
const SCORE_MIN: f32 = 1e-10;
/// Rates of the exponential law of activity without speech. Each active unit must outweigh what the binomial law takes,
/// which is ln 13 at most in the immediate time.
const LAMBDA: [f32; 3] = [3.0, 24.0, 47.0];

/// How active a voice was, in active units of each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activity {
    /// Medium times of the last second, 0 to 10.
    pub long: u8,
    /// Slots of the last 100 ms, 0 to 5.
    pub medium: u8,
    /// Bands of the last packet, 0 to 13.
    pub immediate: u8,
}

/// The latest second of one voice.
#[derive(Clone, Debug, Default)]
pub struct VoiceMeter {
    /// Which slots were active; the lowest bit is the latest.
    slots: u64,
    /// When the latest slot began.
    slot_at: Option<Instant>,
    bands: u8,
    noise: f32,
    /// While it speaks.
    loudness: f32,
    /// The client sets the V bit at times, so without it there is no voice.
    detects_voice: bool,
}

impl VoiceMeter {
    /// What a packet says of its sound (RFC 6464 §3).
    pub fn handle_level(&mut self, now: Instant, level: AudioLevel) {
        self.detects_voice |= level.voice;
        let is_doubtful = self.detects_voice && !level.voice;
        let loudness = 127 - level.level.min(127);
        let loudness = if is_doubtful { loudness.saturating_sub(NO_VOICE_DB) } else { loudness };
        let gap = self.pass(now);
        self.note_noise(f32::from(loudness), gap);
        let noise = (self.noise as u8).max(NOISE_MIN);
        self.bands = (loudness.saturating_sub(noise) / BAND_DB).min(BANDS);
        if self.bands < ACTIVE_BANDS_MIN {
            return;
        }
        self.slots |= if gap <= PACKET_SLOTS_MAX { (1 << gap.max(1)) - 1 } else { 1 };
        let share = if self.loudness > 0.0 { SMOOTHING } else { 1.0 };
        self.loudness += (f32::from(loudness) - self.loudness) * share;
    }

    /// How active it was until now.
    pub fn activity(&self, now: Instant) -> Activity {
        let gap = self.slot_at.map_or(u32::MAX, |at| slots_between(at, now));
        let slots = self.slots.checked_shl(gap).unwrap_or(0);
        let block = |block: u8| ((slots >> (block * MEDIUM_SLOTS)) & ((1 << MEDIUM_SLOTS) - 1)).count_ones() as u8;
        Activity {
            long: (0..LONG_BLOCKS).filter(|at| block(*at) >= ACTIVE_SLOTS_MIN).count() as u8,
            medium: block(0),
            immediate: if gap <= PACKET_SLOTS_MAX { self.bands } else { 0 },
        }
    }

    /// The last packet had voice in it.
    pub fn is_active(&self) -> bool {
        self.bands >= ACTIVE_BANDS_MIN
    }

    /// Somebody talks, by the last packets.
    pub fn is_talking(&self) -> bool {
        (self.slots & ((1 << MEDIUM_SLOTS) - 1)).count_ones() >= u32::from(TALKING_SLOTS_MIN)
    }

    /// How loud it is when it speaks, 0 to 127.
    pub fn loudness(&self) -> u8 {
        self.loudness as u8
    }

    /// Goes on to the slot of `now`; how many slots that is.
    fn pass(&mut self, now: Instant) -> u32 {
        let Some(at) = self.slot_at else {
            self.slot_at = Some(now);
            return u32::MAX;
        };
        let gap = slots_between(at, now);
        self.slots = self.slots.checked_shl(gap).unwrap_or(0);
        self.slot_at = Some(if gap < u64::BITS { at + SLOT * gap } else { now });
        gap
    }

    fn note_noise(&mut self, loudness: f32, gap: u32) {
        // Digital silence says nothing about the room: the microphone is off.
        if loudness <= 0.0 {
            return;
        }
        if loudness < self.noise {
            self.noise += (loudness - self.noise) * NOISE_FALL;
        } else {
            self.noise = loudness.min(self.noise + NOISE_RISE_PER_SLOT * gap.min(PACKET_SLOTS_MAX) as f32);
        }
    }
}

fn slots_between(from: Instant, to: Instant) -> u32 {
    (to.saturating_duration_since(from).as_nanos() / SLOT.as_nanos()).try_into().unwrap_or(u32::MAX)
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
    /// Compares the latest activity of everybody who could be heard; `true` when the dominant speaker changed. A pause
    /// keeps the last one: whoever spoke last stays in the picture, while he is among them.
    pub fn update(&mut self, voices: impl Iterator<Item = (T, Activity)> + Clone) -> bool {
        let before = self.current;
        let mine = voices.clone().find(|(who, _)| Some(*who) == before).map(|(_, activity)| activity);
        self.current = before.filter(|_| mine.is_some());
        let mine = scores(mine.unwrap_or_default());
        let challengers = voices.filter(|(who, activity)| Some(*who) != before && activity.long >= LONG_MIN);
        let relative = challengers.map(|(who, activity)| {
            let theirs = scores(activity);
            (who, [0, 1, 2].map(|time| (theirs[time] / mine[time]).ln()))
        });
        let winners = relative.filter(|(_, relative)| relative.iter().zip(C).all(|(score, least)| *score > least));
        // The paper decides by the medium time; the long one decides between equals.
        let order = |a: &[f32; 3], b: &[f32; 3]| a[1].total_cmp(&b[1]).then(a[2].total_cmp(&b[2]));
        if let Some((who, _)) = winners.max_by(|(_, a), (_, b)| order(a, b)) {
            self.current = Some(who);
        }
        self.current != before
    }

    /// Nobody speaks any more; `true` when somebody was dominant.
    pub fn clear(&mut self) -> bool {
        self.current.take().is_some()
    }

    /// Who it is.
    pub fn current(&self) -> Option<T> {
        self.current
    }
}

fn scores(activity: Activity) -> [f32; 3] {
    let Activity { immediate, medium, long } = activity;
    [(immediate, BANDS, LAMBDA[0]), (medium, MEDIUM_SLOTS, LAMBDA[1]), (long, LONG_BLOCKS, LAMBDA[2])].map(score)
}

/// How much likelier `active` of `units` are with speech than without: the logarithm of a binomial law (one half of the
/// units) over an exponential one. From the paper, section "Speech activity score evaluation".
fn score((active, units, lambda): (u8, u8, f32)) -> f32 {
    let active = active.min(units);
    let choices: f32 = (0..active).map(|unit| (f32::from(units - unit) / f32::from(unit + 1)).ln()).sum();
    let speech = choices - f32::from(units) * std::f32::consts::LN_2;
    let other = lambda.ln() - lambda * f32::from(active);
    (speech - other).max(SCORE_MIN)
}

#[cfg(test)]
#[path = "speaker_tests.rs"]
mod tests;
