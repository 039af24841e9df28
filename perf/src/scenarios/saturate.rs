//! Where the server ends: the rate is raised until packets are lost, then driven beyond, then lowered again.

use std::time::Duration;

use anyhow::{Result, bail};
use tramline::runtime::clock;

use crate::course::SLICE_NS;
use crate::flow::{Flow, Steady, Voice};
use crate::load::Meter;
use crate::plan::{Person, connections};
use crate::report::{Condition, Figure, Report, Round, ratio};
use crate::site::{Site, SiteArgs, condition};
use crate::tally::{Slice, Tally};

/// Steps up before we give up: from 1000/s by a quarter each this is 86 million.
const STEPS_MAX: usize = 50;
/// The sound beside the video, to see whether it survives.
const VOICE: Voice = Voice { audio_rate: 50, audio_bytes_min: 100, audio_bytes_max: 100 };
/// The pace after the overload, beside what was kept without loss.
const BACK: f64 = 0.5;
/// Seconds it is then watched.
const BACK_S: f64 = 4.0;
/// Seconds of media before the first step.
const WARM_UP_S: f64 = 1.0;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Saturate {
    /// Receivers
    #[arg(long, short = 'n', default_value_t = 50)]
    subscribers: usize,
    #[command(flatten)]
    steady: Steady,
    /// Each step sends so many times as much as the one before
    #[arg(long, default_value_t = 1.25)]
    factor: f64,
    /// Seconds of a step
    #[arg(long, default_value_t = 2.0)]
    step_seconds: f64,
    /// A step that loses more than this share, in percent, is beyond saturation
    #[arg(long, default_value_t = 0.1)]
    lost_percent: f64,
    /// The overload beside what was kept without loss
    #[arg(long, default_value_t = 1.5)]
    overload: f64,
    /// Seconds of overload
    #[arg(long, default_value_t = 5.0)]
    overload_seconds: f64,
    /// Write the report as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
}

impl Saturate {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        if self.factor <= 1.0 || self.overload <= 1.0 {
            bail!("the factor and the overload are above 1");
        }
        let flows = vec![Flow::Steady(self.steady), Flow::Voice(VOICE)];
        flows.iter().try_for_each(Flow::check)?;
        let site = Site::open(&self.site, self.subscribers + 1)?;
        let mut people = vec![Person { sends: flows, ..Person::default() }];
        people.extend(vec![Person { listens: true, ..Person::default() }; self.subscribers]);
        let all = connections(&self.site.room, &people, site.is_one_way(), 0);
        site.admit_all(&all[..1])?;
        let joined = site.admit_all(&all[1..])?;
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let meter = site.meter(self.subscribers, &read_cpu);
        crate::load::wait(WARM_UP_S, &mut || site.tend())?;
        let (mut rounds, kept) = self.climb(&site, &meter)?;
        let clean = rounds.len().saturating_sub(2);
        let mut figures = vec![Figure::new("kept without loss", f64::from(self.steady.rate) * kept, "packets/s in")];
        if let Some(round) = rounds.get(clean) {
            figures.push(Figure::new("delivered at saturation", round.packets_per_s, "packets/s"));
            figures.push(Figure::new("server cores at saturation", round.server_cores, ""));
            figures.push(Figure::new("generator cores at saturation", round.generator_cores, ""));
        }
        let (round, more) = self.overload(&site, &meter, kept)?;
        rounds.push(round);
        figures.extend(more);
        let Steady { burst, packet_bytes, rate, .. } = self.steady;
        let load =
            format!("1 to {}, {packet_bytes} B in bursts of {burst}, from {rate}/s on, audio beside", self.subscribers);
        let condition = condition("saturate", load, self.subscribers, rate.into());
        Ok(site.close(Condition { burst, packet_bytes, ..condition }, rounds, Some(joined), figures))
    }

    /// Raises the pace until packets are lost. Gives the rounds and the last pace without loss.
    fn climb(&self, site: &Site, meter: &Meter<'_>) -> Result<(Vec<Round>, f64)> {
        let (mut rounds, mut pace, mut kept) = (Vec::new(), 1.0, 1.0);
        for _ in 0..STEPS_MAX {
            site.course.set_pace(pace);
            eprint!("\r{:.0} packets/s ...", f64::from(self.steady.rate) * pace);
            let round = meter.measure(self.step_seconds, &mut || site.tend())?.round;
            let asked = f64::from(self.steady.rate) * pace + f64::from(VOICE.audio_rate);
            let is_slow = ratio(round.published as f64, round.seconds) < 0.95 * asked;
            let share = ratio(round.lost as f64, (round.lost + round.delivered) as f64);
            let is_own_fault = round.dropped_here * 2 > round.lost;
            let is_beyond = share * 100.0 > self.lost_percent;
            rounds.push(round);
            if is_slow || is_beyond {
                eprintln!();
                if is_slow {
                    eprintln!("the publisher cannot send faster: this is this program's limit, not the server's");
                } else if is_own_fault {
                    eprintln!("lost at this program's own sockets: take more --threads, or more cores");
                }
                return Ok((rounds, kept));
            }
            kept = pace;
            pace *= self.factor;
        }
        bail!("nothing was lost in {STEPS_MAX} steps");
    }

    /// Goes beyond and back, and looks at what became of it.
    fn overload(&self, site: &Site, meter: &Meter<'_>, kept: f64) -> Result<(Round, Vec<Figure>)> {
        site.course.set_pace(kept * self.overload);
        let back_at = clock::now() + Duration::from_secs_f64(self.overload_seconds);
        let mut back_slice = None;
        let mut tend = || {
            let now = clock::now();
            if now >= back_at && back_slice.is_none() {
                site.course.set_pace(kept * BACK);
                back_slice = site.course.slice(site.course.ns(now));
            }
            site.tend()
        };
        let measurement = meter.measure(self.overload_seconds + BACK_S, &mut tend)?;
        site.course.set_pace(kept * BACK);
        let figures = figures_of(&measurement.tally, back_slice.unwrap_or(0), meter.receivers);
        Ok((measurement.round, figures))
    }
}

/// What an overload did, from the slices of a window in which it ended in slice `back`.
fn figures_of(tally: &Tally, back: usize, receivers: usize) -> Vec<Figure> {
    let lost = |slice: &Slice| (slice.published * receivers as u64).saturating_sub(slice.delivered);
    let expected = |slices: &[Slice]| slices.iter().map(|slice| slice.published * receivers as u64).sum::<u64>();
    let (over, after) = tally.slices.split_at(back.min(tally.slices.len()));
    let lost_over: u64 = over.iter().map(lost).sum();
    let lost_after: u64 = after.iter().map(lost).sum();
    let last_loss = after.iter().rposition(|slice| lost(slice) > 0).map_or(0, |at| at + 1);
    let audio_expected = tally.audio.published * receivers as u64;
    vec![
        Figure::new("lost while overloaded", 100.0 * ratio(lost_over as f64, expected(over) as f64), "%"),
        Figure::new("lost after the overload", lost_after as f64, "packets"),
        Figure::new("until nothing was lost any more", last_loss as f64 * SLICE_NS as f64 / 1e9, "s"),
        Figure::new(
            "audio delivered throughout",
            100.0 * ratio(tally.audio.delivered as f64, audio_expected as f64),
            "%",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_counted_from_the_end_of_the_overload() {
        let mut tally = Tally::new().unwrap();
        let slice = |published, delivered| Slice { published, delivered };
        tally.slices = vec![slice(10, 10), slice(10, 20), slice(10, 19), slice(10, 20), slice(10, 18), slice(10, 20)];
        tally.audio = slice(5, 9);
        let values = |back| figures_of(&tally, back, 2).into_iter().map(|figure| figure.value).collect::<Vec<_>>();
        assert_eq!(values(2), [25.0, 3.0, 0.3, 90.0]);
        assert_eq!(values(5)[1..3], [0.0, 0.0]);
        assert_eq!(values(99)[2], 0.0, "beyond the window");
    }
}
