//! Memory for the kernel to write to: page-aligned, zero, and only as much of it resident as was ever touched.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

/// One anonymous mapping, unmapped on drop.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

impl Memory {
    /// Maps `bytes`, more than zero. Receive buffers are made for 64 KiB and mostly hold one datagram, so neither swap
    /// is reserved for them nor do huge pages make the untouched neighbours of a touched page resident.
    pub(super) fn map(bytes: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range was mapped just now. Advice only: a kernel without huge pages refuses it.
        unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, bytes }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Where it begins.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// `len` bytes from `at`; `None` beyond the end.
    pub(super) fn bytes_mut(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        if at.checked_add(len)? > self.bytes {
            return None;
        }
        // SAFETY: in bounds by the check above, initialised by the kernel, and borrowed through `&mut self`. Whoever lets
        // the kernel write to a part of it does not ask for that part meanwhile.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), len) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this very length; borrows of it have ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_BYTES: usize = 4096;

    /// How many pages of it are in memory, as the kernel says.
    fn resident_pages(memory: &Memory) -> usize {
        let mut pages = vec![0u8; memory.bytes.div_ceil(PAGE_BYTES)];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let said = unsafe { libc::mincore(memory.start.as_ptr().cast(), memory.bytes, pages.as_mut_ptr()) };
        assert_eq!(said, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn only_what_was_touched_is_resident() {
        let mut memory = Memory::map(1024 * PAGE_BYTES).unwrap();
        assert_eq!(resident_pages(&memory), 0);
        for page in [0, 500, 1023] {
            memory.bytes_mut(page * PAGE_BYTES, 1).unwrap()[0] = 7;
        }
        assert_eq!(resident_pages(&memory), 3);
        assert!(memory.bytes_mut(1024 * PAGE_BYTES, 1).is_none());
        assert!(memory.bytes_mut(usize::MAX, 1).is_none());
    }
}
