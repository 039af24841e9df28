//! STUN on a worker: checks of peers, and the few questions we ask ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Event;
use super::core::WorkerCore;
use crate::base::batch::{Path, TxBatch};
use crate::base::ids::SessionKey;
use crate::proto::dtls::DtlsRole;
use crate::proto::ice::{self, Incoming, LocalCredentials, Refusal, Ufrag};
use crate::session::discard::Discard;
use crate::wire::stun::{BindingRequest, StunView, TransactionId};

/// RFC 8489 §6.2.1: first after 500 ms, then at doubled intervals, 7 times in all.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// See [`ASK_INTERVAL`].
const ASKS_MAX: u32 = 7;

/// What we ask by STUN ourselves.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Credentials of the self-check.
    pub self_check: Option<LocalCredentials>,
    public_address: Option<PublicAddress>,
}

#[derive(Debug)]
struct PublicAddress {
    transaction: TransactionId,
    /// Who is asked from here; the other workers only listen.
    servers: Option<Arc<[SocketAddr]>>,
    asked: u32,
    next_at: Instant,
}

impl Questions {
    pub fn ask(&mut self, now: Instant, transaction: TransactionId, servers: Option<Arc<[SocketAddr]>>) {
        self.public_address = Some(PublicAddress { transaction, servers, asked: 0, next_at: now });
    }

    pub fn next(&self) -> Option<Instant> {
        let question = self.public_address.as_ref()?;
        question.servers.is_some().then_some(question.next_at)
    }
}

impl WorkerCore {
    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let view = StunView::parse(bytes).map_err(|_| Discard::StunMalformed)?;
        match ice::screen(&view) {
            Ok(Incoming::Check(ufrag)) => self.handle_check(now, path, ufrag, &view, bytes, tx),
            Ok(Incoming::Keepalive) => Err(Discard::StunIgnored),
            Ok(Incoming::Response) => self.handle_response(&view),
            Err(refusal) => Err(refuse(refusal, &view, None, path, tx)),
        }
    }

    fn handle_check(
        &mut self,
        now: Instant,
        path: Path,
        ufrag: Ufrag,
        view: &StunView<'_>,
        bytes: &[u8],
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let Some(key) = self.seats.by_ufrag(ufrag) else { return self.handle_self_check(path, ufrag, view, tx) };
        let seat = self.seats.seat_mut(key).ok_or(Discard::StunUnknownUfrag)?;
        let owner = seat.ticket.owner();
        let agent = seat.ice();
        let Some(credentials) = agent.credentials_for(ufrag).cloned() else { return Err(Discard::StunUnknownUfrag) };
        let check = match ice::check_request(view, &credentials) {
            Ok(check) => check,
            Err(refusal) => return Err(refuse(refusal, view, Some(&credentials), path, tx)),
        };
        let outcome = agent.handle_check(now, path, &check);
        self.seats.handle_outcome(now, key, path, &outcome);
        match owner {
            // The owner answers from its own socket, so that the peer sees one place.
            Some(owner) if owner != self.id => {
                self.lanes.send_datagram(owner, path, bytes).map_err(|_| Discard::LaneFull)
            }
            _ => {
                reply(path, tx, |out| ice::write_answer(&check, path.remote, &credentials, out))?;
                self.handle_consent(now, key, check.use_candidate, tx);
                Ok(())
            }
        }
    }

    /// A valid check is consent (RFC 7675). As DTLS client we begin once the peer chose a path.
    fn handle_consent(&mut self, now: Instant, key: SessionKey, is_nominated: bool, tx: &mut TxBatch) {
        let Some(seat) = self.seats.seat_mut(key) else { return };
        let is_client = seat.remote.as_ref().is_some_and(|remote| remote.dtls_role == DtlsRole::Client);
        let is_here = seat.session().is_some();
        if !is_here && is_client && is_nominated && self.claim(now, key).is_err() {
            return;
        }
        let Some(session) = self.seats.session_mut(key) else { return };
        let consent = session.handle_consent();
        let event = if is_here { None } else { session.poll_dtls(tx) };
        self.handle_session_event(key, consent);
        self.handle_session_event(key, event);
        self.schedule(key);
    }

    fn handle_self_check(
        &mut self,
        path: Path,
        ufrag: Ufrag,
        view: &StunView<'_>,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        match &self.questions.self_check {
            Some(credentials) if credentials.ufrag() == ufrag => match ice::check_request(view, credentials) {
                Ok(check) => {
                    self.events.push_back(Event::SelfChecked);
                    reply(path, tx, |out| ice::write_answer(&check, path.remote, credentials, out))
                }
                Err(refusal) => Err(refuse(refusal, view, Some(credentials), path, tx)),
            },
            _ => Err(refuse(Refusal::UnknownUfrag, view, None, path, tx)),
        }
    }

    fn handle_response(&mut self, view: &StunView<'_>) -> Result<(), Discard> {
        let question = self.questions.public_address.as_ref();
        let is_ours = question.is_some_and(|question| question.transaction == view.transaction_id());
        let address = view.mapped_address().filter(|_| is_ours).ok_or(Discard::StunIgnored)?;
        self.questions.public_address = None;
        self.events.push_back(Event::PublicAddress(address));
        Ok(())
    }

    pub(super) fn poll_questions(&mut self, now: Instant, tx: &mut TxBatch) {
        if self.questions.next().is_none_or(|at| now < at) {
            return;
        }
        let Some(question) = &mut self.questions.public_address else { return };
        if question.asked == ASKS_MAX {
            question.servers = None;
            self.events.push_back(Event::PublicAddressUnknown);
            return;
        }
        question.next_at = now + ASK_INTERVAL * 2u32.pow(question.asked);
        question.asked += 1;
        let request = BindingRequest { transaction_id: question.transaction, ..BindingRequest::default() };
        for server in question.servers.iter().flat_map(|servers| servers.iter()) {
            let local = match server {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            if let Some(out) = tx.reserve()
                && let Some(len) = request.write_to(out)
            {
                tx.commit(Path { remote: *server, local }, len);
            }
        }
    }
}

/// Writes a reply to where the request came from.
fn reply(path: Path, tx: &mut TxBatch, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<(), Discard> {
    let len = write(tx.reserve().ok_or(Discard::TxFull)?).ok_or(Discard::TxFull)?;
    tx.commit(path, len);
    Ok(())
}

/// Answers what calls for an answer, and says how it counts.
fn refuse(
    refusal: Refusal,
    view: &StunView<'_>,
    credentials: Option<&LocalCredentials>,
    path: Path,
    tx: &mut TxBatch,
) -> Discard {
    if let Some(out) = tx.reserve()
        && let Some(len) = ice::write_refusal(refusal, view, credentials, out)
    {
        tx.commit(path, len);
    }
    match refusal {
        Refusal::FingerprintMissing | Refusal::FingerprintWrong => Discard::StunMalformed,
        Refusal::UnknownUfrag => Discard::StunUnknownUfrag,
        Refusal::WrongIntegrity => Discard::StunBadIntegrity,
        Refusal::NoCredentials | Refusal::UnknownAttributes | Refusal::RoleConflict => Discard::StunRefused,
        Refusal::UnknownMethod | Refusal::NotARequest => Discard::StunIgnored,
    }
}
