//! What the programs we stand in for have settings for: rooms, limits and times of SFU-Go, ports and calls of Gryt.

use std::net::IpAddr;
use std::time::Duration;

/// Which of two bodies `GET /api/rooms` has: the programs contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomsApi {
    /// SFU-Go's object with rooms to create and delete.
    SfuGo,
    /// go-live's array.
    GoLive,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialects {
    /// Rooms at once; `None`: 1000, or as many as there are seats.
    pub rooms_max: Option<usize>,
    /// Peers of a room; `None`: as many as there are seats.
    pub room_places: Option<usize>,
    /// Messages per second of an SFU-Go client; more get an error and are dropped.
    pub messages_per_s: u32,
    /// So many may come at once.
    pub messages_burst: u32,
    /// Tracks that come or go within it are one wish for an offer.
    pub renegotiation_delay: Duration,
    /// Between two words on everybody's connection.
    pub stats_interval: Duration,
    /// How long an SFU-Go client whose socket is gone may come back.
    pub session_ttl: Duration,
    /// SFU-Go clients receive all tracks; else those they subscribe to.
    pub auto_subscribe: bool,
    /// Name of this server among others.
    pub instance_id: String,
    /// What `/api/rooms` speaks.
    pub rooms_api: RoomsApi,
    /// Where Gryt's servers connect, if not at the main port.
    pub control_port: Option<u16>,
    /// Address of that; `None`: all.
    pub control_host: Option<IpAddr>,
    /// Metrics are shown.
    pub metrics: bool,
    /// Metrics also have a port of their own.
    pub metrics_port: Option<u16>,
    /// Address of that; `None`: all.
    pub metrics_host: Option<IpAddr>,
    /// Where metrics are found there.
    pub metrics_path: String,
    /// A call that one person is alone in ends then; zero: never.
    pub call_alone_timeout: Duration,
}

impl Default for Dialects {
    fn default() -> Self {
        Self {
            rooms_max: None,
            room_places: None,
            messages_per_s: 20,
            messages_burst: 40,
            renegotiation_delay: Duration::from_millis(150),
            stats_interval: Duration::from_secs(3),
            session_ttl: Duration::from_secs(120),
            auto_subscribe: true,
            instance_id: "tramline".to_owned(),
            rooms_api: RoomsApi::SfuGo,
            control_port: None,
            control_host: None,
            metrics: true,
            metrics_port: None,
            metrics_host: None,
            metrics_path: "/metrics".to_owned(),
            call_alone_timeout: Duration::from_secs(120),
        }
    }
}
