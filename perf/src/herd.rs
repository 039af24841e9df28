//! Many peers in one thread: epoll over their sockets, every packet decrypted and checked, every frame sent in time.
//!
//! Owns: the peers, each with its own socket as a real client has. The tally is shared with whoever reports.
//! Promises: the clock is read once per batch of datagrams, so latency includes what a batch waited for the thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver as Arrivals, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tramline::runtime::clock;

use crate::course::Course;
use crate::member::{Inmate, Member};
use crate::net::{Batch, Reader};
use crate::shared::{Shared, lock};
use crate::tally::Tally;

/// Timers are looked at this often; the finest of them is 20 ms.
const TICK: Duration = Duration::from_millis(10);
/// Sockets reported ready by one wait.
const EVENTS: usize = 256;
/// A few keyframes before memory grows.
const BATCH_BYTES: usize = 1 << 17;
/// Longest wait for a thread to look at its sockets.
const CENSUS_PATIENCE: Duration = Duration::from_secs(2);

/// A thread of peers.
pub struct Herd {
    entrance: Sender<Member>,
    shared: Arc<Shared>,
    takes_trains: bool,
    thread: Option<JoinHandle<()>>,
}

impl Herd {
    /// Starts the thread. It ends with the course. One that polls never sleeps, so nobody pays for waking it.
    pub fn start(course: Arc<Course>, takes_trains: bool, polls: bool, name: &str) -> Result<Self> {
        let (entrance, arrivals) = channel();
        let shared = Arc::new(Shared::new()?);
        let pen = Pen {
            course,
            shared: Arc::clone(&shared),
            arrivals,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            members: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            reader: Reader::new(takes_trains),
            batch: Batch::new(BATCH_BYTES),
            polls,
            drops_of_the_gone: 0,
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| pen.run())?;
        Ok(Self { entrance, shared, takes_trains, thread: Some(thread) })
    }

    /// Takes a peer in.
    pub fn admit(&self, member: Member) -> Result<()> {
        self.entrance.send(member).ok().context("the receiver thread has ended")
    }

    /// Whether its members' sockets must take whole trains.
    pub fn takes_trains(&self) -> bool {
        self.takes_trains
    }

    /// What the thread tells.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        lock(&self.shared.tally).clear();
        lock(&self.shared.guests).clear();
    }

    /// What was counted since the last `clear`: by members, by guests.
    pub fn tallies(&self) -> (Tally, Tally) {
        (lock(&self.shared.tally).clone(), lock(&self.shared.guests).clone())
    }

    /// Datagrams that came in time and were not read in time: the generator's own losses, since its start.
    pub fn drops(&self) -> u64 {
        self.shared.ask_for_census();
        let until = clock::now() + CENSUS_PATIENCE;
        while self.shared.wants_census() && clock::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.shared.drops()
    }

    /// Waits for the thread; the course must have been stopped.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Pen {
    course: Arc<Course>,
    shared: Arc<Shared>,
    arrivals: Arrivals<Member>,
    epoll: rustix::fd::OwnedFd,
    members: Vec<Option<Inmate>>,
    free: Vec<usize>,
    /// The sources of connected members by when their next frame is due.
    due: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    reader: Reader,
    batch: Batch,
    polls: bool,
    drops_of_the_gone: u64,
}

impl Pen {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut tick_at = clock::now();
        while !self.course.is_stopping() {
            self.take_in();
            events.clear();
            let timeout = self.timeout(tick_at);
            // An interruption is a short wait.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout));
            self.read(&events);
            self.play();
            let now = clock::now();
            if now >= tick_at {
                tick_at = now + TICK;
                self.handle_timeout(now);
                self.hold_census();
            }
        }
    }

    fn timeout(&self, tick_at: Instant) -> Timespec {
        let next = self.due.peek().map_or(tick_at, |Reverse((at, ..))| tick_at.min(*at));
        let wait = if self.polls { Duration::ZERO } else { next.saturating_duration_since(clock::now()) };
        Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
    }

    fn take_in(&mut self) {
        while let Ok(member) = self.arrivals.try_recv() {
            let at = self.free.pop().unwrap_or(self.members.len());
            let data = epoll::EventData::new_u64(at as u64);
            if let Err(error) = epoll::add(&self.epoll, &member.socket, data, epoll::EventFlags::IN) {
                lock(&self.shared.failures).push(format!("epoll: {error}"));
            }
            let inmate = Inmate::new(clock::now(), member);
            match self.members.get_mut(at) {
                Some(place) => *place = Some(inmate),
                None => self.members.push(Some(inmate)),
            }
        }
    }

    fn schedule(&mut self, at: usize, inmate: &mut Inmate) {
        for (nth, due) in inmate.take_started(&self.course).into_iter().enumerate() {
            self.due.push(Reverse((due, at, nth)));
        }
    }

    fn read(&mut self, events: &[epoll::Event]) {
        let shared = Arc::clone(&self.shared);
        let (mut tally, mut guests) = (lock(&shared.tally), lock(&shared.guests));
        for event in events {
            let at = event.data.u64() as usize;
            let Some(Some(member)) = self.members.get_mut(at) else { continue };
            let tally = if member.is_guest() { &mut *guests } else { &mut *tally };
            member.read_all(&self.course, &shared, &mut self.reader, tally);
            if member.has_just_connected() {
                let Some(mut member) = self.members[at].take() else { continue };
                self.schedule(at, &mut member);
                self.members[at] = Some(member);
            }
        }
    }

    fn play(&mut self) {
        let now = clock::now();
        if self.due.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (mut tally, mut guests) = (lock(&shared.tally), lock(&shared.guests));
        while let Some(Reverse((due, at, nth))) = self.due.pop() {
            if due > now {
                self.due.push(Reverse((due, at, nth)));
                break;
            }
            // Its member may have gone, and another may have its place: then the source's due time is another.
            let Some(Some(member)) = self.members.get_mut(at) else { continue };
            let tally = if member.is_guest() { &mut *guests } else { &mut *tally };
            if let Some(next) = member.play(nth, due, now, &self.course, &shared, &mut self.batch, tally) {
                self.due.push(Reverse((next, at, nth)));
            }
        }
        shared.refused.store(self.batch.refused, Ordering::Relaxed);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let (mut tally, mut guests) = (lock(&shared.tally), lock(&shared.guests));
        for (at, place) in self.members.iter_mut().enumerate() {
            let Some(member) = place else { continue };
            if member.is_dismissed() {
                self.drops_of_the_gone += member.drops();
                member.leave(&shared);
                *place = None;
                self.free.push(at);
                continue;
            }
            let tally = if member.is_guest() { &mut *guests } else { &mut *tally };
            member.handle_timeout(now, &self.course, &shared, tally);
        }
    }

    fn hold_census(&self) {
        if self.shared.wants_census() {
            let drops: u64 = self.members.iter().flatten().map(Inmate::drops).sum();
            self.shared.answer_census(drops + self.drops_of_the_gone);
        }
    }
}
