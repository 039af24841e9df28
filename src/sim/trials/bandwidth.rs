//! A simulcast over a link whose capacity changes: steps, competition, jitter, an outage.

use std::time::{Duration, Instant};

use super::Stage;
use super::course::{Course, Phase, PhaseResult, SAMPLE};
use super::direct::Pair;
use crate::proto::link::{LinkConfig, Loss};
use crate::sim::access::{Access, Competition};
use crate::sim::camera::CameraConfig;

/// Each way between server and viewer.
const DELAY: Duration = Duration::from_millis(20);
/// What the bottleneck's queue holds: a second at 500 kbit/s.
const QUEUE_BYTES: usize = 62_500;

/// A network and what happens on it.
#[derive(Clone, Debug)]
pub struct BandwidthTrial {
    /// In words.
    pub name: &'static str,
    /// The access in the beginning.
    pub access: LinkConfig,
    /// What it becomes, and when.
    pub changes: Vec<(Duration, LinkConfig)>,
    /// Who competes, from when to when.
    pub competition: Option<(Competition, Duration, Duration)>,
    /// What is judged.
    pub phases: Vec<Phase>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Our server, between a str0m publisher and a str0m viewer.
    Tramline,
    /// str0m with its own estimate, which it raises by probes alone.
    Str0m,
    /// The same, and padding up to what the next better quality needs.
    Str0mPadding,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A link with that bottleneck.
fn link(bps: u64) -> LinkConfig {
    LinkConfig { delay: DELAY, rate: Some((bps, QUEUE_BYTES)), ..LinkConfig::default() }
}

fn phase(name: &'static str, from: u64, until: u64, capacity_bps: u64) -> Phase {
    Phase { name, span: seconds(from)..seconds(until), capacity_bps }
}

/// All of them.
pub fn all() -> Vec<BandwidthTrial> {
    vec![steps(), constant(), reno(), jitter(), outage(), narrow()]
}

/// 3 Mbit/s, 500 kbit/s, 2 Mbit/s.
pub fn steps() -> BandwidthTrial {
    BandwidthTrial {
        name: "steps",
        access: link(3_000_000),
        changes: vec![(seconds(15), link(500_000)), (seconds(35), link(2_000_000))],
        competition: None,
        phases: vec![
            phase("3 Mbit/s from the beginning", 0, 15, 3_000_000),
            phase("down to 500 kbit/s", 15, 35, 500_000),
            phase("up to 2 Mbit/s", 35, 55, 2_000_000),
        ],
    }
}

/// Somebody takes 1.5 of 2.5 Mbit/s for a while, come what may.
pub fn constant() -> BandwidthTrial {
    BandwidthTrial {
        name: "competing flow, constant",
        access: link(2_500_000),
        changes: Vec::new(),
        competition: Some((Competition::Constant(1_500_000), seconds(15), seconds(35))),
        phases: vec![phase("1.5 of 2.5 Mbit/s taken", 15, 35, 1_000_000), phase("free again", 35, 50, 2_500_000)],
    }
}

/// A download by TCP beside us, which fills every queue: half would be fair.
pub fn reno() -> BandwidthTrial {
    BandwidthTrial {
        name: "competing flow, TCP Reno",
        access: link(3_000_000),
        changes: Vec::new(),
        competition: Some((Competition::Reno, seconds(15), seconds(35))),
        phases: vec![phase("half of 3 Mbit/s is fair", 15, 35, 1_500_000), phase("free again", 35, 50, 3_000_000)],
    }
}

/// 50 ms of jitter, in order.
pub fn jitter() -> BandwidthTrial {
    let access = LinkConfig { jitter: Duration::from_millis(50), ..link(3_000_000) };
    BandwidthTrial {
        name: "50 ms of jitter",
        access,
        changes: Vec::new(),
        competition: None,
        phases: vec![phase("3 Mbit/s", 0, 30, 3_000_000)],
    }
}

/// A second without anything.
pub fn outage() -> BandwidthTrial {
    let dead = LinkConfig { loss: Loss::Uniform(1.0), ..link(3_000_000) };
    BandwidthTrial {
        name: "outage of 1 s",
        access: link(3_000_000),
        changes: vec![(seconds(15), dead), (seconds(16), link(3_000_000))],
        competition: None,
        phases: vec![phase("from the outage on", 15, 35, 3_000_000)],
    }
}

/// A slow link that loses one packet in twenty, whatever is sent.
pub fn narrow() -> BandwidthTrial {
    let access = LinkConfig { loss: Loss::Uniform(0.05), ..link(300_000) };
    BandwidthTrial {
        name: "300 kbit/s, 5 % lost",
        access,
        changes: Vec::new(),
        competition: None,
        phases: vec![phase("from the beginning", 0, 30, 300_000)],
    }
}

impl BandwidthTrial {
    /// Plays it.
    pub fn play(&self, sender: Sender, seed: u64) -> (Course, Vec<PhaseResult>) {
        let (start, course) = match sender {
            Sender::Tramline => self.play_ours(seed),
            Sender::Str0m => self.play_direct(seed, false),
            Sender::Str0mPadding => self.play_direct(seed, true),
        };
        let results = self.phases.iter().map(|phase| course.judge(start, phase)).collect();
        (course, results)
    }

    fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.span.end).max().unwrap_or_default()
    }

    fn prepare(&self, access: &mut Access, start: Instant) {
        access.link.config = self.access;
        for (at, config) in &self.changes {
            access.change_at(start + *at, *config);
        }
        if let Some((kind, from, until)) = self.competition {
            access.compete(kind, start + from, start + until);
        }
    }

    fn play_ours(&self, seed: u64) -> (Instant, Course) {
        let mut stage = Stage::new(seed, CameraConfig::simulcast());
        stage.world.run_for(seconds(2));
        // What is lost by itself is lost on the way back, too.
        let back = LinkConfig { rate: None, jitter: Duration::ZERO, ..self.access };
        let (start, viewer) = (stage.world.now, stage.view(back));
        self.prepare(stage.world.accesses(viewer).1, start);
        let mut estimates = Vec::new();
        while stage.world.now < start + self.length() {
            stage.world.run_for(SAMPLE);
            let downlink = stage.world.downlink(viewer);
            estimates.extend(downlink.map(|downlink| (stage.world.now, downlink.estimate.estimate_bps)));
        }
        let (shown, broken) = stage.screen(viewer, |screen| (screen.shown.clone(), screen.broken)).unwrap_or_default();
        let log = stage.world.accesses(viewer).1.log.take().unwrap_or_default();
        (start, Course { estimates, log, shown, broken })
    }

    fn play_direct(&self, seed: u64, pads: bool) -> (Instant, Course) {
        let mut pair = Pair::new(seed, self.access, pads);
        let start = pair.now();
        self.prepare(pair.access(), start);
        pair.run_for(self.length());
        (start, pair.course())
    }
}
