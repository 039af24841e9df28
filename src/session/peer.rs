//! A session: one peer's transport and streams on the worker that owns it.
//!
//! Owns: ICE state, DTLS, SRTP contexts, ingress and egress. Promises: nothing is sent to a path that ICE has not
//! validated; media flows only under keys whose certificate matched the signalled fingerprint.
//! Forbids: other sessions; what concerns them goes out as values.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::discard::Discard;
use super::egress::{Egress, Outlet};
use super::feedback::{self, Feedback, KeyframeRequest};
use super::ingress::{Ingress, MediaIn};
use super::layers::RunPackets;
use super::streams::StreamsConfig;
use super::track::{SenderClock, Tracks};
use crate::base::batch::{DATAGRAM_BYTES_MAX, Path, TxBatch};
use crate::base::ids::{PeerId, SessionKey, Ssrc, TrackKey};
use crate::crypto::srtp::{SrtpError, SrtpReceiver, SrtpSender, SrtpSuite};
use crate::proto::dtls::{Dtls, DtlsFailure, DtlsOutput, DtlsRole};
use crate::proto::ice::IceLite;
use crate::wire::rtcp::{self, RtcpView};

/// Packets that the transport-wide feedback in one datagram may tell of: seconds of the fastest line. A few bytes can name
/// 65,535, and each costs a look.
const TOLD_PACKETS_MAX: usize = 8192;
/// How often a subscriber without a picture asks for a keyframe again.
const KEYFRAME_REPEAT: Duration = Duration::from_millis(100);

/// Something the room must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// ICE and DTLS are up.
    Connected(SrtpSuite),
    /// No consent (RFC 7675).
    Lost,
    /// Consent is back.
    Recovered,
    /// Over.
    Ended(EndReason),
}

/// Why a media session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// close_notify.
    #[error("the peer closed the media session")]
    PeerClosed,
    /// DTLS failed.
    #[error(transparent)]
    Dtls(DtlsFailure),
    /// The exported keys are unusable.
    #[error("the exported keys are unusable")]
    Keys,
}

/// Counters of a session's feedback.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedbackCounters {
    /// Keyframe requests sent to the peer.
    pub keyframe_requests: u64,
    /// NACK packets received from the peer.
    pub nacks_received: u64,
    /// NACK packets sent to the peer.
    pub nacks_sent: u64,
    /// Packets sent again.
    pub retransmissions: u64,
}

impl FeedbackCounters {
    /// Adds another session's.
    pub fn add(&mut self, other: &Self) {
        self.keyframe_requests += other.keyframe_requests;
        self.nacks_received += other.nacks_received;
        self.nacks_sent += other.nacks_sent;
        self.retransmissions += other.retransmissions;
    }
}

/// What a peer's RTCP asks of others.
#[derive(Debug, Default)]
pub struct RtcpEffects {
    /// Tracks, and which streams of them, the peer needs a keyframe of.
    pub keyframes_wanted: Vec<(TrackKey, u8)>,
    /// News of its tracks' clocks.
    pub clocks: Vec<(TrackKey, u8, SenderClock)>,
    /// Of use while something is replayed.
    pub run: RunPackets,
}

impl RtcpEffects {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.keyframes_wanted.clear();
        self.clocks.clear();
    }
}

#[derive(Debug)]
struct Srtp {
    suite: SrtpSuite,
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl Srtp {
    /// Protects and queues what `write` makes; nothing where it writes nothing or there is no room (feedback repeats).
    fn send_rtcp(&mut self, path: Path, tx: &mut TxBatch, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let Some(slot) = tx.reserve() else { return };
        if let Some(len) = write(slot).filter(|len| *len > 0)
            && let Ok(len) = self.sender.protect_rtcp(slot, len)
        {
            tx.commit(path, len);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// Where it lives in the worker's table.
    pub key: SessionKey,
    /// Whose.
    pub peer: PeerId,
    /// The agent.
    pub ice: IceLite,
    dtls: Dtls,
    srtp: Option<Srtp>,
    /// What it publishes.
    pub ingress: Ingress,
    /// What it receives.
    pub egress: Egress,
    /// Feedback counters.
    pub counters: FeedbackCounters,
    /// What it is told about what it sends.
    pub feedback: Feedback,
    keyframe_repeat_at: Option<Instant>,
    is_lost: bool,
    is_over: bool,
}

impl Session {
    /// A session whose first DTLS datagram is about to be handled (or sent).
    pub fn new(now: Instant, rng: &mut impl Rng, key: SessionKey, peer: PeerId, ice: IceLite, dtls: Dtls) -> Self {
        let local_ssrc = Ssrc(rng.random());
        Self {
            key,
            peer,
            ice,
            dtls,
            srtp: None,
            ingress: Ingress::default(),
            egress: Egress::default(),
            counters: FeedbackCounters::default(),
            feedback: Feedback::new(now, local_ssrc),
            keyframe_repeat_at: None,
            is_lost: false,
            is_over: false,
        }
    }

    /// Obeys a new negotiation.
    pub fn configure(&mut self, now: Instant, rng: &mut impl Rng, streams: &StreamsConfig) {
        self.ingress.configure(now, streams);
        self.egress.configure(now, rng, streams);
        self.feedback.note_wishes(now);
        self.keyframe_repeat_at = Some(now);
    }

    /// The suite, when media is protected.
    pub fn suite(&self) -> Option<SrtpSuite> {
        self.srtp.as_ref().map(|srtp| srtp.suite)
    }

    /// Consent holds.
    pub fn has_consent(&self) -> bool {
        !self.is_lost
    }

    /// A valid check came.
    pub fn handle_consent(&mut self) -> Option<SessionEvent> {
        std::mem::take(&mut self.is_lost).then_some(SessionEvent::Recovered)
    }

    /// A DTLS datagram.
    pub fn handle_dtls(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
        tx: &mut TxBatch,
    ) -> Result<Option<SessionEvent>, Discard> {
        // "DTLS is spoken only to an address that ICE has validated": design.md §6.
        if !self.ice.handle_dtls_from(now, path) {
            return Err(Discard::UnknownSource);
        }
        self.dtls.handle_datagram(now, bytes);
        Ok(self.poll_dtls(tx))
    }

    /// Starts or goes on with the handshake; called after everything that may make DTLS speak.
    pub fn poll_dtls(&mut self, tx: &mut TxBatch) -> Option<SessionEvent> {
        let mut event = None;
        let mut out = [0; DATAGRAM_BYTES_MAX];
        while let Some(output) = self.dtls.poll(&mut out) {
            match output {
                DtlsOutput::Datagram(len) => {
                    // A datagram that finds no room is lost as on the wire: DTLS sends its flight again.
                    if let (Some(path), Some(slot)) = (self.ice.send_path(), tx.reserve()) {
                        slot[..len].copy_from_slice(&out[..len]);
                        tx.commit(path, len);
                    }
                }
                DtlsOutput::Connected(keys) => match keys.contexts(self.dtls.role() == DtlsRole::Client) {
                    Ok((sender, receiver)) => {
                        self.srtp = Some(Srtp { suite: keys.suite, sender, receiver });
                        event = Some(SessionEvent::Connected(keys.suite));
                    }
                    Err(_) => event = self.end(EndReason::Keys),
                },
                DtlsOutput::Closed => event = self.end(EndReason::PeerClosed),
                DtlsOutput::Failed(failure) => event = self.end(EndReason::Dtls(failure)),
            }
        }
        event
    }

    /// Takes keys that no handshake made; only the simulator has such peers.
    #[cfg(any(test, feature = "sim"))]
    pub fn adopt(&mut self, keys: &crate::crypto::srtp::SrtpKeys) -> Option<SessionEvent> {
        let (sender, receiver) = keys.contexts(false).ok()?;
        self.dtls.close();
        while self.dtls.poll(&mut [0; DATAGRAM_BYTES_MAX]).is_some() {}
        self.srtp = Some(Srtp { suite: keys.suite, sender, receiver });
        Some(SessionEvent::Connected(keys.suite))
    }

    fn end(&mut self, reason: EndReason) -> Option<SessionEvent> {
        self.srtp = None;
        (!std::mem::replace(&mut self.is_over, true)).then_some(SessionEvent::Ended(reason))
    }

    /// An SRTP datagram.
    pub fn handle_rtp<'a>(&'a mut self, now: Instant, path: Path, bytes: &'a mut [u8]) -> Result<MediaIn<'a>, Discard> {
        if !self.ice.handle_media_from(now, path) {
            return Err(Discard::UnknownSource);
        }
        let srtp = self.srtp.as_mut().ok_or(Discard::SrtpTooEarly)?;
        let plain = srtp.receiver.unprotect_rtp(bytes).map_err(discard_of)?;
        let packet = bytes.get(..plain.plain_len).ok_or(Discard::RtpMalformed)?;
        self.ingress.handle_rtp(now, packet, plain.index)
    }

    /// An SRTCP datagram.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &mut [u8],
        tracks: &Tracks,
        effects: &mut RtcpEffects,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        if !self.ice.handle_media_from(now, path) {
            return Err(Discard::UnknownSource);
        }
        let srtp = self.srtp.as_mut().ok_or(Discard::SrtpTooEarly)?;
        let len = srtp.receiver.unprotect_rtcp(bytes).map_err(discard_of)?;
        let (mut is_malformed, mut told_packets) = (false, 0);
        for packet in rtcp::packets(bytes.get(..len).ok_or(Discard::RtcpMalformed)?) {
            if let Ok(RtcpView::Twcc(feedback)) = &packet {
                told_packets += usize::from(feedback.header.status_count);
            }
            match packet {
                Ok(_) if told_packets > TOLD_PACKETS_MAX => is_malformed = true,
                Ok(packet) => self.handle_rtcp_packet(now, &packet, tracks, effects, tx),
                Err(_) => is_malformed = true,
            }
        }
        if is_malformed { Err(Discard::RtcpMalformed) } else { Ok(()) }
    }

    fn handle_rtcp_packet(
        &mut self,
        now: Instant,
        packet: &RtcpView<'_>,
        tracks: &Tracks,
        effects: &mut RtcpEffects,
        tx: &mut TxBatch,
    ) {
        match packet {
            RtcpView::SenderReport(report) => {
                let info = report.info;
                if let Some((track, encoding)) = self.ingress.handle_sender_report(now, info.ssrc, info.ntp) {
                    let clock =
                        SenderClock { source: info.ssrc, ntp: info.ntp, rtp_timestamp: info.rtp_ts, heard_at: now };
                    effects.clocks.push((track, encoding, clock));
                }
                report.blocks().for_each(|block| self.egress.handle_report_block(now, &block));
            }
            RtcpView::ReceiverReport(report) => {
                report.blocks().for_each(|block| self.egress.handle_report_block(now, &block));
            }
            RtcpView::Nack(nack) => {
                self.counters.nacks_received += 1;
                self.retransmit(now, nack.media, nack.seqs(), tracks, tx);
            }
            RtcpView::Pli(pli) => self.want_keyframe(pli.media, effects),
            RtcpView::Fir(fir) => fir.entries().for_each(|entry| self.want_keyframe(entry.ssrc, effects)),
            RtcpView::Twcc(feedback) => {
                self.egress.handle_twcc(now, feedback);
                self.handle_estimate(now, tracks);
            }
            RtcpView::Remb(remb) => {
                self.egress.handle_remb(now, remb.bitrate_bps);
                self.handle_estimate(now, tracks);
            }
            RtcpView::ExtendedReport(report) => self.feedback.handle_extended_report(now, report),
            // BYE: the m-line says whether a track lives, its source may be replaced.
            RtcpView::Sdes(_) | RtcpView::Bye(_) | RtcpView::Unknown { .. } => {}
        }
    }

    /// News of the peer's line: it may be divided otherwise now, and what comes of that may need a keyframe.
    fn handle_estimate(&mut self, now: Instant, tracks: &Tracks) {
        self.egress.divide(now, tracks);
        if self.egress.is_awaiting() {
            self.keyframe_repeat_at.get_or_insert(now);
        }
    }

    fn want_keyframe(&self, ssrc: Ssrc, effects: &mut RtcpEffects) {
        let wanted = self.egress.mline_of(ssrc).and_then(|mline| self.egress.keyframe_of(mline));
        effects.keyframes_wanted.extend(wanted);
    }

    fn retransmit(
        &mut self,
        now: Instant,
        ssrc: Ssrc,
        seqs: impl Iterator<Item = u16>,
        tracks: &Tracks,
        tx: &mut TxBatch,
    ) {
        let Some(mline) = self.egress.mline_of(ssrc) else { return };
        let (Some(srtp), Some(path)) = (&self.srtp, self.sending_path()) else { return };
        let outlet = Outlet { srtp: &srtp.sender, path };
        for seq in seqs {
            match self.egress.want_resend(now, mline, seq) {
                Err(Discard::RetransmissionLimit) => break,
                Err(_) => continue,
                Ok(()) => {}
            }
            // The first of what waits, which is this one where nothing does.
            while let Some(resend) = self.egress.next_resend(now) {
                match self.egress.retransmit(now, resend, tracks, &outlet, tx) {
                    Ok(()) => self.counters.retransmissions += 1,
                    Err(Discard::TxFull) => return,
                    Err(_) => {}
                }
            }
        }
    }

    /// Its m-lines and the way out, while media may be sent.
    pub fn departures(&mut self) -> Result<(&mut Egress, Outlet<'_>), Discard> {
        let path = self.sending_path().ok_or(Discard::SubscriberNotReady)?;
        let srtp = self.srtp.as_ref().ok_or(Discard::SubscriberNotReady)?;
        Ok((&mut self.egress, Outlet { srtp: &srtp.sender, path }))
    }

    /// Where media goes; nowhere without consent (RFC 7675 §5.1: "MUST cease transmission").
    fn sending_path(&self) -> Option<Path> {
        if self.is_lost { None } else { self.ice.send_path() }
    }

    /// Asks the peer for a keyframe of one encoding of what it publishes on an m-line, with its next feedback: call
    /// [`tell`](Self::tell) when all is asked for.
    pub fn ask_keyframe(&mut self, now: Instant, mline: u16, encoding: u8) {
        let Some((media, takes_pli)) = self.ingress.keyframe_target(mline, encoding) else { return };
        self.counters.keyframe_requests += 1;
        let count = self.counters.keyframe_requests as u8;
        self.feedback.ask_keyframe(KeyframeRequest { media, takes_pli, count, at: now });
    }

    /// Sends the keyframe requests that have not left yet, with all feedback that is due.
    pub fn tell(&mut self, now: Instant, tracks: &Tracks, tx: &mut TxBatch) {
        if self.feedback.asks_keyframe() && !self.is_lost {
            self.compose_feedback(now, tracks, tx);
        }
    }

    /// Deadlines that passed.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        tracks: &Tracks,
        effects: &mut RtcpEffects,
        tx: &mut TxBatch,
    ) -> Option<SessionEvent> {
        if self.dtls.next_timeout().is_some_and(|at| now >= at) {
            self.dtls.handle_timeout(now);
            let event = self.poll_dtls(tx);
            if event.is_some() {
                return event;
            }
        }
        if self.ice.is_expired(now) && !std::mem::replace(&mut self.is_lost, true) {
            // When the peer is back, it is the past.
            self.egress.give_up_waiting(now);
            return Some(SessionEvent::Lost);
        }
        if self.srtp.is_some() && !self.is_lost {
            self.egress.handle_timeout(now);
            self.send_feedback(now, tracks, effects, tx);
        }
        None
    }

    fn send_feedback(&mut self, now: Instant, tracks: &Tracks, effects: &mut RtcpEffects, tx: &mut TxBatch) {
        if self.keyframe_repeat_at.is_some_and(|at| now >= at) {
            self.egress.divide(now, tracks);
            if let Some((srtp, path)) = self.srtp.as_ref().zip(self.sending_path()) {
                self.egress.replay(now, tracks, &Outlet { srtp: &srtp.sender, path }, &mut effects.run);
            }
            effects.keyframes_wanted.extend(self.egress.awaiting_keyframe(now));
            self.keyframe_repeat_at = self.egress.is_awaiting().then_some(now + KEYFRAME_REPEAT);
        }
        if now >= self.feedback.report_at() {
            // A subscriber whose picture stopped for a change of source asks from here.
            self.keyframe_repeat_at.get_or_insert(now);
            self.egress.divide(now, tracks);
        }
        self.compose_feedback(now, tracks, tx);
    }

    fn compose_feedback(&mut self, now: Instant, tracks: &Tracks, tx: &mut TxBatch) {
        let (Some(path), Some(srtp)) = (self.sending_path(), self.srtp.as_mut()) else { return };
        if tx.has_room() {
            let send = |packet: &[u8]| {
                srtp.send_rtcp(path, tx, |slot| feedback::copy(slot, packet));
                tx.has_room()
            };
            self.counters.nacks_sent += self.feedback.poll(now, &mut self.ingress, &mut self.egress, tracks, send);
        }
    }

    /// The next deadline.
    pub fn next_timeout(&self) -> Option<Instant> {
        let media = self.srtp.is_some() && !self.is_lost;
        let feedback =
            [Some(self.feedback.next_timeout(&self.ingress)), self.keyframe_repeat_at, self.egress.next_timeout()];
        let feedback = feedback.into_iter().flatten().filter(|_| media);
        let consent = (!self.is_lost).then(|| self.ice.next_timeout());
        feedback.chain(self.dtls.next_timeout()).chain(consent).min()
    }

    /// Says goodbye (close_notify).
    pub fn close(&mut self, tx: &mut TxBatch) {
        self.dtls.close();
        self.poll_dtls(tx);
    }
}

fn discard_of(error: SrtpError) -> Discard {
    match error {
        SrtpError::Replayed => Discard::SrtpReplayed,
        SrtpError::TooManySsrcs => Discard::TooManySources,
        _ => Discard::SrtpForged,
    }
}
