//! What an SFU-Go client is told by the clock: pings, how well everybody is connected, and the wish for an offer once
//! things have settled.

use std::time::{Duration, Instant};

use serde_json::json;

use super::seat::Seat;
use super::sfu_go_frame::{bare, frame};
use crate::config::dialects::Dialects;

/// Between pings in the dialect's own words; those of WebSocket come beside.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How well somebody is connected, by the share of packets that get lost. The bounds are those of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Excellent,
    Good,
    Poor,
    Critical,
}

impl Level {
    fn of(loss_percent: f64) -> Self {
        match loss_percent {
            loss if loss > 5.0 => Self::Critical,
            loss if loss > 2.0 => Self::Poor,
            loss if loss > 0.5 => Self::Good,
            _ => Self::Excellent,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::Poor => "poor",
            Self::Critical => "critical",
        }
    }

    /// As a condition of one's own network.
    fn condition(self) -> &'static str {
        match self {
            Self::Excellent | Self::Good => "good",
            Self::Poor => "degraded",
            Self::Critical => "poor",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Beat {
    ping_at: Instant,
    stats_at: Instant,
    stats_interval: Duration,
    renegotiation_delay: Duration,
    /// When to ask for an offer, and the number of tracks to tell.
    wish: Option<(Instant, usize)>,
    condition: &'static str,
}

impl Beat {
    /// From the join on.
    pub fn new(now: Instant, settings: &Dialects) -> Self {
        Self {
            ping_at: now + PING_INTERVAL,
            stats_at: now + settings.stats_interval,
            stats_interval: settings.stats_interval,
            renegotiation_delay: settings.renegotiation_delay,
            wish: None,
            condition: Level::Excellent.condition(),
        }
    }

    /// The client should offer soon; more may come until then.
    pub fn wish_for_offer(&mut self, now: Instant, track_count: usize) {
        let at = self.wish.map_or(now + self.renegotiation_delay, |(at, _)| at);
        self.wish = Some((at, track_count));
    }

    /// The client offers by itself.
    pub fn forget_wish(&mut self) {
        self.wish = None;
    }

    /// When something is to be said.
    pub fn next_timeout(&self) -> Instant {
        let timers = [self.ping_at, self.stats_at].into_iter().chain(self.wish.map(|(at, _)| at));
        timers.min().unwrap_or(self.ping_at)
    }

    /// What is to be said now.
    pub fn handle_timeout(&mut self, now: Instant, seat: &Seat, peer_id: &str) -> Vec<String> {
        let mut messages = Vec::new();
        if let Some((_, track_count)) = self.wish.take_if(|(at, _)| now >= *at) {
            let data = json!({"reason": "track_change", "peerId": peer_id, "trackCount": track_count});
            messages.push(frame("renegotiate", &data));
        }
        if now >= self.ping_at {
            self.ping_at = now + PING_INTERVAL;
            messages.push(bare("ping"));
        }
        if now >= self.stats_at {
            self.stats_at = now + self.stats_interval;
            self.tell_quality(seat, peer_id, &mut messages);
        }
        messages
    }

    fn tell_quality(&mut self, seat: &Seat, peer_id: &str, messages: &mut Vec<String>) {
        for quality in seat.control.connection_qualities(seat.peer) {
            let loss_percent = (f64::from(quality.loss) * 1e4).round() / 100.0;
            let level = Level::of(loss_percent);
            let data = json!({"peerId": quality.wire_id, "level": level.name(), "packetLoss": loss_percent});
            messages.push(frame("quality-stats", &data));
            if quality.wire_id == peer_id && level.condition() != self.condition {
                self.condition = level.condition();
                messages.push(frame("network-condition", &json!({"condition": self.condition})));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn levels_are_those_of_the_client() {
        let names = [0.0, 0.5, 0.6, 2.0, 2.1, 5.0, 5.1].map(|loss| Level::of(loss).name());
        assert_eq!(names, ["excellent", "excellent", "good", "good", "poor", "poor", "critical"]);
    }

    #[test]
    fn what_comes_within_the_delay_is_one_wish() {
        let (now, settings) = (clock::now(), Dialects::default());
        let mut beat = Beat::new(now, &settings);
        assert_eq!(beat.next_timeout(), now + settings.stats_interval);
        beat.wish_for_offer(now, 1);
        beat.wish_for_offer(now + settings.renegotiation_delay / 2, 3);
        assert_eq!(beat.next_timeout(), now + settings.renegotiation_delay);
        assert_eq!(beat.wish, Some((now + settings.renegotiation_delay, 3)));
        beat.forget_wish();
        assert_eq!(beat.next_timeout(), now + settings.stats_interval);
    }
}
