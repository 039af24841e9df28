//! What a publisher and a subscriber are told, and when.

use super::*;
use crate::base::format::{Format, MediaKind};
use crate::base::ids::{Mid, TrackKey};
use crate::runtime::clock;
use crate::session::streams::{IngressConfig, MlineConfig, Payload, StreamsConfig};
use crate::wire::rtcp::{RtcpView, ntp_middle, packets};
use crate::wire::rtp::{self, Fixed};
use crate::wire::rtp_ext::{AbsSendTime, Ext, ExtWriter};

const US: Ssrc = Ssrc(7);
const VIDEO: Ssrc = Ssrc(100);
const TWCC: u8 = 3;
const SEND_TIME: u8 = 2;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

struct Bench {
    t0: Instant,
    feedback: Feedback,
    ingress: Ingress,
    egress: Egress,
}

impl Bench {
    fn new(transport_cc: bool, remb: bool) -> Self {
        let t0 = clock::now();
        let mut ingress = Ingress::default();
        let nack = true;
        let payload =
            Payload { pt: 96, format: Format::Vp8, rtx_pt: Some(97), nack, pli: true, fir: false, transport_cc, remb };
        let twcc = transport_cc.then_some((TWCC, Ext::TransportCc));
        let mline = MlineConfig {
            mid: Mid::new(b"0").unwrap(),
            kind: MediaKind::Video,
            exts: twcc.into_iter().chain([(SEND_TIME, Ext::AbsSendTime)]).collect(),
            payloads: vec![payload],
            ingress: Some(IngressConfig::single(TrackKey { index: 0, epoch: 0 }, vec![(VIDEO, None)])),
            egress: None,
        };
        ingress.configure(t0, &StreamsConfig { mlines: vec![Some(mline)], ext_mixed: true, downlink_bps_max: None });
        Self { t0, feedback: Feedback::new(t0, US), ingress, egress: Egress::default() }
    }

    /// A packet of 1000 bytes that came at `at` and left `delay` before.
    fn receive(&mut self, seq: u64, at: Duration, delay: Duration) {
        let (mut out, mut block) = (vec![0; 1500], [0; 100]);
        let mut writer = ExtWriter::one_byte(&mut block);
        writer.push(TWCC, &(seq as u16).to_be_bytes());
        let sent_us = (at + ms(1000) - delay).as_micros() as u64;
        writer.push(SEND_TIME, &AbsSendTime((sent_us << 18).div_euclid(1_000_000) as u32 & 0xff_ffff).to_bytes());
        let (profile, len) = writer.finish();
        let fixed = Fixed { marker: false, pt: 96, seq: seq as u16, timestamp: 0, ssrc: VIDEO };
        rtp::write_header(&mut out, &fixed, &[], Some((profile, &block[..len]))).unwrap();
        out.truncate(1000);
        self.ingress.handle_rtp(self.t0 + at, &out, seq).unwrap();
    }

    /// The packets that leave at `at`.
    fn poll(&mut self, at: Duration) -> Vec<Vec<u8>> {
        let (mut sent, now) = (Vec::new(), self.t0 + at);
        let send = |packet: &[u8]| {
            sent.push(packet.to_vec());
            true
        };
        self.feedback.poll(now, &mut self.ingress, &mut self.egress, &Tracks::default(), send);
        sent
    }
}

/// The kinds of RTCP in a packet, in order.
fn kinds(packet: &[u8]) -> Vec<&'static str> {
    let kind = |view: RtcpView<'_>| match view {
        RtcpView::SenderReport(_) => "sr",
        RtcpView::ReceiverReport(_) => "rr",
        RtcpView::Sdes(_) => "sdes",
        RtcpView::ExtendedReport(_) => "xr",
        RtcpView::Nack(_) => "nack",
        RtcpView::Twcc(_) => "twcc",
        RtcpView::Remb(_) => "remb",
        RtcpView::Pli(_) => "pli",
        RtcpView::Fir(_) => "fir",
        _ => "other",
    };
    packets(packet).map(|packet| kind(packet.unwrap())).collect()
}

fn remb_of(sent: &[Vec<u8>]) -> Option<u64> {
    sent.iter().flat_map(|packet| packets(packet)).find_map(|packet| match packet.unwrap() {
        RtcpView::Remb(remb) => Some(remb.bitrate_bps),
        _ => None,
    })
}

#[test]
fn what_is_due_together_leaves_together() {
    let mut bench = Bench::new(true, true);
    for seq in [10, 12, 13, 14] {
        bench.receive(seq, ms(0), ms(0));
    }
    assert_eq!(bench.poll(ms(0)).iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["nack"]]);
    bench.receive(16, ms(960), ms(0));
    bench.receive(19, ms(980), ms(0));
    let sent = bench.poll(ms(1000));
    assert_eq!(sent.iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["rr", "sdes", "xr", "nack", "twcc"]]);
    assert!(bench.feedback.next_timeout(&bench.ingress) > bench.t0 + ms(1000));
    assert_eq!(bench.poll(ms(1001)), Vec::<Vec<u8>>::new());
}

#[test]
fn a_keyframe_is_asked_for_at_once_and_with_what_leaves_anyway() {
    let mut bench = Bench::new(true, true);
    bench.receive(10, ms(980), ms(0));
    let ask = |bench: &mut Bench, at, takes_pli| {
        let request = KeyframeRequest { media: VIDEO, takes_pli, count: 1, at: bench.t0 + at };
        bench.feedback.ask_keyframe(request);
        bench.feedback.ask_keyframe(request);
        assert_eq!(bench.feedback.next_timeout(&bench.ingress).min(bench.t0 + at), bench.t0 + at);
    };
    ask(&mut bench, ms(990), true);
    assert_eq!(bench.poll(ms(990)).iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["pli"]]);
    ask(&mut bench, ms(1000), true);
    let sent = bench.poll(ms(1000));
    assert_eq!(sent.iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["rr", "sdes", "xr", "pli"]]);
    ask(&mut bench, ms(1010), false);
    assert_eq!(bench.poll(ms(1010)).iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["fir"]]);
    assert!(!bench.feedback.asks_keyframe());
}

#[test]
fn a_keyframe_request_that_found_no_way_out_waits() {
    let mut bench = Bench::new(true, true);
    bench.receive(10, ms(0), ms(0));
    bench.feedback.ask_keyframe(KeyframeRequest { media: VIDEO, takes_pli: true, count: 1, at: bench.t0 });
    let full = |_: &[u8]| false;
    let now = bench.t0 + ms(1000);
    let Bench { feedback, ingress, egress, .. } = &mut bench;
    feedback.poll(now, ingress, egress, &Tracks::default(), full);
    let sent = bench.poll(ms(1001));
    assert!(sent.iter().all(|sent| kinds(sent) == ["pli"]) || bench.feedback.next_timeout(&bench.ingress) > now);
}

#[test]
fn a_listener_is_reported_to_without_a_reference_time() {
    let mut bench = Bench::new(true, true);
    assert_eq!(bench.poll(ms(1000)).iter().map(|sent| kinds(sent)).collect::<Vec<_>>(), [["rr", "sdes"]]);
}

#[test]
fn the_round_trip_of_a_peer_that_only_sends_is_measured_and_paces_what_is_asked_again() {
    let mut bench = Bench::new(true, false);
    bench.receive(1, ms(990), ms(0));
    let sent = bench.poll(ms(1000));
    let ours = packets(&sent[0]).find_map(|packet| match packet.unwrap() {
        RtcpView::ExtendedReport(report) => report.blocks().find_map(|block| match block {
            XrBlock::ReferenceTime(ntp) => Some(ntp),
            XrBlock::Delays(_) => None,
        }),
        _ => None,
    });
    let ours = ours.expect("our time");
    assert!(ours >> 32 >= CLOCK_START.as_secs(), "a date since 1970, for those that read it as one");
    let last_rr = ntp_middle(ours);
    // To us and to somebody else: held 100 ms, back after 300.
    let delay = Delay { ssrc: US, last_rr, delay: 6554 };
    let mut out = [0; 100];
    let len = rtcp::write_extended_report(&mut out, VIDEO, Some(5 << 16), &[Delay { ssrc: VIDEO, ..delay }, delay]);
    let RtcpView::ExtendedReport(report) = packets(&out[..len.unwrap()]).next().unwrap().unwrap() else { panic!() };
    bench.feedback.handle_extended_report(bench.t0 + ms(1300), &report);
    let rtt = bench.feedback.round_trip().expect("measured");
    assert!((ms(199)..=ms(200)).contains(&rtt), "{rtt:?}");
    // Asked for once, and again after a round trip and an eighth.
    bench.receive(3, ms(1400), ms(0));
    bench.receive(4, ms(1400), ms(0));
    bench.receive(5, ms(1400), ms(0));
    let has_nack = |sent: Vec<Vec<u8>>| sent.iter().any(|packet| kinds(packet).contains(&"nack"));
    assert!(has_nack(bench.poll(ms(1400))));
    assert!(!has_nack(bench.poll(ms(1620))) && has_nack(bench.poll(ms(1625))));
    // Its own time is answered, once.
    let answers = |sent: &[Vec<u8>]| {
        let views = sent.iter().flat_map(|packet| packets(packet)).map(|packet| packet.unwrap());
        views
            .filter_map(|view| match view {
                RtcpView::ExtendedReport(report) => Some(report),
                _ => None,
            })
            .flat_map(|report| report.blocks())
            .filter_map(|block| match block {
                XrBlock::Delays(delays) => Some(delays.iter().collect::<Vec<_>>()),
                XrBlock::ReferenceTime(_) => None,
            })
            .flatten()
            .map(|delay| (delay.ssrc, delay.last_rr, delay.delay))
            .collect::<Vec<_>>()
    };
    // Heard at 1300 ms, answered at 2000.
    assert_eq!(answers(&bench.poll(ms(2000))), [(VIDEO, 5, 45_875)]);
    assert_eq!(answers(&bench.poll(ms(3000))), []);
}

#[test]
fn a_publisher_without_transport_feedback_is_told_an_estimate_and_at_once_when_it_falls() {
    let mut bench = Bench::new(false, true);
    let mut told = Vec::new();
    // 1.6 Mbit/s, and from the third second on a queue that grows by a quarter of the time.
    for seq in 0..1000u64 {
        let at = ms(5 * seq);
        let delay = at.saturating_sub(ms(2500)) / 4;
        bench.receive(seq, at + delay, delay);
        told.extend(remb_of(&bench.poll(at + delay)).map(|bps| (at + delay, bps)));
    }
    let before = told.iter().filter(|(at, _)| *at < ms(2500)).map(|(_, bps)| *bps).max().unwrap();
    let (at, after) = *told.last().unwrap();
    assert!(before >= 1_000_000 && after < before, "{told:?}");
    assert!(told.len() > 5, "falls are told between reports: {told:?}");
    assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= REMB_INTERVAL_MIN), "{told:?}");
    bench.feedback.set_ingest_cap(Some(200_000));
    assert_eq!(remb_of(&bench.poll(at + ms(1000))), Some(200_000));
}

#[test]
fn a_cap_is_told_to_who_estimates_itself_and_nothing_to_who_takes_none() {
    let mut bench = Bench::new(true, true);
    bench.receive(1, ms(900), ms(0));
    assert_eq!(remb_of(&bench.poll(ms(1000))), None);
    bench.feedback.set_ingest_cap(Some(300_000));
    for at in [2000, 3000] {
        assert_eq!(remb_of(&bench.poll(ms(at))), None, "a REMB so early is taken for an estimate");
    }
    assert_eq!(remb_of(&bench.poll(ms(4000))), Some(300_000));
    bench.feedback.set_ingest_cap(None);
    let told = remb_of(&bench.poll(ms(5000)));
    assert!(told.is_some_and(|bps| bps > UNHELD_BPS / 100 * 99), "what was told holds until something else is told");
    let mut bench = Bench::new(false, false);
    bench.receive(1, ms(900), ms(0));
    bench.feedback.set_ingest_cap(Some(300_000));
    assert_eq!(remb_of(&bench.poll(ms(1000))), None);
}

#[test]
fn the_largest_report_fits_a_datagram_and_the_rest_comes_in_the_next() {
    let info = SenderInfo { ssrc: Ssrc(0), ntp: 0, rtp_ts: 0, packets: 0, octets: 0 };
    let mut blocks = std::iter::repeat_n(ReportBlock::default(), BLOCKS_MAX + 1);
    let mut infos = std::iter::repeat_n(info, INFOS_MAX + 2);
    let len = write_reports(&mut [0; 1500], Ssrc(1), &mut blocks, &mut infos);
    let extended = 8 + 12 + 4 + 12 * HEARD_MAX;
    assert!(len.is_some_and(|len| len + extended <= COMPOUND_BYTES_MAX), "{len:?}");
    assert_eq!((blocks.count(), infos.count()), (1, 2));
}
