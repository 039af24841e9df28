//! Ways to hand 2000 datagrams of 1200 bytes for 100 receivers to the kernel, side by side, over loopback.
//!
//!   cargo bench --bench send_paths
//!
//! One run sends 20 datagrams to each of 100 sockets; the ways differ in calls, in order and in what travels together.
//! `sendto`, `sendmmsg` and `tokio-uring` go round the receivers 20 times with single datagrams. `uring/k` and `mmsg/k` are
//! the two drivers of a worker; they go round 20 / k times with trains of k (UDP_SEGMENT), and name the local address of
//! each (IP_PKTINFO), as a server on several addresses must. No two datagrams of a run share their bytes, as no two
//! subscribers share a ciphertext.
//!
//! Sockets are emptied between runs, outside of the measurement, so nobody is woken. On loopback the sender pays for the
//! receiver's half of the network stack too: `plain` receivers have trains cut up before their socket, `whole` ones take
//! them as they are (UDP_GRO), which is the nearer stand-in for a network card that cuts them.

#![allow(missing_docs)]

mod support;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};
use support::{CpuTime, measure};
use tramline::base::batch::{Path, TxBatch};
use tramline::net::{Driver, IoLimits, MmsgDriver, UdpDriver, WakeSource, bind_group};

const RECEIVERS: usize = 100;
/// To each receiver in one run; divisible by every train length, and well within a socket's default buffer.
const ROUNDS: usize = 20;
const DATAGRAMS: usize = RECEIVERS * ROUNDS;
const DATAGRAM_BYTES: usize = 1200;
const TRAINS: [usize; 5] = [1, 2, 5, 10, 20];
/// Messages of one sendmmsg call, and sends in flight of tokio-uring.
const BATCH: usize = RECEIVERS;

struct Receivers {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
}

impl Receivers {
    fn new(take_whole_trains: bool) -> Self {
        let sockets: Vec<_> = (0..RECEIVERS)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                socket.set_nonblocking(true).expect("non-blocking");
                setsockopt(&socket, sockopt::UdpGroSegment, &take_whole_trains).expect("UDP_GRO");
                socket
            })
            .collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        Self { sockets, addresses }
    }

    /// Empties the sockets; how many bytes they held.
    fn drain(&self) -> usize {
        let mut room = vec![0; 1 << 16];
        let mut total = 0;
        for socket in &self.sockets {
            loop {
                match socket.recv(&mut room) {
                    Ok(len) => total += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => unreachable!("a bound socket reads: {error}"),
                }
            }
        }
        total
    }
}

/// Something that sends a run's datagrams.
type Send<'a> = Box<dyn FnMut() + 'a>;

fn run(group: &mut BenchmarkGroup<'_, CpuTime>, id: BenchmarkId, receivers: &Receivers, mut send: Send<'_>) {
    receivers.drain();
    send();
    assert_eq!(receivers.drain(), DATAGRAMS * DATAGRAM_BYTES, "everything arrives");
    let drain = |_: &mut Send<'_>| {
        receivers.drain();
    };
    measure(group, id, DATAGRAMS, &mut send, drain, |send| send());
}

fn sender() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port")
}

/// The bytes of a run's datagrams.
fn arena() -> Vec<u8> {
    vec![7; DATAGRAMS * DATAGRAM_BYTES]
}

fn sendto(receivers: &Receivers) -> Send<'_> {
    let (socket, arena) = (sender(), arena());
    Box::new(move || {
        for (bytes, address) in arena.chunks(DATAGRAM_BYTES).zip(receivers.addresses.iter().cycle()) {
            socket.send_to(bytes, address).expect("sent");
        }
    })
}

fn sendmmsg_calls(receivers: &Receivers) -> Send<'_> {
    let (socket, arena) = (sender(), arena());
    let to: Vec<_> = receivers.addresses.iter().map(|address| Some(SockaddrIn::from(v4(*address)))).collect();
    Box::new(move || {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let payload: Vec<_> = arena.chunks(DATAGRAM_BYTES).map(|bytes| [IoSlice::new(bytes)]).collect();
        for batch in payload.chunks(BATCH) {
            let sent = sendmmsg(socket.as_raw_fd(), &mut headers, batch, &to, [], MsgFlags::MSG_DONTWAIT);
            assert_eq!(sent.expect("sent").count(), BATCH);
        }
    })
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("bound to 127.0.0.1"),
    }
}

/// One of our drivers; `None` where the kernel or the container forbids it.
fn driver<D: Driver + 'static>(receivers: &Receivers, train: usize) -> Option<Send<'static>> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let sockets = bind_group(local.into(), 0, 1).expect("a port").remove(0);
    let wake = WakeSource::new().expect("an eventfd");
    let mut driver = D::open(sockets, wake, IoLimits::default())
        .inspect_err(|refused| eprintln!("a driver is left out: {refused}"))
        .ok()?;
    let mut batch = TxBatch::with_capacity(DATAGRAMS);
    for _ in 0..ROUNDS / train {
        for remote in &receivers.addresses {
            for _ in 0..train {
                batch.reserve().expect("room")[..DATAGRAM_BYTES].fill(7);
                batch.commit(Path { remote: *remote, local }, DATAGRAM_BYTES);
            }
        }
    }
    Some(Box::new(move || {
        driver.send(&batch).expect("a working driver");
        assert_eq!(driver.counters().tx_failed(), 0);
    }))
}

/// Sends of one socket, [`BATCH`] at a time, as its futures allow; each owns its buffer while it is under way.
fn tokio_uring(receivers: &Receivers) -> Option<Send<'_>> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(1024).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder)
        .inspect_err(|refused| eprintln!("tokio-uring is left out: {refused}"))
        .ok()?;
    let socket = tokio_uring::net::UdpSocket::from_std(sender());
    let buffers = RefCell::new(VecDeque::from(vec![vec![7; DATAGRAM_BYTES]; DATAGRAMS]));
    Some(Box::new(move || {
        let send_to = async |address: &SocketAddr| {
            let buffer = buffers.borrow_mut().pop_front().expect("as many as sends");
            let (result, buffer) = socket.send_to(buffer, *address).await;
            buffers.borrow_mut().push_back(buffer);
            result.expect("sent");
        };
        runtime.block_on(async {
            for _ in 0..ROUNDS {
                join_all(receivers.addresses.iter().map(send_to)).await;
            }
        });
    }))
}

fn send_paths(criterion: &mut Criterion<CpuTime>) {
    for (name, take_whole_trains) in [("plain", false), ("whole", true)] {
        let receivers = Receivers::new(take_whole_trains);
        let mut group = support::group(criterion, &format!("send_paths/{name}"));
        run(&mut group, BenchmarkId::from_parameter("sendto"), &receivers, sendto(&receivers));
        run(&mut group, BenchmarkId::from_parameter("sendmmsg"), &receivers, sendmmsg_calls(&receivers));
        if let Some(send) = tokio_uring(&receivers) {
            run(&mut group, BenchmarkId::from_parameter("tokio-uring"), &receivers, send);
        }
        for train in TRAINS {
            if let Some(send) = driver::<MmsgDriver>(&receivers, train) {
                run(&mut group, BenchmarkId::new("mmsg", train), &receivers, send);
            }
            if let Some(send) = driver::<UdpDriver>(&receivers, train) {
                run(&mut group, BenchmarkId::new("uring", train), &receivers, send);
            }
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = support::criterion(); targets = send_paths }
criterion_main!(benches);
