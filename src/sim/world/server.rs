//! The server's half of the world: which worker hears a datagram, its turns, what leaves it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::{Happening, Inbound, PORT, TAPPED_MAX, World};
use crate::base::batch::{Path, RxDatagram, TxBatch};
use crate::base::ids::WorkerId;
use crate::room::api::Notice;
use crate::room::hub::Output;
use crate::sim::media::PeerNo;
use crate::sim::oracle::hash_of;
use crate::worker::command::Event;
use crate::worker::core::WorkerCore;

/// Datagrams of one worker turn, as in the loop.
const DATAGRAMS_PER_TURN_MAX: usize = 256;
/// A worker that takes so many turns without time going by spins.
const TURNS_AT_ONCE_MAX: u32 = 10_000;

impl World {
    /// The kernel chooses a socket of the port's group by a hash of the addresses.
    pub(super) fn worker_of(&self, from: SocketAddr, to: SocketAddr) -> usize {
        if self.config.has_own_ports {
            return usize::from(to.port() - PORT);
        }
        let hash = hash_of(format!("{} {from} {}", self.config.seed, to.ip()).as_bytes());
        (hash % self.workers.len() as u64) as usize
    }

    /// A datagram that no peer of ours sent arrives at the server now.
    pub fn inject(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        let to = SocketAddr::new(self.config.addresses[0], PORT);
        self.push(self.now, Happening::ToServer(Inbound { from, to, bytes, came_at: self.now, is_genuine: false }));
    }

    /// A peer sends a datagram.
    pub(super) fn send(&mut self, peer: PeerNo, to: SocketAddr, bytes: Vec<u8>) {
        let from = self.nat.mapped(peer);
        let ports = if self.config.has_own_ports { self.workers.len() as u16 } else { 1 };
        if !(PORT..PORT + ports).contains(&to.port()) || !self.config.addresses.contains(&to.ip()) {
            self.unreachable += 1;
            return;
        }
        if self.tapped.len() == TAPPED_MAX {
            self.tapped.pop_front();
        }
        self.tapped.push_back((from, bytes.clone()));
        if let Some(at) = self.seats[peer.0].up.pass(self.now, &mut self.rng, &bytes) {
            self.push(at, Happening::ToServer(Inbound { from, to, bytes, came_at: at, is_genuine: true }));
        }
    }

    pub(super) fn receive(&mut self, inbound: Inbound) {
        // RFC 8489 §5: a Binding request begins so.
        if inbound.is_genuine && inbound.bytes.starts_with(&[0, 1]) {
            self.oracle.handle_check(inbound.from, inbound.to.ip());
        }
        self.oracle.handle_inbound(inbound.from, inbound.bytes.len());
        let worker = self.worker_of(inbound.from, inbound.to);
        self.workers[worker].inbox.push_back(inbound);
        self.wake(worker);
    }

    pub(super) fn wake(&mut self, worker: usize) {
        if self.workers[worker].turn_at.is_none() {
            let lag = Duration::from_nanos(self.rng.random_range(0..=self.config.lag_max.as_nanos() as u64));
            let at = self.now.max(self.workers[worker].busy_until) + lag;
            self.workers[worker].turn_at = Some(at);
            self.push(at, Happening::Turn(worker));
        }
    }

    /// One turn of a worker, in the order of `runtime::run`.
    pub(super) fn turn(&mut self, index: usize) {
        let now = self.now;
        self.check_spin(index);
        let worker = &mut self.workers[index];
        let mut sent = Vec::new();
        let tx = &mut self.tx;
        if self.config.is_busy {
            worker.core.handle_load(now, now - self.start);
        }
        for command in worker.commands.drain(..) {
            worker.core.apply(now, command, tx);
            flush(now, &mut worker.core, tx, &mut sent);
        }
        worker.core.handle_lanes(now, tx);
        flush(now, &mut worker.core, tx, &mut sent);
        worker.core.handle_timeout(now, tx);
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            flush(now, &mut worker.core, tx, &mut sent);
            if worker.core.has_enough_work() {
                break;
            }
            let Some(mut inbound) = worker.inbox.pop_front() else { break };
            let path = Path { remote: inbound.from, local: inbound.to.ip() };
            let waited = now.saturating_duration_since(inbound.came_at);
            worker.core.handle_datagram(now, RxDatagram { path, bytes: &mut inbound.bytes, waited }, tx);
        }
        let is_done = worker.core.forward(now, tx);
        flush(now, &mut worker.core, tx, &mut sent);
        let mut events = Vec::new();
        while let Some(event) = worker.core.poll_event() {
            if let Event::Report(report) = &event {
                worker.report = (**report).clone();
            }
            events.push(event);
        }
        worker.busy_until = now + self.config.send_cost * sent.len() as u32;
        let wakes = worker.core.take_wakes();
        let has_more = !is_done || !worker.inbox.is_empty() || worker.core.has_lane_items();
        let told_at = now + self.config.lag_max;
        for event in events {
            self.push(told_at, Happening::Event(WorkerId(index as u8), event));
        }
        sent.into_iter().for_each(|(path, bytes)| self.leave_server(index, path, bytes));
        for other in (0..self.workers.len()).filter(|other| wakes & (1 << other) != 0) {
            self.wake(other);
        }
        if has_more {
            self.wake(index);
        }
    }

    pub(super) fn check_spin(&mut self, index: usize) {
        let (at, turns) = &mut self.workers[index].turns_at_once;
        *turns = if *at == Some(self.now) { *turns + 1 } else { 0 };
        *at = Some(self.now);
        let next = self.workers[index].core.next_timeout().map(|at| at.saturating_duration_since(self.start));
        assert!(self.workers[index].turns_at_once.1 < TURNS_AT_ONCE_MAX, "worker {index} spins; next timeout {next:?}");
    }

    pub(super) fn leave_server(&mut self, worker: usize, path: Path, bytes: Vec<u8>) {
        let peer = self.nat.owner(path.remote);
        self.oracle.handle_outbound(path, peer, &bytes);
        self.note(&format!("{path:?} {}", hash_of(&bytes)));
        let Some(peer) = peer else { return };
        if let Some(at) = self.seats[peer.0].down.pass(self.now, &mut self.rng, &bytes) {
            let port = PORT + if self.config.has_own_ports { worker as u16 } else { 0 };
            self.push(at, Happening::ToPeer { from: SocketAddr::new(path.local, port), to: path.remote, bytes });
        }
    }

    /// Puts a decision of the server into the trace.
    pub(super) fn note(&mut self, decision: &str) {
        let line = format!("{} {} {decision}", self.trace, (self.now - self.start).as_nanos());
        self.trace = hash_of(line.as_bytes());
    }

    /// Carries out what the hub wants, as `room::control` does.
    pub(super) fn dispatch(&mut self) {
        while let Some(output) = self.hub.poll_output(self.now) {
            // Our certificate is made anew in each run, and offers name it.
            if !matches!(output, Output::ToPeer(_, Notice::Offer { .. })) {
                self.note(&format!("{output:?}"));
            }
            match output {
                Output::ToWorker(WorkerId(worker), command) => {
                    self.workers[usize::from(worker)].commands.push_back(*command);
                    self.wake(usize::from(worker));
                }
                Output::ToPeer(id, notice) => {
                    let peer = self.seats.iter().position(|seat| seat.id == id);
                    if let Some(peer) = peer {
                        self.push(self.now + self.config.signalling_delay, Happening::Notice(PeerNo(peer), notice));
                    }
                }
                Output::ToWatchers(_) => {}
            }
        }
    }
}

fn flush(now: Instant, core: &mut WorkerCore, tx: &mut TxBatch, sent: &mut Vec<(Path, Vec<u8>)>) {
    core.impair(now, tx);
    sent.extend(tx.entries().iter().map(|entry| (entry.path, tx.bytes(entry).to_vec())));
    tx.clear();
}
