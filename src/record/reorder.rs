//! Packets of one stream, in order again.
//!
//! Owns: what came before something that is missing. Promises: each number comes out once, in order; what is missing is
//! waited for as long as a retransmission may take, and then told. Forbids: knowing what a packet carries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::packet::PacketMeta;

/// What is missing is asked for again and comes a round trip later. Longer waits would put what a crash takes with it
/// beyond a quarter of a second.
pub const WAIT_MAX: Duration = Duration::from_millis(190);
/// Packets that wait at most: as many as the history of a track has.
const PACKETS_MAX: usize = 1024;

/// A packet of a recorded stream.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its numbers.
    pub meta: PacketMeta,
    /// When it came.
    pub arrived_at: Instant,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What comes out.
#[derive(Debug)]
pub enum Ordered {
    /// The next packet.
    Packet(Taken),
    /// So many packets never came.
    Gap(u64),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Reorder {
    next: Option<u64>,
    waiting: BTreeMap<u64, Taken>,
}

impl Reorder {
    /// A packet came.
    pub fn insert(&mut self, packet: Taken) {
        let seq = packet.meta.seq;
        if self.next.is_none_or(|next| seq >= next) {
            self.next.get_or_insert(seq);
            self.waiting.insert(seq, packet);
        }
    }

    /// What is due now. With `is_over` nothing is waited for any more.
    pub fn poll(&mut self, now: Instant, is_over: bool) -> Option<Ordered> {
        let (first, packet) = self.waiting.first_key_value()?;
        let (first, next) = (*first, self.next.unwrap_or(*first));
        if first > next {
            let is_late = now.saturating_duration_since(packet.arrived_at) >= WAIT_MAX;
            if !is_late && !is_over && self.waiting.len() < PACKETS_MAX {
                return None;
            }
            self.next = Some(first);
            return Some(Ordered::Gap(first - next));
        }
        self.next = Some(first + 1);
        self.waiting.pop_first().map(|(_, packet)| Ordered::Packet(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    /// What comes out, `-n` for a gap of n.
    fn drain(reorder: &mut Reorder, now: Instant, is_over: bool) -> Vec<i64> {
        let out = std::iter::from_fn(|| reorder.poll(now, is_over));
        out.map(|ordered| match ordered {
            Ordered::Packet(packet) => packet.meta.seq as i64,
            Ordered::Gap(count) => -(count as i64),
        })
        .collect()
    }

    fn insert(reorder: &mut Reorder, arrived_at: Instant, seq: u64) {
        let meta = PacketMeta { seq, ..PacketMeta::NOTHING };
        reorder.insert(Taken { meta, arrived_at, payload: Vec::new() });
    }

    #[test]
    fn what_comes_late_is_put_in_its_place_and_what_comes_twice_is_not() {
        let (mut reorder, now) = (Reorder::default(), clock::now());
        for seq in [10, 11, 13, 14, 11, 14] {
            insert(&mut reorder, now, seq);
        }
        assert_eq!(drain(&mut reorder, now, false), [10, 11]);
        assert_eq!(drain(&mut reorder, now + WAIT_MAX - MS, false), [0i64; 0]);
        insert(&mut reorder, now + WAIT_MAX - MS, 12);
        assert_eq!(drain(&mut reorder, now + WAIT_MAX, false), [12, 13, 14]);
        insert(&mut reorder, now, 9);
        insert(&mut reorder, now, 14);
        assert_eq!(drain(&mut reorder, now, true), [0i64; 0]);
    }

    #[test]
    fn what_never_comes_is_told_once() {
        let (mut reorder, now) = (Reorder::default(), clock::now());
        insert(&mut reorder, now, 1);
        insert(&mut reorder, now, 5);
        insert(&mut reorder, now + WAIT_MAX / 2, 8);
        assert_eq!(drain(&mut reorder, now + WAIT_MAX, false), [1, -3, 5]);
        assert_eq!(drain(&mut reorder, now + WAIT_MAX, true), [-2, 8]);
    }

    #[test]
    fn the_wait_is_bounded_in_packets_too() {
        let (mut reorder, now) = (Reorder::default(), clock::now());
        insert(&mut reorder, now, 0);
        for seq in 0..PACKETS_MAX as u64 {
            insert(&mut reorder, now, 2 + seq);
        }
        assert_eq!(drain(&mut reorder, now, false).len(), PACKETS_MAX + 2);
    }
}
