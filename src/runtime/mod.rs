//! The only place that reads the clock and runs the loop.
//!
//! Owns: worker threads, their order of doing things, and what the machine looks like (cores, interfaces).
//! Forbids: protocol knowledge; the loop drives anything that is a [`run::Turn`].

pub mod affinity;
pub mod clock;
pub mod interfaces;
pub mod run;
pub mod spawn;
pub mod worker;
