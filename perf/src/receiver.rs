//! The receiving half of a peer: checks every packet, and gives the feedback a real client gives.
//!
//! Owns: its streams, the transport-wide register, when it reports.
//! Promises: what it pretends to lose is thrown away before anything has looked at it, and asked for by NACK.

use std::time::{Duration, Instant};

use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::base::seq::extend_u16;
use tramline::crypto::srtp::Unprotected;
use tramline::proto::nack::NackRegister;
use tramline::proto::twcc::TwccRegister;
use tramline::wire::rtcp::{REPORT_BLOCKS_MAX, ReportBlock, SenderInfo, write_nack, write_pli, write_receiver_report};
use tramline::wire::rtp::RtpView;
use tramline::wire::rtp_ext;

use crate::course::Course;
use crate::net::Mark;
use crate::sdp::Agreed;
use crate::stamp;
use crate::stream::Stream;
use crate::tally::Tally;

/// RFC 3550 §6.2 would have 5 s and more in large sessions; browsers report each second.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Streams one receiver follows: more than a meeting of a hundred; others are counted as damaged.
const STREAMS_MAX: usize = 256;
/// Peers on one machine: the register's own lower bound decides when to ask again.
const ROUND_TRIP: Duration = Duration::from_millis(2);
/// Sequence numbers in one NACK.
const NACKS_MAX: usize = 64;
/// The longest RTCP packet we write.
const RTCP_BYTES: usize = 1200;

/// What a receiver is told at its birth.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    /// How many streams shall come; with the last of them it is served.
    pub streams: usize,
    /// Agreed formats of the receiving m-lines.
    pub agreed: Vec<Agreed>,
    /// Retransmission sources with the source they repair.
    pub repairs: Vec<(Ssrc, Ssrc)>,
    /// Share of packets to throw away, in 0..1.
    pub loss: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    hearing: Hearing,
    ssrc: Ssrc,
    streams: Vec<Stream>,
    twcc: Option<(u8, TwccRegister)>,
    report_at: Instant,
}

impl Receiver {
    /// Nothing came yet.
    pub fn new(now: Instant, hearing: Hearing) -> Self {
        let twcc_id = hearing.agreed.iter().find_map(|agreed| agreed.twcc_id);
        Self {
            hearing,
            ssrc: Ssrc(rand::random()),
            streams: Vec::new(),
            twcc: twcc_id.map(|id| (id, TwccRegister::new())),
            // Spread over the second, as those of people who came one by one are.
            report_at: now + REPORT_EVERY.mul_f64(rand::random()),
        }
    }

    /// All streams that shall come have come.
    pub fn is_served(&self) -> bool {
        self.streams.len() >= self.hearing.streams.max(1)
    }

    /// Whether a packet that is there is to be lost.
    pub fn loses(&self) -> bool {
        self.hearing.loss > 0.0 && rand::random::<f64>() < self.hearing.loss
    }

    /// Takes a packet in clear. Gives the source to ask for a keyframe, if it is a new one.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        (mark, packet, bytes): (Mark, Unprotected, &[u8]),
        course: &Course,
        tally: &mut Tally,
    ) -> Option<Ssrc> {
        let Some(view) = bytes.get(..packet.plain_len).and_then(|plain| RtpView::parse(plain).ok()) else {
            tally.counts.damaged += 1;
            return None;
        };
        self.note_twcc(now, &view);
        // Padding alone carries nothing to check.
        if view.payload().is_empty() {
            return None;
        }
        let before = self.streams.len();
        let Some((at, index, payload)) = self.place(&view, packet.index) else {
            tally.counts.damaged += 1;
            return None;
        };
        let is_new = self.streams.len() > before;
        let (Some(stream), Some(stamp)) = (self.streams.get_mut(at), stamp::read(payload)) else {
            tally.counts.damaged += 1;
            return None;
        };
        let mut is_repair = false;
        if let Some(missing) = &mut stream.missing {
            let before = missing.counters().recovered;
            missing.handle_packet(now, index);
            is_repair = missing.counters().recovered > before;
        }
        match course.slice(stamp.sent_ns) {
            Some(slice) => {
                tally.counts.messages += u64::from(mark.begins_message);
                tally.counts.datagrams += 1;
                let came_ns = mark.arrived_ns.map_or_else(|| course.ns(now), |ns| course.ns_of_wall(ns));
                tally.count(slice, stream, (index, stamp), is_repair, came_ns);
            }
            None => {
                stream.note(index, stamp);
            }
        }
        (is_new && stream.kind == MediaKind::Video).then_some(stream.ssrc)
    }

    /// The server's report on what it sends.
    pub fn handle_sender_report(&mut self, now: Instant, info: &SenderInfo) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == info.ssrc) {
            stream.handle_sender_report(now, info);
        }
    }

    /// Writes the feedback that is due, packet by packet.
    pub fn poll(&mut self, now: Instant, tally: &mut Tally, send: &mut impl FnMut(&mut [u8], usize)) {
        let mut out = [0; RTCP_BYTES];
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            let blocks: Vec<ReportBlock> = self.streams.iter_mut().map(|stream| stream.report(now)).collect();
            for blocks in blocks.chunks(REPORT_BLOCKS_MAX) {
                if let Some(len) = write_receiver_report(&mut out, self.ssrc, blocks) {
                    send(&mut out, len);
                }
            }
        }
        for stream in &mut self.streams {
            let mut seqs = [0; NACKS_MAX];
            let Some(missing) = &mut stream.missing else { continue };
            let count = missing.poll_nack(now, ROUND_TRIP, &mut seqs);
            let seqs = seqs.get(..count).unwrap_or_default();
            if let Some(len) = write_nack(&mut out, self.ssrc, stream.ssrc, seqs.iter().copied()) {
                tally.counts.asked += count as u64;
                send(&mut out, len);
            }
        }
        let media = self.streams.first().map_or(Ssrc(0), |stream| stream.ssrc);
        if let Some((_, register)) = &mut self.twcc {
            while let Some(len) = register.poll_feedback(now, self.ssrc, media, &mut out) {
                tally.counts.twcc_reports += 1;
                send(&mut out, len);
            }
        }
    }

    /// Writes a wish for a keyframe.
    pub fn write_pli(&self, out: &mut [u8], media: Ssrc) -> Option<usize> {
        write_pli(out, self.ssrc, media)
    }

    fn note_twcc(&mut self, now: Instant, view: &RtpView<'_>) {
        let Some((id, register)) = &mut self.twcc else { return };
        let value = view.ext().and_then(|(profile, block)| rtp_ext::find(profile, block, *id));
        if let Some(seq) = value.and_then(rtp_ext::parse_transport_cc) {
            register.handle_packet(now, seq);
        }
    }

    /// The stream a packet belongs to, its index there and its payload; retransmissions are unwrapped (RFC 4588 §4).
    fn place<'a>(&mut self, view: &RtpView<'a>, index: u64) -> Option<(usize, u64, &'a [u8])> {
        let is_repair = self.hearing.agreed.iter().any(|agreed| agreed.rtx_pt == Some(view.pt()));
        if !is_repair {
            return Some((self.stream(view.ssrc(), view.pt())?, index, view.payload()));
        }
        let (seq, payload) = view.payload().split_first_chunk::<2>()?;
        let at = match self.hearing.repairs.iter().find(|(repair, _)| *repair == view.ssrc()) {
            Some((_, media)) => self.streams.iter().position(|stream| stream.ssrc == *media)?,
            // Not announced: unambiguous only where one video comes.
            None => self.streams.iter().position(|stream| stream.kind == MediaKind::Video)?,
        };
        let newest = self.streams.get(at)?.newest_index()?;
        Some((at, extend_u16(newest, u16::from_be_bytes(*seq)), payload))
    }

    fn stream(&mut self, ssrc: Ssrc, pt: u8) -> Option<usize> {
        if let Some(at) = self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            return Some(at);
        }
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let kind = self.hearing.agreed.iter().find(|agreed| agreed.pt == pt)?.kind;
        let mut stream = Stream::new(ssrc, kind);
        // Browsers ask for video only.
        if self.hearing.loss > 0.0 && kind == MediaKind::Video {
            stream.missing = Some(Box::new(NackRegister::new()));
        }
        self.streams.push(stream);
        Some(self.streams.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use tramline::runtime::clock;
    use tramline::wire::rtcp::{RtcpView, packets};
    use tramline::wire::rtp::Fixed;
    use tramline::wire::rtp_ext::ExtWriter;

    use super::*;
    use crate::source::write_packet;
    use crate::stamp::{Frame, Stamp};

    const VIDEO: Agreed = Agreed { kind: MediaKind::Video, pt: 100, rtx_pt: Some(101), twcc_id: Some(7) };
    const AUDIO: Agreed = Agreed { kind: MediaKind::Audio, pt: 111, rtx_pt: None, twcc_id: Some(7) };
    const MARK: Mark = Mark { begins_message: true, arrived_ns: None };

    struct Bench {
        receiver: Receiver,
        course: Course,
        tally: Tally,
        now: Instant,
    }

    impl Bench {
        fn new(loss: f64) -> Self {
            let now = clock::now();
            let repairs = vec![(Ssrc(12), Ssrc(11)), (Ssrc(22), Ssrc(21))];
            let hearing = Hearing { streams: 2, agreed: vec![AUDIO, VIDEO], repairs, loss };
            let course = Course::new(now);
            course.open(now);
            Self { receiver: Receiver::new(now, hearing), course, tally: Tally::new().unwrap(), now }
        }

        /// Hears packet `number` of the stream `ssrc`; as a retransmission under the repair's ssrc.
        fn hear(&mut self, ssrc: u32, pt: u8, number: u64, is_repair: bool) -> Option<Ssrc> {
            let mut packet = [0; 300];
            let mut block = [0; 4];
            let mut ext = ExtWriter::one_byte(&mut block);
            ext.push(7, &(number as u16).to_be_bytes());
            let (profile, _) = ext.finish();
            let ssrc = if is_repair { ssrc + 1 } else { ssrc };
            let fixed = Fixed { marker: false, pt, seq: number as u16, timestamp: 0, ssrc: Ssrc(ssrc) };
            let stamp = Stamp { source: 1, number, sent_ns: 30_000_000 };
            let frame = Frame { number: 0, is_start: true, is_key: true, is_bare: false };
            let (header_len, mut plain_len) =
                write_packet(&mut packet, &fixed, Some((profile, &block)), (stamp, Some(frame)), 200).unwrap();
            let mut index = number;
            if is_repair {
                packet.copy_within(header_len..plain_len, header_len + 2);
                packet[header_len..header_len + 2].copy_from_slice(&(number as u16).to_be_bytes());
                (plain_len, index) = (plain_len + 2, 40_000 + number);
            }
            let unprotected = Unprotected { index, plain_len, header_len };
            self.receiver.handle_packet(self.now, (MARK, unprotected, &packet), &self.course, &mut self.tally)
        }

        /// Names of the RTCP packets that are due, with the numbers a NACK asks for.
        fn poll(&mut self) -> Vec<String> {
            let mut told = Vec::new();
            self.receiver.poll(self.now, &mut self.tally, &mut |packet, len| {
                for view in packets(&packet[..len]).flatten() {
                    told.push(match view {
                        RtcpView::Nack(nack) => format!("{} {:?}", nack.media, nack.seqs().collect::<Vec<_>>()),
                        RtcpView::Twcc(twcc) => format!("twcc {}", twcc.header.status_count),
                        RtcpView::ReceiverReport(report) => format!("report {}", report.blocks().count()),
                        other => format!("{other:?}"),
                    });
                }
            });
            told
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_and_a_retransmission_repairs_it() {
        let mut bench = Bench::new(0.5);
        bench.receiver.report_at += Duration::from_secs(10);
        assert_eq!(bench.hear(11, 100, 65_534, false), Some(Ssrc(11)), "a new video is asked for a keyframe");
        assert_eq!(bench.hear(21, 100, 3, false), Some(Ssrc(21)));
        assert_eq!(bench.hear(11, 100, 65_538, false), None);
        bench.now += Duration::from_millis(30);
        assert_eq!(bench.poll(), ["0000000b [65535, 0, 1]"]);
        bench.hear(11, 101, 65_536, true);
        let counts = bench.tally.counts;
        assert_eq!((counts.delivered, counts.repaired, counts.asked, counts.reordered), (4, 1, 3, 0));
        assert_eq!((counts.misnumbered, counts.damaged, counts.duplicated), (0, 0, 0));
        bench.hear(11, 101, 65_536, true);
        assert_eq!(bench.tally.counts.duplicated, 1);
        bench.now += Duration::from_millis(300);
        assert_eq!(bench.poll()[0], "0000000b [65535, 1]");
    }

    #[test]
    fn without_loss_nothing_is_asked_for_but_reports_go_out() {
        let mut bench = Bench::new(0.0);
        assert_eq!(bench.hear(31, 111, 5, false), None, "sound has no keyframes");
        assert!(!bench.receiver.is_served());
        bench.hear(11, 100, 5, false);
        bench.hear(11, 100, 9, false);
        assert!(bench.receiver.is_served());
        bench.now += Duration::from_secs(2);
        assert_eq!(bench.poll(), ["report 2", "twcc 5"]);
        assert!(bench.poll().is_empty());
    }

    #[test]
    fn what_was_not_agreed_on_is_damaged() {
        let mut bench = Bench::new(0.0);
        bench.hear(11, 77, 1, false);
        bench.hear(11, 101, 1, true);
        assert_eq!((bench.tally.counts.damaged, bench.tally.counts.delivered), (2, 0));
    }
}
