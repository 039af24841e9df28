//! Closes the gaps that absorbed packets leave in a track's numbering.
//!
//! A publisher's padding-only packets (RFC 3550 §5.1, P bit and no payload) probe its own uplink; forwarding them would
//! waste everybody's downlink, and leaving holes would make every subscriber ask for them. Owns: the last few gaps.
//! Promises: injective; a number once given to a packet is never given to another, and order is kept.

/// Gaps remembered. Bursts of padding are consecutive and make one gap; older packets than the oldest gap are refused.
const GAPS_MAX: usize = 32;

/// From `after` on, numbers are lowered by `by`.
#[derive(Clone, Copy, Debug)]
struct Gap {
    after: u64,
    by: u64,
}

/// See the module.
#[derive(Debug)]
pub struct GapCloser {
    /// Newest last; `by` grows.
    gaps: Vec<Gap>,
    highest: Option<u64>,
}

impl Default for GapCloser {
    fn default() -> Self {
        Self { gaps: Vec::with_capacity(GAPS_MAX), highest: None }
    }
}

impl GapCloser {
    /// The packet `seq` is not forwarded. Only the newest packet can be closed over: once a later one went out under
    /// its number, the hole stays a hole (to subscribers it is a loss that nobody fills).
    pub fn absorb(&mut self, seq: u64) {
        if self.highest.is_some_and(|highest| seq <= highest) {
            return;
        }
        // Packets still missing between `highest` and `seq` keep their places: only `seq` itself is cut out.
        self.highest = Some(seq);
        let by = self.gaps.last().map_or(0, |gap| gap.by) + 1;
        match self.gaps.last_mut() {
            Some(last) if last.after + 1 == seq => *last = Gap { after: seq, by },
            _ => {
                if self.gaps.len() == GAPS_MAX {
                    self.gaps.remove(0);
                }
                self.gaps.push(Gap { after: seq, by });
            }
        }
    }

    /// The number `seq` goes by, or `None` when it is older than what is remembered.
    pub fn renumber(&mut self, seq: u64) -> Option<u64> {
        self.highest = Some(self.highest.map_or(seq, |highest| highest.max(seq)));
        let newest_by = self.gaps.last().map_or(0, |gap| gap.by);
        let by = match self.gaps.iter().rposition(|gap| gap.after < seq) {
            Some(at) => self.gaps[at].by,
            // Before the oldest gap that is remembered: only sure when no gap was forgotten.
            None if self.gaps.len() < GAPS_MAX || newest_by == 0 => 0,
            None => return None,
        };
        seq.checked_sub(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_in_a_row_is_closed_over() {
        let mut closer = GapCloser::default();
        assert_eq!(closer.renumber(100), Some(100));
        closer.absorb(101);
        closer.absorb(102);
        assert_eq!(closer.renumber(103), Some(101));
        closer.absorb(104);
        assert_eq!(closer.renumber(105), Some(102));
    }

    #[test]
    fn a_late_packet_keeps_its_place_before_the_gap() {
        let mut closer = GapCloser::default();
        assert_eq!(closer.renumber(10), Some(10));
        closer.absorb(12);
        assert_eq!(closer.renumber(13), Some(12));
        assert_eq!(closer.renumber(11), Some(11));
    }

    #[test]
    fn late_padding_leaves_its_hole() {
        let mut closer = GapCloser::default();
        assert_eq!(closer.renumber(10), Some(10));
        assert_eq!(closer.renumber(12), Some(12));
        closer.absorb(11);
        assert_eq!(closer.renumber(13), Some(13));
    }

    #[test]
    fn no_number_is_ever_given_twice() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut closer = GapCloser::default();
            let mut given = std::collections::HashMap::new();
            let mut order: Vec<u64> = (1000..1600).collect();
            for i in 0..order.len() - 8 {
                let j = i + rng.random_range(0..8);
                order.swap(i, j);
            }
            for seq in order {
                if rng.random_bool(0.3) {
                    closer.absorb(seq);
                } else if let Some(number) = closer.renumber(seq)
                    && let Some(other) = given.insert(number, seq)
                {
                    assert_eq!(other, seq, "seed {seed}: {number} given to {other} and {seq}");
                }
            }
        }
    }
}
