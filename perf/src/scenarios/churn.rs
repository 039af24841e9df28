//! People who come and go: how fast they get in, and what is left of them.

use std::time::Duration;

use anyhow::Result;

use crate::crowd::Crowd;
use crate::flow::{Flow, Steady};
use crate::load::wait;
use crate::plan::connections;
use crate::process::{descriptors, resident_bytes};
use crate::report::{Figure, Report, ratio};
use crate::scenarios::one_to_many::people;
use crate::site::{Site, SiteArgs, condition};

/// Packets of the room's publisher: enough to see that media comes.
const PUBLISHER: Steady = Steady { rate: 50, burst: 1, packet_bytes: 1200, keyframe_every: 50, bare_vp8: false };
/// Joins before the first reading: pools and tables have their size then.
const FIRST: usize = 200;
/// Seconds from the last leave to the last reading: longer than a lost leave takes to be noticed by consent.
const SETTLE_S: f64 = 5.0;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Churn {
    /// Joins, each followed by a leave
    #[arg(long, default_value_t = 2000)]
    joins: usize,
    /// Joins per second
    #[arg(long, default_value_t = 100.0)]
    joins_per_second: f64,
    /// Seconds each one stays once media comes
    #[arg(long, default_value_t = 0.2)]
    stay: f64,
    /// Write the report as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
}

impl Churn {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let stay = Duration::from_secs_f64(self.stay);
        // Those who are inside at once, and as many again who are slow.
        let seats = (self.joins_per_second * (self.stay + 2.0)) as usize * 2;
        let site = Site::open(&self.site, seats.max(100))?;
        let (publisher, visitor) = people(Flow::Steady(PUBLISHER), 1);
        let all = connections(&self.site.room, &[publisher, visitor].concat(), site.is_one_way(), 0);
        let (publisher, visitor) = all.split_at(1);
        site.admit_all(publisher)?;
        let visit = |nth: usize| {
            let mut visitor = visitor[0].clone();
            visitor.user = format!("visitor-{nth}");
            visitor
        };
        let first = Crowd { joins_per_s: self.joins_per_second, total: FIRST, stay };
        eprintln!("{FIRST} joins to fill the pools ...");
        first.run(&site, &visit)?;
        wait(SETTLE_S, &mut || site.tend())?;
        let before = (resident_bytes(site.pids())?, descriptors(site.pids())?);
        let read_cpu = || site.read_cpu();
        let crowd = Crowd { joins_per_s: self.joins_per_second, total: self.joins, stay };
        eprintln!("{} joins ...", self.joins);
        let cpu = site.read_cpu()?;
        // One window over all of it: what the visitors received is checked as anything else.
        let seconds = self.joins as f64 / self.joins_per_second;
        let meter = site.meter(0, &read_cpu);
        let storm = || crowd.run(&site, &visit);
        let (measurement, outcome) = meter.measure_beside(seconds, &mut || site.tend(), storm)?;
        let cpu_ns = site.read_cpu()?.since(&cpu).total_ns();
        wait(SETTLE_S, &mut || site.tend())?;
        let after = (resident_bytes(site.pids())?, descriptors(site.pids())?);
        if let Some(reason) = &outcome.reason {
            eprintln!("a join failed: {reason}");
        }
        let mut figures = outcome.figures();
        let counts = measurement.guests.counts;
        let wrong = counts.unauthentic + counts.damaged + counts.misnumbered;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        figures.extend([
            Figure::new("server CPU per join, stay and leave", ratio(cpu_ns as f64 / 1e6, outcome.joined as f64), "ms"),
            Figure::new("packets delivered to visitors", counts.delivered as f64, ""),
            Figure::new("packets wrong", wrong as f64, ""),
            Figure::new("RSS before", mib(before.0), "MiB"),
            Figure::new("RSS after", mib(after.0), "MiB"),
            Figure::new("RSS kept per join", ratio(after.0 as f64 - before.0 as f64, outcome.joined as f64), "bytes"),
            Figure::new("descriptors before", before.1 as f64, ""),
            Figure::new("descriptors after", after.1 as f64, ""),
        ]);
        let load = format!("{} joins at {}/s, each stays {} s", self.joins, self.joins_per_second, self.stay);
        Ok(site.close(condition("churn", load, 1, PUBLISHER.rate.into()), Vec::new(), None, figures))
    }
}
