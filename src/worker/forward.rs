//! What a worker does with fresh packets: subscribers here, other workers, and the keyframes they wait for.
//!
//! Promises: subscriber-major order, so that a subscriber's keys and numbers are touched once per turn; one copy per other
//! worker; the table is loaded once per turn.

use std::time::Instant;

use super::core::WorkerCore;
use super::lane::LaneItem;
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::format::MediaKind;
use crate::base::ids::{SessionKey, TrackKey};
use crate::forward::table::{FanoutTable, Subscriber};
use crate::proto::history::Packet;
use crate::session::discard::Discard;
use crate::session::egress::Egress;
use crate::session::peer::Session;
use crate::session::track::Track;

/// Items taken from the lanes in one turn; the rest waits, so that a busy neighbour cannot starve our own sockets.
const LANE_ITEMS_MAX: usize = 512;

/// A subscription that has packets to come this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Work {
    session: SessionKey,
    /// Sound is looked at first: whether it may leave last depends on what else is due.
    kind: MediaKind,
    mline: u16,
    track: TrackKey,
    /// See [`super::voices::Audience`].
    preroll: Option<u8>,
}

impl Work {
    fn new(subscriber: Subscriber, kind: MediaKind, track: TrackKey, preroll: Option<u8>) -> Self {
        Self { session: subscriber.session, kind, mline: subscriber.mline, track, preroll }
    }
}

impl WorkerCore {
    /// Forwards what came in, subscriber by subscriber, unless it waits for more (see [`super::hold`]). `false`: the batch
    /// is full, send it and call again.
    pub fn forward(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        if self.work.is_empty() && !self.dirty.is_empty() {
            let table = self.table.load();
            let packets = self.copy_to_others(&table);
            if !self.hold.is_over(now, packets) {
                return true;
            }
            self.plan_work(now, &table);
        }
        while let Some(session) = self.next_subscriber() {
            if !self.forward_to(now, session, tx) {
                return false;
            }
        }
        for key in self.dirty.drain(..) {
            if let Some(track) = self.tracks.track_mut(key) {
                track.forget_fresh();
            }
        }
        self.work.clear();
        self.due_sends = 0;
        self.done = (0, 0);
        true
    }

    /// One copy of each fresh packet per other worker, at once: each holds for itself. How many are fresh.
    fn copy_to_others(&mut self, table: &FanoutTable) -> usize {
        let mut packets = 0;
        for key in &self.dirty {
            let Some(track) = self.tracks.track_mut(*key) else { continue };
            packets += track.fresh.len();
            let copied = std::mem::replace(&mut track.copied, track.fresh.len());
            let Some(route) = table.route(*key).filter(|_| track.home.is_some()) else { continue };
            for worker in route.others(self.id) {
                for packet in track.fresh[copied..].iter().filter_map(|seq| track.history.packet(*seq)) {
                    if self.lanes.send_media(worker, *key, track.kind, &packet).is_err() {
                        self.discards.count(Discard::LaneFull);
                    }
                }
            }
        }
        packets
    }

    /// What goes to whom here.
    fn plan_work(&mut self, now: Instant, table: &FanoutTable) {
        for key in &self.dirty {
            let Some(track) = self.tracks.track_mut(*key) else { continue };
            let Some(route) = table.route(*key) else {
                track.fanout = 0;
                track.fresh.iter().for_each(|_| self.discards.count(Discard::NoSubscriber));
                continue;
            };
            let audience = self.voices.handle_fresh(now, route, track);
            let hearers = self.voices.hearers(audience, route, route.local(self.id));
            let before = self.work.len();
            self.work.extend(hearers.map(|subscriber| Work::new(*subscriber, track.kind, *key, audience.preroll)));
            track.fanout = self.work.len() - before;
        }
        self.work.sort_unstable();
    }

    /// Who comes next: the one whose packets are not all written, else the next of the plan.
    fn next_subscriber(&self) -> Option<SessionKey> {
        self.departure.session().or_else(|| Some(self.work.get(self.done.0)?.session))
    }

    /// Takes one subscriber's packets to the batch, as many as are put in order at once.
    fn forward_to(&mut self, now: Instant, key: SessionKey, tx: &mut TxBatch) -> bool {
        let session = self.seats.session_mut(key).ok_or(Discard::StaleRoute);
        let (egress, outlet) = match session.and_then(Session::departures) {
            Ok(departures) => departures,
            Err(discard) => {
                self.departure.clear();
                self.skip(key, discard);
                return true;
            }
        };
        if self.departure.session().is_none() {
            self.departure.begin(key);
            while let Some(work) = self.work.get(self.done.0).filter(|work| work.session == key) {
                if let Some(track) = self.tracks.track(work.track) {
                    if let (0, Some(preroll)) = (self.done.1, work.preroll) {
                        self.done.1 = resume(egress, work.mline, track, preroll);
                    }
                    let fresh = track.fresh.get(self.done.1..).unwrap_or_default();
                    let taken = &fresh[..fresh.len().min(self.departure.room())];
                    for seq in taken {
                        if let Err(discard) = self.departure.admit(now, (work.mline, *seq), track, (egress, &outlet)) {
                            self.discards.count(discard);
                        }
                    }
                    self.done.1 += taken.len();
                    if taken.len() < fresh.len() {
                        break;
                    }
                }
                self.done = (self.done.0 + 1, 0);
            }
            self.departure.arrange(egress);
        }
        self.departure.write(&self.tracks, (egress, &outlet), &mut self.discards, tx)
    }

    /// A subscriber who cannot be reached.
    fn skip(&mut self, key: SessionKey, discard: Discard) {
        while let Some(work) = self.work.get(self.done.0).filter(|work| work.session == key) {
            let fresh = self.tracks.track(work.track).map_or(0, |track| track.fresh.len());
            (self.done.1..fresh).for_each(|_| self.discards.count(discard));
            self.done = (self.done.0 + 1, 0);
        }
    }

    /// What other workers sent.
    pub fn handle_lanes(&mut self, now: Instant, tx: &mut TxBatch) {
        let table = self.table.load();
        for _ in 0..LANE_ITEMS_MAX {
            if self.has_enough_work() {
                break;
            }
            let Some(item) = self.lanes.poll() else { break };
            match item {
                LaneItem::Media { track, kind, meta, ext_len, payload_len, mut buffer } => {
                    let (exts, payload) = buffer.bytes(ext_len + payload_len).split_at(usize::from(ext_len));
                    self.handle_lane_media(&table, track, kind, Packet { meta, exts, payload });
                    self.lanes.give_back(buffer);
                }
                LaneItem::Datagram { path, len, mut buffer } => {
                    self.handle_handed_on(now, RxDatagram::fresh(path, buffer.bytes(len)), tx);
                    self.lanes.give_back(buffer);
                }
                LaneItem::KeyframeWanted { track } => self.want_keyframe(track),
                LaneItem::Clock { track, clock } => {
                    if let Some(track) = self.tracks.track_mut(track) {
                        track.clock = Some(clock);
                    }
                }
            }
        }
        self.flush_keyframes(now, tx);
    }

    fn handle_lane_media(&mut self, table: &FanoutTable, key: TrackKey, kind: MediaKind, packet: Packet<'_>) {
        // A packet of a track that ended meanwhile must not bring it back.
        if table.route(key).is_none() {
            self.discards.count(Discard::StaleRoute);
            return;
        }
        let track = self.tracks.ensure(key, kind);
        let is_first_of_turn = track.fresh.is_empty();
        if !track.insert(packet) {
            self.discards.count(Discard::TooOld);
            return;
        }
        self.due_sends += track.fanout;
        if is_first_of_turn {
            self.dirty.push(key);
        }
    }

    pub(super) fn want_keyframe(&mut self, key: TrackKey) {
        let is_routed = self.table.load().route(key).is_some();
        if !is_routed {
            return;
        }
        self.tracks.ensure(key, MediaKind::Video).keyframe.want();
        if !self.keyframes.contains(&key) {
            self.keyframes.push(key);
        }
    }

    /// Sends the keyframe requests that are due: to the publisher, or to the worker where it lives.
    pub(super) fn flush_keyframes(&mut self, now: Instant, tx: &mut TxBatch) {
        let mut keyframes = std::mem::take(&mut self.keyframes);
        keyframes.retain(|key| {
            let Some(track) = self.tracks.track_mut(*key) else { return false };
            if !track.keyframe.poll(now) {
                return track.keyframe.next_timeout(now).is_some();
            }
            match track.home {
                Some((session, mline)) => {
                    if let Some(session) = self.seats.session_mut(session) {
                        session.ask_keyframe(mline, tx);
                    }
                }
                None => {
                    let home = self.table.load().route(*key).map(|route| route.home);
                    if home.is_some_and(|home| self.lanes.send_keyframe_wanted(home, *key).is_err()) {
                        self.discards.count(Discard::LaneFull);
                    }
                }
            }
            false
        });
        self.keyframes = keyframes;
    }
}

/// A subscriber may have missed what came before: his numbers go on with the first packet that he gets now. How many of
/// the pre-roll he has had.
fn resume(egress: &mut Egress, mline: u16, track: &Track, preroll: u8) -> usize {
    let Some(first) = track.fresh.iter().min() else { return 0 };
    let Some(had) = egress.resume(mline, track.key, *first) else { return 0 };
    track.fresh[..usize::from(preroll)].partition_point(|seq| *seq <= had)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::base::batch::Path;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::base::ids::{PeerId, SessionKey, Ssrc, WorkerId};
    use crate::crypto::cert::Certificate;
    use crate::forward::plan::{Plan, SharedTable};
    use crate::forward::table::Route;
    use crate::proto::dtls::DtlsConfig;
    use crate::proto::history::PacketMeta;
    use crate::proto::ice::{CheckOutcome, LocalCredentials};
    use crate::runtime::clock;
    use crate::worker::command::{Command, Ticket};
    use crate::worker::lane::Lanes;

    const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };

    fn two_cores(table: SharedTable) -> (WorkerCore, Lanes) {
        let mut lanes = Lanes::mesh(2);
        let other = lanes.pop().unwrap();
        let dtls = Arc::new(DtlsConfig::new(Arc::new(Certificate::generate().unwrap())).unwrap());
        (WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(1), dtls, table, lanes.pop().unwrap()), other)
    }

    fn packet(seq: u64) -> Packet<'static> {
        let meta = PacketMeta {
            seq,
            source: Ssrc(1),
            timestamp: 0,
            marker: false,
            format: Format::Opus,
            encoding: 0,
            marks: FrameMarks::WHOLE,
        };
        Packet { meta, exts: &[], payload: b"x" }
    }

    #[test]
    fn packets_that_come_too_late_make_no_work() {
        let mut plan = Plan::default();
        let subscriber = Subscriber { session: SessionKey { index: 0, epoch: 0 }, mline: 0 };
        let by_worker = Box::new([Box::from([subscriber]), Box::from([])]);
        plan.set(Route { by_worker, ..Route::new(TRACK, WorkerId(1)) });
        plan.publish();
        let (mut core, _) = two_cores(plan.shared());
        let mut tx = TxBatch::with_capacity(8);
        let table = core.table.load();
        core.handle_lane_media(&table, TRACK, MediaKind::Audio, packet(1000));
        assert!(core.forward(clock::now(), &mut tx));
        for _ in 0..100 {
            core.handle_lane_media(&table, TRACK, MediaKind::Audio, packet(1000 - 128));
        }
        core.handle_lane_media(&table, TRACK, MediaKind::Audio, packet(1001));
        assert_eq!(core.dirty, [TRACK]);
    }

    #[test]
    fn a_datagram_is_handed_on_once() {
        let (mut core, mut other) = two_cores(Plan::default().shared());
        let (now, mut tx) = (clock::now(), TxBatch::with_capacity(8));
        let session = SessionKey { index: 0, epoch: 0 };
        let ticket = Arc::new(Ticket::new(session, PeerId(1)));
        ticket.claim(WorkerId(1));
        let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(1));
        core.apply(now, Command::Open { ticket, credentials }, &mut tx);
        let path = Path { remote: ([192, 0, 2, 9], 9).into(), local: [192, 0, 2, 1].into() };
        core.seats.handle_outcome(now, session, path, &CheckOutcome { is_accepted: true, ..CheckOutcome::default() });
        let mut bytes = [22; 40];
        core.handle_datagram(now, RxDatagram::fresh(path, &mut bytes), &mut tx);
        assert!(matches!(other.poll(), Some(LaneItem::Datagram { .. })), "to its owner");
        other.send_datagram(WorkerId(0), path, &bytes).unwrap();
        core.handle_lanes(now, &mut tx);
        assert!(other.poll().is_none(), "what the owner sent here does not go back");
    }

    #[test]
    fn who_opens_a_session_ends_the_one_that_had_its_place() {
        let (mut core, _other) = two_cores(Plan::default().shared());
        let (now, mut tx) = (clock::now(), TxBatch::with_capacity(8));
        let mut rng = StdRng::seed_from_u64(1);
        let [former, latter] = [0, 1].map(|epoch| SessionKey { index: 0, epoch });
        let ufrags = [former, latter].map(|session| {
            let (ticket, credentials) =
                (Arc::new(Ticket::new(session, PeerId(1))), LocalCredentials::generate(&mut rng));
            let ufrag = credentials.ufrag();
            core.apply(now, Command::Open { ticket, credentials }, &mut tx);
            ufrag
        });
        assert_eq!(ufrags.map(|ufrag| core.seats.by_ufrag(ufrag)), [None, Some(latter)]);
        core.apply(now, Command::Close { session: former }, &mut tx);
        assert_eq!(core.seats.by_ufrag(ufrags[1]), Some(latter), "the old end comes too late to matter");
    }
}
