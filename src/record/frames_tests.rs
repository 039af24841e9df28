//! Frames out of packets, format by format.

use super::*;
use crate::base::format::H264Profile;
use crate::base::packet::PacketMeta;
use crate::runtime::clock;

const H264: Format = Format::H264 { profile: H264Profile::ConstrainedBaseline, packetization_mode: 1 };

fn packet(format: Format, timestamp: u32, marker: bool, payload: &[u8]) -> Taken {
    let marks = payload::frame_marks(format, payload);
    let meta = PacketMeta { timestamp, marker, format, marks, ..PacketMeta::NOTHING };
    Taken { meta, arrived_at: clock::now(), payload: payload.to_vec() }
}

/// Frames of packets (timestamp, marker, payload), as (is a keyframe, bytes).
fn frames(format: Format, packets: &[(u32, bool, &[u8])]) -> Vec<(bool, Vec<u8>)> {
    let mut assembler = Assembler::default();
    let all = packets.iter().flat_map(|(timestamp, marker, payload)| {
        assembler.handle_packet(&packet(format, *timestamp, *marker, payload))
    });
    all.flatten().map(|frame| (frame.is_key, frame.data)).collect()
}

const VP8_KEY: [u8; 11] = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];

#[test]
fn a_vp8_frame_is_its_packets_without_their_descriptors() {
    let found = frames(
        Format::Vp8,
        &[
            (1, true, &[0x10, 0x11, 9]),
            (2, false, &VP8_KEY),
            (2, true, &[0x00, 7, 8]),
            (3, true, &[0x90, 0x80, 5, 0x11, 9]),
        ],
    );
    let key = [&VP8_KEY[1..], &[7, 8]].concat();
    assert_eq!(found, [(true, key), (false, vec![0x11, 9])], "nothing before the first keyframe");
}

#[test]
fn a_frame_without_an_end_ends_with_the_next() {
    let found = frames(Format::Vp8, &[(2, false, &VP8_KEY), (3, true, &[0x10, 0x11, 9])]);
    assert_eq!(found.len(), 2);
}

#[test]
fn after_a_gap_nothing_comes_before_a_keyframe() {
    let mut assembler = Assembler::default();
    assert!(assembler.needs_keyframe());
    let count = |assembler: &mut Assembler, payload: &[u8]| {
        assembler.handle_packet(&packet(Format::Vp8, 1, true, payload)).into_iter().flatten().count()
    };
    assert_eq!(count(&mut assembler, &VP8_KEY), 1);
    assert!(!assembler.needs_keyframe());
    assembler.handle_gap();
    assert!(assembler.needs_keyframe());
    assert_eq!(count(&mut assembler, &[0x10, 0x11, 9]), 0);
    assert_eq!(count(&mut assembler, &VP8_KEY), 1);
}

#[test]
fn the_layers_of_a_vp9_picture_become_a_superframe() {
    let vp9 = Format::Vp9 { profile: 0 };
    // I L B (E): picture id, SID, TL0PICIDX; the first frame's bytes are those of a keyframe.
    let found = frames(
        vp9,
        &[
            (1, false, &[0xa8, 1, 0x00, 0, 0x82, 0x49, 0x83, 0x42, 1]),
            (1, false, &[0xa4, 1, 0x00, 0, 2]),
            (1, true, &[0xac, 1, 0x03, 0, 5, 6]),
            (2, true, &[0xec, 2, 0x00, 1, 0x86, 4]),
        ],
    );
    let mut picture = vec![0x82, 0x49, 0x83, 0x42, 1, 2, 5, 6];
    picture.extend([0xd9, 6, 0, 0, 0, 2, 0, 0, 0, 0xd9]);
    assert_eq!(found, [(true, picture), (false, vec![0x86, 4])]);
}

#[test]
fn a_vp9_keyframe_tells_its_size_where_its_descriptor_does_not() {
    // VP9 §6.2: profile 0; color space 2, no full range; 640 by 360 less one each.
    let data = [0x82, 0x49, 0x83, 0x42, 0x40, 0x27, 0xf0, 0x16, 0x70];
    assert_eq!(vp9_size(&data), Some((640, 360)));
    assert_eq!(vp9_size(&data[..8]), None);
    let mut assembler = Assembler::default();
    let key = packet(Format::Vp9 { profile: 0 }, 1, true, &[&[0x0c][..], &data].concat());
    let [_, frame] = assembler.handle_packet(&key);
    assert_eq!(frame.and_then(|frame| frame.size), Some((640, 360)));
}

#[test]
fn h264_units_get_start_codes() {
    let found = frames(
        H264,
        &[
            (1, false, &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 2]),
            (1, false, &[0x7c, 0x85, 0x88, 1]),
            (1, true, &[0x7c, 0x45, 2]),
            (2, true, &[0x41, 0x9a, 3]),
        ],
    );
    let key = [[0, 0, 0, 1, 0x67, 1].as_slice(), &[0, 0, 0, 1, 0x68, 2], &[0, 0, 0, 1, 0x65, 0x88, 1, 2]].concat();
    assert_eq!(found, [(true, key), (false, vec![0, 0, 0, 1, 0x41, 0x9a, 3])]);
}

#[test]
fn av1_obus_get_sizes_and_a_delimiter_before_them() {
    let av1 = Format::Av1 { profile: 0 };
    // N, W=2: a sequence header, and a frame that goes on in the next packet.
    let found = frames(
        av1,
        &[(1, false, &[0x68, 2, 0x08, 7, 0x30, 1]), (1, true, &[0x90, 2, 3]), (2, true, &[0x10, 0x34, 0x20, 9])],
    );
    let key = vec![0x12, 0, 0x0a, 1, 7, 0x32, 3, 1, 2, 3];
    assert_eq!(found, [(true, key), (false, vec![0x12, 0, 0x36, 0x20, 1, 9])]);
}

#[test]
fn what_is_encrypted_for_others_is_noise() {
    let (mut assembler, vp9) = (Assembler::default(), Format::Vp9 { profile: 0 });
    for timestamp in 0..2 {
        let noise = packet(vp9, timestamp, true, &[0x0c, 0x17, 0x2a, 0x99, 0x11]);
        assert_eq!(assembler.handle_packet(&noise), [None, None]);
    }
    assert!(assembler.is_noise() && assembler.needs_keyframe());
}

#[test]
fn hostile_payloads_never_panic() {
    use crate::wire::be::hostile::Mutator;
    let seeds = [
        VP8_KEY.to_vec(),
        vec![0xaa, 0x81, 2, 0x10, 7, 0x38, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x14, 1, 0x82, 0x49, 0x83, 0x42],
        vec![0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 1, 2, 0, 1, 0x65],
        vec![0x7c, 0x85, 1, 2, 3],
        vec![0x68, 2, 0x0a, 0x0b, 0x30, 1],
    ];
    let mut mutator = Mutator::new(0x0072_6563);
    for round in 0..100_000u32 {
        let payload = mutator.next(&seeds);
        for format in [Format::Vp8, Format::Vp9 { profile: 0 }, H264, Format::Av1 { profile: 0 }, Format::Opus] {
            let mut assembler = Assembler::default();
            assembler.handle_packet(&packet(format, 1, false, &payload));
            assembler.handle_packet(&packet(format, 1, round & 1 == 0, &payload));
            assembler.handle_packet(&packet(format, 2, true, &payload));
        }
    }
}
