//! The figures of a run, as a table and as JSON.
//!
//! Promises: `delivered + lost` is what should have arrived; nothing is rounded in the JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cpu::CpuReading;
use crate::tally::Tally;

/// Threads that cost less than this share of the whole are not listed.
const SHARE_MIN: f64 = 0.005;

/// The conditions of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// The subcommand.
    pub scenario: &'static str,
    /// Who sends what to whom, in words.
    pub load: String,
    /// The command line that gives the same run.
    pub command: String,
    /// SRTP suite, by its IANA name.
    pub suite: String,
    /// Receivers of each packet.
    pub subscribers: usize,
    /// Packets all publishers send per second.
    pub rate: u32,
    /// Packets sent together; 0 where it varies.
    pub burst: u32,
    /// RTP header and payload in bytes; 0 where it varies.
    pub packet_bytes: usize,
    /// Longest train the floor sends; `None` for a server, whose trains are its own business.
    pub train: Option<usize>,
    /// Whether receivers take whole trains.
    pub gro: bool,
    /// Workers of a server we started.
    pub workers: Option<usize>,
}

/// One measured window.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Length in seconds.
    pub seconds: f64,
    /// Packets of all publishers in it.
    pub published: u64,
    /// Packets that arrived at a subscriber, were authentic and had the right content; each counted once.
    pub delivered: u64,
    /// Published times subscribers, without the delivered.
    pub lost: u64,
    /// Delivered after a later one.
    pub reordered: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Sequence number and content out of step.
    pub misnumbered: u64,
    /// Failed authentication.
    pub unauthentic: u64,
    /// Authentic with the wrong content.
    pub damaged: u64,
    /// Datagrams this program had no room for, of those lost or asked for again: its own fault, not the server's.
    pub dropped_here: u64,
    /// Thrown away on purpose (`--loss`).
    pub withheld: u64,
    /// Sequence numbers asked for by NACK.
    pub asked: u64,
    /// Delivered after having been asked for.
    pub repaired: u64,
    /// Transport-wide feedback packets sent.
    pub twcc_reports: u64,
    /// Sequence numbers the server asked the publishers for.
    pub asked_of_us: u64,
    /// Packets the publishers sent again.
    pub resent: u64,
    /// CPU time of the server per delivered packet in nanoseconds, user and system.
    pub cpu_ns_per_packet: f64,
    /// The user part of it, from a clock of 10 ms.
    pub user_share: f64,
    /// CPU time per delivered packet in nanoseconds by thread name.
    pub cpu_ns_by_thread: BTreeMap<String, f64>,
    /// CPU time of the kernel's softirq threads per delivered packet in nanoseconds: the machine's, not only ours. Not in
    /// `cpu_ns_per_packet`.
    pub softirq_ns_per_packet: f64,
    /// CPU time of the server over wall time: 1 is a whole core.
    pub server_cores: f64,
    /// The same of this program, all of it.
    pub generator_cores: f64,
    /// Delivered per second.
    pub packets_per_s: f64,
    /// From the publisher's call to the subscriber's wake-up, in microseconds.
    pub latency_us: Latency,
    /// Datagrams per received message: with `--gro` the mean length of the trains as they arrive.
    pub mean_train: f64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub condition: Condition,
    /// Seconds from the first subscriber's join to the last one's keys; `None` without a server.
    pub join_seconds: Option<f64>,
    /// Keyframe requests the publisher got.
    pub keyframe_requests: u64,
    /// Packets due that the publisher could not send: refused by the kernel, left out for being late.
    pub unsent: (u64, u64),
    /// What this scenario alone measures.
    pub figures: Vec<Figure>,
    /// The measured windows, in order.
    pub rounds: Vec<Round>,
}

/// One number of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// What was measured over one window.
pub struct Measured<'a> {
    /// Length in seconds.
    pub seconds: f64,
    /// Receivers of each packet.
    pub subscribers: usize,
    /// Datagrams this program had no room for.
    pub drops: u64,
    /// What they counted.
    pub tally: &'a Tally,
    /// CPU time the server used.
    pub server: &'a CpuReading,
    /// CPU time this program used.
    pub generator: &'a CpuReading,
    /// CPU time of the kernel's softirq threads.
    pub softirqs: &'a CpuReading,
}

impl Round {
    /// Works the figures out.
    pub fn new(measured: &Measured<'_>) -> Self {
        let Measured { seconds, subscribers, drops, tally, server, generator, softirqs } = *measured;
        let counts = &tally.counts;
        let per_packet = |ns: u64| ratio(ns as f64, counts.delivered as f64);
        let total_ns = server.total_ns();
        let shares = server.by_name_ns.iter().filter(|(_, ns)| **ns as f64 >= total_ns as f64 * SHARE_MIN);
        Self {
            seconds,
            published: counts.published,
            delivered: counts.delivered,
            lost: (counts.published * subscribers as u64).saturating_sub(counts.delivered),
            reordered: counts.reordered,
            duplicated: counts.duplicated,
            misnumbered: counts.misnumbered,
            unauthentic: counts.unauthentic,
            damaged: counts.damaged,
            dropped_here: drops,
            withheld: counts.withheld,
            asked: counts.asked,
            repaired: counts.repaired,
            twcc_reports: counts.twcc_reports,
            asked_of_us: counts.asked_of_us,
            resent: counts.resent,
            cpu_ns_per_packet: per_packet(total_ns),
            user_share: ratio(server.user_s, server.user_s + server.system_s),
            cpu_ns_by_thread: shares.map(|(name, ns)| (name.clone(), per_packet(*ns))).collect(),
            softirq_ns_per_packet: per_packet(softirqs.total_ns()),
            server_cores: ratio(total_ns as f64 / 1e9, seconds),
            generator_cores: ratio(generator.total_ns() as f64 / 1e9, seconds),
            packets_per_s: ratio(counts.delivered as f64, seconds),
            latency_us: Latency::of(tally),
            mean_train: ratio(counts.datagrams as f64, counts.messages as f64),
        }
    }

    fn is_clean(&self) -> bool {
        let wrong = [self.lost, self.reordered, self.duplicated, self.misnumbered, self.unauthentic, self.damaged];
        wrong.iter().all(|&count| count == 0)
    }
}

impl Latency {
    /// Of what was counted.
    pub fn of(tally: &Tally) -> Self {
        let at = |quantile| tally.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: tally.latency_ns.max() as f64 / 1e3 }
    }
}

impl Report {
    /// The median round's CPU time per packet in nanoseconds.
    pub fn median_cpu_ns(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu_ns_per_packet))
    }

    /// For people.
    pub fn table(&self) -> String {
        let Condition { scenario, load, suite, gro, .. } = &self.condition;
        let receivers = if *gro { "take trains" } else { "plain" };
        let mut out = format!("{scenario}: {load}, {suite}, receivers {receivers}\n");
        let titles = ["cpu ns/pkt", "ksoftirqd", "user", "pkt/s", "delivered", "lost", "reord", "dup", "bad"];
        let more = ["p50 us", "p99 us", "p99.9 us", "train", "srv cores", "gen cores"];
        for title in titles.iter().chain(&more) {
            let _ = write!(out, "{title:>11}");
        }
        for round in &self.rounds {
            let bad = round.misnumbered + round.unauthentic + round.damaged;
            let latency = &round.latency_us;
            let _ = write!(out, "\n{:>11.0}{:>11.0}", round.cpu_ns_per_packet, round.softirq_ns_per_packet);
            let _ = write!(out, "{:>10.0}%", round.user_share * 100.0);
            let _ = write!(out, "{:>11.0}{:>11}{:>11}", round.packets_per_s, round.delivered, round.lost);
            let _ = write!(out, "{:>11}{:>11}{bad:>11}", round.reordered, round.duplicated);
            let _ = write!(out, "{:>11.0}{:>11.0}{:>11.0}", latency.p50, latency.p99, latency.p999);
            let _ = write!(out, "{:>11.2}", round.mean_train);
            let _ = write!(out, "{:>11.2}{:>11.2}", round.server_cores, round.generator_cores);
        }
        let _ = write!(out, "\nmedian {:.0} ns per delivered packet", self.median_cpu_ns());
        if !self.rounds.iter().all(Round::is_clean) {
            out.push_str("; NOT every packet arrived once, in order and right");
        }
        if self.unsent != (0, 0) {
            let _ = write!(out, "; publisher refused/late: {}/{}", self.unsent.0, self.unsent.1);
        }
        for (round, nth) in self.rounds.iter().zip(1..) {
            let Round { withheld, asked, repaired, asked_of_us, resent, dropped_here, twcc_reports, .. } = round;
            if [withheld, asked, asked_of_us, dropped_here].into_iter().any(|&count| count > 0) {
                let _ = write!(
                    out,
                    "\nround {nth}: {withheld} withheld, {asked} asked for, {repaired} repaired, {twcc_reports} twcc \
                     reports; {asked_of_us} asked of publishers, {resent} sent again; {dropped_here} dropped at this \
                     program's own sockets"
                );
            }
        }
        for Figure { name, value, unit } in &self.figures {
            let _ = write!(out, "\n{name:<44}{:>14} {unit}", readable(*value));
        }
        if let Some(last) = self.rounds.last() {
            let threads = last.cpu_ns_by_thread.iter().map(|(name, ns)| format!("{name} {ns:.0}"));
            let _ = write!(out, "\nby thread, last round: {}", threads.collect::<Vec<_>>().join(", "));
        }
        out
    }
}

/// Three digits that matter, or all before the point.
fn readable(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Figure {
    /// A number with its name and unit.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit }
    }
}

/// The middle, or between the two; 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len.is_multiple_of(2) => (values[len / 2 - 1] + values[len / 2]) / 2.0,
        len => values[len / 2],
    }
}

/// 0 where there is nothing to divide by.
pub fn ratio(over: f64, under: f64) -> f64 {
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Counts;

    fn cpu(worker_ns: u64, other_ns: u64) -> CpuReading {
        CpuReading {
            by_name_ns: BTreeMap::from([("worker".to_owned(), worker_ns), ("other".to_owned(), other_ns)]),
            user_s: 1.0,
            system_s: 3.0,
        }
    }

    fn round(worker_ns: u64, delivered: u64) -> Round {
        let mut tally = Tally::new().unwrap();
        tally.counts =
            Counts { published: 10, delivered, datagrams: delivered, messages: delivered / 4, ..Counts::default() };
        let (server, generator) = (cpu(worker_ns, 1), cpu(0, 500_000_000));
        let softirqs = cpu(0, delivered * 7);
        Round::new(&Measured {
            seconds: 2.0,
            subscribers: 5,
            drops: 0,
            tally: &tally,
            server: &server,
            generator: &generator,
            softirqs: &softirqs,
        })
    }

    fn report(rounds: Vec<Round>) -> Report {
        let condition = Condition {
            scenario: "one-to-many",
            load: "1 to 5".to_owned(),
            command: String::new(),
            suite: "SUITE".to_owned(),
            subscribers: 5,
            rate: 5,
            burst: 1,
            packet_bytes: 1200,
            train: None,
            gro: true,
            workers: None,
        };
        Report { condition, join_seconds: None, keyframe_requests: 0, unsent: (0, 0), figures: Vec::new(), rounds }
    }

    #[test]
    fn a_round_divides_by_what_was_delivered() {
        let round = round(399_999, 40);
        assert_eq!((round.cpu_ns_per_packet, round.lost), (10_000.0, 10));
        assert_eq!((round.user_share, round.packets_per_s, round.mean_train), (0.25, 20.0, 4.0));
        assert_eq!(round.softirq_ns_per_packet, 7.0);
        assert_eq!((round.server_cores, round.generator_cores), (0.0002, 0.25));
        assert_eq!(round.cpu_ns_by_thread.len(), 1, "a thread of no weight is left out");
    }

    #[test]
    fn nothing_delivered_is_no_division_by_zero() {
        let round = round(1000, 0);
        assert_eq!((round.cpu_ns_per_packet, round.mean_train, round.lost), (0.0, 0.0, 50));
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        let rounds = [100, 900, 300, 200].map(|ns| round(ns * 50 - 1, 50));
        assert_eq!(report(rounds[..3].to_vec()).median_cpu_ns(), 300.0);
        assert_eq!(report(rounds.to_vec()).median_cpu_ns(), 250.0);
        assert_eq!(report(Vec::new()).median_cpu_ns(), 0.0);
    }

    #[test]
    fn the_table_says_when_something_is_missing_and_the_json_has_all() {
        assert!(!report(vec![round(1, 50)]).table().contains("NOT"));
        let mut report = report(vec![round(1, 49)]);
        report.figures.push(Figure::new("joins", 12.345, "per second"));
        assert!(report.table().contains("12.3 per second"));
        assert!(report.table().contains("NOT every packet"));
        let json: serde_json::Value = serde_json::from_str(&crate::saved::json(&report).unwrap()).unwrap();
        assert_eq!(json["rounds"][0]["lost"], 1);
        assert_eq!(json["condition"]["suite"], "SUITE");
        assert_eq!(json["medians"]["cpu_ns_per_packet"], report.median_cpu_ns());
        assert!(json["machine"]["cores"].as_u64() > Some(0));
        let read = crate::saved::Run::of(&report).unwrap();
        assert_eq!(read.complaint().unwrap(), "1 lost");
    }
}
