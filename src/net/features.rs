//! Asks the kernel, before anything is announced, whether our kind of io_uring is allowed here.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};
use thiserror::Error;

use super::driver::{Driver, IoLimits};
use super::socket::WorkerSockets;
use super::uring::UdpDriver;
use super::wake::WakeSource;
use crate::base::batch::TxBatch;

/// Why io_uring cannot be used; each sentence names the way out.
#[derive(Debug, Error)]
pub enum IoUringRefused {
    /// Seccomp profile or sysctl.
    #[error(
        "io_uring is forbidden here, as container seccomp profiles and the sysctl kernel.io_uring_disabled do: \
         allow the io_uring_setup, io_uring_enter and io_uring_register system calls for this process"
    )]
    Forbidden,
    /// Kernel without io_uring, or too old for what we need of it.
    #[error("this kernel's io_uring lacks {0}: Linux 6.1 or newer is needed")]
    TooOld(&'static str),
    /// Memory or descriptors.
    #[error("io_uring could not be set up: {0}")]
    Failed(#[source] io::Error),
}

/// Does once all that a worker's ring will do, short of moving a datagram: the system calls, flags and sizes are those of
/// the real thing, so that what is refused is refused here.
///
/// # Errors
/// [`IoUringRefused`] says what is missing, in words for whoever starts the program.
pub fn probe(limits: IoLimits) -> Result<(), IoUringRefused> {
    let ring = build_ring(8, 16)?;
    if !ring.params().is_feature_ext_arg() {
        return Err(IoUringRefused::TooOld("timeouts on enter"));
    }
    if !ring.params().is_feature_skip_cqe_on_success() {
        return Err(IoUringRefused::TooOld("silent completions"));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| refused(error, "probing"))?;
    let codes = [opcode::SendMsg::CODE, opcode::RecvMsgMulti::CODE, opcode::Read::CODE];
    if codes.iter().any(|&code| !probe.is_supported(code)) {
        return Err(IoUringRefused::TooOld("sendmsg and recvmsg"));
    }
    let wake = WakeSource::new().map_err(IoUringRefused::Failed)?;
    let mut driver = UdpDriver::new(WorkerSockets::none(), wake, limits)?;
    driver.send_and_wait(&TxBatch::with_capacity(0), Duration::ZERO).map_err(|error| refused(error, "entering"))
}

/// A ring with our flags; must be called on the thread that will use it, which becomes its single issuer.
pub(super) fn build_ring(sq_entries: u32, cq_entries: u32) -> Result<IoUring, IoUringRefused> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        // Work arriving for us is done when we enter, not by interrupting us.
        .setup_defer_taskrun()
        // Says in shared memory whether such work waits, so that an enter can be saved.
        .setup_taskrun_flag()
        // One bad submission does not hold up those behind it.
        .setup_submit_all()
        .setup_cqsize(cq_entries);
    // The index array of the submission queue is dead weight, but only kernels from 6.6 on can leave it out.
    let mut lean = builder.clone();
    match lean.setup_no_sqarray().build(sq_entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(sq_entries),
        built => built,
    }
    .map_err(|error| refused(error, "DEFER_TASKRUN and SINGLE_ISSUER"))
}

/// Puts an errno of io_uring_setup or io_uring_register into words.
pub(super) fn refused(error: io::Error, wanted: &'static str) -> IoUringRefused {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => IoUringRefused::Forbidden,
        Some(libc::ENOSYS) => IoUringRefused::TooOld("io_uring altogether"),
        Some(libc::EINVAL) => IoUringRefused::TooOld(wanted),
        _ => IoUringRefused::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_sentence_with_the_way_out() {
        let forbidden = refused(io::Error::from_raw_os_error(libc::EPERM), "x").to_string();
        assert!(forbidden.contains("seccomp") && forbidden.contains("allow"), "{forbidden}");
        let missing = refused(io::Error::from_raw_os_error(libc::ENOSYS), "x").to_string();
        assert!(missing.contains("6.1"), "{missing}");
    }
}
