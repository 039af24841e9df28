//! A peer at its WebSocket, from join to goodbye, in whichever dialect.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep_until;

use super::super::auth::grant::Denied;
use super::socket::{Ending, Incoming, SDP_MAX, Socket};
use crate::base::ids::PeerId;
use crate::room::api::{CloseReason, JoinError, Notice, Notices, RequestError};
use crate::room::choice::ChoiceError;
use crate::room::control::Control;
use crate::room::showing::LayerError;
use crate::runtime::clock;
use crate::session::negotiate::NegotiateError;

/// One dialect's words for a joined peer.
pub trait Words: Send {
    /// A message of the client: the replies, or the end.
    fn heard(&mut self, seat: &Seat, text: &str) -> Result<Vec<String>, Failure>;
    /// Something to tell; nothing where the dialect has no word for it.
    fn told(&mut self, seat: &Seat, notice: Notice) -> Vec<String>;
    /// When [`Self::handle_timeout`] is due.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
    /// What is said by the clock.
    fn handle_timeout(&mut self, _now: Instant, _seat: &Seat) -> Vec<String> {
        Vec::new()
    }
    /// Whether the client may come back after that.
    fn may_return(&self, _ending: &Ending) -> bool {
        false
    }
    /// An error message.
    fn error(&self, code: &'static str, sentence: &str) -> String;
    /// The word before the close frame, if there is one.
    fn closed(&self, reason: CloseReason) -> Option<String>;
}

/// A message that got no proper reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Said to the client; the connection stays.
    Error(&'static str, String),
    /// The connection ends.
    End(Ending),
}

impl Failure {
    /// A message that is not understood.
    pub fn bad_message(sentence: impl Into<String>) -> Self {
        Self::Error("bad-message", sentence.into())
    }
}

/// Nobody: peers are counted from 1.
const NOBODY: PeerId = PeerId(0);

/// A place in a room; left when dropped.
#[must_use]
pub struct Seat {
    /// The rooms.
    pub control: Arc<Control>,
    /// Who sits here.
    pub peer: PeerId,
}

impl Seat {
    /// The place is somebody else's or nobody's now: nothing is left when this is dropped.
    fn release(&mut self) -> PeerId {
        std::mem::replace(&mut self.peer, NOBODY)
    }

    /// The client's offer, answered.
    pub fn offer(&self, sdp: &str) -> Result<String, Failure> {
        check_length(sdp)?;
        self.control.offer(self.peer, sdp).map_err(Failure::from)
    }

    /// The client's answer.
    pub fn answer(&self, sdp: &str) -> Result<(), Failure> {
        check_length(sdp)?;
        self.control.answer(self.peer, sdp).map_err(Failure::from)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.peer != NOBODY {
            self.control.leave(self.peer);
        }
    }
}

/// Serves the peer until either side ends it.
pub async fn serve(mut socket: Socket, mut seat: Seat, mut notices: Notices, mut words: impl Words) {
    let ending = loop {
        let said = tokio::select! {
            incoming = socket.next() => match incoming {
                Incoming::Text(text) => replies(&mut words, &seat, &text),
                Incoming::End(ending) => Err(ending),
            },
            notice = notices.recv() => match notice.map(Arc::unwrap_or_clone) {
                Some(Notice::Closed(reason)) => {
                    // The room has taken the place back, maybe for who came with its pass.
                    seat.release();
                    let _ = words.closed(reason).map(|word| socket.send(word));
                    Err(Ending::of(reason))
                }
                Some(notice) => Ok(words.told(&seat, notice)),
                // The room ends the notices without a last word only where none can be taken any more.
                None => Err(Ending::of(CloseReason::TooSlow)),
            },
            () = until(words.next_timeout()) => Ok(words.handle_timeout(clock::now(), &seat)),
        };
        let sent = said.and_then(|messages| messages.into_iter().try_for_each(|message| socket.send(message)));
        if let Err(ending) = sent {
            break ending;
        }
    };
    if seat.peer != NOBODY && words.may_return(&ending) {
        let control = Arc::clone(&seat.control);
        control.suspend(seat.release());
    }
    // The others see the seat empty before the close handshake has taken its time.
    drop(seat);
    if let Some((code, sentence)) = &ending.error {
        let _ = socket.send(words.error(code, sentence));
    }
    socket.close(ending).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn replies(words: &mut impl Words, seat: &Seat, text: &str) -> Result<Vec<String>, Ending> {
    match words.heard(seat, text) {
        Ok(replies) => Ok(replies),
        Err(Failure::Error(code, sentence)) => {
            tracing::debug!(peer = %seat.peer, code, sentence, "message refused");
            Ok(vec![words.error(code, &sentence)])
        }
        Err(Failure::End(ending)) => Err(ending),
    }
}

/// How a refused join ends, for people: `sentence` is the dialect's own.
pub fn refused(error: &JoinError) -> Ending {
    match error {
        JoinError::Full { .. } => Ending::error(1013, "server full", "server-full", error.to_string()),
        JoinError::RoomFull { .. } => Ending::error(1013, "room full", "room-full", error.to_string()),
        JoinError::TooManyRooms(_) => Ending::error(1013, "server full", "too-many-rooms", error.to_string()),
        // Said to WHIP only; whoever hears it may come back later.
        JoinError::HasPublisher => Ending::error(1013, "room has a publisher", "has-publisher", error.to_string()),
        JoinError::TooManyViewers { .. } => Ending::error(1013, "room full", "room-full", error.to_string()),
        JoinError::Stopping => Ending::error(1012, "server stopping", "server-stopping", error.to_string()),
    }
}

fn check_length(sdp: &str) -> Result<(), Failure> {
    if sdp.len() > SDP_MAX {
        let sentence = format!("the description is too long: {} bytes, at most {SDP_MAX} are allowed", sdp.len());
        return Err(Failure::Error("sdp-too-long", sentence));
    }
    Ok(())
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Error(denied.code(), denied.to_string())
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let code = match &error {
            RequestError::Gone => "gone",
            RequestError::Negotiate(NegotiateError::UnexpectedAnswer) => "unexpected-answer",
            RequestError::Negotiate(_) => "bad-sdp",
        };
        Self::Error(code, error.to_string())
    }
}

impl From<ChoiceError> for Failure {
    fn from(error: ChoiceError) -> Self {
        match error {
            ChoiceError::Gone(error) => error.into(),
            ChoiceError::NoTrack(_) => Self::Error("no-track", error.to_string()),
        }
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Gone(error) => error.into(),
            LayerError::NoEncoding { .. } => Self::Error("no-layer", error.to_string()),
            LayerError::NoPicture(_) | LayerError::NothingShown => Self::Error("no-track", error.to_string()),
        }
    }
}
