//! str0m sending to str0m: the sender that our server is compared with. It chooses among the same qualities by its own
//! estimate and a simple rule, and paces by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::course::Course;
use super::{NEAR, ROOM, seeded};
use crate::proto::link::LinkConfig;
use crate::room::api::Notice;
use crate::runtime::clock;
use crate::sim::access::Access;
use crate::sim::camera::CameraConfig;
use crate::sim::media::PeerNo;
use crate::sim::net::private_address;
use crate::sim::peer_str0m::{Script, StrPeer};
use crate::sim::world::{Action, Endpoint};

/// What it begins with, as our server does.
const START_BPS: u64 = 1_000_000;
/// One signalling message.
const SIGNALLING_DELAY: Duration = Duration::from_millis(20);

/// What is under way to one of the two.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Parcel {
    Datagram(Vec<u8>),
    Offer(String),
    Answer(String),
}

/// See the module.
pub struct Pair {
    now: Instant,
    /// Sender and receiver.
    peers: Vec<StrPeer>,
    /// From each of them.
    accesses: [Access; 2],
    agenda: BinaryHeap<Reverse<(Instant, u64, usize, Parcel)>>,
    order: u64,
    rng: StdRng,
}

impl Pair {
    /// The sender offers. `pads`: it fills up with padding to get to better qualities.
    pub fn new(seed: u64, access: LinkConfig, pads: bool) -> Self {
        let now = clock::now();
        let camera = seeded(seed, CameraConfig { makes_one: true, ..CameraConfig::simulcast() });
        let sender = Script { estimate_bps: Some(START_BPS), pads, ..Script::publisher(ROOM, camera) };
        let receiver = Script { offers: false, audio: 0, video: 0, ..Script::viewer(ROOM) };
        let peer = |at, script| StrPeer::new(now, PeerNo(at), private_address(PeerNo(at)), script);
        // What is lost by itself is lost on the way back, too.
        let back = LinkConfig { rate: None, jitter: Duration::ZERO, ..access };
        let mut accesses = [access, back].map(Access::new);
        accesses[0].log = Some(Vec::new());
        let mut pair = Self {
            now,
            peers: vec![peer(0, sender), peer(1, receiver)],
            accesses,
            agenda: BinaryHeap::new(),
            order: 0,
            rng: StdRng::seed_from_u64(seed),
        };
        pair.peers[0].handle_joined(now);
        pair.collect();
        pair
    }

    /// When it began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The way from the sender to the receiver.
    pub fn access(&mut self) -> &mut Access {
        &mut self.accesses[0]
    }

    /// Goes on until `time` has gone by.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let peer = [0, 1].into_iter().filter_map(|at| Some((self.peers[at].next_timeout()?, at))).min();
            let parcel_at = self.agenda.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = peer.map(|(at, _)| at).into_iter().chain(parcel_at).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if parcel_at == Some(next)
                && let Some(Reverse((_, _, to, parcel))) = self.agenda.pop()
            {
                self.deliver(to, parcel);
            } else if let Some((_, at)) = peer {
                self.peers[at].handle_timeout(self.now);
            }
            self.collect();
        }
        self.now = end;
    }

    /// The books.
    pub fn course(&self) -> Course {
        let (sender, receiver) = (&self.peers[0], &self.peers[1]);
        Course {
            estimates: sender.estimates.clone(),
            log: self.accesses[0].log.clone().unwrap_or_default(),
            shown: receiver.screen().map(|screen| screen.shown.clone()).unwrap_or_default(),
            broken: receiver.screen().map_or(0, |screen| screen.broken),
        }
    }

    fn deliver(&mut self, to: usize, parcel: Parcel) {
        let (now, peer) = (self.now, &mut self.peers[to]);
        match parcel {
            Parcel::Datagram(bytes) => peer.handle_datagram(now, private_address(PeerNo(1 - to)), &bytes),
            Parcel::Offer(sdp) => peer.handle_notice(now, &Notice::Offer { sdp }),
            Parcel::Answer(sdp) => peer.handle_answer(now, Ok(sdp)),
        }
    }

    /// Takes what the two do to where it goes.
    fn collect(&mut self) {
        for from in [0, 1] {
            while let Some(action) = self.peers[from].poll() {
                let signalled_at = Some(self.now + SIGNALLING_DELAY);
                let (at, parcel) = match action {
                    Action::Send(_, bytes) => {
                        (self.accesses[from].pass(self.now, &mut self.rng, &bytes), Parcel::Datagram(bytes))
                    }
                    Action::Offer(sdp) => (signalled_at, Parcel::Offer(sdp)),
                    Action::Answer(sdp) => (signalled_at, Parcel::Answer(sdp)),
                    Action::Keys(_) => (None, Parcel::Datagram(Vec::new())),
                };
                self.order += 1;
                // As if there were a server on the way that only hands on.
                self.agenda.extend(at.map(|at| Reverse((at + NEAR, self.order, 1 - from, parcel))));
            }
        }
    }
}
