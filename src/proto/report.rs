//! Reception statistics and reports (RFC 3550 §6.4, §A.3, §A.8).
//!
//! Owns: counters of one ingress ssrc ([`ReceiveStats`]) or one egress ssrc ([`SendStats`]).
//! Forbids: deciding when a report is sent, and the wall clock: NTP timestamps are handed in.

use std::time::{Duration, Instant};

use crate::base::ids::Ssrc;
use crate::wire::rtcp::{ReportBlock, SenderInfo, ntp_middle};

/// RFC 3550 §A.1: a jump wider than MAX_DROPOUT is a restart of the sender, not that many losses.
const DROPOUT_PACKETS_MAX: u64 = 3000;

/// A transit that changes by more is a new timestamp origin (libwebrtc takes the same 5 s), not jitter.
const TRANSIT_CHANGE_S_MAX: u32 = 5;

/// Sender reports that a receiver may still refer to: one a second, and report blocks come at least every 4 s.
const REMEMBERED_REPORTS: usize = 4;

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
    /// LSR value and moment of the last sender reports, a ring.
    reports: [Option<(u32, Instant)>; REMEMBERED_REPORTS],
    next_report: usize,
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
        if let Some(slot) = self.reports.get_mut(self.next_report) {
            *slot = Some((ntp_middle(ntp), now));
        }
        self.next_report = (self.next_report + 1) % REMEMBERED_REPORTS;
        SenderInfo { ssrc, ntp, rtp_ts, packets: self.packets as u32, octets: self.octets as u32 }
    }

    /// Notes what the receiver says; returns the round trip time if its block refers to a report we remember.
    pub fn handle_report_block(&mut self, now: Instant, block: &ReportBlock) -> Option<Duration> {
        self.last_block = Some(*block);
        // RFC 3550 §6.4.1: LSR is 0 when no sender report has come yet.
        if block.lsr == 0 {
            return None;
        }
        let (_, sent_at) = self.reports.iter().flatten().find(|(lsr, _)| *lsr == block.lsr)?;
        // RFC 3550 §6.4.1: the round trip is A - LSR - DLSR. Our own clock says when LSR was, so that no wall clock
        // step counts; a DLSR longer than the wait is rounding or a lie, and means 0.
        let held = Duration::from_secs_f64(f64::from(block.dlsr) / 65_536.0);
        let rtt = now.saturating_duration_since(*sent_at).saturating_sub(held);
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
}
