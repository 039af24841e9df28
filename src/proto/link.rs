//! A link as it may be on a bad day: loss, delay, jitter, a bottleneck with its queue.
//!
//! Owns: what one direction of a peer's access does to datagrams. Told the time, it says when each arrives, if it does;
//! keeping the datagram until then is the caller's part. Shared by the simulator and by the impairments of a running
//! server (`worker/shim.rs`). Forbids: knowing what datagrams carry.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

/// How datagrams get lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Each by itself, with this probability.
    Uniform(f64),
    /// In bursts (Gilbert-Elliott): nothing is lost in the good state, everything in the bad one.
    Bursty {
        /// Probability to turn bad, per datagram.
        to_bad: f64,
        /// Probability to turn good again, per datagram.
        to_good: f64,
    },
}

/// A bad state does not outlast this, however little is sent.
const BURST_MAX: Duration = Duration::from_millis(100);

/// One direction of a peer's access.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Least time under way.
    pub delay: Duration,
    /// At most so much more.
    pub jitter: Duration,
    /// Jitter may change the order.
    pub reorders: bool,
    /// What gets lost.
    pub loss: Loss,
    /// Bottleneck, with what its queue holds; a datagram that finds it full is lost.
    pub rate: Option<(u64, usize)>,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            reorders: false,
            loss: Loss::Uniform(0.0),
            rate: None,
        }
    }
}

impl LinkConfig {
    /// A link that loses this share, each datagram by itself.
    pub fn lossy(share: f64) -> Self {
        Self { loss: Loss::Uniform(share), ..Self::default() }
    }
}

/// A link with its state.
#[derive(Clone, Debug)]
pub struct Link {
    /// May be changed at any time.
    pub config: LinkConfig,
    /// The bad state began then.
    bad_since: Option<Instant>,
    /// The bottleneck is busy until then.
    busy_until: Option<Instant>,
    last_at: Option<Instant>,
    /// Datagrams given, and lost.
    pub counts: (u64, u64),
    /// Bytes that were not lost.
    pub bytes: u64,
}

impl Link {
    /// An idle link.
    pub fn new(config: LinkConfig) -> Self {
        Self { config, bad_since: None, busy_until: None, last_at: None, counts: (0, 0), bytes: 0 }
    }

    /// When a datagram of `len` bytes given now arrives; `None` when it is lost.
    pub fn pass(&mut self, now: Instant, rng: &mut StdRng, len: usize) -> Option<Instant> {
        self.counts.0 += 1;
        let arrival = self.arrival(now, rng, len);
        self.counts.1 += u64::from(arrival.is_none());
        self.bytes += if arrival.is_some() { len as u64 } else { 0 };
        arrival
    }

    /// How long the bottleneck's queue is, in time.
    pub fn queued(&self, now: Instant) -> Duration {
        self.busy_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn arrival(&mut self, now: Instant, rng: &mut StdRng, len: usize) -> Option<Instant> {
        let is_lost = match self.config.loss {
            Loss::Uniform(share) => rng.random_bool(share),
            Loss::Bursty { to_bad, to_good } => {
                let since = self.bad_since.filter(|since| now.saturating_duration_since(*since) < BURST_MAX);
                let is_bad = if since.is_some() { !rng.random_bool(to_good) } else { rng.random_bool(to_bad) };
                self.bad_since = is_bad.then_some(since.unwrap_or(now));
                is_bad
            }
        };
        if is_lost {
            return None;
        }
        let mut sent = now;
        if let Some((bits_per_s, queue_bytes)) = self.config.rate {
            let start = self.busy_until.map_or(now, |until| until.max(now));
            let queued_bits = start.saturating_duration_since(now).as_secs_f64() * bits_per_s as f64;
            if queued_bits / 8.0 > queue_bytes as f64 {
                return None;
            }
            sent = start + Duration::from_secs_f64(len as f64 * 8.0 / bits_per_s as f64);
            self.busy_until = Some(sent);
        }
        let jitter = self.config.jitter.as_micros() as u64;
        let mut at = sent + self.config.delay + Duration::from_micros(rng.random_range(0..=jitter));
        if !self.config.reorders {
            at = self.last_at.map_or(at, |last| last.max(at));
        }
        self.last_at = Some(at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use rand::SeedableRng;

    fn lost(config: LinkConfig, datagrams: usize) -> (usize, usize) {
        let (mut link, mut rng, now) = (Link::new(config), StdRng::seed_from_u64(1), clock::now());
        let fates: Vec<bool> = (0..datagrams).map(|_| link.pass(now, &mut rng, 100).is_none()).collect();
        let bursts = fates.windows(2).filter(|pair| pair[0] && pair[1]).count();
        (fates.iter().filter(|lost| **lost).count(), bursts)
    }

    #[test]
    fn bursty_loss_comes_in_bursts() {
        let (uniform, uniform_pairs) = lost(LinkConfig::lossy(0.05), 20_000);
        let bursty = LinkConfig { loss: Loss::Bursty { to_bad: 0.0132, to_good: 0.25 }, ..LinkConfig::default() };
        let (burst, burst_pairs) = lost(bursty, 20_000);
        assert!((800..1200).contains(&uniform) && (800..1300).contains(&burst), "{uniform} {burst}");
        assert!(burst_pairs > 5 * uniform_pairs, "{burst_pairs} {uniform_pairs}");
    }

    #[test]
    fn a_bottleneck_delays_and_then_drops() {
        let config = LinkConfig { rate: Some((80_000, 1_000)), ..LinkConfig::default() };
        let (mut link, mut rng, now) = (Link::new(config), StdRng::seed_from_u64(1), clock::now());
        let arrivals: Vec<_> = (0..20).map(|_| link.pass(now, &mut rng, 100)).collect();
        assert_eq!(arrivals[0], Some(now + Duration::from_millis(30)));
        assert_eq!(arrivals[1], Some(now + Duration::from_millis(40)));
        assert_eq!(arrivals.iter().flatten().count(), 11);
    }
}
