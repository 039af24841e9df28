//! Numbers of a worker for people.

use std::time::{Duration, Instant};

use super::command::{Event, SessionReport, Unheard, WorkerReport};
use super::core::WorkerCore;
use crate::base::format::MediaKind;
use crate::forward::rates::Offer;
use crate::forward::speaker::Activity;
use crate::session::peer::{FeedbackCounters, Session};
use crate::session::stats::LayerReport;
use crate::session::track::{Track, Tracks};

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
            voices_heard: self.voices.heard,
            unheard: self.unheard(),
            sessions: self.seats.sessions().map(|session| session_report(now, session, &self.tracks)).collect(),
        }
    }

    fn unheard(&self) -> Vec<Unheard> {
        let table = self.table.load();
        let pins = |track| table.route(track).map(|route| route.pins.iter().map(|pin| pin.session).collect());
        self.voices.unheard(|track| pins(track).unwrap_or_default())
    }

    pub(super) fn tell_voices(&mut self, now: Instant) {
        let audio = self.tracks.iter().filter(|track| track.kind == MediaKind::Audio && track.home.is_some());
        let voices = audio.map(|track| (track.key, self.voices.activity(now, track.key)));
        let voices: Vec<_> = voices.filter(|(_, activity)| *activity != Activity::default()).collect();
        // One empty list says that silence came.
        if !voices.is_empty() || self.has_told_voices {
            self.has_told_voices = !voices.is_empty();
            self.events.push_back(Event::Voices(voices));
        }
    }
}

/// The layers of one picture.
fn layers(now: Instant, track: &Track) -> impl Iterator<Item = LayerReport> {
    track.encodings().flat_map(move |(index, encoding)| {
        let report =
            |offer: Offer| LayerReport { track: track.key, offer, size: encoding.rates.size(offer.layer.spatial) };
        encoding.rates.offers(now, index).map(report)
    })
}

fn session_report(now: Instant, session: &Session, tracks: &Tracks) -> SessionReport {
    let pictures = session.ingress.tracks().filter_map(|key| tracks.track(key));
    SessionReport {
        session: session.key,
        remote: session.ice.send_path().map(|path| path.remote),
        suite: session.suite(),
        has_consent: session.has_consent(),
        silent: session.ice.last_check_at().map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        ingress: session.ingress.numbers().collect(),
        layers: pictures.flat_map(|track| layers(now, track)).collect(),
        egress: session.egress.numbers(now).collect(),
        downlink: session.egress.downlink().map(|downlink| downlink.numbers(now)),
    }
}
