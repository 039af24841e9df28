//! Binding the workers' sockets: all of them, before anything is announced.
//!
//! Promises: a port is first bound without SO_REUSEPORT, so a port that is taken is a start error; otherwise a second
//! process of the same user would silently get half of the traffic. Several workers then share it; the group never
//! changes size, as every flow would be hashed anew.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::sockopt;

/// Asked of the kernel for each direction: 100,000 datagrams a second for 50 ms, with the kernel's bookkeeping.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// How often port 0 is tried again when the port the kernel chose for IPv4 is taken on IPv6.
const ANY_PORT_TRIES: u32 = 16;

/// Which local addresses to bind, one per family at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddresses {
    /// IPv4 address or wildcard; `None` for no IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address or wildcard; `None` for no IPv6. A wildcard on a machine without IPv6 is skipped.
    pub v6: Option<Ipv6Addr>,
}

/// The sockets of one worker.
#[derive(Debug)]
pub struct WorkerSockets {
    v4: Option<Socket>,
    v6: Option<Socket>,
    /// The UDP port of both.
    pub port: u16,
    /// What the kernel granted for receiving, as it reports it (twice what can be used), in bytes.
    pub recv_buffer_bytes: usize,
    /// The same for sending.
    pub send_buffer_bytes: usize,
}

/// Why the media sockets could not be bound; each is a sentence for whoever starts the program.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody has the port.
    #[error("UDP {0} is already in use: stop the program that has it or choose another port with ICE_UDP_MUX_PORT")]
    InUse(SocketAddr),
    /// Somebody has a port of the range.
    #[error("UDP {0} is already in use: free it or choose another range with ICE_UDP_PORT_MIN and ICE_UDP_PORT_MAX")]
    InUseInRange(SocketAddr),
    /// The address is not ours, the port needs privileges, and the like.
    #[error("UDP {address} cannot be bound: {source}")]
    Failed {
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Both families are off or missing.
    #[error("there is no address to bind: neither IPv4 nor IPv6 is configured and available")]
    NoAddress,
}

impl Default for BindAddresses {
    fn default() -> Self {
        Self { v4: Some(Ipv4Addr::UNSPECIFIED), v6: Some(Ipv6Addr::UNSPECIFIED) }
    }
}

impl From<IpAddr> for BindAddresses {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6) },
        }
    }
}

impl WorkerSockets {
    /// Whether IPv4 can be spoken.
    pub fn has_v4(&self) -> bool {
        self.v4.is_some()
    }

    /// Whether IPv6 can be spoken.
    pub fn has_v6(&self) -> bool {
        self.v6.is_some()
    }

    /// The IPv4 socket, for further options.
    pub fn v4_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v4.as_ref().map(AsFd::as_fd)
    }

    /// The IPv6 socket, for further options.
    pub fn v6_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v6.as_ref().map(AsFd::as_fd)
    }

    /// No socket at all: for trying out what else a driver needs.
    pub(super) fn none() -> Self {
        Self { v4: None, v6: None, port: 0, recv_buffer_bytes: 0, send_buffer_bytes: 0 }
    }
}

/// Binds one port for all workers, one socket per worker and family. Port 0 lets the kernel choose.
///
/// # Errors
/// [`BindError`]; nothing stays bound then.
pub fn bind_group(addresses: BindAddresses, port: u16, workers: usize) -> Result<Vec<WorkerSockets>, BindError> {
    let mut tries = if port == 0 { ANY_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match try_bind_group(addresses, port, workers) {
            Err(BindError::InUse(_)) if tries > 0 => {}
            result => return result,
        }
    }
}

/// Binds one port of `ports` for each worker; fewer ports give fewer workers.
///
/// # Errors
/// [`BindError`]; nothing stays bound then.
pub fn bind_range(
    addresses: BindAddresses,
    ports: RangeInclusive<u16>,
    workers: usize,
) -> Result<Vec<WorkerSockets>, BindError> {
    let mut bound = Vec::with_capacity(workers);
    for port in ports.take(workers) {
        let mut sockets = try_bind_group(addresses, port, 1).map_err(|error| match error {
            BindError::InUse(address) => BindError::InUseInRange(address),
            other => other,
        })?;
        bound.append(&mut sockets);
    }
    if bound.is_empty() { Err(BindError::NoAddress) } else { Ok(bound) }
}

fn try_bind_group(addresses: BindAddresses, port: u16, workers: usize) -> Result<Vec<WorkerSockets>, BindError> {
    let workers = workers.max(1);
    let v4 = match addresses.v4 {
        Some(ip) => bind_family(ip.into(), port, workers)?,
        None => Vec::new(),
    };
    let port = match v4.first() {
        Some(first) => port_of(first, port),
        None => port,
    };
    let v6 = match addresses.v6 {
        Some(ip) => match bind_family(ip.into(), port, workers) {
            // No IPv6 on this machine is no error, unless a certain address was asked for.
            Err(BindError::Failed { source, .. }) if ip.is_unspecified() && is_family_missing(&source) => Vec::new(),
            result => result?,
        },
        None => Vec::new(),
    };
    if v4.is_empty() && v6.is_empty() {
        return Err(BindError::NoAddress);
    }
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    Ok((0..workers).map(|_| WorkerSockets::new(v4.next(), v6.next(), port)).collect())
}

impl WorkerSockets {
    fn new(v4: Option<Socket>, v6: Option<Socket>, port: u16) -> Self {
        let any = v4.as_ref().or(v6.as_ref());
        let port = any.map_or(port, |socket| port_of(socket, port));
        let recv_buffer_bytes = any.and_then(|socket| socket.recv_buffer_size().ok()).unwrap_or(0);
        let send_buffer_bytes = any.and_then(|socket| socket.send_buffer_size().ok()).unwrap_or(0);
        Self { v4, v6, port, recv_buffer_bytes, send_buffer_bytes }
    }
}

fn bind_family(ip: IpAddr, port: u16, workers: usize) -> Result<Vec<Socket>, BindError> {
    let address = SocketAddr::new(ip, port);
    let first = bind_one(address, false).map_err(|source| bind_error(address, source))?;
    let address = SocketAddr::new(ip, port_of(&first, port));
    let mut sockets = vec![first];
    if workers > 1 {
        // The first holds the port alone from its bind on; only now may others join it.
        sockets[0].set_reuse_port(true).map_err(|source| BindError::Failed { address, source })?;
        for _ in 1..workers {
            sockets.push(bind_one(address, true).map_err(|source| bind_error(address, source))?);
        }
    }
    Ok(sockets)
}

/// A blocking socket on purpose: io_uring would answer EAGAIN instead of waiting on a non-blocking one.
fn bind_one(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    sockopt::enable_packet_info(socket.as_fd(), address.is_ipv6())?;
    sockopt::enable_arrival_times(socket.as_fd())?;
    // Kernels before 5.0 know no trains: datagrams then come one by one, which is slower and right.
    let _ = sockopt::enable_gro(socket.as_fd());
    // Past the system's limit if we may, else up to it; what was granted is reported, not demanded.
    if sockopt::force_recv_buffer(socket.as_fd(), SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    }
    if sockopt::force_send_buffer(socket.as_fd(), SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn port_of(socket: &Socket, otherwise: u16) -> u16 {
    socket.local_addr().ok().and_then(|address| address.as_socket()).map_or(otherwise, |address| address.port())
}

fn bind_error(address: SocketAddr, source: io::Error) -> BindError {
    if source.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse(address)
    } else {
        BindError::Failed { address, source }
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    const LOCALHOST: BindAddresses = BindAddresses { v4: Some(Ipv4Addr::LOCALHOST), v6: None };

    #[test]
    fn a_second_bind_on_the_same_port_is_a_clean_error() {
        for workers in [1, 3] {
            let first = bind_group(BindAddresses::default(), 0, workers).unwrap();
            let port = first[0].port;
            let sentence = bind_group(BindAddresses::default(), port, workers).unwrap_err().to_string();
            assert!(sentence.contains(&port.to_string()) && sentence.contains("ICE_UDP_MUX_PORT"), "{sentence}");
            drop(first);
            assert!(bind_group(BindAddresses::default(), port, workers).is_ok());
        }
    }

    #[test]
    fn a_port_taken_on_one_address_only_is_taken_for_the_wildcard() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(matches!(bind_group(BindAddresses::default(), port, 2), Err(BindError::InUse(_))));
    }

    #[test]
    fn all_workers_share_one_port_and_its_traffic() {
        let group = bind_group(LOCALHOST, 0, 2).unwrap();
        assert_eq!(group[0].port, group[1].port);
        for _ in 0..64 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", ("127.0.0.1", group[0].port)).unwrap();
        }
        let counts = group.iter().map(|sockets| {
            let socket = sockets.v4.as_ref().unwrap();
            socket.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| socket.recv(&mut [std::mem::MaybeUninit::uninit(); 8]).ok()).count()
        });
        let counts: Vec<_> = counts.collect();
        assert_eq!(counts.iter().sum::<usize>(), 64);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    }

    #[test]
    fn a_range_gives_each_worker_its_own_port_and_fewer_ports_fewer_workers() {
        // A free place is looked for: two neighbouring ports nobody has.
        let bound =
            (20_000..30_000).step_by(2).find_map(|port| bind_range(LOCALHOST, port..=port + 1, 5).ok()).unwrap();
        assert_eq!(bound.len(), 2);
        assert_eq!(bound[0].port + 1, bound[1].port);
        let taken = bind_range(LOCALHOST, bound[0].port..=bound[1].port, 2).unwrap_err().to_string();
        assert!(taken.contains("ICE_UDP_PORT_MIN"), "{taken}");
    }

    #[test]
    fn an_address_that_is_not_ours_is_an_error_that_names_it() {
        let error = bind_group(IpAddr::from([192, 0, 2, 1]).into(), 0, 1).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1"), "{error}");
    }
}
