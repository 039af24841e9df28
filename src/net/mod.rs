//! Sockets and what carries their datagrams: everything that talks to the kernel about them.
//!
//! Owns: the sockets of each worker, its driver, its wake-up descriptor, and nearly all `unsafe` of the crate.
//! Promises: completions are queued and handed out afterwards, so nothing runs inside the kernel's part of a turn; with
//! io_uring the kernel is entered once per turn; a datagram that cannot be sent or taken is counted by kind.
//! Forbids: knowing what a datagram means. It meets the rest of the crate in `base::batch` only.
//!
//! [`socket`] binds; [`driver::Driver`] is what a worker's loop uses. There are two: [`uring::UdpDriver`] over io_uring,
//! with `ring`, `buf_ring` and `recv` as its parts, and [`mmsg::MmsgDriver`] over plain system calls, for where
//! [`features`] says that io_uring is refused. Both send through `send` and `plain`, read `cmsg`, and lend what came out
//! of an `arrival`. [`wake`] ends a worker's sleep from another thread.

mod arrival;
mod buf_ring;
mod cmsg;
pub mod counters;
pub mod driver;
pub mod features;
mod memory;
pub mod mmsg;
mod plain;
mod recv;
mod ring;
mod send;
pub mod socket;
mod sockopt;
pub mod uring;
pub mod wake;

pub use counters::IoCounters;
pub use driver::{Driver, DriverKind, IoLimits, OpenError};
pub use features::IoUringRefused;
pub use mmsg::MmsgDriver;
pub use socket::{BindAddresses, BindError, WorkerSockets, bind_group, bind_range};
pub use uring::UdpDriver;
pub use wake::{WakeSource, Waker};

/// The wildcard or IPv4 socket's place among the registered files.
const FILE_V4: u32 = 0;
/// The IPv6 socket's place.
const FILE_V6: u32 = 1;
/// The wake-up descriptor's place.
const FILE_WAKE: u32 = 2;
