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

/// Why a number is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It was seen.
    Seen,
    /// It fell out of the window, so nobody knows.
    TooOld,
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
            Some(highest) if number <= highest => {
                if self.check(number).is_err() {
                    return false;
                }
            }
            highest => {
                if let Some(highest) = highest
                    && number != highest + 1
                {
                    self.forget_between(highest, number);
                }
                self.highest = Some(number);
            }
        }
        let (word, bit) = Self::place(number);
        self.bits[word] |= bit;
        true
    }

    /// What [`insert`](Self::insert) would say, and why. Changes nothing.
    pub fn check(&self, number: u64) -> Result<(), Stale> {
        let Some(highest) = self.highest.filter(|highest| number <= *highest) else { return Ok(()) };
        if highest - number >= WINDOW {
            return Err(Stale::TooOld);
        }
        let (word, bit) = Self::place(number);
        if self.bits[word] & bit != 0 { Err(Stale::Seen) } else { Ok(()) }
    }

    /// The highest number seen.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Numbers skipped over when the window moves have not been seen.
    fn forget_between(&mut self, highest: u64, number: u64) {
        if number - highest >= WINDOW {
            self.bits = [0; WORDS];
            return;
        }
        for skipped in highest + 1..number {
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
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn each_number_is_accepted_once() {
        let mut window = Window::default();
        for number in [5, 3, 4, 5000, 4999, 5000 + WINDOW - 1] {
            assert!(window.insert(number), "{number}");
            assert!(!window.insert(number), "{number} twice");
        }
    }

    #[test]
    fn the_window_is_exactly_as_wide_as_promised() {
        let mut window = Window::default();
        assert!(window.insert(10_000));
        assert_eq!(window.check(10_000), Err(Stale::Seen));
        assert_eq!(window.check(10_000 - WINDOW), Err(Stale::TooOld));
        assert!(!window.insert(10_000 - WINDOW), "what is too old to tell counts as seen");
        assert_eq!(window.check(10_000 - WINDOW + 1), Ok(()));
        assert!(window.insert(10_000 - WINDOW + 1));
        assert_eq!(window.check(10_000 - WINDOW + 1), Err(Stale::Seen));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec((0u64..6000, any::<bool>()), 1..400)) {
            let mut window = Window::default();
            let (mut accepted, mut highest) = (HashSet::new(), 1u64 << 20);
            for (distance, ahead) in steps {
                let number = if ahead { highest + distance / 8 } else { highest - distance };
                let is_known = accepted.contains(&number) || (!accepted.is_empty() && number + WINDOW <= highest);
                prop_assert_eq!(window.check(number).is_ok(), !is_known);
                prop_assert_eq!(window.insert(number), !is_known);
                if !is_known {
                    accepted.insert(number);
                    highest = window.highest().unwrap();
                }
            }
        }
    }
}
