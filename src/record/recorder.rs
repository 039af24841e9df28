//! The recorder: what the taps bring, track by track, and what is done when a publisher's tracks are over.
//!
//! Owns: the tracks being recorded. Promises: told the time, it never waits; keyframes are asked for through commands.
//! Forbids: clocks, threads.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::disk::Disk;
use super::reorder::Taken;
use super::sidecar::Sidecar;
use super::timeline::Report;
use super::track::{Around, TrackRecorder};
use crate::base::ids::{PeerId, TrackKey};
use crate::worker::tap::{TapItem, TapOutlet};

/// Items taken from one tap before the next has its turn: all that it holds.
const ITEMS_PER_TAP: usize = 2048;

/// A recording that goes on or ended early, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Room id.
    pub room: String,
    /// Track id.
    pub track: String,
    /// Its file, once there is one.
    pub file: Option<String>,
    /// Its length.
    pub seconds: f64,
    /// Why it ended early.
    pub failure: Option<String>,
}

/// What is being recorded now; read by signalling.
#[derive(Debug, Default)]
pub struct Board(Mutex<Vec<Progress>>);

impl Board {
    /// All of it.
    pub fn read(&self) -> Vec<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, progress: Vec<Progress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// The files of one publisher that are whole.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Sidecars of them, in order of their ends.
    pub files: Vec<Sidecar>,
}

/// A publisher whose tracks are recorded.
#[derive(Debug, Default)]
struct Group {
    active: usize,
    files: Vec<Sidecar>,
}

/// See the module.
pub struct Recorder {
    outlets: Vec<TapOutlet>,
    tracks: HashMap<TrackKey, (usize, TrackRecorder)>,
    groups: HashMap<PeerId, Group>,
    disk: Disk,
    directory: PathBuf,
    names: HashSet<String>,
    run: String,
    board: Arc<Board>,
    /// Takes what is whole, on the disk's thread.
    finished: Arc<dyn Fn(Finished) + Send + Sync>,
}

impl Recorder {
    /// Nothing is recorded. `names` are stems of files that are there already; `run` tells this run of the server from
    /// others.
    pub fn new(
        outlets: Vec<TapOutlet>,
        disk: Disk,
        directory: PathBuf,
        names: HashSet<String>,
        run: String,
        board: Arc<Board>,
        finished: Arc<dyn Fn(Finished) + Send + Sync>,
    ) -> Self {
        let (tracks, groups) = (HashMap::new(), HashMap::new());
        Self { outlets, tracks, groups, disk, directory, names, run, board, finished }
    }

    /// Something is recorded.
    pub fn is_busy(&self) -> bool {
        !self.tracks.is_empty()
    }

    /// All workers have ended.
    pub fn is_over(&self) -> bool {
        self.outlets.iter().all(TapOutlet::is_over)
    }

    /// Takes what came. Keyframes to ask for: worker, track, stream.
    pub fn turn(&mut self, now: Instant, wall: SystemTime) -> Vec<(usize, TrackKey, u8)> {
        for worker in 0..self.outlets.len() {
            for _ in 0..ITEMS_PER_TAP {
                let Some(item) = self.outlets[worker].poll() else { break };
                self.handle(now, wall, worker, item);
            }
        }
        let mut asked = Vec::new();
        let mut wishes = Vec::new();
        let keys: Vec<TrackKey> = self.tracks.keys().copied().collect();
        for key in keys {
            self.with(now, wall, &mut wishes, key, |track, around| track.handle_timeout(around));
            if let Some((worker, _)) = self.tracks.get(&key) {
                asked.extend(wishes.drain(..).map(|(track, encoding)| (*worker, track, encoding)));
            }
        }
        asked
    }

    /// Ends all recordings.
    pub fn finish(&mut self, now: Instant, wall: SystemTime) {
        let keys: Vec<TrackKey> = self.tracks.keys().copied().collect();
        keys.into_iter().for_each(|key| self.end(now, wall, key));
        self.show();
    }

    /// Tells people what is recorded.
    pub fn show(&self) {
        let progress = self.tracks.values().map(|(_, track)| Progress {
            room: track.about.room.clone(),
            track: track.about.id.clone(),
            file: track.progress().map(|(file, _)| file.to_owned()),
            seconds: track.progress().map_or(0.0, |(_, seconds)| seconds),
            failure: track.failure().map(str::to_owned),
        });
        let mut progress: Vec<Progress> = progress.collect();
        progress.sort_by(|left, right| (&left.room, &left.track).cmp(&(&right.room, &right.track)));
        self.board.write(progress);
    }

    fn handle(&mut self, now: Instant, wall: SystemTime, worker: usize, item: TapItem) {
        let mut wishes = Vec::new();
        match item {
            TapItem::Begin(about) => {
                self.groups.entry(about.publisher).or_default().active += 1;
                self.tracks.insert(about.track, (worker, TrackRecorder::new(about)));
            }
            TapItem::Packet { track, meta, arrived_at, len, buffer } => {
                let packet = Taken { meta, arrived_at, payload: buffer.bytes(len).to_vec() };
                self.outlets[worker].give_back(buffer);
                self.with(now, wall, &mut wishes, track, |track, around| track.handle_packet(around, packet));
            }
            TapItem::Clock { track, encoding, source, ntp, rtp_timestamp, heard_at } => {
                let report = Report { source, ntp, rtp_timestamp };
                self.with(now, wall, &mut wishes, track, |track, around| {
                    track.handle_report(around, encoding, report, heard_at);
                });
            }
            TapItem::End(track) => self.end(now, wall, track),
        }
    }

    fn end(&mut self, now: Instant, wall: SystemTime, key: TrackKey) {
        let Some((_, track)) = self.tracks.remove(&key) else { return };
        let publisher = track.about.publisher;
        let mut wishes = Vec::new();
        let files = track.finish(&mut around(self.fields(), (now, wall), &mut wishes));
        let Some(group) = self.groups.get_mut(&publisher) else { return };
        group.active = group.active.saturating_sub(1);
        group.files.extend(files);
        if group.active == 0
            && let Some(group) = self.groups.remove(&publisher)
            && !group.files.is_empty()
        {
            let (finished, files) = (Arc::clone(&self.finished), group.files);
            self.disk.then(move || finished(Finished { files }));
        }
    }

    fn with(
        &mut self,
        now: Instant,
        wall: SystemTime,
        wishes: &mut Vec<(TrackKey, u8)>,
        key: TrackKey,
        task: impl FnOnce(&mut TrackRecorder, &mut Around<'_>),
    ) {
        if let Some((worker, mut track)) = self.tracks.remove(&key) {
            task(&mut track, &mut around(self.fields(), (now, wall), wishes));
            self.tracks.insert(key, (worker, track));
        }
    }

    fn fields(&mut self) -> Fields<'_> {
        (&self.disk, &self.directory, &mut self.names, &self.run)
    }
}

type Fields<'a> = (&'a Disk, &'a PathBuf, &'a mut HashSet<String>, &'a String);

fn around<'a>(
    (disk, directory, names, run): Fields<'a>,
    (now, wall): (Instant, SystemTime),
    wishes: &'a mut Vec<(TrackKey, u8)>,
) -> Around<'a> {
    Around { disk, directory, names, wishes, now, wall, run }
}
