//! What a session's m-lines carry, as negotiated: the whole of what SDP means to a worker.
//!
//! Owns: plain values. Written by `negotiate`, keyed by the room, obeyed by `ingress` and `egress`.
//! Promises: declarative. A worker compares it with the one before; streams whose m-line and ssrc stay keep their state.

use crate::base::format::{Format, MediaKind};
use crate::base::frame::Layer;
use crate::base::ids::{Mid, Rid, Ssrc, TrackKey};
use crate::wire::rtp_ext::Ext;

/// All m-lines of a session, in SDP order; an m-line never leaves, it is only disabled (RFC 8829 §5.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Index is the m-line index. Rejected and unknown m-lines are `None` and keep their place.
    pub mlines: Vec<Option<MlineConfig>>,
    /// The peer takes one- and two-byte extension headers mixed (RFC 8285 §6, `a=extmap-allow-mixed`).
    pub ext_mixed: bool,
    /// No more is sent to the peer, in bits per second.
    pub downlink_bps_max: Option<u64>,
}

/// One negotiated m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlineConfig {
    /// `a=mid`.
    pub mid: Mid,
    /// Media type.
    pub kind: MediaKind,
    /// Negotiated header extensions (id, meaning); one id means the same everywhere in a BUNDLE (RFC 8843 §9.2).
    pub exts: Vec<(u8, Ext)>,
    /// Negotiated formats. The peer uses these payload types towards us and takes them from us.
    pub payloads: Vec<Payload>,
    /// What the peer publishes here.
    pub ingress: Option<IngressConfig>,
    /// What we send here.
    pub egress: Option<EgressConfig>,
}

impl StreamsConfig {
    /// Whether there is anything that depends on what the peer's line carries: sound goes out whatever it is.
    pub fn sends_video(&self) -> bool {
        let is_sent = |mline: &MlineConfig| mline.egress.as_ref().is_some_and(|egress| egress.track.is_some());
        self.mlines.iter().flatten().any(|mline| mline.kind == MediaKind::Video && is_sent(mline))
    }
}

impl MlineConfig {
    /// The peer tells what arrives of what we send here.
    pub fn gives_feedback(&self) -> bool {
        self.egress.is_some() && self.payloads.iter().any(|payload| payload.transport_cc || payload.remb)
    }
}

/// One payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Payload type number, below 128.
    pub pt: u8,
    /// What it carries.
    pub format: Format,
    /// Payload type of its retransmissions (RFC 4588, `apt`).
    pub rtx_pt: Option<u8>,
    /// `a=rtcp-fb:<pt> nack`.
    pub nack: bool,
    /// `a=rtcp-fb:<pt> nack pli`.
    pub pli: bool,
    /// `a=rtcp-fb:<pt> ccm fir`.
    pub fir: bool,
    /// `a=rtcp-fb:<pt> transport-cc`.
    pub transport_cc: bool,
    /// `a=rtcp-fb:<pt> goog-remb`.
    pub remb: bool,
}

/// A track that the peer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressConfig {
    /// Where the fanout table keeps it.
    pub track: TrackKey,
    /// Its streams: at least one, at most [`ENCODINGS_MAX`](crate::base::frame::ENCODINGS_MAX). The index is the
    /// encoding's, in the order of `a=simulcast` or of the `SIM` group; a track without simulcast has one without a name.
    pub encodings: Vec<EncodingConfig>,
    /// As large as the largest of its viewers shows it, in pixels; 0: nobody looks. `None`: as large as can be had.
    pub pixels_wanted: Option<u32>,
}

/// One stream of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodingConfig {
    /// `a=rid`. Where there is one, the rid extension tells the stream's sources.
    pub rid: Option<Rid>,
    /// Sources named in the SDP, each with its retransmission source (`a=ssrc-group:FID`). May be empty: then the mid
    /// extension tells.
    pub ssrcs: Vec<(Ssrc, Option<Ssrc>)>,
}

impl StreamsConfig {
    /// The tracks that the peer gets.
    pub fn sent(&self) -> impl Iterator<Item = TrackKey> {
        self.mlines.iter().flatten().filter_map(|mline| mline.egress.as_ref()?.track)
    }
}

impl IngressConfig {
    /// A track without simulcast.
    pub fn single(track: TrackKey, ssrcs: Vec<(Ssrc, Option<Ssrc>)>) -> Self {
        Self { track, encodings: vec![EncodingConfig { rid: None, ssrcs }], pixels_wanted: None }
    }
}

/// What we send on an m-line. The ssrcs stay for the life of the m-line; the track behind them may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressConfig {
    /// Our ssrc.
    pub ssrc: Ssrc,
    /// Our ssrc for retransmissions; used when the format has an rtx payload type.
    pub rtx_ssrc: Ssrc,
    /// The track sent now.
    pub track: Option<TrackKey>,
    /// How much of it the peer wants.
    pub demand: Demand,
}

/// How much of a picture a subscriber wants; what it did not say is without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Width and height in pixels, as it is shown; zero: not shown at all.
    pub size: Option<(u16, u16)>,
    /// Frames per second.
    pub fps: Option<u16>,
    /// Highest temporal layer.
    pub temporal_max: Option<u8>,
    /// A layer by name, the best that is given; `u8::MAX` for a part that was not named. How large it is shown counts for
    /// nothing then.
    pub layer: Option<Layer>,
    /// Layers with more pixels are not wanted, unless there is no smaller one.
    pub size_max: Option<(u16, u16)>,
}

impl Demand {
    /// Nobody looks at it.
    pub fn is_hidden(&self) -> bool {
        self.size.is_some_and(|(width, height)| width == 0 || height == 0)
    }

    /// The size that its picture needs; `None`: as large as can be had, or nobody can tell.
    pub fn needs(&self) -> Option<(u16, u16)> {
        self.size.or(self.size_max).filter(|_| self.layer.is_none())
    }

    /// More pixels are not needed.
    pub fn pixels_max(&self) -> Option<u32> {
        self.size.map(area)
    }

    /// More pixels are not wanted.
    pub fn pixels_limit(&self) -> Option<u32> {
        self.size_max.map(area)
    }
}

fn area((width, height): (u16, u16)) -> u32 {
    u32::from(width) * u32::from(height)
}
