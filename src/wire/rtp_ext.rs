//! RTP header extensions (RFC 8285).

/// A header extension we know; filled in by its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Ext {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    CsrcAudioLevel,
    TransportCc,
    AbsSendTime,
    TimeOffset,
    VideoOrientation,
    PlayoutDelay,
    VideoContentType,
    VideoTiming,
    ColorSpace,
    AbsCaptureTime,
    DependencyDescriptor,
    VideoLayersAllocation,
}

const URIS: [(Ext, &str); 16] = [
    (Ext::Mid, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    (Ext::Rid, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
    (Ext::RepairedRid, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
    (Ext::AudioLevel, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (Ext::CsrcAudioLevel, "urn:ietf:params:rtp-hdrext:csrc-audio-level"),
    (Ext::TransportCc, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"),
    (Ext::AbsSendTime, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    (Ext::TimeOffset, "urn:ietf:params:rtp-hdrext:toffset"),
    (Ext::VideoOrientation, "urn:3gpp:video-orientation"),
    (Ext::PlayoutDelay, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"),
    (Ext::VideoContentType, "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type"),
    (Ext::VideoTiming, "http://www.webrtc.org/experiments/rtp-hdrext/video-timing"),
    (Ext::ColorSpace, "http://www.webrtc.org/experiments/rtp-hdrext/color-space"),
    (Ext::AbsCaptureTime, "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"),
    (
        Ext::DependencyDescriptor,
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    ),
    (Ext::VideoLayersAllocation, "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"),
];

impl Ext {
    /// The URI in `a=extmap`.
    pub fn uri(self) -> &'static str {
        URIS.iter().find(|(ext, _)| *ext == self).map_or("", |(_, uri)| uri)
    }

    /// The extension a URI names.
    pub fn from_uri(uri: &str) -> Option<Self> {
        URIS.iter().find(|(_, known)| *known == uri).map(|(ext, _)| *ext)
    }

    /// Written anew for every hop, never copied.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Mid | Self::Rid | Self::RepairedRid | Self::TransportCc | Self::AbsSendTime | Self::TimeOffset
        )
    }
}
