//! Several reports side by side: what each costs per delivered packet, as bars and as a table.
//!
//! Promises: reports of one name are one bar, so that alternating runs can be put together; unlike loads are refused.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use crate::axis::{Axis, number};
use crate::saved::{Round, Run};
use crate::svg::{Anchor, Svg};

const WIDTH: f64 = 900.0;
/// Where the rows begin and how high one is.
const TOP: f64 = 112.0;
const ROW: f64 = 46.0;
const BAR: f64 = 20.0;
/// Room right of the bars for the figures.
const FIGURES: f64 = 190.0;
/// Names take between these many pixels.
const NAME_WIDTH: [f64; 2] = [120.0, 330.0];
/// A character of a name, about.
const CHARACTER: f64 = 7.4;

/// Compare reports: a bar chart as SVG, and a table on standard output
#[derive(clap::Args, Clone, Debug)]
pub struct Chart {
    /// Reports in JSON; those of one name are put together. The first name is what the others are compared with
    #[arg(required = true, value_name = "[NAME=]FILE")]
    reports: Vec<String>,
    /// Where the picture goes
    #[arg(long, short = 'o', value_name = "FILE")]
    out: String,
    /// What stands above it
    #[arg(long, default_value = "CPU time per delivered packet")]
    title: String,
}

/// All rounds of one name.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    run: Run,
}

/// A bar in nanoseconds per packet.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    name: String,
    suite: String,
    rounds: usize,
    cpu_ns: f64,
    softirq_ns: f64,
    both_ns: f64,
    /// Cheapest and dearest round.
    range_ns: [f64; 2],
    /// Of the first bar.
    ratio: f64,
    complaint: Option<String>,
}

impl Chart {
    /// Draws it; the table comes back.
    pub fn run(&self) -> Result<String> {
        let mut rows: Vec<Row> = Vec::new();
        for report in &self.reports {
            let (name, file) = named(report);
            add(&mut rows, name, Run::read(file)?).with_context(|| format!("{file} does not compare"))?;
        }
        let bars = bars(&rows)?;
        let picture = picture(&self.title, &rows, &bars);
        std::fs::write(&self.out, picture).with_context(|| format!("writing {}", self.out))?;
        Ok(table(&bars))
    }
}

/// `NAME=FILE`, or the file's name without its ending.
fn named(report: &str) -> (&str, &str) {
    let stem = |file| std::path::Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or(file);
    report.split_once('=').unwrap_or_else(|| (stem(report), report))
}

fn add(rows: &mut Vec<Row>, name: &str, run: Run) -> Result<()> {
    if let Some(first) = rows.first() {
        let (one, other) = (&first.run, &run);
        if !one.condition.compares_with(&other.condition) {
            let load = |run: &Run| format!("{}, {}", run.condition.load(), run.condition.receivers());
            bail!("its load is \"{}\", that of {} \"{}\"", load(other), first.name, load(one));
        }
        if one.machine != other.machine {
            bail!("it was not taken on the machine of {}", first.name);
        }
    }
    match rows.iter_mut().find(|row| row.name == name) {
        Some(row) => row.run.rounds.extend(run.rounds),
        None => rows.push(Row { name: name.to_owned(), run }),
    }
    Ok(())
}

fn bars(rows: &[Row]) -> Result<Vec<Bar>> {
    let mut first_ns = None;
    let bar = |row: &Row| {
        let medians = row.run.medians().with_context(|| format!("{} has no measured round", row.name))?;
        let both_ns = medians.both_ns_per_packet;
        let first_ns = *first_ns.get_or_insert(both_ns);
        let costs = row.run.rounds.iter().map(Round::both_ns);
        Ok(Bar {
            name: row.name.clone(),
            suite: row.run.condition.suite.clone(),
            rounds: row.run.rounds.len(),
            cpu_ns: medians.cpu_ns_per_packet,
            softirq_ns: medians.softirq_ns_per_packet,
            both_ns,
            range_ns: [costs.clone().fold(f64::INFINITY, f64::min), costs.fold(0.0, f64::max)],
            ratio: crate::report::ratio(both_ns, first_ns),
            complaint: row.run.complaint(),
        })
    };
    rows.iter().map(bar).collect()
}

/// As Markdown.
fn table(bars: &[Bar]) -> String {
    let mut out = String::from(
        "| | ns per packet | server | softirq | rounds from, to | ratio | |\n|---|--:|--:|--:|--:|--:|---|",
    );
    for bar in bars {
        let Bar { name, both_ns, cpu_ns, softirq_ns, range_ns: [low, high], ratio, complaint, .. } = bar;
        let complaint = complaint.as_deref().unwrap_or("");
        let _ = write!(
            out,
            "\n| {name} | {both_ns:.0} | {cpu_ns:.0} | {softirq_ns:.0} | {low:.0}, {high:.0} | {ratio:.2} | {complaint} |"
        );
    }
    out
}

fn picture(title: &str, rows: &[Row], bars: &[Bar]) -> String {
    let bottom = TOP + ROW * bars.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 62.0, title);
    svg.text("title", Anchor::Start, [16.0, 28.0], title);
    if let Some(Row { run, .. }) = rows.first() {
        let load = format!("{}, {}", run.condition.load(), run.condition.receivers());
        svg.text("", Anchor::Start, [16.0, 50.0], &load);
        let machine = run.machine.as_ref().map(|machine| machine.line()).unwrap_or_default();
        svg.text("quiet", Anchor::Start, [16.0, 70.0], &machine);
    }
    let longest = bars.iter().map(|bar| bar.name.chars().count().max(subtitle(bar).chars().count())).max();
    let [least, most] = NAME_WIDTH;
    let left = 24.0 + (longest.unwrap_or(0) as f64 * CHARACTER).clamp(least, most);
    let max = bars.iter().map(|bar| bar.both_ns.max(bar.range_ns[1])).fold(0.0, f64::max);
    let axis = Axis::linear(max, [left, WIDTH - FIGURES]);
    for &tick in &axis.ticks {
        svg.line("grid", [axis.at(tick), TOP - 8.0], [axis.at(tick), bottom]);
        svg.text("quiet", Anchor::Middle, [axis.at(tick), bottom + 16.0], &format!("{} ns", number(tick)));
    }
    for (at, bar) in bars.iter().enumerate() {
        row(&mut svg, &axis, TOP + ROW * at as f64, bar);
    }
    svg.line("axis", [left, TOP - 8.0], [left, bottom]);
    legend(&mut svg, left, bottom + 44.0);
    svg.finish()
}

fn subtitle(bar: &Bar) -> String {
    format!("{}, {} {}", bar.suite, bar.rounds, if bar.rounds == 1 { "round" } else { "rounds" })
}

fn row(svg: &mut Svg, axis: &Axis, y: f64, bar: &Bar) {
    let left = axis.at(0.0);
    svg.text("head", Anchor::End, [left - 8.0, y + 12.0], &bar.name);
    svg.text("quiet", Anchor::End, [left - 8.0, y + 28.0], &subtitle(bar));
    // The parts' medians need not add up to the median of the sum, which is what the bar ends at.
    let (end, joint) = (axis.at(bar.both_ns), axis.at(bar.cpu_ns.min(bar.both_ns)));
    svg.rect("main", [left, y], [joint - left, BAR]);
    svg.rect("side", [joint, y], [end - joint, BAR]);
    let [low, high] = bar.range_ns.map(|ns| axis.at(ns));
    let middle = y + BAR / 2.0;
    svg.line("mark", [low, middle], [high, middle]);
    for x in [low, high] {
        svg.line("mark", [x, middle - 4.0], [x, middle + 4.0]);
    }
    let x = end.max(high) + 10.0;
    let figures = format!("{} ns · {:.2}×", number(bar.both_ns.round()), bar.ratio);
    svg.text("head", Anchor::Start, [x, y + 14.0], &figures);
    if let Some(complaint) = &bar.complaint {
        svg.text("warn", Anchor::Start, [left + 2.0, y + BAR + 14.0], complaint);
    }
}

fn legend(svg: &mut Svg, left: f64, y: f64) {
    svg.rect("main", [left, y - 10.0], [12.0, 12.0]);
    svg.text("", Anchor::Start, [left + 18.0, y], "server");
    svg.rect("side", [left + 76.0, y - 10.0], [12.0, 12.0]);
    svg.text("", Anchor::Start, [left + 94.0, y], "softirq threads");
    svg.line("mark", [left + 204.0, y - 4.0], [left + 228.0, y - 4.0]);
    svg.text("", Anchor::Start, [left + 236.0, y], "cheapest to dearest round; the bar is the median");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::tests::run;

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        add(&mut rows, "ours", run(&[(90.0, 10.0), (110.0, 10.0)])).unwrap();
        add(&mut rows, "theirs", run(&[(400.0, 0.0)])).unwrap();
        add(&mut rows, "ours", run(&[(80.0, 0.0)])).unwrap();
        rows
    }

    #[test]
    fn reports_of_one_name_are_one_bar_and_the_first_is_the_measure() {
        let bars = bars(&rows()).unwrap();
        assert_eq!(bars.len(), 2);
        let ours = &bars[0];
        assert_eq!(
            (ours.rounds, ours.both_ns, ours.cpu_ns, ours.range_ns, ours.ratio),
            (3, 100.0, 90.0, [80.0, 120.0], 1.0)
        );
        assert_eq!((bars[1].both_ns, bars[1].ratio), (400.0, 4.0));
        let table = table(&bars);
        assert!(table.ends_with("\n| theirs | 400 | 400 | 0 | 400, 400 | 4.00 |  |"), "{table}");
    }

    #[test]
    fn a_name_is_given_or_the_files() {
        assert_eq!(named("janus=out/j-1.json"), ("janus", "out/j-1.json"));
        assert_eq!(named("out/media mtx.json"), ("media mtx", "out/media mtx.json"));
    }

    #[test]
    fn what_does_not_compare_is_refused() {
        let mut rows = rows();
        let mut other = run(&[(1.0, 0.0)]);
        other.machine = Some(Default::default());
        assert!(add(&mut rows, "elsewhere", other).unwrap_err().to_string().contains("machine"));
        assert!(bars(&[Row { name: "empty".into(), run: run(&[]) }]).is_err());
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn the_picture_has_a_row_for_each() {
        let rows = rows();
        let picture = picture("A title", &rows, &bars(&rows).unwrap());
        for text in ["A title", ">ours<", ">theirs<", "100 ns · 1.00×", "400 ns · 4.00×"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
