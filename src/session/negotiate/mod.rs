//! SDP to streams and back: one peer's negotiation (RFC 8829, RFC 9429), whoever offers.

use crate::base::format::MediaKind;

/// Who makes offers, and what m-lines our own offers begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// We make the first offer (Gryt's real protocol); else the client does.
    pub server_offers_first: bool,
    /// We may offer too when tracks wait for an m-line, also where the client offered first.
    pub server_may_offer: bool,
    /// The track behind a sending m-line may change without an offer (clients that do not read msid).
    pub live_binding: bool,
    /// Receive-only m-lines at the head of our first offer.
    pub slots: &'static [MediaKind],
}

/// Why a description cannot be used. The negotiation stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// Not SDP.
    #[error("the description is not valid SDP: {0}")]
    Syntax(String),
    /// Valid SDP that WebRTC cannot use.
    #[error("the description cannot be used: {0}")]
    Unusable(String),
    /// An answer came and no offer was out.
    #[error("an answer came, but no offer of ours is waiting for one")]
    UnexpectedAnswer,
}
