//! Numbers that go on, whatever happens behind them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::base::format::Format;
use crate::base::frame::{ActiveTargets, FrameMarks, PictureId};
use crate::base::ids::Ssrc;
use crate::runtime::clock;

fn meta(seq: u64, timestamp: u32) -> PacketMeta {
    PacketMeta {
        seq,
        source: Ssrc(1),
        timestamp,
        marker: false,
        format: Format::Vp8,
        encoding: 0,
        marks: FrameMarks::WHOLE,
    }
}

/// A packet of a picture.
fn of_picture(encoding: u8, seq: u64, id: u16, is_start: bool) -> PacketMeta {
    let picture_id = Some(PictureId { value: id & 0x7fff, is_long: true });
    let marks = FrameMarks { picture_id, tl0: Some(id as u8), is_start, ..FrameMarks::default() };
    PacketMeta { encoding, marks, ..meta(seq, u32::from(id) * 3000) }
}

fn bound(seq: u64, timestamp: u32) -> (Instant, Rewriter) {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    rewriter.bind(now, &meta(seq, timestamp), None);
    (now, rewriter)
}

fn own_number(rewriter: &Rewriter, seq: u16) -> Option<(u64, u64)> {
    rewriter.find(seq).map(|found| (found.seq, found.numbers.index))
}

#[test]
fn what_was_withheld_before_it_goes_on_leaves_no_gap() {
    let (now, mut rewriter) = bound(100, 0);
    let number = |rewriter: &mut Rewriter, seq: u64| {
        let numbers = rewriter.number(now, &meta(seq, seq as u32 * 960), Cut::NONE)?;
        Some((numbers.index, numbers.shift.timestamp))
    };
    let (first, shift) = number(&mut rewriter, 100).expect("bound");
    assert_eq!(rewriter.resume(101, 101), Some(100), "nothing was withheld");
    assert_eq!(number(&mut rewriter, 102), Some((first + 2, shift)), "what is lost keeps its number");
    assert_eq!(rewriter.resume(500, 500), Some(102));
    assert_eq!(rewriter.resume(500, 500), Some(499), "asked again it changes nothing");
    assert_eq!(number(&mut rewriter, 500), Some((first + 3, shift)));
    assert_eq!(number(&mut rewriter, 300), None, "what was withheld has no number");
    assert_eq!(number(&mut rewriter, 101), Some((first + 1, shift)), "what was late has one");
    assert_eq!(own_number(&rewriter, first as u16 + 2), Some((102, first + 2)), "and what went before is found");
    assert_eq!(own_number(&rewriter, first as u16 + 3), Some((500, first + 3)));
}

#[test]
fn numbers_go_on_over_a_change_of_track() {
    let now = clock::now();
    let mut rewriter = Rewriter::new(40_000, 1_000);
    rewriter.bind(now, &meta(77, 500), None);
    let first = rewriter.number(now, &meta(77, 500), Cut::NONE).expect("bound");
    assert_eq!(first.index, 40_000 % FIRST_SEQ_MAX);
    assert_eq!(first.shift.timestamp.wrapping_add(500), 1_000);
    let second = rewriter.number(now, &meta(79, 3_500), Cut::NONE).expect("bound");
    assert_eq!((second.index, second.shift.timestamp.wrapping_add(3_500)), (first.index + 2, 4_000));
    rewriter.unbind();
    assert_eq!(rewriter.number(now, &meta(80, 4_000), Cut::NONE), None);
    let later = now + Duration::from_millis(100);
    rewriter.bind(later, &meta(5, 9), None);
    let third = rewriter.number(later, &meta(5, 9), Cut::NONE).expect("bound");
    assert_eq!((third.index, third.shift.timestamp.wrapping_add(9)), (second.index + 1, 4_000 + 9_000));
}

#[test]
fn an_index_is_given_once() {
    let (now, mut rewriter) = bound(10, 0);
    assert!(rewriter.number(now, &meta(12, 0), Cut::NONE).is_some());
    assert!(rewriter.number(now, &meta(11, 0), Cut::NONE).is_some());
    assert!(rewriter.number(now, &meta(11, 0), Cut::NONE).is_none());
    assert!(rewriter.number(now, &meta(9, 0), Cut::NONE).is_none(), "older than the binding");
}

#[test]
fn what_follows_the_last_packet_takes_the_short_way() {
    let (now, mut rewriter) = bound(100, 0);
    let first = rewriter.number(now, &meta(100, 0), Cut::NONE).expect("bound");
    let next = meta(101, 3000);
    assert!(rewriter.is_next(&next) && !rewriter.is_next(&meta(102, 3000)));
    let second = rewriter.number_next(now, &next, Cut::NONE).expect("in order");
    assert_eq!((second.index, rewriter.is_next(&next)), (first.index + 1, false));
    assert_eq!(rewriter.number(now, &next, Cut::NONE), None, "its index is given");
}

#[test]
fn a_sent_number_leads_back_to_the_track() {
    let now = clock::now();
    let mut rewriter = Rewriter::new(7, 0);
    rewriter.bind(now, &meta(100, 0), None);
    rewriter.number(now, &meta(100, 0), Cut::NONE);
    rewriter.number(now, &meta(104, 0), Cut::NONE);
    assert_eq!(own_number(&rewriter, 11), Some((104, 11)));
    assert_eq!(own_number(&rewriter, 12), None);
    assert_eq!(own_number(&rewriter, 6), None);
    rewriter.handle_header_change();
    assert_eq!(rewriter.rebuild(11), None);
    rewriter.unbind();
    assert_eq!(own_number(&rewriter, 11), None);
}

#[test]
fn a_packet_is_rebuilt_with_its_padding_or_not_at_all() {
    let (now, mut rewriter) = bound(100, 0);
    rewriter.keep_paddings(8);
    for seq in (100..110).filter(|seq| *seq != 105) {
        let numbers = rewriter.number(now, &meta(seq, 0), Cut::NONE).expect("bound");
        rewriter.note_padding(numbers.index, seq as u8);
    }
    assert_eq!(
        (0..10).map(|index| rewriter.rebuild(index)).collect::<Vec<_>>(),
        [None, None, Some(102), Some(103), Some(104), Some(0), Some(106), Some(107), Some(108), Some(109),]
    );
    assert_eq!(rewriter.number(now, &meta(105, 0), Cut::NONE), None, "its index is taken");
    assert_eq!(rewriter.rebuild(5), Some(0));
}

#[test]
fn where_paddings_are_not_kept_there_are_none() {
    let (now, mut rewriter) = bound(100, 0);
    rewriter.number(now, &meta(100, 0), Cut::NONE);
    rewriter.note_padding(0, 3);
    assert_eq!(rewriter.rebuild(0), None);
    rewriter.keep_paddings(8);
    assert_eq!(rewriter.rebuild(0), None, "it went before they were kept");
}

#[test]
fn what_is_withheld_leaves_no_gap_and_what_is_lost_does() {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    let picture = |seq, id| of_picture(0, seq, id, true);
    rewriter.bind(now, &picture(10, 7), None);
    assert_eq!(rewriter.number(now, &picture(10, 7), Cut::NONE).map(|numbers| numbers.index), Some(0));
    rewriter.withhold(&picture(11, 8), true);
    rewriter.withhold(&of_picture(0, 12, 8, false), false);
    let next = rewriter.number(now, &picture(13, 9), Cut::NONE).expect("bound");
    assert_eq!((next.index, next.shift.picture_id.wrapping_add(9)), (1, 8), "one picture less");
    // 14 is lost before the beginning of a picture that is withheld: its place is kept.
    rewriter.withhold(&picture(15, 11), true);
    let next = rewriter.number(now, &picture(16, 12), Cut::NONE).expect("bound");
    assert_eq!((next.index, next.shift.picture_id.wrapping_add(12)), (3, 10));
    let late = rewriter.number(now, &picture(14, 10), Cut::NONE).expect("its place is kept");
    assert_eq!((late.index, late.shift.picture_id.wrapping_add(10)), (2, 9));
    // 17 is lost within a picture that is withheld.
    rewriter.withhold(&of_picture(0, 18, 13, false), true);
    assert_eq!(rewriter.number(now, &picture(19, 14), Cut::NONE).map(|numbers| numbers.index), Some(4));
    assert_eq!(rewriter.number(now, &of_picture(0, 17, 13, true), Cut::NONE), None);
    assert_eq!(own_number(&rewriter, 1), Some((13, 1)));
    assert_eq!(own_number(&rewriter, 2), Some((14, 2)));
}

#[test]
fn numbers_kept_for_what_is_missing_do_not_add_up_for_ever() {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    let picture = |seq: u64| of_picture(0, seq, seq as u16, true);
    rewriter.bind(now, &picture(10), None);
    let first = rewriter.number(now, &picture(10), Cut::NONE).expect("bound");
    // A paused subscription of hours: of each two packets one is lost.
    (0..40_000).for_each(|at| rewriter.withhold(&picture(12 + 2 * at), true));
    let next = picture(12 + 2 * 40_000);
    assert!(rewriter.is_near(0, next.seq), "it goes on");
    let next = rewriter.number(now, &next, Cut::NONE).expect("bound");
    assert!(next.index - first.index < GAP_MAX, "a receiver still guesses the roll-over counter: {}", next.index);
    assert_eq!(own_number(&rewriter, next.index as u16), Some((12 + 2 * 40_000, next.index)));
}

#[test]
fn after_something_was_withheld_far_is_as_far_as_before() {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    let picture = |seq: u64| of_picture(0, seq, seq as u16, true);
    rewriter.bind(now, &picture(0), None);
    assert!((0..50_000).all(|seq| rewriter.number(now, &picture(seq), Cut::NONE).is_some()));
    for is_withheld in [false, true] {
        assert!(rewriter.is_near(0, 50_000 + GAP_MAX - 1));
        assert!(!rewriter.is_near(0, 50_000 + GAP_MAX + 1), "{is_withheld}");
        rewriter.withhold(&picture(50_000), true);
    }
}

#[test]
fn another_encoding_goes_on_with_all_numbers() {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    rewriter.bind(now, &of_picture(0, 10, 7, true), None);
    let first = rewriter.number(now, &of_picture(0, 10, 7, true), Cut::NONE).expect("bound");
    let other = of_picture(1, 900, 500, true);
    rewriter.bind(now, &other, Some(first.shift.timestamp.wrapping_add(7 * 3000 + 3000)));
    let second = rewriter.number(now, &other, Cut::NONE).expect("bound");
    assert_eq!(second.index, 1);
    assert_eq!(second.shift.picture_id.wrapping_add(500), 8);
    assert_eq!(second.shift.tl0.wrapping_add(500u16 as u8), 8);
    assert_eq!(own_number(&rewriter, 0), Some((10, 0)), "what went before is still found");
    assert_eq!(rewriter.find(0).map(|found| found.encoding), Some(0));
    assert!(rewriter.number(now, &of_picture(0, 11, 8, true), Cut::NONE).is_none(), "the old one is over");
}

#[test]
fn pictures_of_a_run_keep_their_distance_for_those_that_need_them() {
    let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
    let numbered = |seq, id, frame_number| {
        let mut meta = of_picture(0, seq, id, true);
        meta.marks.frame_number = Some(frame_number);
        meta
    };
    for closes_gaps in [true, false] {
        // What was sent before, of another encoding.
        rewriter.bind(now, &numbered(10, 7, 70), None);
        let before = rewriter.number(now, &numbered(10, 7, 70), Cut::NONE).expect("bound").shift;
        rewriter.bind(now, &numbered(500, 90, 900), Some(1000));
        let first = rewriter.number(now, &numbered(500, 90, 900), Cut::NONE).expect("bound").shift;
        assert_eq!(first.frame_number.wrapping_add(900), before.frame_number.wrapping_add(71));
        rewriter.skip_to(&numbered(504, 94, 908), 1010, closes_gaps);
        let next = rewriter.number(now, &numbered(504, 94, 908), Cut::NONE).expect("bound").shift;
        assert_eq!(next.frame_number, first.frame_number, "it still finds the frame 8 before it");
        let skipped = first.picture_id.wrapping_sub(next.picture_id);
        assert_eq!(skipped, if closes_gaps { 3 } else { 0 });
        assert_eq!(rewriter.last().map(|(_, timestamp)| timestamp), Some(1010));
    }
}

proptest! {
    /// Pictures of up to three packets in two encodings, some withheld, some packets lost or late.
    #[test]
    fn no_index_is_given_twice_and_each_leads_back(
        pictures in prop::collection::vec((1u64..4, 0u8..10, any::<[bool; 4]>()), 1..120),
    ) {
        let (now, mut rewriter) = (clock::now(), Rewriter::new(0, 0));
        let (mut seqs, mut encoding) = ([1000u64, 5000], 0usize);
        let mut sent: HashMap<u64, (u8, u64)> = HashMap::new();
        let mut late: Vec<(PacketMeta, bool)> = Vec::new();
        rewriter.bind(now, &of_picture(0, 1000, 0, true), None);
        for (id, (packets, fate, lost)) in pictures.into_iter().enumerate() {
            let is_withheld = fate < 4;
            if fate == 9 {
                encoding = 1 - encoding;
                rewriter.bind(now, &of_picture(encoding as u8, seqs[encoding], id as u16, true), None);
            }
            for part in 0..packets {
                let meta = of_picture(encoding as u8, seqs[encoding], id as u16, part == 0);
                seqs[encoding] += 1;
                if lost[part as usize] && fate != 9 {
                    late.push((meta, is_withheld));
                } else if is_withheld {
                    rewriter.withhold(&meta, meta.marks.is_start);
                } else if let Some(numbers) = rewriter.number(now, &meta, Cut::NONE) {
                    prop_assert_eq!(sent.insert(numbers.index, (meta.encoding, meta.seq)), None);
                } else {
                    prop_assert!(false, "{meta:?} finds no number");
                }
            }
            if lost[3] {
                for (meta, is_withheld) in late.drain(..) {
                    if is_withheld {
                        rewriter.withhold(&meta, meta.marks.is_start);
                    } else if let Some(numbers) = rewriter.number(now, &meta, Cut::NONE) {
                        prop_assert_eq!(sent.insert(numbers.index, (meta.encoding, meta.seq)), None);
                    }
                }
            }
        }
        for (index, own) in sent {
            if let Some(found) = rewriter.find(index as u16) {
                prop_assert_eq!((found.encoding, found.seq), own);
            }
        }
    }

    /// Steps: how far the number is ahead, what becomes of the packet, and how its picture is cut.
    #[test]
    fn the_short_way_gives_the_numbers_of_the_long_one(
        steps in prop::collection::vec((0u64..20, 0u8..12, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let now = clock::now();
        let [mut long, mut short] = [(); 2].map(|()| Rewriter::new(9, 0));
        let _ = [&mut long, &mut short].map(|rewriter| rewriter.bind(now, &of_picture(0, 100, 0, true), None));
        let mut cuts = [Cut::NONE; 2];
        cuts[1].active_targets = Some(ActiveTargets { count: 2, mask: 1 });
        let mut seq = 99;
        for (id, (ahead, fate, is_start, is_cut)) in steps.into_iter().enumerate() {
            seq = if ahead > 14 { seq + ahead - 13 } else { seq + 1 };
            let meta = of_picture(0, if fate == 9 { seq - 1 } else { seq }, id as u16, is_start);
            match fate {
                10 => [&mut long, &mut short].map(|rewriter| rewriter.withhold(&meta, is_start)),
                11 => [&mut long, &mut short].map(|rewriter| rewriter.bind(now, &meta, None)),
                _ => [(); 2],
            };
            let cut = cuts[usize::from(is_cut && fate < 2)];
            let next = short.is_next(&meta).then(|| short.number_next(now, &meta, cut)).flatten();
            let numbers = next.or_else(|| short.number(now, &meta, cut));
            prop_assert_eq!(numbers, long.number(now, &meta, cut));
            prop_assert_eq!(short.last(), long.last());
        }
        let all = |rewriter: &Rewriter| (0..=u16::MAX).map(|seq| rewriter.find(seq)).collect::<Vec<_>>();
        prop_assert_eq!(all(&long), all(&short));
    }
}
