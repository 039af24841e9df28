//! N people who all see and hear each other.

use anyhow::{Result, bail};

use crate::flow::{Camera, Flow, Voice};
use crate::load::Rounds;
use crate::plan::{Person, connections};
use crate::report::Report;
use crate::site::{Site, SiteArgs, condition};

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Meeting {
    /// People, each sending to all others
    #[arg(long, short = 'n', default_value_t = 10)]
    peers: usize,
    #[command(flatten)]
    camera: Camera,
    #[command(flatten)]
    voice: Voice,
    /// Video without audio
    #[arg(long)]
    no_audio: bool,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    site: SiteArgs,
}

impl Meeting {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        if self.peers < 2 {
            bail!("a meeting has two people or more");
        }
        let mut flows = vec![Flow::Camera(self.camera)];
        flows.extend((!self.no_audio).then_some(Flow::Voice(self.voice)));
        flows.iter().try_for_each(Flow::check)?;
        let rate = flows.iter().map(Flow::packets_per_s).sum::<f64>() * self.peers as f64;
        let person = Person { sends: flows, phase: None, listens: true };
        let site = Site::open(&self.site, self.peers * self.peers)?;
        let all = connections(&self.site.room, &vec![person; self.peers], site.is_one_way(), 0);
        let joined = site.admit_all(&all)?;
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let others = self.peers - 1;
        let rounds = self.rounds.measure(&site.meter(others, &read_cpu), &mut || site.tend())?;
        let Camera { video_kbps, fps, .. } = self.camera;
        let audio = if self.no_audio { "" } else { ", audio" };
        let load = format!("{0} x {0}, video {video_kbps} kbit/s at {fps} frames/s{audio}", self.peers);
        Ok(site.close(condition("meeting", load, others, rate), rounds, Some(joined), Vec::new()))
    }
}
