//! Why a subscriber sees what it sees of a track, in words and numbers: the one list for the whole program.
//!
//! Owns: the reasons and how they read. Whoever withholds something says one of these; people see it at `/debug/why` and on
//! the page. Forbids: deciding anything.

use std::fmt;
use std::time::Duration;

use crate::base::format::Format;

/// The reason that a subscriber gets no more of a track than it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// It gets the best that is sent and asked for.
    Best,
    /// The subscriber's link carries no more.
    Bandwidth {
        /// What the link carries by estimate.
        estimate_bps: u64,
        /// What all its video gets of that.
        allocated_bps: u64,
        /// What all its video would need with this one's next layer.
        needed_bps: u64,
    },
    /// The link would carry more; it must show so for a while first.
    Settling {
        /// What the link carries by estimate.
        estimate_bps: u64,
        /// What all its video would need with this one's next layer.
        needed_bps: u64,
        /// How long until the next attempt, at the earliest.
        wait: Duration,
    },
    /// The subscriber asked for no more than this.
    CappedByRequest {
        /// The size asked for, if it was a size.
        max_pixels: Option<u32>,
        /// The frame rate asked for.
        max_fps: Option<u8>,
    },
    /// The layer it asked for is not sent now; it gets the nearest.
    LayerNotSent,
    /// The subscriber said that nobody looks at it.
    HiddenByRequest,
    /// Nothing can be shown before a keyframe comes.
    NoKeyframeYet {
        /// How long it waits already.
        waited: Duration,
    },
    /// The publisher sends in a format that the subscriber did not agree to.
    CodecNotNegotiated {
        /// Which one.
        format: Format,
    },
    /// The subscriber's address is not found yet.
    IceNotConnected,
    /// The subscriber's keys are not agreed yet.
    DtlsNotConnected,
    /// The subscriber's address stopped to confirm that it wants our packets (RFC 7675).
    NoConsent {
        /// How long it is silent.
        silent: Duration,
    },
    /// The server has more to do than it can, and left video out.
    Overload,
    /// Nothing comes from the publisher.
    PublisherSilent {
        /// For how long, if ever something came.
        silent: Option<Duration>,
    },
    /// Others speak louder.
    NotLoudest {
        /// So many are heard at once.
        heard: u8,
    },
    /// The publisher muted it.
    MutedByPublisher,
    /// The subscriber muted it for itself.
    MutedByRequest,
    /// Somebody else muted it for all.
    MutedByModerator,
    /// The subscriber blocked the publisher.
    Blocked,
    /// The subscriber wants to hear nobody.
    Deafened,
    /// There is no subscription.
    NotSubscribed,
}

impl Why {
    /// Stable name for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Settling { .. } => "settling",
            Self::CappedByRequest { .. } => "capped_by_request",
            Self::LayerNotSent => "layer_not_sent",
            Self::HiddenByRequest => "hidden_by_request",
            Self::NoKeyframeYet { .. } => "no_keyframe_yet",
            Self::CodecNotNegotiated { .. } => "codec_not_negotiated",
            Self::IceNotConnected => "ice_not_connected",
            Self::DtlsNotConnected => "dtls_not_connected",
            Self::NoConsent { .. } => "no_consent",
            Self::Overload => "overload",
            Self::PublisherSilent { .. } => "publisher_silent",
            Self::NotLoudest { .. } => "not_loudest",
            Self::MutedByPublisher => "muted_by_publisher",
            Self::MutedByRequest => "muted_by_request",
            Self::MutedByModerator => "muted_by_moderator",
            Self::Blocked => "blocked",
            Self::Deafened => "deafened",
            Self::NotSubscribed => "not_subscribed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Best => write!(f, "Gets the best that is sent."),
            Self::Bandwidth { estimate_bps, allocated_bps, needed_bps } => write!(
                f,
                "Lowered by bandwidth: the link carries {}, its video takes {} of it and would need {} with the next layer.",
                Rate(estimate_bps),
                Rate(allocated_bps),
                Rate(needed_bps)
            ),
            Self::Settling { estimate_bps, needed_bps, wait } => write!(
                f,
                "Waits {} to see whether the link's {} last: its video would need {} with the next layer.",
                Time(wait),
                Rate(estimate_bps),
                Rate(needed_bps)
            ),
            Self::CappedByRequest { max_pixels, max_fps } => {
                write!(f, "The subscriber asked for no more")?;
                match (max_pixels, max_fps) {
                    (Some(pixels), Some(fps)) => write!(f, " than {pixels} pixels at {fps} frames per second."),
                    (Some(pixels), None) => write!(f, " than {pixels} pixels."),
                    (None, Some(fps)) => write!(f, " than {fps} frames per second."),
                    (None, None) => write!(f, "."),
                }
            }
            Self::LayerNotSent => {
                write!(f, "The layer that was asked for is not sent now, so the nearest is forwarded.")
            }
            Self::HiddenByRequest => write!(f, "Hidden: the subscriber said that it does not show it."),
            Self::NoKeyframeYet { waited } => write!(f, "Waits for a keyframe since {}.", Time(waited)),
            Self::CodecNotNegotiated { format } => {
                write!(f, "The publisher sends {format:?}, which the subscriber did not negotiate.")
            }
            Self::IceNotConnected => write!(f, "ICE is not connected: no address of the subscriber works yet."),
            Self::DtlsNotConnected => write!(f, "DTLS is not connected: there are no keys for the subscriber yet."),
            Self::NoConsent { silent } => {
                write!(f, "No consent: the subscriber did not answer or ask on its address for {}.", Time(silent))
            }
            Self::Overload => write!(f, "The server is overloaded and leaves video out."),
            Self::PublisherSilent { silent: Some(silent) } => {
                write!(f, "The publisher sends nothing since {}.", Time(silent))
            }
            Self::PublisherSilent { silent: None } => write!(f, "The publisher has sent nothing yet."),
            Self::NotLoudest { heard } => write!(f, "Not among the {heard} loudest who are heard."),
            Self::MutedByPublisher => write!(f, "The publisher muted it."),
            Self::MutedByRequest => write!(f, "The subscriber muted it."),
            Self::MutedByModerator => write!(f, "A moderator muted it for all."),
            Self::Blocked => write!(f, "The subscriber blocked the publisher."),
            Self::Deafened => write!(f, "The subscriber is deafened: it hears nobody."),
            Self::NotSubscribed => write!(f, "There is no subscription."),
        }
    }
}

/// Bits per second with three digits.
struct Rate(u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{} bit/s", self.0),
            1_000..1_000_000 => write!(f, "{} kbit/s", self.0 / 1_000),
            _ => write!(f, "{:.2} Mbit/s", self.0 as f64 / 1e6),
        }
    }
}

/// A time as people say it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Why; 22] = [
        Why::Best,
        Why::Bandwidth { estimate_bps: 480_000, allocated_bps: 150_000, needed_bps: 1_250_000 },
        Why::Settling { estimate_bps: 2_000_000, needed_bps: 1_500_000, wait: Duration::from_millis(800) },
        Why::CappedByRequest { max_pixels: Some(57_600), max_fps: Some(15) },
        Why::CappedByRequest { max_pixels: Some(57_600), max_fps: None },
        Why::CappedByRequest { max_pixels: None, max_fps: None },
        Why::LayerNotSent,
        Why::HiddenByRequest,
        Why::NoKeyframeYet { waited: Duration::from_millis(120) },
        Why::CodecNotNegotiated { format: Format::Vp8 },
        Why::IceNotConnected,
        Why::DtlsNotConnected,
        Why::NoConsent { silent: Duration::from_millis(5_500) },
        Why::Overload,
        Why::PublisherSilent { silent: Some(Duration::from_secs(3)) },
        Why::NotLoudest { heard: 3 },
        Why::MutedByPublisher,
        Why::MutedByRequest,
        Why::MutedByModerator,
        Why::Blocked,
        Why::Deafened,
        Why::NotSubscribed,
    ];

    #[test]
    fn each_is_one_sentence_with_a_name_for_programs() {
        for why in ALL {
            let (sentence, name) = (why.to_string(), why.name());
            assert!(sentence.ends_with('.') && !sentence.trim_end_matches('.').contains(". "), "{sentence}");
            assert!(sentence.starts_with(|first: char| first.is_ascii_uppercase()), "{sentence}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        }
        let mut names: Vec<_> = ALL.iter().map(Why::name).collect();
        names.dedup();
        assert_eq!(names.len(), 20, "each reason has its own name");
    }

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!(
            ALL[1].to_string(),
            "Lowered by bandwidth: the link carries 480 kbit/s, its video takes 150 kbit/s of it and would need 1.25 Mbit/s \
             with the next layer."
        );
        assert_eq!(ALL[8].to_string(), "Waits for a keyframe since 120 ms.");
        assert_eq!(ALL[12].to_string(), "No consent: the subscriber did not answer or ask on its address for 5.5 s.");
    }
}
