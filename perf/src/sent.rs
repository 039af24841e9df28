//! What a source has sent lately, for a server that missed some of it.
//!
//! Owns: the packets of the last second in clear, as they were sent. Promises: memory is used again, so a source that
//! has sent for a second allocates no more. Forbids: keys: it gives plain packets to whoever protects them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tramline::wire::rtp::FIXED_HEADER_BYTES;

/// Whatever is asked for later comes too late for a picture.
const KEPT: Duration = Duration::from_secs(1);
/// The numbers wrap at 65,536: more could not be told apart.
const PACKETS_MAX: usize = 1 << 15;

/// A packet in clear.
#[derive(Debug)]
pub struct Kept {
    /// Its number, whose low half is the sequence number.
    pub number: u64,
    /// Bytes of header, extensions included.
    pub header_len: usize,
    /// Header and payload.
    pub plain: Vec<u8>,
    at: Instant,
}

impl Kept {
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        self.plain.get(self.header_len.max(FIXED_HEADER_BYTES)..).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sent {
    packets: VecDeque<Kept>,
}

impl Sent {
    /// Keeps a packet whose header is `plain[..header_len]`; numbers only grow, by one.
    pub fn keep(&mut self, now: Instant, number: u64, header_len: usize, plain: &[u8]) {
        let is_old = |kept: &Kept| now.saturating_duration_since(kept.at) > KEPT;
        let mut memory = Vec::new();
        while self.packets.front().is_some_and(is_old) || self.packets.len() >= PACKETS_MAX {
            memory = self.packets.pop_front().map_or_else(Vec::new, |kept| kept.plain);
        }
        memory.clear();
        memory.extend_from_slice(plain);
        self.packets.push_back(Kept { number, header_len, plain: memory, at: now });
    }

    /// The packet that went by this sequence number, if it is still there.
    pub fn find(&self, seq: u16) -> Option<&Kept> {
        let first = self.packets.front()?;
        self.packets.get(usize::from(seq.wrapping_sub(first.number as u16))).filter(|kept| kept.number as u16 == seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_by_its_number_for_a_second() {
        let (mut sent, start) = (Sent::default(), tramline::runtime::clock::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        for nth in 0..200_u64 {
            sent.keep(at(nth * 10), 65_500 + nth, 12, &[nth as u8; 20]);
        }
        // The last came at 1990 ms, so the oldest is of 990 ms.
        assert!(sent.find(65_500_u64.wrapping_add(98) as u16).is_none());
        for nth in 99..200_u64 {
            let kept = sent.find((65_500 + nth) as u16).unwrap();
            assert_eq!((kept.number, kept.payload()), (65_500 + nth, &[nth as u8; 8][..]), "numbers wrap meanwhile");
        }
        assert!(sent.find((65_500_u64 + 200) as u16).is_none(), "not sent yet");
    }
}
