//! How peers are connected, under the names of SFU-Go.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::{counter, gauge};

/// Numbers of all connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    /// Peers by the state of their ICE session.
    pub ice_states: [(&'static str, u64); 3],
    /// ICE restarts.
    pub ice_restarts: u64,
    /// Jitter of what is published, in the mean.
    pub jitter_ms: f64,
    /// Round trip to subscribers, in the mean.
    pub round_trip_ms: f64,
    /// One row per peer, of a bounded number.
    pub rows: Vec<ConnectionRow>,
}

/// Numbers of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionRow {
    /// Its id on the wire.
    pub peer: String,
    /// Share of packets lost lately, 0 to 1.
    pub loss: f32,
    /// Its tracks: id, `in` or `out`, bytes per second.
    pub tracks: Vec<(String, &'static str, u64)>,
}

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, now: &Connections, peers: u64) -> fmt::Result {
    counter(out, "sfu_ice_restarts", "ICE restarts", now.ice_restarts)?;
    let per_peer = resident_bytes().unwrap_or(0) / peers.max(1);
    gauge(out, "sfu_memory_per_peer_bytes", "Resident memory of the process by peers", per_peer)?;
    for (name, help, value) in [
        ("sfu_jitter_ms", "Jitter of what is published, in the mean", now.jitter_ms),
        ("sfu_rtt_ms", "Round trip to subscribers, in the mean", now.round_trip_ms),
    ] {
        ConstGauge::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    let help = "Peers by the state of their ICE session";
    let mut states = out.encode_descriptor("sfu_ice_connection_state", help, None, MetricType::Gauge)?;
    for (state, count) in now.ice_states.iter().filter(|(state, _)| !state.is_empty()) {
        ConstGauge::new(*count as i64).encode(states.encode_family(&[("state", *state)])?)?;
    }
    let help = "Share of packets that get lost, in the worse direction";
    let mut losses = out.encode_descriptor("sfu_packet_loss_ratio", help, None, MetricType::Gauge)?;
    for row in &now.rows {
        ConstGauge::new(f64::from(row.loss)).encode(losses.encode_family(&[("peer", row.peer.as_str())])?)?;
    }
    let mut rates = out.encode_descriptor("sfu_track_bitrate_bytes", "Bytes per second", None, MetricType::Gauge)?;
    for row in &now.rows {
        for (track, direction, bytes) in &row.tracks {
            let labels = [("peer", row.peer.as_str()), ("track", track.as_str()), ("direction", *direction)];
            ConstGauge::new(*bytes as i64).encode(rates.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// What the process holds in memory (proc(5), `VmRSS`).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{Snapshot, Sockets, render};
    use super::*;

    #[test]
    fn connections_have_the_names_of_sfu_go() {
        let row = ConnectionRow { peer: "p-1".into(), loss: 0.25, tracks: vec![("t-0-0".into(), "in", 125_000)] };
        let connections = Connections {
            ice_states: [("checking", 1), ("connected", 2), ("disconnected", 0)],
            ice_restarts: 3,
            jitter_ms: 1.5,
            round_trip_ms: 20.0,
            rows: vec![row],
        };
        let text = render(Snapshot { peers: 3, connections, ..Snapshot::default() }, Sockets::default());
        for line in [
            "sfu_ice_connection_state{state=\"connected\"} 2",
            "sfu_ice_restarts_total 3",
            "sfu_jitter_ms 1.5",
            "sfu_rtt_ms 20.0",
            "sfu_packet_loss_ratio{peer=\"p-1\"} 0.25",
            "sfu_track_bitrate_bytes{peer=\"p-1\",track=\"t-0-0\",direction=\"in\"} 125000",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
