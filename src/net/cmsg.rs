//! Socket addresses and packet-info control messages, as bytes of the kernel's C structures.
//!
//! Promises: reading never panics, whatever the bytes; writing fits [`NAME_BYTES`] and [`CONTROL_SEND_BYTES`].
#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

/// Room for any address we use; a multiple of 16, so that what follows it stays aligned.
pub(super) const NAME_BYTES: usize = 32;
/// Room for received control data: a segment size (16 bytes of header and an int, aligned to 8), a time (16 and 16) and one
/// packet-info of either family, with space to spare; with [`NAME_BYTES`] and the 16 bytes io_uring puts first, three cache
/// lines.
pub(super) const CONTROL_RECV_BYTES: usize = 144;
/// Room for one packet-info of either family (16 bytes of header and 20 of `in6_pktinfo`, aligned to 8) and a segment
/// size (16 and 2, aligned to 8).
pub(super) const CONTROL_SEND_BYTES: usize = 64;

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const INFO_SPACE: usize = (HEADER_BYTES + size_of::<libc::in6_pktinfo>()).next_multiple_of(size_of::<usize>());
const _: () = assert!(INFO_SPACE + HEADER_BYTES + size_of::<usize>() <= CONTROL_SEND_BYTES);
const TIME_SPACE: usize = HEADER_BYTES + size_of::<libc::timespec>();
const _: () = assert!(INFO_SPACE + TIME_SPACE + HEADER_BYTES + size_of::<usize>() <= CONTROL_RECV_BYTES);
const _: () = assert!(size_of::<libc::sockaddr_in6>() <= NAME_BYTES);

/// What the kernel says about a received message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The local address it was sent to.
    pub(super) local: Option<IpAddr>,
    /// It is a train of datagrams of this size, the last maybe shorter.
    pub(super) segment_bytes: Option<usize>,
    /// When it came, after the beginning of the UNIX epoch.
    pub(super) came_at: Option<Duration>,
}

/// Plain C structures without padding surprises: any bytes are a value, and a value is nothing but bytes.
///
/// # Safety
/// Implement only for `repr(C)` structures of integers.
unsafe trait Plain: Copy {}
// SAFETY: integers and byte arrays only.
unsafe impl Plain for libc::sockaddr_in {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_in6 {}
// SAFETY: as above.
unsafe impl Plain for libc::cmsghdr {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: two integers.
unsafe impl Plain for libc::timespec {}
// SAFETY: as above.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: as above.
unsafe impl Plain for libc::in6_pktinfo {}

/// Writes `address` into `out`; gives the length for `msg_namelen`.
pub(super) fn write_address(address: SocketAddr, out: &mut [u8; NAME_BYTES]) -> u32 {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: in_addr(*v4.ip()),
                sin_zero: [0; 8],
            };
            write_plain(out, 0, raw) as u32
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                // Which link a link-local address is on; zero for all others.
                sin6_scope_id: v6.scope_id(),
            };
            write_plain(out, 0, raw) as u32
        }
    }
}

/// Reads what `recvmsg` wrote as the sender's address.
pub(super) fn read_address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes([*name.first()?, *name.get(1)?]);
    match i32::from(family) {
        libc::AF_INET => {
            let raw: libc::sockaddr_in = read_plain(name, 0)?;
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            let raw: libc::sockaddr_in6 = read_plain(name, 0)?;
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes the packet-info that makes a datagram leave from `local`; gives the length for `msg_controllen`, zero when the
/// routing table shall choose.
pub(super) fn write_local(local: IpAddr, out: &mut [u8; CONTROL_SEND_BYTES]) -> usize {
    if local.is_unspecified() {
        return 0;
    }
    // ip(7): ipi_spec_dst is the source address of the packet; an interface of zero leaves the route free.
    match local {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr(ip),
                ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
            };
            write_message(out, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        // RFC 3542 §6.2: ipi6_addr is the source address of an outgoing packet.
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            write_message(out, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// Writes the segment size that makes one send a train, behind the `used` bytes there are; gives the new length.
pub(super) fn write_segment(bytes: u16, used: usize, out: &mut [u8; CONTROL_SEND_BYTES]) -> usize {
    // udp(7): UDP_SEGMENT, "a control message of type uint16_t".
    used + write_message(out, used, libc::SOL_UDP, libc::UDP_SEGMENT, bytes)
}

/// Reads the control data of a received message; what is cut short or unknown is passed over.
pub(super) fn read_control(control: &[u8]) -> Received {
    let mut received = Received::default();
    let mut at = 0;
    while let Some(header) = read_plain::<libc::cmsghdr>(control, at) {
        let body = at + HEADER_BYTES;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = read_plain::<libc::in_pktinfo>(control, body);
                received.local = info.map(|info| Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = read_plain::<libc::in6_pktinfo>(control, body);
                received.local = info.map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let time = read_plain::<libc::timespec>(control, body);
                received.came_at = time.and_then(|time| {
                    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
                });
            }
            // udp(7): UDP_GRO, "a control message of type int" with the segment size.
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let bytes = read_plain::<i32>(control, body).and_then(|bytes| usize::try_from(bytes).ok());
                received.segment_bytes = bytes.filter(|bytes| *bytes > 0);
            }
            _ => {}
        }
        let len = header.cmsg_len;
        match len.checked_next_multiple_of(size_of::<usize>()).and_then(|len| at.checked_add(len)) {
            Some(next) if len >= HEADER_BYTES => at = next,
            _ => break,
        }
    }
    received
}

/// Writes the segment size that came with a train, as the kernel does; gives its length.
#[cfg(test)]
pub(super) fn write_gro(bytes: i32, out: &mut [u8; CONTROL_SEND_BYTES]) -> usize {
    write_message(out, 0, libc::SOL_UDP, libc::UDP_GRO, bytes)
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from(ip).to_be() }
}

/// Writes a control message at `at`; gives the room it takes.
fn write_message<T: Plain>(out: &mut [u8; CONTROL_SEND_BYTES], at: usize, level: i32, kind: i32, info: T) -> usize {
    // SAFETY: an all-zero cmsghdr is a value; some libc targets have private padding fields in it.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_len = (HEADER_BYTES + size_of::<T>()) as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    write_plain(out, at, header);
    write_plain(out, at + HEADER_BYTES, info);
    // CMSG_SPACE: the message and its trailing alignment.
    (HEADER_BYTES + size_of::<T>()).next_multiple_of(size_of::<usize>())
}

/// Copies a value's bytes to `out[at..]`; callers are sized by the asserts above. Gives the value's size.
fn write_plain<T: Plain>(out: &mut [u8], at: usize, value: T) -> usize {
    let size = size_of::<T>();
    let room = &mut out[at..at + size];
    // SAFETY: `room` is exactly `size` bytes; `T` is `Plain`, so its bytes may be copied.
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), room.as_mut_ptr(), size) };
    size
}

fn read_plain<T: Plain>(bytes: &[u8], at: usize) -> Option<T> {
    let bytes = bytes.get(at..at.checked_add(size_of::<T>())?)?;
    // SAFETY: `bytes` is exactly one `T` long; any bytes are a `Plain` value; unaligned is allowed.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_survive_the_c_structures() {
        for text in ["192.0.2.7:40000", "[2001:db8::7]:443", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [0xff; NAME_BYTES];
            let len = write_address(address, &mut name) as usize;
            assert_eq!(read_address(&name[..len]), Some(address));
        }
    }

    #[test]
    fn local_addresses_survive_the_control_message() {
        let mut control = [0; CONTROL_SEND_BYTES];
        let v4 = IpAddr::from([192, 0, 2, 9]);
        let len = write_local(v4, &mut control);
        assert_eq!((len, read_control(&control[..len]).local), (32, Some(v4)));
        let v6: IpAddr = "2001:db8::9".parse().unwrap();
        let len = write_local(v6, &mut control);
        assert_eq!((len, read_control(&control[..len]).local), (40, Some(v6)));
        assert_eq!(write_local(Ipv4Addr::UNSPECIFIED.into(), &mut control), 0);
    }

    #[test]
    fn a_segment_size_is_found_beside_the_local_address() {
        let mut control = [0; CONTROL_SEND_BYTES];
        let local = IpAddr::from([192, 0, 2, 9]);
        for segment_bytes in [1200, 0, -1] {
            let len = write_gro(segment_bytes, &mut control);
            let mut rest = [0; CONTROL_SEND_BYTES];
            let more = write_local(local, &mut rest);
            control[len..len + more].copy_from_slice(&rest[..more]);
            let expected = usize::try_from(segment_bytes).ok().filter(|bytes| *bytes > 0);
            let received = read_control(&control[..len + more]);
            assert_eq!(received, Received { local: Some(local), segment_bytes: expected, came_at: None });
            assert_eq!(read_control(&control[..len + more - 9]).local, None, "cut short");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_address(&bytes);
            let _ = read_control(&bytes);
        }
    }
}
