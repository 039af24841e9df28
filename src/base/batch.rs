//! What crosses between sockets and protocol: datagrams in, and a batch of datagrams out.
//!
//! Owns: the send arena. A caller reserves room, writes (and encrypts) in place, commits; the network side sends the
//! very same bytes. Promises: commit order per destination is send order.
//! Forbids: sockets; a `TxBatch` is plain memory, so the simulator reads it like the kernel does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::train::Train;

/// The largest datagram we send; what leaves is below every usual path MTU.
pub const DATAGRAM_BYTES_MAX: usize = 1500;

/// A way to a peer: where it is, and which of our addresses it knows us by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The local address a reply must leave from; unspecified lets the routing table choose.
    pub local: IpAddr,
}

/// One received UDP payload, writable so that it can be decrypted in place.
#[derive(Debug)]
pub struct RxDatagram<'a> {
    /// Where it came from and which local address it was sent to.
    pub path: Path,
    /// The UDP payload.
    pub bytes: &'a mut [u8],
    /// How long it lay in the kernel and in our queues before this turn; what a worker that cannot keep up goes by.
    pub waited: Duration,
}

impl<'a> RxDatagram<'a> {
    /// One that did not wait.
    pub fn fresh(path: Path, bytes: &'a mut [u8]) -> Self {
        Self { path, bytes, waited: Duration::ZERO }
    }
}

/// One datagram of a [`TxBatch`].
#[derive(Clone, Copy, Debug)]
pub struct TxEntry {
    /// Where it goes.
    pub path: Path,
    /// First byte in the arena.
    pub start: usize,
    /// UDP payload length.
    pub len: usize,
}

/// A turn's outgoing datagrams in one arena.
#[derive(Debug)]
pub struct TxBatch {
    arena: Box<[u8]>,
    used: usize,
    entries: Vec<TxEntry>,
    entries_max: usize,
}

impl TxBatch {
    /// Room for `datagrams_max` datagrams of full size; allocates once.
    pub fn with_capacity(datagrams_max: usize) -> Self {
        Self {
            arena: vec![0; datagrams_max * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(datagrams_max),
            entries_max: datagrams_max,
        }
    }

    /// Whether a full-size datagram still fits.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.entries_max && self.arena.len() - self.used >= DATAGRAM_BYTES_MAX
    }

    /// How many full-size datagrams still fit.
    pub fn room(&self) -> usize {
        (self.entries_max - self.entries.len()).min((self.arena.len() - self.used) / DATAGRAM_BYTES_MAX)
    }

    /// A full-size slot to write into, or `None` when the batch must be sent first. Nothing is queued before
    /// [`commit`](Self::commit).
    pub fn reserve(&mut self) -> Option<&mut [u8]> {
        if !self.has_room() {
            return None;
        }
        self.arena.get_mut(self.used..self.used + DATAGRAM_BYTES_MAX)
    }

    /// Queues the first `len` bytes of the slot just reserved.
    pub fn commit(&mut self, path: Path, len: usize) {
        let len = len.min(DATAGRAM_BYTES_MAX);
        self.entries.push(TxEntry { path, start: self.used, len });
        self.used += len;
    }

    /// Takes out what `keeps` says no to; the room it had comes back with [`clear`](Self::clear).
    pub fn retain(&mut self, mut keeps: impl FnMut(Path, &[u8]) -> bool) {
        let arena = &self.arena;
        self.entries.retain(|entry| keeps(entry.path, &arena[entry.start..entry.start + entry.len]));
    }

    /// What is queued, in order.
    pub fn entries(&self) -> &[TxEntry] {
        &self.entries
    }

    /// The bytes of one entry.
    pub fn bytes(&self, entry: &TxEntry) -> &[u8] {
        &self.arena[entry.start..entry.start + entry.len]
    }

    /// The bytes of a train, one datagram behind the other.
    pub fn train_bytes(&self, train: &Train) -> &[u8] {
        &self.arena[train.start..train.start + train.len]
    }

    /// Forgets what was queued; its memory is used again.
    pub fn clear(&mut self) {
        self.used = 0;
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path { remote: ([127, 0, 0, 1], 9).into(), local: IpAddr::from([127, 0, 0, 1]) }
    }

    #[test]
    fn what_is_committed_is_what_is_read() {
        let mut batch = TxBatch::with_capacity(2);
        batch.reserve().expect("room")[..3].copy_from_slice(b"one");
        batch.commit(path(), 3);
        batch.reserve().expect("room")[..3].copy_from_slice(b"two");
        batch.commit(path(), 3);
        assert!(batch.reserve().is_none());
        let read: Vec<_> = batch.entries().iter().map(|entry| batch.bytes(entry)).collect();
        assert_eq!(read, [b"one", b"two"]);
        batch.clear();
        assert!(batch.entries().is_empty() && batch.has_room());
    }
}
