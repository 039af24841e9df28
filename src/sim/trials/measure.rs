//! What is read from the books after a trial: camera against screen, and the log of a link.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::sim::access::Passed;
use crate::sim::camera::Made;
use crate::sim::screen::{Screen, Shown};

/// Payload types that str0m offers: VP8 and its retransmissions.
const VIDEO_PT: u8 = 96;
const RTX_PT: u8 = 97;
/// RTCP's packet types begin here (RFC 5761 §4).
const RTCP_PT_MIN: u8 = 192;
/// A packet of nothing but padding is no longer: header, extensions, the number that RTX repeats, tag, and at most 255
/// bytes (RFC 3550 §5.1). The cameras of trials that count retransmissions make larger packets than that.
const PADDING_DATAGRAM_BYTES_MAX: u32 = 320;

/// What came of the frames made within a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery {
    /// Frames made.
    pub frames: usize,
    /// Share of them that were complete at the viewer's, ever.
    pub complete: f64,
    /// Share of them that were complete in time.
    pub in_time: f64,
    /// Share of their packets that came.
    pub packets: f64,
    /// From sending to being complete: median.
    pub delay_p50: Duration,
    /// And the 95th percentile.
    pub delay_p95: Duration,
}

/// Holds a screen against the camera's frames of `span`; in time is what is complete within `limit`.
pub fn delivery(made: &[Made], screen: &Screen, span: &Range<Instant>, limit: Duration) -> Delivery {
    let made: Vec<&Made> = made.iter().filter(|made| span.contains(&made.at)).collect();
    let mut delays: Vec<Duration> = made
        .iter()
        .filter_map(|made| Some(screen.completed.get(&(made.encoding, made.frame))?.saturating_duration_since(made.at)))
        .collect();
    let in_time = delays.iter().filter(|delay| **delay <= limit).count();
    let sent: u64 = made.iter().map(|made| u64::from(made.parts)).sum();
    let came = |made: &&Made| u64::from(screen.arrived.get(&(made.encoding, made.frame)).copied().unwrap_or(0));
    Delivery {
        frames: made.len(),
        complete: share(delays.len() as u64, made.len() as u64),
        in_time: share(in_time as u64, made.len() as u64),
        packets: share(made.iter().map(came).sum(), sent),
        delay_p50: percentile(&mut delays, 50),
        delay_p95: percentile(&mut delays, 95),
    }
}

/// What went over a link within a time, in UDP payload bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Video sent for the first time and lost.
    pub video_lost_bytes: u64,
    /// Video sent again.
    pub resent_bytes: u64,
    /// Nothing but padding.
    pub padding_bytes: u64,
    /// All that was given to the link.
    pub sent_bytes: u64,
    /// All that arrived.
    pub arrived_bytes: u64,
    /// Of that what is seen and heard: sound, and video sent for the first time.
    pub media_arrived_bytes: u64,
    /// 95th percentile of the time in the bottleneck's queue.
    pub queued_p95: Duration,
}

impl Traffic {
    /// Reads a log.
    pub fn read(log: &[Passed], span: &Range<Instant>) -> Self {
        let log = || log.iter().filter(|passed| span.contains(&passed.at));
        let sum = |is_meant: &dyn Fn(&Passed) -> bool| {
            log().filter(|it| is_meant(it)).map(|it| u64::from(it.bytes)).sum::<u64>()
        };
        let is_padding = |it: &Passed| it.pt == RTX_PT && it.bytes <= PADDING_DATAGRAM_BYTES_MAX;
        let mut queued: Vec<Duration> = log().map(|it| it.queued).collect();
        Self {
            video_lost_bytes: sum(&|it| it.pt == VIDEO_PT && it.arrives_at.is_none()),
            resent_bytes: sum(&|it| it.pt == RTX_PT && !is_padding(it)),
            padding_bytes: sum(&is_padding),
            sent_bytes: sum(&|_| true),
            arrived_bytes: sum(&|it| it.arrives_at.is_some()),
            media_arrived_bytes: sum(&|it| it.pt != RTX_PT && it.pt < RTCP_PT_MIN && it.arrives_at.is_some()),
            queued_p95: percentile(&mut queued, 95),
        }
    }

    /// Bytes sent again for each byte of video lost.
    pub fn repair_cost(&self) -> f64 {
        share(self.resent_bytes, self.video_lost_bytes)
    }
}

/// How a video looked within a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Changes of the encoding shown.
    pub switches: usize,
    /// Times that no picture came for more than 200 ms.
    pub stutters: usize,
    /// The same for more than a second.
    pub freezes: usize,
    /// The longest time without a picture.
    pub longest: Duration,
    /// Pictures per second.
    pub fps: f64,
    /// Lines of the last picture.
    pub height: u16,
}

impl Look {
    /// Reads what was shown.
    pub fn read(shown: &[Shown], span: &Range<Instant>) -> Self {
        let within: Vec<&Shown> = shown.iter().filter(|shown| span.contains(&shown.at)).collect();
        let seconds = span.end.saturating_duration_since(span.start).as_secs_f64();
        let times = std::iter::once(span.start).chain(within.iter().map(|shown| shown.at));
        let times: Vec<Instant> = times.chain([span.end]).collect();
        let gaps = || times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]));
        let count = |limit_ms| gaps().filter(|gap| *gap > Duration::from_millis(limit_ms)).count();
        Self {
            switches: within.windows(2).filter(|pair| pair[0].encoding != pair[1].encoding).count(),
            stutters: count(200),
            freezes: count(1000),
            longest: gaps().max().unwrap_or_default(),
            fps: within.len() as f64 / seconds,
            height: within.last().map_or(0, |shown| shown.height),
        }
    }
}

/// `part` of `whole`; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The `per_cent`th percentile; zero of nothing.
pub fn percentile(values: &mut [Duration], per_cent: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * per_cent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn pauses_count_at_the_edges_too() {
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let shown = |ms, encoding| Shown { at: at(ms), encoding, frame: 0, temporal: 0, height: 360, is_key: false };
        let all = [shown(0, 0), shown(300, 0), shown(400, 1), shown(1_600, 0), shown(5_000, 1)];
        let look = Look::read(&all, &(at(100)..at(2_100)));
        assert_eq!((look.switches, look.stutters, look.freezes), (2, 2, 1));
        assert_eq!((look.longest, look.height), (Duration::from_millis(1_200), 360));
        assert!((look.fps - 1.5).abs() < 1e-9);
        assert_eq!(Look::read(&[], &(at(0)..at(1_500))).freezes, 1, "nothing at all");
    }

    #[test]
    fn retransmissions_and_padding_are_told_apart() {
        let start = clock::now();
        let passed = |pt, bytes, is_lost: bool| Passed {
            at: start,
            pt,
            bytes,
            queued: Duration::ZERO,
            arrives_at: (!is_lost).then_some(start),
        };
        let log = [passed(96, 1000, true), passed(96, 900, false), passed(97, 1010, false), passed(97, 260, false)];
        let traffic = Traffic::read(&log, &(start..start + Duration::from_secs(1)));
        assert_eq!((traffic.video_lost_bytes, traffic.resent_bytes, traffic.padding_bytes), (1000, 1010, 260));
        assert_eq!((traffic.sent_bytes, traffic.arrived_bytes, traffic.media_arrived_bytes), (3170, 2170, 900));
        assert!((traffic.repair_cost() - 1.01).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_of_the_sorted() {
        let mut values = [5, 1, 3, 2, 4].map(Duration::from_secs);
        assert_eq!(percentile(&mut values, 50), Duration::from_secs(3));
        assert_eq!(percentile(&mut values, 95), Duration::from_secs(5));
        assert_eq!(percentile(&mut [], 95), Duration::ZERO);
    }
}
