//! What can be read of a world while it runs or afterwards.

use std::time::Instant;

use super::World;
use crate::room::api::{CloseReason, Notice};
use crate::room::hub::Hub;
use crate::session::stats::DownlinkReport;
use crate::sim::media::{PeerNo, Received};
use crate::worker::command::WorkerReport;

impl World {
    /// A peer's books.
    pub fn received(&self, peer: PeerNo) -> &Received {
        self.seats[peer.0].endpoint.received()
    }

    /// What a peer was told, and when it heard.
    pub fn notices(&self, peer: PeerNo) -> &[(Instant, Notice)] {
        &self.seats[peer.0].notices
    }

    /// Why a peer was closed by the server, if it was.
    pub fn closed(&self, peer: PeerNo) -> Option<CloseReason> {
        self.notices(peer).iter().find_map(|(_, notice)| match notice {
            Notice::Closed(reason) => Some(*reason),
            _ => None,
        })
    }

    /// All workers' last numbers.
    pub fn reports(&self) -> impl Iterator<Item = &WorkerReport> {
        self.workers.iter().map(|worker| &worker.report)
    }

    /// What the server makes of a peer's line now, once the peer says something about it.
    pub fn downlink(&self, peer: PeerNo) -> Option<DownlinkReport> {
        let session = self.hub.session_of(self.seats[peer.0].id)?;
        let reports = self.workers.iter().map(|worker| worker.core.report(self.now));
        let mut sessions = reports.flat_map(|report| report.sessions).filter(|report| report.session == session);
        sessions.find_map(|report| report.downlink)
    }

    /// Discards of that name, all workers together, by their last reports.
    pub fn discards(&self, name: &str) -> u64 {
        let named = self.reports().flat_map(|report| &report.discards).filter(|(other, _)| *other == name);
        named.map(|(_, count)| count).sum()
    }

    /// What it was made with.
    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    /// The room's side, to look at.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
