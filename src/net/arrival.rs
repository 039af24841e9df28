//! What one receive brought: a datagram, or a train of them that came in one piece (UDP_GRO), lent out one by one.
//!
//! Owns: the place within the piece. Promises: every datagram of it is lent exactly once, in order; what is larger than
//! the worker is prepared for is counted, not lent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cmsg;
use super::counters::IoCounters;
use crate::base::batch::{Path, RxDatagram};

/// The largest datagram handed to a worker: above every usual MTU, so that only jumbo frames are refused.
pub(super) const DATAGRAM_BYTES_MAX: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    path: Path,
    /// Where the next datagram starts in the payload.
    at: usize,
    /// All payload bytes.
    len: usize,
    /// Bytes of each datagram but the last.
    segment_bytes: usize,
    /// After the beginning of the UNIX epoch.
    came_at: Option<Duration>,
    /// Datagrams that were not lent yet. Not the bytes: a datagram may be empty.
    left: usize,
}

impl Arrival {
    /// Reads what the kernel wrote beside `len` bytes of payload. `None`, and counted, when it cannot be used.
    pub(super) fn read(name: &[u8], control: &[u8], len: usize, counters: &mut IoCounters) -> Option<Self> {
        let Some(remote) = cmsg::read_address(name) else {
            counters.rx_malformed += 1;
            return None;
        };
        let received = cmsg::read_control(control);
        let local = received.local.unwrap_or_else(|| unspecified(remote));
        let segment_bytes = received.segment_bytes.unwrap_or(len).min(len);
        let left = if segment_bytes == 0 { 1 } else { len.div_ceil(segment_bytes) };
        if segment_bytes > DATAGRAM_BYTES_MAX {
            counters.rx_truncated += left as u64;
            return None;
        }
        if left > 1 {
            counters.rx_trains += 1;
            counters.rx_train_datagrams += left as u64;
        }
        Some(Self { path: Path { remote, local }, at: 0, len, segment_bytes, came_at: received.came_at, left })
    }

    /// Shows the next datagram of `payload` to `read`; `None` when all were shown.
    pub(super) fn lend<R>(
        &mut self,
        payload: &mut [u8],
        wall: SystemTime,
        counters: &mut IoCounters,
        read: impl FnOnce(RxDatagram<'_>) -> R,
    ) -> Option<R> {
        self.left = self.left.checked_sub(1)?;
        let start = self.at;
        self.at = self.len.min(start + self.segment_bytes);
        let bytes = payload.get_mut(start..self.at)?;
        counters.rx_datagrams += 1;
        counters.rx_bytes += bytes.len() as u64;
        Some(read(RxDatagram { path: self.path, bytes, waited: self.waited(wall) }))
    }

    /// Zero where the kernel did not say, or the wall clock was set back meanwhile.
    fn waited(&self, wall: SystemTime) -> Duration {
        let came_at = self.came_at.map(|came_at| UNIX_EPOCH + came_at);
        came_at.and_then(|came_at| wall.duration_since(came_at).ok()).unwrap_or_default()
    }

    /// Whether all datagrams were lent.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }
}

fn unspecified(remote: SocketAddr) -> IpAddr {
    match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::cmsg::{CONTROL_SEND_BYTES, NAME_BYTES};

    fn arrival(segment_bytes: Option<i32>, len: usize) -> (Option<Arrival>, IoCounters) {
        let (mut name, mut control) = ([0; NAME_BYTES], [0; CONTROL_SEND_BYTES]);
        let name_len = cmsg::write_address(([192, 0, 2, 1], 9).into(), &mut name) as usize;
        let control_len = segment_bytes.map_or(0, |bytes| cmsg::write_gro(bytes, &mut control));
        let mut counters = IoCounters::default();
        (Arrival::read(&name[..name_len], &control[..control_len], len, &mut counters), counters)
    }

    fn lent(segment_bytes: Option<i32>, len: usize) -> Vec<usize> {
        let (arrival, mut counters) = arrival(segment_bytes, len);
        let mut arrival = arrival.unwrap();
        let mut payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let (mut seen, mut lens) = (Vec::new(), Vec::new());
        while let Some(bytes) =
            arrival.lend(&mut payload, SystemTime::UNIX_EPOCH, &mut counters, |datagram| datagram.bytes.to_vec())
        {
            lens.push(bytes.len());
            seen.extend(bytes);
        }
        assert!(arrival.is_done());
        assert_eq!(seen, payload);
        assert_eq!((counters.rx_datagrams, counters.rx_bytes), (lens.len() as u64, len as u64));
        lens
    }

    #[test]
    fn a_train_is_lent_as_the_datagrams_it_is_made_of() {
        assert_eq!(lent(Some(100), 300), [100, 100, 100]);
        assert_eq!(lent(Some(100), 250), [100, 100, 50]);
        assert_eq!(lent(None, 250), [250]);
        assert_eq!(lent(Some(1000), 250), [250], "a segment size beyond the payload");
        assert_eq!(lent(None, 0), [0], "an empty datagram is one");
        assert_eq!(lent(Some(100), 0), [0]);
        assert_eq!(arrival(Some(100), 250).1.rx_train_datagrams, 3);
    }

    #[test]
    fn what_is_too_large_is_counted_by_datagram() {
        let (arrival, counters) = arrival(Some(DATAGRAM_BYTES_MAX as i32 + 1), 3 * DATAGRAM_BYTES_MAX);
        assert!(arrival.is_none());
        assert_eq!((counters.rx_truncated, counters.rx_trains), (3, 0));
    }

    #[test]
    fn who_cannot_be_read_is_counted() {
        let mut counters = IoCounters::default();
        assert!(Arrival::read(&[0; 3], &[], 9, &mut counters).is_none());
        assert_eq!(counters.rx_malformed, 1);
    }
}
