//! Measured rounds: a window of packets, the CPU time beside it, what became of them.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tramline::runtime::clock;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::herd::Herd;
use crate::net;
use crate::progress::Progress;
use crate::report::{Measured, Round};
use crate::shared::lock;
use crate::tally::Tally;

/// What came this long after its window was closed is lost.
const DRAIN: Duration = Duration::from_millis(500);

/// When to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Rounds {
    /// Seconds of each measured round
    #[arg(long, short = 'd', default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of media before the first round
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Measured rounds
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Write the report as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
}

/// How the peers receive.
#[derive(clap::Args, Clone, Debug)]
pub struct Ears {
    /// Receivers take whole trains (UDP_GRO), as a network card that segments by itself would let the server send them
    #[arg(long)]
    pub gro: bool,
    /// Receivers never sleep: each thread takes a whole core, and the sender does not pay for waking them
    #[arg(long)]
    pub poll: bool,
    /// Latency until the kernel has the packet, not until the receiving thread has woken up for it
    #[arg(long)]
    pub kernel_time: bool,
    /// Threads that receive
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

impl Ears {
    /// Makes a receiver's socket stamp arrivals, if that is wanted.
    pub fn prepare(&self, socket: &UdpSocket) -> Result<()> {
        if self.kernel_time { net::stamp_arrivals(socket) } else { Ok(()) }
    }

    /// Starts the receiver threads.
    pub fn herds(&self, course: &Arc<Course>) -> Result<Vec<Herd>> {
        if self.threads == 0 {
            bail!("at least one thread receives");
        }
        (0..self.threads)
            .map(|at| Herd::start(Arc::clone(course), self.gro, self.poll, &format!("receiver-{at}")))
            .collect()
    }
}

/// Where the figures come from.
pub struct Meter<'a> {
    /// The run.
    pub course: &'a Course,
    /// Everybody who sends or receives.
    pub herds: &'a [Herd],
    /// Receivers of each packet.
    pub receivers: usize,
    /// Reads the server's CPU time.
    pub read_cpu: &'a dyn Fn() -> Result<CpuReading>,
    /// What somebody beside the herds counts.
    pub also: Option<&'a Mutex<Tally>>,
}

/// One round with what the figures were made of.
pub struct Measurement {
    /// The figures.
    pub round: Round,
    /// What the members counted.
    pub tally: Tally,
    /// What the guests counted.
    pub guests: Tally,
}

impl Rounds {
    /// Warms up and measures. `tend` is called a few times a second.
    pub fn measure(&self, meter: &Meter<'_>, tend: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Round>> {
        if self.rounds == 0 {
            bail!("at least one round is measured");
        }
        let rounds_s = self.rounds as f64 * (self.duration + DRAIN.as_secs_f64());
        let progress = Progress::of(Duration::from_secs_f64(self.warm_up + rounds_s));
        let mut tend = || {
            progress.show();
            tend()
        };
        progress.say("warming up");
        wait(self.warm_up, &mut tend)?;
        let mut rounds = Vec::with_capacity(self.rounds);
        for at in 1..=self.rounds {
            progress.say(format!("round {at} of {}", self.rounds));
            rounds.push(meter.measure(self.duration, &mut tend)?.round);
        }
        Ok(rounds)
    }
}

impl Meter<'_> {
    /// Measures one window.
    pub fn measure(&self, seconds: f64, tend: &mut dyn FnMut() -> Result<()>) -> Result<Measurement> {
        self.course.shut();
        self.herds.iter().for_each(Herd::clear);
        if let Some(also) = self.also {
            lock(also).clear();
        }
        let drops = self.drops();
        let softirqs = CpuReading::of_softirqs();
        let now = clock::now();
        self.course.set_wall(now, clock::wall());
        self.course.open(now);
        let (server, generator) = ((self.read_cpu)()?, CpuReading::of_process(std::process::id())?);
        wait(seconds, tend)?;
        let (server, generator) =
            ((self.read_cpu)()?.since(&server), CpuReading::of_process(std::process::id())?.since(&generator));
        let seconds = self.course.close(clock::now()).as_secs_f64();
        let softirqs = CpuReading::of_softirqs().since(&softirqs);
        std::thread::sleep(DRAIN);
        let (mut tally, mut guests) = (Tally::new()?, Tally::new()?);
        for herd in self.herds {
            let (theirs, of_guests) = herd.tallies();
            tally.add(&theirs)?;
            guests.add(&of_guests)?;
        }
        if let Some(also) = self.also {
            tally.add(&lock(also))?;
        }
        let round = Round::new(&Measured {
            seconds,
            subscribers: self.receivers,
            drops: self.drops().saturating_sub(drops),
            tally: &tally,
            server: &server,
            generator: &generator,
            softirqs: &softirqs,
        });
        Ok(Measurement { round, tally, guests })
    }

    /// Measures one window while a thread of its own does something.
    pub fn measure_beside<T: Send>(
        &self,
        seconds: f64,
        tend: &mut dyn FnMut() -> Result<()>,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Measurement, T)> {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            let measurement = self.measure(seconds, tend);
            let done = work.join().map_err(|_| anyhow!("a thread of this program panicked"))??;
            Ok((measurement?, done))
        })
    }

    fn drops(&self) -> u64 {
        self.herds.iter().map(Herd::drops).sum()
    }
}

/// Sleeps, and tends meanwhile.
pub fn wait(seconds: f64, tend: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    const STEP_S: f64 = 0.25;
    let until = clock::now() + Duration::from_secs_f64(seconds);
    loop {
        tend()?;
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_secs_f64(STEP_S)));
    }
}
