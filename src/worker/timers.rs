//! Deadlines of a worker's sessions.
//!
//! Owns: at most one deadline per session, in a heap that knows each session's place. Promises: memory grows with the
//! sessions and not with how often a deadline moves; a deadline that stays costs one comparison.

use std::time::Instant;

use crate::base::ids::SessionKey;

/// A session without a deadline.
const NOWHERE: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub struct Timers {
    /// A binary heap: no entry is later than those at twice its place plus one and two.
    heap: Vec<(Instant, SessionKey)>,
    /// Place in the heap by the session's index.
    places: Vec<u32>,
}

impl Timers {
    /// The session's deadline, instead of the one before. A newer tenant of the index takes it over.
    pub fn set(&mut self, session: SessionKey, at: Instant) {
        let index = session.index as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        let place = match self.places[index] {
            NOWHERE => {
                self.heap.push((at, session));
                self.heap.len() - 1
            }
            place => {
                let entry = &mut self.heap[place as usize];
                if *entry == (at, session) {
                    return;
                }
                *entry = (at, session);
                place as usize
            }
        };
        self.settle(place);
    }

    /// The session has no deadline any more.
    pub fn clear(&mut self, session: SessionKey) {
        let place = self.places.get(session.index as usize).copied().unwrap_or(NOWHERE) as usize;
        if self.heap.get(place).is_some_and(|(_, of)| *of == session) {
            self.remove(place);
        }
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Whose deadline passed; it has none then.
    pub fn pop_due(&mut self, now: Instant) -> Option<SessionKey> {
        let (_, session) = *self.heap.first().filter(|(at, _)| *at <= now)?;
        self.remove(0);
        Some(session)
    }

    fn remove(&mut self, place: usize) {
        let (_, session) = self.heap.swap_remove(place);
        self.places[session.index as usize] = NOWHERE;
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    /// Moves an entry up or down to where it belongs, and notes where everything moved lies.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.heap[place] < self.heap[(place - 1) / 2] {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
        loop {
            let below = 2 * place + 1..self.heap.len().min(2 * place + 3);
            match below.min_by_key(|at| self.heap[*at]) {
                Some(least) if self.heap[least] < self.heap[place] => {
                    self.swap(place, least);
                    place = least;
                }
                _ => break,
            }
        }
        self.places[self.heap[place].1.index as usize] = place as u32;
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.places[self.heap[one].1.index as usize] = one as u32;
        self.places[self.heap[other].1.index as usize] = other as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::runtime::clock;

    proptest! {
        #[test]
        fn it_agrees_with_a_sorted_list(
            steps in prop::collection::vec((0u32..12, 0u32..2, prop::option::weighted(0.8, 0u64..100)), 1..300),
        ) {
            let start = clock::now();
            let (mut timers, mut model) = (Timers::default(), BTreeMap::<u32, (Instant, SessionKey)>::new());
            for (step, (index, epoch, ms)) in steps.into_iter().enumerate() {
                let session = SessionKey { index, epoch };
                match ms {
                    Some(ms) => {
                        let at = start + Duration::from_millis(step as u64 + ms);
                        timers.set(session, at);
                        model.insert(index, (at, session));
                    }
                    None => {
                        timers.clear(session);
                        model.retain(|_, (_, of)| *of != session);
                    }
                }
                let now = start + Duration::from_millis(step as u64);
                loop {
                    let first = model.values().min().copied();
                    prop_assert_eq!(timers.next(), first.map(|(at, _)| at));
                    let due = first.filter(|(at, _)| *at <= now).map(|(_, session)| session);
                    prop_assert_eq!(timers.pop_due(now), due);
                    let Some(due) = due else { break };
                    model.remove(&due.index);
                }
            }
        }
    }

    #[test]
    fn a_deadline_that_moves_leaves_nothing_behind() {
        let (start, mut timers) = (clock::now(), Timers::default());
        for ms in (0..1000).rev().chain(0..1000) {
            timers.set(SessionKey { index: 3, epoch: 0 }, start + Duration::from_millis(ms));
        }
        assert_eq!((timers.heap.len(), timers.next()), (1, Some(start + Duration::from_millis(999))));
    }
}
