//! How much of what a peer publishes is of use, and the rate that this takes.
//!
//! A viewer's wish is a size. Where no viewer of any of a peer's pictures needs its largest layers, the peer is told a
//! rate (`feedback`) that carries the others and leaves no room for those: browsers share a rate out from the smallest
//! layer up, and stop encoding what it does not reach.
//!
//! Owns: the wish for one track with its patience, what its wanted layers took lately. Promises: what somebody wants more
//! holds at once, and lifts the ceiling; less only when it stayed less for [`PATIENCE`]. Wishes count, not what the lines
//! of those who wish carry, so a layer that stopped at our wish comes back before anybody could miss it.
//! Forbids: saying so; who the viewers are.

use std::time::{Duration, Instant};

use super::ingress::Ingress;
use super::track::{HEADERS_BYTES, Track, Tracks};
use crate::base::format::MediaKind;
use crate::forward::ladder::{BPS_PER_PIXEL, is_covered};

/// A layer goes on for so long after the last one who wanted it: pages reload, windows are dragged smaller and larger,
/// and a layer that begins again costs a keyframe.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the wanted layers take at most fades by that much with each look, once a second: a picture that stood still for
/// a minute may move again.
const PEAK_KEPT: f64 = 0.99;
/// The ceiling lies that much above what is needed: rates are means, and what is sent again counts, too. With more, the
/// next layer would find room: browsers want 600 kbit/s for 720 lines above the 650 of those below.
const HEADROOM_PERCENT: u64 = 115;
/// Kept free for each stream of sound: Opus as browsers send speech, with headers.
const AUDIO_BPS: u64 = 64_000;

/// The wish for one track.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    asked: Option<u32>,
    /// What holds: never less than what is asked.
    held: Option<u32>,
    /// When what is asked comes to hold, being less.
    falls_at: Option<Instant>,
    peak_bps: f64,
}

/// What all that is of use of a peer's streams takes.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    bps: Option<u64>,
    /// Octets of sound that had come when this was looked at last.
    audio: Option<(Instant, u64)>,
    audio_bps: u64,
}

impl Wanted {
    /// The largest size at which it is shown; `None`: all there is.
    pub(super) fn set(&mut self, now: Instant, pixels: Option<u32>) {
        if std::mem::replace(&mut self.asked, pixels) != pixels {
            self.falls_at = Some(now + PATIENCE);
        }
        if amount(pixels) >= amount(self.held) {
            self.hold(pixels);
            self.falls_at = None;
        }
    }

    fn hold(&mut self, pixels: Option<u32>) {
        if std::mem::replace(&mut self.held, pixels) != pixels {
            // Of other layers.
            self.peak_bps = 0.0;
        }
    }

    /// Bits per second of the layers that are wanted. `None`: it needs as much as it can get.
    fn bps(&mut self, now: Instant, is_live: bool, track: &Track) -> Option<u64> {
        if self.falls_at.take_if(|at| now >= *at).is_some() {
            self.hold(self.asked);
        }
        let wanted = self.held?;
        let sizes = || track.encodings().flat_map(|(_, encoding)| encoding.rates.pixels());
        let Some(largest) = sizes().max() else { return (!is_live).then_some(0) };
        // Where no layer is large enough, there may be larger ones than have been seen.
        let enough = sizes().filter(|pixels| is_covered(u64::from(wanted), u64::from(*pixels))).min()?;
        if enough == largest {
            return None;
        }
        let (mut measured, mut usual) = (0, 0);
        for (index, encoding) in track.encodings() {
            let kept = encoding.rates.pixels().filter(|pixels| *pixels <= enough).max();
            usual += kept.map_or(0, |pixels| u64::from(pixels) * BPS_PER_PIXEL);
            let mut most = 0;
            for offer in encoding.rates.offers(now, index) {
                // Encrypted, or too new: nobody knows what it is good for.
                if offer.pixels? <= enough {
                    most = offer.bps.max(most);
                }
            }
            measured += most;
        }
        self.peak_bps = (measured as f64).max(self.peak_bps * PEAK_KEPT);
        Some((self.peak_bps as u64).max(usual))
    }
}

impl Ceiling {
    /// Bits per second; `None`: there is no ceiling.
    pub(super) fn bps(&self) -> Option<u64> {
        self.bps
    }

    /// Looks at all that the peer publishes; about once a second, and when a wish has changed.
    pub(super) fn update(&mut self, now: Instant, ingress: &mut Ingress, tracks: &Tracks) {
        let sound = self.audio_bps(now, ingress);
        let publications = ingress.publications.iter_mut().flatten();
        let mut pictures = publications.filter(|publication| publication.kind == MediaKind::Video).peekable();
        // A rate holds for the whole line: where one picture needs all it can get, it must not be held back for another.
        let needed = pictures.peek().is_some().then(|| {
            pictures.try_fold(0, |sum, publication| {
                let bps = match tracks.track(publication.track) {
                    Some(track) => publication.wanted.bps(now, publication.is_live, track)?,
                    None if publication.is_live => return None,
                    None => 0,
                };
                Some(sum + bps)
            })
        });
        // Nothing that has a size came yet.
        let needed = needed.flatten().filter(|bps| *bps > 0);
        self.bps = needed.map(|bps| (bps + sound) * HEADROOM_PERCENT / 100);
    }

    /// What the sound takes, with headers.
    fn audio_bps(&mut self, now: Instant, ingress: &Ingress) -> u64 {
        let sound = ingress.numbers().filter(|numbers| numbers.kind == MediaKind::Audio);
        let (streams, octets) = sound.fold((0, 0), |(streams, octets), numbers| {
            (streams + 1, octets + numbers.summary.bytes + HEADERS_BYTES * numbers.summary.packets)
        });
        let (at, before) = *self.audio.get_or_insert((now, octets));
        let elapsed = now.saturating_duration_since(at);
        if elapsed >= Duration::from_millis(500) {
            // A source that was replaced begins to count anew.
            self.audio_bps = octets.saturating_sub(before) * 8000 / (elapsed.as_millis() as u64).max(1);
            self.audio = Some((now, octets));
        }
        self.audio_bps.max(streams * AUDIO_BPS)
    }
}

/// A wish as a number.
fn amount(pixels: Option<u32>) -> u64 {
    pixels.map_or(u64::MAX, u64::from)
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
