//! `tramline-perf`: load for WebRTC servers, and what it costs them.
//!
//! The scenarios drive a server with full peers; `floor` is what the machine itself costs for the same packets.
//! The tiers, each importing only those before it:
//!
//! | | |
//! |---|---|
//! | nouns | `stamp` (what a packet carries), `course` (the run and its window), `flow` (shapes of traffic), `suite` |
//! | the system | `net` (sockets), `cpu`, `process`, `server` (a Tramline of our own) |
//! | counting | `stream` (one source at one receiver), `tally`, `report` |
//! | protocols | `sdp`, `peer` (ICE, DTLS, SRTP), `source` and `sent` (what is sent), `receiver` (what is heard, and feedback) |
//! | doors | `whip`, `join` (all of them), `entry` (socket, offer, answer), `plan` (who connects for what) |
//! | threads | `shared`, `member` (one peer), `herd` (many in one thread), `load` (rounds), `site` (all of a run), `crowd` |
//! | scenarios | one file each |
//! | for people | `saved`, `machine`, `progress`, `plot`, `chart` (with `svg`, `axis`) |

mod axis;
mod chart;
mod course;
mod cpu;
mod crowd;
mod entry;
mod flow;
mod herd;
mod join;
mod load;
mod machine;
mod member;
mod net;
mod peer;
mod plan;
mod plot;
mod process;
mod progress;
mod receiver;
mod report;
mod saved;
mod scenarios;
mod sdp;
mod sent;
mod server;
mod shared;
mod site;
mod source;
mod stamp;
mod stream;
mod suite;
mod svg;
mod tally;
mod whip;

use anyhow::{Context, Result};
use clap::Parser;

use scenarios::{audio_room, blast, churn, floor, idle, meeting, one_to_many, rooms, saturate};

/// Load for WebRTC servers: full peers that decrypt and verify every packet
#[derive(Parser)]
#[command(name = "tramline-perf", version)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
    /// Draw the rounds into this file
    #[arg(long, global = true, value_name = "FILE")]
    svg: Option<String>,
}

#[derive(clap::Subcommand)]
enum Scenario {
    /// One publisher, many subscribers, one room
    OneToMany(one_to_many::OneToMany),
    /// N people who all see and hear each other
    Meeting(meeting::Meeting),
    /// A few who speak, many who listen
    AudioRoom(audio_room::AudioRoom),
    /// Many small rooms: latency, also while others join
    Rooms(rooms::Rooms),
    /// Joins and leaves: how fast, and what is left of them
    Churn(churn::Churn),
    /// Connected subscribers: memory, before media and after
    Idle(idle::Idle),
    /// The rate at which packets begin to be lost, and what happens beyond
    Saturate(saturate::Saturate),
    /// Packets protected beforehand, as fast as asked
    Blast(blast::Blast),
    /// The same packets to the same receivers with nothing but AES-GCM and the kernel
    Floor(floor::Floor),
    /// Reports side by side
    Chart(chart::Chart),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    process::raise_descriptor_limit();
    let (report, json) = match &cli.scenario {
        Scenario::OneToMany(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Meeting(scenario) => (scenario.run()?, scenario.json()),
        Scenario::AudioRoom(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Rooms(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Churn(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Idle(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Saturate(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Blast(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Floor(scenario) => (scenario.run()?, scenario.json()),
        Scenario::Chart(chart) => {
            println!("{}", chart.run()?);
            return Ok(());
        }
    };
    if let Some(file) = &cli.svg {
        let picture = plot::picture(&saved::Run::of(&report)?);
        std::fs::write(file, picture).with_context(|| format!("writing {file}"))?;
    }
    match json {
        Some("-") => println!("{}", saved::json(&report)?),
        Some(file) => {
            std::fs::write(file, saved::json(&report)?).with_context(|| format!("writing {file}"))?;
            println!("{}", report.table());
        }
        None => println!("{}", report.table()),
    }
    Ok(())
}
