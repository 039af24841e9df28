//! The fanout table: for each track, who receives it.
//!
//! Owns: compiled routes, nothing else. Built by `plan`, read by every worker.
//! Promises: a reader sees one whole table, never half of two. Load it once per batch, not per packet.
//! Forbids: rooms, sessions, sockets, clocks.

use std::sync::Arc;

use crate::base::ids::{SessionKey, TrackKey, WorkerId};

/// One subscription: a sending m-line of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscriber {
    /// Whose.
    pub session: SessionKey,
    /// Index of the m-line.
    pub mline: u16,
}

/// Where a track comes from and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which track; an index with another epoch is another track.
    pub track: TrackKey,
    /// The worker of its publisher.
    pub home: WorkerId,
    /// Subscribers by worker; the index is the worker's.
    pub by_worker: Box<[Box<[Subscriber]>]>,
}

impl Route {
    /// The subscribers that live on `worker`.
    pub fn local(&self, worker: WorkerId) -> &[Subscriber] {
        self.by_worker.get(usize::from(worker.0)).map_or(&[], |subscribers| subscribers)
    }

    /// Workers other than `worker` that want a copy.
    pub fn others(&self, worker: WorkerId) -> impl Iterator<Item = WorkerId> {
        let wants = move |index: usize, subscribers: &[Subscriber]| {
            (index != usize::from(worker.0) && !subscribers.is_empty()).then_some(WorkerId(index as u8))
        };
        self.by_worker.iter().enumerate().filter_map(move |(index, subscribers)| wants(index, subscribers))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct FanoutTable {
    /// Index is the track's; routes that did not change are shared with the table before.
    routes: Vec<Option<Arc<Route>>>,
}

impl FanoutTable {
    /// A table of these routes, placed by their tracks' index.
    pub fn new(routes: Vec<Option<Arc<Route>>>) -> Self {
        Self { routes }
    }

    /// The route of a track; `None` when nobody wants it or the key is stale.
    pub fn route(&self, track: TrackKey) -> Option<&Route> {
        self.routes.get(track.index as usize)?.as_deref().filter(|route| route.track == track)
    }
}
