//! The virtual network's addresses: NAT boxes that forget. What a link does to datagrams is [`crate::proto::link`]'s.
//!
//! Owns: which public address is whose.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::media::PeerNo;

/// The address each peer is seen under from outside.
#[derive(Clone, Debug, Default)]
pub struct Nat {
    mapped: Vec<SocketAddr>,
    /// Every address a peer ever had: none is given to another.
    owners: HashMap<SocketAddr, PeerNo>,
}

impl Nat {
    /// A peer comes.
    pub fn add(&mut self) -> PeerNo {
        let peer = PeerNo(self.mapped.len());
        let ip = Ipv4Addr::new(203, 0, (113 + peer.0 / 200) as u8, (peer.0 % 200 + 1) as u8);
        let address = SocketAddr::from((ip, 40_000));
        self.mapped.push(address);
        self.owners.insert(address, peer);
        peer
    }

    /// The mapping is forgotten: from now on the peer is seen under another port, and the old one leads nowhere.
    pub fn rebind(&mut self, peer: PeerNo) -> SocketAddr {
        let address = &mut self.mapped[peer.0];
        address.set_port(address.port() + 1);
        self.owners.insert(*address, peer);
        *address
    }

    /// How a peer is seen now.
    pub fn mapped(&self, peer: PeerNo) -> SocketAddr {
        self.mapped[peer.0]
    }

    /// Whose address this is or was.
    pub fn owner(&self, address: SocketAddr) -> Option<PeerNo> {
        self.owners.get(&address).copied()
    }

    /// Who gets what is sent there now.
    pub fn receiver(&self, address: SocketAddr) -> Option<PeerNo> {
        self.owner(address).filter(|peer| self.mapped(*peer) == address)
    }
}

/// The address a peer has behind its NAT.
pub fn private_address(peer: PeerNo) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 168, (peer.0 / 200) as u8, (peer.0 % 200 + 2) as u8), 5_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebound_peer_is_not_reached_under_its_old_address() {
        let mut nat = Nat::default();
        let peer = nat.add();
        let before = nat.mapped(peer);
        let after = nat.rebind(peer);
        assert_eq!((nat.receiver(before), nat.owner(before)), (None, Some(peer)));
        assert_eq!(nat.receiver(after), Some(peer));
    }
}
