//! When a frame is to be shown: RTP timestamps of a track made seconds of its file.
//!
//! Inside one source the timestamps tell, at the pace that the publisher's sender reports give them (RFC 3550 §6.4.1): a
//! sampling clock that runs wrong by a hundredth of a percent is a third of a second late after an hour. Where the source
//! changes, or its timestamps begin anew, the reports tell where it goes on, and without reports the arrival.
//! Owns: the mapping of one track. Promises: times never go back by a correction; no timestamp moves the file away from
//! the time that really passed. Forbids: clocks, files.

use std::time::Instant;

use crate::base::ids::Ssrc;

/// Timestamps that say so much more or less than the arrivals do are a new beginning. A publisher's queue may hold some
/// seconds of picture after a bad moment of its line, and sends them faster then.
const JUMP_S: f64 = 5.0;
/// Reports that say so much else than those before come from a clock that was set.
const CLOCK_SET_S: f64 = 0.5;
/// What the reports say differently is made good in this time: their own jitter of some milliseconds is not followed.
const CATCH_UP_S: f64 = 10.0;
/// No sampling clock is that wrong; what would need more is made good more slowly.
const CORRECTION_MAX: f64 = 0.01;
/// Where a new source begins, its first frame is that much later than the last one at least.
const STEP_S: f64 = 0.001;

/// A moment of one source on the publisher's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Source.
    pub source: Ssrc,
    /// NTP time (32.32).
    pub ntp: u64,
    /// RTP timestamp at that time.
    pub rtp_timestamp: u32,
}

/// A straight piece of the mapping.
#[derive(Clone, Copy, Debug)]
struct Piece {
    source: Ssrc,
    /// Extended timestamp and second of the same moment.
    rtp: i64,
    at_s: f64,
    /// Pace: 1 is what the clock rate says.
    pace: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Timeline {
    rate_hz: f64,
    piece: Option<Piece>,
    /// The last packet: extended timestamp, second, arrival.
    last: (i64, f64, Option<Instant>),
    /// A moment on the publisher's clock and in the file.
    anchor: Option<(u64, f64)>,
}

/// Where a packet lies in its file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Seconds since the file's beginning.
    pub at_s: f64,
    /// Its timestamps count from somewhere else than those before.
    pub is_new_origin: bool,
}

/// NTP's 32.32 seconds from `from` to `to`.
pub fn ntp_seconds_between(from: u64, to: u64) -> f64 {
    to.wrapping_sub(from) as i64 as f64 / (1u64 << 32) as f64
}

fn seconds_between(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64(),
        None => -from.duration_since(to).as_secs_f64(),
    }
}

impl Timeline {
    /// Of a clock with so many ticks a second; nothing came yet.
    pub fn new(rate_hz: u32) -> Self {
        Self { rate_hz: f64::from(rate_hz), piece: None, last: (0, 0.0, None), anchor: None }
    }

    /// Places a packet; `report` is the latest of its source, where it sent one.
    pub fn place(&mut self, source: Ssrc, rtp: u32, arrived_at: Instant, report: Option<Report>) -> Placed {
        let (last_rtp, last_s, last_at) = self.last;
        let elapsed_s = last_at.map_or(0.0, |at| seconds_between(at, arrived_at));
        if let Some(piece) = self.piece.filter(|piece| piece.source == source) {
            let extended = extend(last_rtp, rtp);
            let step_s = (extended - last_rtp) as f64 / self.rate_hz;
            if (step_s - elapsed_s).abs() <= JUMP_S {
                let at_s = piece.at_s + (extended - piece.rtp) as f64 * piece.pace / self.rate_hz;
                self.last = (extended, at_s, Some(arrived_at));
                return Placed { at_s, is_new_origin: false };
            }
        }
        let by_report = self.anchor.zip(report).filter(|_| self.piece.is_some_and(|piece| piece.source != source));
        let by_report = by_report.map(|((ntp, anchor_s), report)| {
            let behind = rtp.wrapping_sub(report.rtp_timestamp) as i32;
            anchor_s + ntp_seconds_between(ntp, report.ntp) + f64::from(behind) / self.rate_hz
        });
        let by_arrival = last_s + elapsed_s.max(0.0);
        let is_likely = |at_s: &f64| (at_s - by_arrival).abs() <= JUMP_S;
        let at_s = match self.piece {
            None => 0.0,
            Some(_) => by_report.filter(is_likely).unwrap_or(by_arrival).max(last_s + STEP_S),
        };
        if by_report.is_none() {
            self.anchor = None;
        }
        self.piece = Some(Piece { source, rtp: i64::from(rtp), at_s, pace: 1.0 });
        self.last = (i64::from(rtp), at_s, Some(arrived_at));
        Placed { at_s, is_new_origin: true }
    }

    /// Takes in what the publisher says about the clock of its present source. The second of the file that the report is
    /// about; `None` where it is of another source.
    pub fn handle_report(&mut self, report: Report) -> Option<f64> {
        let piece = self.piece.filter(|piece| piece.source == report.source)?;
        let rtp = extend(self.last.0, report.rtp_timestamp);
        let at_s = piece.at_s + (rtp - piece.rtp) as f64 * piece.pace / self.rate_hz;
        let wrong_s = self.anchor.map(|(ntp, anchor_s)| anchor_s + ntp_seconds_between(ntp, report.ntp) - at_s);
        match wrong_s.filter(|wrong_s| wrong_s.abs() <= CLOCK_SET_S) {
            Some(wrong_s) => {
                let pace = 1.0 + (wrong_s / CATCH_UP_S).clamp(-CORRECTION_MAX, CORRECTION_MAX);
                self.piece = Some(Piece { rtp, at_s, pace, ..piece });
            }
            None => {
                self.anchor = Some((report.ntp, at_s));
                self.piece = Some(Piece { rtp, at_s, pace: 1.0, ..piece });
            }
        }
        Some(at_s)
    }
}

/// The full timestamp that is nearest to another one (RFC 3550 §5.1: they wrap around).
fn extend(near: i64, rtp: u32) -> i64 {
    near + i64::from(rtp.wrapping_sub(near as u32) as i32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock;

    const A: Ssrc = Ssrc(1);
    const B: Ssrc = Ssrc(2);

    fn ntp(seconds: f64) -> u64 {
        ((3_900_000_000.0 + seconds) * (1u64 << 32) as f64) as u64
    }

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-3
    }

    #[test]
    fn timestamps_tell_across_their_wrap() {
        let (mut line, t0) = (Timeline::new(90_000), clock::now());
        let first = u32::MAX - 1000;
        assert_eq!(line.place(A, first, t0, None), Placed { at_s: 0.0, is_new_origin: true });
        for second in 1..5u32 {
            let at = t0 + Duration::from_secs(second.into());
            let placed = line.place(A, first.wrapping_add(90_000 * second), at, None);
            assert_eq!((placed.at_s, placed.is_new_origin), (f64::from(second), false));
        }
        // A late one goes where it belongs.
        let placed = line.place(A, first.wrapping_add(90_000 * 3), t0 + Duration::from_secs(4), None);
        assert!(near(placed.at_s, 3.0));
    }

    #[test]
    fn a_timestamp_that_cannot_be_is_a_new_beginning() {
        let (mut line, t0) = (Timeline::new(48_000), clock::now());
        line.place(A, 0, t0, None);
        let placed = line.place(A, 0x7000_0000, t0 + Duration::from_millis(20), None);
        assert!(near(placed.at_s, 0.02) && placed.is_new_origin);
        let placed = line.place(A, 0x7000_0000 + 960, t0 + Duration::from_millis(40), None);
        assert!(near(placed.at_s, 0.04) && !placed.is_new_origin);
        // An hour of silence is one where an hour passed.
        let placed = line.place(A, 0x7000_0000 + 960 + 48_000 * 3600, t0 + Duration::from_secs(3600), None);
        assert!(near(placed.at_s, 3600.04) && !placed.is_new_origin);
    }

    #[test]
    fn a_clock_that_runs_wrong_is_followed_by_its_reports() {
        // 90,009 ticks a second where 90,000 are said: 100 ppm.
        let (mut line, t0) = (Timeline::new(90_000), clock::now());
        let mut wrong_max = 0.0f64;
        for second in 0..3600u32 {
            let (rtp, at) = (second * 90_009, t0 + Duration::from_secs(second.into()));
            let placed = line.place(A, rtp, at, None);
            let wrong_s = placed.at_s - f64::from(second);
            wrong_max = wrong_max.max(wrong_s.abs());
            line.handle_report(Report { source: A, ntp: ntp(second.into()), rtp_timestamp: rtp });
        }
        assert!(wrong_max < 0.005, "{wrong_max}");
    }

    #[test]
    fn a_clock_that_is_set_moves_nothing() {
        let (mut line, t0) = (Timeline::new(90_000), clock::now());
        line.place(A, 0, t0, None);
        line.handle_report(Report { source: A, ntp: ntp(0.0), rtp_timestamp: 0 });
        let at = line.handle_report(Report { source: A, ntp: ntp(7200.0), rtp_timestamp: 90_000 });
        assert!(near(at.unwrap(), 1.0));
        let placed = line.place(A, 180_000, t0 + Duration::from_secs(2), None);
        assert!(near(placed.at_s, 2.0));
        assert_eq!(line.handle_report(Report { source: B, ntp: 0, rtp_timestamp: 0 }), None);
    }

    #[test]
    fn another_source_goes_on_where_its_reports_say() {
        let (mut line, t0) = (Timeline::new(90_000), clock::now());
        line.place(A, 0, t0, None);
        line.handle_report(Report { source: A, ntp: ntp(0.0), rtp_timestamp: 0 });
        // The frame was taken at 2.0 s and comes 80 ms later.
        let report = Report { source: B, ntp: ntp(1.5), rtp_timestamp: 500_000 };
        let placed = line.place(B, 545_000, t0 + Duration::from_millis(2080), Some(report));
        assert!(near(placed.at_s, 2.0) && placed.is_new_origin);
        // Without a report the arrival tells, and nothing goes back.
        let placed = line.place(A, 7, t0 + Duration::from_millis(2070), None);
        assert!(placed.at_s > 2.0);
    }
}
