//! Sockets and io_uring: everything that talks to the kernel about datagrams.
//!
//! Owns: the sockets of each worker, its ring, its wake-up descriptor, and nearly all `unsafe` of the crate.
//! Promises: one kernel entry per turn; completions are queued by the reap and handed out afterwards, so nothing runs
//! inside it; a datagram that cannot be sent or taken is counted by kind.
//! Forbids: knowing what a datagram means. It meets the rest of the crate in `base::batch` only.
//!
//! [`socket`] binds, [`features`] asks the kernel what it allows, [`driver::UdpDriver`] is what a worker's loop uses;
//! `ring`, `buf_ring`, `recv`, `send` and `cmsg` are its parts. [`wake`] ends a worker's sleep from another thread.

mod buf_ring;
mod cmsg;
pub mod counters;
pub mod driver;
pub mod features;
mod plain;
mod recv;
mod ring;
mod send;
pub mod socket;
mod sockopt;
pub mod wake;

pub use counters::IoCounters;
pub use driver::{IoLimits, UdpDriver};
pub use features::IoUringRefused;
pub use socket::{BindAddresses, BindError, WorkerSockets, bind_group, bind_range};
pub use wake::{WakeSource, Waker};

/// The wildcard or IPv4 socket's place among the registered files.
const FILE_V4: u32 = 0;
/// The IPv6 socket's place.
const FILE_V6: u32 = 1;
/// The wake-up descriptor's place.
const FILE_WAKE: u32 = 2;
