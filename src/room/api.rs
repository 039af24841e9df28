//! The words in which signalling and rooms talk: dialect-neutral requests, notices and errors.
//!
//! Owns: plain values. Each dialect translates them to and from its own messages.

use std::sync::Arc;
use std::time::SystemTime;

use crate::base::format::MediaKind;
use crate::base::frame::Layer;
use crate::base::ids::PeerId;
use crate::session::negotiate::{NegotiateError, Policy};

/// Which signalling a peer speaks; shown in the debug views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Gryt as documented: the client offers. The room page speaks it too.
    GrytDocumented,
    /// Gryt's real client: we offer, four fixed slots.
    Gryt,
    /// Switchboard: the client offers.
    Switchboard,
    /// SFU-Go: the client offers, also when we ask it to.
    SfuGo,
    /// WHIP (RFC 9725): publishes over HTTP.
    Whip,
    /// WHEP: watches over HTTP.
    Whep,
}

impl Dialect {
    /// Name for logs and debug views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GrytDocumented => "gryt-documented",
            Self::Gryt => "gryt",
            Self::Switchboard => "switchboard",
            Self::SfuGo => "sfu-go",
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }

    /// There is a socket to tell the peer things by. Over HTTP there is none: only [`Notice::Media`] and
    /// [`Notice::Closed`] are said, to whoever keeps the session.
    pub fn has_socket(self) -> bool {
        !matches!(self, Self::Whip | Self::Whep)
    }

    /// Its peers have ids of their own beside those of their users.
    pub fn has_peer_ids(self) -> bool {
        matches!(self, Self::Switchboard | Self::SfuGo)
    }

    /// It is told of every track of its room, also of those it does not receive.
    pub fn hears_of_tracks(self) -> bool {
        self == Self::SfuGo
    }

    /// Others are told that the peer is there. Viewers publish nothing, and there may be thousands of them.
    pub fn is_announced(self) -> bool {
        self != Self::Whep
    }
}

/// How forwarded tracks are named to this peer (`a=msid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNames {
    /// The publisher's own MediaStream and track id survive.
    Publisher,
    /// The stream id is the publisher's peer id (wire id).
    PeerId,
    /// The same, and the track id says to whom it goes: `<track>_to_<peer>`.
    PeerIdAndReceiver,
}

/// What a peer may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Microphone.
    pub speak: bool,
    /// Camera.
    pub share_video: bool,
    /// Screen and its sound.
    pub share_screen: bool,
}

impl Capabilities {
    /// Everything allowed.
    pub const ALL: Self = Self { speak: true, share_video: true, share_screen: true };
    /// Nothing allowed.
    pub const NONE: Self = Self { speak: false, share_video: false, share_screen: false };
}

/// What a source is meant to show, when the client's slots or its page tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Microphone.
    Microphone,
    /// Camera.
    Camera,
    /// Screen picture.
    Screen,
    /// Screen sound.
    ScreenAudio,
    /// Not told.
    Unknown,
}

/// A wish to enter a room.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Room id; equal ids in any dialect are one room.
    pub room: String,
    /// The user's id. A second join of the same user id in the same room evicts the first. `None`: made up.
    pub user_id: Option<String>,
    /// Name for people.
    pub display_name: String,
    /// Dialect, for display.
    pub dialect: Dialect,
    /// Who offers, and what.
    pub policy: Policy,
    /// Stream naming.
    pub stream_names: StreamNames,
    /// What may be published.
    pub capabilities: Capabilities,
}

/// What a peer is told. What a whole room is told is there once, however many have not read it yet.
pub type Notices = tokio::sync::mpsc::Receiver<Arc<Notice>>;

/// A successful join.
#[derive(Debug)]
pub struct Joined {
    /// Handle for further calls.
    pub peer: PeerId,
    /// The id others see (a UUID v4, or the user id where the dialect has one).
    pub wire_id: String,
    /// Who was there before.
    pub others: Vec<Arc<PeerInfo>>,
    /// Everything the peer must be told from now on; ends after [`Notice::Closed`].
    pub notices: Notices,
}

impl Joined {
    /// What is left of it once the peer sits: a list of everybody in a large room would stay as long as he does.
    pub fn into_notices(self) -> Notices {
        self.notices
    }
}

/// A peer as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Internal id.
    pub peer: PeerId,
    /// The id on the wire.
    pub wire_id: String,
    /// User id.
    pub user_id: String,
    /// Name for people.
    pub display_name: String,
    /// Microphone muted, as the client said.
    pub audio_muted: bool,
    /// Camera off, as the client said.
    pub video_muted: bool,
}

/// Which remote track an m-line carries right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// The receiver's m-line.
    pub mid: String,
    /// Media type.
    pub kind: MediaKind,
    /// What it shows.
    pub source: Source,
    /// Publisher.
    pub wire_id: String,
    /// Publisher's user id.
    pub user_id: String,
    /// Publisher's stream id.
    pub stream_id: String,
    /// Stable id of the publication, as in `/debug/tracks`.
    pub track_id: String,
}

/// A track that somebody else publishes in the room, received or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Stable id of the publication, as in `/debug/tracks`.
    pub track_id: String,
    /// Media type.
    pub kind: MediaKind,
    /// What it shows.
    pub source: Source,
    /// Publisher.
    pub wire_id: String,
    /// Publisher's user id.
    pub user_id: String,
    /// Names of its simulcast streams; none without simulcast.
    pub layers: Vec<String>,
}

/// How well a peer is connected, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionQuality {
    /// Whose.
    pub wire_id: String,
    /// Share of packets lost lately, 0 to 1, in the worse direction.
    pub loss: f32,
}

/// A track or stream as a subscriber knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackName {
    /// By the stream's id: all its pictures.
    Stream(String),
    /// By the track's id.
    Track(String),
}

/// What a subscriber asks for of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No more than it shows; 0 × 0: nothing, it is hidden.
    Size {
        /// In pixels.
        width: u16,
        /// In pixels.
        height: u16,
        /// Frames per second, where it matters.
        fps: Option<u16>,
    },
    /// The highest temporal layer; `None`: all.
    TemporalMax(Option<u8>),
}

/// What the watchers of a published picture want, taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoWanted {
    /// The publisher's m-line.
    pub mid: String,
    /// The largest width that is shown.
    pub width: u16,
    /// The largest height.
    pub height: u16,
    /// The highest frame rate; 0 where nobody said.
    pub fps: u16,
    /// Who receives it and does not hide it.
    pub watchers: u32,
    /// Those of them who did not say what they need.
    pub unknown: u32,
}

impl VideoWanted {
    /// As many pixels as the largest that is shown has; 0: nobody looks. `None`: as many as there are, as somebody did
    /// not say.
    pub fn pixels(&self) -> Option<u32> {
        (self.unknown == 0).then(|| u32::from(self.width) * u32::from(self.height))
    }
}

/// How a track that a peer receives is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackQuality {
    /// The receiver's m-line.
    pub mid: String,
    /// Stable id of the publication.
    pub track_id: String,
    /// `flowing`, `lowered` or `withheld`.
    pub state: &'static str,
    /// Name of the reason that it is not better.
    pub reason: &'static str,
    /// The same in words.
    pub sentence: String,
    /// Which layer goes out, once something does.
    pub layer: Option<Layer>,
}

/// Something a peer must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// We offer; the peer answers.
    Offer {
        /// SDP text.
        sdp: String,
    },
    /// More tracks wait than the peer has m-lines: it should offer again.
    NeedsOffer {
        /// Tracks it could receive now.
        track_count: usize,
    },
    /// Which track each receiving m-line carries; sent whenever that changed.
    Tracks(Arc<[TrackInfo]>),
    /// Somebody publishes; only to dialects that [hear of tracks](Dialect::hears_of_tracks).
    Published(Arc<PublishedTrack>),
    /// The end of that, by the track's id.
    Unpublished(String),
    /// Somebody entered.
    PeerJoined(Arc<PeerInfo>),
    /// Somebody's mute state or name changed.
    PeerUpdated(Arc<PeerInfo>),
    /// Somebody left.
    PeerLeft(Arc<PeerInfo>),
    /// Who speaks now (dominant speaker), `None` after silence.
    Speaker(Option<Arc<PeerInfo>>),
    /// What is wanted of a picture that the peer publishes.
    VideoWanted(VideoWanted),
    /// How the pictures it receives are doing; said to who asked for it, when that changed.
    Quality(Arc<[TrackQuality]>),
    /// The media path: up, or lost (consent expired) and worth an ICE restart.
    Media(MediaState),
    /// The last notice: the session is over.
    Closed(CloseReason),
}

/// State of the media path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaState {
    /// ICE and DTLS are up.
    Connected,
    /// No consent for a while.
    Disconnected,
}

/// Why a peer was closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The same user joined again.
    Evicted,
    /// Asked for by the control socket or an administrator.
    Kicked,
    /// The media path failed for good.
    MediaFailed,
    /// Its notices were not read fast enough.
    TooSlow,
    /// The server stops.
    ServerStopping,
}

/// Changes a peer tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerUpdate {
    /// Microphone muted.
    pub audio_muted: Option<bool>,
    /// Camera off.
    pub video_muted: Option<bool>,
    /// New name.
    pub display_name: Option<String>,
    /// What the given m-line (mid) shows.
    pub sources: Vec<(String, Source)>,
}

/// Whom a peer wants to hear, in rooms where only the loudest voices are heard. `None` leaves a list as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// User ids whose voices it gets however quiet they are.
    pub pinned_user_ids: Option<Vec<String>>,
    /// User ids whose voices it does not get.
    pub muted_user_ids: Option<Vec<String>>,
}

/// What somebody else decided about a peer (Gryt's control socket).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerControl {
    /// Nobody hears the peer.
    pub server_muted: Option<bool>,
    /// The peer hears nobody.
    pub deafened: Option<bool>,
    /// User ids whose media is withheld from the peer (replaces the list).
    pub hidden_user_ids: Option<Vec<String>>,
    /// What the peer may publish.
    pub capabilities: Option<Capabilities>,
}

/// For the servers that own rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// A user entered.
    PeerJoined {
        /// Room id.
        room: String,
        /// User id.
        user_id: String,
    },
    /// A user left.
    PeerLeft {
        /// Room id.
        room: String,
        /// User id.
        user_id: String,
    },
}

/// Why a join was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// `MAX_CONNECTIONS` reached.
    #[error("no seats left in this server ({taken}/{seats}); try again later")]
    Full {
        /// Seats taken.
        taken: usize,
        /// All seats.
        seats: usize,
    },
    /// The room's own limit, or `SFU_MAX_PEERS_PER_ROOM`.
    #[error("the room is full ({taken}/{places})")]
    RoomFull {
        /// Places taken.
        taken: usize,
        /// All places.
        places: usize,
    },
    /// `SFU_MAX_ROOMS` reached.
    #[error("there are {0} rooms already, which is all this server is set to have")]
    TooManyRooms(usize),
    /// A WHIP room has one WHIP publisher.
    #[error("this room has a publisher already")]
    HasPublisher,
    /// A room takes so many viewers.
    #[error("this room has {max} viewers already, which is all it takes")]
    TooManyViewers {
        /// How many.
        max: usize,
    },
    /// The server is stopping.
    #[error("the server is stopping; reconnect in a moment")]
    Stopping,
}

/// Why a request of a joined peer failed; the room stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The peer is gone.
    #[error("this peer has left the room")]
    Gone,
    /// The description cannot be used.
    #[error(transparent)]
    Negotiate(#[from] NegotiateError),
}

/// A room for people and programs.
#[derive(Clone, Debug)]
pub struct RoomView {
    /// Room id.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// When it was created.
    pub created_at: SystemTime,
    /// When somebody came or went last.
    pub updated_at: SystemTime,
    /// Peers in it.
    pub peers: Vec<Arc<PeerInfo>>,
    /// Published tracks.
    pub tracks: usize,
    /// Peers that receive.
    pub subscribers: usize,
}
