//! What the threads of a run share: its epoch, the measured window and the pace.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A window begins and ends this far ahead, so that every thread knows of it before it is reached.
const AHEAD: Duration = Duration::from_millis(20);
/// Windows are looked at in slices of this length.
pub const SLICE_NS: u64 = 100_000_000;
/// The pace at which sources send as they were told, in thousandths.
const FULL_PACE: u32 = 1000;

/// One run. A packet is in the window by the time of its sending, whenever it arrives.
#[derive(Debug)]
pub struct Course {
    epoch: Instant,
    /// The wall clock at the epoch, in nanoseconds since 1970.
    wall_ns: AtomicU64,
    first_ns: AtomicU64,
    end_ns: AtomicU64,
    pace: AtomicU32,
    stopping: AtomicBool,
}

impl Course {
    /// A run that begins now, with a closed window.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            wall_ns: AtomicU64::new(0),
            first_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(0),
            pace: AtomicU32::new(FULL_PACE),
            stopping: AtomicBool::new(false),
        }
    }

    /// When the run began.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Nanoseconds since the run began.
    pub fn ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Sets the wall clock's `wall` beside the monotonic `now`.
    pub fn set_wall(&self, now: Instant, wall: SystemTime) {
        let wall_ns = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        self.wall_ns.store(wall_ns.saturating_sub(self.ns(now)), Ordering::Release);
    }

    /// Nanoseconds of the run at a time of the wall clock, given in nanoseconds since 1970.
    pub fn ns_of_wall(&self, wall_ns: u64) -> u64 {
        wall_ns.saturating_sub(self.wall_ns.load(Ordering::Relaxed))
    }

    /// Opens the window a moment after `now`.
    pub fn open(&self, now: Instant) {
        self.first_ns.store(self.ns(now + AHEAD), Ordering::Release);
        self.end_ns.store(u64::MAX, Ordering::Release);
    }

    /// Forgets the last window: nothing counts until the next.
    pub fn shut(&self) {
        self.end_ns.store(0, Ordering::Release);
    }

    /// Closes the window a moment after `now`; gives its length.
    pub fn close(&self, now: Instant) -> Duration {
        let end_ns = self.ns(now + AHEAD);
        self.end_ns.store(end_ns, Ordering::Release);
        Duration::from_nanos(end_ns.saturating_sub(self.first_ns.load(Ordering::Acquire)))
    }

    /// Which slice of the window a packet falls into that was sent then; `None` outside.
    pub fn slice(&self, sent_ns: u64) -> Option<usize> {
        let first_ns = self.first_ns.load(Ordering::Relaxed);
        let is_inside = (first_ns..self.end_ns.load(Ordering::Relaxed)).contains(&sent_ns);
        is_inside.then(|| ((sent_ns - first_ns) / SLICE_NS) as usize)
    }

    /// Lets steady sources send at this multiple of their rate.
    pub fn set_pace(&self, pace: f64) {
        self.pace.store((pace * f64::from(FULL_PACE)) as u32, Ordering::Release);
    }

    /// The multiple of their rate at which steady sources send.
    pub fn pace(&self) -> f64 {
        f64::from(self.pace.load(Ordering::Acquire)) / f64::from(FULL_PACE)
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
    fn a_packet_is_in_the_window_by_the_time_of_its_sending() {
        let start = tramline::runtime::clock::now();
        let course = Course::new(start);
        let at = |ms: u64| course.slice((AHEAD + Duration::from_millis(ms)).as_nanos() as u64);
        assert_eq!(at(0), None);
        course.open(start + Duration::from_secs(1));
        assert_eq!((at(999), at(1000), at(1099), at(1100), at(900_000)), (None, Some(0), Some(0), Some(1), Some(8990)));
        assert_eq!(course.close(start + Duration::from_secs(3)), Duration::from_secs(2));
        assert_eq!((at(2999), at(3000)), (Some(19), None));
        course.shut();
        assert_eq!(at(1000), None);
    }

    #[test]
    fn the_wall_clock_is_translated() {
        let start = tramline::runtime::clock::now();
        let course = Course::new(start);
        course.set_wall(start + Duration::from_secs(2), UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(course.ns_of_wall(100_000_000_500), 2_000_000_500);
        assert_eq!(course.ns_of_wall(5), 0);
    }

    #[test]
    fn the_pace_is_one_until_set() {
        let course = Course::new(tramline::runtime::clock::now());
        assert_eq!(course.pace(), 1.0);
        course.set_pace(1.5);
        assert_eq!(course.pace(), 1.5);
    }
}
