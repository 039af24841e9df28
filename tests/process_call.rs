//! Calls through the built program, over real sockets: undisturbed, with strangers who mean harm, with a public address;
//! over io_uring and over the fallback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use process_support::peer::{Peer, candidates};
use process_support::server::{QUIET, Server, with};
use process_support::{PATIENCE, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tramline::wire::stun::{BindingRequest, IceRole, IntegrityKey, StunClass, StunView};

/// What the issue asks for.
const DATAGRAMS: u32 = 100_000;
/// Sent before an answer is waited for, so that the kernel's buffers lose nothing.
const BURST: u32 = 64;
/// Sockets of strangers.
const STRANGERS: usize = 8;

/// Each test, for each driver.
macro_rules! for_each_driver {
    ($($name:ident)*) => {
        mod auto {
            $(#[test] fn $name() { super::$name("auto"); })*
        }
        mod mmsg {
            $(#[test] fn $name() { super::$name("mmsg"); })*
        }
    };
}

for_each_driver! {
    two_peers_hear_and_see_each_other
    a_stop_in_the_middle_of_a_call_closes_it_on_every_side
    strangers_cannot_harm_a_call_nor_get_more_than_they_send
    the_address_that_a_stun_server_tells_becomes_a_candidate
    a_range_gives_each_worker_a_port
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn two_peers_hear_and_see_each_other(io: &str) {
    let server = Server::with(&[("TRAMLINE_IO", io)]);
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), None);
    let ben = Peer::join(server.ws("/ws"), "r", 2, socket(), None);
    ana.hears_and_sees(2, 50);
    ben.hears_and_sees(1, 50);
    assert_eq!(candidates(&ana.answer), [format!("127.0.0.1:{}", server.media_port).parse().unwrap()]);
    // Reports of the workers come once a second.
    wait_for("live numbers", || {
        let tracks = server.json("/debug/tracks");
        let tracks = tracks.as_array().unwrap();
        let is_live = |track: &serde_json::Value| {
            track["live"] == true
                && track["packets"].as_u64() > Some(0)
                && track["subscribers"][0]["packets"].as_u64() > Some(0)
        };
        (tracks.len() == 4 && tracks.iter().all(is_live)).then_some(())
    });
    let peers = server.json("/debug/peers");
    for peer in peers.as_array().unwrap() {
        assert_eq!(peer["media"], "connected");
        assert!(peer["srtpSuite"].as_str().unwrap().contains("GCM"), "{peer}");
        assert!(peer["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{peer}");
    }
    wait_for("forwarded packets in the metrics", || {
        (server.metric("tramline_packets_forwarded_total") > 0).then_some(())
    });
    assert_eq!(server.metric("live_subscribers{room=\"r\"}"), 2);
    assert_eq!(server.metric("gryt_sfu_tracks_active"), 4);
    drop(ben);
    wait_for("the leaver is gone", || (server.metric("gryt_sfu_peers_active") == 1).then_some(()));
}

fn a_stop_in_the_middle_of_a_call_closes_it_on_every_side(io: &str) {
    let mut server = Server::with(&[("TRAMLINE_IO", io)]);
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), None);
    let mut ben = Peer::join(server.ws("/ws"), "r", 2, socket(), None);
    ana.hears_and_sees(2, 5);
    server.signal("TERM");
    for peer in [&ana, &ben] {
        // RFC 5246 §7.2.1: close_notify, not mere silence.
        wait_for("close_notify", || peer.shared.is_closed.load(Ordering::SeqCst).then_some(()));
    }
    assert!([1001, 1012].contains(&ben.ws.closed().0));
    assert_eq!(server.ended().code(), Some(0));
}

fn strangers_cannot_harm_a_call_nor_get_more_than_they_send(io: &str) {
    let mut server = Server::with(&[("TRAMLINE_IO", io)]);
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), None);
    let ben = Peer::join(server.ws("/ws"), "r", 2, socket(), None);
    ana.hears_and_sees(2, 20);
    ben.hears_and_sees(1, 20);
    let heard_before = ben.shared.audio.lock().unwrap()[&1];

    let target = SocketAddr::from(([127, 0, 0, 1], server.media_port));
    let of_ana = ana.corpus();
    let corpus: Vec<Vec<u8>> = of_ana.iter().cloned().chain(ben.corpus()).collect();
    let mut rng = StdRng::seed_from_u64(7);
    let mut strangers: Vec<Stranger> = (0..STRANGERS).map(|_| Stranger::new(target)).collect();
    let ufrag = ana.answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().to_owned();
    for round in 0..DATAGRAMS / BURST {
        let stranger = &mut strangers[round as usize % STRANGERS];
        for _ in 0..BURST {
            stranger.send(&harm(&mut rng, &corpus, &ufrag));
        }
        stranger.settle(&mut rng);
        if round % 4 == 0 {
            // From an address that ICE has validated: what SRTP itself must notice.
            ana.inject(replayed(&mut rng, &of_ana));
            ana.inject(forged(&mut rng, &of_ana));
        }
    }
    assert!(server.is_running());
    ana.hears_and_sees(2, 20);
    ben.hears_and_sees(1, 20);
    // Of Ana's own packets nearly all came through meanwhile; the kernel may have dropped a few.
    let heard = ben.shared.audio.lock().unwrap()[&1];
    let (came, sent) = (heard.0 - heard_before.0, heard.1 - heard_before.1);
    assert!(came * 10 >= sent * 9, "{came} of {sent} audio packets");

    for reason in [
        "not_webrtc",
        "unknown_source",
        "stun_malformed",
        "stun_unknown_ufrag",
        "stun_bad_integrity",
        "stun_refused",
        "stun_ignored",
        "srtp_forged",
        "srtp_replayed",
    ] {
        wait_for(reason, || (server.discards(reason) > 50).then_some(()));
    }
    let unexpected = ["not_webrtc", "unknown_source", "stun_malformed", "stun_unknown_ufrag"];
    wait_for("every kind is counted", || {
        let counted: u64 = unexpected.iter().map(|reason| server.discards(reason)).sum();
        (counted > u64::from(DATAGRAMS) / 2).then_some(())
    });
    assert!(strangers.iter().map(|stranger| stranger.replies).sum::<u32>() > 1000, "refusals were seen");
}

/// Somebody without an invitation, with an account of what is said.
struct Stranger {
    socket: UdpSocket,
    /// Length of each STUN message sent in this burst, by transaction.
    requests: HashMap<[u8; 12], usize>,
    replies: u32,
}

impl Stranger {
    fn new(target: SocketAddr) -> Self {
        let socket = socket();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, requests: HashMap::new(), replies: 0 }
    }

    fn send(&mut self, datagram: &[u8]) {
        if let Some(id) = datagram.get(8..20) {
            self.requests.insert(id.try_into().unwrap(), datagram.len());
        }
        self.socket.send(datagram).unwrap();
    }

    /// Waits until all that was sent is handled: the worker takes datagrams of one address pair in order.
    fn settle(&mut self, rng: &mut StdRng) {
        let last = wrong_password(rng, "nobody");
        self.send(&last);
        let mut reply = [0; 2000];
        loop {
            let len = self.socket.recv(&mut reply).expect("an answer to the last check");
            let view = StunView::parse(&reply[..len]).expect("strangers hear nothing but STUN");
            assert_eq!(view.class(), StunClass::Error, "strangers are refused");
            let asked = self.requests.get(&view.transaction_id()).expect("nothing comes unasked");
            assert!(len <= *asked, "{len} bytes to a request of {asked}: {:?}", &reply[..len]);
            self.replies += 1;
            if view.transaction_id() == last[8..20] {
                self.requests.clear();
                return;
            }
        }
    }
}

fn harm(rng: &mut StdRng, corpus: &[Vec<u8>], ufrag: &str) -> Vec<u8> {
    match rng.random_range(0..8) {
        0 => noise(rng),
        // RFC 7983: the ranges of STUN, DTLS and RTP.
        1 => noise_from(rng, &[0..4, 20..64, 128..192]),
        2 | 3 => mutated(rng, corpus),
        4 => verbatim(rng, corpus),
        5 => wrong_password(rng, "nobody"),
        6 => wrong_password(rng, ufrag),
        _ => odd_check(rng, ufrag),
    }
}

fn noise(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..1400)];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn noise_from(rng: &mut StdRng, firsts: &[std::ops::Range<u8>]) -> Vec<u8> {
    let mut bytes = noise(rng);
    let range = firsts[rng.random_range(0..firsts.len())].clone();
    if let Some(first) = bytes.first_mut() {
        *first = rng.random_range(range);
    }
    bytes
}

/// A datagram of a real peer with some bytes changed, cut or added. Its STUN never stays authentic: that would be an
/// attack on ICE itself.
fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    if bytes[0] < 4 {
        rng.fill_bytes(&mut bytes[8..20]);
    }
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= rng.random_range(1..=255u8);
    }
    match rng.random_range(0..4) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => bytes.extend_from_slice(&[0xff; 7]),
        _ => {}
    }
    bytes
}

/// DTLS, SRTP or SRTCP exactly as a real peer sent it.
fn verbatim(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    pick(rng, corpus, |bytes| bytes[0] >= 20)
}

fn replayed(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    pick(rng, corpus, is_rtp)
}

fn forged(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = pick(rng, corpus, is_rtp);
    // A number that was not seen: only the authentication can tell.
    bytes[2] ^= 0x10;
    bytes
}

/// RFC 5761 §4: not RTCP.
fn is_rtp(bytes: &[u8]) -> bool {
    (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1])
}

fn pick(rng: &mut StdRng, corpus: &[Vec<u8>], is_fit: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let bytes = &corpus[rng.random_range(0..corpus.len())];
        if is_fit(bytes) {
            return bytes.clone();
        }
    }
}

fn wrong_password(rng: &mut StdRng, ufrag: &str) -> Vec<u8> {
    let key = IntegrityKey::new(&rng.random::<[u8; 16]>());
    let username = format!("{ufrag}:them");
    check(BindingRequest {
        transaction_id: rng.random(),
        username: Some(username.as_bytes()),
        priority: Some(rng.random()),
        role: Some(IceRole::Controlling(rng.random())),
        use_candidate: rng.random(),
        key: Some(&key),
        has_fingerprint: true,
    })
}

/// Well-formed, but with parts missing or of the wrong kind.
fn odd_check(rng: &mut StdRng, ufrag: &str) -> Vec<u8> {
    let key = IntegrityKey::new(b"guessed");
    let username = format!("{ufrag}:them");
    let mut bytes = check(BindingRequest {
        transaction_id: rng.random(),
        username: rng.random::<bool>().then_some(username.as_bytes()),
        priority: rng.random::<bool>().then_some(1),
        role: rng.random::<bool>().then_some(IceRole::Controlled(rng.random())),
        use_candidate: rng.random(),
        key: rng.random::<bool>().then_some(&key),
        has_fingerprint: false,
    });
    // RFC 8489 §5: indications, successes and errors are other bits of the type.
    bytes[0] |= rng.random_range(0..2);
    bytes[1] |= rng.random_range(0..2) << 4;
    bytes
}

fn check(request: BindingRequest<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 300];
    let len = request.write_to(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn the_address_that_a_stun_server_tells_becomes_a_candidate(io: &str) {
    let stun = UdpSocket::bind("127.0.0.1:0").unwrap();
    let asked_from = Arc::new(AtomicU32::new(0));
    let url = format!("stun:127.0.0.1:{}", stun.local_addr().unwrap().port());
    let public: SocketAddr = "203.0.113.7:3478".parse().unwrap();
    stun.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let is_done = Arc::new(AtomicU32::new(0));
    let answering = std::thread::spawn({
        let (asked_from, is_done) = (Arc::clone(&asked_from), Arc::clone(&is_done));
        move || {
            let mut request = [0; 300];
            while is_done.load(Ordering::SeqCst) == 0 {
                let Ok((len, from)) = stun.recv_from(&mut request) else { continue };
                asked_from.store(u32::from(from.port()), Ordering::SeqCst);
                stun.send_to(&binding_success(&request[..len], public), from).unwrap();
            }
        }
    });
    let settings = [("STUN_SERVERS", url.as_str()), ("ICE_ADVERTISE_IP", ""), ("TRAMLINE_IO", io)];
    let mut server = Server::with(&settings);
    server.logged("203.0.113.7:3478");
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), Some(([127, 0, 0, 1], server.media_port).into()));
    let told = candidates(&ana.answer);
    assert!(told.contains(&public), "{told:?}");
    assert!(told.len() > 1, "the addresses of the interfaces stay: {told:?}");
    assert_eq!(asked_from.load(Ordering::SeqCst), u32::from(server.media_port), "asked from the media port itself");
    is_done.store(1, Ordering::SeqCst);
    answering.join().unwrap();
}

/// RFC 8489 §14.2, written by hand: another's reading.
fn binding_success(request: &[u8], address: SocketAddr) -> Vec<u8> {
    assert_eq!(request[..2], [0, 1], "a Binding request");
    let SocketAddr::V4(address) = address else { panic!("IPv4 only") };
    let mut out = vec![0x01, 0x01, 0, 12];
    out.extend_from_slice(&request[4..20]);
    out.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    out.extend((address.port() ^ 0x2112).to_be_bytes());
    out.extend((u32::from(*address.ip()) ^ 0x2112_a442).to_be_bytes());
    out
}

#[test]
fn the_start_waits_for_no_stun_server() {
    // Bound, so that questions arrive, but nobody reads them.
    let silent = socket();
    let url = format!("stun:127.0.0.1:{},no-such-host.invalid", silent.local_addr().unwrap().port());
    let server = Server::with(&[("STUN_SERVERS", &url), ("ICE_ADVERTISE_IP", "")]);
    server.healthy();
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), Some(([127, 0, 0, 1], server.media_port).into()));
    assert!(!candidates(&ana.answer).is_empty());
}

#[test]
fn exactly_the_advertised_addresses_are_told() {
    let mut server = Server::with(&[("ICE_ADVERTISE_IP", "198.51.100.4, host.example,127.0.0.1")]);
    assert!(server.logged("host.example").contains("is not an IP address and was dropped"));
    let ana = Peer::join(server.ws("/ws"), "r", 1, socket(), Some(([127, 0, 0, 1], server.media_port).into()));
    let told: Vec<String> = candidates(&ana.answer).iter().map(ToString::to_string).collect();
    let port = server.media_port;
    assert_eq!(told, [format!("198.51.100.4:{port}"), format!("127.0.0.1:{port}")]);
}

fn a_range_gives_each_worker_a_port(io: &str) {
    // A pair of free neighbours may be gone a moment later: other tests bind too.
    let server = wait_for("two free ports side by side", || {
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        let min = probe.local_addr().unwrap().port().clamp(1024, 65_000);
        drop(probe);
        UdpSocket::bind(("0.0.0.0", min + 1)).ok()?;
        let (min, max) = (min.to_string(), (min + 1).to_string());
        let range = [("ICE_UDP_MUX_PORT", ""), ("ICE_UDP_PORT_MIN", &*min), ("ICE_UDP_PORT_MAX", &*max)];
        Some(Server::run(&with(&with(&QUIET, &range), &[("TRAMLINE_IO", io)]), &[]))
    });
    server.healthy();
    let peers: Vec<Peer> = (0..4)
        .map(|number| Peer::join(server.ws("/ws"), ["a", "b"][number / 2], number as u32, socket(), None))
        .collect();
    peers.iter().for_each(|peer| peer.connected());
    let mut ports: Vec<u16> = peers.iter().flat_map(|peer| candidates(&peer.answer)).map(|it| it.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports, [server.media_port, server.media_port + 1]);
    // Whatever worker they are on, they meet.
    for (one, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        peers[one].hears_and_sees(other, 10);
    }
}
