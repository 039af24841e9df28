//! What control and workers tell each other: the one place where signalling meets the packet path.
//!
//! Owns: plain values. Commands are declarative where they can be: the last one wins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::base::format::MediaKind;
use crate::base::ids::{PeerId, SessionKey, TrackKey, WorkerId};
use crate::base::train::TrainNumbers;
use crate::crypto::srtp::SrtpSuite;
use crate::forward::speaker::Activity;
use crate::proto::ice::LocalCredentials;
use crate::proto::link::LinkConfig;
use crate::session::negotiate::RemoteTransport;
use crate::session::peer::EndReason;
use crate::session::stats::{DownlinkReport, EgressReport, IngressReport, LayerReport};
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

/// What is wrong with a peer's network on purpose; a direction without a link is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairments {
    /// From the peer to us.
    pub up: Option<LinkConfig>,
    /// From us to the peer.
    pub down: Option<LinkConfig>,
}

/// A track whose packets are recorded, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which.
    pub track: TrackKey,
    /// Media type.
    pub kind: MediaKind,
    /// Its stable id.
    pub id: String,
    /// The room it is published in.
    pub room: String,
    /// Who publishes it. Tracks of one publisher share a clock.
    pub publisher: PeerId,
    /// The publisher's name in the room.
    pub user_id: String,
    /// Also one file with all that the publisher sends, in sync.
    pub is_muxed: bool,
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
    /// Copies of the track's packets go to the recorder (see [`super::tap`]). For the worker where its publisher lives, or
    /// may come to live.
    Record(Arc<Recorded>),
    /// No more of them.
    StopRecording {
        /// Which track.
        track: TrackKey,
    },
    /// The recorder cannot go on without a keyframe.
    WantKeyframe {
        /// Which track.
        track: TrackKey,
        /// Which stream of it.
        encoding: u8,
    },
    /// From now on the session's datagrams pass such links.
    Impair {
        /// Whose.
        session: SessionKey,
        /// Instead of those before.
        impairments: Impairments,
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

/// Work of the commands taken in one turn, in units of about 15 µs: a join storm holds up media for a millisecond.
pub const COMMAND_WORK_PER_TURN: usize = 64;
/// m-lines of a configuration that are one unit of work.
const MLINES_PER_UNIT: usize = 4;
/// Units of work that the memory of a track costs when it comes or goes: a mebibyte of pages.
const TRACK_UNITS: usize = 8;

impl Command {
    /// What it costs at most, roughly: a session's m-lines are compared one by one, and each track that it publishes
    /// gets its history.
    pub fn work(&self) -> usize {
        match self {
            Self::Configure { streams, .. } => {
                let tracks = streams.mlines.iter().flatten().filter(|mline| mline.ingress.is_some());
                1 + streams.mlines.len() / MLINES_PER_UNIT + TRACK_UNITS * tracks.count()
            }
            Self::CloseTrack { .. } | Self::Record(_) => TRACK_UNITS,
            _ => 1,
        }
    }
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
    /// How active the voices are that are not silent.
    Voices(Vec<(TrackKey, Activity)>),
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
    /// Voices of a room that are heard at once; 0: all.
    pub voices_heard: usize,
    /// Voices that are withheld here as they are not among the loudest of their room.
    pub unheard: Vec<Unheard>,
    /// The sessions living here.
    pub sessions: Vec<SessionReport>,
}

impl WorkerReport {
    /// Whether a voice is withheld from a session that lives here as others are louder.
    pub fn is_unheard(&self, track: TrackKey, session: SessionKey) -> bool {
        let unheard = self.unheard.iter().find(|unheard| unheard.track == track);
        unheard.is_some_and(|unheard| !unheard.except.contains(&session))
    }
}

/// A voice that is not among the loudest of its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheard {
    /// Which.
    pub track: TrackKey,
    /// Who gets it all the same: who speaks and does not hear himself, and by whom it is pinned.
    pub except: Vec<SessionKey>,
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
    /// The layers of that, as they come in.
    pub layers: Vec<LayerReport>,
    /// What it receives.
    pub egress: Vec<EgressReport>,
    /// Its line, if it tells us about it.
    pub downlink: Option<DownlinkReport>,
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::base::batch::TxBatch;
    use crate::base::ids::Mid;
    use crate::crypto::cert::Certificate;
    use crate::forward::plan::Plan;
    use crate::proto::dtls::DtlsConfig;
    use crate::runtime::clock;
    use crate::session::streams::{IngressConfig, MlineConfig};
    use crate::worker::core::WorkerCore;
    use crate::worker::lane::Lanes;

    /// How many such commands are taken in one turn.
    fn taken(command: &Command) -> usize {
        let dtls = Arc::new(DtlsConfig::new(Arc::new(Certificate::generate().unwrap())).unwrap());
        let lanes = Lanes::mesh(1).pop().unwrap();
        let mut core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(1), dtls, Plan::default().shared(), lanes);
        let mut taken = 0;
        let next = || {
            taken += 1;
            (taken <= 1000).then(|| command.clone())
        };
        core.handle_commands(clock::now(), next, &mut TxBatch::with_capacity(16));
        taken
    }

    #[test]
    fn a_storm_of_commands_is_taken_in_portions_by_what_they_cost() {
        let session = SessionKey { index: 0, epoch: 0 };
        assert_eq!(taken(&Command::Close { session }), COMMAND_WORK_PER_TURN);
        let ingress = Some(IngressConfig::single(TrackKey { index: 0, epoch: 0 }, Vec::new()));
        let mid = Mid::new(b"0").unwrap();
        let mline =
            MlineConfig { mid, kind: MediaKind::Video, exts: Vec::new(), payloads: Vec::new(), ingress, egress: None };
        let streams = Arc::new(StreamsConfig {
            mlines: vec![Some(mline.clone()), Some(mline)],
            ext_mixed: true,
            downlink_bps_max: None,
        });
        let configure = Command::Configure { session, remote: None, streams };
        assert_eq!(taken(&configure), COMMAND_WORK_PER_TURN.div_ceil(1 + 2 * TRACK_UNITS));
    }
}
