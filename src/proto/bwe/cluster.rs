//! Probe clusters under way, and the rate that each of them got through at (libwebrtc's probe bitrate estimator).
//!
//! Owns: the last [`CLUSTERS`] clusters. Promises: fixed memory. Forbids: deciding when to probe.

/// Clusters remembered: those of one round trip.
const CLUSTERS: usize = 4;

/// Share of packets and bytes that must have arrived.
const ARRIVED_SHARE: f64 = 0.8;

/// Of packets sent together fewer than this say nothing.
const PACKETS_MIN: u32 = 4;

/// A cluster that arrives faster than it was sent by more than this was held up and let go: no measure.
const COMPRESSION_MAX: f64 = 2.0;

/// Arriving slower than this share of the sending rate, it filled the link...
const FILLED: f64 = 0.9;

/// ... whose rate is then known, less a little, so that the queue it made can empty.
const FILLED_SHARE: f64 = 0.95;

/// No span is shorter than a tick of the feedback.
const SPAN_US_MIN: i64 = 1_000;

#[derive(Clone, Copy, Debug, Default)]
struct Cluster {
    tag: u8,
    bps: f64,
    sent: Side,
    arrived: Side,
    is_done: bool,
}

/// Packets at one end of the path.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    packets: u32,
    bytes: u64,
    first_us: i64,
    last_us: i64,
    /// Bytes at the first and at the last moment.
    first_bytes: u64,
    last_bytes: u64,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeResult {
    /// The rate that was asked for.
    pub probed_bps: f64,
    /// The rate at which it left, which may be less.
    pub sent_bps: f64,
    /// The rate that got through.
    pub bps: f64,
}

/// The clusters.
#[derive(Debug, Default)]
pub struct Clusters {
    ring: [Cluster; CLUSTERS],
    at: usize,
}

impl Clusters {
    /// A cluster will be sent, its packets tagged so.
    pub fn begin(&mut self, tag: u8, bps: f64) {
        self.at = (self.at + 1) % CLUSTERS;
        self.ring[self.at] = Cluster { tag, bps, ..Cluster::default() };
    }

    /// Notes a packet of a cluster.
    pub fn handle_sent(&mut self, tag: u8, sent_us: u64, bytes: u32) {
        if let Some(cluster) = self.find(tag) {
            cluster.sent.push(sent_us as i64, bytes);
        }
    }

    /// Notes the arrival of one.
    pub fn handle_arrival(&mut self, tag: u8, arrival_us: i64, bytes: u32) {
        if let Some(cluster) = self.find(tag) {
            cluster.arrived.push(arrival_us, bytes);
        }
    }

    /// The next cluster of which enough has arrived. Ask when a feedback was read to its
    /// end; the one with `running_tag` has more packets to send.
    pub fn poll_result(&mut self, running_tag: Option<u8>) -> Option<ProbeResult> {
        let is_open = |cluster: &&mut Cluster| !cluster.is_done && Some(cluster.tag) != running_tag;
        self.ring.iter_mut().filter(is_open).find_map(Cluster::result)
    }

    fn find(&mut self, tag: u8) -> Option<&mut Cluster> {
        self.ring.iter_mut().find(|cluster| cluster.tag == tag && tag != 0)
    }
}

impl Cluster {
    fn result(&mut self) -> Option<ProbeResult> {
        let (sent, arrived) = (&self.sent, &self.arrived);
        let is_enough = arrived.packets >= PACKETS_MIN
            && f64::from(arrived.packets) >= ARRIVED_SHARE * f64::from(sent.packets)
            && arrived.bytes as f64 >= ARRIVED_SHARE * sent.bytes as f64;
        if !is_enough {
            return None;
        }
        self.is_done = true;
        // Bytes per time from the first to the last: what left at the last moment took no part of the time, and neither
        // did what had arrived at the first.
        let send_bps = sent.rate(sent.last_bytes)?;
        let receive_bps = arrived.rate(arrived.first_bytes)?;
        if receive_bps > COMPRESSION_MAX * send_bps {
            return None;
        }
        let bps = if receive_bps < FILLED * send_bps { receive_bps * FILLED_SHARE } else { send_bps.min(receive_bps) };
        // A scheduler that sends in bursts may be faster than asked for; nobody asked the path for that.
        Some(ProbeResult { probed_bps: self.bps, sent_bps: send_bps.min(self.bps), bps: bps.min(self.bps * 1.1) })
    }
}

impl Side {
    fn push(&mut self, at_us: i64, bytes: u32) {
        let bytes = u64::from(bytes);
        if self.packets == 0 || at_us < self.first_us {
            (self.first_us, self.first_bytes) = (at_us, 0);
        }
        if self.packets == 0 || at_us > self.last_us {
            (self.last_us, self.last_bytes) = (at_us, 0);
        }
        self.first_bytes += if at_us == self.first_us { bytes } else { 0 };
        self.last_bytes += if at_us == self.last_us { bytes } else { 0 };
        self.packets += 1;
        self.bytes += bytes;
    }

    fn rate(&self, left_out: u64) -> Option<f64> {
        let span_us = self.last_us.checked_sub(self.first_us)?;
        (self.first_us != self.last_us)
            .then(|| self.bytes.saturating_sub(left_out) as f64 * 8e6 / span_us.max(SPAN_US_MIN) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five bursts of two packets, 5 ms apart: 3.84 Mbit/s; they arrive one packet every `spacing_us`.
    fn probe(spacing_us: i64, arrive: usize) -> Option<f64> {
        let mut clusters = Clusters::default();
        clusters.begin(3, 4e6);
        (0..10).for_each(|packet| clusters.handle_sent(3, 1_000 + packet / 2 * 5_000, 1200));
        (0..arrive as i64).for_each(|packet| clusters.handle_arrival(3, 50_000 + packet * spacing_us, 1200));
        clusters.poll_result(None).map(|result| (result.bps / 1e4).round() * 1e4)
    }

    #[test]
    fn a_free_path_gives_the_rate_sent_and_a_full_one_its_own() {
        assert_eq!(probe(2_250, 10), Some(3_840_000.0));
        assert_eq!(probe(6_000, 10), Some(1_520_000.0));
    }

    #[test]
    fn what_is_incomplete_or_compressed_proves_nothing() {
        assert_eq!(probe(2_250, 7), None);
        assert_eq!(probe(500, 10), None);
        assert_eq!(probe(0, 10), None);
    }

    #[test]
    fn a_result_is_told_once_and_unknown_tags_are_ignored() {
        let mut clusters = Clusters::default();
        clusters.begin(1, 1e6);
        for packet in 0..10 {
            clusters.handle_sent(1, packet * 5_000, 600);
            clusters.handle_arrival(1, packet as i64 * 5_000, 600);
            clusters.handle_sent(0, packet, 600);
            clusters.handle_arrival(9, 0, 600);
        }
        assert!(clusters.poll_result(Some(1)).is_none());
        assert!(clusters.poll_result(None).is_some());
        assert!(clusters.poll_result(None).is_none());
    }
}
