//! One subscriber's packets of a turn on their way out: admitted, put in order, written.
//!
//! Owns: what waits between the first step and the last, in memory that is used again; counts of what left.
//! Promises: a full batch stops it anywhere, and it goes on exactly there; what is not written yet is not sent again.
//! Forbids: choosing who gets what.
//!
//! What a subscriber's line does not carry yet leaves by [`Departure::drain`] when its time comes.

use std::time::Instant;

use crate::base::batch::TxBatch;
use crate::base::ids::SessionKey;
use crate::base::train::{TrainLimits, TrainNumbers};
use crate::forward::order::{Arranger, Due, PACKETS_MAX, Rules};
use crate::session::discard::{Discard, Discards};
use crate::session::egress::{Admitted, Egress, Outlet};
use crate::session::track::{Fresh, Track, Tracks};

/// See the module.
#[derive(Debug)]
pub struct Departure {
    session: Option<SessionKey>,
    admitted: Vec<Admitted>,
    due: Vec<Due>,
    arranger: Arranger,
    /// What waited, before it is sorted.
    scratch: Vec<(Admitted, Due)>,
    /// Places of the arranger that are written.
    written: usize,
    /// What trains may cost.
    pub limits: TrainLimits,
    /// Media packets written.
    pub packets: u64,
    /// Trains as they were arranged.
    pub trains: TrainNumbers,
}

impl Default for Departure {
    fn default() -> Self {
        Self {
            session: None,
            admitted: Vec::with_capacity(PACKETS_MAX),
            due: Vec::with_capacity(PACKETS_MAX),
            arranger: Arranger::default(),
            scratch: Vec::with_capacity(PACKETS_MAX),
            written: 0,
            limits: TrainLimits::default(),
            packets: 0,
            trains: TrainNumbers::default(),
        }
    }
}

impl Departure {
    /// Whose packets wait to be written, if any do.
    pub fn session(&self) -> Option<SessionKey> {
        self.session
    }

    /// How many more packets find room.
    pub fn room(&self) -> usize {
        PACKETS_MAX - self.admitted.len()
    }

    /// Begins with a subscriber.
    pub fn begin(&mut self, session: SessionKey) {
        self.clear();
        self.session = Some(session);
    }

    /// Admits one packet of a track to an m-line.
    pub fn admit(
        &mut self,
        now: Instant,
        (mline, fresh): (u16, Fresh),
        track: &Track,
        (egress, outlet): (&mut Egress, &Outlet<'_>),
    ) -> Result<(), Discard> {
        let packet = track.packet(fresh.encoding, fresh.seq).ok_or(Discard::TooOld)?;
        let (admitted, due) = egress.admit(now, mline, (track, &packet), outlet)?;
        self.admitted.push(admitted);
        self.due.push(due);
        Ok(())
    }

    /// Takes a subscriber's only packet of a job to the batch, which has room: there is no order to find, and it is looked
    /// at once only.
    pub fn send_one(
        &mut self,
        now: Instant,
        (mline, fresh): (u16, Fresh),
        track: &Track,
        (egress, outlet): (&mut Egress, &Outlet<'_>),
        discards: &mut Discards,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let packet = track.packet(fresh.encoding, fresh.seq).ok_or(Discard::TooOld)?;
        let (admitted, due) = egress.admit(now, mline, (track, &packet), outlet)?;
        if egress.lets_pass(now, &due) {
            egress.write(now, &admitted, 0, &packet, outlet, tx)?;
            self.packets += 1;
            self.trains.count(1);
        } else {
            self.admitted.push(admitted);
            self.due.push(due);
            self.arrange(now, egress, discards);
            self.clear();
        }
        Ok(())
    }

    /// Finds the order and the padding of what was admitted and may leave now; the rest waits at the subscriber.
    pub fn arrange(&mut self, now: Instant, egress: &mut Egress, discards: &mut Discards) {
        let left_out = egress.pace(now, &mut self.admitted, &mut self.due);
        (0..left_out).for_each(|_| discards.count(Discard::DownlinkFull));
        self.order(egress);
    }

    fn order(&mut self, egress: &Egress) {
        // Streams stand together: where there is but one, nothing is ahead of anything.
        let is_one = self.due.first().map(|due| due.stream) == self.due.last().map(|due| due.stream);
        let rules = Rules {
            padding_percent_max: self.limits.padding_percent_max,
            ahead_of_audio_bytes_max: if is_one { u32::MAX } else { egress.ahead_of_audio_bytes_max() },
        };
        self.arranger.arrange(&self.due, rules);
        self.arranger.train_lengths().for_each(|length| self.trains.count(length));
    }

    /// Writes what waited for the subscriber's line and may leave now: what was missed, then what is new, then what only
    /// shows how much the line carries. As much as the batch has room for; the rest keeps waiting. A worker that is behind
    /// sends none of it, as it leaves video out. How much was sent again.
    pub fn drain(
        &mut self,
        now: Instant,
        is_behind: bool,
        tracks: &Tracks,
        (egress, outlet): (&mut Egress, &Outlet<'_>),
        discards: &mut Discards,
        tx: &mut TxBatch,
    ) -> u64 {
        if is_behind {
            (0..egress.give_up_waiting(now)).for_each(|_| discards.count(Discard::Overload));
        }
        let mut resent = 0;
        while tx.has_room()
            && let Some(resend) = egress.next_resend(now)
        {
            match egress.retransmit(now, resend, tracks, outlet, tx) {
                Ok(()) => resent += 1,
                Err(discard) => discards.count(discard),
            }
        }
        self.clear();
        self.scratch.clear();
        while self.scratch.len() < PACKETS_MAX.min(tx.room())
            && let Some(next) = egress.next_waiting(now)
        {
            self.scratch.push(next);
        }
        // They waited in the order they came; the arranger takes stream by stream.
        self.scratch.sort_unstable_by_key(|(admitted, due)| (due.stream, admitted.index()));
        self.admitted.extend(self.scratch.iter().map(|(admitted, _)| *admitted));
        self.due.extend(self.scratch.iter().map(|(_, due)| *due));
        self.order(egress);
        self.write(now, tracks, (egress, outlet), discards, tx);
        while !is_behind && tx.has_room() && egress.is_padding_due(now) && egress.write_padding(now, tracks, outlet, tx)
        {
        }
        resent
    }

    /// Writes what is left, in order. `false`: the batch is full, send it and call again.
    pub fn write(
        &mut self,
        now: Instant,
        tracks: &Tracks,
        (egress, outlet): (&mut Egress, &Outlet<'_>),
        discards: &mut Discards,
        tx: &mut TxBatch,
    ) -> bool {
        let mut track: Option<&Track> = None;
        for place in &self.arranger.places()[self.written..] {
            if !tx.has_room() {
                return false;
            }
            self.written += 1;
            let admitted = &self.admitted[usize::from(place.at)];
            if track.is_none_or(|track| track.key != admitted.track) {
                track = tracks.track(admitted.track);
            }
            let result = match track.and_then(|track| track.packet(admitted.encoding, admitted.seq)) {
                Some(packet) => egress.write(now, admitted, place.padding, &packet, outlet, tx),
                None => Err(Discard::TooOld),
            };
            match result {
                Ok(()) => {
                    self.packets += 1;
                    self.trains.padding_bytes += u64::from(place.padding);
                }
                Err(discard) => discards.count(discard),
            }
        }
        self.clear();
        true
    }

    /// Gives up what is not written.
    pub fn clear(&mut self) {
        self.session = None;
        self.admitted.clear();
        self.due.clear();
        self.arranger.clear();
        self.written = 0;
    }
}
