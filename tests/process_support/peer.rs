//! A peer of the call: str0m over a real UDP socket, in a thread of its own.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::server::Server;
use super::ws::Ws;
use super::{PATIENCE, wait_for};

/// Marks our payloads.
const MAGIC: &[u8; 4] = b"call";
/// Datagrams kept for whoever wants to forge some.
const CORPUS_MAX: usize = 400;
/// RFC 6386 §9.1: frame tag, start code and size of a keyframe.
const VP8_KEY_HEADER: [u8; 10] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00];
/// RFC 6386 §9.1: the frame tag of an interframe.
const VP8_DELTA_HEADER: [u8; 10] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What others see of a peer.
#[derive(Default)]
pub struct Shared {
    /// ICE and DTLS are up.
    pub is_connected: AtomicBool,
    /// str0m gave up, or saw the connection go.
    pub is_lost: AtomicBool,
    /// The server closed DTLS.
    pub is_closed: AtomicBool,
    /// It shall close DTLS.
    pub hangs_up: AtomicBool,
    /// Number of the next audio packet.
    pub audio_sent: AtomicU64,
    /// Audio packets heard, and the number of the last one, by publisher.
    pub audio: Mutex<HashMap<u32, (u64, u64)>>,
    /// Pictures seen, by publisher.
    pub video: Mutex<HashMap<u32, u64>>,
    /// Some of what was sent.
    pub corpus: Mutex<Vec<Vec<u8>>>,
}

/// A peer that joined by WebSocket.
pub struct Peer {
    /// Its signalling.
    pub ws: Ws,
    media: Media,
}

/// A peer that came by WHIP or WHEP.
pub struct HttpPeer {
    /// Its session URL.
    pub session: String,
    media: Media,
}

/// The media of a peer, however it came.
pub struct Media {
    /// The server's answer.
    pub answer: String,
    /// Where its socket is bound.
    pub local: SocketAddr,
    pub shared: Arc<Shared>,
    inject: Sender<Vec<u8>>,
    moves: Sender<Move>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The peer goes on from another address, with an ICE restart.
struct Move {
    socket: UdpSocket,
    /// Its offer goes here, and the answer comes from there.
    offer: Sender<String>,
    answer: Receiver<String>,
}

impl Peer {
    /// Joins a room in the Switchboard protocol and publishes audio and video. `only`: the one address of the server it
    /// talks to; otherwise the first candidate.
    pub fn join(mut ws: Ws, room: &str, number: u32, socket: UdpSocket, only: Option<SocketAddr>) -> Self {
        ws.send(&json!({"type": "join", "roomId": room}));
        ws.hear("welcome");
        let media = Media::start(number, Direction::SendRecv, socket, only, |offer| {
            ws.send(&json!({"type": "offer", "sdp": offer}));
            ws.hear("answer")["sdp"].as_str().unwrap().to_owned()
        });
        Self { ws, media }
    }
}

impl HttpPeer {
    /// Posts an offer to publish audio and video.
    pub fn publish(server: &Server, path: &str, number: u32) -> Self {
        Self::post(server, path, number, Direction::SendOnly)
    }

    /// Posts an offer to watch audio and video.
    pub fn watch(server: &Server, path: &str) -> Self {
        Self::post(server, path, u32::MAX, Direction::RecvOnly)
    }

    fn post(server: &Server, path: &str, number: u32, direction: Direction) -> Self {
        let mut session = String::new();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let media = Media::start(number, direction, socket, None, |offer| {
            let answer = server.request("POST", path, "Content-Type: application/sdp\r\n", offer);
            assert_eq!(answer.status, 201, "{}", answer.body);
            session = answer.header("location").unwrap().to_owned();
            answer.body
        });
        Self { session, media }
    }

    /// Goes on from another address: ICE restarts by PATCH, DTLS and all else stays.
    pub fn move_to(&self, server: &Server, socket: UdpSocket) {
        let ((offer, offers), (answers, answer)) = (channel(), channel());
        self.media.moves.send(Move { socket, offer, answer }).unwrap();
        let offer = offers.recv_timeout(PATIENCE).unwrap();
        let of = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let credentials = ["a=ice-ufrag:", "a=ice-pwd:"];
        let fragment: String = credentials.iter().map(|name| format!("{name}{}\r\n", of(&offer, name))).collect();
        let headers = "Content-Type: application/trickle-ice-sdpfrag\r\nIf-Match: \"*\"\r\n";
        let told = server.request("PATCH", &self.session, headers, &fragment);
        assert_eq!(told.status, 200, "{}", told.body);
        let renewed = |answer: String, name: &&str| answer.replace(&of(&answer, name), &of(&told.body, name));
        answers.send(credentials.iter().fold(self.media.answer.clone(), renewed)).unwrap();
    }
}

impl Deref for Peer {
    type Target = Media;

    fn deref(&self) -> &Media {
        &self.media
    }
}

impl Deref for HttpPeer {
    type Target = Media;

    fn deref(&self) -> &Media {
        &self.media
    }
}

impl Media {
    /// Offers one audio and one video; `exchange` brings the answer.
    fn start(
        number: u32,
        direction: Direction,
        socket: UdpSocket,
        only: Option<SocketAddr>,
        exchange: impl FnOnce(&str) -> String,
    ) -> Self {
        let local = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        let mut api = rtc.sdp_api();
        let audio = api.add_media(MediaKind::Audio, direction, None, None, None);
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let answer = exchange(&offer.to_sdp_string());
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        let only = only.unwrap_or_else(|| candidates(&answer)[0]);
        socket.connect(only).unwrap();
        let (shared, stop): (Arc<Shared>, Arc<AtomicBool>) = Default::default();
        let (inject, injected) = channel();
        let (moves, moved) = channel();
        let call = Call {
            rtc,
            number,
            socket,
            local,
            server: only,
            tracks: match direction {
                Direction::RecvOnly => Vec::new(),
                _ => vec![Track::new(audio, Codec::Opus), Track::new(video, Codec::Vp8)],
            },
            injected,
            moved,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || call.run(&stop)
        });
        Self { answer, local, shared, inject, moves, stop, thread: Some(thread) }
    }

    /// Waits until the call is up.
    pub fn connected(&self) {
        wait_for("a connected peer", || self.shared.is_connected.load(Ordering::SeqCst).then_some(()));
    }

    /// Waits for `more` further audio packets and pictures of a publisher.
    pub fn hears_and_sees(&self, publisher: u32, more: u64) {
        let count = || {
            let audio = self.shared.audio.lock().unwrap().get(&publisher).map_or(0, |(count, _)| *count);
            (audio, self.shared.video.lock().unwrap().get(&publisher).copied().unwrap_or(0))
        };
        let before = count();
        wait_for("audio and video", || {
            let is_over = self.shared.is_lost.load(Ordering::SeqCst) || self.shared.is_closed.load(Ordering::SeqCst);
            assert!(!is_over, "the connection was lost");
            let now = count();
            (now.0 >= before.0 + more && now.1 >= before.1 + more).then_some(())
        });
    }

    /// Sends a datagram from its own socket, beside its media.
    pub fn inject(&self, datagram: Vec<u8>) {
        self.inject.send(datagram).unwrap();
    }

    /// Closes DTLS, as a client does that stops in good order.
    pub fn hang_up(&self) {
        self.shared.hangs_up.store(true, Ordering::SeqCst);
        wait_for("the end of the call", || self.shared.is_lost.load(Ordering::SeqCst).then_some(()));
    }

    /// Some of what it sent.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        self.shared.corpus.lock().unwrap().clone()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the peer's thread panicked");
        }
    }
}

/// The addresses of an SDP's candidates, each once.
pub fn candidates(sdp: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:")) {
        let words: Vec<&str> = line.split(' ').collect();
        let address = SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap());
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

struct Track {
    mid: Mid,
    codec: Codec,
    number: u64,
    wants_key: bool,
    next_at: Instant,
}

impl Track {
    fn new(mid: Mid, codec: Codec) -> Self {
        Self { mid, codec, number: 0, wants_key: true, next_at: Instant::now() }
    }
}

struct Call {
    rtc: Rtc,
    number: u32,
    socket: UdpSocket,
    local: SocketAddr,
    server: SocketAddr,
    tracks: Vec<Track>,
    injected: Receiver<Vec<u8>>,
    moved: Receiver<Move>,
    shared: Arc<Shared>,
}

impl Call {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = [0; 2000];
        while !stop.load(Ordering::SeqCst) && self.rtc.is_alive() {
            if self.shared.hangs_up.load(Ordering::SeqCst) {
                self.rtc.close().unwrap();
            }
            if let Ok(next) = self.moved.try_recv() {
                self.restart(next);
            }
            let timeout = self.drain();
            let timeout = self.tracks.iter().map(|track| track.next_at).fold(timeout, Instant::min);
            while let Ok(datagram) = self.injected.try_recv() {
                self.socket.send(&datagram).unwrap();
            }
            let wait = timeout.saturating_duration_since(Instant::now());
            self.socket
                .set_read_timeout(Some(wait.clamp(Duration::from_millis(1), Duration::from_millis(20))))
                .unwrap();
            if let Ok(len) = self.socket.recv(&mut buffer)
                && let Ok(receive) = Receive::new(Protocol::Udp, self.server, self.local, &buffer[..len])
            {
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                self.drain();
            }
            self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
            self.drain();
            if self.shared.is_connected.load(Ordering::SeqCst) {
                self.write_media(Instant::now());
            }
        }
        // Not by request: the connection went away.
        if !stop.load(Ordering::SeqCst) {
            self.shared.is_lost.store(true, Ordering::SeqCst);
        }
    }

    fn restart(&mut self, next: Move) {
        self.local = next.socket.local_addr().unwrap();
        next.socket.connect(self.server).unwrap();
        self.socket = next.socket;
        let mut api = self.rtc.sdp_api();
        api.ice_restart(false);
        let (offer, pending) = api.apply().unwrap();
        next.offer.send(offer.to_sdp_string()).unwrap();
        let answer = next.answer.recv_timeout(PATIENCE).unwrap();
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        self.rtc.add_local_candidate(Candidate::host(self.local, "udp").unwrap());
    }

    fn drain(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => {
                    // Other candidates of the server are not for this peer.
                    if transmit.destination == self.server {
                        let mut corpus = self.shared.corpus.lock().unwrap();
                        if corpus.len() < CORPUS_MAX {
                            corpus.push(transmit.contents.to_vec());
                        }
                        // Refused only while the server goes away.
                        let _ = self.socket.send(&transmit.contents);
                    }
                }
                Output::Event(event) => self.handle_event(event),
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.shared.is_connected.store(true, Ordering::SeqCst),
            Event::Closed => self.shared.is_closed.store(true, Ordering::SeqCst),
            Event::IceConnectionStateChange(str0m::IceConnectionState::Disconnected) => {
                self.shared.is_lost.store(true, Ordering::SeqCst);
            }
            Event::KeyframeRequest(request) => {
                self.tracks
                    .iter_mut()
                    .filter(|track| track.mid == request.mid)
                    .for_each(|track| track.wants_key = true);
            }
            Event::MediaData(data) => {
                let skipped = if data.params.spec().codec == Codec::Opus { 1 } else { VP8_KEY_HEADER.len() };
                let tag = data.data.get(skipped..).unwrap_or_default();
                assert_eq!(tag.get(..4), Some(&MAGIC[..]), "a payload that nobody sent");
                let publisher = u32::from_be_bytes(*tag[4..].first_chunk().unwrap());
                let number = u64::from_be_bytes(*tag[8..].first_chunk().unwrap());
                assert_ne!(publisher, self.number, "nobody hears himself");
                if skipped == 1 {
                    let mut audio = self.shared.audio.lock().unwrap();
                    let heard = audio.entry(publisher).or_default();
                    assert!(heard.0 == 0 || number > heard.1, "each packet once and in order");
                    *heard = (heard.0 + 1, number);
                } else {
                    *self.shared.video.lock().unwrap().entry(publisher).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    fn write_media(&mut self, now: Instant) {
        for at in 0..self.tracks.len() {
            let track = &mut self.tracks[at];
            if track.next_at > now {
                continue;
            }
            let Some(writer) = self.rtc.writer(track.mid) else { continue };
            let Some(pt) = writer.payload_params().find(|it| it.spec().codec == track.codec).map(|it| it.pt()) else {
                continue;
            };
            let (mut frame, len, interval, clock, ticks) = match track.codec {
                // RFC 6716 §3.1: a TOC byte for 20 ms of fullband CELT.
                Codec::Opus => (vec![0xfc], 80, 20, Frequency::FORTY_EIGHT_KHZ, 960),
                _ if std::mem::take(&mut track.wants_key) => {
                    (VP8_KEY_HEADER.to_vec(), 3000, 50, Frequency::NINETY_KHZ, 4500)
                }
                _ => (VP8_DELTA_HEADER.to_vec(), 1500, 50, Frequency::NINETY_KHZ, 4500),
            };
            frame.extend_from_slice(MAGIC);
            frame.extend_from_slice(&self.number.to_be_bytes());
            frame.extend_from_slice(&track.number.to_be_bytes());
            frame.resize(len, 0xaa);
            let time = MediaTime::new(track.number * ticks, clock);
            writer.write(pt, now, time, frame).unwrap();
            track.number += 1;
            track.next_at = now + Duration::from_millis(interval);
            if at == 0 {
                self.shared.audio_sent.store(track.number, Ordering::SeqCst);
            }
            self.drain();
        }
    }
}
