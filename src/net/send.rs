//! Sending: one SENDMSG submission per datagram, its message header in a preallocated slot.
//!
//! Owns: the slots. The kernel copies header, addresses, control data and payload while it consumes the submission:
//! MSG_DONTWAIT on every send makes a full socket buffer an error instead of a retry that would read the slot later. So
//! slots and payload are free again once the enter returned.
#![allow(unsafe_code)]

use std::net::SocketAddr;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::cmsg::{self, CONTROL_SEND_BYTES, NAME_BYTES};
use super::{FILE_V4, FILE_V6};
use crate::base::batch::Path;

pub(super) struct SendSlots {
    slots: Box<[Slot]>,
    used: usize,
}

/// Everything one SENDMSG points to, in one place; two cache lines and a half.
struct Slot {
    header: libc::msghdr,
    payload: libc::iovec,
    name: Aligned<NAME_BYTES>,
    control: Aligned<CONTROL_SEND_BYTES>,
}

#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl SendSlots {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| Slot::empty()).collect(), used: 0 }
    }

    /// The kernel has consumed all submissions: every slot is free.
    pub(super) fn reuse(&mut self) {
        self.used = 0;
    }

    /// Fills the next slot; `None` when all are in use. The submission is valid until [`reuse`](Self::reuse) and as long
    /// as `payload` lives and stays where it is.
    pub(super) fn submission(&mut self, path: Path, payload: &[u8]) -> Option<squeue::Entry> {
        let slot = self.slots.get_mut(self.used)?;
        self.used += 1;
        slot.fill(path, payload);
        let file = file_of(path.remote);
        Some(
            opcode::SendMsg::new(Fixed(file), &raw const slot.header)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
                // Only failures are worth a completion. Never linked, drained or forced to the slow path.
                .flags(squeue::Flags::SKIP_SUCCESS),
        )
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            // SAFETY: all zero is a valid msghdr: null pointers and no lengths.
            header: unsafe { std::mem::zeroed() },
            payload: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Aligned([0; NAME_BYTES]),
            control: Aligned([0; CONTROL_SEND_BYTES]),
        }
    }

    fn fill(&mut self, path: Path, payload: &[u8]) {
        let name_len = cmsg::write_address(path.remote, &mut self.name.0);
        // A local address of the other family would be refused by the kernel: routing chooses then.
        let control_len = if path.local.is_ipv4() == path.remote.is_ipv4() {
            cmsg::write_local(path.local, &mut self.control.0)
        } else {
            0
        };
        // The kernel only reads what a sent iovec points to.
        self.payload.iov_base = payload.as_ptr().cast_mut().cast();
        self.payload.iov_len = payload.len();
        self.header.msg_name = self.name.0.as_mut_ptr().cast();
        self.header.msg_namelen = name_len;
        self.header.msg_iov = &raw mut self.payload;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.0.as_mut_ptr().cast();
        self.header.msg_controllen = control_len as _;
    }
}

/// Which registered socket reaches `remote`.
pub(super) fn file_of(remote: SocketAddr) -> u32 {
    if remote.is_ipv4() { FILE_V4 } else { FILE_V6 }
}
