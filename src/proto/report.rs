//! Reception statistics and reports (RFC 3550 §6.4, §A.3, §A.8).
//!
//! Owns: counters of one ingress ssrc ([`ReceiveStats`]) or one egress ssrc ([`SendStats`]); the round trip to a peer that
//! only sends ([`ReferenceTimes`]) and what is answered to one that only receives ([`HeardTimes`], RFC 3611 §4.4, §4.5).
//! Forbids: deciding when a report is sent, and the wall clock: NTP timestamps are handed in.

use std::time::{Duration, Instant};

use crate::base::ids::Ssrc;
use crate::wire::rtcp::{Delay, ReportBlock, SenderInfo, ntp_middle};

/// RFC 3550 §A.1: a jump wider than MAX_DROPOUT is a restart of the sender, not that many losses.
const DROPOUT_PACKETS_MAX: u64 = 3000;

/// A transit that changes by more is a new timestamp origin (libwebrtc takes the same 5 s), not jitter.
const TRANSIT_CHANGE_S_MAX: u32 = 5;

/// Sender reports that a receiver may still refer to: one a second, and report blocks come at least every 4 s.
const REMEMBERED_REPORTS: usize = 4;

/// Receivers of one peer whose reference times wait for an answer. A browser has one or two ssrcs to report from; of more
/// the oldest goes.
pub const HEARD_MAX: usize = 4;

/// A duration in NTP's 32.32 seconds (RFC 3550 §4).
pub fn ntp_duration(elapsed: Duration) -> u64 {
    (elapsed.as_secs() << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000)
}

/// What was received of one ingress ssrc.
#[derive(Clone, Debug, Default)]
pub struct ReceiveStats {
    first: Option<First>,
    highest_seq: u64,
    packets: u64,
    bytes: u64,
    transit: u32,
    /// In timestamp units, times 16 (RFC 3550 §A.8).
    jitter_x16: u32,
    clock_rate_hz: u32,
    expected_before: u64,
    packets_before: u64,
    sender_report: Option<(u32, Instant)>,
    last_interval: (u64, u64),
}

#[derive(Clone, Copy, Debug)]
struct First {
    at: Instant,
    /// Lowest expected sequence number; moved over gaps that were no losses.
    seq: u64,
}

/// Reception in numbers to show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReceiveSummary {
    /// Packets, duplicates not told apart.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Expected minus received; negative with duplicates.
    pub lost: i64,
    /// Interarrival jitter.
    pub jitter_ms: f32,
}

impl ReceiveStats {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a packet. `seq` is extended, `rtp_ts` in units of 1/`clock_rate_hz` s, `payload_len` in bytes.
    pub fn handle_packet(&mut self, now: Instant, seq: u64, rtp_ts: u32, clock_rate_hz: u32, payload_len: usize) {
        self.packets += 1;
        self.bytes += payload_len as u64;
        let Some(first) = &mut self.first else {
            self.first = Some(First { at: now, seq });
            self.highest_seq = seq;
            self.clock_rate_hz = clock_rate_hz;
            self.transit = 0u32.wrapping_sub(rtp_ts);
            return;
        };
        let at = first.at;
        if seq > self.highest_seq {
            let gap = seq - self.highest_seq - 1;
            if gap >= DROPOUT_PACKETS_MAX {
                first.seq += gap;
            }
            self.highest_seq = seq;
        }
        self.update_jitter(now.saturating_duration_since(at), rtp_ts, clock_rate_hz);
    }

    /// Notes a sender report of this ssrc by its NTP timestamp.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some((ntp_middle(ntp), now));
    }

    /// The report block for this ssrc; begins the next interval. `None` when nothing came since the last one:
    /// RFC 3550 §6.4 has blocks only for sources heard since.
    pub fn report_block(&mut self, now: Instant, ssrc: Ssrc) -> Option<ReportBlock> {
        if self.packets == self.packets_before {
            return None;
        }
        let (expected, lost) = (self.expected(), self.lost());
        // RFC 3550 §A.3: the share lost of what was expected since the previous report, 0 where duplicates prevail.
        let expected_since = expected.saturating_sub(self.expected_before);
        let lost_since = expected_since.saturating_sub(self.packets - self.packets_before);
        self.expected_before = expected;
        self.packets_before = self.packets;
        self.last_interval = (expected_since, lost_since);
        let fraction_lost = (lost_since << 8).checked_div(expected_since).unwrap_or(0).min(255) as u8;
        let (lsr, dlsr) = match self.sender_report {
            Some((lsr, at)) => (lsr, short_ntp(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: lost.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            highest_seq: self.highest_seq as u32,
            jitter: self.jitter_x16 >> 4,
            lsr,
            dlsr,
        })
    }

    /// Packets expected between the last two report blocks, and how many of them were lost.
    pub fn last_interval(&self) -> (u64, u64) {
        self.last_interval
    }

    /// Reception in numbers to show.
    pub fn summary(&self) -> ReceiveSummary {
        let jitter = f64::from(self.jitter_x16) / 16.0;
        let jitter_ms = (jitter * 1000.0 / f64::from(self.clock_rate_hz.max(1))) as f32;
        ReceiveSummary { packets: self.packets, bytes: self.bytes, lost: self.lost(), jitter_ms }
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| (self.highest_seq + 1).saturating_sub(first.seq))
    }

    fn lost(&self) -> i64 {
        self.expected() as i64 - self.packets as i64
    }

    /// RFC 3550 §A.8, with the transit time in timestamp units since the first packet, modulo 2^32.
    fn update_jitter(&mut self, since_first: Duration, rtp_ts: u32, clock_rate_hz: u32) {
        let rate = u64::from(clock_rate_hz);
        let fraction = u64::from(since_first.subsec_nanos()) * rate / 1_000_000_000;
        let arrival = since_first.as_secs().wrapping_mul(rate).wrapping_add(fraction) as u32;
        let transit = arrival.wrapping_sub(rtp_ts);
        let change = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        let is_comparable = clock_rate_hz == self.clock_rate_hz;
        self.transit = transit;
        self.clock_rate_hz = clock_rate_hz;
        if is_comparable && change <= clock_rate_hz.saturating_mul(TRANSIT_CHANGE_S_MAX) {
            // The bound of `change` keeps the filter, which is at most 16 times as large, from overflowing for every
            // real clock; a hostile one only saturates.
            let decay = self.jitter_x16.saturating_add(8) >> 4;
            self.jitter_x16 = self.jitter_x16.saturating_add(change).saturating_sub(decay);
        }
    }
}

/// What was sent of one egress ssrc, and what its receiver said about it.
#[derive(Clone, Debug, Default)]
pub struct SendStats {
    packets: u64,
    octets: u64,
    reports: SentTimes,
    last_block: Option<ReportBlock>,
    rtt: Option<Duration>,
}

impl SendStats {
    /// Nothing sent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a packet that was sent. RFC 3550 §6.4.1: octets are of the payload, without header and padding.
    pub fn handle_sent(&mut self, payload_len: usize) {
        self.packets += 1;
        self.octets += payload_len as u64;
    }

    /// The sender's part of a report that is sent now, remembered for the round trip. `ntp` and `rtp_ts` name the same
    /// moment on both clocks.
    pub fn sender_info(&mut self, now: Instant, ssrc: Ssrc, ntp: u64, rtp_ts: u32) -> SenderInfo {
        self.reports.push(now, ntp);
        SenderInfo { ssrc, ntp, rtp_ts, packets: self.packets as u32, octets: self.octets as u32 }
    }

    /// Notes what the receiver says; returns the round trip time if its block refers to a report we remember.
    pub fn handle_report_block(&mut self, now: Instant, block: &ReportBlock) -> Option<Duration> {
        self.last_block = Some(*block);
        let rtt = self.reports.round_trip(now, block.lsr, block.dlsr)?;
        self.rtt = Some(rtt);
        Some(rtt)
    }

    /// Packets sent.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes sent.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The newest round trip time.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The newest report block: loss and jitter as the receiver sees them.
    pub fn last_block(&self) -> Option<&ReportBlock> {
        self.last_block.as_ref()
    }

    /// Share lost in the receiver's last interval, 0 to 1; 0 before its first report.
    pub fn fraction_lost(&self) -> f32 {
        self.last_block.map_or(0.0, |block| f32::from(block.fraction_lost) / 256.0)
    }
}

/// NTP times that we sent, by their middle 32 bits, and when: a ring.
#[derive(Clone, Debug, Default)]
struct SentTimes {
    sent: [Option<(u32, Instant)>; REMEMBERED_REPORTS],
    next: usize,
}

impl SentTimes {
    fn push(&mut self, now: Instant, ntp: u64) {
        if let Some(slot) = self.sent.get_mut(self.next) {
            *slot = Some((ntp_middle(ntp), now));
        }
        self.next = (self.next + 1) % REMEMBERED_REPORTS;
    }

    /// RFC 3550 §6.4.1: the round trip is A - LSR - DLSR. Our own clock says when LSR was, so that no wall clock step
    /// counts; a delay longer than the wait is rounding or a lie, and means 0. LSR is 0 where nothing has come yet.
    fn round_trip(&self, now: Instant, last: u32, delay: u32) -> Option<Duration> {
        let (_, sent_at) = self.sent.iter().flatten().find(|(sent, _)| *sent == last && last != 0)?;
        let held = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
        Some(now.saturating_duration_since(*sent_at).saturating_sub(held))
    }
}

/// The round trip to a peer, also to one that we send nothing: we name our time, it says how long ago that came.
#[derive(Clone, Debug, Default)]
pub struct ReferenceTimes {
    sent: SentTimes,
    rtt: Option<Duration>,
}

impl ReferenceTimes {
    /// A reference time is sent.
    pub fn handle_sent(&mut self, now: Instant, ntp: u64) {
        self.sent.push(now, ntp);
    }

    /// The peer's answer; one to a time that is not remembered says nothing.
    pub fn handle_delay(&mut self, now: Instant, delay: &Delay) {
        self.rtt = self.sent.round_trip(now, delay.last_rr, delay.delay).or(self.rtt);
    }

    /// The newest round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

/// Reference times of a peer that receives from us, to be answered once each.
#[derive(Clone, Debug, Default)]
pub struct HeardTimes {
    heard: [Option<(Ssrc, u32, Instant)>; HEARD_MAX],
}

impl HeardTimes {
    /// The peer named its time.
    pub fn handle_reference_time(&mut self, now: Instant, ssrc: Ssrc, ntp: u64) {
        // The place of the same receiver, else a free one (`None` sorts first), else that of the oldest.
        let order = |heard: &&mut Option<(Ssrc, u32, Instant)>| {
            (heard.is_none_or(|(known, ..)| known != ssrc), heard.map(|(.., at)| at))
        };
        if let Some(slot) = self.heard.iter_mut().min_by_key(order) {
            *slot = Some((ssrc, ntp_middle(ntp), now));
        }
    }

    /// Writes the answers into `out` and returns how many; they are not given again.
    pub fn take(&mut self, now: Instant, out: &mut [Delay; HEARD_MAX]) -> usize {
        let heard = self.heard.iter_mut().filter_map(Option::take);
        let mut count = 0;
        for (place, (ssrc, last_rr, at)) in out.iter_mut().zip(heard) {
            *place = Delay { ssrc, last_rr, delay: short_ntp(now.saturating_duration_since(at)) };
            count += 1;
        }
        count
    }
}

/// A duration in units of 1/65536 s, as DLSR has it; saturates after 18 hours.
fn short_ntp(duration: Duration) -> u32 {
    let fraction = u64::from(duration.subsec_nanos()) * 65_536 / 1_000_000_000;
    u32::try_from(duration.as_secs().saturating_mul(65_536).saturating_add(fraction)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc(7);
    const RATE: u32 = 48_000;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Packets on time: one each 20 ms, 960 units apart.
    fn received(t0: Instant, seqs: impl IntoIterator<Item = u64>) -> ReceiveStats {
        let mut stats = ReceiveStats::new();
        for seq in seqs {
            stats.handle_packet(t0 + ms(20 * seq), seq, (960 * seq) as u32, RATE, 100);
        }
        stats
    }

    #[test]
    fn a_perfect_stream_has_neither_loss_nor_jitter() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, 65_530..65_540);
        let block = stats.report_block(t0, SSRC).expect("heard");
        let expected = ReportBlock {
            ssrc: SSRC,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_seq: 65_539,
            jitter: 0,
            lsr: 0,
            dlsr: 0,
        };
        assert_eq!(block, expected);
        assert_eq!(stats.summary(), ReceiveSummary { packets: 10, bytes: 1000, lost: 0, jitter_ms: 0.0 });
    }

    #[test]
    fn loss_is_counted_per_interval_and_in_total() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, [1, 2, 4, 5, 7, 8]);
        let block = stats.report_block(t0, SSRC).expect("heard");
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 2));
        stats.handle_packet(t0, 9, 0, RATE, 0);
        stats.handle_packet(t0, 10, 0, RATE, 0);
        let block = stats.report_block(t0, SSRC).expect("heard");
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 2));
    }

    #[test]
    fn recovered_and_duplicate_packets_lower_the_loss() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, [1, 3, 2, 3, 3]);
        let block = stats.report_block(t0, SSRC).expect("heard");
        assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_seq), (0, -2, 3));
    }

    #[test]
    fn a_source_not_heard_since_has_no_block() {
        let t0 = crate::runtime::clock::now();
        assert_eq!(ReceiveStats::new().report_block(t0, SSRC), None);
        let mut stats = received(t0, [1]);
        assert!(stats.report_block(t0, SSRC).is_some());
        assert_eq!(stats.report_block(t0, SSRC), None);
    }

    #[test]
    fn a_jump_beyond_dropout_is_no_loss() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, [1, 2, 2 + DROPOUT_PACKETS_MAX + 1]);
        let block = stats.report_block(t0, SSRC).expect("heard");
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0));
    }

    #[test]
    fn jitter_follows_the_filter_of_the_rfc() {
        let t0 = crate::runtime::clock::now();
        let mut stats = ReceiveStats::new();
        let mut estimate = 0.0;
        // Every second packet 10 ms late: the transit changes by 480 units each time.
        for seq in 0..200u64 {
            stats.handle_packet(t0 + ms(20 * seq + 10 * (seq % 2)), seq, (960 * seq) as u32, RATE, 0);
            if seq > 0 {
                estimate += (480.0 - estimate) / 16.0;
            }
        }
        let block = stats.report_block(t0, SSRC).expect("heard");
        assert!((f64::from(block.jitter) - estimate).abs() < 2.0, "{} is about {estimate}", block.jitter);
        assert!((stats.summary().jitter_ms - 10.0).abs() < 0.1);
    }

    #[test]
    fn a_new_timestamp_origin_is_no_jitter() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, [1, 2]);
        stats.handle_packet(t0 + ms(60), 3, 0x8000_0000, RATE, 0);
        stats.handle_packet(t0 + ms(80), 4, 0x8000_0000 + 960, RATE, 0);
        stats.handle_packet(t0 + ms(100), 5, 0, 0, 0);
        stats.handle_packet(t0 + ms(120), 6, u32::MAX, u32::MAX, 0);
        assert!(stats.summary().jitter_ms < 1.0);
    }

    #[test]
    fn a_block_refers_to_the_last_sender_report() {
        let t0 = crate::runtime::clock::now();
        let mut stats = received(t0, [1]);
        stats.handle_sender_report(t0, 0x1122_3344_5566_7788);
        let block = stats.report_block(t0 + ms(1500), SSRC).expect("heard");
        assert_eq!((block.lsr, block.dlsr), (0x3344_5566, 98_304));
        assert_eq!(short_ntp(Duration::MAX), u32::MAX);
    }

    #[test]
    fn the_round_trip_is_what_the_receiver_did_not_hold() {
        let t0 = crate::runtime::clock::now();
        let (mut sender, mut receiver) = (SendStats::new(), received(t0, [1]));
        sender.handle_sent(100);
        sender.handle_sent(50);
        let ntp = 0xe000_0001_8000_0000;
        let info = sender.sender_info(t0, SSRC, ntp, 90);
        assert_eq!(info, SenderInfo { ssrc: SSRC, ntp, rtp_ts: 90, packets: 2, octets: 150 });
        receiver.handle_sender_report(t0 + ms(30), ntp);
        let block = receiver.report_block(t0 + ms(530), SSRC).expect("heard");
        let rtt = sender.handle_report_block(t0 + ms(580), &block).expect("known");
        assert!(rtt.abs_diff(ms(80)) < ms(1), "{rtt:?}");
        assert_eq!(sender.rtt(), Some(rtt));
    }

    #[test]
    fn only_a_remembered_report_gives_a_round_trip() {
        let t0 = crate::runtime::clock::now();
        let mut sender = SendStats::new();
        for second in 1..=5 {
            sender.sender_info(t0 + ms(1000 * second), SSRC, second << 32, 0);
        }
        let block = |second: u32, dlsr| ReportBlock {
            ssrc: SSRC,
            fraction_lost: 128,
            cumulative_lost: 1,
            highest_seq: 1,
            jitter: 0,
            lsr: second << 16,
            dlsr,
        };
        assert_eq!(sender.handle_report_block(t0 + ms(6000), &block(1, 0)), None);
        assert_eq!(sender.handle_report_block(t0 + ms(6000), &block(0, 0)), None);
        assert_eq!(sender.handle_report_block(t0 + ms(6000), &block(2, 0)), Some(ms(4000)));
        assert_eq!(sender.handle_report_block(t0 + ms(6000), &block(5, u32::MAX)), Some(Duration::ZERO));
        assert!((sender.fraction_lost() - 0.5).abs() < f32::EPSILON);
    }

    #[test]
    fn a_peer_that_only_sends_tells_the_round_trip_by_our_reference_time() {
        let t0 = crate::runtime::clock::now();
        let (mut ours, mut theirs) = (ReferenceTimes::default(), HeardTimes::default());
        let ntp = 0x0001_2345_6789_abcd;
        ours.handle_sent(t0, ntp);
        theirs.handle_reference_time(t0 + ms(30), SSRC, ntp);
        let mut delays = [Delay::default(); HEARD_MAX];
        assert_eq!(theirs.take(t0 + ms(530), &mut delays), 1);
        assert_eq!((delays[0].ssrc, delays[0].last_rr, delays[0].delay), (SSRC, 0x2345_6789, 32_768));
        assert_eq!(theirs.take(t0 + ms(530), &mut delays), 0, "answered once");
        ours.handle_delay(t0 + ms(580), &delays[0]);
        assert_eq!(ours.rtt(), Some(ms(80)));
        for unknown in [0, 7] {
            ours.handle_delay(t0 + ms(900), &Delay { last_rr: unknown, ..delays[0] });
        }
        assert_eq!(ours.rtt(), Some(ms(80)), "what we never said measures nothing");
    }

    #[test]
    fn of_too_many_receivers_the_newest_are_answered_and_each_by_its_newest_time() {
        let t0 = crate::runtime::clock::now();
        let mut heard = HeardTimes::default();
        for at in 0..10 {
            heard.handle_reference_time(t0 + ms(at), Ssrc(at as u32), at << 16);
        }
        heard.handle_reference_time(t0 + ms(10), Ssrc(8), 99 << 16);
        let mut delays = [Delay::default(); HEARD_MAX];
        assert_eq!(heard.take(t0 + ms(10), &mut delays), HEARD_MAX);
        let mut answered = delays.map(|delay| (delay.ssrc.0, delay.last_rr));
        answered.sort_unstable();
        assert_eq!(answered, [(6, 6), (7, 7), (8, 99), (9, 9)]);
    }
}
