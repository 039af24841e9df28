//! One track being recorded: packets in, a file and its sidecar out.
//!
//! Of a simulcast the best stream that is alive is recorded; another one takes its place with a keyframe. Owns: the streams
//! of the track, its mapping of times, its file. Promises: a file begins with what a decoder can begin with; what goes
//! wrong ends this recording only. Forbids: threads; the disk does what it is asked for later.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::disk::Disk;
use super::file::OpenFile;
use super::frames::{Assembler, Frame};
use super::opus;
use super::reorder::{Ordered, Reorder, Taken};
use super::sidecar::{Sidecar, State};
use super::timeline::{Report, Timeline};
use crate::base::format::{Format, MediaKind};
use crate::base::frame::ENCODINGS_MAX;
use crate::base::ids::TrackKey;
use crate::worker::command::Recorded;

/// A stream that nothing came of for so long is not alive: more than the pause between two pictures of a still screen.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// Who cannot go on without a keyframe says so again after this; the worker asks no more often than for subscribers.
const WISH_INTERVAL: Duration = Duration::from_millis(500);
/// Who could go on better with one, after this.
const BETTER_INTERVAL: Duration = Duration::from_secs(3);
/// A stream with packets and without a keyframe that can be read for so long is not asked any more.
const READABLE_MAX: Duration = Duration::from_secs(15);
/// Packets whose length in time is compared with their timestamps before sound is called noise.
const SOUND_PROBE: u32 = 100;

/// One stream of the track.
#[derive(Debug)]
struct Stream {
    reorder: Reorder,
    assembler: Assembler,
    report: Option<Report>,
    pixels: u32,
    last_at: Instant,
    first_at: Instant,
    wished_at: Option<Instant>,
    has_keyframe: bool,
}

/// Whether packets of sound last as long as their timestamps say.
#[derive(Debug, Default)]
struct SoundProbe {
    last: Option<(u64, u32, u64)>,
    compared: u32,
    wrong: u32,
}

/// What the track's surroundings do for it.
pub struct Around<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// Where files are made.
    pub directory: &'a Path,
    /// Names that are taken.
    pub names: &'a mut std::collections::HashSet<String>,
    /// Keyframes to ask for.
    pub wishes: &'a mut Vec<(TrackKey, u8)>,
    /// Now.
    pub now: Instant,
    /// The same on the wall.
    pub wall: SystemTime,
    /// What tells this run of the server from others.
    pub run: &'a str,
}

/// See the module.
pub struct TrackRecorder {
    /// What is recorded.
    pub about: Arc<Recorded>,
    streams: [Option<Box<Stream>>; ENCODINGS_MAX],
    current: Option<u8>,
    timeline: Timeline,
    file: Option<OpenFile>,
    /// Sidecars of all its files that are whole now.
    done: Vec<Sidecar>,
    probe: SoundProbe,
    /// It cannot be recorded.
    failure: Option<String>,
    last_s: f64,
}

impl Stream {
    fn new(now: Instant) -> Self {
        Self {
            reorder: Reorder::default(),
            assembler: Assembler::default(),
            report: None,
            pixels: 0,
            last_at: now,
            first_at: now,
            wished_at: None,
            has_keyframe: false,
        }
    }

    fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_at) < DEAD_AFTER
    }
}

impl TrackRecorder {
    /// Nothing came yet.
    pub fn new(about: Arc<Recorded>) -> Self {
        Self {
            about,
            streams: [const { None }; ENCODINGS_MAX],
            current: None,
            timeline: Timeline::new(opus::RATE_HZ),
            file: None,
            done: Vec::new(),
            probe: SoundProbe::default(),
            failure: None,
            last_s: 0.0,
        }
    }

    /// A packet from the tap.
    pub fn handle_packet(&mut self, around: &mut Around<'_>, packet: Taken) {
        if self.failure.is_some() {
            return;
        }
        let index = packet.meta.encoding;
        let Some(slot) = self.streams.get_mut(usize::from(index)) else { return };
        let stream = slot.get_or_insert_with(|| Box::new(Stream::new(packet.arrived_at)));
        stream.last_at = packet.arrived_at;
        stream.reorder.insert(packet);
        self.drain(around, index, false);
    }

    /// A report of the publisher about one of its streams.
    pub fn handle_report(&mut self, around: &mut Around<'_>, encoding: u8, report: Report, heard_at: Instant) {
        let Some(stream) = self.streams.get_mut(usize::from(encoding)).and_then(Option::as_mut) else { return };
        stream.report = Some(report);
        let is_current = self.about.kind == MediaKind::Audio || self.current == Some(encoding);
        if is_current
            && let Some(file) = &mut self.file
            && let Some(at_s) = self.timeline.handle_report(report)
        {
            let ago = around.now.saturating_duration_since(heard_at);
            file.note_report(at_s, report, around.wall.checked_sub(ago).unwrap_or(around.wall));
        }
    }

    /// What time brings: gaps that are waited for no longer, wishes, pages, a file that failed.
    pub fn handle_timeout(&mut self, around: &mut Around<'_>) {
        for index in 0..ENCODINGS_MAX as u8 {
            self.drain(around, index, false);
        }
        if self.about.kind == MediaKind::Video && self.failure.is_none() {
            self.wish(around);
        }
        if let Some(file) = &mut self.file {
            file.flush(around);
            if let Some(failure) = file.failure() {
                let failure = failure.to_owned();
                self.fail(around, failure);
            }
        }
    }

    /// The track or its recording is over. Sidecars of all its files.
    pub fn finish(mut self, around: &mut Around<'_>) -> Vec<Sidecar> {
        for index in 0..ENCODINGS_MAX as u8 {
            self.drain(around, index, true);
        }
        self.close(around, State::Ended, None);
        self.done
    }

    /// Why it cannot be recorded, if that is so.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The file that is being written, and its length.
    pub fn progress(&self) -> Option<(&str, f64)> {
        self.file.as_ref().map(|file| (file.name(), file.seconds()))
    }

    fn drain(&mut self, around: &mut Around<'_>, index: u8, is_over: bool) {
        while let Some(stream) = self.streams.get_mut(usize::from(index)).and_then(Option::as_mut)
            && let Some(ordered) = stream.reorder.poll(around.now, is_over)
        {
            match ordered {
                Ordered::Gap(packets) => {
                    stream.assembler.handle_gap();
                    self.probe.last = None;
                    let is_current = self.about.kind == MediaKind::Audio || self.current == Some(index);
                    if let Some(file) = self.file.as_mut().filter(|_| is_current) {
                        file.note_gap(self.last_s, packets);
                    }
                }
                Ordered::Packet(packet) if self.about.kind == MediaKind::Audio => self.take_sound(around, packet),
                Ordered::Packet(packet) => {
                    let frames = stream.assembler.handle_packet(&packet);
                    if stream.assembler.is_noise() {
                        return self.fail(around, ENCRYPTED.to_owned());
                    }
                    frames.into_iter().flatten().for_each(|frame| self.take_frame(around, index, frame));
                }
            }
        }
    }

    fn take_frame(&mut self, around: &mut Around<'_>, index: u8, frame: Frame) {
        let pixels = frame.size.map_or(0, |(width, height)| u32::from(width) * u32::from(height));
        let current = self.current.and_then(|current| self.streams.get(usize::from(current))?.as_ref());
        let is_free = current.is_none_or(|stream| !stream.is_alive(around.now));
        let best = current.map_or(0, |stream| stream.pixels);
        let Some(stream) = self.streams.get_mut(usize::from(index)).and_then(Option::as_mut) else { return };
        if frame.is_key {
            stream.has_keyframe = true;
            stream.pixels = if pixels > 0 { pixels } else { stream.pixels };
        }
        let report = stream.report;
        if self.current != Some(index) {
            if !frame.is_key || !is_free && pixels <= best {
                return;
            }
            self.current = Some(index);
        }
        if self.file.as_ref().is_some_and(|file| !file.takes(frame.format)) {
            self.close(around, State::Ended, None);
        }
        if self.failure.is_some() {
            return;
        }
        let (is_begin, size) = (self.file.is_none(), frame.size.unwrap_or_default());
        if is_begin {
            self.timeline = Timeline::new(frame.format.clock_rate_hz());
            self.file = Some(OpenFile::begin(around, &self.about, frame.format, size, frame.arrived_at));
        }
        let placed = self.timeline.place(frame.source, frame.timestamp, frame.arrived_at, report);
        let Some(file) = &mut self.file else { return };
        if placed.is_new_origin {
            file.note_source(placed.at_s, frame.source, frame.timestamp, index);
        }
        if is_begin
            && let Some(report) = report
            && let Some(at_s) = self.timeline.handle_report(report)
        {
            file.note_report(at_s, report, around.wall);
        }
        self.last_s = placed.at_s;
        file.write_frame(around.disk, placed.at_s, &frame);
    }

    fn take_sound(&mut self, around: &mut Around<'_>, packet: Taken) {
        let Taken { meta, arrived_at, payload } = packet;
        let payload = match meta.format {
            Format::Opus => payload,
            Format::OpusRed => match primary(&payload) {
                Some(at) => payload[at..].to_vec(),
                None => return,
            },
            other => return self.fail(around, format!("{} is not recorded; sound has to be Opus", other.name())),
        };
        if self.probe.is_noise(meta.seq, meta.timestamp, &payload) {
            return self.fail(around, ENCRYPTED.to_owned());
        }
        let report = self.streams[0].as_ref().and_then(|stream| stream.report);
        let is_begin = self.file.is_none();
        if is_begin {
            self.timeline = Timeline::new(opus::RATE_HZ);
            self.file = Some(OpenFile::begin(around, &self.about, Format::Opus, (0, 0), arrived_at));
        }
        let placed = self.timeline.place(meta.source, meta.timestamp, arrived_at, report);
        let Some(file) = &mut self.file else { return };
        if placed.is_new_origin {
            file.note_source(placed.at_s, meta.source, meta.timestamp, meta.encoding);
        }
        if is_begin
            && let Some(report) = report
            && let Some(at_s) = self.timeline.handle_report(report)
        {
            file.note_report(at_s, report, around.wall);
        }
        self.last_s = placed.at_s;
        file.write_sound(around.disk, placed.at_s, arrived_at, payload);
    }

    /// Asks for keyframes: of the stream that is recorded when it needs one, of those that may be better now and then.
    fn wish(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let current = self.current.and_then(|current| self.streams.get(usize::from(current))?.as_ref());
        let is_free = current.is_none_or(|stream| !stream.is_alive(now));
        let best = current.map_or(0, |stream| stream.pixels);
        let mut unreadable = 0;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let Some(stream) = stream.as_mut().filter(|stream| stream.is_alive(now)) else { continue };
            if !stream.has_keyframe && now.saturating_duration_since(stream.first_at) > READABLE_MAX {
                unreadable += 1;
                continue;
            }
            let is_current = self.current == Some(index as u8);
            let interval = match (is_current || is_free, is_current) {
                (true, true) if !stream.assembler.needs_keyframe() => continue,
                (true, _) => WISH_INTERVAL,
                (false, _) if stream.pixels > best || !stream.has_keyframe => BETTER_INTERVAL,
                (false, _) => continue,
            };
            if stream.wished_at.is_none_or(|at| now.saturating_duration_since(at) >= interval) {
                stream.wished_at = Some(now);
                around.wishes.push((self.about.track, index as u8));
            }
        }
        if unreadable > 0 && self.current.is_none() && unreadable == self.streams.iter().flatten().count() {
            self.fail(around, ENCRYPTED.to_owned());
        }
    }

    fn fail(&mut self, around: &mut Around<'_>, why: String) {
        let (room, track) = (&self.about.room, &self.about.id);
        tracing::error!(%room, %track, "a recording has ended: {why}");
        if self.file.is_none() {
            OpenFile::refuse(around, &self.about, &why);
        }
        self.close(around, State::Failed, Some(why.clone()));
        self.failure = Some(why);
    }

    fn close(&mut self, around: &mut Around<'_>, state: State, error: Option<String>) {
        if let Some(file) = self.file.take() {
            self.done.push(file.finish(around, state, error));
        }
    }
}

const ENCRYPTED: &str = "its packets cannot be read: it is encrypted end to end, or never brings a keyframe";

impl SoundProbe {
    /// Compares a packet with the one before.
    fn is_noise(&mut self, seq: u64, timestamp: u32, payload: &[u8]) -> bool {
        if self.compared >= SOUND_PROBE {
            return false;
        }
        let samples = opus::packet_samples(payload).unwrap_or(0);
        if let Some((last_seq, last_timestamp, last_samples)) = self.last.replace((seq, timestamp, samples))
            && seq == last_seq + 1
        {
            let step = u64::from(timestamp.wrapping_sub(last_timestamp));
            self.compared += 1;
            // Silence may be left out between two packets: a longer step is nothing wrong.
            self.wrong += u32::from(samples == 0 || step < last_samples || last_samples == 0);
        }
        self.compared == SOUND_PROBE && self.wrong > SOUND_PROBE / 2
    }
}

/// Where the primary encoding begins in a packet with redundancy (RFC 2198 §3): behind the headers, of which all but the
/// last have four bytes and the length of their block, and behind those blocks.
fn primary(payload: &[u8]) -> Option<usize> {
    let (mut at, mut blocks) = (0, 0);
    while payload.get(at)? & 0x80 != 0 {
        let [_, _, high, low] = *payload.get(at..)?.first_chunk()?;
        blocks += usize::from(high & 0x03) << 8 | usize::from(low);
        at += 4;
    }
    Some(at + 1 + blocks).filter(|begin| *begin < payload.len())
}
