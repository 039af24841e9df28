//! Why a datagram or packet went no further. A discard is an answer: counted, not logged.

macro_rules! discards {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Fates of what is not forwarded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Discard {
            $($(#[$doc])* $variant,)*
        }

        impl Discard {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Label of the metric.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

discards! {
    // Unexpected: somebody sent what nobody should.
    /// First byte of no protocol (RFC 7983) or too short for it.
    NotWebRtc => "not_webrtc",
    /// DTLS or SRTP from an address that no session validated.
    UnknownSource => "unknown_source",
    /// Not a STUN message, or one without a valid FINGERPRINT.
    StunMalformed => "stun_malformed",
    /// A check for a ufrag that no session has.
    StunUnknownUfrag => "stun_unknown_ufrag",
    /// A check with a wrong password.
    StunBadIntegrity => "stun_bad_integrity",
    /// A check answered with another error (400, 420, 487).
    StunRefused => "stun_refused",
    /// A STUN message that asks for nothing: indications, stray responses.
    StunIgnored => "stun_ignored",
    /// DTLS before the peer's description came.
    DtlsTooEarly => "dtls_too_early",
    /// SRTP before DTLS was up.
    SrtpTooEarly => "srtp_too_early",
    /// SRTP or SRTCP that does not authenticate.
    SrtpForged => "srtp_forged",
    /// SRTP or SRTCP seen before.
    SrtpReplayed => "srtp_replayed",
    /// More sources than a session may have.
    TooManySources => "too_many_sources",
    /// Authentic, but not RTP.
    RtpMalformed => "rtp_malformed",
    /// Authentic, but not RTCP.
    RtcpMalformed => "rtcp_malformed",
    /// RTP of a source that no m-line explains.
    UnknownSsrc => "unknown_ssrc",
    /// RTP of a simulcast stream that was not negotiated.
    UnknownRid => "unknown_rid",
    /// RTP with a payload type that was not negotiated.
    UnknownPayloadType => "unknown_payload_type",
    /// Longer than what we forward.
    TooLarge => "too_large",
    // Expected: normal life.
    /// Padding of the publisher's bandwidth probes.
    PaddingOnly => "padding_only",
    /// A retransmission of what had come.
    Duplicate => "duplicate",
    /// Older than what is remembered.
    TooOld => "too_old",
    /// Nobody wants the track.
    NoSubscriber => "no_subscriber",
    /// The route pointed to what is gone.
    StaleRoute => "stale_route",
    /// The subscriber's transport is not up.
    SubscriberNotReady => "subscriber_not_ready",
    /// The subscriber waits for a keyframe.
    AwaitsKeyframe => "awaits_keyframe",
    /// The subscriber did not negotiate the format.
    FormatNotNegotiated => "format_not_negotiated",
    /// A layer that the subscriber does not get.
    NotSelected => "not_selected",
    /// Asked for again within a round trip.
    RetransmittedLately => "retransmitted_lately",
    /// Lost on purpose: the peer's network is impaired.
    Impaired => "impaired",
    // Limits of ours.
    /// The worker could not keep up: what had waited too long was left out, video first.
    Overload => "overload",
    /// The send batch was full.
    TxFull => "tx_full",
    /// The lane to another worker was full.
    LaneFull => "lane_full",
    /// The recorder stayed behind: the packet is missing in a recording.
    TapFull => "tap_full",
    /// A subscriber asked for more retransmissions than it may.
    RetransmissionLimit => "retransmission_limit",
    /// So much waited for a subscriber's line already that the rest was left out.
    DownlinkFull => "downlink_full",
}

/// How often each happened.
#[derive(Clone, Copy, Debug)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Default for Discards {
    fn default() -> Self {
        Self([0; Discard::ALL.len()])
    }
}

impl Discards {
    /// One more.
    pub fn count(&mut self, discard: Discard) {
        self.0[discard as usize] += 1;
    }

    /// How many.
    pub fn of(&self, discard: Discard) -> u64 {
        self.0[discard as usize]
    }

    /// Name and count of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Discard::ALL.iter().map(|discard| (discard.name(), self.of(*discard)))
    }
}
