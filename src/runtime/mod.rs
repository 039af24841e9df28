//! The only place that reads the clock and runs the loop.

pub mod clock;
