//! Deadlines of a worker's sessions.
//!
//! Owns: a heap of (when, who). A session that moved its deadline forward leaves an entry behind, which its owner
//! recognises by comparing; so each session has few entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::base::ids::SessionKey;

/// See the module.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Instant, SessionKey)>>);

impl Timers {
    /// Another deadline.
    pub fn push(&mut self, at: Instant, session: SessionKey) {
        self.0.push(Reverse((at, session)));
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// A deadline that passed.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, SessionKey)> {
        let is_due = self.next().is_some_and(|at| at <= now);
        if is_due { self.0.pop().map(|Reverse(due)| due) } else { None }
    }
}
