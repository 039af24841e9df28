//! People who come and go at a rate, while others are measured.
//!
//! Owns: those who are inside, and how long each had to wait. Joins are made by a few threads, since signalling waits
//! for answers; when they fall behind, the rate reached says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tramline::runtime::clock;

use crate::plan::Connection;
use crate::report::{Figure, ratio};
use crate::shared::lock;
use crate::site::{Guest, Site};

/// Threads that join and leave.
const HANDS: usize = 16;
/// How often those inside are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Who has no keys and no media after this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest join that is told apart, in microseconds.
const JOIN_US_MAX: u64 = 60_000_000;

/// Who comes and goes.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Joins begun per second.
    pub joins_per_s: f64,
    /// Joins altogether.
    pub total: usize,
    /// How long each one stays after it is served.
    pub stay: Duration,
}

/// What became of them.
#[derive(Debug)]
pub struct Outcome {
    /// Joins that ended with keys and, if media was to come, with media.
    pub joined: usize,
    /// Joins that did not; with the first reason.
    pub failed: usize,
    /// The first reason.
    pub reason: Option<String>,
    /// From the first join to the last one's keys.
    pub took: Duration,
    /// When that was.
    last: Option<Instant>,
    /// From the first word of signalling to the keys, in microseconds.
    pub connected_us: Histogram<u64>,
    /// From the first word of signalling to the first packet of the last stream, in microseconds.
    pub served_us: Histogram<u64>,
}

/// One who is inside.
struct Visitor {
    began: Instant,
    guest: Guest,
    is_connected: bool,
    leave_at: Option<Instant>,
}

impl Crowd {
    /// Lets them come and go; returns when all have gone. `connection` makes the nth one's connection.
    pub fn run(&self, site: &Site, connection: &(dyn Fn(usize) -> Connection + Sync)) -> Result<Outcome> {
        if self.joins_per_s <= 0.0 || self.total == 0 {
            bail!("somebody comes, and at more than 0 per second");
        }
        let mut outcome = Outcome::new()?;
        let (arrive, arrivals) = mpsc::channel();
        let (go, leavers) = mpsc::channel();
        let gate = Gate {
            crowd: self,
            site,
            connection,
            started: clock::now(),
            next: AtomicUsize::new(0),
            leavers: Mutex::new(leavers),
            failure: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 0..HANDS {
                let (gate, arrive) = (&gate, arrive.clone());
                scope.spawn(move || gate.work(&arrive));
            }
            drop(arrive);
            self.watch(&gate, &arrivals, go, &mut outcome)
        })?;
        let (failed, reason) = gate.failure.into_inner().unwrap_or_default();
        outcome.failed += failed;
        outcome.reason = reason.or(outcome.reason);
        outcome.took = outcome.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(gate.started));
        Ok(outcome)
    }

    /// Looks after those inside until the last one has gone.
    fn watch(
        &self,
        gate: &Gate<'_>,
        arrivals: &mpsc::Receiver<Visitor>,
        go: mpsc::Sender<Guest>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut inside: VecDeque<Visitor> = VecDeque::new();
        loop {
            inside.extend(arrivals.try_iter());
            let now = clock::now();
            let mut staying = VecDeque::with_capacity(inside.len());
            for mut visitor in inside.drain(..) {
                if outcome.look_at(&mut visitor, gate.site, now, self.stay) {
                    staying.push_back(visitor);
                } else {
                    // Nobody left to take it: then everything ends anyway.
                    let _ = go.send(visitor.guest);
                }
            }
            inside = staying;
            let over = outcome.joined + outcome.failed + lock(&gate.failure).0;
            if over >= self.total && inside.is_empty() {
                return Ok(());
            }
            if now > gate.started + self.limit() {
                bail!("{over} of {} have come and gone, the others do not: {:?}", self.total, lock(&gate.failure).1);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ten times as long as it should take.
    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.total as f64 / self.joins_per_s).mul_f64(10.0) + self.stay + 3 * PATIENCE
    }
}

/// What the threads share that join and leave.
struct Gate<'a> {
    crowd: &'a Crowd,
    site: &'a Site,
    connection: &'a (dyn Fn(usize) -> Connection + Sync),
    started: Instant,
    next: AtomicUsize,
    leavers: Mutex<mpsc::Receiver<Guest>>,
    /// Joins that were refused, and the first reason.
    failure: Mutex<(usize, Option<String>)>,
}

impl Gate<'_> {
    /// Lets people in and out until nobody is left to come or go.
    fn work(&self, arrive: &mpsc::Sender<Visitor>) {
        loop {
            let leaver = lock(&self.leavers).try_recv();
            match leaver {
                Ok(guest) => {
                    guest.badge.dismiss();
                    guest.seat.leave();
                }
                Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => match self.take_number() {
                    Some(nth) => self.admit(nth, arrive),
                    None => std::thread::sleep(Duration::from_millis(1)),
                },
            }
        }
    }

    /// The number of a join that is due.
    fn take_number(&self) -> Option<usize> {
        let due = |nth: usize| self.started + Duration::from_secs_f64(nth as f64 / self.crowd.joins_per_s);
        let take = |nth: usize| (nth < self.crowd.total && clock::now() >= due(nth)).then_some(nth + 1);
        self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()
    }

    fn admit(&self, nth: usize, arrive: &mpsc::Sender<Visitor>) {
        let began = clock::now();
        match self.site.admit(&(self.connection)(nth), true) {
            // Nobody looks after it any more: then everything ends.
            Ok(guest) => drop(arrive.send(Visitor { began, guest, is_connected: false, leave_at: None })),
            Err(error) => {
                let mut failure = lock(&self.failure);
                failure.0 += 1;
                failure.1.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

impl Outcome {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(10, JOIN_US_MAX, 3);
        Ok(Self {
            joined: 0,
            failed: 0,
            reason: None,
            took: Duration::ZERO,
            last: None,
            connected_us: histogram()?,
            served_us: histogram()?,
        })
    }

    /// Notes what has become of a visitor; whether it stays.
    fn look_at(&mut self, visitor: &mut Visitor, site: &Site, now: Instant, stay: Duration) -> bool {
        let badge = &visitor.guest.badge;
        let began_ns = site.course.ns(visitor.began);
        let waited_us = |ns: u64| ns.saturating_sub(began_ns) / 1000;
        if let Some(ns) = badge.connected_ns().filter(|_| !visitor.is_connected) {
            visitor.is_connected = true;
            self.last = Some(now);
            self.connected_us.saturating_record(waited_us(ns));
        }
        let is_complete = if visitor.guest.listens { badge.served_ns() } else { badge.connected_ns() };
        if let Some(ns) = is_complete.filter(|_| visitor.leave_at.is_none()) {
            visitor.leave_at = Some(now + stay);
            self.joined += 1;
            self.served_us.saturating_record(waited_us(ns));
        }
        if visitor.leave_at.is_none() && now > visitor.began + PATIENCE {
            self.failed += 1;
            self.reason.get_or_insert_with(|| "no keys or no media in time".to_owned());
            return false;
        }
        visitor.leave_at.is_none_or(|at| now < at)
    }

    /// The figures.
    pub fn figures(&self) -> Vec<Figure> {
        let mut out = vec![
            Figure::new("joins", self.joined as f64, ""),
            Figure::new("joins that failed", self.failed as f64, ""),
            Figure::new("joins per second", ratio(self.joined as f64, self.took.as_secs_f64()), "1/s"),
        ];
        for (what, histogram) in [("join to keys", &self.connected_us), ("join to media", &self.served_us)] {
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                out.push(Figure::new(
                    format!("{what} {name}"),
                    histogram.value_at_quantile(quantile) as f64 / 1e3,
                    "ms",
                ));
            }
        }
        out
    }
}
