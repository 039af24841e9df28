//! MESSAGE-INTEGRITY: HMAC-SHA1 under a short-term password (RFC 8489 §9.1.1, §14.5).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};

use super::{ATTRIBUTE_HEADER_BYTES, HEADER_BYTES, INTEGRITY_BYTES};

/// A short-term password made ready once: both HMAC blocks are hashed here and not per message. The prepared state takes
/// 1.2 KiB, so the copies that the workers hold are one.
#[derive(Clone)]
pub struct IntegrityKey(Arc<hmac::Key>);

impl IntegrityKey {
    /// RFC 8489 §9.1.1: the key is the password itself; ICE passwords are ASCII, on which OpaqueString does nothing.
    pub fn new(password: &[u8]) -> Self {
        // SHA-1 is what RFC 8445 §7.2.2 and every browser speak; as HMAC it is not broken.
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password)))
    }

    /// The HMAC of a message whose MESSAGE-INTEGRITY begins where `before` ends; `before` holds at least the header.
    pub(super) fn tag(&self, before: &[u8]) -> Option<[u8; INTEGRITY_BYTES]> {
        let message_type = before.get(..2)?;
        let rest = before.get(4..)?;
        // RFC 8489 §14.5: the length field counts up to the end of MESSAGE-INTEGRITY and nothing behind it.
        let length = u16::try_from(before.len() + ATTRIBUTE_HEADER_BYTES + INTEGRITY_BYTES - HEADER_BYTES).ok()?;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(message_type);
        context.update(&length.to_be_bytes());
        context.update(rest);
        context.sign().as_ref().try_into().ok()
    }

    /// Whether `given` is the HMAC of `before`; takes the same time wherever they differ.
    pub(super) fn verify(&self, before: &[u8], given: &[u8]) -> bool {
        self.tag(before).is_some_and(|tag| constant_time::verify_slices_are_equal(&tag, given).is_ok())
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}
