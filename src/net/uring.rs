//! The driver over io_uring: sockets, ring and buffers as one thing that receives, sends and waits.
//!
//! Promises: [`UdpDriver::send_and_wait`] is the turn's one kernel entry; completions it brings are queued, and
//! [`UdpDriver::receive`] hands datagrams out afterwards. Sends are never linked, drained or forced to the slow path, so
//! the enter that consumes them has done them, and their slots are free once it has returned.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, SystemTime};

use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};

use super::counters::IoCounters;
use super::driver::{Driver, IoLimits, OpenError};
use super::features::{IoUringRefused, refused};
use super::recv::Receiver;
use super::ring::{Ring, Wait};
use super::send::{Outlook, SEND_FLAGS, SendSlots, Transmit, file_of};
use super::socket::WorkerSockets;
use super::wake::WakeSource;
use super::{FILE_V4, FILE_V6, FILE_WAKE};
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::train::Train;

/// Marks completions of receives: the registered file is added.
const TAG_RECV: u64 = 0x10;
const TAG_RECV_V4: u64 = TAG_RECV + FILE_V4 as u64;
const TAG_RECV_V6: u64 = TAG_RECV + FILE_V6 as u64;
const TAG_WAKE: u64 = 0x20;
/// Marks completions of sends; the slot's number is above it.
const TAG_SEND: u64 = 0x30;
const TAG_BITS: u32 = 8;

/// Submissions that are not sends: two receives and the wake.
const SUBMISSIONS_OWN: usize = 3;

/// One worker's network over io_uring: belongs to the thread that made it.
pub struct UdpDriver {
    // Dropped first: the ring must be gone before the memory it writes to.
    ring: Ring,
    receiver: Receiver,
    slots: SendSlots,
    /// Where the kernel puts the eventfd's count; boxed, as the kernel keeps the address, and never read by us.
    wake_count: Box<UnsafeCell<u64>>,
    is_wake_armed: bool,
    outlook: Outlook,
    sockets: WorkerSockets,
    wake: WakeSource,
    counters: IoCounters,
}

impl UdpDriver {
    /// Sets up the ring on the calling thread, the only one that may use it.
    ///
    /// # Errors
    /// What the kernel does not allow here.
    pub fn new(sockets: WorkerSockets, wake: WakeSource, limits: IoLimits) -> Result<Self, IoUringRefused> {
        // Every buffer may complete in one turn, and so may every send that fails.
        let cq_entries = (u32::from(limits.recv_buffers) + limits.sq_entries).next_power_of_two() * 2;
        let ring = Ring::new(limits.sq_entries, cq_entries)?;
        let fd_of = |socket: Option<BorrowedFd<'_>>| socket.map_or(-1, |socket| socket.as_raw_fd());
        let files: [RawFd; 3] = [fd_of(sockets.v4_fd()), fd_of(sockets.v6_fd()), wake.fd().as_raw_fd()];
        ring.submitter().register_files(&files).map_err(|error| refused(error, "sparse registered files"))?;
        let has_socket = [sockets.has_v4(), sockets.has_v6()];
        let receiver = Receiver::new(limits.recv_buffers, limits.recv_buffer_bytes, has_socket);
        let receiver = receiver.map_err(IoUringRefused::Failed)?;
        receiver.register(&ring.submitter())?;
        let slots = SendSlots::new(ring.sq_entries());
        Ok(Self {
            ring,
            receiver,
            slots,
            wake_count: Box::new(UnsafeCell::new(0)),
            is_wake_armed: false,
            outlook: Outlook::new(has_socket),
            sockets,
            wake,
            counters: IoCounters::default(),
        })
    }

    /// (Re)starts the receives and the wake, where they have ended.
    fn arm(&mut self) -> io::Result<()> {
        self.receiver.publish();
        if self.ring.room() < SUBMISSIONS_OWN {
            self.enter(Wait::No)?;
        }
        for (file, tag) in [(FILE_V4, TAG_RECV_V4), (FILE_V6, TAG_RECV_V6)] {
            let Some(submission) = self.receiver.submission(file) else { continue };
            // SAFETY: the message shape and the buffers belong to the receiver, which outlives the ring.
            if unsafe { self.ring.push(&submission.user_data(tag)) } {
                self.receiver.note_armed(file);
            }
        }
        if !self.is_wake_armed {
            let count = self.wake_count.get().cast::<u8>();
            let submission = opcode::Read::new(Fixed(FILE_WAKE), count, size_of::<u64>() as u32).build();
            // SAFETY: the count is boxed and outlives the ring; nobody else touches it.
            self.is_wake_armed = unsafe { self.ring.push(&submission.user_data(TAG_WAKE)) };
        }
        Ok(())
    }

    /// Enters until every submission is consumed, reaping after each.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        if wait == Wait::No && !self.ring.has_work() {
            self.reap();
            return Ok(());
        }
        loop {
            let is_consumed = self.ring.enter(wait)?;
            self.counters.enters += 1;
            self.reap();
            if is_consumed {
                self.slots.reuse();
                return Ok(());
            }
            // The kernel was short of memory or of completion places: we made some, others may have, too.
            std::thread::yield_now();
        }
    }

    /// Queues what completed; nothing is processed here.
    fn reap(&mut self) {
        while let Some(completion) = self.ring.next_completion() {
            match completion.user_data() {
                TAG_RECV_V4 => self.receiver.handle_completion(FILE_V4, &completion, &mut self.counters),
                TAG_RECV_V6 => self.receiver.handle_completion(FILE_V6, &completion, &mut self.counters),
                TAG_WAKE => self.handle_wake(&completion),
                tag if completion.result() < 0 => {
                    let train = self.slots.train((tag >> TAG_BITS) as usize);
                    self.outlook.note_failure(train, -completion.result(), &mut self.counters);
                }
                // A send that completed although successes are silent.
                _ => {}
            }
        }
    }

    fn handle_wake(&mut self, completion: &cqueue::Entry) {
        self.is_wake_armed = false;
        if completion.result() > 0 {
            self.counters.wakes += 1;
        }
    }
}

impl Driver for UdpDriver {
    fn open(sockets: WorkerSockets, wake: WakeSource, limits: IoLimits) -> Result<Self, OpenError> {
        Ok(Self::new(sockets, wake, limits)?)
    }

    fn receive<R>(&mut self, wall: SystemTime, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R> {
        self.receiver.take(wall, &mut self.counters, read)
    }

    fn send(&mut self, batch: &TxBatch) -> io::Result<()> {
        self.queue(batch)?;
        self.enter(Wait::No)?;
        self.resend_refused(batch)
    }

    fn send_and_wait(&mut self, batch: &TxBatch, timeout: Duration) -> io::Result<()> {
        self.counters.turns += 1;
        self.queue(batch)?;
        let wait = if timeout.is_zero() || self.has_datagram() { Wait::No } else { Wait::AtMost(timeout) };
        self.arm()?;
        self.enter(wait)?;
        self.resend_refused(batch)
    }

    fn has_datagram(&self) -> bool {
        self.receiver.has_datagram()
    }

    fn has_more(&mut self) -> bool {
        self.ring.has_deferred()
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }

    fn wake_source(&self) -> &WakeSource {
        &self.wake
    }

    fn port(&self) -> u16 {
        self.sockets.port
    }
}

impl Transmit for UdpDriver {
    fn books(&mut self) -> (&mut Outlook, &mut IoCounters) {
        (&mut self.outlook, &mut self.counters)
    }

    fn put(&mut self, train: &Train, payload: &[u8]) -> io::Result<()> {
        if self.ring.room() <= SUBMISSIONS_OWN {
            self.enter(Wait::No)?;
        }
        let Some(number) = self.slots.fill(train, payload) else {
            debug_assert!(false, "as many slots as submissions");
            self.counters.tx_other += train.count as u64;
            return Ok(());
        };
        let submission = opcode::SendMsg::new(Fixed(file_of(train.path.remote)), self.slots.header(number))
            .flags(SEND_FLAGS as u32)
            .build()
            // Only failures are worth a completion.
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(TAG_SEND | (number as u64) << TAG_BITS);
        // SAFETY: the slot is not refilled and the payload stays borrowed until `enter` has seen the kernel consume
        // the submission; MSG_DONTWAIT keeps it from being retried later.
        let is_queued = unsafe { self.ring.push(&submission) };
        debug_assert!(is_queued, "room was checked");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.enter(Wait::No)
    }
}
