//! What a worker does with fresh packets: subscribers here, other workers, and the keyframes they wait for.
//!
//! Promises: subscriber-major order; one copy per other worker; the table is loaded once per turn.

use std::time::Instant;

use super::core::WorkerCore;
use super::lane::LaneItem;
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::format::MediaKind;
use crate::base::ids::TrackKey;
use crate::forward::table::Subscriber;
use crate::proto::history::Packet;
use crate::session::discard::Discard;

/// Items taken from the lanes in one turn; the rest waits, so that a busy neighbour cannot starve our own sockets.
const LANE_ITEMS_MAX: usize = 512;

impl WorkerCore {
    /// Forwards what this turn brought, subscriber by subscriber. `false`: the batch is full, send it and call again.
    pub fn forward(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        if self.work.is_empty() && !self.dirty.is_empty() {
            self.plan_work();
        }
        while let Some(&(subscriber, track)) = self.work.get(self.done.0) {
            if !self.forward_to(now, subscriber, track, tx) {
                return false;
            }
            self.done = (self.done.0 + 1, 0);
        }
        for key in self.dirty.drain(..) {
            if let Some(track) = self.tracks.track_mut(key) {
                track.fresh.clear();
            }
        }
        self.work.clear();
        self.done = (0, 0);
        true
    }

    /// One copy per other worker, and the list of what goes to whom here. The table is loaded once per turn.
    fn plan_work(&mut self) {
        let table = self.table.load();
        for key in &self.dirty {
            let Some(track) = self.tracks.track(*key) else { continue };
            let Some(route) = table.route(*key) else {
                track.fresh.iter().for_each(|_| self.discards.count(Discard::NoSubscriber));
                continue;
            };
            if track.home.is_some() {
                for worker in route.others(self.id) {
                    for packet in track.fresh.iter().filter_map(|seq| track.history.packet(*seq)) {
                        if self.lanes.send_media(worker, *key, track.kind, &packet).is_err() {
                            self.discards.count(Discard::LaneFull);
                        }
                    }
                }
            }
            self.work.extend(route.local(self.id).iter().map(|subscriber| (*subscriber, *key)));
        }
        // Subscriber-major: a subscriber's keys and numbers are touched once per turn.
        self.work.sort_unstable_by_key(|(subscriber, _)| *subscriber);
    }

    fn forward_to(&mut self, now: Instant, subscriber: Subscriber, key: TrackKey, tx: &mut TxBatch) -> bool {
        let Some(track) = self.tracks.track(key) else { return true };
        let Some(session) = self.seats.session_mut(subscriber.session) else {
            self.discards.count(Discard::StaleRoute);
            return true;
        };
        while let Some(seq) = track.fresh.get(self.done.1) {
            if !tx.has_room() {
                return false;
            }
            self.done.1 += 1;
            let result = match track.history.packet(*seq) {
                Some(packet) => session.forward(now, subscriber.mline, (track, &packet), tx),
                None => Err(Discard::TooOld),
            };
            match result {
                Ok(()) => self.packets_forwarded += 1,
                Err(discard) => self.discards.count(discard),
            }
        }
        true
    }

    /// What other workers sent.
    pub fn handle_lanes(&mut self, now: Instant, tx: &mut TxBatch) {
        for _ in 0..LANE_ITEMS_MAX {
            let Some(item) = self.lanes.poll() else { break };
            match item {
                LaneItem::Media { track, kind, meta, ext_len, payload_len, bytes } => {
                    let (exts, rest) = bytes.split_at(usize::from(ext_len));
                    let packet = Packet { meta, exts, payload: &rest[..usize::from(payload_len)] };
                    self.handle_lane_media(track, kind, packet);
                }
                LaneItem::Datagram { path, len, mut bytes } => {
                    let bytes = &mut bytes[..usize::from(len)];
                    self.handle_datagram(now, RxDatagram { path, bytes }, tx);
                }
                LaneItem::KeyframeWanted { track } => self.want_keyframe(track),
                LaneItem::Clock { track, clock } => {
                    if let Some(track) = self.tracks.track_mut(track) {
                        track.clock = Some(clock);
                    }
                }
            }
        }
        self.flush_keyframes(now, tx);
    }

    fn handle_lane_media(&mut self, key: TrackKey, kind: MediaKind, packet: Packet<'_>) {
        // A packet of a track that ended meanwhile must not bring it back.
        if self.table.load().route(key).is_none() {
            self.discards.count(Discard::StaleRoute);
            return;
        }
        let track = self.tracks.ensure(key, kind);
        if track.fresh.is_empty() {
            self.dirty.push(key);
        }
        if !track.insert(packet) {
            self.discards.count(Discard::TooOld);
        }
    }

    pub(super) fn want_keyframe(&mut self, key: TrackKey) {
        let is_routed = self.table.load().route(key).is_some();
        if !is_routed {
            return;
        }
        self.tracks.ensure(key, MediaKind::Video).keyframe.want();
        if !self.keyframes.contains(&key) {
            self.keyframes.push(key);
        }
    }

    /// Sends the keyframe requests that are due: to the publisher, or to the worker where it lives.
    pub(super) fn flush_keyframes(&mut self, now: Instant, tx: &mut TxBatch) {
        let mut keyframes = std::mem::take(&mut self.keyframes);
        keyframes.retain(|key| {
            let Some(track) = self.tracks.track_mut(*key) else { return false };
            if !track.keyframe.poll(now) {
                return track.keyframe.next_timeout(now).is_some();
            }
            match track.home {
                Some((session, mline)) => {
                    if let Some(session) = self.seats.session_mut(session) {
                        session.ask_keyframe(mline, tx);
                    }
                }
                None => {
                    let home = self.table.load().route(*key).map(|route| route.home);
                    if home.is_some_and(|home| self.lanes.send_keyframe_wanted(home, *key).is_err()) {
                        self.discards.count(Discard::LaneFull);
                    }
                }
            }
            false
        });
        self.keyframes = keyframes;
    }
}
