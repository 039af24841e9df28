//! The ciphers of the SRTP suites.
//!
//! Owns: session keys of one direction and one kind (RTP or RTCP), expanded once: AES key schedule, HMAC midstates.
//! Promises: works in place, allocates nothing per packet.
//! Forbids: indices and replay, which `srtp` decides.
//!
//! AES-CTR is aws-lc-rs like GCM. HMAC-SHA1 stands on RustCrypto's compression function with midstates of our own: on a
//! processor with SHA instructions 0.1 us cheaper per packet than aws-lc's (of 0.28 us for 160 bytes, 0.83 for 1200) and
//! a thirtieth of its memory; without them 0.4 us dearer for 1200 bytes and equal for 160.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time;
use aws_lc_rs::iv::FixedLength;

use super::hmac::HmacSha1;
use super::kdf::{Label, Prf};
use super::srtp::{SrtpError, SrtpSuite};

/// Initial counter block of AES in counter mode.
pub(super) type Iv = [u8; 16];

/// Octets of an SRTCP packet that stay in clear: first header word and sender ssrc (RFC 3711 §3.4).
pub(super) const RTCP_HEADER: usize = 8;
/// Octets of the E flag with the SRTCP index.
pub(super) const RTCP_INDEX: usize = 4;
/// Set when the SRTCP packet is encrypted.
pub(super) const RTCP_E: u32 = 1 << 31;

const GCM_TAG: usize = 16;
const SHA1_TAG: usize = 10;

/// Whose labels keys are derived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rtp,
    Rtcp,
}

/// One direction's keys for RTP or RTCP.
pub(super) enum SessionCipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    /// Boxed, so that the common suite's contexts stay small.
    CmSha1(Box<CmSha1>),
}

/// Key schedule, salt and HMAC midstates of the SHA-1 suite.
pub(super) struct CmSha1 {
    key: EncryptingKey,
    salt: [u8; 14],
    mac: HmacSha1,
}

impl SessionCipher {
    /// Derives the session keys of `kind`.
    pub(super) fn derive(suite: SrtpSuite, prf: &Prf, kind: Kind) -> Result<Self, SrtpError> {
        let (encryption, authentication, salting) = match kind {
            Kind::Rtp => (Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt),
            Kind::Rtcp => (Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt),
        };
        let (mut key, mut auth, mut salt) = ([0; 32], [0; 20], [0; 14]);
        let key = key.get_mut(..suite.key_len()).ok_or(SrtpError::KeyLength)?;
        let salt = salt.get_mut(..suite.salt_len()).ok_or(SrtpError::KeyLength)?;
        prf.derive(encryption, key)?;
        prf.derive(salting, salt)?;
        if suite == SrtpSuite::Aes128CmSha1_80 {
            prf.derive(authentication, &mut auth)?;
        }
        Self::from_session_keys(suite, key, salt, &auth)
    }

    /// From keys already derived; `auth` is for the SHA-1 suite.
    pub(super) fn from_session_keys(
        suite: SrtpSuite,
        key: &[u8],
        salt: &[u8],
        auth: &[u8; 20],
    ) -> Result<Self, SrtpError> {
        let gcm = match suite {
            SrtpSuite::AeadAes128Gcm => &AES_128_GCM,
            SrtpSuite::AeadAes256Gcm => &AES_256_GCM,
            SrtpSuite::Aes128CmSha1_80 => {
                let key = UnboundCipherKey::new(&AES_128, key).and_then(EncryptingKey::ctr);
                return Ok(Self::CmSha1(Box::new(CmSha1 {
                    key: key.map_err(|_| SrtpError::KeyLength)?,
                    salt: salt.try_into().map_err(|_| SrtpError::KeyLength)?,
                    mac: HmacSha1::new(auth),
                })));
            }
        };
        let key = UnboundKey::new(gcm, key).map_err(|_| SrtpError::KeyLength)?;
        Ok(Self::Gcm { key: LessSafeKey::new(key), salt: salt.try_into().map_err(|_| SrtpError::KeyLength)? })
    }

    /// Encrypts `packet[header_len..plain_len]` and writes the tag behind it; returns the protected length.
    /// The caller has checked `header_len <= plain_len` and the room.
    pub(super) fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        plain_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let (plain, room) = packet.split_at_mut_checked(plain_len).ok_or(SrtpError::NoRoom)?;
                let (header, body) = plain.split_at_mut_checked(header_len).ok_or(SrtpError::Truncated)?;
                let room = room.get_mut(..GCM_TAG).ok_or(SrtpError::NoRoom)?;
                // RFC 7714 §8.2: the associated data is the RTP header with CSRCs and extension.
                let tag = key.seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index), Aad::from(&*header), body);
                room.copy_from_slice(tag.map_err(|_| SrtpError::Cipher)?.as_ref());
                Ok(plain_len + GCM_TAG)
            }
            Self::CmSha1(keys) => {
                let CmSha1 { key, salt, mac } = &**keys;
                let (plain, room) = packet.split_at_mut_checked(plain_len).ok_or(SrtpError::NoRoom)?;
                let room = room.get_mut(..SHA1_TAG).ok_or(SrtpError::NoRoom)?;
                let body = plain.get_mut(header_len..).ok_or(SrtpError::Truncated)?;
                ctr_in_place(key, &cm_iv(salt, ssrc, index), body)?;
                room.copy_from_slice(&sha1_tag(mac, plain, Some(roc(index))));
                Ok(plain_len + SHA1_TAG)
            }
        }
    }

    /// Authenticates and decrypts; returns the length of the RTP packet. On an error the body is unspecified.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let (header, sealed) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Truncated)?;
                let body = key
                    .open_in_place(gcm_nonce(salt, ssrc, index), Aad::from(&*header), sealed)
                    .map_err(|_| SrtpError::AuthFailed)?;
                Ok(header_len + body.len())
            }
            Self::CmSha1(keys) => {
                let CmSha1 { key, salt, mac } = &**keys;
                let plain_len = packet.len().checked_sub(SHA1_TAG).ok_or(SrtpError::Truncated)?;
                let (covered, tag) = packet.split_at_mut(plain_len);
                // RFC 3711 §3.3 steps 4 to 6: the tag is checked before anything is decrypted.
                verify_tag(&sha1_tag(mac, covered, Some(roc(index))), tag)?;
                let body = covered.get_mut(header_len..).ok_or(SrtpError::Truncated)?;
                ctr_in_place(key, &cm_iv(salt, ssrc, index), body)?;
                Ok(plain_len)
            }
        }
    }

    /// Encrypts a compound packet and appends index and tag in the suite's order; returns the protected length.
    pub(super) fn seal_rtcp(
        &self,
        packet: &mut [u8],
        plain_len: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<usize, SrtpError> {
        let word = (RTCP_E | index).to_be_bytes();
        let (plain, room) = packet.split_at_mut_checked(plain_len).ok_or(SrtpError::NoRoom)?;
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = plain.split_at_mut_checked(RTCP_HEADER).ok_or(SrtpError::Truncated)?;
                let room = room.get_mut(..GCM_TAG + RTCP_INDEX).ok_or(SrtpError::NoRoom)?;
                let nonce = gcm_nonce(salt, ssrc, index.into());
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(rtcp_aad(header, word)), body);
                let (tag_room, index_room) = room.split_at_mut(GCM_TAG);
                tag_room.copy_from_slice(tag.map_err(|_| SrtpError::Cipher)?.as_ref());
                index_room.copy_from_slice(&word);
                Ok(plain_len + GCM_TAG + RTCP_INDEX)
            }
            Self::CmSha1(keys) => {
                let CmSha1 { key, salt, mac } = &**keys;
                let body = plain.get_mut(RTCP_HEADER..).ok_or(SrtpError::Truncated)?;
                room.get_mut(..RTCP_INDEX).ok_or(SrtpError::NoRoom)?.copy_from_slice(&word);
                ctr_in_place(key, &cm_iv(salt, ssrc, index.into()), body)?;
                let covered_len = plain_len + RTCP_INDEX;
                let (covered, room) = packet.split_at_mut_checked(covered_len).ok_or(SrtpError::NoRoom)?;
                let room = room.get_mut(..SHA1_TAG).ok_or(SrtpError::NoRoom)?;
                room.copy_from_slice(&sha1_tag(mac, covered, None));
                Ok(covered_len + SHA1_TAG)
            }
        }
    }

    /// Authenticates and decrypts; `index` is what `rtcp_index` read. Returns the length of the compound packet.
    pub(super) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let sealed_end = packet.len().checked_sub(RTCP_INDEX).ok_or(SrtpError::Truncated)?;
                let sealed = packet.get_mut(..sealed_end).ok_or(SrtpError::Truncated)?;
                let (header, sealed) = sealed.split_at_mut_checked(RTCP_HEADER).ok_or(SrtpError::Truncated)?;
                let aad = Aad::from(rtcp_aad(header, (RTCP_E | index).to_be_bytes()));
                let body = key
                    .open_in_place(gcm_nonce(salt, ssrc, index.into()), aad, sealed)
                    .map_err(|_| SrtpError::AuthFailed)?;
                Ok(RTCP_HEADER + body.len())
            }
            Self::CmSha1(keys) => {
                let CmSha1 { key, salt, mac } = &**keys;
                let covered_len = packet.len().checked_sub(SHA1_TAG).ok_or(SrtpError::Truncated)?;
                let plain_len = covered_len.checked_sub(RTCP_INDEX).ok_or(SrtpError::Truncated)?;
                let (covered, tag) = packet.split_at_mut(covered_len);
                verify_tag(&sha1_tag(mac, covered, None), tag)?;
                let body = covered.get_mut(RTCP_HEADER..plain_len).ok_or(SrtpError::Truncated)?;
                ctr_in_place(key, &cm_iv(salt, ssrc, index.into()), body)?;
                Ok(plain_len)
            }
        }
    }

    /// The E flag and the SRTCP index, from where the suite keeps them.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Result<u32, SrtpError> {
        // RFC 7714 §9.2: behind the tag for AEAD; RFC 3711 §3.4: before the tag otherwise.
        let behind = match self {
            Self::Gcm { .. } => 0,
            Self::CmSha1(_) => SHA1_TAG,
        };
        let end = packet.len().checked_sub(behind).ok_or(SrtpError::Truncated)?;
        let word = packet.get(..end).and_then(|covered| covered.last_chunk::<RTCP_INDEX>());
        Ok(u32::from_be_bytes(*word.ok_or(SrtpError::Truncated)?))
    }
}

/// XORs the AES key stream that starts at `iv` into `data`.
pub(super) fn ctr_in_place(key: &EncryptingKey, iv: &Iv, data: &mut [u8]) -> Result<(), SrtpError> {
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(data, context).map(|_| ()).map_err(|_| SrtpError::Cipher)
}

/// RFC 7714 §8.1 and §9.1: two zero octets, ssrc and 48-bit index (SRTCP: 31-bit index), XORed with the salt.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let value = u128::from(ssrc) << 48 | u128::from(index);
    let salted = (u128::from_be_bytes(pad16(salt)) >> 32 ^ value).to_be_bytes();
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&salted[4..]);
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 §4.1.1: IV = (salt * 2^16) XOR (ssrc * 2^64) XOR (index * 2^16).
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> Iv {
    (u128::from_be_bytes(pad16(salt)) ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16).to_be_bytes()
}

/// The salt with zeros behind it.
fn pad16<const N: usize>(salt: &[u8; N]) -> Iv {
    let mut padded = [0; 16];
    padded[..N].copy_from_slice(salt);
    padded
}

fn roc(index: u64) -> u32 {
    (index >> 16) as u32
}

/// RFC 7714 §9.2: the associated data of encrypted SRTCP is the first eight octets and the E flag with the index.
fn rtcp_aad(header: &[u8], word: [u8; 4]) -> [u8; RTCP_HEADER + RTCP_INDEX] {
    let mut aad = [0; RTCP_HEADER + RTCP_INDEX];
    aad[..RTCP_HEADER].copy_from_slice(header);
    aad[RTCP_HEADER..].copy_from_slice(&word);
    aad
}

/// RFC 3711 §4.2: HMAC-SHA1 over the packet, and for SRTP the roll-over counter, cut to 80 bits.
fn sha1_tag(key: &HmacSha1, covered: &[u8], roc: Option<u32>) -> [u8; SHA1_TAG] {
    let mut tag = [0; SHA1_TAG];
    tag.copy_from_slice(&key.tag(covered, roc)[..SHA1_TAG]);
    tag
}

fn verify_tag(expected: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
    constant_time::verify_slices_are_equal(expected, tag).map_err(|_| SrtpError::AuthFailed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::srtp::tests::hex;

    #[test]
    fn the_key_stream_is_that_of_rfc_3711_b_2() {
        let key = UnboundCipherKey::new(&AES_128, &hex("2B7E151628AED2A6ABF7158809CF4F3C")).expect("length");
        let key = EncryptingKey::ctr(key).expect("ctr");
        let salt = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().expect("length");
        let mut stream = vec![0; 0xff02 * 16];
        ctr_in_place(&key, &cm_iv(&salt, 0, 0), &mut stream).expect("encrypted");
        let first =
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(stream[..48], hex(first));
        let last = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(stream[0xfeff * 16..][..48], hex(last));
    }

    #[test]
    fn nonces_are_those_of_rfc_7714() {
        let salt = hex("517569642070726f2071756f").try_into().expect("length");
        assert_eq!(gcm_nonce(&salt, 0x5501_a0b2, 0xf17b).as_ref()[..], hex("51753c6580c2726f20718414"));
        assert_eq!(gcm_nonce(&salt, 0x4d61_7273, 0x5d4).as_ref()[..], hex("517524055203726f207170bb"));
    }
}
