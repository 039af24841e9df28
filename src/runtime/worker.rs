//! A worker core with its queues: what the loop drives.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::run::Turn;
use crate::base::batch::{RxDatagram, TxBatch};
use crate::base::ids::WorkerId;
use crate::net::IoCounters;
use crate::worker::command::{Command, Event, IoNumbers};
use crate::worker::core::WorkerCore;

/// Portions of commands taken while a turn's datagrams are read, besides the one before them.
const LATE_PORTIONS_MAX: usize = 4;

/// See the module.
pub struct Worker {
    core: WorkerCore,
    id: WorkerId,
    commands: Receiver<Command>,
    events: Sender<(WorkerId, Event)>,
    /// Of [`LATE_PORTIONS_MAX`], in this turn.
    late_portions: usize,
}

impl Worker {
    /// Joins a core and its queues.
    pub fn new(id: WorkerId, core: WorkerCore, commands: Receiver<Command>, events: Sender<(WorkerId, Event)>) -> Self {
        Self { core, id, commands, events, late_portions: 0 }
    }

    /// Tells control what is new; what finds no room waits in the core for the next turn.
    fn flush_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match self.events.try_send((self.id, event)) {
                Ok(()) => {}
                Err(TrySendError::Full((_, event))) => {
                    self.core.return_event(event);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

impl Turn for Worker {
    fn handle_commands(&mut self, now: Instant, tx: &mut TxBatch) {
        self.late_portions = 0;
        self.core.handle_commands(now, || self.commands.try_recv().ok(), tx);
    }

    fn handle_lanes(&mut self, now: Instant, tx: &mut TxBatch) {
        self.core.handle_lanes(now, tx);
    }

    fn handle_timeout(&mut self, now: Instant, tx: &mut TxBatch) {
        self.core.handle_timeout(now, tx);
    }

    fn handle_datagram(&mut self, now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch) {
        // A peer's first check may overtake the command that opens its session, as both were under way when the turn
        // began; refused it would come again only half a second later (RFC 8489 §6.2.1).
        if self.late_portions < LATE_PORTIONS_MAX && !self.commands.is_empty() {
            self.late_portions += 1;
            self.core.handle_commands(now, || self.commands.try_recv().ok(), tx);
        }
        self.core.handle_datagram(now, datagram, tx);
    }

    fn has_enough_work(&self) -> bool {
        self.core.has_enough_work()
    }

    fn forward(&mut self, now: Instant, tx: &mut TxBatch) -> bool {
        let is_done = self.core.forward(now, tx);
        self.flush_events();
        is_done
    }

    fn impair(&mut self, now: Instant, tx: &mut TxBatch) {
        self.core.impair(now, tx);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.core.next_timeout()
    }

    fn take_wakes(&mut self) -> u64 {
        self.core.take_wakes()
    }

    fn has_pending_input(&self) -> bool {
        !self.commands.is_empty() || self.core.has_lane_items()
    }

    fn handle_load(&mut self, now: Instant, cpu_time: Duration) {
        self.core.handle_load(now, cpu_time);
    }

    fn is_stopped(&self) -> bool {
        self.core.is_stopped()
    }

    fn note_io(&mut self, io: IoCounters) {
        self.core.note_io(IoNumbers {
            datagrams_received: io.rx_datagrams,
            datagrams_sent: io.tx_datagrams,
            bytes_received: io.rx_bytes,
            bytes_sent: io.tx_bytes,
            trains_sent: io.tx_trains,
            train_datagrams_sent: io.tx_train_datagrams,
            trains_received: io.rx_trains,
            train_datagrams_received: io.rx_train_datagrams,
            turns: io.turns,
            enters: io.enters,
            errors: vec![
                ("tx_train_refused", io.tx_trains_refused),
                ("rx_truncated", io.rx_truncated),
                ("rx_malformed", io.rx_malformed),
                ("rx_starved", io.rx_starved),
                ("rx_error", io.rx_errors),
                ("tx_would_block", io.tx_would_block),
                ("tx_no_buffers", io.tx_no_buffers),
                ("tx_refused", io.tx_refused),
                ("tx_unreachable", io.tx_unreachable),
                ("tx_too_long", io.tx_too_long),
                ("tx_no_socket", io.tx_no_socket),
                ("tx_other", io.tx_other),
            ],
        });
    }
}
