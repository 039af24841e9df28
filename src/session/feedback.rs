//! RTCP that a session sends: reports, NACKs, transport-cc feedback, estimates, keyframe requests.
//!
//! Owns: when reports are due, the reference times of both sides, the REMB that was sent last. Promises: what is due
//! together leaves together: reports first (RFC 3550 §6.1), else reduced-size (RFC 5506).
//! Forbids: protecting and sending; what is composed is handed out.

use std::time::{Duration, Instant};

use super::egress::Egress;
use super::ingress::{Ingress, Uplink};
use super::track::Tracks;
use super::wanted::Ceiling;
use crate::base::ids::Ssrc;
use crate::proto::report::{HEARD_MAX, HeardTimes, ReferenceTimes, ntp_duration};
use crate::wire::rtcp::{self, Delay, ExtendedReport, FirEntry, ReportBlock, SenderInfo, XrBlock};

/// Our canonical name (RFC 7022): one endpoint, one name.
pub const CNAME: &str = "tramline";
/// Round trip to a publisher before it is measured; a missing packet is asked for again after it.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(100);
/// Missing packets asked for at once, per stream.
const NACKS_MAX: usize = 64;
/// Report blocks in one compound packet; with [`INFOS_MAX`] and an extended report it stays below 1200 bytes.
pub const BLOCKS_MAX: usize = 16;
/// Sender reports in one compound packet, of 28 bytes each.
pub const INFOS_MAX: usize = 23;
/// Longest RTCP packet before protection: it fits every path, and a slot with room for tag and index.
const COMPOUND_BYTES_MAX: usize = 1200;
/// With less room the next transport-wide feedback begins a packet of its own.
const TWCC_BYTES_MIN: usize = 300;
/// Reports to the peer (RFC 3550 §6.2 allows less than 5 s to small groups; browsers use about 1 s for video).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A REMB that falls by a share of this is sent between reports (libwebrtc's 3 %) ...
const REMB_FALL: u64 = 97;
/// ... though not sooner than this.
const REMB_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Our clock begins where Unix time does (RFC 868: seconds since 1900): who reads NTP times as dates cannot send an
/// earlier one back as it was.
const CLOCK_START: Duration = Duration::from_secs(2_208_988_800);
/// A cap is told to who estimates himself when he has done so for that long: libwebrtc takes a REMB of the first two
/// seconds for an estimate of the line, and begins with it.
const CAPS_AFTER: Duration = Duration::from_millis(2500);
/// What is told to who was held to a rate and may send all again: more than anybody has.
const UNHELD_BPS: u64 = 1_000_000_000;
/// Keyframe requests that wait to be sent: one for each stream of eight tracks.
const KEYFRAMES_MAX: usize = 24;
/// Sources that a REMB names.
const REMB_SSRCS_MAX: usize = 16;

/// A packet that is being composed of several.
struct Compound {
    bytes: [u8; COMPOUND_BYTES_MAX],
    used: usize,
}

impl Compound {
    fn new() -> Self {
        Self { bytes: [0; COMPOUND_BYTES_MAX], used: 0 }
    }

    fn room(&self) -> usize {
        COMPOUND_BYTES_MAX - self.used
    }

    /// Whether `write` found room, and something to say.
    fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let rest = self.bytes.get_mut(self.used..).unwrap_or_default();
        let len = write(rest);
        self.used += len.unwrap_or(0);
        len.is_some()
    }

    /// Hands out what there is. `false`: no more is taken.
    fn flush(&mut self, send: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let used = std::mem::take(&mut self.used);
        used == 0 || send(self.bytes.get(..used).unwrap_or_default())
    }
}

/// What a session says back to its peer.
#[derive(Debug)]
pub struct Feedback {
    sender: Ssrc,
    epoch: Instant,
    report_at: Instant,
    /// Ours, to a peer that sends.
    reference_times: ReferenceTimes,
    /// Those of a peer that receives.
    heard_times: HeardTimes,
    remb_sent: Option<(Instant, u64)>,
    /// From when on caps are told, and whether that has come.
    caps_from: Option<Instant>,
    are_caps_told: bool,
    ingest_cap_bps: Option<u64>,
    ceiling: Ceiling,
    /// Wishes for what it publishes have changed, and are to be looked at.
    wishes_at: Option<Instant>,
    keyframes: Vec<KeyframeRequest>,
}

/// A keyframe that the peer is to be asked for.
#[derive(Clone, Copy, Debug)]
pub struct KeyframeRequest {
    /// The stream.
    pub media: Ssrc,
    /// The peer takes PLI (RFC 4585 §6.3.1), else FIR (RFC 5104 §4.3.1).
    pub takes_pli: bool,
    /// Counts requests.
    pub count: u8,
    /// Since when it waits.
    pub at: Instant,
}

impl Feedback {
    /// Feedback from `sender`, our own ssrc.
    pub fn new(now: Instant, sender: Ssrc) -> Self {
        Self {
            sender,
            epoch: now,
            report_at: now + REPORT_INTERVAL,
            reference_times: ReferenceTimes::default(),
            heard_times: HeardTimes::default(),
            remb_sent: None,
            caps_from: None,
            are_caps_told: false,
            ingest_cap_bps: None,
            ceiling: Ceiling::default(),
            wishes_at: None,
            keyframes: Vec::new(),
        }
    }

    /// Wishes for what the peer publishes may have changed.
    pub fn note_wishes(&mut self, now: Instant) {
        self.wishes_at = Some(now);
    }

    /// Asks for a keyframe with what leaves next, which is due at once.
    pub fn ask_keyframe(&mut self, request: KeyframeRequest) {
        let is_known = self.keyframes.iter().any(|waiting| waiting.media == request.media);
        if !is_known && self.keyframes.len() < KEYFRAMES_MAX {
            self.keyframes.push(request);
        }
    }

    /// A keyframe request has not left yet.
    pub fn asks_keyframe(&self) -> bool {
        !self.keyframes.is_empty()
    }

    /// What the peer may send at most, as far as it takes such wishes (REMB): told with the next reports.
    pub fn set_ingest_cap(&mut self, bps: Option<u64>) {
        self.ingest_cap_bps = bps;
    }

    /// When reports are due.
    pub fn report_at(&self) -> Instant {
        self.report_at
    }

    /// When [`poll`](Self::poll) has something to say.
    pub fn next_timeout(&self, ingress: &Ingress) -> Instant {
        let request_at = self.keyframes.first().map(|request| request.at);
        let remb_at = self.remb_falls_at(ingress);
        let due = [ingress.next_nack_at(), ingress.twcc.next_timeout(), remb_at, self.wishes_at, request_at];
        due.into_iter().flatten().fold(self.report_at, Instant::min)
    }

    /// The peer's extended report: an answer to our reference time, or a time of its own to answer.
    pub fn handle_extended_report(&mut self, now: Instant, report: &ExtendedReport<'_>) {
        for block in report.blocks() {
            match block {
                XrBlock::ReferenceTime(ntp) => self.heard_times.handle_reference_time(now, report.sender, ntp),
                XrBlock::Delays(delays) => {
                    let ours = delays.iter().filter(|delay| delay.ssrc == self.sender);
                    ours.for_each(|delay| self.reference_times.handle_delay(now, &delay));
                }
            }
        }
    }

    /// Round trip to the peer, as far as its answers to our reference times tell.
    pub fn round_trip(&self) -> Option<Duration> {
        self.reference_times.rtt()
    }

    /// Composes what is due and hands it to `send`, which says whether it takes more. Returns how many NACKs there were.
    pub fn poll(
        &mut self,
        now: Instant,
        ingress: &mut Ingress,
        egress: &mut Egress,
        tracks: &Tracks,
        mut send: impl FnMut(&[u8]) -> bool,
    ) -> u64 {
        if now < self.next_timeout(ingress) {
            return 0;
        }
        let mut out = Compound::new();
        let rtt = self.round_trip().or(egress.round_trip());
        let has_new_wishes = self.wishes_at.take_if(|at| now >= *at).is_some();
        if has_new_wishes || now >= self.report_at {
            self.ceiling.update(now, ingress, tracks);
        }
        if now >= self.report_at {
            self.report_at = now + REPORT_INTERVAL;
            self.note_caps(now, ingress);
            if !self.write_reports(now, ingress, egress, tracks, &mut out, &mut send) {
                return 0;
            }
            self.handle_loss(ingress, rtt);
            self.write_remb(now, ingress, &mut out);
        } else if has_new_wishes && self.remb_rises(ingress) || self.remb_falls_at(ingress).is_some_and(|at| now >= at)
        {
            self.write_remb(now, ingress, &mut out);
        }
        self.write_keyframe_requests(&mut out, &mut send);
        let mut nacks = 0;
        if ingress.next_nack_at().is_some_and(|at| now >= at) {
            nacks = self.write_nacks(now, rtt.unwrap_or(ROUND_TRIP_ASSUMED), ingress, &mut out, &mut send);
        }
        while ingress.twcc.next_timeout().is_some_and(|at| now >= at) {
            if out.room() < TWCC_BYTES_MIN && !out.flush(&mut send) {
                return nacks;
            }
            // Probes may come before any stream; a register that is due must be emptied all the same.
            let media = ingress.streams().next().map_or(Ssrc(0), |stream| stream.ssrc);
            if !out.push(|rest| ingress.twcc.poll_feedback(now, self.sender, media, rest)) {
                break;
            }
        }
        out.flush(&mut send);
        nacks
    }

    /// Reports on all streams, in as many compound packets as it takes; the last stays in `out`, for others to join it.
    fn write_reports(
        &mut self,
        now: Instant,
        ingress: &mut Ingress,
        egress: &mut Egress,
        tracks: &Tracks,
        out: &mut Compound,
        send: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut delays = [Delay::default(); HEARD_MAX];
        let answers = self.heard_times.take(now, &mut delays);
        // RFC 3550 §6.1: who does not know extended reports ignores them. libwebrtc answers without being asked for it in
        // SDP, and a peer that only sends has no other way to tell the round trip.
        let ntp = ingress.streams().next().map(|_| self.ntp(now));
        let sender = self.sender;
        let mut blocks = ingress.streams().filter_map(|stream| stream.stats.report_block(now, stream.ssrc)).peekable();
        let mut infos = egress.sender_infos(now, |track| tracks.track(track)).peekable();
        out.push(|rest| write_reports(rest, sender, &mut blocks, &mut infos));
        out.push(|rest| rtcp::write_extended_report(rest, sender, ntp, delays.get(..answers)?));
        if let Some(ntp) = ntp {
            self.reference_times.handle_sent(now, ntp);
        }
        while blocks.peek().is_some() || infos.peek().is_some() {
            if !out.flush(send) {
                return false;
            }
            out.push(|rest| write_reports(rest, sender, &mut blocks, &mut infos));
        }
        true
    }

    /// Asks for what is missing.
    fn write_nacks(
        &self,
        now: Instant,
        rtt: Duration,
        ingress: &mut Ingress,
        out: &mut Compound,
        send: &mut impl FnMut(&[u8]) -> bool,
    ) -> u64 {
        let mut nacks = 0;
        for stream in ingress.streams() {
            let mut missing = [0; NACKS_MAX];
            let count = stream.nack.poll_nack(now, rtt, &mut missing);
            if count == 0 || !stream.takes_nack {
                continue;
            }
            let missing = missing.get(..count).unwrap_or_default();
            let write = |rest: &mut [u8]| rtcp::write_nack(rest, self.sender, stream.ssrc, missing.iter().copied());
            // What finds no way out is asked for again.
            if out.push(write) || out.flush(send) && out.push(write) {
                nacks += 1;
            }
        }
        nacks
    }

    /// Asks for keyframes. What finds no way out waits.
    fn write_keyframe_requests(&mut self, out: &mut Compound, send: &mut impl FnMut(&[u8]) -> bool) {
        let sender = self.sender;
        self.keyframes.retain(|request| {
            let write = |rest: &mut [u8]| write_keyframe_request(rest, sender, request);
            !(out.push(write) || out.flush(send) && out.push(write))
        });
    }

    fn handle_loss(&self, ingress: &mut Ingress, rtt: Option<Duration>) {
        let intervals = ingress.streams().map(|stream| stream.stats.last_interval());
        let (expected, lost) = intervals.fold((0, 0), |(all, gone), (expected, lost)| (all + expected, gone + lost));
        if let Uplink::Estimated(estimator) = &mut ingress.uplink
            && expected > 0
        {
            estimator.handle_loss(lost as f64 / expected as f64, rtt);
        }
    }

    /// Caps are told to who has sent for a while.
    fn note_caps(&mut self, now: Instant, ingress: &mut Ingress) {
        if self.caps_from.is_none() && ingress.streams().next().is_some() {
            self.caps_from = Some(now + CAPS_AFTER);
        }
        self.are_caps_told = self.caps_from.is_some_and(|at| now >= at);
    }

    /// What the peer is told: our estimate where it has none, and the caps.
    fn remb_bps(&self, ingress: &Ingress) -> Option<u64> {
        let (estimate, are_caps_told) = match &ingress.uplink {
            Uplink::Untold => return None,
            Uplink::TheirEstimate => (None, self.are_caps_told),
            Uplink::Estimated(estimator) => (Some(estimator.bps()), true),
        };
        let caps = [self.ingest_cap_bps, self.ceiling.bps()].into_iter().flatten().filter(|_| are_caps_told);
        // What was told holds until something else is told.
        estimate.into_iter().chain(caps).min().or(self.remb_sent.map(|_| UNHELD_BPS))
    }

    /// The peer was told less than it may send.
    fn remb_rises(&self, ingress: &Ingress) -> bool {
        self.remb_bps(ingress).zip(self.remb_sent).is_some_and(|(bps, (_, told))| bps > told)
    }

    /// When a rate that fell is told before the next reports.
    fn remb_falls_at(&self, ingress: &Ingress) -> Option<Instant> {
        let (at, told) = self.remb_sent?;
        (self.remb_bps(ingress)? < told / 100 * REMB_FALL).then_some(at + REMB_INTERVAL_MIN)
    }

    fn write_remb(&mut self, now: Instant, ingress: &mut Ingress, out: &mut Compound) {
        let Some(bps) = self.remb_bps(ingress) else { return };
        let (mut ssrcs, mut count) = ([Ssrc(0); REMB_SSRCS_MAX], 0);
        for (place, stream) in ssrcs.iter_mut().zip(ingress.streams()) {
            *place = stream.ssrc;
            count += 1;
        }
        if count == 0 {
            self.remb_sent = None;
        } else if out.push(|rest| rtcp::write_remb(rest, self.sender, bps, ssrcs.get(..count)?)) {
            self.remb_sent = Some((now, bps));
        }
    }

    /// Our time, for the peer to send back: RFC 3550 §4 lets it be counted from anywhere.
    fn ntp(&self, now: Instant) -> u64 {
        ntp_duration(CLOCK_START + now.saturating_duration_since(self.epoch))
    }
}

/// Copies what was composed elsewhere into a slot of the batch.
pub fn copy(slot: &mut [u8], bytes: &[u8]) -> Option<usize> {
    slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

fn write_keyframe_request(out: &mut [u8], sender: Ssrc, request: &KeyframeRequest) -> Option<usize> {
    match request.takes_pli {
        true => rtcp::write_pli(out, sender, request.media),
        false => rtcp::write_fir(out, sender, &[FirEntry { ssrc: request.media, seq_nr: request.count }]),
    }
}

/// A receiver report of the next [`BLOCKS_MAX`] `blocks`, sender reports of the next [`INFOS_MAX`] `infos`, and our name
/// (RFC 3550 §6.1: a compound packet begins with a report and carries a CNAME). Returns its length; what found no place
/// is still to come from the iterators.
pub fn write_reports(
    out: &mut [u8],
    sender: Ssrc,
    blocks: &mut impl Iterator<Item = ReportBlock>,
    infos: &mut impl Iterator<Item = SenderInfo>,
) -> Option<usize> {
    let (mut next, mut count) = ([ReportBlock::default(); BLOCKS_MAX], 0);
    for (place, block) in next.iter_mut().zip(blocks) {
        *place = block;
        count += 1;
    }
    let mut used = rtcp::write_receiver_report(out, sender, &next[..count])?;
    for info in infos.take(INFOS_MAX) {
        used += rtcp::write_sender_report(out.get_mut(used..)?, &info, &[])?;
    }
    used += rtcp::write_sdes_cname(out.get_mut(used..)?, sender, CNAME)?;
    Some(used)
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
