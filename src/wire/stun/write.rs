//! STUN messages into the caller's slot.

use std::net::{IpAddr, SocketAddr};

use super::view::unmask;
use super::{FINGERPRINT_XOR, HEADER_BYTES, IntegrityKey, MAGIC_COOKIE, TransactionId, attribute};

/// Binding request, success and error types (RFC 8489 §5, §18.2).
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Writes the answer to a valid check: where it came from, signed (RFC 8489 §6.3.1.1, RFC 8445 §7.3.1.2), with
/// FINGERPRINT. At most 76 bytes; `None` when `out` is too small.
pub fn write_binding_success(
    out: &mut [u8],
    transaction_id: TransactionId,
    mapped: SocketAddr,
    key: &IntegrityKey,
) -> Option<usize> {
    let mut writer = Writer::begin(out, BINDING_SUCCESS, transaction_id)?;
    writer.xor_mapped_address(mapped, &transaction_id)?;
    writer.integrity(key)?;
    writer.fingerprint()?;
    Some(writer.len)
}

/// A Binding error response.
#[derive(Clone, Copy, Debug)]
pub struct BindingError<'a> {
    /// Of the request.
    pub transaction_id: TransactionId,
    /// 300 to 699.
    pub code: u16,
    /// For people; under 128 characters (RFC 8489 §14.8), may be empty.
    pub reason: &'a str,
    /// Goes into UNKNOWN-ATTRIBUTES when not empty (RFC 8489 §14.13).
    pub unknown_attributes: &'a [u16],
    /// RFC 8489 §9.1.3: only where the request was authentic.
    pub key: Option<&'a IntegrityKey>,
    /// Whether to end with FINGERPRINT.
    pub has_fingerprint: bool,
}

impl BindingError<'_> {
    /// Writes it; `None` when `out` is too small or the code is none.
    pub fn write_to(&self, out: &mut [u8]) -> Option<usize> {
        if !(300..=699).contains(&self.code) {
            return None;
        }
        let mut writer = Writer::begin(out, BINDING_ERROR, self.transaction_id)?;
        let code = [0, 0, (self.code / 100) as u8, (self.code % 100) as u8];
        writer.attribute(attribute::ERROR_CODE, &[&code, self.reason.as_bytes()])?;
        if !self.unknown_attributes.is_empty() {
            writer.attribute_header(attribute::UNKNOWN_ATTRIBUTES, self.unknown_attributes.len() * 2)?;
            self.unknown_attributes.iter().try_for_each(|kind| writer.put(&kind.to_be_bytes()))?;
            writer.pad()?;
        }
        writer.integrity_if(self.key)?;
        writer.fingerprint_if(self.has_fingerprint)?;
        Some(writer.len)
    }
}

/// Who an agent thinks it is, with its tie-breaker (RFC 8445 §7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IceRole {
    /// ICE-CONTROLLING.
    Controlling(u64),
    /// ICE-CONTROLLED.
    Controlled(u64),
}

/// A Binding request: bare it asks a server for our public address, in full it is a connectivity check.
#[derive(Clone, Copy, Debug, Default)]
pub struct BindingRequest<'a> {
    /// Random (RFC 8489 §5).
    pub transaction_id: TransactionId,
    /// The receiver's ufrag, a colon, ours (RFC 8445 §7.2.2).
    pub username: Option<&'a [u8]>,
    /// RFC 8445 §7.1.1.
    pub priority: Option<u32>,
    /// RFC 8445 §7.1.3.
    pub role: Option<IceRole>,
    /// RFC 8445 §7.1.2.
    pub use_candidate: bool,
    /// Signs with the receiver's password.
    pub key: Option<&'a IntegrityKey>,
    /// Whether to end with FINGERPRINT.
    pub has_fingerprint: bool,
}

impl BindingRequest<'_> {
    /// Writes it; `None` when `out` is too small.
    pub fn write_to(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::begin(out, BINDING_REQUEST, self.transaction_id)?;
        if let Some(username) = self.username {
            writer.attribute(attribute::USERNAME, &[username])?;
        }
        if let Some(priority) = self.priority {
            writer.attribute(attribute::PRIORITY, &[&priority.to_be_bytes()])?;
        }
        match self.role {
            Some(IceRole::Controlling(tie)) => writer.attribute(attribute::ICE_CONTROLLING, &[&tie.to_be_bytes()])?,
            Some(IceRole::Controlled(tie)) => writer.attribute(attribute::ICE_CONTROLLED, &[&tie.to_be_bytes()])?,
            None => {}
        }
        if self.use_candidate {
            writer.attribute(attribute::USE_CANDIDATE, &[])?;
        }
        writer.integrity_if(self.key)?;
        writer.fingerprint_if(self.has_fingerprint)?;
        Some(writer.len)
    }
}

/// Appends attributes and keeps the header's length true.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    fn begin(out: &'a mut [u8], message_type: u16, transaction_id: TransactionId) -> Option<Self> {
        let mut writer = Self { out, len: 0 };
        writer.put(&message_type.to_be_bytes())?;
        writer.put(&[0, 0])?;
        writer.put(&MAGIC_COOKIE.to_be_bytes())?;
        writer.put(&transaction_id)?;
        Some(writer)
    }

    fn xor_mapped_address(&mut self, address: SocketAddr, transaction_id: &TransactionId) -> Option<()> {
        // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d; the peer knows itself as IPv4.
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        let masked = unmask(canonical, transaction_id);
        let [p0, p1] = masked.port().to_be_bytes();
        match masked.ip() {
            IpAddr::V4(ip) => self.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 1, p0, p1], &ip.octets()]),
            IpAddr::V6(ip) => self.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 2, p0, p1], &ip.octets()]),
        }
    }

    fn integrity_if(&mut self, key: Option<&IntegrityKey>) -> Option<()> {
        key.map_or(Some(()), |key| self.integrity(key))
    }

    fn integrity(&mut self, key: &IntegrityKey) -> Option<()> {
        let tag = key.tag(self.out.get(..self.len)?)?;
        self.attribute(attribute::MESSAGE_INTEGRITY, &[&tag])
    }

    fn fingerprint_if(&mut self, is_wanted: bool) -> Option<()> {
        if is_wanted { self.fingerprint() } else { Some(()) }
    }

    fn fingerprint(&mut self) -> Option<()> {
        // RFC 8489 §14.7: the length must already count FINGERPRINT when the CRC is taken.
        let start = self.len;
        self.attribute(attribute::FINGERPRINT, &[&[0; 4]])?;
        let crc = crc32fast::hash(self.out.get(..start)?) ^ FINGERPRINT_XOR;
        self.out.get_mut(self.len - 4..self.len)?.copy_from_slice(&crc.to_be_bytes());
        Some(())
    }

    /// One attribute whose value is `parts` in a row.
    fn attribute(&mut self, kind: u16, parts: &[&[u8]]) -> Option<()> {
        self.attribute_header(kind, parts.iter().map(|part| part.len()).sum())?;
        parts.iter().try_for_each(|part| self.put(part))?;
        self.pad()
    }

    fn attribute_header(&mut self, kind: u16, len: usize) -> Option<()> {
        self.put(&kind.to_be_bytes())?;
        self.put(&u16::try_from(len).ok()?.to_be_bytes())
    }

    /// Ends an attribute: zeros up to a multiple of 4 (RFC 8489 §14), and the header's length follows.
    fn pad(&mut self) -> Option<()> {
        let padded = self.len.next_multiple_of(4);
        self.out.get_mut(self.len..padded)?.fill(0);
        self.len = padded;
        let length = u16::try_from(self.len - HEADER_BYTES).ok()?;
        self.out.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_rs::attributes::stun::{
        ErrorCode, Fingerprint as OracleFingerprint, MessageIntegrity, UnknownAttributes, UserName, XorMappedAddress,
    };
    use stun_rs::{
        DecoderContextBuilder, HMACKey, MessageClass, MessageDecoder, MessageDecoderBuilder, MessageEncoderBuilder,
        StunMessageBuilder, methods,
    };

    use super::super::{Fingerprint, METHOD_BINDING, StunClass, StunView, vectors};
    use super::*;

    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
    const ID: TransactionId = *b"transaction!";

    /// stun-rs, told to check integrity and fingerprint.
    fn oracle() -> MessageDecoder {
        let key = HMACKey::new_short_term(PASSWORD).unwrap();
        let context = DecoderContextBuilder::default().with_key(key).with_validation().build();
        MessageDecoderBuilder::default().with_context(context).build()
    }

    fn addresses() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        prop_oneof![v4, v6]
    }

    fn error(key: Option<&IntegrityKey>) -> BindingError<'_> {
        BindingError {
            transaction_id: ID,
            code: 420,
            reason: "Unknown Attribute",
            unknown_attributes: &[0x0100, 0x0777, 0x7fff],
            key,
            has_fingerprint: true,
        }
    }

    #[test]
    fn the_oracle_reads_our_success() {
        let key = IntegrityKey::new(PASSWORD.as_bytes());
        for text in ["192.0.2.1:32853", "[2001:db8::7]:9"] {
            let mapped: SocketAddr = text.parse().unwrap();
            let mut out = [0xff; 100];
            let len = write_binding_success(&mut out, ID, mapped, &key).unwrap();
            let (message, size) = oracle().decode(&out[..len]).unwrap();
            assert_eq!((size, message.method()), (len, methods::BINDING));
            assert_eq!(message.class(), MessageClass::SuccessResponse);
            assert!(message.get::<MessageIntegrity>().is_some() && message.get::<OracleFingerprint>().is_some());
            let address = message.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
            assert_eq!(*address.socket_address(), mapped);
        }
    }

    #[test]
    fn the_oracle_reads_our_error() {
        let key = IntegrityKey::new(PASSWORD.as_bytes());
        let mut out = [0xff; 200];
        let len = error(Some(&key)).write_to(&mut out).unwrap();
        let (message, _) = oracle().decode(&out[..len]).unwrap();
        assert_eq!(message.class(), MessageClass::ErrorResponse);
        let code = message.get::<ErrorCode>().unwrap().as_error_code().unwrap().error_code();
        assert_eq!((code.error_code(), code.reason()), (420, "Unknown Attribute"));
        let unknown = message.get::<UnknownAttributes>().unwrap().as_unknown_attributes().unwrap();
        assert_eq!(unknown.attributes(), [0x0100, 0x0777, 0x7fff]);
    }

    #[test]
    fn we_read_the_oracle_s_request_and_success() {
        let integrity = || MessageIntegrity::new(HMACKey::new_short_term(PASSWORD).unwrap());
        let request = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
            .with_attribute(UserName::new("local:remote").unwrap())
            .with_attribute(integrity())
            .with_attribute(OracleFingerprint::default())
            .build();
        let mapped: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        let success = StunMessageBuilder::new(methods::BINDING, MessageClass::SuccessResponse)
            .with_attribute(XorMappedAddress::from(mapped))
            .with_attribute(integrity())
            .with_attribute(OracleFingerprint::default())
            .build();
        let key = IntegrityKey::new(PASSWORD.as_bytes());
        let mut out = [0; 200];
        for (message, class, username, address) in [
            (request, StunClass::Request, Some(&b"local:remote"[..]), None),
            (success, StunClass::Success, None, Some(mapped)),
        ] {
            let len = MessageEncoderBuilder::default().build().encode(&mut out, &message).unwrap();
            let view = StunView::parse(&out[..len]).unwrap();
            assert_eq!((view.class(), view.method()), (class, METHOD_BINDING));
            assert_eq!(view.transaction_id(), *message.transaction_id().as_bytes());
            assert_eq!((view.username(), view.mapped_address()), (username, address));
            assert_eq!(view.fingerprint(), Fingerprint::Valid);
            assert!(view.verify_integrity(&key));
        }
    }

    #[test]
    fn a_short_slot_is_refused_and_nothing_panics() {
        let key = IntegrityKey::new(vectors::PASSWORD);
        let mapped = SocketAddr::from(([0x20; 16], 7));
        let mut out = [0; 200];
        let success = write_binding_success(&mut out, ID, mapped, &key).unwrap();
        let failure = error(Some(&key)).write_to(&mut out).unwrap();
        assert_eq!(success, 76);
        for len in 0..success {
            assert_eq!(write_binding_success(&mut out[..len], ID, mapped, &key), None);
        }
        for len in 0..failure {
            assert_eq!(error(Some(&key)).write_to(&mut out[..len]), None);
        }
        assert_eq!(BindingError { code: 200, ..error(None) }.write_to(&mut out), None);
    }

    #[test]
    fn an_ipv4_peer_on_a_dual_stack_socket_is_told_its_ipv4_address() {
        let mut out = [0; 100];
        let key = IntegrityKey::new(vectors::PASSWORD);
        let len = write_binding_success(&mut out, ID, "[::ffff:192.0.2.1]:5".parse().unwrap(), &key).unwrap();
        let view = StunView::parse(&out[..len]).unwrap();
        assert_eq!(view.mapped_address(), Some("192.0.2.1:5".parse().unwrap()));
    }

    #[test]
    fn a_bare_request_is_a_header() {
        let mut out = [0; 20];
        assert_eq!(BindingRequest { transaction_id: ID, ..BindingRequest::default() }.write_to(&mut out), Some(20));
        assert_eq!(StunView::parse(&out).unwrap().class(), StunClass::Request);
    }

    proptest! {
        #[test]
        fn a_success_reads_back(mapped in addresses(), id: TransactionId, password: [u8; 24]) {
            let key = IntegrityKey::new(&password);
            let mut out = [0xff; 100];
            let len = write_binding_success(&mut out, id, mapped, &key).unwrap();
            let view = StunView::parse(&out[..len]).unwrap();
            let expected = SocketAddr::new(mapped.ip().to_canonical(), mapped.port());
            prop_assert_eq!(view.mapped_address(), Some(expected));
            prop_assert_eq!((view.class(), view.transaction_id()), (StunClass::Success, id));
            prop_assert!(view.fingerprint() == Fingerprint::Valid && view.verify_integrity(&key));
        }

        #[test]
        fn a_request_reads_back(
            id: TransactionId,
            username in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
            priority: Option<u32>,
            tie: u64,
            is_controlling: bool,
            use_candidate: bool,
            has_fingerprint: bool,
        ) {
            let key = IntegrityKey::new(vectors::PASSWORD);
            let role = if is_controlling { IceRole::Controlling(tie) } else { IceRole::Controlled(tie) };
            let request = BindingRequest {
                transaction_id: id,
                username: username.as_deref(),
                priority,
                role: Some(role),
                use_candidate,
                key: Some(&key),
                has_fingerprint,
            };
            let mut out = [0xff; 300];
            let len = request.write_to(&mut out).unwrap();
            let view = StunView::parse(&out[..len]).unwrap();
            prop_assert_eq!((view.class(), view.transaction_id()), (StunClass::Request, id));
            prop_assert_eq!((view.username(), view.priority()), (username.as_deref(), priority));
            prop_assert_eq!(view.controlling(), is_controlling.then_some(tie));
            prop_assert_eq!(view.controlled(), (!is_controlling).then_some(tie));
            prop_assert_eq!(view.has_use_candidate(), use_candidate);
            prop_assert_eq!(view.fingerprint() == Fingerprint::Valid, has_fingerprint);
            prop_assert!(view.verify_integrity(&key));
        }
    }
}
