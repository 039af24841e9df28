//! Bounds of what one client, and one address, may ask of us.
//!
//! Owns: the rates and connections of all addresses. An IPv6 network of 64 bits counts as one address: whoever has one of
//! its addresses has them all.
//! Promises: what is remembered is bounded; where there is no room to remember somebody new, all newcomers share one rate.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::Config;
use crate::runtime::clock;

/// Addresses and users whose rate is remembered, at some 50 bytes each.
const REMEMBERED_MAX: usize = 65_536;
/// Between two looks at all of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Connections beside the seats: requests, handshakes, and WebSockets that have not joined.
const SPARE_CONNECTIONS: usize = 4096;
/// The last connections are never one address's, whatever the settings say.
const KEPT_FOR_OTHERS: usize = 1024;

/// Rates and connections.
pub struct Limits {
    rate: Option<DefaultKeyedRateLimiter<Key>>,
    hashes: RandomState,
    /// When those who have been quiet were forgotten last.
    swept: Mutex<Option<Instant>>,
    connections: Arc<Connections>,
    per_address: u32,
    connections_max: usize,
    refused: AtomicU64,
}

/// Whose rate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// A user by the hash of the name: names are as long as their tokens allow.
    User(u64),
    Newcomer,
}

/// How a connection is received.
pub enum Entry {
    /// As one of those that its address may have.
    Fine(Place),
    /// Its address has too many: it is told so, and closed.
    TooMany(Place),
    /// There is no room to tell it.
    Full,
}

#[derive(Default)]
struct Connections(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, u32>,
}

/// A connection that counts; free again when dropped.
pub struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Limits {
    /// As the settings have it.
    pub fn new(config: &Config) -> Self {
        let quota = config.limits.rate.map(|rate| Quota::per_second(rate.per_second).allow_burst(rate.burst));
        let connections_max = config.max_connections + SPARE_CONNECTIONS;
        let of_one = connections_max - KEPT_FOR_OTHERS;
        Self {
            rate: quota.map(RateLimiter::keyed),
            hashes: RandomState::new(),
            swept: Mutex::default(),
            connections: Arc::default(),
            per_address: config.limits.connections_per_address.map_or(of_one as u32, NonZeroU32::get),
            connections_max,
            refused: AtomicU64::new(0),
        }
    }

    /// One request from an address; or how long it has to wait.
    pub fn ask(&self, address: IpAddr) -> Result<(), Duration> {
        self.take(Key::Address(network(address)))
    }

    /// One request of a user.
    pub fn ask_as(&self, user: &str) -> Result<(), Duration> {
        self.take(Key::User(self.hashes.hash_one(user)))
    }

    /// A connection from an address. One from a proxy is `None`: its clients are counted one by one.
    pub fn enter(&self, address: Option<IpAddr>) -> Entry {
        // The unspecified address stands for all proxies.
        let counted = address.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network);
        let own_max = if address.is_some() { self.per_address } else { u32::MAX };
        let mut counts = self.connections.lock();
        if counts.all >= self.connections_max {
            return self.count_refused(Entry::Full);
        }
        let own = counts.by_address.entry(counted).or_default();
        // As many again are told; more of them would be a way around the limit.
        if *own >= own_max.saturating_mul(2) {
            return self.count_refused(Entry::Full);
        }
        let is_fine = *own < own_max;
        *own += 1;
        counts.all += 1;
        let place = Place { connections: Arc::clone(&self.connections), address: counted };
        if is_fine { Entry::Fine(place) } else { self.count_refused(Entry::TooMany(place)) }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.connections.lock().all
    }

    /// Requests and connections that were too many, ever.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, key: Key) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let mut key = key;
        if rate.len() >= REMEMBERED_MAX {
            self.sweep(rate);
            if rate.len() >= REMEMBERED_MAX {
                key = Key::Newcomer;
            }
        }
        rate.check_key(&key).map_err(|until| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            until.wait_time_from(rate.clock().now())
        })
    }

    /// Forgets whoever has been quiet. It looks at all, so not for every request of a crowd.
    fn sweep(&self, rate: &DefaultKeyedRateLimiter<Key>) {
        let now = clock::now();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
            rate.retain_recent();
            *swept = Some(now);
        }
    }

    fn count_refused(&self, entry: Entry) -> Entry {
        self.refused.fetch_add(1, Ordering::Relaxed);
        entry
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.all -= 1;
        if let Some(own) = counts.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Allows `burst` at once and `per_second` on average.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, tokens: f64::from(burst), updated: now }
    }

    /// Takes one token; false when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        let refilled = self.tokens + passed.as_secs_f64() * f64::from(self.per_second);
        self.tokens = refilled.min(f64::from(self.burst));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start, 50, 200);
        let at_once = (0..10_000).filter(|_| bucket.take(start)).count();
        assert_eq!(at_once, 200);
        let second_later = start + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| bucket.take(second_later)).count(), 50);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start + Duration::from_secs(9), 1, 1);
        assert!(bucket.take(start));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + Duration::from_secs(9)));
    }

    #[test]
    fn a_long_pause_fills_no_more_than_the_burst() {
        let start = crate::runtime::clock::now();
        let mut bucket = TokenBucket::new(start, 50, 3);
        let later = start + Duration::from_secs(86_400);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 3);
    }

    fn limits(rate: Option<u32>, per_address: u32) -> Limits {
        let one = |number: u32| NonZeroU32::new(number).unwrap();
        let limits = crate::config::limits::Limits {
            rate: rate.map(|burst| crate::config::limits::Rate { per_second: one(1), burst: one(burst) }),
            connections_per_address: NonZeroU32::new(per_address),
            ..Default::default()
        };
        Limits::new(&Config { limits, max_connections: 1, ..Config::defaults() })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_a_rate_of_its_own_and_each_user_too() {
        let limits = limits(Some(3), 0);
        let ana = address("192.0.2.1");
        assert_eq!((0..9).filter(|_| limits.ask(ana).is_ok()).count(), 3);
        let wait = limits.ask(ana).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limits.ask(address("::ffff:192.0.2.1")).is_err(), "the same address in other words");
        assert!(limits.ask(address("192.0.2.2")).is_ok());
        assert_eq!((0..9).filter(|n| limits.ask(address(&format!("2001:db8::{n}"))).is_ok()).count(), 3);
        assert!(limits.ask(address("2001:db8:0:1::")).is_ok());
        assert_eq!((0..9).filter(|_| limits.ask_as("ana").is_ok()).count(), 3);
        assert!(limits.ask_as("ben").is_ok());
        assert!(limits.refused() > 0);
    }

    #[test]
    fn nobody_is_remembered_beyond_the_bound() {
        let limits = limits(Some(1), 0);
        for newcomer in 0..2 * REMEMBERED_MAX as u32 {
            // Whether it is let in depends on how many have been forgotten meanwhile.
            let _ = limits.ask(IpAddr::from(newcomer.to_be_bytes()));
        }
        assert!(limits.rate.as_ref().unwrap().len() <= REMEMBERED_MAX + 1);
    }

    #[test]
    fn an_address_has_so_many_connections_and_others_still_come_in() {
        let limits = limits(None, 2);
        let mut held: Vec<Entry> = (0..5).map(|_| limits.enter(Some(address("192.0.2.1")))).collect();
        let kinds: Vec<u8> = held
            .iter()
            .map(|e| match e {
                Entry::Fine(_) => 0,
                Entry::TooMany(_) => 1,
                Entry::Full => 2,
            })
            .collect();
        assert_eq!(kinds, [0, 0, 1, 1, 2]);
        assert!(matches!(limits.enter(Some(address("192.0.2.2"))), Entry::Fine(_)));
        assert!((0..9).map(|_| limits.enter(None)).all(|entry| matches!(entry, Entry::Fine(_))), "proxies bring many");
        held.clear();
        assert_eq!(limits.open(), 0);
        assert!(limits.connections.lock().by_address.is_empty());
        assert!(matches!(limits.enter(Some(address("192.0.2.1"))), Entry::Fine(_)));
    }

    #[test]
    fn there_is_an_end_to_all_connections() {
        let limits = limits(None, 0);
        let of_one = SPARE_CONNECTIONS + 1 - KEPT_FOR_OTHERS;
        let held: Vec<Entry> = (0..of_one + 1).map(|_| limits.enter(Some(address("192.0.2.1")))).collect();
        assert!(held[..of_one].iter().all(|entry| matches!(entry, Entry::Fine(_))));
        assert!(matches!(held[of_one], Entry::TooMany(_)), "others have a chance");
        let others: Vec<Entry> = (0..KEPT_FOR_OTHERS).map(|_| limits.enter(None)).collect();
        assert_eq!(others.iter().filter(|entry| matches!(entry, Entry::Full)).count(), 1);
    }
}
