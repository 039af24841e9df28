//! Starting the worker threads: every one is ready before any one runs.
//!
//! Promises: rings and cores are built on their own threads, which alone may use them; if one worker cannot start, none
//! does, and the reason comes back to the caller.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};

use rustix::thread::set_current_timer_slack;
use thiserror::Error;
use tokio::sync::Notify;

use super::affinity;
use super::run::{Turn, run};
use crate::base::ids::WorkerId;
use crate::net::{Driver, DriverKind, IoLimits, MmsgDriver, OpenError, UdpDriver, WakeSource, Waker, WorkerSockets};

/// How late a worker's timers may be, in nanoseconds: by default the kernel stretches a wait by up to 50 us so as to join
/// it with others, which is half of the shortest waits here.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

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
    /// The kernel refused the driver.
    #[error(transparent)]
    Driver(#[from] OpenError),
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
    /// Ends when the core is stopped; an error is a broken driver.
    pub threads: Vec<JoinHandle<io::Result<()>>>,
    /// Told when a thread has ended, for whatever reason: without it the others cannot do their work.
    pub ended: Arc<Notify>,
}

/// How workers run.
#[derive(Clone, Copy, Debug)]
pub struct SpawnOptions {
    /// What carries their datagrams.
    pub driver: DriverKind,
    /// How much of it.
    pub limits: IoLimits,
    /// Whether the i-th thread is bound to the i-th allowed core.
    pub is_pinned: bool,
}

/// Starts a thread named `tramline-w<i>` for each seat.
///
/// # Errors
/// [`StartError`] of the first worker that failed; no worker has run a turn then.
pub fn spawn_workers<T, B>(seats: Vec<Seat<B>>, options: SpawnOptions) -> Result<Workers, StartError>
where
    T: Turn,
    B: FnOnce(WorkerId) -> T + Send + 'static,
{
    let work = match options.driver {
        DriverKind::Uring => work::<T, B, UdpDriver>,
        DriverKind::Mmsg => work::<T, B, MmsgDriver>,
    };
    spawn(seats, options, work)
}

/// The same with a given life of a thread.
fn spawn<T, B>(
    seats: Vec<Seat<B>>,
    options: SpawnOptions,
    work: fn(Seat<B>, &Surroundings) -> io::Result<()>,
) -> Result<Workers, StartError>
where
    T: Turn,
    B: FnOnce(WorkerId) -> T + Send + 'static,
{
    let wakers: Vec<Waker> = seats.iter().map(|seat| seat.wake.waker()).collect();
    let cores = if options.is_pinned { affinity::allowed_cores().unwrap_or_default() } else { Vec::new() };
    let mut workers = Workers { wakers, threads: Vec::with_capacity(seats.len()), ended: Arc::default() };
    let mut starts = Vec::with_capacity(seats.len());
    for (index, seat) in seats.into_iter().enumerate() {
        let id = WorkerId(index as u8);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (start, is_started) = mpsc::sync_channel(1);
        let (wakers, cores) = (workers.wakers.clone(), cores.clone());
        let around = Surroundings { id, limits: options.limits, cores, wakers, ready, is_started };
        let ended = Ended(Arc::clone(&workers.ended));
        let body = move || {
            let _ended = ended;
            work(seat, &around)
        };
        let thread = Builder::new().name(format!("tramline-w{index}")).spawn(body).map_err(StartError::Thread)?;
        workers.threads.push(thread);
        starts.push((id, is_ready, start));
    }
    // Returning early drops the `start` senders, which sends the threads home.
    for (id, is_ready, _) in &starts {
        is_ready.recv().map_err(|_| StartError::Died(id.0))??;
    }
    for (id, _, start) in &starts {
        start.send(()).map_err(|_| StartError::Died(id.0))?;
    }
    Ok(workers)
}

/// What a worker thread knows of the others.
struct Surroundings {
    id: WorkerId,
    limits: IoLimits,
    cores: Vec<usize>,
    wakers: Vec<Waker>,
    ready: mpsc::SyncSender<Result<(), OpenError>>,
    is_started: mpsc::Receiver<()>,
}

/// Tells of a thread's end, also when it panics.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The life of a worker thread.
fn work<T: Turn, B: FnOnce(WorkerId) -> T, D: Driver>(seat: Seat<B>, around: &Surroundings) -> io::Result<()> {
    let worker = around.id.0;
    if !around.cores.is_empty()
        && let Err(error) = affinity::pin_to(&around.cores, usize::from(worker))
    {
        tracing::warn!(worker, %error, "not pinned to a core");
    }
    if let Err(error) = set_current_timer_slack(Some(TIMER_SLACK_NS)) {
        tracing::warn!(worker, %error, "waits will be longer than asked for");
    }
    let mut io = match D::open(seat.sockets, seat.wake, around.limits) {
        Ok(io) => io,
        Err(refused) => {
            let _ = around.ready.send(Err(refused));
            return Ok(());
        }
    };
    let mut core = (seat.build)(around.id);
    if around.ready.send(Ok(())).is_err() || around.is_started.recv().is_err() {
        return Ok(());
    }
    let result = run(&mut core, &mut io, &around.wakers);
    if let Err(error) = &result {
        tracing::error!(worker, %error, "the worker can no longer send or receive");
    }
    result
}
