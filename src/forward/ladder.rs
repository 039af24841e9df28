//! The ladder of one subscription: which of the offered layers it may get, from the cheapest to the best.
//!
//! Owns: what makes a layer better than another, and what a subscriber's wish allows. Promises: each step costs more than
//! the one below and is better. Forbids: bandwidth; who else wants something.
//!
//! *Better* is counted in doublings of the picture's size. Half the frame rate costs [`TEMPORAL_LOSS`] of that: 720p at 15
//! frames per second stands above 360p at 30, but 720p at 7.5, which nobody takes for a moving picture, below.
//! For screens the frame rate counts little: text that moves slowly can be read, text that is small cannot.

use crate::base::frame::Layer;

use super::rates::{Offer, SPATIAL_MAX, TEMPORAL_MAX};
use crate::base::frame::ENCODINGS_MAX;

/// Offers of one track that are looked at: all there can be.
pub const OFFERS_MAX: usize = ENCODINGS_MAX * SPATIAL_MAX * TEMPORAL_MAX;

/// What half the frame rate costs, in doublings of the picture's size.
const TEMPORAL_LOSS: f32 = 1.4;
/// The same for screens.
const TEMPORAL_LOSS_SCREEN: f32 = 0.3;
/// What twice the bits for the same size are worth.
const BITS_GAIN: f32 = 0.25;
/// Pixels that a bit per second usually pays for, at 30 frames per second: what stands for a size that nobody knows.
pub const BPS_PER_PIXEL: u64 = 3;
/// A layer covers a size or frame rate that is larger by no more than an eighth of it: encoders crop to whole blocks, and
/// rates are measured.
const COVERS: u64 = 8;
/// A layer that is sent counts as so much cheaper, in eighths, that measuring errors do not make others stand before it.
const KEPT_EIGHTHS: u64 = 7;

/// Whether a layer of so many pixels is large enough for who wants `wanted`.
pub fn is_covered(wanted: u64, pixels: u64) -> bool {
    pixels + pixels / COVERS >= wanted
}

/// What one subscriber asks of one video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Names the subscription within its session: the m-line.
    pub id: u16,
    /// Those with more get all they want before others get more than their lowest layer.
    pub priority: u8,
    /// The size at which it is shown; the smallest layer that covers it will do.
    pub max_pixels: Option<u32>,
    /// Layers with more pixels are not wanted, unless there is no smaller one.
    pub limit_pixels: Option<u32>,
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
            limit_pixels: None,
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
        if let Some(limit) = want.limit_pixels.map(u64::from) {
            let smallest = self.candidates.iter().map(|candidate| candidate.pixels).min().unwrap_or(0);
            for candidate in &mut self.candidates {
                candidate.is_wanted &= candidate.pixels <= limit.max(smallest);
            }
        }
        if let Some(forced) = want.forced {
            let allowed = self.candidates.iter().filter(|candidate| candidate.is_wanted);
            let best = allowed.filter(|candidate| is_within(candidate.step.layer, forced));
            let best = best.map(|candidate| candidate.step.quality).reduce(f32::max);
            let Some(best) = best else { return false };
            for candidate in &mut self.candidates {
                let layer = candidate.step.layer;
                let is_allowed = layer.encoding != forced.encoding || is_within(layer, forced);
                candidate.is_wanted &= is_allowed && candidate.step.quality <= best;
            }
        } else if let Some(pixels) = want.max_pixels.map(u64::from) {
            let covering = self.candidates.iter().map(|candidate| candidate.pixels);
            let enough = covering.filter(|covering| is_covered(pixels, *covering)).min();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(encoding: u8, spatial: u8, temporal: u8, bps: u64, pixels: u32, fps: f32) -> Offer {
        Offer { layer: Layer { encoding, spatial, temporal }, bps, pixels: Some(pixels), fps: Some(fps) }
    }

    /// Three encodings as browsers send them, of three temporal layers each.
    fn simulcast() -> Vec<Offer> {
        let encodings = [(150_000, 320 * 180), (500_000, 640 * 360), (2_500_000, 1280 * 720)];
        let of = |(encoding, (bps, pixels)): (usize, (u64, u32))| {
            [(0, 50, 7.5), (1, 70, 15.0), (2, 100, 30.0)]
                .map(|(temporal, share, fps)| offer(encoding as u8, 0, temporal, bps * share / 100, pixels, fps))
        };
        encodings.into_iter().enumerate().flat_map(of).collect()
    }

    fn ladder(want: &Want, offers: &[Offer], current: Option<Layer>) -> (Vec<(u8, u8)>, Limit) {
        let mut steps = Vec::new();
        let limit = Builder::default().build(want, offers.iter().copied(), current, &mut steps);
        assert!(steps.is_sorted_by(|a, b| a.bps <= b.bps && a.quality < b.quality));
        (steps.iter().map(|step| (step.layer.encoding.max(step.layer.spatial), step.layer.temporal)).collect(), limit)
    }

    #[test]
    fn each_step_is_dearer_and_better() {
        // A quarter of the frames is not worth the larger picture.
        let all = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)];
        assert_eq!(ladder(&Want::best(0), &simulcast(), None), (all.to_vec(), Limit::None));
        let screen = Want { is_screen: true, ..Want::best(0) };
        assert_eq!(ladder(&screen, &simulcast(), None).0.len(), 9);
        assert_eq!(ladder(&Want::best(0), &[], None), (vec![], Limit::None));
    }

    #[test]
    fn more_pixels_stand_above_more_frames_for_the_same_bits() {
        let close = [
            offer(0, 0, 0, 100, 230_400, 15.0),
            offer(0, 0, 1, 160, 230_400, 30.0),
            offer(1, 0, 0, 150, 921_600, 15.0),
            offer(1, 0, 1, 300, 921_600, 30.0),
        ];
        assert_eq!(ladder(&Want::best(0), &close, None).0, [(0, 0), (1, 0), (1, 1)]);
        // A little more in size does not pay for half the frames, unless it is a screen.
        let near = [
            offer(0, 0, 0, 100, 500_000, 15.0),
            offer(0, 0, 1, 160, 500_000, 30.0),
            offer(1, 0, 0, 180, 700_000, 15.0),
            offer(1, 0, 1, 300, 700_000, 30.0),
        ];
        assert_eq!(ladder(&Want::best(0), &near, None).0, [(0, 0), (0, 1), (1, 1)]);
        let screen = Want { is_screen: true, ..Want::best(0) };
        assert_eq!(ladder(&screen, &near, None).0, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }

    #[test]
    fn a_tile_gets_the_smallest_layer_that_covers_it() {
        for (pixels, best, limit) in [
            (1, (0, 2), Limit::Request),
            (320 * 180, (0, 2), Limit::Request),
            (320 * 200, (0, 2), Limit::Request),
            (400 * 225, (1, 2), Limit::Request),
            (641 * 361, (1, 2), Limit::Request),
            (960 * 540, (2, 2), Limit::None),
            (3840 * 2160, (2, 2), Limit::None),
        ] {
            let want = Want { max_pixels: Some(pixels), ..Want::best(0) };
            let (steps, found) = ladder(&want, &simulcast(), None);
            assert_eq!((steps.last().copied(), found), (Some(best), limit), "{pixels}");
        }
    }

    #[test]
    fn frames_are_capped_by_rate_and_by_layer() {
        for (max_fps, max_temporal, temporal) in [
            (Some(30), None, 2),
            (Some(15), None, 1),
            (Some(16), None, 1),
            (Some(1), None, 0),
            (Some(60), None, 2),
            (None, Some(1), 1),
            (None, Some(0), 0),
            (Some(15), Some(0), 0),
            (None, Some(9), 2),
        ] {
            let want = Want { max_fps, max_temporal, ..Want::best(0) };
            let (steps, limit) = ladder(&want, &simulcast(), None);
            assert_eq!(steps.last(), Some(&(2, temporal)), "{max_fps:?} {max_temporal:?}");
            assert_eq!(limit == Limit::Request, temporal < 2);
        }
        // A cap below what is sent leaves the lowest.
        let odd = [offer(0, 0, 2, 100, 1000, 30.0)];
        assert_eq!(ladder(&Want { max_temporal: Some(0), ..Want::best(0) }, &odd, None).0, [(0, 2)]);
    }

    #[test]
    fn a_layer_that_was_asked_for_is_the_best_that_is_given() {
        let all = u8::MAX;
        let force = |encoding, spatial, temporal| Want {
            forced: Some(Layer { encoding, spatial, temporal }),
            max_pixels: Some(1),
            ..Want::best(0)
        };
        let whole = ladder(&force(1, all, all), &simulcast(), None);
        assert_eq!(whole, (vec![(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)], Limit::Request));
        assert_eq!(ladder(&force(2, all, all), &simulcast(), None).1, Limit::None, "whatever the tile's size");
        assert_eq!(ladder(&force(1, all, 0), &simulcast(), None).0.last(), Some(&(1, 0)));
        let gone: Vec<_> = simulcast().into_iter().filter(|offer| offer.layer.encoding != 2).collect();
        let (steps, limit) = ladder(&force(2, all, all), &gone, None);
        assert_eq!((steps.last(), limit), (Some(&(1, 2)), Limit::NotSent));
        let scalable =
            [offer(0, 0, 0, 100, 1000, 30.0), offer(0, 1, 0, 300, 4000, 30.0), offer(0, 2, 0, 900, 16_000, 30.0)];
        assert_eq!(ladder(&force(all, 1, all), &scalable, None).0, [(0, 0), (1, 0)]);
    }

    #[test]
    fn a_limit_is_never_passed_while_there_is_something_smaller() {
        for (pixels, best) in [(1, 0), (320 * 180, 0), (640 * 360 - 1, 0), (640 * 360, 1), (960 * 540, 1), (1 << 30, 2)]
        {
            let want = Want { limit_pixels: Some(pixels), ..Want::best(0) };
            assert_eq!(ladder(&want, &simulcast(), None).0.last(), Some(&(best, 2)), "{pixels}");
        }
        let forced = Some(Layer { encoding: 2, spatial: u8::MAX, temporal: u8::MAX });
        let want = Want { limit_pixels: Some(640 * 360), forced, ..Want::best(0) };
        let (steps, limit) = ladder(&want, &simulcast(), None);
        assert_eq!((steps.last(), limit), (Some(&(1, 2)), Limit::NotSent));
    }

    #[test]
    fn where_sizes_are_unknown_bits_stand_for_them() {
        let mut offers = simulcast();
        offers[8].pixels = None;
        assert_eq!(ladder(&Want::best(0), &offers, None).0.last(), Some(&(2, 2)));
        let tile = Want { max_pixels: Some(160_000), ..Want::best(0) };
        assert_eq!(ladder(&tile, &offers, None).0.last(), Some(&(1, 2)));
    }

    #[test]
    fn of_the_same_size_more_bits_are_better() {
        // Old Chromium sends screens so.
        let screen = [offer(0, 0, 0, 200_000, 2_000_000, 5.0), offer(1, 0, 0, 1_500_000, 2_000_000, 30.0)];
        assert_eq!(ladder(&Want::best(0), &screen, None).0, [(0, 0), (1, 0)]);
    }

    #[test]
    fn what_is_not_measured_is_given_when_there_is_nothing_else() {
        let mut offers = simulcast();
        for offer in &mut offers {
            offer.fps = None;
        }
        assert_eq!(ladder(&Want::best(0), &offers, None).0, [(0, 0)]);
        offers[4].fps = Some(15.0);
        assert_eq!(ladder(&Want::best(0), &offers, None).0, [(1, 1)]);
    }

    #[test]
    fn measuring_errors_do_not_push_out_what_is_sent() {
        let mut offers = [offer(0, 0, 0, 1000, 230_400, 30.0), offer(1, 0, 0, 990, 921_600, 30.0)];
        let kept = Some(offers[0].layer);
        assert_eq!(ladder(&Want::best(0), &offers, None).0, [(1, 0)]);
        assert_eq!(ladder(&Want::best(0), &offers, kept).0, [(0, 0), (1, 0)]);
        offers[0].bps = 1200;
        assert_eq!(ladder(&Want::best(0), &offers, kept).0, [(1, 0)]);
    }
}
