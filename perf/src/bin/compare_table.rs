//! The table of a comparison: medians of alternating rounds, as ratios to Tramline and to the floor.
//!
//! Reads what `perf/compare.sh` leaves in a directory: `peers` and `conditions` (name, tab, what it is; in the order of the
//! table), `CONDITION/PEER.ROUND.json` (reports) and `CONDITION/PEER.failed` (why there is none). Writes Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;

/// The peer that the first ratio is to.
const OURS: &str = "tramline";
/// Peers whose name begins so are floors: the second ratio is to the cheapest of them.
const FLOOR: &str = "floor";

/// The table of a comparison
#[derive(Parser)]
struct Args {
    /// What compare.sh has left
    dir: PathBuf,
}

fn main() -> Result<()> {
    let Args { dir } = Args::parse();
    let peers = read_list(&dir.join("peers"))?;
    for (condition, title) in read_list(&dir.join("conditions"))? {
        let place = dir.join(&condition);
        let rows: Vec<Row> =
            peers.iter().filter_map(|(peer, _)| Row::read(&place, peer).transpose()).collect::<Result<_>>()?;
        print!("{}", table(&title, &rows));
    }
    println!("| peer | what it is |\n|---|---|");
    for (peer, what) in &peers {
        println!("| {peer} | {what} |");
    }
    Ok(())
}

/// Lines of a name, a tab and a text.
fn read_list(file: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let split = |line: &str| line.split_once('\t').map(|(name, what)| (name.to_owned(), what.to_owned()));
    Ok(text.lines().filter_map(split).collect())
}

/// One peer in one condition.
struct Row {
    peer: String,
    /// The first run's report with the rounds of all runs.
    report: Option<Value>,
    /// Why there is none, or why not all runs have one.
    failure: Option<String>,
}

impl Row {
    /// `None` when the peer did not take part.
    fn read(place: &Path, peer: &str) -> Result<Option<Self>> {
        let failure = fs::read_to_string(place.join(format!("{peer}.failed"))).ok();
        let failure = failure.map(|text| text.lines().next().unwrap_or_default().trim().to_owned());
        let mut report: Option<Value> = None;
        for round in 1.. {
            let file = place.join(format!("{peer}.{round}.json"));
            let Ok(text) = fs::read_to_string(&file) else { break };
            let more: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
            match (&mut report, more["rounds"].as_array()) {
                (Some(report), Some(rounds)) => {
                    report["rounds"].as_array_mut().context("a report has rounds")?.extend(rounds.iter().cloned());
                }
                _ => report = Some(more),
            }
        }
        let row = Self { peer: peer.to_owned(), report, failure };
        Ok((row.report.is_some() || row.failure.is_some()).then_some(row))
    }

    /// A figure of every round.
    fn figures(&self, of: impl Fn(&Value) -> Option<f64>) -> Vec<f64> {
        let rounds = self.report.as_ref().and_then(|report| report["rounds"].as_array());
        let mut figures: Vec<f64> = rounds.into_iter().flatten().filter_map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    /// Nanoseconds per delivered packet with the share that the kernel moved to its softirq threads.
    fn costs(&self) -> Vec<f64> {
        let costs =
            |round: &Value| Some(round["cpu_ns_per_packet"].as_f64()? + round["softirq_ns_per_packet"].as_f64()?);
        self.figures(|round| costs(round).filter(|cost| *cost > 0.0))
    }

    fn cost(&self) -> Option<f64> {
        median(&self.costs())
    }

    fn of(&self, pointer: &str) -> Option<f64> {
        median(&self.figures(|round| round.pointer(pointer).and_then(Value::as_f64)))
    }

    /// Delivered of what was due, in per cent.
    fn delivered(&self) -> Option<f64> {
        let sum = |name: &str| self.figures(|round| round[name].as_f64()).iter().sum::<f64>();
        let (delivered, lost) = (sum("delivered"), sum("lost"));
        (delivered + lost > 0.0).then(|| 100.0 * delivered / (delivered + lost))
    }

    fn line(&self, ours: Option<f64>, floor: Option<f64>) -> String {
        let Self { peer, report, failure } = self;
        let Some(report) = report else {
            return format!("| {peer} | not measured: {} | | | | | | | | |\n", failure.as_deref().unwrap_or_default());
        };
        let suite = report["condition"]["suite"].as_str().unwrap_or_default();
        let costs = self.costs();
        let cost = number(median(&costs), 0);
        let span = match costs.as_slice() {
            [least, .., most] => format!("{least:.0} to {most:.0}"),
            _ => String::new(),
        };
        let ratio = |to: Option<f64>| number(self.cost().zip(to).map(|(cost, to)| cost / to), 2);
        let mut line = format!("| {peer} | {} | {cost} | {span} | {} | {} ", short(suite), ratio(ours), ratio(floor));
        let _ = write!(
            line,
            "| {} | {} | {} | {} |",
            number(self.delivered(), 2),
            number(self.of("/latency_us/p99").map(|us| us / 1000.0), 1),
            number(self.of("/mean_train"), 1),
            number(self.of("/server_cores"), 2),
        );
        if let Some(failure) = failure {
            let _ = write!(line, " (a run failed: {failure})");
        }
        line.push('\n');
        line
    }
}

fn table(title: &str, rows: &[Row]) -> String {
    let ours = rows.iter().find(|row| row.peer == OURS).and_then(Row::cost);
    let floors = rows.iter().filter(|row| row.peer.starts_with(FLOOR)).filter_map(Row::cost);
    let floor = floors.min_by(f64::total_cmp);
    let mut out = format!("## {title}\n\n");
    out.push_str(
        "| server | suite | cpu ns/packet | span | to Tramline | to floor | delivered % | p99 ms | train | cores |\n",
    );
    out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for row in rows {
        out.push_str(&row.line(ours, floor));
    }
    out.push('\n');
    out
}

/// The middle one, or between the two.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Suites by what tells them apart.
fn short(suite: &str) -> &str {
    match suite {
        "SRTP_AEAD_AES_256_GCM" => "GCM-256",
        "SRTP_AEAD_AES_128_GCM" => "GCM-128",
        "SRTP_AES128_CM_HMAC_SHA1_80" => "CM-SHA1",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(peer: &str, costs: &[f64]) -> Row {
        let round = |cost: &f64| json!({"cpu_ns_per_packet": cost - 10.0, "softirq_ns_per_packet": 10.0, "delivered": 99, "lost": 1});
        let rounds: Vec<Value> = costs.iter().map(round).collect();
        let report = json!({"condition": {"suite": "SRTP_AEAD_AES_256_GCM"}, "rounds": rounds});
        Row { peer: peer.to_owned(), report: Some(report), failure: None }
    }

    #[test]
    fn ratios_are_of_medians_to_ours_and_to_the_cheapest_floor() {
        let rows = [
            row("tramline", &[900.0, 5000.0, 1000.0]),
            row("floor-1", &[2000.0]),
            row("floor-10", &[500.0]),
            row("other", &[4000.0, 2000.0]),
        ];
        let table = table("Bursts", &rows);
        assert!(table.contains("| tramline | GCM-256 | 1000 | 900 to 5000 | 1.00 | 2.00 | 99.00 |"), "{table}");
        assert!(table.contains("| other | GCM-256 | 3000 | 2000 to 4000 | 3.00 | 6.00 | 99.00 |"), "{table}");
    }

    #[test]
    fn a_peer_that_did_not_run_says_why() {
        let gone = Row { peer: "gone".to_owned(), report: None, failure: Some("no package".to_owned()) };
        assert!(table("Bursts", &[gone]).contains("| gone | not measured: no package |"));
    }

    #[test]
    fn rounds_of_all_runs_are_gathered_and_who_took_no_part_is_left_out() {
        let dir = std::env::temp_dir().join(format!("compare-table-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (round, cost) in [(1, 100.0), (2, 300.0)] {
            fs::write(dir.join(format!("some.{round}.json")), row("some", &[cost]).report.unwrap().to_string())
                .unwrap();
        }
        fs::write(dir.join("broken.failed"), "it fell over\nat once\n").unwrap();
        let some = Row::read(&dir, "some").unwrap().unwrap();
        assert_eq!((some.costs(), some.cost()), (vec![100.0, 300.0], Some(200.0)));
        let broken = Row::read(&dir, "broken").unwrap().unwrap();
        assert_eq!(broken.failure.as_deref(), Some("it fell over"));
        assert!(Row::read(&dir, "absent").unwrap().is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
