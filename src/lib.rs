//! Tramline: a WebRTC selective forwarding unit (SFU) for Linux.
//!
//! Peers send what they publish once; Tramline sends it on to everybody else in the room, under numbers that are right
//! for each of them, encrypted once per subscriber, and without looking into pictures or sound.
//!
//! # The tiers
//!
//! One crate, so that the packet path inlines across modules. Imports point down this table only:
//!
//! | Module | What it is | Imports |
//! |---|---|---|
//! | [`base`] | nouns everybody shares: ids, sequence arithmetic, [`base::batch`] | nothing |
//! | [`wire`] | bytes to values and back: STUN, RTP, RTCP, SDP, payload heads | base |
//! | [`crypto`] | SRTP, key derivation, replay windows, certificates | base, wire |
//! | [`proto`] | one protocol, one machine: ICE, DTLS, NACK, TWCC, reports, [`proto::history`], the estimate of a line ([`proto::bwe`]), [`proto::pacer`] | those above |
//! | [`forward`] | who gets what, in which layer ([`forward::allocate`], [`forward::select`]), and how it is renumbered; never names a session | base |
//! | [`session`] | one peer: transport, [`session::ingress`], [`session::egress`], [`session::downlink`], [`session::negotiate`] | those above |
//! | [`worker`] | all state of one core: [`worker::core`], seats, timers, voices, lanes, bad networks to try things out | those above |
//! | [`net`] | sockets and what carries their datagrams, io_uring first; knows bytes, not WebRTC | base |
//! | [`room`] | rooms, publications, subscriptions, as a pure machine ([`room::hub`]) | base, wire::sdp, proto::{ice, link}, forward, session::{negotiate, feedback, stats, streams}, worker::command, telemetry |
//! | [`runtime`] | threads, the loop, the only clock | base, config, net, worker |
//! | [`record`] | recordings: packets of a tap to files that play, and what becomes of them | base, config, wire, worker::{command, tap}, runtime::clock |
//! | [`signaling`] | HTTP, WebSocket, the dialects, the page | base, config, wire::sdp, session::negotiate, runtime::clock, telemetry, room |
//! | [`config`], [`telemetry`] | settings in; logs and numbers out | little |
//! | [`server`], [`self_check`] | wiring, start and stop | all |
//! | `sim` | virtual clock and network around the shipped hub and workers (tests, or feature `sim`) | all but net and runtime |
//!
//! Three seams, each one file: `net` meets the protocols in [`base::batch`], signalling meets the packet path in
//! [`worker::command`], and forwarding meets sessions in `worker/forward.rs`.
//!
//! # One packet, told through the files
//!
//! *Encoding*: one of the streams of a simulcast track, each with numbers of its own; a track without simulcast has one.
//! *Layer*: an encoding, and how much of it, in space and in time.
//!
//! 1. `net/recv.rs`: a multishot recvmsg completes; the datagram, or a train of them in one piece (UDP_GRO), lies in a
//!    buffer that the kernel picked from our ring. The reap only queues it. Where io_uring is refused, `net/mmsg.rs` does
//!    all of this file's part by plain system calls; the loop sees a [`net::Driver`] and not which.
//! 2. [`runtime::run`]: a turn begins. The clock is read once; then come commands, lanes, timers, datagrams, forwarding
//!    and the wait, in this order. Datagrams are lent to the core one by one (`net/arrival.rs`), and a buffer goes back
//!    to the kernel after the last of its train.
//! 3. `worker/demux.rs`: the first byte says RTP (RFC 7983, [`wire::class`]); the source address finds the session
//!    ([`worker::seats`]). A session that lives on another worker gets its datagram over a [`worker::lane`]. What nobody
//!    knows is a counted [`session::discard`].
//! 4. [`session::peer`] and [`session::ingress`]: unprotected in place, replays refused, the header parsed once. The
//!    source says which encoding of which track it is. The arrival is noted for TWCC and NACK, RTX is unwrapped, padding
//!    dropped, padding-only packets absorbed and their gap closed ([`forward::gap`]). Out comes a media packet: track,
//!    encoding, number, extensions that concern more than this hop, payload, and what the payload's head says of its
//!    frame and layers.
//! 5. [`session::track`]: where there is a dependency descriptor, it tells more, even of what is encrypted end to end. The
//!    packet is copied once, into the ring of its encoding ([`proto::history`]). This copy is what all subscribers are
//!    served from now, what is sent again when somebody misses it, and since the last keyframe ([`proto::run`]) what
//!    somebody new begins with. What each layer costs is measured here ([`forward::rates`]). Of a track that is recorded,
//!    another copy waits in the [`worker::tap`] for the threads of [`record`].
//! 6. `worker/forward.rs`: when the turn's datagrams are in, [`forward::table`] is loaded once. Every *other worker* with
//!    subscribers gets one copy over its lane and goes on at step 5. A busy worker waits a little for more to come
//!    ([`worker::hold`]). Then a job is made of what is fresh (`worker/job.rs`): the subscribers here are sorted, so that
//!    each one's keys and numbers are touched once. A turn does a slice of some hundred sends; what is left of a large job
//!    goes on in the next turns, in turn with what comes meanwhile, so that nobody waits for another room's keyframe.
//!    Of a large room's voices only the loudest are planned (`worker/voices.rs`, [`forward::loudest`]).
//! 7. [`worker::departure`] takes one subscriber's packets through three steps. [`session::egress`] *admits* each: the
//!    subscriber's [`forward::select`] passes or withholds it, and [`forward::rewrite`] gives it numbers. These run in
//!    *stretches*: where something is left out or another encoding goes on, a new one begins, so what goes out has no
//!    gaps, and a NACK finds its way back. Who tells us how its line does has a [`session::downlink`]: what the pacer has no
//!    budget for waits there, as plain numbers, for a tick some milliseconds later; sound never waits. Of what may go,
//!    [`forward::order`] finds, from the lengths alone, the order and the few bytes of padding that make long trains; then
//!    each is *written* with its ssrc, sequence number, timestamp, payload type, extensions and picture numbers into room
//!    reserved in the [`base::batch::TxBatch`] and protected there: ciphertext is born in the bytes that the kernel reads.
//!    Transport-wide numbers are given here, so they are in the order of leaving.
//! 8. [`base::train`], `net/send.rs`: neighbours of one size to one place become a train, one message that the kernel cuts
//!    (UDP_SEGMENT), whatever tracks they are of; what travels alone is one submission. Each leaves from the local address
//!    that the peer knows us by, and the wait at the end of the turn takes them all into the kernel with one entry.
//!
//! # The way back
//!
//! RTCP takes steps 1 to 4. NACKs are answered from the history over RTX. Feedback on transport-wide numbers, or REMB, or
//! reports where there is neither, goes to [`proto::bwe`], which says how much the line carries, and what to send to find out
//! more. Several times a second `session/layers.rs` *divides the line*: [`forward::allocate`] chooses a layer for each
//! video by what its layers cost, what the subscriber asked for (the size on its screen) and what the others need; the
//! lowest layer of what is looked at stays, whatever the estimate. The selector goes there at the next place where a decoder
//! can follow. Where that takes a keyframe, what is kept since the last one is *replayed*, its timestamps squeezed, so that
//! nobody has to be asked (`session/replay.rs`); where too much has come since then, for the line or for who sees something
//! already and would see the past, a wish ([`proto::keyframe`]) travels to the worker where the publisher lives.
//!
//! For people, [`worker::command::Event`]s go up: reports once a second, with a reason ([`forward::why`]) for each picture
//! that is not the best one, and how active the voices are, of which the room finds the dominant one
//! ([`forward::speaker`]). The room also knows what nobody looks at, and tells its publisher where the dialect can.
//!
//! # How a peer comes to a worker
//!
//! Workers share one UDP port, and the kernel spreads peers over their sockets by address. So [`room::hub`] allocates the
//! session key and opens the session on *every* worker; the one that the peer's DTLS reaches claims it, and the others
//! hand on what still reaches them. Nobody is asked on the packet path.
//!
//! With a range each worker has a port of its own, and the port in the SDP decides: `room/placement.rs` keeps a room on
//! one worker until that is too full for it, and only this worker hears of the session.
//!
//! Either way a claim makes a route: [`forward::plan`] publishes it with a new table, at most every 5 ms. Commands that
//! need the table wait for it in the hub, and those behind them too; notices and what opens a session leave at once. A worker
//! takes commands in portions of about a millisecond.
//!
//! # Where this differs from what one might expect
//!
//! - *There is no receive batch.* Datagrams are lent one at a time from the kernel's buffers; media is copied into the
//!   history anyway, so nothing has to outlive the loan. Only sending is batched.
//! - *Forwarding source, retransmission cache and keyframe cache are one thing.* The history is per encoding and worker, in
//!   plaintext, with indices instead of copies per subscriber, for what waits in a pacer too; a subscriber only remembers
//!   which number each packet went by, and with how much padding where it may be asked for it byte by byte.
//! - *Keys are given out by control.* A key is an index and an epoch, valid on all workers, so tables need no hashing and
//!   a late message to a peer that has gone reaches nobody.
//! - *A turn may be put off.* What comes while a burst is read is read first, once, and leaves in the same trains. *Or be
//!   one of many*: forwarding ends after a slice, and the batch leaves, before all that came is sent.
//! - *A worker that stays behind leaves something out.* Datagrams say how long they waited in the kernel; `worker/backlog.rs`
//!   gives up late video, much later audio, and [`session::track`] lets video go on with a keyframe.
//! - *Bad networks are built in.* With `--impairments` single peers of a running server can be put behind lines that lose,
//!   delay and throttle (`worker/shim.rs`), before step 3 and after step 8: what is tried out is the server as it ships.
//! - *Nobody is paced who tells nothing.* Without feedback there is no estimate, and what is received is sent at once.
//!
//! # Rules the code keeps
//!
//! Everything is told the time; [`runtime::clock`] alone reads it. Nothing a peer sends can panic or grow without bound:
//! each limit is a constant with its reason, and what exceeds it is counted. `unsafe` lives in [`net`] only. The core
//! never sees a socket, so the simulator drives the shipped [`worker::core::WorkerCore`] and [`room::hub::Hub`].

pub mod base;
pub mod config;
pub mod crypto;
pub mod forward;
pub mod net;
pub mod proto;
pub mod record;
pub mod room;
pub mod runtime;
pub mod self_check;
pub mod server;
pub mod session;
pub mod signaling;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod telemetry;
pub mod wire;
pub mod worker;
