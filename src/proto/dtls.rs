//! The DTLS handshake of one session (RFC 6347, RFC 5764).
//!
//! Owns: one `dimpl` DTLS 1.2 machine, the peer's expected fingerprint, the count of datagrams before the keys.
//! Promises: keys are handed out only for the certificate the SDP named; after `Closed` or `Failed` nothing more comes.
//! Forbids: addresses. The session feeds datagrams only from the path ICE has validated.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Output, SrtpProfile};

use crate::crypto::cert::Certificate;
use crate::crypto::srtp::{SrtpKeys, SrtpSuite};
use crate::wire::sdp::Fingerprint;

/// Longest datagram we send, in bytes: what every path of the Internet carries, IP and UDP headers left aside.
pub const DTLS_MTU: usize = 1200;

/// Datagrams a peer may send before the handshake is done. Two flights of a few fragments each, retransmitted six
/// times, stay below 100; more is no handshake but work we are made to do. Beyond it the handshake fails.
pub const HANDSHAKE_DATAGRAMS_MAX: u32 = 200;

/// First retransmission. RFC 6347 §4.2.4.1 suggests 1 s where nothing is known of the path and allows less where
/// latency matters; ours answered STUN a moment ago, and a person waits for the picture. It doubles each time.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(400);

/// Retransmissions of one flight: 0.4 s doubled six times covers the whole `HANDSHAKE_TIMEOUT`.
const RETRANSMISSIONS: usize = 6;

/// A handshake older than this is given up; by then people have reloaded the page.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A timer farther away than this is none.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DtlsRole {
    /// We send the ClientHello (`a=setup:active`).
    Client,
    /// We wait for it (`a=setup:passive`).
    Server,
}

/// What all handshakes of the process share. Cheap to clone.
#[derive(Clone)]
pub struct DtlsConfig {
    inner: Arc<dimpl::Config>,
    certificate: Arc<Certificate>,
}

impl DtlsConfig {
    /// Our settings with our certificate.
    pub fn new(certificate: Arc<Certificate>) -> Result<Self, DtlsFailure> {
        // RFC 6347 §4.2.1: a server SHOULD do the cookie exchange, to not answer spoofed addresses with more than they
        // sent. ICE has already proven that the peer receives at its address, so the round trip is saved.
        let inner = dimpl::Config::builder()
            .mtu(DTLS_MTU)
            .use_server_cookie(false)
            .require_client_certificate(true)
            .flight_start_rto(RETRANSMIT_AFTER)
            .flight_retries(RETRANSMISSIONS)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(|_| DtlsFailure::Protocol)?;
        Ok(Self { inner: Arc::new(inner), certificate })
    }

    /// The certificate every handshake presents.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Why there is no secure connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DtlsFailure {
    /// The peer's certificate is not the one its SDP announced.
    #[error("the certificate does not match the fingerprint")]
    FingerprintMismatch,
    /// The peer sent too much without finishing the handshake.
    #[error("too many datagrams before the handshake was done")]
    TooManyDatagrams,
    /// No answer in time.
    #[error("the handshake timed out")]
    TimedOut,
    /// The peer shares no SRTP profile with us.
    #[error("no common SRTP profile")]
    NoSrtpProfile,
    /// The peer broke the protocol, or sent a fatal alert.
    #[error("DTLS protocol error")]
    Protocol,
}

/// What `Dtls::poll` has for the session.
#[derive(Debug)]
pub enum DtlsOutput {
    /// So many bytes of the given buffer are to be sent to the peer.
    Datagram(usize),
    /// The handshake is done and the peer is who its SDP says. Comes once.
    Connected(SrtpKeys),
    /// The peer closed the connection. Nothing more comes.
    Closed,
    /// There will be no connection. Nothing more comes.
    Failed(DtlsFailure),
}

/// One session's DTLS. After each `handle_*` and `close`, call `poll` until it returns `None`.
pub struct Dtls {
    /// Gone once the machine has failed or ended.
    /// Boxed: it is by far the largest part of a session, and would make the rest of it share its size class.
    machine: Option<Box<dimpl::Dtls>>,
    role: DtlsRole,
    expected: Fingerprint,
    peer_verified: bool,
    handshake_done: bool,
    keys_given: bool,
    closing: bool,
    datagrams: u32,
    last_now: Instant,
    next_timeout: Option<Instant>,
    /// An end that `poll` has yet to tell.
    failure: Option<DtlsFailure>,
}

impl Dtls {
    /// A machine that will talk to the owner of `expected`. A client's first flight comes from the next `poll`.
    pub fn new(now: Instant, config: &DtlsConfig, role: DtlsRole, expected: Fingerprint) -> Self {
        let mut machine = dimpl::Dtls::new_12(Arc::clone(&config.inner), config.certificate.to_dimpl(), now);
        machine.set_active(role == DtlsRole::Client);
        let mut dtls = Self {
            machine: Some(Box::new(machine)),
            role,
            expected,
            peer_verified: false,
            handshake_done: false,
            keys_given: false,
            closing: false,
            datagrams: 0,
            last_now: now,
            next_timeout: None,
            failure: None,
        };
        // The library makes a client's first flight when it is first told the time.
        dtls.handle_timeout(now);
        dtls
    }

    /// Takes one datagram of the peer.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.machine.is_none() {
            return;
        }
        if !self.keys_given {
            self.datagrams += 1;
            if self.datagrams > HANDSHAKE_DATAGRAMS_MAX {
                return self.fail(DtlsFailure::TooManyDatagrams);
            }
        }
        self.last_now = now;
        self.drive(|machine| {
            // The library takes the time of a datagram from the last call of `handle_timeout`.
            machine.handle_timeout(now)?;
            machine.handle_packet(datagram)
        });
    }

    /// Retransmits what is due, gives up what is overdue. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.drive(|machine| machine.handle_timeout(now));
    }

    /// Says goodbye: with a close_notify if connected, else silently. Once `poll` returns `None`, all is over.
    pub fn close(&mut self) {
        self.closing = true;
        self.drive(dimpl::Dtls::close);
    }

    /// The next thing to do. `out` receives a datagram, up to `DTLS_MTU` bytes.
    pub fn poll(&mut self, out: &mut [u8]) -> Option<DtlsOutput> {
        let mut spill = Vec::new();
        loop {
            if let Some(failure) = self.failure.take() {
                return Some(DtlsOutput::Failed(failure));
            }
            let machine = self.machine.as_mut()?;
            // Only what does not fit the caller's buffer is read into ours: a long certificate, or application data.
            let mut large = std::mem::take(&mut spill);
            let spilled = !large.is_empty();
            match machine.poll_output(if spilled { &mut large } else { &mut *out }) {
                // A datagram cannot be cut: the caller's buffer is shorter than `DTLS_MTU`.
                Output::Packet(_) if spilled => self.fail(DtlsFailure::Protocol),
                Output::Packet(datagram) => return Some(DtlsOutput::Datagram(datagram.len())),
                Output::BufferTooSmall { needed } => spill.resize(needed, 0),
                // RFC 8122 §6.2: a connection whose certificate does not match is terminated. The machine is dropped
                // without an alert, since the library sends none during a handshake; the peer times out.
                Output::PeerCert(der) => {
                    if self.expected.matches(der) {
                        self.peer_verified = true;
                    } else {
                        self.fail(DtlsFailure::FingerprintMismatch);
                    }
                }
                Output::Connected => self.handshake_done = true,
                Output::KeyingMaterial(material, profile) => match self.accept_keys(&material, profile) {
                    Ok(keys) => return Some(DtlsOutput::Connected(keys)),
                    Err(failure) => self.fail(failure),
                },
                Output::CloseNotify => {
                    self.machine = None;
                    self.next_timeout = None;
                    return Some(DtlsOutput::Closed);
                }
                // RFC 6347 §4.2.7: alerts are not retransmitted, so nothing is left to wait for.
                Output::Timeout(_) if self.closing => {
                    self.machine = None;
                    self.next_timeout = None;
                    return None;
                }
                Output::Timeout(at) => {
                    // The library says "in ten years" when it waits for nothing.
                    self.next_timeout = Some(at).filter(|&at| at < self.last_now + IDLE_TIMEOUT);
                    if self.handshake_done && !self.keys_given {
                        self.fail(DtlsFailure::NoSrtpProfile);
                        continue;
                    }
                    return None;
                }
                // There are no data channels: application data is discarded.
                _ => {}
            }
        }
    }

    /// When `handle_timeout` is due. Valid after `poll` returned `None`.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_timeout
    }

    /// Whether the keys have been handed out and the connection lives.
    pub fn is_connected(&self) -> bool {
        self.keys_given && !self.closing && self.machine.is_some()
    }

    /// Our role in the handshake.
    pub fn role(&self) -> DtlsRole {
        self.role
    }

    fn drive(&mut self, step: impl FnOnce(&mut dimpl::Dtls) -> Result<(), dimpl::Error>) {
        let Some(machine) = self.machine.as_mut() else { return };
        if let Err(error) = step(machine) {
            // Every error of the library is the end of its machine.
            self.fail(match error {
                dimpl::Error::Timeout(_) => DtlsFailure::TimedOut,
                _ => DtlsFailure::Protocol,
            });
        }
    }

    fn accept_keys(&mut self, material: &[u8], profile: SrtpProfile) -> Result<SrtpKeys, DtlsFailure> {
        // RFC 5763 §5: media is not taken before the certificate was found to match the fingerprint.
        if !self.peer_verified {
            return Err(DtlsFailure::FingerprintMismatch);
        }
        let suite = suite_of(profile).ok_or(DtlsFailure::NoSrtpProfile)?;
        let keys = SrtpKeys::from_exporter(suite, material).map_err(|_| DtlsFailure::Protocol)?;
        self.keys_given = true;
        Ok(keys)
    }

    fn fail(&mut self, failure: DtlsFailure) {
        self.machine = None;
        self.next_timeout = None;
        self.failure = Some(failure);
    }
}

fn suite_of(profile: SrtpProfile) -> Option<SrtpSuite> {
    match profile {
        SrtpProfile::AEAD_AES_128_GCM => Some(SrtpSuite::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(SrtpSuite::AeadAes256Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpSuite::Aes128CmSha1_80),
        _ => None,
    }
}

impl fmt::Debug for DtlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DtlsConfig").field(&self.certificate).finish()
    }
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls").field("role", &self.role).field("connected", &self.is_connected()).finish()
    }
}

#[cfg(test)]
#[path = "dtls_tests.rs"]
mod tests;
