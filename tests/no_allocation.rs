//! A worker core in steady state takes no memory: 100,000 packets forwarded with 0 allocations, in Rust and in C.
//!
//! Watched are all calls into the core: datagrams (media, late and lost packets, retransmissions, checks, sender and
//! receiver reports, transport-wide feedback, NACKs, PLIs), lanes, timers, forwarding. Two things are left out, as they
//! are for people and not for packets: `Event::Report` once a second and `Event::Levels` four times a second carry lists.
//! The peers are outside what is watched.

mod heap_support;

use heap_support::call::Call;
use tramline::crypto::srtp::SrtpSuite;

const SUBSCRIBERS: u32 = 10;
/// Every list has grown to its size by then: reports, checks and keyframes came and went, and the estimates have settled.
const WARM_UP_MS: u64 = 30_000;
/// 50 packets of sound a second to ten subscribers, and 1,000, 500 or 250 of pictures as they wish.
const MEASURED_MS: u64 = 26_000;

fn steady_state_takes_no_memory(workers: usize, suite: SrtpSuite) {
    let mut call = Call::new(workers, SUBSCRIBERS, suite);
    call.run(WARM_UP_MS);
    let received = call.received();
    (call.allocations, call.tellings) = (0, 0);
    call.run(MEASURED_MS);
    let received = call.received() - received;
    assert!(received >= 100_000, "{received} packets are not enough to tell");
    assert!(call.tellings <= 5 * (MEASURED_MS / 1000 + 1) * workers as u64, "{} tellings", call.tellings);
    for subscriber in &call.peers[1..] {
        assert!(subscriber.retransmitted > 50 && subscriber.reports > 10, "the feedback was served");
    }
    assert_eq!(call.allocations, 0, "allocations over {received} packets");
}

#[test]
fn one_core_takes_no_memory() {
    steady_state_takes_no_memory(1, SrtpSuite::AeadAes128Gcm);
}

#[test]
fn two_cores_joined_by_lanes_take_no_memory() {
    steady_state_takes_no_memory(2, SrtpSuite::AeadAes128Gcm);
}

#[test]
fn the_sha1_suite_takes_no_memory() {
    steady_state_takes_no_memory(1, SrtpSuite::Aes128CmSha1_80);
}
