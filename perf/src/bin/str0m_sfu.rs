//! A plain SFU on str0m: what a Rust engineer writes in a day, and the baseline Tramline is compared with.
//!
//! WHIP publishes into `/whip/{room}`, WHEP receives the room's tracks from `/whep/{room}`. One thread and one UDP socket;
//! RTP mode, so packets pass without reassembly and payloads are shared, not copied; the subscribers of a turn's packets
//! are served one after the other, and sendmmsg takes what they are owed. Feedback (NACK, RTX, reports, PLI) is str0m's.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use str0m::change::SdpOffer;
use str0m::format::PayloadParams;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{DatagramRecv, Protocol, Receive, Transmit};
use str0m::rtp::{RtpPacket, RtpWrite, SeqNo, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tramline::runtime::clock;

#[path = "shared/front.rs"]
mod front;

use front::{Call, SessionId};

/// Datagrams read before what they cause is sent.
const READS_MAX: usize = 128;
/// Datagrams per sendmmsg.
const SENDS_MAX: usize = 64;
/// Longer datagrams do not come.
const DATAGRAM_BYTES: usize = 2000;
/// Bursts wait here.
const SOCKET_BYTES: usize = 4 << 20;
/// Longest sleep.
const NAP_MAX: Duration = Duration::from_secs(1);

/// A plain SFU on str0m
#[derive(Parser)]
struct Args {
    /// Address of WHIP and WHEP
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// UDP address of media
    #[arg(long, default_value = "127.0.0.1:8081")]
    media: SocketAddr,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let socket = UdpSocket::bind(args.media).with_context(|| format!("binding {}", args.media))?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BYTES)?;
    options.set_send_buffer_size(SOCKET_BYTES)?;
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (calls, inbox) = channel();
    let bell = Arc::clone(&wake);
    front::start(args.http, move |call| {
        // Without the media thread there is no process.
        let _ = calls.send(call);
        let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
    })?;
    let sfu = Sfu {
        address: socket.local_addr()?,
        socket,
        clients: HashMap::new(),
        next_id: 1,
        by_address: HashMap::new(),
        rooms: HashMap::new(),
        subscribers: HashMap::new(),
        turn: Turn::default(),
    };
    sfu.run(&inbox, &wake)
}

/// A published track.
type Track = (SessionId, Mid);

/// What a peer came for, and where.
enum Role {
    Publisher(String),
    Subscriber(String),
}

/// One peer.
struct Client {
    id: SessionId,
    role: Role,
    rtc: Rtc,
    wake_at: Instant,
    /// M-line of each stream it publishes.
    mids: HashMap<Ssrc, Mid>,
    /// What it is sent.
    outs: Vec<Out>,
}

/// One track on its way to one subscriber.
struct Out {
    track: Track,
    mid: Mid,
    /// The publisher's payload type and the subscriber's.
    pt: Option<(Pt, Pt)>,
    /// The publisher's number that is 0 for the subscriber, whose SRTP begins with roll-over counter 0.
    first: Option<u64>,
}

/// What the clients of a turn bring forth.
#[derive(Default)]
struct Turn {
    media: Vec<(Track, RtpPacket)>,
    keyframes: Vec<Track>,
    outbox: Vec<Transmit>,
    /// M-lines that are ready for media.
    added: Vec<(SessionId, Mid, MediaKind)>,
    gone: Vec<SessionId>,
}

impl Client {
    /// Asks str0m until it names the next timeout.
    fn drain(&mut self, turn: &mut Turn) {
        while self.poll(turn) {}
    }

    /// Asks str0m once; false when it is done.
    fn poll(&mut self, turn: &mut Turn) -> bool {
        match self.rtc.poll_output() {
            Ok(Output::Transmit(transmit)) => turn.outbox.push(transmit),
            Ok(Output::Event(Event::RtpPacket(packet))) => {
                if let Some(mid) = self.mid_of(packet.header.ssrc) {
                    turn.media.push(((self.id, mid), packet));
                }
            }
            Ok(Output::Event(Event::KeyframeRequest(request))) => {
                turn.keyframes.extend(self.outs.iter().find(|out| out.mid == request.mid).map(|out| out.track));
            }
            Ok(Output::Event(Event::MediaAdded(added))) => turn.added.push((self.id, added.mid, added.kind)),
            Ok(Output::Event(_)) => {}
            Ok(Output::Timeout(at)) if self.rtc.is_alive() => {
                self.wake_at = at;
                return false;
            }
            Ok(Output::Timeout(_)) | Err(_) => {
                turn.gone.push(self.id);
                return false;
            }
        }
        true
    }

    fn handle(&mut self, input: Input<'_>, turn: &mut Turn) {
        if self.rtc.handle_input(input).is_err() {
            self.rtc.disconnect();
        }
        self.drain(turn);
    }

    fn mid_of(&mut self, ssrc: Ssrc) -> Option<Mid> {
        if let Some(mid) = self.mids.get(&ssrc) {
            return Some(*mid);
        }
        let mid = self.rtc.direct_api().stream_rx(&ssrc)?.mid();
        self.mids.insert(ssrc, mid);
        Some(mid)
    }

    fn params(&self, pt: Pt) -> Option<PayloadParams> {
        self.rtc.codec_config().params().iter().find(|params| params.pt() == pt).copied()
    }

    /// Sends a burst of one track: str0m queues it, and sends it when told the time.
    fn send(
        &mut self,
        now: Instant,
        track: Track,
        params: PayloadParams,
        burst: &[(Track, RtpPacket)],
        turn: &mut Turn,
    ) {
        for (_, packet) in burst {
            // A format that was not agreed on is not sent.
            let _ = self.write(track, params, packet);
        }
        self.handle(Input::Timeout(now), turn);
    }

    fn write(&mut self, track: Track, params: PayloadParams, packet: &RtpPacket) -> Option<()> {
        let out = self.outs.iter_mut().find(|out| out.track == track)?;
        let (header, first) = (&packet.header, *out.first.get_or_insert(*packet.seq_no));
        let pt = match out.pt {
            Some((from, to)) if from == header.payload_type => to,
            _ => {
                let all = self.rtc.codec_config().params();
                let pt = all.iter().find(|it| it.spec() == params.spec())?.pt();
                out.pt = Some((header.payload_type, pt));
                pt
            }
        };
        // What is older than the first packet is nothing this subscriber misses.
        let seq = SeqNo::from(packet.seq_no.checked_sub(first)?);
        let rtp = RtpWrite::new(pt, seq, header.timestamp, packet.timestamp, Arc::clone(&packet.payload))
            .marker(header.marker)
            .ext_vals(header.ext_vals.clone())
            .nackable(params.spec().codec.is_video());
        self.rtc.direct_api().stream_tx_by_mid(out.mid, None)?.write_rtp(rtp);
        Some(())
    }
}

struct Sfu {
    socket: UdpSocket,
    address: SocketAddr,
    clients: HashMap<SessionId, Client>,
    next_id: SessionId,
    by_address: HashMap<SocketAddr, SessionId>,
    /// Tracks of each room with what they are.
    rooms: HashMap<String, Vec<(Track, MediaKind)>>,
    subscribers: HashMap<Track, Vec<SessionId>>,
    turn: Turn,
}

impl Sfu {
    fn run(mut self, inbox: &Receiver<Call>, wake: &OwnedFd) -> Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            self.sleep(wake)?;
            let now = clock::now();
            for call in inbox.try_iter() {
                self.handle_call(now, call);
            }
            for _ in 0..READS_MAX {
                let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { break };
                self.handle_datagram(now, from, &buffer[..len]);
            }
            self.forward(now);
            for client in self.clients.values_mut().filter(|client| client.wake_at <= now) {
                client.handle(Input::Timeout(now), &mut self.turn);
            }
            for (id, mid, kind) in std::mem::take(&mut self.turn.added) {
                self.open_media(id, mid, kind);
            }
            self.request_keyframes();
            flush(&mut self.turn.outbox, &self.socket);
            for id in std::mem::take(&mut self.turn.gone) {
                self.close(id);
            }
        }
    }

    fn sleep(&self, wake: &OwnedFd) -> Result<()> {
        let wake_at = self.clients.values().map(|client| client.wake_at).min();
        let nap = wake_at.map_or(NAP_MAX, |at| at.saturating_duration_since(clock::now()).min(NAP_MAX));
        let mut sources = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        match poll(&mut sources, Some(&Timespec::try_from(nap)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        if sources[1].revents().contains(PollFlags::IN) {
            rustix::io::read(wake, &mut [0; 8])?;
        }
        Ok(())
    }

    fn handle_call(&mut self, now: Instant, call: Call) {
        let (answer, reply) = match call {
            Call::Publish(room, offer, reply) => (self.open(now, Role::Publisher(room), &offer), reply),
            Call::Subscribe(room, offer, reply) => (self.open(now, Role::Subscriber(room), &offer), reply),
            Call::Leave(id) => return self.close(id),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    fn open(&mut self, now: Instant, role: Role, offer: &str) -> front::Answer {
        let mut rtc = Rtc::builder().set_ice_lite(true).set_rtp_mode(true).set_stats_interval(None).build(now);
        rtc.add_local_candidate(Candidate::host(self.address, "udp")?);
        let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer)?)?;
        let id = self.next_id;
        self.next_id += 1;
        let mut client = Client { id, role, rtc, wake_at: now, mids: HashMap::new(), outs: Vec::new() };
        client.drain(&mut self.turn);
        self.clients.insert(id, client);
        Ok((id, answer.to_sdp_string()))
    }

    /// A publisher's m-line is a track of the room; a subscriber's gets the next one of its kind.
    fn open_media(&mut self, id: SessionId, mid: Mid, kind: MediaKind) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match &client.role {
            Role::Publisher(room) => self.rooms.entry(room.clone()).or_default().push(((id, mid), kind)),
            Role::Subscriber(room) => {
                let mut tracks = self.rooms.get(room).into_iter().flatten();
                let is_free = |track: &Track| client.outs.iter().all(|out| out.track != *track);
                let Some(&(track, _)) = tracks.find(|(track, of)| *of == kind && is_free(track)) else { return };
                client.outs.push(Out { track, mid, pt: None, first: None });
                self.subscribers.entry(track).or_default().push(id);
                self.turn.keyframes.push(track);
            }
        }
    }

    fn handle_datagram(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        let Ok(contents) = DatagramRecv::try_from(bytes) else { return };
        let input = Input::Receive(now, Receive { proto: Protocol::Udp, source, destination: self.address, contents });
        if let Some(client) = self.by_address.get(&source).and_then(|id| self.clients.get_mut(id)) {
            client.handle(input, &mut self.turn);
        } else if let Some(client) = self.clients.values_mut().find(|client| client.rtc.accepts(&input)) {
            self.by_address.insert(source, client.id);
            client.handle(input, &mut self.turn);
        }
    }

    /// Sends the media of this turn on, subscriber by subscriber.
    fn forward(&mut self, now: Instant) {
        let media = std::mem::take(&mut self.turn.media);
        for burst in media.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((track, packet)) = burst.first() else { continue };
            let params = self.clients.get(&track.0).and_then(|client| client.params(packet.header.payload_type));
            let (Some(params), Some(subscribers)) = (params, self.subscribers.get(track)) else { continue };
            for id in subscribers {
                let Some(client) = self.clients.get_mut(id) else { continue };
                client.send(now, *track, params, burst, &mut self.turn);
                if self.turn.outbox.len() >= SENDS_MAX {
                    flush(&mut self.turn.outbox, &self.socket);
                }
            }
        }
    }

    fn request_keyframes(&mut self) {
        for (id, mid) in std::mem::take(&mut self.turn.keyframes) {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            if let Some(stream) = client.rtc.direct_api().stream_rx_by_mid(mid, None) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
            client.drain(&mut self.turn);
        }
    }

    fn close(&mut self, id: SessionId) {
        self.clients.remove(&id);
        self.by_address.retain(|_, it| *it != id);
        self.subscribers.retain(|track, _| track.0 != id);
        self.subscribers.values_mut().for_each(|all| all.retain(|it| *it != id));
        self.rooms.values_mut().for_each(|tracks| tracks.retain(|(track, _)| track.0 != id));
    }
}

/// Sends what waits; what the kernel does not take is lost, as it may be on any way.
fn flush(outbox: &mut Vec<Transmit>, socket: &UdpSocket) {
    for chunk in outbox.chunks(SENDS_MAX) {
        let to: Vec<SocketAddrAny> = chunk.iter().map(|transmit| SocketAddrAny::from(transmit.destination)).collect();
        let bytes: Vec<[IoSlice<'_>; 1]> = chunk.iter().map(|transmit| [IoSlice::new(&transmit.contents)]).collect();
        let mut controls: Vec<_> = chunk.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let messages = to.iter().zip(&bytes).zip(&mut controls);
        let mut messages: Vec<_> =
            messages.map(|((to, bytes), control)| MMsgHdr::new_with_addr(to, bytes, control)).collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            match sendmmsg(socket, rest, SendFlags::DONTWAIT) {
                Ok(sent) if sent > 0 => rest = rest.get_mut(sent..).unwrap_or_default(),
                _ => break,
            }
        }
    }
    outbox.clear();
}
