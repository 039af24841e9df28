//! Media formats as peers agree on them: codec and the part of fmtp that decides whether two ends understand each other.

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
}

impl MediaKind {
    /// The SDP media type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// H.264 profiles by the first two bytes of profile-level-id (RFC 6184 §8.1, table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum H264Profile {
    /// 42 with constraint_set1 (42e0, 4dxx with set0 ...).
    ConstrainedBaseline,
    /// 42 without constraint_set1.
    Baseline,
    /// 4d.
    Main,
    /// 64 with constraint_set4 and 5 (640c).
    ConstrainedHigh,
    /// 64.
    High,
    /// f4.
    High444Predictive,
}

/// A format two peers share when it is equal. Levels are left out: they are bounds, not languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RFC 7587.
    Opus,
    /// RFC 2198 around Opus.
    OpusRed,
    /// G.722 at its RTP clock of 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9 {
        /// profile-id.
        profile: u8,
    },
    /// RFC 6184.
    H264 {
        /// From profile-level-id.
        profile: H264Profile,
        /// packetization-mode 0 or 1.
        packetization_mode: u8,
    },
    /// AOM "RTP payload format for AV1".
    Av1 {
        /// profile.
        profile: u8,
    },
}

impl Format {
    /// RTP clock in Hz.
    pub fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus | Self::OpusRed => 48_000,
            Self::G722 | Self::Pcmu | Self::Pcma => 8_000,
            Self::Vp8 | Self::Vp9 { .. } | Self::H264 { .. } | Self::Av1 { .. } => 90_000,
        }
    }

    /// Audio or video.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::OpusRed | Self::G722 | Self::Pcmu | Self::Pcma => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 { .. } | Self::H264 { .. } | Self::Av1 { .. } => MediaKind::Video,
        }
    }

    /// The name as rtpmap spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::OpusRed => "red",
            Self::G722 => "G722",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::Vp8 => "VP8",
            Self::Vp9 { .. } => "VP9",
            Self::H264 { .. } => "H264",
            Self::Av1 { .. } => "AV1",
        }
    }
}
