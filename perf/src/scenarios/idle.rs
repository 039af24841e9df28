//! Subscribers who wait: what one costs in memory, before media and after.

use anyhow::Result;

use crate::flow::{Flow, Steady};
use crate::load::{Rounds, wait};
use crate::plan::connections;
use crate::process::{descriptors, resident_bytes};
use crate::report::{Condition, Figure, Report, ratio};
use crate::scenarios::one_to_many::people;
use crate::site::{Site, SiteArgs, condition};

/// Packets of the publisher in bytes.
const PACKET_BYTES: usize = 1200;
/// Connections before the first reading: what the server makes once has been made then.
const FIRST: usize = 20;
/// Seconds until buffers of the handshakes have been given back.
const SETTLE_S: f64 = 3.0;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Idle {
    /// Subscribers
    #[arg(long, short = 'n', default_value_t = 2000)]
    subscribers: usize,
    /// Packets per second of the publisher once media flows
    #[arg(long, short = 'r', default_value_t = 20)]
    rate: u32,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    site: SiteArgs,
}

impl Idle {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let steady =
            Steady { rate: self.rate, burst: 1, packet_bytes: PACKET_BYTES, keyframe_every: 100, bare_vp8: false };
        let flow = Flow::Steady(steady);
        flow.check()?;
        let site = Site::open(&self.site, self.subscribers + FIRST + 1)?;
        // The publisher sends one packet, so that the track is there, and then next to nothing.
        site.course.set_pace(0.0);
        let (publisher, subscribers) = people(flow, self.subscribers + FIRST);
        let all = connections(&self.site.room, &[publisher, subscribers].concat(), site.is_one_way(), 0);
        site.admit_all(&all[..=FIRST])?;
        wait(SETTLE_S, &mut || site.tend())?;
        let base = resident_bytes(site.pids())?;
        let joined = site.admit_all(&all[FIRST + 1..])?;
        wait(SETTLE_S, &mut || site.tend())?;
        let connected = resident_bytes(site.pids())?;
        let cpu = site.read_cpu()?;
        wait(SETTLE_S, &mut || site.tend())?;
        let idle_cores = site.read_cpu()?.since(&cpu).total_ns() as f64 / 1e9 / SETTLE_S;
        site.course.set_pace(1.0);
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let meter = site.meter(self.subscribers + FIRST, &read_cpu);
        let rounds = self.rounds.measure(&meter, &mut || site.tend())?;
        site.course.set_pace(0.0);
        wait(SETTLE_S, &mut || site.tend())?;
        let after = resident_bytes(site.pids())?;
        let per_peer = |bytes: u64| ratio(bytes.saturating_sub(base) as f64 / 1024.0, self.subscribers as f64);
        let figures = vec![
            Figure::new("RSS without them", base as f64 / f64::from(1 << 20), "MiB"),
            Figure::new("RSS per connected subscriber", per_peer(connected), "KiB"),
            Figure::new("RSS per subscriber after media", per_peer(after), "KiB"),
            Figure::new("descriptors", descriptors(site.pids())? as f64, ""),
            Figure::new("server cores while idle", idle_cores, ""),
            Figure::new("joins per second", ratio(self.subscribers as f64, joined.as_secs_f64()), "1/s"),
        ];
        let load = format!("{} subscribers without media, then {} packets/s", self.subscribers, self.rate);
        let condition = condition("idle", load, self.subscribers + FIRST, self.rate.into());
        let condition = Condition { burst: 1, packet_bytes: PACKET_BYTES, ..condition };
        Ok(site.close(condition, rounds, Some(joined), figures))
    }
}
