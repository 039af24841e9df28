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
//!
//! Why not a message from ring to ring (IORING_OP_MSG_RING) between workers, posted with the sends: it would save the
//! waker a system call. As a ping-pong of two pinned rings, alternating, that showed when both shared a core and did not
//! show between two cores, where waking itself costs far more, and workers have a core each. The eventfd serves every
//! thread and every driver alike.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one worker; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

/// The worker's end: says when it sleeps, and gives the driver a descriptor to read.
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

    /// The descriptor the driver reads.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::spin_loop;
    use std::sync::atomic::AtomicU64;

    /// Spins until the other thread has come to `round`, too: both sides start as close together as they can.
    fn meet(mine: &AtomicU64, other: &AtomicU64, round: u64) {
        mine.store(round, Ordering::SeqCst);
        let mut spins = 0;
        while other.load(Ordering::SeqCst) < round {
            spins += 1;
            // On a busy machine the other thread may need our core.
            if spins % 1000 == 0 { std::thread::yield_now() } else { spin_loop() }
        }
    }

    /// The moment between the look and the sleep, over and over: the worker must see the work or the waker the sleep.
    #[test]
    fn either_the_worker_sees_the_work_or_the_waker_sees_the_sleep() {
        const ROUNDS: u64 = 200_000;
        let source = WakeSource::new().unwrap();
        let waker = source.waker();
        let [queue, worker, other] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let producer = std::thread::spawn({
            let [queue, worker, other] = [&queue, &worker, &other].map(Arc::clone);
            move || {
                for round in 1..=ROUNDS {
                    meet(&other, &worker, 2 * round);
                    queue.store(round, Ordering::Relaxed);
                    waker.wake();
                    meet(&other, &worker, 2 * round + 1);
                }
            }
        });
        let mut lost = 0;
        for round in 1..=ROUNDS {
            source.end_sleep();
            meet(&worker, &other, 2 * round);
            source.begin_sleep();
            let sees_work = queue.load(Ordering::Relaxed) == round;
            meet(&worker, &other, 2 * round + 1);
            let is_woken = !source.shared.sleeping.load(Ordering::SeqCst);
            lost += u32::from(!sees_work && !is_woken);
        }
        producer.join().unwrap();
        assert_eq!(lost, 0);
    }
}
