//! What a publisher sends, as its subscribers will see it.

use std::time::Duration;

use super::*;
use crate::base::format::Format;
use crate::runtime::clock;
use crate::session::publication::TAKE_OVER_AFTER;
use crate::session::streams::{EncodingConfig, IngressConfig, Payload};
use crate::wire::rtp::{self, Fixed};
use crate::wire::rtp_ext::ExtWriter;

const TRACK: TrackKey = TrackKey { index: 2, epoch: 0 };
const MID: u8 = 4;
const TWCC: u8 = 3;
const LEVEL: u8 = 1;

fn streams(mids: &[&str], ssrcs: &[(Ssrc, Option<Ssrc>)]) -> StreamsConfig {
    let mline = |(index, mid): (usize, &&str)| {
        Some(MlineConfig {
            mid: Mid::new(mid.as_bytes()).unwrap(),
            kind: MediaKind::Video,
            exts: vec![(MID, Ext::Mid), (TWCC, Ext::TransportCc), (LEVEL, Ext::AudioLevel)],
            payloads: vec![Payload {
                pt: 96,
                format: Format::Vp8,
                rtx_pt: Some(97),
                nack: true,
                pli: true,
                fir: false,
                transport_cc: true,
                remb: false,
            }],
            ingress: Some(IngressConfig::single(
                TrackKey { index: TRACK.index + index as u32, epoch: 0 },
                if index == 0 { ssrcs.to_vec() } else { Vec::new() },
            )),
            egress: None,
        })
    };
    StreamsConfig { mlines: mids.iter().enumerate().map(mline).collect(), ext_mixed: true, downlink_bps_max: None }
}

fn ingress(mids: &[&str], ssrcs: &[(Ssrc, Option<Ssrc>)]) -> Ingress {
    let mut ingress = Ingress::default();
    ingress.configure(clock::now(), &streams(mids, ssrcs));
    ingress
}

fn packet(ssrc: u32, pt: u8, seq: u64, exts: &[(u8, &[u8])], payload: &[u8], padding: u8) -> Vec<u8> {
    let (mut out, mut block) = (vec![0; 1500], [0; 100]);
    let mut writer = ExtWriter::one_byte(&mut block);
    exts.iter().for_each(|(id, value)| assert!(writer.push(*id, value)));
    let (profile, len) = writer.finish();
    let fixed = Fixed { marker: false, pt, seq: seq as u16, timestamp: 0, ssrc: Ssrc(ssrc) };
    let at = rtp::write_header(&mut out, &fixed, &[], (len > 0).then_some((profile, &block[..len]))).unwrap();
    out[at..at + payload.len()].copy_from_slice(payload);
    let len = rtp::write_padding(&mut out, at + payload.len(), padding).unwrap();
    out.truncate(len);
    out
}

/// Track, number and payload of what came out.
type Out = Result<(u32, u64, Vec<u8>), Discard>;

fn take(ingress: &mut Ingress, now: Instant, bytes: &[u8], index: u64) -> Out {
    let media = ingress.handle_rtp(now, bytes, index)?;
    Ok((media.track.index, media.packet.meta.seq, media.packet.payload.to_vec()))
}

#[test]
fn a_retransmission_takes_the_place_of_what_was_lost() {
    let now = clock::now();
    let mut ingress = ingress(&["0"], &[(Ssrc(1), Some(Ssrc(2)))]);
    take(&mut ingress, now, &packet(1, 96, 10, &[], b"a", 0), 10).unwrap();
    take(&mut ingress, now, &packet(1, 96, 12, &[], b"c", 0), 12).unwrap();
    let rtx = packet(2, 97, 700, &[], b"\x00\x0bb", 0);
    assert_eq!(take(&mut ingress, now, &rtx, 700), Ok((2, 11, b"b".to_vec())));
    assert_eq!(take(&mut ingress, now, &packet(1, 96, 11, &[], b"b", 0), 11), Err(Discard::Duplicate));
    let again = packet(2, 97, 701, &[], b"\x00\x0bb", 0);
    assert_eq!(take(&mut ingress, now, &again, 701), Err(Discard::Duplicate));
}

#[test]
fn padding_is_stripped_and_the_gap_of_padding_alone_is_closed() {
    let now = clock::now();
    let mut ingress = ingress(&["0"], &[(Ssrc(1), None)]);
    assert_eq!(take(&mut ingress, now, &packet(1, 96, 10, &[], b"a", 5), 10), Ok((2, 10, b"a".to_vec())));
    assert_eq!(take(&mut ingress, now, &packet(1, 96, 11, &[], b"", 200), 11), Err(Discard::PaddingOnly));
    assert_eq!(take(&mut ingress, now, &packet(1, 96, 12, &[], b"b", 0), 12), Ok((2, 11, b"b".to_vec())));
    let probe = packet(2, 97, 1, &[(MID, b"0")], b"", 200);
    assert_eq!(take(&mut ingress, now, &probe, 1), Err(Discard::PaddingOnly));
    assert_eq!(ingress.next_nack_at(), None);
}

#[test]
fn a_source_is_learned_by_its_mid() {
    let now = clock::now();
    let mut ingress = ingress(&["0", "1"], &[]);
    assert_eq!(take(&mut ingress, now, &packet(9, 96, 1, &[], b"x", 0), 1), Err(Discard::UnknownSsrc));
    assert_eq!(take(&mut ingress, now, &packet(9, 96, 2, &[(MID, b"1")], b"x", 0), 2).map(|out| out.0), Ok(3));
    assert_eq!(take(&mut ingress, now, &packet(9, 96, 3, &[], b"x", 0), 3).map(|out| out.0), Ok(3));
    let unknown = packet(8, 96, 1, &[(MID, b"7")], b"x", 0);
    assert_eq!(take(&mut ingress, now, &unknown, 1), Err(Discard::UnknownSsrc));
    assert_eq!(take(&mut ingress, now, &packet(9, 50, 4, &[], b"x", 0), 4), Err(Discard::UnknownPayloadType));
}

#[test]
fn of_two_sources_at_once_the_first_is_kept_and_a_later_one_goes_on_from_it() {
    let now = clock::now();
    let mut ingress = ingress(&["0"], &[]);
    take(&mut ingress, now, &packet(1, 96, 10, &[(MID, b"0")], b"a", 0), 10).unwrap();
    let other = packet(2, 96, 900, &[(MID, b"0")], b"b", 0);
    assert_eq!(take(&mut ingress, now, &other, 900), Err(Discard::UnknownSsrc));
    let later = now + TAKE_OVER_AFTER;
    let other = packet(2, 96, 901, &[(MID, b"0")], b"b", 0);
    assert_eq!(take(&mut ingress, later, &other, 901), Ok((2, 11, b"b".to_vec())));
}

#[test]
fn extensions_of_this_hop_go_no_further() {
    let now = clock::now();
    let mut ingress = ingress(&["0"], &[(Ssrc(1), None)]);
    let bytes = packet(1, 96, 10, &[(MID, b"0"), (TWCC, &[0, 7]), (LEVEL, &[0x85]), (9, b"?")], b"a", 0);
    let media = ingress.handle_rtp(now, &bytes, 10).unwrap();
    assert_eq!(media.packet.exts, [Ext::AudioLevel as u8, 1, 0x85]);
    assert!(media.is_first);
    assert!(ingress.twcc.next_timeout().is_some());
}

#[test]
fn a_peer_that_changes_its_source_for_ever_takes_no_more_memory() {
    let now = clock::now();
    let mut ingress = ingress(&["0"], &[]);
    for ssrc in 0..10_000 {
        let _ = take(&mut ingress, now, &packet(ssrc, 96, 1, &[(MID, b"0")], b"x", 0), 1);
    }
    assert_eq!(ingress.sources.len(), SOURCES_MAX);
}

/// Header extension ids of a simulcast.
const RID: u8 = 10;
const REPAIRED: u8 = 11;

/// One m-line with these encodings.
fn simulcast(encodings: &[EncodingConfig]) -> StreamsConfig {
    let mut config = streams(&["0"], &[]);
    let mline = config.mlines[0].as_mut().unwrap();
    mline.exts.extend([(RID, Ext::Rid), (REPAIRED, Ext::RepairedRid)]);
    mline.ingress.as_mut().unwrap().encodings = encodings.to_vec();
    config
}

fn named(rids: &[&str]) -> StreamsConfig {
    let named = |rid: &&str| EncodingConfig { rid: Rid::new(rid.as_bytes()), ssrcs: Vec::new() };
    simulcast(&rids.iter().map(named).collect::<Vec<_>>())
}

/// Encoding, number and payload of what came out.
fn take_encoded(ingress: &mut Ingress, now: Instant, bytes: &[u8], index: u64) -> Result<(u8, u64, Vec<u8>), Discard> {
    let media = ingress.handle_rtp(now, bytes, index)?;
    Ok((media.packet.meta.encoding, media.packet.meta.seq, media.packet.payload.to_vec()))
}

#[test]
fn streams_of_a_simulcast_are_known_by_their_names_and_count_each_for_itself() {
    let now = clock::now();
    let mut ingress = Ingress::default();
    ingress.configure(now, &named(&["q", "h"]));
    for (ssrc, rid, seq, encoding) in [(1, b"q", 10, 0), (2, b"h", 900, 1)] {
        let first = packet(ssrc, 96, seq, &[(MID, b"0"), (RID, rid)], b"a", 0);
        assert_eq!(take_encoded(&mut ingress, now, &first, seq), Ok((encoding, seq, b"a".to_vec())));
        // Later ones need no name.
        let next = packet(ssrc, 96, seq + 2, &[], b"c", 0);
        assert_eq!(take_encoded(&mut ingress, now, &next, seq + 2), Ok((encoding, seq + 2, b"c".to_vec())));
    }
    assert!(ingress.next_nack_at().is_some());
    let missing: Vec<_> = ingress.streams().map(|stream| (stream.ssrc, stream.nack.next_timeout().is_some())).collect();
    assert_eq!(missing, [(Ssrc(1), true), (Ssrc(2), true)]);
    // Retransmissions name what they repair; a browser's later ones name nothing.
    let repair = packet(12, 97, 5, &[(MID, b"0"), (REPAIRED, b"h")], b"\x03\x85b", 0);
    assert_eq!(take_encoded(&mut ingress, now, &repair, 5), Ok((1, 901, b"b".to_vec())));
    let repair = packet(11, 97, 5, &[(MID, b"0"), (RID, b"q")], b"\x00\x0bb", 0);
    assert_eq!(take_encoded(&mut ingress, now, &repair, 5), Ok((0, 11, b"b".to_vec())));
    assert_eq!(ingress.next_nack_at(), None);
    let reports: Vec<_> = ingress.numbers().map(|report| (report.encoding, report.rid.unwrap().to_string())).collect();
    assert_eq!(reports, [(0, "q".to_owned()), (1, "h".to_owned())]);
    assert_eq!((ingress.keyframe_target(0, 1), ingress.keyframe_target(0, 2)), (Some((Ssrc(2), true)), None));
    assert_eq!(ingress.handle_sender_report(now, Ssrc(2), 1), Some((TRACK, 1)));
    assert_eq!(ingress.handle_sender_report(now, Ssrc(3), 1), None);
}

#[test]
fn a_name_that_was_not_negotiated_and_no_name_at_all_are_discarded() {
    let now = clock::now();
    let mut ingress = Ingress::default();
    ingress.configure(now, &named(&["q", "h"]));
    let stranger = packet(1, 96, 1, &[(MID, b"0"), (RID, b"x")], b"a", 0);
    assert_eq!(take_encoded(&mut ingress, now, &stranger, 1), Err(Discard::UnknownRid));
    let nameless = packet(1, 96, 2, &[(MID, b"0")], b"a", 0);
    assert_eq!(take_encoded(&mut ingress, now, &nameless, 2), Err(Discard::UnknownSsrc));
    let in_time = packet(1, 96, 3, &[(RID, b"h")], b"a", 0);
    assert_eq!(take_encoded(&mut ingress, now, &in_time, 3), Ok((1, 3, b"a".to_vec())));
    assert_eq!(ingress.sources.len(), 1);
}

#[test]
fn a_group_of_sources_tells_the_encodings() {
    let now = clock::now();
    let pair = |n: u32| EncodingConfig { rid: None, ssrcs: vec![(Ssrc(n), Some(Ssrc(n + 10)))] };
    let mut ingress = Ingress::default();
    ingress.configure(now, &simulcast(&[pair(1), pair(2), pair(3)]));
    for (ssrc, encoding) in [(3, 2), (1, 0), (2, 1)] {
        let media = packet(ssrc, 96, 10, &[], b"a", 0);
        assert_eq!(take_encoded(&mut ingress, now, &media, 10), Ok((encoding, 10, b"a".to_vec())));
        let repair = packet(ssrc + 10, 97, 1, &[], b"\x00\x09z", 0);
        assert_eq!(take_encoded(&mut ingress, now, &repair, 1), Ok((encoding, 9, b"z".to_vec())));
    }
    let stranger = packet(4, 96, 10, &[(MID, b"0")], b"a", 0);
    assert_eq!(take_encoded(&mut ingress, now, &stranger, 10), Err(Discard::UnknownSsrc));
}

#[test]
fn an_encoding_that_pauses_goes_on_and_one_with_a_new_source_too_while_the_others_stay() {
    let now = clock::now();
    let mut ingress = Ingress::default();
    ingress.configure(now, &named(&["q", "h"]));
    let of = |ssrc, rid: &'static [u8], seq| packet(ssrc, 96, seq, &[(MID, b"0"), (RID, rid)], b"a", 0);
    take_encoded(&mut ingress, now, &of(1, b"q", 10), 10).unwrap();
    take_encoded(&mut ingress, now, &of(2, b"h", 20), 20).unwrap();
    // `h` is silent for a minute and comes back under its ssrc.
    let later = now + Duration::from_secs(60);
    take_encoded(&mut ingress, later, &of(1, b"q", 11), 11).unwrap();
    assert_eq!(take_encoded(&mut ingress, later, &of(2, b"h", 21), 21).map(|out| out.1), Ok(21));
    // Another source for `h` while the first is heard: the first stays. When it is silent, the other goes on from it.
    assert_eq!(take_encoded(&mut ingress, later, &of(5, b"h", 700), 700), Err(Discard::UnknownSsrc));
    let later = later + TAKE_OVER_AFTER;
    take_encoded(&mut ingress, later, &of(1, b"q", 12), 12).unwrap();
    assert_eq!(take_encoded(&mut ingress, later, &of(5, b"h", 701), 701), Ok((1, 22, b"a".to_vec())));
    assert_eq!(take_encoded(&mut ingress, later, &of(1, b"q", 13), 13), Ok((0, 13, b"a".to_vec())));
}

#[test]
fn a_simulcast_of_other_names_begins_anew_with_numbers_that_go_on() {
    let now = clock::now();
    let mut ingress = Ingress::default();
    ingress.configure(now, &named(&["q", "h"]));
    let of = |ssrc, rid: &'static [u8], seq| packet(ssrc, 96, seq, &[(MID, b"0"), (RID, rid)], b"a", 0);
    take_encoded(&mut ingress, now, &of(1, b"q", 10), 10).unwrap();
    take_encoded(&mut ingress, now, &of(2, b"h", 20), 20).unwrap();
    // The same again changes nothing.
    ingress.configure(now, &named(&["q", "h"]));
    assert_eq!(take_encoded(&mut ingress, now, &packet(2, 96, 21, &[], b"a", 0), 21).map(|out| out.0), Ok(1));
    // Now the second place has another stream, and the source that was there another place.
    ingress.configure(now, &named(&["h", "f"]));
    assert_eq!(take_encoded(&mut ingress, now, &of(2, b"h", 22), 22), Ok((0, 11, b"a".to_vec())));
    assert_eq!(take_encoded(&mut ingress, now, &of(3, b"f", 500), 500), Ok((1, 22, b"a".to_vec())));
    // And at last there is only one, of no name.
    ingress.configure(now, &streams(&["0"], &[]));
    let plain = packet(3, 96, 501, &[(MID, b"0")], b"a", 0);
    assert_eq!(take_encoded(&mut ingress, now, &plain, 501), Ok((0, 12, b"a".to_vec())));
    assert_eq!(ingress.numbers().count(), 1);
}
