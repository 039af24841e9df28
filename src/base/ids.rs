//! Names of things: small, `Copy`, and never confused with each other.
//!
//! *Ids* are stable and loggable. *Keys* are an index and an epoch: they address dense tables without hashing,
//! and a key that outlived its owner is noticed instead of reaching the next tenant.

use std::fmt;

/// A synchronisation source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// Index of a media worker, 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// A peer as signalling knows it; unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// Addresses a session in every worker's dense table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Position in the table.
    pub index: u32,
    /// Tenancy of that position.
    pub epoch: u32,
}

/// Addresses a published track in the fanout table and in every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackKey {
    /// Position in the table.
    pub index: u32,
    /// Tenancy of that position.
    pub epoch: u32,
}

/// Addresses a room in every worker that has voices of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey {
    /// Position in the table.
    pub index: u32,
    /// Tenancy of that position.
    pub epoch: u32,
}

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p-{}", self.0)
    }
}

/// Hands out dense (index, epoch) pairs; the one writer of keys is the control plane.
#[derive(Debug, Default)]
pub struct KeyPool {
    epochs: Vec<u32>,
    free: Vec<u32>,
}

impl KeyPool {
    /// A pair that no living holder has.
    pub fn take(&mut self) -> (u32, u32) {
        match self.free.pop() {
            Some(index) => (index, self.epochs[index as usize]),
            None => {
                let index = self.epochs.len() as u32;
                self.epochs.push(0);
                (index, 0)
            }
        }
    }

    /// Gives an index back; keys with its old epoch are stale from now on.
    pub fn give_back(&mut self, index: u32) {
        if let Some(epoch) = self.epochs.get_mut(index as usize) {
            *epoch = epoch.wrapping_add(1);
            self.free.push(index);
        }
    }
}

macro_rules! sdes_tags {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            len: u8,
            bytes: [u8; 16],
        }

        impl $name {
            /// `None` when empty or longer than 16 bytes.
            pub fn new(tag: &[u8]) -> Option<Self> {
                if tag.is_empty() || tag.len() > 16 {
                    return None;
                }
                let mut bytes = [0; 16];
                bytes[..tag.len()].copy_from_slice(tag);
                Some(Self { len: tag.len() as u8, bytes })
            }

            /// The tag's bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.bytes[..usize::from(self.len)]
            }

            /// The tag as text; SDP tokens are ASCII.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(self.as_bytes()).unwrap_or("?")
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, ":{}"), self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

sdes_tags! {
    /// A media identification tag (RFC 8843 §15): up to 16 bytes, as the one-byte header extension carries it.
    Mid => "mid",
    /// The name of one stream of a simulcast (RFC 8851 §4, RFC 8852 §3): up to 16 bytes, for the same reason.
    Rid => "rid",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_back_comes_again_with_another_epoch() {
        let mut pool = KeyPool::default();
        let (first, epoch) = pool.take();
        pool.give_back(first);
        let (again, later) = pool.take();
        assert_eq!(first, again);
        assert_ne!(epoch, later);
    }

    #[test]
    fn a_mid_is_one_to_sixteen_bytes() {
        assert!(Mid::new(b"").is_none());
        assert!(Mid::new(&[b'x'; 17]).is_none());
        assert_eq!(Mid::new(b"audio").map(|mid| mid.as_str().to_owned()).as_deref(), Some("audio"));
    }
}
