//! A video over a link that loses packets, on the publisher's side or on the viewer's.

use std::time::Duration;

use super::measure::{Delivery, Look, Traffic, delivery};
use super::{NEAR, Stage, near};
use crate::proto::link::{LinkConfig, Loss};
use crate::sim::camera::CameraConfig;

/// A video of 720 lines as browsers send it, without layers, so that nothing may be left out.
pub const BPS: u64 = 1_200_000;
/// One of which a hundred packets last longer than a second: so many back, and no further, does str0m take what it has
/// asked for.
pub const SLOW_BPS: u64 = 400_000;
/// Until everything is there.
const WARM_UP: Duration = Duration::from_secs(4);
/// Of frames just made repairs are still under way.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// Beside two round trips: two frames, and the time a receiver waits before it calls a packet lost.
const SLACK: Duration = Duration::from_millis(100);

/// Whose access loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The publisher's way to the server.
    Up,
    /// The server's way to the viewer.
    Down,
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct LossTrial {
    /// What is lost.
    pub loss: Loss,
    /// The video's rate.
    pub bps: u64,
    /// On which side.
    pub side: Side,
    /// From that side's peer to the server and back.
    pub round_trip: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// Of the network.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct LossResult {
    /// Of the frames.
    pub delivery: Delivery,
    /// Over the lossy link.
    pub traffic: Traffic,
    /// To the viewer's eye.
    pub look: Look,
    /// Frames that a decoder would have shown broken.
    pub broken: u64,
}

/// Gilbert-Elliott with that share of losses, in bursts of four on average.
pub fn bursty(share: f64) -> Loss {
    let to_good = 0.25;
    Loss::Bursty { to_bad: share * to_good / (1.0 - share), to_good }
}

impl LossTrial {
    /// Plays it.
    pub fn play(&self) -> LossResult {
        let mut stage = Stage::new(self.seed, CameraConfig::plain(self.bps));
        let clean = LinkConfig { delay: self.round_trip / 2, ..LinkConfig::default() };
        let lossy = LinkConfig { loss: self.loss, ..clean };
        let viewer = stage.view(if self.side == Side::Down { clean } else { near() });
        let peer = if self.side == Side::Down { viewer } else { stage.publisher };
        stage.world.set_links(peer, clean);
        stage.world.run_for(WARM_UP);
        let (up, down) = stage.world.accesses(peer);
        let access = if self.side == Side::Down { down } else { up };
        access.link.config = lossy;
        access.log = Some(Vec::new());
        let start = stage.world.now;
        stage.world.run_for(self.duration + COOL_DOWN);
        let span = start..start + self.duration;
        let made = stage.made();
        // The other side's way is part of it.
        let limit = self.round_trip * 2 + NEAR * 2 + SLACK;
        let read = |screen: &crate::sim::screen::Screen| {
            (delivery(&made, screen, &span, limit), Look::read(&screen.shown, &span), screen.broken)
        };
        let (delivery, look, broken) = stage.screen(viewer, read).unwrap_or_default();
        let whole = start..stage.world.now;
        let (up, down) = stage.world.accesses(peer);
        let log = if self.side == Side::Down { &down.log } else { &up.log };
        // Retransmissions of what was lost at the end come later.
        let traffic = Traffic::read(log.as_deref().unwrap_or_default(), &whole);
        LossResult { delivery, traffic, look, broken }
    }
}
