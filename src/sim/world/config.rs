//! How a world is made.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::base::train::TrainLimits;

/// See the module.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Of everything random but str0m.
    pub seed: u64,
    /// Worker cores behind one port.
    pub workers: usize,
    /// Each worker's turn begins at most so much after its cause.
    pub lag_max: Duration,
    /// What one datagram sent costs a worker in time: zero is a machine that is always fast enough.
    pub send_cost: Duration,
    /// Time of one signalling message.
    pub signalling_delay: Duration,
    /// The server's addresses.
    pub addresses: Vec<IpAddr>,
    /// Each worker has a port of its own, and the room places peers.
    pub has_own_ports: bool,
    /// What trains may cost.
    pub trains: TrainLimits,
    /// Voices of a room that are heard at once; 0: all.
    pub audio_loudest: usize,
    /// The workers are told that they have no time to spare.
    pub is_busy: bool,
    /// What a batch holds: less than the loop's, so that full batches are met.
    pub batch_datagrams: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            workers: 1,
            lag_max: Duration::from_micros(300),
            send_cost: Duration::ZERO,
            signalling_delay: Duration::from_millis(20),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))],
            has_own_ports: false,
            trains: TrainLimits::default(),
            audio_loudest: 8,
            is_busy: false,
            batch_datagrams: 64,
        }
    }
}
