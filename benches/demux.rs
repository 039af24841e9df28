//! What a worker does with a datagram before any cipher: class by the first bytes, session by the source address, is the
//! path valid, and the header.
//!
//!   cargo bench --features sim --bench demux
//!
//! Datagrams come from random sessions. With 10,000 of them the tables are larger than the nearest caches, as they are in
//! a server; the datagrams are short, as nothing behind the header is looked at, so that they are not. STUN is parsed up to the ufrag's session, its fingerprint checked; the HMAC that follows is not in it.

#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{CpuTime, check, measure, path, write_packet};
use tramline::base::batch::Path;
use tramline::base::ids::{PeerId, SessionKey, Ssrc, WorkerId};
use tramline::proto::ice::{CheckRequest, IceLite, Incoming, LocalCredentials, screen};
use tramline::wire::class::{Class, classify};
use tramline::wire::rtcp::write_pli;
use tramline::wire::rtp::RtpHeader;
use tramline::wire::stun::StunView;
use tramline::worker::command::Ticket;
use tramline::worker::seats::{Seat, Seats, State};

const HOME: WorkerId = WorkerId(0);
/// Datagrams of one run, enough to meet most sessions.
const PACKETS: usize = 10_000;
/// Shares of RTP, RTCP, STUN and DTLS, in percent. A subscriber's side is mostly RTCP, a publisher's mostly RTP.
const MIXES: [(&str, [u32; 4]); 5] = [
    ("rtp", [100, 0, 0, 0]),
    ("rtcp", [0, 100, 0, 0]),
    ("stun", [0, 0, 100, 0]),
    ("dtls", [0, 0, 0, 100]),
    ("mix", [85, 12, 2, 1]),
];

struct Bench {
    now: Instant,
    seats: Seats,
    credentials: Vec<LocalCredentials>,
    datagrams: Vec<(Path, Vec<u8>)>,
}

impl Bench {
    fn new(sessions: u32) -> Self {
        let mut bench =
            Self { now: Instant::now(), seats: Seats::default(), credentials: Vec::new(), datagrams: Vec::new() };
        let mut rng = StdRng::seed_from_u64(1);
        for index in 0..sessions {
            let key = SessionKey { index, epoch: 0 };
            let credentials = LocalCredentials::generate(&mut rng);
            let ticket = Arc::new(Ticket::new(key, PeerId(index.into())));
            ticket.claim(HOME);
            let mut ice = Box::new(IceLite::new(bench.now, credentials.clone()));
            let check = CheckRequest {
                ufrag: credentials.ufrag(),
                transaction_id: [0; 12],
                priority: None,
                use_candidate: true,
            };
            let outcome = ice.handle_check(bench.now, path(index), &check);
            bench.seats.open(Seat { ticket, state: State::Waiting(ice), remote: None, streams: None });
            bench.seats.handle_outcome(bench.now, key, path(index), &outcome);
            bench.credentials.push(credentials);
        }
        bench
    }

    /// Datagrams of these shares, from random sessions.
    fn fill(&mut self, shares: [u32; 4]) {
        let mut rng = StdRng::seed_from_u64(2);
        self.datagrams.clear();
        for seq in 0..PACKETS {
            let session = rng.random_range(0..self.credentials.len());
            let mut dice = rng.random_range(0..100);
            let mut kind = 0;
            while dice >= shares[kind] {
                dice -= shares[kind];
                kind += 1;
            }
            let bytes = datagram(kind, seq as u64, &self.credentials[session]);
            self.datagrams.push((path(session as u32), bytes));
        }
    }

    /// As `WorkerCore` goes about it.
    fn demux(&mut self) {
        for (path, bytes) in &self.datagrams {
            let class = classify(bytes);
            if class == Class::Stun {
                let view = StunView::parse(bytes).expect("a check");
                let Ok(Incoming::Check(ufrag)) = screen(&view) else { unreachable!("only checks are sent") };
                black_box(self.seats.by_ufrag(ufrag).and_then(|key| self.seats.seat_mut(key)).expect("a session"));
                continue;
            }
            let key = self.seats.by_remote(path.remote).expect("a session");
            let seat = self.seats.seat_mut(key).expect("a session");
            assert!(seat.ticket.owner() == Some(HOME) && seat.ice().handle_media_from(self.now, *path));
            if class == Class::Rtp {
                black_box(RtpHeader::parse(bytes).expect("a header"));
            }
        }
    }
}

fn datagram(kind: usize, seq: u64, credentials: &LocalCredentials) -> Vec<u8> {
    let mut bytes = [0; 256];
    let len = match kind {
        0 => write_packet(&mut bytes, seq, 20) + 20,
        1 => write_pli(&mut bytes, Ssrc(1), Ssrc(2)).expect("room"),
        2 => check(&mut bytes, credentials),
        _ => {
            // A DTLS 1.2 record of application data (RFC 6347 §4.1).
            bytes[..3].copy_from_slice(&[23, 254, 253]);
            80
        }
    };
    bytes[..len].to_vec()
}

fn demux(criterion: &mut Criterion<CpuTime>) {
    for sessions in [100, 10_000] {
        let mut bench = Bench::new(sessions);
        let mut group = support::group(criterion, &format!("demux/{sessions}-sessions"));
        for (name, shares) in MIXES {
            bench.fill(shares);
            measure(&mut group, BenchmarkId::from_parameter(name), PACKETS, &mut bench, |_| {}, Bench::demux);
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = support::criterion(); targets = demux }
criterion_main!(benches);
