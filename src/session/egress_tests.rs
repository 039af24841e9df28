//! What a subscriber gets, read with its own keys.

use std::net::IpAddr;

use rand::{SeedableRng, rngs::StdRng};

use super::super::slot::RETRANSMISSIONS_MAX;
use super::*;
use crate::base::format::Format;
use crate::base::frame::FrameMarks;
use crate::base::ids::Mid;
use crate::crypto::srtp::{SrtpReceiver, SrtpSuite};
use crate::proto::history::PacketMeta;
use crate::runtime::clock;
use crate::session::streams::{Demand, EgressConfig, MlineConfig, Payload};
use crate::wire::rtp::RtpView;
use crate::wire::rtp_ext::{self, Ext};

const TRACK: TrackKey = TrackKey { index: 3, epoch: 1 };
const SSRC: Ssrc = Ssrc(0x1111);
const RTX_SSRC: Ssrc = Ssrc(0x2222);

/// What stands in one datagram that was sent.
#[derive(Debug, PartialEq)]
struct Sent {
    ssrc: Ssrc,
    pt: u8,
    index: u64,
    exts: Vec<(u8, Vec<u8>)>,
    payload: Vec<u8>,
}

struct Bench {
    now: Instant,
    rng: StdRng,
    egress: Egress,
    tracks: Tracks,
    srtp: SrtpSender,
    receiver: SrtpReceiver,
    tx: TxBatch,
}

impl Admitted {
    /// A packet of a track that nobody has.
    pub(in crate::session) fn example(mline: u16, index: u64) -> Self {
        let numbers = Numbers { index, shift: Shift::default(), cut: Cut::NONE };
        Self { track: TrackKey { index: 0, epoch: 0 }, encoding: 0, seq: index, mline, pt: 96, numbers }
    }
}

fn payload(pt: u8, format: Format, rtx_pt: Option<u8>) -> Payload {
    Payload { pt, format, rtx_pt, nack: true, pli: true, fir: true, transport_cc: false, remb: false }
}

fn mline(payloads: &[Payload], exts: &[(u8, Ext)]) -> MlineConfig {
    MlineConfig {
        mid: Mid::new(b"7").unwrap(),
        kind: payloads[0].format.kind(),
        exts: exts.to_vec(),
        payloads: payloads.to_vec(),
        ingress: None,
        egress: Some(EgressConfig { ssrc: SSRC, rtx_ssrc: RTX_SSRC, track: Some(TRACK), demand: Demand::default() }),
    }
}

fn streams(mline: &MlineConfig) -> StreamsConfig {
    StreamsConfig { mlines: vec![Some(mline.clone())], ext_mixed: true, downlink_bps_max: None }
}

impl Bench {
    fn new(mline: &MlineConfig) -> Self {
        let (key, salt) = ([7; 16], [9; 12]);
        let mut bench = Self {
            now: clock::now(),
            rng: StdRng::seed_from_u64(1),
            egress: Egress::default(),
            tracks: Tracks::default(),
            srtp: SrtpSender::new(SrtpSuite::AeadAes128Gcm, &key, &salt).unwrap(),
            receiver: SrtpReceiver::new(SrtpSuite::AeadAes128Gcm, &key, &salt).unwrap(),
            tx: TxBatch::with_capacity(64),
        };
        bench.tracks.ensure(TRACK, mline.kind);
        bench.configure(mline);
        bench
    }

    fn configure(&mut self, mline: &MlineConfig) {
        self.egress.configure(self.now, &mut self.rng, &streams(mline));
    }

    fn outlet(srtp: &SrtpSender) -> Outlet<'_> {
        let path = Path { remote: ([192, 0, 2, 9], 9).into(), local: IpAddr::from([192, 0, 2, 1]) };
        Outlet { srtp, path }
    }

    /// The publisher's packet is kept, not yet forwarded.
    fn keep(&mut self, seq: u64, format: Format, begins: bool, exts: &[u8], payload: &[u8]) {
        let (source, timestamp) = (Ssrc(5), seq as u32 * 100);
        let marks = if begins { FrameMarks::WHOLE } else { FrameMarks::default() };
        let meta = PacketMeta { seq, source, timestamp, marker: false, format, encoding: 0, marks };
        assert!(self.tracks.track_mut(TRACK).unwrap().insert(self.now, Packet { meta, exts, payload }));
    }

    fn forward(&mut self, seq: u64) -> Result<(), Discard> {
        self.forward_padded(seq, 0)
    }

    fn admit(&mut self, seq: u64) -> Result<(Admitted, Due), Discard> {
        let (mut admitted, mut due, mut refused) = (vec![], vec![], None);
        let packets = (self.tracks.track(TRACK).unwrap(), &[Fresh { encoding: 0, seq }][..]);
        let places = (&mut admitted, &mut due);
        self.egress.admit(self.now, 0, packets, &Self::outlet(&self.srtp), places, |discard| refused = Some(discard));
        match refused {
            Some(discard) => Err(discard),
            None => Ok((admitted[0], due[0])),
        }
    }

    fn forward_padded(&mut self, seq: u64, padding: u8) -> Result<(), Discard> {
        let (admitted, due) = self.admit(seq)?;
        let track = self.tracks.track(TRACK).unwrap();
        let packet = track.packet(0, seq).unwrap();
        let outlet = Self::outlet(&self.srtp);
        self.egress.write(self.now, &admitted, padding, &packet, &outlet, &mut self.tx)?;
        assert_eq!(self.bytes().len(), usize::from(due.bytes) + usize::from(padding), "the length was known");
        Ok(())
    }

    fn pass(&mut self, seq: u64, format: Format) -> Result<Sent, Discard> {
        self.keep(seq, format, true, &[], &seq.to_be_bytes());
        self.forward(seq)?;
        Ok(self.sent())
    }

    fn retransmit(&mut self, seq: u16) -> Result<(), Discard> {
        self.now += ROUND_TRIP_ASSUMED;
        self.egress.want_resend(self.now, 0, seq)?;
        let resend = self.egress.next_resend(self.now).unwrap();
        self.egress.retransmit(self.now, resend, &self.tracks, &Self::outlet(&self.srtp), &mut self.tx)
    }

    /// The last datagram as it went out.
    fn bytes(&self) -> Vec<u8> {
        self.tx.bytes(self.tx.entries().last().expect("a datagram")).to_vec()
    }

    /// The last datagram as the subscriber reads it.
    fn sent(&mut self) -> Sent {
        let mut bytes = self.bytes();
        let plain = self.receiver.unprotect_rtp(&mut bytes).expect("authentic, and its index as guessed");
        let view = RtpView::parse(&bytes[..plain.plain_len]).unwrap();
        let exts = view.ext().map(|(profile, block)| {
            rtp_ext::elements(profile, block).map(|(id, value)| (id, value.to_vec())).collect()
        });
        Sent {
            ssrc: view.ssrc(),
            pt: view.pt(),
            index: plain.index,
            exts: exts.unwrap_or_default(),
            payload: view.payload().to_vec(),
        }
    }
}

fn opus() -> MlineConfig {
    mline(&[payload(111, Format::Opus, None)], &[])
}

#[test]
fn an_m_line_that_rests_keeps_its_numbers() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    let mut resting = opus();
    resting.egress = None;
    bench.configure(&resting);
    bench.keep(11, Format::Opus, true, &[], b"x");
    assert_eq!(bench.forward(11), Err(Discard::StaleRoute));
    bench.configure(&opus());
    assert_eq!(bench.pass(12, Format::Opus).unwrap().index, first.index + 1);
}

#[test]
fn the_first_number_is_below_the_half() {
    for seed in 0..50 {
        let mut bench = Bench::new(&opus());
        bench.rng = StdRng::seed_from_u64(seed);
        bench.egress = Egress::default();
        bench.configure(&opus());
        assert!(bench.pass(99_999, Format::Opus).unwrap().index < 1 << 15);
    }
}

#[test]
fn a_retransmission_without_rtx_is_the_first_datagram_again() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    let bytes = bench.bytes();
    bench.pass(11, Format::Opus).unwrap();
    bench.retransmit(first.index as u16).unwrap();
    assert_eq!(bench.bytes(), bytes);
}

#[test]
fn a_padded_datagram_comes_again_with_its_padding() {
    let mut bench = Bench::new(&mline(&[payload(96, Format::Vp8, None)], &[]));
    let mut sent = Vec::new();
    for seq in 10..13 {
        bench.keep(seq, Format::Vp8, true, &[], &[seq as u8; 50]);
        bench.forward_padded(seq, (seq as u8 - 10) * 40).unwrap();
        let bytes = bench.bytes();
        let read = bench.sent();
        assert_eq!(read.payload, [seq as u8; 50], "padding is not part of it");
        sent.push((read.index as u16, bytes));
    }
    for (seq, bytes) in sent {
        bench.retransmit(seq).unwrap();
        assert_eq!(bench.bytes(), bytes);
    }
    assert_eq!(bench.egress.numbers(bench.now).next().unwrap().bytes, 150, "RFC 3550 §6.4.1: octets without padding");
}

#[test]
fn after_a_change_of_the_header_nothing_is_sent_again_without_rtx() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    bench.configure(&mline(&[payload(111, Format::Opus, None)], &[(4, Ext::Mid)]));
    assert_eq!(bench.retransmit(first.index as u16), Err(Discard::TooOld));
    let second = bench.pass(11, Format::Opus).unwrap();
    bench.retransmit(second.index as u16).unwrap();
}

#[test]
fn a_number_served_by_nack_first_never_goes_out_with_another_header() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    bench.pass(12, Format::Opus).unwrap();
    bench.keep(11, Format::Opus, true, &[], b"late");
    bench.retransmit(first.index as u16 + 1).unwrap();
    bench.configure(&mline(&[payload(109, Format::Opus, None)], &[]));
    assert_eq!(bench.forward(11), Err(Discard::TooOld), "its index is taken");
}

#[test]
fn what_waits_for_its_first_time_is_not_sent_again() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    bench.keep(11, Format::Opus, true, &[], b"waits");
    let (admitted, _) = bench.admit(11).unwrap();
    let next = first.index as u16 + 1;
    assert_eq!(bench.retransmit(next), Err(Discard::TooOld), "nobody knows yet how much padding it gets");
    let packet = bench.tracks.track(TRACK).unwrap().packet(0, 11).unwrap();
    let outlet = Bench::outlet(&bench.srtp);
    bench.egress.write(bench.now, &admitted, 9, &packet, &outlet, &mut bench.tx).unwrap();
    let bytes = bench.bytes();
    bench.retransmit(next).unwrap();
    assert_eq!(bench.bytes(), bytes);
}

#[test]
fn what_waited_when_the_peer_went_away_does_not_come_after_all() {
    let payload = Payload { transport_cc: true, ..payload(96, Format::Vp8, Some(97)) };
    let mut bench = Bench::new(&mline(&[payload], &[(3, Ext::TransportCc)]));
    bench.pass(10, Format::Vp8).unwrap();
    bench.keep(11, Format::Vp8, false, &[], b"waits");
    let (admitted, due) = bench.admit(11).unwrap();
    bench.egress.downlink.as_mut().unwrap().wait(bench.now, admitted, due);
    bench.egress.give_up_waiting(bench.now);
    assert!(!bench.egress.has_backlog() && bench.egress.next_waiting(bench.now).is_none());
    bench.keep(12, Format::Vp8, false, &[], b"builds on it");
    assert_eq!(bench.forward(12), Err(Discard::AwaitsKeyframe));
    bench.pass(13, Format::Vp8).unwrap();
}

#[test]
fn who_gets_no_picture_any_more_has_no_layers_to_divide() {
    let video = mline(&[payload(96, Format::Vp8, Some(97))], &[]);
    let mut bench = Bench::new(&video);
    bench.egress.divide(bench.now, &bench.tracks);
    assert!(bench.egress.layers.is_some());
    bench.configure(&MlineConfig { egress: None, ..video });
    bench.egress.divide(bench.now, &bench.tracks);
    assert!(bench.egress.layers.is_none());
}

#[test]
fn a_transport_wide_number_is_taken_only_where_it_is_written() {
    let with = |exts: &[(u8, Ext)]| {
        let payload = Payload { transport_cc: true, ..payload(96, Format::Vp8, Some(97)) };
        mline(&[payload], exts)
    };
    let mut bench = Bench::new(&with(&[]));
    (10..13).for_each(|seq| drop(bench.pass(seq, Format::Vp8).unwrap()));
    bench.configure(&with(&[(3, Ext::TransportCc)]));
    // What the peer never sees it would report as lost.
    assert_eq!(bench.pass(13, Format::Vp8).unwrap().exts, [(3, vec![0, 0])]);
}

#[test]
fn who_gets_no_video_need_not_tell_what_arrives() {
    let stamped = [(3, Ext::TransportCc), (5, Ext::AbsSendTime)];
    let sound = mline(&[Payload { transport_cc: true, nack: false, ..payload(111, Format::Opus, None) }], &stamped);
    let video = mline(&[payload(96, Format::Vp8, Some(97))], &stamped);
    let video = MlineConfig { egress: Some(EgressConfig { ssrc: Ssrc(9), ..video.egress.unwrap() }), ..video };
    let mut bench = Bench::new(&sound);
    assert_eq!(bench.pass(1, Format::Opus).unwrap().exts, []);
    let both =
        StreamsConfig { mlines: vec![Some(sound.clone()), Some(video)], ext_mixed: true, downlink_bps_max: None };
    bench.egress.configure(bench.now, &mut bench.rng, &both);
    assert_eq!(bench.pass(2, Format::Opus).unwrap().exts, [(3, vec![0, 0]), (5, vec![0; 3])]);
    bench.configure(&sound);
    assert_eq!(bench.pass(3, Format::Opus).unwrap().exts, []);
}

#[test]
fn a_retransmission_by_rtx_has_numbers_of_its_own() {
    let mut bench = Bench::new(&mline(&[payload(96, Format::Vp8, Some(97))], &[(4, Ext::Mid)]));
    let first = bench.pass(10, Format::Vp8).unwrap();
    bench.retransmit(first.index as u16).unwrap();
    let again = bench.sent();
    let payload = [&(first.index as u16).to_be_bytes()[..], &10u64.to_be_bytes()].concat();
    assert_eq!((again.ssrc, again.pt, &again.payload), (RTX_SSRC, 97, &payload));
    assert_eq!(again.exts, [(4, b"7".to_vec())]);
    bench.retransmit(first.index as u16).unwrap();
    assert_eq!(bench.sent().index, again.index + 1);
    assert!(bench.retransmit(first.index as u16 + 1).is_err(), "never sent");
}

#[test]
fn a_peer_that_asks_too_much_gets_less() {
    let mut bench = Bench::new(&mline(&[payload(96, Format::Vp8, Some(97))], &[]));
    let first = bench.pass(10, Format::Vp8).unwrap();
    let asked = (0..1000).map(|at| bench.egress.want_resend(bench.now, 0, first.index as u16 + at));
    let taken = asked.take_while(|answer| answer.is_ok()).count();
    assert_eq!(taken, 1, "one waits to be taken");
    let mut now = bench.now;
    let mut ask = |now: Instant, seq: u16| {
        let answer = bench.egress.want_resend(now, 0, seq);
        bench.egress.next_resend(now);
        answer
    };
    assert_eq!(ask(now, first.index as u16), Err(Discard::RetransmittedLately), "once in a round trip");
    assert!(
        (1..=RETRANSMISSIONS_MAX as u16 + 1)
            .map(|at| ask(now, at + 1000))
            .any(|answer| answer == Err(Discard::RetransmissionLimit))
    );
    now += Duration::from_millis(100);
    assert_eq!(ask(now, first.index as u16), Ok(()));
}

#[test]
fn a_format_that_was_not_negotiated_is_not_sent() {
    let mut bench = Bench::new(&opus());
    bench.keep(1, Format::Pcmu, true, &[], b"x");
    assert_eq!(bench.forward(1), Err(Discard::FormatNotNegotiated));
}

#[test]
fn video_begins_with_a_keyframe() {
    let mut bench = Bench::new(&mline(&[payload(96, Format::Vp8, None)], &[]));
    bench.keep(1, Format::Vp8, false, &[], b"x");
    assert_eq!(bench.forward(1), Err(Discard::AwaitsKeyframe));
    assert_eq!(bench.egress.awaiting_keyframe(bench.now).collect::<Vec<_>>(), [(TRACK, 0)]);
    bench.pass(2, Format::Vp8).unwrap();
    assert_eq!(bench.egress.awaiting_keyframe(bench.now).count(), 0);
}

#[test]
fn extensions_go_by_the_subscribers_ids_and_mid_is_ours() {
    let exts = [(4, Ext::Mid), (9, Ext::AudioLevel)];
    let mut bench = Bench::new(&mline(&[payload(111, Format::Opus, None)], &exts));
    let level = [Ext::AudioLevel as u8, 1, 0x85, Ext::PlayoutDelay as u8, 3, 1, 2, 3];
    bench.keep(1, Format::Opus, true, &level, b"x");
    bench.forward(1).unwrap();
    assert_eq!(bench.sent().exts, [(4, b"7".to_vec()), (9, vec![0x85])]);
}

#[test]
fn a_long_extension_takes_the_two_byte_form() {
    let exts = [(4, Ext::Mid), (9, Ext::DependencyDescriptor)];
    let mut bench = Bench::new(&mline(&[payload(45, Format::Av1 { profile: 0 }, None)], &exts));
    let long = [&[Ext::DependencyDescriptor as u8, 40][..], &[1; 40]].concat();
    bench.keep(1, Format::Av1 { profile: 0 }, true, &long, b"x");
    bench.forward(1).unwrap();
    assert_eq!(bench.sent().exts, [(4, b"7".to_vec()), (9, vec![1; 40])]);
}

#[test]
fn after_a_long_absence_the_numbers_go_on_where_they_were() {
    let mut bench = Bench::new(&opus());
    let first = bench.pass(10, Format::Opus).unwrap();
    // The subscriber's transport was away for ten minutes; its guess of the roll-over counter must still be right.
    let later = bench.pass(50_000, Format::Opus).unwrap();
    assert_eq!(later.index, first.index + 1);
    assert_eq!(bench.pass(50_002, Format::Opus).unwrap().index, first.index + 3);
}

#[test]
fn what_fits_no_datagram_takes_no_number() {
    let exts = [(4, Ext::Mid), (9, Ext::DependencyDescriptor)];
    let mut bench = Bench::new(&mline(&[payload(45, Format::Av1 { profile: 0 }, None)], &exts));
    let format = Format::Av1 { profile: 0 };
    let first = bench.pass(1, format).unwrap();
    let long = [&[Ext::DependencyDescriptor as u8, 250][..], &[1; 250]].concat();
    bench.keep(2, format, true, &long, &[0; PAYLOAD_BYTES_MAX]);
    assert_eq!(bench.forward(2), Err(Discard::TooLarge));
    assert_eq!(bench.retransmit(first.index as u16 + 1), Err(Discard::TooOld));
}

#[test]
fn red_names_opus_by_the_subscribers_payload_type() {
    let payloads = [payload(63, Format::OpusRed, None), payload(109, Format::Opus, None)];
    let mut bench = Bench::new(&mline(&payloads, &[]));
    // RFC 2198 §3: one redundant block of two bytes, then the primary.
    let red = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 0xaa, 0xbb, 0xcc];
    bench.keep(1, Format::OpusRed, true, &[], &red);
    bench.forward_padded(1, 5).unwrap();
    assert_eq!(bench.sent().payload, [0x80 | 109, 0x0f, 0x00, 0x02, 109, 0xaa, 0xbb, 0xcc]);
}
