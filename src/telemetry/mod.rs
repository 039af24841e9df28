//! What operators see: the log and the numbers.

pub mod logs;
pub mod metrics;

pub use metrics::{RoomRow, Snapshot};
