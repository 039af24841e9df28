//! What all scenarios with one publisher share: the flow, the receivers, the measured rounds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tramline::runtime::clock;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::herd::Herd;
use crate::progress::Progress;
use crate::publisher::Flow;
use crate::report::{Measured, Round};
use crate::stamp::PAYLOAD_BYTES_MIN;
use crate::tally::Tally;

/// What came this long after its window was closed is lost.
const DRAIN: Duration = Duration::from_millis(500);
/// The shortest RTP header.
const HEADER_BYTES: usize = 12;
/// An Ethernet MTU without IP, UDP and the longest tag.
const PACKET_BYTES_MAX: usize = 1400;

/// Settings of the load.
#[derive(clap::Args, Clone, Debug)]
pub struct Load {
    /// Receivers
    #[arg(long, short = 'n', default_value_t = 50)]
    pub subscribers: usize,
    /// Packets the publisher sends per second
    #[arg(long, short = 'r', default_value_t = 1000)]
    pub rate: u32,
    /// Packets sent together
    #[arg(long, short = 'b', default_value_t = 10)]
    pub burst: u32,
    /// RTP header and payload of a packet in bytes, without the SRTP tag
    #[arg(long, default_value_t = 1200)]
    pub packet_bytes: usize,
    /// Packets from one keyframe to the next
    #[arg(long, default_value_t = 1000)]
    pub keyframe_every: u64,
    /// Seconds of each measured round
    #[arg(long, short = 'd', default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of media before the first round
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Measured rounds
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Receivers take whole trains (UDP_GRO), as a network card that segments by itself would let the server send them
    #[arg(long)]
    pub gro: bool,
    /// Receivers never sleep: each thread takes a whole core, and the sender does not pay for waking them
    #[arg(long)]
    pub poll: bool,
    /// Threads that receive
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Write the report as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
}

impl Load {
    /// What the publisher sends; says what cannot be.
    pub fn flow(&self) -> Result<Flow> {
        if self.burst == 0 || self.rate < self.burst || self.subscribers == 0 || self.threads == 0 || self.rounds == 0 {
            bail!("burst, subscribers, threads and rounds must be at least 1, and the rate no less than the burst");
        }
        if !(HEADER_BYTES + PAYLOAD_BYTES_MIN..=PACKET_BYTES_MAX).contains(&self.packet_bytes) {
            bail!("a packet has {} to {PACKET_BYTES_MAX} bytes", HEADER_BYTES + PAYLOAD_BYTES_MIN);
        }
        Ok(Flow {
            rate: self.rate,
            burst: self.burst,
            packet_bytes: self.packet_bytes,
            keyframe_every: self.keyframe_every.max(1),
        })
    }

    /// Starts the receiver threads.
    pub fn herds(&self, course: &Arc<Course>) -> Result<Vec<Herd>> {
        (0..self.threads)
            .map(|at| Herd::start(Arc::clone(course), self.gro, self.poll, &format!("receiver-{at}")))
            .collect()
    }

    /// Warms up and measures. `read_cpu` reads the server's time; `tend` is called a few times a second.
    pub fn measure(
        &self,
        course: &Course,
        herds: &[Herd],
        read_cpu: &dyn Fn() -> Result<CpuReading>,
        tend: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Round>> {
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
            rounds.push(self.measure_once(course, herds, read_cpu, &mut tend)?);
        }
        Ok(rounds)
    }

    fn measure_once(
        &self,
        course: &Course,
        herds: &[Herd],
        read_cpu: &dyn Fn() -> Result<CpuReading>,
        tend: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Round> {
        herds.iter().for_each(Herd::clear);
        // The window begins and ends ahead of the publisher, so that no packet of it is already on its way.
        let ahead = 2 * u64::from(self.burst);
        let started = clock::now();
        course.open(course.sent() + ahead);
        let softirqs = CpuReading::of_softirqs();
        let (server, generator) = (read_cpu()?, CpuReading::of_process(std::process::id())?);
        wait(self.duration, tend)?;
        let (server, generator) =
            (read_cpu()?.since(&server), CpuReading::of_process(std::process::id())?.since(&generator));
        let softirqs = CpuReading::of_softirqs().since(&softirqs);
        let published = course.close(course.sent() + ahead);
        let seconds = clock::now().saturating_duration_since(started).as_secs_f64();
        std::thread::sleep(DRAIN);
        let mut tally = Tally::new()?;
        herds.iter().try_for_each(|herd| tally.add(&herd.tally()))?;
        Ok(Round::new(&Measured {
            seconds,
            published,
            subscribers: self.subscribers,
            tally: &tally,
            server: &server,
            generator: &generator,
            softirqs: &softirqs,
        }))
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
