//! Where peers go when each worker has a port of its own: a room lives on one worker, and on more when that is not
//! enough.
//!
//! Owns: what each worker carries. Promises: small rooms stay together; who is placed never moves, so nothing swings.
//!
//! A worker's *load* is the share of its capacity that is in use: packets that it forwards per second, by its reports, or
//! what its peers and subscriptions let expect, whichever is more (reports come once a second, joins a thousand times).
//! A room begins on the least loaded worker. Its next peers go to the least loaded of the workers it is on, as long as
//! that one is less than [`FULL`] and has less than [`ROOM_SHARE`] of the room; then to the least loaded of all.

use std::time::Instant;

use crate::base::ids::WorkerId;

/// What one core forwards per second: about 1.1 µs for each packet with the kernel's share, and half of the core left
/// for receiving, handshakes and bursts.
const PACKETS_PER_S_MAX: f64 = 450_000.0;
/// What a subscription lets expect: between audio (50/s) and video of 2 Mbit/s (200/s).
const SUBSCRIPTION_PACKETS_PER_S: f64 = 100.0;
/// What a peer lets expect beyond its subscriptions: checks, feedback, and what it is about to receive.
const PEER_PACKETS_PER_S: f64 = 100.0;
/// A worker is full for a room that is on it already. The rest is for what its rooms still grow.
const FULL: f64 = 0.7;
/// Peers of one room on one worker while another could take them: a burst of ten packets to a hundred peers keeps a core
/// busy for about a millisecond, and the last of them waits for it.
const ROOM_SHARE: usize = 100;
/// A room below this is small: split, it would cost a copy per packet and gain nothing.
const ROOM_SPREAD_MIN: usize = 16;

/// What a worker carries.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub peers: usize,
    pub subscriptions: usize,
    /// Forwarded, by the last two reports.
    pub packets_per_s: f64,
    /// The last report, and the packets forwarded until then.
    reported: Option<(Instant, u64)>,
}

impl Load {
    /// The share of the worker's capacity that this is.
    pub(super) fn share(&self) -> f64 {
        let expected = PEER_PACKETS_PER_S * self.peers as f64 + SUBSCRIPTION_PACKETS_PER_S * self.subscriptions as f64;
        self.packets_per_s.max(expected) / PACKETS_PER_S_MAX
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Placement {
    pub workers: Vec<Load>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: vec![Load::default(); workers] }
    }

    /// The worker for the next peer of a room that has so many peers on each worker.
    pub(super) fn choose(&self, room: &[usize]) -> WorkerId {
        let here = |index: &usize| room.get(*index).copied().unwrap_or(0);
        let all = 0..self.workers.len();
        if (1..ROOM_SPREAD_MIN).contains(&room.iter().sum()) {
            return id(all.max_by_key(|index| (here(index), usize::MAX - index)));
        }
        let has_room = |index: &usize| (1..ROOM_SHARE).contains(&here(index)) && self.load(*index) < FULL;
        let least =
            |workers: &mut dyn Iterator<Item = usize>| workers.min_by(|a, b| self.load(*a).total_cmp(&self.load(*b)));
        id(least(&mut all.clone().filter(has_room)).or_else(|| least(&mut all.clone())))
    }

    /// Share of the worker's capacity in use; 1 is full.
    pub(super) fn load(&self, index: usize) -> f64 {
        self.workers.get(index).map_or(0.0, Load::share)
    }

    /// A peer with that many subscriptions is on that worker from now on.
    pub(super) fn enter(&mut self, worker: WorkerId, subscriptions: usize) {
        if let Some(load) = self.workers.get_mut(usize::from(worker.0)) {
            load.peers += 1;
            load.subscriptions += subscriptions;
        }
    }

    /// It is not there any more.
    pub(super) fn leave(&mut self, worker: WorkerId, subscriptions: usize) {
        if let Some(load) = self.workers.get_mut(usize::from(worker.0)) {
            load.peers -= 1;
            load.subscriptions -= subscriptions;
        }
    }

    /// A peer on that worker has other subscriptions than before.
    pub(super) fn resubscribe(&mut self, worker: WorkerId, before: usize, after: usize) {
        if let Some(load) = self.workers.get_mut(usize::from(worker.0)) {
            load.subscriptions = load.subscriptions + after - before;
        }
    }

    /// A worker's own numbers: packets forwarded since its start.
    pub(super) fn handle_report(&mut self, now: Instant, worker: WorkerId, packets: u64) {
        let Some(load) = self.workers.get_mut(usize::from(worker.0)) else { return };
        let Some((at, before)) = load.reported.replace((now, packets)) else { return };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds > 0.0 {
            load.packets_per_s = packets.saturating_sub(before) as f64 / seconds;
        }
    }
}

fn id(index: Option<usize>) -> WorkerId {
    WorkerId(index.unwrap_or(0) as u8)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock;

    /// Rooms as peers per worker, filled one by one.
    struct House {
        placement: Placement,
        rooms: Vec<Vec<usize>>,
    }

    impl House {
        fn new(workers: usize, rooms: usize) -> Self {
            Self { placement: Placement::new(workers), rooms: vec![vec![0; workers]; rooms] }
        }

        fn join(&mut self, room: usize, subscriptions: usize) -> usize {
            let worker = self.placement.choose(&self.rooms[room]);
            self.placement.enter(worker, subscriptions);
            self.rooms[room][usize::from(worker.0)] += 1;
            usize::from(worker.0)
        }

        fn fill(&mut self, room: usize, peers: usize, subscriptions: usize) {
            for _ in 0..peers {
                self.join(room, subscriptions);
            }
        }

        fn workers_of(&self, room: usize) -> usize {
            self.rooms[room].iter().filter(|peers| **peers > 0).count()
        }

        fn report(&mut self, worker: u8, packets_per_s: u64) {
            let now = clock::now();
            self.placement.handle_report(now, WorkerId(worker), 0);
            self.placement.handle_report(now + Duration::from_secs(1), WorkerId(worker), packets_per_s);
        }
    }

    #[test]
    fn small_rooms_stay_together_and_share_the_workers_evenly() {
        let mut house = House::new(3, 300);
        // All at once, peer by peer, until the workers are far too full.
        for _ in 0..4 {
            (0..300).for_each(|room| house.fill(room, 1, 1 + room));
        }
        assert!((0..3).all(|worker| house.placement.load(worker) > FULL));
        assert!((0..300).all(|room| house.workers_of(room) == 1));
        let mut house = House::new(3, 300);
        for room in 0..300 {
            house.fill(room, 4, 6);
        }
        let peers = |worker: usize| house.rooms.iter().map(|room| room[worker]).sum::<usize>();
        assert_eq!([peers(0), peers(1), peers(2)], [400; 3]);
    }

    #[test]
    fn a_big_room_uses_all_workers() {
        let mut house = House::new(4, 1);
        (0..ROOM_SHARE).for_each(|_| assert_eq!(house.join(0, 2), 0, "first one, then the next"));
        house.fill(0, 900, 2);
        assert_eq!(house.rooms[0], [250; 4]);
    }

    #[test]
    fn a_room_goes_on_where_it_is_until_that_worker_is_full() {
        let mut house = House::new(2, 2);
        (0..ROOM_SPREAD_MIN + 4).for_each(|_| assert_eq!(house.join(0, 2), 0));
        assert_eq!(house.join(1, 2), 1, "another room goes where less is going on");
        house.report(0, (FULL * PACKETS_PER_S_MAX) as u64 - 1000);
        assert_eq!(house.join(0, 2), 0, "not full yet");
        house.report(0, (FULL * PACKETS_PER_S_MAX) as u64 + 1000);
        assert_eq!(house.join(0, 2), 1);
        house.report(0, 0);
        assert_eq!(house.join(0, 2), 1, "of its workers, the one that does less");
    }

    #[test]
    fn many_subscriptions_weigh_before_any_report() {
        let mut house = House::new(2, 1);
        // A meeting where everybody gets a hundred tracks: 45 peers expect what one core can do.
        house.fill(0, 60, 100);
        assert!(house.rooms[0][0] < 45 && house.rooms[0][1] > 15, "{:?}", house.rooms[0]);
    }

    #[test]
    fn who_leaves_takes_its_load_along() {
        let mut placement = Placement::new(1);
        placement.enter(WorkerId(0), 3);
        placement.resubscribe(WorkerId(0), 3, 7);
        assert!(placement.load(0) > 0.0);
        placement.leave(WorkerId(0), 7);
        assert_eq!(placement.load(0), 0.0);
    }
}
