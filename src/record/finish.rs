//! What becomes of recordings that are over, on a thread of its own: one file of a publisher's files, and the upload.
//! What a crash left behind is taken up here, too.
//!
//! Owns: nothing but its queue. Promises: files of a run that ended badly are readable, and say that they are.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::mpsc::UnboundedSender;

use super::recorder::Finished;
use super::sidecar::{Sidecar, State};
use super::{ivf, upload, webm};

/// Starts the thread; it first looks for what a crash left in the directory. `uploads` is told the names of files that are
/// to be uploaded.
pub fn start(
    directory: PathBuf,
    uploads: Option<UnboundedSender<String>>,
) -> io::Result<(Sender<Finished>, JoinHandle<()>)> {
    let (finished, finished_out) = unbounded();
    let left = left_behind(&directory);
    let body = move || work(&directory, left, &finished_out, uploads.as_ref());
    let thread = std::thread::Builder::new().name("tramline-mux".into()).spawn(body)?;
    Ok((finished, thread))
}

fn work(
    directory: &Path,
    left: Vec<Sidecar>,
    finished: &Receiver<Finished>,
    uploads: Option<&UnboundedSender<String>>,
) {
    let mut by_publisher: BTreeMap<String, Vec<Sidecar>> = BTreeMap::new();
    for sidecar in left {
        match recover(directory, sidecar) {
            Ok(sidecar) => by_publisher.entry(sidecar.publisher.clone()).or_default().push(sidecar),
            Err(error) => tracing::warn!(%error, "a recording of the last run cannot be read"),
        }
    }
    let recovered = by_publisher.into_values().map(|files| Finished { files });
    for Finished { files } in recovered.chain(finished.iter()) {
        let mut names = Vec::new();
        if files.iter().any(|sidecar| sidecar.muxed) {
            match webm::mux(directory, &files) {
                Ok(path) => {
                    tracing::info!(file = %path.display(), "a WebM is made");
                    names.extend(path.file_name().map(|name| name.display().to_string()));
                }
                Err(error) => tracing::warn!(room = %files[0].room, "no WebM: {error}"),
            }
        }
        for sidecar in files {
            let text = Path::new(&sidecar.file).with_extension("json");
            names.extend([sidecar.file.clone(), text.display().to_string()]);
            if let Err(error) = settle(directory, &Sidecar { settled: true, ..sidecar }) {
                tracing::warn!(file = %text.display(), %error, "not written");
            }
        }
        for name in names {
            let Some(uploads) = uploads else { break };
            if let Err(error) = upload::note(directory, &name) {
                tracing::warn!(%name, %error, "the upload is not noted: a restart would forget it");
            }
            let _ = uploads.send(name);
        }
    }
}

/// Writes a sidecar in the place of the one before.
fn settle(directory: &Path, sidecar: &Sidecar) -> io::Result<()> {
    let path = directory.join(&sidecar.file).with_extension("json");
    let temporary = path.with_extension("part");
    fs::write(&temporary, sidecar.to_bytes())?;
    fs::rename(temporary, path)
}

/// Sidecars of recordings that the last run did not come to the end with.
fn left_behind(directory: &Path) -> Vec<Sidecar> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let sidecars = paths.filter_map(|path| serde_json::from_slice::<Sidecar>(&fs::read(path).ok()?).ok());
    let mut left: Vec<Sidecar> = sidecars.filter(|sidecar| !sidecar.settled).collect();
    left.sort_by(|left, right| left.file.cmp(&right.file));
    // A name in a file must not lead elsewhere.
    left.retain(|sidecar| Path::new(&sidecar.file).file_name().is_some_and(|name| name == sidecar.file.as_str()));
    left
}

/// Of a recording that nobody ended: cuts off a frame that was not written whole, and says how long the file is.
fn recover(directory: &Path, mut sidecar: Sidecar) -> io::Result<Sidecar> {
    if sidecar.state != State::Recording {
        return Ok(sidecar);
    }
    let path = directory.join(&sidecar.file);
    if sidecar.file.ends_with(".ivf") {
        let (end, last, step, frames) = scan_ivf(&path)?;
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(ivf::DURATION_AT))?;
        file.write_all(&u32::try_from(last + step).unwrap_or(0).to_le_bytes())?;
        sidecar.seconds = (last + step) as f64 / f64::from(ivf::RATE_HZ);
        sidecar.frames = frames;
    }
    sidecar.state = State::Recovered;
    settle(directory, &sidecar)?;
    tracing::info!(file = %sidecar.file, "a recording of the last run is whole up to its end");
    Ok(sidecar)
}

/// End of the last whole frame, its time, the step before it, and how many there are.
fn scan_ivf(path: &Path) -> io::Result<(u64, u64, u64, u64)> {
    let mut file = BufReader::new(File::open(path)?);
    let size = file.get_ref().metadata()?.len();
    let mut end = ivf::HEADER_BYTES as u64;
    file.seek(SeekFrom::Start(end))?;
    let (mut last, mut step, mut frames) = (0, 0, 0);
    let mut head = [0; ivf::FRAME_HEADER_BYTES];
    while file.read_exact(&mut head).is_ok() {
        let (len, time) = ivf::parse_frame_header(&head);
        let next = end + (ivf::FRAME_HEADER_BYTES + len) as u64;
        if next > size {
            break;
        }
        file.seek_relative(len as i64)?;
        (step, last, end, frames) = (time.saturating_sub(last), time, next, frames + 1);
    }
    Ok((end, last, step, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::sidecar::tests::sidecar;

    #[test]
    fn what_a_crash_left_is_made_whole() {
        let directory = std::env::temp_dir().join(format!("tramline-finish-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut bytes = ivf::header(*b"VP80", (640, 360)).to_vec();
        for frame in 0..3u64 {
            bytes.extend(ivf::frame_header(5, frame * 3000));
            bytes.extend([frame as u8; 5]);
        }
        let whole = bytes.len();
        bytes.extend(ivf::frame_header(5000, 9000));
        bytes.extend([9; 100]);
        let sidecar = sidecar();
        fs::write(directory.join(&sidecar.file), &bytes).unwrap();
        fs::write(directory.join("r_t-0-0_1.json"), sidecar.to_bytes()).unwrap();
        let outside = Sidecar { file: "../x.ivf".into(), ..sidecar.clone() };
        fs::write(directory.join("outside.json"), outside.to_bytes()).unwrap();

        let left = left_behind(&directory);
        assert_eq!(left, [sidecar]);
        let recovered = recover(&directory, left[0].clone()).unwrap();
        assert_eq!((recovered.state, recovered.frames, recovered.seconds), (State::Recovered, 3, 0.1));
        let file = fs::read(directory.join(&recovered.file)).unwrap();
        assert_eq!(file.len(), whole);
        assert_eq!(file[24..28], 9000u32.to_le_bytes());
        assert_eq!(left_behind(&directory), std::slice::from_ref(&recovered), "its upload is still to begin");
        let (finished, thread) = start(directory.clone(), None).unwrap();
        drop(finished);
        thread.join().unwrap();
        assert_eq!(left_behind(&directory), []);
        fs::remove_dir_all(directory).unwrap();
    }
}
