//! Memory, descriptors and limits of processes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Resident memory in bytes, of several processes together.
pub fn resident_bytes(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|&pid| resident_bytes_of(pid)).sum()
}

/// Open descriptors, of several processes together.
pub fn descriptors(pids: &[u32]) -> Result<usize> {
    let count =
        |pid: &u32| Ok(fs::read_dir(proc(*pid, "fd")).with_context(|| format!("descriptors of {pid}"))?.count());
    pids.iter().map(count).sum()
}

/// Lets this process, and those it starts, open as many descriptors as the system allows: a peer takes one for media
/// and one for signalling.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What is refused shows where a socket cannot be made.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn resident_bytes_of(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(proc(pid, "status")).with_context(|| format!("there is no process {pid}"))?;
    parse_resident(&text).with_context(|| format!("the status of {pid} has no VmRSS"))
}

fn proc(pid: u32, file: &str) -> PathBuf {
    PathBuf::from("/proc").join(pid.to_string()).join(file)
}

/// proc(5): `VmRSS:` in kB.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status() {
        assert_eq!(parse_resident("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t  12 kB\n"), Some(12_288));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        let own = std::process::id();
        assert!(resident_bytes(&[own, own]).unwrap() > 2 << 20);
    }

    #[test]
    fn an_open_file_is_a_descriptor() {
        let own = [std::process::id()];
        let before = descriptors(&own).unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        // Other tests open and close some meanwhile.
        assert!(descriptors(&own).unwrap() + 25 > before + files.len());
    }

    #[test]
    fn the_limit_is_what_the_system_allows() {
        raise_descriptor_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
