//! Results as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::bandwidth::BandwidthTrial;
use super::course::PhaseResult;
use super::joins::{CrowdResult, StartResult};
use super::loss::{LossResult, LossTrial, Side};
use crate::proto::link::Loss;

/// Head of the table of losses.
pub const LOSS_HEAD: &str = "\
| loss | where | RTT | video | packets arrived | frames complete | in time | delay p50 / p95 | sent again / lost | pauses > 0.2 s | > 1 s | broken |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
/// Head of the table of bandwidths.
pub const BANDWIDTH_HEAD: &str = "\
| network | phase | sender | settled after | estimate / goal | media / goal | queue p95, settled | whole phase | switches | pauses > 0.2 s | > 1 s | longest | pictures/s | lines |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
/// Head of the table of starts.
pub const START_HEAD: &str = "| who joins | first picture | 720 lines |\n|---|--:|--:|\n";
/// Head of the table of crowds.
pub const CROWD_HEAD: &str = "\
| joining within 1 s | last keyframe | keyframes asked for | seeing | first picture p50 | p99 | broken |
|--:|---|--:|--:|--:|--:|--:|
";

/// A row; one result for each seed, as in all others.
pub fn loss_row(trial: &LossTrial, results: &[LossResult]) -> String {
    let loss = match trial.loss {
        Loss::Uniform(share) => format!("{:.0} %", share * 100.0),
        Loss::Bursty { to_bad, to_good } => format!("{:.0} % in bursts", 100.0 * to_bad / (to_bad + to_good)),
    };
    let side = if trial.side == Side::Up { "publisher" } else { "viewer" };
    let least = |of: fn(&LossResult) -> f64| spread(results.iter().map(of).collect(), Worst::Least, per_cent);
    let latest = |of: fn(&LossResult) -> Duration| {
        spread(results.iter().map(|it| of(it).as_secs_f64()).collect(), Worst::Most, ms)
    };
    let most =
        |of: fn(&LossResult) -> usize| spread(results.iter().map(|it| of(it) as f64).collect(), Worst::Most, count);
    let costs = results.iter().map(|it| it.traffic.repair_cost()).collect();
    format!(
        "| {loss} | {side} | {} | {} kbit/s | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        ms(trial.round_trip.as_secs_f64()),
        trial.bps / 1000,
        least(|it| it.delivery.packets),
        least(|it| it.delivery.complete),
        least(|it| it.delivery.in_time),
        latest(|it| it.delivery.delay_p50),
        latest(|it| it.delivery.delay_p95),
        spread(costs, Worst::Most, |cost| format!("{cost:.2}")),
        most(|it| it.look.stutters),
        most(|it| it.look.freezes),
        most(|it| it.broken as usize),
    )
}

/// Rows of a trial: phase by phase, sender by sender; of each sender the results by seed, phase by phase.
pub fn bandwidth_rows(trial: &BandwidthTrial, senders: &[(&str, Vec<Vec<PhaseResult>>)]) -> String {
    let mut rows = String::new();
    for (at, phase) in trial.phases.iter().enumerate() {
        for (sender, seeds) in senders {
            let results: Vec<&PhaseResult> = seeds.iter().filter_map(|phases| phases.get(at)).collect();
            let least = |of: fn(&PhaseResult) -> f64, show: fn(f64) -> String| {
                spread(results.iter().map(|it| of(it)).collect(), Worst::Least, show)
            };
            let most = |of: fn(&PhaseResult) -> f64, show: fn(f64) -> String| {
                spread(results.iter().map(|it| of(it)).collect(), Worst::Most, show)
            };
            let heights = results.iter().map(|it| f64::from(it.look.height)).collect();
            let _ = writeln!(
                rows,
                "| {} | {} | {sender} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                trial.name,
                phase.name,
                most(|it| it.settled.map_or(f64::INFINITY, |after| after.as_secs_f64()), seconds),
                least(|it| it.estimate.unwrap_or(0.0), per_cent),
                least(|it| it.throughput, per_cent),
                most(|it| it.queued_p95.as_secs_f64(), ms),
                most(|it| it.queued_p95_all.as_secs_f64(), ms),
                most(|it| it.look.switches as f64, count),
                most(|it| it.look.stutters as f64, count),
                most(|it| it.look.freezes as f64, count),
                most(|it| it.look.longest.as_secs_f64(), seconds),
                least(|it| it.look.fps, |fps| format!("{fps:.1}")),
                spread(heights, Worst::Least, count),
            );
        }
    }
    rows
}

/// A row.
pub fn start_row(who: &str, results: &[StartResult]) -> String {
    let time = |of: fn(&StartResult) -> Option<Duration>| {
        let times = results.iter().map(|it| of(it).map_or(f64::INFINITY, |time| time.as_secs_f64()));
        spread(times.collect(), Worst::Most, ms)
    };
    format!("| {who} | {} | {} |\n", time(|it| it.first), time(|it| it.best))
}

/// A row.
pub fn crowd_row(viewers: usize, is_fresh: bool, results: &[CrowdResult]) -> String {
    let all = |of: fn(&CrowdResult) -> usize| results.iter().map(|it| of(it) as f64).collect::<Vec<_>>();
    let latest = |of: fn(&CrowdResult) -> Duration| {
        spread(results.iter().map(|it| of(it).as_secs_f64()).collect(), Worst::Most, ms)
    };
    let rids: BTreeSet<&str> = results.iter().flat_map(|it| &it.keyframes).map(|(rid, _)| rid.as_str()).collect();
    let asked =
        |rid: &str, of: &CrowdResult| of.keyframes.iter().find(|(it, _)| it == rid).map_or(0, |(_, count)| *count);
    let asked = |rid: &str| spread(results.iter().map(|it| asked(rid, it) as f64).collect(), Worst::Most, count);
    let keyframes: Vec<String> = rids.into_iter().map(|rid| format!("{rid} {}", asked(rid))).collect();
    let keyframes = if keyframes.is_empty() { "0".to_owned() } else { keyframes.join(", ") };
    let when = if is_fresh { "1 s before" } else { "30 s before" };
    format!(
        "| {viewers} | {when} | {keyframes} | {} | {} | {} | {} |\n",
        spread(all(|it| it.seeing), Worst::Least, count),
        latest(|it| it.first_p50),
        latest(|it| it.first_p99),
        spread(all(|it| it.broken as usize), Worst::Most, count),
    )
}

/// Which end of a column is the bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worst {
    Least,
    Most,
}

/// The median, and the worst where that is another: `median (worst)`.
fn spread(mut values: Vec<f64>, worst: Worst, show: impl Fn(f64) -> String) -> String {
    values.sort_by(f64::total_cmp);
    if worst == Worst::Least {
        values.reverse();
    }
    // Of an even number the worse of the two in the middle.
    let (median, worst) = (values.get(values.len() / 2), values.last());
    let (median, worst) = (median.map_or(String::new(), |it| show(*it)), worst.map_or(String::new(), |it| show(*it)));
    if median == worst { median } else { format!("{median} ({worst})") }
}

fn per_cent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn ms(seconds: f64) -> String {
    if seconds.is_finite() { format!("{:.0} ms", seconds * 1000.0) } else { "never".to_owned() }
}

fn seconds(seconds: f64) -> String {
    if seconds.is_finite() { format!("{seconds:.1} s") } else { "-".to_owned() }
}

fn count(count: f64) -> String {
    format!("{count:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_median_and_the_worst() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0], Worst::Most, count), "2 (3)");
        assert_eq!(spread(vec![3.0, 1.0, 2.0], Worst::Least, count), "2 (1)");
        assert_eq!(spread(vec![2.0, 2.0, f64::INFINITY], Worst::Most, seconds), "2.0 s (-)");
        assert_eq!(spread(vec![1.04, 1.01], Worst::Most, |it| format!("{it:.1}")), "1.0");
    }
}
