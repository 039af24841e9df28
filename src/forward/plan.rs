//! The single writer of the fanout table.
//!
//! Owns: the routes as they should be, and the tables that readers may still hold.
//! Promises: publishes one whole table; retired tables are freed here, never on a worker.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::table::{FanoutTable, Route};
use crate::base::ids::TrackKey;

/// The table as workers read it.
pub type SharedTable = Arc<ArcSwap<FanoutTable>>;

/// See the module.
#[derive(Debug)]
pub struct Plan {
    routes: Vec<Option<Arc<Route>>>,
    is_dirty: bool,
    shared: SharedTable,
    /// Replaced tables that a worker may still read. As many as there are workers in the middle of a turn.
    retired: Vec<Arc<FanoutTable>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            is_dirty: false,
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

    /// Replaces a track's route.
    pub fn set(&mut self, route: Route) {
        let index = route.track.index as usize;
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        if self.routes[index].as_deref() != Some(&route) {
            self.routes[index] = Some(Arc::new(route));
            self.is_dirty = true;
        }
    }

    /// Nobody gets that track any more.
    pub fn remove(&mut self, track: TrackKey) {
        if let Some(slot) = self.routes.get_mut(track.index as usize)
            && slot.as_deref().is_some_and(|route| route.track == track)
        {
            *slot = None;
            self.is_dirty = true;
        }
    }

    /// Publishes what changed, if anything did.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        let old = self.shared.swap(Arc::new(FanoutTable::new(self.routes.clone())));
        self.retired.push(old);
        self.retired.retain(|table| Arc::strong_count(table) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{SessionKey, WorkerId};
    use crate::forward::table::Subscriber;

    fn route(index: u32, epoch: u32) -> Route {
        let subscriber = Subscriber { session: SessionKey { index: 1, epoch: 0 }, mline: 2 };
        Route {
            track: TrackKey { index, epoch },
            home: WorkerId(0),
            by_worker: Box::new([Box::new([]), Box::new([subscriber])]),
        }
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut plan = Plan::default();
        plan.set(route(3, 7));
        plan.publish();
        let table = plan.shared().load_full();
        assert!(table.route(TrackKey { index: 3, epoch: 7 }).is_some());
        assert!(table.route(TrackKey { index: 3, epoch: 6 }).is_none());
        assert!(table.route(TrackKey { index: 9, epoch: 0 }).is_none());
    }

    #[test]
    fn routes_that_did_not_change_are_shared() {
        let mut plan = Plan::default();
        plan.set(route(0, 0));
        plan.publish();
        let before = plan.shared().load_full();
        plan.set(route(0, 0));
        plan.publish();
        assert!(Arc::ptr_eq(&before, &plan.shared().load_full()), "nothing changed, nothing published");
        plan.set(route(1, 0));
        plan.publish();
        let after = plan.shared().load_full();
        let key = TrackKey { index: 0, epoch: 0 };
        assert!(std::ptr::eq(before.route(key).expect("routed"), after.route(key).expect("routed")));
    }

    #[test]
    fn only_workers_with_subscribers_get_a_copy() {
        let route = route(0, 0);
        assert_eq!(route.others(WorkerId(0)).collect::<Vec<_>>(), [WorkerId(1)]);
        assert_eq!(route.others(WorkerId(1)).count(), 0);
        assert_eq!(route.local(WorkerId(1)).len(), 1);
        assert_eq!(route.local(WorkerId(9)).len(), 0);
    }
}
