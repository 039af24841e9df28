//! What a sending m-line makes of runs, clocks and sources.

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::base::frame::{FrameMarks, PictureId};
use crate::base::ids::Mid;
use crate::forward::why::Why;
use crate::proto::history::Packet;
use crate::runtime::clock;
use crate::session::replay::Length;
use crate::session::streams::EgressConfig;
use crate::session::track::SenderClock;

const TRACK: TrackKey = TrackKey { index: 3, epoch: 1 };
const LARGE: u64 = 1 << 40;
/// Temporal layers of four pictures (L1T3).
const PATTERN: [u8; 4] = [0, 2, 1, 2];
const VP9: Format = Format::Vp9 { profile: 0 };

/// What went out of a packet: its encoding, index, timestamp, picture id, TL0PICIDX and frame number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Out {
    encoding: u8,
    index: u64,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    frame_number: u16,
}

struct Bench {
    now: Instant,
    slot: Slot,
    track: Track,
    format: Format,
    /// Whose packets come.
    source: Ssrc,
    /// Its pictures say that higher temporal layers may be begun with them.
    offers_more: bool,
    /// Pictures that came of each encoding.
    pictures: [u64; 2],
}

fn mline() -> MlineConfig {
    let payload = |pt, format| Payload {
        pt,
        format,
        rtx_pt: None,
        nack: false,
        pli: true,
        fir: true,
        transport_cc: true,
        remb: false,
    };
    MlineConfig {
        mid: Mid::new(b"7").unwrap(),
        kind: MediaKind::Video,
        exts: Vec::new(),
        payloads: vec![payload(96, Format::Vp8), payload(98, VP9)],
        ingress: None,
        egress: Some(EgressConfig { ssrc: Ssrc(1), rtx_ssrc: Ssrc(2), track: Some(TRACK), demand: Demand::default() }),
    }
}

impl Bench {
    fn new(format: Format) -> Self {
        let slot = Slot::new(&mut StdRng::seed_from_u64(1), &mline(), (true, true), None).unwrap();
        let track = Track::new(TRACK, MediaKind::Video);
        Self { now: clock::now(), slot, track, format, source: Ssrc(5), offers_more: true, pictures: [0; 2] }
    }

    /// The next picture of an encoding, of two packets; a keyframe begins the pattern anew.
    fn make(&mut self, encoding: u8, is_key: bool, bytes: usize) -> Vec<PacketMeta> {
        let picture = &mut self.pictures[usize::from(encoding)];
        if is_key {
            *picture = picture.next_multiple_of(4);
        }
        let (at, temporal) = (*picture, PATTERN[*picture as usize % 4]);
        *picture += 1;
        let part = |part: u64| {
            let marks = FrameMarks {
                temporal,
                is_start: part == 0,
                is_key: is_key && part == 0,
                is_switch_up: self.offers_more,
                picture_id: Some(PictureId { value: (at as u16).wrapping_add(9_000) & 0x7fff, is_long: true }),
                tl0: Some((at / 4) as u8),
                frame_number: Some(at as u16),
                ..FrameMarks::default()
            };
            let (seq, timestamp) = (1000 + at * 2 + part, at as u32 * 3000);
            PacketMeta { seq, source: self.source, timestamp, marker: part == 1, format: self.format, encoding, marks }
        };
        let metas: Vec<_> = [0, 1].map(part).to_vec();
        for meta in &metas {
            assert!(self.track.insert(self.now, Packet { meta: *meta, exts: &[], payload: &vec![0; bytes] }));
        }
        self.track.fresh.clear();
        metas
    }

    /// So many pictures come and nobody gets them, a keyframe first.
    fn make_run(&mut self, encoding: u8, pictures: usize, bytes: usize) {
        (0..pictures).for_each(|at| drop(self.make(encoding, at == 0, bytes)));
    }

    fn obey(&mut self, encoding: u8, bps: u64) {
        self.obey_shedding(encoding, bps, false);
    }

    fn obey_shedding(&mut self, encoding: u8, bps: u64, sheds: bool) {
        let target = Some(Layer { encoding, spatial: 0, temporal: 2 });
        self.slot.obey(Allocation { id: 0, target, bps, wanted: target, wanted_bps: bps, why: Why::Best }, sheds);
    }

    fn number(&mut self, meta: &PacketMeta) -> Result<Out, Discard> {
        let packet = self.track.packet(meta.encoding, meta.seq).unwrap();
        Ok(out(meta, self.slot.number(self.now, &self.track, &packet)?))
    }

    /// The next picture comes and goes out, or not.
    fn pass(&mut self, encoding: u8, is_key: bool) -> Vec<Result<Out, Discard>> {
        self.now += Duration::from_millis(33);
        self.make(encoding, is_key, 100).iter().map(|meta| self.number(meta)).collect()
    }

    /// Takes what so many bytes are enough for.
    fn take_run(&mut self, bytes_max: u64) -> Vec<Out> {
        self.take(Length::join(bytes_max * 16))
    }

    fn take(&mut self, length: Length) -> Vec<Out> {
        let mut outs = Vec::new();
        let has_any = self.slot.take_run(self.now, &self.track, length, |meta, numbers| outs.push(out(meta, numbers)));
        assert_eq!(has_any, !outs.is_empty());
        outs
    }
}

fn out(meta: &PacketMeta, numbers: Numbers) -> Out {
    let shift = numbers.shift;
    Out {
        encoding: meta.encoding,
        index: numbers.index,
        timestamp: meta.timestamp.wrapping_add(shift.timestamp),
        picture_id: meta.marks.picture_id.unwrap().value.wrapping_add(shift.picture_id) & 0x7fff,
        tl0: meta.marks.tl0.unwrap().wrapping_add(shift.tl0),
        frame_number: meta.marks.frame_number.unwrap().wrapping_add(shift.frame_number),
    }
}

/// No number is missing and none is there twice; timestamps rise, and so do the counters of pictures.
fn assert_continuous(outs: &[Out]) {
    for pair in outs.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        assert_eq!(after.index, before.index + 1, "{pair:?}");
        let ticks = after.timestamp.wrapping_sub(before.timestamp).cast_signed();
        let pictures = after.picture_id.wrapping_sub(before.picture_id) & 0x7fff;
        assert_eq!((pictures, ticks > 0), if ticks == 0 { (0, false) } else { (1, true) }, "{pair:?}");
        assert!(after.tl0.wrapping_sub(before.tl0) <= 1, "{pair:?}");
    }
}

#[test]
fn who_joins_gets_what_is_kept_and_then_what_comes() {
    // All of a short run; of a long one temporal layer 0, and all of the latest pictures from the way up on.
    for (pictures, taken) in [(11, 11), (27, 3 + 15)] {
        let mut bench = Bench::new(Format::Vp8);
        bench.obey(1, 500_000);
        // What nobody gets is seen all the same.
        for at in 0..pictures {
            assert!(bench.pass(0, at == 0).iter().all(Result::is_err));
        }
        bench.obey(0, 100_000);
        let mut outs = bench.take_run(LARGE);
        assert_eq!(outs.len(), 2 * taken, "{pictures}");
        let lasts = outs.last().unwrap().timestamp.wrapping_sub(outs[0].timestamp);
        assert!(lasts <= 450, "{lasts} ticks: the past is not played");
        assert_eq!(bench.slot.wants_keyframe(), None);
        assert_eq!(bench.take_run(LARGE), [], "once is enough");
        for _ in 0..24 {
            let picture = bench.pass(0, false);
            assert!(picture.iter().all(Result::is_ok), "the next picture can be decoded, and all after it");
            outs.extend(picture.into_iter().flatten());
        }
        assert_continuous(&outs);
    }
}

#[test]
fn where_no_way_leads_up_live_pictures_keep_their_distance() {
    let mut bench = Bench::new(Format::Vp8);
    bench.offers_more = false;
    bench.make_run(0, 31, 100);
    bench.obey(0, 500_000);
    let outs = bench.take_run(LARGE);
    assert_eq!(outs.len(), 16, "temporal layer 0");
    assert!(bench.pass(0, false)[0].is_err());
    let live = bench.pass(0, false)[0].unwrap();
    assert_eq!(live.timestamp.wrapping_sub(outs[15].timestamp), 4 * 3000);
}

#[test]
fn who_sees_something_takes_only_what_is_decoded_in_a_moment() {
    for (pictures, is_taken) in [(8, true), (9, false), (20, false)] {
        let mut bench = Bench::new(Format::Vp8);
        bench.obey(0, 100_000);
        let first = (0..9).flat_map(|at| bench.pass(0, at == 0)).flatten().count();
        bench.make_run(1, pictures, 100);
        bench.obey(1, 500_000);
        assert_eq!((first, bench.take(Length::switch(LARGE)).len()), (18, if is_taken { 2 * pictures } else { 0 }));
        assert!(bench.pass(0, false).iter().all(|packet| packet.is_ok() != is_taken), "until then it goes on");
    }
}

#[test]
fn what_cannot_be_sent_for_a_moment_is_left_out_picture_by_picture() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(0, 500_000);
    let is_shown = |bench: &mut Bench, is_key| bench.pass(0, is_key).iter().all(Result::is_ok);
    assert!(is_shown(&mut bench, true) && (0..7).all(|_| is_shown(&mut bench, false)));
    bench.obey_shedding(0, 500_000, true);
    let shown: Vec<bool> = (0..8).map(|_| is_shown(&mut bench, false)).collect();
    assert_eq!(shown.iter().filter(|it| **it).count(), 2, "one in four: {shown:?}");
    assert_eq!(bench.slot.wants_keyframe(), None);
    bench.obey(0, 500_000);
    let shown: Vec<bool> = (0..12).map(|_| is_shown(&mut bench, false)).collect();
    assert!(shown[4..].iter().all(|it| *it), "{shown:?}");
}

#[test]
fn what_waits_to_be_forwarded_while_a_run_is_taken_goes_out_once() {
    let mut bench = Bench::new(Format::Vp8);
    bench.make_run(0, 7, 100);
    let metas: Vec<_> = (0..4).flat_map(|_| bench.make(0, false, 100)).collect();
    bench.obey(0, 500_000);
    let mut outs = bench.take_run(LARGE);
    assert!(metas.iter().all(|meta| bench.number(meta).is_err()), "it is in the run, or over");
    for _ in 0..12 {
        outs.extend(bench.pass(0, false).into_iter().flatten());
    }
    assert_continuous(&outs);
}

#[test]
fn a_run_may_end_within_a_picture() {
    for pictures in 8..13 {
        let mut bench = Bench::new(Format::Vp8);
        bench.make_run(0, pictures, 100);
        // Its second packet is still to come.
        let metas = {
            let (before, track) =
                (bench.pictures, std::mem::replace(&mut bench.track, Track::new(TRACK, MediaKind::Video)));
            let metas = bench.make(0, false, 100);
            (bench.pictures, bench.track) = (before, track);
            metas
        };
        let insert = |bench: &mut Bench, meta| {
            assert!(bench.track.insert(bench.now, Packet { meta, exts: &[], payload: &[0; 100] }));
        };
        insert(&mut bench, metas[0]);
        bench.obey(0, 500_000);
        let mut outs = bench.take_run(LARGE);
        insert(&mut bench, metas[1]);
        bench.pictures[0] += 1;
        outs.extend(bench.number(&metas[1]));
        for _ in 0..12 {
            outs.extend(bench.pass(0, false).into_iter().flatten());
        }
        assert_continuous(&outs);
    }
}

#[test]
fn pictures_that_are_known_by_their_distance_keep_it() {
    let mut bench = Bench::new(VP9);
    bench.make_run(0, 30, 100);
    bench.obey(0, 500_000);
    let outs = bench.take_run(LARGE);
    let first = outs[0];
    let distances = |at: usize| {
        let out = outs[at];
        (out.picture_id.wrapping_sub(first.picture_id), out.frame_number.wrapping_sub(first.frame_number))
    };
    assert_eq!([distances(2), distances(4)], [(4, 4), (8, 8)]);
}

#[test]
fn too_much_is_not_taken_but_a_cheaper_stream_until_a_keyframe_comes() {
    let mut bench = Bench::new(Format::Vp8);
    bench.make_run(0, 20, 100);
    bench.make_run(1, 20, 1000);
    bench.obey(1, 500_000);
    assert_eq!(bench.take_run(900), [], "not even the cheaper one");
    let mut outs = bench.take_run(1500);
    assert!(outs.iter().all(|out| out.encoding == 0) && outs.len() == 10, "{outs:?}");
    assert_eq!(bench.slot.wants_keyframe(), Some(1));
    assert!(bench.slot.can_wait());
    let mut shown = 0;
    for _ in 0..16 {
        let picture = bench.pass(0, false);
        shown += usize::from(picture[0].is_ok());
        outs.extend(picture.into_iter().flatten());
        assert!(bench.pass(1, false).iter().all(Result::is_err));
    }
    assert!(shown >= 12, "{shown}: all layers of what will do");
    let first = bench.pass(1, true);
    assert!(first.iter().all(Result::is_ok), "{first:?}");
    outs.extend(first.into_iter().flatten());
    assert!(bench.pass(0, false).iter().all(Result::is_err));
    assert_eq!(bench.slot.wants_keyframe(), None);
    assert_continuous(&outs);
}

#[test]
fn a_run_takes_the_place_of_a_keyframe_on_the_way_up() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(0, 100_000);
    let mut outs: Vec<Out> = (0..9).flat_map(|at| bench.pass(0, at == 0)).flatten().collect();
    bench.make_run(1, 9, 100);
    bench.obey(1, 500_000);
    assert!(bench.slot.can_wait());
    let run = bench.take_run(LARGE);
    assert!(run.len() == 18 && run.iter().all(|out| out.encoding == 1));
    outs.extend(run);
    outs.extend((0..9).flat_map(|_| bench.pass(1, false)).flatten());
    assert_continuous(&outs);
    bench.obey(0, 100_000);
    assert!(!bench.slot.can_wait(), "the way down is urgent");
}

#[test]
fn only_want_of_bandwidth_presses() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(1, 500_000);
    let lower = Some(Layer { encoding: 0, spatial: 0, temporal: 2 });
    let before = bench.slot.allocation.unwrap();
    bench.slot.obey(Allocation { target: lower, bps: 100_000, ..before }, false);
    assert!(bench.slot.is_pressed());
    bench.obey(1, 500_000);
    bench.obey(0, 100_000);
    assert!(!bench.slot.is_pressed(), "it was asked for");
}

#[test]
fn a_format_that_was_not_negotiated_is_not_begun() {
    let mut bench = Bench::new(Format::Av1 { profile: 0 });
    bench.make_run(0, 5, 100);
    bench.obey(0, 500_000);
    assert_eq!(bench.take_run(LARGE), []);
    assert_eq!(bench.slot.wants_keyframe(), Some(0));
}

#[test]
fn timestamps_follow_the_publishers_clocks() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(0, 100_000);
    let last = bench.pass(0, true)[0].unwrap();
    bench.make_run(1, 1, 100);
    let second = 1u64 << 32;
    let clock = |ntp, rtp_timestamp, now| SenderClock { source: Ssrc(5), ntp, rtp_timestamp, heard_at: now };
    // The clocks say the other encoding's timestamp 0 is at u32::MAX - 8999 of this one's, 100 ms before its 0; seconds of NTP roll over between.
    let now = bench.now;
    bench.track.encoding_mut(0).unwrap().clock = Some(clock(u64::MAX - second / 2 + 1, 0, now));
    bench.track.encoding_mut(1).unwrap().clock = Some(clock(second / 2, 90_000 + 9000, now));
    for (timestamp, after) in [(18_000, 9000), (9001, 1), (9000, 1), (0, 1), (4_000_000_000, 1)] {
        let meta = PacketMeta { timestamp, ..*bench.make(1, false, 1).first().unwrap() };
        let next = bench.slot.timestamp_after(&bench.track, &meta).unwrap();
        assert_eq!(next.wrapping_sub(last.timestamp), after, "{timestamp}");
    }
    bench.track.encoding_mut(1).unwrap().clock = None;
    let meta = bench.make(1, false, 1)[0];
    assert_eq!(bench.slot.timestamp_after(&bench.track, &meta), None, "nothing is known");
}

#[test]
fn a_new_source_begins_with_a_keyframe_and_numbers_go_on() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(0, 100_000);
    let mut outs: Vec<Out> = (0..8).flat_map(|at| bench.pass(0, at == 0)).flatten().collect();
    bench.source = Ssrc(6);
    assert_eq!(bench.pass(0, false), [Err(Discard::AwaitsKeyframe), Err(Discard::AwaitsKeyframe)]);
    assert_eq!(bench.slot.wants_keyframe(), Some(0));
    outs.extend((0..8).flat_map(|at| bench.pass(0, at == 0)).flatten());
    assert_eq!(outs.len(), 32);
    assert_continuous(&outs);
}

#[test]
fn a_keyframe_that_cannot_be_seen_is_not_waited_for_for_ever() {
    let mut bench = Bench::new(Format::Vp8);
    bench.obey(0, 100_000);
    assert!(bench.pass(0, false).iter().all(Result::is_err));
    bench.now += AWAIT_KEYFRAME_MAX - Duration::from_millis(34);
    assert!(bench.pass(0, false).iter().all(Result::is_err));
    assert!(bench.pass(0, false).iter().all(Result::is_ok), "it begins blindly");
    bench.slot.restart();
    assert!(bench.pass(0, false).iter().all(Result::is_err), "and waits anew after that");
}
