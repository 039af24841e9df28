//! One published track: frames in time, packets in clear, numbers.
//!
//! Promises: a frame's packets are sent back to back, the last one marked; keyframes come by the flow's plan and when
//! the server asks. Forbids: sockets and keys: it hands packets to whoever protects them.

use std::time::{Duration, Instant, UNIX_EPOCH};

use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::SrtpSender;
use tramline::runtime::clock;
use tramline::wire::rtcp::{SenderInfo, write_sender_report};
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::ExtWriter;

use crate::course::Course;
use crate::flow::Flow;
use crate::net::Batch;
use crate::sdp::Agreed;
use crate::stamp::{self, Frame, Stamp};

/// A source this late does not catch up: it would send one huge burst.
const LATE_MAX: Duration = Duration::from_millis(100);
/// As browsers do for video.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Seconds from 1900 to 1970 (RFC 3550 §4).
const NTP_OFFSET_S: u64 = 2_208_988_800;
/// Room behind a packet for any suite's tag and before it for the header extension.
pub const OVERHEAD_ROOM: usize = 16 + 8;
/// A source at rest looks this often whether it is to go on.
const REST: Duration = Duration::from_millis(20);

/// What a publisher sends on one m-line.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    /// Its traffic.
    pub flow: Flow,
    /// Tells the run's sources apart.
    pub id: u32,
    /// Where in its interval it sends, in 0..1 from the run's epoch; `None`: anywhere, as people who came by themselves.
    pub phase: Option<f64>,
}

/// A track that is being sent.
#[derive(Debug)]
pub struct Source {
    /// Of its packets.
    pub ssrc: Ssrc,
    /// When the next frame is due.
    pub due: Instant,
    track: Track,
    agreed: Agreed,
    number: u64,
    frame: u64,
    octets: u64,
    wants_key: bool,
    report_at: Instant,
    sizes: Vec<usize>,
}

/// Writes one packet in clear; the sequence number is the number's low half. Gives header length and whole length.
pub fn write_packet(
    out: &mut [u8],
    fixed: &Fixed,
    ext: Option<(u16, &[u8])>,
    (stamp, frame): (Stamp, Option<Frame>),
    payload_len: usize,
) -> Option<(usize, usize)> {
    let header_len = write_header(out, fixed, &[], ext)?;
    stamp::write(out.get_mut(header_len..header_len + payload_len)?, stamp, frame)?;
    Some((header_len, header_len + payload_len))
}

impl Source {
    /// A source that begins when [`Source::start`] says so.
    pub fn new(now: Instant, track: Track, ssrc: Ssrc, agreed: Agreed) -> Self {
        Self {
            ssrc,
            due: now,
            track,
            agreed,
            number: 0,
            frame: 0,
            octets: 0,
            wants_key: true,
            report_at: now,
            sizes: Vec::new(),
        }
    }

    /// Media may flow: the first frame falls into the source's place in its interval.
    pub fn start(&mut self, now: Instant, course: &Course) {
        let interval = self.track.flow.interval();
        self.due = match self.track.phase {
            None => now + interval.mul_f64(rand::random()),
            Some(phase) => {
                let since = now.saturating_duration_since(course.epoch()).as_secs_f64();
                let passed = (since / interval.as_secs_f64() - phase).ceil().max(0.0);
                course.epoch() + interval.mul_f64(passed + phase)
            }
        };
        self.report_at = self.due + REPORT_EVERY.mul_f64(rand::random());
    }

    /// The server asks for a keyframe: the next frame is one.
    pub fn ask_for_key(&mut self) {
        self.wants_key = true;
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.track.flow.kind()
    }

    /// Puts the frame that is due into the batch, protected. Gives when it was sent, in nanoseconds of the course, how
    /// many packets it has, and how many were left out because nobody came in time.
    pub fn play(
        &mut self,
        now: Instant,
        course: &Course,
        srtp: &SrtpSender,
        twcc_seq: &mut u16,
        batch: &mut Batch,
    ) -> (u64, u64, u64) {
        let is_steady = matches!(self.track.flow, Flow::Steady(_));
        let pace = if is_steady { course.pace() } else { 1.0 };
        // The first frame is always sent: without it there is no track.
        if pace <= 0.0 && self.frame > 0 {
            self.due = now + REST;
            return (course.ns(now), 0, 0);
        }
        let pace = if pace > 0.0 { pace } else { 1.0 };
        let interval = self.track.flow.interval().div_f64(pace).max(Duration::from_nanos(1));
        let mut skipped = 0;
        if now >= self.due + LATE_MAX {
            let frames = (now - self.due).as_nanos() / interval.as_nanos();
            skipped = frames as u64 * self.sizes.len().max(1) as u64;
            self.due = now;
        }
        self.due += interval;
        let sent_ns = course.ns(clock::now());
        let packets = self.push_frame(sent_ns, srtp, twcc_seq, batch);
        (sent_ns, packets, skipped)
    }

    /// A sender report, when one is due. Gives its length.
    pub fn report(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if now < self.report_at || self.number == 0 {
            return None;
        }
        self.report_at = now + REPORT_EVERY;
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ntp = ((wall.as_secs() + NTP_OFFSET_S) << 32) | ((u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000);
        let info = SenderInfo {
            ssrc: self.ssrc,
            ntp,
            rtp_ts: self.timestamp(),
            packets: self.number as u32,
            octets: self.octets as u32,
        };
        write_sender_report(out, &info, &[])
    }

    fn push_frame(&mut self, sent_ns: u64, srtp: &SrtpSender, twcc_seq: &mut u16, batch: &mut Batch) -> u64 {
        let is_video = self.kind() == MediaKind::Video;
        let is_key = is_video && (std::mem::take(&mut self.wants_key) || self.track.flow.is_key(self.frame));
        let is_bare = self.track.flow.is_bare();
        let mut sizes = std::mem::take(&mut self.sizes);
        self.track.flow.sizes(is_key, &mut rand::random, &mut sizes);
        for (at, &size) in sizes.iter().enumerate() {
            let number = self.number;
            let fixed = Fixed {
                // Video: the frame ends here (RFC 7741 §4.1). Audio: a talkspurt begins (RFC 3551 §4.1), and ours never ends.
                marker: if is_video { at + 1 == sizes.len() } else { number == 0 },
                pt: self.agreed.pt,
                seq: number as u16,
                timestamp: self.timestamp(),
                ssrc: self.ssrc,
            };
            let stamp = Stamp { source: self.track.id, number, sent_ns };
            let frame = is_video.then_some(Frame { number: self.frame, is_start: at == 0, is_key, is_bare });
            let mut block = [0; 4];
            let ext = self.agreed.twcc_id.map(|id| {
                let mut writer = ExtWriter::one_byte(&mut block);
                writer.push(id, &twcc_seq.to_be_bytes());
                *twcc_seq = twcc_seq.wrapping_add(1);
                writer.finish().0
            });
            let ext = ext.map(|profile| (profile, &block[..]));
            batch.push(None, 1, size + OVERHEAD_ROOM, |out| {
                let payload_len = size - tramline::wire::rtp::FIXED_HEADER_BYTES;
                let (header_len, len) = write_packet(out, &fixed, ext, (stamp, frame), payload_len)?;
                srtp.protect_rtp(out, header_len, len, number).ok()
            });
            self.number += 1;
            self.octets += size as u64;
        }
        self.frame += 1;
        let packets = sizes.len() as u64;
        self.sizes = sizes;
        packets
    }

    fn timestamp(&self) -> u32 {
        (self.frame as f64 * self.track.flow.ticks()) as u64 as u32
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};

    use tramline::crypto::srtp::{SrtpReceiver, SrtpSuite};
    use tramline::wire::rtp::RtpView;
    use tramline::wire::rtp_ext;

    use super::*;
    use crate::flow::{Camera, Steady, Voice};
    use crate::net::{self, Reader};

    struct Bench {
        course: Course,
        now: Instant,
        from: UdpSocket,
        to: UdpSocket,
        sender: SrtpSender,
        receiver: SrtpReceiver,
        twcc_seq: u16,
    }

    impl Bench {
        fn new() -> Self {
            let local: IpAddr = [127, 0, 0, 1].into();
            let (from, to) = (net::socket(local, false).unwrap(), net::socket(local, false).unwrap());
            from.connect(to.local_addr().unwrap()).unwrap();
            let (suite, key, salt) = (SrtpSuite::AeadAes128Gcm, [1; 16], [2; 12]);
            let now = clock::now();
            Self {
                course: Course::new(now),
                now,
                from,
                to,
                sender: SrtpSender::new(suite, &key, &salt).unwrap(),
                receiver: SrtpReceiver::new(suite, &key, &salt).unwrap(),
                twcc_seq: 65_535,
            }
        }

        /// Plays what is due and gives the packets in clear.
        fn play(&mut self, source: &mut Source) -> Vec<Vec<u8>> {
            let mut batch = Batch::new(1 << 16);
            self.now = source.due;
            source.play(self.now, &self.course, &self.sender, &mut self.twcc_seq, &mut batch);
            batch.flush(&self.from);
            let mut packets = Vec::new();
            Reader::new(false).read(&self.to, |_, bytes| {
                let plain = self.receiver.unprotect_rtp(bytes).unwrap();
                packets.push(bytes[..plain.plain_len].to_vec());
            });
            packets
        }
    }

    fn source(flow: Flow, twcc_id: Option<u8>) -> Source {
        let track = Track { flow, id: 3, phase: Some(0.0) };
        Source::new(clock::now(), track, Ssrc(5), Agreed { kind: flow.kind(), pt: 120, rtx_pt: None, twcc_id })
    }

    #[test]
    fn a_burst_is_one_frame_with_a_marker_on_its_last_packet() {
        let flow =
            Flow::Steady(Steady { rate: 1000, burst: 4, packet_bytes: 1200, keyframe_every: 100, bare_vp8: false });
        let (mut bench, mut source) = (Bench::new(), source(flow, None));
        for frame in 0..3 {
            let packets = bench.play(&mut source);
            assert_eq!(packets.len(), 4);
            for (at, packet) in packets.iter().enumerate() {
                let view = RtpView::parse(packet).unwrap();
                assert_eq!((packet.len(), view.marker(), view.pt()), (1200, at == 3, 120));
                // 250 frames a second are 360 ticks apart.
                assert_eq!((view.seq(), view.timestamp()), (frame * 4 + at as u16, u32::from(frame) * 360));
                let stamp = stamp::read(view.payload()).unwrap();
                assert_eq!((stamp.source, stamp.number), (3, u64::from(view.seq())));
                assert_eq!(tramline::wire::payload::vp8::marks(view.payload()).begins(), at == 0 && frame == 0);
            }
        }
        source.ask_for_key();
        let packets = bench.play(&mut source);
        let view = RtpView::parse(&packets[0]).unwrap();
        assert!(tramline::wire::payload::vp8::marks(view.payload()).begins());
    }

    #[test]
    fn transport_wide_numbers_count_all_sources_of_a_peer() {
        let mut bench = Bench::new();
        let mut camera = source(Flow::Camera(Camera { video_kbps: 1000, fps: 30, keyframe_seconds: 10 }), Some(5));
        let mut voice =
            source(Flow::Voice(Voice { audio_rate: 50, audio_bytes_min: 100, audio_bytes_max: 100 }), Some(5));
        voice.ssrc = Ssrc(6);
        let mut numbers = Vec::new();
        for _ in 0..4 {
            for packet in bench.play(&mut camera).into_iter().chain(bench.play(&mut voice)) {
                let view = RtpView::parse(&packet).unwrap();
                let (profile, block) = view.ext().unwrap();
                let value = rtp_ext::find(profile, block, 5).unwrap();
                numbers.push(rtp_ext::parse_transport_cc(value).unwrap());
                assert!(packet.len() <= 1208 && stamp::read(view.payload()).is_some());
            }
        }
        let expected: Vec<u16> = (0..numbers.len() as u16).map(|at| 65_535_u16.wrapping_add(at)).collect();
        assert_eq!(numbers, expected);
    }

    #[test]
    fn a_late_source_leaves_out_what_it_missed_and_the_pace_counts() {
        let flow =
            Flow::Steady(Steady { rate: 1000, burst: 10, packet_bytes: 200, keyframe_every: 100, bare_vp8: false });
        let (mut bench, mut source) = (Bench::new(), source(flow, None));
        bench.play(&mut source);
        let due = source.due;
        bench.course.set_pace(2.0);
        bench.play(&mut source);
        assert_eq!(source.due, due + Duration::from_millis(5));
        bench.course.set_pace(0.0);
        assert!(bench.play(&mut source).is_empty(), "at rest");
        bench.course.set_pace(2.0);
        let late = source.due + Duration::from_millis(200);
        let mut batch = Batch::new(1 << 14);
        let (_, packets, skipped) = source.play(late, &bench.course, &bench.sender, &mut 0, &mut batch);
        assert_eq!((packets, skipped, source.due), (10, 400, late + Duration::from_millis(5)));
    }

    #[test]
    fn a_phase_is_a_place_in_the_interval() {
        let flow = Flow::Voice(Voice { audio_rate: 50, audio_bytes_min: 100, audio_bytes_max: 100 });
        let course = Course::new(clock::now());
        let mut source = source(flow, None);
        source.track.phase = Some(0.25);
        source.start(course.epoch() + Duration::from_millis(41), &course);
        assert_eq!(source.due, course.epoch() + Duration::from_millis(45));
        source.start(course.epoch() + Duration::from_millis(46), &course);
        assert_eq!(source.due, course.epoch() + Duration::from_millis(65));
    }
}
