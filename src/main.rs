//! Starts Tramline.

use std::process::ExitCode;

use tramline::config::Config;
use tramline::{server, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Config::load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    telemetry::logs::init(config.log_level, config.log_format);
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
