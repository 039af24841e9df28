//! One core's work: datagrams, lanes, timers and commands in, a batch of datagrams out.
//!
//! Owns: the sessions and tracks that live on this core. Promises: the same input at the same times gives the same
//! output; no input stops it. Forbids: sockets and clocks; the simulator drives the very same core.
//!
//! Its methods lie beside this file: `demux` (datagrams), `forward` (fresh packets), `stun` (checks, questions), `report`
//! (for people), `shim` (bad networks on purpose).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::backlog::Backlog;
use super::command::{COMMAND_WORK_PER_TURN, Command, Event, IoNumbers};
use super::departure::Departure;
use super::hold::Hold;
use super::job::Jobs;
use super::lane::Lanes;
use super::seats::{Seat, Seats, State};
use super::shim::Shim;
use super::stun::Questions;
use super::tap::Tap;
use super::timers::Timers;
use super::voices::Voices;
use crate::base::batch::TxBatch;
use crate::base::ids::{SessionKey, TrackKey, WorkerId};
use crate::base::train::TrainLimits;
use crate::forward::plan::SharedTable;
use crate::proto::dtls::{Dtls, DtlsConfig};
use crate::proto::ice::IceLite;
use crate::session::discard::{Discard, Discards};
use crate::session::peer::{FeedbackCounters, RtcpEffects, Session, SessionEvent};
use crate::session::track::{SenderClock, Tracks};

/// How often it is told how active voices are: the interval of decisions of the paper that [`crate::forward::speaker`]
/// follows.
const VOICES_INTERVAL: Duration = Duration::from_millis(300);
/// A session whose deadline was just served has its next one no sooner: one that stays in the past must not stop the
/// worker.
const DEADLINE_STEP_MIN: Duration = Duration::from_millis(1);
/// How often numbers for people are told.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Datagrams that a worker takes upon itself, about: less than ten milliseconds of work. More waits in the kernel, where
/// the oldest is read first and what is late is known by its age.
const SENDS_DUE_MAX: usize = 8192;

/// See the module.
pub struct WorkerCore {
    pub(super) id: WorkerId,
    dtls: Arc<DtlsConfig>,
    pub(super) rng: StdRng,
    pub(super) seats: Seats,
    pub(super) tracks: Tracks,
    pub(super) table: SharedTable,
    pub(super) lanes: Lanes,
    timers: Timers,
    /// Tracks with packets that wait to be planned.
    pub(super) dirty: Vec<TrackKey>,
    /// What is planned, subscriber by subscriber.
    pub(super) jobs: Jobs,
    /// Datagrams that forwarding all that came will send, about.
    pub(super) due_sends: usize,
    sends_due_max: usize,
    /// Who is loud enough to be heard.
    pub(super) voices: Voices,
    /// What one subscriber gets, on its way out.
    pub(super) departure: Departure,
    /// What leaves later than it came, as its line carries no more.
    paced: Departure,
    pub(super) hold: Hold,
    pub(super) backlog: Backlog,
    /// Tracks and their streams whose wish for a keyframe waits.
    pub(super) keyframes: Vec<(TrackKey, u8)>,
    /// Sessions that were given keyframe requests and may not have sent them yet.
    pub(super) asked: Vec<SessionKey>,
    pub(super) effects: RtcpEffects,
    pub(super) questions: Questions,
    /// What a peer may send at most, in bits per second.
    ingest_cap_bps: Option<u64>,
    pub(super) events: VecDeque<Event>,
    /// The way to the recorder, where there is one.
    pub(super) tap: Option<Box<Tap>>,
    pub(super) discards: Discards,
    /// Feedback of sessions that are gone.
    pub(super) past: FeedbackCounters,
    pub(super) io: IoNumbers,
    voices_at: Option<Instant>,
    pub(super) has_told_voices: bool,
    report_at: Option<Instant>,
    /// Impaired links, while there are any.
    pub(super) shim: Option<Box<Shim>>,
    is_stopped: bool,
}

impl WorkerCore {
    /// A worker without sessions. `rng` should be seeded by the operating system, in simulation by the seed.
    pub fn new(id: WorkerId, rng: StdRng, dtls: Arc<DtlsConfig>, table: SharedTable, lanes: Lanes) -> Self {
        Self {
            id,
            dtls,
            rng,
            seats: Seats::default(),
            tracks: Tracks::default(),
            table,
            lanes,
            timers: Timers::default(),
            dirty: Vec::new(),
            jobs: Jobs::default(),
            due_sends: 0,
            sends_due_max: SENDS_DUE_MAX,
            voices: Voices::default(),
            departure: Departure::default(),
            paced: Departure::default(),
            hold: Hold::new(TrainLimits::default().hold_max),
            backlog: Backlog::default(),
            keyframes: Vec::new(),
            asked: Vec::new(),
            effects: RtcpEffects::default(),
            questions: Questions::default(),
            ingest_cap_bps: None,
            events: VecDeque::new(),
            tap: None,
            discards: Discards::default(),
            past: FeedbackCounters::default(),
            io: IoNumbers::default(),
            voices_at: None,
            has_told_voices: false,
            report_at: None,
            shim: None,
            is_stopped: false,
        }
    }

    /// What ten milliseconds of work are on a machine that the simulator made slow.
    #[cfg(any(test, feature = "sim"))]
    pub fn set_sends_due_max(&mut self, sends: usize) {
        self.sends_due_max = sends;
    }

    /// Peers that come from now on are told to send no more than this, where they take such wishes.
    pub fn set_ingest_cap(&mut self, bps: Option<u64>) {
        self.ingest_cap_bps = bps;
    }

    /// Sets what trains may cost.
    pub fn set_train_limits(&mut self, limits: TrainLimits) {
        self.departure.limits = limits;
        self.paced.limits = limits;
        self.hold = Hold::new(limits.hold_max);
    }

    /// Obeys control for about a millisecond; what there is no time for stays where `next` takes it from.
    pub fn handle_commands(&mut self, now: Instant, mut next: impl FnMut() -> Option<Command>, tx: &mut TxBatch) {
        let mut done = 0;
        while done < COMMAND_WORK_PER_TURN
            && let Some(command) = next()
        {
            done += command.work();
            self.apply(now, command, tx);
        }
    }

    /// Obeys control.
    pub fn apply(&mut self, now: Instant, command: Command, tx: &mut TxBatch) {
        match command {
            Command::Open { ticket, credentials } => {
                // The end of the former session with this index may still be under way.
                if let Some(former) = self.seats.tenant(ticket.session.index) {
                    self.close(former, tx);
                }
                let state = State::Waiting(Box::new(IceLite::new(now, credentials)));
                self.seats.open(Seat { ticket, state, remote: None, streams: None });
            }
            Command::Restart { session, credentials } => self.seats.restart(session, credentials),
            Command::Configure { session, remote, streams } => {
                let Some(seat) = self.seats.seat_mut(session) else { return };
                seat.remote = remote.or(seat.remote.take());
                if let State::Mine(session) = &mut seat.state {
                    session.configure(now, &mut self.rng, &streams);
                }
                for mline in streams.mlines.iter().flatten() {
                    if let Some(ingress) = &mline.ingress
                        && matches!(seat.state, State::Mine(_))
                    {
                        self.tracks.ensure(ingress.track, mline.kind);
                    }
                }
                let before = seat.streams.replace(Arc::clone(&streams));
                let gone = before
                    .iter()
                    .flat_map(|before| before.sent())
                    .filter(|track| !streams.sent().any(|it| it == *track));
                gone.for_each(|track| self.forget_unfed(session, track));
                self.schedule(session);
            }
            Command::Close { session } => self.close(session, tx),
            Command::Record(about) => self.record(about),
            Command::StopRecording { track } => self.stop_recording(track),
            Command::WantKeyframe { track, encoding } => {
                self.want_keyframe(track, encoding);
                self.flush_keyframes(now, tx);
            }
            Command::Impair { session, impairments } => self.set_impairments(session, impairments),
            Command::CloseTrack { track } => self.close_track(track),
            Command::SelfCheck(credentials) => self.questions.self_check = Some(credentials),
            Command::AskPublicAddress { transaction, servers } => {
                self.questions.ask(now, transaction, (self.id == WorkerId(0)).then_some(servers));
            }
            Command::Stop => {
                self.seats.keys().into_iter().for_each(|session| self.close(session, tx));
                self.is_stopped = true;
            }
        }
    }

    fn close(&mut self, key: SessionKey, tx: &mut TxBatch) {
        let mut seat = self.seats.close(key);
        let streams = seat.as_mut().and_then(|seat| seat.streams.take());
        if let Some(seat) = &mut seat
            && let Some(session) = seat.session()
        {
            session.close(tx);
            self.past.add(&session.counters);
        }
        for track in streams.iter().flat_map(|streams| streams.sent()) {
            self.forget_unfed(key, track);
        }
        self.timers.clear(key);
        if let Some(shim) = &mut self.shim {
            shim.remove(key);
        }
    }

    /// A track of a publisher elsewhere is copied here as long as somebody here gets it. `left` does no more: after the last
    /// one something will be missing, and what is kept would end in the past.
    fn forget_unfed(&mut self, left: SessionKey, key: TrackKey) {
        let table = self.table.load();
        let local = table.route(key).map_or(&[][..], |route| route.local(self.id));
        if local.iter().any(|subscriber| subscriber.session != left) {
            return;
        }
        if let Some(track) = self.tracks.track_mut(key).filter(|track| track.home.is_none()) {
            track.forget_runs();
        }
    }

    /// Whether there is as much to forward as may be; what else came waits where it is.
    pub fn has_enough_work(&self) -> bool {
        self.due_sends >= self.sends_due_max
    }

    /// Makes this worker the session's home. The peer chose it by sending here.
    pub(super) fn claim(&mut self, now: Instant, key: SessionKey) -> Result<(), Discard> {
        let seat = self.seats.seat_mut(key).ok_or(Discard::UnknownSource)?;
        let remote = Arc::clone(seat.remote.as_ref().ok_or(Discard::DtlsTooEarly)?);
        let State::Waiting(ice) = &mut seat.state else { return Ok(()) };
        if seat.ticket.claim(self.id) != self.id {
            // Another worker was faster; the peer's next datagram is handed on.
            return Err(Discard::DtlsTooEarly);
        }
        let left_behind = IceLite::new(now, ice.credentials().clone());
        let ice = std::mem::replace(&mut **ice, left_behind);
        let dtls = Dtls::new(now, &self.dtls, remote.dtls_role, remote.fingerprint);
        let mut session = Session::new(now, &mut self.rng, key, seat.ticket.peer, ice, dtls);
        session.feedback.set_ingest_cap(self.ingest_cap_bps);
        if let Some(streams) = &seat.streams {
            session.configure(now, &mut self.rng, streams);
        }
        seat.state = State::Mine(Box::new(session));
        self.events.push_back(Event::Claimed { session: key });
        self.schedule(key);
        Ok(())
    }

    /// Makes this worker the session's home with keys that no handshake made; only the simulator has such peers.
    #[cfg(any(test, feature = "sim"))]
    pub fn adopt(&mut self, now: Instant, key: SessionKey, keys: &crate::crypto::srtp::SrtpKeys) {
        if self.claim(now, key).is_ok()
            && let Some(session) = self.seats.session_mut(key)
        {
            let event = session.adopt(keys);
            self.handle_session_event(key, event);
            self.schedule(key);
        }
    }

    pub(super) fn handle_session_event(&mut self, session: SessionKey, event: Option<SessionEvent>) {
        let event = match event {
            None => return,
            Some(SessionEvent::Connected(suite)) => Event::Connected { session, suite },
            Some(SessionEvent::Lost) => Event::Lost { session },
            Some(SessionEvent::Recovered) => Event::Recovered { session },
            Some(SessionEvent::Ended(reason)) => Event::Ended { session, reason },
        };
        self.events.push_back(event);
    }

    /// Deadlines that passed.
    pub fn handle_timeout(&mut self, now: Instant, tx: &mut TxBatch) {
        // Before the feedback of this tick, so that it takes them along.
        self.ask_keyframes(now);
        while let Some(key) = self.timers.pop_due(now) {
            let Some(session) = self.seats.session_mut(key) else { continue };
            self.effects.clear();
            let event = session.handle_timeout(now, &self.tracks, &mut self.effects, tx);
            // Who has packets in a batch that was full gets those first.
            if self.departure.session() != Some(key)
                && let Ok((egress, outlet)) = session.departures()
            {
                let ways = (egress, &outlet);
                let resent =
                    self.paced.drain(now, self.backlog.is_behind(now), &self.tracks, ways, &mut self.discards, tx);
                session.counters.retransmissions += resent;
            }
            self.handle_session_event(key, event);
            self.handle_effects();
            self.schedule_from(key, Some(now + DEADLINE_STEP_MIN));
        }
        self.release_received(now, tx);
        self.flush_keyframes(now, tx);
        self.poll_questions(now, tx);
        if self.voices_at.is_none_or(|at| now >= at) {
            self.voices_at = Some(now + VOICES_INTERVAL);
            self.tell_voices(now);
        }
        if self.report_at.is_none_or(|at| now >= at) {
            self.report_at = Some(now + REPORT_INTERVAL);
            let report = self.report(now);
            self.events.push_back(Event::Report(Box::new(report)));
        }
    }

    pub(super) fn handle_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.keyframes_wanted.drain(..).for_each(|(track, encoding)| self.want_keyframe(track, encoding));
        effects.clocks.drain(..).for_each(|(track, encoding, clock)| self.handle_clock(track, encoding, clock));
        self.effects = effects;
    }

    fn handle_clock(&mut self, key: TrackKey, encoding: u8, clock: SenderClock) {
        if self.tracks.track(key).is_some_and(|track| track.is_recorded)
            && let Some(tap) = &mut self.tap
        {
            tap.send_clock(key, encoding, clock);
        }
        self.note_clock(key, encoding, clock);
        let table = self.table.load();
        if let Some(route) = table.route(key) {
            for worker in route.others(self.id) {
                if self.lanes.send_clock(worker, key, encoding, clock).is_err() {
                    self.discards.count(Discard::LaneFull);
                }
            }
        }
    }

    pub(super) fn note_clock(&mut self, key: TrackKey, encoding: u8, clock: SenderClock) {
        if let Some(encoding) = self.tracks.track_mut(key).and_then(|track| track.encoding_mut(encoding)) {
            encoding.clock = Some(clock);
        }
    }

    /// Queues the session's next deadline.
    pub(super) fn schedule(&mut self, key: SessionKey) {
        self.schedule_from(key, None);
    }

    /// The same, not before `earliest`.
    fn schedule_from(&mut self, key: SessionKey, earliest: Option<Instant>) {
        let Some(session) = self.seats.session_mut(key) else { return };
        match session.next_timeout() {
            Some(at) => self.timers.set(key, earliest.map_or(at, |earliest| at.max(earliest))),
            None => self.timers.clear(key),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn next_timeout(&self) -> Option<Instant> {
        let keyframes = self.keyframes.iter().filter_map(|(key, encoding)| {
            let encoding = self.tracks.track(*key)?.encoding(*encoding)?;
            encoding.keyframe.next_timeout(self.report_at?)
        });
        keyframes
            .chain(self.timers.next())
            .chain(self.hold.next_timeout())
            .chain(self.voices_at)
            .chain(self.report_at)
            .chain(self.questions.next())
            .chain(self.shim.as_ref().and_then(|shim| shim.next_timeout()))
            .min()
    }

    /// News for control.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Puts back what control had no room for.
    pub fn return_event(&mut self, event: Event) {
        self.events.push_front(event);
    }

    /// Workers whose lanes got something, as bits.
    pub fn take_wakes(&mut self) -> u64 {
        self.lanes.take_wakes()
    }

    /// Whether other workers left something.
    pub fn has_lane_items(&self) -> bool {
        self.lanes.has_items()
    }

    /// Whether [`Command::Stop`] was obeyed.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// CPU time that this core's thread has used so far.
    pub fn handle_load(&mut self, now: Instant, cpu_time: Duration) {
        self.hold.handle_load(now, cpu_time);
    }

    /// What the sockets did so far.
    pub fn note_io(&mut self, io: IoNumbers) {
        self.io = io;
    }
}
