//! What a room knows of one peer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::api::{
    Capabilities, Dialect, MediaState, PeerInfo, Source, StreamNames, TrackInfo, TrackQuality, VideoWanted,
};
use super::choice::Choice;
use super::impair::BadNetwork;
use super::stay::Stay;
use crate::base::format::MediaKind;
use crate::base::ids::{RoomKey, SessionKey, TrackKey, WorkerId};
use crate::forward::speaker::Activity;
use crate::forward::table::Voice;
use crate::session::negotiate::{Negotiation, Publication};
use crate::session::streams::Demand;
use crate::worker::command::SessionReport;

/// A published track.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub key: TrackKey,
    /// Stable id for people and clients.
    pub id: String,
    pub kind: MediaKind,
    pub mid: String,
    /// The publisher's own names (`a=msid`).
    pub stream_id: String,
    pub track_id: String,
    pub slot: Option<usize>,
    /// Media came.
    pub is_live: bool,
    /// Its worker was told to record it.
    pub is_recorded: bool,
    /// Of its voice, lately.
    pub activity: Activity,
    /// Packets of all its streams by the last report, and when they became more.
    pub packets: u64,
    pub moved_at: Option<Instant>,
    /// What its publisher was told last about its watchers.
    pub wanted: Option<VideoWanted>,
    /// The same in pixels, as its worker knows it; `None`: all there is.
    pub pixels_wanted: Option<u32>,
}

/// A peer in a room.
#[derive(Debug)]
pub(super) struct Peer {
    pub info: Arc<PeerInfo>,
    pub room: String,
    pub dialect: Dialect,
    pub stream_names: StreamNames,
    pub capabilities: Capabilities,
    pub is_server_muted: bool,
    pub is_deafened: bool,
    /// User ids whose media is withheld.
    pub hidden: HashSet<String>,
    /// User ids whose voices it does not want, and those it wants however quiet they are; as it told itself.
    pub muted: HashSet<String>,
    pub pinned: HashSet<String>,
    pub negotiation: Negotiation,
    pub session: SessionKey,
    /// The worker that owns the session, once claimed.
    pub owner: Option<WorkerId>,
    /// The worker whose port was announced, where each has its own: then no other hears of the session.
    pub placed: Option<WorkerId>,
    pub media: Option<MediaState>,
    /// By m-line.
    pub tracks: BTreeMap<usize, Track>,
    /// What its m-lines show, as it told, by mid.
    pub sources: HashMap<String, Source>,
    /// Tracks it receives now, with the m-line.
    pub bound: Vec<(TrackKey, u16)>,
    /// How much it wants of tracks, where it said so.
    pub demands: HashMap<TrackKey, Demand>,
    /// What it was told last about its m-lines.
    pub told: Arc<[TrackInfo]>,
    /// The track count of the last [`Notice::NeedsOffer`](super::api::Notice::NeedsOffer).
    pub asked_for: usize,
    /// When it was asked to offer, with how many tracks, and has not yet; only of clients that are asked before we offer.
    pub asked_at: Option<(Instant, usize)>,
    /// When our pending offer went out.
    pub offered_at: Option<Instant>,
    /// It let an offer of ours go unanswered: it gets no more of them.
    pub ignores_offers: bool,
    /// Which tracks it receives at all.
    pub choice: Choice,
    /// What it is sent at most, in bits per second.
    pub downlink_bps_max: Option<u64>,
    /// How it may come back after its socket is gone.
    pub stay: Option<Stay>,
    /// It asked to be told how what it receives is doing.
    pub watches_quality: bool,
    /// What it was told of that last.
    pub quality: Option<Vec<TrackQuality>>,
    /// What its network is made to be.
    pub network: BadNetwork,
    /// Time since its last check, by the last report.
    pub silent_s: f32,
}

impl Peer {
    /// The worker it counts for.
    pub fn worker(&self) -> Option<WorkerId> {
        self.owner.or(self.placed)
    }

    /// Another peer's media is withheld from it, as somebody decided.
    pub fn hides(&self, publisher: &Self) -> bool {
        self.hidden.contains(&publisher.info.user_id)
    }

    /// What its worker tells of it.
    pub fn handle_report(&mut self, now: Instant, report: &SessionReport) {
        self.silent_s = report.silent.as_secs_f32();
        for track in self.tracks.values_mut() {
            let streams = report.ingress.iter().filter(|ingress| ingress.track == track.key);
            let packets = streams.map(|ingress| ingress.summary.packets).sum();
            if std::mem::replace(&mut track.packets, packets) != packets {
                track.moved_at = Some(now);
            }
        }
    }

    /// What one of its tracks shows.
    pub fn source_of(&self, track: &Track) -> Source {
        let by_slot = [Source::Microphone, Source::Camera, Source::Screen, Source::ScreenAudio];
        let told = self.sources.get(&track.mid).copied();
        told.or_else(|| track.slot.and_then(|slot| by_slot.get(slot).copied())).unwrap_or(Source::Unknown)
    }

    /// Whether a track of it is one of the room's voices: the sound of a screen is none.
    pub fn is_voice(&self, track: &Track) -> bool {
        track.kind == MediaKind::Audio && self.source_of(track) != Source::ScreenAudio
    }

    /// Those of its voices that others could hear.
    pub fn voices(&self) -> impl Iterator<Item = &Track> {
        let is_heard = !self.info.audio_muted && !self.is_server_muted;
        self.tracks.values().filter(move |track| is_heard && self.is_voice(track))
    }

    /// The same as the fanout plan knows it.
    pub fn voice(&self, room: RoomKey, track: &Track) -> Option<Voice> {
        self.is_voice(track).then_some(Voice { room, publisher: self.session })
    }

    /// Whether it may publish that. Without slots or marks an audio track is speech and a video track a camera.
    pub fn may_publish(&self, publication: &Publication) -> bool {
        let screen = [Some(2), Some(3)].contains(&publication.slot);
        let told = self.sources.get(publication.mid.as_str());
        if screen || matches!(told, Some(Source::Screen | Source::ScreenAudio)) {
            return self.capabilities.share_screen;
        }
        match publication.kind {
            MediaKind::Audio => self.capabilities.speak,
            MediaKind::Video => self.capabilities.share_video,
        }
    }
}
