//! CPU time of a process, as the scheduler counts it.
//!
//! Promises: nanoseconds of user and system time together, with what the kernel did in the thread's name (on loopback
//! that includes the receivers' half of the stack). A running thread's own figure lags by at most a tick.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// `_SC_CLK_TCK` is 100 on every Linux we run on; used for the user/system split only.
const TICKS_PER_S: f64 = 100.0;

/// CPU time used up to a moment.
#[derive(Clone, Debug, Default)]
pub struct CpuReading {
    /// By thread name, in nanoseconds; threads of one name together.
    pub by_name_ns: BTreeMap<String, u64>,
    /// User time in seconds, to a hundredth.
    pub user_s: f64,
    /// System time in seconds, to a hundredth.
    pub system_s: f64,
}

impl CpuReading {
    /// All threads of a process. Threads that have ended are not in it.
    pub fn of_process(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let mut reading = Self::default();
        for task in fs::read_dir(process.join("task")).with_context(|| format!("there is no process {pid}"))? {
            // A thread may end while we read.
            let Ok(task) = task else { continue };
            if let Ok((name, ns)) = read_task(&task.path()) {
                *reading.by_name_ns.entry(name).or_default() += ns;
            }
        }
        (reading.user_s, reading.system_s) = read_split(&process.join("stat"))?;
        Ok(reading)
    }

    /// Several processes together: a server and its children.
    pub fn of_processes(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of_process(pid)?;
            one.by_name_ns.into_iter().for_each(|(name, ns)| *sum.by_name_ns.entry(name).or_default() += ns);
            sum.user_s += one.user_s;
            sum.system_s += one.system_s;
        }
        Ok(sum)
    }

    /// The kernel's threads for deferred network work, of the whole machine: under load they take part of what sending
    /// over loopback costs. Empty where they cannot be seen, as in a container.
    pub fn of_softirqs() -> Self {
        let mut reading = Self::default();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Ok((name, ns)) = read_task(&process.path())
                && name.starts_with("ksoftirqd/")
            {
                reading.by_name_ns.insert(name, ns);
            }
        }
        reading
    }

    /// One thread of this process.
    pub fn of_own_thread(tid: i32) -> Result<Self> {
        let task = Path::new("/proc/self/task").join(tid.to_string());
        let (name, ns) = read_task(&task)?;
        let (user_s, system_s) = read_split(&task.join("stat"))?;
        Ok(Self { by_name_ns: BTreeMap::from([(name, ns)]), user_s, system_s })
    }

    /// All threads together, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.by_name_ns.values().sum()
    }

    /// What was used between `earlier` and this reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let used = |(name, ns): (&String, &u64)| {
            let before = earlier.by_name_ns.get(name).copied().unwrap_or(0);
            (name.clone(), ns.saturating_sub(before))
        };
        Self {
            by_name_ns: self.by_name_ns.iter().map(used).collect(),
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
        }
    }
}

fn read_task(task: &Path) -> Result<(String, u64)> {
    let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
    let schedstat = fs::read_to_string(task.join("schedstat"))?;
    Ok((name, parse_schedstat(&schedstat)?))
}

fn read_split(stat: &Path) -> Result<(f64, f64)> {
    let text = fs::read_to_string(stat)?;
    parse_stat(&text).with_context(|| format!("{} is not as proc(5) says", stat.display()))
}

/// The first of three numbers: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Result<u64> {
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().context("schedstat does not begin with a number")
}

/// proc(5): fields 14 and 15 are utime and stime; the name in parentheses may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<(f64, f64)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? / TICKS_PER_S, ticks()? / TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        let text = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 1200 0 0 20 0 3 0 5 6 7";
        assert_eq!(parse_stat(text), Some((2.5, 12.0)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_difference_is_taken_name_by_name() {
        let reading = |a, b, user_s| CpuReading {
            by_name_ns: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
            user_s,
            system_s: 1.0,
        };
        let used = reading(50, 9, 3.5).since(&reading(20, 9, 2.0));
        assert_eq!((used.total_ns(), used.by_name_ns["a"], used.user_s, used.system_s), (30, 30, 1.5, 0.0));
    }

    #[test]
    fn this_process_has_used_some_time() {
        assert!(CpuReading::of_process(std::process::id()).unwrap().total_ns() > 0);
        assert!(CpuReading::of_process(0).is_err());
        let own = std::process::id();
        let (once, twice) = (CpuReading::of_process(own).unwrap(), CpuReading::of_processes(&[own, own]).unwrap());
        assert!(twice.total_ns() >= 2 * once.total_ns());
        assert!(parse_schedstat("no").is_err());
    }
}
