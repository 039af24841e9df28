//! How well peers are connected, for the dialect whose clients show it: one number for each.

use super::api::{ConnectionQuality, MediaState};
use super::control::Control;
use super::hub::Hub;
use super::peer::Peer;
use crate::base::ids::PeerId;
use crate::session::stats::IngressReport;
use crate::telemetry::{ConnectionRow, Connections};

/// Peers told of at once: more nobody looks at, and each costs a message.
const SHOWN_MAX: usize = 64;
/// Peers with numbers of their own in the metrics, and tracks that one receives: more are a load for who collects them.
const ROWS_MAX: usize = 256;
const TRACKS_MAX: usize = 32;

impl Hub {
    /// The peer itself, then others of its room whose media flows, who spoke lately first.
    pub fn connection_qualities(&self, id: PeerId) -> Vec<ConnectionQuality> {
        let Some(me) = self.peers.get(&id) else { return Vec::new() };
        let Some(room) = self.rooms.get(&me.room) else { return Vec::new() };
        let quiet = room.peers.iter().filter(|other| !room.speakers.contains(other));
        let others = room.speakers.iter().chain(quiet).filter(|other| **other != id);
        let peers = others.filter_map(|other| self.peers.get(other));
        let known = std::iter::once(me)
            .chain(peers)
            .filter_map(|peer| Some(ConnectionQuality { wire_id: peer.info.wire_id.clone(), loss: self.loss(peer)? }));
        known.take(SHOWN_MAX).collect()
    }

    /// The same for programs, with the rates of tracks.
    pub(super) fn connections(&self) -> Connections {
        let count = |state: Option<MediaState>| self.peers.values().filter(|peer| peer.media == state).count() as u64;
        let shown = self.peers.values().take(ROWS_MAX);
        let mut all = Connections {
            ice_states: [
                ("checking", count(None)),
                ("connected", count(Some(MediaState::Connected))),
                ("disconnected", count(Some(MediaState::Disconnected))),
            ],
            ice_restarts: self.ice_restarts,
            rows: shown.filter_map(|peer| self.connection_row(peer)).collect(),
            ..Connections::default()
        };
        let reports: Vec<_> = self.peers.values().filter_map(|peer| self.session_report(peer)).collect();
        let jitters =
            reports.iter().flat_map(|report| &report.ingress).map(|ingress| f64::from(ingress.summary.jitter_ms));
        let round_trips = reports.iter().flat_map(|report| &report.egress).filter_map(|egress| egress.round_trip);
        all.jitter_ms = mean(jitters);
        all.round_trip_ms = mean(round_trips.map(|time| time.as_secs_f64() * 1e3));
        all
    }

    fn connection_row(&self, peer: &Peer) -> Option<ConnectionRow> {
        let track_id = |key| self.track(key).map(|(_, track)| track.id.clone());
        let sent = peer.bound.iter().filter_map(|(key, mline)| {
            let egress = self.egress_report(peer, *mline)?;
            Some((track_id(*key)?, "out", self.egress_bps(peer, egress) / 8))
        });
        let published = peer.tracks.values().map(|track| {
            let bps: u64 = self.ingress_reports(peer, track).map(|ingress| self.ingress_bps(peer, ingress)).sum();
            (track.id.clone(), "in", bps / 8)
        });
        let loss = self.loss(peer)?;
        Some(ConnectionRow {
            peer: peer.info.wire_id.clone(),
            loss,
            tracks: published.chain(sent.take(TRACKS_MAX)).collect(),
        })
    }

    fn loss(&self, peer: &Peer) -> Option<f32> {
        let report = self.session_report(peer).filter(|report| report.suite.is_some())?;
        let down = report.egress.iter().map(|egress| egress.fraction_lost).fold(0.0, f32::max);
        let before = self.earlier_report(peer).map_or(&[][..], |earlier| &earlier.ingress);
        let up = report.ingress.iter().map(|now| lost_since(before, now)).fold(0.0, f32::max);
        Some(down.max(up))
    }
}

/// Share of a stream lost between two reports.
fn lost_since(before: &[IngressReport], now: &IngressReport) -> f32 {
    let before = before.iter().find(|before| before.ssrc == now.ssrc);
    let (packets, lost) = before.map_or((0, 0), |before| (before.summary.packets, before.summary.lost));
    let received = now.summary.packets.saturating_sub(packets) as f32;
    let lost = (now.summary.lost - lost).max(0) as f32;
    if lost + received < 1.0 { 0.0 } else { lost / (lost + received) }
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.fold((0u32, 0.0), |(count, sum), number| (count + 1, sum + number));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

impl Control {
    /// See [`Hub::connection_qualities`].
    pub fn connection_qualities(&self, peer: PeerId) -> Vec<ConnectionQuality> {
        self.lock().hub.connection_qualities(peer)
    }
}
