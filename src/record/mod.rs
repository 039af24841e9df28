//! Recording: plaintext packets of tracks in, files that play out.
//!
//! Owns: a thread that takes what the workers' taps hold (`recorder`, `track`), one that writes to the disk (`disk`), and
//! what is done with files that are whole. Promises: nothing here holds up a worker or a call; what goes wrong ends a
//! recording and says so. Forbids: rooms, sessions.
//!
//! A packet's way: [`crate::worker::tap`], `reorder`, `frames` (video), `timeline`, then `ivf` or `opus`, `file`, `disk`.

pub mod disk;
pub mod file;
pub mod finish;
pub mod frames;
pub mod ivf;
pub mod opus;
pub mod recorder;
pub mod reorder;
pub mod sidecar;
pub mod timeline;
pub mod track;
pub mod upload;
pub mod webm;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tokio::sync::mpsc::UnboundedSender;

use self::disk::{Disk, FileSystem};
use self::recorder::{Board, Recorder};
use crate::base::ids::{TrackKey, WorkerId};
use crate::runtime::clock;
use crate::worker::command::Command;
use crate::worker::tap::{RecorderThread, TapOutlet};

/// How often the taps are looked at while something is recorded: what a crash may take, and what a queue has to hold.
const STEP: Duration = Duration::from_millis(10);
/// How often while nothing is; a beginning wakes the thread.
const IDLE_STEP: Duration = Duration::from_millis(500);
/// Steps between two looks of people.
const STEPS_SHOWN: u32 = 50;

/// The running recorder.
pub struct Recording {
    /// What is recorded now.
    pub board: Arc<Board>,
    /// Says when everything is on the disk, after the workers have ended.
    done: Receiver<()>,
}

impl Recording {
    /// Waits until everything is written, or so long: a disk that hangs must not hold up the end.
    pub fn wait(&self, max: Duration) {
        let _ = self.done.recv_timeout(max);
    }
}

/// Starts the threads. `ask` takes a command to a worker and wakes it; `uploads` takes the names of files to upload.
pub fn start(
    outlets: Vec<TapOutlet>,
    thread_of_taps: &RecorderThread,
    directory: &Path,
    ask: impl Fn(WorkerId, Command) + Send + 'static,
    uploads: Option<UnboundedSender<String>>,
) -> io::Result<Recording> {
    let (finished, finish_thread) = finish::start(directory.to_owned(), uploads)?;
    let (disk, disk_thread) = Disk::start(FileSystem)?;
    let board = Arc::<Board>::default();
    let run = format!("{:x}", sidecar::unix_seconds(clock::wall()) as u64);
    let recorder = Recorder::new(
        outlets,
        disk,
        directory.to_owned(),
        stems(directory),
        run,
        Arc::clone(&board),
        Arc::new(move |files| drop(finished.send(files))),
    );
    let (ended, done) = bounded(1);
    let body = move || {
        work(recorder, ask);
        let _ = disk_thread.join();
        let _ = finish_thread.join();
        let _ = ended.send(());
    };
    let thread: JoinHandle<()> = std::thread::Builder::new().name("tramline-record".into()).spawn(body)?;
    let _ = thread_of_taps.set(thread.thread().clone());
    Ok(Recording { board, done })
}

fn work(mut recorder: Recorder, ask: impl Fn(WorkerId, Command)) {
    let mut steps = 0u32;
    while !recorder.is_over() {
        for (worker, track, encoding) in recorder.turn(clock::now(), clock::wall()) {
            ask(WorkerId(worker as u8), want_keyframe(track, encoding));
        }
        steps = steps.wrapping_add(1);
        if !recorder.is_busy() || steps.is_multiple_of(STEPS_SHOWN) {
            recorder.show();
        }
        std::thread::park_timeout(if recorder.is_busy() { STEP } else { IDLE_STEP });
    }
    recorder.finish(clock::now(), clock::wall());
}

fn want_keyframe(track: TrackKey, encoding: u8) -> Command {
    Command::WantKeyframe { track, encoding }
}

/// Names of files that are there, without their endings.
fn stems(directory: &Path) -> HashSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect()
}
