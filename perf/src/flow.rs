//! What a source sends: when, and in packets of which sizes.
//!
//! Owns: the shapes of traffic. Promises: sizes are those of the RTP packet with a header of 12 bytes, without header
//! extensions and SRTP tag; each frame has at least one packet; a test packet's stamp fits each of them.

use std::time::Duration;

use anyhow::{Result, bail};
use tramline::base::format::MediaKind;
use tramline::wire::rtp::FIXED_HEADER_BYTES;

use crate::stamp::PAYLOAD_BYTES_MIN;

/// An Ethernet MTU without IP, UDP, header extensions and the longest tag.
const PACKET_BYTES_MAX: usize = 1400;
/// The shortest packet that carries a stamp.
const PACKET_BYTES_MIN: usize = FIXED_HEADER_BYTES + PAYLOAD_BYTES_MIN;
/// libwebrtc's packets, RTP header included.
const CAMERA_PACKET_BYTES_MAX: usize = 1200;
/// VP8 payload descriptor with a 15-bit picture id (RFC 7741 §4.2).
const DESCRIPTOR_BYTES: usize = 4;
/// A keyframe beside the P frames around it: 5 to 10 for people at a desk.
const KEYFRAME_FACTOR: f64 = 8.0;
/// Spread of P frames as the sigma of a log-normal: two thirds lie between 0.67 and 1.5 of the median. An encoder with
/// a rate control of its own keeps its mean.
const SPREAD: f64 = 0.4;
/// An encoder drops or re-encodes what is further off.
const SPREAD_BOUNDS: (f64, f64) = (0.25, 4.0);

/// The shape of one source's traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    /// Video as a benchmark wants it.
    Steady(Steady),
    /// Video as an encoder sends it.
    Camera(Camera),
    /// Sound.
    Voice(Voice),
}

/// Equal packets in equal bursts, each burst a frame.
#[derive(clap::Args, Clone, Copy, Debug, PartialEq)]
pub struct Steady {
    /// Packets per second of one publisher
    #[arg(long, short = 'r', default_value_t = 1000)]
    pub rate: u32,
    /// Packets sent together
    #[arg(long, short = 'b', default_value_t = 10)]
    pub burst: u32,
    /// RTP header and payload of a packet in bytes, without the SRTP tag
    #[arg(long, default_value_t = 1200)]
    pub packet_bytes: usize,
    /// Packets from one keyframe to the next
    #[arg(long, default_value_t = 1000)]
    pub keyframe_every: u64,
    /// VP8 without picture ids: servers that take frames apart and pack them anew then give the same packets back
    #[arg(long)]
    pub bare_vp8: bool,
}

/// VP8 at a target rate: frames of varying size, cut into near-equal packets sent back to back.
#[derive(clap::Args, Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Video of each publisher in kbit/s
    #[arg(long, default_value_t = 1000)]
    pub video_kbps: u32,
    /// Frames per second
    #[arg(long, default_value_t = 30)]
    pub fps: u32,
    /// Seconds from one keyframe to the next; PLI brings one at once
    #[arg(long, default_value_t = 10)]
    pub keyframe_seconds: u32,
}

/// Opus: one packet after another.
#[derive(clap::Args, Clone, Copy, Debug, PartialEq)]
pub struct Voice {
    /// Audio packets per second of each publisher
    #[arg(long, default_value_t = 50)]
    pub audio_rate: u32,
    /// The shortest audio packet in bytes, RTP header included
    #[arg(long, default_value_t = 80)]
    pub audio_bytes_min: usize,
    /// The longest audio packet in bytes
    #[arg(long, default_value_t = 120)]
    pub audio_bytes_max: usize,
}

impl Flow {
    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        if matches!(self, Self::Voice(_)) { MediaKind::Audio } else { MediaKind::Video }
    }

    /// Says what cannot be.
    pub fn check(&self) -> Result<()> {
        let bounds = PACKET_BYTES_MIN..=PACKET_BYTES_MAX;
        let is_good = match self {
            Self::Steady(steady) => {
                steady.burst > 0 && steady.rate >= steady.burst && bounds.contains(&steady.packet_bytes)
            }
            Self::Camera(camera) => camera.fps > 0 && camera.video_kbps > 0 && camera.keyframe_seconds > 0,
            Self::Voice(voice) => {
                let (min, max) = (voice.audio_bytes_min, voice.audio_bytes_max);
                voice.audio_rate > 0 && min <= max && bounds.contains(&min) && bounds.contains(&max)
            }
        };
        if !is_good {
            bail!(
                "a packet has {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX} bytes, a burst at least one packet and no more \
                 than a second sends, a rate is not 0: {self:?}"
            );
        }
        Ok(())
    }

    /// From one frame to the next, at full pace.
    pub fn interval(&self) -> Duration {
        let per_s = match self {
            Self::Steady(steady) => f64::from(steady.rate) / f64::from(steady.burst.max(1)),
            Self::Camera(camera) => camera.fps.into(),
            Self::Voice(voice) => voice.audio_rate.into(),
        };
        Duration::from_secs_f64(1.0 / per_s.max(1e-3))
    }

    /// RTP timestamp units from one frame to the next.
    pub fn ticks(&self) -> f64 {
        let clock_hz = if self.kind() == MediaKind::Audio { 48_000.0 } else { 90_000.0 };
        self.interval().as_secs_f64() * clock_hz
    }

    /// Packets per second, about.
    pub fn packets_per_s(&self) -> f64 {
        match self {
            Self::Steady(steady) => steady.rate.into(),
            Self::Camera(camera) => {
                let frame = camera.mean_frame_bytes();
                f64::from(camera.fps) * (frame / packet_share() as f64).ceil()
            }
            Self::Voice(voice) => voice.audio_rate.into(),
        }
    }

    /// Whether frame `number` is a keyframe without being asked.
    pub fn is_key(&self, number: u64) -> bool {
        match self {
            Self::Steady(steady) => {
                let burst = u64::from(steady.burst);
                (number * burst) % steady.keyframe_every.max(1) < burst
            }
            Self::Camera(camera) => number.is_multiple_of(camera.frames_per_key()),
            Self::Voice(_) => false,
        }
    }

    /// Whether its VP8 has no picture ids.
    pub fn is_bare(&self) -> bool {
        matches!(self, Self::Steady(steady) if steady.bare_vp8)
    }

    /// The packet sizes of one frame. `random` gives numbers in 0..1.
    pub fn sizes(&self, is_key: bool, random: &mut impl FnMut() -> f64, out: &mut Vec<usize>) {
        out.clear();
        match self {
            Self::Steady(steady) => out.extend((0..steady.burst).map(|_| steady.packet_bytes)),
            Self::Camera(camera) => {
                let frame = camera.mean_frame_bytes() * if is_key { KEYFRAME_FACTOR } else { spread(random) };
                split(frame as usize, out);
            }
            Self::Voice(voice) => {
                let range = (voice.audio_bytes_max - voice.audio_bytes_min + 1) as f64;
                out.push(voice.audio_bytes_min + (random() * range) as usize);
            }
        }
    }
}

impl Camera {
    fn frames_per_key(&self) -> u64 {
        u64::from(self.fps) * u64::from(self.keyframe_seconds)
    }

    /// Of a P frame, so that all frames together keep the rate.
    fn mean_frame_bytes(&self) -> f64 {
        let frames = self.frames_per_key() as f64;
        let mean = f64::from(self.video_kbps) * 1000.0 / 8.0 / f64::from(self.fps);
        mean * frames / (frames - 1.0 + KEYFRAME_FACTOR)
    }
}

/// A log-normal factor of mean 1, bounded.
fn spread(random: &mut impl FnMut() -> f64) -> f64 {
    // Box and Muller 1958; 1 - u keeps the logarithm from 0.
    let (u, v) = (1.0 - random(), random());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (SPREAD * normal - SPREAD * SPREAD / 2.0).exp().clamp(SPREAD_BOUNDS.0, SPREAD_BOUNDS.1)
}

/// Encoder bytes that fit one packet.
fn packet_share() -> usize {
    CAMERA_PACKET_BYTES_MAX - FIXED_HEADER_BYTES - DESCRIPTOR_BYTES
}

/// As few packets as can be, near-equal: they differ by at most a byte, the shorter ones first, as libwebrtc cuts.
fn split(frame_bytes: usize, out: &mut Vec<usize>) {
    let frame_bytes = frame_bytes.max(1);
    let count = frame_bytes.div_ceil(packet_share());
    let (share, longer) = (frame_bytes / count, frame_bytes % count);
    let sizes = (0..count).map(|at| share + usize::from(at >= count - longer));
    out.extend(sizes.map(|size| (FIXED_HEADER_BYTES + DESCRIPTOR_BYTES + size).max(PACKET_BYTES_MIN)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> Camera {
        Camera { video_kbps: 1000, fps: 30, keyframe_seconds: 10 }
    }

    /// The same numbers every time.
    fn numbers() -> impl FnMut() -> f64 {
        let mut state = 1_u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn cut(frame_bytes: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        split(frame_bytes, &mut sizes);
        sizes
    }

    #[test]
    fn a_frame_is_cut_into_few_near_equal_packets() {
        assert_eq!(cut(1184), [1200]);
        assert_eq!(cut(1185), [608, 609], "the shorter one first");
        assert_eq!(cut(4000), [1016, 1016, 1016, 1016]);
        for bytes in 1..20_000 {
            let sizes = cut(bytes);
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*max <= 1200 && max - min <= 1 && *min >= PACKET_BYTES_MIN, "{bytes}: {sizes:?}");
            let carried: usize = sizes.iter().map(|size| size - 16).sum();
            assert!(carried == bytes || bytes < PACKET_BYTES_MIN, "{bytes}: {carried}");
        }
    }

    #[test]
    fn a_camera_keeps_its_rate_and_its_frames_differ() {
        let (flow, mut random, mut sizes) = (Flow::Camera(camera()), numbers(), Vec::new());
        let mut frames = Vec::new();
        for number in 0..30 * 600 {
            flow.sizes(flow.is_key(number), &mut random, &mut sizes);
            frames.push(sizes.iter().map(|size| size - 16).sum::<usize>());
        }
        let kbps = frames.iter().sum::<usize>() as f64 * 8.0 / 600.0 / 1000.0;
        assert!((950.0..1050.0).contains(&kbps), "{kbps}");
        let keys = frames.iter().step_by(300).sum::<usize>() as f64 / 60.0;
        let mean = frames.iter().sum::<usize>() as f64 / frames.len() as f64;
        assert!((7.0..8.0).contains(&(keys / mean)), "{keys} {mean}");
        let mut plain: Vec<usize> = frames.iter().enumerate().filter(|(n, _)| n % 300 != 0).map(|(_, f)| *f).collect();
        plain.sort_unstable();
        let at = |share: f64| plain[(plain.len() as f64 * share) as usize] as f64 / plain[plain.len() / 2] as f64;
        assert!((0.62..0.72).contains(&at(0.16)) && (1.4..1.6).contains(&at(0.84)), "{} {}", at(0.16), at(0.84));
    }

    #[test]
    fn a_burst_is_a_frame_and_keeps_the_rate() {
        let steady = Steady { rate: 1000, burst: 10, packet_bytes: 1200, keyframe_every: 100, bare_vp8: false };
        let (flow, mut sizes) = (Flow::Steady(steady), Vec::new());
        flow.sizes(false, &mut numbers(), &mut sizes);
        assert_eq!(sizes, [1200; 10]);
        assert_eq!((flow.interval(), flow.ticks()), (Duration::from_millis(10), 900.0));
        assert_eq!((0..11).filter(|&frame| flow.is_key(frame)).collect::<Vec<_>>(), [0, 10]);
    }

    #[test]
    fn sound_is_small_packets_within_bounds() {
        let flow = Flow::Voice(Voice { audio_rate: 50, audio_bytes_min: 80, audio_bytes_max: 120 });
        let (mut random, mut sizes, mut seen) = (numbers(), Vec::new(), std::collections::BTreeSet::new());
        for _ in 0..2000 {
            flow.sizes(true, &mut random, &mut sizes);
            seen.insert(sizes[0]);
        }
        assert_eq!((seen.first(), seen.last(), seen.len()), (Some(&80), Some(&120), 41));
        assert_eq!((flow.interval(), flow.ticks()), (Duration::from_millis(20), 960.0));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let steady = Steady { rate: 1000, burst: 10, packet_bytes: 1200, keyframe_every: 1000, bare_vp8: false };
        assert!(Flow::Steady(steady).check().is_ok());
        assert!(Flow::Steady(Steady { burst: 0, ..steady }).check().is_err());
        assert!(Flow::Steady(Steady { rate: 5, ..steady }).check().is_err());
        assert!(Flow::Steady(Steady { packet_bytes: 57, ..steady }).check().is_err());
        assert!(Flow::Steady(Steady { packet_bytes: 58, ..steady }).check().is_ok());
        assert!(Flow::Camera(Camera { fps: 0, ..camera() }).check().is_err());
        let voice = Voice { audio_rate: 50, audio_bytes_min: 121, audio_bytes_max: 120 };
        assert!(Flow::Voice(voice).check().is_err());
    }
}
