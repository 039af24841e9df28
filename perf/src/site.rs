//! The place of a run: the server, the threads of peers, and everybody who has come in.
//!
//! Owns: the server if we started it, the seats, the threads. Dropped, all of it ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tramline::base::ids::Ssrc;
use tramline::runtime::clock;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::entry::{Entered, Entry, Wish};
use crate::herd::Herd;
use crate::join::{DoorArgs, Seat};
use crate::load::{Ears, Meter, wait};
use crate::member::{Badge, Ear, Member};
use crate::plan::Connection;
use crate::receiver::{Hearing, Receiver};
use crate::report::{Condition, Figure, Report, Round};
use crate::sdp::Section;
use crate::server::Server;
use crate::shared::lock;
use crate::source::Source;
use crate::suite::Suite;
use crate::whip::Purpose;

/// Longest wait for keys and first packets without any progress.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often we look.
const LOOK_S: f64 = 0.02;
/// Signalling of thousands of peers is read this often: pings and notices can wait.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Seats of our own server beyond the peers of the run.
const SEATS_SPARE: usize = 64;
/// Joins at the same time: signalling waits for the server's control side, which takes one after another.
const JOINERS: usize = 4;
/// Handshakes at the same time: each is a few milliseconds of both sides' CPU, and a queue of more would time out.
const HANDSHAKES_MAX: usize = 64;

/// The server, and how peers come to it.
#[derive(clap::Args, Clone, Debug)]
pub struct SiteArgs {
    /// Signalling address of a running server, host:port
    #[arg(long, conflicts_with = "bin", requires = "pid")]
    pub server: Option<String>,
    /// Process id of the running server; may come more than once, as for a server with children
    #[arg(long, requires = "server")]
    pub pid: Vec<u32>,
    /// A tramline binary to start for the run
    #[arg(long, default_value = "target/release/tramline")]
    pub bin: PathBuf,
    /// Workers of the server that is started
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// A further argument for the server that is started; may come more than once
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub bin_arg: Vec<String>,
    #[command(flatten)]
    pub door: DoorArgs,
    /// The room, or the beginning of the rooms' names
    #[arg(long, default_value = "load")]
    pub room: String,
    /// Do not offer transport-wide congestion control
    #[arg(long)]
    pub no_twcc: bool,
    /// Receivers throw away this share of their packets, in percent, and ask for them again by NACK
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub loss: f64,
    /// This share of what publishers send is lost on the way, in percent, until the server asks for it
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub publisher_loss: f64,
    /// The run fails if the server chooses another SRTP suite
    #[arg(long, value_enum)]
    pub expect_suite: Option<Suite>,
    #[command(flatten)]
    pub ears: Ears,
}

/// See the module.
pub struct Site {
    args: SiteArgs,
    own: Option<Server>,
    pids: Vec<u32>,
    entry: Entry,
    /// What the threads share.
    pub course: Arc<Course>,
    /// The last one is the publishers'.
    herds: Vec<Herd>,
    seats: Mutex<Vec<Seat>>,
    tend_at: Mutex<Instant>,
    admitted: AtomicUsize,
    listeners: AtomicUsize,
    next_herd: AtomicUsize,
}

/// A peer that has been let in.
pub struct Guest {
    /// What is known of it.
    pub badge: Arc<Badge>,
    /// Its place; to leave it is to leave the room.
    pub seat: Seat,
    /// Whether media is to come.
    pub listens: bool,
}

impl Site {
    /// Starts the server, or finds it, and the threads. `seats` is how many peers there will be at once.
    pub fn open(args: &SiteArgs, seats: usize) -> Result<Self> {
        if [args.loss, args.publisher_loss].iter().any(|loss| !(0.0..100.0).contains(loss)) {
            bail!("--loss and --publisher-loss are percentages below 100");
        }
        let own = match &args.server {
            Some(_) => None,
            None => {
                let binary = args.bin.canonicalize().with_context(|| format!("there is no {}", args.bin.display()))?;
                Some(Server::start(&binary, args.workers, seats + SEATS_SPARE, &args.bin_arg)?)
            }
        };
        let (address, pids) = match (&own, &args.server) {
            (Some(server), _) => (server.address().to_owned(), vec![server.pid()]),
            (None, Some(address)) => (address.clone(), args.pid.clone()),
            (None, None) => bail!("give --server and --pid, or --bin"),
        };
        let course = Arc::new(Course::new(clock::now()));
        let mut herds = args.ears.herds(&course)?;
        herds.push(Herd::start(Arc::clone(&course), false, false, "publisher")?);
        Ok(Self {
            entry: Entry::new(&args.door, &address, !args.no_twcc)?,
            args: args.clone(),
            own,
            pids,
            course,
            herds,
            seats: Mutex::default(),
            tend_at: Mutex::new(clock::now()),
            admitted: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            next_herd: AtomicUsize::new(0),
        })
    }

    /// Whether each publisher needs a room of its own.
    pub fn is_one_way(&self) -> bool {
        self.entry.is_one_way()
    }

    /// How peers come in.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The threads of peers.
    pub fn herds(&self) -> &[Herd] {
        &self.herds
    }

    /// Keeps the seat of somebody who came in by [`Site::entry`].
    pub fn keep(&self, seat: Seat) {
        lock(&self.seats).push(seat);
    }

    /// The server's processes.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Lets one peer in. It is not waited for.
    pub fn admit(&self, connection: &Connection, is_guest: bool) -> Result<Guest> {
        let sources: Vec<Ssrc> = connection.sends.iter().map(|_| Ssrc(rand::random())).collect();
        let sends = connection.sends.iter().zip(&sources);
        let mut sections: Vec<Section> =
            sends.map(|(track, ssrc)| Section { kind: track.flow.kind(), sends: Some(*ssrc) }).collect();
        sections.extend(connection.receives.iter().map(|&kind| Section { kind, sends: None }));
        let herd = self.herd_for(connection)?;
        let wish = Wish { sections: &sections, takes_trains: herd.takes_trains() };
        let Entered { socket, peer, sections: agreed, repairs, seat } =
            self.entry.enter(connection.purpose, &connection.room, &connection.user, &wish)?;
        self.args.ears.prepare(&socket)?;
        let now = clock::now();
        let mut begun = Vec::with_capacity(sources.len());
        for ((track, ssrc), agreed) in connection.sends.iter().zip(sources).zip(&agreed) {
            let agreed = agreed.with_context(|| format!("{} may not send", connection.user))?;
            begun.push(Source::new(now, *track, ssrc, agreed, self.args.publisher_loss / 100.0));
        }
        let heard: Vec<_> = agreed.iter().skip(begun.len()).flatten().copied().collect();
        if heard.len() < connection.receives.len() {
            bail!("{} may receive only {} of {}", connection.user, heard.len(), connection.receives.len());
        }
        let hearing = Hearing { streams: heard.len(), agreed: heard, repairs, loss: self.args.loss / 100.0 };
        let badge = Arc::new(Badge::default());
        herd.admit(Member {
            socket,
            ear: Ear::Full(Box::new(peer)),
            receiver: Receiver::new(now, hearing),
            sources: begun,
            badge: Arc::clone(&badge),
            is_guest,
        })?;
        Ok(Guest { badge, seat, listens: !connection.receives.is_empty() })
    }

    /// Lets all these peers in, a few at a time, and waits until they have their keys. Gives how long it took.
    pub fn admit_all(&self, connections: &[Connection]) -> Result<Duration> {
        let started = clock::now();
        if self.is_one_way() {
            // Nobody can be played who is not there.
            let players = connections.partition_point(|connection| connection.purpose == Purpose::Publish);
            let (publishers, players) = connections.split_at(players);
            self.admit_phase(publishers)?;
            self.admit_phase(players)?;
        } else {
            self.admit_phase(connections)?;
        }
        Ok(clock::now().saturating_duration_since(started))
    }

    fn admit_phase(&self, connections: &[Connection]) -> Result<()> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..JOINERS.min(connections.len()) {
                scope.spawn(|| {
                    while let Some(connection) = connections.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.take_turn().and_then(|()| self.admit(connection, false));
                        match result {
                            Ok(guest) => {
                                lock(&self.seats).push(guest.seat);
                                self.admitted.fetch_add(1, Ordering::AcqRel);
                                let listens = usize::from(!connection.receives.is_empty());
                                self.listeners.fetch_add(listens, Ordering::AcqRel);
                            }
                            Err(error) => {
                                lock(&failure).get_or_insert(error);
                                next.store(connections.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(error);
        }
        self.wait_for("every peer is connected", Self::connected, self.admitted.load(Ordering::Acquire))?;
        match (self.args.expect_suite.map(|suite| suite.srtp().name()), self.suite()) {
            (Some(expected), Some(suite)) if suite != expected => bail!("the server chose {suite}, not {expected}"),
            _ => Ok(()),
        }
    }

    /// Waits until everybody receives all their streams.
    pub fn wait_until_served(&self) -> Result<()> {
        self.wait_for("everybody receives everything", Self::served, self.listeners.load(Ordering::Acquire))
    }

    /// Measures.
    pub fn meter<'a>(&'a self, receivers: usize, read_cpu: &'a dyn Fn() -> Result<CpuReading>) -> Meter<'a> {
        Meter { course: &self.course, herds: &self.herds, receivers, read_cpu, also: None }
    }

    /// CPU time the server has used.
    pub fn read_cpu(&self) -> Result<CpuReading> {
        CpuReading::of_processes(&self.pids)
    }

    /// Reads what signalling has to say. An error: the server has closed a connection.
    pub fn tend(&self) -> Result<()> {
        let now = clock::now();
        let mut tend_at = lock(&self.tend_at);
        if now < *tend_at {
            return Ok(());
        }
        *tend_at = now + TEND_EVERY;
        lock(&self.seats).iter_mut().try_for_each(Seat::tend)
    }

    /// Everybody leaves, the threads end. Makes the report.
    pub fn close(
        mut self,
        condition: Condition,
        rounds: Vec<Round>,
        joined: Option<Duration>,
        figures: Vec<Figure>,
    ) -> Report {
        let sum = |of: fn(&Herd) -> u64| self.herds.iter().map(of).sum::<u64>();
        let unsent = (
            sum(|herd| herd.shared().refused.load(Ordering::Relaxed)),
            sum(|herd| herd.shared().skipped.load(Ordering::Relaxed)),
        );
        let keyframe_requests = sum(|herd| herd.shared().keyframe_requests.load(Ordering::Relaxed));
        let suite = self.suite();
        self.failures().iter().for_each(|failure| eprintln!("a peer failed: {failure}"));
        self.end();
        Report {
            condition: Condition {
                suite: suite.unwrap_or("none").to_owned(),
                gro: self.args.ears.gro,
                workers: self.args.server.is_none().then_some(self.args.workers),
                ..condition
            },
            join_seconds: joined.map(|joined| joined.as_secs_f64()),
            keyframe_requests,
            unsent,
            figures,
            rounds,
        }
    }

    fn end(&mut self) {
        self.course.stop();
        self.herds.iter_mut().for_each(Herd::join);
        let seats = std::mem::take(&mut *lock(&self.seats));
        // A server of our own is ended at once; others are left as they were.
        if self.own.take().is_none() {
            seats.into_iter().for_each(Seat::leave);
        }
    }

    /// Those who only send have a thread of their own, so that receiving does not delay it.
    fn herd_for(&self, connection: &Connection) -> Result<&Herd> {
        let (publishers, receivers) = self.herds.split_last().context("there are no threads")?;
        if connection.receives.is_empty() {
            return Ok(publishers);
        }
        let at = self.next_herd.fetch_add(1, Ordering::Relaxed);
        receivers.get(at % receivers.len()).context("there are no receivers")
    }

    /// Waits until few handshakes are going on.
    fn take_turn(&self) -> Result<()> {
        let until = clock::now() + PATIENCE;
        while self.admitted.load(Ordering::Acquire) >= self.connected() + HANDSHAKES_MAX {
            if clock::now() >= until {
                bail!("handshakes do not come to an end: {:?}", self.failures());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn suite(&self) -> Option<&'static str> {
        self.herds.iter().find_map(|herd| *lock(&herd.shared().suite))
    }

    fn connected(&self) -> usize {
        self.herds.iter().map(|herd| herd.shared().connected.load(Ordering::Acquire)).sum()
    }

    fn served(&self) -> usize {
        self.herds.iter().map(|herd| herd.shared().served.load(Ordering::Acquire)).sum()
    }

    fn failures(&self) -> Vec<String> {
        self.herds.iter().flat_map(|herd| lock(&herd.shared().failures).clone()).collect()
    }

    /// Waits as long as there is progress.
    fn wait_for(&self, what: &str, count: impl Fn(&Self) -> usize, enough: usize) -> Result<()> {
        let (mut until, mut last) = (clock::now() + PATIENCE, 0);
        loop {
            let now = count(self);
            if now >= enough {
                return Ok(());
            }
            if now > last {
                (until, last) = (clock::now() + PATIENCE, now);
            }
            if clock::now() >= until {
                bail!("waited in vain until {what}: {now} of {enough}; {:?}", self.failures());
            }
            wait(LOOK_S, &mut || self.tend())?;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
    }
}

/// The condition of a scenario; what only the site knows is filled in when it closes.
pub fn condition(scenario: &'static str, load: String, subscribers: usize, rate: f64) -> Condition {
    Condition {
        scenario,
        load,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        suite: String::new(),
        subscribers,
        rate: rate as u32,
        burst: 0,
        packet_bytes: 0,
        train: None,
        gro: false,
        workers: None,
    }
}
