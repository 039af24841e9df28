//! What the layers of one encoding cost and show, measured as they come in: the offer to subscribers.
//!
//! Owns: one meter per (spatial, temporal) cell. A frame's bytes count for the time until the next frame of its cell, so
//! the mean is right from the second frame on, at 60 frames per second as at one in five seconds. What a keyframe costs
//! beyond a usual frame is spread over some seconds: layers do not look dear because one just came, and the true mean is
//! told all the same. Promises: no allocation; per packet an addition, arithmetic once per frame only.
//! Forbids: knowing subscribers; the codec; the clock.

use std::time::Instant;

use crate::base::frame::{FrameMarks, Layer};

/// Spatial layers told apart; what is above counts as the highest. VP9 and AV1 browsers send three at most.
pub const SPATIAL_MAX: usize = 4;
/// Temporal layers told apart, the same way.
pub const TEMPORAL_MAX: usize = 4;

/// The least time a mean is taken over; as it forgets gradually, it follows a change within about a second.
const WINDOW_MIN_S: f32 = 0.6;
/// The mean is taken over that many frames where they are slow.
const WINDOW_FRAMES: f32 = 6.0;
/// The longest time: a change at one frame in two seconds is still seen soon enough.
const WINDOW_MAX_S: f32 = 12.0;
/// Over how long the cost of a keyframe is spread: about as often as joins and losses ask for one in a lively room.
const KEYFRAME_WINDOW_S: f32 = 4.0;
/// Frames of a cell until its rate means something: a keyframe and two more.
const FRAMES_MIN: u8 = 3;
/// And until then so much time must have gone by: frames that waited somewhere come all at once.
const MEASURED_MIN_S: f32 = 0.05;
/// A layer is gone when nothing came for so long...
const SILENCE_MIN_S: f32 = 1.5;
/// ... and for so many of its usual frame intervals: a screen that stands still sends a frame a second or fewer.
const SILENCE_FRAMES: f32 = 3.0;
/// ... but at the latest now.
const SILENCE_MAX_S: f32 = 15.0;
/// A pause counts as a frame interval of this at most.
const GAP_MAX_S: f32 = 5.0;
/// What is taken for the frame interval as long as there was one frame only.
const GAP_UNKNOWN_S: f32 = 1.0;
/// A packet whose timestamp is that little behind is late; one farther behind belongs to another count of time.
const LATE_TICKS: u32 = 10 * 90_000;

/// One layer as it can be had now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Which one.
    pub layer: Layer,
    /// Bits per second that a subscriber of it receives: with all lower spatial and temporal layers of its
    /// encoding.
    pub bps: u64,
    /// Pixels of its pictures, where known.
    pub pixels: Option<u32>,
    /// Frames per second with all lower temporal layers. `None`: too new to tell, and so is `bps`.
    pub fps: Option<f32>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct EncodingRates {
    cells: [[Cell; TEMPORAL_MAX]; SPATIAL_MAX],
    sizes: [Option<(u16, u16)>; SPATIAL_MAX],
    /// The last keyframe, until a later picture comes.
    keyframe: Option<Keyframe>,
    keyframe_bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Keyframe {
    timestamp: u32,
    bytes: u32,
}

/// Frames of one spatial and one temporal layer.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// The frame that is coming in: its timestamp, when it began, its bytes so far.
    open: Option<Frame>,
    frames: u8,
    was_key: bool,
    /// Bytes, frames and seconds of the frames that ended, fading.
    bytes: f32,
    count: f32,
    seconds: f32,
    /// Bytes of keyframes beyond usual frames, fading.
    key_bytes: f32,
    /// The usual time between two frames; rises at once, falls slowly.
    gap_s: Option<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    timestamp: u32,
    began_at: Instant,
    bytes: u32,
    is_key: bool,
}

impl EncodingRates {
    /// A packet came in that takes so many bytes of a subscriber's link, counted as its estimate counts them. What it says
    /// of its frame may be unknown: then there is one layer.
    pub fn handle_packet(&mut self, now: Instant, bytes: usize, timestamp: u32, marks: &FrameMarks) {
        let bytes = bytes as u32;
        // Only the first packet of a frame may know that it is a keyframe.
        let is_key = match &mut self.keyframe {
            Some(keyframe) if keyframe.timestamp == timestamp => {
                keyframe.bytes = keyframe.bytes.saturating_add(bytes);
                true
            }
            Some(keyframe) if !marks.is_key => {
                if is_later(timestamp, keyframe.timestamp) {
                    self.keyframe_bytes = Some(keyframe.bytes);
                    self.keyframe = None;
                }
                false
            }
            _ if marks.is_key => {
                if let Some(former) = self.keyframe.replace(Keyframe { timestamp, bytes }) {
                    self.keyframe_bytes = Some(former.bytes);
                }
                true
            }
            _ => false,
        };
        let spatial = usize::from(marks.spatial).min(SPATIAL_MAX - 1);
        let temporal = usize::from(marks.temporal).min(TEMPORAL_MAX - 1);
        self.cells[spatial][temporal].handle_packet(now, bytes, timestamp, is_key);
    }

    /// The pictures of a spatial layer have that width and height, as a keyframe says.
    pub fn set_size(&mut self, spatial: u8, size: (u16, u16)) {
        self.sizes[usize::from(spatial).min(SPATIAL_MAX - 1)] = Some(size);
    }

    /// Width and height of a spatial layer, where known.
    pub fn size(&self, spatial: u8) -> Option<(u16, u16)> {
        self.sizes.get(usize::from(spatial)).copied().flatten()
    }

    /// What can be had of this encoding now, lower spatial layers first, then lower temporal ones. Nothing when it stopped.
    pub fn offers(&self, now: Instant, encoding: u8) -> impl Iterator<Item = Offer> {
        (0..SPATIAL_MAX * TEMPORAL_MAX).filter_map(move |place| {
            let (spatial, temporal) = (place / TEMPORAL_MAX, place % TEMPORAL_MAX);
            self.cells[spatial][temporal].is_alive(now).then(|| self.offer(now, encoding, spatial, temporal))
        })
    }

    /// Bits per second of all that comes in.
    pub fn bps(&self, now: Instant) -> u64 {
        self.cumulative_bps(now, SPATIAL_MAX - 1, TEMPORAL_MAX - 1)
    }

    /// Something of it comes in, be it slowly.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.cells.as_flattened().iter().any(|cell| cell.is_alive(now))
    }

    /// Pixels of its spatial layers as far as they were told, also of those that stopped.
    pub fn pixels(&self) -> impl Iterator<Item = u32> {
        self.sizes.iter().flatten().map(|(width, height)| u32::from(*width) * u32::from(*height))
    }

    /// Bytes of the last keyframe that came in whole, with all its spatial layers.
    pub fn keyframe_bytes(&self) -> Option<u32> {
        self.keyframe_bytes
    }

    fn offer(&self, now: Instant, encoding: u8, spatial: usize, temporal: usize) -> Offer {
        let parts = self.cells[spatial][..=temporal].iter().filter(|cell| cell.is_alive(now));
        let cell = &self.cells[spatial][temporal];
        let is_measured = cell.frames >= FRAMES_MIN && cell.seconds >= MEASURED_MIN_S;
        Offer {
            layer: Layer { encoding, spatial: spatial as u8, temporal: temporal as u8 },
            bps: self.cumulative_bps(now, spatial, temporal),
            pixels: self.sizes[spatial].map(|(width, height)| u32::from(width) * u32::from(height)),
            fps: is_measured.then(|| parts.map(Cell::fps).sum()),
        }
    }

    fn cumulative_bps(&self, now: Instant, spatial: usize, temporal: usize) -> u64 {
        let cells = self.cells[..=spatial].iter().flat_map(|row| &row[..=temporal]);
        let bytes: f32 = cells.filter(|cell| cell.is_alive(now)).map(Cell::bytes_per_s).sum();
        (bytes * 8.0) as u64
    }
}

impl Frame {
    fn age_s(&self, now: Instant) -> f32 {
        now.saturating_duration_since(self.began_at).as_secs_f32()
    }
}

impl Cell {
    fn handle_packet(&mut self, now: Instant, bytes: u32, timestamp: u32, is_key: bool) {
        match &mut self.open {
            Some(frame) if !is_later(timestamp, frame.timestamp) => frame.bytes = frame.bytes.saturating_add(bytes),
            _ => {
                if let Some(frame) = self.open {
                    let gap_s = frame.age_s(now);
                    if gap_s <= self.patience_s() {
                        self.end_frame(frame, gap_s);
                    } else {
                        // After a pause nothing of before holds. It may have been none, only the next slow frame.
                        *self = Self { gap_s: Some(gap_s.min(GAP_MAX_S)), ..Self::default() };
                    }
                }
                self.open = Some(Frame { timestamp, began_at: now, bytes, is_key });
                self.frames = self.frames.saturating_add(1);
            }
        }
    }

    /// A frame came in whole and was the last for so many seconds.
    fn end_frame(&mut self, frame: Frame, seconds: f32) {
        let gap_s = seconds.max(self.gap_s.unwrap_or(seconds) * 0.875);
        self.gap_s = Some(gap_s);
        self.key_bytes *= (-seconds / KEYFRAME_WINDOW_S).exp();
        // Where all frames are keyframes, they are the usual ones.
        let was_key = std::mem::replace(&mut self.was_key, frame.is_key);
        let is_costly = frame.is_key && !was_key;
        let usual = if self.seconds > 0.0 { self.bytes / self.seconds * seconds } else { 0.0 };
        if is_costly && frame.bytes as f32 > usual {
            // The mean stays as it was, the rest is spread.
            self.key_bytes += frame.bytes as f32 - usual;
            return;
        }
        self.bytes += frame.bytes as f32;
        self.count += 1.0;
        self.seconds += seconds;
        let window = (gap_s * WINDOW_FRAMES).clamp(WINDOW_MIN_S, WINDOW_MAX_S);
        if self.seconds > window {
            let kept = window / self.seconds;
            self.bytes *= kept;
            self.count *= kept;
            self.seconds = window;
        }
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.open.is_some_and(|frame| frame.age_s(now) <= self.patience_s())
    }

    /// How long nothing may come before the layer is gone.
    fn patience_s(&self) -> f32 {
        (self.gap_s.unwrap_or(GAP_UNKNOWN_S) * SILENCE_FRAMES).clamp(SILENCE_MIN_S, SILENCE_MAX_S)
    }

    fn bytes_per_s(&self) -> f32 {
        let usual = if self.seconds > 0.0 { self.bytes / self.seconds } else { 0.0 };
        usual + self.key_bytes / KEYFRAME_WINDOW_S
    }

    fn fps(&self) -> f32 {
        if self.seconds > 0.0 { self.count / self.seconds } else { 0.0 }
    }
}

/// Whether a frame of this timestamp is not that one and not older.
fn is_later(timestamp: u32, than: u32) -> bool {
    than.wrapping_sub(timestamp) >= LATE_TICKS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use proptest::prelude::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn marks(spatial: u8, temporal: u8, is_key: bool) -> FrameMarks {
        FrameMarks { spatial, temporal, is_key, ..FrameMarks::default() }
    }

    /// Sends frames of one layer at a steady pace, each in packets of up to 1000 bytes.
    struct Sender {
        rates: EncodingRates,
        now: Instant,
        timestamp: u32,
    }

    impl Sender {
        fn new() -> Self {
            Self { rates: EncodingRates::default(), now: clock::now(), timestamp: u32::MAX - 20_000 }
        }

        fn frame(&mut self, bytes: usize, marks: FrameMarks) {
            let mut left = bytes;
            while left > 0 {
                let packet = left.min(1000);
                // Only the first packet knows a keyframe.
                let is_key = marks.is_key && left == bytes;
                self.rates.handle_packet(self.now, packet, self.timestamp, &FrameMarks { is_key, ..marks });
                left -= packet;
            }
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.timestamp = self.timestamp.wrapping_add((time.as_micros() * 9 / 100) as u32);
        }

        fn offers(&self) -> Vec<Offer> {
            self.rates.offers(self.now, 2).collect()
        }
    }

    fn assert_near(value: f64, expected: f64, percent: f64) {
        assert!((value - expected).abs() <= expected * percent / 100.0, "{value}, not {expected} within {percent} %");
    }

    #[test]
    fn a_layer_costs_what_it_needs_to_be_decoded() {
        let mut sender = Sender::new();
        sender.rates.set_size(1, (640, 360));
        // L2T3 at 30 frames per second.
        for picture in 0..90 {
            let temporal = [0, 2, 1, 2][picture % 4];
            sender.frame(1000, marks(0, temporal, picture == 0));
            sender.frame(3000, marks(1, temporal, picture == 0));
            sender.wait(MS * 33);
        }
        let offers = sender.offers();
        assert_eq!(offers.len(), 6);
        for offer in offers {
            let share = [0.25, 0.5, 1.0][usize::from(offer.layer.temporal)];
            let fps = share * 1000.0 / 33.0;
            let bytes = if offer.layer.spatial == 0 { 1000.0 } else { 4000.0 };
            assert_eq!(offer.layer.encoding, 2);
            assert_near(f64::from(offer.fps.unwrap()), fps, 3.0);
            assert_near(offer.bps as f64, bytes * 8.0 * fps, 6.0);
            assert_eq!(offer.pixels, (offer.layer.spatial == 1).then_some(640 * 360));
        }
        assert_near(sender.rates.bps(sender.now) as f64, 4000.0 * 8.0 * 1000.0 / 33.0, 6.0);
    }

    #[test]
    fn a_rate_is_known_after_a_few_frames() {
        let mut sender = Sender::new();
        sender.frame(30_000, marks(0, 0, true));
        assert_eq!(sender.offers()[0].fps, None, "there is something, but nobody knows what it costs");
        for _ in 0..3 {
            sender.wait(MS * 33);
            sender.frame(4000, marks(0, 0, false));
        }
        let offer = sender.offers()[0];
        assert_near(f64::from(offer.fps.unwrap()), 30.3, 1.0);
        assert_near(offer.bps as f64, 970_000.0 + 26_000.0 * 8.0 / 4.0, 5.0);
    }

    #[test]
    fn frames_that_come_all_at_once_tell_no_rate() {
        let mut sender = Sender::new();
        for _ in 0..20 {
            sender.frame(4000, marks(0, 0, false));
            sender.timestamp = sender.timestamp.wrapping_add(3000);
        }
        assert_eq!(sender.offers()[0].fps, None);
    }

    #[test]
    fn keyframes_are_spread_and_counted() {
        let mut sender = Sender::new();
        let (mut highest, mut sum, mut samples) = (0, 0.0, 0.0);
        // One in three seconds is ten times as large: 30 % more in the mean over 90 frames, 9 of which are its excess.
        for picture in 0..1800 {
            let is_key = picture % 90 == 0;
            sender.frame(if is_key { 40_000 } else { 4000 }, marks(0, 0, is_key));
            sender.wait(MS * 33);
            if picture >= 450 {
                let bps = sender.offers()[0].bps;
                highest = highest.max(bps);
                sum += bps as f64;
                samples += 1.0;
            }
        }
        let usual = 4000.0 * 8.0 / 0.033;
        assert_near(sum / samples, usual * 99.0 / 90.0, 1.0);
        assert!((highest as f64) < usual * 1.25, "{highest}");
        assert_eq!(sender.rates.keyframe_bytes(), Some(40_000));
    }

    #[test]
    fn where_all_frames_are_keyframes_they_are_the_usual_ones() {
        let mut sender = Sender::new();
        for _ in 0..10 {
            sender.frame(4000, marks(0, 0, true));
            sender.wait(MS * 33);
        }
        assert_near(sender.offers()[0].bps as f64, 4000.0 * 8.0 / 0.033, 15.0);
    }

    #[test]
    fn a_layer_that_stopped_is_gone_and_a_slow_one_is_not() {
        for (gap_ms, silence_ms, is_there) in [
            (33, 1400, true),
            (33, 1600, false),
            (1000, 2900, true),
            (1000, 3100, false),
            (4000, 11_900, true),
            (6000, 15_100, false),
        ] {
            let mut sender = Sender::new();
            for picture in 0..40 {
                if picture > 0 {
                    sender.wait(MS * gap_ms);
                }
                sender.frame(2000, marks(0, 0, picture == 0));
                assert_eq!(sender.offers().len(), 1, "one frame in {gap_ms} ms");
            }
            assert_near(sender.offers()[0].bps as f64, 16_000_000.0 / f64::from(gap_ms), 4.0);
            sender.wait(MS * silence_ms);
            assert_eq!(sender.rates.is_alive(sender.now), is_there, "{silence_ms} ms after one frame in {gap_ms} ms");
            assert_eq!(sender.offers().len(), usize::from(is_there));
        }
    }

    #[test]
    fn a_temporal_layer_stops_alone() {
        let mut sender = Sender::new();
        for picture in 0..200 {
            if picture < 100 || picture % 2 == 0 {
                sender.frame(2000, marks(0, (picture % 2) as u8, picture == 0));
            }
            sender.wait(MS * 33);
        }
        let offers = sender.offers();
        assert_eq!(offers.len(), 1);
        assert_near(offers[0].bps as f64, 2000.0 * 8.0 / 0.066, 4.0);
    }

    #[test]
    fn after_a_pause_the_rate_is_measured_anew() {
        let mut sender = Sender::new();
        for bytes in [8000, 1000] {
            for _ in 0..30 {
                sender.frame(bytes, marks(0, 0, false));
                sender.wait(MS * 33);
            }
            assert_near(sender.offers()[0].bps as f64, bytes as f64 * 8.0 / 0.033, 5.0);
            sender.wait(MS * 5000);
        }
    }

    #[test]
    fn a_change_is_seen_within_about_a_second() {
        let mut sender = Sender::new();
        for bytes in [8000, 1000, 8000] {
            for _ in 0..60 {
                sender.frame(bytes, marks(0, 0, false));
                sender.wait(MS * 33);
            }
            assert_near(sender.offers()[0].bps as f64, bytes as f64 * 8.0 / 0.033, 30.0);
        }
    }

    #[test]
    fn late_packets_make_no_frames() {
        let mut sender = Sender::new();
        for _ in 0..60 {
            sender.frame(2000, marks(0, 0, false));
            let late = sender.timestamp.wrapping_sub(9000);
            sender.rates.handle_packet(sender.now, 1000, late, &marks(0, 0, false));
            sender.wait(MS * 33);
        }
        let offer = sender.offers()[0];
        assert_near(f64::from(offer.fps.unwrap()), 30.3, 1.0);
        assert_near(offer.bps as f64, 3000.0 * 8.0 / 0.033, 1.0);
    }

    proptest! {
        #[test]
        fn nothing_a_publisher_sends_hurts(
            packets in prop::collection::vec((any::<u32>(), any::<u8>(), any::<u8>(), any::<bool>(), 0u64..3000, 0usize..65_536), 1..200)
        ) {
            let mut sender = Sender::new();
            for (timestamp, spatial, temporal, is_key, ms, bytes) in packets {
                sender.now += Duration::from_micros(ms * ms);
                sender.rates.handle_packet(sender.now, bytes, timestamp, &marks(spatial, temporal, is_key));
                for offer in sender.offers() {
                    prop_assert!(usize::from(offer.layer.spatial) < SPATIAL_MAX);
                    prop_assert!(usize::from(offer.layer.temporal) < TEMPORAL_MAX);
                    prop_assert!(offer.fps.is_none_or(f32::is_finite));
                }
            }
        }

        #[test]
        fn higher_layers_never_cost_less(
            packets in prop::collection::vec((0u8..4, 0u8..4, 0u64..200, 1usize..5000), 1..200)
        ) {
            let mut sender = Sender::new();
            for (spatial, temporal, ms, bytes) in packets {
                sender.wait(MS * ms as u32);
                sender.frame(bytes, marks(spatial, temporal, false));
            }
            let offers = sender.offers();
            for a in &offers {
                for b in &offers {
                    if a.layer.spatial <= b.layer.spatial && a.layer.temporal <= b.layer.temporal {
                        prop_assert!(a.bps <= b.bps);
                    }
                }
            }
        }
    }
}
