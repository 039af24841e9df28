//! Captured descriptors, and any that a sender could mean, written by the letter of the specification.

use proptest::prelude::*;

use super::*;
use crate::wire::be::hostile::Mutator;

/// What browsers send: a keyframe of L3T3, then frames of it.
const KEYFRAME: &str = "c1017280081485214eafffaaaa863cf0430c10c302afc0aaa0063c00430010c002a000a80006000040001d954926e082b04a0941\
                        b820ac1282503157f974000ca864330e222222eca8655304224230eca877530077004200ef008601df010d";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn refined(structure: &mut Structure, seq: u64, value: &[u8]) -> FrameMarks {
    let mut marks = FrameMarks::default();
    assert_eq!(structure.refine(value, seq, &mut marks), Ok(()));
    marks
}

#[test]
fn a_captured_keyframe_tells_its_structure() {
    let mut structure = Structure::default();
    let marks = refined(&mut structure, 1, &hex(KEYFRAME));
    assert!(marks.begins() && marks.is_end);
    assert_eq!((marks.frame_number, marks.targets, marks.switches), (Some(0x172), 0x1ff, 0x1ff));
    let targets = structure.targets().unwrap();
    assert_eq!((targets.count, targets.active), (9, 0x1ff));
    for (target, layers) in targets.layers.iter().take(9).enumerate() {
        assert_eq!(*layers, (target as u8 / 3, target as u8 % 3));
        // Full spatial scalability: whoever has a target has all that are below it both ways.
        let below = (0..9).filter(|other| other / 3 <= target / 3 && other % 3 <= target % 3);
        assert_eq!(targets.covers[target], below.fold(0, |bits, other| bits | 1 << other), "{target}");
    }
    let sizes = structure.sizes().unwrap();
    assert_eq!((sizes.count, sizes.highest()), (3, Some((480, 270))));
    assert_eq!(sizes.layers[..2], [(120, 67), (240, 135)]);
}

#[test]
fn captured_frames_name_their_templates() {
    let mut structure = Structure::default();
    refined(&mut structure, 1, &hex(KEYFRAME));
    // The second spatial layer of the keyframe's picture; from here on the third one is not sent.
    let marks = refined(&mut structure, 2, &hex("86017340fc"));
    assert_eq!((marks.spatial, marks.temporal, marks.frame_number), (1, 0, Some(0x173)));
    assert!(marks.is_start && !marks.is_end && !marks.is_key && marks.needs_lower);
    assert_eq!((marks.targets, marks.switches), (0x1f8, 0x1f8));
    assert_eq!(structure.targets().unwrap().active, 0x3f);
    // The same without the extended part: the mask stays.
    assert_eq!(refined(&mut structure, 3, &hex("460173")), FrameMarks { is_start: false, is_end: true, ..marks });
    assert_eq!(structure.targets().unwrap().active, 0x3f);
    let marks = refined(&mut structure, 4, &hex("c30175"));
    assert_eq!((marks.spatial, marks.temporal, marks.targets, marks.switches), (0, 2, 0b100_100_100, 0));
    // A late packet knows nothing new.
    refined(&mut structure, 1, &hex(KEYFRAME));
    assert_eq!(structure.targets().unwrap().active, 0x3f);
    // A template that the structure does not have: only what every descriptor says is learnt.
    let mut marks = FrameMarks { is_key: true, ..FrameMarks::default() };
    assert_eq!(structure.refine(&hex("bf0176"), 5, &mut marks), Err(ParseError::Unsupported));
    let learnt = FrameMarks { is_start: true, is_key: true, frame_number: Some(0x176), ..FrameMarks::default() };
    assert_eq!(marks, learnt);
}

#[test]
fn a_mask_is_written_where_there_was_none_and_over_one() {
    let mut structure = Structure::default();
    refined(&mut structure, 1, &hex(KEYFRAME));
    let active = ActiveTargets { mask: 0b111, count: 9 };
    let written = |value: &str, active| {
        let mut out = [0xee; 200];
        let len = write(&mut out, &hex(value), 0x10, active).unwrap();
        out[..len].to_vec()
    };
    // Flags 01000, mask 000000111, two bits of padding.
    assert_eq!(written("860173", Some(active)), hex("860183401c"));
    assert_eq!(written("86017340fc", Some(active)), hex("860183401c"));
    assert_eq!(written("86017340fc", None), hex("86018340fc"));
    assert_eq!(written("46ffff", None), hex("46000f"));
    let keyframe = written(KEYFRAME, Some(active));
    assert_eq!(keyframe.len(), hex(KEYFRAME).len() + 2);
    let mut received = Structure::default();
    let marks = refined(&mut received, 9, &keyframe);
    assert_eq!((marks.frame_number, received.targets().unwrap().active), (Some(0x182), 0b111));
    // Of another structure; cut short; no room.
    assert_eq!(written(KEYFRAME, Some(ActiveTargets { mask: 1, count: 8 })).len(), hex(KEYFRAME).len());
    assert_eq!(written("86", Some(active)), hex("86"));
    assert_eq!(write(&mut [0; 4], &hex("860173"), 0, Some(active)), None);
    assert_eq!(write(&mut [0; 2], &hex("860173"), 0, None), None);
}

/// A template: step to the next one's layers (0 same, 1 temporal, 2 spatial), indications, references, chain distances.
type Told = (u8, Vec<u8>, Vec<u8>, Vec<u8>);

/// A structure as the sender sees it; bits are written as text, by rules of its own.
#[derive(Clone, Debug)]
struct Sender {
    first_template: u8,
    templates: Vec<Told>,
    count: usize,
    chains: Vec<u8>,
    has_sizes: bool,
}

fn number(value: usize, bits: usize) -> String {
    if bits == 0 { String::new() } else { format!("{value:0bits$b}") }
}

/// AV1 §4.10.7 in the words of the specification.
fn below(value: usize, bound: usize) -> String {
    let width = bound.ilog2() as usize + 1;
    let shorts = (1 << width) - bound;
    if value < shorts {
        return number(value, width - 1);
    }
    let value = value + shorts;
    number(value >> 1, width - 1) + &number(value & 1, 1)
}

impl Sender {
    fn layers(&self) -> Vec<(u8, u8)> {
        let mut layers = vec![(0, 0)];
        for (step, ..) in &self.templates[..self.templates.len() - 1] {
            let (spatial, temporal) = layers[layers.len() - 1];
            layers.push(match step {
                0 => (spatial, temporal),
                1 => (spatial, temporal + 1),
                _ => (spatial + 1, 0),
            });
        }
        layers
    }

    fn bits(&self) -> String {
        let mut bits = number(self.first_template.into(), 6) + &number(self.count - 1, 5);
        for (at, (step, ..)) in self.templates.iter().enumerate() {
            bits += &number(if at + 1 == self.templates.len() { 3 } else { usize::from(*step) }, 2);
        }
        for (_, indications, ..) in &self.templates {
            bits.extend(indications.iter().map(|indication| number(usize::from(*indication), 2)));
        }
        for (_, _, references, _) in &self.templates {
            bits.extend(references.iter().map(|reference| "1".to_owned() + &number(usize::from(*reference), 4)));
            bits.push('0');
        }
        bits += &below(self.chains.len(), self.count + 1);
        if !self.chains.is_empty() {
            bits.extend((0..self.count).map(|target| below(target % self.chains.len(), self.chains.len())));
            for (.., distances) in &self.templates {
                bits.extend(distances.iter().map(|distance| number(usize::from(*distance), 4)));
            }
        }
        bits.push(if self.has_sizes { '1' } else { '0' });
        if self.has_sizes {
            let layers = usize::from(self.layers().last().unwrap().0) + 1;
            bits.extend((0..layers).map(|at| number(99 + at, 16) + &number(49 + at, 16)));
        }
        bits
    }
}

fn bytes(bits: &str) -> Vec<u8> {
    let padded = format!("{bits:0<width$}", width = bits.len().next_multiple_of(8));
    padded.as_bytes().chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'))).collect()
}

fn sender() -> impl Strategy<Value = Sender> {
    (1usize..=32, 0usize..4).prop_flat_map(|(count, chain_count)| {
        let chain_count = chain_count.min(count);
        let template = (
            prop_oneof![3 => Just(0u8), 3 => Just(1), 1 => Just(2)],
            prop::collection::vec(0u8..4, count),
            prop::collection::vec(0u8..16, 0..4),
            prop::collection::vec(0u8..16, chain_count),
        );
        let chains = prop::collection::vec(Just(0), chain_count);
        (0u8..64, prop::collection::vec(template, 1..20), Just(count), chains, any::<bool>()).prop_map(
            |(first_template, templates, count, chains, has_sizes)| Sender {
                first_template,
                templates,
                count,
                chains,
                has_sizes,
            },
        )
    })
}

/// What a frame says besides its template.
type Own = (Option<u32>, Option<Vec<u8>>, Option<Vec<u16>>, bool);

fn own(count: usize) -> impl Strategy<Value = Own> {
    let references = prop::collection::vec(0u16..0x1000, 0..4);
    let indications = prop::collection::vec(0u8..4, count);
    (prop::option::of(any::<u32>()), prop::option::of(indications), prop::option::of(references), any::<bool>())
}

/// Mandatory fields, flags, structure, mask and the frame's own part.
fn descriptor(sender: &Sender, template: usize, frame_number: u16, has_structure: bool, own: &Own) -> Vec<u8> {
    let (active, indications, references, has_chains) = own;
    let id = (usize::from(sender.first_template) + template) % 64;
    let mut bits = "10".to_owned() + &number(id, 6) + &number(frame_number.into(), 16);
    let flags =
        [has_structure, active.is_some(), indications.is_some(), references.is_some(), *has_chains].map(usize::from);
    if flags.contains(&1) {
        bits.extend(flags.map(|flag| number(flag, 1)));
    }
    if has_structure {
        bits += &sender.bits();
    }
    if let Some(active) = active {
        bits += &number((*active & mask(sender)) as usize, sender.count);
    }
    bits.extend(indications.iter().flatten().map(|indication| number(usize::from(*indication), 2)));
    if let Some(references) = references {
        for reference in references {
            let size = if *reference < 0x10 {
                1
            } else if *reference < 0x100 {
                2
            } else {
                3
            };
            bits += &(number(size, 2) + &number(usize::from(*reference), 4 * size));
        }
        bits += "00";
    }
    if *has_chains {
        bits += &"10101010".repeat(sender.chains.len());
    }
    bytes(&bits)
}

fn mask(sender: &Sender) -> u32 {
    ((1u64 << sender.count) - 1) as u32
}

fn present(indications: &[u8]) -> (u32, u32) {
    let bits = |wanted: fn(u8) -> bool| {
        indications.iter().enumerate().fold(0, |bits, (at, has)| bits | u32::from(wanted(*has)) << at)
    };
    (bits(|has| has != 0), bits(|has| has == 2))
}

proptest! {
    #[test]
    fn what_a_sender_means_is_read(
        (sender, owns) in sender().prop_flat_map(|sender| {
            let owns = prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), own(sender.count)), 1..6);
            (Just(sender), owns)
        }),
        kept in any::<u32>(),
        shift in any::<u16>(),
    ) {
        let layers = sender.layers();
        prop_assume!(layers.iter().all(|(spatial, _)| usize::from(*spatial) < SIZES_MAX));
        let mut structure = Structure::default();
        let mut active = mask(&sender);
        for (seq, (template, frame_number, own)) in owns.iter().enumerate() {
            let at = template.index(layers.len());
            let value = descriptor(&sender, at, *frame_number, seq == 0, own);
            let mut marks = FrameMarks::default();
            prop_assert_eq!(structure.refine(&value, seq as u64, &mut marks), Ok(()));
            let (_, indications, references, _) = &sender.templates[at];
            let (targets, switches) = present(own.1.as_ref().unwrap_or(indications));
            let has_references = own.2.as_ref().map_or(!references.is_empty(), |own| !own.is_empty());
            prop_assert_eq!((marks.spatial, marks.temporal), layers[at]);
            prop_assert_eq!((marks.targets, marks.switches), (targets, switches));
            prop_assert_eq!(marks.is_key, seq == 0 && !has_references);
            prop_assert_eq!(marks.frame_number, Some(*frame_number));
            active = own.0.map_or(active, |own| own & mask(&sender));
            prop_assert_eq!(structure.targets().unwrap().active, active);

            // Rewritten it says the same but for the number and the mask.
            let mut out = [0xee; 1200];
            let left = ActiveTargets { mask: kept & mask(&sender), count: sender.count as u8 };
            let len = write(&mut out, &value, shift, Some(left)).unwrap();
            prop_assert!(len <= value.len() + GROWTH_BYTES_MAX);
            let mut receiver = structure.clone();
            let mut read = FrameMarks::default();
            prop_assert_eq!(receiver.refine(&out[..len], seq as u64, &mut read), Ok(()));
            prop_assert_eq!(receiver.targets().unwrap().active, left.mask);
            prop_assert_eq!(read, FrameMarks { frame_number: Some(frame_number.wrapping_add(shift)), ..marks });
        }
        let targets = structure.targets().unwrap();
        prop_assert_eq!(usize::from(targets.count), sender.count);
        let sets: Vec<Vec<usize>> = (0..sender.count)
            .map(|target| (0..layers.len()).filter(|at| sender.templates[*at].1[target] != 0).collect())
            .collect();
        for (target, set) in sets.iter().enumerate() {
            let highest = |layer: fn(&(u8, u8)) -> u8| set.iter().map(|at| layer(&layers[*at])).max().unwrap_or(0);
            prop_assert_eq!(targets.layers[target], (highest(|layer| layer.0), highest(|layer| layer.1)));
            for (other, other_set) in sets.iter().enumerate() {
                let is_covered = other_set.iter().all(|at| set.contains(at));
                prop_assert_eq!(targets.covers[target] >> other & 1 != 0, is_covered);
            }
        }
        prop_assert_eq!(structure.sizes().is_some(), sender.has_sizes);
    }
}

#[test]
fn mutated_descriptors_never_panic() {
    let mut known = Structure::default();
    refined(&mut known, 1, &hex(KEYFRAME));
    let seeds = [hex(KEYFRAME), hex("86017340fc"), hex("460173"), hex("88017678aaaa5550")];
    let mut mutator = Mutator::new(0x6465_7065);
    for _ in 0..100_000 {
        fuzz_dependency(&mutator.next(&seeds), &mut known);
        if known.targets().is_none_or(|targets| targets.count != 9) {
            known = Structure::default();
            refined(&mut known, 1, &hex(KEYFRAME));
        }
    }
}

#[test]
fn more_layers_than_there_is_room_for_are_refused() {
    let template = (2, vec![1], vec![], vec![]);
    let sender = |count| Sender {
        first_template: 0,
        templates: vec![template.clone(); count],
        count: 1,
        chains: vec![],
        has_sizes: true,
    };
    let read = |count| {
        let value = descriptor(&sender(count), 0, 1, true, &(None, None, None, false));
        Structure::default().refine(&value, 0, &mut FrameMarks::default())
    };
    assert_eq!(read(8), Ok(()));
    assert_eq!(read(9), Err(ParseError::Unsupported));
    assert_eq!(read(65), Err(ParseError::Malformed));
}
