//! `/metrics`: one snapshot of every counter as OpenMetrics text.
//!
//! Owns: the exposed names. Those of the programs we stand in for are theirs to the letter, also where a gauge ends
//! in `_total`. Forbids: counting; the snapshot is taken elsewhere.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::connections::{self, Connections};
use crate::base::train::{LENGTH_BOUNDS, TrainNumbers};

/// What `/metrics` says it sends (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every number of the media plane and the rooms at one moment. Counters count from the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Rooms with peers.
    pub rooms: u64,
    /// Peers in rooms.
    pub peers: u64,
    /// Published tracks.
    pub tracks: u64,
    /// UDP payload bytes received and sent.
    pub bytes_transferred: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Sends that carried two datagrams or more.
    pub trains_sent: u64,
    /// Datagrams in them.
    pub train_datagrams_sent: u64,
    /// Receives that brought two datagrams or more.
    pub trains_received: u64,
    /// Datagrams in them.
    pub train_datagrams_received: u64,
    /// Turns of the workers' loops.
    pub turns: u64,
    /// Entries of the workers' loops into the kernel.
    pub enters: u64,
    /// RTP packets forwarded to subscribers.
    pub packets_forwarded: u64,
    /// The trains they were put into.
    pub trains: TrainNumbers,
    /// Keyframe requests from subscribers.
    pub pli_requests: u64,
    /// NACKed packets asked for by subscribers.
    pub nack_requests: u64,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Discarded datagrams and packets by reason.
    pub discards: Vec<(&'static str, u64)>,
    /// Failed socket operations by kind.
    pub io_errors: Vec<(&'static str, u64)>,
    /// Tracks that are recorded.
    pub recordings: u64,
    /// Those of them whose recording has failed.
    pub recordings_failed: u64,
    /// One row per room.
    pub room_rows: Vec<RoomRow>,
    /// How peers are connected.
    pub connections: Connections,
}

/// Numbers of one room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomRow {
    /// Room id.
    pub id: String,
    /// Peers that receive.
    pub subscribers: u64,
    /// RTP bytes received from its publishers.
    pub rtp_bytes: u64,
    /// RTP packets received from its publishers.
    pub rtp_packets: u64,
}

/// Numbers of the signalling plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Open WebSockets.
    pub active: u64,
    /// WebSockets ever accepted.
    pub accepted: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Requests and connections beyond the limits.
    pub refused: u64,
}

/// The exposition.
pub fn render(snapshot: Snapshot, sockets: Sockets) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot, sockets }));
    let mut out = String::new();
    // Writing to a String cannot fail, and the collector returns no error of its own.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    sockets: Sockets,
}

impl prometheus_client::collector::Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let (now, sockets) = (&self.snapshot, &self.sockets);
        for (name, help, value) in [
            ("gryt_sfu_rooms_active", "Rooms with peers", now.rooms),
            ("gryt_sfu_peers_active", "Peers in rooms", now.peers),
            ("gryt_sfu_websocket_connections_active", "Open WebSockets", sockets.active),
            ("gryt_sfu_tracks_active", "Published tracks", now.tracks),
            ("sfu_active_rooms_total", "Rooms with peers", now.rooms),
            ("sfu_active_peers_total", "Peers in rooms", now.peers),
            ("live_rooms", "Rooms with peers", now.rooms),
            ("tramline_recordings", "Tracks that are recorded", now.recordings),
            ("tramline_recordings_failed", "Tracks whose recording has failed", now.recordings_failed),
        ] {
            gauge(&mut out, name, help, value)?;
        }
        // A counter's sample gets `_total` behind its family name.
        for (name, help, value) in [
            ("sfu_connections", "WebSockets accepted", sockets.accepted),
            ("sfu_messages_sent", "Signalling messages sent", sockets.messages_sent),
            ("sfu_messages_received", "Signalling messages received", sockets.messages_received),
            ("tramline_refused", "Requests and connections beyond the limits", sockets.refused),
            ("sfu_bytes_transferred", "UDP payload bytes in and out", now.bytes_transferred),
            ("sfu_pli_requests", "Keyframe requests from subscribers", now.pli_requests),
            ("sfu_nack_requests", "Packets asked for again by subscribers", now.nack_requests),
            ("tramline_datagrams_received", "UDP datagrams received", now.datagrams_received),
            ("tramline_datagrams_sent", "UDP datagrams sent", now.datagrams_sent),
            ("tramline_trains_sent", "Sends of two datagrams or more", now.trains_sent),
            ("tramline_train_datagrams_sent", "UDP datagrams that left in trains", now.train_datagrams_sent),
            ("tramline_trains_received", "Receives of two datagrams or more", now.trains_received),
            ("tramline_train_datagrams_received", "UDP datagrams that came in trains", now.train_datagrams_received),
            ("tramline_turns", "Turns of the workers' loops", now.turns),
            ("tramline_enters", "Entries of the workers' loops into the kernel", now.enters),
            ("tramline_packets_forwarded", "RTP packets forwarded to subscribers", now.packets_forwarded),
            ("tramline_padding_bytes", "Padding of RTP packets that made them alike", now.trains.padding_bytes),
            ("tramline_retransmissions", "RTP packets sent again", now.retransmissions),
        ] {
            counter(&mut out, name, help, value)?;
        }
        lengths(&mut out, &now.trains)?;
        labelled(&mut out, "tramline_discards", "Discards by reason", "reason", &now.discards)?;
        labelled(&mut out, "tramline_io_errors", "Failed socket operations by kind", "kind", &now.io_errors)?;
        connections::encode(&mut out, &now.connections, now.peers)?;
        rooms(&mut out, &now.room_rows)
    }
}

pub(super) fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(exposed(value));
    gauge.encode(out.encode_descriptor(name, help, None, gauge.metric_type())?)
}

pub(super) fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(out.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn labelled(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, ConstCounter::new(0u64).metric_type())?;
    for (key, value) in values {
        ConstCounter::new(*value).encode(metric.encode_family(&[(label, *key)])?)?;
    }
    Ok(())
}

fn lengths(out: &mut DescriptorEncoder<'_>, trains: &TrainNumbers) -> fmt::Result {
    let help = "Packets of one subscriber's turn that were made one train";
    let mut metric = out.encode_descriptor("tramline_train_packets", help, None, MetricType::Histogram)?;
    let bounds = LENGTH_BOUNDS.map(|bound| bound as f64);
    let beyond = std::iter::once((f64::INFINITY, 0));
    let buckets: Vec<(f64, u64)> = bounds.into_iter().zip(trains.by_length).chain(beyond).collect();
    let count = trains.by_length.iter().sum();
    metric.encode_histogram::<NoLabelSet>(trains.packets as f64, count, &buckets, None)
}

fn rooms(out: &mut DescriptorEncoder<'_>, rows: &[RoomRow]) -> fmt::Result {
    let kind = ConstGauge::new(0i64).metric_type();
    let mut metric = out.encode_descriptor("live_subscribers", "Receiving peers of a room", None, kind)?;
    for row in rows {
        let labels = [("room", row.id.as_str())];
        ConstGauge::new(exposed(row.subscribers)).encode(metric.encode_family(&labels)?)?;
    }
    type Column = (&'static str, &'static str, fn(&RoomRow) -> u64);
    let columns: [Column; 2] = [
        ("live_rtp_bytes", "RTP bytes received from a room's publishers", |row| row.rtp_bytes),
        ("live_rtp_packets", "RTP packets received from a room's publishers", |row| row.rtp_packets),
    ];
    for (name, help, value) in columns {
        let mut metric = out.encode_descriptor(name, help, None, ConstCounter::new(0u64).metric_type())?;
        for row in rows {
            let labels = [("room", row.id.as_str())];
            ConstCounter::new(value(row)).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Gauges are signed in this encoding.
fn exposed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> String {
        let rows = vec![RoomRow { id: "a\"b\\c".into(), subscribers: 2, rtp_bytes: 30, rtp_packets: 4 }];
        let snapshot = Snapshot {
            rooms: 1,
            peers: 2,
            discards: vec![("srtp-replay", 7), ("stun-unknown-ufrag", 0)],
            io_errors: vec![("enobufs", 1)],
            room_rows: rows,
            trains: TrainNumbers { by_length: [5, 0, 3, 0, 0, 0, 0], packets: 15, padding_bytes: 9 },
            ..Snapshot::default()
        };
        render(snapshot, Sockets { active: 3, accepted: 9, messages_sent: 5, messages_received: 6, refused: 7 })
    }

    #[test]
    fn every_name_of_the_contract_is_exposed() {
        let text = sample();
        for line in [
            "gryt_sfu_rooms_active 1",
            "gryt_sfu_peers_active 2",
            "gryt_sfu_websocket_connections_active 3",
            "gryt_sfu_tracks_active 0",
            "sfu_active_rooms_total 1",
            "sfu_active_peers_total 2",
            "sfu_connections_total 9",
            "sfu_messages_sent_total 5",
            "sfu_messages_received_total 6",
            "tramline_refused_total 7",
            "sfu_bytes_transferred_total 0",
            "sfu_pli_requests_total 0",
            "sfu_nack_requests_total 0",
            "live_rooms 1",
            "tramline_padding_bytes_total 9",
            "tramline_train_packets_sum 15.0",
            "tramline_train_packets_count 8",
            "tramline_train_packets_bucket{le=\"2.0\"} 5",
            "tramline_train_packets_bucket{le=\"4.0\"} 8",
            "tramline_train_packets_bucket{le=\"+Inf\"} 8",
            "tramline_discards_total{reason=\"srtp-replay\"} 7",
            "tramline_io_errors_total{kind=\"enobufs\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_room_name_is_escaped() {
        let text = sample();
        let want = "live_rtp_bytes_total{room=\"a\\\"b\\\\c\"} 30";
        assert!(text.lines().any(|line| line == want), "{text}");
    }
}
