//! Where trains are refused: remembered where it belongs, so that one bad path does not slow the others down.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;

/// Refusals remembered. Far more than live peers on odd paths; when full, all are tried again.
const REMEMBERED_MAX: usize = 4096;

/// Peers and hosts that get single datagrams.
#[derive(Debug, Default)]
pub(super) struct PlainPeers {
    /// By EMSGSIZE or EINVAL: a segment does not fit this peer's path MTU.
    peers: HashSet<SocketAddr, RandomState>,
    /// By EIO: the device on the route to this host can neither segment nor checksum.
    hosts: HashSet<IpAddr, RandomState>,
}

impl PlainPeers {
    /// Whether trains to `remote` were refused.
    #[inline]
    pub(super) fn is_plain(&self, remote: SocketAddr) -> bool {
        !(self.peers.is_empty() && self.hosts.is_empty())
            && (self.peers.contains(&remote) || self.hosts.contains(&remote.ip()))
    }

    /// Notes why a train was not sent; `false` when single datagrams would fare no better.
    pub(super) fn note_refusal(&mut self, remote: SocketAddr, errno: i32) -> bool {
        if self.peers.len() + self.hosts.len() >= REMEMBERED_MAX {
            self.peers.clear();
            self.hosts.clear();
        }
        match errno {
            libc::EMSGSIZE | libc::EINVAL => self.peers.insert(remote),
            libc::EIO => self.hosts.insert(remote.ip()),
            _ => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_concerns_whom_it_concerns() {
        let (one, same_host, other): (SocketAddr, SocketAddr, SocketAddr) =
            (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 1], 2).into(), ([192, 0, 2, 9], 1).into());
        let mut plain = PlainPeers::default();
        assert!(plain.note_refusal(one, libc::EMSGSIZE));
        assert!(plain.is_plain(one) && !plain.is_plain(same_host));
        assert!(plain.note_refusal(one, libc::EIO));
        assert!(plain.is_plain(same_host) && !plain.is_plain(other));
        assert!(!plain.note_refusal(other, libc::EAGAIN));
        assert!(!plain.is_plain(other));
    }

    #[test]
    fn refusals_are_bounded() {
        let mut plain = PlainPeers::default();
        for port in 0..=u16::MAX {
            plain.note_refusal(([192, 0, 2, 1], port).into(), libc::EINVAL);
        }
        assert!(plain.peers.len() <= REMEMBERED_MAX);
    }
}
