//! Live numbers of a session's streams, for people. Counters never go back.

use std::time::Duration;

use crate::base::format::{Format, MediaKind};
use crate::base::frame::Layer;
use crate::base::ids::{Rid, Ssrc, TrackKey};
use crate::forward::allocate::Allocation;
use crate::forward::rates::Offer;
use crate::proto::bwe::BweNumbers;
use crate::proto::report::ReceiveSummary;

/// One stream of what a peer publishes on an m-line.
#[derive(Clone, Copy, Debug)]
pub struct IngressReport {
    /// Which track.
    pub track: TrackKey,
    /// Media type.
    pub kind: MediaKind,
    /// Which stream of its simulcast; 0 without one.
    pub encoding: u8,
    /// That stream's name, where it has one.
    pub rid: Option<Rid>,
    /// Its source.
    pub ssrc: Ssrc,
    /// What it carried last.
    pub format: Option<Format>,
    /// Reception statistics, without retransmissions.
    pub summary: ReceiveSummary,
    /// Keyframes begun.
    pub keyframes: u64,
}

/// One layer of what a peer publishes, as it comes in now.
#[derive(Clone, Copy, Debug)]
pub struct LayerReport {
    /// Of which track.
    pub track: TrackKey,
    /// Which, and what it costs.
    pub offer: Offer,
    /// Width and height, where known.
    pub size: Option<(u16, u16)>,
}

/// What we send on an m-line.
#[derive(Clone, Copy, Debug)]
pub struct EgressReport {
    /// m-line index.
    pub mline: u16,
    /// What is sent.
    pub track: Option<TrackKey>,
    /// Our source.
    pub ssrc: Ssrc,
    /// Packets sent, without retransmissions.
    pub packets: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Share of packets the peer lost lately, 0 to 1.
    pub fraction_lost: f32,
    /// Round trip by its reports.
    pub round_trip: Option<Duration>,
    /// How long it waits for a keyframe, before which nothing passes.
    pub waits: Option<Duration>,
    /// The layer that is sent; bounds above what there is mean all of it.
    pub layer: Option<Layer>,
    /// What the line's division gave it, and why no more.
    pub allocation: Option<Allocation>,
}

/// What is known of a peer's line.
#[derive(Clone, Copy, Debug)]
pub struct DownlinkReport {
    /// What the estimator says.
    pub estimate: BweNumbers,
    /// Packets that wait for the line, and how long the first has waited.
    pub waiting: (usize, Duration),
}
