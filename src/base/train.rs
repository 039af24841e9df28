//! Trains: runs of datagrams that leave in one send.
//!
//! The kernel cuts one buffer into datagrams of one size, the last may be shorter (udp(7), UDP_SEGMENT): one walk through
//! the network stack instead of many, which is most of what forwarding costs. Owns: nothing; finds the runs in a batch.
//! Promises: every entry is in exactly one train, in order.

use std::time::Duration;

use super::batch::{Path, TxEntry};

/// Datagrams in one train: the kernel's UDP_MAX_SEGMENTS of old, which newer ones raised.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes in one train: what fits an IPv6 payload length with the UDP header, rounded down.
pub const TRAIN_BYTES_MAX: usize = 65_000;

/// What trains may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainLimits {
    /// Padding of a train in percent of its other bytes; 0: none.
    pub padding_percent_max: u8,
    /// How long a busy worker waits for packets that could join; zero: never.
    pub hold_max: Duration,
}

impl Default for TrainLimits {
    /// Measured, see `tuning.md`.
    fn default() -> Self {
        Self { padding_percent_max: 5, hold_max: Duration::from_micros(250) }
    }
}

/// Upper bounds of the lengths that [`TrainNumbers`] tells apart.
pub const LENGTH_BOUNDS: [usize; 7] = [1, 2, 4, 8, 16, 32, SEGMENTS_MAX];

/// What trains were made, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainNumbers {
    /// Trains by length: up to the bound of the same place in [`LENGTH_BOUNDS`], above the one before.
    pub by_length: [u64; LENGTH_BOUNDS.len()],
    /// Packets in all of them.
    pub packets: u64,
    /// Bytes of padding in them.
    pub padding_bytes: u64,
}

impl TrainNumbers {
    /// One more of that length.
    pub fn count(&mut self, length: usize) {
        let bucket = length.max(1).next_power_of_two().trailing_zeros() as usize;
        self.by_length[bucket.min(LENGTH_BOUNDS.len() - 1)] += 1;
        self.packets += length as u64;
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.by_length.iter_mut().zip(other.by_length).for_each(|(sum, count)| *sum += count);
        self.packets += other.packets;
        self.padding_bytes += other.padding_bytes;
    }
}

/// One send: `count` datagrams of `segment_bytes` each, the last maybe shorter, lying one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where they go.
    pub path: Path,
    /// First byte in the arena.
    pub start: usize,
    /// All bytes.
    pub len: usize,
    /// Bytes of each but the last.
    pub segment_bytes: usize,
    /// How many.
    pub count: usize,
}

impl Train {
    /// A train of one.
    pub fn of(entry: &TxEntry) -> Self {
        Self { path: entry.path, start: entry.start, len: entry.len, segment_bytes: entry.len, count: 1 }
    }

    /// Whether `entry` may be the next datagram.
    fn takes(&self, entry: &TxEntry) -> bool {
        // A shorter one closes the train: nothing may follow it.
        let is_open = self.len == self.segment_bytes * self.count;
        is_open
            && entry.path == self.path
            && entry.start == self.start + self.len
            && (1..=self.segment_bytes).contains(&entry.len)
            && self.count < SEGMENTS_MAX
            && self.len + entry.len <= TRAIN_BYTES_MAX
    }

    /// Its datagrams one by one.
    pub fn split(self) -> impl Iterator<Item = TxEntry> {
        (0..self.count).map(move |index| {
            let offset = index * self.segment_bytes;
            let len = self.segment_bytes.min(self.len - offset);
            TxEntry { path: self.path, start: self.start + offset, len }
        })
    }
}

/// The trains of a batch, in order; lone datagrams are trains of one.
pub fn trains(entries: &[TxEntry]) -> impl Iterator<Item = Train> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let (first, more) = rest.split_first()?;
        let mut train = Train::of(first);
        rest = more;
        while let Some((next, more)) = rest.split_first().filter(|(next, _)| train.takes(next)) {
            train.len += next.len;
            train.count += 1;
            rest = more;
        }
        Some(train)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::batch::TxBatch;

    fn path(port: u16) -> Path {
        Path { remote: ([192, 0, 2, 1], port).into(), local: [192, 0, 2, 2].into() }
    }

    fn batch(datagrams: &[(u16, usize)]) -> TxBatch {
        let mut batch = TxBatch::with_capacity(256);
        for (port, len) in datagrams {
            batch.reserve().expect("room");
            batch.commit(path(*port), *len);
        }
        batch
    }

    fn counts(datagrams: &[(u16, usize)]) -> Vec<usize> {
        trains(batch(datagrams).entries()).map(|train| train.count).collect()
    }

    #[test]
    fn equal_neighbours_to_one_place_are_a_train() {
        assert_eq!(counts(&[(1, 100), (1, 100), (1, 100), (2, 100), (1, 100)]), [3, 1, 1]);
    }

    #[test]
    fn lengths_are_counted_below_their_bounds() {
        let mut numbers = TrainNumbers::default();
        (1..=SEGMENTS_MAX).for_each(|length| numbers.count(length));
        let below = |bound: usize| (1..=SEGMENTS_MAX).filter(|length| *length <= bound).count() as u64;
        let mut sum = 0;
        for (count, bound) in numbers.by_length.iter().zip(LENGTH_BOUNDS) {
            sum += count;
            assert_eq!(sum, below(bound), "{bound}");
        }
        assert_eq!(numbers.packets, (1..=64u64).sum::<u64>());
    }

    #[test]
    fn a_shorter_one_is_the_last() {
        assert_eq!(counts(&[(1, 100), (1, 100), (1, 60), (1, 60), (1, 100)]), [3, 1, 1]);
        assert_eq!(counts(&[(1, 60), (1, 100), (1, 100)]), [1, 2], "a longer one begins another");
    }

    #[test]
    fn a_train_has_its_limits() {
        assert_eq!(counts(&[(1, 10); 130]), [64, 64, 2]);
        let long = counts(&[(1, 1500); 100]);
        assert!(long.iter().all(|count| count * 1500 <= TRAIN_BYTES_MAX), "{long:?}");
        assert_eq!(long.iter().sum::<usize>(), 100);
    }

    #[test]
    fn splitting_gives_back_what_was_joined() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(5);
        for _ in 0..200 {
            let datagrams: Vec<_> = (0..100).map(|_| (rng.random_range(1..3), rng.random_range(1..4) * 50)).collect();
            let batch = batch(&datagrams);
            let split: Vec<_> = trains(batch.entries()).flat_map(Train::split).collect();
            let key = |entry: &TxEntry| (entry.path, entry.start, entry.len);
            assert!(split.iter().map(key).eq(batch.entries().iter().map(key)));
        }
    }
}
