//! What every driver does, held against each of them.
#![allow(unsafe_code)]

use super::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::super::socket::{BindAddresses, bind_group};
use crate::base::batch::Path;
use crate::runtime::clock;

/// Each test, for each driver.
macro_rules! for_each_driver {
    ($($name:ident)*) => {
        mod uring {
            $(#[test] fn $name() { super::$name::<crate::net::UdpDriver>(); })*
        }
        mod mmsg {
            $(#[test] fn $name() { super::$name::<crate::net::MmsgDriver>(); })*
        }
    };
}

for_each_driver! {
    a_reply_leaves_from_the_address_the_request_came_to
    a_train_arrives_as_the_datagrams_it_is_made_of
    an_ipv6_train_arrives_too
    a_refused_train_goes_out_plain_and_is_not_tried_again
    ipv6_datagrams_know_their_local_address_and_answer_from_it
    an_unspecified_local_address_lets_routing_choose
    a_starved_buffer_ring_loses_nothing_and_starts_again
    a_train_that_comes_in_is_lent_datagram_by_datagram
    a_datagram_says_how_long_it_waited
    the_longest_train_fits_a_buffer_and_what_does_not_is_counted
    a_datagram_larger_than_a_worker_takes_is_dropped_and_counted
    with_a_tiny_send_buffer_nothing_hangs_and_what_arrives_is_whole
    failed_sends_are_counted_by_kind_and_do_not_hold_up_others
    without_a_socket_of_the_family_a_datagram_is_counted_not_sent
    a_wake_from_another_thread_ends_the_wait
    no_wake_is_lost_in_a_long_ping_pong
}

/// Long enough to be a hang to whoever watches; no test depends on its length.
const FOREVER: Duration = Duration::from_secs(3600);

/// Small enough that tests come to their ends.
const LIMITS: IoLimits = IoLimits { recv_buffers: 64, recv_buffer_bytes: 1 << 16, sq_entries: 16 };

fn driver_with<D: Driver>(limits: IoLimits) -> D {
    let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
    D::open(sockets, WakeSource::new().unwrap(), limits).unwrap()
}

fn driver<D: Driver>() -> D {
    driver_with(LIMITS)
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(FOREVER)).unwrap();
    client
}

fn push(batch: &mut TxBatch, path: Path, payload: &[u8]) {
    batch.reserve().unwrap()[..payload.len()].copy_from_slice(payload);
    batch.commit(path, payload.len());
}

/// Waits until one datagram is there and gives its path and payload.
fn next(io: &mut impl Driver) -> (Path, Vec<u8>) {
    let nothing = TxBatch::with_capacity(0);
    loop {
        if let Some(got) = io.receive(clock::wall(), |datagram| (datagram.path, datagram.bytes.to_vec())) {
            return got;
        }
        io.send_and_wait(&nothing, FOREVER).unwrap();
    }
}

fn a_reply_leaves_from_the_address_the_request_came_to<D: Driver>() {
    let mut io = driver::<D>();
    let client = client();
    for local in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 8, 7, 6)] {
        client.send_to(b"ping", (local, io.port())).unwrap();
        let (path, payload) = next(&mut io);
        assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: IpAddr::V4(local) });
        let mut batch = TxBatch::with_capacity(1);
        push(&mut batch, path, &payload);
        io.send(&batch).unwrap();
        let (len, from) = client.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((len, from), (4, SocketAddr::from((local, io.port()))));
    }
}

/// Ten datagrams of which the last is shorter, to one client.
fn train_for(client: &UdpSocket, local: IpAddr) -> (TxBatch, Vec<Vec<u8>>) {
    let mut batch = TxBatch::with_capacity(16);
    let payloads: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i; if i == 9 { 700 } else { 1200 }]).collect();
    for payload in &payloads {
        push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, payload);
    }
    (batch, payloads)
}

fn receive_all(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2000];
    (0..count).map(|_| client.recv(&mut buffer).map(|len| buffer[..len].to_vec()).unwrap()).collect()
}

fn a_train_arrives_as_the_datagrams_it_is_made_of<D: Driver>() {
    let mut io = driver::<D>();
    let client = client();
    for local in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(127, 0, 0, 3)] {
        let (batch, payloads) = train_for(&client, local.into());
        io.send(&batch).unwrap();
        assert_eq!(receive_all(&client, payloads.len()), payloads);
    }
    let counters = io.counters();
    assert_eq!((counters.tx_trains, counters.tx_train_datagrams, counters.tx_datagrams), (2, 20, 20));
    assert_eq!((counters.tx_failed(), counters.tx_trains_refused), (0, 0));
}

fn an_ipv6_train_arrives_too<D: Driver>() {
    let mut io = driver::<D>();
    let Ok(client) = UdpSocket::bind("[::1]:0") else { return };
    client.set_read_timeout(Some(FOREVER)).unwrap();
    let (batch, payloads) = train_for(&client, "::1".parse().unwrap());
    io.send(&batch).unwrap();
    assert_eq!(receive_all(&client, payloads.len()), payloads);
    assert_eq!(io.counters().tx_trains, 1);
}

fn a_refused_train_goes_out_plain_and_is_not_tried_again<D: Driver>() {
    let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
    // Without checksums the kernel refuses to segment (EINVAL), as it does for a path with a smaller MTU.
    let fd = sockets.v4_fd().unwrap().as_raw_fd();
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives through the call.
    let set = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, (&raw const on).cast(), size_of_val(&on) as u32)
    };
    assert_eq!(set, 0);
    let mut io = D::open(sockets, WakeSource::new().unwrap(), LIMITS).unwrap();
    let client = client();
    for round in 1..=3 {
        let (batch, payloads) = train_for(&client, IpAddr::V4(Ipv4Addr::LOCALHOST));
        io.send(&batch).unwrap();
        assert_eq!(receive_all(&client, payloads.len()), payloads);
        let counters = io.counters();
        assert_eq!((counters.tx_trains_refused, counters.tx_trains, counters.tx_failed()), (1, 0, 0));
        assert_eq!(counters.tx_datagrams, round * 10);
    }
}

fn ipv6_datagrams_know_their_local_address_and_answer_from_it<D: Driver>() {
    let mut io = driver::<D>();
    // A machine without IPv6 has nothing to test here.
    let Ok(client) = UdpSocket::bind("[::1]:0") else { return };
    client.set_read_timeout(Some(FOREVER)).unwrap();
    client.send_to(b"ping", ("::1", io.port())).unwrap();
    let (path, payload) = next(&mut io);
    assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: "::1".parse().unwrap() });
    let mut batch = TxBatch::with_capacity(1);
    push(&mut batch, path, &payload);
    io.send(&batch).unwrap();
    assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, SocketAddr::new(path.local, io.port()));
}

fn an_unspecified_local_address_lets_routing_choose<D: Driver>() {
    let mut io = driver::<D>();
    let client = client();
    for local in [IpAddr::from([0, 0, 0, 0]), "::".parse().unwrap()] {
        let mut batch = TxBatch::with_capacity(1);
        push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, b"x");
        io.send(&batch).unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, SocketAddr::from(([127, 0, 0, 1], io.port())));
    }
    assert_eq!(io.counters().tx_failed(), 0);
}

fn a_starved_buffer_ring_loses_nothing_and_starts_again<D: Driver>() {
    let mut io: D = driver_with(IoLimits { recv_buffers: 8, ..LIMITS });
    let client = client();
    io.send_and_wait(&TxBatch::with_capacity(0), Duration::ZERO).unwrap();
    for number in 0..200u32 {
        client.send_to(&number.to_be_bytes(), ("127.0.0.1", io.port())).unwrap();
    }
    let numbers: Vec<_> = (0..200).map(|_| u32::from_be_bytes(next(&mut io).1.try_into().unwrap())).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    let counters = io.counters();
    assert!(counters.rx_starved > 0, "{counters:?}");
    assert_eq!(counters.rx_datagrams, 200);
}

/// Sends `payload` as a train of datagrams of `segment_bytes`.
fn send_train(client: &UdpSocket, payload: &[u8], segment_bytes: libc::c_int, to: SocketAddr) {
    let len = size_of_val(&segment_bytes) as u32;
    let value = (&raw const segment_bytes).cast();
    // SAFETY: the option's value is an int that lives through the call.
    let set = unsafe { libc::setsockopt(client.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, len) };
    assert_eq!(set, 0);
    assert_eq!(client.send_to(payload, to).unwrap(), payload.len());
}

fn a_train_that_comes_in_is_lent_datagram_by_datagram<D: Driver>() {
    // One buffer for each family: the next train needs the buffer of the one before.
    let mut io: D = driver_with(IoLimits { recv_buffers: 2, ..LIMITS });
    let (client, nothing) = (client(), TxBatch::with_capacity(0));
    let to = SocketAddr::from(([127, 0, 0, 5], io.port()));
    let path = Path { remote: client.local_addr().unwrap(), local: to.ip() };
    io.send_and_wait(&nothing, Duration::ZERO).unwrap();
    for round in 0..20u8 {
        let payload: Vec<u8> = (0..20_000u32).map(|index| (index / 1000) as u8 ^ round).collect();
        send_train(&client, &payload, 1200, to);
        let mut whole = Vec::new();
        for left in (0..17).rev() {
            let (from, bytes) = next(&mut io);
            assert_eq!((from, bytes.len()), (path, if left == 0 { 800 } else { 1200 }));
            whole.extend(bytes);
            assert_eq!(io.has_datagram(), left > 0);
            if left == 9 {
                // A turn may end anywhere: the rest stays queued, and nobody waits.
                io.send_and_wait(&nothing, FOREVER).unwrap();
            }
        }
        assert_eq!(whole, payload);
    }
    let counters = io.counters();
    assert_eq!((counters.rx_trains, counters.rx_train_datagrams), (20, 20 * 17));
    assert_eq!((counters.rx_datagrams, counters.rx_bytes), (20 * 17, 20 * 20_000));
}

fn a_datagram_says_how_long_it_waited<D: Driver>() {
    const LATER: Duration = Duration::from_secs(1000);
    let (mut io, client) = (driver::<D>(), client());
    let waited = |io: &mut D, wall: SystemTime| loop {
        if let Some(waited) = io.receive(wall, |datagram| datagram.waited) {
            return waited;
        }
        io.send_and_wait(&TxBatch::with_capacity(0), FOREVER).unwrap();
    };
    client.send_to(b"one", ("127.0.0.1", io.port())).unwrap();
    // The wall clock is read before the datagram comes, be it by a little.
    let waited_on = waited(&mut io, clock::wall() + LATER);
    assert!(waited_on > LATER / 2 && waited_on < 2 * LATER, "{waited_on:?}");
    client.send_to(b"two", ("127.0.0.1", io.port())).unwrap();
    assert_eq!(waited(&mut io, SystemTime::UNIX_EPOCH), Duration::ZERO, "the clock was set back");
}

fn the_longest_train_fits_a_buffer_and_what_does_not_is_counted<D: Driver>() {
    let (client, longest) = (client(), vec![7; 65_507]);
    let mut io = driver::<D>();
    send_train(&client, &longest, 1400, ([127, 0, 0, 1], io.port()).into());
    let lens: usize = (0..longest.len().div_ceil(1400)).map(|_| next(&mut io).1.len()).sum();
    assert_eq!((lens, io.counters().rx_truncated), (longest.len(), 0));

    let mut io: D = driver_with(IoLimits { recv_buffer_bytes: 4096, ..LIMITS });
    let to = ([127, 0, 0, 1], io.port()).into();
    send_train(&client, &[7; 10_000], 1000, to);
    send_train(&client, &[8; 2500], 1000, to);
    let lens = [(); 3].map(|()| next(&mut io).1.len());
    assert_eq!((lens, io.counters().rx_truncated), ([1000, 1000, 500], 1));
}

fn a_datagram_larger_than_a_worker_takes_is_dropped_and_counted<D: Driver>() {
    let mut io = driver::<D>();
    let client = client();
    client.send_to(&[7; 2049], ("127.0.0.1", io.port())).unwrap();
    client.send_to(&[8; 2048], ("127.0.0.1", io.port())).unwrap();
    client.send_to(&[], ("127.0.0.1", io.port())).unwrap();
    assert_eq!(next(&mut io).1, [8; 2048]);
    assert!(next(&mut io).1.is_empty());
    assert_eq!(io.counters().rx_truncated, 1);
}

fn with_a_tiny_send_buffer_nothing_hangs_and_what_arrives_is_whole<D: Driver>() {
    let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
    socket2::SockRef::from(&sockets.v4_fd().unwrap()).set_send_buffer_size(1).unwrap();
    let mut io = D::open(sockets, WakeSource::new().unwrap(), LIMITS).unwrap();
    let client = client();
    socket2::SockRef::from(&client).set_recv_buffer_size(4 << 20).unwrap();
    let path = Path { remote: client.local_addr().unwrap(), local: Ipv4Addr::LOCALHOST.into() };
    // Many more than there are slots, so that these are used again and again; some in trains, some alone.
    let mut batch = TxBatch::with_capacity(300);
    let payload =
        |number: u32| number.to_be_bytes().repeat(if number % 7 < 3 { 300 } else { 200 + number as usize % 7 });
    (0..300).for_each(|number| push(&mut batch, path, &payload(number)));
    let bytes = (0..300).map(|number| payload(number).len() as u64).sum();
    io.send(&batch).unwrap();
    let counters = io.counters();
    assert_eq!((counters.tx_datagrams, counters.tx_bytes), (300, bytes));
    // The same memory holds something else now: what was sent was sent then.
    batch.clear();
    push(&mut batch, path, b"end");
    io.send(&batch).unwrap();
    let mut seen = HashSet::new();
    let mut bytes = [0; 2000];
    loop {
        let len = client.recv(&mut bytes).unwrap();
        if &bytes[..len] == b"end" {
            break;
        }
        let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(&bytes[..len], payload(number));
        assert!(seen.insert(number));
    }
    assert_eq!(seen.len() as u64, 300 - counters.tx_failed());
}

fn failed_sends_are_counted_by_kind_and_do_not_hold_up_others<D: Driver>() {
    let mut io = driver::<D>();
    let client = client();
    let local = IpAddr::from([0, 0, 0, 0]);
    let mut batch = TxBatch::with_capacity(9);
    // Broadcast without SO_BROADCAST is EACCES; port 0 is EINVAL.
    push(&mut batch, Path { remote: ([255, 255, 255, 255], 9).into(), local }, b"refused");
    push(&mut batch, Path { remote: ([127, 0, 0, 1], 0).into(), local }, b"no port");
    push(&mut batch, Path { remote: client.local_addr().unwrap(), local }, b"good");
    io.send(&batch).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(client.recv(&mut bytes).unwrap(), 4);
    let counters = io.counters();
    assert_eq!((counters.tx_refused, counters.tx_other, counters.tx_failed()), (1, 1, 2));
}

fn without_a_socket_of_the_family_a_datagram_is_counted_not_sent<D: Driver>() {
    let sockets = bind_group(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), 0, 1).unwrap().remove(0);
    let mut io = D::open(sockets, WakeSource::new().unwrap(), IoLimits::default()).unwrap();
    let mut batch = TxBatch::with_capacity(1);
    push(&mut batch, Path { remote: "[::1]:9".parse().unwrap(), local: "::1".parse().unwrap() }, b"x");
    io.send(&batch).unwrap();
    assert_eq!((io.counters().tx_no_socket, io.counters().tx_datagrams), (1, 0));
}

fn a_wake_from_another_thread_ends_the_wait<D: Driver>() {
    let mut io = driver::<D>();
    let waker = io.wake_source().waker();
    waker.wake();
    io.wake_source().begin_sleep();
    std::thread::spawn(move || waker.wake());
    while io.counters().wakes == 0 {
        io.send_and_wait(&TxBatch::with_capacity(0), FOREVER).unwrap();
    }
    io.wake_source().end_sleep();
    assert_eq!(io.counters().wakes, 1, "awake, the first wake cost nothing");
}

/// One side of the ping-pong: waits for the count to reach what it expects, adds one, wakes the other.
fn bounce(mut io: impl Driver, count: &AtomicU64, mut expected: u64, until: u64, other: &super::super::wake::Waker) {
    let nothing = TxBatch::with_capacity(0);
    while expected < until {
        io.wake_source().begin_sleep();
        if count.load(Ordering::Relaxed) < expected {
            io.send_and_wait(&nothing, FOREVER).unwrap();
        }
        io.wake_source().end_sleep();
        if count.load(Ordering::Relaxed) == expected {
            count.store(expected + 1, Ordering::Relaxed);
            other.wake();
            expected += 2;
        }
    }
}

fn no_wake_is_lost_in_a_long_ping_pong<D: Driver>() {
    const BOUNCES: u64 = 100_000;
    let count = Arc::new(AtomicU64::new(0));
    let sources = [WakeSource::new().unwrap(), WakeSource::new().unwrap()];
    let wakers = [sources[1].waker(), sources[0].waker()];
    let (done, is_done) = mpsc::channel();
    for ((first, source), other) in (0u64..).zip(sources).zip(wakers) {
        let (count, done) = (Arc::clone(&count), done.clone());
        std::thread::spawn(move || {
            let sockets = bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0);
            bounce(D::open(sockets, source, LIMITS).unwrap(), &count, first, BOUNCES, &other);
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        // A lost wake would be an endless sleep; the watchdog only turns it into a failure.
        is_done.recv_timeout(Duration::from_secs(300)).expect("both sides finish");
    }
    assert_eq!(count.load(Ordering::Relaxed), BOUNCES);
}
