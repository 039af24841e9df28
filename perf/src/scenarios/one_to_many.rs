//! One publisher, many subscribers, one room.

use anyhow::Result;

use crate::flow::{Flow, Steady};
use crate::load::Rounds;
use crate::plan::{Person, connections};
use crate::report::{Condition, Report};
use crate::site::{Site, SiteArgs, condition};

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct OneToMany {
    /// Receivers
    #[arg(long, short = 'n', default_value_t = 50)]
    subscribers: usize,
    #[command(flatten)]
    steady: Steady,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    site: SiteArgs,
}

impl OneToMany {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let flow = Flow::Steady(self.steady);
        flow.check()?;
        let site = Site::open(&self.site, self.subscribers + 1)?;
        let (publisher, subscribers) = people(flow, self.subscribers);
        let all = connections(&self.site.room, &[publisher, subscribers].concat(), site.is_one_way(), 0);
        let (publisher, subscribers) = all.split_at(1);
        site.admit_all(publisher)?;
        let joined = site.admit_all(subscribers)?;
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let meter = site.meter(self.subscribers, &read_cpu);
        let rounds = self.rounds.measure(&meter, &mut || site.tend())?;
        Ok(site.close(self.condition(), rounds, Some(joined), Vec::new()))
    }

    fn condition(&self) -> Condition {
        let Steady { rate, burst, packet_bytes, .. } = self.steady;
        let load = steady_load(self.subscribers, &self.steady);
        Condition { burst, packet_bytes, ..condition("one-to-many", load, self.subscribers, rate.into()) }
    }
}

/// One who sends, many who receive.
pub fn people(flow: Flow, subscribers: usize) -> (Vec<Person>, Vec<Person>) {
    let publisher = Person { sends: vec![flow], ..Person::default() };
    (vec![publisher], vec![Person { listens: true, ..Person::default() }; subscribers])
}

/// The load in words.
pub fn steady_load(subscribers: usize, steady: &Steady) -> String {
    let Steady { rate, burst, packet_bytes, .. } = steady;
    format!("1 to {subscribers}, {packet_bytes} B, {rate}/s in bursts of {burst}")
}
