//! Judging one Binding request, with nothing but the credentials it names.

use std::net::SocketAddr;

use super::{LocalCredentials, Ufrag};
use crate::wire::stun::{
    BindingError, Fingerprint, METHOD_BINDING, StunClass, StunView, TransactionId, split_username,
    write_binding_success,
};

/// A STUN message that deserves a further look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A connectivity check to the holder of this ufrag: find the credentials, then [`check_request`].
    Check(Ufrag),
    /// A Binding indication: keeps a NAT open (RFC 8445 §11), wants nothing.
    Keepalive,
    /// An answer to a request we once sent (self-check, public address).
    Response,
}

/// Why a STUN message is not followed. Each is counted; some are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A check without FINGERPRINT. Silent.
    FingerprintMissing,
    /// Not the bytes its sender wrote, or not STUN at all. Silent.
    FingerprintWrong,
    /// Not Binding. Silent.
    UnknownMethod,
    /// An indication or a response handed to [`check_request`]. Silent.
    NotARequest,
    /// 400: no MESSAGE-INTEGRITY or no USERNAME; also what a stranger gets who takes us for a public STUN server.
    NoCredentials,
    /// 401: no session has this ufrag. RFC 8489 §9.1.3 asks for the answer; unsigned and never larger than the
    /// question, it tells and amplifies nothing.
    UnknownUfrag,
    /// 401: signed with another password.
    WrongIntegrity,
    /// 420: authentic, but with comprehension-required attributes we do not know.
    UnknownAttributes,
    /// 487: authentic, but the peer thinks that it is controlled, which is our part.
    RoleConflict,
}

impl Refusal {
    /// The error code to answer with; `None` is silence.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::FingerprintMissing | Self::FingerprintWrong | Self::UnknownMethod | Self::NotARequest => None,
            Self::NoCredentials => Some(400),
            Self::UnknownUfrag | Self::WrongIntegrity => Some(401),
            Self::UnknownAttributes => Some(420),
            Self::RoleConflict => Some(487),
        }
    }

    /// RFC 8489 §14.8.
    fn reason(self) -> &'static str {
        match self.code() {
            Some(400) => "Bad Request",
            Some(401) => "Unauthenticated",
            Some(420) => "Unknown Attribute",
            Some(487) => "Role Conflict",
            _ => "",
        }
    }

    /// RFC 8489 §9.1.3: only these come after the integrity check, so only their answers are signed.
    fn is_authenticated(self) -> bool {
        matches!(self, Self::UnknownAttributes | Self::RoleConflict)
    }
}

/// An authentic check, in a form that may cross to the worker that owns the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// Which credentials it was made with.
    pub ufrag: Ufrag,
    /// Of the request; the answer carries it.
    pub transaction_id: TransactionId,
    /// The peer's PRIORITY, if it gave one.
    pub priority: Option<u32>,
    /// Whether the peer nominates this path (RFC 8445 §7.3.2).
    pub use_candidate: bool,
}

/// The first look at a STUN message: what it is and, of a check, whom it is for.
///
/// # Errors
/// A [`Refusal`] to count and to hand to [`write_refusal`].
pub fn screen(view: &StunView<'_>) -> Result<Incoming, Refusal> {
    // RFC 8489 §6.3: a fingerprint that does not fit means silence, and so does a method we do not know.
    if view.fingerprint() == Fingerprint::Wrong {
        return Err(Refusal::FingerprintWrong);
    }
    if view.method() != METHOD_BINDING {
        return Err(Refusal::UnknownMethod);
    }
    match view.class() {
        StunClass::Request => {}
        StunClass::Indication => return Ok(Incoming::Keepalive),
        StunClass::Success | StunClass::Error => return Ok(Incoming::Response),
    }
    match view.username() {
        // RFC 8445 §7.2: checks MUST use the FINGERPRINT mechanism. A request with no credentials at all is none.
        _ if view.fingerprint() == Fingerprint::Absent && (view.has_integrity() || view.username().is_some()) => {
            Err(Refusal::FingerprintMissing)
        }
        // RFC 8489 §9.1.3: without MESSAGE-INTEGRITY or USERNAME, 400.
        Some(username) if view.has_integrity() => split_username(username)
            .and_then(|(local, _remote)| Ufrag::parse(local))
            .map(Incoming::Check)
            .ok_or(Refusal::UnknownUfrag),
        _ => Err(Refusal::NoCredentials),
    }
}

/// Judges a check against the credentials its ufrag names.
///
/// # Errors
/// A [`Refusal`] to count and to hand to [`write_refusal`].
pub fn check_request(view: &StunView<'_>, credentials: &LocalCredentials) -> Result<CheckRequest, Refusal> {
    let Incoming::Check(ufrag) = screen(view)? else { return Err(Refusal::NotARequest) };
    // RFC 8445 §7.3: the username is valid if its first half is ours; the second is the peer's own business.
    if ufrag != credentials.ufrag() {
        return Err(Refusal::UnknownUfrag);
    }
    if !view.verify_integrity(credentials.key()) {
        return Err(Refusal::WrongIntegrity);
    }
    // RFC 8489 §6.3.1: unknown comprehension-required attributes are looked at after authentication.
    if !view.unknown_attributes().is_empty() {
        return Err(Refusal::UnknownAttributes);
    }
    // RFC 8445 §7.3.1.1 compares tie-breakers, §6.1.1 makes the full agent controlling beside a lite one: we never
    // switch, as if our tie-breaker were always the smaller.
    if view.controlled().is_some() {
        return Err(Refusal::RoleConflict);
    }
    Ok(CheckRequest {
        ufrag,
        transaction_id: view.transaction_id(),
        priority: view.priority(),
        use_candidate: view.has_use_candidate(),
    })
}

/// Writes the success response to a check that came from `remote`, to be sent back there from the address it came
/// to. `None` when `out` is under 76 bytes.
pub fn write_answer(
    check: &CheckRequest,
    remote: SocketAddr,
    credentials: &LocalCredentials,
    out: &mut [u8],
) -> Option<usize> {
    write_binding_success(out, check.transaction_id, remote, credentials.key())
}

/// Writes the error response a refusal calls for; `None` when it calls for silence. `credentials` are those the check
/// was judged by, if any.
///
/// The response is never larger than the request, whoever faked its source: the reason phrase goes first, then, on
/// unsigned ones, FINGERPRINT; what still does not fit stays unsent.
pub fn write_refusal(
    refusal: Refusal,
    view: &StunView<'_>,
    credentials: Option<&LocalCredentials>,
    out: &mut [u8],
) -> Option<usize> {
    let unknown_attributes = if refusal == Refusal::UnknownAttributes { view.unknown_attributes() } else { &[] };
    let key = match refusal.is_authenticated() {
        true => Some(credentials?.key()),
        false => None,
    };
    let full = BindingError {
        transaction_id: view.transaction_id(),
        code: refusal.code()?,
        reason: refusal.reason(),
        unknown_attributes,
        key,
        has_fingerprint: true,
    };
    let terse = BindingError { reason: "", ..full };
    let bare = BindingError { has_fingerprint: key.is_some(), ..terse };
    let room = out.len().min(view.len_bytes());
    let out = out.get_mut(..room)?;
    [full, terse, bare].iter().find_map(|error| error.write_to(out))
}

/// A fuzz body: everything a stranger's STUN reaches in this module; must return.
///
/// # Panics
/// Only when a promise of this module is broken.
#[doc(hidden)]
pub fn fuzz_ice(bytes: &[u8], credentials: &LocalCredentials) {
    let Ok(view) = StunView::parse(bytes) else { return };
    let mut out = [0; 256];
    match check_request(&view, credentials) {
        Ok(check) => assert_eq!(check.ufrag, credentials.ufrag()),
        Err(refusal) => {
            let len = write_refusal(refusal, &view, Some(credentials), &mut out).unwrap_or(0);
            assert!(len <= bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::wire::stun::{BindingRequest, IceRole, IntegrityKey};

    const ID: TransactionId = *b"transaction!";
    const USERNAME: &[u8] = b"localufrag12:rmte";

    fn credentials() -> LocalCredentials {
        LocalCredentials::from_parts("localufrag12", "passwordpasswordpassword").unwrap()
    }

    fn check(key: &IntegrityKey) -> BindingRequest<'_> {
        BindingRequest {
            transaction_id: ID,
            username: Some(USERNAME),
            priority: Some(7),
            role: Some(IceRole::Controlling(1)),
            use_candidate: true,
            key: Some(key),
            has_fingerprint: true,
        }
    }

    fn bytes_of(request: BindingRequest<'_>) -> Vec<u8> {
        let mut out = [0; 300];
        let len = request.write_to(&mut out).unwrap();
        out[..len].to_vec()
    }

    /// A check with one more attribute before integrity; the writer knows none of that kind.
    fn with_attribute(attribute: [u8; 4]) -> Vec<u8> {
        let credentials = credentials();
        let unsigned = bytes_of(BindingRequest { key: None, has_fingerprint: false, ..check(credentials.key()) });
        let mut bytes = [&unsigned[..], &attribute].concat();
        let length = bytes.len() as u16 - 20 + 24;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let key =
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, credentials.pwd().as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, &bytes);
        bytes.extend([0, 8, 0, 20]);
        bytes.extend(tag.as_ref());
        bytes[2..4].copy_from_slice(&(length + 8).to_be_bytes());
        let crc = crc32fast::hash(&bytes) ^ 0x5354_554e;
        bytes.extend([0x80, 0x28, 0, 4]);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    fn judge(bytes: &[u8]) -> Result<CheckRequest, Refusal> {
        check_request(&StunView::parse(bytes).unwrap(), &credentials())
    }

    /// The reply to a refused request: its code, whether it is signed, its unknown attributes' count.
    fn reply(bytes: &[u8]) -> Option<(u16, bool)> {
        let view = StunView::parse(bytes).unwrap();
        let credentials = credentials();
        let refusal = check_request(&view, &credentials).expect_err("refused");
        let mut out = [0; 300];
        let len = write_refusal(refusal, &view, Some(&credentials), &mut out)?;
        assert!(len <= bytes.len(), "{len} bytes answer {}", bytes.len());
        let read = StunView::parse(&out[..len]).unwrap();
        assert_eq!((read.class(), read.transaction_id()), (StunClass::Error, view.transaction_id()));
        Some((read.error_code()?, read.verify_integrity(credentials.key())))
    }

    #[test]
    fn a_good_check_passes_and_is_answered_with_its_address() {
        let credentials = credentials();
        let passed = judge(&bytes_of(check(credentials.key()))).unwrap();
        let expected =
            CheckRequest { ufrag: credentials.ufrag(), transaction_id: ID, priority: Some(7), use_candidate: true };
        assert_eq!(passed, expected);
        let mut out = [0; 100];
        let remote: SocketAddr = "203.0.113.9:4000".parse().unwrap();
        let len = write_answer(&passed, remote, &credentials, &mut out).unwrap();
        let answer = StunView::parse(&out[..len]).unwrap();
        assert_eq!((answer.class(), answer.mapped_address()), (StunClass::Success, Some(remote)));
        assert!(answer.verify_integrity(credentials.key()) && answer.fingerprint() == Fingerprint::Valid);
    }

    #[test]
    fn a_check_without_or_with_a_wrong_fingerprint_is_dropped_in_silence() {
        let credentials = credentials();
        let without = bytes_of(BindingRequest { has_fingerprint: false, ..check(credentials.key()) });
        assert_eq!(judge(&without), Err(Refusal::FingerprintMissing));
        assert_eq!(reply(&without), None);
        let mut wrong = bytes_of(check(credentials.key()));
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(judge(&wrong), Err(Refusal::FingerprintWrong));
        assert_eq!(reply(&wrong), None);
    }

    #[test]
    fn a_request_without_credentials_gets_400() {
        let credentials = credentials();
        let unsigned = bytes_of(BindingRequest { key: None, ..check(credentials.key()) });
        let nameless = bytes_of(BindingRequest { username: None, ..check(credentials.key()) });
        let stranger = bytes_of(BindingRequest { has_fingerprint: true, ..BindingRequest::default() });
        for bytes in [unsigned, nameless, stranger] {
            assert_eq!(judge(&bytes), Err(Refusal::NoCredentials));
            assert_eq!(reply(&bytes), Some((400, false)));
        }
        // Twenty bytes leave no room for an error code, and a larger answer would amplify.
        let bare = bytes_of(BindingRequest::default());
        assert_eq!(judge(&bare), Err(Refusal::NoCredentials));
        assert_eq!(reply(&bare), None);
    }

    #[test]
    fn a_wrong_password_or_ufrag_gets_an_unsigned_401() {
        let wrong = IntegrityKey::new(b"not the password at all.");
        let forged = bytes_of(check(&wrong));
        assert_eq!(judge(&forged), Err(Refusal::WrongIntegrity));
        assert_eq!(reply(&forged), Some((401, false)));
        let credentials = credentials();
        for username in [&b"anotherufrag:rmte"[..], b"short:rmte", b"localufrag12"] {
            let bytes = bytes_of(BindingRequest { username: Some(username), ..check(credentials.key()) });
            assert_eq!(judge(&bytes), Err(Refusal::UnknownUfrag));
            assert_eq!(reply(&bytes), Some((401, false)));
        }
    }

    #[test]
    fn an_unknown_required_attribute_gets_a_signed_420() {
        let bytes = with_attribute([0x07, 0x77, 0, 0]);
        assert_eq!(judge(&bytes), Err(Refusal::UnknownAttributes));
        assert_eq!(reply(&bytes), Some((420, true)));
        assert!(judge(&with_attribute([0xc0, 0x57, 0, 0])).is_ok(), "an optional one is ignored");
    }

    #[test]
    fn a_peer_that_thinks_itself_controlled_gets_a_signed_487() {
        let credentials = credentials();
        for tie in [0, u64::MAX] {
            let role = Some(IceRole::Controlled(tie));
            let bytes = bytes_of(BindingRequest { role, ..check(credentials.key()) });
            assert_eq!(judge(&bytes), Err(Refusal::RoleConflict));
            assert_eq!(reply(&bytes), Some((487, true)));
        }
        let roleless = bytes_of(BindingRequest { role: None, ..check(credentials.key()) });
        assert!(judge(&roleless).is_ok(), "RFC 8445 §7.3.1.1: neither attribute means an older agent");
    }

    #[test]
    fn indications_and_responses_are_told_apart_from_checks() {
        let credentials = credentials();
        let mut bytes = bytes_of(BindingRequest::default());
        bytes[1] = 0x11;
        assert_eq!(screen(&StunView::parse(&bytes).unwrap()), Ok(Incoming::Keepalive));
        assert_eq!((judge(&bytes), reply(&bytes)), (Err(Refusal::NotARequest), None));
        bytes[0] = 1;
        assert_eq!(screen(&StunView::parse(&bytes).unwrap()), Ok(Incoming::Response));
        bytes[..2].copy_from_slice(&[0, 3]);
        assert_eq!(screen(&StunView::parse(&bytes).unwrap()), Err(Refusal::UnknownMethod));
        let request = bytes_of(check(credentials.key()));
        assert_eq!(screen(&StunView::parse(&request).unwrap()), Ok(Incoming::Check(credentials.ufrag())));
    }

    #[test]
    fn mutated_checks_do_no_harm_and_are_never_amplified() {
        let credentials = credentials();
        let seed = bytes_of(check(credentials.key()));
        let mut rng = StdRng::seed_from_u64(8445);
        for _ in 0..50_000 {
            let mut bytes = seed.clone();
            for _ in 0..rng.random_range(0..3) {
                let position = rng.random_range(0..bytes.len());
                bytes[position] = rng.random();
            }
            // A right checksum lets the damage through to the later steps.
            let body = bytes.len() - 8;
            let crc = crc32fast::hash(&bytes[..body]) ^ 0x5354_554e;
            bytes[body + 4..].copy_from_slice(&crc.to_be_bytes());
            fuzz_ice(&bytes, &credentials);
        }
    }
}
