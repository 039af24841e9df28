//! SRTP and SRTCP protection in place (RFC 3711, RFC 7714).
//!
//! Owns: the contexts of one peer: a sender, and a receiver with its replay windows.
//! Promises: no allocation per packet (a receiver grows by one window when a new source authenticates); no length or
//! content panics; state changes only after authentication.
//! Forbids: choosing RTP indices; the caller numbers what it sends and never gives an (ssrc, index) two contents.

use std::fmt;

use super::aead::{Kind, RTCP_E, RTCP_HEADER, RTCP_INDEX, SessionCipher};
use super::kdf::Prf;
use super::replay::ReplayTable;
use crate::base::seq::extend_u16;
use crate::base::window::Window;

/// Longest packet taken, in bytes: no UDP datagram is longer, and it keeps AES-CM below its 2^16 blocks
/// (RFC 3711 §4.1.1).
pub const PACKET_LEN_MAX: usize = 65_535;

/// RFC 3711 §9.2: at most 2^48 SRTP packets with one key.
const RTP_INDICES: u64 = 1 << 48;
/// RFC 3711 §9.2: at most 2^31 SRTCP packets with one key.
const RTCP_INDICES: u32 = 1 << 31;

const RTP_HEADER_MIN: usize = 12;

/// A protection profile of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpSuite {
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
    /// AES-128 in counter mode with HMAC-SHA1 cut to 80 bits: the mandatory fallback.
    Aes128CmSha1_80,
}

impl SrtpSuite {
    /// The IANA name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Length of the master key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Length of the master salt in bytes.
    pub fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Bytes protection adds to an RTP packet.
    pub fn rtp_tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }

    /// Bytes protection adds to a compound RTCP packet: the tag and the word with E flag and index.
    pub fn rtcp_overhead(self) -> usize {
        self.rtp_tag_len() + RTCP_INDEX
    }
}

impl fmt::Display for SrtpSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a packet was not protected or not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SrtpError {
    /// Too short for its header, index and tag.
    #[error("packet too short")]
    Truncated,
    /// Not version 2, or the sequence number is not the index's low half.
    #[error("packet malformed")]
    Malformed,
    /// Longer than any datagram.
    #[error("packet too long")]
    TooLong,
    /// The buffer has no room for the tag.
    #[error("no room for the tag")]
    NoRoom,
    /// The tag is wrong: forged, damaged, or protected with another key or roll-over counter.
    #[error("authentication failed")]
    AuthFailed,
    /// The same index was accepted before.
    #[error("replayed")]
    Replayed,
    /// Behind the replay window.
    #[error("behind the replay window")]
    TooOld,
    /// The peer has as many sources as we keep windows for.
    #[error("too many sources")]
    TooManySsrcs,
    /// The key has protected all packets it may.
    #[error("index space exhausted")]
    IndexExhausted,
    /// SRTCP without encryption, which WebRTC does not know.
    #[error("SRTCP not encrypted")]
    Unencrypted,
    /// A master key or salt of a wrong length.
    #[error("key or salt length wrong")]
    KeyLength,
    /// The library refused a valid call.
    #[error("cipher failure")]
    Cipher,
}

/// The master key and salt of one direction. Not printable.
#[derive(Clone)]
pub struct MasterKey {
    key: [u8; 32],
    key_len: usize,
    salt: [u8; 14],
    salt_len: usize,
}

impl MasterKey {
    fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let (mut key_room, mut salt_room) = ([0; 32], [0; 14]);
        key_room.get_mut(..key.len()).ok_or(SrtpError::KeyLength)?.copy_from_slice(key);
        salt_room.get_mut(..salt.len()).ok_or(SrtpError::KeyLength)?.copy_from_slice(salt);
        Ok(Self { key: key_room, key_len: key.len(), salt: salt_room, salt_len: salt.len() })
    }

    /// The master key.
    pub fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    /// The master salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt[..self.salt_len]
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// What a DTLS handshake leaves to SRTP.
#[derive(Clone, Debug)]
pub struct SrtpKeys {
    /// The profile both sides agreed on.
    pub suite: SrtpSuite,
    /// Protects what the DTLS client sends.
    pub client: MasterKey,
    /// Protects what the DTLS server sends.
    pub server: MasterKey,
}

impl SrtpKeys {
    /// Splits the output of the DTLS exporter.
    pub fn from_exporter(suite: SrtpSuite, material: &[u8]) -> Result<Self, SrtpError> {
        let (key_len, salt_len) = (suite.key_len(), suite.salt_len());
        if material.len() != 2 * (key_len + salt_len) {
            return Err(SrtpError::KeyLength);
        }
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let (keys, salts) = material.split_at(2 * key_len);
        let (client_key, server_key) = keys.split_at(key_len);
        let (client_salt, server_salt) = salts.split_at(salt_len);
        Ok(Self {
            suite,
            client: MasterKey::new(client_key, client_salt)?,
            server: MasterKey::new(server_key, server_salt)?,
        })
    }

    /// Our two contexts, by our role in the handshake.
    pub fn contexts(&self, we_are_client: bool) -> Result<(SrtpSender, SrtpReceiver), SrtpError> {
        let (ours, theirs) = if we_are_client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let sender = SrtpSender::new(self.suite, ours.key(), ours.salt())?;
        let receiver = SrtpReceiver::new(self.suite, theirs.key(), theirs.salt())?;
        Ok((sender, receiver))
    }
}

/// Protects what we send to one peer.
pub struct SrtpSender {
    suite: SrtpSuite,
    rtp: SessionCipher,
    rtcp: SessionCipher,
    rtcp_index: u32,
}

impl SrtpSender {
    /// Derives the session keys from a master key and salt.
    pub fn new(suite: SrtpSuite, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let (rtp, rtcp) = derive(suite, key, salt)?;
        // RFC 3711 §3.4: "The SRTCP index MUST be set to zero before the first SRTCP packet is sent".
        Ok(Self { suite, rtp, rtcp, rtcp_index: 0 })
    }

    /// The suite in use.
    pub fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// Protects `packet[..plain_len]`, whose header is `packet[..header_len]`; the buffer has room for the tag behind.
    ///
    /// `index` is the 48-bit packet index, roll-over counter * 2^16 + sequence number. The caller promises never to
    /// give the same ssrc and index to different bytes: GCM would lose its key. Returns the protected length.
    pub fn protect_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        plain_len: usize,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let (seq, ssrc) = rtp_seq_and_ssrc(packet)?;
        if header_len < RTP_HEADER_MIN || header_len > plain_len {
            return Err(SrtpError::Truncated);
        }
        if plain_len > PACKET_LEN_MAX {
            return Err(SrtpError::TooLong);
        }
        if index >= RTP_INDICES {
            return Err(SrtpError::IndexExhausted);
        }
        if index as u16 != seq {
            return Err(SrtpError::Malformed);
        }
        self.rtp.seal_rtp(packet, header_len, plain_len, ssrc, index)
    }

    /// Protects the compound packet `packet[..plain_len]`; the buffer has room for `SrtpSuite::rtcp_overhead` behind.
    /// Returns the protected length.
    // One index for all our ssrcs: each sees an increasing number, which is all RFC 3711 §3.4 needs.
    pub fn protect_rtcp(&mut self, packet: &mut [u8], plain_len: usize) -> Result<usize, SrtpError> {
        if plain_len < RTCP_HEADER {
            return Err(SrtpError::Truncated);
        }
        if plain_len > PACKET_LEN_MAX {
            return Err(SrtpError::TooLong);
        }
        if packet.len() < plain_len + self.suite.rtcp_overhead() {
            return Err(SrtpError::NoRoom);
        }
        if self.rtcp_index >= RTCP_INDICES {
            return Err(SrtpError::IndexExhausted);
        }
        let ssrc = rtcp_ssrc(packet)?;
        let index = self.rtcp_index;
        // Counted before use, so that no failure can lead to a second packet under the same nonce.
        self.rtcp_index += 1;
        self.rtcp.seal_rtcp(packet, plain_len, ssrc, index)
    }
}

/// What `SrtpReceiver::unprotect_rtp` found out on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unprotected {
    /// 48-bit packet index: roll-over counter and sequence number.
    pub index: u64,
    /// Length of the RTP packet, now in clear.
    pub plain_len: usize,
    /// Length of its header with CSRCs and extension.
    pub header_len: usize,
}

/// Authenticates and decrypts what one peer sends.
pub struct SrtpReceiver {
    suite: SrtpSuite,
    rtp: SessionCipher,
    rtcp: SessionCipher,
    rtp_windows: ReplayTable,
    rtcp_windows: ReplayTable,
}

impl SrtpReceiver {
    /// Derives the session keys from a master key and salt.
    pub fn new(suite: SrtpSuite, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let (rtp, rtcp) = derive(suite, key, salt)?;
        Ok(Self { suite, rtp, rtcp, rtp_windows: ReplayTable::default(), rtcp_windows: ReplayTable::default() })
    }

    /// The suite in use.
    pub fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// RTP sources that have authenticated so far.
    pub fn ssrc_count(&self) -> usize {
        self.rtp_windows.len()
    }

    /// Unprotects an SRTP packet in place. On an error the packet's bytes are unspecified and nothing else changed.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<Unprotected, SrtpError> {
        if packet.len() > PACKET_LEN_MAX {
            return Err(SrtpError::TooLong);
        }
        let (seq, ssrc) = rtp_seq_and_ssrc(packet)?;
        let header_len = rtp_header_len(packet)?;
        if packet.len() < header_len + self.suite.rtp_tag_len() {
            return Err(SrtpError::Truncated);
        }
        let window = self.rtp_windows.window(ssrc)?;
        // RFC 3711 §3.3.1: the index nearest to the highest one authenticated; a new source starts with a roll-over
        // counter of zero.
        let index = window.and_then(Window::highest).map_or(seq.into(), |highest| extend_u16(highest, seq));
        if let Some(window) = window {
            window.check(index)?;
        }
        if index >= RTP_INDICES {
            return Err(SrtpError::IndexExhausted);
        }
        let plain_len = self.rtp.open_rtp(packet, header_len, ssrc, index)?;
        // RFC 3711 §3.3: the replay list and the roll-over counter are updated only now.
        self.rtp_windows.commit(ssrc, index);
        Ok(Unprotected { index, plain_len, header_len })
    }

    /// Unprotects an SRTCP packet in place and returns the length of the compound packet. On an error the packet's
    /// bytes are unspecified and nothing else changed.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() > PACKET_LEN_MAX {
            return Err(SrtpError::TooLong);
        }
        let ssrc = rtcp_ssrc(packet)?;
        if packet.len() < RTCP_HEADER + self.suite.rtcp_overhead() {
            return Err(SrtpError::Truncated);
        }
        let word = self.rtcp.rtcp_index(packet)?;
        // RFC 8827 §6.5: media is always encrypted; an SRTCP packet without the E flag has no place here.
        if word & RTCP_E == 0 {
            return Err(SrtpError::Unencrypted);
        }
        let index = word & !RTCP_E;
        // Senders count per ssrc (RFC 3711 §3.4), so one window for the session would drop honest packets.
        if let Some(window) = self.rtcp_windows.window(ssrc)? {
            window.check(index.into())?;
        }
        let plain_len = self.rtcp.open_rtcp(packet, ssrc, index)?;
        self.rtcp_windows.commit(ssrc, index.into());
        Ok(plain_len)
    }
}

/// The RTP and the RTCP cipher of one master key.
fn derive(suite: SrtpSuite, key: &[u8], salt: &[u8]) -> Result<(SessionCipher, SessionCipher), SrtpError> {
    if key.len() != suite.key_len() || salt.len() != suite.salt_len() {
        return Err(SrtpError::KeyLength);
    }
    let prf = Prf::new(key, salt)?;
    Ok((SessionCipher::derive(suite, &prf, Kind::Rtp)?, SessionCipher::derive(suite, &prf, Kind::Rtcp)?))
}

/// Sequence number and ssrc of a version 2 packet (RFC 3550 §5.1).
fn rtp_seq_and_ssrc(packet: &[u8]) -> Result<(u16, u32), SrtpError> {
    let &[first, _, s0, s1, _, _, _, _, c0, c1, c2, c3] =
        packet.first_chunk::<RTP_HEADER_MIN>().ok_or(SrtpError::Truncated)?;
    if first >> 6 != 2 {
        return Err(SrtpError::Malformed);
    }
    Ok((u16::from_be_bytes([s0, s1]), u32::from_be_bytes([c0, c1, c2, c3])))
}

/// Length of the RTP header with CSRCs and extension (RFC 3550 §5.1, §5.3.1), within the packet.
// Walked here and not by `wire::rtp`, whose view is of the packet in clear: before authentication only this is needed.
fn rtp_header_len(packet: &[u8]) -> Result<usize, SrtpError> {
    let first = *packet.first().ok_or(SrtpError::Truncated)?;
    let mut len = RTP_HEADER_MIN + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let extension = packet.get(len..).and_then(|rest| rest.first_chunk::<4>()).ok_or(SrtpError::Truncated)?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
    }
    if len > packet.len() { Err(SrtpError::Truncated) } else { Ok(len) }
}

/// Sender ssrc of a version 2 compound packet (RFC 3550 §6.4.1).
fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    let &[first, _, _, _, c0, c1, c2, c3] = packet.first_chunk::<RTCP_HEADER>().ok_or(SrtpError::Truncated)?;
    if first >> 6 != 2 {
        return Err(SrtpError::Malformed);
    }
    Ok(u32::from_be_bytes([c0, c1, c2, c3]))
}

impl fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSender").field("suite", &self.suite).field("rtcp_index", &self.rtcp_index).finish()
    }
}

impl fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpReceiver").field("suite", &self.suite).field("ssrcs", &self.ssrc_count()).finish()
    }
}

#[cfg(test)]
#[path = "srtp_tests.rs"]
pub(crate) mod tests;
