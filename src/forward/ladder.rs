//! The ladder of one subscription: which of the offered layers it may get, from the cheapest to the best.
//!
//! Owns: what makes a layer better than another, and what a subscriber's wish allows. Promises: each step costs more than
//! the one below and is better. Forbids: bandwidth; who else wants something.
//!
//! *Better* is counted in doublings of the picture's size. Half the frame rate costs [`TEMPORAL_LOSS`] of that, so of two
//! layers that cost about the same, the one with more pixels wins: 720p at 15 frames per second stands above 360p at 30.
//! For screens the frame rate counts little: text that moves slowly can be read, text that is small cannot.

use crate::base::frame::Layer;

use super::rates::{Offer, SPATIAL_MAX, TEMPORAL_MAX};
use crate::base::frame::ENCODINGS_MAX;

/// Offers of one track that are looked at: all there can be.
pub const OFFERS_MAX: usize = ENCODINGS_MAX * SPATIAL_MAX * TEMPORAL_MAX;

/// What half the frame rate costs, in doublings of the picture's size.
const TEMPORAL_LOSS: f32 = 0.8;
/// The same for screens.
const TEMPORAL_LOSS_SCREEN: f32 = 0.3;
/// What twice the bits for the same size are worth.
const BITS_GAIN: f32 = 0.25;
/// Pixels that a bit per second usually pays for, at 30 frames per second: what stands for a size that nobody knows.
const BPS_PER_PIXEL: u64 = 3;
/// A layer covers a size or frame rate that is larger by no more than an eighth of it: encoders crop to whole blocks, and
/// rates are measured.
const COVERS: u64 = 8;
/// A layer that is sent counts as so much cheaper, in eighths, that measuring errors do not make others stand before it.
const KEPT_EIGHTHS: u64 = 7;

/// What one subscriber asks of one video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Names the subscription within its session: the m-line.
    pub id: u16,
    /// Those with more get all they want before others get more than their lowest layer.
    pub priority: u8,
    /// The size at which it is shown; the smallest layer that covers it will do.
    pub max_pixels: Option<u32>,
    /// Frames per second that will do.
    pub max_fps: Option<u8>,
    /// Temporal layers above are not wanted.
    pub max_temporal: Option<u8>,
    /// The layer asked for by name: the best that is given; `u8::MAX` for a part that was not named. A size is not looked
    /// at then.
    pub forced: Option<Layer>,
    /// Somebody looks at it.
    pub is_visible: bool,
    /// It shows a screen: pixels matter, frames do not.
    pub is_screen: bool,
}

impl Want {
    /// The best there is.
    pub fn best(id: u16) -> Self {
        Self {
            id,
            priority: 0,
            max_pixels: None,
            max_fps: None,
            max_temporal: None,
            forced: None,
            is_visible: true,
            is_screen: false,
        }
    }
}

/// One layer that the subscription may get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Which.
    pub layer: Layer,
    /// Its cost.
    pub bps: u64,
    /// How good it is, in doublings.
    pub quality: f32,
}

/// What the best step is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing: it is the best that is sent.
    None,
    /// Better ones are sent that were not asked for.
    Request,
    /// The one that was asked for is not sent.
    NotSent,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    step: Step,
    pixels: u64,
    is_wanted: bool,
}

/// Makes ladders; what it needs for that is kept.
#[derive(Debug, Default)]
pub struct Builder {
    offers: Vec<Offer>,
    candidates: Vec<Candidate>,
}

impl Builder {
    /// Appends the ladder to `steps`. Offers of one encoding and spatial layer stand together, lower temporal layers first.
    /// `current` is what is sent now.
    pub fn build(
        &mut self,
        want: &Want,
        offers: impl Iterator<Item = Offer>,
        current: Option<Layer>,
        steps: &mut Vec<Step>,
    ) -> Limit {
        self.offers.clear();
        self.offers.extend(offers.take(OFFERS_MAX));
        if self.offers.iter().any(|offer| offer.fps.is_some()) {
            self.offers.retain(|offer| offer.fps.is_some());
        } else {
            // Nothing is measured yet: begin with what looks smallest.
            let smallest = self.offers.iter().min_by_key(|offer| (offer.pixels, offer.bps, offer.layer)).copied();
            self.offers.clear();
            self.offers.extend(smallest);
        }
        self.rate(want.is_screen);
        let best = |candidates: &[Candidate]| {
            let wanted = candidates.iter().filter(|candidate| candidate.is_wanted);
            wanted.map(|candidate| candidate.step.quality).fold(f32::NEG_INFINITY, f32::max)
        };
        let best_sent = best(&self.candidates);
        let is_sent = self.apply(want);
        let best_wanted = best(&self.candidates);
        self.climb(current, steps);
        match is_sent {
            false => Limit::NotSent,
            true if best_wanted < best_sent => Limit::Request,
            true => Limit::None,
        }
    }

    /// How good each offer is.
    fn rate(&mut self, is_screen: bool) {
        self.candidates.clear();
        let loss = if is_screen { TEMPORAL_LOSS_SCREEN } else { TEMPORAL_LOSS };
        // Sizes compare with sizes only.
        let are_sizes_known = self.offers.iter().all(|offer| offer.pixels.is_some());
        let groups = self.offers.chunk_by(|a, b| spatial_layer(a.layer) == spatial_layer(b.layer));
        for group in groups {
            let whole_bps = group.last().map_or(0, |offer| offer.bps);
            let pixels =
                group[0].pixels.filter(|_| are_sizes_known).map_or(whole_bps / BPS_PER_PIXEL, u64::from).max(1);
            let whole = (pixels as f32).log2() + BITS_GAIN * (whole_bps.max(1) as f32).log2();
            for (place, offer) in group.iter().enumerate() {
                let quality = whole - loss * (group.len() - 1 - place) as f32;
                let step = Step { layer: offer.layer, bps: offer.bps, quality };
                self.candidates.push(Candidate { step, pixels, is_wanted: true });
            }
        }
    }

    /// Marks what the wish leaves. `false`: it names a layer that is not sent.
    fn apply(&mut self, want: &Want) -> bool {
        if let Some(forced) = want.forced {
            let best = self.candidates.iter().filter(|candidate| is_within(candidate.step.layer, forced));
            let best = best.map(|candidate| candidate.step.quality).reduce(f32::max);
            let Some(best) = best else { return false };
            for candidate in &mut self.candidates {
                let layer = candidate.step.layer;
                let is_allowed = layer.encoding != forced.encoding || is_within(layer, forced);
                candidate.is_wanted &= is_allowed && candidate.step.quality <= best;
            }
        } else if let Some(pixels) = want.max_pixels.map(u64::from) {
            let covering = self.candidates.iter().map(|candidate| candidate.pixels);
            let enough = covering.filter(|covering| covering + covering / COVERS >= pixels).min();
            for candidate in &mut self.candidates {
                candidate.is_wanted &= enough.is_none_or(|enough| candidate.pixels <= enough);
            }
        }
        let mut below: Option<&Offer> = None;
        for (candidate, offer) in self.candidates.iter_mut().zip(&self.offers) {
            // The lowest temporal layer is always wanted: without it there is nothing.
            if let Some(below) = below.replace(offer).filter(|below| is_same_picture(below, offer)) {
                let covered = below.fps.map(|fps| fps + fps / COVERS as f32);
                let is_fast_enough = want.max_fps.zip(covered).is_some_and(|(max, fps)| fps >= f32::from(max));
                let is_above = want.max_temporal.is_some_and(|max| offer.layer.temporal > max);
                candidate.is_wanted &= !is_fast_enough && !is_above;
            }
        }
        true
    }

    /// The wanted ones from the cheapest on, each better than all before.
    fn climb(&mut self, current: Option<Layer>, steps: &mut Vec<Step>) {
        let cost = |candidate: &Candidate| match current == Some(candidate.step.layer) {
            true => candidate.step.bps * KEPT_EIGHTHS / 8,
            false => candidate.step.bps,
        };
        self.candidates.retain(|candidate| candidate.is_wanted);
        self.candidates.sort_unstable_by_key(|candidate| (cost(candidate), candidate.step.layer));
        let (mut best, mut bps) = (f32::NEG_INFINITY, 0);
        for candidate in &self.candidates {
            let step = candidate.step;
            if step.quality > best {
                best = step.quality;
                // One that stands lower only because it is sent now is not counted as dearer than the next.
                bps = step.bps.max(bps);
                steps.push(Step { bps, ..step });
            }
        }
    }
}

fn spatial_layer(layer: Layer) -> (u8, u8) {
    (layer.encoding, layer.spatial)
}

fn is_same_picture(a: &Offer, b: &Offer) -> bool {
    spatial_layer(a.layer) == spatial_layer(b.layer)
}

fn is_within(layer: Layer, forced: Layer) -> bool {
    (forced.encoding == u8::MAX || layer.encoding == forced.encoding)
        && layer.spatial <= forced.spatial
        && layer.temporal <= forced.temporal
}
