//! A report as it is kept: the JSON that is written, and what pictures read of it again.
//!
//! Promises: whatever a picture shows stands in the file; files of older versions, which lack some of it, are read too.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;
use crate::report::{Report, median};

/// What is written: the report with the machine it was taken on, and the middle of its rounds.
#[derive(Serialize)]
struct Written<'a> {
    version: &'static str,
    machine: Machine,
    #[serde(flatten)]
    report: &'a Report,
    medians: Option<Medians>,
}

/// The median round, figure by figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Medians {
    /// CPU time of the server per delivered packet in nanoseconds.
    pub cpu_ns_per_packet: f64,
    /// The same of the kernel's softirq threads.
    pub softirq_ns_per_packet: f64,
    /// Both.
    pub both_ns_per_packet: f64,
    /// Added latency in microseconds.
    pub latency_us: Percentiles,
}

/// A report that was read.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Where; older files do not say.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// What was run.
    pub condition: Condition,
    /// What its scenario alone measures.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// The measured windows.
    pub rounds: Vec<Round>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Condition {
    /// The subcommand.
    pub scenario: String,
    /// In words.
    #[serde(default)]
    load: String,
    /// SRTP suite.
    pub suite: String,
    subscribers: usize,
    rate: u64,
    burst: u64,
    packet_bytes: usize,
    #[serde(default)]
    train: Option<usize>,
    gro: bool,
}

/// One measured window.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Round {
    /// CPU time of the server per delivered packet in nanoseconds.
    pub cpu_ns_per_packet: f64,
    /// The same of the kernel's softirq threads.
    #[serde(default)]
    pub softirq_ns_per_packet: f64,
    /// Added latency in microseconds.
    pub latency_us: Percentiles,
    lost: u64,
    reordered: u64,
    duplicated: u64,
    misnumbered: u64,
    unauthentic: u64,
    damaged: u64,
}

/// Of the latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
}

/// One number of one scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// The JSON of a report.
pub fn json(report: &Report) -> Result<String> {
    let medians = Run::of(report)?.medians();
    let version = env!("CARGO_PKG_VERSION");
    Ok(serde_json::to_string_pretty(&Written { version, machine: Machine::read(), report, medians })?)
}

impl Run {
    /// A report as if it had been written and read here.
    pub fn of(report: &Report) -> Result<Self> {
        let value: Value = serde_json::to_value(report)?;
        let run: Self = serde_json::from_value(value)?;
        Ok(Self { machine: Some(Machine::read()), ..run })
    }

    /// Reads a file.
    pub fn read(path: &str) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        serde_json::from_str(&text).with_context(|| format!("{path} is no report of this program"))
    }

    /// `None` without rounds.
    pub fn medians(&self) -> Option<Medians> {
        let of = |figure: fn(&Round) -> f64| median(self.rounds.iter().map(figure));
        (!self.rounds.is_empty()).then(|| Medians {
            cpu_ns_per_packet: of(|round| round.cpu_ns_per_packet),
            softirq_ns_per_packet: of(|round| round.softirq_ns_per_packet),
            both_ns_per_packet: of(Round::both_ns),
            latency_us: Percentiles {
                p50: of(|round| round.latency_us.p50),
                p99: of(|round| round.latency_us.p99),
                p999: of(|round| round.latency_us.p999),
            },
        })
    }

    /// What went wrong, in words; `None` when every packet arrived once, in order and right.
    pub fn complaint(&self) -> Option<String> {
        let sum = |count: fn(&Round) -> u64| self.rounds.iter().map(count).sum::<u64>();
        let counts = [
            (sum(|round| round.lost), "lost"),
            (sum(|round| round.reordered), "reordered"),
            (sum(|round| round.duplicated), "duplicated"),
            (sum(|round| round.misnumbered + round.unauthentic + round.damaged), "wrong"),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

impl Round {
    /// The server's CPU time and that of the kernel's softirq threads, which may do part of its work.
    pub fn both_ns(&self) -> f64 {
        self.cpu_ns_per_packet + self.softirq_ns_per_packet
    }
}

impl Condition {
    /// The load in words.
    pub fn load(&self) -> String {
        if !self.load.is_empty() {
            return self.load.clone();
        }
        let Self { subscribers, rate, burst, packet_bytes, .. } = self;
        format!("1 to {subscribers}, {packet_bytes} B, {rate}/s in bursts of {burst}")
    }

    /// Longest train that is sent, where the program itself decides.
    pub fn train(&self) -> Option<usize> {
        self.train
    }

    /// How the receivers take it, in words.
    pub fn receivers(&self) -> &'static str {
        if self.gro { "receivers take trains" } else { "plain receivers" }
    }

    /// Whether figures of both may stand side by side.
    pub fn compares_with(&self, other: &Self) -> bool {
        let load = |it: &Self| (it.subscribers, it.rate, it.burst, it.packet_bytes, it.gro);
        load(self) == load(other)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run with these rounds, each as CPU and softirq time.
    pub fn run(rounds: &[(f64, f64)]) -> Run {
        let round = |(cpu, softirq): &(f64, f64)| Round {
            cpu_ns_per_packet: *cpu,
            softirq_ns_per_packet: *softirq,
            latency_us: Percentiles { p50: *cpu / 10.0, p99: *cpu, p999: *cpu * 3.0 },
            ..Round::default()
        };
        let condition = Condition {
            scenario: "one-to-many".into(),
            load: String::new(),
            suite: "AEAD_AES_128_GCM".into(),
            subscribers: 100,
            rate: 1000,
            burst: 10,
            packet_bytes: 1200,
            train: None,
            gro: true,
        };
        Run { machine: None, condition, figures: Vec::new(), rounds: rounds.iter().map(round).collect() }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let medians = run(&[(100.0, 90.0), (300.0, 0.0), (200.0, 10.0)]).medians().unwrap();
        assert_eq!((medians.cpu_ns_per_packet, medians.softirq_ns_per_packet), (200.0, 10.0));
        assert_eq!(medians.both_ns_per_packet, 210.0);
        assert_eq!(medians.latency_us, Percentiles { p50: 20.0, p99: 200.0, p999: 600.0 });
        assert_eq!(run(&[]).medians(), None);
    }

    #[test]
    fn what_went_wrong_is_said_in_words() {
        let mut run = run(&[(1.0, 0.0), (1.0, 0.0)]);
        assert_eq!(run.complaint(), None);
        (run.rounds[0].lost, run.rounds[1].lost, run.rounds[1].damaged) = (3, 4, 1);
        assert_eq!(run.complaint().unwrap(), "7 lost, 1 wrong");
    }

    #[test]
    fn only_equal_loads_compare() {
        let one = run(&[]).condition;
        assert!(one.compares_with(&Condition { suite: "other".into(), train: Some(9), ..one.clone() }));
        for other in [
            Condition { gro: false, ..one.clone() },
            Condition { subscribers: 1, ..one.clone() },
            Condition { burst: 1, ..one.clone() },
            Condition { rate: 1, ..one.clone() },
            Condition { packet_bytes: 160, ..one.clone() },
        ] {
            assert!(!one.compares_with(&other));
        }
        assert_eq!(one.load(), "1 to 100, 1200 B, 1000/s in bursts of 10");
    }
}
