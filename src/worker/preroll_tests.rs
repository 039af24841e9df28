//! Voices that take turns: whatever comes late or not at all, and whoever is pinned or muted meanwhile, each listener
//! gets one stream of each that could have been sent to him alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::slice_tests::{Rooms, path};
use super::*;
use crate::base::format::Format;
use crate::base::frame::FrameMarks;
use crate::base::ids::{Mid, RoomKey, Ssrc, WorkerId};
use crate::forward::table::{Route, Subscriber, Voice};
use crate::proto::history::PacketMeta;
use crate::session::streams::{Demand, EgressConfig, MlineConfig, Payload, StreamsConfig};
use crate::wire::rtp_ext::Ext;
use crate::worker::command::Command;

const VOICES: u32 = 6;
const HEARD: usize = 2;
/// Everybody who speaks, and two who do not.
const LISTENERS: u32 = VOICES + 2;
const PACKET: Duration = Duration::from_millis(20);

/// 20 ms of everybody.
#[derive(Clone, Debug)]
struct Step {
    /// Loudness of each, as in RFC 6464.
    levels: [u8; VOICES as usize],
    /// Whose packet gets lost, as bits.
    lost: u8,
    /// Whose comes so many steps late; 0: nobody's.
    late: (u8, usize),
    /// What one listener changes of one voice.
    wish: Option<(u32, u32, Wish)>,
    /// The worker gets to forwarding.
    forwards: bool,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Pin,
    Mute,
}

fn step() -> impl Strategy<Value = Step> {
    let level = prop_oneof![4 => Just(100u8), 1 => Just(10), 1 => Just(20), 1 => Just(30), 1 => Just(40)];
    let wish = (0..LISTENERS, 0..VOICES, prop_oneof![Just(Wish::Pin), Just(Wish::Mute)]);
    let bits = || prop_oneof![4 => Just(0u8), 1 => 0u8..64];
    (
        prop::array::uniform6(level),
        bits(),
        (bits(), 1usize..12),
        prop::option::weighted(0.1, wish),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(levels, lost, late, wish, forwards)| Step { levels, lost, late, wish, forwards })
}

fn track(voice: u32) -> TrackKey {
    TrackKey { index: voice, epoch: 0 }
}

fn session(index: u32) -> SessionKey {
    SessionKey { index, epoch: 0 }
}

struct Hall {
    rooms: Rooms,
    seqs: [u64; VOICES as usize],
    pins: BTreeSet<(u32, u32)>,
    pin_changes: u32,
    mutes: BTreeSet<(u32, u32)>,
    /// How many packets had left by each change of a mute: what comes after is a stream of its own.
    cuts: BTreeMap<(u32, u32), Vec<usize>>,
    /// Came never, or after a later one: (voice, number).
    lost: BTreeSet<(u32, u64)>,
    late: BTreeSet<(u32, u64)>,
    /// What is under way, by when it comes.
    under_way: BTreeMap<usize, Vec<(u32, u64, u8)>>,
    steps: usize,
}

impl Hall {
    fn new() -> Self {
        let mut rooms = Rooms::empty(64);
        rooms.core.set_voices_heard(HEARD);
        let mut hall = Self {
            rooms,
            seqs: [1000; VOICES as usize],
            pins: BTreeSet::new(),
            pin_changes: 0,
            mutes: BTreeSet::new(),
            cuts: BTreeMap::new(),
            lost: BTreeSet::new(),
            late: BTreeSet::new(),
            under_way: BTreeMap::new(),
            steps: 0,
        };
        for listener in 0..LISTENERS {
            let streams = hall.streams(listener);
            hall.rooms.enter(listener, streams);
        }
        (0..VOICES).for_each(|voice| hall.route(voice));
        hall.rooms.plan.publish();
        hall
    }

    fn streams(&self, listener: u32) -> Arc<StreamsConfig> {
        let mline = |voice: u32| {
            let is_heard = voice != listener && !self.mutes.contains(&(listener, voice));
            Some(MlineConfig {
                mid: Mid::new(&[b'a' + voice as u8]).unwrap(),
                kind: MediaKind::Audio,
                exts: Vec::new(),
                payloads: vec![Payload {
                    pt: 111,
                    format: Format::Opus,
                    rtx_pt: None,
                    nack: false,
                    pli: false,
                    fir: false,
                    transport_cc: false,
                    remb: false,
                }],
                ingress: None,
                egress: Some(EgressConfig {
                    ssrc: Ssrc(1 + voice),
                    rtx_ssrc: Ssrc(99),
                    track: is_heard.then_some(track(voice)),
                    demand: Demand::default(),
                }),
            })
        };
        Arc::new(StreamsConfig { mlines: (0..VOICES).map(mline).collect(), ext_mixed: true, downlink_bps_max: None })
    }

    fn route(&mut self, voice: u32) {
        let subscriber = |listener: u32| Subscriber { session: session(listener), mline: voice as u16 };
        let is_heard = |listener: &u32| *listener != voice && !self.mutes.contains(&(*listener, voice));
        let all: Box<[Subscriber]> = (0..LISTENERS).filter(is_heard).map(subscriber).collect();
        let pins = (0..LISTENERS).filter(|it| is_heard(it) && self.pins.contains(&(*it, voice))).map(subscriber);
        let of = Voice { room: RoomKey { index: 0, epoch: 0 }, publisher: session(voice) };
        self.rooms.plan.set(Route {
            by_worker: Box::new([all]),
            voice: Some(of),
            pins: pins.collect(),
            pin_changes: self.pin_changes,
            ..Route::new(track(voice), WorkerId(0))
        });
    }

    fn wish(&mut self, listener: u32, voice: u32, wish: Wish) {
        let list = match wish {
            Wish::Pin => &mut self.pins,
            Wish::Mute => &mut self.mutes,
        };
        if !list.remove(&(listener, voice)) {
            list.insert((listener, voice));
        }
        if matches!(wish, Wish::Mute) {
            let left = self.got(listener, voice).len();
            self.cuts.entry((listener, voice)).or_default().push(left);
        }
        self.pin_changes += 1;
        self.route(voice);
        self.rooms.plan.publish();
        let (session, streams) = (session(listener), self.streams(listener));
        let configure = Command::Configure { session, remote: None, streams };
        self.rooms.core.apply(self.rooms.now, configure, &mut TxBatch::with_capacity(1));
    }

    fn play(&mut self, step: &Step) {
        if let Some((listener, voice, wish)) = step.wish {
            self.wish(listener, voice, wish);
        }
        for voice in 0..VOICES {
            let (place, bit) = (voice as usize, 1 << voice);
            self.seqs[place] += 1;
            let (seq, level) = (self.seqs[place], step.levels[place]);
            if step.lost & bit != 0 {
                self.lost.insert((voice, seq));
                continue;
            }
            let delay = if step.late.0 & bit != 0 { step.late.1 } else { 0 };
            if delay > 0 {
                self.late.insert((voice, seq));
            }
            self.under_way.entry(self.steps + delay).or_default().push((voice, seq, level));
        }
        for (voice, seq, level) in self.under_way.remove(&self.steps).unwrap_or_default() {
            self.hear(voice, seq, level);
        }
        self.steps += 1;
        self.rooms.now += PACKET;
        if step.forwards {
            self.rooms.forward_all();
        }
    }

    fn hear(&mut self, voice: u32, seq: u64, level: u8) {
        let meta = PacketMeta {
            seq,
            source: Ssrc(1),
            timestamp: seq as u32 * 960,
            marker: false,
            format: Format::Opus,
            encoding: 0,
            marks: FrameMarks::WHOLE,
        };
        let payload = [&seq.to_be_bytes()[..], &[voice as u8; 50]].concat();
        let packet = Packet { meta, exts: &[Ext::AudioLevel as u8, 1, 0x80 | level], payload: &payload };
        let table = self.rooms.core.table.load();
        self.rooms.core.handle_lane_media(self.rooms.now, &table, track(voice), MediaKind::Audio, packet);
    }

    /// Packet index and number of what a listener got of a voice.
    fn got(&self, listener: u32, voice: u32) -> Vec<(u64, u64)> {
        let got = self.rooms.got.get(&(path(listener).remote, Ssrc(1 + voice)));
        let numbers = |payload: &[u8]| u64::from_be_bytes(*payload.first_chunk().unwrap());
        got.into_iter().flatten().map(|(index, _, payload)| (*index, numbers(payload))).collect()
    }

    /// What is wrong with what a listener got of a voice.
    fn fault(&self, listener: u32, voice: u32) -> Option<String> {
        let mut rest = &self.got(listener, voice)[..];
        let (mut at, mut highest) = (0, None);
        let cuts = self.cuts.get(&(listener, voice)).into_iter().flatten().copied();
        for cut in cuts.chain([usize::MAX]) {
            let (stream, next) = rest.split_at(rest.len().min(cut.saturating_sub(at)));
            (at, rest) = (at + stream.len(), next);
            let (first, last) = (stream.iter().map(|it| it.0).min(), stream.iter().map(|it| it.0).max());
            if first.is_some() && first <= highest {
                return Some(format!("{listener} of {voice}: {first:?} after a mute at {highest:?}"));
            }
            highest = last.or(highest);
            if let Some(fault) = self.fault_of(stream, listener, voice) {
                return Some(fault);
            }
        }
        None
    }

    fn fault_of(&self, got: &[(u64, u64)], listener: u32, voice: u32) -> Option<String> {
        let whose = format!("{listener} of {voice}");
        // Who has just come and begins with what is late did not get what had come between that and the rest: his own
        // numbers have a hole.
        let is_late = |seq: u64| self.late.contains(&(voice, seq));
        let begins_late = |seq: u64| {
            got.first().is_some_and(|first| is_late(first.1)) && got.iter().all(|it| it.1 > seq || is_late(it.1))
        };
        for pair in got.windows(2) {
            let [(before, _), (index, seq)] = [pair[0], pair[1]];
            if index < before && !is_late(seq) {
                return Some(format!("{whose}: {seq} by {index} after {before}"));
            }
        }
        let mut sorted = got.to_vec();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            let [(before, earlier), (index, seq)] = [pair[0], pair[1]];
            if index == before || seq <= earlier {
                return Some(format!("{whose}: {seq} by {index} and {earlier} by {before}"));
            }
            let between = |set: &BTreeSet<(u32, u64)>| set.range((voice, earlier + 1)..(voice, seq)).count() as u64;
            let missing = between(&self.lost) + between(&self.late);
            if index - before - 1 > missing && !begins_late(earlier) {
                let sent: Vec<_> = got.iter().skip_while(|it| **it != pair[0]).take(6).collect();
                return Some(format!(
                    "{whose}: {seq} by {index} follows {earlier} by {before}, {missing} missed {sent:?}"
                ));
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whoever_has_the_floor_each_listener_gets_whole_streams(steps in prop::collection::vec(step(), 1..250)) {
        let mut hall = Hall::new();
        for step in &steps {
            hall.play(step);
        }
        hall.rooms.forward_all();
        for listener in 0..LISTENERS {
            for voice in 0..VOICES {
                prop_assert_eq!(hall.fault(listener, voice), None);
            }
        }
    }
}

/// Turns of a few packets each; nothing is lost, so nothing may be missing.
#[test]
fn quick_turns_leave_no_holes() {
    let mut hall = Hall::new();
    for at in 0..1000u32 {
        let mut levels = [100; VOICES as usize];
        for turn in 0..3 {
            levels[((at / 5 + turn) % VOICES) as usize] = 10 + 10 * turn as u8;
        }
        let wish = at.is_multiple_of(37).then_some((at % LISTENERS, at / 37 % VOICES, Wish::Pin));
        hall.play(&Step { levels, lost: 0, late: (0, 1), wish, forwards: at % 3 > 0 });
    }
    hall.rooms.forward_all();
    for (listener, voice) in (0..LISTENERS).flat_map(|listener| (0..VOICES).map(move |voice| (listener, voice))) {
        assert_eq!(hall.fault(listener, voice), None);
    }
    let sent: usize = hall.rooms.got.values().map(Vec::len).sum();
    let all = 1000 * (VOICES * (LISTENERS - 1)) as usize;
    assert!(sent > all / 10 && sent < all, "{sent} of {all}");
}
