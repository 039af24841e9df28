//! Pinning a worker to a core: caches stay warm, and one worker per core is what the sizing assumes.

use rustix::io;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores this process may use, in order; container limits by cpuset are respected.
///
/// # Errors
/// The kernel does not tell.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Pins the calling thread to the `index`-th of `cores`, counted around when there are fewer. Gives the core.
///
/// # Errors
/// The kernel refuses; the thread then runs wherever it is put, which is slower but right.
pub fn pin_to(cores: &[usize], index: usize) -> io::Result<usize> {
    if cores.is_empty() {
        return Err(io::Errno::INVAL);
    }
    let core = cores[index % cores.len()];
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_core_only() {
        let cores = allowed_cores().unwrap();
        let pinned = std::thread::spawn({
            let cores = cores.clone();
            move || (pin_to(&cores, cores.len() + 1).unwrap(), allowed_cores().unwrap())
        });
        let (core, allowed) = pinned.join().unwrap();
        assert_eq!(core, cores[(cores.len() + 1) % cores.len()]);
        assert_eq!(allowed, [core]);
        assert!(pin_to(&[], 0).is_err());
    }
}
