//! What operators see: the log and the numbers.

mod connections;
pub mod logs;
pub mod metrics;

pub use connections::{ConnectionRow, Connections};
pub use metrics::{RoomRow, Snapshot};
