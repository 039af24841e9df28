//! Which packets of an ingress stream are missing, and when to ask for them (RFC 4585 §6.2.1).
//!
//! Owns: what arrived of the last [`RING_PACKETS`] packets of one ssrc, and the list of the missing.
//! Promises: bounded memory; every missing packet is asked for at most [`ASKS_MAX`] times.
//! Forbids: writing the NACK (`wire::rtcp`) and extending sequence numbers (`base::seq`).

use std::time::{Duration, Instant};

/// How far back a packet is remembered and asked for: 1 to 2 s of a 5 Mbit/s video, beyond what a sender keeps.
pub const RING_PACKETS: u64 = 1024;

/// The most missing packets tracked at once, a third of a NACK-only datagram; the oldest is given up for a newer one.
const MISSING_MAX: usize = 512;

/// Reordering on real paths is mostly within this time, so a gap this young may still close by itself.
const REORDER_WAIT: Duration = Duration::from_millis(20);

/// What a path with more reordering is given at most: a repair that waits longer comes too late for a call.
const REORDER_WAIT_MAX: Duration = Duration::from_millis(80);

/// A path is taken to have calmed down by half when nothing came late for this time.
const REORDER_MEMORY: Duration = Duration::from_secs(2);

/// RFC 5681 §3.2 takes three later segments for a loss; what that many packets overtook is asked for at once.
const REORDER_PACKETS: u64 = 3;

/// How often one packet is asked for: with backoff this is over a second, after which a keyframe is the better help.
pub const ASKS_MAX: u8 = 10;

/// Shortest time between two asks, so that a low or unknown round trip makes no storm.
const ASK_INTERVAL_MIN: Duration = Duration::from_millis(40);

/// Asks in vain are not further apart than this, unless the round trip itself is longer.
const ASK_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Longest round trip that is waited for: twice that of a geostationary satellite.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1200);

/// What a packet's arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The newest so far.
    New,
    /// Fills a gap: reordered or recovered by retransmission.
    Late,
    /// Seen before, or too old to tell.
    Duplicate,
}

/// The arrival register of one ingress ssrc.
#[derive(Debug, Default)]
pub struct NackRegister {
    highest: Option<u64>,
    /// One bit for each of the last [`RING_PACKETS`] sequence numbers, set when it arrived.
    arrived: [u64; RING_PACKETS as usize / 64],
    /// Ascending by sequence number; grows to its bound and is never given back.
    missing: Vec<Missing>,
    counters: NackCounters,
    reordering: Reordering,
}

/// How late packets come of themselves, as seen.
#[derive(Clone, Copy, Debug, Default)]
struct Reordering {
    /// Zero on a path that keeps the order.
    wait: Duration,
    seen_at: Option<Instant>,
    /// Retransmissions come under an ssrc of their own, so that a late original is one.
    has_rtx: bool,
}

/// What became of the missing packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackCounters {
    /// Sequence numbers asked for, repetitions included.
    pub asked: u64,
    /// Packets that came after they had been asked for.
    pub recovered: u64,
    /// Packets given up: asked for too often, too far back, or pushed out by newer ones.
    pub given_up: u64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    since: Instant,
    next_ask: Instant,
    asks: u8,
}

impl NackRegister {
    /// A register that has seen nothing; what came before the first packet is not missing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the arrival of a packet that was sent again (RFC 4588), by its original extended sequence number.
    pub fn handle_retransmission(&mut self, now: Instant, seq: u64) -> Arrival {
        self.reordering.has_rtx = true;
        match self.highest.filter(|highest| seq <= *highest) {
            Some(highest) => self.handle_old(highest, seq).0,
            None => self.handle_packet(now, seq),
        }
    }

    /// Notes the arrival of a packet by its extended sequence number.
    pub fn handle_packet(&mut self, now: Instant, seq: u64) -> Arrival {
        let Some(highest) = self.highest else {
            self.restart(seq);
            return Arrival::New;
        };
        if seq <= highest {
            let (arrival, missing) = self.handle_old(highest, seq);
            if let Some(missing) = missing {
                self.reordering.handle_late(now, &missing);
            }
            return arrival;
        }
        // No one retransmits a gap wider than the ring; it is a new beginning.
        if seq - highest > RING_PACKETS {
            self.restart(seq);
            return Arrival::New;
        }
        for missing in highest + 1..seq {
            self.set_arrived(missing, false);
            self.missing.push(Missing { seq: missing, since: now, next_ask: now + REORDER_WAIT, asks: 0 });
        }
        self.set_arrived(seq, true);
        self.highest = Some(seq);
        let too_far_back = self.missing.partition_point(|missing| missing.seq + RING_PACKETS <= seq);
        let given_up = too_far_back.max(self.missing.len().saturating_sub(MISSING_MAX));
        self.missing.drain(..given_up);
        self.counters.given_up += given_up as u64;
        Arrival::New
    }

    /// Writes the sequence numbers to ask for now, ascending, and returns how many. What finds no room in `out` is
    /// due again at the next call.
    pub fn poll_nack(&mut self, now: Instant, rtt: Duration, out: &mut [u16]) -> usize {
        let Some(highest) = self.highest else { return 0 };
        self.reordering.forget(now);
        let (counters, reordering, mut len) = (&mut self.counters, self.reordering, 0);
        self.missing.retain_mut(|missing| {
            if missing.due(highest, reordering.wait) > now {
                return true;
            }
            if missing.asks >= ASKS_MAX {
                counters.given_up += 1;
                return false;
            }
            if let Some(slot) = out.get_mut(len) {
                *slot = missing.seq as u16;
                len += 1;
                missing.next_ask = now + ask_interval(rtt, missing.asks);
                missing.asks += 1;
                counters.asked += 1;
            }
            true
        });
        len
    }

    /// When [`poll_nack`](Self::poll_nack) has something to do next; may lie in the past.
    pub fn next_timeout(&self) -> Option<Instant> {
        let highest = self.highest?;
        self.missing.iter().map(|missing| missing.due(highest, self.reordering.wait)).min()
    }

    /// What became of the missing packets so far.
    pub fn counters(&self) -> NackCounters {
        self.counters
    }

    /// What it means, and what was known of it as missing.
    fn handle_old(&mut self, highest: u64, seq: u64) -> (Arrival, Option<Missing>) {
        if highest - seq >= RING_PACKETS || self.has_arrived(seq) {
            return (Arrival::Duplicate, None);
        }
        self.set_arrived(seq, true);
        let at = self.missing.binary_search_by_key(&seq, |missing| missing.seq);
        let missing = at.ok().map(|at| self.missing.remove(at));
        self.counters.recovered += u64::from(missing.is_some_and(|missing| missing.asks > 0));
        (Arrival::Late, missing)
    }

    fn restart(&mut self, seq: u64) {
        self.counters.given_up += self.missing.len() as u64;
        self.missing.clear();
        self.arrived.fill(0);
        self.set_arrived(seq, true);
        self.highest = Some(seq);
    }

    fn has_arrived(&self, seq: u64) -> bool {
        let (word, bit) = position(seq);
        self.arrived[word] >> bit & 1 == 1
    }

    fn set_arrived(&mut self, seq: u64, has_arrived: bool) {
        let (word, bit) = position(seq);
        self.arrived[word] = self.arrived[word] & !(1 << bit) | u64::from(has_arrived) << bit;
    }
}

impl Missing {
    /// When to ask: what enough packets overtook after the time that the path has shown to reorder by, which is none on
    /// most; anything else after [`REORDER_WAIT`] at least.
    fn due(&self, highest: u64, reorder_wait: Duration) -> Instant {
        match self.asks {
            0 if highest - self.seq >= REORDER_PACKETS => self.since + reorder_wait,
            0 => self.since + reorder_wait.max(REORDER_WAIT),
            _ => self.next_ask,
        }
    }
}

impl Reordering {
    /// A packet that had been missed came of itself. Where retransmissions come under the same ssrc, one that was asked
    /// for says nothing.
    fn handle_late(&mut self, now: Instant, missing: &Missing) {
        if missing.asks > 0 && !self.has_rtx {
            return;
        }
        let late = now.saturating_duration_since(missing.since);
        if late <= REORDER_WAIT && missing.asks == 0 && self.wait.is_zero() {
            // It was waited for long enough as it is.
            return;
        }
        // A quarter more: what comes a little later is as likely.
        let late = (late * 5 / 4).min(REORDER_WAIT_MAX);
        self.wait = self.wait.max(late);
        if late * 2 > self.wait {
            self.seen_at = Some(now);
        }
    }

    fn forget(&mut self, now: Instant) {
        if self.seen_at.is_some_and(|at| now.saturating_duration_since(at) >= REORDER_MEMORY) {
            self.wait /= 2;
            self.seen_at = Some(now).filter(|_| self.wait >= REORDER_WAIT / 4);
            if self.seen_at.is_none() {
                self.wait = Duration::ZERO;
            }
        }
    }
}

/// Word and bit of a sequence number in the ring.
fn position(seq: u64) -> (usize, u64) {
    let slot = seq % RING_PACKETS;
    ((slot / 64) as usize, slot % 64)
}

/// One round trip until an answer can be here, an eighth more for the path's jitter; doubled after every second ask in
/// vain.
fn ask_interval(rtt: Duration, asks_before: u8) -> Duration {
    let first = (rtt.min(ROUND_TRIP_MAX) * 9 / 8).max(ASK_INTERVAL_MIN);
    (first * (1 << (asks_before / 2).min(4))).min(ASK_INTERVAL_MAX.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn asked(register: &mut NackRegister, now: Instant) -> Vec<u16> {
        let mut out = [0; 64];
        let len = register.poll_nack(now, RTT, &mut out);
        out[..len].to_vec()
    }

    fn with_packets(now: Instant, seqs: &[u64]) -> NackRegister {
        let mut register = NackRegister::new();
        for &seq in seqs {
            assert_eq!(register.handle_packet(now, seq), Arrival::New);
        }
        register
    }

    #[test]
    fn nothing_is_missing_in_an_unbroken_stream() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[65_535, 65_536, 65_537]);
        assert_eq!((register.next_timeout(), asked(&mut register, t0 + ms(500))), (None, vec![]));
    }

    #[test]
    fn a_young_gap_is_given_time_to_close() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[65_534, 65_537]);
        assert!(asked(&mut register, t0 + ms(19)).is_empty());
        assert_eq!(register.next_timeout(), Some(t0 + ms(20)));
        assert_eq!(register.handle_packet(t0 + ms(19), 65_536), Arrival::Late);
        assert_eq!(asked(&mut register, t0 + ms(20)), [65_535]);
        assert_eq!(register.counters(), NackCounters { asked: 1, recovered: 0, given_up: 0 });
    }

    #[test]
    fn what_three_packets_overtook_is_asked_for_at_once() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[1, 3, 4]);
        assert!(asked(&mut register, t0).is_empty());
        register.handle_packet(t0, 5);
        assert!(register.next_timeout() <= Some(t0));
        assert_eq!(asked(&mut register, t0), [2]);
        assert!(asked(&mut register, t0).is_empty());
    }

    #[test]
    fn a_packet_is_asked_for_again_after_a_round_trip_and_ten_times_at_most() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[1, 5]);
        register.handle_packet(t0, 3);
        register.handle_packet(t0, 4);
        let mut times = vec![];
        while let Some(due) = register.next_timeout() {
            let now = due.max(t0);
            if asked(&mut register, now) == [2] {
                times.push((now - t0).as_millis());
            }
        }
        assert_eq!(times, [0, 56, 112, 225, 337, 562, 787, 1237, 1687, 2187]);
        assert_eq!(register.counters(), NackCounters { asked: 10, recovered: 0, given_up: 1 });
        // It is still good when it comes at last.
        assert_eq!(register.handle_packet(t0 + ms(3000), 2), Arrival::Late);
    }

    #[test]
    fn a_path_that_reorders_is_given_the_time_it_takes_and_forgiven() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[1, 5]);
        assert_eq!(register.handle_retransmission(t0, 2), Arrival::Late);
        assert!(asked(&mut register, t0).is_empty());
        register.handle_packet(t0, 6);
        assert_eq!(asked(&mut register, t0), [3], "overtaken by three");
        // It was under way: 40 ms late, and asked for in vain.
        assert_eq!(register.handle_packet(t0 + ms(40), 3), Arrival::Late);
        register.handle_packet(t0 + ms(40), 4);
        register.handle_packet(t0 + ms(100), 10);
        assert!(asked(&mut register, t0 + ms(149)).is_empty());
        assert_eq!(asked(&mut register, t0 + ms(150)), [7, 8, 9]);
        [7, 8, 9].iter().for_each(|seq| assert_eq!(register.handle_retransmission(t0 + ms(200), *seq), Arrival::Late));
        // It keeps the order for a while.
        for second in 1..12 {
            asked(&mut register, t0 + ms(1000 * second));
        }
        register.handle_packet(t0 + ms(12_000), 14);
        assert_eq!(asked(&mut register, t0 + ms(12_000)), [11]);
    }

    #[test]
    fn what_comes_again_under_the_same_ssrc_is_not_taken_for_reordering() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[1, 3, 4, 5]);
        assert_eq!(asked(&mut register, t0), [2]);
        assert_eq!(register.handle_packet(t0 + ms(70), 2), Arrival::Late);
        register.handle_packet(t0 + ms(70), 9);
        assert_eq!(asked(&mut register, t0 + ms(70)), [6], "at once");
    }

    #[test]
    fn a_recovered_packet_is_not_asked_for_again() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[1, 2, 4, 5, 6]);
        assert_eq!(asked(&mut register, t0), [3]);
        assert_eq!(register.handle_packet(t0 + ms(30), 3), Arrival::Late);
        assert_eq!(register.handle_packet(t0 + ms(31), 3), Arrival::Duplicate);
        assert_eq!((register.next_timeout(), register.counters().recovered), (None, 1));
    }

    #[test]
    fn a_packet_behind_the_ring_cannot_be_told_from_a_duplicate() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[10, 10 + RING_PACKETS]);
        assert_eq!(register.handle_packet(t0, 10), Arrival::Duplicate);
        assert_eq!(register.handle_packet(t0, 11), Arrival::Late);
        assert_eq!(register.handle_packet(t0, 11), Arrival::Duplicate);
    }

    #[test]
    fn a_gap_is_not_filled_by_the_lap_before() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &(0..RING_PACKETS).collect::<Vec<_>>());
        register.handle_packet(t0, RING_PACKETS + 2);
        assert_eq!(register.handle_packet(t0, RING_PACKETS + 1), Arrival::Late);
        assert_eq!(asked(&mut register, t0 + ms(20)), [RING_PACKETS as u16]);
    }

    #[test]
    fn a_packet_from_before_the_first_is_late_but_was_not_missing() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[10, 11]);
        assert_eq!(register.next_timeout(), None);
        assert_eq!(register.handle_packet(t0, 9), Arrival::Late);
        assert_eq!(register.handle_packet(t0, 9), Arrival::Duplicate);
    }

    #[test]
    fn a_jump_wider_than_the_ring_starts_anew() {
        let t0 = crate::runtime::clock::now();
        let register = with_packets(t0, &[1, 3, 4 + RING_PACKETS]);
        assert_eq!(register.next_timeout(), None);
        assert_eq!(register.counters().given_up, 1);
    }

    #[test]
    fn the_list_of_the_missing_is_bounded_and_keeps_the_newest() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[0, 1000]);
        let mut out = [0; 1024];
        assert_eq!(register.poll_nack(t0 + ms(20), RTT, &mut out), MISSING_MAX);
        assert_eq!((out[0], out[MISSING_MAX - 1]), (488, 999));
        // Those that leave the ring are given up.
        register.handle_packet(t0 + ms(21), 1001 + RING_PACKETS - 10);
        assert_eq!(register.missing.len(), MISSING_MAX);
        assert!(register.missing[0].seq > 1000);
    }

    #[test]
    fn what_finds_no_room_is_asked_for_next() {
        let t0 = crate::runtime::clock::now();
        let mut register = with_packets(t0, &[0, 10]);
        let mut out = [0; 6];
        assert_eq!(register.poll_nack(t0 + ms(20), RTT, &mut out), 6);
        assert_eq!(asked(&mut register, t0 + ms(20)), [7, 8, 9]);
    }

    #[test]
    fn the_interval_stays_within_its_bounds() {
        assert_eq!(ask_interval(Duration::ZERO, 0), ASK_INTERVAL_MIN);
        assert_eq!(ask_interval(ms(100), 255), ASK_INTERVAL_MAX);
        assert_eq!(ask_interval(ms(600), 3), ms(675), "no answer can be here sooner");
        assert_eq!(ask_interval(Duration::MAX, 255), ROUND_TRIP_MAX * 9 / 8);
    }
}
