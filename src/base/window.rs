//! A sliding window over a number line that remembers which numbers were seen.

const WORDS: usize = 32;
/// Numbers behind the highest that are still told apart; older ones count as seen.
pub const WINDOW: u64 = (WORDS as u64) * 64;

/// Accepts each number once, in any order within [`WINDOW`].
#[derive(Clone, Debug)]
pub struct Window {
    bits: [u64; WORDS],
    highest: Option<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Self { bits: [0; WORDS], highest: None }
    }
}

impl Window {
    /// `true` the first time, `false` ever after and for numbers that fell out of the window.
    pub fn insert(&mut self, number: u64) -> bool {
        match self.highest {
            None => self.bits = [0; WORDS],
            Some(highest) if number > highest => self.clear_between(highest, number),
            Some(highest) if highest - number >= WINDOW => return false,
            Some(_) => {}
        }
        let (word, bit) = Self::place(number);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.highest = Some(self.highest.map_or(number, |highest| highest.max(number)));
        is_new
    }

    /// Numbers skipped over when the window moves have not been seen.
    fn clear_between(&mut self, highest: u64, number: u64) {
        if number - highest >= WINDOW {
            self.bits = [0; WORDS];
            return;
        }
        for skipped in highest + 1..=number {
            let (word, bit) = Self::place(skipped);
            self.bits[word] &= !bit;
        }
    }

    fn place(number: u64) -> (usize, u64) {
        ((number / 64) as usize % WORDS, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_accepted_once() {
        let mut window = Window::default();
        for number in [5, 3, 4, 5000, 4999, 5000 + WINDOW - 1] {
            assert!(window.insert(number), "{number}");
            assert!(!window.insert(number), "{number} twice");
        }
    }

    #[test]
    fn what_is_too_old_to_tell_counts_as_seen() {
        let mut window = Window::default();
        assert!(window.insert(WINDOW + 10));
        assert!(window.insert(11));
        assert!(!window.insert(10));
    }

    #[test]
    fn it_agrees_with_a_set() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(1);
        let (mut window, mut seen, mut at) = (Window::default(), std::collections::HashSet::new(), 10_000u64);
        for _ in 0..20_000 {
            at += rng.random_range(0..40);
            let number = at - rng.random_range(0..WINDOW / 2);
            assert_eq!(window.insert(number), seen.insert(number), "{number}");
        }
    }
}
