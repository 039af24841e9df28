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

/// RFC 5681 §3.2 takes three later segments for a loss; what that many packets overtook is asked for at once.
const REORDER_PACKETS: u64 = 3;

/// How often one packet is asked for: with backoff this is over a second, after which a keyframe is the better help.
pub const ASKS_MAX: u8 = 10;

/// Shortest time between two asks, so that a low or unknown round trip makes no storm.
const ASK_INTERVAL_MIN: Duration = Duration::from_millis(40);

/// Longest time between two asks; a picture that waited longer is not worth the repair.
const ASK_INTERVAL_MAX: Duration = Duration::from_millis(500);

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
    next_ask: Instant,
    asks: u8,
}

impl NackRegister {
    /// A register that has seen nothing; what came before the first packet is not missing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the arrival of a packet by its extended sequence number.
    pub fn handle_packet(&mut self, now: Instant, seq: u64) -> Arrival {
        let Some(highest) = self.highest else {
            self.restart(seq);
            return Arrival::New;
        };
        if seq <= highest {
            return self.handle_old(highest, seq);
        }
        // No one retransmits a gap wider than the ring; it is a new beginning.
        if seq - highest > RING_PACKETS {
            self.restart(seq);
            return Arrival::New;
        }
        for missing in highest + 1..seq {
            self.set_arrived(missing, false);
            self.missing.push(Missing { seq: missing, next_ask: now + REORDER_WAIT, asks: 0 });
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
        let (counters, mut len) = (&mut self.counters, 0);
        self.missing.retain_mut(|missing| {
            if missing.due(highest) > now {
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
        self.missing.iter().map(|missing| missing.due(highest)).min()
    }

    /// What became of the missing packets so far.
    pub fn counters(&self) -> NackCounters {
        self.counters
    }

    fn handle_old(&mut self, highest: u64, seq: u64) -> Arrival {
        if highest - seq >= RING_PACKETS || self.has_arrived(seq) {
            return Arrival::Duplicate;
        }
        self.set_arrived(seq, true);
        if let Ok(index) = self.missing.binary_search_by_key(&seq, |missing| missing.seq) {
            let missing = self.missing.remove(index);
            self.counters.recovered += u64::from(missing.asks > 0);
        }
        Arrival::Late
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
    fn due(&self, highest: u64) -> Instant {
        let is_overtaken = self.asks == 0 && highest - self.seq >= REORDER_PACKETS;
        if is_overtaken { self.next_ask - REORDER_WAIT } else { self.next_ask }
    }
}

/// Word and bit of a sequence number in the ring.
fn position(seq: u64) -> (usize, u64) {
    let slot = seq % RING_PACKETS;
    ((slot / 64) as usize, slot % 64)
}

/// One round trip until an answer can be here; doubled after every second ask in vain.
fn ask_interval(rtt: Duration, asks_before: u8) -> Duration {
    let first = rtt.clamp(ASK_INTERVAL_MIN, ASK_INTERVAL_MAX);
    (first * (1 << (asks_before / 2).min(4))).min(ASK_INTERVAL_MAX)
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
        assert_eq!(times, [0, 50, 100, 200, 300, 500, 700, 1100, 1500, 2000]);
        assert_eq!(register.counters(), NackCounters { asked: 10, recovered: 0, given_up: 1 });
        // It is still good when it comes at last.
        assert_eq!(register.handle_packet(t0 + ms(3000), 2), Arrival::Late);
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
        assert_eq!(ask_interval(Duration::MAX, 255), ASK_INTERVAL_MAX);
    }
}
