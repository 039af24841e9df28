//! Receiving: one multishot recvmsg per socket, into the shared buffer ring.
//!
//! Owns: the buffers and the queue of those the kernel filled. The reap only queues ([`Receiver::handle_completion`]);
//! the worker takes datagrams out one by one ([`Receiver::take`]), and each buffer goes back as soon as it was read.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{Submitter, cqueue, opcode, squeue};

use super::buf_ring::BufRing;
use super::cmsg::{self, CONTROL_RECV_BYTES, NAME_BYTES};
use super::counters::IoCounters;
use super::features::{IoUringRefused, refused};
use crate::base::batch::{Path, RxDatagram};

/// The largest datagram taken: above every usual MTU, so that only jumbo frames are refused.
const PAYLOAD_BYTES_MAX: usize = 2048;
/// `struct io_uring_recvmsg_out`: four 32-bit lengths and flags.
const OUT_HEADER_BYTES: usize = 16;
/// Where the payload starts in a buffer; a multiple of 16.
const PAYLOAD_START: usize = OUT_HEADER_BYTES + NAME_BYTES + CONTROL_RECV_BYTES;
const BUFFER_BYTES: usize = PAYLOAD_START + PAYLOAD_BYTES_MAX;
/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// The IPv4 and the IPv6 socket.
const SOCKETS: usize = 2;

pub(super) struct Receiver {
    buffers: BufRing,
    /// Bounded by the number of buffers.
    filled: VecDeque<Filled>,
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
    pub(super) fn new(buffers: u16, has_socket: [bool; SOCKETS]) -> Self {
        let buffers = BufRing::new(buffers, BUFFER_BYTES);
        // SAFETY: all zero is a valid msghdr: null pointers and no lengths.
        let mut shape: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        shape.msg_namelen = NAME_BYTES as _;
        shape.msg_controllen = CONTROL_RECV_BYTES as _;
        Self {
            filled: VecDeque::with_capacity(usize::from(buffers.count())),
            buffers,
            shape,
            armed: has_socket.map(|has| if has { Armed::No } else { Armed::Never }),
        }
    }

    pub(super) fn register(&self, submitter: &Submitter<'_>) -> Result<(), IoUringRefused> {
        self.buffers.register(submitter, GROUP).map_err(|error| refused(error, "buffer rings"))
    }

    /// The submission that (re)starts receiving on a registered socket, if that is due. While every buffer waits to be
    /// read it is not: the kernel would only report that again.
    pub(super) fn submission(&self, file: u32) -> Option<squeue::Entry> {
        let is_due = self.armed[file as usize] == Armed::No && self.filled.len() < usize::from(self.buffers.count());
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
        !self.filled.is_empty()
    }

    /// Shows the next datagram to `read`; `None` when there is none.
    pub(super) fn take<R>(&mut self, counters: &mut IoCounters, read: impl FnOnce(RxDatagram<'_>) -> R) -> Option<R> {
        while let Some(filled) = self.filled.pop_front() {
            let parsed = match self.buffers.bytes_mut(filled.buffer, filled.len) {
                Some(bytes) => parse(bytes, &self.shape),
                None => Err(Unusable::Malformed),
            };
            match parsed {
                Ok(datagram) => {
                    counters.rx_datagrams += 1;
                    counters.rx_bytes += datagram.bytes.len() as u64;
                    let result = read(datagram);
                    self.buffers.give_back(filled.buffer);
                    return Some(result);
                }
                Err(Unusable::Truncated) => counters.rx_truncated += 1,
                Err(Unusable::Malformed) => counters.rx_malformed += 1,
            }
            self.buffers.give_back(filled.buffer);
        }
        None
    }
}

enum Unusable {
    Truncated,
    Malformed,
}

fn parse<'a>(bytes: &'a mut [u8], shape: &libc::msghdr) -> Result<RxDatagram<'a>, Unusable> {
    let (path, len) = {
        let out = RecvMsgOut::parse(bytes, shape).map_err(|()| Unusable::Malformed)?;
        if out.is_payload_truncated() {
            return Err(Unusable::Truncated);
        }
        let remote = cmsg::read_address(out.name_data()).ok_or(Unusable::Malformed)?;
        let local = cmsg::read_local(out.control_data()).unwrap_or_else(|| unspecified(remote));
        (Path { remote, local }, out.payload_data().len())
    };
    let bytes = bytes.get_mut(PAYLOAD_START..PAYLOAD_START + len).ok_or(Unusable::Malformed)?;
    Ok(RxDatagram { path, bytes, waited: std::time::Duration::ZERO })
}

fn unspecified(remote: SocketAddr) -> IpAddr {
    match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
