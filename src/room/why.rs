//! Why media does not flow, or not better: one reason for every published track and every other peer of its room.
//!
//! Owns: the order in which reasons are looked for: what somebody decided, then the transports, then the publisher, the
//! negotiation, and last what the subscriber's worker says. Promises: looks at what is known and changes nothing; reports
//! of workers are up to a second old.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{MediaState, Notice, RequestError, Source, TrackQuality};
use super::hub::Hub;
use super::peer::{Peer, Track};
use super::views::layer_view;
use crate::base::format::MediaKind;
use crate::base::ids::{PeerId, WorkerId};
use crate::forward::why::Why;
use crate::session::stats::EgressReport;

/// Tracks and subscribers shown at once: a megabyte of JSON.
const SHOWN_MAX: usize = 2048;
/// A track without packets for so long is silent; discontinuous sound still sends one in 400 ms, and reports come once a
/// second.
const SILENT_MIN: Duration = Duration::from_millis(2500);

/// Why nothing can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// No peer has that id.
    #[error("there is no peer with the id {0}")]
    NoPeer(String),
    /// They share no room.
    #[error("these two are not in one room")]
    Apart,
}

/// What becomes of a track on its way to a subscriber.
#[derive(Clone, Copy, Debug)]
struct Verdict<'a> {
    why: Why,
    /// What is sent to the subscriber lately.
    bps: u64,
    egress: Option<&'a EgressReport>,
}

impl Verdict<'_> {
    /// `flowing`, `lowered` or `withheld`.
    fn state(&self) -> &'static str {
        match self.why {
            Why::Best => "flowing",
            Why::Bandwidth { .. }
            | Why::Settling { .. }
            | Why::CappedByRequest { .. }
            | Why::LayerNotSent
            | Why::Overload
                if self.bps > 0 =>
            {
                "lowered"
            }
            _ => "withheld",
        }
    }
}

impl Hub {
    /// `/debug/why`: peers by any of their ids; without one, all.
    pub fn why(&self, now: Instant, from: Option<&str>, to: Option<&str>) -> Result<Value, WhyError> {
        let (publishers, subscribers) = (self.named(from)?, self.named(to)?);
        let mut pairs = publishers.iter().flat_map(|publisher| {
            let others = subscribers.iter().filter(|me| me.info.peer != publisher.info.peer);
            others.filter(|me| me.room == publisher.room).map(move |me| (*publisher, *me))
        });
        let mut pairs = pairs.by_ref().peekable();
        if pairs.peek().is_none() && from.is_some() && to.is_some() {
            return Err(WhyError::Apart);
        }
        let tracks =
            pairs.flat_map(|(publisher, me)| publisher.tracks.values().map(move |track| (publisher, me, track)));
        let view = |(publisher, me, track)| self.why_view(now, publisher, me, track);
        Ok(tracks.take(SHOWN_MAX).map(view).collect())
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<&Peer>, WhyError> {
        let Some(name) = name else { return Ok(self.peers.values().collect()) };
        let is_meant =
            |peer: &&Peer| peer.info.user_id == name || peer.info.wire_id == name || peer.info.peer.to_string() == name;
        let named: Vec<_> = self.peers.values().filter(is_meant).collect();
        if named.is_empty() { Err(WhyError::NoPeer(name.chars().take(64).collect())) } else { Ok(named) }
    }

    fn why_view(&self, now: Instant, publisher: &Peer, me: &Peer, track: &Track) -> Value {
        let verdict = self.verdict(now, publisher, me, track);
        let peer = |peer: &Peer| json!({"peerId": peer.info.peer.to_string(), "userId": peer.info.user_id});
        json!({
            "room": me.room,
            "from": peer(publisher),
            "to": peer(me),
            "track": track.id,
            "kind": track.kind.as_str(),
            "state": verdict.state(),
            "reason": verdict.why.name(),
            "sentence": verdict.why.to_string(),
            "numbers": numbers(&verdict.why),
            "bps": verdict.bps,
            "layer": verdict.egress.and_then(|egress| egress.layer).map(layer_view),
            "target": verdict.egress.and_then(|egress| egress.allocation?.target).map(layer_view),
            "fractionLost": verdict.egress.map(|egress| egress.fraction_lost),
            "roundTripMs": verdict.egress.and_then(|egress| egress.round_trip).map(|time| time.as_secs_f64() * 1e3),
        })
    }

    fn verdict(&self, now: Instant, publisher: &Peer, me: &Peer, track: &Track) -> Verdict<'_> {
        let mline = me.bound.iter().find(|(key, _)| *key == track.key).map(|(_, mline)| *mline);
        let egress = mline.and_then(|mline| self.egress_report(me, mline)).filter(|it| it.track == Some(track.key));
        let bps = egress.map_or(0, |egress| self.egress_bps(me, egress));
        let why = decided(publisher, me, track)
            .or_else(|| unconnected(me))
            .or_else(|| silent(now, publisher, track))
            .or_else(|| not_wanted(me, track, mline))
            .or_else(|| self.not_negotiated(publisher, me, track, mline).filter(|_| bps == 0))
            .or_else(|| self.unheard(me, track))
            .or_else(|| egress.and_then(told_by_worker))
            .unwrap_or(Why::Best);
        Verdict { why, bps, egress }
    }

    /// Others speak louder.
    fn unheard(&self, me: &Peer, track: &Track) -> Option<Why> {
        let heard = self.reports.get(usize::from(me.owner?.0))?.voices_heard;
        self.is_unheard(me, track.key).then_some(Why::NotLoudest { heard: heard.try_into().unwrap_or(u8::MAX) })
    }

    fn not_negotiated(&self, publisher: &Peer, me: &Peer, track: &Track, mline: Option<u16>) -> Option<Why> {
        let format = self.ingress_report(publisher, track)?.format?;
        let streams = me.negotiation.streams(|_| None);
        let mline = streams.mlines.get(usize::from(mline?))?.as_ref()?;
        let is_known = mline.payloads.iter().any(|payload| payload.format == format);
        (!is_known).then_some(Why::CodecNotNegotiated { format })
    }

    /// A peer wants to be told how what it receives is doing, or no more.
    pub fn watch_quality(&mut self, id: PeerId, is_on: bool) -> Result<(), RequestError> {
        let peer = self.peers.get_mut(&id).ok_or(RequestError::Gone)?;
        peer.watches_quality = is_on;
        peer.quality = None;
        Ok(())
    }

    /// Tells those who asked, and whom that worker serves, what has changed.
    pub(super) fn tell_quality(&mut self, now: Instant, worker: WorkerId) {
        let watching = self.peers.values().filter(|peer| peer.watches_quality && peer.owner == Some(worker));
        let told: Vec<_> = watching.map(|me| (me.info.peer, self.quality(now, me))).collect();
        for (id, quality) in told {
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.quality.as_ref() != Some(&quality)
            {
                peer.quality = Some(quality.clone());
                self.tell(id, Notice::Quality(quality.into()));
            }
        }
    }

    fn quality(&self, now: Instant, me: &Peer) -> Vec<TrackQuality> {
        let tracks = me.negotiation.bindings().into_iter().filter_map(|(mid, key)| {
            let (publisher, track) = self.track(key).filter(|(_, track)| track.kind == MediaKind::Video)?;
            let verdict = self.verdict(now, publisher, me, track);
            Some(TrackQuality {
                mid,
                track_id: track.id.clone(),
                state: verdict.state(),
                reason: verdict.why.name(),
                sentence: verdict.why.to_string(),
                layer: verdict.egress.and_then(|egress| egress.layer),
            })
        });
        tracks.collect()
    }
}

/// What somebody decided.
fn decided(publisher: &Peer, me: &Peer, track: &Track) -> Option<Why> {
    let is_audio = track.kind == MediaKind::Audio;
    let is_speech = is_audio && publisher.source_of(track) != Source::ScreenAudio;
    if me.hides(publisher) {
        return Some(Why::Blocked);
    }
    if is_audio && me.is_deafened {
        return Some(Why::Deafened);
    }
    (is_speech && publisher.is_server_muted).then_some(Why::MutedByModerator)
}

/// What is missing between the subscriber and us.
fn unconnected(me: &Peer) -> Option<Why> {
    match me.media {
        Some(MediaState::Connected) => None,
        Some(MediaState::Disconnected) => Some(Why::NoConsent { silent: Duration::from_secs_f32(me.silent_s) }),
        None if me.owner.is_some() => Some(Why::DtlsNotConnected),
        None => Some(Why::IceNotConnected),
    }
}

/// Nothing comes from the publisher.
fn silent(now: Instant, publisher: &Peer, track: &Track) -> Option<Why> {
    let silent = track.moved_at.map(|at| now.saturating_duration_since(at));
    if track.is_live && silent.is_none_or(|silent| silent < SILENT_MIN) {
        return None;
    }
    let is_muted = match publisher.source_of(track) {
        Source::Screen | Source::ScreenAudio => false,
        _ if track.kind == MediaKind::Audio => publisher.info.audio_muted,
        _ => publisher.info.video_muted,
    };
    Some(if is_muted { Why::MutedByPublisher } else { Why::PublisherSilent { silent } })
}

/// The subscriber has no m-line for it, or hides it.
fn not_wanted(me: &Peer, track: &Track, mline: Option<u16>) -> Option<Why> {
    if mline.is_none() {
        return Some(Why::NotSubscribed);
    }
    me.demands.get(&track.key).is_some_and(|demand| demand.is_hidden()).then_some(Why::HiddenByRequest)
}

/// What the subscriber's worker says.
fn told_by_worker(egress: &EgressReport) -> Option<Why> {
    let waits = egress.waits.map(|waited| Why::NoKeyframeYet { waited });
    waits.or_else(|| Some(egress.allocation?.why))
}

/// The numbers of a reason, for programs.
fn numbers(why: &Why) -> Value {
    match *why {
        Why::Bandwidth { estimate_bps, allocated_bps, needed_bps } => {
            json!({"estimateBps": estimate_bps, "allocatedBps": allocated_bps, "neededBps": needed_bps})
        }
        Why::Settling { estimate_bps, needed_bps, wait } => {
            json!({"estimateBps": estimate_bps, "neededBps": needed_bps, "waitMs": wait.as_millis() as u64})
        }
        Why::CappedByRequest { max_pixels, max_fps } => json!({"maxPixels": max_pixels, "maxFps": max_fps}),
        Why::NoKeyframeYet { waited } => json!({"waitedMs": waited.as_millis() as u64}),
        Why::CodecNotNegotiated { format } => json!({"codec": format.name()}),
        Why::NoConsent { silent } => json!({"silentMs": silent.as_millis() as u64}),
        Why::PublisherSilent { silent } => json!({"silentMs": silent.map(|silent| silent.as_millis() as u64)}),
        Why::NotLoudest { heard } => json!({"heard": heard}),
        _ => json!({}),
    }
}
