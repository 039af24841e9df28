//! The keyframe run of one encoding: what a new subscriber is served from the history, so that its join needs no new
//! keyframe; and the timestamps under which it plays no past.
//!
//! Owns: three numbers; packets are the history's. Promises: a [`Replay`] begins with a keyframe and lacks nothing of
//! temporal layer 0 up to the newest packet, and is small enough for the subscriber's link and decoder; else there is none.
//! Forbids: anything of a subscriber.

use std::time::{Duration, Instant};

use super::history::{History, PacketMeta, VIDEO_BYTES, VIDEO_PACKETS};

/// Packets from the keyframe on, with those of higher temporal layers: three quarters of the history, so that nothing
/// goes while a replay is paced out.
pub const PACKETS_MAX: u64 = VIDEO_PACKETS as u64 * 3 / 4;
/// Bytes of one replay: half of the history, for the same reason. Usually the link allows less.
pub const BYTES_MAX: usize = VIDEO_BYTES / 2;
/// Pictures of one replay: a decoder takes some 3 ms for each, and shows nothing meanwhile.
pub const PICTURES_MAX: u32 = 120;
/// A run older than this is stale: errors that a decoder hides add up, and a fresh keyframe heals them.
pub const AGE_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub struct KeyframeRun(Option<Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    /// The keyframe's first packet.
    first: u64,
    highest: u64,
    /// Packets that came of those between.
    present: u64,
    began_at: Instant,
}

impl KeyframeRun {
    /// A packet that the history has just taken in.
    pub fn handle_packet(&mut self, now: Instant, history: &History, meta: &PacketMeta) {
        let is_newer = self.0.is_none_or(|run| meta.seq > run.first);
        if meta.marks.begins() && is_newer {
            let highest = self.0.map_or(meta.seq, |run| run.highest.max(meta.seq));
            let early = (meta.seq + 1..=highest).take(VIDEO_PACKETS).filter(|seq| history.packet(*seq).is_some());
            self.0 = Some(Run { first: meta.seq, highest, present: 1 + early.count() as u64, began_at: now });
        } else if let Some(run) = &mut self.0
            && is_newer
        {
            run.highest = run.highest.max(meta.seq);
            run.present += 1;
        }
    }

    /// What somebody new can be served now, of spatial layers up to `spatial_max`, if it takes at most `bytes_max` of
    /// payload. `None`: there is no keyframe, something is missing yet, or it has become too much; ask the publisher.
    pub fn fits<'a>(
        &self,
        now: Instant,
        history: &'a History,
        spatial_max: u8,
        bytes_max: usize,
    ) -> Option<Replay<'a>> {
        let run = self.0?;
        let packets = run.highest - run.first + 1;
        let is_stale = packets > PACKETS_MAX || now.saturating_duration_since(run.began_at) > AGE_MAX;
        if is_stale || run.present != packets {
            return None;
        }
        let (next, last) = (run.first, run.highest);
        let mut replay = Replay { history, spatial_max, next, last, picture: None, packets: 0, bytes: 0, pictures: 0 };
        for seq in run.first..=run.highest {
            let packet = history.packet(seq)?;
            if let Some(replayed) = replay.serve(&packet.meta) {
                replay.packets += 1;
                replay.bytes += packet.payload.len();
                replay.pictures = replayed.picture + 1;
            }
        }
        replay.picture = None;
        let is_small = replay.bytes <= bytes_max.min(BYTES_MAX) && replay.pictures <= PICTURES_MAX;
        is_small.then_some(replay)
    }
}

/// Packets to serve, in order, with the picture each belongs to.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    history: &'a History,
    spatial_max: u8,
    next: u64,
    last: u64,
    /// Timestamp and index of the picture that the last packet was of.
    picture: Option<(u32, u32)>,
    packets: u32,
    bytes: usize,
    pictures: u32,
}

/// One packet of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Its number in the history.
    pub seq: u64,
    /// Which picture it is of; the keyframe is 0.
    pub picture: u32,
}

impl Replay<'_> {
    /// Packets in all.
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Their payload bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pictures in all. The last is the newest, which is shown; those before it only make it decodable.
    pub fn pictures(&self) -> u32 {
        self.pictures
    }

    /// Live packets follow from this number on.
    pub fn live_from(&self) -> u64 {
        self.last + 1
    }

    /// The packet with the picture it is of, when it is served.
    fn serve(&mut self, meta: &PacketMeta) -> Option<Replayed> {
        if meta.marks.temporal != 0 || meta.marks.spatial > self.spatial_max {
            return None;
        }
        let picture = match self.picture {
            None => 0,
            Some((timestamp, index)) => index + u32::from(timestamp != meta.timestamp),
        };
        self.picture = Some((meta.timestamp, picture));
        Some(Replayed { seq: meta.seq, picture })
    }
}

impl Iterator for Replay<'_> {
    type Item = Replayed;

    fn next(&mut self) -> Option<Replayed> {
        while self.next <= self.last {
            let packet = self.history.packet(self.next);
            self.next += 1;
            if let Some(replayed) = packet.and_then(|packet| self.serve(&packet.meta)) {
                return Some(replayed);
            }
        }
        None
    }
}

/// The outgoing timestamps of a replay: its pictures stand closely one after the other, right before the newest.
///
/// A receiver shows a picture as long after the one before as their timestamps are apart. With their own timestamps the
/// pictures of a replay would be the past, played in real time, and the join would stay late. So they get a few
/// milliseconds in all ([`SQUEEZED_MAX`]), and the newest, with all that follows it live, keeps its own place.
/// Promises: later than what was sent before, strictly rising, a tick or more apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze {
    newest: u32,
    past: u32,
    step: u32,
}

/// How long a replay lasts by its timestamps, where its pictures are not so many that a tick for each is more.
pub const SQUEEZED_MAX: Duration = Duration::from_millis(5);

impl Squeeze {
    /// For so many pictures, the last of which is to have the outgoing timestamp `newest`. `last_sent`: of the last frame
    /// that the subscriber got from anything before, if it did. Where there is no room after it, the newest moves back as
    /// far as it must; see [`newest`](Self::newest).
    pub fn new(last_sent: Option<u32>, newest: u32, pictures: u32, clock_rate_hz: u32) -> Self {
        let past = pictures.saturating_sub(1).min(PICTURES_MAX);
        let room = match last_sent {
            // Nobody knows a time before: there is as much room as one likes.
            None => u32::MAX,
            // What lies before the last one sent is negative and no room.
            Some(last) => u32::try_from(newest.wrapping_sub(last).cast_signed()).unwrap_or(0),
        };
        let ticks_max = (SQUEEZED_MAX.as_millis() as u64 * u64::from(clock_rate_hz) / 1000) as u32;
        let step = (ticks_max.min(room.saturating_sub(1)) / past.max(1)).max(1);
        let newest = match last_sent {
            Some(last) if room <= past => last.wrapping_add(past + 1),
            _ => newest,
        };
        Self { newest, past, step }
    }

    /// The timestamp of a picture of the replay.
    pub fn timestamp(&self, picture: u32) -> u32 {
        self.newest.wrapping_sub(self.past.saturating_sub(picture) * self.step)
    }

    /// The timestamp of the newest picture, from which live ones go on.
    pub fn newest(&self) -> u32 {
        self.newest
    }
}
