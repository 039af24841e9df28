//! The single writer of the fanout table.
//!
//! Owns: the table as it should be, and those that readers may still hold.
//! Promises: publishes one whole table, at most every [`PUBLISH_INTERVAL`], the first change after a quiet time at once;
//! a change costs what its route and page cost, everything else is shared. Retired tables are freed here, never on a
//! worker; as each worker holds one at most, so many are kept at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::table::{FanoutTable, Route, Subscriber, Voice};
use crate::base::ids::{TrackKey, WorkerId};

/// A thousand joins within a second make 200 tables, not a thousand; and a subscriber does not notice 5 ms.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(5);

/// The table as workers read it.
pub type SharedTable = Arc<ArcSwap<FanoutTable>>;

/// See the module.
#[derive(Debug)]
pub struct Plan {
    /// As it should be. What is changed is copied first where the published table has it, too.
    table: FanoutTable,
    is_dirty: bool,
    /// Tables published so far.
    published: u64,
    published_at: Option<Instant>,
    shared: SharedTable,
    /// Replaced tables that a worker may still read. As many as there are workers in the middle of a turn.
    retired: Vec<Arc<FanoutTable>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            table: FanoutTable::default(),
            is_dirty: false,
            published: 0,
            published_at: None,
            shared: Arc::new(ArcSwap::from_pointee(FanoutTable::default())),
            retired: Vec::new(),
        }
    }
}

impl Plan {
    /// For readers.
    pub fn shared(&self) -> SharedTable {
        Arc::clone(&self.shared)
    }

    /// The track comes from that worker, and is a voice or none. A route that is there keeps its subscribers.
    pub fn open(&mut self, track: TrackKey, home: WorkerId, voice: Option<Voice>) {
        match self.table.route(track) {
            None => self.set(Route { voice, ..Route::new(track, home) }),
            Some(route) if (route.home, route.voice) == (home, voice) => {}
            Some(_) => self.change(track, |route| (route.home, route.voice) = (home, voice)),
        }
    }

    /// The subscriber, who lives on that worker, gets an open track.
    pub fn subscribe(&mut self, track: TrackKey, worker: WorkerId, subscriber: Subscriber) {
        let Some(local) = self.table.route(track).map(|route| route.local(worker)) else { return };
        let Err(at) = local.binary_search(&subscriber) else { return };
        self.change(track, |route| {
            let local = route.local_mut(worker);
            *local = [&local[..at], &[subscriber], &local[at..]].concat().into();
        });
    }

    /// The subscriber does not get it any more.
    pub fn unsubscribe(&mut self, track: TrackKey, worker: WorkerId, subscriber: Subscriber) {
        let Some(local) = self.table.route(track).map(|route| route.local(worker)) else { return };
        let Ok(at) = local.binary_search(&subscriber) else { return };
        self.change(track, |route| {
            let local = route.local_mut(worker);
            *local = [&local[..at], &local[at + 1..]].concat().into();
        });
        self.pin(track, subscriber, false);
    }

    /// The subscriber gets the voice however quiet it is, or not so any more.
    pub fn pin(&mut self, track: TrackKey, subscriber: Subscriber, is_pinned: bool) {
        let Some(place) = self.table.route(track).map(|route| route.pins.binary_search(&subscriber)) else { return };
        let (at, rest) = match (place, is_pinned) {
            (Ok(at), false) => (at, at + 1),
            (Err(at), true) => (at, at),
            _ => return,
        };
        self.change(track, |route| {
            let new = if is_pinned { &[subscriber][..] } else { &[] };
            route.pins = [&route.pins[..at], new, &route.pins[rest..]].concat().into();
            route.pin_changes = route.pin_changes.wrapping_add(1);
        });
    }

    /// Replaces a track's route.
    pub fn set(&mut self, route: Route) {
        let track = route.track;
        if self.table.route(track) != Some(&route) {
            *self.table.slot_mut(track) = Some(Arc::new(route));
            self.is_dirty = true;
        }
    }

    /// Nobody gets that track any more.
    pub fn remove(&mut self, track: TrackKey) {
        if self.table.route(track).is_some() {
            *self.table.slot_mut(track) = None;
            self.is_dirty = true;
        }
    }

    fn change(&mut self, track: TrackKey, change: impl FnOnce(&mut Route)) {
        if let Some(route) = self.table.slot_mut(track) {
            change(Arc::make_mut(route));
            self.is_dirty = true;
        }
    }

    /// The number of the table that will have every change made so far.
    pub fn version(&self) -> u64 {
        self.published + u64::from(self.is_dirty)
    }

    /// Publishes what changed if it is time. Returns the number of the table that workers read now.
    pub fn poll(&mut self, now: Instant) -> u64 {
        if self.is_dirty && self.published_at.is_none_or(|at| now >= at + PUBLISH_INTERVAL) {
            self.publish();
            self.published_at = Some(now);
        }
        self.published
    }

    /// When changes that wait are to be published.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.published_at.filter(|_| self.is_dirty).map(|at| at + PUBLISH_INTERVAL)
    }

    /// Publishes what changed, if anything did, whatever time it is.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        self.published += 1;
        // From here on nobody can take the old one anew, and who reads it now has a reference of its own.
        let old = self.shared.swap(Arc::new(self.table.clone()));
        self.retired.push(old);
        self.free_retired();
    }

    /// Frees the tables that no worker reads any more; to be called now and then when nothing is published.
    pub fn free_retired(&mut self) {
        self.retired.retain(|table| Arc::strong_count(table) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::table::probe;
    use super::*;
    use crate::base::ids::{RoomKey, SessionKey};
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    fn track(index: u32) -> TrackKey {
        TrackKey { index, epoch: 0 }
    }

    fn subscriber(index: u32) -> Subscriber {
        Subscriber { session: SessionKey { index, epoch: 0 }, mline: 2 }
    }

    fn route(index: u32, epoch: u32) -> Route {
        let by_worker = Box::new([Box::from([]), Box::from([subscriber(1)])]);
        Route { by_worker, ..Route::new(TrackKey { index, epoch }, WorkerId(0)) }
    }

    /// The table that workers read now.
    fn read(plan: &Plan) -> Arc<FanoutTable> {
        plan.shared().load_full()
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut plan = Plan::default();
        plan.set(route(3, 7));
        plan.publish();
        let table = read(&plan);
        assert!(table.route(TrackKey { index: 3, epoch: 7 }).is_some());
        assert!(table.route(TrackKey { index: 3, epoch: 6 }).is_none());
        assert!(table.route(track(9)).is_none() && table.route(track(1000)).is_none());
    }

    #[test]
    fn routes_that_did_not_change_are_shared() {
        let mut plan = Plan::default();
        // In pages of their own, and two in one page.
        [0, 1, 500].into_iter().for_each(|index| plan.set(route(index, 0)));
        plan.publish();
        let before = read(&plan);
        plan.set(route(0, 0));
        plan.unsubscribe(track(1), WorkerId(1), subscriber(7));
        plan.publish();
        assert!(Arc::ptr_eq(&before, &read(&plan)), "nothing changed, nothing published");
        plan.subscribe(track(1), WorkerId(1), subscriber(7));
        plan.publish();
        let after = read(&plan);
        let is_shared = |index| std::ptr::eq(before.route(track(index)).unwrap(), after.route(track(index)).unwrap());
        assert_eq!([0, 1, 500].map(is_shared), [true, false, true]);
        assert_eq!(before.route(track(1)).unwrap().local(WorkerId(1)), [subscriber(1)], "who reads it sees it whole");
    }

    #[test]
    fn subscribers_come_and_go_in_order() {
        let mut plan = Plan::default();
        plan.subscribe(track(0), WorkerId(0), subscriber(1));
        assert_eq!(plan.version(), 0, "a track that nobody opened has no route");
        plan.open(track(0), WorkerId(2), None);
        [5, 3, 9, 3].into_iter().for_each(|index| plan.subscribe(track(0), WorkerId(1), subscriber(index)));
        plan.publish();
        assert_eq!(read(&plan).route(track(0)).unwrap().local(WorkerId(1)), [3, 5, 9].map(subscriber));
        plan.unsubscribe(track(0), WorkerId(1), subscriber(5));
        plan.open(track(0), WorkerId(2), None);
        plan.publish();
        let table = read(&plan);
        let route = table.route(track(0)).unwrap();
        assert_eq!((route.local(WorkerId(1)), route.home), (&[3, 9].map(subscriber)[..], WorkerId(2)));
        plan.remove(track(0));
        plan.publish();
        assert!(read(&plan).route(track(0)).is_none());
    }

    #[test]
    fn a_pin_lasts_as_long_as_the_subscription() {
        let mut plan = Plan::default();
        let voice = Voice { room: RoomKey { index: 0, epoch: 0 }, publisher: SessionKey { index: 9, epoch: 0 } };
        plan.open(track(0), WorkerId(0), Some(voice));
        [5, 3, 9].into_iter().for_each(|index| plan.subscribe(track(0), WorkerId(1), subscriber(index)));
        [9, 3, 3].into_iter().for_each(|index| plan.pin(track(0), subscriber(index), true));
        plan.publish();
        let pinned = |plan: &Plan| read(plan).route(track(0)).map(|route| route.pins.to_vec()).unwrap();
        assert_eq!(pinned(&plan), [3, 9].map(subscriber));
        plan.pin(track(0), subscriber(9), false);
        plan.pin(track(0), subscriber(5), false);
        plan.unsubscribe(track(0), WorkerId(1), subscriber(3));
        plan.publish();
        assert!(pinned(&plan).is_empty());
        assert_eq!(read(&plan).route(track(0)).unwrap().pin_changes, 4);
        plan.open(track(0), WorkerId(0), None);
        plan.publish();
        assert_eq!(read(&plan).route(track(0)).unwrap().voice, None, "it turned out to be a screen's sound");
    }

    #[test]
    fn only_workers_with_subscribers_get_a_copy() {
        let route = route(0, 0);
        assert_eq!(route.others(WorkerId(0)).collect::<Vec<_>>(), [WorkerId(1)]);
        assert_eq!(route.others(WorkerId(1)).count(), 0);
        assert_eq!(route.local(WorkerId(1)).len(), 1);
        assert_eq!(route.local(WorkerId(9)).len(), 0);
    }

    #[test]
    fn changes_within_the_interval_make_one_table() {
        let (mut plan, start) = (Plan::default(), clock::now());
        plan.set(route(0, 0));
        assert_eq!((plan.version(), plan.poll(start)), (1, 1), "the first change goes out at once");
        for index in 1..5 {
            plan.set(route(index, 0));
            assert_eq!((plan.poll(start + MS * index), plan.version()), (1, 2));
        }
        assert_eq!(plan.next_timeout(), Some(start + PUBLISH_INTERVAL));
        assert!(read(&plan).route(track(1)).is_none());
        assert_eq!(plan.poll(start + PUBLISH_INTERVAL), 2);
        assert!((0..5).all(|index| read(&plan).route(track(index)).is_some()));
        assert_eq!((plan.next_timeout(), plan.poll(start + MS * 100)), (None, 2));
        plan.set(route(9, 0));
        assert_eq!(plan.poll(start + MS * 100), 3, "quiet since");
    }

    #[test]
    fn retired_tables_go_when_their_reader_has_gone() {
        let mut plan = Plan::default();
        let shared = plan.shared();
        plan.set(route(0, 0));
        plan.publish();
        let reading = shared.load();
        for index in 1..100 {
            plan.set(route(index, 0));
            plan.publish();
        }
        assert_eq!(plan.retired.len(), 1, "the one that is read");
        assert!(reading.route(track(0)).is_some() && reading.route(track(1)).is_none());
        drop(reading);
        plan.free_retired();
        assert!(plan.retired.is_empty());
    }

    #[test]
    fn no_reader_ever_frees_a_table() {
        let mut plan = Plan::default();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (shared, is_done) = (plan.shared(), &is_done);
                scope.spawn(move || {
                    probe::IS_READER.set(true);
                    while !is_done.load(Ordering::Relaxed) {
                        let table = shared.load();
                        assert_eq!(table.route(track(0)).is_some(), table.route(track(500)).is_some());
                    }
                });
            }
            for _ in 0..20_000 {
                [0, 500].into_iter().for_each(|index| plan.set(route(index, 0)));
                plan.publish();
                [0, 500].into_iter().for_each(|index| plan.remove(track(index)));
                plan.publish();
                assert!(plan.retired.len() <= 3, "one for each reader");
            }
            is_done.store(true, Ordering::Relaxed);
        });
        assert_eq!(probe::FREED_BY_READERS.load(Ordering::Relaxed), 0);
    }
}
