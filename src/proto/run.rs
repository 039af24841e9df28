//! The keyframe run of one encoding: what a new subscriber is served from the history, so that its join needs no new
//! keyframe; and the timestamps under which it plays no past.
//!
//! Owns: three numbers; packets are the history's. Promises: a [`Replay`] begins with a keyframe and lacks nothing of
//! temporal layer 0 up to the newest packet, and is small enough for the subscriber's link and decoder; else there is none.
//! Where there is room it has a *tail*: of the latest pictures the higher temporal layers, too, so that who follows the
//! stream's ways up in them goes on with the very next picture that comes. Forbids: anything of a subscriber.

use std::time::{Duration, Instant};

use super::history::{History, PacketMeta, VIDEO_BYTES, VIDEO_PACKETS};

/// Packets from the keyframe on, with those of higher temporal layers: three quarters of the history, so that nothing
/// goes while a replay is paced out.
pub const PACKETS_MAX: u64 = VIDEO_PACKETS as u64 * 3 / 4;
/// Bytes of one replay: half of the history, for the same reason. Usually the link allows less.
pub const BYTES_MAX: usize = VIDEO_BYTES / 2;
/// Pictures of one replay: a decoder takes some 3 ms for each, and shows nothing meanwhile.
pub const PICTURES_MAX: u32 = 120;
/// Pictures of the tail. Encoders that begin higher temporal layers anew do so every eight pictures (libvpx's L1T3: a way
/// up to layer 1 in the first half, to layer 2 in the next).
pub const TAIL_PICTURES: u32 = 16;
/// A run older than this is stale: errors that a decoder hides add up, and a fresh keyframe heals them.
pub const AGE_MAX: Duration = Duration::from_secs(30);

/// What a subscriber can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Spatial layers up to this one.
    pub spatial_max: u8,
    /// Of the tail, temporal layers up to this one.
    pub temporal_max: u8,
    /// Bytes of payload.
    pub bytes_max: usize,
    /// Pictures.
    pub pictures_max: u32,
    /// Only with its tail.
    pub needs_tail: bool,
}

impl Bounds {
    /// As much as anybody is served.
    pub const MOST: Self = Self {
        spatial_max: u8::MAX,
        temporal_max: u8::MAX,
        bytes_max: BYTES_MAX,
        pictures_max: PICTURES_MAX,
        needs_tail: false,
    };
}

/// See the module.
#[derive(Debug, Default)]
pub struct KeyframeRun {
    /// The highest number of all.
    highest: u64,
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// The keyframe's first packet.
    first: u64,
    /// Packets that came from there on.
    present: u64,
    began_at: Instant,
}

impl KeyframeRun {
    /// A packet that the history has just taken in.
    pub fn handle_packet(&mut self, now: Instant, history: &History, meta: &PacketMeta) {
        self.highest = self.highest.max(meta.seq);
        let is_newer = self.run.is_none_or(|run| meta.seq > run.first);
        if meta.marks.begins() && is_newer {
            let early = (meta.seq + 1..=self.highest).take(VIDEO_PACKETS).filter(|seq| history.packet(*seq).is_some());
            self.run = Some(Run { first: meta.seq, present: 1 + early.count() as u64, began_at: now });
        } else if let Some(run) = self.run.as_mut().filter(|_| is_newer) {
            run.present += 1;
        }
    }

    /// What comes next may not follow what came: a new run begins with the next keyframe.
    pub fn forget(&mut self) {
        self.run = None;
    }

    /// What somebody can be served now: with a tail if that is within bounds, else without. `None`: there is no keyframe,
    /// something is missing yet, or it has become too much; ask the publisher.
    pub fn fits<'a>(&self, now: Instant, history: &'a History, bounds: &Bounds) -> Option<Replay<'a>> {
        let run = self.run?;
        let packets = self.highest - run.first + 1;
        let is_stale = packets > PACKETS_MAX || now.saturating_duration_since(run.began_at) > AGE_MAX;
        if is_stale || run.present != packets {
            return None;
        }
        let with_tail = self.measured(history, bounds, (run.first, self.tail_from(history, run.first)));
        let without = || self.measured(history, bounds, (run.first, self.highest + 1)).filter(|_| !bounds.needs_tail);
        with_tail.or_else(without)
    }

    /// Where the tail begins: at a picture's first packet.
    fn tail_from(&self, history: &History, first: u64) -> u64 {
        let (mut from, mut pictures, mut last) = (self.highest + 1, 0, None);
        for seq in (first..=self.highest).rev() {
            let timestamp = history.packet(seq).map(|packet| packet.meta.timestamp);
            pictures += u32::from(last.replace(timestamp) != Some(timestamp));
            if pictures > TAIL_PICTURES {
                return from;
            }
            from = seq;
        }
        from
    }

    fn measured<'a>(
        &self,
        history: &'a History,
        bounds: &Bounds,
        (first, tail_from): (u64, u64),
    ) -> Option<Replay<'a>> {
        let Bounds { spatial_max, temporal_max, .. } = *bounds;
        let (next, last) = (first, self.highest);
        let (picture, packets, bytes, pictures) = (None, 0, 0, 0);
        let mut replay =
            Replay { history, spatial_max, temporal_max, tail_from, next, last, picture, packets, bytes, pictures };
        for seq in first..=self.highest {
            let packet = history.packet(seq)?;
            if let Some(replayed) = replay.serve(&packet.meta) {
                replay.packets += 1;
                replay.bytes += packet.payload.len();
                replay.pictures = replayed.picture + 1;
            }
        }
        replay.picture = None;
        let is_small =
            replay.bytes <= bounds.bytes_max.min(BYTES_MAX) && replay.pictures <= bounds.pictures_max.min(PICTURES_MAX);
        is_small.then_some(replay)
    }
}

/// Packets to serve, in order, with the picture each belongs to.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    history: &'a History,
    spatial_max: u8,
    temporal_max: u8,
    tail_from: u64,
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
    /// It is of the tail, where not all is for everybody.
    pub is_tail: bool,
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

    /// The keyframe's first packet.
    pub fn first(&self) -> u64 {
        self.next
    }

    /// The tail is all of it.
    pub fn is_whole(&self) -> bool {
        self.tail_from <= self.next
    }

    /// Live packets follow from this number on.
    pub fn live_from(&self) -> u64 {
        self.last + 1
    }

    /// The packet with the picture it is of, when it is served.
    fn serve(&mut self, meta: &PacketMeta) -> Option<Replayed> {
        let is_tail = meta.seq >= self.tail_from;
        let temporal_max = if is_tail { self.temporal_max } else { 0 };
        if meta.marks.temporal > temporal_max || meta.marks.spatial > self.spatial_max {
            return None;
        }
        let picture = match self.picture {
            None => 0,
            Some((timestamp, index)) => index + u32::from(timestamp != meta.timestamp),
        };
        self.picture = Some((meta.timestamp, picture));
        Some(Replayed { seq: meta.seq, picture, is_tail })
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

#[cfg(test)]
mod tests {
    use super::super::history::Packet;
    use super::*;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::base::ids::Ssrc;
    use crate::runtime::clock;
    use proptest::prelude::*;

    const LARGE: usize = usize::MAX;
    /// Of temporal layer 0 as much as there is.
    const BASE: Bounds = Bounds { temporal_max: 0, bytes_max: LARGE, pictures_max: u32::MAX, ..Bounds::MOST };

    struct Encoding {
        history: History,
        run: KeyframeRun,
        now: Instant,
    }

    impl Encoding {
        fn new() -> Self {
            Self { history: History::new(VIDEO_BYTES, VIDEO_PACKETS), run: KeyframeRun::default(), now: clock::now() }
        }

        fn insert(&mut self, meta: PacketMeta, bytes: usize) {
            let payload = vec![0; bytes];
            if self.history.insert(Packet { meta, exts: &[], payload: &payload }) {
                self.run.handle_packet(self.now, &self.history, &meta);
            }
        }

        fn seqs(&self) -> Option<Vec<u64>> {
            Some(self.run.fits(self.now, &self.history, &BASE)?.map(|replayed| replayed.seq).collect())
        }
    }

    /// A packet of the picture `picture`.
    fn meta(seq: u64, picture: u32, temporal: u8, is_key: bool) -> PacketMeta {
        PacketMeta {
            seq,
            source: Ssrc(1),
            timestamp: picture * 3000,
            marker: false,
            format: Format::Vp8,
            encoding: 0,
            marks: FrameMarks { temporal, is_key, is_start: is_key, ..FrameMarks::default() },
        }
    }

    #[test]
    fn what_follows_the_last_keyframe_is_served() {
        let mut encoding = Encoding::new();
        assert_eq!(encoding.seqs(), None);
        encoding.insert(meta(9, 0, 0, false), 10);
        assert_eq!(encoding.seqs(), None, "no keyframe");
        for (seq, picture, temporal) in [(10, 1, 0), (11, 1, 0), (12, 2, 2), (13, 3, 1), (14, 5, 0), (15, 5, 0)] {
            encoding.insert(meta(seq, picture, temporal, seq == 10), 100);
        }
        let replay = encoding.run.fits(encoding.now, &encoding.history, &BASE).expect("all is there");
        assert_eq!((replay.packets(), replay.bytes(), replay.pictures(), replay.live_from()), (4, 400, 2, 16));
        let served: Vec<_> = replay.map(|replayed| (replayed.seq, replayed.picture)).collect();
        assert_eq!(served, [(10, 0), (11, 0), (14, 1), (15, 1)]);
        encoding.insert(meta(16, 6, 0, true), 100);
        assert_eq!(encoding.seqs(), Some(vec![16]), "a keyframe begins anew, though it has only begun");
    }

    #[test]
    fn a_gap_is_waited_for() {
        let mut encoding = Encoding::new();
        for seq in [20, 21, 23] {
            encoding.insert(meta(seq, seq as u32, 0, seq == 20), 100);
        }
        assert_eq!(encoding.seqs(), None);
        encoding.insert(meta(22, 22, 0, false), 100);
        assert_eq!(encoding.seqs(), Some(vec![20, 21, 22, 23]));
        encoding.insert(meta(22, 22, 0, false), 100);
        assert_eq!(encoding.seqs(), Some(vec![20, 21, 22, 23]), "twice is once");
    }

    #[test]
    fn what_came_before_the_keyframes_first_packet_counts() {
        let mut encoding = Encoding::new();
        encoding.insert(meta(5, 0, 0, true), 1);
        for (seq, is_key) in [(12, false), (11, false), (10, true)] {
            encoding.insert(meta(seq, 1, 0, is_key), 100);
        }
        assert_eq!(encoding.seqs(), Some(vec![10, 11, 12]));
        encoding.insert(meta(8, 0, 0, true), 100);
        assert_eq!(encoding.seqs(), Some(vec![10, 11, 12]), "an old one is none");
    }

    #[test]
    fn spatial_layers_are_served_up_to_what_is_asked() {
        let mut encoding = Encoding::new();
        for seq in 0..9 {
            let mut meta = meta(seq, seq as u32 / 3, 0, seq < 3);
            meta.marks.spatial = (seq % 3) as u8;
            encoding.insert(meta, 100);
        }
        let replay = encoding
            .run
            .fits(encoding.now, &encoding.history, &Bounds { spatial_max: 1, ..BASE })
            .expect("all is there");
        assert_eq!((replay.packets(), replay.bytes(), replay.pictures()), (6, 600, 3));
        assert_eq!(replay.map(|replayed| replayed.seq).collect::<Vec<_>>(), [0, 1, 3, 4, 6, 7]);
    }

    #[test]
    fn a_replay_has_its_limits() {
        let fits = |packets: u64, per_picture: u64, bytes: usize, age, bytes_max| {
            let mut encoding = Encoding::new();
            for seq in 0..packets {
                encoding.insert(meta(seq, (seq / per_picture) as u32, 0, seq == 0), bytes);
            }
            encoding.run.fits(encoding.now + age, &encoding.history, &Bounds { bytes_max, ..BASE }).is_some()
        };
        let tick = Duration::from_millis(1);
        assert!(fits(PACKETS_MAX, 10, 10, Duration::ZERO, LARGE));
        assert!(!fits(PACKETS_MAX + 1, 10, 10, Duration::ZERO, LARGE), "packets");
        assert!(fits(u64::from(PICTURES_MAX), 1, 10, Duration::ZERO, LARGE));
        assert!(!fits(u64::from(PICTURES_MAX) + 1, 1, 10, Duration::ZERO, LARGE), "pictures");
        assert!(fits(512, 16, BYTES_MAX / 512, Duration::ZERO, LARGE));
        assert!(!fits(513, 16, BYTES_MAX / 512, Duration::ZERO, LARGE), "bytes of ours");
        assert!(fits(10, 1, 10, Duration::ZERO, 100));
        assert!(!fits(10, 1, 10, Duration::ZERO, 99), "bytes of the subscriber");
        assert!(fits(10, 1, 10, AGE_MAX, LARGE));
        assert!(!fits(10, 1, 10, AGE_MAX + tick, LARGE), "age");
    }

    #[test]
    fn the_latest_pictures_are_served_whole_where_there_is_room() {
        let mut encoding = Encoding::new();
        // A picture of two packets, 40 times; T0, T2, T1, T2.
        for seq in 0..80 {
            let picture = seq as u32 / 2;
            encoding.insert(meta(seq, picture, [0, 2, 1, 2][picture as usize % 4], seq == 0), 100);
        }
        let all = Bounds { temporal_max: 2, ..BASE };
        let fits = |bounds: Bounds| encoding.run.fits(encoding.now, &encoding.history, &bounds);
        let pictures = |replay: Replay<'_>| {
            let of: Vec<u64> = replay.map(|replayed| replayed.seq / 2).collect();
            assert!(of.chunks(2).all(|both| both[0] == both[1]), "{of:?}");
            of.into_iter().step_by(2).collect::<Vec<_>>()
        };
        let base: Vec<u64> = (0..40).step_by(4).collect();
        let with_tail: Vec<u64> = base[..6].iter().copied().chain(24..40).collect();
        assert_eq!(pictures(fits(all).unwrap()), with_tail);
        let below: Vec<u64> = with_tail.iter().copied().filter(|picture| picture % 2 == 0).collect();
        assert_eq!(pictures(fits(Bounds { temporal_max: 1, ..all }).unwrap()), below);
        for narrow in [Bounds { bytes_max: 4300, ..all }, Bounds { pictures_max: 21, ..all }] {
            assert_eq!(pictures(fits(narrow).unwrap()), base, "{narrow:?}");
            assert!(fits(Bounds { needs_tail: true, ..narrow }).is_none());
        }
        let enough = Bounds { bytes_max: 4400, pictures_max: 22, needs_tail: true, ..all };
        assert_eq!(
            fits(enough).map(|replay| (replay.bytes(), replay.pictures(), replay.is_whole())),
            Some((4400, 22, false))
        );
    }

    #[test]
    fn what_the_history_lost_is_not_promised() {
        let mut encoding = Encoding { history: History::new(1000, 64), ..Encoding::new() };
        for seq in 0..12 {
            encoding.insert(meta(seq, seq as u32, 0, seq == 0), 100);
        }
        assert_eq!(encoding.seqs(), None);
    }

    /// What was inserted, as a plain list: seq to (picture, temporal, is_key).
    fn oracle(came: &std::collections::BTreeMap<u64, (u32, u8, bool)>) -> Option<Vec<(u64, u32)>> {
        let first = *came.iter().rev().find(|(_, (.., is_key))| *is_key)?.0;
        let run: Vec<_> = came.range(first..).collect();
        if *run.last()?.0 - first + 1 != run.len() as u64 {
            return None;
        }
        let mut served: Vec<(u64, u32)> = Vec::new();
        let (mut picture, mut last) = (0, None);
        for (seq, (timestamp, temporal, _)) in run {
            if *temporal == 0 {
                picture += u32::from(last.replace(*timestamp).is_some_and(|last| last != *timestamp));
                served.push((*seq, picture));
            }
        }
        Some(served)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list(
            pictures in prop::collection::vec((1u64..5, 0u8..3, prop::bool::weighted(0.1)), 1..60),
            // How far each packet is late, in packets; none: lost.
            fates in prop::collection::vec(prop::option::weighted(0.97, 0u64..3), 300),
        ) {
            let mut sent = Vec::new();
            for (picture, (packets, temporal, is_key)) in pictures.into_iter().enumerate() {
                for packet in 0..packets {
                    let seq = 1000 + sent.len() as u64;
                    let temporal = if is_key { 0 } else { temporal };
                    sent.push((seq, picture as u32, temporal, is_key && packet == 0));
                }
            }
            let mut arrivals: Vec<_> =
                sent.iter().zip(&fates).filter_map(|(packet, fate)| Some((packet.0 + (*fate)?, *packet))).collect();
            arrivals.sort();
            let mut encoding = Encoding::new();
            let mut came = std::collections::BTreeMap::new();
            // The second pass is retransmission of all that was lost.
            for (seq, picture, temporal, is_key) in arrivals.into_iter().map(|(_, packet)| packet).chain(sent.clone()) {
                encoding.insert(meta(seq, picture, temporal, is_key), 10);
                came.entry(seq).or_insert((picture, temporal, is_key));
                let replay = encoding.run.fits(encoding.now, &encoding.history, &BASE);
                let served = replay.clone().map(|replay| replay.map(|at| (at.seq, at.picture)).collect::<Vec<_>>());
                prop_assert_eq!(&served, &oracle(&came));
                if let (Some(replay), Some(served)) = (replay, served) {
                    prop_assert_eq!(replay.packets() as usize, served.len());
                    prop_assert_eq!(replay.bytes(), served.len() * 10);
                    prop_assert_eq!(replay.pictures(), served.last().unwrap().1 + 1);
                }
            }
        }

        #[test]
        fn a_squeeze_rises_and_is_short(
            last in prop::option::of(any::<u32>()), ahead in 1u32..400_000, pictures in 1..=PICTURES_MAX, is_behind: bool
        ) {
            let newest = match last {
                Some(last) if is_behind => last.wrapping_sub(ahead),
                last => last.unwrap_or(77).wrapping_add(ahead),
            };
            let squeeze = Squeeze::new(last, newest, pictures, 90_000);
            let stamps: Vec<u32> = (0..pictures).map(|picture| squeeze.timestamp(picture)).collect();
            prop_assert_eq!(*stamps.last().unwrap(), squeeze.newest());
            for pair in stamps.windows(2) {
                prop_assert!((pair[1].wrapping_sub(pair[0]).cast_signed()) >= 1);
            }
            prop_assert!(squeeze.newest().wrapping_sub(stamps[0]) <= 450);
            if let Some(last) = last {
                prop_assert!(stamps[0].wrapping_sub(last).cast_signed() >= 1);
                let is_moved = squeeze.newest() != newest;
                prop_assert_eq!(is_moved, is_behind || ahead < pictures, "only where it must");
            } else {
                prop_assert_eq!(squeeze.newest(), newest);
            }
        }
    }
}
