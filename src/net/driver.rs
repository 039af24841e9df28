//! The seam between a worker's loop and the kernel: what receives, sends and waits, whichever way it does so.
//!
//! Promises of every driver: a datagram that came is lent once, in the order of its socket; a datagram that cannot be sent
//! is counted by kind, never an error of the worker, and never sent later; one [`Driver::send_and_wait`] is one turn.

use std::io;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::counters::IoCounters;
use super::features::IoUringRefused;
use super::socket::WorkerSockets;
use super::wake::WakeSource;
use crate::base::batch::{RxDatagram, TxBatch};

/// One worker's network: belongs to the thread that opened it.
pub trait Driver: Sized {
    /// Sets up everything on the calling thread, the only one that may use it.
    ///
    /// # Errors
    /// What the kernel does not allow here.
    fn open(sockets: WorkerSockets, wake: WakeSource, limits: IoLimits) -> Result<Self, OpenError>;

    /// Shows the next queued datagram to `read`; `None` when none is queued. `wall` says how long it waited, as the kernel
    /// notes arrivals by the wall clock.
    fn receive<R>(&mut self, wall: SystemTime, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R>;

    /// Sends the batch without waiting. It may be cleared afterwards.
    ///
    /// # Errors
    /// The worker cannot go on.
    fn send(&mut self, batch: &TxBatch) -> io::Result<()>;

    /// Sends the batch, then waits for anything to happen, at most `timeout`; zero only looks. Datagrams that came are
    /// queued.
    ///
    /// # Errors
    /// The worker cannot go on.
    fn send_and_wait(&mut self, batch: &TxBatch, timeout: Duration) -> io::Result<()>;

    /// Whether a datagram is queued.
    fn has_datagram(&self) -> bool;

    /// Whether more has come than is queued, as far as that can be seen without entering the kernel.
    fn has_more(&mut self) -> bool;

    /// What was done so far.
    fn counters(&self) -> IoCounters;

    /// The worker's end of its wake-up.
    fn wake_source(&self) -> &WakeSource;

    /// The port the sockets are bound to.
    fn port(&self) -> u16;
}

/// The drivers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// [`UdpDriver`](super::UdpDriver).
    Uring,
    /// [`MmsgDriver`](super::MmsgDriver).
    Mmsg,
}

/// Sizes of a worker's driver.
#[derive(Clone, Copy, Debug)]
pub struct IoLimits {
    /// Receive buffers, a power of two: what may arrive during one turn without waiting in the socket.
    pub recv_buffers: u16,
    /// Room for payload in each: a train in one piece needs all that a UDP length can say.
    pub recv_buffer_bytes: usize,
    /// Messages between two kernel entries; larger batches go in several.
    pub sq_entries: u32,
}

impl Default for IoLimits {
    fn default() -> Self {
        // 256 buffers: what 100,000 lone datagrams a second bring in 2.5 ms; more wait in the socket. 16 MiB of address
        // space, of which only pages that a datagram touched are resident: 1 MiB as long as they come alone.
        // 1024 sends: as many as one turn usually makes.
        Self { recv_buffers: 256, recv_buffer_bytes: 1 << 16, sq_entries: 1024 }
    }
}

/// Why a worker has no network.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The kernel refused the ring.
    #[error(transparent)]
    IoUring(#[from] IoUringRefused),
    /// No memory for what is received.
    #[error("there is no memory for receive buffers: {0}")]
    Memory(#[source] io::Error),
}

impl DriverKind {
    /// The word as `TRAMLINE_IO` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
