//! A WebRTC peer without media of its own: ICE checks, DTLS in either role, SRTP both ways.
//!
//! Owns: the state of one transport. Told the time, handed bytes, hands bytes to `send`; no sockets.
//! Promises: consent is renewed as long as the peer is told the time; keys come from the certificate the SDP named.

use std::time::{Duration, Instant};

use tramline::crypto::srtp::{SrtpError, SrtpReceiver, SrtpSender, SrtpSuite, Unprotected};
use tramline::proto::dtls::{DTLS_MTU, Dtls, DtlsConfig, DtlsOutput, DtlsRole};
use tramline::wire::class::{Class, classify};
use tramline::wire::stun::write_binding_success;
use tramline::wire::stun::{BindingRequest, IceRole, IntegrityKey, StunClass, StunView, TransactionId};

use crate::sdp::{Credentials, Remote};

/// RFC 8445 §14.3 would have 500 ms; peers on one machine need not wait for a lost check that long.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// RFC 7675 §5.1: consent is renewed every 5 s, varied by 20 %; browsers ask twice as often.
const CONSENT_EVERY: Duration = Duration::from_millis(2500);
/// RFC 8445 §5.1.2.2: a host candidate's type preference, the highest local preference, component 1.
const PRIORITY: u32 = 126 << 24 | 65_535 << 8 | 255;

/// What a datagram was.
#[derive(Debug)]
pub enum Heard {
    /// Nothing for the owner.
    Nothing,
    /// An RTP packet, now in clear.
    Rtp(Unprotected),
    /// A compound RTCP packet of that many bytes, now in clear.
    Rtcp(usize),
    /// SRTP or SRTCP that was not accepted.
    Refused(SrtpError),
}

/// See the module.
pub struct Peer {
    username: Vec<u8>,
    our_key: IntegrityKey,
    their_key: IntegrityKey,
    tie_breaker: u64,
    remote: Remote,
    dtls_config: DtlsConfig,
    check: TransactionId,
    check_at: Instant,
    /// Our check was answered.
    is_nominated: bool,
    dtls: Option<Dtls>,
    srtp: Option<(SrtpSender, SrtpReceiver)>,
    failure: Option<String>,
    /// STUN error responses that came.
    pub stun_errors: u64,
}

impl Peer {
    /// A peer that will send its first check when told the time.
    pub fn new(now: Instant, ours: &Credentials, remote: Remote, dtls_config: DtlsConfig) -> Self {
        Self {
            // RFC 8445 §7.2.2: the receiver's ufrag first.
            username: format!("{}:{}", remote.credentials.ufrag, ours.ufrag).into_bytes(),
            our_key: IntegrityKey::new(ours.pwd.as_bytes()),
            their_key: IntegrityKey::new(remote.credentials.pwd.as_bytes()),
            tie_breaker: rand::random(),
            remote,
            dtls_config,
            check: rand::random(),
            check_at: now,
            is_nominated: false,
            dtls: None,
            srtp: None,
            failure: None,
            stun_errors: 0,
        }
    }

    /// Takes one datagram; media is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &mut [u8], send: &mut impl FnMut(&[u8])) -> Heard {
        match (classify(bytes), &mut self.srtp) {
            (Class::Rtp, Some((_, receiver))) => match receiver.unprotect_rtp(bytes) {
                Ok(unprotected) => Heard::Rtp(unprotected),
                Err(error) => Heard::Refused(error),
            },
            (Class::Rtcp, Some((_, receiver))) => match receiver.unprotect_rtcp(bytes) {
                Ok(len) => Heard::Rtcp(len),
                Err(error) => Heard::Refused(error),
            },
            (Class::Stun, _) => {
                self.handle_stun(now, bytes, send);
                Heard::Nothing
            }
            (Class::Dtls, _) => {
                // A full agent may begin the handshake before it has answered our check.
                if self.dtls.is_none() && self.remote.role == DtlsRole::Server {
                    self.begin_dtls(now);
                }
                if let Some(dtls) = &mut self.dtls {
                    dtls.handle_datagram(now, bytes);
                    self.poll_dtls(send);
                }
                Heard::Nothing
            }
            _ => Heard::Nothing,
        }
    }

    /// Sends checks and retransmissions that are due.
    pub fn handle_timeout(&mut self, now: Instant, send: &mut impl FnMut(&[u8])) {
        if now >= self.check_at {
            self.check_at = now + if self.is_nominated { CONSENT_EVERY } else { CHECK_EVERY };
            self.send_check(send);
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.next_timeout().is_some_and(|at| now >= at)
        {
            dtls.handle_timeout(now);
            self.poll_dtls(send);
        }
    }

    /// Encrypts `packet[..plain_len]` and sends it; `packet` has room for the overhead behind.
    pub fn send_rtcp(&mut self, packet: &mut [u8], plain_len: usize, send: &mut impl FnMut(&[u8])) {
        let Some((sender, _)) = &mut self.srtp else { return };
        if let Ok(len) = sender.protect_rtcp(packet, plain_len)
            && let Some(bytes) = packet.get(..len)
        {
            send(bytes);
        }
    }

    /// The context media is sent with, once connected.
    pub fn srtp_sender(&self) -> Option<&SrtpSender> {
        self.srtp.as_ref().map(|(sender, _)| sender)
    }

    /// The suite agreed on, once connected.
    pub fn suite(&self) -> Option<SrtpSuite> {
        self.srtp_sender().map(SrtpSender::suite)
    }

    /// Why there is no connection and will be none.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn send_check(&mut self, send: &mut impl FnMut(&[u8])) {
        // RFC 8489 §6.2.1: until it is answered it is the same request, sent again; a late answer counts too.
        if self.is_nominated {
            self.check = rand::random();
        }
        let request = BindingRequest {
            transaction_id: self.check,
            username: Some(&self.username),
            priority: Some(PRIORITY),
            role: Some(IceRole::Controlling(self.tie_breaker)),
            // RFC 8445 §8.1.1: with one candidate on each side the first pair is the best one.
            use_candidate: true,
            key: Some(&self.their_key),
            has_fingerprint: true,
        };
        let mut out = [0; 256];
        if let Some(bytes) = request.write_to(&mut out).and_then(|len| out.get(..len)) {
            send(bytes);
        }
    }

    fn handle_stun(&mut self, now: Instant, bytes: &[u8], send: &mut impl FnMut(&[u8])) {
        let Ok(view) = StunView::parse(bytes) else { return };
        match view.class() {
            StunClass::Success if !self.is_nominated && self.is_answer(&view) => {
                self.is_nominated = true;
                self.check_at = now + CONSENT_EVERY;
                if self.dtls.is_none() && self.remote.role == DtlsRole::Client {
                    self.begin_dtls(now);
                    self.poll_dtls(send);
                }
            }
            // A full agent on the other side checks as well.
            StunClass::Request if view.verify_integrity(&self.our_key) => {
                let mut out = [0; 128];
                let id = view.transaction_id();
                let len = write_binding_success(&mut out, id, self.remote.address, &self.our_key);
                if let Some(bytes) = len.and_then(|len| out.get(..len)) {
                    send(bytes);
                }
            }
            StunClass::Error => self.stun_errors += 1,
            _ => {}
        }
    }

    /// RFC 8445 §7.2.5.2: only the answer to the check that is out, signed with the server's password, counts.
    fn is_answer(&self, view: &StunView<'_>) -> bool {
        view.transaction_id() == self.check && view.verify_integrity(&self.their_key)
    }

    fn begin_dtls(&mut self, now: Instant) {
        self.dtls = Some(Dtls::new(now, &self.dtls_config, self.remote.role, self.remote.fingerprint));
    }

    fn poll_dtls(&mut self, send: &mut impl FnMut(&[u8])) {
        let Some(dtls) = &mut self.dtls else { return };
        let mut out = [0; DTLS_MTU];
        while let Some(output) = dtls.poll(&mut out) {
            match output {
                DtlsOutput::Datagram(len) => {
                    if let Some(bytes) = out.get(..len) {
                        send(bytes);
                    }
                }
                DtlsOutput::Connected(keys) => match keys.contexts(self.remote.role == DtlsRole::Client) {
                    Ok(srtp) => self.srtp = Some(srtp),
                    Err(error) => self.failure = Some(format!("SRTP: {error}")),
                },
                DtlsOutput::Closed => self.failure = Some("the server closed DTLS".to_owned()),
                DtlsOutput::Failed(failure) => self.failure = Some(format!("DTLS: {failure}")),
            }
        }
    }
}
