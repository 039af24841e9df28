//! Many datagrams per system call: recvmmsg with trains taken whole, sendmmsg with trains sent whole.
//!
//! Promises: receiving never blocks; a train longer than the kernel allows is not built.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

/// Messages per recvmmsg.
const READ_MESSAGES: usize = 32;
/// A UDP datagram, or the longest train the kernel joins.
const GRO_BYTES: usize = 65_535;
/// Longer datagrams do not come.
const PLAIN_BYTES: usize = 2048;
/// Control messages with an integer and a time, aligned.
const CONTROL_BYTES: usize = 64;
/// Messages per sendmmsg: the kernel takes 1024, but a shorter batch stays in the cache.
const SEND_MESSAGES: usize = 64;
/// Receive buffer: a burst of 64 datagrams of 1.2 kB as the kernel counts them, many times over.
const SOCKET_BYTES: usize = 4 << 20;
/// `UDP_MAX_SEGMENTS` of older kernels.
pub const TRAIN_SEGMENTS_MAX: usize = 64;

/// A non-blocking socket with large buffers on a free port of `local`.
pub fn socket(local: IpAddr, takes_trains: bool) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0)).with_context(|| format!("binding a UDP socket on {local}"))?;
    let options = socket2::SockRef::from(&socket);
    // Wishes: root gets what it asks for, others what the system allows.
    if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SOCKET_BYTES as _).is_err() {
        let _ = options.set_recv_buffer_size(SOCKET_BYTES);
    }
    let _ = options.set_send_buffer_size(SOCKET_BYTES);
    socket.set_nonblocking(true)?;
    if takes_trains {
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).context("UDP_GRO")?;
    }
    Ok(socket)
}

/// Has the kernel tell when each message came.
pub fn stamp_arrivals(socket: &UdpSocket) -> Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).context("SO_TIMESTAMPNS")
}

/// Datagrams that came and found the receive buffer full, since the socket was made.
pub fn drops(socket: &UdpSocket) -> u64 {
    // linux/sock_diag.h: SK_MEMINFO_DROPS is the last of nine words.
    let mut words = [0_u32; 9];
    let mut size = size_of_val(&words) as libc::socklen_t;
    let name = libc::SO_MEMINFO;
    // SAFETY: the descriptor is open, the array is as long as `size` says and any words are values of it.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, words.as_mut_ptr().cast(), &raw mut size)
    };
    if result == 0 { u64::from(words[8]) } else { 0 }
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, the option is an int and its size is given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// It is the first one of its message.
    pub begins_message: bool,
    /// When the message came, in nanoseconds since 1970, if its socket stamps arrivals.
    pub arrived_ns: Option<u64>,
}

/// Buffers for one recvmmsg.
pub struct Reader {
    buffers: Vec<u8>,
    buffer_bytes: usize,
    controls: Vec<[u64; CONTROL_BYTES / 8]>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: its raw pointers point into vectors it owns, whose memory moves with it.
unsafe impl Send for Reader {}

impl Reader {
    /// `takes_trains` as the sockets have it.
    pub fn new(takes_trains: bool) -> Self {
        let buffer_bytes = if takes_trains { GRO_BYTES } else { PLAIN_BYTES };
        let mut reader = Self {
            buffers: vec![0; buffer_bytes * READ_MESSAGES],
            buffer_bytes,
            controls: vec![[0; CONTROL_BYTES / 8]; READ_MESSAGES],
            iovecs: Vec::with_capacity(READ_MESSAGES),
            headers: Vec::with_capacity(READ_MESSAGES),
        };
        for buffer in reader.buffers.chunks_exact_mut(buffer_bytes) {
            reader.iovecs.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer_bytes });
        }
        for (iovec, control) in reader.iovecs.iter_mut().zip(&mut reader.controls) {
            // SAFETY: all zero is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            reader.headers.push(header);
        }
        reader
    }

    /// Reads what is there, at most one batch, and shows each datagram. Gives the number of messages and whether there
    /// may be more.
    pub fn read(&mut self, socket: &UdpSocket, mut show: impl FnMut(Mark, &mut [u8])) -> (usize, bool) {
        for header in &mut self.headers {
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: the headers point into vectors of this reader that live and stay put during the call, with their true
        // lengths; the descriptor is open.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                READ_MESSAGES as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        for (at, header) in self.headers.iter().enumerate().take(count) {
            let len = (header.msg_len as usize).min(self.buffer_bytes);
            let (segment, arrived_ns) = control_values(&header.msg_hdr);
            let segment = segment.unwrap_or(len).max(1);
            let start = at * self.buffer_bytes;
            if let Some(bytes) = self.buffers.get_mut(start..start + len) {
                for (nth, datagram) in bytes.chunks_mut(segment).enumerate() {
                    show(Mark { begins_message: nth == 0, arrived_ns }, datagram);
                }
            }
        }
        (count, count == READ_MESSAGES)
    }
}

/// What UDP_GRO and SO_TIMESTAMPNS say of a received message: the length of its datagrams, and when it came.
fn control_values(header: &libc::msghdr) -> (Option<usize>, Option<u64>) {
    let (mut segment, mut arrived_ns) = (None, None);
    // SAFETY: the kernel has filled `msg_controllen` bytes of the buffer that `msg_control` points to, which lives and is
    // aligned for cmsghdr; a message of either type is followed by a whole value of its type.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            let data = libc::CMSG_DATA(at);
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    arrived_ns = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    (segment, arrived_ns)
}

/// Datagrams on their way out, in one buffer.
pub struct Batch {
    /// Kept at its greatest length, so that nothing is zeroed twice.
    bytes: Vec<u8>,
    used: usize,
    messages: Vec<Message>,
    names: Vec<libc::sockaddr_in>,
    iovecs: Vec<libc::iovec>,
    controls: Vec<[u64; CONTROL_BYTES / 8]>,
    headers: Vec<libc::mmsghdr>,
    /// Datagrams that the kernel did not take.
    pub refused: u64,
}

// SAFETY: its raw pointers are made anew for each send and point into vectors it owns.
unsafe impl Send for Batch {}

struct Message {
    range: Range<usize>,
    /// All datagrams of the message have this length, but the last may be shorter.
    segment: usize,
    count: u64,
    to: Option<SocketAddrV4>,
}

impl Batch {
    /// Room for `bytes` before memory grows.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            used: 0,
            messages: Vec::with_capacity(SEND_MESSAGES),
            names: Vec::with_capacity(SEND_MESSAGES),
            iovecs: Vec::with_capacity(SEND_MESSAGES),
            controls: Vec::with_capacity(SEND_MESSAGES),
            headers: Vec::with_capacity(SEND_MESSAGES),
            refused: 0,
        }
    }

    /// Appends a datagram: `fill` gets `room` bytes with old contents and gives how many it used. It joins the train before it when
    /// that goes to the same address, has the same length and fewer than `train` segments.
    pub fn push(
        &mut self,
        to: Option<SocketAddrV4>,
        train: usize,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<()> {
        let start = self.used;
        if self.bytes.len() < start + room {
            self.bytes.resize(start + room, 0);
        }
        let len = fill(self.bytes.get_mut(start..start + room)?).filter(|&len| len > 0 && len <= room)?;
        self.used += len;
        if let Some(last) = self.messages.last_mut()
            && last.to == to
            && last.segment == len
            && last.range.end == start
            && last.count < train.min(TRAIN_SEGMENTS_MAX) as u64
            && last.range.len() + len < GRO_BYTES - 28
        {
            last.range.end += len;
            last.count += 1;
        } else {
            self.messages.push(Message { range: start..start + len, segment: len, count: 1, to });
        }
        Some(())
    }

    /// Messages waiting.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Sends everything; what the kernel does not take at once is dropped and counted. Gives the datagrams sent.
    pub fn flush(&mut self, socket: &UdpSocket) -> u64 {
        let mut sent = 0;
        let messages = std::mem::take(&mut self.messages);
        for chunk in messages.chunks(SEND_MESSAGES) {
            self.prepare(chunk);
            let taken = self.send(socket);
            let taken: u64 = chunk.iter().take(taken).map(|message| message.count).sum();
            sent += taken;
            self.refused += chunk.iter().map(|message| message.count).sum::<u64>() - taken;
        }
        self.messages = messages;
        self.messages.clear();
        self.used = 0;
        sent
    }

    fn prepare(&mut self, chunk: &[Message]) {
        self.names.clear();
        self.iovecs.clear();
        self.controls.clear();
        self.headers.clear();
        for message in chunk {
            self.names.push(name(message.to));
            self.controls.push(segment_control(message.segment as u16));
            let bytes = self.bytes.get_mut(message.range.clone()).unwrap_or_default();
            self.iovecs.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        }
        for (at, message) in chunk.iter().enumerate() {
            // SAFETY: all zero is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = &raw mut self.iovecs[at];
            header.msg_hdr.msg_iovlen = 1;
            if message.to.is_some() {
                header.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            }
            if message.count > 1 {
                header.msg_hdr.msg_control = self.controls[at].as_mut_ptr().cast();
                // SAFETY: arithmetic only.
                header.msg_hdr.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as _;
            }
            self.headers.push(header);
        }
    }

    /// How many of the prepared messages the kernel took.
    fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut done = 0;
        while let Some(rest) = self.headers.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // SAFETY: the headers point into vectors of this batch that live and stay put during the call, with their
            // true lengths; the descriptor is open.
            let count = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, libc::MSG_DONTWAIT as _)
            };
            match usize::try_from(count) {
                Ok(count) if count > 0 => done += count,
                _ => break,
            }
        }
        done
    }
}

fn name(to: Option<SocketAddrV4>) -> libc::sockaddr_in {
    let to = to.unwrap_or(SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// The UDP_SEGMENT control message: where the kernel cuts.
fn segment_control(segment: u16) -> [u64; CONTROL_BYTES / 8] {
    let mut control = [0u64; CONTROL_BYTES / 8];
    // SAFETY: the array is longer than a cmsghdr and a u16 and aligned for both.
    unsafe {
        let at = control.as_mut_ptr().cast::<libc::cmsghdr>();
        (*at).cmsg_level = libc::SOL_UDP;
        (*at).cmsg_type = libc::UDP_SEGMENT;
        (*at).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
        *libc::CMSG_DATA(at).cast::<u16>() = segment;
    }
    control
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(takes_trains: bool) -> (UdpSocket, UdpSocket, SocketAddrV4) {
        let local = IpAddr::from([127, 0, 0, 1]);
        let (from, to) = (socket(local, false).unwrap(), socket(local, takes_trains).unwrap());
        let std::net::SocketAddr::V4(address) = to.local_addr().unwrap() else { unreachable!() };
        (from, to, address)
    }

    fn received(socket: &UdpSocket, takes_trains: bool) -> (usize, Vec<Vec<u8>>) {
        let mut datagrams = Vec::new();
        let (messages, _) = Reader::new(takes_trains).read(socket, |_, bytes| datagrams.push(bytes.to_vec()));
        (messages, datagrams)
    }

    fn fill(value: u8, len: usize) -> impl FnOnce(&mut [u8]) -> Option<usize> {
        move |room| {
            room.get_mut(..len)?.fill(value);
            Some(len)
        }
    }

    #[test]
    fn a_train_arrives_whole_or_cut_but_complete() {
        for takes_trains in [false, true] {
            let (from, to, address) = pair(takes_trains);
            let mut batch = Batch::new(4096);
            for (value, len) in [(1, 300), (2, 300), (3, 300), (4, 200)] {
                batch.push(Some(address), 10, 400, fill(value, len)).unwrap();
            }
            assert_eq!(batch.messages(), 2, "another length is another message");
            assert_eq!(batch.flush(&from), 4);
            let (messages, datagrams) = received(&to, takes_trains);
            assert_eq!(messages, if takes_trains { 2 } else { 4 });
            assert_eq!(datagrams, [vec![1; 300], vec![2; 300], vec![3; 300], vec![4; 200]]);
        }
    }

    #[test]
    fn a_train_of_one_is_a_plain_datagram() {
        let (from, to, address) = pair(true);
        let mut batch = Batch::new(4096);
        for value in 0..3 {
            batch.push(Some(address), 1, 100, fill(value, 100)).unwrap();
        }
        assert_eq!((batch.messages(), batch.flush(&from), batch.messages()), (3, 3, 0));
        assert_eq!(received(&to, true).1.len(), 3);
    }

    #[test]
    fn a_message_says_when_it_came_and_how_long_its_datagrams_are() {
        let (from, to, address) = pair(true);
        stamp_arrivals(&to).unwrap();
        let wall = || tramline::runtime::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = wall();
        let mut batch = Batch::new(4096);
        for value in 0..3 {
            batch.push(Some(address), 10, 300, fill(value, 300)).unwrap();
        }
        batch.flush(&from);
        let after = wall();
        let mut marks = Vec::new();
        Reader::new(true).read(&to, |mark, bytes| marks.push((mark, bytes.len())));
        assert_eq!(
            marks.iter().map(|(mark, len)| (mark.begins_message, *len)).collect::<Vec<_>>(),
            [(true, 300), (false, 300), (false, 300)]
        );
        assert!(marks.iter().all(|(mark, _)| (before..=after).contains(&mark.arrived_ns.unwrap())));
    }

    #[test]
    fn what_finds_no_room_is_counted_by_the_socket() {
        let (from, to, address) = pair(false);
        socket2::SockRef::from(&to).set_recv_buffer_size(4096).unwrap();
        for _ in 0..50 {
            from.send_to(&[0; 1000], address).unwrap();
        }
        let came = received(&to, false).1.len() as u64;
        assert!(came < 50);
        assert_eq!(drops(&to), 50 - came);
    }

    #[test]
    fn what_cannot_be_filled_is_not_sent() {
        let mut batch = Batch::new(100);
        assert_eq!(batch.push(None, 1, 100, |_| None), None);
        assert_eq!(batch.messages(), 0);
    }
}
