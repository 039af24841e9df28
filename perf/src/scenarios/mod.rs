//! What can be run. Each scenario is its settings and how they make a report.

pub mod audio_room;
pub mod blast;
pub mod churn;
pub mod floor;
pub mod idle;
pub mod meeting;
pub mod one_to_many;
pub mod rooms;
pub mod saturate;
