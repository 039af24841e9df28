//! Numbers of a worker for people.

use std::time::{Duration, Instant};

use super::command::{Event, SessionReport, WorkerReport};
use super::core::WorkerCore;
use crate::base::format::MediaKind;
use crate::session::peer::{FeedbackCounters, Session};

impl WorkerCore {
    /// All its numbers as they are now.
    pub fn report(&self, now: Instant) -> WorkerReport {
        let mut feedback = self.past;
        self.seats.sessions().for_each(|session| feedback.add(&session.counters));
        let FeedbackCounters { keyframe_requests, nacks_received, nacks_sent, retransmissions } = feedback;
        WorkerReport {
            io: self.io.clone(),
            keyframe_requests,
            nacks_received,
            nacks_sent,
            retransmissions,
            packets_forwarded: self.departure.packets,
            trains: self.departure.trains,
            discards: self.discards.iter().collect(),
            sessions: self.seats.sessions().map(|session| session_report(now, session)).collect(),
        }
    }

    pub(super) fn tell_levels(&mut self, now: Instant) {
        let audio = self.tracks.iter().filter(|track| track.kind == MediaKind::Audio && track.home.is_some());
        let levels: Vec<_> =
            audio.map(|track| (track.key, track.level.loudness(now))).filter(|(_, loudness)| *loudness > 0).collect();
        // One empty list says that silence came.
        if !levels.is_empty() || self.has_told_levels {
            self.has_told_levels = !levels.is_empty();
            self.events.push_back(Event::Levels(levels));
        }
    }
}

fn session_report(now: Instant, session: &Session) -> SessionReport {
    SessionReport {
        session: session.key,
        remote: session.ice.send_path().map(|path| path.remote),
        suite: session.suite(),
        has_consent: session.has_consent(),
        silent: session.ice.last_check_at().map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        ingress: session.ingress.numbers().collect(),
        egress: session.egress.numbers(now).collect(),
        downlink: session.egress.downlink_ref().map(|downlink| downlink.numbers(now)),
    }
}
