//! What trains come of meetings as browsers send them, and what they cost: the figures behind the two settings.
//!
//!   cargo bench --bench trains
//!
//! The same figures in every run: virtual time, one seed. First the padding: packets of a meeting of ten are put in order
//! by [`Arranger`], for one of them, with all that comes within a window in one turn. Then the hold: one worker with many
//! such rooms and [`Hold`], where turns take the time that they would, by costs measured over loopback.

#![allow(clippy::disallowed_methods, missing_docs)]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tramline::forward::order::{Arranger, Due, PACKETS_MAX, Rules};
use tramline::worker::hold::Hold;

const PEERS: u16 = 10;
const VIDEO_BPS: f64 = 1e6;
const FRAMES_PER_S: f64 = 30.0;
/// Sizes of frames differ by a quarter from one to the next, keyframes are six times as long.
const FRAME_SPREAD: f64 = 0.25;
/// libwebrtc's payloads are shorter than this.
const PAYLOAD_BYTES_MAX: usize = 1150;
/// Header, mid and tag.
const AROUND_BYTES: u16 = 36;
/// 5 ms at 10 Mbit/s.
const AHEAD_OF_AUDIO_BYTES_MAX: u32 = 6250;

#[derive(Clone, Copy)]
struct Arrival {
    at_ns: u64,
    room: u16,
    publisher: u16,
    is_audio: bool,
    bytes: u16,
}

/// As libwebrtc cuts a frame: near-equal packets, the longer ones behind.
fn cut(frame_bytes: usize) -> impl Iterator<Item = u16> {
    let count = frame_bytes.div_ceil(PAYLOAD_BYTES_MAX);
    let longer = frame_bytes % count;
    (0..count).map(move |at| (frame_bytes / count + usize::from(at >= count - longer)) as u16 + AROUND_BYTES)
}

/// What a worker receives from rooms of ten. `spacing_ns` lies between the packets of a frame.
fn meetings(rooms: u16, seconds: u64, spacing_ns: u64) -> Vec<Arrival> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut arrivals = Vec::new();
    for (room, publisher) in (0..rooms).flat_map(|room| (0..PEERS).map(move |peer| (room, peer))) {
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let phases = [normal().abs(), normal().abs()];
        for frame in 0..(seconds as f64 * FRAMES_PER_S) as u64 {
            let scale = if frame % 300 == 150 { 6.0 } else { (FRAME_SPREAD * normal()).exp() };
            let at_ns = ((frame as f64 + phases[0]) * 1e9 / FRAMES_PER_S) as u64;
            for (part, bytes) in cut((VIDEO_BPS / 8.0 / FRAMES_PER_S * scale) as usize).enumerate() {
                let at_ns = at_ns + part as u64 * spacing_ns;
                arrivals.push(Arrival { at_ns, room, publisher, is_audio: false, bytes });
            }
        }
        for packet in 0..seconds * 50 {
            let bytes = (90.0 + 12.0 * normal()).max(40.0) as u16 + AROUND_BYTES;
            let at_ns = ((packet as f64 + phases[1]) * 2e7) as u64;
            arrivals.push(Arrival { at_ns, room, publisher, is_audio: true, bytes });
        }
    }
    arrivals.sort_unstable_by_key(|arrival| arrival.at_ns);
    arrivals
}

#[derive(Default)]
struct Sum {
    packets: u64,
    trains: u64,
    bytes: u64,
    padding: u64,
}

impl Sum {
    fn mean(&self) -> f64 {
        self.packets as f64 / self.trains as f64
    }
}

/// One subscriber's turn.
fn arrange(arranger: &mut Arranger, due: &[Due], padding_percent_max: u8, sum: &mut Sum) {
    for due in due.chunks(PACKETS_MAX) {
        arranger.arrange(due, Rules { padding_percent_max, ahead_of_audio_bytes_max: AHEAD_OF_AUDIO_BYTES_MAX });
        sum.trains += arranger.train_lengths().count() as u64;
        sum.packets += due.len() as u64;
        sum.bytes += due.iter().map(|due| u64::from(due.bytes)).sum::<u64>();
        sum.padding += arranger.places().iter().map(|place| u64::from(place.padding)).sum::<u64>();
    }
}

fn due_to(subscriber: u16, turn: &[Arrival], due: &mut Vec<Due>) {
    due.clear();
    for is_audio in [true, false] {
        for publisher in (0..PEERS).filter(|publisher| *publisher != subscriber) {
            let of = turn.iter().filter(|it| it.publisher == publisher && it.is_audio == is_audio);
            due.extend(of.map(|it| Due { stream: 2 * publisher + u16::from(!is_audio), is_audio, bytes: it.bytes }));
        }
    }
}

fn padding_table() {
    println!("One subscriber of a meeting of {PEERS}: mean train length, and padding in percent of all bytes\n");
    const PERCENTS: [u8; 7] = [0, 1, 2, 3, 5, 7, 10];
    print!("{:>10} {:>10}", "spacing us", "window us");
    PERCENTS.iter().for_each(|percent| print!("{:>15}", format!("at most {percent}%")));
    println!();
    let (mut arranger, mut due) = (Arranger::default(), Vec::new());
    for spacing_us in [0, 100, 300] {
        let arrivals = meetings(1, 60, spacing_us * 1000);
        for window_us in [0, 250, 1000, 5000] {
            print!("{spacing_us:>10} {window_us:>10}");
            for percent in PERCENTS {
                let mut sum = Sum::default();
                let mut rest = &arrivals[..];
                while let Some(first) = rest.first() {
                    let count = rest.partition_point(|it| it.at_ns <= first.at_ns + window_us * 1000);
                    let (turn, later) = rest.split_at(count);
                    due_to(0, turn, &mut due);
                    arrange(&mut arranger, &due, percent, &mut sum);
                    rest = later;
                }
                print!("{:>15}", format!("{:.2}  {:.2}%", sum.mean(), 100.0 * sum.padding as f64 / sum.bytes as f64));
            }
            println!();
        }
    }
}

/// Costs in nanoseconds: loopback, receivers that take whole trains (see tuning.md).
const TURN_NS: u64 = 2000;
const RECEIVE_NS: u64 = 900;
const TRAIN_NS: u64 = 1200;
const SEND_NS: u64 = 350;
const DATAGRAMS_PER_TURN_MAX: usize = 512;

struct Outcome {
    sum: Sum,
    busy_ns: u64,
    turns: u64,
    waits_ns: Vec<u64>,
}

/// A worker of many rooms. Packets leave at the end of the turn that forwards them.
fn work(arrivals: &[Arrival], rooms: u16, hold_max: Duration) -> Outcome {
    let start = Instant::now();
    let mut hold = Hold::new(hold_max);
    let mut outcome = Outcome { sum: Sum::default(), busy_ns: 0, turns: 0, waits_ns: Vec::new() };
    let (mut arranger, mut due) = (Arranger::default(), Vec::new());
    let mut fresh: Vec<Vec<Arrival>> = vec![Vec::new(); rooms.into()];
    let (mut now_ns, mut load_noted_ns, mut next, mut fresh_count) = (0, 0, 0, 0);
    while next < arrivals.len() || fresh_count > 0 {
        let hold_end_ns = hold.next_timeout().map(|at| at.saturating_duration_since(start).as_nanos() as u64);
        let arrival_ns = arrivals.get(next).map(|arrival| arrival.at_ns);
        now_ns = now_ns.max(hold_end_ns.into_iter().chain(arrival_ns).min().unwrap_or(now_ns));
        let now = start + Duration::from_nanos(now_ns);
        if now_ns - load_noted_ns >= 10_000_000 {
            load_noted_ns = now_ns;
            hold.handle_load(now, Duration::from_nanos(outcome.busy_ns));
        }
        let mut cost_ns = TURN_NS;
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            let Some(arrival) = arrivals.get(next).filter(|arrival| arrival.at_ns <= now_ns) else { break };
            fresh[usize::from(arrival.room)].push(*arrival);
            cost_ns += RECEIVE_NS;
            (next, fresh_count) = (next + 1, fresh_count + 1);
        }
        if fresh_count > 0 && hold.is_over(now, fresh_count) {
            let before = (outcome.sum.trains, outcome.sum.packets);
            for (room, subscriber) in (0..rooms).flat_map(|room| (0..PEERS).map(move |peer| (room, peer))) {
                due_to(subscriber, &fresh[usize::from(room)], &mut due);
                arrange(&mut arranger, &due, 5, &mut outcome.sum);
            }
            cost_ns += (outcome.sum.trains - before.0) * TRAIN_NS + (outcome.sum.packets - before.1) * SEND_NS;
            let end_ns = now_ns + cost_ns;
            fresh.iter_mut().flat_map(|room| room.drain(..)).for_each(|it| outcome.waits_ns.push(end_ns - it.at_ns));
            fresh_count = 0;
        }
        outcome.turns += 1;
        outcome.busy_ns += cost_ns;
        now_ns += cost_ns;
    }
    outcome.waits_ns.sort_unstable();
    outcome
}

fn hold_table() {
    println!("\nOne worker, rooms of {PEERS}: what the hold does. Time from arrival to the end of the turn\n");
    println!(
        "{:>10} {:>6} {:>8} {:>8} {:>12} {:>12} {:>8} {:>8} {:>8}",
        "spacing us", "rooms", "hold us", "busy", "ns/packet", "turns/ms", "train", "p50 us", "p99 us"
    );
    const SECONDS: u64 = 4;
    for (spacing_us, rooms) in
        [(0, 10), (0, 25), (0, 40), (0, 55), (100, 10), (100, 25), (100, 40), (300, 25), (300, 40)]
    {
        let arrivals = meetings(rooms, SECONDS, spacing_us * 1000);
        for hold_us in [0, 100, 250, 500] {
            let outcome = work(&arrivals, rooms, Duration::from_micros(hold_us));
            let share = |part: usize| outcome.waits_ns[(outcome.waits_ns.len() - 1) * part / 100] as f64 / 1000.0;
            println!(
                "{spacing_us:>10} {rooms:>6} {hold_us:>8} {:>7.0}% {:>12.0} {:>12.1} {:>8.2} {:>8.0} {:>8.0}",
                outcome.busy_ns as f64 / (SECONDS as f64 * 1e7),
                outcome.busy_ns as f64 / outcome.sum.packets as f64,
                outcome.turns as f64 / (SECONDS as f64 * 1000.0),
                outcome.sum.mean(),
                share(50),
                share(99)
            );
        }
    }
}

fn main() {
    padding_table();
    hold_table();
}
