//! Results as Markdown.

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
| network | phase | sender | settled after | estimate / goal | arrived / goal | queue p95, settled | whole phase | switches | pauses > 0.2 s | > 1 s | longest | pictures/s | lines |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
/// Head of the table of starts.
pub const START_HEAD: &str = "| who joins | first picture | 720 lines |\n|---|--:|--:|\n";
/// Head of the table of crowds.
pub const CROWD_HEAD: &str = "\
| joining within 1 s | last keyframe | keyframes asked for | seeing | first picture p50 | p99 | broken |
|--:|---|--:|--:|--:|--:|--:|
";

/// A row.
pub fn loss_row(trial: &LossTrial, result: &LossResult) -> String {
    let loss = match trial.loss {
        Loss::Uniform(share) => format!("{:.0} %", share * 100.0),
        Loss::Bursty { to_bad, to_good } => format!("{:.0} % in bursts", 100.0 * to_bad / (to_bad + to_good)),
    };
    let side = if trial.side == Side::Up { "publisher" } else { "viewer" };
    let (delivery, look) = (&result.delivery, &result.look);
    format!(
        "| {loss} | {side} | {} | {} kbit/s | {} | {} | {} | {} / {} | {:.2} | {} | {} | {} |\n",
        ms(trial.round_trip),
        trial.bps / 1000,
        per_cent(delivery.packets),
        per_cent(delivery.complete),
        per_cent(delivery.in_time),
        ms(delivery.delay_p50),
        ms(delivery.delay_p95),
        result.traffic.repair_cost(),
        look.stutters,
        look.freezes,
        result.broken,
    )
}

/// Rows of a trial: phase by phase, sender by sender.
pub fn bandwidth_rows(trial: &BandwidthTrial, senders: &[(&str, Vec<PhaseResult>)]) -> String {
    let mut rows = String::new();
    for (at, phase) in trial.phases.iter().enumerate() {
        for (sender, results) in senders {
            let Some(PhaseResult { settled, estimate, throughput, queued_p95, queued_p95_all, look, .. }) =
                results.get(at)
            else {
                continue;
            };
            let _ = writeln!(
                rows,
                "| {} | {} | {sender} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {} |",
                trial.name,
                phase.name,
                settled.map_or("-".to_owned(), seconds),
                estimate.map_or("-".to_owned(), per_cent),
                per_cent(*throughput),
                ms(*queued_p95),
                ms(*queued_p95_all),
                look.switches,
                look.stutters,
                look.freezes,
                seconds(look.longest),
                look.fps,
                look.height,
            );
        }
    }
    rows
}

/// A row.
pub fn start_row(who: &str, result: &StartResult) -> String {
    let time = |time: Option<Duration>| time.map_or("never".to_owned(), ms);
    format!("| {who} | {} | {} |\n", time(result.first), time(result.best))
}

/// A row.
pub fn crowd_row(viewers: usize, is_fresh: bool, result: &CrowdResult) -> String {
    let CrowdResult { keyframes, seeing, first_p50, first_p99, broken } = result;
    let keyframes: Vec<String> =
        keyframes.iter().map(|(rid, count)| format!("{rid} {count}").trim().to_owned()).collect();
    let keyframes = if keyframes.is_empty() { "0".to_owned() } else { keyframes.join(", ") };
    let when = if is_fresh { "1 s before" } else { "30 s before" };
    format!("| {viewers} | {when} | {keyframes} | {seeing} | {} | {} | {broken} |\n", ms(*first_p50), ms(*first_p99))
}

fn per_cent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
