//! Calls over bad networks in virtual time: what repairs cost, how estimates follow capacity, how soon pictures come.
//! Not a measure of speed: the figures are the protocol's, not the machine's.
//!
//!   cargo bench --features sim --bench networks                    # prints the tables
//!   cargo bench --features sim --bench networks -- --write         # puts them into perf/results/networks.md
//!   cargo bench --features sim --bench networks -- bandwidth       # some of: loss bandwidth start crowd
//!
//! `--write` with names leaves the other tables as they are.

#![allow(missing_docs)]

use std::path::Path;
use std::time::Duration;

use tramline::proto::link::Loss;
use tramline::sim::trials::bandwidth::{self, Sender};
use tramline::sim::trials::loss::{BPS, LossTrial, SLOW_BPS, Side, bursty};
use tramline::sim::trials::{joins, table};

/// Every trial is played with each of these: the tables show the median and the worst.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Who join at once.
const CROWD: usize = 50;
/// The file, from the repository's root: above its mark stands what people wrote.
const FILE: &str = "perf/results/networks.md";
const MARK: &str = "<!-- tables -->\n";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    type Part = (&'static str, fn() -> String);
    let parts: [Part; 4] = [("loss", loss), ("bandwidth", bandwidth), ("start", start), ("crowd", crowd)];
    let mut tables = String::new();
    for (name, part) in parts {
        if named.is_empty() || named.contains(&name) {
            let table = part();
            println!("{table}");
            tables += &table;
        }
    }
    if args.iter().any(|arg| arg == "--write") {
        write(&tables);
    }
}

/// Puts each table into its place in the file; those that were not made stay as they are.
fn write(tables: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let old = std::fs::read_to_string(&path).expect("the file is there");
    let (head, kept) = old.split_once(MARK).expect("the file has its mark");
    let mut sections = sections(kept);
    for made in self::sections(tables) {
        let title = |section: &str| section.lines().next().map(str::to_owned);
        match sections.iter_mut().find(|section| title(section) == title(&made)) {
            Some(section) => *section = made,
            None => sections.push(made),
        }
    }
    std::fs::write(&path, format!("{head}{MARK}\n{}\n", sections.join("\n\n"))).expect("the file can be written");
}

/// Each begins with its title.
fn sections(tables: &str) -> Vec<String> {
    let sections = tables.trim().split("\n## ");
    let whole = sections.map(|section| format!("## {}", section.trim_start_matches("## ").trim_end()));
    whole.filter(|section| section.lines().count() > 1).collect()
}

/// At the same time, each on a thread of its own.
fn with_each_seed<T: Send>(play: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let play = &play;
    std::thread::scope(|scope| {
        let threads = SEEDS.map(|seed| scope.spawn(move || play(seed)));
        threads.into_iter().map(|thread| thread.join().expect("a trial")).collect()
    })
}

fn loss() -> String {
    let mut table = format!("## Loss\n\n{}", table::LOSS_HEAD);
    let losses = [0.01, 0.05, 0.1, 0.2].map(Loss::Uniform).into_iter().chain([bursty(0.05), bursty(0.1)]);
    for loss in losses {
        for side in [Side::Up, Side::Down] {
            for (round_trip_ms, bps) in [(20, BPS), (100, BPS), (300, BPS), (300, SLOW_BPS)] {
                let (round_trip, duration) = (Duration::from_millis(round_trip_ms), Duration::from_secs(30));
                let trial = LossTrial { loss, bps, side, round_trip, duration, seed: 0 };
                let results = with_each_seed(|seed| LossTrial { seed, ..trial }.play());
                table += &table::loss_row(&trial, &results);
            }
        }
    }
    table + "\n"
}

fn bandwidth() -> String {
    let mut table = format!("## Capacity\n\n{}", table::BANDWIDTH_HEAD);
    for trial in bandwidth::all() {
        let play = |sender| with_each_seed(|seed| trial.play(sender, seed).1);
        let senders = [
            ("Tramline", play(Sender::Tramline)),
            ("str0m", play(Sender::Str0m)),
            ("str0m, padding", play(Sender::Str0mPadding)),
        ];
        table += &table::bandwidth_rows(&trial, &senders);
    }
    table + "\n"
}

fn start() -> String {
    let mut table = format!("## Joining\n\n{}", table::START_HEAD);
    for (who, is_watched) in [("the first to watch", false), ("the second", true)] {
        table += &table::start_row(who, &with_each_seed(|seed| joins::start(seed, is_watched)));
    }
    table + "\n"
}

fn crowd() -> String {
    let mut table = format!("## Many joining\n\n{}", table::CROWD_HEAD);
    for is_fresh in [true, false] {
        let results = with_each_seed(|seed| joins::crowd(seed, CROWD, is_fresh));
        table += &table::crowd_row(CROWD, is_fresh, &results);
    }
    table + "\n"
}
