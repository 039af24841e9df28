//! What a publisher sends, as its subscribers will see it.

use super::*;
use crate::base::format::Format;
use crate::runtime::clock;
use crate::session::publication::TAKE_OVER_AFTER;
use crate::session::streams::{IngressConfig, MlineConfig, Payload};
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
    StreamsConfig { mlines: mids.iter().enumerate().map(mline).collect(), ext_mixed: true }
}

fn ingress(mids: &[&str], ssrcs: &[(Ssrc, Option<Ssrc>)]) -> Ingress {
    let mut ingress = Ingress::default();
    ingress.configure(&streams(mids, ssrcs));
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
