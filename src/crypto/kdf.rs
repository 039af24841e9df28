//! SRTP key derivation (RFC 3711 §4.3).
//!
//! Owns: the master key while session keys are drawn from it, no longer.
//! Promises: the key derivation rate is zero, as DTLS-SRTP fixes it (RFC 5764 §4.1.2), so this runs once per session.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, UnboundCipherKey};

use super::aead::{Iv, ctr_in_place};
use super::srtp::SrtpError;

/// What a derived key is for (RFC 3711 §4.3.1 and §4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The pseudo-random function: AES in counter mode under the master key (RFC 3711 §4.3.3).
pub(super) struct Prf {
    key: EncryptingKey,
    salt: [u8; 14],
}

impl Prf {
    /// `key` is 16 or 32 bytes; `salt` 14, or 12 for the AEAD suites.
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let algorithm = match key.len() {
            16 => &AES_128,
            32 => &AES_256,
            _ => return Err(SrtpError::KeyLength),
        };
        // RFC 7714 §11: a 96-bit master salt is extended with zero bits on the right to the 112 the function takes.
        let mut padded = [0; 14];
        padded.get_mut(..salt.len()).ok_or(SrtpError::KeyLength)?.copy_from_slice(salt);
        let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
        Ok(Self { key: key.map_err(|_| SrtpError::Cipher)?, salt: padded })
    }

    /// Fills `out` with the key stream of `label`.
    pub(super) fn derive(&self, label: Label, out: &mut [u8]) -> Result<(), SrtpError> {
        // RFC 3711 §4.3.1: x = (label || r) XOR master_salt with a 48-bit r of zero, so the label meets octet 7;
        // §4.3.3: the counter starts at x * 2^16.
        let mut iv: Iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        iv[7] ^= label as u8;
        out.fill(0);
        ctr_in_place(&self.key, &iv, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::srtp::tests::hex;

    #[test]
    fn session_keys_are_those_of_rfc_3711_b_3() {
        let prf =
            Prf::new(&hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6")).expect("lengths");
        let mut key = [0; 16];
        prf.derive(Label::RtpEncryption, &mut key).expect("derived");
        assert_eq!(key[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let mut salt = [0; 14];
        prf.derive(Label::RtpSalt, &mut salt).expect("derived");
        assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        let mut auth = [0; 94];
        prf.derive(Label::RtpAuthentication, &mut auth).expect("derived");
        assert_eq!(
            auth[..],
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE
                 E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
                 6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2")
        );
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert!(matches!(Prf::new(&[0; 24], &[0; 14]), Err(SrtpError::KeyLength)));
        assert!(matches!(Prf::new(&[0; 16], &[0; 15]), Err(SrtpError::KeyLength)));
    }
}
