//! The simulator: the shipped hub and worker cores, peers and a network, in one thread under a virtual clock.
//!
//! Owns: time, randomness (one seed for network and schedule), and the oracles that watch every datagram.
//! Promises: with scripted peers the same seed gives the same trace, byte for byte. str0m's hash maps and keys are
//! random: with it every run differs, and every run must pass the oracles.
//! Forbids: threads, sockets, waiting.

pub mod access;
pub mod camera;
pub mod choice;
pub mod media;
pub mod net;
pub mod oracle;
pub mod peer_scripted;
pub mod peer_str0m;
pub mod screen;
pub mod trials;
pub mod vp8;
pub mod world;

#[cfg(test)]
mod scenarios;
