//! The machine a figure was taken on: without it a figure says nothing.

use serde::{Deserialize, Serialize};

/// Instructions that SRTP is made of.
const FEATURES: [&str; 7] = ["aes", "vaes", "pclmulqdq", "vpclmulqdq", "sha_ni", "avx2", "avx512f"];

/// Facts about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor, as it names itself.
    pub cpu: String,
    /// Cores this program may use.
    pub cores: usize,
    /// Which instructions that matter here it has.
    pub cpu_features: Vec<String>,
    /// It is a virtual one: its neighbours are in the figures.
    pub is_virtual: bool,
    /// All memory in MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This one; what it does not tell stays empty.
    pub fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self::of(&file("/proc/sys/kernel/osrelease"), &file("/proc/cpuinfo"), &file("/proc/meminfo"), cores)
    }

    fn of(release: &str, cpu: &str, memory: &str, cores: usize) -> Self {
        let flags: Vec<&str> = field(cpu, "flags").or(field(cpu, "Features")).unwrap_or_default().split(' ').collect();
        let kib = field(memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        Self {
            kernel: release.trim().to_owned(),
            cpu: field(cpu, "model name").unwrap_or("unknown processor").to_owned(),
            cores,
            cpu_features: FEATURES.iter().filter(|name| flags.contains(name)).map(|name| (*name).to_owned()).collect(),
            is_virtual: flags.contains(&"hypervisor"),
            memory_mib: kib.unwrap_or(0) / 1024,
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        let kind = if self.is_virtual { " (virtual)" } else { "" };
        format!("{}, {} {cores}{kind}, Linux {}", self.cpu, self.cores, self.kernel)
    }
}

/// The first `name : value` of a file in /proc.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_proc() {
        let cpu = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu aes hypervisor sha_ni\n\nprocessor\t: 1\n";
        let machine = Machine::of("6.1.0-13\n", cpu, "MemTotal:        2048000 kB\nMemFree: 1 kB\n", 2);
        assert_eq!(machine.cpu_features, ["aes", "sha_ni"]);
        assert_eq!(machine.line(), "Some CPU @ 2.00GHz, 2 cores (virtual), Linux 6.1.0-13");
        assert_eq!(machine.memory_mib, 2000);
        assert_eq!(Machine::of("", "", "", 1).line(), "unknown processor, 1 core, Linux ");
    }

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let machine = Machine::read();
        assert!(!machine.kernel.is_empty() && machine.cores > 0 && machine.memory_mib > 0);
    }
}
