//! How one m-line goes on with what is kept of a stream since its last keyframe, so that nobody has to be asked for another.
//!
//! Owns: how much of the past is worth it. Who sees nothing yet takes what its line carries in half a second. Who sees
//! something goes on seeing that: a decoder shows each picture of a run for as long as the next one takes it, so a long run
//! is a flash of the past, and a keyframe that is asked for is better. Promises: after a run the next picture that comes
//! can be decoded. Forbids: asking for keyframes; when something may leave.

use std::time::{Duration, Instant};

use super::slot::{Slot, head};
use super::track::Track;
use crate::base::packet::PacketMeta;
use crate::forward::rewrite::Numbers;
use crate::forward::select::{Cut, Selector, Verdict};
use crate::proto::run::{Bounds, Replay, Replayed, Squeeze};
use crate::wire::payload;

/// What is replayed to who joins lasts so long on its line at most.
pub(super) const JOIN_TIME_MAX: Duration = Duration::from_millis(500);
/// Pictures of a run that is sent to who joins: each takes a stretch of numbers of its own, and all must be found again
/// when one is missed.
const JOIN_PICTURES_MAX: u32 = 100;
/// The same where something is shown already. Through the pacer, at 2.5 times the estimate, that is a picture or two late,
/// and no more than the keyframe alone would be.
const SWITCH_TIME_MAX: Duration = Duration::from_millis(200);
/// Small pictures take a decoder a millisecond or two: all of them are decoded before a screen shows the first.
const SWITCH_PICTURES_MAX: u32 = 8;

/// How much of a run is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    bytes_max: usize,
    pictures_max: u32,
    needs_tail: bool,
}

impl Length {
    /// For who sees nothing yet, or has just come, over a line of that rate.
    pub(super) fn join(line_bps: u64) -> Self {
        Self { bytes_max: bytes(line_bps, JOIN_TIME_MAX), pictures_max: JOIN_PICTURES_MAX, needs_tail: false }
    }

    /// For who sees something.
    pub(super) fn switch(line_bps: u64) -> Self {
        Self { bytes_max: bytes(line_bps, SWITCH_TIME_MAX), pictures_max: SWITCH_PICTURES_MAX, needs_tail: true }
    }
}

fn bytes(bps: u64, time: Duration) -> usize {
    (bps / 8 * time.as_millis() as u64 / 1000).try_into().unwrap_or(usize::MAX)
}

impl Slot {
    /// It goes on with something that will do until it has what it should.
    pub(super) fn can_wait(&self) -> bool {
        self.rises && self.selector.current().is_some()
    }

    /// What goes out is more than the line carries.
    pub(super) fn is_pressed(&self) -> bool {
        !self.rises && self.allocation.is_some_and(|allocation| allocation.target != allocation.wanted)
    }

    /// Takes what is kept of a stream from its last keyframe on: packets with their numbers, to be sent in this order. Who
    /// sees nothing yet takes a cheaper stream where too much is kept of its own. `false` where nothing is kept, or too
    /// much of all.
    pub(super) fn take_run(
        &mut self,
        now: Instant,
        track: &Track,
        length: Length,
        mut take: impl FnMut(&PacketMeta, Numbers),
    ) -> bool {
        let Some((encoding, replay)) = self.find_run(now, track, length) else { return false };
        let Some(first) = track.packet(encoding, replay.first()) else { return false };
        if self.payload_for(first.meta.format).is_none() {
            return false;
        }
        let mut selector = self.selector.clone();
        selector.begin_run(&head(&first.meta), track.targets(encoding), replay.is_whole());
        let Some((last, newest)) = last_of(selector.clone(), track, encoding, replay.clone()) else { return false };
        let (clock_rate_hz, pictures) = (first.meta.format.clock_rate_hz(), last.picture + 1);
        let timestamp =
            self.timestamp_after(track, &newest).unwrap_or_else(|| self.rewriter.timestamp_now(now, clock_rate_hz));
        let squeeze = Squeeze::new(self.rewriter.last().map(|(_, last)| last), timestamp, pictures, clock_rate_hz);
        let closes_gaps = payload::closes_picture_gaps(first.meta.format);
        self.selector = selector;
        self.source = Some(first.meta.source);
        let live_from = replay.live_from();
        let mut picture = None;
        for replayed in replay.take_while(|replayed| replayed.seq <= last.seq) {
            let Some(packet) = track.packet(encoding, replayed.seq) else { break };
            let Some(cut) = follow(&mut self.selector, track, &packet.meta, replayed.is_tail) else { continue };
            let timestamp = squeeze.timestamp(replayed.picture);
            match picture.replace(replayed.picture) {
                None => self.rewriter.bind(now, &packet.meta, Some(timestamp)),
                Some(picture) if picture == replayed.picture => {}
                Some(_) => self.rewriter.skip_to(&packet.meta, timestamp, closes_gaps),
            }
            if let Some(numbers) = self.rewriter.number(now, &packet.meta, cut) {
                take(&packet.meta, numbers);
            }
        }
        self.skip_to_live(track, (encoding, newest.timestamp), last.seq + 1..live_from);
        self.awaits_since = None;
        true
    }

    /// Bytes of the run of the best stream it might get, where there is one that is not sent already.
    pub(super) fn best_run_bytes(&self, now: Instant, track: &Track) -> Option<usize> {
        let best = self.allocation?.wanted?;
        let is_sent = self.selector.current().is_some_and(|layer| layer.encoding == best.encoding);
        let bounds =
            Bounds { spatial_max: best.spatial, pictures_max: JOIN_PICTURES_MAX, temporal_max: 0, ..Bounds::MOST };
        Some(track.encoding(best.encoding).filter(|_| !is_sent)?.replay(now, &bounds)?.bytes())
    }

    /// The run to take: of the stream that is waited for, or of the dearest one below that is small enough.
    fn find_run<'a>(&self, now: Instant, track: &'a Track, length: Length) -> Option<(u8, Replay<'a>)> {
        let present = self.selector.current().map(|layer| layer.encoding);
        let wanted = self.wants_keyframe().filter(|wanted| present != Some(*wanted))?;
        let Length { bytes_max, pictures_max, needs_tail } = length;
        let all = Bounds { bytes_max, pictures_max, needs_tail, ..Bounds::MOST };
        let target = self.allocation.and_then(|allocation| allocation.target);
        let bounds = target.filter(|target| target.encoding == wanted).map_or(all, |target| Bounds {
            spatial_max: target.spatial,
            temporal_max: target.temporal,
            ..all
        });
        let best = track.encoding(wanted)?;
        let replay = best.replay(now, &bounds).map(|replay| (wanted, replay));
        if replay.is_some() || present.is_some() {
            return replay;
        }
        let cheaper = track.encodings().filter(|(_, encoding)| encoding.rates.bps(now) < best.rates.bps(now));
        let runs = cheaper.filter_map(|(index, encoding)| {
            let replay = encoding.replay(now, &all)?;
            Some((encoding.rates.bps(now), index, replay))
        });
        runs.max_by_key(|(bps, ..)| *bps).map(|(_, index, replay)| (index, replay))
    }

    /// What follows the last picture of a run is over before anybody could use it.
    fn skip_to_live(&mut self, track: &Track, (encoding, timestamp): (u8, u32), seqs: std::ops::Range<u64>) {
        let mut picture = timestamp;
        for packet in seqs.filter_map(|seq| track.packet(encoding, seq)) {
            let is_new = std::mem::replace(&mut picture, packet.meta.timestamp) != packet.meta.timestamp;
            self.selector.pass_over(&head(&packet.meta));
            self.rewriter.withhold(&packet.meta, is_new && payload::closes_picture_gaps(packet.meta.format));
        }
    }
}

/// The last packet of a run that a selector passes.
fn last_of(mut selector: Selector, track: &Track, encoding: u8, replay: Replay<'_>) -> Option<(Replayed, PacketMeta)> {
    let passing = replay.filter_map(|replayed| {
        let meta = track.packet(encoding, replayed.seq)?.meta;
        follow(&mut selector, track, &meta, replayed.is_tail).map(|_| (replayed, meta))
    });
    passing.last()
}

/// Shows a packet of a run to a selector, whose choice it is in the tail only. `None`: it is withheld.
fn follow(selector: &mut Selector, track: &Track, meta: &PacketMeta, is_tail: bool) -> Option<Cut> {
    let head = head(meta);
    if !is_tail {
        selector.pass_over(&head);
        return Some(selector.cut(&head));
    }
    match selector.handle_packet(&head, track.targets(meta.encoding)) {
        Verdict::Pass(cut) => Some(cut),
        Verdict::Withhold { .. } => None,
    }
}
