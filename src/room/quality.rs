//! How well peers are connected, for the dialect whose clients show it: one number for each.

use super::api::ConnectionQuality;
use super::control::Control;
use super::hub::Hub;
use super::peer::Peer;
use crate::base::ids::PeerId;
use crate::session::stats::IngressReport;

/// Peers told of at once: more nobody looks at, and each costs a message.
const SHOWN_MAX: usize = 64;

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

impl Control {
    /// See [`Hub::connection_qualities`].
    pub fn connection_qualities(&self, peer: PeerId) -> Vec<ConnectionQuality> {
        self.lock().hub.connection_qualities(peer)
    }
}
