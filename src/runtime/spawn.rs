//! Starting the worker threads: every one is ready before any one runs.
//!
//! Promises: rings and cores are built on their own threads, which alone may use them; if one worker cannot start, none
//! does, and the reason comes back to the caller.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use thiserror::Error;

use super::affinity;
use super::run::{Turn, run};
use crate::base::ids::WorkerId;
use crate::net::{IoLimits, IoUringRefused, UdpDriver, WakeSource, Waker, WorkerSockets};

/// What one worker starts with.
pub struct Seat<B> {
    /// Its sockets.
    pub sockets: WorkerSockets,
    /// Its end of the wake-up. Made by the caller, as queues into the worker need the [`Waker`] first.
    pub wake: WakeSource,
    /// Makes its core, on its thread.
    pub build: B,
}

/// Why the workers could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel refused the ring.
    #[error(transparent)]
    IoUring(#[from] IoUringRefused),
    /// No more threads.
    #[error("a worker thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// The thread ended while it was being set up.
    #[error("worker {0} ended while it was starting")]
    Died(u8),
}

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    /// `wakers[i]` wakes worker `i`.
    pub wakers: Vec<Waker>,
    /// Ends when the core is stopped; an error is a broken ring.
    pub threads: Vec<JoinHandle<io::Result<()>>>,
}

/// Starts a thread named `tramline-w<i>` for each seat, pinned to the i-th allowed core if `is_pinned`.
///
/// # Errors
/// [`StartError`] of the first worker that failed; no worker has run a turn then.
pub fn spawn_workers<T, B>(seats: Vec<Seat<B>>, limits: IoLimits, is_pinned: bool) -> Result<Workers, StartError>
where
    T: Turn,
    B: FnOnce(WorkerId) -> T + Send + 'static,
{
    let wakers: Vec<Waker> = seats.iter().map(|seat| seat.wake.waker()).collect();
    let cores = if is_pinned { affinity::allowed_cores().unwrap_or_default() } else { Vec::new() };
    let mut threads = Vec::with_capacity(seats.len());
    let mut starts = Vec::with_capacity(seats.len());
    for (index, seat) in seats.into_iter().enumerate() {
        let id = WorkerId(index as u8);
        let (ready, is_ready) = mpsc::sync_channel::<Result<(), IoUringRefused>>(1);
        let (start, is_started) = mpsc::sync_channel::<()>(1);
        let (wakers, cores) = (wakers.clone(), cores.clone());
        let body = move || work(id, seat, limits, &cores, &wakers, &ready, &is_started);
        let thread = Builder::new().name(format!("tramline-w{index}")).spawn(body).map_err(StartError::Thread)?;
        threads.push(thread);
        starts.push((id, is_ready, start));
    }
    // Returning early drops the `start` senders, which sends the threads home.
    for (id, is_ready, _) in &starts {
        is_ready.recv().map_err(|_| StartError::Died(id.0))??;
    }
    for (id, _, start) in &starts {
        start.send(()).map_err(|_| StartError::Died(id.0))?;
    }
    Ok(Workers { wakers, threads })
}

/// The life of a worker thread.
fn work<T: Turn, B: FnOnce(WorkerId) -> T>(
    id: WorkerId,
    seat: Seat<B>,
    limits: IoLimits,
    cores: &[usize],
    wakers: &[Waker],
    ready: &mpsc::SyncSender<Result<(), IoUringRefused>>,
    is_started: &mpsc::Receiver<()>,
) -> io::Result<()> {
    if !cores.is_empty()
        && let Err(error) = affinity::pin_to(cores, usize::from(id.0))
    {
        tracing::warn!(worker = id.0, %error, "not pinned to a core");
    }
    let mut io = match UdpDriver::new(seat.sockets, seat.wake, limits) {
        Ok(io) => io,
        Err(refused) => {
            let _ = ready.send(Err(refused));
            return Ok(());
        }
    };
    let mut core = (seat.build)(id);
    if ready.send(Ok(())).is_err() || is_started.recv().is_err() {
        return Ok(());
    }
    let result = run(&mut core, &mut io, wakers);
    if let Err(error) = &result {
        tracing::error!(worker = id.0, %error, "the worker's ring is broken");
    }
    result
}
