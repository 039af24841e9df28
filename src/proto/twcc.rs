//! Transport-wide arrival register and its feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Owns: when the last `RING_PACKETS` packets of one peer arrived, of all its streams together.
//! Promises: bounded memory, none before the first packet; each packet is reported once as received, or as not received if it is not here in time
//! (and once more when it comes after all).
//! Forbids: estimating anything; that is the sender's part.

use std::time::{Duration, Instant};

use crate::base::ids::Ssrc;
use crate::base::seq::extend_u16;
use crate::wire::rtcp::{TWCC_DELTA_US, TWCC_REFERENCE_US, TwccHeader, write_twcc};

/// How many arrivals are remembered: two feedback intervals at 100 Mbit/s. A wider jump starts anew.
const RING_PACKETS: u64 = 1024;

/// libwebrtc's own default: often enough for its estimator, about 1 % of a video's rate.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// libwebrtc's lower bound, taken when much arrives: its estimator reacts faster and the share stays the same.
const FEEDBACK_INTERVAL_BUSY: Duration = Duration::from_millis(50);

/// From here on it is busy: 500 packets a second, 4 Mbit/s or more.
const BUSY_PACKETS: u64 = 25;

/// Reported at once from here on, so that no arrival is overwritten before it was reported.
const PENDING_MAX: u64 = RING_PACKETS / 2;

/// The most packets one feedback speaks of; at worst it then takes 1,188 bytes, which every path carries.
const STATUSES_MAX: usize = 511;

/// Losses in front of the first arrival that one feedback speaks of; older ones were a standstill, not congestion.
const LEADING_LOSSES_MAX: u64 = STATUSES_MAX as u64 / 2;

/// Ticks of the reference time.
const TICKS_PER_REFERENCE: u64 = TWCC_REFERENCE_US / TWCC_DELTA_US;

/// Where a slot holds no arrival.
const ABSENT: u64 = u64::MAX;

/// The arrivals of one peer's packets by their transport-wide sequence number.
#[derive(Debug)]
pub struct TwccRegister {
    /// Arrival ticks of [`TWCC_DELTA_US`] since `epoch`, by sequence number modulo the ring; empty until a packet came,
    /// for most peers only listen.
    arrivals: Box<[u64]>,
    /// Of the first packet: the zero of the reference time.
    epoch: Option<Instant>,
    /// Highest extended sequence number; it has always arrived.
    highest: u64,
    /// First one not reported yet; one above `highest` when all are.
    unreported: u64,
    /// When the oldest unreported packet arrived.
    pending_since: Option<Instant>,
    feedback_count: u8,
}

impl Default for TwccRegister {
    fn default() -> Self {
        Self::new()
    }
}

impl TwccRegister {
    /// A register that has seen nothing.
    pub fn new() -> Self {
        Self {
            arrivals: Box::default(),
            epoch: None,
            highest: 0,
            unreported: 0,
            pending_since: None,
            feedback_count: 0,
        }
    }

    /// Notes the arrival of a packet.
    pub fn handle_packet(&mut self, now: Instant, twcc_seq: u16) {
        let Some(epoch) = self.epoch else {
            self.epoch = Some(now);
            self.arrivals = vec![ABSENT; RING_PACKETS as usize].into_boxed_slice();
            // One lap up, so that what was sent before the first arrival has a number as well.
            self.restart(now, u64::from(twcc_seq) + 0x1_0000);
            self.set_arrival(self.highest, 0);
            return;
        };
        let seq = extend_u16(self.highest, twcc_seq);
        if seq > self.highest {
            if seq - self.highest >= RING_PACKETS {
                self.restart(now, seq);
            }
            for missing in self.highest + 1..seq {
                self.set_arrival(missing, ABSENT);
            }
            self.highest = seq;
            // Where nobody polled for a whole ring, the slots of the oldest are taken.
            self.unreported = self.unreported.max(seq + 1 - RING_PACKETS);
        } else if self.highest - seq >= RING_PACKETS || self.arrival(seq) != ABSENT {
            return;
        }
        self.set_arrival(seq, now.saturating_duration_since(epoch).as_micros() as u64 / TWCC_DELTA_US);
        // Reported as lost before: speak of it again. The sender takes the better news.
        self.unreported = self.unreported.min(seq);
        self.pending_since.get_or_insert(now);
    }

    /// Writes the next feedback packet if it is due. Call it until it returns `None`: what does not fit one packet
    /// comes in the next. `out` should have 1,200 bytes; with less, a packet speaks of less.
    pub fn poll_feedback(&mut self, now: Instant, sender: Ssrc, media: Ssrc, out: &mut [u8]) -> Option<usize> {
        if self.next_timeout()? > now {
            return None;
        }
        let mut statuses = [None; STATUSES_MAX];
        // 20 bytes of header, at most 3 of padding and 2 for a last chunk; else 7 packets take at most 16 bytes.
        let limit = (out.len().saturating_sub(25) / 16 * 7).min(STATUSES_MAX);
        let first_arrived = (self.unreported..=self.highest).find(|&seq| self.arrival(seq) != ABSENT)?;
        let leading_max = LEADING_LOSSES_MAX.min(limit as u64 / 2);
        let base = self.unreported.max(first_arrived.saturating_sub(leading_max));
        let reference_time = self.arrival(first_arrived) / TICKS_PER_REFERENCE;

        let (mut previous, mut len) = (reference_time * TICKS_PER_REFERENCE, 0);
        for (status, seq) in statuses.iter_mut().take(limit).zip(base..=self.highest) {
            let arrival = self.arrival(seq);
            if arrival != ABSENT {
                // A delta beyond 16 bits needs another reference time: it begins the next packet.
                let Ok(delta) = i16::try_from(arrival as i64 - previous as i64) else { break };
                *status = Some(delta);
                previous = arrival;
            }
            len += 1;
        }
        let header = TwccHeader {
            sender,
            media,
            base_seq: base as u16,
            status_count: len as u16,
            reference_time: reference_time as u32 & 0x00ff_ffff,
            feedback_count: self.feedback_count,
        };
        let written = write_twcc(out, &header, statuses.get(..len)?)?;
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.unreported = base + len as u64;
        if self.unreported > self.highest {
            self.pending_since = None;
        }
        Some(written)
    }

    /// When the next feedback is due; may lie in the past. `None` when nothing arrived since the last.
    pub fn next_timeout(&self) -> Option<Instant> {
        let interval = match self.highest + 1 - self.unreported {
            PENDING_MAX.. => Duration::ZERO,
            BUSY_PACKETS.. => FEEDBACK_INTERVAL_BUSY,
            _ => FEEDBACK_INTERVAL,
        };
        Some(self.pending_since? + interval)
    }

    fn restart(&mut self, now: Instant, seq: u64) {
        self.arrivals.fill(ABSENT);
        self.highest = seq;
        self.unreported = seq;
        self.pending_since = Some(now);
    }

    fn arrival(&self, seq: u64) -> u64 {
        self.arrivals[(seq % RING_PACKETS) as usize]
    }

    fn set_arrival(&mut self, seq: u64, ticks: u64) {
        self.arrivals[(seq % RING_PACKETS) as usize] = ticks;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};

    use super::*;

    const SENDER: Ssrc = Ssrc(1);
    const MEDIA: Ssrc = Ssrc(2);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Feedback count, and for each packet its arrival in us or `None`.
    type Told = (u8, Vec<(u16, Option<i64>)>);

    /// What another implementation reads.
    fn read(bytes: &[u8]) -> Told {
        let all = rtc_rtcp::packet::unmarshal(&mut &bytes[..]).expect("their parser takes it");
        let feedback = all[0].as_any().downcast_ref::<TransportLayerCc>().expect("feedback");
        let symbols = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; usize::from(run.run_length)],
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        });
        let mut time_us = i64::from(feedback.reference_time) * 64_000;
        let mut deltas = feedback.recv_deltas.iter();
        let statuses = symbols.take(usize::from(feedback.packet_status_count)).enumerate().map(|(at, symbol)| {
            let seq = feedback.base_sequence_number.wrapping_add(at as u16);
            if symbol == SymbolTypeTcc::PacketNotReceived {
                return (seq, None);
            }
            time_us += deltas.next().expect("a delta").delta;
            (seq, Some(time_us))
        });
        (feedback.fb_pkt_count, statuses.collect())
    }

    fn poll(register: &mut TwccRegister, now: Instant) -> Option<Told> {
        let mut out = [0; 1200];
        let len = register.poll_feedback(now, SENDER, MEDIA, &mut out)?;
        Some(read(&out[..len]))
    }

    #[test]
    fn arrivals_and_losses_are_reported_across_the_wrap() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        for (at, seq) in [(0, 65_534), (10, 65_535), (20, 2), (15, 1)] {
            register.handle_packet(t0 + ms(at), seq);
        }
        assert_eq!(register.next_timeout(), Some(t0 + ms(100)));
        assert_eq!(poll(&mut register, t0 + ms(99)), None);
        let expected =
            [(65_534, Some(0)), (65_535, Some(10_000)), (0, None), (1, Some(15_000)), (2, Some(20_000))].to_vec();
        assert_eq!(poll(&mut register, t0 + ms(100)), Some((0, expected)));
        assert_eq!((register.next_timeout(), poll(&mut register, t0 + ms(300))), (None, None));
    }

    #[test]
    fn the_next_feedback_goes_on_where_the_last_ended() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 7);
        assert_eq!(poll(&mut register, t0 + ms(100)), Some((0, vec![(7, Some(0))])));
        register.handle_packet(t0 + ms(200), 9);
        register.handle_packet(t0 + ms(201), 9);
        assert_eq!(poll(&mut register, t0 + ms(300)), Some((1, vec![(8, None), (9, Some(200_000))])));
    }

    #[test]
    fn a_packet_reported_lost_is_reported_again_when_it_comes() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 7);
        register.handle_packet(t0, 9);
        assert!(poll(&mut register, t0 + ms(100)).is_some());
        register.handle_packet(t0 + ms(110), 8);
        // A packet that was reported as received is no news.
        register.handle_packet(t0 + ms(111), 7);
        assert_eq!(poll(&mut register, t0 + ms(210)), Some((1, vec![(8, Some(110_000)), (9, Some(0))])));
    }

    #[test]
    fn a_packet_from_before_the_first_is_reported_too() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 0);
        register.handle_packet(t0 + ms(1), 65_535);
        assert_eq!(poll(&mut register, t0 + ms(100)), Some((0, vec![(65_535, Some(1_000)), (0, Some(0))])));
    }

    #[test]
    fn a_delta_beyond_sixteen_bits_begins_another_packet() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 1);
        register.handle_packet(t0 + ms(9_000), 3);
        assert_eq!(poll(&mut register, t0 + ms(9_000)), Some((0, vec![(1, Some(0)), (2, None)])));
        assert_eq!(poll(&mut register, t0 + ms(9_000)), Some((1, vec![(3, Some(9_000_000))])));
        assert_eq!(poll(&mut register, t0 + ms(9_000)), None);
    }

    #[test]
    fn much_traffic_is_reported_sooner() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        (0..25).for_each(|seq| register.handle_packet(t0, seq));
        assert_eq!(register.next_timeout(), Some(t0 + ms(50)));
        (25..600).for_each(|seq| register.handle_packet(t0, seq));
        assert_eq!(register.next_timeout(), Some(t0));
        assert_eq!(poll(&mut register, t0).map(|(_, statuses)| statuses.len()), Some(STATUSES_MAX));
        assert_eq!(poll(&mut register, t0 + ms(50)).map(|(_, statuses)| statuses.len()), Some(89));
        assert_eq!(poll(&mut register, t0 + ms(50)), None);
    }

    #[test]
    fn a_long_standstill_is_told_by_its_end() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 0);
        assert!(poll(&mut register, t0 + ms(100)).is_some());
        register.handle_packet(t0 + ms(200), 1000);
        let (_, statuses) = poll(&mut register, t0 + ms(300)).expect("feedback");
        assert_eq!((statuses.first(), statuses.last()), (Some(&(745, None)), Some(&(1000, Some(200_000)))));
    }

    #[test]
    fn a_jump_wider_than_the_ring_starts_anew() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        register.handle_packet(t0, 0);
        register.handle_packet(t0 + ms(5), 5000);
        assert_eq!(poll(&mut register, t0 + ms(105)), Some((0, vec![(5000, Some(5_000))])));
    }

    #[test]
    fn a_register_nobody_polls_stays_within_its_ring() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        (0..5000).for_each(|seq| register.handle_packet(t0 + ms(u64::from(seq)), seq));
        let mut told = vec![];
        while let Some((_, statuses)) = poll(&mut register, t0 + ms(5000)) {
            told.extend(statuses);
        }
        let expected: Vec<_> = (3976..5000).map(|seq| (seq, Some(i64::from(seq) * 1000))).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_loss_is_not_filled_by_the_lap_before() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        (0..1024).for_each(|seq| register.handle_packet(t0, seq));
        while poll(&mut register, t0).is_some() {}
        while poll(&mut register, t0 + ms(100)).is_some() {}
        register.handle_packet(t0 + ms(200), 1025);
        let (_, statuses) = poll(&mut register, t0 + ms(300)).expect("feedback");
        assert_eq!(statuses, [(1024, None), (1025, Some(200_000))]);
    }

    #[test]
    fn a_small_buffer_makes_small_packets() {
        let t0 = crate::runtime::clock::now();
        let mut register = TwccRegister::new();
        (0..20).for_each(|seq| register.handle_packet(t0 + ms(400) * u32::from(seq), seq));
        let mut out = [0; 60];
        let mut seqs = vec![];
        while let Some(len) = register.poll_feedback(t0 + ms(9000), SENDER, MEDIA, &mut out) {
            seqs.extend(read(&out[..len]).1.into_iter().map(|(seq, _)| seq));
        }
        assert_eq!(seqs, (0..20).collect::<Vec<u16>>());
        assert!(TwccRegister::new().poll_feedback(t0, SENDER, MEDIA, &mut []).is_none());
    }

    proptest! {
        #[test]
        fn every_arrival_is_reported_with_its_time(
            first: u16,
            packets in proptest::collection::vec((0u64..40, -3i32..6), 1..400),
        ) {
            let t0 = crate::runtime::clock::now();
            let mut register = TwccRegister::new();
            let (mut at, mut seq) = (0, first);
            let epoch_us = packets[0].0 as i64 * 1000;
            let mut sent = BTreeMap::new();
            let mut told = BTreeMap::new();
            for (wait_ms, step) in packets {
                at += wait_ms;
                seq = seq.wrapping_add(step as u16);
                register.handle_packet(t0 + ms(at), seq);
                sent.entry(seq).or_insert(at as i64 * 1000 - epoch_us);
                while let Some((_, statuses)) = poll(&mut register, t0 + ms(at)) {
                    told.extend(statuses.into_iter().filter_map(|(seq, time)| Some((seq, time?))));
                }
            }
            while let Some((_, statuses)) = poll(&mut register, t0 + ms(at + 100)) {
                told.extend(statuses.into_iter().filter_map(|(seq, time)| Some((seq, time?))));
            }
            prop_assert_eq!(sent, told);
        }
    }
}
