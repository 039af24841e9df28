//! Instructions of a worker's core per forwarded packet, with subscribers who tell what they got and ask for what they
//! did not: a figure that is the same on a busy machine. One case per run:
//!
//!   cargo bench --features sim --bench instructions --no-run
//!   valgrind --tool=callgrind --toggle-collect='*watched*' target/release/deps/instructions-... CASE
//!
//! `CASE`: `single` (1,000 packets a second, one by one, to 100), `burst` (the same in bursts of ten) or `audio` (50 a
//! second to 200). `Collected` over the number it prints is what a packet costs.

#![allow(clippy::disallowed_methods, clippy::panic, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{PT, SSRC, check, keys, path, payload};
use tramline::base::batch::{RxDatagram, TxBatch};
use tramline::base::format::MediaKind;
use tramline::base::ids::{Mid, PeerId, SessionKey, Ssrc, TrackKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::crypto::srtp::{SrtpSender, SrtpSuite};
use tramline::forward::plan::Plan;
use tramline::forward::table::{Route, Subscriber};
use tramline::proto::dtls::{DtlsConfig, DtlsRole};
use tramline::proto::ice::LocalCredentials;
use tramline::session::negotiate::RemoteTransport;
use tramline::session::streams::{Demand, EgressConfig, IngressConfig, MlineConfig, StreamsConfig};
use tramline::wire::rtcp::{ReportBlock, TwccHeader, write_nack, write_receiver_report, write_twcc};
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::{Ext, ExtWriter};
use tramline::worker::command::{Command, Event, Ticket, WorkerReport};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };
/// The server's sources: media, retransmissions.
const SENT: [Ssrc; 2] = [Ssrc(7), Ssrc(8)];
/// Time for estimates to rise and lists to grow, and what is measured after it.
const WARM_UP_MS: u64 = 6000;
const MEASURED_MS: u64 = 2000;
/// Between a subscriber's feedbacks, and its checks and receiver reports.
const FEEDBACK_MS: u64 = 50;
const REPORT_MS: u64 = 1000;
/// One packet of so many is asked for again.
const MISSED_EVERY: u16 = 100;
/// From a datagram's way out to its arrival.
const DELAY_MS: u64 = 10;

/// What is published, and to how many.
#[derive(Clone, Copy)]
struct Case {
    kind: MediaKind,
    subscribers: u32,
    payload_len: usize,
    packets: u64,
    every_ms: u64,
}

fn case(name: &str) -> Case {
    let video = Case { kind: MediaKind::Video, subscribers: 100, payload_len: 1200, packets: 1, every_ms: 1 };
    match name {
        "single" => video,
        "burst" => Case { packets: 10, every_ms: 10, ..video },
        "audio" => Case { kind: MediaKind::Audio, subscribers: 200, payload_len: 100, packets: 1, every_ms: 20 },
        _ => panic!("single, burst or audio"),
    }
}

struct Listener {
    credentials: LocalCredentials,
    sender: SrtpSender,
    /// Transport-wide numbers since the last feedback, when they arrive, if they do.
    came: Vec<(u16, u64, bool)>,
    missed: Vec<u16>,
    newest: u16,
    feedback_count: u8,
}

struct Load {
    case: Case,
    core: WorkerCore,
    tx: TxBatch,
    start: Instant,
    ms: u64,
    publisher: SrtpSender,
    next: u64,
    credentials: LocalCredentials,
    listeners: Vec<Listener>,
    is_measured: bool,
    forwarded: u64,
    again: u64,
    _plan: Plan,
}

/// What callgrind collects.
#[inline(never)]
fn watched<T>(call: impl FnOnce() -> T) -> T {
    call()
}

fn streams(kind: MediaKind, is_publisher: bool) -> StreamsConfig {
    let ingress = is_publisher.then(|| IngressConfig::single(TRACK, vec![(SSRC, None)]));
    let egress = (!is_publisher).then_some(EgressConfig {
        ssrc: SENT[0],
        rtx_ssrc: SENT[1],
        track: Some(TRACK),
        demand: Demand::default(),
    });
    let mline = MlineConfig {
        mid: Mid::new(b"0").expect("a mid"),
        kind,
        exts: vec![(4, Ext::Mid), (3, Ext::TransportCc), (1, Ext::AudioLevel)],
        payloads: vec![payload(kind)],
        ingress,
        egress,
    };
    StreamsConfig { mlines: vec![Some(mline)], ext_mixed: true, downlink_bps_max: None }
}

impl Load {
    fn new(case: Case) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let suite = SrtpSuite::AeadAes128Gcm;
        let certificate = Arc::new(Certificate::generate().expect("a certificate"));
        let dtls = Arc::new(DtlsConfig::new(certificate.clone()).expect("DTLS"));
        let mut plan = Plan::default();
        let lanes = Lanes::mesh(1).pop().expect("one end");
        let mut core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(2), dtls, plan.shared(), lanes);
        let mut tx = TxBatch::with_capacity(1024);
        let mut peers = Vec::new();
        for index in 0..=case.subscribers {
            let session = SessionKey { index, epoch: 0 };
            let credentials = LocalCredentials::generate(&mut rng);
            let ticket = Arc::new(Ticket::new(session, PeerId(index.into())));
            core.apply(start, Command::Open { ticket, credentials: credentials.clone() }, &mut tx);
            let mut bytes = [0; 256];
            let len = check(&mut bytes, &credentials);
            core.handle_datagram(start, RxDatagram::fresh(path(index), &mut bytes[..len]), &mut tx);
            let remote = Some(Arc::new(RemoteTransport {
                ufrag: String::new(),
                pwd: String::new(),
                fingerprint: certificate.fingerprint_sha256(),
                dtls_role: DtlsRole::Server,
            }));
            let streams = Arc::new(streams(case.kind, index == 0));
            core.apply(start, Command::Configure { session, remote, streams }, &mut tx);
            core.adopt(start, session, &keys(suite, index));
            tx.clear();
            let (sender, _) = keys(suite, index).contexts(true).expect("keys");
            peers.push((credentials, sender));
        }
        let all = (1..=case.subscribers).map(|index| Subscriber { session: SessionKey { index, epoch: 0 }, mline: 0 });
        plan.set(Route { by_worker: Box::new([all.collect()]), ..Route::new(TRACK, WorkerId(0)) });
        plan.publish();
        let mut peers = peers.into_iter();
        let (credentials, publisher) = peers.next().expect("a publisher");
        let listener = |(credentials, sender)| Listener {
            credentials,
            sender,
            came: Vec::new(),
            missed: Vec::new(),
            newest: 0,
            feedback_count: 0,
        };
        let listeners = peers.map(listener).collect();
        let (is_measured, forwarded) = (false, 0);
        Self {
            case,
            core,
            tx,
            start,
            ms: 0,
            publisher,
            next: 1,
            credentials,
            listeners,
            is_measured,
            forwarded,
            again: 0,
            _plan: plan,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    /// One call into the core; what it sends is noted.
    fn call<T>(&mut self, call: impl FnOnce(&mut WorkerCore, &mut TxBatch) -> T) -> T {
        let (core, tx) = (&mut self.core, &mut self.tx);
        let result = if self.is_measured { watched(|| call(core, tx)) } else { call(core, tx) };
        while let Some(event) = self.core.poll_event() {
            if let Event::Report(report) = event {
                self.tell(&report);
            }
        }
        let arrival_ms = self.ms + DELAY_MS;
        for entry in self.tx.entries() {
            let bytes = self.tx.bytes(entry);
            let Some(listener) = listener(&mut self.listeners, entry.path.remote) else { continue };
            let Some((ssrc, seq, twcc)) = head(bytes) else { continue };
            // Sound is not asked for again by browsers.
            let is_missed = self.case.kind == MediaKind::Video && ssrc == SENT[0] && seq % MISSED_EVERY == 0;
            listener.came.extend(twcc.map(|twcc| (twcc, arrival_ms, !is_missed)));
            if ssrc == SENT[0] {
                self.forwarded += 1;
                listener.newest = seq;
                listener.missed.extend(is_missed.then_some(seq));
            } else {
                self.again += 1;
            }
        }
        self.tx.clear();
        result
    }

    /// How the line of a subscriber is seen, once a second.
    fn tell(&self, report: &WorkerReport) {
        let subscriber = report.sessions.iter().find(|session| session.session.index == 1);
        let Some(downlink) = subscriber.and_then(|session| session.downlink) else { return };
        let (waiting, waited) = downlink.waiting;
        let estimate = downlink.estimate.estimate_bps / 1000;
        println!("{} s: {estimate} kbit/s, {waiting} packets wait for {} ms", self.ms / 1000, waited.as_millis());
    }

    fn hear(&mut self, index: u32, bytes: &mut [u8]) {
        let now = self.now();
        self.call(|core, tx| core.handle_datagram(now, RxDatagram::fresh(path(index), bytes), tx));
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            let now = self.now();
            if self.ms.is_multiple_of(self.case.every_ms) {
                for _ in 0..self.case.packets {
                    let mut packet = self.packet();
                    self.hear(0, &mut packet);
                }
            }
            for index in 0..=self.case.subscribers {
                self.feedback(index);
            }
            self.call(|core, tx| core.handle_timeout(now, tx));
            while !self.call(|core, tx| core.forward(now, tx)) {}
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let (payload_len, ticks) = (self.case.payload_len, if self.case.kind == MediaKind::Video { 90 } else { 48 });
        let mut block = [0; 8];
        let mut exts = ExtWriter::one_byte(&mut block);
        if self.case.kind == MediaKind::Audio {
            exts.push(1, &[20]);
        }
        exts.push(3, &(self.next as u16).to_be_bytes());
        let (profile, ext_len) = exts.finish();
        let timestamp = (self.ms * ticks) as u32;
        let fixed = Fixed { marker: false, pt: PT, seq: self.next as u16, timestamp, ssrc: SSRC };
        let header_len = write_header(&mut bytes, &fixed, &[], Some((profile, &block[..ext_len]))).expect("room");
        // VP8 payload descriptor with S=1, then the P bit: 0 is a keyframe (RFC 7741 §4.2, §4.3).
        bytes[header_len] = 0x10;
        bytes[header_len + 1] = u8::from(self.next != 1);
        // RFC 6386 §9.1: the start code of a key frame.
        bytes[header_len + 4..header_len + 7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        let len =
            self.publisher.protect_rtp(&mut bytes, header_len, header_len + payload_len, self.next).expect("keys");
        self.next += 1;
        bytes.truncate(len);
        bytes
    }

    /// What a peer tells in this millisecond; all do it in turn.
    fn feedback(&mut self, index: u32) {
        let ms = self.ms + u64::from(index) * 7;
        if ms.is_multiple_of(5 * REPORT_MS) {
            let credentials = match index.checked_sub(1) {
                Some(at) => &self.listeners[at as usize].credentials,
                None => &self.credentials,
            };
            let mut bytes = [0; 256];
            let len = check(&mut bytes, credentials);
            self.hear(index, &mut bytes[..len]);
        }
        let Some(at) = index.checked_sub(1) else { return };
        let (now_ms, listener) = (self.ms, &mut self.listeners[at as usize]);
        if ms.is_multiple_of(REPORT_MS) {
            let block = ReportBlock { ssrc: SENT[0], highest_seq: listener.newest.into(), ..ReportBlock::default() };
            let bytes = rtcp(listener, |out, _| write_receiver_report(out, Ssrc(1), &[block]));
            self.hear(index, &mut bytes.expect("room"));
        }
        if !ms.is_multiple_of(FEEDBACK_MS) {
            return;
        }
        let listener = &mut self.listeners[at as usize];
        if !listener.missed.is_empty() {
            let bytes = rtcp(listener, |out, listener| write_nack(out, Ssrc(1), SENT[0], listener.missed.drain(..)));
            self.hear(index, &mut bytes.expect("room"));
        }
        let listener = &mut self.listeners[at as usize];
        if let Some(mut bytes) = rtcp(listener, |out, listener| transport_feedback(out, listener, now_ms)) {
            self.hear(index, &mut bytes);
        }
    }
}

/// Tells of all that has arrived by now.
fn transport_feedback(out: &mut [u8], listener: &mut Listener, now_ms: u64) -> Option<usize> {
    listener.came.sort_unstable();
    let arrived = listener.came.iter().filter(|(_, at_ms, _)| *at_ms <= now_ms).count();
    let (first, at_ms, _) = *listener.came.first().filter(|_| arrived > 0)?;
    let header = TwccHeader {
        sender: Ssrc(1),
        media: SENT[0],
        base_seq: first,
        status_count: arrived as u16,
        reference_time: (at_ms / 64) as u32,
        feedback_count: listener.feedback_count,
    };
    listener.feedback_count = listener.feedback_count.wrapping_add(1);
    let mut before_us = at_ms / 64 * 64_000;
    let statuses: Vec<Option<i16>> = listener
        .came
        .drain(..arrived)
        .map(|(_, at_ms, is_received)| {
            if !is_received {
                return None;
            }
            // Units of 250 us.
            let delta = ((at_ms * 1000) as i64 - before_us as i64) / 250;
            before_us = at_ms * 1000;
            Some(delta as i16)
        })
        .collect();
    write_twcc(out, &header, &statuses)
}

fn rtcp(listener: &mut Listener, write: impl FnOnce(&mut [u8], &mut Listener) -> Option<usize>) -> Option<Vec<u8>> {
    let mut out = vec![0; 1500];
    let len = write(&mut out, listener)?;
    let len = listener.sender.protect_rtcp(&mut out, len).expect("keys");
    out.truncate(len);
    Some(out)
}

fn listener(listeners: &mut [Listener], remote: SocketAddr) -> Option<&mut Listener> {
    let SocketAddr::V4(remote) = remote else { return None };
    let [_, high, middle, low] = remote.ip().octets();
    listeners.get_mut(u32::from_be_bytes([0, high, middle, low]).checked_sub(1)? as usize)
}

/// Source, number and transport-wide number of RTP; all of them are in the clear.
fn head(bytes: &[u8]) -> Option<(Ssrc, u16, Option<u16>)> {
    let is_rtp = bytes[0] >> 6 == 2 && !(192..224).contains(&bytes[1]);
    let seq = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ssrc = Ssrc(u32::from_be_bytes(bytes[8..12].try_into().ok()?));
    let has_exts = bytes[0] & 0x10 != 0;
    let mut rest = bytes.get(16..).filter(|_| has_exts).unwrap_or_default();
    let mut twcc = None;
    while let [head, after @ ..] = rest
        && *head != 0
        && twcc.is_none()
    {
        let len = usize::from(head & 15) + 1;
        twcc = (head >> 4 == 3).then(|| u16::from_be_bytes([after[0], after[1]]));
        rest = &after[len..];
        if head >> 4 == 0 || head >> 4 > 4 {
            break;
        }
    }
    is_rtp.then_some((ssrc, seq, twcc))
}

fn main() {
    let name = std::env::args().nth(1).filter(|name| !name.starts_with('-')).unwrap_or_else(|| "single".into());
    let mut load = Load::new(case(&name));
    load.run(WARM_UP_MS);
    (load.is_measured, load.forwarded, load.again) = (true, 0, 0);
    load.run(MEASURED_MS);
    println!("{name}: {} packets forwarded, {} sent again", load.forwarded, load.again);
}
