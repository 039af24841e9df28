//! A few who speak, many who listen.

use anyhow::{Result, bail};

use crate::flow::{Flow, Voice};
use crate::load::Rounds;
use crate::plan::{Person, connections};
use crate::report::{Condition, Report};
use crate::site::{Site, SiteArgs, condition};

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct AudioRoom {
    /// Those who speak, all at once
    #[arg(long, short = 'k', default_value_t = 5)]
    speakers: usize,
    /// Those who listen
    #[arg(long, short = 'n', default_value_t = 200)]
    listeners: usize,
    /// Packets per second of each speaker
    #[arg(long, short = 'r', default_value_t = 50)]
    rate: u32,
    /// RTP header and payload of a packet in bytes, without the SRTP tag
    #[arg(long, default_value_t = 100)]
    packet_bytes: usize,
    /// All speakers send at the same moment; else their moments are spread evenly over the interval
    #[arg(long)]
    together: bool,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    site: SiteArgs,
}

impl AudioRoom {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let Self { speakers, listeners, rate, packet_bytes, together, .. } = *self;
        if speakers == 0 || listeners == 0 {
            bail!("somebody speaks and somebody listens");
        }
        let flow =
            Flow::Voice(Voice { audio_rate: rate, audio_bytes_min: packet_bytes, audio_bytes_max: packet_bytes });
        flow.check()?;
        let mut people: Vec<Person> = (0..speakers)
            .map(|at| Person { sends: vec![flow], phase: Some(phase(at, speakers, together)), listens: false })
            .collect();
        people.extend(vec![Person { listens: true, ..Person::default() }; listeners]);
        let site = Site::open(&self.site, speakers * listeners + speakers)?;
        let joined = site.admit_all(&connections(&self.site.room, &people, site.is_one_way(), 0))?;
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let rounds = self.rounds.measure(&site.meter(listeners, &read_cpu), &mut || site.tend())?;
        let when = if together { "together" } else { "one after another" };
        let load = format!("{speakers} speakers to {listeners}, {packet_bytes} B, {rate}/s each, {when}");
        let all = f64::from(rate) * speakers as f64;
        let condition = Condition { burst: 1, packet_bytes, ..condition("audio-room", load, listeners, all) };
        Ok(site.close(condition, rounds, Some(joined), Vec::new()))
    }
}

/// Where source `at` of `count` sends in its interval.
pub fn phase(at: usize, count: usize, together: bool) -> f64 {
    if together { 0.0 } else { at as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speakers_are_spread_over_the_interval() {
        assert_eq!([0, 1, 2, 3].map(|at| phase(at, 4, false)), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(phase(3, 4, true), 0.0);
    }
}
