//! Many receivers in one thread: epoll over their sockets, every packet decrypted and checked.
//!
//! Owns: the receivers, each with its own socket as a real client has. The tally is shared with whoever reports.
//! Promises: the clock is read once per batch of datagrams, so latency includes what a batch waited for the thread.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::{SrtpError, SrtpReceiver};
use tramline::runtime::clock;
use tramline::wire::class::{Class, classify};
use tramline::wire::rtcp::{ReportBlock, write_receiver_report};
use tramline::wire::rtp::RtpView;

use crate::course::Course;
use crate::net::Reader;
use crate::peer::{Heard, Peer};
use crate::stamp;
use crate::tally::{Stream, Tally};

/// Timers are looked at this often; the finest of them is 100 ms.
const TICK: Duration = Duration::from_millis(10);
/// RFC 3550 §6.2 would have 5 s and more in large sessions; browsers report each second.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Sockets reported ready by one wait.
const EVENTS: usize = 256;
/// Streams a subscriber is sent in the scenarios there are; more are not checked but counted as damaged.
const STREAMS_MAX: usize = 16;

/// Who receives on a socket.
pub enum Ear {
    /// A peer of a server.
    Full(Box<Peer>),
    /// Keys and nothing else: a receiver of the floor.
    Bare(Box<SrtpReceiver>),
}

/// One receiver.
pub struct Member {
    /// Non-blocking; connected where the ear is a peer.
    pub socket: UdpSocket,
    /// Who listens.
    pub ear: Ear,
}

/// A thread of receivers.
pub struct Herd {
    entrance: Sender<Member>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread tells.
#[derive(Debug)]
struct Shared {
    tally: Mutex<Tally>,
    /// Members that have their keys.
    connected: AtomicUsize,
    /// Members that have received a packet.
    flowing: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Herd {
    /// Starts the thread. It ends with the course. One that polls never sleeps, so nobody pays for waking it.
    pub fn start(course: Arc<Course>, takes_trains: bool, polls: bool, name: &str) -> Result<Self> {
        let (entrance, arrivals) = channel();
        let shared = Arc::new(Shared {
            tally: Mutex::new(Tally::new()?),
            connected: AtomicUsize::new(0),
            flowing: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let pen = Pen {
            course,
            shared: Arc::clone(&shared),
            arrivals,
            epoll,
            members: Vec::new(),
            reader: Reader::new(takes_trains),
            wait: if polls { Duration::ZERO } else { TICK },
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| pen.run())?;
        Ok(Self { entrance, shared, thread: Some(thread) })
    }

    /// Takes a receiver in.
    pub fn admit(&self, member: Member) -> Result<()> {
        self.entrance.send(member).ok().context("the receiver thread has ended")
    }

    /// Members that have their keys.
    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Members that have received media.
    pub fn flowing(&self) -> usize {
        self.shared.flowing.load(Ordering::Acquire)
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        lock(&self.shared.tally).clear();
    }

    /// What was counted since the last `clear`.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// What went wrong with members, each once.
    pub fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// Waits for the thread; the course must have been stopped.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Pen {
    course: Arc<Course>,
    shared: Arc<Shared>,
    arrivals: Receiver<Member>,
    epoll: rustix::fd::OwnedFd,
    members: Vec<Inmate>,
    reader: Reader,
    /// How long to sleep when nothing is there.
    wait: Duration,
}

/// A member and what became of it.
struct Inmate {
    socket: UdpSocket,
    ear: Ear,
    streams: Vec<Stream>,
    our_ssrc: Ssrc,
    report_at: Instant,
    was_connected: bool,
    has_failed: bool,
}

impl Pen {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let timeout = Timespec { tv_sec: 0, tv_nsec: self.wait.as_nanos() as _ };
        let mut tick_at = clock::now();
        while !self.course.is_stopping() {
            self.take_in();
            events.clear();
            // An interruption is a short wait.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout));
            let mut tally = lock(&self.shared.tally);
            for event in &events {
                let event: &epoll::Event = event;
                if let Some(member) = self.members.get_mut(event.data.u64() as usize) {
                    member.read_all(&self.course, &self.shared, &mut self.reader, &mut tally);
                }
            }
            drop(tally);
            let now = clock::now();
            if now >= tick_at {
                tick_at = now + TICK;
                self.members.iter_mut().for_each(|member| member.handle_timeout(now, &self.shared));
            }
        }
    }

    fn take_in(&mut self) {
        while let Ok(Member { socket, ear }) = self.arrivals.try_recv() {
            let data = epoll::EventData::new_u64(self.members.len() as u64);
            if let Err(error) = epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN) {
                lock(&self.shared.failures).push(format!("epoll: {error}"));
            }
            let now = clock::now();
            self.members.push(Inmate {
                socket,
                ear,
                streams: Vec::new(),
                our_ssrc: Ssrc(rand::random()),
                // Spread over the second, as those of people who came one by one are.
                report_at: now + REPORT_EVERY.mul_f64(rand::random::<f64>()),
                was_connected: false,
                has_failed: false,
            });
        }
    }
}

impl Inmate {
    fn read_all(&mut self, course: &Course, shared: &Shared, reader: &mut Reader, tally: &mut Tally) {
        loop {
            let now = clock::now();
            let now_ns = course.ns(now);
            let Self { socket, ear, streams, .. } = self;
            let (_, may_have_more) = reader.read(socket, |begins_message, bytes| {
                let heard = ear.hear(now, bytes, &mut |out| send(socket, out));
                let packet = match heard {
                    Heard::Rtp(packet) => packet,
                    Heard::Refused(SrtpError::Replayed | SrtpError::TooOld) => return tally.duplicated += 1,
                    Heard::Refused(_) => return tally.unauthentic += 1,
                    Heard::Nothing | Heard::Rtcp(_) => return,
                };
                let view = bytes.get(..packet.plain_len).and_then(|plain| RtpView::parse(plain).ok());
                // Padding alone carries nothing to check.
                if view.is_some_and(|view| view.payload().is_empty()) {
                    return;
                }
                let Some((view, stamp)) = view.and_then(|view| Some((view, stamp::read(view.payload())?))) else {
                    return tally.damaged += 1;
                };
                let Some(stream) = stream_of(streams, view.ssrc(), shared) else { return tally.damaged += 1 };
                if course.counts(stamp.number) {
                    tally.messages += u64::from(begins_message);
                    tally.datagrams += 1;
                    tally.count(stream, packet.index, stamp, now_ns);
                } else {
                    stream.note(packet.index, stamp.number);
                }
            });
            if !may_have_more {
                break;
            }
        }
        self.note_state(shared);
    }

    fn handle_timeout(&mut self, now: Instant, shared: &Shared) {
        let Self { socket, ear: Ear::Full(peer), .. } = self else { return };
        peer.handle_timeout(now, &mut |out| send(socket, out));
        if now >= self.report_at {
            self.report_at += REPORT_EVERY;
            self.report();
        }
        self.note_state(shared);
    }

    fn report(&mut self) {
        let Self { socket, ear: Ear::Full(peer), streams, our_ssrc, .. } = self else { return };
        let blocks: Vec<ReportBlock> = streams.iter().map(report_block).collect();
        if blocks.is_empty() {
            return;
        }
        let mut packet = [0; 512];
        if let Some(len) = write_receiver_report(&mut packet, *our_ssrc, &blocks) {
            peer.send_rtcp(&mut packet, len, &mut |out| send(socket, out));
        }
    }

    fn note_state(&mut self, shared: &Shared) {
        let Ear::Full(peer) = &self.ear else { return };
        if !self.was_connected && peer.suite().is_some() {
            self.was_connected = true;
            shared.connected.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(failure) = peer.failure().filter(|_| !self.has_failed) {
            self.has_failed = true;
            lock(&shared.failures).push(failure.to_owned());
        }
    }
}

impl Ear {
    fn hear(&mut self, now: Instant, bytes: &mut [u8], send: &mut impl FnMut(&[u8])) -> Heard {
        match self {
            Self::Full(peer) => peer.handle_datagram(now, bytes, send),
            Self::Bare(receiver) if classify(bytes) == Class::Rtp => match receiver.unprotect_rtp(bytes) {
                Ok(packet) => Heard::Rtp(packet),
                Err(error) => Heard::Refused(error),
            },
            Self::Bare(_) => Heard::Nothing,
        }
    }
}

fn stream_of<'a>(streams: &'a mut Vec<Stream>, ssrc: Ssrc, shared: &Shared) -> Option<&'a mut Stream> {
    let at = match streams.iter().position(|stream| stream.ssrc == ssrc) {
        Some(at) => at,
        None if streams.len() < STREAMS_MAX => {
            if streams.is_empty() {
                shared.flowing.fetch_add(1, Ordering::AcqRel);
            }
            streams.push(Stream::new(ssrc));
            streams.len() - 1
        }
        None => return None,
    };
    streams.get_mut(at)
}

fn report_block(stream: &Stream) -> ReportBlock {
    let (highest, lost) = stream.progress();
    ReportBlock {
        ssrc: stream.ssrc,
        fraction_lost: 0,
        cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX),
        highest_seq: highest as u32,
        jitter: 0,
        lsr: 0,
        dlsr: 0,
    }
}

fn send(socket: &UdpSocket, bytes: &[u8]) {
    // What the kernel does not take is lost on the way, as it might be anyway; timers send it again.
    let _ = socket.send(bytes);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
