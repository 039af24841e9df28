//! Trials: calls over bad networks, measured. One camera, one or many viewers, a network that does what it is told.
//!
//! Owns: the stage on which trials are played, and their results as plain values; what a result has to be stands in
//! `scenarios/trials.rs`, how it is written down in [`table`].
//! Promises: time is virtual; the network's dice, the camera's and str0m's ids follow from the seed. What does not is what
//! str0m's hash maps have for an order, and its DTLS: the same seed gives nearly the same figures.

pub mod bandwidth;
pub mod course;
pub mod direct;
pub mod joins;
pub mod loss;
pub mod measure;
pub mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::camera::{Camera, CameraConfig, Made};
use super::media::PeerNo;
use super::peer_str0m::{Script, StrPeer};
use super::screen::Screen;
use super::world::{World, WorldConfig};
use crate::proto::link::LinkConfig;
use crate::room::api::{Capabilities, Dialect, JoinRequest, StreamNames};
use crate::runtime::clock;
use crate::session::negotiate::{Policy, Role};

/// The room of all trials.
const ROOM: &str = "trial";
/// The client offers; we may offer what it lacks.
const POLICY: Policy = Policy {
    server_offers_first: false,
    server_may_offer: true,
    live_binding: false,
    slots: &[],
    role: Role::Participant,
};
/// Each way between a well-connected peer and the server.
pub const NEAR: Duration = Duration::from_millis(5);

/// A world with a publisher.
pub struct Stage {
    /// Everything.
    pub world: World,
    /// Who has the camera.
    pub publisher: PeerNo,
}

impl Stage {
    /// A publisher enters an empty room.
    pub fn new(seed: u64, camera: CameraConfig) -> Self {
        let camera = seeded(seed, camera);
        let mut world = World::new(clock::now(), WorldConfig { seed, ..WorldConfig::default() });
        let publisher = enter(&mut world, Script::publisher(ROOM, camera), near());
        Self { world, publisher }
    }

    /// A viewer with such an access enters; what the server sends to it is logged.
    pub fn view(&mut self, access: LinkConfig) -> PeerNo {
        let viewer = enter(&mut self.world, Script::viewer(ROOM), access);
        self.world.accesses(viewer).1.log = Some(Vec::new());
        viewer
    }

    /// All frames the camera made.
    pub fn made(&mut self) -> Vec<Made> {
        let publisher = self.publisher;
        self.world.act(publisher, |_, peer: &mut StrPeer| {
            peer.cameras().next().map(|camera: &Camera| camera.made.clone()).unwrap_or_default()
        })
    }

    /// Keyframes that the publisher was asked for since then, by RID.
    pub fn keyframes_asked(&mut self, since: Instant) -> Vec<(String, usize)> {
        let publisher = self.publisher;
        self.world.act(publisher, |_, peer: &mut StrPeer| {
            let asked = peer.keyframes_asked.iter().filter(|(at, _)| *at >= since);
            let mut counts = BTreeMap::new();
            asked.for_each(|(_, rid)| *counts.entry(rid.clone()).or_insert(0) += 1);
            counts.into_iter().collect()
        })
    }

    /// Lets one look at what a viewer saw; `None` when it saw nothing at all.
    pub fn screen<T>(&mut self, viewer: PeerNo, look: impl FnOnce(&Screen) -> T) -> Option<T> {
        self.world.act(viewer, |_, peer: &mut StrPeer| peer.screen().map(look))
    }
}

/// Peers and cameras made from now on, on this thread, follow from the seed.
fn seeded(seed: u64, camera: CameraConfig) -> CameraConfig {
    fastrand::seed(seed);
    CameraConfig { seed, ..camera }
}

/// An access that does no harm.
pub fn near() -> LinkConfig {
    LinkConfig { delay: NEAR, ..LinkConfig::default() }
}

#[allow(clippy::expect_used, reason = "a trial's room is never full")]
fn enter(world: &mut World, script: Script, access: LinkConfig) -> PeerNo {
    let request = JoinRequest {
        room: ROOM.to_owned(),
        user_id: None,
        display_name: "someone".to_owned(),
        dialect: Dialect::GrytDocumented,
        policy: POLICY,
        stream_names: StreamNames::PeerId,
        capabilities: Capabilities::ALL,
    };
    let make = |now, me, address| StrPeer::new(now, me, address, script);
    let peer = world.join(request, make).expect("a seat");
    world.set_links(peer, access);
    peer
}
