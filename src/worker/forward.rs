//! What a worker does with fresh packets: subscribers here, other workers, and the keyframes they wait for.
//!
//! Promises: subscriber-major order, so that a subscriber's keys and numbers are touched once per job; a track is in one
//! job at a time, so that its packets leave in order; one copy per other worker; the table is loaded once per plan.

use std::time::Instant;

use super::core::WorkerCore;
use super::job::{Audience, Job, SLICE_SENDS, Work};
use super::lane::LaneItem;
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::format::MediaKind;
use crate::base::ids::{SessionKey, TrackKey};
use crate::forward::table::FanoutTable;
use crate::proto::history::Packet;
use crate::session::discard::Discard;
use crate::session::egress::Egress;
use crate::session::peer::Session;
use crate::session::track::Track;

/// Items taken from the lanes in one turn; the rest waits, so that a busy neighbour cannot starve our own sockets.
const LANE_ITEMS_MAX: usize = 512;

impl WorkerCore {
    /// Forwards a slice of what came in, job by job (see [`super::job`]) and subscriber by subscriber, unless it waits for
    /// more (see [`super::hold`]). `false`: there is more to do, but first send the batch and take up what came meanwhile.
    pub fn forward(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        if !self.dirty.is_empty() {
            self.plan(now);
        }
        let is_done = self.write_rest(now, tx) && self.take_up_jobs(now, tx);
        let waiting = self.dirty.iter().filter_map(|key| self.tracks.track(*key));
        self.due_sends = self.jobs.left() + waiting.map(|track| track.waiting() * track.fanout).sum::<usize>();
        is_done && (self.dirty.is_empty() || self.hold.next_timeout().is_some())
    }

    /// Copies what is fresh to other workers, and makes jobs of it for the subscribers here.
    fn plan(&mut self, now: Instant) {
        let table = self.table.load();
        let Some(packets) = self.copy_to_others(&table) else { return };
        // Who has as much to do as may be gets it done first: what comes together meanwhile leaves in longer trains.
        let is_free = self.jobs.is_empty() || self.jobs.has_room() && !self.has_enough_work();
        if is_free && self.hold.is_over(now, packets) {
            self.plan_jobs(now, &table);
        }
    }

    /// One copy of each fresh packet per other worker, at once: each holds for itself. How many wait for a plan; `None`:
    /// they all wait for the end of a job.
    fn copy_to_others(&mut self, table: &FanoutTable) -> Option<usize> {
        let mut waiting = None;
        for key in &self.dirty {
            let Some(track) = self.tracks.track_mut(*key) else {
                waiting.get_or_insert(0);
                continue;
            };
            if track.planned().is_empty() {
                *waiting.get_or_insert(0) += track.waiting();
            }
            let copied = std::mem::replace(&mut track.copied, track.fresh.len());
            let Some(route) = table.route(*key).filter(|_| track.home.is_some()) else { continue };
            for worker in route.others(self.id) {
                for packet in track.fresh[copied..].iter().filter_map(|fresh| track.packet(fresh.encoding, fresh.seq)) {
                    if self.lanes.send_media(worker, *key, track.kind, &packet).is_err() {
                        self.discards.count(Discard::LaneFull);
                    }
                }
            }
        }
        waiting
    }

    /// What goes to whom here. Tracks in an unfinished job wait for its end.
    fn plan_jobs(&mut self, now: Instant, table: &FanoutTable) {
        self.jobs.begin();
        self.dirty.retain(|key| {
            let Some(track) = self.tracks.track_mut(*key) else { return false };
            if !track.planned().is_empty() {
                return true;
            }
            let route = table.route(*key);
            let audience = match route {
                Some(route) => self.voices.choose(now, route, route.local(self.id), track),
                None => Audience { subscribers: &[], preroll: None },
            };
            track.fanout = audience.subscribers.len();
            let packets = track.plan();
            if audience.subscribers.is_empty() {
                (0..packets).filter(|_| route.is_none()).for_each(|_| self.discards.count(Discard::NoSubscriber));
                track.forget_planned();
            } else {
                self.jobs.add((*key, track.kind), packets, audience);
            }
            false
        });
        self.jobs.end();
    }

    /// Writes what did not find room in the batch before.
    fn write_rest(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        let Some(key) = self.departure.session() else { return true };
        let Some(Ok((egress, outlet))) = self.seats.session_mut(key).map(Session::departures) else {
            self.departure.clear();
            return true;
        };
        self.departure.write(now, &self.tracks, (egress, &outlet), &mut self.discards, tx)
    }

    /// One slice, of the next job and of those behind it when that is done.
    fn take_up_jobs(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        let mut sends = 0;
        while sends < SLICE_SENDS
            && let Some(mut job) = self.jobs.pop()
        {
            let before = sends;
            while let Some(session) = job.subscriber() {
                let left = job.left();
                let has_room = self.forward_to(now, session, &mut job, tx);
                sends += left - job.left();
                if !has_room || sends >= SLICE_SENDS && job.subscriber().is_some() {
                    self.jobs.put_back(job, sends - before >= SLICE_SENDS);
                    return false;
                }
            }
            for track in job.tracks() {
                if let Some(track) = self.tracks.track_mut(*track) {
                    track.forget_planned();
                }
            }
            self.jobs.finish(job);
        }
        self.jobs.is_empty()
    }

    /// Takes one subscriber's packets to the batch, as many as are put in order at once. `false`: the batch is full.
    fn forward_to(&mut self, now: Instant, key: SessionKey, job: &mut Job, tx: &mut TxBatch) -> bool {
        let session = self.seats.session_mut(key).ok_or(Discard::StaleRoute);
        let (egress, outlet) = match session.and_then(Session::departures) {
            Ok(departures) => departures,
            Err(discard) => {
                self.skip(key, job, discard);
                return true;
            }
        };
        if let Some(Work { mline, track, preroll: None, .. }) = job.only_work()
            && let Some(track) = self.tracks.track(track)
            && let [fresh] = track.planned()
            && tx.has_room()
        {
            let (packet, ways) = ((track, *fresh), (&mut *egress, &outlet));
            self.departure.send_one(now, mline, packet, ways, &mut self.discards, tx);
            job.take(1);
            job.pass();
            if egress.has_backlog() {
                self.schedule(key);
            }
            return true;
        }
        self.departure.begin(key);
        while let Some((work, mut taken)) = job.work_of(key) {
            if let Some(track) = self.tracks.track(work.track) {
                if let (0, Some(preroll)) = (taken, work.preroll) {
                    taken = resume(egress, work.mline, track, preroll);
                    job.take(taken);
                }
                let left = track.planned().get(taken..).unwrap_or_default();
                let next = &left[..left.len().min(self.departure.room())];
                let ways = (&mut *egress, &outlet);
                self.departure.admit(now, work.mline, (track, next), ways, &mut self.discards);
                job.take(next.len());
                if next.len() < left.len() {
                    break;
                }
            }
            job.pass();
        }
        self.departure.arrange(now, egress, &mut self.discards);
        let is_waiting = egress.has_backlog();
        let is_done = self.departure.write(now, &self.tracks, (egress, &outlet), &mut self.discards, tx);
        if is_waiting {
            self.schedule(key);
        }
        is_done
    }

    /// A subscriber who cannot be reached.
    fn skip(&mut self, key: SessionKey, job: &mut Job, discard: Discard) {
        while let Some((work, taken)) = job.work_of(key) {
            let packets = self.tracks.track(work.track).map_or(0, |track| track.planned().len().saturating_sub(taken));
            (0..packets).for_each(|_| self.discards.count(discard));
            job.take(packets);
            job.pass();
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
                    self.handle_lane_media(now, &table, track, kind, Packet { meta, exts, payload });
                    self.lanes.give_back(buffer);
                }
                LaneItem::Datagram { path, len, mut buffer } => {
                    self.handle_handed_on(now, RxDatagram::fresh(path, buffer.bytes(len)), tx);
                    self.lanes.give_back(buffer);
                }
                LaneItem::KeyframeWanted { track, encoding } => self.want_keyframe(track, encoding),
                LaneItem::Clock { track, encoding, clock } => self.note_clock(track, encoding, clock),
            }
        }
        self.flush_keyframes(now, tx);
    }

    fn handle_lane_media(
        &mut self,
        now: Instant,
        table: &FanoutTable,
        key: TrackKey,
        kind: MediaKind,
        mut packet: Packet<'_>,
    ) {
        // A packet of a track that ended meanwhile must not bring it back.
        if table.route(key).is_none() {
            self.discards.count(Discard::StaleRoute);
            return;
        }
        let track = self.tracks.ensure(key, kind);
        let is_first_to_wait = track.waiting() == 0;
        if kind == MediaKind::Video {
            track.refine(&mut packet);
        }
        if !track.insert(now, packet) {
            self.discards.count(Discard::TooOld);
            return;
        }
        self.due_sends += track.fanout;
        if is_first_to_wait {
            self.dirty.push(key);
        }
    }

    pub(super) fn want_keyframe(&mut self, key: TrackKey, encoding: u8) {
        let is_routed = self.table.load().route(key).is_some();
        if !is_routed {
            return;
        }
        let Some(stream) = self.tracks.ensure(key, MediaKind::Video).ensure(encoding) else { return };
        stream.keyframe.want();
        if !self.keyframes.contains(&(key, encoding)) {
            self.keyframes.push((key, encoding));
        }
    }

    /// Sends the keyframe requests that are due, with the other feedback that is.
    pub(super) fn flush_keyframes(&mut self, now: Instant, tx: &mut TxBatch) {
        self.ask_keyframes(now);
        while let Some(key) = self.asked.pop() {
            if let Some(session) = self.seats.session_mut(key) {
                session.tell(now, &self.tracks, tx);
                self.schedule(key);
            }
        }
    }

    /// Hands the keyframe requests that are due to the publisher's session, or to the worker where it lives.
    pub(super) fn ask_keyframes(&mut self, now: Instant) {
        let mut keyframes = std::mem::take(&mut self.keyframes);
        keyframes.retain(|(key, encoding)| {
            let Some(track) = self.tracks.track_mut(*key) else { return false };
            let home = track.home;
            let Some(stream) = track.encoding_mut(*encoding) else { return false };
            if !stream.keyframe.poll(now) {
                return stream.keyframe.next_timeout(now).is_some();
            }
            match home {
                Some((session, mline)) => {
                    let key = session;
                    if let Some(session) = self.seats.session_mut(key) {
                        session.ask_keyframe(now, mline, *encoding);
                        session.feedback.round_trip().into_iter().for_each(|rtt| stream.keyframe.set_rtt(rtt));
                        if !self.asked.contains(&key) {
                            self.asked.push(key);
                        }
                    }
                }
                None => {
                    let home = self.table.load().route(*key).map(|route| route.home);
                    if home.is_some_and(|home| self.lanes.send_keyframe_wanted(home, *key, *encoding).is_err()) {
                        self.discards.count(Discard::LaneFull);
                    }
                }
            }
            // A request that gets lost is repeated.
            stream.keyframe.next_timeout(now).is_some()
        });
        self.keyframes = keyframes;
    }
}

/// A subscriber may have missed what came before: his numbers go on with the first packet that he gets now. How many of
/// the pre-roll he has had.
fn resume(egress: &mut Egress, mline: u16, track: &Track, preroll: u8) -> usize {
    let planned = track.planned();
    let Some(had) = egress.resume(mline, track.key, planned) else { return 0 };
    planned.get(..usize::from(preroll)).unwrap_or(planned).partition_point(|fresh| fresh.seq <= had)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::base::batch::Path;
    use crate::base::format::Format;
    use crate::base::frame::FrameMarks;
    use crate::base::ids::{Mid, PeerId, SessionKey, Ssrc, WorkerId};
    use crate::crypto::cert::Certificate;
    use crate::forward::plan::{Plan, SharedTable};
    use crate::forward::table::{Route, Subscriber};
    use crate::proto::dtls::DtlsConfig;
    use crate::proto::history::PacketMeta;
    use crate::proto::ice::{CheckOutcome, LocalCredentials};
    use crate::proto::run::Bounds;
    use crate::runtime::clock;
    use crate::session::streams::{Demand, EgressConfig, MlineConfig, StreamsConfig};
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
        core.handle_lane_media(clock::now(), &table, TRACK, MediaKind::Audio, packet(1000));
        assert!(core.forward(clock::now(), &mut tx));
        for _ in 0..100 {
            core.handle_lane_media(clock::now(), &table, TRACK, MediaKind::Audio, packet(1000 - 128));
        }
        core.handle_lane_media(clock::now(), &table, TRACK, MediaKind::Audio, packet(1001));
        assert_eq!(core.dirty, [TRACK]);
    }

    #[test]
    fn nothing_is_kept_for_joins_of_what_is_no_longer_copied_here() {
        let (now, mut tx) = (clock::now(), TxBatch::with_capacity(8));
        let [first, second] = [0, 1].map(|index| SessionKey { index, epoch: 0 });
        let mut plan = Plan::default();
        let subscribers = [first, second].map(|session| Subscriber { session, mline: 0 });
        plan.set(Route { by_worker: Box::new([Box::from(subscribers)]), ..Route::new(TRACK, WorkerId(1)) });
        plan.publish();
        let (mut core, _other) = two_cores(plan.shared());
        let mline = |track| MlineConfig {
            mid: Mid::new(b"0").unwrap(),
            kind: MediaKind::Video,
            exts: Vec::new(),
            payloads: Vec::new(),
            ingress: None,
            egress: Some(EgressConfig { ssrc: Ssrc(1), rtx_ssrc: Ssrc(2), track, demand: Demand::default() }),
        };
        let streams = |track| {
            Arc::new(StreamsConfig { mlines: vec![Some(mline(track))], ext_mixed: true, downlink_bps_max: None })
        };
        for session in [first, second] {
            let ticket = Arc::new(Ticket::new(session, PeerId(1)));
            let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(1));
            core.apply(now, Command::Open { ticket, credentials }, &mut tx);
            core.apply(now, Command::Configure { session, remote: None, streams: streams(Some(TRACK)) }, &mut tx);
        }
        let table = core.table.load();
        let meta = PacketMeta { format: Format::Vp8, ..packet(1000).meta };
        core.handle_lane_media(now, &table, TRACK, MediaKind::Video, Packet { meta, ..packet(1000) });
        let has_run = |core: &WorkerCore| {
            let encoding = core.tracks.track(TRACK).and_then(|track| track.encoding(0)).unwrap();
            encoding.replay(now, &Bounds::MOST).is_some()
        };
        core.apply(now, Command::Close { session: first }, &mut tx);
        assert!(has_run(&core), "somebody else still gets it");
        plan.set(Route { by_worker: Box::new([Box::from([subscribers[1]])]), ..Route::new(TRACK, WorkerId(1)) });
        plan.publish();
        core.apply(now, Command::Configure { session: second, remote: None, streams: streams(None) }, &mut tx);
        assert!(!has_run(&core));
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

#[cfg(test)]
#[path = "preroll_tests.rs"]
mod preroll_tests;
#[cfg(test)]
#[path = "slice_tests.rs"]
mod slice_tests;
