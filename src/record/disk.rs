//! Writing to disk, on a thread of its own: a slow disk holds up nobody but itself.
//!
//! Owns: the queue of what is to be written. Promises: what is asked for happens in order; a file whose writing failed, or
//! that has too much waiting, is given up with a reason, and the others go on. Forbids: knowing what is written.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Bytes of one file that wait at most: some seconds of very good video. A disk that is farther behind does not catch up.
const QUEUED_MAX: usize = 8 << 20;

/// What can be written to.
pub trait Target: Write + Seek + Send {}

impl<T: Write + Seek + Send> Target for T {}

/// Where files are made.
pub trait Storage: Send + 'static {
    /// Makes a file that is not there.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Target>>;
    /// Makes a file whole, in the place of an older one.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub struct FileSystem;

impl Storage for FileSystem {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Target>> {
        make_parent(path)?;
        let file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(file))
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        make_parent(path)?;
        // A name that is never listed; the rename puts the whole or nothing in the old one's place.
        let temporary = path.with_extension("part");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A file that is written to.
#[derive(Debug)]
pub struct DiskFile {
    /// Where it is.
    pub path: PathBuf,
    queued: AtomicUsize,
    failure: OnceLock<String>,
}

impl DiskFile {
    /// Why it is given up, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

type Task = Box<dyn FnOnce() + Send>;

enum Job {
    Create(Arc<DiskFile>),
    Append(Arc<DiskFile>, Vec<u8>),
    Patch(Arc<DiskFile>, u64, Vec<u8>),
    Close(Arc<DiskFile>),
    Replace(PathBuf, Vec<u8>),
    Then(Task),
}

/// See the module.
pub struct Disk {
    jobs: Sender<Job>,
}

impl Disk {
    /// Starts the thread.
    pub fn start(storage: impl Storage) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, jobs_out) = unbounded();
        let thread =
            std::thread::Builder::new().name("tramline-disk".into()).spawn(move || work(&jobs_out, storage))?;
        Ok((Self { jobs }, thread))
    }

    /// A new file.
    pub fn create(&self, path: PathBuf) -> Arc<DiskFile> {
        let file = Arc::new(DiskFile { path, queued: AtomicUsize::new(0), failure: OnceLock::new() });
        self.send(Job::Create(Arc::clone(&file)));
        file
    }

    /// Writes to a file's end.
    pub fn append(&self, file: &Arc<DiskFile>, bytes: Vec<u8>) {
        if bytes.is_empty() || file.failure().is_some() {
            return;
        }
        if file.queued.fetch_add(bytes.len(), Ordering::Relaxed) > QUEUED_MAX {
            let _ = file.failure.set("the disk is too slow: 8 MiB wait to be written".to_owned());
            return;
        }
        self.send(Job::Append(Arc::clone(file), bytes));
    }

    /// Writes over a few bytes.
    pub fn patch(&self, file: &Arc<DiskFile>, at: u64, bytes: Vec<u8>) {
        self.send(Job::Patch(Arc::clone(file), at, bytes));
    }

    /// The file is whole.
    pub fn close(&self, file: &Arc<DiskFile>) {
        self.send(Job::Close(Arc::clone(file)));
    }

    /// Makes a small file whole, in the place of an older one; where that fails the old one stays.
    pub fn replace(&self, path: PathBuf, bytes: Vec<u8>) {
        self.send(Job::Replace(path, bytes));
    }

    /// Does something when all that was asked for before has happened.
    pub fn then(&self, task: impl FnOnce() + Send + 'static) {
        self.send(Job::Then(Box::new(task)));
    }

    fn send(&self, job: Job) {
        // The thread lives as long as there are senders.
        let _ = self.jobs.send(job);
    }
}

fn work(jobs: &Receiver<Job>, mut storage: impl Storage) {
    let mut open: HashMap<PathBuf, Box<dyn Target>> = HashMap::new();
    let fail = |file: &DiskFile, error: io::Error| drop(file.failure.set(format!("it cannot be written: {error}")));
    for job in jobs {
        match job {
            Job::Create(file) => match storage.create(&file.path) {
                Ok(target) => drop(open.insert(file.path.clone(), target)),
                Err(error) => fail(&file, error),
            },
            Job::Append(file, bytes) => {
                if file.failure().is_none()
                    && let Some(target) = open.get_mut(&file.path)
                    && let Err(error) = target.write_all(&bytes)
                {
                    fail(&file, error);
                }
                file.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            Job::Patch(file, at, bytes) => {
                if let Some(target) = open.get_mut(&file.path)
                    && let Err(error) = patch(target, at, &bytes)
                {
                    fail(&file, error);
                }
            }
            Job::Close(file) => drop(open.remove(&file.path)),
            Job::Replace(path, bytes) => {
                if let Err(error) = storage.replace(&path, &bytes) {
                    tracing::debug!(path = %path.display(), %error, "not written");
                }
            }
            Job::Then(task) => task(),
        }
    }
}

fn patch(target: &mut Box<dyn Target>, at: u64, bytes: &[u8]) -> io::Result<()> {
    target.seek(SeekFrom::Start(at))?;
    target.write_all(bytes)?;
    target.seek(SeekFrom::End(0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Takes so many bytes and no more; waits for a word before each write.
    struct Small {
        room: usize,
        go: Receiver<()>,
    }

    struct SmallFile {
        room: usize,
        go: Receiver<()>,
        bytes: Cursor<Vec<u8>>,
    }

    impl Storage for Small {
        fn create(&mut self, _path: &Path) -> io::Result<Box<dyn Target>> {
            Ok(Box::new(SmallFile { room: self.room, go: self.go.clone(), bytes: Cursor::default() }))
        }

        fn replace(&mut self, _path: &Path, _bytes: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for SmallFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            self.bytes.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for SmallFile {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.bytes.seek(to)
        }
    }

    #[test]
    fn a_full_disk_ends_the_file_that_needs_it() {
        let (go, go_out) = unbounded();
        drop(go);
        let (disk, thread) = Disk::start(Small { room: 10, go: go_out }).unwrap();
        let [full, fine] = ["full", "fine"].map(|name| disk.create(name.into()));
        disk.append(&full, vec![0; 8]);
        disk.append(&full, vec![0; 8]);
        disk.append(&fine, vec![0; 8]);
        drop(disk);
        thread.join().unwrap();
        assert!(full.failure().unwrap().starts_with("it cannot be written:"), "{full:?}");
        assert_eq!(fine.failure(), None);
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody() {
        let (go, go_out) = unbounded();
        let (disk, thread) = Disk::start(Small { room: usize::MAX, go: go_out }).unwrap();
        let file = disk.create("slow".into());
        for _ in 0..10 {
            disk.append(&file, vec![0; 1 << 20]);
        }
        assert!(file.failure().unwrap().contains("too slow"));
        drop((go, disk));
        thread.join().unwrap();
    }

    #[test]
    fn files_are_patched_and_replaced_in_order() {
        let directory = std::env::temp_dir().join(format!("tramline-disk-{}", std::process::id()));
        let (disk, thread) = Disk::start(FileSystem).unwrap();
        let file = disk.create(directory.join("a.bin"));
        disk.append(&file, b"0123".to_vec());
        disk.patch(&file, 1, b"xx".to_vec());
        disk.append(&file, b"4".to_vec());
        disk.close(&file);
        disk.replace(directory.join("a.json"), b"1".to_vec());
        disk.replace(directory.join("a.json"), b"2".to_vec());
        let again = disk.create(directory.join("a.bin"));
        let (told, heard) = unbounded();
        disk.then(move || told.send(()).unwrap());
        heard.recv().unwrap();
        assert_eq!(fs::read(directory.join("a.bin")).unwrap(), b"0xx34");
        assert_eq!(fs::read(directory.join("a.json")).unwrap(), b"2");
        assert!(again.failure().is_some(), "a file that is there is not written over");
        drop(disk);
        thread.join().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
