//! What people see of rooms: the debug views and the numbers for `/metrics`.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::{MediaState, RoomView};
use super::hub::Hub;
use super::peer::{Peer, Track};
use super::placement::Load;
use crate::base::frame::Layer;
use crate::forward::rates::{SPATIAL_MAX, TEMPORAL_MAX};
use crate::session::stats::{DownlinkReport, EgressReport, IngressReport};
use crate::telemetry::{RoomRow, Snapshot};
use crate::worker::command::{SessionReport, WorkerReport};

impl Hub {
    /// Rooms with peers.
    pub fn rooms(&self) -> Vec<RoomView> {
        self.rooms.iter().map(|(id, room)| self.room_view(id, room)).collect()
    }

    /// `/debug/rooms`.
    pub fn debug_rooms(&self) -> Value {
        let view = |room: RoomView| {
            let by_worker = self.rooms.get(&room.id).map_or(&[][..], |room| &room.by_worker).iter().enumerate();
            let workers = by_worker.filter(|(_, peers)| **peers > 0).map(|(worker, peers)| {
                json!({"worker": worker, "peers": peers, "load": rounded(self.placement.load(worker))})
            });
            json!({
                "workers": workers.collect::<Vec<_>>(),
                "id": room.id,
                "createdAt": rfc3339(room.created_at),
                "peers": room.peers.iter().map(|peer| &peer.user_id).collect::<Vec<_>>(),
                "tracks": room.tracks,
            })
        };
        self.rooms().into_iter().map(view).collect()
    }

    /// What each worker carries, and the share of its capacity that it is (see `placement`).
    pub fn workers(&self) -> Value {
        let view = |(worker, load): (usize, &Load)| {
            json!({
                "worker": worker,
                "load": rounded(load.share()),
                "peers": load.peers,
                "subscriptions": load.subscriptions,
                "packetsPerSecond": load.packets_per_s.round(),
            })
        };
        self.placement.workers.iter().enumerate().map(view).collect()
    }

    /// `/debug/peers`.
    pub fn debug_peers(&self) -> Value {
        self.peers.values().map(|peer| self.peer_view(peer)).collect()
    }

    fn peer_view(&self, peer: &Peer) -> Value {
        let report = self.session_report(peer);
        json!({
            "peerId": peer.info.peer.to_string(),
            "wireId": peer.info.wire_id,
            "userId": peer.info.user_id,
            "displayName": peer.info.display_name,
            "room": peer.room,
            "dialect": peer.dialect.as_str(),
            "worker": peer.owner.map(|owner| owner.0),
            "media": match peer.media {
                None => "connecting",
                Some(MediaState::Connected) => "connected",
                Some(MediaState::Disconnected) => "disconnected",
            },
            "audioMuted": peer.info.audio_muted,
            "videoMuted": peer.info.video_muted,
            "remote": report.and_then(|report| report.remote),
            "srtpSuite": report.and_then(|report| report.suite).map(|suite| suite.name()),
            "lastCheckSecondsAgo": report.map(|report| report.silent.as_secs_f32()),
            "downlink": report.and_then(|report| report.downlink.as_ref()).map(downlink_view),
            "published": peer.tracks.values().map(|track| &track.id).collect::<Vec<_>>(),
            "received": peer.bound.iter().filter_map(|(key, _)| self.track(*key)).map(|(_, track)| &track.id)
                .collect::<Vec<_>>(),
        })
    }

    /// `/debug/tracks`.
    pub fn debug_tracks(&self) -> Value {
        let tracks = self.peers.values().flat_map(|peer| peer.tracks.values().map(move |track| (peer, track)));
        tracks.map(|(peer, track)| self.track_view(peer, track)).collect()
    }

    fn track_view(&self, publisher: &Peer, track: &Track) -> Value {
        let ingress = self.ingress_report(publisher, track);
        let encodings: Vec<_> = self.ingress_reports(publisher, track).collect();
        let sum = |of: fn(&IngressReport) -> i64| encodings.iter().map(|ingress| of(ingress)).sum::<i64>();
        let subscribers = self.room_peers(&publisher.room).flat_map(|peer| {
            let mlines = peer.bound.iter().filter(|(key, _)| *key == track.key);
            mlines.map(move |(_, mline)| self.subscriber_view(peer, *mline))
        });
        json!({
            "id": track.id,
            "room": publisher.room,
            "publisher": publisher.info.user_id,
            "kind": track.kind.as_str(),
            "mid": track.mid,
            "streamId": track.stream_id,
            "live": track.is_live,
            "codec": ingress.and_then(|ingress| ingress.format).map(|format| format.name()),
            "ssrc": ingress.map(|ingress| ingress.ssrc.0),
            "packets": sum(|ingress| ingress.summary.packets as i64),
            "bytes": sum(|ingress| ingress.summary.bytes as i64),
            "lost": sum(|ingress| ingress.summary.lost),
            "jitterMs": ingress.map_or(0.0, |ingress| ingress.summary.jitter_ms),
            "keyframes": sum(|ingress| ingress.keyframes as i64),
            "pixelsWanted": track.pixels_wanted,
            "encodings": encodings.iter().map(|ingress| self.encoding_view(publisher, ingress)).collect::<Vec<_>>(),
            "subscribers": subscribers.collect::<Vec<_>>(),
        })
    }

    fn encoding_view(&self, publisher: &Peer, ingress: &IngressReport) -> Value {
        json!({
            "encoding": ingress.encoding,
            "rid": ingress.rid.map(|rid| rid.as_str().to_owned()),
            "ssrc": ingress.ssrc.0,
            "packets": ingress.summary.packets,
            "bytes": ingress.summary.bytes,
            "bitsPerSecond": self.ingress_bps(publisher, ingress),
            "lost": ingress.summary.lost,
            "jitterMs": ingress.summary.jitter_ms,
            "keyframes": ingress.keyframes,
        })
    }

    fn subscriber_view(&self, peer: &Peer, mline: u16) -> Value {
        let egress = self.egress_report(peer, mline);
        let track = egress.and_then(|egress| egress.track);
        let allocation = egress.and_then(|egress| egress.allocation);
        json!({
            "userId": peer.info.user_id,
            "mline": mline,
            "notAmongLoudest": track.is_some_and(|track| self.is_unheard(peer, track)),
            "ssrc": egress.map(|egress| egress.ssrc.0),
            "packets": egress.map_or(0, |egress| egress.packets),
            "bytes": egress.map_or(0, |egress| egress.bytes),
            "retransmissions": egress.map_or(0, |egress| egress.retransmissions),
            "fractionLost": egress.map_or(0.0, |egress| egress.fraction_lost),
            "roundTripMs": egress.and_then(|egress| egress.round_trip).map(milliseconds),
            "layer": egress.and_then(|egress| egress.layer).map(layer_view),
            "target": allocation.and_then(|allocation| allocation.target).map(layer_view),
            "allocatedBps": allocation.map(|allocation| allocation.bps),
            "wanted": allocation.and_then(|allocation| allocation.wanted).map(layer_view),
            "wantedBps": allocation.map(|allocation| allocation.wanted_bps),
            "waitsForKeyframeMs": egress.and_then(|egress| egress.waits).map(milliseconds),
        })
    }

    /// Every number for `/metrics`.
    pub fn counters(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            rooms: self.rooms.len() as u64,
            peers: self.peers.len() as u64,
            tracks: self.peers.values().map(|peer| peer.tracks.len() as u64).sum(),
            room_rows: self.rooms.keys().map(|room| self.room_row(room)).collect(),
            connections: self.connections(),
            ..Snapshot::default()
        };
        for report in &self.reports {
            snapshot.bytes_transferred += report.io.bytes_received + report.io.bytes_sent;
            snapshot.datagrams_received += report.io.datagrams_received;
            snapshot.datagrams_sent += report.io.datagrams_sent;
            snapshot.trains_sent += report.io.trains_sent;
            snapshot.train_datagrams_sent += report.io.train_datagrams_sent;
            snapshot.trains_received += report.io.trains_received;
            snapshot.train_datagrams_received += report.io.train_datagrams_received;
            snapshot.turns += report.io.turns;
            snapshot.enters += report.io.enters;
            snapshot.pli_requests += report.keyframe_requests;
            snapshot.nack_requests += report.nacks_received;
            snapshot.retransmissions += report.retransmissions;
            snapshot.packets_forwarded += report.packets_forwarded;
            snapshot.trains.add(&report.trains);
            add(&mut snapshot.discards, &report.discards);
            add(&mut snapshot.io_errors, &report.io.errors);
        }
        snapshot
    }

    fn room_row(&self, room: &str) -> RoomRow {
        let tracks = self.room_peers(room).flat_map(|peer| peer.tracks.values().map(move |track| (peer, track)));
        let reports: Vec<_> = tracks.flat_map(|(peer, track)| self.ingress_reports(peer, track)).collect();
        RoomRow {
            id: room.to_owned(),
            subscribers: self.room_peers(room).filter(|peer| !peer.bound.is_empty()).count() as u64,
            rtp_bytes: reports.iter().map(|report| report.summary.bytes).sum(),
            rtp_packets: reports.iter().map(|report| report.summary.packets).sum(),
        }
    }

    pub(super) fn session_report(&self, peer: &Peer) -> Option<&SessionReport> {
        session_in(self.reports.get(usize::from(peer.owner?.0))?, peer)
    }

    /// The one before.
    pub(super) fn earlier_report(&self, peer: &Peer) -> Option<&SessionReport> {
        session_in(&self.earlier.get(usize::from(peer.owner?.0))?.0, peer)
    }

    /// The first stream of a track that lives.
    pub(super) fn ingress_report(&self, publisher: &Peer, track: &Track) -> Option<&IngressReport> {
        self.ingress_reports(publisher, track).next()
    }

    /// All its streams: several where it comes as a simulcast.
    pub(super) fn ingress_reports(&self, publisher: &Peer, track: &Track) -> impl Iterator<Item = &IngressReport> {
        let of_all = self.session_report(publisher).into_iter().flat_map(|report| &report.ingress);
        let key = track.key;
        of_all.filter(move |ingress| ingress.track == key)
    }

    pub(super) fn egress_report(&self, peer: &Peer, mline: u16) -> Option<&EgressReport> {
        self.session_report(peer)?.egress.iter().find(|egress| egress.mline == mline)
    }

    /// What was sent to it on that m-line between the last two reports.
    pub(super) fn egress_bps(&self, peer: &Peer, egress: &EgressReport) -> u64 {
        self.bps(peer, egress.bytes, |session| {
            session.egress.iter().find(|before| before.ssrc == egress.ssrc).map(|before| before.bytes)
        })
    }

    /// What came of a stream between the last two reports.
    pub(super) fn ingress_bps(&self, peer: &Peer, ingress: &IngressReport) -> u64 {
        self.bps(peer, ingress.summary.bytes, |session| {
            session.ingress.iter().find(|before| before.ssrc == ingress.ssrc).map(|before| before.summary.bytes)
        })
    }

    fn bps(&self, peer: &Peer, bytes: u64, before: impl FnOnce(&SessionReport) -> Option<u64>) -> u64 {
        let Some((earlier, elapsed)) = peer.owner.and_then(|owner| self.earlier.get(usize::from(owner.0))) else {
            return 0;
        };
        let before = session_in(earlier, peer).and_then(before).unwrap_or(0);
        let bits = bytes.saturating_sub(before) as f64 * 8.0;
        if elapsed.is_zero() { 0 } else { (bits / elapsed.as_secs_f64()) as u64 }
    }
}

fn session_in<'a>(report: &'a WorkerReport, peer: &Peer) -> Option<&'a SessionReport> {
    // Workers tell of their sessions in the order of their tables.
    let at = report.sessions.binary_search_by_key(&peer.session.index, |session| session.session.index).ok()?;
    report.sessions.get(at).filter(|session| session.session == peer.session)
}

/// A layer for programs. Bounds above what there can be mean all of it.
pub fn layer_view(layer: Layer) -> Value {
    let bound = |bound: u8, max: usize| (usize::from(bound) < max).then_some(bound);
    json!({
        "encoding": layer.encoding,
        "spatial": bound(layer.spatial, SPATIAL_MAX),
        "temporal": bound(layer.temporal, TEMPORAL_MAX),
    })
}

fn downlink_view(DownlinkReport { estimate, waiting }: &DownlinkReport) -> Value {
    json!({
        "estimateBps": estimate.estimate_bps,
        "ackedBps": estimate.acked_bps,
        "delayBasedBps": estimate.delay_based_bps,
        "lossBasedBps": estimate.loss_based_bps,
        "rembBps": estimate.remb_bps,
        "loss": estimate.loss,
        "roundTripMs": estimate.rtt.map(milliseconds),
        "queueMs": estimate.queue_us as f64 / 1e3,
        "isApplicationLimited": estimate.is_app_limited,
        "isOutage": estimate.is_outage,
        "probes": estimate.probes,
        "waitingPackets": waiting.0,
        "waitingMs": milliseconds(waiting.1),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

fn rfc3339(at: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

/// Adds counts name by name; every worker counts the same names in the same order.
fn add(sum: &mut Vec<(&'static str, u64)>, counts: &[(&'static str, u64)]) {
    for (name, count) in counts {
        match sum.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total += count,
            None => sum.push((name, *count)),
        }
    }
}
