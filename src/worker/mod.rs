//! All state of one core: sessions, tracks, timers, lanes. Told the time, without sockets.

mod backlog;
pub mod command;
pub mod core;
mod demux;
pub mod departure;
mod forward;
pub mod hold;
mod job;
pub mod lane;
mod report;
pub mod seats;
pub mod shim;
mod stun;
pub mod tap;
pub mod timers;
mod voices;
