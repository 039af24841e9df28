//! One publisher: a peer that sends numbered packets in bursts, at a steady rate.
//!
//! Promises: a burst is one VP8 frame with its marker; keyframes come at the given distance and when the server asks.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Result;
use tramline::base::ids::Ssrc;
use tramline::runtime::clock;
use tramline::wire::rtcp::{RtcpView, SenderInfo, packets, write_sender_report};
use tramline::wire::rtp::{FIXED_HEADER_BYTES, Fixed, write_header};

use crate::course::Course;
use crate::net::{Batch, Reader};
use crate::peer::{Heard, Peer};
use crate::sdp::VIDEO_PT;
use crate::stamp::{self, Frame, Stamp};

/// Longest sleep, so that answers of the server are read in time.
const NAP_MAX: Duration = Duration::from_millis(5);
/// A publisher this late does not catch up: it would send one huge burst.
const LATE_MAX: Duration = Duration::from_millis(100);
/// As browsers do for video.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Seconds from 1900 to 1970 (RFC 3550 §4).
const NTP_OFFSET_S: u64 = 2_208_988_800;
/// Room behind a packet for any suite's tag.
const TAG_ROOM: usize = 16;

/// What is sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Packets per second.
    pub rate: u32,
    /// Packets sent together.
    pub burst: u32,
    /// RTP header and payload in bytes, without the SRTP tag.
    pub packet_bytes: usize,
    /// Packets from one keyframe to the next.
    pub keyframe_every: u64,
}

impl Flow {
    /// From one burst to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.burst) / f64::from(self.rate.max(1)))
    }

    /// Writes packet `number` of the stream in clear; the sequence number is the number's low half. Gives its length.
    pub fn write(&self, out: &mut [u8], ssrc: Ssrc, number: u64, is_key: bool, sent_ns: u64) -> Option<usize> {
        let burst = u64::from(self.burst);
        let frame = Frame { number: number / burst, is_start: number.is_multiple_of(burst), is_key };
        let frames_per_s = (f64::from(self.rate) / f64::from(self.burst)).max(1.0);
        let fixed = Fixed {
            marker: (number + 1).is_multiple_of(burst),
            pt: VIDEO_PT,
            seq: number as u16,
            timestamp: (frame.number as f64 * 90_000.0 / frames_per_s) as u64 as u32,
            ssrc,
        };
        let header_len = write_header(out, &fixed, &[], None)?;
        stamp::write(out.get_mut(header_len..self.packet_bytes)?, Stamp { number, sent_ns }, frame)?;
        Some(self.packet_bytes)
    }
}

/// The publisher's thread as others see it.
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_connected: AtomicBool,
    suite: Mutex<Option<&'static str>>,
    failure: Mutex<Option<String>>,
    keyframe_requests: AtomicU64,
    /// Packets the kernel did not take.
    refused: AtomicU64,
    /// Bursts left out because the thread was too late.
    skipped: AtomicU64,
}

impl Publisher {
    /// Starts the thread; media begins once the peer is connected.
    pub fn start(course: Arc<Course>, flow: Flow, ssrc: Ssrc, socket: UdpSocket, peer: Peer) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let now = clock::now();
        let stage = Stage {
            course,
            shared: Arc::clone(&shared),
            flow,
            ssrc,
            socket,
            peer,
            number: 0,
            wants_key: true,
            burst_at: now,
            report_at: now,
            batch: Batch::new(flow.burst as usize * (flow.packet_bytes + TAG_ROOM)),
        };
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(|| stage.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether media can flow.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected.load(Ordering::Acquire)
    }

    /// The suite agreed on, once connected.
    pub fn suite(&self) -> Option<&'static str> {
        *self.shared.suite.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ended the peer.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// PLI and FIR that came.
    pub fn keyframe_requests(&self) -> u64 {
        self.shared.keyframe_requests.load(Ordering::Relaxed)
    }

    /// Packets that were due and did not leave: the kernel refused them, or the thread came too late.
    pub fn unsent(&self) -> (u64, u64) {
        (self.shared.refused.load(Ordering::Relaxed), self.shared.skipped.load(Ordering::Relaxed))
    }

    /// Waits for the thread; the course must have been stopped.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Stage {
    course: Arc<Course>,
    shared: Arc<Shared>,
    flow: Flow,
    ssrc: Ssrc,
    socket: UdpSocket,
    peer: Peer,
    number: u64,
    wants_key: bool,
    burst_at: Instant,
    report_at: Instant,
    batch: Batch,
}

impl Stage {
    fn run(mut self) {
        let mut reader = Reader::new(false);
        while !self.course.is_stopping() {
            let now = clock::now();
            self.listen(now, &mut reader);
            let Self { peer, socket, .. } = &mut self;
            peer.handle_timeout(now, &mut |out| send(socket, out));
            if let Some(suite) = self.peer.suite() {
                if !self.shared.is_connected.load(Ordering::Relaxed) {
                    *self.shared.suite.lock().unwrap_or_else(PoisonError::into_inner) = Some(suite.name());
                    self.shared.is_connected.store(true, Ordering::Release);
                    self.burst_at = now;
                }
                self.play(now);
            } else {
                self.burst_at = now + NAP_MAX;
            }
            if let Some(failure) = self.peer.failure() {
                *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_owned());
            }
            let nap = self.burst_at.saturating_duration_since(clock::now()).min(NAP_MAX);
            if !nap.is_zero() {
                std::thread::sleep(nap);
            }
        }
    }

    fn listen(&mut self, now: Instant, reader: &mut Reader) {
        let Self { socket, peer, shared, wants_key, .. } = self;
        reader.read(socket, |_, bytes| {
            let Heard::Rtcp(len) = peer.handle_datagram(now, bytes, &mut |out| send(socket, out)) else { return };
            for packet in packets(bytes.get(..len).unwrap_or_default()) {
                if let Ok(RtcpView::Pli(_) | RtcpView::Fir(_)) = packet {
                    *wants_key = true;
                    shared.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    fn play(&mut self, now: Instant) {
        if now < self.burst_at {
            return;
        }
        if now >= self.burst_at + LATE_MAX {
            let interval = self.flow.interval().max(Duration::from_nanos(1));
            let skipped = (now - self.burst_at).as_nanos() / interval.as_nanos();
            self.shared.skipped.fetch_add(skipped as u64 * u64::from(self.flow.burst), Ordering::Relaxed);
            self.burst_at = now;
        }
        self.burst_at += self.flow.interval();
        self.send_burst();
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            self.report(now);
        }
    }

    fn send_burst(&mut self) {
        let Self { peer, batch, flow, ssrc, course, .. } = self;
        let Some(srtp) = peer.srtp_sender() else { return };
        let is_key = std::mem::take(&mut self.wants_key) || self.number % flow.keyframe_every < u64::from(flow.burst);
        let sent_ns = course.ns(clock::now());
        for number in self.number..self.number + u64::from(flow.burst) {
            batch.push(None, 1, flow.packet_bytes + TAG_ROOM, |out| {
                let len = flow.write(out, *ssrc, number, is_key, sent_ns)?;
                srtp.protect_rtp(out, FIXED_HEADER_BYTES, len, number).ok()
            });
        }
        batch.flush(&self.socket);
        self.shared.refused.store(batch.refused, Ordering::Relaxed);
        self.number += u64::from(flow.burst);
        course.set_sent(self.number);
    }

    fn report(&mut self, now: Instant) {
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ntp = ((wall.as_secs() + NTP_OFFSET_S) << 32) | ((u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000);
        let octets = self.number.wrapping_mul((self.flow.packet_bytes - FIXED_HEADER_BYTES) as u64);
        let info = SenderInfo {
            ssrc: self.ssrc,
            ntp,
            rtp_ts: (self.course.ns(now) / 100_000 * 9) as u32,
            packets: self.number as u32,
            octets: octets as u32,
        };
        let mut packet = [0; 128];
        let Self { peer, socket, .. } = self;
        if let Some(len) = write_sender_report(&mut packet, &info, &[]) {
            peer.send_rtcp(&mut packet, len, &mut |out| send(socket, out));
        }
    }
}

fn send(socket: &UdpSocket, bytes: &[u8]) {
    // What the kernel does not take is lost on the way, as it might be anyway; timers send it again.
    let _ = socket.send(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline::wire::rtp::RtpView;

    #[test]
    fn a_burst_is_one_frame_with_a_marker_on_its_last_packet() {
        let flow = Flow { rate: 1000, burst: 4, packet_bytes: 1200, keyframe_every: 100 };
        let mut out = [0; 1300];
        for number in 70_000..70_008 {
            assert_eq!(flow.write(&mut out, Ssrc(5), number, false, 9), Some(1200));
            let view = RtpView::parse(&out[..1200]).unwrap();
            assert_eq!(view.marker(), number % 4 == 3);
            assert_eq!(view.seq(), number as u16);
            // 250 frames a second are 360 ticks apart.
            assert_eq!(view.timestamp(), (number / 4 * 360) as u32);
            assert_eq!(stamp::read(view.payload()), Some(Stamp { number, sent_ns: 9 }));
        }
    }

    #[test]
    fn bursts_keep_the_rate() {
        let flow = Flow { rate: 1000, burst: 10, packet_bytes: 1200, keyframe_every: 100 };
        assert_eq!(flow.interval(), Duration::from_millis(10));
    }
}
