//! Nouns every tier shares: ids, sequence arithmetic, batches of datagrams.
//!
//! Owns: plain values. Imports nothing of the crate.
//! Forbids: sockets, clocks, protocol knowledge.

pub mod batch;
pub mod format;
pub mod frame;
pub mod ids;
pub mod packet;
pub mod seq;
pub mod train;
pub mod window;
