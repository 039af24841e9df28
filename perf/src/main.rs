//! `tramline-perf`: load for WebRTC servers, and what it costs them.
//!
//! `one-to-many` drives a server with full peers; `floor` is what the machine itself costs for the same packets.
//! Tiers: stamp, tally, course, cpu, net, sdp below; peer, join, server; publisher and herd (threads); the scenarios.

mod course;
mod cpu;
mod entry;
mod floor;
mod herd;
mod join;
mod load;
mod net;
mod one_to_many;
mod peer;
mod publisher;
mod report;
mod sdp;
mod server;
mod stamp;
mod tally;
mod whip;

use anyhow::{Context, Result};
use clap::Parser;

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
    /// The same packets to the same receivers with nothing but AES-GCM and the kernel
    Floor(floor::Floor),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let (report, json) = match &cli.scenario {
        Scenario::OneToMany(scenario) => (scenario.run()?, scenario.json()),
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
