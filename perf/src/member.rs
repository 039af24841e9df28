//! One peer of a herd: its socket, what it hears, what it sends, and who wants to know of it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tramline::crypto::srtp::{SrtpError, SrtpReceiver, SrtpSender};
use tramline::runtime::clock;
use tramline::wire::class::{Class, classify};
use tramline::wire::rtcp::{RtcpView, packets};

use crate::course::Course;
use crate::net::{self, Batch, Reader};
use crate::peer::{Heard, Peer};
use crate::receiver::Receiver;
use crate::shared::{Shared, lock};
use crate::source::Source;
use crate::tally::Tally;

/// Room for the longest packet, its RTX head and any suite's tag.
const REPAIR_BYTES: usize = 1500;

/// Who receives on a socket.
pub enum Ear {
    /// A peer of a server.
    Full(Box<Peer>),
    /// Keys and nothing else: a receiver of the floor.
    Bare(Box<SrtpReceiver>),
}

/// A peer as it comes.
pub struct Member {
    /// Non-blocking and connected.
    pub socket: UdpSocket,
    /// Who listens.
    pub ear: Ear,
    /// What it makes of what it hears.
    pub receiver: Receiver,
    /// What it sends, once connected.
    pub sources: Vec<Source>,
    /// What others know of it.
    pub badge: Arc<Badge>,
    /// Its packets are counted apart from those of the others.
    pub is_guest: bool,
}

/// What others know of a member.
#[derive(Debug, Default)]
pub struct Badge {
    connected_ns: AtomicU64,
    served_ns: AtomicU64,
    is_dismissed: AtomicBool,
}

impl Badge {
    /// When it had its keys, in nanoseconds of the course; `None` before.
    pub fn connected_ns(&self) -> Option<u64> {
        Some(self.connected_ns.load(Ordering::Acquire)).filter(|&ns| ns > 0)
    }

    /// When the first packet of its last stream had come.
    pub fn served_ns(&self) -> Option<u64> {
        Some(self.served_ns.load(Ordering::Acquire)).filter(|&ns| ns > 0)
    }

    /// Tells it to go: its socket is closed soon.
    pub fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
    }
}

/// A member and what became of it.
pub struct Inmate {
    member: Member,
    twcc_seq: u16,
    is_connected: bool,
    has_started: bool,
    is_served: bool,
    has_failed: bool,
}

impl Inmate {
    /// It has just come.
    pub fn new(now: Instant, mut member: Member) -> Self {
        let Member { socket, ear, .. } = &mut member;
        if let Ear::Full(peer) = ear {
            peer.handle_timeout(now, &mut |out| send(socket, out));
        }
        Self { member, twcc_seq: 0, is_connected: false, has_started: false, is_served: false, has_failed: false }
    }

    /// Counted apart.
    pub fn is_guest(&self) -> bool {
        self.member.is_guest
    }

    /// Told to go.
    pub fn is_dismissed(&self) -> bool {
        self.member.badge.is_dismissed.load(Ordering::Acquire)
    }

    /// Datagrams its socket had no room for.
    pub fn drops(&self) -> u64 {
        net::drops(&self.member.socket)
    }

    /// It has its keys and its sources have not begun.
    pub fn has_just_connected(&self) -> bool {
        self.is_connected && !self.has_started
    }

    /// Begins the sources of a member that has its keys, once; gives when each is due.
    pub fn take_started(&mut self, course: &Course) -> Vec<Instant> {
        if !self.has_just_connected() {
            return Vec::new();
        }
        self.has_started = true;
        let now = clock::now();
        let begin = |source: &mut Source| {
            source.start(now, course);
            source.due
        };
        self.member.sources.iter_mut().map(begin).collect()
    }

    /// Reads everything that is there.
    pub fn read_all(&mut self, course: &Course, shared: &Shared, reader: &mut Reader, tally: &mut Tally) {
        loop {
            let now = clock::now();
            let Self { member: Member { socket, ear, receiver, sources, .. }, twcc_seq, .. } = self;
            let (_, may_have_more) = reader.read(socket, |mark, bytes| {
                if classify(bytes) == Class::Rtp && receiver.loses() {
                    tally.counts.withheld += 1;
                    return;
                }
                match ear.hear(now, bytes, &mut |out| send(socket, out)) {
                    Heard::Rtp(packet) => {
                        let heard = (mark, packet, &*bytes);
                        if let (Some(media), Ear::Full(peer)) =
                            (receiver.handle_packet(now, heard, course, tally), &mut *ear)
                        {
                            let mut pli = [0; 64];
                            if let Some(len) = receiver.write_pli(&mut pli, media) {
                                peer.send_rtcp(&mut pli, len, &mut |out| send(socket, out));
                            }
                        }
                    }
                    Heard::Rtcp(len) => {
                        let compound = bytes.get(..len).unwrap_or_default();
                        handle_rtcp(now, compound, receiver, sources, (shared, &mut *tally));
                        if let Some(srtp) = ear.srtp_sender() {
                            let resent = repair(compound, sources, srtp, twcc_seq, &mut |out| send(socket, out));
                            tally.counts.resent += resent;
                        }
                    }
                    Heard::Refused(SrtpError::Replayed | SrtpError::TooOld) => tally.counts.duplicated += 1,
                    Heard::Refused(_) => tally.counts.unauthentic += 1,
                    Heard::Nothing => {}
                }
            });
            if !may_have_more {
                break;
            }
        }
        self.note_state(course, shared);
    }

    /// Sends the frame of source `nth` that was due at `due`; gives when the next one is.
    #[allow(clippy::too_many_arguments)]
    pub fn play(
        &mut self,
        nth: usize,
        due: Instant,
        now: Instant,
        course: &Course,
        shared: &Shared,
        batch: &mut Batch,
        tally: &mut Tally,
    ) -> Option<Instant> {
        let Self { member: Member { socket, ear, sources, .. }, twcc_seq, .. } = self;
        let source = sources.get_mut(nth).filter(|source| source.due == due)?;
        let Ear::Full(peer) = ear else { return None };
        let srtp = peer.srtp_sender().filter(|_| peer.failure().is_none())?;
        let played = source.play(now, course, srtp, twcc_seq, batch);
        let sent = batch.flush(socket);
        if let Some(slice) = course.slice(played.sent_ns) {
            tally.count_sent(slice, source.kind(), sent + played.lost);
        }
        shared.skipped.fetch_add(played.skipped, Ordering::Relaxed);
        Some(source.due)
    }

    /// Checks, retransmissions, reports that are due.
    pub fn handle_timeout(&mut self, now: Instant, course: &Course, shared: &Shared, tally: &mut Tally) {
        let Member { socket, ear: Ear::Full(peer), receiver, sources, .. } = &mut self.member else { return };
        peer.handle_timeout(now, &mut |out| send(socket, out));
        if peer.srtp_sender().is_some() {
            receiver.poll(now, tally, &mut |packet, len| peer.send_rtcp(packet, len, &mut |out| send(socket, out)));
            for source in sources {
                let mut packet = [0; 128];
                if let Some(len) = source.report(now, &mut packet) {
                    peer.send_rtcp(&mut packet, len, &mut |out| send(socket, out));
                }
            }
        }
        self.note_state(course, shared);
    }

    /// It goes.
    pub fn leave(&self, shared: &Shared) {
        if self.is_connected {
            shared.connected.fetch_sub(1, Ordering::AcqRel);
        }
        if self.is_served {
            shared.served.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn note_state(&mut self, course: &Course, shared: &Shared) {
        let Member { ear: Ear::Full(peer), receiver, badge, .. } = &self.member else { return };
        if let Some(suite) = peer.suite().filter(|_| !self.is_connected) {
            self.is_connected = true;
            badge.connected_ns.store(course.ns(clock::now()), Ordering::Release);
            *lock(&shared.suite) = Some(suite.name());
            shared.connected.fetch_add(1, Ordering::AcqRel);
        }
        if !self.is_served && receiver.is_served() {
            self.is_served = true;
            badge.served_ns.store(course.ns(clock::now()), Ordering::Release);
            shared.served.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(failure) = peer.failure().filter(|_| !self.has_failed) {
            self.has_failed = true;
            // One who goes may be told goodbye.
            if self.is_dismissed() {
                return;
            }
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

    fn srtp_sender(&self) -> Option<&SrtpSender> {
        match self {
            Self::Full(peer) => peer.srtp_sender(),
            Self::Bare(_) => None,
        }
    }
}

/// What the server says of our sources and of its own.
fn handle_rtcp(
    now: Instant,
    compound: &[u8],
    receiver: &mut Receiver,
    sources: &mut [Source],
    (shared, tally): (&Shared, &mut Tally),
) {
    for packet in packets(compound).flatten() {
        match packet {
            RtcpView::Pli(pli) => {
                shared.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                sources.iter_mut().filter(|source| source.ssrc == pli.media).for_each(Source::ask_for_key);
            }
            RtcpView::Fir(fir) => {
                shared.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                for entry in fir.entries() {
                    sources.iter_mut().filter(|source| source.ssrc == entry.ssrc).for_each(Source::ask_for_key);
                }
            }
            RtcpView::Nack(nack) => tally.counts.asked_of_us += nack.seqs().count() as u64,
            RtcpView::SenderReport(report) => receiver.handle_sender_report(now, &report.info),
            _ => {}
        }
    }
}

/// Sends again what the server asks for; gives how many packets that were.
fn repair(
    compound: &[u8],
    sources: &mut [Source],
    srtp: &SrtpSender,
    twcc_seq: &mut u16,
    send: &mut impl FnMut(&[u8]),
) -> u64 {
    let mut out = [0; REPAIR_BYTES];
    let mut resent = 0;
    for packet in packets(compound).flatten() {
        let RtcpView::Nack(nack) = packet else { continue };
        let Some(source) = sources.iter_mut().find(|source| source.ssrc == nack.media) else { continue };
        for seq in nack.seqs() {
            if let Some(len) = source.repair(seq, srtp, twcc_seq, &mut out) {
                send(out.get(..len).unwrap_or_default());
                resent += 1;
            }
        }
    }
    resent
}

fn send(socket: &UdpSocket, bytes: &[u8]) {
    // What the kernel does not take is lost on the way, as it might be anyway; timers send it again.
    let _ = socket.send(bytes);
}
