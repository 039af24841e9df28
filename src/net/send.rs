//! Sending, as far as it is the same whoever carries it: a message header per train, and what becomes of refusals.
//!
//! Owns: the slots, each with everything one message points to, and what is known about peers that take no trains.
//! The kernel copies header, addresses, control data and payload while it takes a message: MSG_DONTWAIT on every send
//! makes a full socket buffer an error instead of a wait that would read the slot later. So slots and payload are free
//! again once the call that handed them over has returned.
//! Promises: every datagram of a batch is given to the kernel or counted as not sent; the order per destination stays,
//! save that a refused train goes again behind what was in line.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use super::cmsg::{self, CONTROL_SEND_BYTES, NAME_BYTES};
use super::counters::IoCounters;
use super::plain::PlainPeers;
use super::{FILE_V4, FILE_V6};
use crate::base::batch::TxBatch;
use crate::base::train::{Train, trains};

/// On every send, whoever makes it.
pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// Messages in line for the kernel.
pub(super) struct SendSlots {
    /// As sendmmsg(2) takes them, one behind the other; each points into the part of the same number.
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[Part]>,
    used: usize,
}

/// What a header points to.
struct Part {
    train: Option<Train>,
    payload: libc::iovec,
    name: Aligned<NAME_BYTES>,
    control: Aligned<CONTROL_SEND_BYTES>,
}

#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl SendSlots {
    pub(super) fn new(count: usize) -> Self {
        let mut parts: Box<[Part]> = (0..count).map(|_| Part::empty()).collect();
        let headers = parts.iter_mut().map(Part::header).collect();
        Self { headers, parts, used: 0 }
    }

    /// The kernel has taken every message: all slots are free.
    pub(super) fn reuse(&mut self) {
        self.used = 0;
    }

    /// Messages in line.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == self.parts.len()
    }

    /// Fills the next slot and gives its number; `None` when all are in use. The message is valid until
    /// [`reuse`](Self::reuse), and as long as `payload` lives and stays where it is.
    pub(super) fn fill(&mut self, train: &Train, payload: &[u8]) -> Option<usize> {
        let number = self.used;
        let (part, header) = (self.parts.get_mut(number)?, self.headers.get_mut(number)?);
        self.used += 1;
        part.train = Some(*train);
        let path = train.path;
        header.msg_hdr.msg_namelen = cmsg::write_address(path.remote, &mut part.name.0);
        // A local address of the other family would be refused by the kernel: routing chooses then.
        let mut control_len = if path.local.is_ipv4() == path.remote.is_ipv4() {
            cmsg::write_local(path.local, &mut part.control.0)
        } else {
            0
        };
        if train.count > 1 {
            control_len = cmsg::write_segment(train.segment_bytes as u16, control_len, &mut part.control.0);
        }
        header.msg_hdr.msg_controllen = control_len as _;
        // The kernel only reads what a sent iovec points to.
        part.payload.iov_base = payload.as_ptr().cast_mut().cast();
        part.payload.iov_len = payload.len();
        Some(number)
    }

    /// The header in a slot that was filled.
    pub(super) fn header(&self, number: usize) -> *const libc::msghdr {
        &raw const self.headers[number].msg_hdr
    }

    /// The headers in line from `first` on.
    pub(super) fn headers_from(&mut self, first: usize) -> &mut [libc::mmsghdr] {
        self.headers.get_mut(first..self.used).unwrap_or_default()
    }

    /// What the slot of that number sends, until it is reused.
    pub(super) fn train(&self, number: usize) -> Option<Train> {
        self.parts.get(number)?.train
    }
}

impl Part {
    fn empty() -> Self {
        Self {
            train: None,
            payload: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Aligned([0; NAME_BYTES]),
            control: Aligned([0; CONTROL_SEND_BYTES]),
        }
    }

    /// A header that points here. The part is boxed, so it stays where it is.
    fn header(&mut self) -> libc::mmsghdr {
        // SAFETY: all zero is a valid mmsghdr: null pointers and no lengths.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = self.name.0.as_mut_ptr().cast();
        header.msg_hdr.msg_iov = &raw mut self.payload;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = self.control.0.as_mut_ptr().cast();
        header
    }
}

/// What is known about sending beside the messages themselves.
#[derive(Debug)]
pub(super) struct Outlook {
    /// By [`FILE_V4`] and [`FILE_V6`].
    has_socket: [bool; 2],
    plain: PlainPeers,
    /// Trains of the batch being sent that the kernel refused.
    refused: Vec<Train>,
}

impl Outlook {
    pub(super) fn new(has_socket: [bool; 2]) -> Self {
        Self { has_socket, plain: PlainPeers::default(), refused: Vec::new() }
    }

    /// A message was not sent. A train that was refused as such is remembered to be sent in single datagrams;
    /// everything else is lost.
    pub(super) fn note_failure(&mut self, train: Option<Train>, errno: i32, counters: &mut IoCounters) {
        match train {
            Some(train) if train.count > 1 && self.plain.note_refusal(train.path.remote, errno) => {
                counters.tx_trains_refused += 1;
                counters.tx_datagrams -= train.count as u64;
                counters.tx_bytes -= train.len as u64;
                counters.tx_trains -= 1;
                counters.tx_train_datagrams -= train.count as u64;
                self.refused.push(train);
            }
            Some(train) => (0..train.count).for_each(|_| counters.note_send_error(errno)),
            None => counters.note_send_error(errno),
        }
    }
}

/// Turns a batch into messages; an implementor only carries them to the kernel.
pub(super) trait Transmit {
    /// The books that are kept about sending.
    fn books(&mut self) -> (&mut Outlook, &mut IoCounters);

    /// Puts a message in line, making room first if there is none. What is in line points into `payload`, so
    /// [`flush`](Self::flush) must follow before that borrow ends.
    fn put(&mut self, train: &Train, payload: &[u8]) -> io::Result<()>;

    /// Gives the kernel all that is in line. Failures of single messages go to [`Outlook::note_failure`].
    fn flush(&mut self) -> io::Result<()>;

    /// Puts a batch in line; the note at [`put`](Self::put) holds for it.
    fn queue(&mut self, batch: &TxBatch) -> io::Result<()> {
        for train in trains(batch.entries()) {
            if train.count > 1 && self.books().0.plain.is_plain(train.path.remote) {
                self.queue_split(train, batch)?;
            } else {
                self.queue_train(&train, batch)?;
            }
        }
        Ok(())
    }

    /// Sends again, one by one, what was refused as a train. The batch is still there.
    fn resend_refused(&mut self, batch: &TxBatch) -> io::Result<()> {
        while !self.books().0.refused.is_empty() {
            let mut refused = std::mem::take(&mut self.books().0.refused);
            for train in refused.drain(..) {
                self.queue_split(train, batch)?;
            }
            self.flush()?;
            let (outlook, _) = self.books();
            if outlook.refused.is_empty() {
                // Its memory is used again.
                outlook.refused = refused;
            }
        }
        Ok(())
    }

    /// Puts a train in line as single datagrams.
    fn queue_split(&mut self, train: Train, batch: &TxBatch) -> io::Result<()> {
        train.split().try_for_each(|entry| self.queue_train(&Train::of(&entry), batch))
    }

    /// Puts a train in line, and into the books.
    fn queue_train(&mut self, train: &Train, batch: &TxBatch) -> io::Result<()> {
        let datagrams = train.count as u64;
        let (outlook, counters) = self.books();
        if !outlook.has_socket[file_of(train.path.remote) as usize] {
            counters.tx_no_socket += datagrams;
            return Ok(());
        }
        counters.tx_datagrams += datagrams;
        counters.tx_bytes += train.len as u64;
        if datagrams > 1 {
            counters.tx_trains += 1;
            counters.tx_train_datagrams += datagrams;
        }
        self.put(train, batch.train_bytes(train))
    }
}

/// Which socket reaches `remote`.
pub(super) fn file_of(remote: SocketAddr) -> u32 {
    if remote.is_ipv4() { FILE_V4 } else { FILE_V6 }
}
