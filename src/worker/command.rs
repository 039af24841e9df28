//! What control and workers tell each other: the one place where signalling meets the packet path.
//!
//! Owns: plain values. Commands are declarative where they can be: the last one wins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::base::ids::{PeerId, SessionKey, TrackKey, WorkerId};
use crate::base::train::TrainNumbers;
use crate::crypto::srtp::SrtpSuite;
use crate::proto::ice::LocalCredentials;
use crate::session::negotiate::RemoteTransport;
use crate::session::peer::EndReason;
use crate::session::stats::{EgressReport, IngressReport};
use crate::session::streams::StreamsConfig;
use crate::wire::stun::TransactionId;

/// A session that may arrive at any worker: what is needed to answer its checks, and the claim on it.
#[derive(Debug)]
pub struct Ticket {
    /// Where it lives in every worker's table.
    pub session: SessionKey,
    /// For logs.
    pub peer: PeerId,
    owner: AtomicU8,
}

/// No worker owns the session yet.
const UNCLAIMED: u8 = u8::MAX;

impl Ticket {
    /// An unclaimed ticket.
    pub fn new(session: SessionKey, peer: PeerId) -> Self {
        Self { session, peer, owner: AtomicU8::new(UNCLAIMED) }
    }

    /// Makes `worker` the owner if there is none. Whoever it is then is returned.
    pub fn claim(&self, worker: WorkerId) -> WorkerId {
        // Nothing else is published through this word: the session's state is the owner's alone.
        match self.owner.compare_exchange(UNCLAIMED, worker.0, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => worker,
            Err(owner) => WorkerId(owner),
        }
    }

    /// Who owns it.
    pub fn owner(&self) -> Option<WorkerId> {
        Some(self.owner.load(Ordering::Relaxed)).filter(|owner| *owner != UNCLAIMED).map(WorkerId)
    }
}

/// Control to worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Checks for this session may come.
    Open {
        /// Identity and claim.
        ticket: Arc<Ticket>,
        /// Our ufrag and password.
        credentials: LocalCredentials,
    },
    /// New credentials; the old ones serve until the new ones are nominated (RFC 8445 §9).
    Restart {
        /// Whose.
        session: SessionKey,
        /// Our new ufrag and password.
        credentials: LocalCredentials,
    },
    /// What was negotiated, whole.
    Configure {
        /// Whose.
        session: SessionKey,
        /// Known once the peer's first description came.
        remote: Option<Arc<RemoteTransport>>,
        /// Its m-lines.
        streams: Arc<StreamsConfig>,
    },
    /// The session ends; its peer is told by close_notify.
    Close {
        /// Whose.
        session: SessionKey,
    },
    /// The track ends; its memory may go.
    CloseTrack {
        /// Which.
        track: TrackKey,
    },
    /// Answer checks with these credentials and say so: the server checks its own ports with them.
    SelfCheck(LocalCredentials),
    /// Ask these STUN servers for our address as seen from the media port. The answer may come to any worker.
    AskPublicAddress {
        /// Transaction id of the question.
        transaction: TransactionId,
        /// Who is asked. Only the first worker asks; the others listen.
        servers: Arc<[SocketAddr]>,
    },
    /// Close everything and end.
    Stop,
}

/// Worker to control.
#[derive(Clone, Debug)]
pub enum Event {
    /// The sender owns the session now.
    Claimed {
        /// Which.
        session: SessionKey,
    },
    /// ICE and DTLS are up.
    Connected {
        /// Which.
        session: SessionKey,
        /// How its media is protected.
        suite: SrtpSuite,
    },
    /// No consent for 30 s (RFC 7675 §5.1): nothing is sent until a check comes again.
    Lost {
        /// Which.
        session: SessionKey,
    },
    /// Consent came back.
    Recovered {
        /// Which.
        session: SessionKey,
    },
    /// The media session is over; the peer has to start a new one.
    Ended {
        /// Which.
        session: SessionKey,
        /// Why.
        reason: EndReason,
    },
    /// The first media packet of a track came.
    TrackLive {
        /// Which.
        track: TrackKey,
    },
    /// Loudness (0 to 127) of the audio tracks that are not silent.
    Levels(Vec<(TrackKey, u8)>),
    /// Numbers for people, about once a second.
    Report(Box<WorkerReport>),
    /// A STUN server says how it sees our media port.
    PublicAddress(SocketAddr),
    /// No STUN server answered.
    PublicAddressUnknown,
    /// A self-check was answered.
    SelfChecked,
}

/// Live numbers of one worker. Counters never go back.
#[derive(Clone, Debug, Default)]
pub struct WorkerReport {
    /// What the sockets did.
    pub io: IoNumbers,
    /// Keyframe requests sent to publishers.
    pub keyframe_requests: u64,
    /// NACK packets received from subscribers.
    pub nacks_received: u64,
    /// NACK packets sent to publishers.
    pub nacks_sent: u64,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Media packets sent to subscribers, without retransmissions.
    pub packets_forwarded: u64,
    /// The trains they were put into.
    pub trains: TrainNumbers,
    /// Discards by name.
    pub discards: Vec<(&'static str, u64)>,
    /// The sessions living here.
    pub sessions: Vec<SessionReport>,
}

/// What a worker's sockets did since the start.
#[derive(Clone, Debug, Default)]
pub struct IoNumbers {
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams given to the kernel.
    pub datagrams_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// UDP payload bytes given to the kernel.
    pub bytes_sent: u64,
    /// Sends that carried two datagrams or more.
    pub trains_sent: u64,
    /// Datagrams in them.
    pub train_datagrams_sent: u64,
    /// Receives that brought two datagrams or more.
    pub trains_received: u64,
    /// Datagrams in them.
    pub train_datagrams_received: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Entries into the kernel.
    pub enters: u64,
    /// Failures by name.
    pub errors: Vec<(&'static str, u64)>,
}

/// Live numbers of one session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// Which.
    pub session: SessionKey,
    /// Where its packets go.
    pub remote: Option<SocketAddr>,
    /// Suite, when DTLS is up.
    pub suite: Option<SrtpSuite>,
    /// Consent holds.
    pub has_consent: bool,
    /// Time since its last valid check.
    pub silent: Duration,
    /// What it publishes.
    pub ingress: Vec<IngressReport>,
    /// What it receives.
    pub egress: Vec<EgressReport>,
}
