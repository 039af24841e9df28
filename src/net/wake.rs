//! Ending a worker's sleep from another thread, with a system call only when it really sleeps.
//!
//! A worker that is awake looks at its queues before it sleeps, so it needs no wake. The danger is the moment between
//! that look and the sleep. Both sides therefore write first, fence, then read:
//!
//! ```text
//! worker: sleeping = true;   fence;   look at the queues;   sleep unless there is something
//! other:  push to a queue;   fence;   if sleeping: take the flag down and write to the eventfd
//! ```
//!
//! Sequentially consistent fences have one order. If the worker's comes first, the other side sees `sleeping`; if the
//! other's comes first, the worker sees what was pushed. So at least one of them acts, and no wake is lost. The eventfd
//! keeps its count until it is read, so it may also be written before the worker has entered the kernel. At worst a
//! worker that woke for another reason is woken once more for nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one worker; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

/// The worker's end: says when it sleeps, and gives the ring a descriptor to read.
#[derive(Debug)]
pub struct WakeSource {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sleeping: AtomicBool,
    // Blocking on purpose: io_uring would answer EAGAIN instead of waiting on a non-blocking descriptor.
    event: OwnedFd,
}

impl Waker {
    /// Call after putting something into the worker's queue.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        // The plain load keeps the common case (awake) free of a write to a shared cache line.
        if self.shared.sleeping.load(Ordering::Relaxed) && self.shared.sleeping.swap(false, Ordering::AcqRel) {
            // Fails only when the count is about to pass 2^64, and then the worker has been woken already.
            let _ = rustix::io::write(self.shared.event.as_fd(), &1u64.to_ne_bytes());
        }
    }
}

impl WakeSource {
    /// A new pair.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { shared: Arc::new(Shared { sleeping: AtomicBool::new(false), event }) })
    }

    /// A handle for other threads.
    pub fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Announces sleep. The caller must look at its queues after this and before it sleeps.
    pub fn begin_sleep(&self) {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Awake again: wakes are free from here on.
    pub fn end_sleep(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }

    /// The descriptor the ring reads.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}
