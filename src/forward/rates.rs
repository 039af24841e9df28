//! What the layers of one encoding cost and show, measured as they come in: the offer to subscribers.
//!
//! Owns: one meter per (spatial, temporal) cell. A frame's bytes count for the time until the next frame of its cell, so
//! the mean is right from the second frame on, at 60 frames per second as at one in five seconds. What a keyframe costs
//! beyond a usual frame is spread over some seconds: layers do not look dear because one just came, and the true mean is
//! told all the same. Promises: no allocation; per packet an addition, arithmetic once per frame only.
//! Forbids: knowing subscribers; the codec; the clock.

use std::time::{Duration, Instant};

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
const SILENCE_MIN: Duration = Duration::from_millis(1500);
/// ... and for so many of its usual frame intervals: a screen that stands still sends a frame a second or fewer.
const SILENCE_FRAMES: f32 = 3.0;
/// ... but at the latest now.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What is taken for the frame interval as long as there was one frame only.
const GAP_UNKNOWN_S: f32 = 1.0;
/// A packet whose timestamp is that little behind is late; one farther behind belongs to another count of time.
const LATE_TICKS: u32 = 10 * 90_000;

/// One layer as it can be had now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Which one.
    pub layer: Layer,
    /// Payload bits per second that a subscriber of it receives: with all lower spatial and temporal layers of its
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
    pixels: [Option<u32>; SPATIAL_MAX],
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
    /// A packet came in, with so many bytes of payload. What it says of its frame may be unknown: then there is one layer.
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

    /// The pictures of a spatial layer have so many pixels, as a keyframe says.
    pub fn set_pixels(&mut self, spatial: u8, pixels: u32) {
        self.pixels[usize::from(spatial).min(SPATIAL_MAX - 1)] = Some(pixels);
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
            pixels: self.pixels[spatial],
            fps: is_measured.then(|| parts.map(Cell::fps).sum()),
        }
    }

    fn cumulative_bps(&self, now: Instant, spatial: usize, temporal: usize) -> u64 {
        let cells = self.cells[..=spatial].iter().flat_map(|row| &row[..=temporal]);
        let bytes: f32 = cells.filter(|cell| cell.is_alive(now)).map(Cell::bytes_per_s).sum();
        (bytes * 8.0) as u64
    }
}

impl Cell {
    fn handle_packet(&mut self, now: Instant, bytes: u32, timestamp: u32, is_key: bool) {
        match &mut self.open {
            Some(frame) if !is_later(timestamp, frame.timestamp) => frame.bytes = frame.bytes.saturating_add(bytes),
            _ => {
                if !self.is_alive(now) {
                    // After a pause nothing of before holds.
                    *self = Self::default();
                } else if let Some(frame) = self.open {
                    self.end_frame(frame, now.saturating_duration_since(frame.began_at).as_secs_f32());
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
        let is_costly = frame.is_key && !std::mem::replace(&mut self.was_key, frame.is_key);
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
        let Some(frame) = self.open else { return false };
        let patience = Duration::from_secs_f32(self.gap_s.unwrap_or(GAP_UNKNOWN_S) * SILENCE_FRAMES);
        now.saturating_duration_since(frame.began_at) <= patience.clamp(SILENCE_MIN, SILENCE_MAX)
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
