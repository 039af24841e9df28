//! Orders that are known, and what holds for every one.

use proptest::prelude::*;

use super::*;
use crate::base::batch::{Path, TxEntry};
use crate::base::train::trains;

const NO_HASTE: u32 = u32::MAX;

fn rules(padding_percent_max: u8) -> Rules {
    Rules { padding_percent_max, ahead_of_audio_bytes_max: NO_HASTE }
}

fn video(stream: u16, lengths: &[u16]) -> Vec<Due> {
    lengths.iter().map(|bytes| Due { stream, is_audio: false, bytes: *bytes }).collect()
}

fn audio(stream: u16, bytes: u16) -> Vec<Due> {
    vec![Due { stream, is_audio: true, bytes }]
}

/// Stream and padded size of each packet, train by train.
fn arranged(due: &[Due], rules: Rules) -> Vec<Vec<(u16, u16)>> {
    let mut arranger = Arranger::default();
    arranger.arrange(due, rules);
    let mut places = arranger.places().iter();
    let sized = |place: &Place| {
        let due = due[usize::from(place.at)];
        (due.stream, due.bytes + u16::from(place.padding))
    };
    arranger.train_lengths().map(|count| places.by_ref().take(count).map(sized).collect()).collect()
}

/// Messages that the sizes in this order make.
fn messages(sizes: impl Iterator<Item = u16>) -> usize {
    let path = Path { remote: ([192, 0, 2, 1], 1).into(), local: [192, 0, 2, 2].into() };
    let mut start = 0;
    let entries: Vec<_> = sizes
        .map(|len| {
            let entry = TxEntry { path, start, len: len.into() };
            start += usize::from(len);
            entry
        })
        .collect();
    trains(&entries).count()
}

#[test]
fn a_frame_is_one_train_for_a_byte_or_two() {
    // As libwebrtc cuts a frame: the later packets are one byte longer.
    let due = video(0, &[1042, 1042, 1043, 1043]);
    assert_eq!(arranged(&due, rules(2)), [[(0, 1043); 4]]);
    assert_eq!(arranged(&due, rules(0)).len(), 2);
}

#[test]
fn the_last_of_a_train_is_not_padded() {
    assert_eq!(arranged(&video(0, &[1000, 1000, 990]), rules(2)), [[(0, 1000), (0, 1000), (0, 990)]]);
}

#[test]
fn what_is_left_of_a_frame_closes_its_train() {
    let due = video(0, &[1200, 1200, 300, 1200, 250]);
    assert_eq!(arranged(&due, rules(2)), [vec![(0, 1200), (0, 1200), (0, 300)], vec![(0, 1200), (0, 250)]]);
}

#[test]
fn streams_of_nearly_one_size_share_a_train() {
    let due = [video(0, &[1000, 1000]), video(1, &[1010, 1010])].concat();
    assert_eq!(arranged(&due, rules(2)), [[(1, 1010), (1, 1010), (0, 1010), (0, 1000)]]);
    assert_eq!(arranged(&due, rules(0)), [[(1, 1010); 2], [(0, 1000); 2]]);
}

#[test]
fn each_train_takes_one_short_packet_along() {
    let due = [video(0, &[601, 601, 601, 601]), video(1, &[901, 901]), video(2, &[300]), audio(3, 80)].concat();
    let want = [vec![(0, 601), (0, 601), (0, 601), (0, 601), (2, 300)], vec![(1, 901), (1, 901), (3, 80)]];
    assert_eq!(arranged(&due, rules(2)), want);
}

#[test]
fn a_short_first_packet_is_not_overtaken_by_its_own_stream() {
    let due = video(0, &[50, 1100, 1100]);
    assert_eq!(arranged(&due, rules(2)), [vec![(0, 50)], vec![(0, 1100), (0, 1100)]]);
    // The packets of another stream take it along.
    let due = [due, video(1, &[900, 900])].concat();
    assert_eq!(arranged(&due, rules(2)), [vec![(1, 900), (1, 900), (0, 50)], vec![(0, 1100), (0, 1100)]]);
}

#[test]
fn the_longest_run_goes_first() {
    let due = [video(0, &[1200, 1200, 1201]), video(1, &[1201])].concat();
    assert_eq!(arranged(&due, rules(0)), [[(0, 1200); 2], [(0, 1201), (1, 1201)]]);
}

#[test]
fn sound_does_not_wait_for_long_pictures() {
    let due = [audio(0, 100), video(1, &[1200; 5])].concat();
    let haste = |ahead_of_audio_bytes_max| Rules { ahead_of_audio_bytes_max, ..rules(2) };
    let mut last = vec![(1, 1200); 5];
    last.push((0, 100));
    assert_eq!(arranged(&due, haste(6000)), [last]);
    assert_eq!(arranged(&due, haste(5999)), [vec![(0, 100)], vec![(1, 1200); 5]]);
}

#[test]
fn nothing_is_padded_by_more_than_an_octet_can_say() {
    let due = video(0, &[1000, 744, 1000, 1000, 1000]);
    assert_eq!(arranged(&due, rules(100)), [vec![(0, 1000), (0, 744)], vec![(0, 1000); 3]]);
    let due = video(0, &[1000, 745, 1000, 1000, 1000]);
    assert_eq!(arranged(&due, rules(100)), [[(0, 1000); 5]]);
}

#[test]
fn nothing_is_arranged_of_nothing() {
    assert!(arranged(&[], rules(2)).is_empty());
}

prop_compose! {
    fn packets()(
        streams in prop::collection::vec((any::<bool>(), prop::collection::vec(size(), 0..12)), 0..7)
    ) -> Vec<Due> {
        let stream = |(stream, (is_audio, lengths)): (usize, (bool, Vec<u16>))| {
            lengths.into_iter().map(move |bytes| Due { stream: stream as u16, is_audio, bytes }).collect::<Vec<_>>()
        };
        let mut due: Vec<Due> = streams.into_iter().enumerate().flat_map(stream).collect();
        due.truncate(PACKETS_MAX);
        due
    }
}

/// Sizes that meet often, nearly or never.
fn size() -> impl Strategy<Value = u16> {
    prop_oneof![Just(1200), 1195u16..1205, 600u16..640, 60u16..1350]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_packet_leaves_once_and_no_stream_is_reordered(due in packets(), percent in 0u8..20) {
        let mut arranger = Arranger::default();
        arranger.arrange(&due, rules(percent));
        let mut seen: Vec<u8> = arranger.places().iter().map(|place| place.at).collect();
        for stream in 0..7 {
            let of: Vec<u8> = seen.iter().copied().filter(|at| due[usize::from(*at)].stream == stream).collect();
            prop_assert!(of.is_sorted());
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..due.len() as u8).collect::<Vec<_>>());
        prop_assert_eq!(arranger.train_lengths().sum::<usize>(), due.len());
    }

    #[test]
    fn each_train_is_one_and_its_padding_within_its_share(due in packets(), percent in 0u8..20) {
        let mut arranger = Arranger::default();
        arranger.arrange(&due, rules(percent));
        let mut places = arranger.places().iter();
        for count in arranger.train_lengths() {
            let train: Vec<Place> = places.by_ref().take(count).copied().collect();
            let plain = |place: &Place| due[usize::from(place.at)].bytes;
            let sizes = train.iter().map(|place| plain(place) + u16::from(place.padding));
            prop_assert_eq!(messages(sizes.clone()), 1);
            let bytes: u64 = train.iter().map(|place| u64::from(plain(place))).sum();
            let padding: u64 = train.iter().map(|place| u64::from(place.padding)).sum();
            prop_assert!(padding * 100 <= bytes * u64::from(percent), "{padding} of {bytes} at {percent}%");
            prop_assert!(sizes.max() <= train.iter().map(plain).max(), "longer than any was");
        }
    }

    #[test]
    fn sound_leaves_within_its_allowance(due in packets(), allowance in 0u32..20_000) {
        let mut arranger = Arranger::default();
        arranger.arrange(&due, Rules { padding_percent_max: 2, ahead_of_audio_bytes_max: allowance });
        let order: Vec<Due> = arranger.places().iter().map(|place| due[usize::from(place.at)]).collect();
        if let Some(last) = order.iter().rposition(|due| due.is_audio) {
            let ahead = order[..last].iter().filter(|due| !due.is_audio).map(|due| u32::from(due.bytes));
            prop_assert!(ahead.sum::<u32>() <= allowance);
        }
    }
}

#[test]
fn order_and_padding_save_messages() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(7);
    let (mut as_they_came, mut ordered, mut padded) = (0, 0, 0);
    for _ in 0..2000 {
        let mut due = Vec::new();
        for stream in 0..rng.random_range(0..7) {
            for _ in 0..rng.random_range(0..12) {
                let spread = [0, 10, 100, 1000][rng.random_range(0..4)];
                due.extend(video(stream, &[1200 - rng.random_range(0..=spread)]));
            }
        }
        due.truncate(PACKETS_MAX);
        let sizes = |percent| messages(arranged(&due, rules(percent)).into_iter().flatten().map(|(_, size)| size));
        as_they_came += messages(due.iter().map(|due| due.bytes));
        ordered += sizes(0);
        padded += sizes(5);
    }
    assert!(ordered < as_they_came && padded < ordered * 3 / 4, "{as_they_came} {ordered} {padded}");
}
