//! `tramline-perf`: load for WebRTC servers, and what it costs them.
//!
//! `one-to-many` drives a server with full peers; `floor` is what the machine itself costs for the same packets.
//! Tiers: stamp, tally, course, cpu, net, sdp below; peer, join, server; publisher and herd (threads); the scenarios.

mod axis;
mod chart;
mod course;
mod cpu;
mod floor;
mod herd;
mod join;
mod load;
mod machine;
mod net;
mod one_to_many;
mod peer;
mod plot;
mod progress;
mod publisher;
mod report;
mod saved;
mod sdp;
mod server;
mod stamp;
mod svg;
mod tally;

use anyhow::{Context, Result};
use clap::Parser;

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
    /// The same packets to the same receivers with nothing but AES-GCM and the kernel
    Floor(floor::Floor),
    /// Reports side by side
    Chart(chart::Chart),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let (report, json) = match &cli.scenario {
        Scenario::OneToMany(scenario) => (scenario.run()?, scenario.json()),
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
