//! The fanout table: for each track, who receives it.
//!
//! Owns: compiled routes, nothing else. Built by `plan`, read by every worker.
//! Promises: a reader sees one whole table, never half of two. Load it once per batch, not per packet.
//! Forbids: rooms, sessions, sockets, clocks.

use std::sync::Arc;

use crate::base::ids::{RoomKey, SessionKey, TrackKey, WorkerId};

/// One subscription: a sending m-line of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscriber {
    /// Whose.
    pub session: SessionKey,
    /// Index of the m-line.
    pub mline: u16,
}

/// What makes a track one of a room's voices: only the loudest of them are heard, see [`super::loudest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Where it is heard.
    pub room: RoomKey,
    /// Whose it is: nobody hears himself, and that shall not cost him another voice.
    pub publisher: SessionKey,
}

/// Where a track comes from and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which track; an index with another epoch is another track.
    pub track: TrackKey,
    /// The worker of its publisher.
    pub home: WorkerId,
    /// `None`: its subscribers get all of it, as pictures and the sound of a screen.
    pub voice: Option<Voice>,
    /// Subscribers by worker, in order; the index is the worker's.
    pub by_worker: Box<[Box<[Subscriber]>]>,
    /// Those among them that get the voice however quiet it is, in order.
    pub pins: Box<[Subscriber]>,
    /// Counts changes of `pins`.
    pub pin_changes: u32,
}

impl Route {
    /// A track that nobody receives yet.
    pub fn new(track: TrackKey, home: WorkerId) -> Self {
        Self { track, home, voice: None, by_worker: Box::default(), pins: Box::default(), pin_changes: 0 }
    }

    /// Whether that subscriber gets it however quiet it is.
    pub fn is_pinned(&self, subscriber: &Subscriber) -> bool {
        self.pins.binary_search(subscriber).is_ok()
    }

    /// The subscribers that live on `worker`.
    pub fn local(&self, worker: WorkerId) -> &[Subscriber] {
        self.by_worker.get(usize::from(worker.0)).map_or(&[], |subscribers| subscribers)
    }

    /// The same, to be changed.
    pub(super) fn local_mut(&mut self, worker: WorkerId) -> &mut Box<[Subscriber]> {
        let index = usize::from(worker.0);
        if self.by_worker.len() <= index {
            let mut by_worker = std::mem::take(&mut self.by_worker).into_vec();
            by_worker.resize(index + 1, Box::default());
            self.by_worker = by_worker.into();
        }
        &mut self.by_worker[index]
    }

    /// Workers other than `worker` that want a copy.
    pub fn others(&self, worker: WorkerId) -> impl Iterator<Item = WorkerId> {
        let wants = move |index: usize, subscribers: &[Subscriber]| {
            (index != usize::from(worker.0) && !subscribers.is_empty()).then_some(WorkerId(index as u8))
        };
        self.by_worker.iter().enumerate().filter_map(move |(index, subscribers)| wants(index, subscribers))
    }
}

/// Tracks of one page: a new table costs a reference per page, a change a reference per track of its page.
const PAGE_TRACKS: usize = 64;

/// Routes of neighbouring tracks; one that did not change is shared with the table before.
#[derive(Clone, Debug)]
struct Page([Option<Arc<Route>>; PAGE_TRACKS]);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct FanoutTable {
    /// The track's index is page and place.
    pages: Vec<Arc<Page>>,
    #[cfg(test)]
    _probe: probe::Probe,
}

impl FanoutTable {
    /// The route of a track; `None` when nobody wants it or the key is stale.
    pub fn route(&self, track: TrackKey) -> Option<&Route> {
        let (page, place) = place(track);
        self.pages.get(page)?.0[place].as_deref().filter(|route| route.track == track)
    }

    /// Where a track's route lies. The page is copied first if another table has it, too.
    pub(super) fn slot_mut(&mut self, track: TrackKey) -> &mut Option<Arc<Route>> {
        let (page, place) = place(track);
        while self.pages.len() <= page {
            self.pages.push(Arc::new(Page([const { None }; PAGE_TRACKS])));
        }
        &mut Arc::make_mut(&mut self.pages[page]).0[place]
    }
}

fn place(track: TrackKey) -> (usize, usize) {
    let index = track.index as usize;
    (index / PAGE_TRACKS, index % PAGE_TRACKS)
}

/// Tells when a thread that must only read frees a table.
#[cfg(test)]
pub(super) mod probe {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Tables freed by readers.
    pub static FREED_BY_READERS: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        /// This thread stands for a worker.
        pub static IS_READER: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Clone, Debug, Default)]
    pub struct Probe;

    impl Drop for Probe {
        fn drop(&mut self) {
            FREED_BY_READERS.fetch_add(usize::from(IS_READER.get()), Ordering::Relaxed);
        }
    }
}
