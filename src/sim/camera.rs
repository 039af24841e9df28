//! A camera and its encoders: pictures 30 times a second, as simulcast encodings or as one that changes, in VP8 packets
//! that say of themselves what an encoder's do.
//!
//! Owns: sizes (noisy around the rate, keyframes many times as large), temporal layers (L1T3), picture ids, TL0PICIDX,
//! and the books of what was made, so that a viewer's books can be held against them.
//! Forbids: knowing how packets travel.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::choice::{Choice, Quality};
use super::media::Tag;
use super::vp8::Vp8Head;

/// One simulcast encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodingConfig {
    /// Its RID.
    pub rid: &'static str,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// What it takes with all temporal layers.
    pub bps: u64,
}

/// What a camera makes.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// In the order they are offered. One alone is sent without a RID.
    pub encodings: Vec<EncodingConfig>,
    /// Three temporal layers (L1T3) instead of one.
    pub has_layers: bool,
    /// Only one encoding is made, chosen by the estimate: what a server that forwards would choose.
    pub makes_one: bool,
    /// Encodings that the estimate has no room for are not made.
    pub obeys_estimate: bool,
    /// Encodings that a rate told by the other side (REMB) has no room for are not made, as browsers do.
    pub obeys_ceiling: bool,
    /// Of sizes and of where counters begin.
    pub seed: u64,
}

impl CameraConfig {
    /// What a browser makes of a camera of 720 lines.
    pub fn simulcast() -> Self {
        let encoding = |rid, width, height, bps| EncodingConfig { rid, width, height, bps };
        Self {
            encodings: vec![
                encoding("q", 320, 180, 150_000),
                encoding("h", 640, 360, 500_000),
                encoding("f", 1280, 720, 1_700_000),
            ],
            has_layers: true,
            makes_one: false,
            obeys_estimate: false,
            obeys_ceiling: false,
            seed: 1,
        }
    }

    /// One encoding without layers: nothing can be left out of it.
    pub fn plain(bps: u64) -> Self {
        let only = EncodingConfig { rid: "", width: 1280, height: 720, bps };
        Self { encodings: vec![only], has_layers: false, ..Self::simulcast() }
    }
}

/// Pictures per second.
pub const FPS: u32 = 30;
/// Of the RTP clock (90 kHz) between pictures.
pub const TICKS_PER_PICTURE: u32 = 90_000 / FPS;
/// What a packet's payload holds at most: with headers and tag the datagram stays below 1200 bytes.
const PAYLOAD_BYTES_MAX: usize = 1130;
/// The least a packet holds: head, tag, and something.
const PAYLOAD_BYTES_MIN: usize = 60;
/// L1T3: temporal layers of four pictures, and how large they are beside the mean.
const PATTERN: [(u8, f64); 4] = [(0, 1.6), (2, 0.7), (1, 1.0), (2, 0.7)];
/// Share of the rate up to each temporal layer, by [`PATTERN`].
pub const SHARE_UP_TO: [f64; 3] = [0.4, 0.65, 1.0];
/// Standard deviation of the logarithm of a frame's size.
const NOISE: f64 = 0.2;
/// Keyframes beside the mean frame.
const KEY_FACTOR: std::ops::Range<f64> = 5.0..8.0;

/// A frame as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// When it was sent.
    pub at: Instant,
    /// By which encoding.
    pub encoding: u8,
    /// Its number there.
    pub frame: u32,
    /// Temporal layer.
    pub temporal: u8,
    /// Keyframe.
    pub is_key: bool,
    /// Packets.
    pub parts: u8,
    /// Payload bytes.
    pub bytes: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Camera {
    config: CameraConfig,
    encoders: Vec<Encoder>,
    choice: Choice,
    rng: StdRng,
    /// Pictures taken.
    pub pictures: u32,
    /// Packets made, of all encodings.
    packets: u32,
    /// All frames, in order.
    pub made: Vec<Made>,
}

#[derive(Debug)]
struct Encoder {
    config: EncodingConfig,
    encoding: u8,
    is_active: bool,
    temporal_max: u8,
    wants_key: bool,
    /// Place in the pattern.
    place: usize,
    frame: u32,
    /// The latest frame of the base layer, and of the one above.
    latest: [u32; 2],
    picture_id: u16,
    tl0: u8,
    /// Bytes sent beyond the rate, which the next frames save.
    debt: f64,
}

impl Camera {
    /// A camera that has taken no picture yet.
    pub fn new(config: CameraConfig) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        let count = if config.makes_one { 1 } else { config.encodings.len() };
        let mut encoder = |(at, encoding): (usize, &EncodingConfig)| Encoder {
            config: *encoding,
            encoding: at as u8,
            is_active: true,
            temporal_max: 2,
            wants_key: true,
            place: 0,
            frame: 0,
            latest: [0; 2],
            picture_id: rng.random::<u16>() & 0x7fff,
            tl0: rng.random(),
            debt: 0.0,
        };
        let encoders = config.encodings.iter().enumerate().take(count).map(&mut encoder).collect();
        let choice = Choice::new(&qualities(&config));
        Self { config, encoders, choice, rng, pictures: 0, packets: 0, made: Vec::new() }
    }

    /// RIDs in the order they are offered; none for a single encoding.
    pub fn rids(&self) -> Vec<&'static str> {
        if self.encoders.len() == 1 { Vec::new() } else { self.encoders.iter().map(|it| it.config.rid).collect() }
    }

    /// What an estimate has to be for all of it to be sent.
    pub fn bps_max(&self) -> u64 {
        let rates = self.config.encodings.iter().map(|encoding| encoding.bps);
        if self.config.makes_one { self.choice.best_bps() } else { rates.sum() }
    }

    /// The next frame of an encoding is a keyframe; of all without a RID.
    pub fn request_keyframe(&mut self, rid: Option<&str>) {
        let wanted = self.encoders.iter_mut().filter(|it| rid.is_none_or(|rid| rid == it.config.rid));
        wanted.for_each(|encoder| encoder.wants_key = true);
    }

    /// What the sender may send has become so. Returns what it would need to send more.
    pub fn handle_estimate(&mut self, now: Instant, bps: u64) -> u64 {
        if self.config.makes_one {
            let Quality { encoding, temporal, .. } = self.choice.choose(now, bps);
            let encoder = &mut self.encoders[0];
            if encoder.encoding != encoding {
                encoder.encoding = encoding;
                encoder.config = self.config.encodings[usize::from(encoding)];
                encoder.wants_key = true;
            }
            encoder.temporal_max = temporal;
        } else if self.config.obeys_estimate {
            self.share_out(bps);
        }
        if self.config.makes_one { self.choice.next_bps() } else { 0 }
    }

    /// The other side says what may be sent.
    pub fn handle_ceiling(&mut self, bps: u64) {
        if self.config.obeys_ceiling {
            self.share_out(bps);
        }
    }

    /// From the first encoding on, as many as there is room for.
    fn share_out(&mut self, bps: u64) {
        let mut used = 0;
        for (at, encoder) in self.encoders.iter_mut().enumerate() {
            used += encoder.config.bps;
            let is_active = at == 0 || used <= bps;
            encoder.wants_key |= is_active && !encoder.is_active;
            encoder.is_active = is_active;
        }
    }

    /// Takes a picture: for each encoding made of it its packets' payloads, in order. `base` says whose they are;
    /// `is_wanted` which encodings the other side takes.
    pub fn take(&mut self, now: Instant, base: Tag, is_wanted: impl Fn(usize) -> bool) -> Vec<(usize, Vec<Vec<u8>>)> {
        self.pictures += 1;
        let mut taken = Vec::new();
        for (at, encoder) in self.encoders.iter_mut().enumerate() {
            if !encoder.is_active || !is_wanted(at) {
                continue;
            }
            let Some((made, head, needs)) = encoder.encode(now, &mut self.rng, self.config.has_layers) else {
                continue;
            };
            let Made { encoding, is_key, parts, frame, .. } = made;
            let tag = Tag { encoding, is_key, parts, frame, needs, ..base };
            taken.push((at, cut(&made, head, tag, &mut self.packets)));
            self.made.push(made);
        }
        taken
    }
}

impl Encoder {
    /// The next frame: what was made, its head, and the frame it builds on. `None`: left out.
    fn encode(&mut self, now: Instant, rng: &mut StdRng, has_layers: bool) -> Option<(Made, Vp8Head, Option<u32>)> {
        let is_key = std::mem::take(&mut self.wants_key);
        if is_key {
            self.place = 0;
        }
        let place = self.place;
        self.place += 1;
        let (temporal, weight) = if has_layers { PATTERN[place % PATTERN.len()] } else { (0, 1.0) };
        if temporal > self.temporal_max {
            return None;
        }
        let bytes = self.size(rng, is_key, weight);
        let parts = bytes.div_ceil(PAYLOAD_BYTES_MAX) as u8;
        // The second picture of layer 2 builds on layer 1, all others on the base layer.
        let is_sync = temporal > 0 && place % PATTERN.len() != 3;
        let needs = self.latest[usize::from(has_layers && place % PATTERN.len() == 3)];
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let head = Vp8Head {
            is_start: true,
            key: is_key.then_some((self.config.width, self.config.height)),
            picture_id: Some(self.picture_id),
            tl0: has_layers.then_some(self.tl0),
            layer: has_layers.then_some((temporal, is_sync)),
        };
        let (encoding, frame) = (self.encoding, self.frame);
        if temporal < 2 {
            self.latest[usize::from(temporal)] = frame;
        }
        self.frame += 1;
        let made = Made { at: now, encoding, frame, temporal, is_key, parts, bytes: bytes as u32 };
        Some((made, head, (!is_key).then_some(needs)))
    }

    fn size(&mut self, rng: &mut StdRng, is_key: bool, weight: f64) -> usize {
        let mean = self.config.bps as f64 / 8.0 / f64::from(FPS);
        let target = mean * weight;
        // Twelve uniform numbers make a normal one.
        let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let noise = (NOISE * normal).exp();
        let size = if is_key {
            mean * rng.random_range(KEY_FACTOR) * noise.sqrt()
        } else {
            (target * noise - (self.debt * 0.1).min(target * 0.5)).max(target * 0.3)
        };
        self.debt = (self.debt + size - target).max(-3.0 * mean);
        (size as usize).max(PAYLOAD_BYTES_MIN)
    }
}

/// Cuts a frame into the fewest near-equal packets, longer ones behind.
fn cut(made: &Made, head: Vp8Head, tag: Tag, number: &mut u32) -> Vec<Vec<u8>> {
    let (bytes, parts) = (made.bytes as usize, usize::from(made.parts));
    let longer = bytes % parts;
    (0..parts)
        .map(|part| {
            let len = bytes / parts + usize::from(part >= parts - longer);
            let head = if part == 0 { head } else { Vp8Head { is_start: false, key: None, ..head } };
            let tag = Tag { part: part as u8, number: *number, ..tag };
            *number += 1;
            tag.payload_after(&head, len)
        })
        .collect()
}

/// All the camera can be asked for.
pub fn qualities(config: &CameraConfig) -> Vec<Quality> {
    let encodings = config.encodings.iter().enumerate();
    let all = encodings.flat_map(|(at, encoding)| {
        // Half the pictures are worth less than a smaller size with all of them, but for the smallest.
        let temporals = if at == 0 && config.has_layers { 0..=2 } else { 2..=2 };
        temporals.map(move |temporal| Quality {
            encoding: at as u8,
            temporal,
            bps: (encoding.bps as f64 * SHARE_UP_TO[usize::from(temporal)]) as u64,
        })
    });
    all.collect()
}

/// How long a picture stays.
pub fn interval() -> Duration {
    Duration::from_secs(1) / FPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    fn shoot(camera: &mut Camera, seconds: u32) {
        let mut now = clock::now();
        for _ in 0..seconds * FPS {
            now += interval();
            for (_, packets) in camera.take(now, Tag::EXAMPLE, |_| true) {
                let lens: Vec<usize> = packets.iter().map(Vec::len).collect();
                let (min, max) = (lens.iter().min().unwrap(), lens.iter().max().unwrap());
                assert!(*max <= PAYLOAD_BYTES_MAX && max - min <= 1, "{lens:?}");
                assert!(packets.iter().all(|payload| Tag::parse(payload).is_some()));
            }
        }
    }

    #[test]
    fn encodings_keep_their_rates_and_keyframes_are_larger() {
        let mut camera = Camera::new(CameraConfig::simulcast());
        shoot(&mut camera, 20);
        for (at, encoding) in CameraConfig::simulcast().encodings.iter().enumerate() {
            let made: Vec<&Made> = camera.made.iter().filter(|made| usize::from(made.encoding) == at).collect();
            let bps = made.iter().map(|made| u64::from(made.bytes) * 8).sum::<u64>() / 20;
            assert!((encoding.bps * 9 / 10..encoding.bps * 11 / 10).contains(&bps), "{encoding:?}: {bps}");
            let mean = encoding.bps as f64 / 240.0;
            let keys: Vec<f64> = made.iter().filter(|it| it.is_key).map(|it| f64::from(it.bytes) / mean).collect();
            assert!(keys.len() == 1 && (4.0..10.0).contains(&keys[0]), "{keys:?}");
            let base: u64 = made.iter().filter(|it| it.temporal == 0).map(|it| u64::from(it.bytes) * 8).sum();
            assert!((0.35..0.45).contains(&(base as f64 / 20.0 / encoding.bps as f64)));
        }
    }

    #[test]
    fn one_encoding_follows_the_estimate_with_keyframes() {
        let config = CameraConfig { makes_one: true, ..CameraConfig::simulcast() };
        let mut camera = Camera::new(config);
        let now = clock::now();
        for (at, bps) in [(0, 100_000), (1, 620_000), (10, 3_000_000)] {
            camera.handle_estimate(now + Duration::from_secs(at), bps);
            shoot(&mut camera, 1);
        }
        let encodings: Vec<u8> = camera.made.iter().filter(|made| made.is_key).map(|made| made.encoding).collect();
        assert_eq!(encodings, [0, 1, 2]);
    }
}
