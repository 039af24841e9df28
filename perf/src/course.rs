//! What the threads of a run share: its epoch, the measured window and the publisher's progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// One run. The window is given in packet numbers, so that each packet is in or out whenever it arrives.
#[derive(Debug)]
pub struct Course {
    epoch: Instant,
    first: AtomicU64,
    end: AtomicU64,
    sent: AtomicU64,
    stopping: AtomicBool,
}

impl Course {
    /// A run that begins now, with a closed window.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            first: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// Nanoseconds since the run began.
    pub fn ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Packets `..sent` have been sent.
    pub fn set_sent(&self, sent: u64) {
        self.sent.store(sent, Ordering::Release);
    }

    /// How many packets have been sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Opens the window for packets from `first` on.
    pub fn open(&self, first: u64) {
        self.end.store(u64::MAX, Ordering::Release);
        self.first.store(first, Ordering::Release);
    }

    /// Closes the window before packet `end`; gives how many packets it holds.
    pub fn close(&self, end: u64) -> u64 {
        self.end.store(end, Ordering::Release);
        end.saturating_sub(self.first.load(Ordering::Acquire))
    }

    /// Whether a packet counts.
    pub fn counts(&self, number: u64) -> bool {
        (self.first.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed)).contains(&number)
    }

    /// Ends all threads.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether threads shall end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_within_the_window_count() {
        let course = Course::new(tramline::runtime::clock::now());
        assert!(!course.counts(0));
        course.open(5);
        assert!(!course.counts(4) && course.counts(5) && course.counts(1 << 50));
        assert_eq!(course.close(9), 4);
        assert!(course.counts(8) && !course.counts(9));
    }
}
