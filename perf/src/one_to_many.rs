//! One publisher, many subscribers, one room of a running server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::runtime::clock;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::entry::{Entered, Entry, Wish};
use crate::herd::{Ear, Herd, Member};
use crate::join::{DoorArgs, Purpose, Seat};
use crate::load::{Load, wait};
use crate::publisher::Publisher;
use crate::report::{Condition, Report};
use crate::sdp::Section;
use crate::server::Server;

/// Longest wait for keys and first packets.
const PATIENCE_S: f64 = 30.0;
/// How often we look.
const LOOK_S: f64 = 0.02;
/// Seats of our own server beyond the peers of the run.
const SEATS_SPARE: usize = 16;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct OneToMany {
    #[command(flatten)]
    load: Load,
    /// Signalling address of a running server, host:port
    #[arg(long, conflicts_with = "bin", requires = "pid")]
    server: Option<String>,
    /// Process id of the running server
    #[arg(long, requires = "server")]
    pid: Option<u32>,
    /// A tramline binary to start for the run
    #[arg(long, default_value = "target/release/tramline")]
    bin: PathBuf,
    /// Workers of the server that is started
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// A further argument for the server that is started; may come more than once
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    bin_arg: Vec<String>,
    #[command(flatten)]
    door: DoorArgs,
    /// The room
    #[arg(long, default_value = "load")]
    room: String,
}

impl OneToMany {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.load.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let flow = self.load.flow()?;
        let own = self.own_server()?;
        let (address, pid) = match (&own, &self.server, self.pid) {
            (Some(server), ..) => (server.address().to_owned(), server.pid()),
            (None, Some(address), Some(pid)) => (address.clone(), pid),
            _ => bail!("give --server and --pid, or --bin"),
        };
        let entry = Entry::new(&self.door, &address, true)?;
        let mut seats = Vec::new();
        let course = Arc::new(Course::new(clock::now()));
        let mut herds = self.load.herds(&course)?;

        let ssrc = Ssrc(rand::random());
        let sends = [Section { kind: MediaKind::Video, sends: Some(ssrc) }];
        let wish = Wish { sections: &sends, takes_trains: false };
        let Entered { socket, peer, seat, .. } = entry.enter(Purpose::Publish, &self.room, "publisher", &wish)?;
        seats.push(seat);
        let mut publisher = Publisher::start(Arc::clone(&course), flow, ssrc, socket, peer)?;
        wait_until("the publisher is connected", &herds, &mut seats, || publisher.is_connected())?;
        let receives = [Section { kind: MediaKind::Video, sends: None }];
        let wish = Wish { sections: &receives, takes_trains: self.load.gro };
        let started = clock::now();
        for at in 0..self.load.subscribers {
            let user = format!("subscriber-{at}");
            let Entered { socket, peer, seat, .. } = entry.enter(Purpose::Play, &self.room, &user, &wish)?;
            seats.push(seat);
            let herd = &herds[at % herds.len()];
            herd.admit(Member { socket, ear: Ear::Full(Box::new(peer)) })?;
        }
        let all = |count: fn(&Herd) -> usize| herds.iter().map(count).sum::<usize>() == self.load.subscribers;
        wait_until("every subscriber is connected", &herds, &mut seats, || all(Herd::connected))?;
        let join_seconds = clock::now().saturating_duration_since(started).as_secs_f64();
        wait_until("every subscriber receives", &herds, &mut seats, || all(Herd::flowing))?;

        let read_cpu = || CpuReading::of_process(pid);
        let rounds = self.load.measure(&course, &herds, &read_cpu, &mut || tend(&mut seats))?;
        let unsent = publisher.unsent();
        course.stop();
        publisher.join();
        herds.iter_mut().for_each(Herd::join);
        seats.into_iter().for_each(Seat::leave);
        for failure in herds.iter().flat_map(Herd::failures).chain(publisher.failure()) {
            eprintln!("a peer failed: {failure}");
        }
        Ok(Report {
            condition: self.condition(&publisher),
            join_seconds: Some(join_seconds),
            keyframe_requests: publisher.keyframe_requests(),
            unsent,
            rounds,
        })
    }

    fn own_server(&self) -> Result<Option<Server>> {
        if self.server.is_some() {
            return Ok(None);
        }
        let binary = self.bin.canonicalize().with_context(|| format!("there is no {}", self.bin.display()))?;
        Server::start(&binary, self.workers, self.load.subscribers + SEATS_SPARE, &self.bin_arg).map(Some)
    }

    fn condition(&self, publisher: &Publisher) -> Condition {
        Condition {
            scenario: "one-to-many",
            command: std::env::args().collect::<Vec<_>>().join(" "),
            suite: publisher.suite().unwrap_or("none").to_owned(),
            subscribers: self.load.subscribers,
            rate: self.load.rate,
            burst: self.load.burst,
            packet_bytes: self.load.packet_bytes,
            train: None,
            gro: self.load.gro,
            workers: self.server.is_none().then_some(self.workers),
        }
    }
}

fn tend(seats: &mut [Seat]) -> Result<()> {
    seats.iter_mut().try_for_each(Seat::tend)
}

fn wait_until(what: &str, herds: &[Herd], seats: &mut [Seat], is_so: impl Fn() -> bool) -> Result<()> {
    let until = clock::now() + Duration::from_secs_f64(PATIENCE_S);
    while !is_so() {
        if clock::now() >= until {
            let count = |of: fn(&Herd) -> usize| herds.iter().map(of).sum::<usize>();
            let failures: Vec<String> = herds.iter().flat_map(Herd::failures).collect();
            bail!(
                "waited in vain until {what}: {} connected, {} receive; {failures:?}",
                count(Herd::connected),
                count(Herd::flowing)
            );
        }
        wait(LOOK_S, &mut || tend(seats))?;
    }
    Ok(())
}
