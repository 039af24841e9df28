//! Receiving through the ring: one multishot recvmsg per socket, into the shared buffer ring.
//!
//! Owns: the buffers and the queue of those the kernel filled. The reap only queues ([`Receiver::handle_completion`]);
//! the worker takes datagrams out one by one ([`Receiver::take`]), and each buffer goes back as soon as its last datagram
//! was read.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::SystemTime;

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{Submitter, cqueue, opcode, squeue};

use super::arrival::Arrival;
use super::buf_ring::BufRing;
use super::cmsg::{CONTROL_RECV_BYTES, NAME_BYTES};
use super::counters::IoCounters;
use super::features::{IoUringRefused, refused};
use crate::base::batch::RxDatagram;

/// `struct io_uring_recvmsg_out`: four 32-bit lengths and flags.
const OUT_HEADER_BYTES: usize = 16;
/// Where the payload starts in a buffer. A whole buffer is three cache lines longer than its pages: neighbours begin at
/// different places of a page, else their first lines would compete for the same few places in the cache.
const PAYLOAD_START: usize = OUT_HEADER_BYTES + NAME_BYTES + CONTROL_RECV_BYTES;
const _: () = assert!(PAYLOAD_START == 192);
/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// The IPv4 and the IPv6 socket.
const SOCKETS: usize = 2;

pub(super) struct Receiver {
    buffers: BufRing,
    /// Bounded by the number of buffers.
    filled: VecDeque<Filled>,
    /// The buffer that is being read, and how far.
    current: Option<(u16, Arrival)>,
    /// Tells the kernel how much room name and control data get; its pointers are unused. Boxed: the kernel keeps
    /// its address while a receive is armed.
    shape: Box<libc::msghdr>,
    armed: [Armed; SOCKETS],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    /// No such socket.
    Never,
    No,
    Yes,
}

struct Filled {
    buffer: u16,
    len: usize,
}

impl Receiver {
    /// `buffers` buffers with room for `payload_bytes` each.
    pub(super) fn new(buffers: u16, payload_bytes: usize, has_socket: [bool; SOCKETS]) -> io::Result<Self> {
        let buffers = BufRing::new(buffers, PAYLOAD_START + payload_bytes)?;
        // SAFETY: all zero is a valid msghdr: null pointers and no lengths.
        let mut shape: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        shape.msg_namelen = NAME_BYTES as _;
        shape.msg_controllen = CONTROL_RECV_BYTES as _;
        Ok(Self {
            filled: VecDeque::with_capacity(usize::from(buffers.count())),
            current: None,
            buffers,
            shape,
            armed: has_socket.map(|has| if has { Armed::No } else { Armed::Never }),
        })
    }

    pub(super) fn register(&self, submitter: &Submitter<'_>) -> Result<(), IoUringRefused> {
        self.buffers.register(submitter, GROUP).map_err(|error| refused(error, "buffer rings"))
    }

    /// The submission that (re)starts receiving on a registered socket, if that is due. While every buffer waits to be
    /// read it is not: the kernel would only report that again.
    pub(super) fn submission(&self, file: u32) -> Option<squeue::Entry> {
        let ours = self.filled.len() + usize::from(self.current.is_some());
        let is_due = self.armed[file as usize] == Armed::No && ours < usize::from(self.buffers.count());
        // MSG_TRUNC as a flag is not set: payloads cut short are marked in the result anyway.
        is_due.then(|| opcode::RecvMsgMulti::new(Fixed(file), &raw const *self.shape, GROUP).build())
    }

    /// The submission was queued.
    pub(super) fn note_armed(&mut self, file: u32) {
        self.armed[file as usize] = Armed::Yes;
    }

    /// Lets the kernel see the buffers given back since last time.
    pub(super) fn publish(&mut self) {
        self.buffers.publish();
    }

    /// Takes note of a completion; no datagram is looked at here.
    pub(super) fn handle_completion(&mut self, file: u32, completion: &cqueue::Entry, counters: &mut IoCounters) {
        if !cqueue::more(completion.flags()) {
            self.armed[file as usize] = Armed::No;
            counters.rx_rearmed += 1;
        }
        let buffer = cqueue::buffer_select(completion.flags());
        match (usize::try_from(completion.result()), buffer) {
            (Ok(len), Some(buffer)) => self.filled.push_back(Filled { buffer, len }),
            (Ok(_), None) => counters.rx_malformed += 1,
            (Err(_), buffer) => {
                if let Some(buffer) = buffer {
                    self.buffers.give_back(buffer);
                }
                match -completion.result() {
                    libc::ENOBUFS => counters.rx_starved += 1,
                    _ => counters.rx_errors += 1,
                }
            }
        }
    }

    /// Whether datagrams wait to be taken.
    pub(super) fn has_datagram(&self) -> bool {
        self.current.is_some() || !self.filled.is_empty()
    }

    /// Shows the next datagram to `read`; `None` when there is none.
    pub(super) fn take<R>(
        &mut self,
        wall: SystemTime,
        counters: &mut IoCounters,
        read: impl FnOnce(RxDatagram<'_>) -> R,
    ) -> Option<R> {
        let (buffer, mut arrival) = self.current.take().or_else(|| self.next_arrival(counters))?;
        let payload = self.buffers.payload_mut(buffer, PAYLOAD_START);
        let result = arrival.lend(payload, wall, counters, read);
        if arrival.is_done() {
            self.buffers.give_back(buffer);
        } else {
            self.current = Some((buffer, arrival));
        }
        result
    }

    /// Opens the next filled buffer; those that cannot be used go back at once.
    fn next_arrival(&mut self, counters: &mut IoCounters) -> Option<(u16, Arrival)> {
        while let Some(Filled { buffer, len }) = self.filled.pop_front() {
            let bytes = self.buffers.bytes_mut(buffer, len).unwrap_or_default();
            if let Some(arrival) = parse(bytes, &self.shape, counters) {
                return Some((buffer, arrival));
            }
            self.buffers.give_back(buffer);
        }
        None
    }
}

fn parse(bytes: &[u8], shape: &libc::msghdr, counters: &mut IoCounters) -> Option<Arrival> {
    let Ok(out) = RecvMsgOut::parse(bytes, shape) else {
        counters.rx_malformed += 1;
        return None;
    };
    if out.is_payload_truncated() {
        counters.rx_truncated += 1;
        return None;
    }
    Arrival::read(out.name_data(), out.control_data(), out.payload_data().len(), counters)
}
