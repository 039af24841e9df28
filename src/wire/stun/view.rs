//! A received STUN message, parsed once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    ATTRIBUTE_HEADER_BYTES, FINGERPRINT_XOR, HEADER_BYTES, INTEGRITY_BYTES, IntegrityKey, MAGIC_COOKIE, TransactionId,
    USERNAME_BYTES_MAX, attribute,
};
use crate::wire::ParseError;

/// Unknown comprehension-required attribute types kept for a 420; nothing sane has more, the rest go unnamed.
pub const UNKNOWN_ATTRIBUTES_MAX: usize = 8;

/// The two class bits (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StunClass {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers well.
    Success,
    /// Answers with an ERROR-CODE.
    Error,
}

/// What became of FINGERPRINT while parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fingerprint {
    /// There is none.
    Absent,
    /// There is one and it fits the bytes.
    Valid,
    /// There is one and it does not.
    Wrong,
}

/// A STUN message borrowed from its datagram. Where an attribute comes twice, the first counts (RFC 8489 §14).
#[derive(Clone, Copy, Debug)]
pub struct StunView<'a> {
    bytes: &'a [u8],
    class: StunClass,
    method: u16,
    transaction_id: TransactionId,
    username: Option<&'a [u8]>,
    priority: Option<u32>,
    use_candidate: bool,
    controlling: Option<u64>,
    controlled: Option<u64>,
    error_code: Option<u16>,
    xor_mapped: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    /// Bytes before MESSAGE-INTEGRITY, and its value.
    integrity: Option<(&'a [u8], &'a [u8])>,
    fingerprint: Fingerprint,
    unknown: [u16; UNKNOWN_ATTRIBUTES_MAX],
    unknown_len: usize,
}

impl<'a> StunView<'a> {
    /// Reads one whole datagram; STUN over UDP is never split and never shares one.
    ///
    /// # Errors
    /// `Truncated` when shorter than its length fields say, `Malformed` when a fixed field or a known attribute is
    /// not what RFC 8489 allows, or when bytes are left over.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, mut rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(ParseError::Truncated)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction_id @ ..] = *header;
        let message_type = u16::from_be_bytes([t0, t1]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        // RFC 8489 §6.3: first two bits zero, the cookie right, the length sensible (§5: a multiple of 4).
        let cookie = u32::from_be_bytes([c0, c1, c2, c3]);
        if message_type & 0xc000 != 0 || cookie != MAGIC_COOKIE || !length.is_multiple_of(4) || rest.len() > length {
            return Err(ParseError::Malformed);
        }
        if rest.len() < length {
            return Err(ParseError::Truncated);
        }
        let mut view = Self::empty(bytes, message_type, transaction_id);
        let mut is_sealed = false;
        while !rest.is_empty() {
            // RFC 8489 §14.7: FINGERPRINT MUST be the last attribute.
            if view.fingerprint != Fingerprint::Absent {
                return Err(ParseError::Malformed);
            }
            let before = bytes.get(..bytes.len() - rest.len()).ok_or(ParseError::Truncated)?;
            let (kind, value, after) = split_attribute(rest)?;
            rest = after;
            // RFC 8489 §9: attributes behind either integrity attribute are ignored, except FINGERPRINT.
            if !is_sealed || kind == attribute::FINGERPRINT {
                is_sealed |= view.read_attribute(kind, value, before)?;
            }
        }
        Ok(view)
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> StunClass {
        self.class
    }

    /// The method; [`METHOD_BINDING`](super::METHOD_BINDING) is the only one ICE has.
    pub fn method(&self) -> u16 {
        self.method
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// Length of the whole message in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// USERNAME.
    pub fn username(&self) -> Option<&'a [u8]> {
        self.username
    }

    /// PRIORITY: what a peer-reflexive candidate would have (RFC 8445 §7.1.1).
    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    /// Whether USE-CANDIDATE is there.
    pub fn has_use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// The tie-breaker of ICE-CONTROLLING.
    pub fn controlling(&self) -> Option<u64> {
        self.controlling
    }

    /// The tie-breaker of ICE-CONTROLLED.
    pub fn controlled(&self) -> Option<u64> {
        self.controlled
    }

    /// ERROR-CODE, 300 to 699.
    pub fn error_code(&self) -> Option<u16> {
        self.error_code
    }

    /// Our address as the other side saw it: XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS from servers of RFC 3489's time.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        self.xor_mapped.or(self.mapped)
    }

    /// FINGERPRINT, already compared.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether MESSAGE-INTEGRITY is there. MESSAGE-INTEGRITY-SHA256 alone does not count: RFC 8445 knows no way to
    /// agree on it.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there and made with `key`; compared in constant time.
    pub fn verify_integrity(&self, key: &IntegrityKey) -> bool {
        self.integrity.is_some_and(|(before, given)| key.verify(before, given))
    }

    /// Comprehension-required attribute types we do not know, each once, the first
    /// [`UNKNOWN_ATTRIBUTES_MAX`] of them.
    pub fn unknown_attributes(&self) -> &[u16] {
        self.unknown.get(..self.unknown_len).unwrap_or_default()
    }

    fn empty(bytes: &'a [u8], message_type: u16, transaction_id: TransactionId) -> Self {
        // RFC 8489 §5, figure 3: the class bits sit at 4 and 8, in the middle of the method.
        let class = match message_type & 0x0110 {
            0x0000 => StunClass::Request,
            0x0010 => StunClass::Indication,
            0x0100 => StunClass::Success,
            _ => StunClass::Error,
        };
        let method = (message_type & 0x000f) | ((message_type & 0x00e0) >> 1) | ((message_type & 0x3e00) >> 2);
        Self {
            bytes,
            class,
            method,
            transaction_id,
            username: None,
            priority: None,
            use_candidate: false,
            controlling: None,
            controlled: None,
            error_code: None,
            xor_mapped: None,
            mapped: None,
            integrity: None,
            fingerprint: Fingerprint::Absent,
            unknown: [0; UNKNOWN_ATTRIBUTES_MAX],
            unknown_len: 0,
        }
    }

    /// Takes one attribute in; true when nothing behind it but FINGERPRINT counts.
    fn read_attribute(&mut self, kind: u16, value: &'a [u8], before: &'a [u8]) -> Result<bool, ParseError> {
        match kind {
            attribute::USERNAME if value.len() > USERNAME_BYTES_MAX => return Err(ParseError::Malformed),
            attribute::USERNAME => self.username = self.username.or(Some(value)),
            attribute::PRIORITY => self.priority = self.priority.or(Some(u32::from_be_bytes(fixed(value)?))),
            attribute::USE_CANDIDATE => {
                fixed::<0>(value)?;
                self.use_candidate = true;
            }
            attribute::ICE_CONTROLLING => {
                self.controlling = self.controlling.or(Some(u64::from_be_bytes(fixed(value)?)));
            }
            attribute::ICE_CONTROLLED => {
                self.controlled = self.controlled.or(Some(u64::from_be_bytes(fixed(value)?)));
            }
            attribute::ERROR_CODE => self.error_code = self.error_code.or(Some(parse_error_code(value)?)),
            attribute::XOR_MAPPED_ADDRESS => {
                let address = unmask(parse_address(value)?, &self.transaction_id);
                self.xor_mapped = self.xor_mapped.or(Some(address));
            }
            attribute::MAPPED_ADDRESS => self.mapped = self.mapped.or(Some(parse_address(value)?)),
            attribute::MESSAGE_INTEGRITY => {
                fixed::<INTEGRITY_BYTES>(value)?;
                self.integrity = Some((before, value));
                return Ok(true);
            }
            attribute::MESSAGE_INTEGRITY_SHA256 => return Ok(true),
            attribute::FINGERPRINT => {
                // RFC 8489 §14.7: over everything before it; the header's length already counts it, as it is last.
                let expected = crc32fast::hash(before) ^ FINGERPRINT_XOR;
                let is_equal = u32::from_be_bytes(fixed(value)?) == expected;
                self.fingerprint = if is_equal { Fingerprint::Valid } else { Fingerprint::Wrong };
            }
            // Known and without meaning here: long-term credentials do not take part in ICE.
            attribute::UNKNOWN_ATTRIBUTES | attribute::REALM | attribute::NONCE => {}
            attribute::COMPREHENSION_OPTIONAL_MIN.. => {}
            unknown => self.note_unknown(unknown),
        }
        Ok(false)
    }

    fn note_unknown(&mut self, kind: u16) {
        if self.unknown_attributes().contains(&kind) {
            return;
        }
        if let Some(slot) = self.unknown.get_mut(self.unknown_len) {
            *slot = kind;
            self.unknown_len += 1;
        }
    }
}

/// A check's USERNAME seen from its receiver (RFC 8445 §7.2.2): our ufrag, then the sender's.
pub fn split_username(username: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = username.iter().position(|&byte| byte == b':')?;
    let (local, rest) = username.split_at_checked(colon)?;
    Some((local, rest.get(1..)?))
}

/// Type, value and what follows the padding.
fn split_attribute(rest: &[u8]) -> Result<(u16, &[u8], &[u8]), ParseError> {
    let (&[t0, t1, l0, l1], rest) = rest.split_first_chunk::<ATTRIBUTE_HEADER_BYTES>().ok_or(ParseError::Truncated)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let value = rest.get(..length).ok_or(ParseError::Truncated)?;
    // RFC 8489 §14: padded to a multiple of 4, and the padding may be anything.
    let after = rest.get(length.next_multiple_of(4)..).ok_or(ParseError::Truncated)?;
    Ok((u16::from_be_bytes([t0, t1]), value, after))
}

/// A value of exactly `N` bytes.
fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], ParseError> {
    value.try_into().map_err(|_| ParseError::Malformed)
}

/// RFC 8489 §14.8: three bits of hundreds, eight of the rest.
fn parse_error_code(value: &[u8]) -> Result<u16, ParseError> {
    let &[_, _, class, number] = value.first_chunk::<4>().ok_or(ParseError::Malformed)?;
    match (class & 0x07, number) {
        (class @ 3..=6, number @ 0..=99) => Ok(u16::from(class) * 100 + u16::from(number)),
        _ => Err(ParseError::Malformed),
    }
}

/// RFC 8489 §14.1: a family byte, the port, 4 or 16 bytes of address.
fn parse_address(value: &[u8]) -> Result<SocketAddr, ParseError> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk::<4>().ok_or(ParseError::Malformed)?;
    let ip = match family {
        1 => IpAddr::from(fixed::<4>(address)?),
        2 => IpAddr::from(fixed::<16>(address)?),
        _ => return Err(ParseError::Malformed),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([p0, p1])))
}

/// RFC 8489 §14.2: port and IPv4 are XORed with the cookie, IPv6 with the cookie and the transaction id.
/// The same turn masks and unmasks.
pub(super) fn unmask(address: SocketAddr, transaction_id: &TransactionId) -> SocketAddr {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let low = transaction_id.iter().fold(0_u128, |bits, &byte| (bits << 8) | u128::from(byte));
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ ((u128::from(MAGIC_COOKIE) << 96) | low)))
        }
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::super::{METHOD_BINDING, vectors};
    use super::*;

    /// A request of the given attributes, without integrity or fingerprint.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        for (kind, value) in attributes {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = (bytes.len() - HEADER_BYTES) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn parse_error(bytes: &[u8]) -> ParseError {
        StunView::parse(bytes).expect_err("must not parse")
    }

    #[test]
    fn the_request_of_rfc_5769_reads_as_printed() {
        let view = StunView::parse(&vectors::REQUEST).unwrap();
        assert_eq!((view.class(), view.method()), (StunClass::Request, METHOD_BINDING));
        assert_eq!(view.transaction_id(), vectors::REQUEST[8..20]);
        assert_eq!(view.username(), Some(&b"evtj:h6vY"[..]));
        assert_eq!(view.priority(), Some(0x6e00_01ff));
        assert_eq!((view.controlled(), view.controlling()), (Some(0x932f_f9b1_5126_3b36), None));
        assert_eq!(view.fingerprint(), Fingerprint::Valid);
        assert!(!view.has_use_candidate() && view.unknown_attributes().is_empty());
        assert!(view.verify_integrity(&IntegrityKey::new(vectors::PASSWORD)));
        assert!(!view.verify_integrity(&IntegrityKey::new(b"another")));
    }

    #[test]
    fn the_responses_of_rfc_5769_read_as_printed() {
        let key = IntegrityKey::new(vectors::PASSWORD);
        for (bytes, mapped) in [
            (&vectors::RESPONSE_V4[..], "192.0.2.1:32853"),
            (&vectors::RESPONSE_V6[..], "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
        ] {
            let view = StunView::parse(bytes).unwrap();
            assert_eq!(view.class(), StunClass::Success);
            assert_eq!(view.mapped_address(), Some(mapped.parse().unwrap()));
            assert_eq!(view.fingerprint(), Fingerprint::Valid);
            assert!(view.verify_integrity(&key));
        }
    }

    #[test]
    fn every_single_bit_flip_of_a_vector_is_noticed() {
        let key = IntegrityKey::new(vectors::PASSWORD);
        for bit in 0..vectors::REQUEST.len() * 8 {
            let mut bytes = vectors::REQUEST;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_noticed = StunView::parse(&bytes)
                .map_or(true, |view| view.fingerprint() != Fingerprint::Valid || !view.verify_integrity(&key));
            assert!(is_noticed, "bit {bit}");
        }
    }

    #[test]
    fn a_message_cut_anywhere_does_not_parse() {
        for len in 0..vectors::REQUEST.len() {
            assert_eq!(parse_error(&vectors::REQUEST[..len]), ParseError::Truncated, "{len} bytes");
        }
        let longer = [&vectors::REQUEST[..], &[0; 4]].concat();
        assert_eq!(parse_error(&longer), ParseError::Malformed);
    }

    #[test]
    fn a_wrong_header_does_not_parse() {
        for (position, value) in [(0, 0x40), (0, 0x80), (3, 0x59), (4, 0)] {
            let mut bytes = vectors::REQUEST;
            bytes[position] = value;
            assert_eq!(parse_error(&bytes), ParseError::Malformed, "byte {position} = {value}");
        }
    }

    #[test]
    fn every_class_and_method_survives_its_interleaving() {
        let classes = [StunClass::Request, StunClass::Indication, StunClass::Success, StunClass::Error];
        for method in 0..0x1000_u16 {
            for (index, class) in classes.into_iter().enumerate() {
                let bits = index as u16;
                let message_type = (method & 0xf)
                    | ((method & 0x70) << 1)
                    | ((method & 0xf80) << 2)
                    | ((bits & 1) << 4)
                    | ((bits & 2) << 7);
                let mut bytes = message(&[]);
                bytes[..2].copy_from_slice(&message_type.to_be_bytes());
                let view = StunView::parse(&bytes).unwrap();
                assert_eq!((view.class(), view.method()), (class, method));
            }
        }
    }

    #[test]
    fn what_follows_message_integrity_is_ignored() {
        let tag = [0; 20];
        let bytes = message(&[(attribute::MESSAGE_INTEGRITY, &tag), (attribute::USE_CANDIDATE, b""), (0x0777, b"")]);
        let view = StunView::parse(&bytes).unwrap();
        assert!(view.has_integrity() && !view.has_use_candidate() && view.unknown_attributes().is_empty());
    }

    #[test]
    fn sha256_integrity_alone_is_no_integrity() {
        let (sha1, sha256) = ([0; 20], [0; 32]);
        let alone = message(&[(attribute::MESSAGE_INTEGRITY_SHA256, &sha256), (attribute::MESSAGE_INTEGRITY, &sha1)]);
        let view = StunView::parse(&alone).unwrap();
        assert!(!view.has_integrity() && view.unknown_attributes().is_empty());
        let behind = message(&[(attribute::MESSAGE_INTEGRITY, &sha1), (attribute::MESSAGE_INTEGRITY_SHA256, &sha256)]);
        assert!(StunView::parse(&behind).unwrap().has_integrity());
    }

    #[test]
    fn nothing_may_follow_fingerprint() {
        let bytes = message(&[(attribute::FINGERPRINT, &[0; 4]), (attribute::USE_CANDIDATE, b"")]);
        assert_eq!(parse_error(&bytes), ParseError::Malformed);
        let wrong = message(&[(attribute::FINGERPRINT, &[0; 4])]);
        assert_eq!(StunView::parse(&wrong).unwrap().fingerprint(), Fingerprint::Wrong);
    }

    #[test]
    fn unknown_required_attributes_are_kept_once_and_bounded() {
        let kinds: Vec<u16> = (0x0100..0x0120).flat_map(|kind| [kind, kind]).collect();
        let attributes: Vec<(u16, &[u8])> = kinds.iter().map(|&kind| (kind, &b"x"[..])).collect();
        let bytes = message(&attributes);
        let expected: Vec<u16> = (0x0100..0x0100 + UNKNOWN_ATTRIBUTES_MAX as u16).collect();
        assert_eq!(StunView::parse(&bytes).unwrap().unknown_attributes(), expected);
        let optional = message(&[(0xc057, &[0; 4]), (0x8022, b"software")]);
        assert!(StunView::parse(&optional).unwrap().unknown_attributes().is_empty());
    }

    #[test]
    fn known_attributes_of_the_wrong_size_do_not_parse() {
        for (kind, len) in [
            (attribute::PRIORITY, 3),
            (attribute::USE_CANDIDATE, 1),
            (attribute::ICE_CONTROLLED, 4),
            (attribute::ICE_CONTROLLING, 12),
            (attribute::MESSAGE_INTEGRITY, 16),
            (attribute::FINGERPRINT, 8),
            (attribute::ERROR_CODE, 3),
            (attribute::XOR_MAPPED_ADDRESS, 8),
            (attribute::USERNAME, USERNAME_BYTES_MAX + 1),
        ] {
            let value = vec![0; len];
            assert_eq!(parse_error(&message(&[(kind, &value)])), ParseError::Malformed, "{kind:04x}");
        }
    }

    #[test]
    fn an_old_server_s_mapped_address_is_read_but_comes_second() {
        let plain: &[u8] = &[0, 1, 0x0d, 0x96, 192, 0, 2, 7];
        let old = message(&[(attribute::MAPPED_ADDRESS, plain)]);
        assert_eq!(StunView::parse(&old).unwrap().mapped_address(), Some("192.0.2.7:3478".parse().unwrap()));
        let masked: &[u8] = &[0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        let both = message(&[(attribute::MAPPED_ADDRESS, plain), (attribute::XOR_MAPPED_ADDRESS, masked)]);
        assert_eq!(StunView::parse(&both).unwrap().mapped_address(), Some("192.0.2.1:32853".parse().unwrap()));
    }

    #[test]
    fn a_username_splits_at_its_first_colon() {
        assert_eq!(split_username(b"evtj:h6vY"), Some((&b"evtj"[..], &b"h6vY"[..])));
        assert_eq!(split_username(b":"), Some((&b""[..], &b""[..])));
        assert_eq!(split_username(b"a:b:c"), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(split_username(b"evtj"), None);
    }
}
