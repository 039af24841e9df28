//! The ICE-lite side of a session (RFC 8445 §2.5): we answer checks and send none.
//!
//! Two layers. *Stateless*: [`screen`] and [`check_request`] judge a Binding request by credentials alone, so any
//! worker answers, and [`write_answer`] or [`write_refusal`] writes the reply. *Stateful*: [`IceLite`], told of every
//! check that passed, knows which paths are valid, which one we send on, and whether the peer still wants to hear us.
//!
//! Promises: an error reply is never larger than the request it answers; paths per session are bounded.
//! Forbids: candidates of the peer; every remote address is peer-reflexive to us, which is all a lite agent needs.

mod agent;
mod check;
mod credentials;

pub use agent::{
    CONSENT_EXPIRES_AFTER, CheckOutcome, FIRST_CHECK_WITHIN, IceLite, PATH_SILENT_AFTER, PATHS_MAX, REMOTE_HELD_FOR,
    Restarted,
};
pub use check::{CheckRequest, Incoming, Refusal, check_request, fuzz_ice, screen, write_answer, write_refusal};
pub use credentials::{LocalCredentials, PWD_BYTES, UFRAG_BYTES, Ufrag};
