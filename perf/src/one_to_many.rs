//! One publisher, many subscribers, one room of a running server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tramline::base::ids::Ssrc;
use tramline::crypto::cert::Certificate;
use tramline::proto::dtls::DtlsConfig;
use tramline::runtime::clock;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::herd::{Ear, Herd, Member};
use crate::join::{Door, Seat};
use crate::load::{Load, wait};
use crate::net;
use crate::peer::Peer;
use crate::publisher::Publisher;
use crate::report::{Condition, Report};
use crate::sdp::{self, Credentials, Role};
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
    /// Signalling protocol
    #[arg(long, value_enum, default_value_t = Door::Switchboard)]
    door: Door,
    /// The room
    #[arg(long, default_value = "load")]
    room: String,
}

/// Where the peers go in.
struct Entry<'a> {
    args: &'a OneToMany,
    address: String,
    dtls: DtlsConfig,
    seats: Vec<Seat>,
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
        let certificate = Arc::new(Certificate::generate()?);
        let mut entry = Entry { args: self, address, dtls: DtlsConfig::new(certificate)?, seats: Vec::new() };
        let course = Arc::new(Course::new(clock::now()));
        let mut herds = self.load.herds(&course)?;

        let ssrc = Ssrc(rand::random());
        let (socket, peer) = entry.enter("publisher", Role::Publisher(ssrc), false)?;
        let mut publisher = Publisher::start(Arc::clone(&course), flow, ssrc, socket, peer)?;
        entry.wait_until("the publisher is connected", &herds, || publisher.is_connected())?;
        let started = clock::now();
        for at in 0..self.load.subscribers {
            let (socket, peer) = entry.enter(&format!("subscriber-{at}"), Role::Subscriber, self.load.gro)?;
            let herd = &herds[at % herds.len()];
            herd.admit(Member { socket, ear: Ear::Full(Box::new(peer)) })?;
        }
        let all = |count: fn(&Herd) -> usize| herds.iter().map(count).sum::<usize>() == self.load.subscribers;
        entry.wait_until("every subscriber is connected", &herds, || all(Herd::connected))?;
        let join_seconds = clock::now().saturating_duration_since(started).as_secs_f64();
        entry.wait_until("every subscriber receives", &herds, || all(Herd::flowing))?;

        let read_cpu = || CpuReading::of_process(pid);
        let rounds = self.load.measure(&course, &herds, &read_cpu, &mut || entry.tend())?;
        let unsent = publisher.unsent();
        course.stop();
        publisher.join();
        herds.iter_mut().for_each(Herd::join);
        entry.seats.into_iter().for_each(Seat::leave);
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

impl Entry<'_> {
    /// Joins the room as a new peer.
    fn enter(&mut self, user: &str, role: Role, takes_trains: bool) -> Result<(std::net::UdpSocket, Peer)> {
        let ours = Credentials::random();
        let offer = sdp::offer(role, &ours, &self.dtls.certificate().fingerprint_sha256());
        let args = self.args;
        let (seat, answer) =
            args.door.enter(&self.address, &args.room, user, &offer).with_context(|| format!("{user} joins"))?;
        self.seats.push(seat);
        let remote = sdp::parse_answer(&answer).with_context(|| format!("the answer to {user}:\n{answer}"))?;
        let socket = net::socket(Some(remote.address), takes_trains)?;
        Ok((socket, Peer::new(clock::now(), &ours, remote, self.dtls.clone())))
    }

    fn tend(&mut self) -> Result<()> {
        self.seats.iter_mut().try_for_each(Seat::tend)
    }

    fn wait_until(&mut self, what: &str, herds: &[Herd], is_so: impl Fn() -> bool) -> Result<()> {
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
            wait(LOOK_S, &mut || self.tend())?;
        }
        Ok(())
    }
}
