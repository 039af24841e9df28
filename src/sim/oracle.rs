//! What must hold for every datagram that leaves a worker, whatever happened before.
//!
//! Owns: what was seen on the wire. Promises: judges ciphertext and addresses only, so it shares no code with what it
//! judges.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};

use super::media::PeerNo;
use crate::base::batch::Path;
use crate::base::seq::extend_u16;

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Addresses from which a check of a genuine peer came, and to which address of ours.
    validated: HashSet<(SocketAddr, IpAddr)>,
    /// Bytes and datagrams an address sent that nobody vouched for; replies must stay below.
    credit: HashMap<SocketAddr, (usize, usize)>,
    rtp: HashMap<(PeerNo, u32), Sent>,
    rtcp: HashMap<(PeerNo, u32, u32), u64>,
    /// Nothing gets lost on the way in: then what leaves has no gaps.
    pub is_continuous: bool,
    /// Nothing comes late on the way in: then each source's numbers leave in order.
    pub is_ordered: bool,
    /// RTP datagrams seen.
    pub rtp_datagrams: u64,
    /// RTP datagrams that were seen before, byte for byte.
    pub rtp_repeats: u64,
    /// Violations, in words.
    pub faults: Vec<String>,
}

/// What left under one (key, ssrc).
#[derive(Debug, Default)]
struct Sent {
    highest: u64,
    hashes: HashMap<u64, u64>,
}

/// Faults kept; one is too many already.
const FAULTS_MAX: usize = 20;

impl Oracle {
    /// A genuine peer's check was delivered.
    pub fn handle_check(&mut self, from: SocketAddr, to: IpAddr) {
        self.validated.insert((from, to));
    }

    /// Something else was delivered.
    pub fn handle_inbound(&mut self, from: SocketAddr, len: usize) {
        let (bytes, count) = self.credit.entry(from).or_default();
        *bytes += len;
        *count += 1;
    }

    /// A datagram leaves; `peer` is whose address it goes to.
    pub fn handle_outbound(&mut self, path: Path, peer: Option<PeerNo>, bytes: &[u8]) {
        if !self.validated.contains(&(path.remote, path.local)) {
            self.check_credit(path, bytes);
        }
        let Some(peer) = peer else { return };
        match bytes {
            [first, second, ..] if (128..192).contains(first) && (192..=223).contains(second) => {
                self.check_rtcp(peer, bytes);
            }
            [first, ..] if (128..192).contains(first) => self.check_rtp(peer, bytes),
            _ => {}
        }
    }

    /// Nobody can use us to send more to a stranger than the stranger's address sent.
    fn check_credit(&mut self, path: Path, bytes: &[u8]) {
        let (credit, count) = self.credit.entry(path.remote).or_default();
        let is_covered = *credit >= bytes.len() && *count >= 1;
        *credit = credit.saturating_sub(bytes.len());
        *count = count.saturating_sub(1);
        let left = *credit;
        if !is_covered {
            self.fault(format!("{} bytes to {path:?}, never validated, {left} received", bytes.len()));
        }
    }

    fn check_rtp(&mut self, peer: PeerNo, bytes: &[u8]) {
        let [_, _, s0, s1, _, _, _, _, c0, c1, c2, c3, ..] = *bytes else {
            return self.fault(format!("RTP of {} bytes to {peer:?}", bytes.len()));
        };
        let (seq, ssrc) = (u16::from_be_bytes([s0, s1]), u32::from_be_bytes([c0, c1, c2, c3]));
        self.rtp_datagrams += 1;
        let (is_continuous, is_ordered) = (self.is_continuous, self.is_ordered);
        let sent = self.rtp.entry((peer, ssrc)).or_default();
        let is_first = sent.hashes.is_empty();
        // RFC 3711 §3.3.1: receivers guess a roll-over counter of zero for a new source.
        let index = if is_first { u64::from(seq) } else { extend_u16(sent.highest, seq) };
        let hash = hash_of(bytes);
        let before = sent.hashes.insert(index, hash);
        let highest = sent.highest;
        sent.highest = highest.max(index);
        match before {
            Some(before) if before != hash => {
                self.fault(format!("two packets under index {index} of ssrc {ssrc:08x} to {peer:?}"));
            }
            Some(_) => self.rtp_repeats += 1,
            None if is_first && seq >= 1 << 15 => {
                self.fault(format!(
                    "ssrc {ssrc:08x} to {peer:?} begins at {seq}: a late joiner may miss the roll-over"
                ));
            }
            None if is_ordered && index < highest => {
                self.fault(format!("index {index} comes after {highest} of ssrc {ssrc:08x} to {peer:?}"));
            }
            None if is_continuous && !is_first && index != highest + 1 => {
                self.fault(format!("index {index} follows {highest} of ssrc {ssrc:08x} to {peer:?}"));
            }
            None => {}
        }
    }

    /// With GCM the last word is E flag and index (RFC 7714 §9.2).
    fn check_rtcp(&mut self, peer: PeerNo, bytes: &[u8]) {
        let (Some([_, _, _, _, ssrc @ ..]), Some(word)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<4>()) else {
            return self.fault(format!("RTCP of {} bytes to {peer:?}", bytes.len()));
        };
        let key = (peer, u32::from_be_bytes(*ssrc), u32::from_be_bytes(*word));
        if self.rtcp.insert(key, hash_of(bytes)).is_some() {
            self.fault(format!("SRTCP index used twice: {key:?}"));
        }
    }

    /// Notes a violation.
    pub fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// A hash that is the same in every run.
pub fn hash_of(bytes: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(bytes)
}
