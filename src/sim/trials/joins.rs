//! How soon somebody who joins sees something, and what it costs the publisher when many do.

use std::time::{Duration, Instant};

use super::measure::percentile;
use super::{Stage, near};
use crate::base::format::MediaKind;
use crate::proto::link::LinkConfig;
use crate::room::api::{Notice, TrackName, Wish};
use crate::sim::camera::CameraConfig;
use crate::sim::media::PeerNo;
use crate::sim::peer_str0m::StrPeer;

/// What came of one joining.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartResult {
    /// From the applied answer to the first picture.
    pub first: Option<Duration>,
    /// And to the first of the best encoding.
    pub best: Option<Duration>,
}

/// Somebody joins over 5 Mbit/s and 50 ms of round trip; `is_watched`: somebody else has been watching for a while.
pub fn start(seed: u64, is_watched: bool) -> StartResult {
    let mut stage = Stage::new(seed, CameraConfig::simulcast());
    if is_watched {
        stage.view(near());
    }
    stage.world.run_for(Duration::from_secs(5));
    let delay = Duration::from_millis(25);
    let viewer = stage.view(LinkConfig { delay, rate: Some((5_000_000, 100_000)), ..LinkConfig::default() });
    // Only what the server sends passes the bottleneck.
    stage.world.accesses(viewer).0.link.config.rate = None;
    stage.world.run_for(Duration::from_secs(15));
    started(&mut stage, viewer)
}

fn started(stage: &mut Stage, viewer: PeerNo) -> StartResult {
    let answered = stage.world.act(viewer, |_, peer: &mut StrPeer| peer.answered_at);
    let best = CameraConfig::simulcast().encodings.iter().map(|encoding| encoding.height).max().unwrap_or(0);
    let firsts = stage.screen(viewer, |screen| {
        let best = screen.shown.iter().find(|shown| shown.height == best);
        (screen.shown.first().map(|shown| shown.at), best.map(|shown| shown.at))
    });
    let since = |at: Option<Instant>| Some(at?.saturating_duration_since(answered?));
    let (first, best) = firsts.unwrap_or_default();
    StartResult { first: since(first), best: since(best) }
}

/// What came of wishes.
#[derive(Clone, Debug)]
pub struct DemandsResult {
    /// For each the most lines of the pictures that came once it was obeyed, and how many came.
    pub seen: Vec<(u16, usize)>,
    /// Keyframes that the publisher was asked for, of each encoding.
    pub keyframes: Vec<(String, usize)>,
}

/// A viewer says how much it wants, one size after the other. Half a second after each it counts, for two.
pub fn demands(seed: u64, sizes: &[(u16, u16)]) -> DemandsResult {
    let mut stage = Stage::new(seed, CameraConfig::simulcast());
    let viewer = stage.view(near());
    stage.world.run_for(Duration::from_secs(5));
    let started_at = stage.world.now;
    let told = stage.world.notices(viewer).iter().rev().find_map(|(_, notice)| match notice {
        Notice::Tracks(tracks) => tracks.iter().find(|track| track.kind == MediaKind::Video),
        _ => None,
    });
    let name = told.map(|track| TrackName::Track(track.track_id.clone()));
    let mut seen = Vec::new();
    for (width, height) in sizes {
        let wish = Wish::Size { width: *width, height: *height, fps: None };
        let wishes: Vec<_> = name.iter().map(|name| (name.clone(), wish)).collect();
        stage.world.demand(viewer, &wishes);
        stage.world.run_for(Duration::from_millis(500));
        let since = stage.world.now;
        stage.world.run_for(Duration::from_secs(2));
        let shown = stage.screen(viewer, |screen| {
            let shown: Vec<u16> = screen.shown.iter().filter(|it| it.at >= since).map(|it| it.height).collect();
            (shown.iter().copied().max().unwrap_or(0), shown.len())
        });
        seen.push(shown.unwrap_or_default());
    }
    DemandsResult { seen, keyframes: stage.keyframes_asked(started_at) }
}

/// What a publisher sends of three encodings as a viewer's wishes change.
#[derive(Clone, Debug)]
pub struct UnneededResult {
    /// Encodings made in the last two seconds of each wish, smallest first.
    pub made: Vec<[bool; 3]>,
    /// From each wish to the first picture as large as that.
    pub answered: Vec<Option<Duration>>,
    /// Lines of the last picture under each wish.
    pub lines: Vec<u16>,
    /// Rates that the publisher was told.
    pub ceilings: Vec<(Duration, u64)>,
    /// Frames that a decoder would have shown broken.
    pub broken: u64,
}

/// A viewer says how much it wants, for so long each; the camera leaves out what it is told there is no room for.
pub fn unneeded(seed: u64, wishes: &[((u16, u16), Duration)]) -> UnneededResult {
    let mut stage = Stage::new(seed, CameraConfig { obeys_ceiling: true, ..CameraConfig::simulcast() });
    let viewer = stage.view(near());
    stage.world.run_for(Duration::from_secs(5));
    let publisher = stage.publisher;
    let mut result =
        UnneededResult { made: Vec::new(), answered: Vec::new(), lines: Vec::new(), ceilings: Vec::new(), broken: 0 };
    for ((width, height), time) in wishes {
        let wished_at = stage.world.now;
        stage.world.demand_of(viewer, publisher, Wish::Size { width: *width, height: *height, fps: None });
        stage.world.run_for(*time);
        let since = stage.world.now - Duration::from_secs(2);
        let made = stage.made();
        result.made.push([0, 1, 2].map(|at| made.iter().any(|made| made.encoding == at && made.at >= since)));
        let (answered, lines, broken) = stage
            .screen(viewer, |screen| {
                let first = screen.shown.iter().find(|shown| shown.at >= wished_at && shown.height >= *height);
                (first.map(|shown| shown.at - wished_at), screen.shown.last().map_or(0, |it| it.height), screen.broken)
            })
            .unwrap_or_default();
        result.answered.push(answered);
        result.lines.push(lines);
        result.broken = broken;
    }
    let start = stage.world.start;
    result.ceilings = stage.world.act(publisher, |_, peer: &mut StrPeer| {
        peer.ceilings.iter().map(|(at, bps)| (at.saturating_duration_since(start), *bps)).collect()
    });
    result
}

/// What came of many joining at once.
#[derive(Clone, Debug)]
pub struct CrowdResult {
    /// Keyframes that the publisher was asked for, of each encoding.
    pub keyframes: Vec<(String, usize)>,
    /// Viewers who saw something in the end.
    pub seeing: usize,
    /// Median of the time from the applied answer to the first picture.
    pub first_p50: Duration,
    /// And the 99th percentile.
    pub first_p99: Duration,
    /// Frames that a decoder would have shown broken.
    pub broken: u64,
}

/// Viewers join within a second, one second after a keyframe (`is_fresh`) or a long time after.
pub fn crowd(seed: u64, viewers: usize, is_fresh: bool) -> CrowdResult {
    let mut stage = Stage::new(seed, CameraConfig::simulcast());
    let early = stage.view(near());
    stage.world.run_for(Duration::from_secs(if is_fresh { 5 } else { 30 }));
    if is_fresh {
        stage.world.act(early, |_, peer: &mut StrPeer| peer.ask_for_keyframes());
        stage.world.run_for(Duration::from_secs(1));
    }
    let since = stage.world.now;
    let access = LinkConfig { delay: Duration::from_millis(25), ..LinkConfig::default() };
    let mut crowd = Vec::new();
    for _ in 0..viewers {
        crowd.push(stage.view(access));
        stage.world.run_for(Duration::from_secs(1) / viewers as u32);
    }
    stage.world.run_for(Duration::from_secs(3));
    let keyframes = stage.keyframes_asked(since);
    let broken = |viewer: &PeerNo| stage.screen(*viewer, |screen| screen.broken).unwrap_or_default();
    let broken = crowd.iter().map(broken).sum();
    let mut firsts: Vec<Duration> = crowd.iter().filter_map(|viewer| started(&mut stage, *viewer).first).collect();
    CrowdResult {
        keyframes,
        seeing: firsts.len(),
        first_p50: percentile(&mut firsts, 50),
        first_p99: percentile(&mut firsts, 99),
        broken,
    }
}
