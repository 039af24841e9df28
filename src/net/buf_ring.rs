//! The provided-buffer ring: memory the kernel fills with datagrams, lent back and forth by index.
//!
//! Owns: the ring of descriptors shared with the kernel and the buffers they name.
//! Promises: a buffer is either the kernel's or ours, never both: it is ours from the completion that names it until
//! [`BufRing::give_back`]. What was given back becomes visible to the kernel at [`BufRing::publish`].
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::memory::Memory;

/// The ring and its buffers. It must outlive the io_uring it is registered with.
pub(super) struct BufRing {
    entries: Memory,
    buffers: Memory,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl BufRing {
    /// `count` buffers of `buffer_bytes` each; `count` is rounded up to a power of two, at most 2^15.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let slots = usize::from(count);
        let mut ring = Self {
            entries: Memory::map(slots * size_of::<BufRingEntry>())?,
            buffers: Memory::map(slots * buffer_bytes)?,
            count,
            buffer_bytes,
            tail: 0,
        };
        for index in 0..count {
            ring.give_back(index);
        }
        ring.publish();
        Ok(ring)
    }

    /// Tells the kernel about the ring under the group id `group`.
    pub(super) fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        // SAFETY: the descriptors are page aligned, `count` long, and live until `self` is dropped, which the owner
        // does after the io_uring itself is gone.
        unsafe {
            submitter.register_buf_ring_with_flags(self.entries.start().as_ptr() as u64, self.count, group, 0)?;
        }
        Ok(())
    }

    /// How many buffers there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The first `len` bytes of a buffer that a completion named. `None` for an index or a length we never gave out.
    pub(super) fn bytes_mut(&mut self, index: u16, len: usize) -> Option<&mut [u8]> {
        if index >= self.count || len > self.buffer_bytes {
            return None;
        }
        // The completion made the buffer ours; `&mut self` keeps it from being given back meanwhile.
        self.buffers.bytes_mut(usize::from(index) * self.buffer_bytes, len)
    }

    /// The bytes from `start` to the end of a buffer that a completion named.
    pub(super) fn payload_mut(&mut self, index: u16, start: usize) -> &mut [u8] {
        self.bytes_mut(index, self.buffer_bytes).and_then(|bytes| bytes.get_mut(start..)).unwrap_or_default()
    }

    /// Lends a buffer to the kernel again, from the next [`publish`](Self::publish) on.
    pub(super) fn give_back(&mut self, index: u16) {
        debug_assert!(index < self.count, "a buffer we own");
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` and `index` are below `count`, so both pointers are inside their memory. The kernel reads no
        // descriptor beyond the published tail, so nobody reads this one now.
        unsafe {
            let entry = self.entries.start().as_ptr().cast::<BufRingEntry>().add(place);
            let buffer = self.buffers.start().as_ptr().add(usize::from(index) * self.buffer_bytes);
            (*entry).set_addr(buffer as u64);
            (*entry).set_len(self.buffer_bytes as u32);
            (*entry).set_bid(index);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Makes everything given back visible to the kernel.
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail lies in the first descriptor's reserved field, inside the memory and aligned to two bytes;
        // after registration the kernel reads it concurrently, hence the atomic store.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start().as_ptr().cast::<BufRingEntry>());
            // Release: the descriptors are written before the tail that covers them.
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}
