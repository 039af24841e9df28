//! One published track: frames in time, packets in clear, numbers.
//!
//! Promises: a frame's packets are sent back to back, the last one marked; keyframes come by the flow's plan and when
//! the server asks; what it asks for again within a second is sent again, by RTX where that was agreed (RFC 4588), else
//! the same datagram. Forbids: sockets and keys: it hands packets to whoever protects them.

use std::time::{Duration, Instant, UNIX_EPOCH};

use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::SrtpSender;
use tramline::runtime::clock;
use tramline::wire::rtcp::{SenderInfo, write_sender_report};
use tramline::wire::rtp::{FIXED_HEADER_BYTES, Fixed, RtpView, write_header};
use tramline::wire::rtp_ext::ExtWriter;

use crate::course::Course;
use crate::flow::Flow;
use crate::net::Batch;
use crate::sdp::{Agreed, repair_ssrc};
use crate::sent::Sent;
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
    /// Share of its packets that are lost on their way, in 0..1.
    loss: f64,
    /// Video only: nobody asks for sound again.
    sent: Option<Sent>,
    /// Packets sent again by RTX, which has numbers of its own.
    repairs: u64,
}

/// What became of a frame that was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// When it was sent, in nanoseconds of the course.
    pub sent_ns: u64,
    /// Its packets.
    pub packets: u64,
    /// How many of them are lost on their way: they are not in the batch.
    pub lost: u64,
    /// Packets left out before it because nobody came in time.
    pub skipped: u64,
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
    /// Of its packets the share `loss`, in 0..1, does not get through.
    pub fn new(now: Instant, track: Track, ssrc: Ssrc, agreed: Agreed, loss: f64) -> Self {
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
            loss,
            sent: (agreed.kind == MediaKind::Video).then(Sent::default),
            repairs: 0,
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

    /// Puts the frame that is due into the batch, protected.
    pub fn play(
        &mut self,
        now: Instant,
        course: &Course,
        srtp: &SrtpSender,
        twcc_seq: &mut u16,
        batch: &mut Batch,
    ) -> Played {
        let is_steady = matches!(self.track.flow, Flow::Steady(_));
        let pace = if is_steady { course.pace() } else { 1.0 };
        // The first frame is always sent: without it there is no track.
        if pace <= 0.0 && self.frame > 0 {
            self.due = now + REST;
            return Played { sent_ns: course.ns(now), ..Played::default() };
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
        let (packets, lost) = self.push_frame(now, sent_ns, srtp, twcc_seq, batch);
        Played { sent_ns, packets, lost, skipped }
    }

    /// Writes the packet that went by this sequence number once more, protected. Gives its length; `None` when it is no
    /// longer there.
    pub fn repair(&mut self, seq: u16, srtp: &SrtpSender, twcc_seq: &mut u16, out: &mut [u8]) -> Option<usize> {
        let kept = self.sent.as_ref()?.find(seq)?;
        let Some(pt) = self.agreed.rtx_pt else {
            // The same bytes under the same index: the very datagram of the first time.
            out.get_mut(..kept.plain.len())?.copy_from_slice(&kept.plain);
            return srtp.protect_rtp(out, kept.header_len, kept.plain.len(), kept.number).ok();
        };
        let view = RtpView::parse(&kept.plain).ok()?;
        let (index, ssrc) = (self.repairs, repair_ssrc(self.ssrc));
        let fixed = Fixed { marker: view.marker(), pt, seq: index as u16, timestamp: view.timestamp(), ssrc };
        let mut block = [0; 4];
        let profile = write_twcc(&mut block, self.agreed.twcc_id, twcc_seq);
        let header_len = write_header(out, &fixed, &[], profile.map(|profile| (profile, &block[..])))?;
        // RFC 4588 §4: the original sequence number, then the original payload.
        let (osn, payload) = out.get_mut(header_len..)?.split_first_chunk_mut::<2>()?;
        *osn = seq.to_be_bytes();
        payload.get_mut(..kept.payload().len())?.copy_from_slice(kept.payload());
        let len = header_len + osn.len() + kept.payload().len();
        self.repairs += 1;
        srtp.protect_rtp(out, header_len, len, index).ok()
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

    /// Gives how many packets the frame has, and how many of them are lost.
    fn push_frame(
        &mut self,
        now: Instant,
        sent_ns: u64,
        srtp: &SrtpSender,
        twcc_seq: &mut u16,
        batch: &mut Batch,
    ) -> (u64, u64) {
        let is_video = self.kind() == MediaKind::Video;
        let is_key = is_video && (std::mem::take(&mut self.wants_key) || self.track.flow.is_key(self.frame));
        let is_bare = self.track.flow.is_bare();
        let mut sizes = std::mem::take(&mut self.sizes);
        self.track.flow.sizes(is_key, &mut rand::random, &mut sizes);
        let mut lost = 0;
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
            let profile = write_twcc(&mut block, self.agreed.twcc_id, twcc_seq);
            let ext = profile.map(|profile| (profile, &block[..]));
            let is_lost = self.loss > 0.0 && rand::random::<f64>() < self.loss;
            lost += u64::from(is_lost);
            let sent = &mut self.sent;
            batch.push(None, 1, size + OVERHEAD_ROOM, |out| {
                let payload_len = size - FIXED_HEADER_BYTES;
                let (header_len, len) = write_packet(out, &fixed, ext, (stamp, frame), payload_len)?;
                if let Some(sent) = sent {
                    sent.keep(now, number, header_len, out.get(..len)?);
                }
                if is_lost { None } else { srtp.protect_rtp(out, header_len, len, number).ok() }
            });
            self.number += 1;
            self.octets += size as u64;
        }
        self.frame += 1;
        let packets = sizes.len() as u64;
        self.sizes = sizes;
        (packets, lost)
    }

    fn timestamp(&self) -> u32 {
        (self.frame as f64 * self.track.flow.ticks()) as u64 as u32
    }
}

/// Puts the next transport-wide number into the block, where that was agreed; gives the block's profile.
fn write_twcc(block: &mut [u8; 4], id: Option<u8>, twcc_seq: &mut u16) -> Option<u16> {
    let mut writer = ExtWriter::one_byte(block);
    writer.push(id?, &twcc_seq.to_be_bytes());
    *twcc_seq = twcc_seq.wrapping_add(1);
    Some(writer.finish().0)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};

    use tramline::crypto::srtp::{SrtpReceiver, SrtpSuite};
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
        Source::new(clock::now(), track, Ssrc(5), Agreed { kind: flow.kind(), pt: 120, rtx_pt: None, twcc_id }, 0.0)
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
        let played = source.play(late, &bench.course, &bench.sender, &mut 0, &mut batch);
        assert_eq!((played.packets, played.skipped, source.due), (10, 400, late + Duration::from_millis(5)));
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

    #[test]
    fn what_got_lost_is_sent_again_by_rtx_or_as_the_same_datagram() {
        let flow =
            Flow::Steady(Steady { rate: 100, burst: 2, packet_bytes: 200, keyframe_every: 100, bare_vp8: false });
        for rtx_pt in [None, Some(121)] {
            let mut bench = Bench::new();
            let agreed = Agreed { kind: MediaKind::Video, pt: 120, rtx_pt, twcc_id: Some(5) };
            let track = Track { flow, id: 3, phase: Some(0.0) };
            let mut source = Source::new(clock::now(), track, Ssrc(5), agreed, 1.0);
            assert!(bench.play(&mut source).is_empty(), "everything is lost");
            assert_eq!(bench.twcc_seq, 1, "and has its number");
            let mut out = [0; 400];
            for (times, seq) in [(0_u16, 1_u16), (1, 0), (2, 0)] {
                let len = source.repair(seq, &bench.sender, &mut bench.twcc_seq, &mut out).unwrap();
                let unprotected = bench.receiver.unprotect_rtp(&mut out[..len]);
                if rtx_pt.is_none() && times == 2 {
                    assert!(unprotected.is_err(), "the same datagram is a replay");
                    continue;
                }
                let view = RtpView::parse(&out[..unprotected.unwrap().plain_len]).unwrap();
                let (number, payload) = match rtx_pt {
                    None => ((120, Ssrc(5), seq), view.payload()),
                    Some(pt) => {
                        let (osn, payload) = view.payload().split_first_chunk::<2>().unwrap();
                        assert_eq!(u16::from_be_bytes(*osn), seq);
                        ((pt, Ssrc(6), times), payload)
                    }
                };
                assert_eq!((view.pt(), view.ssrc(), view.seq()), number);
                assert_eq!(stamp::read(payload).unwrap().number, u64::from(seq));
                assert_eq!((view.marker(), view.timestamp()), (seq == 1, 0));
            }
            assert!(source.repair(2, &bench.sender, &mut bench.twcc_seq, &mut out).is_none());
        }
    }
}
