//! The loop of one worker thread: the phases of a turn, in order, forever.
//!
//! Promises: the clock is read once per turn and everything is told that time; the driver sends and waits once per turn
//! unless answers overflow the batch; no phase can starve another, as datagrams per turn and what is forwarded of them are
//! bounded; no wake-up is lost (see [`crate::net::wake`]).

use std::io;
use std::time::{Duration, Instant};

use super::clock;
use crate::base::batch::{RxDatagram, TxBatch};
use crate::net::{Driver, IoCounters, Waker};

/// Datagrams taken per turn: commands and timers wait for no more than these, about a millisecond of work.
pub const DATAGRAMS_PER_TURN_MAX: usize = 512;
/// What one turn may send in one go; 1.5 MB of arena.
pub const BATCH_DATAGRAMS_MAX: usize = 1024;
/// Room kept for what one datagram, lane message or timer may answer by itself: a DTLS flight is the largest.
const ANSWERS_MAX: usize = 16;
/// The longest sleep, so that counters of an idle worker stay fresh.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How often the core is given the I/O counters.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// What the loop drives: all state of one worker, told the time, without a socket.
pub trait Turn {
    /// Drains the bounded command queue.
    fn handle_commands(&mut self, now: Instant, tx: &mut TxBatch);
    /// Takes what other workers put on the lanes.
    fn handle_lanes(&mut self, now: Instant, tx: &mut TxBatch);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant, tx: &mut TxBatch);
    /// Takes one datagram.
    fn handle_datagram(&mut self, now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch);
    /// Whether there is as much to forward as may be; the other datagrams wait.
    fn has_enough_work(&self) -> bool;
    /// Forwards what came in, as much as one turn may; `false`: there is more, and the next turn goes on with it.
    fn forward(&mut self, now: Instant, tx: &mut TxBatch) -> bool;
    /// Looks at what is about to be sent, each time before it is.
    fn impair(&mut self, _now: Instant, _tx: &mut TxBatch) {}
    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    fn next_timeout(&self) -> Option<Instant>;
    /// Workers whose lanes got something this turn, a bit for each by worker id; forgotten by the call.
    fn take_wakes(&mut self) -> u64;
    /// Whether commands or lanes are not drained, so that sleeping would be wrong.
    fn has_pending_input(&self) -> bool;
    /// CPU time that this thread has used so far, every [`LOAD_INTERVAL`].
    fn handle_load(&mut self, _now: Instant, _cpu_time: Duration) {}
    /// Whether the loop shall end, after what is queued has been sent.
    fn is_stopped(&self) -> bool;
    /// Cumulative I/O counters, about once per second.
    fn note_io(&mut self, counters: IoCounters);
}

/// How often the core is told how busy this thread is. Reading that clock takes a system call.
const LOAD_INTERVAL: Duration = Duration::from_millis(10);

/// Runs turns until the core is stopped. `wakers[i]` wakes worker `i`.
///
/// # Errors
/// The driver is broken; nothing can be received or sent any more.
pub fn run<T: Turn, D: Driver>(core: &mut T, io: &mut D, wakers: &[Waker]) -> io::Result<()> {
    let mut tx = TxBatch::with_capacity(BATCH_DATAGRAMS_MAX);
    let mut noted = clock::now();
    let mut load_noted = noted;
    let (mut is_put_off, mut is_done) = (false, true);
    loop {
        let (now, wall) = (clock::now(), clock::wall());
        if now.saturating_duration_since(load_noted) >= LOAD_INTERVAL {
            load_noted = now;
            core.handle_load(now, clock::thread_cpu_time());
        }

        // 1 commands
        core.handle_commands(now, &mut tx);
        make_room(core, io, now, &mut tx)?;

        // 2 lanes
        core.handle_lanes(now, &mut tx);
        make_room(core, io, now, &mut tx)?;

        // 3 timers
        core.handle_timeout(now, &mut tx);

        // 4 datagrams
        let mut has_read = false;
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            make_room(core, io, now, &mut tx)?;
            if core.has_enough_work()
                || io.receive(wall, |datagram| core.handle_datagram(now, datagram, &mut tx)).is_none()
            {
                break;
            }
            has_read = true;
        }

        // 5 forward. What comes while a burst is read belongs to it: it is read first, once, so that all of it leaves in
        // the same trains; what is begun goes on.
        is_put_off = has_read && is_done && !is_put_off && !core.is_stopped() && io.has_more();
        is_done = is_put_off || core.forward(now, &mut tx);
        wake_others(core.take_wakes(), wakers);
        if now.saturating_duration_since(noted) >= NOTE_INTERVAL {
            noted = now;
            core.note_io(io.counters());
        }
        if core.is_stopped() {
            while !is_done {
                send(core, io, now, &mut tx)?;
                is_done = core.forward(now, &mut tx);
            }
            send(core, io, now, &mut tx)?;
            core.note_io(io.counters());
            return Ok(());
        }

        // 6 wait: the batch goes out with the same kernel entry
        core.impair(now, &mut tx);
        if is_put_off || !is_done {
            io.send_and_wait(&tx, Duration::ZERO)?;
        } else {
            wait(core, io, &tx)?;
        }
        tx.clear();
    }
}

fn wait<T: Turn>(core: &T, io: &mut impl Driver, tx: &TxBatch) -> io::Result<()> {
    if io.has_datagram() || core.has_pending_input() {
        return io.send_and_wait(tx, Duration::ZERO);
    }
    io.wake_source().begin_sleep();
    // Looked at again after sleep was announced: whoever came in between saw us awake and did not wake us.
    let timeout = if core.has_pending_input() { Duration::ZERO } else { sleep_length(core.next_timeout()) };
    let waited = io.send_and_wait(tx, timeout);
    io.wake_source().end_sleep();
    waited
}

/// The clock is read again: the turn itself took time.
fn sleep_length(next: Option<Instant>) -> Duration {
    next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(clock::now()).min(SLEEP_MAX))
}

fn make_room(core: &mut impl Turn, io: &mut impl Driver, now: Instant, tx: &mut TxBatch) -> io::Result<()> {
    if tx.entries().len() + ANSWERS_MAX > BATCH_DATAGRAMS_MAX || !tx.has_room() {
        send(core, io, now, tx)?;
    }
    Ok(())
}

fn send(core: &mut impl Turn, io: &mut impl Driver, now: Instant, tx: &mut TxBatch) -> io::Result<()> {
    core.impair(now, tx);
    io.send(tx)?;
    tx.clear();
    Ok(())
}

fn wake_others(mut wakes: u64, wakers: &[Waker]) {
    while wakes != 0 {
        if let Some(waker) = wakers.get(wakes.trailing_zeros() as usize) {
            waker.wake();
        }
        wakes &= wakes - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::net::{SocketAddr, UdpSocket};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::SystemTime;

    use crossbeam_channel::{Receiver, Sender, bounded};

    use crate::base::batch::Path;
    use crate::base::ids::WorkerId;
    use crate::net::{BindAddresses, DriverKind, IoLimits, OpenError, WakeSource, WorkerSockets, bind_group};
    use crate::runtime::spawn::{Seat, SpawnOptions, Workers, spawn_workers};

    /// Hangs are turned into failures after this; nothing depends on its length.
    const WATCHDOG: Duration = Duration::from_secs(120);

    /// Echoes datagrams in `forward`, passes a token to the next worker on each command, and counts what it is told.
    struct Echo {
        commands: Receiver<u64>,
        next: Option<(WorkerId, Sender<u64>)>,
        heard: VecDeque<(Path, Vec<u8>)>,
        wakes: u64,
        timers_due: VecDeque<Instant>,
        is_stopped: bool,
        /// How often each datagram is sent back.
        copies: usize,
        shared: Arc<Shared>,
    }

    #[derive(Default)]
    struct Shared {
        timers: AtomicU64,
        rx_datagrams: AtomicU64,
        tx_datagrams: AtomicU64,
        turns: AtomicU64,
        enters: AtomicU64,
        tokens: AtomicU64,
        finished: AtomicBool,
    }

    const STOP: u64 = u64::MAX;

    impl Turn for Echo {
        fn handle_commands(&mut self, _now: Instant, _tx: &mut TxBatch) {
            while let Ok(command) = self.commands.try_recv() {
                match (command, &self.next) {
                    (STOP, _) => self.is_stopped = true,
                    (0, _) => self.shared.finished.store(true, Ordering::SeqCst),
                    (left, Some((id, next))) => {
                        self.shared.tokens.fetch_add(1, Ordering::SeqCst);
                        next.send(left - 1).unwrap();
                        self.wakes |= 1 << id.0;
                    }
                    (_, None) => {}
                }
            }
        }

        fn handle_lanes(&mut self, _now: Instant, _tx: &mut TxBatch) {}

        fn handle_timeout(&mut self, now: Instant, _tx: &mut TxBatch) {
            while self.timers_due.front().is_some_and(|&due| due <= now) {
                self.timers_due.pop_front();
                self.shared.timers.fetch_add(1, Ordering::SeqCst);
            }
        }

        fn handle_datagram(&mut self, _now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch) {
            assert!(tx.has_room());
            let echo = (datagram.path, datagram.bytes.to_vec());
            self.heard.extend(std::iter::repeat_n(echo, self.copies));
        }

        fn forward(&mut self, _now: Instant, tx: &mut TxBatch) -> bool {
            while let Some((path, bytes)) = self.heard.front() {
                let Some(room) = tx.reserve() else { return false };
                room[..bytes.len()].copy_from_slice(bytes);
                tx.commit(*path, bytes.len());
                self.heard.pop_front();
            }
            true
        }

        fn has_enough_work(&self) -> bool {
            false
        }

        fn next_timeout(&self) -> Option<Instant> {
            self.timers_due.front().copied()
        }

        fn take_wakes(&mut self) -> u64 {
            std::mem::take(&mut self.wakes)
        }

        fn has_pending_input(&self) -> bool {
            !self.commands.is_empty()
        }

        fn is_stopped(&self) -> bool {
            self.is_stopped
        }

        fn note_io(&mut self, counters: IoCounters) {
            self.shared.rx_datagrams.store(counters.rx_datagrams, Ordering::SeqCst);
            self.shared.tx_datagrams.store(counters.tx_datagrams, Ordering::SeqCst);
            self.shared.turns.store(counters.turns, Ordering::SeqCst);
            self.shared.enters.store(counters.enters, Ordering::SeqCst);
        }
    }

    struct Harness {
        workers: Workers,
        commands: Vec<Sender<u64>>,
        shared: Arc<Shared>,
        port: u16,
    }

    impl Harness {
        fn start(driver: DriverKind, count: usize, timers: usize, copies: usize) -> Self {
            let sockets = bind_group(BindAddresses::default(), 0, count).unwrap();
            let port = sockets[0].port;
            let shared = Arc::new(Shared::default());
            let (commands, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| bounded::<u64>(16)).unzip();
            let seats = sockets.into_iter().zip(queues).enumerate().map(|(index, (sockets, queue))| {
                let other = (index + 1) % count;
                let next = Some((WorkerId(other as u8), commands[other].clone()));
                let shared = Arc::clone(&shared);
                let build = move |id: WorkerId| {
                    assert_eq!(std::thread::current().name(), Some(format!("tramline-w{}", id.0).as_str()));
                    assert_eq!(rustix::thread::current_timer_slack().unwrap(), 1, "timers are exact");
                    Echo {
                        commands: queue,
                        next,
                        heard: VecDeque::new(),
                        wakes: 0,
                        timers_due: (0..timers).map(|n| clock::now() + Duration::from_millis(n as u64)).collect(),
                        is_stopped: false,
                        copies,
                        shared,
                    }
                };
                Seat { sockets, wake: WakeSource::new().unwrap(), build }
            });
            let options = SpawnOptions { driver, limits: IoLimits::default(), is_pinned: true };
            let workers = spawn_workers(seats.collect(), options).unwrap();
            Self { workers, commands, shared, port }
        }

        fn command(&self, worker: usize, command: u64) {
            self.commands[worker].send(command).unwrap();
            self.workers.wakers[worker].wake();
        }

        fn stop(self) -> Arc<Shared> {
            for worker in 0..self.commands.len() {
                self.command(worker, STOP);
            }
            for thread in self.workers.threads {
                thread.join().unwrap().unwrap();
            }
            self.shared
        }
    }

    const DRIVERS: [DriverKind; 2] = [DriverKind::Uring, DriverKind::Mmsg];

    fn echo_ten_thousand(driver: DriverKind, local: &str) -> Arc<Shared> {
        const WINDOW: u32 = 50;
        let harness = Harness::start(driver, 1, 0, 1);
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.set_read_timeout(Some(WATCHDOG)).unwrap();
        client.connect(SocketAddr::new(local.parse().unwrap(), harness.port)).unwrap();
        for burst in 0..10_000 / WINDOW {
            let numbers = burst * WINDOW..(burst + 1) * WINDOW;
            for number in numbers.clone() {
                client.send(&number.to_be_bytes().repeat(1 + number as usize % 300)).unwrap();
            }
            for number in numbers {
                let mut bytes = [0; 2000];
                let len = client.recv(&mut bytes).unwrap();
                assert_eq!(&bytes[..len], number.to_be_bytes().repeat(1 + number as usize % 300));
            }
        }
        let shared = harness.stop();
        assert_eq!(shared.rx_datagrams.load(Ordering::SeqCst), 10_000);
        shared
    }

    #[test]
    fn ten_thousand_datagrams_come_back_in_order_over_ipv4() {
        for driver in DRIVERS {
            echo_ten_thousand(driver, "127.0.0.1");
        }
    }

    #[test]
    fn ten_thousand_datagrams_come_back_in_order_over_ipv6() {
        // A machine without IPv6 has nothing to test here.
        if UdpSocket::bind("[::1]:0").is_ok() {
            for driver in DRIVERS {
                echo_ten_thousand(driver, "::1");
            }
        }
    }

    #[test]
    fn a_turn_enters_the_ring_at_most_once() {
        let shared = echo_ten_thousand(DriverKind::Uring, "127.0.0.1");
        let (turns, enters) = (shared.turns.load(Ordering::SeqCst), shared.enters.load(Ordering::SeqCst));
        // The last one, which stops the worker, sends and does not wait.
        assert!(turns > 0 && enters <= turns + 1, "{enters} in {turns}");
    }

    /// A kernel that brings one group of datagrams per wait, and notes what it is given to send.
    struct Scripted {
        ready: VecDeque<usize>,
        queued: usize,
        sent: Vec<usize>,
        /// Waits that are not over at once.
        sleeps: usize,
        wake: WakeSource,
    }

    impl Driver for Scripted {
        fn open(_: WorkerSockets, wake: WakeSource, _: IoLimits) -> Result<Self, OpenError> {
            Ok(Self { ready: VecDeque::new(), queued: 0, sent: Vec::new(), sleeps: 0, wake })
        }

        fn receive<R>(&mut self, _: SystemTime, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R> {
            self.queued = self.queued.checked_sub(1)?;
            let path = Path { remote: ([127, 0, 0, 1], 9).into(), local: [127, 0, 0, 1].into() };
            Some(read(RxDatagram::fresh(path, &mut [7])))
        }

        fn send(&mut self, batch: &TxBatch) -> io::Result<()> {
            self.sent.extend(Some(batch.entries().len()).filter(|count| *count > 0));
            Ok(())
        }

        fn send_and_wait(&mut self, batch: &TxBatch, timeout: Duration) -> io::Result<()> {
            self.send(batch)?;
            self.queued += self.ready.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.sleeps += usize::from(timeout > Duration::ZERO);
            Ok(())
        }

        fn has_datagram(&self) -> bool {
            self.queued > 0
        }

        fn has_more(&mut self) -> bool {
            self.ready.front().is_some_and(|count| *count > 0)
        }

        fn counters(&self) -> IoCounters {
            IoCounters::default()
        }

        fn wake_source(&self) -> &WakeSource {
            &self.wake
        }

        fn port(&self) -> u16 {
            0
        }
    }

    #[test]
    fn what_comes_while_a_burst_is_read_leaves_with_it_and_is_waited_for_once() {
        assert_eq!(sent_of(&[1, 9, 0, 1, 1, 1, 1, 0], 1).sent, [10, 2, 2]);
    }

    #[test]
    fn what_is_begun_goes_on_without_a_wait_and_what_comes_is_read_meanwhile() {
        const COPIES: usize = 5 * BATCH_DATAGRAMS_MAX / 2;
        let io = sent_of(&[1, 0, 1, 0, 0], COPIES);
        assert_eq!(io.sent, [BATCH_DATAGRAMS_MAX; 5], "the second follows in the batch with the first's last");
        assert_eq!(io.sleeps, 1, "before the first came");
    }

    /// What an echo does with these groups of datagrams.
    fn sent_of(groups: &[usize], copies: usize) -> Scripted {
        let mut core = Echo {
            commands: bounded(1).1,
            next: None,
            heard: VecDeque::new(),
            wakes: 0,
            timers_due: VecDeque::new(),
            is_stopped: false,
            copies,
            shared: Arc::default(),
        };
        let wake = WakeSource::new().unwrap();
        let mut io = Scripted { ready: groups.iter().copied().collect(), queued: 0, sent: Vec::new(), sleeps: 0, wake };
        assert!(run(&mut core, &mut io, &[]).is_err(), "the script has an end");
        io
    }

    #[test]
    fn a_token_travels_between_workers_on_wakes_alone() {
        for driver in DRIVERS {
            let harness = Harness::start(driver, 2, 0, 1);
            harness.command(0, 5_000);
            while !harness.shared.finished.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            assert_eq!(harness.stop().tokens.load(Ordering::SeqCst), 5_000);
        }
    }

    #[test]
    fn timers_are_served_while_nothing_else_happens() {
        for driver in DRIVERS {
            let harness = Harness::start(driver, 1, 20, 1);
            while harness.shared.timers.load(Ordering::SeqCst) < 20 {
                std::thread::yield_now();
            }
            harness.stop();
        }
    }

    #[test]
    fn a_full_batch_is_sent_and_forwarding_goes_on() {
        const COPIES: usize = 3 * BATCH_DATAGRAMS_MAX + 1;
        for driver in DRIVERS {
            let harness = Harness::start(driver, 1, 0, COPIES);
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(WATCHDOG)).unwrap();
            client.send_to(b"x", ("127.0.0.1", harness.port)).unwrap();
            // The first copy shows that the turn has begun; how many fit the client's buffer does not matter.
            client.recv(&mut [0; 9]).unwrap();
            assert_eq!(harness.stop().tx_datagrams.load(Ordering::SeqCst), COPIES as u64);
        }
    }

    #[test]
    fn an_end_is_told_of_whatever_its_reason() {
        let harness = Harness::start(DriverKind::Mmsg, 2, 0, 1);
        let ended = Arc::clone(&harness.workers.ended);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        harness.command(1, STOP);
        runtime.block_on(ended.notified());
        // A panic: the next worker's queue is gone.
        harness.command(0, 1);
        runtime.block_on(ended.notified());
        let ends = harness.workers.threads.into_iter().map(std::thread::JoinHandle::join);
        assert_eq!(ends.map(|end| end.is_ok()).collect::<Vec<_>>(), [false, true]);
    }
}
