//! `tramline-perf`: load for WebRTC servers, and what it costs them.
//!
//! `one-to-many` drives a server with full peers; `floor` is what the machine itself costs for the same packets.
//! Tiers: stamp, tally, course, cpu, net, sdp below; peer, join, server; publisher and herd (threads); the scenarios.

mod course;
mod cpu;
mod crowd;
mod entry;
mod flow;
mod herd;
mod join;
mod load;
mod member;
mod net;
mod peer;
mod plan;
mod process;
mod receiver;
mod report;
mod scenarios;
mod sdp;
mod server;
mod site;
mod source;
mod stamp;
mod stream;
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
    };
    match json {
        Some("-") => println!("{}", serde_json::to_string_pretty(&report)?),
        Some(file) => {
            std::fs::write(file, serde_json::to_string_pretty(&report)?).with_context(|| format!("writing {file}"))?;
            println!("{}", report.table());
        }
        None => println!("{}", report.table()),
    }
    Ok(())
}
