//! One WebSocket: bounded in every direction, and never closed without a word.
//!
//! Owns: pings, the message rate, the frame size, the queue of what goes out, the close handshake.
//! Promises: sending never waits for the client; [`Socket::next`] may be dropped and called again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, protocol::CloseFrame};

use super::super::AppState;
use super::super::auth::shown::Shown;
use super::super::limits::TokenBucket;
use super::upgrade::{Stream, send_text};
use crate::room::api::CloseReason;
use crate::runtime::clock;
use crate::telemetry::metrics::Sockets;

/// Longest session description. A browser's has some 10 KiB per dozen m-lines.
pub const SDP_MAX: usize = 1 << 20;
/// Longest message: the longest description, encoded twice.
pub const MESSAGE_MAX: usize = 2 << 20;
/// Longest frame that is read at all, so that what is a little too long still gets its close code.
pub const FRAME_MAX: usize = 4 << 20;
/// How long a client may think before its first message.
pub const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(15);
/// Messages waiting for a client that does not read.
const QUEUE_MESSAGES_MAX: usize = 512;
/// Bytes waiting for a client that does not read.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// How long the close handshake may take.
const GOODBYE_WAIT: Duration = Duration::from_secs(2);
/// RFC 6455 §7.4.1: "navigated away from a page", or it was closed.
pub const GOING_AWAY: u16 = 1001;
/// RFC 6455 §5.5: a control frame holds 125 bytes, two of them the code.
const REASON_MAX: usize = 123;

/// Messages a kind of client may send.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// A person's client: a join trickles some 30 candidates, mute buttons are slow.
    pub const CLIENT: Self = Self { per_second: 50, burst: 200 };
    /// A Gryt server: it registers every room of its own at once.
    pub const SERVER: Self = Self { per_second: 1000, burst: 20_000 };
    /// A client whose dialect drops what is too much with an error, and does so far below this.
    pub const COUNTED: Self = Self { per_second: 500, burst: 2000 };
}

/// How a connection ends: the close code, its reason, and an error to say before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// RFC 6455 §7.4, or 4000 and up.
    pub code: u16,
    /// In the close frame.
    pub reason: String,
    /// Code and sentence, said in the words of the dialect first.
    pub error: Option<(&'static str, String)>,
}

impl Ending {
    /// An end that needs no error message.
    pub fn quiet(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.to_owned(), error: None }
    }

    /// An end that is explained first.
    pub fn error(code: u16, reason: &str, error: &'static str, sentence: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), error: Some((error, sentence.into())) }
    }

    /// 1000: all is said.
    pub fn normal() -> Self {
        Self::quiet(1000, "bye")
    }

    /// 1012: clients come back on any code but 1000 and 1001, and after a restart they should.
    pub fn stopping() -> Self {
        Self::quiet(1012, "server stopping")
    }

    /// What the room decided. An evicted or removed client must not come back by itself: 1000.
    pub fn of(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Evicted => Self::quiet(1000, "joined elsewhere"),
            CloseReason::Kicked => Self::quiet(1000, "removed"),
            CloseReason::MediaFailed => Self::quiet(1011, "sfu error"),
            CloseReason::TooSlow => Self::quiet(1008, "reads too slowly"),
            CloseReason::ServerStopping => Self::stopping(),
        }
    }
}

/// What came from the client.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Text(Utf8Bytes),
    /// Nothing more will come, or may.
    End(Ending),
}

/// Numbers of all sockets.
#[derive(Debug, Default)]
pub struct SocketCounters {
    active: AtomicU64,
    accepted: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl SocketCounters {
    /// The numbers now.
    pub fn snapshot(&self) -> Sockets {
        Sockets {
            active: self.active.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            messages_sent: self.sent.load(Ordering::Relaxed),
            messages_received: self.received.load(Ordering::Relaxed),
            refused: 0,
        }
    }

    /// Counts a socket for as long as the guard lives.
    pub fn open(self: &Arc<Self>) -> OpenSocket {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        OpenSocket(Arc::clone(self))
    }
}

/// A counted socket.
#[derive(Debug)]
pub struct OpenSocket(Arc<SocketCounters>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub struct Socket {
    /// What its upgrade showed.
    pub shown: Shown,
    stream: SplitStream<Stream>,
    outbox: Outbox,
    writer: JoinHandle<()>,
    bucket: TokenBucket,
    pings: Interval,
    pong_timeout: Duration,
    message_max: usize,
    heard: Instant,
    counters: Arc<SocketCounters>,
}

/// What waits to be sent. The bounds are kept here and not by the channel, so that the close frame always fits.
#[derive(Clone, Debug)]
struct Outbox {
    queue: mpsc::UnboundedSender<Message>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Outbox {
    fn new() -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (queue, outgoing) = mpsc::unbounded_channel();
        (Self { queue, waiting: Arc::default() }, outgoing)
    }

    fn push(&self, text: String) -> Result<(), Ending> {
        let bytes = self.waiting.bytes.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        let messages = self.waiting.messages.fetch_add(1, Ordering::Relaxed) + 1;
        if messages > QUEUE_MESSAGES_MAX || bytes > QUEUE_BYTES_MAX {
            return Err(Ending::quiet(1008, "reads too slowly"));
        }
        self.push_frame(Message::Text(text.into()));
        Ok(())
    }

    fn push_frame(&self, frame: Message) {
        // A writer that is gone shows as the end of the stream.
        let _ = self.queue.send(frame);
    }
}

impl Waiting {
    fn sent(&self, length: usize) {
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        self.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Socket {
    /// Takes over an upgraded connection.
    pub fn new(socket: Stream, state: &AppState, rate: Rate) -> Self {
        let (sink, stream) = socket.split();
        let (outbox, outgoing) = Outbox::new();
        let now = clock::now();
        Self {
            shown: Shown::default(),
            stream,
            writer: tokio::spawn(write(sink, outgoing, Arc::clone(&outbox.waiting))),
            outbox,
            bucket: TokenBucket::new(now, rate.per_second, rate.burst),
            pings: pings(now, state.config.ping_interval),
            pong_timeout: state.config.pong_timeout,
            message_max: MESSAGE_MAX,
            heard: now,
            counters: Arc::clone(&state.sockets),
        }
    }

    /// The same for a dialect with a limit of its own.
    pub fn with_message_max(self, message_max: usize) -> Self {
        Self { message_max, ..self }
    }

    /// The same for a dialect with times of its own: between pings, and of silence that ends it.
    pub fn with_pings(self, every: Duration, pong_timeout: Duration) -> Self {
        let pings = pings(self.heard, every);
        Self { pings, pong_timeout, ..self }
    }

    /// The same with a token that came with the upgrade.
    pub fn showing(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }

    /// The next message. Answers pings and sends its own meanwhile.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let frame = tokio::select! {
                frame = self.stream.next() => frame,
                _ = self.pings.tick() => {
                    self.outbox.push_frame(Message::Ping(Default::default()));
                    continue;
                }
                () = sleep_until((self.heard + self.pong_timeout).into()) => {
                    return Incoming::End(Ending::quiet(4000, "ping timeout"));
                }
            };
            match frame {
                None => return Incoming::End(Ending::normal()),
                Some(Err(error)) => return Incoming::End(broken(&error)),
                Some(Ok(message)) => {
                    if let Some(incoming) = self.take(message) {
                        return incoming;
                    }
                }
            }
        }
    }

    /// The first message, which must come soon; `stopping` ends the wait.
    pub async fn first(&mut self, state: &AppState) -> Result<Utf8Bytes, Ending> {
        tokio::select! {
            incoming = timeout(FIRST_MESSAGE_WAIT, self.next()) => match incoming {
                Ok(Incoming::Text(text)) => Ok(text),
                Ok(Incoming::End(ending)) => Err(ending),
                Err(_) => Err(Ending::error(1008, "no join", "join-first", "no join came within 15 seconds")),
            },
            () = state.stopped() => Err(Ending::stopping()),
        }
    }

    /// Queues a message; fails when the client has not read for too long.
    pub fn send(&self, text: String) -> Result<(), Ending> {
        self.outbox.push(text)?;
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Says goodbye: the close frame, then everything the client still sends is read and dropped until it closes too.
    /// Unread bytes would make the kernel reset the connection, and the code would be lost on its way.
    pub async fn close(mut self, ending: Ending) {
        tracing::debug!(code = ending.code, reason = ending.reason, "websocket closes");
        let reason = ending.reason.get(..REASON_MAX).unwrap_or(&ending.reason).to_owned();
        self.outbox.push_frame(Message::Close(Some(CloseFrame { code: ending.code.into(), reason: reason.into() })));
        drop(self.outbox);
        let goodbye = async {
            let _ = (&mut self.writer).await;
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        if timeout(GOODBYE_WAIT, goodbye).await.is_err() {
            self.writer.abort();
        }
    }

    fn take(&mut self, message: Message) -> Option<Incoming> {
        self.heard = clock::now();
        let text = match message {
            Message::Text(text) => text,
            // Some clients send JSON in binary frames; what is no text fails as JSON.
            Message::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
            Message::Close(Some(frame)) if u16::from(frame.code) == GOING_AWAY => {
                return Some(Incoming::End(Ending::quiet(GOING_AWAY, "bye")));
            }
            Message::Close(_) => return Some(Incoming::End(Ending::normal())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                return (!self.bucket.take(self.heard)).then(too_many);
            }
        };
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        if !self.bucket.take(self.heard) {
            return Some(too_many());
        }
        if text.len() > self.message_max {
            return Some(Incoming::End(too_big(self.message_max)));
        }
        Some(Incoming::Text(text))
    }
}

fn pings(from: Instant, every: Duration) -> Interval {
    let mut pings = interval_at(tokio::time::Instant::from_std(from) + every, every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

async fn write(
    mut sink: SplitSink<Stream, Message>,
    mut outgoing: mpsc::UnboundedReceiver<Message>,
    waiting: Arc<Waiting>,
) {
    while let Some(message) = outgoing.recv().await {
        let sent = match message {
            Message::Text(text) => {
                let length = text.len();
                let sent = send_text(&mut sink, text).await;
                waiting.sent(length);
                sent
            }
            frame => sink.send(frame).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn too_many() -> Incoming {
    let sentence = "too many messages; send fewer per second";
    Incoming::End(Ending::error(1008, "too many messages", "rate-limited", sentence))
}

fn too_big(max: usize) -> Ending {
    let sentence = format!("the message is too big; at most {max} bytes are allowed");
    Ending::error(1009, "message too big", "too-big", sentence)
}

fn broken(error: &Error) -> Ending {
    if matches!(error, Error::Capacity(_)) { too_big(FRAME_MAX) } else { Ending::quiet(1002, "protocol error") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_reads_nothing_is_given_up_at_the_bound() {
        let (outbox, outgoing) = Outbox::new();
        let fits = (0..10_000).take_while(|_| outbox.push("x".into()).is_ok()).count();
        assert_eq!(fits, QUEUE_MESSAGES_MAX);
        assert_eq!(outgoing.len(), QUEUE_MESSAGES_MAX, "what did not fit was not kept");
        let (outbox, _outgoing) = Outbox::new();
        let fits = (0..100).take_while(|_| outbox.push("x".repeat(1 << 20)).is_ok()).count();
        assert_eq!(fits, QUEUE_BYTES_MAX >> 20);
    }

    #[test]
    fn what_was_sent_makes_room() {
        let (outbox, mut outgoing) = Outbox::new();
        for _ in 0..10 * QUEUE_MESSAGES_MAX {
            assert_eq!(outbox.push("hello".into()), Ok(()));
            assert!(outgoing.try_recv().is_ok());
            outbox.waiting.sent(5);
        }
    }

    #[test]
    fn evicted_and_removed_clients_are_told_not_to_come_back() {
        assert_eq!(Ending::of(CloseReason::Evicted).code, 1000);
        assert_eq!(Ending::of(CloseReason::Kicked).code, 1000);
        assert_eq!(Ending::of(CloseReason::MediaFailed).code, 1011);
        assert_eq!(Ending::of(CloseReason::ServerStopping).code, 1012);
    }
}
