//! The io_uring itself: submissions in, one enter, completions out.
//!
//! Promises: [`Ring::enter`] says whether the kernel has consumed every submission; after a fatal error it never submits
//! anything again.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, squeue};

use super::features::{IoUringRefused, build_ring};

/// What an enter does after submitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    No,
    /// Waits for one completion, at most this long.
    AtMost(Duration),
}

pub(super) struct Ring {
    uring: IoUring,
    /// After a fatal error submissions may be left over that point to memory long reused: never enter again.
    is_broken: bool,
}

impl Ring {
    pub(super) fn new(sq_entries: u32, cq_entries: u32) -> Result<Self, IoUringRefused> {
        Ok(Self { uring: build_ring(sq_entries, cq_entries)?, is_broken: false })
    }

    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// How many submissions fit between two enters.
    pub(super) fn sq_entries(&self) -> usize {
        self.uring.params().sq_entries() as usize
    }

    /// Free places in the submission queue.
    pub(super) fn room(&mut self) -> usize {
        let queue = self.uring.submission();
        queue.capacity() - queue.len()
    }

    /// Queues a submission; `false` when the queue is full.
    ///
    /// # Safety
    /// Whatever `entry` points to must stay valid and untouched for as long as the operation may use it.
    #[must_use]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: handed on to our caller.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    /// One kernel entry. `Ok(false)` when submissions are left over because the kernel was short of something: the
    /// caller reaps and enters again. Interruptions and expired waits are successes.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<bool> {
        if self.is_broken {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let entered = match wait {
            Wait::No => self.uring.submit(),
            Wait::AtMost(duration) => {
                let timespec = Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos());
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match entered {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => {
                    self.is_broken = true;
                    return Err(error);
                }
            },
        }
        Ok(self.uring.submission().is_empty())
    }

    /// Whether an enter would do anything: submissions are queued or deferred work waits.
    pub(super) fn has_work(&mut self) -> bool {
        !self.uring.submission().is_empty() || self.has_deferred()
    }

    /// Whether the kernel has work for us that it does at the next enter: completions of what came meanwhile.
    pub(super) fn has_deferred(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// The next completion, taken out of the queue.
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring cancels in the background; the buffers are freed right after us, so wait for the end here.
        // Nothing to cancel is an error of no interest.
        let _ = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
    }
}
