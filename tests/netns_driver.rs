//! What a path does to the drivers' sends, in network namespaces: one too narrow for trains, one that does not drain.
//!
//! Needs root and `ip` of iproute2. `TRAMLINE_SKIP_NETNS=1` leaves these tests out where a machine permits neither.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use process_support::PATIENCE;
use process_support::cable::{CLIENT, Cable, SERVER};
use tramline::base::batch::{Path, TxBatch};
use tramline::net::{BindAddresses, Driver, IoLimits, MmsgDriver, UdpDriver, WakeSource, WorkerSockets, bind_group};

/// Few slots, so that they are used again and again.
const LIMITS: IoLimits = IoLimits { recv_buffers: 8, recv_buffer_bytes: 1 << 16, sq_entries: 16 };

fn sockets() -> WorkerSockets {
    bind_group(BindAddresses::default(), 0, 1).unwrap().remove(0)
}

fn open<D: Driver>(sockets: WorkerSockets) -> D {
    D::open(sockets, WakeSource::new().unwrap(), LIMITS).unwrap()
}

fn push(batch: &mut TxBatch, remote: SocketAddr, payload: &[u8]) {
    batch.reserve().unwrap()[..payload.len()].copy_from_slice(payload);
    batch.commit(Path { remote, local: IpAddr::from([0, 0, 0, 0]) }, payload.len());
}

fn receive(client: &UdpSocket) -> Vec<u8> {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 2000];
    let len = client.recv(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn a_path_too_narrow_for_a_train_gets_single_datagrams_and_others_keep_theirs() {
    trains_on_a_narrow_path::<UdpDriver>("u");
    trains_on_a_narrow_path::<MmsgDriver>("n");
}

fn trains_on_a_narrow_path<D: Driver>(name: &str) {
    let Some(cable) = Cable::lay(name) else { return };
    cable.loopback("up");
    // Narrower than our datagrams: the kernel cuts single ones into fragments, but refuses trains of them.
    cable.ip(&format!("-n {} link set v{name}s mtu 1000", cable.server));
    let far = cable.udp(CLIENT[0].parse().unwrap());
    Cable::within(&cable.server, || {
        let near = UdpSocket::bind((SERVER[0], 0)).unwrap();
        let mut io = open::<D>(sockets());
        let mut batch = TxBatch::with_capacity(16);
        for round in 0..3u8 {
            for client in [&far, &near] {
                (0..5).for_each(|number| push(&mut batch, client.local_addr().unwrap(), &[round * 5 + number; 1200]));
            }
            io.send(&batch).unwrap();
            batch.clear();
            for client in [&far, &near] {
                let came: Vec<_> = (0..5).map(|_| receive(client)).collect();
                assert_eq!(came, [0, 1, 2, 3, 4].map(|number| vec![round * 5 + number; 1200]));
            }
        }
        let counters = io.counters();
        assert_eq!((counters.tx_trains_refused, counters.tx_trains, counters.tx_failed()), (1, 3, 0), "{counters:?}");
    });
}

#[test]
fn a_full_send_buffer_loses_what_is_counted_and_sends_nothing_later() {
    sends_into_a_full_buffer::<UdpDriver>("v");
    sends_into_a_full_buffer::<MmsgDriver>("w");
}

fn sends_into_a_full_buffer<D: Driver>(name: &str) {
    const COUNT: u32 = 300;
    const MAC: &str = "02:00:00:00:00:77";
    let Some(cable) = Cable::lay(name) else { return };
    // Until the kernel knows the client's hardware address, it keeps what is sent, and the send buffer stays full.
    cable.ip(&format!("-n {} link set v{name}c address {MAC} arp off", cable.client));
    let patience = format!("sysctl -q -w net.ipv4.neigh.v{name}s.mcast_solicit=1000");
    cable.ip(&format!("netns exec {} {patience}", cable.server));
    let client = cable.udp(CLIENT[0].parse().unwrap());
    let to = client.local_addr().unwrap();
    // Some in trains, some alone.
    let payload =
        |number: u32| number.to_be_bytes().repeat(if number % 7 < 3 { 300 } else { 200 + number as usize % 7 });
    Cable::within(&cable.server, || {
        let sockets = sockets();
        socket2::SockRef::from(&sockets.v4_fd().unwrap()).set_send_buffer_size(1).unwrap();
        let mut io = open::<D>(sockets);
        let mut batch = TxBatch::with_capacity(COUNT as usize);
        (0..COUNT).for_each(|number| push(&mut batch, to, &payload(number)));
        io.send(&batch).unwrap();
        let counters = io.counters();
        let failed = counters.tx_would_block + counters.tx_no_buffers;
        assert_eq!((counters.tx_datagrams, counters.tx_failed()), (u64::from(COUNT), failed), "{counters:?}");
        assert!(failed > 0 && failed < u64::from(COUNT), "{counters:?}");
        // The same memory holds something else by now.
        batch.clear();
        (0..COUNT).for_each(|_| push(&mut batch, to, &[0xff; 1200]));
        batch.clear();

        cable.ip(&format!("-n {} neigh replace {} lladdr {MAC} dev v{name}s nud permanent", cable.server, CLIENT[0]));
        let mut seen = HashSet::new();
        for _ in 0..u64::from(COUNT) - failed {
            let bytes = receive(&client);
            let number = u32::from_be_bytes(*bytes.first_chunk().unwrap());
            assert_eq!(bytes, payload(number));
            assert!(seen.insert(number), "{number} came twice");
        }
        // Nothing else was kept anywhere: the next thing that comes is the next that is sent.
        push(&mut batch, to, b"end");
        io.send(&batch).unwrap();
        assert_eq!(receive(&client), b"end");
        assert_eq!(io.counters().tx_failed(), failed);
    });
}
