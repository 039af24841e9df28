//! Which layers of its tracks a peer gets: its line divided over them, and joins without a keyframe.
//!
//! Owns: the allocator with what it needs of sound. Promises: the lowest layer of what is looked at is never withheld for
//! want of bandwidth; a new target is reached by what is kept of a stream, and only else by asking its publisher.
//! Forbids: packets on their way; who publishes.

use std::time::{Duration, Instant};

use super::egress::{Egress, Outlet, admitted};
use super::replay::{JOIN_TIME_MAX, Length};
use super::slot::Slot;
use super::track::{HEADERS_BYTES, Tracks};
use crate::base::format::MediaKind;
use crate::base::ids::TrackKey;
use crate::forward::allocate::{Allocator, MARGIN_BEST_PERCENT, Want};
use crate::forward::rewrite::Numbers;

/// The line is divided anew no more often.
const INTERVAL_MIN: Duration = Duration::from_millis(90);
/// Of a line that nobody measures, and whose peer will never tell.
const UNKNOWN_BPS: u64 = 1_000_000_000;
/// A peer that agreed to tell and has not after so long never will.
const FEEDBACK_WITHIN: Duration = Duration::from_secs(3);
/// Of what a line loses by itself so much at most is kept for what is sent again: beyond repair is beyond repair.
const RESERVE_MAX: f32 = 0.2;
/// Sound is measured over so long.
const AUDIO_WINDOW: Duration = Duration::from_secs(1);
/// Who came no longer ago is still being found out about.
const YOUNG: Duration = Duration::from_millis(1500);
/// And for so long its way up goes by what is kept, though that shows a moment of the past: many come at once.
const SETTLING: Duration = Duration::from_secs(5);

/// Packets of a run at most: a megabyte of them, as much as is kept of a stream.
const RUN_PACKETS: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Layers {
    allocator: Allocator,
    divided_at: Option<Instant>,
    began_at: Instant,
    /// Octets of sound sent when this was looked at last.
    audio: (Instant, u64),
    audio_bps: u64,
}

/// Memory for the packets of a run, before they are queued: encoding, number there, numbers on the way out. One for all
/// sessions of a worker.
#[derive(Debug, Default)]
pub struct RunPackets(Vec<(u8, u64, Numbers)>);

impl Layers {
    fn new(now: Instant) -> Self {
        Self { allocator: Allocator::default(), divided_at: None, began_at: now, audio: (now, 0), audio_bps: 0 }
    }

    /// Pictures can be left out of something that is sent, or nothing was chosen yet.
    fn can_shed(&self) -> bool {
        let allocations = self.allocator.allocations();
        allocations.is_empty() || allocations.iter().any(|it| it.target.is_some_and(|target| target.temporal > 0))
    }

    /// The peer has just come.
    fn is_young(&self, now: Instant) -> bool {
        now < self.began_at + YOUNG
    }

    /// A slot that waits for a keyframe is to be served from what is kept only where that shows nothing of the past.
    fn goes_on(&self, now: Instant, slot: &Slot) -> bool {
        let is_rising = slot.can_wait() && now < self.began_at + SETTLING;
        slot.layer().is_some() && !slot.is_pressed() && !is_rising && !self.is_young(now)
    }

    /// Bits per second of sound, with its headers.
    fn audio_bps(&mut self, now: Instant, slots: &[Option<Slot>]) -> u64 {
        let (at, before) = self.audio;
        let elapsed = now.saturating_duration_since(at);
        if elapsed >= AUDIO_WINDOW {
            let sound = slots.iter().flatten().filter(|slot| slot.kind == MediaKind::Audio);
            let octets: u64 = sound.map(|slot| slot.stats.octets() + HEADERS_BYTES * slot.stats.packets()).sum();
            self.audio_bps = (octets.saturating_sub(before) * 8 * 1000) / (elapsed.as_millis() as u64).max(1);
            self.audio = (now, octets);
        }
        self.audio_bps
    }
}

impl Egress {
    /// Divides the line anew, unless that was done just now.
    pub fn divide(&mut self, now: Instant, tracks: &Tracks) {
        let is_video = |slot: &&Slot| slot.kind == MediaKind::Video && slot.track.is_some();
        if !self.slots.iter().flatten().any(|slot| is_video(&slot)) {
            // Nothing is wanted any more, so there is nothing to find out about the line.
            if let (Some(_), Some(downlink)) = (self.layers.take(), &mut self.downlink) {
                downlink.set_wanted(now, 0, 0);
            }
            return;
        }
        let layers = self.layers.get_or_insert_with(|| Box::new(Layers::new(now)));
        if layers.divided_at.is_some_and(|at| now < at + INTERVAL_MIN) {
            return;
        }
        layers.divided_at = Some(now);
        let audio_bps = layers.audio_bps(now, &self.slots);
        let is_mute = now >= layers.began_at + FEEDBACK_WITHIN;
        let known = self.downlink.as_ref().filter(|downlink| downlink.is_measured() || !is_mute);
        // Until a queue on the line has emptied, pictures are left out; where none can be, lower layers are chosen.
        let line_bps = known.map_or(UNKNOWN_BPS, |downlink| match layers.can_shed() {
            true => downlink.estimator.estimate_bps(),
            false => downlink.estimator.budget_bps(),
        });
        let line_bps = line_bps.min(self.bps_max);
        let loss = known.map_or(0.0, |downlink| downlink.estimator.state().inherent_loss.clamp(0.0, RESERVE_MAX));
        let for_media_bps = (line_bps as f64 * f64::from(1.0 - loss)) as u64;
        let budget_bps = for_media_bps.saturating_sub(audio_bps);
        layers.allocator.begin();
        for (mline, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot.as_ref().filter(is_video) else { continue };
            let Some(track) = slot.track.and_then(|track| tracks.track(track)) else { continue };
            let offers = track.encodings().flat_map(|(index, encoding)| encoding.rates.offers(now, index));
            layers.allocator.add(&want(mline as u16, slot), offers);
        }
        layers.allocator.allocate(now, budget_bps);
        let sent_bps = layers.allocator.allocated_bps() + audio_bps;
        let sheds = known.is_some_and(|downlink| downlink.estimator.budget_bps() < sent_bps);
        for allocation in layers.allocator.allocations() {
            let Some(slot) = self.slots.get_mut(usize::from(allocation.id)).and_then(Option::as_mut) else { continue };
            slot.obey(*allocation, sheds);
        }
        // As much as makes the allocator give the best, and lets who has just come get there by what is kept.
        let best_bps = layers.allocator.wanted_bps() * (100 + MARGIN_BEST_PERCENT) / 100 + audio_bps;
        let runs = self.slots.iter().flatten().filter(|slot| layers.is_young(now) && slot.can_wait());
        let runs = runs.filter_map(|slot| slot.best_run_bytes(now, tracks.track(slot.track?)?));
        let run_bps = runs.max().map_or(0, |bytes| bytes as u64 * 8 * 1000 / JOIN_TIME_MAX.as_millis() as u64);
        let wanted_bps = ((best_bps.max(run_bps) as f64 / f64::from(1.0 - loss)) as u64).min(self.bps_max);
        if let Some(downlink) = &mut self.downlink {
            downlink.set_wanted(now, sent_bps, wanted_bps);
        }
    }

    /// Serves those who wait for a keyframe from what is kept since the last one.
    pub fn replay(&mut self, now: Instant, tracks: &Tracks, outlet: &Outlet<'_>, run: &mut RunPackets) {
        let (Some(downlink), Some(layers)) = (&mut self.downlink, &self.layers) else { return };
        let line_bps = downlink.estimator.budget_bps();
        let (join, switch) = (Length::join(line_bps), Length::switch(line_bps));
        for (mline, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot.as_mut().filter(|slot| slot.wants_keyframe().is_some()) else { continue };
            let Some(track) = slot.track.and_then(|track| tracks.track(track)) else { continue };
            let RunPackets(run) = &mut *run;
            run.clear();
            run.reserve(RUN_PACKETS);
            let length = if layers.goes_on(now, slot) { switch } else { join };
            slot.take_run(now, track, length, |meta, numbers| run.push((meta.encoding, meta.seq, numbers)));
            for (encoding, seq, numbers) in run.drain(..) {
                let Some(packet) = track.packet(encoding, seq) else { continue };
                let Some(payload) = slot.payload_for(packet.meta.format) else { continue };
                if let Ok((admitted, due)) = admitted(slot, (mline as u16, payload.pt), numbers, &packet, outlet) {
                    // What finds no place is missed like a packet that got lost.
                    downlink.wait(now, admitted, due);
                }
            }
        }
        downlink.handle_estimate(now);
    }

    /// Tracks, and which streams of them, that cannot go where they should without a keyframe.
    ///
    /// Who has just come and sees something is not asked for yet: what its line carries is only being found out, and with
    /// that what is kept may do.
    pub fn awaiting_keyframe(&self, now: Instant) -> impl Iterator<Item = (TrackKey, u8)> {
        let is_young = self.layers.as_ref().is_some_and(|layers| layers.is_young(now));
        let is_due = move |slot: &&Slot| !(is_young && slot.can_wait());
        self.slots.iter().flatten().filter(is_due).filter_map(|slot| Some((slot.track?, slot.wants_keyframe()?)))
    }

    /// Whether anybody cannot go where it should.
    pub fn is_awaiting(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.track.is_some() && slot.wants_keyframe().is_some())
    }
}

/// What the peer asked for on an m-line.
fn want(mline: u16, slot: &Slot) -> Want {
    let demand = &slot.demand;
    Want {
        max_pixels: demand.pixels_max(),
        limit_pixels: demand.pixels_limit(),
        forced: demand.layer,
        max_fps: demand.fps.map(|fps| fps.min(u16::from(u8::MAX)) as u8),
        max_temporal: demand.temporal_max,
        is_visible: !demand.is_hidden(),
        ..Want::best(mline)
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
