//! Where media met the end of the path: beyond it little is believed.
//!
//! A burst finds the others' part of a queue besides its own: beside somebody who takes 1.5 of 2.5 Mbit/s, 2 Mbit/s arrive as
//! 1.4 where 1.0 are free. So a burst that arrives slower than it was sent says nothing about more than is known, and one
//! that arrives as it was sent may have been lucky: it is repeated before it is believed. First one that goes far is tried,
//! which others leave no doubt about, then one that goes a little further.
//!
//! Owns: the rate that is known, and the bursts that were lucky so far. Promises: constant memory. Forbids: the schedule.

/// Arriving faster than this share of the rate sent, a burst was not held up.
const CLEAN: f64 = 0.93;

/// The same of one that goes less than [`FAR`] beyond: what others add is little then.
const CLEAN_NEAR: f64 = 0.97;
const FAR: f64 = 1.6;

/// How far the second one goes where the first was held up.
const NEAR: f64 = 1.3;

/// Bursts in a row that have to arrive as they were sent.
const BURSTS: u32 = 2;

/// What is left of a rate that media was held up at may have been the others' by so much.
const ROOM: f64 = 1.05;

/// The wall.
#[derive(Debug, Default)]
pub struct Wall {
    known_bps: Option<f64>,
    clean: u32,
}

/// What to make of a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// So much the path carries.
    Believed(f64),
    /// It may have been lucky: send another one like it at once.
    Again,
    /// Send one at this rate at once.
    Nearer(f64),
    /// It said nothing.
    Nothing,
}

impl Wall {
    /// Media sent so much that it was held up; this is what the estimate became.
    pub fn meet(&mut self, bps: f64) {
        *self = Self { known_bps: Some(bps), clean: 0 };
    }

    /// Media got through at this rate without being held up.
    pub fn pass(&mut self, bps: f64) {
        self.known_bps = self.known_bps.map(|known| known.max(bps));
    }

    /// A burst that left at `sent_bps` arrived at `found_bps`.
    pub fn judge(&mut self, sent_bps: f64, found_bps: f64) -> Verdict {
        let Some(known) = self.known_bps else { return Verdict::Believed(found_bps) };
        if found_bps <= known * ROOM && sent_bps <= known * NEAR {
            self.clean = 0;
            return Verdict::Believed(found_bps);
        }
        let is_far = sent_bps >= known * FAR;
        if found_bps >= sent_bps * if is_far { CLEAN } else { CLEAN_NEAR } {
            self.clean += 1;
            if self.clean < BURSTS {
                return Verdict::Again;
            }
            *self = Self { known_bps: Some(found_bps), clean: 0 };
            return Verdict::Believed(found_bps);
        }
        self.clean = 0;
        if is_far { Verdict::Nearer(known * NEAR) } else { Verdict::Nothing }
    }

    /// What may be believed of a burst that was held up.
    pub fn bps(&self) -> f64 {
        self.known_bps.unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_media_never_met_the_end_each_burst_is_believed() {
        assert_eq!(Wall::default().judge(3e6, 1.4e6), Verdict::Believed(1.4e6));
    }

    #[test]
    fn beside_others_a_burst_shows_too_much_and_is_not_believed() {
        let mut wall = Wall::default();
        wall.meet(1e6);
        for _ in 0..10 {
            assert_eq!(wall.judge(2e6, 1.43e6), Verdict::Nearer(1.3e6));
            assert_eq!(wall.judge(1.3e6, 1.16e6), Verdict::Nothing);
        }
        // Luck does not last.
        assert_eq!(wall.judge(2e6, 2e6), Verdict::Again);
        assert_eq!(wall.judge(2e6, 1.4e6), Verdict::Nearer(1.3e6));
        assert_eq!(wall.bps(), 1e6);
    }

    #[test]
    fn what_is_free_again_is_believed_at_the_second_burst() {
        let mut wall = Wall::default();
        wall.meet(0.5e6);
        assert_eq!(wall.judge(1e6, 0.99e6), Verdict::Again);
        assert_eq!(wall.judge(1e6, 1e6), Verdict::Believed(1e6));
        assert_eq!(wall.judge(2e6, 1.3e6), Verdict::Nearer(1.3e6));
        assert_eq!(wall.judge(1.3e6, 1.3e6), Verdict::Again);
        assert_eq!(wall.judge(1.3e6, 1.3e6), Verdict::Believed(1.3e6));
    }

    #[test]
    fn what_media_gets_through_is_known() {
        let mut wall = Wall::default();
        wall.meet(0.5e6);
        wall.pass(0.8e6);
        wall.pass(0.4e6);
        assert_eq!(wall.judge(0.9e6, 0.8e6), Verdict::Believed(0.8e6));
        assert_eq!(wall.bps(), 0.8e6);
    }
}
