//! Random streams, targets and networks against a decoder's view of what passes.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// Who sends how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Simulcast, three temporal layers told by VP8's descriptor.
    Vp8,
    /// Simulcast without layers, where only keyframes can be seen.
    H264,
    /// Three by three layers told by VP9's descriptor; every layer builds on the one below.
    Vp9,
    /// The same, where it does so at keyframes only.
    Vp9Key,
    /// Dependency descriptor: L3T3, L3T3_KEY, S3T3, and a simulcast of L1T3.
    Full,
    Key,
    Separate,
    Simulcast,
}

const MODES: [Mode; 8] =
    [Mode::Vp8, Mode::H264, Mode::Vp9, Mode::Vp9Key, Mode::Full, Mode::Key, Mode::Separate, Mode::Simulcast];

impl Mode {
    fn encodings(self) -> u8 {
        if matches!(self, Self::Vp8 | Self::H264 | Self::Simulcast) { 3 } else { 1 }
    }

    fn spatials(self) -> u8 {
        if self.encodings() == 1 { 3 } else { 1 }
    }

    fn temporals(self) -> u8 {
        if self == Self::H264 { 1 } else { 3 }
    }

    fn has_descriptor(self) -> bool {
        matches!(self, Self::Full | Self::Key | Self::Separate | Self::Simulcast)
    }

    /// Spatial layers that stand apart between keyframes, and so as decode targets.
    fn stands_apart(self) -> bool {
        matches!(self, Self::Vp9Key | Self::Key | Self::Separate)
    }

    pub(super) fn targets(self) -> Option<DecodeTargets> {
        let (spatials, temporals) = (self.spatials(), self.temporals());
        let mut targets = DecodeTargets { count: spatials * temporals, ..DecodeTargets::NONE };
        targets.active = targets.all();
        for at in 0..targets.count {
            let (spatial, temporal) = (at / temporals, at % temporals);
            targets.layers[usize::from(at)] = (spatial, temporal);
            targets.covers[usize::from(at)] =
                (0..targets.count)
                    .filter(|other| other % temporals <= temporal)
                    .filter(|other| {
                        if self.stands_apart() { other / temporals == spatial } else { other / temporals <= spatial }
                    })
                    .fold(0, |bits, other| bits | 1 << other);
        }
        self.has_descriptor().then_some(targets)
    }
}

#[derive(Clone, Debug)]
struct Frame {
    encoding: u8,
    picture: usize,
    seq: u64,
    packets: u64,
    /// Frames it builds on.
    refs: Vec<usize>,
    marks: FrameMarks,
}

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: u64,
    frame: usize,
    head: PacketHead,
}

/// A publisher, and the network that loses and delays what it sends.
struct Sender {
    mode: Mode,
    rng: StdRng,
    /// T1 pictures build on each other, and only every second one can be begun with.
    is_chained: bool,
    frames: Vec<Frame>,
    next_seq: [u64; 3],
    /// Pictures since the keyframe.
    since_key: [usize; 3],
    wants_key: [bool; 3],
    /// Latest frame by encoding, spatial and temporal layer.
    latest: HashMap<(u8, u8, u8), usize>,
    on_the_way: Vec<Due>,
    loss: f64,
    delay: f64,
}

impl Sender {
    fn new(mode: Mode, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let is_lossy = rng.random_bool(0.7);
        Self {
            mode,
            is_chained: rng.random_bool(0.5),
            frames: Vec::new(),
            next_seq: [100, 70_000, 3],
            since_key: [0; 3],
            wants_key: [true; 3],
            latest: HashMap::new(),
            on_the_way: Vec::new(),
            loss: if is_lossy { 0.01 } else { 0.0 },
            delay: if is_lossy { 0.04 } else { 0.0 },
            rng,
        }
    }

    fn send(&mut self, picture: usize) {
        for encoding in 0..self.mode.encodings() {
            let at = usize::from(encoding);
            let is_key = std::mem::take(&mut self.wants_key[at]) || self.rng.random_bool(0.01);
            self.since_key[at] = if is_key { 0 } else { self.since_key[at] + 1 };
            let spatials = self.mode.spatials();
            for spatial in 0..spatials {
                let frame = self.encode(picture, encoding, spatial);
                self.packetise(frame, spatial + 1 == spatials);
            }
        }
    }

    /// T0 builds on T0, T1 on T0 (and T1), the first T2 on T0, the second on T1.
    fn encode(&mut self, picture: usize, encoding: u8, spatial: u8) -> usize {
        let since_key = self.since_key[usize::from(encoding)];
        let is_key = since_key == 0;
        let temporal = if self.mode == Mode::H264 { 0 } else { [0, 2, 1, 2][since_key % 4] };
        let is_sync = !self.is_chained || (since_key / 4).is_multiple_of(2);
        let earlier: &[u8] = match (since_key % 4, is_sync) {
            _ if is_key => &[],
            (2, false) => &[0, 1],
            (3, _) => &[1],
            _ => &[0],
        };
        let earlier = if self.mode == Mode::H264 && !is_key { &[0] } else { earlier };
        let mut refs: Vec<usize> =
            earlier.iter().filter_map(|of| self.latest.get(&(encoding, spatial, *of)).copied()).collect();
        let is_inter_layer = spatial > 0
            && match self.mode {
                Mode::Separate => false,
                mode => is_key || !mode.stands_apart(),
            };
        if is_inter_layer {
            refs.push(self.frames.len() - 1);
        }
        let mut marks = FrameMarks {
            spatial,
            temporal,
            is_key,
            is_switch_up: is_key || temporal > 0 && earlier == [0],
            needs_lower: is_inter_layer,
            needs_earlier: !is_key,
            ..FrameMarks::default()
        };
        if self.mode.spatials() > 1 && temporal == 0 {
            // RFC 9628: with U nothing later of higher layers builds on anything before.
            marks.is_switch_up = is_sync;
        }
        self.indicate(&mut marks, is_sync);
        let seq = self.next_seq[usize::from(encoding)];
        let packets = self.rng.random_range(1..4);
        let frame = self.frames.len();
        self.frames.push(Frame { encoding, picture, seq, packets, refs, marks });
        self.latest.insert((encoding, spatial, temporal), frame);
        if is_key {
            for temporal in 1..3 {
                self.latest.insert((encoding, spatial, temporal), frame);
            }
        }
        frame
    }

    /// Decode targets as browsers indicate them.
    fn indicate(&self, marks: &mut FrameMarks, is_sync: bool) {
        let Some(targets) = self.mode.targets() else { return };
        marks.frame_number = Some(self.frames.len() as u16);
        for at in 0..targets.count {
            let (spatial, temporal) = targets.layers[usize::from(at)];
            let is_reached = marks.is_key && self.mode != Mode::Separate || !self.mode.stands_apart();
            let is_present = marks.temporal <= temporal
                && if is_reached { marks.spatial <= spatial } else { marks.spatial == spatial };
            let is_switch = is_present
                && if marks.is_key {
                    true
                } else {
                    // What builds on T1 of before the frame is no later frame of a target that begins here.
                    marks.spatial == spatial
                        && match marks.temporal {
                            0 => temporal == 0 || is_sync,
                            1 => temporal == 2,
                            _ => false,
                        }
                };
            marks.targets |= u32::from(is_present) << at;
            marks.switches |= u32::from(is_switch) << at;
        }
    }

    fn packetise(&mut self, frame: usize, is_last: bool) {
        let Frame { encoding, picture, seq, packets, marks, .. } = self.frames[frame].clone();
        self.next_seq[usize::from(encoding)] += packets;
        let tells_end = self.mode.has_descriptor() || self.mode.spatials() > 1;
        for part in 0..packets {
            let (is_start, is_end) = (part == 0, part + 1 == packets);
            let marks = FrameMarks {
                is_start,
                is_end: is_end && tells_end,
                // Only descriptors say so in all packets.
                is_key: marks.is_key && (is_start || tells_end),
                ..marks
            };
            let head = PacketHead {
                encoding,
                seq: seq + part,
                timestamp: (picture as u32 * 3000).wrapping_add(u32::from(encoding) * 77),
                marker: is_last && is_end,
                marks,
            };
            // Packets of the encodings mix; late ones were sent again.
            let jitter = self.rng.random_range(0..4);
            let late = if self.rng.random_bool(self.delay) { self.rng.random_range(5..60) } else { 0 };
            if !self.rng.random_bool(self.loss) {
                let at = picture as u64 * 10 + head.seq % 3 + jitter * u64::from(self.delay > 0.0) + late;
                let at = if self.delay > 0.0 { at } else { picture as u64 * 10 };
                self.on_the_way.push(Due { at, frame, head });
            }
        }
    }

    fn arrive(&mut self, now: u64) -> Vec<Due> {
        let (mut due, rest) =
            std::mem::take(&mut self.on_the_way).into_iter().partition::<Vec<_>, _>(|due| due.at <= now);
        self.on_the_way = rest;
        due.sort_by_key(|due| due.at);
        due
    }
}

/// A stretch of time in which one encoding was forwarded.
struct Run {
    encoding: u8,
    from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    frame: usize,
    head: PacketHead,
    run: usize,
    marker: Option<bool>,
}

fn meta(head: &PacketHead) -> PacketMeta {
    let PacketHead { encoding, seq, timestamp, marker, marks } = *head;
    PacketMeta { encoding, seq, timestamp, marker, marks, ..PacketMeta::NOTHING }
}

/// Shows the sender's packets to a selector and keeps books.
struct Books {
    selector: Selector,
    runs: Vec<Run>,
    seen: Vec<Seen>,
}

impl Books {
    fn show(&mut self, due: &Due, targets: Option<&DecodeTargets>) {
        let before = self.selector.encoding();
        let mut quick = self.selector.clone();
        let passes = quick.pass(&meta(&due.head));
        let verdict = self.selector.handle_packet(&due.head, targets);
        if let Some(cut) = passes {
            assert_eq!(verdict, Verdict::Pass(cut), "in few words the same");
            assert_eq!(quick, self.selector);
        }
        let after = self.selector.encoding();
        if let Some(encoding) = after.filter(|_| before != after) {
            assert_eq!(encoding, due.head.encoding);
            assert!(due.head.marks.begins(), "it begins with a keyframe");
            self.runs.push(Run { encoding, from: due.head.seq });
        }
        let marker = match verdict {
            Verdict::Pass(cut) => Some(cut.marker(due.head.marker, &due.head.marks)),
            Verdict::Withhold { .. } => None,
        };
        let is_of_run = after == Some(due.head.encoding) && due.head.seq >= self.runs[self.runs.len() - 1].from;
        assert!(is_of_run || marker.is_none(), "nothing passes of another encoding or of before");
        if is_of_run {
            self.seen.push(Seen { frame: due.frame, head: due.head, run: self.runs.len() - 1, marker });
        }
    }

    /// A decoder's view: frames are whole, and what they build on is there unless the network lost it.
    fn check(&self, frames: &[Frame], what: &str) {
        let mut packets: HashMap<(usize, usize), Vec<Seen>> = HashMap::new();
        let mut pictures: HashMap<(usize, usize), Vec<Seen>> = HashMap::new();
        for seen in &self.seen {
            packets.entry((seen.run, seen.frame)).or_default().push(*seen);
            pictures.entry((seen.run, frames[seen.frame].picture)).or_default().push(*seen);
        }
        for ((run, at), seen) in &packets {
            let frame = &frames[*at];
            let passed = seen.iter().filter(|seen| seen.marker.is_some()).count();
            assert!(passed == 0 || passed == seen.len(), "{what}: frame {at} is cut: {frame:?}");
            for needed in frame.refs.iter().filter(|_| passed > 0) {
                assert!(frames[*needed].seq >= self.runs[*run].from, "{what}: {at} needs {needed}, of before the run");
                let is_withheld = packets.get(&(*run, *needed)).is_some_and(|seen| seen[0].marker.is_none());
                assert!(!is_withheld, "{what}: {at} {frame:?} needs {needed} {:?}", frames[*needed]);
            }
        }
        for ((run, picture), mut seen) in pictures {
            let all =
                frames.iter().filter(|frame| frame.picture == picture && frame.encoding == self.runs[run].encoding);
            if seen.len() as u64 != all.map(|frame| frame.packets).sum::<u64>() {
                continue;
            }
            seen.retain(|seen| seen.marker.is_some());
            seen.sort_by_key(|seen| seen.head.seq);
            let is_closed = seen.last().is_none_or(|last| last.marker == Some(true));
            assert!(is_closed, "{what}: picture {picture} has no marker at its end: {seen:?}");
        }
    }
}

const PICTURES: usize = 160;
/// Pictures of the quiet end: nothing is lost, and the target stays.
const QUIET: usize = 60;

fn random_target(mode: Mode, rng: &mut StdRng) -> Option<Layer> {
    let bound = |count: u8, rng: &mut StdRng| if rng.random_bool(0.1) { u8::MAX } else { rng.random_range(0..count) };
    let layer = Layer {
        encoding: rng.random_range(0..mode.encodings()),
        spatial: bound(mode.spatials(), rng),
        temporal: bound(mode.temporals(), rng),
    };
    (!rng.random_bool(0.08)).then_some(layer)
}

fn run(mode: Mode, seed: u64) {
    let what = format!("{mode:?} {seed}");
    let mut sender = Sender::new(mode, seed);
    let mut rng = StdRng::seed_from_u64(seed ^ 0xffff);
    let targets = mode.targets();
    let mut books = Books { selector: Selector::default(), runs: Vec::new(), seen: Vec::new() };
    let mut target = random_target(mode, &mut rng);
    for picture in 0..PICTURES {
        let is_quiet = picture + QUIET >= PICTURES;
        if is_quiet {
            (sender.loss, sender.delay) = (0.0, 0.0);
        } else if rng.random_bool(0.1) {
            target = random_target(mode, &mut rng);
        }
        if picture + QUIET == PICTURES {
            target = target.or(Some(Layer::default()));
        }
        books.selector.set_target(target);
        if let Some(encoding) = books.selector.wants_keyframe()
            && rng.random_bool(0.3)
        {
            sender.wants_key[usize::from(encoding)] = true;
        }
        sender.send(picture);
        for due in sender.arrive(picture as u64 * 10 + 9) {
            books.show(&due, targets.as_ref());
        }
    }
    books.check(&sender.frames, &what);
    let Some(target) = target else { return };
    assert_eq!(books.selector.wants_keyframe(), None, "{what}");
    let (spatial, temporal) = (target.spatial.min(mode.spatials() - 1), target.temporal.min(mode.temporals() - 1));
    for (at, frame) in sender.frames.iter().enumerate().filter(|(_, frame)| frame.picture + 8 >= PICTURES) {
        let is_wanted = frame.encoding == target.encoding
            && match &targets {
                Some(targets) => {
                    let of = (0..usize::from(targets.count)).find(|of| targets.layers[*of] == (spatial, temporal));
                    frame.marks.targets >> of.unwrap() & 1 != 0
                }
                None => frame.marks.spatial <= spatial && frame.marks.temporal <= temporal,
            };
        let passed = books.seen.iter().filter(|seen| seen.frame == at && seen.marker.is_some()).count() as u64;
        assert_eq!(passed, if is_wanted { frame.packets } else { 0 }, "{what}: {target:?} {frame:?}");
    }
}

#[test]
fn what_passes_can_be_decoded_and_the_target_is_reached() {
    for mode in MODES {
        for seed in 0..150 {
            run(mode, seed);
        }
    }
}
