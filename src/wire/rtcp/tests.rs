//! RTCP against an independent implementation, by property, and against hostile bytes.

use proptest::prelude::*;
use rtc_rtcp::extended_report as their_xr;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet::{Packet, marshal, unmarshal};
use rtc_rtcp::payload_feedbacks::full_intra_request as their_fir;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report as their_rr;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report as their_sr;
use rtc_rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{SymbolTypeTcc, TransportLayerCc};
use rtc_rtcp::transport_feedbacks::transport_layer_nack as their_nack;

use super::*;
use crate::base::ids::Ssrc;
use crate::wire::be::hostile::Mutator;

const SENDER: Ssrc = Ssrc(0x0102_0304);
const MEDIA: Ssrc = Ssrc(0xa0b0_c0d0);
const BLOCK: ReportBlock = ReportBlock {
    ssrc: MEDIA,
    fraction_lost: 64,
    cumulative_lost: 1234,
    highest_seq: 0x0001_ffff,
    jitter: 77,
    lsr: 0x1234_5678,
    dlsr: 65_536,
};
const INFO: SenderInfo =
    SenderInfo { ssrc: SENDER, ntp: 0x1122_3344_5566_7788, rtp_ts: 90_000, packets: 3, octets: 3600 };

/// Writes with `write` into a fresh buffer.
fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut out = vec![0xaa; 1500];
    let len = write(&mut out).expect("room");
    out.truncate(len);
    out
}

fn only(bytes: &[u8]) -> RtcpView<'_> {
    let mut all = packets(bytes);
    let first = all.next().expect("one packet").expect("valid");
    assert!(all.next().is_none());
    first
}

fn theirs<P: Packet + Clone + 'static>(bytes: &[u8]) -> P {
    let all = unmarshal(&mut &bytes[..]).expect("their parser takes it");
    assert_eq!(all.len(), 1);
    all[0].as_any().downcast_ref::<P>().expect("that kind of packet").clone()
}

fn their_bytes<P: Packet + 'static>(packet: P) -> Vec<u8> {
    marshal(&[Box::new(packet)]).expect("their writer").to_vec()
}

fn their_block() -> ReceptionReport {
    ReceptionReport {
        ssrc: BLOCK.ssrc.0,
        fraction_lost: BLOCK.fraction_lost,
        total_lost: BLOCK.cumulative_lost as u32,
        last_sequence_number: BLOCK.highest_seq,
        jitter: BLOCK.jitter,
        last_sender_report: BLOCK.lsr,
        delay: BLOCK.dlsr,
    }
}

#[test]
fn a_sender_report_agrees_with_another_implementation() {
    let bytes = written(|out| write_sender_report(out, &INFO, &[BLOCK, BLOCK]));
    let other = their_sr::SenderReport {
        ssrc: INFO.ssrc.0,
        ntp_time: INFO.ntp,
        rtp_time: INFO.rtp_ts,
        packet_count: INFO.packets,
        octet_count: INFO.octets,
        reports: vec![their_block(), their_block()],
        ..Default::default()
    };
    assert_eq!(theirs::<their_sr::SenderReport>(&bytes), other);
    assert_eq!(their_bytes(other), bytes);
    let RtcpView::SenderReport(report) = only(&bytes) else { panic!("not a sender report") };
    assert_eq!((report.info, report.blocks().collect::<Vec<_>>()), (INFO, vec![BLOCK, BLOCK]));
}

#[test]
fn a_receiver_report_agrees_with_another_implementation() {
    let bytes = written(|out| write_receiver_report(out, SENDER, &[BLOCK]));
    let other = their_rr::ReceiverReport { ssrc: SENDER.0, reports: vec![their_block()], ..Default::default() };
    assert_eq!(theirs::<their_rr::ReceiverReport>(&bytes), other);
    assert_eq!(their_bytes(other), bytes);
    let RtcpView::ReceiverReport(report) = only(&bytes) else { panic!("not a receiver report") };
    assert_eq!((report.sender, report.blocks().collect::<Vec<_>>()), (SENDER, vec![BLOCK]));
}

#[test]
fn the_cumulative_loss_is_signed_and_clamped() {
    for (lost, read) in [(-1, -1), (-0x80_0000, -0x80_0000), (i32::MIN, -0x80_0000), (i32::MAX, 0x7f_ffff)] {
        let block = ReportBlock { cumulative_lost: lost, ..BLOCK };
        let bytes = written(|out| write_receiver_report(out, SENDER, &[block]));
        let RtcpView::ReceiverReport(report) = only(&bytes) else { panic!("not a receiver report") };
        assert_eq!(report.blocks().next(), Some(ReportBlock { cumulative_lost: read, ..BLOCK }));
    }
}

#[test]
fn no_more_blocks_are_written_than_can_be_counted() {
    let mut out = [0; 1500];
    assert!(write_receiver_report(&mut out, SENDER, &[BLOCK; 31]).is_some());
    assert!(write_receiver_report(&mut out, SENDER, &[BLOCK; 32]).is_none());
}

#[test]
fn a_source_description_agrees_with_another_implementation() {
    for cname in ["", "a", "ab", "abc", "abcd", "abcde"] {
        let bytes = written(|out| write_sdes_cname(out, SENDER, cname));
        let other = SourceDescription {
            chunks: vec![SourceDescriptionChunk {
                source: SENDER.0,
                items: vec![SourceDescriptionItem {
                    sdes_type: SdesType::SdesCname,
                    text: cname.as_bytes().to_vec().into(),
                }],
            }],
        };
        assert_eq!(theirs::<SourceDescription>(&bytes), other);
        // Theirs ends with a count of the null octets, which RFC 3550 §6.5 does not know.
        assert_eq!(their_bytes(other).len(), bytes.len());
        let RtcpView::Sdes(sdes) = only(&bytes) else { panic!("not a source description") };
        let chunk = SdesChunk { ssrc: SENDER, cname: Some(cname.as_bytes()) };
        assert_eq!(sdes.chunks().collect::<Vec<_>>(), [chunk]);
    }
}

#[test]
fn a_source_description_of_several_sources_is_read() {
    let item = |kind, text: &str| SourceDescriptionItem { sdes_type: kind, text: text.as_bytes().to_vec().into() };
    let bytes = their_bytes(SourceDescription {
        chunks: vec![
            SourceDescriptionChunk {
                source: 1,
                items: vec![item(SdesType::SdesTool, "tool"), item(SdesType::SdesCname, "me")],
            },
            SourceDescriptionChunk { source: 2, items: vec![] },
        ],
    });
    let RtcpView::Sdes(sdes) = only(&bytes) else { panic!("not a source description") };
    let expected = [SdesChunk { ssrc: Ssrc(1), cname: Some(b"me") }, SdesChunk { ssrc: Ssrc(2), cname: None }];
    assert_eq!(sdes.chunks().collect::<Vec<_>>(), expected);
}

#[test]
fn a_goodbye_agrees_with_another_implementation() {
    let bytes = written(|out| write_bye(out, &[SENDER, MEDIA]));
    assert_eq!(theirs::<Goodbye>(&bytes).sources, [SENDER.0, MEDIA.0]);
    let with_reason = their_bytes(Goodbye { sources: vec![SENDER.0, MEDIA.0], reason: b"away"[..].into() });
    for bytes in [bytes, with_reason] {
        let RtcpView::Bye(bye) = only(&bytes) else { panic!("not a goodbye") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [SENDER, MEDIA]);
    }
}

#[test]
fn a_nack_packs_what_lies_within_sixteen_packets() {
    let bytes = written(|out| write_nack(out, SENDER, MEDIA, [65_534, 65_535, 14, 15, 40]));
    let RtcpView::Nack(nack) = only(&bytes) else { panic!("not a nack") };
    let pairs = [(65_534, 0x8001), (15, 0), (40, 0)].map(|(pid, blp)| NackPair { pid, blp });
    assert_eq!(nack.pairs().collect::<Vec<_>>(), pairs);
    assert_eq!((nack.sender, nack.media), (SENDER, MEDIA));
}

#[test]
fn a_nack_about_nothing_is_not_written_and_not_read() {
    assert_eq!(write_nack(&mut [0; 64], SENDER, MEDIA, []), None);
    // Length 2: no control information; length 1: not even a media ssrc; length 0: a header alone.
    for bytes in
        [&[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0x81, 205, 0, 1, 0, 0, 0, 2][..], &[0x81, 205, 0, 0][..]]
    {
        assert!(matches!(packets(bytes).next(), Some(Err(_))));
    }
}

#[test]
fn a_picture_loss_indication_agrees_with_another_implementation() {
    let bytes = written(|out| write_pli(out, SENDER, MEDIA));
    let other = PictureLossIndication { sender_ssrc: SENDER.0, media_ssrc: MEDIA.0 };
    assert_eq!(theirs::<PictureLossIndication>(&bytes), other);
    assert_eq!(their_bytes(other), bytes);
    assert!(matches!(only(&bytes), RtcpView::Pli(Pli { sender: SENDER, media: MEDIA })));
}

#[test]
fn a_full_intra_request_agrees_with_another_implementation() {
    let entries = [FirEntry { ssrc: MEDIA, seq_nr: 7 }, FirEntry { ssrc: SENDER, seq_nr: 255 }];
    let bytes = written(|out| write_fir(out, SENDER, &entries));
    let other = their_fir::FullIntraRequest {
        sender_ssrc: SENDER.0,
        media_ssrc: 0,
        fir: entries
            .iter()
            .map(|entry| their_fir::FirEntry { ssrc: entry.ssrc.0, sequence_number: entry.seq_nr })
            .collect(),
    };
    assert_eq!(theirs::<their_fir::FullIntraRequest>(&bytes), other);
    assert_eq!(their_bytes(other), bytes);
    let RtcpView::Fir(fir) = only(&bytes) else { panic!("not a full intra request") };
    assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
}

#[test]
fn a_bandwidth_estimate_is_read() {
    let bytes = their_bytes(ReceiverEstimatedMaximumBitrate {
        sender_ssrc: SENDER.0,
        bitrate: 8_927_168.0,
        ssrcs: vec![MEDIA.0, 5],
    });
    let RtcpView::Remb(remb) = only(&bytes) else { panic!("not a bandwidth estimate") };
    assert_eq!(remb.bitrate_bps, 8_927_168);
    assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [MEDIA, Ssrc(5)]);
}

#[test]
fn a_bandwidth_estimate_beyond_all_bounds_saturates() {
    let remb = |value: [u8; 3]| {
        let mut bytes = vec![0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0];
        bytes.extend(value);
        let RtcpView::Remb(remb) = only(&bytes) else { panic!("not a bandwidth estimate") };
        remb.bitrate_bps
    };
    assert_eq!(remb([0xff, 0xff, 0xff]), u64::MAX);
    assert_eq!(remb([0xfc, 0, 0]), 0);
    assert_eq!(remb([0xfc, 0, 1]), 1 << 63);
    assert_eq!(remb([0xfc, 0, 2]), u64::MAX);
}

#[test]
fn application_feedback_that_is_no_estimate_is_unknown() {
    let bytes = [0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'O', b'T', b'H', b'R'];
    assert!(matches!(only(&bytes), RtcpView::Unknown { pt: 206, fmt: 15 }));
    // RFC 3550 §6.7: application-defined.
    assert!(matches!(only(&[0x80, 204, 0, 1, 0, 0, 0, 1]), RtcpView::Unknown { pt: 204, .. }));
}

#[test]
fn a_compound_is_read_packet_by_packet() {
    let mut bytes = written(|out| write_sender_report(out, &INFO, &[]));
    bytes.extend(written(|out| write_sdes_cname(out, SENDER, "cname")));
    // A NACK without control information: its inside is wrong, the framing is not.
    bytes.extend([0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    bytes.extend(written(|out| write_pli(out, SENDER, MEDIA)));
    let all: Vec<_> = packets(&bytes).collect();
    assert!(matches!(
        all[..],
        [Ok(RtcpView::SenderReport(_)), Ok(RtcpView::Sdes(_)), Err(ParseError::Malformed), Ok(RtcpView::Pli(_))]
    ));
    // Cut short, the error is the last item.
    let all: Vec<_> = packets(&bytes[..bytes.len() - 1]).collect();
    assert!(matches!(all[..], [Ok(_), Ok(_), Err(_), Err(ParseError::Truncated)]));
}

#[test]
fn padding_of_the_last_packet_is_left_out() {
    let mut bytes = written(|out| write_receiver_report(out, SENDER, &[]));
    bytes.extend([0xa1, 203, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8]);
    let RtcpView::Bye(bye) = packets(&bytes).nth(1).expect("second").expect("valid") else { panic!("not a goodbye") };
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [Ssrc(9)]);
    for count in [0, 13, 255] {
        *bytes.last_mut().expect("bytes") = count;
        assert_eq!(packets(&bytes).nth(1).map(|packet| packet.err()), Some(Some(ParseError::Malformed)), "{count}");
    }
    // The padding may not eat what the count needs.
    *bytes.last_mut().expect("bytes") = 12;
    assert_eq!(packets(&bytes).nth(1).map(|packet| packet.err()), Some(Some(ParseError::Truncated)));
    // A padded packet that is a header alone has no place for the count.
    assert!(matches!(packets(&[0xa0, 201, 0, 0]).next(), Some(Err(ParseError::Malformed))));
}

#[test]
fn ntp_middle_is_sixteen_dot_sixteen() {
    assert_eq!(ntp_middle(0x1122_3344_5566_7788), 0x3344_5566);
}

fn twcc_header(base_seq: u16, status_count: u16) -> TwccHeader {
    TwccHeader { sender: SENDER, media: MEDIA, base_seq, status_count, reference_time: 0xab_cdef, feedback_count: 9 }
}

#[test]
fn feedback_takes_the_shortest_chunks() {
    let len = |statuses: &[Option<i16>]| written(|out| write_twcc(out, &twcc_header(0, 0), statuses)).len();
    // 20 bytes of header, one run, no deltas, padding.
    assert_eq!(len(&vec![None; 8191]), 24);
    assert_eq!(len(&vec![None; 8192]), 24);
    // One vector of one-bit symbols and seven small deltas, padded to a word.
    let alternating: Vec<_> = (0..14).map(|at| (at % 2 == 0).then_some(4)).collect();
    assert_eq!(len(&alternating), 32);
    assert_eq!(len(&[Some(256), Some(1), None]), 28);
}

#[test]
fn feedback_with_a_reserved_symbol_or_about_nothing_is_malformed() {
    let packet = |count: u8, chunk: [u8; 2]| {
        let mut bytes = vec![0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0, count, 0, 0, 1, 0];
        bytes.extend(chunk);
        bytes.extend([0, 0]);
        packets(&bytes).next().expect("one").err()
    };
    assert_eq!(packet(1, [0x60, 1]), Some(ParseError::Malformed));
    assert_eq!(packet(7, [0xc0, 3]), Some(ParseError::Malformed));
    assert_eq!(packet(0, [0, 0]), Some(ParseError::Malformed));
    assert_eq!(packet(3, [0x20, 3]), Some(ParseError::Truncated));
    assert_eq!(packet(2, [0x20, 2]), None);
    // Runs of length 0 cover nothing: the chunks end before the count is reached.
    assert_eq!(packet(9, [0, 0]), Some(ParseError::Truncated));
}

#[test]
fn arrivals_are_told_on_one_clock_across_the_wrap_of_its_reference() {
    let mut header = twcc_header(65_535, 0);
    header.reference_time = 0x00ff_ffff;
    let statuses = [Some(4), None, Some(-8), Some(300)];
    let bytes = written(|out| write_twcc(out, &header, &statuses));
    let RtcpView::Twcc(feedback) = only(&bytes) else { panic!("not feedback") };
    let before = feedback.header.reference_after(1 << 24);
    assert_eq!(before, (1 << 24) - 1);
    let start = before * 64_000;
    let expected = vec![(65_535, Some(start + 1000)), (0, None), (1, Some(start - 1000)), (2, Some(start + 74_000))];
    assert_eq!(feedback.arrivals(before).collect::<Vec<_>>(), expected);
    // The next one has wrapped, the one after is late and has not.
    header.reference_time = 3;
    assert_eq!(header.reference_after(before), (1 << 24) + 3);
    header.reference_time = 0x00ff_fff0;
    assert_eq!(header.reference_after((1 << 24) + 3), 0x00ff_fff0);
}

#[test]
fn mutated_compounds_never_panic() {
    let statuses: Vec<_> = (0..40).map(|at| [Some(4), None, Some(-3), Some(300)][at % 4]).collect();
    let mut seeds = vec![
        written(|out| write_sender_report(out, &INFO, &[BLOCK])),
        written(|out| write_receiver_report(out, SENDER, &[BLOCK])),
        written(|out| write_sdes_cname(out, SENDER, "cname")),
        written(|out| write_bye(out, &[SENDER, MEDIA])),
        written(|out| write_nack(out, SENDER, MEDIA, [1, 2, 30])),
        written(|out| write_pli(out, SENDER, MEDIA)),
        written(|out| write_fir(out, SENDER, &[FirEntry { ssrc: MEDIA, seq_nr: 1 }])),
        written(|out| write_twcc(out, &twcc_header(65_530, 0), &statuses)),
        written(|out| write_twcc(out, &twcc_header(1, 0), &[Some(3); 40])),
        written(|out| write_extended_report(out, SENDER, Some(1), &[DELAY, DELAY])),
        vec![0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x10, 9, 9, 0, 0, 0, 5],
    ];
    seeds.push(seeds.concat());
    let mut mutator = Mutator::new(0x7274_6370);
    for _ in 0..200_000 {
        fuzz_rtcp(&mutator.next(&seeds));
    }
}

const DELAY: Delay = Delay { ssrc: MEDIA, last_rr: 0x0102_0304, delay: 65_536 };

#[test]
fn an_extended_report_agrees_with_another_implementation() {
    let bytes = written(|out| write_extended_report(out, SENDER, Some(INFO.ntp), &[DELAY]));
    let times = their_xr::rrt::ReceiverReferenceTimeReportBlock { ntp_timestamp: INFO.ntp };
    let delay = their_xr::dlrr::DLRRReport { ssrc: MEDIA.0, last_rr: DELAY.last_rr, dlrr: DELAY.delay };
    let delays = their_xr::dlrr::DLRRReportBlock { reports: vec![delay] };
    let other = their_xr::ExtendedReport { sender_ssrc: SENDER.0, reports: vec![Box::new(times), Box::new(delays)] };
    assert_eq!(their_bytes(other), bytes);
    let RtcpView::ExtendedReport(report) = only(&bytes) else { panic!("not an extended report") };
    assert_eq!(report.sender, SENDER);
    let [XrBlock::ReferenceTime(ntp), XrBlock::Delays(delays)] = report.blocks().collect::<Vec<_>>()[..] else {
        panic!("two blocks")
    };
    assert_eq!((ntp, delays.iter().collect::<Vec<_>>()), (INFO.ntp, vec![DELAY]));
    assert_eq!(write_extended_report(&mut [0; 100], SENDER, None, &[]), None);
}

#[test]
fn blocks_of_other_kinds_are_passed_over_and_a_truncated_one_ends_the_report() {
    let of_blocks = |blocks: &[u8]| [&[0x80, 207, 0, 1 + blocks.len() as u8 / 4, 1, 2, 3, 4][..], blocks].concat();
    // A summary of statistics, then a time, then one that says to be longer than it is.
    let blocks = [&[6, 0, 0, 1, 9, 9, 9, 9, 4, 0, 0, 2][..], &7u64.to_be_bytes(), &[4, 0, 0, 2, 0, 0, 0, 0]].concat();
    let bytes = of_blocks(&blocks);
    let RtcpView::ExtendedReport(report) = only(&bytes) else { panic!("not an extended report") };
    let [XrBlock::ReferenceTime(7)] = report.blocks().collect::<Vec<_>>()[..] else { panic!("one block") };
    let short = of_blocks(&[4, 0, 0, 1, 0, 0, 0, 0]);
    let RtcpView::ExtendedReport(report) = only(&short) else { panic!("not an extended report") };
    assert_eq!(report.blocks().count(), 0, "a time needs eight bytes");
    assert!(packets(&[0x80, 207, 0, 0]).next().is_some_and(|packet| packet.is_err()));
}

#[test]
fn a_written_estimate_is_read_by_another_implementation() {
    for (bps, read) in [(262_143, 262_143), (2_500_001, 2_500_000), (u64::MAX, 0x3_ffff << 46)] {
        let bytes = written(|out| write_remb(out, SENDER, bps, &[MEDIA, SENDER]));
        let RtcpView::Remb(remb) = only(&bytes) else { panic!("not an estimate") };
        assert_eq!((remb.bitrate_bps, remb.ssrcs().collect::<Vec<_>>()), (read, vec![MEDIA, SENDER]));
        if bps < u64::MAX {
            let other = theirs::<ReceiverEstimatedMaximumBitrate>(&bytes);
            assert_eq!((other.bitrate as u64, other.ssrcs), (read, vec![MEDIA.0, SENDER.0]));
        }
    }
}

proptest! {
    #[test]
    fn nacks_agree_with_another_implementation(seqs in proptest::collection::btree_set(any::<u16>(), 1..80)) {
        let bytes = written(|out| write_nack(out, SENDER, MEDIA, seqs.iter().copied()));
        let other = theirs::<their_nack::TransportLayerNack>(&bytes);
        prop_assert_eq!((other.sender_ssrc, other.media_ssrc), (SENDER.0, MEDIA.0));
        let listed: Vec<u16> = other.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        prop_assert_eq!(&listed, &seqs.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(&their_bytes(other), &bytes);
        let RtcpView::Nack(nack) = only(&bytes) else { panic!("not a nack") };
        prop_assert_eq!(nack.seqs().collect::<Vec<_>>(), listed);
    }

    #[test]
    fn feedback_agrees_with_another_implementation(
        base_seq: u16,
        statuses in proptest::collection::vec(
            // Runs, so that every kind of chunk is met.
            (prop_oneof![Just(None), (0i16..256).prop_map(Some), any::<i16>().prop_map(Some)], 1usize..24), 1..20,
        ),
    ) {
        let statuses: Vec<Option<i16>> =
            statuses.into_iter().flat_map(|(status, times)| std::iter::repeat_n(status, times)).collect();
        let bytes = written(|out| write_twcc(out, &twcc_header(base_seq, 0), &statuses));
        let header = twcc_header(base_seq, statuses.len() as u16);

        let RtcpView::Twcc(ours) = only(&bytes) else { panic!("not feedback") };
        prop_assert_eq!(ours.header, header);
        let expected: Vec<_> =
            statuses.iter().enumerate().map(|(at, status)| (base_seq.wrapping_add(at as u16), *status)).collect();
        prop_assert_eq!(ours.packets().collect::<Vec<_>>(), expected);

        let other = theirs::<TransportLayerCc>(&bytes);
        prop_assert_eq!(other.base_sequence_number, base_seq);
        prop_assert_eq!(other.packet_status_count, header.status_count);
        prop_assert_eq!(other.reference_time, header.reference_time);
        prop_assert_eq!(other.fb_pkt_count, header.feedback_count);
        let deltas: Vec<i64> = other.recv_deltas.iter().map(|delta| delta.delta / 250).collect();
        prop_assert_eq!(deltas, statuses.iter().flatten().map(|delta| i64::from(*delta)).collect::<Vec<_>>());
        let small = other.recv_deltas.iter().filter(|d| d.type_tcc_packet == SymbolTypeTcc::PacketReceivedSmallDelta);
        prop_assert_eq!(small.count(), statuses.iter().flatten().filter(|d| (0..256).contains(*d)).count());
        prop_assert_eq!(their_bytes(other), bytes);
    }
}
