//! The picture of one run: CPU time per packet and added latency, round by round.

use crate::axis::{Axis, number, time};
use crate::saved::{Percentiles, Round, Run};
use crate::svg::{Anchor, Svg};

const WIDTH: f64 = 900.0;
/// Upper and lower edge of both panels.
const TOP: f64 = 116.0;
const BOTTOM: f64 = 330.0;
/// Left and right edge of the panel with CPU times.
const CPU: [f64; 2] = [70.0, 420.0];
/// Left and right edge of the panel with latencies; the lines' names stand right of it.
const LATENCY: [f64; 2] = [540.0, 830.0];
const LINE_HEIGHT: f64 = 20.0;
/// A column is no wider than this.
const COLUMN_WIDTH_MAX: f64 = 48.0;

/// One of the latency lines: its name, its classes, its value in a round.
type Line = (&'static str, &'static str, &'static str, fn(&Percentiles) -> f64);

const LINES: [Line; 3] = [
    ("p50", "main", "line main-line", |latency| latency.p50),
    ("p99", "second", "line second-line", |latency| latency.p99),
    ("p99.9", "third", "line third-line", |latency| latency.p999),
];

/// Draws it. Without rounds only the scenario's own figures are listed.
pub fn picture(run: &Run) -> String {
    let complaint = run.complaint().map(|text| format!("not every packet arrived once, in order and right: {text}"));
    let lines = complaint.iter().len() + run.figures.len();
    let panels = if run.rounds.is_empty() { TOP - 40.0 } else { BOTTOM + 76.0 };
    let height = panels + lines as f64 * LINE_HEIGHT - 8.0;
    let mut svg = Svg::new(WIDTH, height, &format!("{}: {}", run.condition.scenario, run.condition.load()));
    head(&mut svg, run);
    if !run.rounds.is_empty() {
        cpu_panel(&mut svg, run);
        latency_panel(&mut svg, &run.rounds);
    }
    let mut y = panels;
    if let Some(complaint) = complaint {
        svg.text("warn", Anchor::Start, [16.0, y], &complaint);
        y += LINE_HEIGHT;
    }
    for figure in &run.figures {
        svg.text("", Anchor::Start, [16.0, y], &figure.name);
        svg.text("head", Anchor::End, [500.0, y], &number(figure.value));
        svg.text("quiet", Anchor::Start, [508.0, y], &figure.unit);
        y += LINE_HEIGHT;
    }
    svg.finish()
}

fn head(svg: &mut Svg, run: &Run) {
    let condition = &run.condition;
    svg.text("title", Anchor::Start, [16.0, 28.0], &condition.scenario);
    let train = condition.train().map(|train| format!(", trains of up to {train}")).unwrap_or_default();
    let load = format!("{}, {}, {}{train}", condition.load(), condition.suite, condition.receivers());
    svg.text("", Anchor::Start, [16.0, 50.0], &load);
    if let Some(machine) = &run.machine {
        svg.text("quiet", Anchor::Start, [16.0, 70.0], &machine.line());
    }
}

/// A round's column: the server's part and what lies on it, by their upper edges.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Column {
    x: f64,
    width: f64,
    main_top: f64,
    side_top: f64,
}

fn columns(rounds: &[Round], axis: &Axis, [left, right]: [f64; 2]) -> Vec<Column> {
    let room = (right - left) / rounds.len() as f64;
    let width = (room * 0.6).min(COLUMN_WIDTH_MAX);
    let column = |(at, round): (usize, &Round)| Column {
        x: left + room * (at as f64 + 0.5) - width / 2.0,
        width,
        main_top: axis.at(round.cpu_ns_per_packet),
        side_top: axis.at(round.both_ns()),
    };
    rounds.iter().enumerate().map(column).collect()
}

fn cpu_panel(svg: &mut Svg, run: &Run) {
    let max = run.rounds.iter().map(Round::both_ns).fold(0.0, f64::max);
    let axis = Axis::linear(max * 1.02, [BOTTOM, TOP]);
    svg.text("head", Anchor::Start, [16.0, TOP - 16.0], "CPU time per delivered packet, ns");
    grid(svg, &axis, CPU, number);
    let columns = columns(&run.rounds, &axis, CPU);
    for column in &columns {
        svg.rect("main", [column.x, column.main_top], [column.width, BOTTOM - column.main_top]);
        svg.rect("side", [column.x, column.side_top], [column.width, column.main_top - column.side_top]);
    }
    let middles: Vec<f64> = columns.iter().map(|column| column.x + column.width / 2.0).collect();
    rounds_below(svg, &middles, CPU);
    let Some(medians) = run.medians() else { return };
    let y = axis.at(medians.cpu_ns_per_packet);
    svg.line("mark dashed", [CPU[0], y], [CPU[1], y]);
    let below = BOTTOM + 48.0;
    svg.rect("main", [CPU[0], below - 10.0], [12.0, 12.0]);
    svg.text("", Anchor::Start, [CPU[0] + 18.0, below], "server");
    svg.rect("side", [CPU[0] + 76.0, below - 10.0], [12.0, 12.0]);
    svg.text("", Anchor::Start, [CPU[0] + 94.0, below], "softirq threads");
    svg.line("mark dashed", [CPU[0] + 204.0, below - 4.0], [CPU[0] + 226.0, below - 4.0]);
    let median = format!("median {} ns", number(medians.cpu_ns_per_packet));
    svg.text("", Anchor::Start, [CPU[0] + 232.0, below], &median);
}

fn latency_panel(svg: &mut Svg, rounds: &[Round]) {
    let values = rounds.iter().flat_map(|round| LINES.map(|(.., value)| value(&round.latency_us)));
    let axis = Axis::log(values, [BOTTOM, TOP]);
    svg.text("head", Anchor::Start, [LATENCY[0] - 54.0, TOP - 16.0], "Added latency");
    grid(svg, &axis, LATENCY, time);
    let room = (LATENCY[1] - LATENCY[0]) / rounds.len() as f64;
    let middles: Vec<f64> = (0..rounds.len()).map(|at| LATENCY[0] + room * (at as f64 + 0.5)).collect();
    let mut labels = Vec::new();
    for (name, dot, line, value) in LINES {
        let points: Vec<[f64; 2]> =
            middles.iter().zip(rounds).map(|(x, round)| [*x, axis.at(value(&round.latency_us))]).collect();
        svg.polyline(line, &points);
        points.iter().for_each(|point| svg.dot(dot, *point));
        labels.extend(points.last().map(|[_, y]| (name, *y)));
    }
    for (name, y) in apart(labels) {
        svg.text("", Anchor::Start, [LATENCY[1] + 8.0, y + 4.0], name);
    }
    rounds_below(svg, &middles, LATENCY);
}

/// Moves labels up until none covers the one below it. The lines never cross: percentiles are in order.
fn apart(labels: Vec<(&'static str, f64)>) -> Vec<(&'static str, f64)> {
    const ROOM: f64 = 15.0;
    let mut lowest_free = f64::INFINITY;
    let place = |(name, y): (&'static str, f64)| {
        let y = y.min(lowest_free);
        lowest_free = y - ROOM;
        (name, y)
    };
    labels.into_iter().map(place).collect()
}

fn grid(svg: &mut Svg, axis: &Axis, [left, right]: [f64; 2], label: fn(f64) -> String) {
    for &tick in &axis.ticks {
        let y = axis.at(tick);
        svg.line("grid", [left, y], [right, y]);
        svg.text("quiet", Anchor::End, [left - 8.0, y + 4.0], &label(tick));
    }
    svg.line("axis", [left, BOTTOM], [right, BOTTOM]);
}

/// Numbers of the rounds; with many of them only some.
fn rounds_below(svg: &mut Svg, middles: &[f64], [left, right]: [f64; 2]) {
    let step = middles.len().div_ceil(15);
    for (at, x) in middles.iter().enumerate().step_by(step) {
        svg.text("quiet", Anchor::Middle, [*x, BOTTOM + 21.0], &(at + 1).to_string());
    }
    if middles.len() == 1 {
        svg.text("quiet", Anchor::End, [right, BOTTOM + 21.0], "one round");
    } else {
        svg.text("quiet", Anchor::End, [left - 8.0, BOTTOM + 21.0], "round");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::tests::run;

    #[test]
    fn columns_stand_on_each_other_and_beside_each_other() {
        let rounds = run(&[(400.0, 100.0), (800.0, 0.0)]).rounds;
        let axis = Axis::linear(1000.0, [100.0, 0.0]);
        let columns = columns(&rounds, &axis, [0.0, 100.0]);
        assert_eq!(columns[0], Column { x: 10.0, width: 30.0, main_top: 60.0, side_top: 50.0 });
        assert_eq!((columns[1].x, columns[1].main_top, columns[1].side_top), (60.0, 20.0, 20.0));
    }

    #[test]
    fn labels_make_room_for_each_other() {
        assert_eq!(apart(vec![("a", 100.0), ("b", 95.0), ("c", 20.0)]), [("a", 100.0), ("b", 85.0), ("c", 20.0)]);
    }

    #[test]
    fn a_picture_shows_every_round_and_what_went_wrong() {
        let picture = picture(&run(&[(400.0, 100.0), (800.0, 0.0), (500.0, 1.0)]));
        assert_eq!(picture.matches("class=\"main\" x=").count(), 3 + 1, "and the legend");
        assert_eq!(picture.matches("<circle").count(), 9);
        assert!(picture.contains("median 500 ns") && !picture.contains("not every packet"));
        assert!(picture.contains("1 to 100, 1200 B"));
    }

    #[test]
    fn without_rounds_the_figures_are_listed() {
        let mut run = run(&[]);
        let value = 123_456.0;
        run.figures.push(crate::saved::Figure { name: "memory".into(), value, unit: "bytes per peer".into() });
        let picture = picture(&run);
        assert!(picture.contains("123,456") && picture.contains("bytes per peer") && !picture.contains("CPU time"));
    }

    #[test]
    fn rounds_in_which_nothing_arrived_draw_nothing_strange() {
        let picture = picture(&run(&[(0.0, 0.0)]));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
