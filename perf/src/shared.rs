//! What a herd's thread tells everybody else.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tally::Tally;

/// What the thread tells.
#[derive(Debug)]
pub struct Shared {
    /// Of everybody but guests.
    pub tally: Mutex<Tally>,
    /// Of those who come and go while others are measured.
    pub guests: Mutex<Tally>,
    /// Members that have their keys.
    pub connected: AtomicUsize,
    /// Members that have received all their streams.
    pub served: AtomicUsize,
    /// Packets due that the kernel did not take.
    pub refused: AtomicU64,
    /// Packets left out because the thread was too late.
    pub skipped: AtomicU64,
    /// PLI and FIR that reached our sources.
    pub keyframe_requests: AtomicU64,
    /// Name of the suite that was agreed on last.
    pub suite: Mutex<Option<&'static str>>,
    /// What went wrong, once for each member.
    pub failures: Mutex<Vec<String>>,
    wants_census: AtomicBool,
    drops: AtomicU64,
}

impl Shared {
    /// Nothing has happened.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tally: Mutex::new(Tally::new()?),
            guests: Mutex::new(Tally::new()?),
            connected: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            keyframe_requests: AtomicU64::new(0),
            suite: Mutex::new(None),
            failures: Mutex::default(),
            wants_census: AtomicBool::new(false),
            drops: AtomicU64::new(0),
        })
    }

    /// Asks the thread to look at its sockets.
    pub fn ask_for_census(&self) {
        self.wants_census.store(true, Ordering::Release);
    }

    /// Whether the thread has yet to look.
    pub fn wants_census(&self) -> bool {
        self.wants_census.load(Ordering::Acquire)
    }

    /// The thread has looked.
    pub fn answer_census(&self, drops: u64) {
        self.drops.store(drops, Ordering::Release);
        self.wants_census.store(false, Ordering::Release);
    }

    /// What it saw last: datagrams its sockets had no room for.
    pub fn drops(&self) -> u64 {
        self.drops.load(Ordering::Acquire)
    }
}

/// The value, whatever became of another thread that held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
