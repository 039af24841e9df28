//! What a worker's loop holds: sockets, ring and buffers as one thing that receives, sends and waits.
//!
//! Promises: [`UdpDriver::send_and_wait`] is the turn's one kernel entry; completions it brings are queued, and
//! [`UdpDriver::receive`] hands datagrams out afterwards. A failed send is counted, never an error of the worker.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{cqueue, opcode};

use super::counters::IoCounters;
use super::features::{IoUringRefused, refused};
use super::plain::PlainPeers;
use super::recv::Receiver;
use super::ring::{Ring, Wait};
use super::send::{SendSlots, file_of};
use super::socket::WorkerSockets;
use super::wake::WakeSource;
use super::{FILE_V4, FILE_V6, FILE_WAKE};
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::train::{Train, trains};

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

/// Sizes of a worker's ring.
#[derive(Clone, Copy, Debug)]
pub struct IoLimits {
    /// Receive buffers of 2 KiB each, a power of two: what may arrive during one turn without waiting in the socket.
    pub recv_buffers: u16,
    /// Submissions between two kernel entries; larger batches go in several.
    pub sq_entries: u32,
}

impl Default for IoLimits {
    fn default() -> Self {
        // 2048 buffers: 20 ms of 100,000 datagrams a second, 4.5 MB. 1024 sends: as many as one turn usually makes.
        Self { recv_buffers: 2048, sq_entries: 1024 }
    }
}

/// One worker's network: belongs to the thread that made it.
pub struct UdpDriver {
    // Dropped first: the ring must be gone before the memory it writes to.
    ring: Ring,
    receiver: Receiver,
    slots: SendSlots,
    /// Where the kernel puts the eventfd's count; boxed, as the kernel keeps the address, and never read by us.
    wake_count: Box<UnsafeCell<u64>>,
    is_wake_armed: bool,
    plain: PlainPeers,
    /// Trains of the batch being sent that the kernel refused.
    refused: Vec<Train>,
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
        let fd_of = |socket: Option<&socket2::Socket>| socket.map_or(-1, AsRawFd::as_raw_fd);
        let files: [RawFd; 3] = [fd_of(sockets.v4.as_ref()), fd_of(sockets.v6.as_ref()), wake.raw_fd()];
        ring.submitter().register_files(&files).map_err(|error| refused(error, "sparse registered files"))?;
        let receiver = Receiver::new(limits.recv_buffers, [sockets.v4.is_some(), sockets.v6.is_some()]);
        receiver.register(&ring.submitter())?;
        let slots = SendSlots::new(ring.sq_entries());
        Ok(Self {
            ring,
            receiver,
            slots,
            wake_count: Box::new(UnsafeCell::new(0)),
            is_wake_armed: false,
            plain: PlainPeers::default(),
            refused: Vec::new(),
            sockets,
            wake,
            counters: IoCounters::default(),
        })
    }

    /// Shows the next queued datagram to `read`; `None` when none is queued.
    pub fn receive<R>(&mut self, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R> {
        self.receiver.take(&mut self.counters, read)
    }

    /// Sends the batch without waiting. It may be cleared afterwards.
    ///
    /// # Errors
    /// The ring is broken; the worker cannot go on.
    pub fn send(&mut self, batch: &TxBatch) -> io::Result<()> {
        self.queue(batch)?;
        self.flush(Wait::No)?;
        self.resend_refused(batch)
    }

    /// Sends the batch, then waits for anything to happen, at most `timeout`; zero only looks. Datagrams that came are
    /// queued.
    ///
    /// # Errors
    /// The ring is broken; the worker cannot go on.
    pub fn send_and_wait(&mut self, batch: &TxBatch, timeout: Duration) -> io::Result<()> {
        self.queue(batch)?;
        let wait = if timeout.is_zero() || self.has_datagram() { Wait::No } else { Wait::AtMost(timeout) };
        self.arm()?;
        self.flush(wait)?;
        self.resend_refused(batch)
    }

    /// Whether a datagram is queued.
    pub fn has_datagram(&self) -> bool {
        self.receiver.has_datagram()
    }

    /// What was done so far.
    pub fn counters(&self) -> IoCounters {
        self.counters
    }

    /// The worker's end of its wake-up.
    pub fn wake_source(&self) -> &WakeSource {
        &self.wake
    }

    /// The port the sockets are bound to.
    pub fn port(&self) -> u16 {
        self.sockets.port
    }

    /// Makes submissions of a batch; a full queue goes to the kernel at once. What is queued points into `batch`, so
    /// [`flush`](Self::flush) must follow before the borrow ends.
    fn queue(&mut self, batch: &TxBatch) -> io::Result<()> {
        for train in trains(batch.entries()) {
            if train.count > 1 && self.plain.is_plain(train.path.remote) {
                for entry in train.split() {
                    self.queue_train(&Train::of(&entry), batch)?;
                }
            } else {
                self.queue_train(&train, batch)?;
            }
        }
        Ok(())
    }

    fn queue_train(&mut self, train: &Train, batch: &TxBatch) -> io::Result<()> {
        let datagrams = train.count as u64;
        if !self.has_socket_for(train) {
            self.counters.tx_no_socket += datagrams;
            return Ok(());
        }
        if self.ring.room() <= SUBMISSIONS_OWN {
            self.flush(Wait::No)?;
        }
        let Some((number, submission)) = self.slots.submission(train, batch.train_bytes(train)) else {
            debug_assert!(false, "as many slots as submissions");
            self.counters.tx_other += datagrams;
            return Ok(());
        };
        // SAFETY: the slot is not refilled and the batch stays borrowed until `flush` has seen the kernel consume
        // the submission; MSG_DONTWAIT keeps it from being retried later.
        let is_queued = unsafe { self.ring.push(&submission.user_data(TAG_SEND | number << TAG_BITS)) };
        debug_assert!(is_queued, "room was checked");
        self.counters.tx_datagrams += datagrams;
        self.counters.tx_bytes += train.len as u64;
        if datagrams > 1 {
            self.counters.tx_trains += 1;
            self.counters.tx_train_datagrams += datagrams;
        }
        Ok(())
    }

    /// Sends again, one by one, what was refused as a train. The batch is still there.
    fn resend_refused(&mut self, batch: &TxBatch) -> io::Result<()> {
        while !self.refused.is_empty() {
            let mut refused = std::mem::take(&mut self.refused);
            for train in refused.drain(..) {
                for entry in train.split() {
                    self.queue_train(&Train::of(&entry), batch)?;
                }
            }
            self.flush(Wait::No)?;
            if self.refused.is_empty() {
                self.refused = refused;
                return Ok(());
            }
        }
        Ok(())
    }

    fn has_socket_for(&self, train: &Train) -> bool {
        let socket = if file_of(train.path.remote) == FILE_V4 { &self.sockets.v4 } else { &self.sockets.v6 };
        socket.is_some()
    }

    /// (Re)starts the receives and the wake, where they have ended.
    fn arm(&mut self) -> io::Result<()> {
        self.receiver.publish();
        if self.ring.room() < SUBMISSIONS_OWN {
            self.flush(Wait::No)?;
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
    fn flush(&mut self, wait: Wait) -> io::Result<()> {
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
                tag if completion.result() < 0 => self.handle_send_error(tag >> TAG_BITS, -completion.result()),
                // A send that completed although successes are silent.
                _ => {}
            }
        }
    }

    /// A train that was refused as such is remembered to be sent in single datagrams; everything else is lost.
    fn handle_send_error(&mut self, slot: u64, errno: i32) {
        match self.slots.train(slot) {
            Some(train) if train.count > 1 && self.plain.note_refusal(train.path.remote, errno) => {
                self.counters.tx_trains_refused += 1;
                self.counters.tx_datagrams -= train.count as u64;
                self.counters.tx_bytes -= train.len as u64;
                self.counters.tx_trains -= 1;
                self.counters.tx_train_datagrams -= train.count as u64;
                self.refused.push(train);
            }
            Some(train) => (0..train.count).for_each(|_| self.counters.note_send_error(errno)),
            None => self.counters.note_send_error(errno),
        }
    }

    fn handle_wake(&mut self, completion: &cqueue::Entry) {
        self.is_wake_armed = false;
        if completion.result() > 0 {
            self.counters.wakes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, mpsc};

    use super::super::socket::{BindAddresses, bind_group};
    use crate::base::batch::Path;

    /// Long enough to be a hang to whoever watches; no test depends on its length.
    const FOREVER: Duration = Duration::from_secs(3600);

    fn driver_with(limits: IoLimits) -> UdpDriver {
        let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
        UdpDriver::new(sockets, WakeSource::new().unwrap(), limits).unwrap()
    }

    fn driver() -> UdpDriver {
        driver_with(IoLimits { recv_buffers: 64, sq_entries: 16 })
    }

    fn client() -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(FOREVER)).unwrap();
        client
    }

    fn push(batch: &mut TxBatch, path: Path, payload: &[u8]) {
        batch.reserve().unwrap()[..payload.len()].copy_from_slice(payload);
        batch.commit(path, payload.len());
    }

    /// Waits until one datagram is there and gives its path and payload.
    fn next(io: &mut UdpDriver) -> (Path, Vec<u8>) {
        let nothing = TxBatch::with_capacity(0);
        loop {
            if let Some(got) = io.receive(|datagram| (datagram.path, datagram.bytes.to_vec())) {
                return got;
            }
            io.send_and_wait(&nothing, FOREVER).unwrap();
        }
    }

    #[test]
    fn a_reply_leaves_from_the_address_the_request_came_to() {
        let mut io = driver();
        let client = client();
        for local in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 8, 7, 6)] {
            client.send_to(b"ping", (local, io.port())).unwrap();
            let (path, payload) = next(&mut io);
            assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: IpAddr::V4(local) });
            let mut batch = TxBatch::with_capacity(1);
            push(&mut batch, path, &payload);
            io.send(&batch).unwrap();
            let (len, from) = client.recv_from(&mut [0; 100]).unwrap();
            assert_eq!((len, from), (4, SocketAddr::from((local, io.port()))));
        }
    }

    /// Ten datagrams of which the last is shorter, to one client.
    fn train_for(client: &UdpSocket, local: IpAddr) -> (TxBatch, Vec<Vec<u8>>) {
        let mut batch = TxBatch::with_capacity(16);
        let payloads: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i; if i == 9 { 700 } else { 1200 }]).collect();
        for payload in &payloads {
            push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, payload);
        }
        (batch, payloads)
    }

    fn receive_all(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        (0..count).map(|_| client.recv(&mut buffer).map(|len| buffer[..len].to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_train_arrives_as_the_datagrams_it_is_made_of() {
        let mut io = driver();
        let client = client();
        for local in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(127, 0, 0, 3)] {
            let (batch, payloads) = train_for(&client, local.into());
            io.send(&batch).unwrap();
            assert_eq!(receive_all(&client, payloads.len()), payloads);
        }
        let counters = io.counters();
        assert_eq!((counters.tx_trains, counters.tx_train_datagrams, counters.tx_datagrams), (2, 20, 20));
        assert_eq!((counters.tx_failed(), counters.tx_trains_refused), (0, 0));
    }

    #[test]
    fn an_ipv6_train_arrives_too() {
        let mut io = driver();
        let Ok(client) = UdpSocket::bind("[::1]:0") else { return };
        client.set_read_timeout(Some(FOREVER)).unwrap();
        let (batch, payloads) = train_for(&client, "::1".parse().unwrap());
        io.send(&batch).unwrap();
        assert_eq!(receive_all(&client, payloads.len()), payloads);
        assert_eq!(io.counters().tx_trains, 1);
    }

    #[test]
    fn a_refused_train_goes_out_plain_and_is_not_tried_again() {
        let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
        // Without checksums the kernel refuses to segment (EINVAL), as it does for a path with a smaller MTU.
        let fd = sockets.v4.as_ref().unwrap().as_raw_fd();
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int that lives through the call.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, (&raw const on).cast(), size_of_val(&on) as u32)
        };
        assert_eq!(set, 0);
        let limits = IoLimits { recv_buffers: 64, sq_entries: 16 };
        let mut io = UdpDriver::new(sockets, WakeSource::new().unwrap(), limits).unwrap();
        let client = client();
        for round in 1..=3 {
            let (batch, payloads) = train_for(&client, IpAddr::V4(Ipv4Addr::LOCALHOST));
            io.send(&batch).unwrap();
            assert_eq!(receive_all(&client, payloads.len()), payloads);
            let counters = io.counters();
            assert_eq!((counters.tx_trains_refused, counters.tx_trains, counters.tx_failed()), (1, 0, 0));
            assert_eq!(counters.tx_datagrams, round * 10);
        }
    }

    #[test]
    fn ipv6_datagrams_know_their_local_address_and_answer_from_it() {
        let mut io = driver();
        // A machine without IPv6 has nothing to test here.
        let Ok(client) = UdpSocket::bind("[::1]:0") else { return };
        client.set_read_timeout(Some(FOREVER)).unwrap();
        client.send_to(b"ping", ("::1", io.port())).unwrap();
        let (path, payload) = next(&mut io);
        assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: "::1".parse().unwrap() });
        let mut batch = TxBatch::with_capacity(1);
        push(&mut batch, path, &payload);
        io.send(&batch).unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, SocketAddr::new(path.local, io.port()));
    }

    #[test]
    fn an_unspecified_local_address_lets_routing_choose() {
        let mut io = driver();
        let client = client();
        for local in [IpAddr::from([0, 0, 0, 0]), "::".parse().unwrap()] {
            let mut batch = TxBatch::with_capacity(1);
            push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, b"x");
            io.send(&batch).unwrap();
            assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, SocketAddr::from(([127, 0, 0, 1], io.port())));
        }
        assert_eq!(io.counters().tx_failed(), 0);
    }

    #[test]
    fn a_starved_buffer_ring_loses_nothing_and_starts_again() {
        let mut io = driver_with(IoLimits { recv_buffers: 8, sq_entries: 8 });
        let client = client();
        io.send_and_wait(&TxBatch::with_capacity(0), Duration::ZERO).unwrap();
        for number in 0..200u32 {
            client.send_to(&number.to_be_bytes(), ("127.0.0.1", io.port())).unwrap();
        }
        let numbers: Vec<_> = (0..200).map(|_| u32::from_be_bytes(next(&mut io).1.try_into().unwrap())).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        let counters = io.counters();
        assert!(counters.rx_starved > 0 && counters.rx_rearmed >= counters.rx_starved, "{counters:?}");
        assert_eq!(counters.rx_datagrams, 200);
    }

    #[test]
    fn a_datagram_larger_than_a_buffer_is_dropped_and_counted() {
        let mut io = driver();
        let client = client();
        client.send_to(&[7; 2049], ("127.0.0.1", io.port())).unwrap();
        client.send_to(&[8; 2048], ("127.0.0.1", io.port())).unwrap();
        client.send_to(&[], ("127.0.0.1", io.port())).unwrap();
        assert_eq!(next(&mut io).1, [8; 2048]);
        assert!(next(&mut io).1.is_empty());
        assert_eq!(io.counters().rx_truncated, 1);
    }

    #[test]
    fn with_a_tiny_send_buffer_nothing_hangs_and_what_arrives_is_whole() {
        let mut io = driver();
        io.sockets.v4.as_ref().unwrap().set_send_buffer_size(1).unwrap();
        let client = client();
        socket2::SockRef::from(&client).set_recv_buffer_size(4 << 20).unwrap();
        let path = Path { remote: client.local_addr().unwrap(), local: Ipv4Addr::LOCALHOST.into() };
        // Many more than the submission queue holds, so that slots are used again and again.
        let mut batch = TxBatch::with_capacity(300);
        for number in 0..300u32 {
            push(&mut batch, path, &number.to_be_bytes().repeat(300));
        }
        io.send(&batch).unwrap();
        let counters = io.counters();
        assert_eq!((counters.tx_datagrams, counters.tx_bytes), (300, 300 * 1200));
        let mut seen = HashSet::new();
        for _ in 0..300 - counters.tx_failed() {
            let mut bytes = [0; 2000];
            let len = client.recv(&mut bytes).unwrap();
            let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(&bytes[..len], number.to_be_bytes().repeat(300));
            assert!(seen.insert(number));
        }
    }

    #[test]
    fn failed_sends_are_counted_by_kind_and_do_not_hold_up_others() {
        let mut io = driver();
        let client = client();
        let local = IpAddr::from([0, 0, 0, 0]);
        let mut batch = TxBatch::with_capacity(9);
        // Broadcast without SO_BROADCAST is EACCES; port 0 is EINVAL.
        push(&mut batch, Path { remote: ([255, 255, 255, 255], 9).into(), local }, b"refused");
        push(&mut batch, Path { remote: ([127, 0, 0, 1], 0).into(), local }, b"no port");
        push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, b"good");
        io.send(&batch).unwrap();
        let mut bytes = [0; 9];
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
        let counters = io.counters();
        assert_eq!((counters.tx_refused, counters.tx_other, counters.tx_failed()), (1, 1, 2));
    }

    #[test]
    fn without_a_socket_of_the_family_a_datagram_is_counted_not_sent() {
        let sockets = bind_group(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), 0, 1).unwrap().remove(0);
        let mut io = UdpDriver::new(sockets, WakeSource::new().unwrap(), IoLimits::default()).unwrap();
        let mut batch = TxBatch::with_capacity(1);
        push(&mut batch, Path { remote: "[::1]:9".parse().unwrap(), local: "::1".parse().unwrap() }, b"x");
        io.send(&batch).unwrap();
        assert_eq!((io.counters().tx_no_socket, io.counters().tx_datagrams), (1, 0));
    }

    #[test]
    fn a_wake_from_another_thread_ends_the_wait() {
        let mut io = driver();
        let waker = io.wake_source().waker();
        waker.wake();
        io.wake_source().begin_sleep();
        std::thread::spawn(move || waker.wake());
        while io.counters().wakes == 0 {
            io.send_and_wait(&TxBatch::with_capacity(0), FOREVER).unwrap();
        }
        io.wake_source().end_sleep();
        assert_eq!(io.counters().wakes, 1, "awake, the first wake cost nothing");
    }

    /// One side of the ping-pong: waits for the count to reach what it expects, adds one, wakes the other.
    fn bounce(mut io: UdpDriver, count: &AtomicU64, mut expected: u64, until: u64, other: &super::super::wake::Waker) {
        let nothing = TxBatch::with_capacity(0);
        while expected < until {
            io.wake_source().begin_sleep();
            if count.load(Ordering::Relaxed) < expected {
                io.send_and_wait(&nothing, FOREVER).unwrap();
            }
            io.wake_source().end_sleep();
            if count.load(Ordering::Relaxed) == expected {
                count.store(expected + 1, Ordering::Relaxed);
                other.wake();
                expected += 2;
            }
        }
    }

    #[test]
    fn no_wake_is_lost_in_a_long_ping_pong() {
        const BOUNCES: u64 = 100_000;
        let count = Arc::new(AtomicU64::new(0));
        let sources = [WakeSource::new().unwrap(), WakeSource::new().unwrap()];
        let wakers = [sources[1].waker(), sources[0].waker()];
        let (done, is_done) = mpsc::channel();
        for ((first, source), other) in (0u64..).zip(sources).zip(wakers) {
            let (count, done) = (Arc::clone(&count), done.clone());
            std::thread::spawn(move || {
                let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
                let limits = IoLimits { recv_buffers: 8, sq_entries: 8 };
                bounce(UdpDriver::new(sockets, source, limits).unwrap(), &count, first, BOUNCES, &other);
                done.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            // A lost wake would be an endless sleep; the watchdog only turns it into a failure.
            is_done.recv_timeout(Duration::from_secs(300)).expect("both sides finish");
        }
        assert_eq!(count.load(Ordering::Relaxed), BOUNCES);
    }
}
