//! The driver where io_uring is forbidden or missing: sendmmsg, ppoll, recvmmsg, each at most once per turn and socket in
//! the usual case. Older system calls than any sandbox refuses, and the same trains in both directions.
//!
//! Owns: message headers for both directions and the receive buffers, half of them for each family.
//! Promises: what [`super::driver`] promises. A receive buffer is filled again only when every datagram of that family
//! was lent, so the memory in use is always the same few pages while little arrives.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::arrival::Arrival;
use super::cmsg::{CONTROL_RECV_BYTES, NAME_BYTES};
use super::counters::IoCounters;
use super::driver::{Driver, IoLimits, OpenError};
use super::memory::Memory;
use super::send::{Outlook, SEND_FLAGS, SendSlots, Transmit, file_of};
use super::socket::WorkerSockets;
use super::wake::WakeSource;
use super::{FILE_V4, FILE_V6};
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::train::Train;

/// By [`FILE_V4`] and [`FILE_V6`].
const SOCKETS: [usize; 2] = [FILE_V4 as usize, FILE_V6 as usize];

/// One worker's network over plain system calls: belongs to the thread that made it.
pub struct MmsgDriver {
    slots: [SendSlots; 2],
    /// `None` where there is no socket.
    inboxes: [Option<Inbox>; 2],
    outlook: Outlook,
    sockets: WorkerSockets,
    wake: WakeSource,
    counters: IoCounters,
}

/// What became readable during a wait.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    sockets: [bool; 2],
    wake: bool,
}

impl MmsgDriver {
    /// Allocates headers and buffers.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(sockets: WorkerSockets, wake: WakeSource, limits: IoLimits) -> io::Result<Self> {
        let has_socket = [sockets.has_v4(), sockets.has_v6()];
        let buffers = usize::from(limits.recv_buffers / 2).max(1);
        let inbox = |has: bool| has.then(|| Inbox::new(buffers, limits.recv_buffer_bytes)).transpose();
        let slots = |has: bool| SendSlots::new(if has { limits.sq_entries as usize } else { 0 });
        Ok(Self {
            slots: has_socket.map(slots),
            inboxes: [inbox(has_socket[0])?, inbox(has_socket[1])?],
            outlook: Outlook::new(has_socket),
            sockets,
            wake,
            counters: IoCounters::default(),
        })
    }

    /// Sends what is in line for one socket. sendmmsg stops at a message that fails and tells its error when that message
    /// is the first; so the failed one is passed over and the rest goes on.
    fn flush_to(&mut self, file: usize) {
        let slots = &mut self.slots[file];
        let Some(socket) = socket_of(&self.sockets, file) else { return };
        let mut first = 0;
        while first < slots.len() {
            let headers = slots.headers_from(first);
            // SAFETY: the headers are initialised, and what they point to lives: the slots by themselves, the payload
            // because whoever put it in line still borrows it. The kernel keeps none of it.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, SEND_FLAGS as _)
            };
            self.counters.enters += 1;
            if sent > 0 {
                first += sent as usize;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                errno => {
                    let train = slots.train(first);
                    self.outlook.note_failure(train, errno.unwrap_or(libc::EIO), &mut self.counters);
                    first += 1;
                }
            }
        }
        slots.reuse();
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<Ready> {
        let timespec = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        // A missing socket's place is taken by the wake-up: poll takes no holes.
        let wake = self.wake.fd();
        let [v4, v6] = SOCKETS.map(|file| socket_of(&self.sockets, file).unwrap_or(wake));
        let mut fds = [v4, v6, wake].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        self.counters.enters += 1;
        match poll(&mut fds, Some(&timespec)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let [v4, v6, wake] = fds.map(|fd| !fd.revents().is_empty());
        Ok(Ready { sockets: [v4, v6], wake })
    }

    /// Takes in what came. The socket whose datagrams are not all lent has its turn when they are.
    fn fill(&mut self, ready: Ready) {
        for file in SOCKETS {
            let Some(inbox) = self.inboxes[file].as_mut().filter(|inbox| inbox.is_empty()) else { continue };
            if ready.sockets[file]
                && let Some(socket) = socket_of(&self.sockets, file)
            {
                inbox.fill(socket, &mut self.counters);
            }
        }
        // The eventfd blocks when it is empty, but poll said it is not, and nobody else reads it.
        if ready.wake {
            self.counters.enters += 1;
            if rustix::io::read(self.wake.fd(), &mut [0; 8]).is_ok() {
                self.counters.wakes += 1;
            }
        }
    }
}

impl Driver for MmsgDriver {
    fn open(sockets: WorkerSockets, wake: WakeSource, limits: IoLimits) -> Result<Self, OpenError> {
        Self::new(sockets, wake, limits).map_err(OpenError::Memory)
    }

    fn receive<R>(&mut self, wall: SystemTime, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R> {
        let inbox = self.inboxes.iter_mut().flatten().find(|inbox| !inbox.is_empty())?;
        inbox.take(wall, &mut self.counters, read)
    }

    fn send(&mut self, batch: &TxBatch) -> io::Result<()> {
        self.queue(batch)?;
        self.flush()?;
        self.resend_refused(batch)
    }

    fn send_and_wait(&mut self, batch: &TxBatch, timeout: Duration) -> io::Result<()> {
        self.counters.turns += 1;
        self.send(batch)?;
        let ready = if timeout.is_zero() || self.has_datagram() {
            Ready { sockets: [true; 2], wake: false }
        } else {
            self.wait(timeout)?
        };
        self.fill(ready);
        Ok(())
    }

    fn has_datagram(&self) -> bool {
        self.inboxes.iter().flatten().any(|inbox| !inbox.is_empty())
    }

    fn has_more(&mut self) -> bool {
        // What waited when recvmmsg was called is queued; what came since nobody sees.
        false
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

impl Transmit for MmsgDriver {
    fn books(&mut self) -> (&mut Outlook, &mut IoCounters) {
        (&mut self.outlook, &mut self.counters)
    }

    fn put(&mut self, train: &Train, payload: &[u8]) -> io::Result<()> {
        let file = file_of(train.path.remote) as usize;
        if self.slots[file].is_full() {
            self.flush_to(file);
        }
        if self.slots[file].fill(train, payload).is_none() {
            self.counters.tx_other += train.count as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        SOCKETS.into_iter().for_each(|file| self.flush_to(file));
        Ok(())
    }
}

fn socket_of(sockets: &WorkerSockets, file: usize) -> Option<BorrowedFd<'_>> {
    if file == FILE_V4 as usize { sockets.v4_fd() } else { sockets.v6_fd() }
}

/// Headers and buffers of one socket. Filled from the first buffer on, read in that order, filled again when all are read.
struct Inbox {
    buffers: Memory,
    buffer_bytes: usize,
    headers: Box<[libc::mmsghdr]>,
    /// What the headers point to, apart from the buffers.
    parts: Box<[Part]>,
    /// Headers that hold what came.
    filled: usize,
    /// The header to read next.
    next: usize,
    /// The datagrams of the header before that.
    current: Option<Arrival>,
}

#[repr(C, align(8))]
struct Part {
    payload: libc::iovec,
    control: [u8; CONTROL_RECV_BYTES],
    name: [u8; NAME_BYTES],
}

impl Inbox {
    fn new(count: usize, buffer_bytes: usize) -> io::Result<Self> {
        let buffers = Memory::map(count * buffer_bytes)?;
        let start = buffers.start().as_ptr();
        let mut parts: Box<[Part]> = (0..count)
            .map(|index| Part {
                payload: libc::iovec {
                    iov_base: start.wrapping_add(index * buffer_bytes).cast(),
                    iov_len: buffer_bytes,
                },
                control: [0; CONTROL_RECV_BYTES],
                name: [0; NAME_BYTES],
            })
            .collect();
        let headers = parts.iter_mut().map(Part::header).collect();
        Ok(Self { buffers, buffer_bytes, headers, parts, filled: 0, next: 0, current: None })
    }

    /// Whether everything was lent.
    fn is_empty(&self) -> bool {
        self.current.is_none() && self.next == self.filled
    }

    /// Takes in what waits in the socket, as far as there are buffers.
    fn fill(&mut self, socket: BorrowedFd<'_>, counters: &mut IoCounters) {
        for (header, part) in self.headers.iter_mut().zip(&mut self.parts).take(self.filled) {
            // The kernel has written the lengths of the last message there.
            *header = part.header();
        }
        (self.filled, self.next) = (0, 0);
        // SAFETY: the headers point to parts and buffers that live as long as `self` and to nothing else; nobody borrows
        // any of it, as everything was lent and given back. The kernel keeps none of it.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        counters.enters += 1;
        if let Ok(came) = usize::try_from(came) {
            self.filled = came;
            counters.rx_starved += u64::from(came == self.headers.len());
        } else if !matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            counters.rx_errors += 1;
        }
    }

    /// Shows the next datagram to `read`; `None` when there is none.
    fn take<R>(
        &mut self,
        wall: SystemTime,
        counters: &mut IoCounters,
        read: impl FnOnce(RxDatagram<'_>) -> R,
    ) -> Option<R> {
        let mut arrival = self.current.take().or_else(|| self.next_arrival(counters))?;
        let payload = self.buffers.bytes_mut((self.next - 1) * self.buffer_bytes, self.buffer_bytes);
        let result = arrival.lend(payload.unwrap_or_default(), wall, counters, read);
        self.current = (!arrival.is_done()).then_some(arrival);
        result
    }

    /// Opens the next message; those that cannot be used are passed over.
    fn next_arrival(&mut self, counters: &mut IoCounters) -> Option<Arrival> {
        while self.next < self.filled {
            let (header, part) = (&self.headers[self.next], &self.parts[self.next]);
            self.next += 1;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                counters.rx_truncated += 1;
                continue;
            }
            let name = part.name.get(..header.msg_hdr.msg_namelen as usize).unwrap_or_default();
            let control = part.control.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
            let arrival = Arrival::read(name, control, header.msg_len as usize, counters);
            if arrival.is_some() {
                return arrival;
            }
        }
        None
    }
}

impl Part {
    /// A header that points here, with all the room there is. The part is boxed, so it stays where it is.
    fn header(&mut self) -> libc::mmsghdr {
        // SAFETY: all zero is a valid mmsghdr: null pointers and no lengths.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = self.name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = NAME_BYTES as _;
        header.msg_hdr.msg_iov = &raw mut self.payload;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = self.control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = CONTROL_RECV_BYTES as _;
        header
    }
}
