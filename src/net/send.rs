//! Sending: one SENDMSG submission per train, its message header in a preallocated slot.
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
use crate::base::train::Train;

pub(super) struct SendSlots {
    slots: Box<[Slot]>,
    used: usize,
}

/// Everything one SENDMSG points to, in one place; two cache lines and a half.
struct Slot {
    train: Option<Train>,
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

    /// Fills the next slot and gives its number; `None` when all are in use. The submission is valid until [`reuse`](Self::reuse) and as long
    /// as `payload` lives and stays where it is.
    pub(super) fn submission(&mut self, train: &Train, payload: &[u8]) -> Option<(u64, squeue::Entry)> {
        let slot = self.slots.get_mut(self.used)?;
        let number = self.used as u64;
        self.used += 1;
        slot.fill(train, payload);
        let file = file_of(train.path.remote);
        Some((
            number,
            opcode::SendMsg::new(Fixed(file), &raw const slot.header)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
                // Only failures are worth a completion. Never linked, drained or forced to the slow path.
                .flags(squeue::Flags::SKIP_SUCCESS),
        ))
    }

    /// What the slot of that number sends, until it is reused.
    pub(super) fn train(&self, number: u64) -> Option<Train> {
        self.slots.get(number as usize)?.train
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            train: None,
            // SAFETY: all zero is a valid msghdr: null pointers and no lengths.
            header: unsafe { std::mem::zeroed() },
            payload: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Aligned([0; NAME_BYTES]),
            control: Aligned([0; CONTROL_SEND_BYTES]),
        }
    }

    fn fill(&mut self, train: &Train, payload: &[u8]) {
        let path = train.path;
        self.train = Some(*train);
        let name_len = cmsg::write_address(path.remote, &mut self.name.0);
        // A local address of the other family would be refused by the kernel: routing chooses then.
        let mut control_len = if path.local.is_ipv4() == path.remote.is_ipv4() {
            cmsg::write_local(path.local, &mut self.control.0)
        } else {
            0
        };
        if train.count > 1 {
            control_len = cmsg::write_segment(train.segment_bytes as u16, control_len, &mut self.control.0);
        }
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
