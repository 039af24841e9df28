//! The rules one by one.

use super::stream_tests::Mode;
use super::*;

fn layer(encoding: u8, spatial: u8, temporal: u8) -> Option<Layer> {
    Some(Layer { encoding, spatial, temporal })
}

/// One packet pictures of a stream with the pattern T0 T2 T1 T2.
fn head(encoding: u8, seq: u64, is_key: bool) -> PacketHead {
    let temporal = if is_key { 0 } else { [0, 2, 1, 2][seq as usize % 4] };
    let marks = FrameMarks {
        temporal,
        is_start: true,
        is_key,
        is_switch_up: is_key || temporal > 0,
        needs_earlier: !is_key,
        ..FrameMarks::default()
    };
    PacketHead { encoding, seq, timestamp: seq as u32 * 3000, marker: true, marks }
}

fn started(target: Option<Layer>) -> Selector {
    let mut selector = Selector::default();
    selector.set_target(target);
    assert_eq!(selector.wants_keyframe(), target.map(|target| target.encoding));
    assert!(matches!(selector.handle_packet(&head(0, 0, true), None), Verdict::Pass(_)));
    assert_eq!(selector.wants_keyframe(), None);
    selector
}

const PASSES: Verdict = Verdict::Pass(Cut { top: 0, active_targets: None });

#[test]
fn withheld_pictures_are_told_once_each() {
    let mut selector = started(layer(0, 0, 1));
    let two = |selector: &mut Selector, seq: u64| {
        let first = PacketHead { marker: false, ..head(0, seq, false) };
        let second = PacketHead { seq: seq + 1000, marks: FrameMarks { is_start: false, ..first.marks }, ..first };
        [first, second].map(|head| selector.handle_packet(&head, None))
    };
    let told = |skips_picture| Verdict::Withhold { skips_picture };
    assert_eq!(two(&mut selector, 1), [told(true), told(false)]);
    // What comes late is told by nobody: its number is a gap already.
    assert_eq!(selector.handle_packet(&head(0, 5, false), None), told(false));
    assert_eq!(selector.handle_packet(&head(0, 1002, false), None), PASSES);
}

#[test]
fn nothing_passes_without_a_target_or_before_a_keyframe() {
    let mut selector = Selector::default();
    assert_eq!(selector.wants_keyframe(), None);
    let withheld = Verdict::Withhold { skips_picture: false };
    assert_eq!(selector.handle_packet(&head(0, 0, true), None), withheld);
    selector.set_target(layer(1, 0, 0));
    assert_eq!(selector.handle_packet(&head(0, 1, true), None), withheld);
    assert_eq!(selector.handle_packet(&head(1, 1, false), None), withheld);
    assert_eq!(selector.handle_packet(&head(9, 1, true), None), withheld, "no such encoding");
    assert_eq!((selector.current(), selector.wants_keyframe()), (None, Some(1)));
    assert_eq!(selector.handle_packet(&head(1, 8, true), None), PASSES);
    assert_eq!(selector.current(), layer(1, 0, 0));
    selector.restart();
    assert_eq!((selector.current(), selector.wants_keyframe()), (None, Some(1)));
}

#[test]
fn what_is_forwarded_goes_on_until_the_other_encoding_has_a_keyframe() {
    let mut selector = started(layer(0, 0, 0));
    selector.set_target(layer(1, 0, 0));
    assert_eq!(selector.wants_keyframe(), Some(1));
    assert_eq!(selector.handle_packet(&head(0, 4, false), None), PASSES);
    assert_eq!(selector.handle_packet(&head(1, 50, true), None), PASSES);
    for late in [head(0, 8, false), head(0, 8, true), head(1, 48, false)] {
        assert_eq!(selector.handle_packet(&late, None), Verdict::Withhold { skips_picture: false });
    }
}

#[test]
fn on_the_way_down_only_the_lowest_layer_of_the_dearer_encoding_goes_on() {
    let mut selector = started(layer(1, 0, 2).map(|it| Layer { encoding: 0, ..it }));
    assert_eq!(selector.handle_packet(&head(0, 1, false), None), PASSES);
    selector.thin_out();
    assert_eq!(selector.handle_packet(&head(0, 2, false), None), PASSES, "nothing is waited for");
    selector.set_target(layer(1, 0, 2));
    selector.thin_out();
    let passes = |selector: &mut Selector, seq| selector.handle_packet(&head(0, seq, false), None) == PASSES;
    assert_eq!([3, 4, 5, 6].map(|seq| passes(&mut selector, seq)), [false, true, false, false]);
    assert_eq!(selector.wants_keyframe(), Some(1));
    assert_eq!(selector.handle_packet(&head(1, 9, true), None), PASSES);
    assert_eq!(selector.handle_packet(&head(1, 10, false), None), PASSES, "all of the other one");
}

#[test]
fn a_pause_lets_the_picture_end() {
    let mut selector = started(layer(0, 0, 0));
    let first = PacketHead { marker: false, ..head(0, 4, false) };
    assert_eq!(selector.handle_packet(&first, None), PASSES);
    selector.set_target(None);
    let last = PacketHead { seq: 5, marks: FrameMarks { is_start: false, ..first.marks }, ..first };
    assert_eq!(selector.handle_packet(&last, None), PASSES);
    assert!(matches!(selector.handle_packet(&head(0, 8, false), None), Verdict::Withhold { .. }));
    assert_eq!((selector.current(), selector.wants_keyframe()), (None, None));
}

#[test]
fn where_no_keyframe_can_be_seen_it_begins_blindly() {
    let mut selector = Selector::default();
    selector.set_target(layer(0, 7, 7));
    let opaque = |seq: u64, picture: u32, marker| PacketHead {
        encoding: 0,
        seq,
        timestamp: picture,
        marker,
        marks: FrameMarks::default(),
    };
    assert!(matches!(selector.handle_packet(&opaque(0, 1, false), None), Verdict::Withhold { .. }));
    selector.begin_blind();
    assert!(matches!(selector.handle_packet(&opaque(1, 1, true), None), Verdict::Withhold { .. }), "in its middle");
    for seq in 2..20 {
        assert!(matches!(selector.handle_packet(&opaque(seq, seq as u32, true), None), Verdict::Pass(_)));
    }
    assert_eq!(selector.wants_keyframe(), None);
    // Pauses work, too: the marker tells where the next picture begins.
    selector.set_target(None);
    assert!(matches!(selector.handle_packet(&opaque(20, 20, true), None), Verdict::Withhold { .. }));
}

#[test]
fn after_a_run_of_base_pictures_higher_layers_come_one_by_one() {
    let mut selector = Selector::default();
    selector.set_target(layer(0, 0, 2));
    // Live packets were seen and withheld before.
    assert!(matches!(selector.handle_packet(&head(0, 9, false), None), Verdict::Withhold { .. }));
    selector.begin_run(&head(0, 0, true), None, false);
    let passes =
        |selector: &mut Selector, seq| matches!(selector.handle_packet(&head(0, seq, false), None), Verdict::Pass(_));
    assert!(passes(&mut selector, 4) && passes(&mut selector, 8));
    assert!(!passes(&mut selector, 9));
    assert_eq!(selector.wants_keyframe(), None);
    // T1 first, then T2.
    assert_eq!([10, 11, 12, 13].map(|seq| passes(&mut selector, seq)), [true; 4]);
    selector.begin_run(&head(0, 0, true), None, false);
    assert_eq!([15, 16, 17].map(|seq| passes(&mut selector, seq)), [false, true, false]);
}

#[test]
fn spatial_layers_that_stand_apart_wait_for_a_keyframe_and_where_the_line_presses_with_fewer_pictures() {
    let targets = Mode::Key.targets().unwrap();
    let frame = |seq: u64, spatial: u8, temporal: u8, is_key: bool| {
        let at = |spatial: u8, temporal: u8| 1u32 << (spatial * 3 + temporal);
        let set = |spatial: u8| (temporal..3).fold(0, |bits, temporal| bits | at(spatial, temporal));
        let of = if is_key { (spatial..3).fold(0, |bits, spatial| bits | set(spatial)) } else { set(spatial) };
        let marks = FrameMarks {
            spatial,
            temporal,
            is_start: true,
            is_end: true,
            is_key,
            targets: of,
            switches: if temporal == 0 { of } else { 0 },
            ..FrameMarks::default()
        };
        let timestamp = (seq / 3) as u32;
        PacketHead { encoding: 0, seq, timestamp, marker: spatial == 2, marks }
    };
    let mut selector = Selector::default();
    selector.set_target(layer(0, 2, 2));
    let passes = |selector: &mut Selector, head| match selector.handle_packet(&head, Some(&targets)) {
        Verdict::Pass(cut) => Some(cut),
        Verdict::Withhold { .. } => None,
    };
    for spatial in 0..3 {
        let cut = passes(&mut selector, frame(spatial.into(), spatial, 0, true)).expect("of the keyframe");
        // Who follows the highest layer cannot fall to a lower one.
        assert_eq!(cut.active_targets, Some(ActiveTargets { mask: 0b111_000_000, count: 9 }));
    }
    assert_eq!(
        [3, 4, 5].map(|seq| passes(&mut selector, frame(seq, seq as u8 - 3, 2, false)).is_some()),
        [false, false, true]
    );
    selector.set_target(layer(0, 0, 2));
    let picture = |selector: &mut Selector, first: u64| {
        [0, 1, 2].map(|spatial| passes(selector, frame(first + u64::from(spatial), spatial, 2, false)).is_some())
    };
    assert_eq!(picture(&mut selector, 6), [false, false, true]);
    assert_eq!((selector.current(), selector.wants_keyframe()), (layer(0, 2, 2), Some(0)));
    selector.set_pressed(true);
    assert_eq!(picture(&mut selector, 9), [false; 3]);
    assert_eq!((selector.current(), selector.wants_keyframe()), (layer(0, 2, 0), Some(0)));
    let cut = passes(&mut selector, frame(12, 0, 0, true)).expect("of the new target");
    assert!(cut.marker(false, &frame(12, 0, 0, true).marks), "the last that passes");
    assert_eq!((selector.current(), selector.wants_keyframe()), (layer(0, 0, 2), None));
    assert_eq!(passes(&mut selector, frame(13, 1, 0, true)), None);
    // The sender stops what is followed: the best that is left, here with the next picture.
    let fewer = DecodeTargets { active: 0b000_000_011, ..targets };
    assert!(matches!(selector.handle_packet(&frame(15, 0, 0, false), Some(&fewer)), Verdict::Pass(_)));
    assert_eq!((selector.current(), selector.wants_keyframe()), (layer(0, 0, 1), None));
}
