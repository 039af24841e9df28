//! Tramline: a WebRTC selective forwarding unit.

pub mod base;
pub mod config;
pub mod crypto;
pub mod forward;
pub mod net;
pub mod proto;
pub mod room;
pub mod runtime;

pub mod self_check;
pub mod server;
pub mod session;
pub mod signaling;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod telemetry;
pub mod wire;
pub mod worker;
