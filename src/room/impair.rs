//! Bad networks on purpose, as an administrator asks for them: single peers behind links that lose, delay and throttle.
//!
//! Owns: the form in which links are written and shown, and its limits. What happens to datagrams is the worker's part
//! (`worker/shim.rs`). An impairment ends with the peer's stay.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hub::Hub;
use super::peer::Peer;
use crate::base::ids::PeerId;
use crate::proto::link::{LinkConfig, Loss};
use crate::worker::command::{Command, Impairments};

/// Delay, jitter or queue beyond that ends a call in other ways than the one to be tried.
const TIME_MS_MAX: u32 = 10_000;
/// More does not throttle anybody.
const RATE_KBPS_MAX: u32 = 1_000_000;
/// Longer bursts are an outage: better tried by a loss of 1.
const BURST_MAX: f64 = 1000.0;
/// What a bottleneck holds unless it is said: a home router's queue.
const QUEUE_MS: u32 = 200;
/// An Ethernet frame fits into every queue.
const QUEUE_BYTES_MIN: u64 = 1500;

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BadLink {
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// So many are lost in a row, in the mean; without it each is lost by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<f64>,
    /// Least time under way.
    pub delay_ms: u32,
    /// At most so much more.
    pub jitter_ms: u32,
    /// Jitter may change the order.
    pub reorder: bool,
    /// Bottleneck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_kbps: Option<u32>,
    /// Time that the bottleneck's queue holds; what finds it full is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u32>,
}

/// Both; what is not named is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BadNetwork {
    /// From the peer to us.
    pub up: Option<BadLink>,
    /// From us to the peer.
    pub down: Option<BadLink>,
}

impl BadLink {
    fn config(&self) -> Result<LinkConfig, String> {
        for (name, value) in [
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("queue_ms", self.queue_ms.unwrap_or_default()),
        ] {
            if value > TIME_MS_MAX {
                return Err(format!("{name} must be at most {TIME_MS_MAX}"));
            }
        }
        if self.rate_kbps.is_some_and(|rate| !(1..=RATE_KBPS_MAX).contains(&rate)) {
            return Err(format!("rate_kbps must be 1 to {RATE_KBPS_MAX}"));
        }
        let rate = self.rate_kbps.map(|kbps| {
            let bits_per_s = u64::from(kbps) * 1000;
            let queue_ms = u64::from(self.queue_ms.unwrap_or(QUEUE_MS));
            (bits_per_s, (bits_per_s * queue_ms / 8000).max(QUEUE_BYTES_MIN) as usize)
        });
        Ok(LinkConfig {
            delay: Duration::from_millis(self.delay_ms.into()),
            jitter: Duration::from_millis(self.jitter_ms.into()),
            reorders: self.reorder,
            loss: self.loss()?,
            rate,
        })
    }

    fn loss(&self) -> Result<Loss, String> {
        if !(0.0..=1.0).contains(&self.loss) {
            return Err("loss must be 0 to 1, the share of what is lost".to_owned());
        }
        let Some(burst) = self.burst.filter(|_| self.loss < 1.0) else { return Ok(Loss::Uniform(self.loss)) };
        if !(1.0..=BURST_MAX).contains(&burst) {
            return Err(format!("burst must be 1 to {BURST_MAX}, the mean number lost in a row"));
        }
        // The share of time in the bad state is to_bad / (to_bad + to_good).
        let to_good = 1.0 / burst;
        let to_bad = to_good * self.loss / (1.0 - self.loss);
        if to_bad > 1.0 {
            return Err(format!("a loss of {} needs longer bursts than {burst}", self.loss));
        }
        Ok(Loss::Bursty { to_bad, to_good })
    }
}

impl BadNetwork {
    fn links(&self) -> Result<Impairments, String> {
        let config = |link: Option<BadLink>| link.map(|link| link.config()).transpose();
        Ok(Impairments { up: config(self.up)?, down: config(self.down)? })
    }
}

/// Why a network was not made bad.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpairError {
    /// Nobody there has that name.
    #[error("nobody in this room has that id")]
    NoPeer,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Bad(String),
}

impl Hub {
    /// Puts a peer behind such links, instead of those before.
    pub fn impair(&mut self, room: &str, name: &str, network: BadNetwork) -> Result<(), ImpairError> {
        let impairments = network.links().map_err(ImpairError::Bad)?;
        let id = self.find_named(room, name).ok_or(ImpairError::NoPeer)?;
        let peer = self.peers.get_mut(&id).ok_or(ImpairError::NoPeer)?;
        peer.network = network;
        let (session, placed) = (peer.session, peer.placed);
        tracing::info!(room, peer = name, ?network, "the network of a peer is impaired on purpose");
        // To every worker that hears of the session: until one owns it, any may be reached.
        self.command(placed, &Command::Impair { session, impairments });
        Ok(())
    }

    /// What a peer is behind.
    pub fn impairment(&self, room: &str, name: &str) -> Option<BadNetwork> {
        Some(self.peers.get(&self.find_named(room, name)?)?.network)
    }

    /// A peer by any of its ids: that of the user, the one on the wire, or that in `/debug/peers`.
    pub(super) fn find_named(&self, room: &str, name: &str) -> Option<PeerId> {
        let is_meant = |peer: &&Peer| peer.info.wire_id == name || peer.info.peer.to_string() == name;
        self.find(room, name).or_else(|| self.room_peers(room).find(is_meant).map(|peer| peer.info.peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(json: &str) -> Result<LinkConfig, String> {
        serde_json::from_str::<BadLink>(json).map_err(|error| error.to_string())?.config()
    }

    #[test]
    fn a_link_is_read_with_its_defaults() {
        let config = link(r#"{"loss": 0.05, "delay_ms": 50, "rate_kbps": 300}"#).unwrap();
        assert!(matches!(config.loss, Loss::Uniform(share) if share == 0.05));
        assert_eq!((config.delay, config.jitter), (Duration::from_millis(50), Duration::ZERO));
        assert_eq!(config.rate, Some((300_000, 7500)));
        let config = link("{}").unwrap();
        assert!(matches!(config.loss, Loss::Uniform(0.0)) && config.delay.is_zero() && config.rate.is_none());
    }

    #[test]
    fn bursts_keep_the_share_that_is_asked_for() {
        let Loss::Bursty { to_bad, to_good } = link(r#"{"loss": 0.2, "burst": 4}"#).unwrap().loss else {
            panic!("no bursts")
        };
        assert!((to_good - 0.25).abs() < 1e-9 && (to_bad / (to_bad + to_good) - 0.2).abs() < 1e-9);
        assert!(matches!(link(r#"{"loss": 1, "burst": 4}"#).unwrap().loss, Loss::Uniform(1.0)));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (json, word) in [
            (r#"{"loss": 1.5}"#, "loss"),
            (r#"{"loss": -0.1}"#, "loss"),
            (r#"{"loss": 0.9, "burst": 2}"#, "longer bursts"),
            (r#"{"loss": 0.1, "burst": 0.5}"#, "burst"),
            (r#"{"delay_ms": 99999}"#, "delay_ms"),
            (r#"{"rate_kbps": 0}"#, "rate_kbps"),
            (r#"{"delay": 5}"#, "delay"),
        ] {
            assert!(link(json).unwrap_err().contains(word), "{json}");
        }
    }
}
