//! The built program where the kernel refuses io_uring, and where it breaks under a worker.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::net::UdpSocket;

use process_support::peer::Peer;
use process_support::server::{QUIET, Server, refused, with};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use tramline::net::{IoLimits, features};

/// io_uring_enter(2): the fourth argument, and IORING_ENTER_EXT_ARG among its flags.
const ENTER_FLAGS: (u8, u64) = (3, 1 << 3);

/// Starts something on a thread for which a system call fails: a filter is inherited by what its thread starts. Without
/// rules the call always fails.
fn under<T: Send>(syscall: i64, rules: Vec<SeccompRule>, errno: i32, start: impl FnOnce() -> T + Send) -> T {
    let (allow, fail) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(syscall, rules)].into(), allow, fail, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            start()
        });
        thread.join().unwrap()
    })
}

#[test]
fn where_io_uring_is_forbidden_the_fallback_takes_over_and_says_so_once() {
    let mut server = under(libc::SYS_io_uring_setup, Vec::new(), libc::EPERM, Server::start);
    let line = server.logged("io_uring is forbidden");
    for part in ["WARN", "seccomp", "kernel.io_uring_disabled", "allow", "sendmmsg"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(server.logged("media is served").contains("mmsg"));
    server.healthy();
    let [ana, ben] =
        [1, 2].map(|number| Peer::join(server.ws("/ws"), "r", number, UdpSocket::bind("127.0.0.1:0").unwrap(), None));
    ana.hears_and_sees(2, 50);
    ben.hears_and_sees(1, 50);
    let about_it = server.log().iter().filter(|line| line.contains("io_uring")).count();
    assert_eq!(about_it, 1, "{:#?}", server.log());
}

#[test]
fn where_io_uring_was_asked_for_its_refusal_is_a_start_error() {
    let settings = with(&QUIET, &[("TRAMLINE_IO", "uring")]);
    for (syscall, errno) in [
        (libc::SYS_io_uring_setup, libc::EPERM),
        // Profiles that know only some of the three calls.
        (libc::SYS_io_uring_enter, libc::EPERM),
        (libc::SYS_io_uring_register, libc::EPERM),
    ] {
        let said = under(syscall, Vec::new(), errno, || refused(&settings));
        assert!(said.contains("io_uring is forbidden here") && !said.contains("media is served"), "{said}");
        assert_eq!(said.lines().filter(|line| !line.contains(" INFO ")).count(), 1, "{said}");
    }
    let said = under(libc::SYS_io_uring_setup, Vec::new(), libc::ENOSYS, || refused(&settings));
    assert!(said.contains("6.1"), "{said}");
}

#[test]
fn a_worker_that_cannot_go_on_ends_the_program_with_an_error() {
    if let Err(why) = features::probe(IoLimits::default()) {
        eprintln!("skipped: {why}");
        return;
    }
    // Trying the ring out works, waiting with it does not.
    let (argument, flag) = ENTER_FLAGS;
    let waits = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag).unwrap();
    let rules = vec![SeccompRule::new(vec![waits]).unwrap()];
    let settings = with(&QUIET, &[("TRAMLINE_IO", "uring")]);
    let said = under(libc::SYS_io_uring_enter, rules, libc::EBADF, || refused(&settings));
    for part in ["the worker can no longer send or receive", "a worker has ended: stopping", "Bad file descriptor"] {
        assert!(said.contains(part), "{said}");
    }
}
