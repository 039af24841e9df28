//! The log: how loud, and in which form.

use super::source::Sources;
use super::{Config, ConfigError, parse};

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Loudness of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a hand.
    Error,
    /// And what is odd.
    Warn,
    /// And what a day of operation is made of.
    Info,
    /// And every peer.
    Debug,
    /// And every packet.
    Trace,
}

impl LogLevel {
    /// The word as `LOG_LEVEL` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// error, warn, info, debug or trace [env: LOG_LEVEL; without it VERBOSE_LOG=true or DEBUG=true mean debug] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [env: LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Config {
    pub(super) fn read_logs(&mut self, flags: &Flags, from: &mut Sources<'_>) -> Result<(), ConfigError> {
        // DEBUG belongs to many programs (`DEBUG=app:*`): only a clear yes counts.
        let verbose = ["VERBOSE_LOG", "DEBUG"]
            .iter()
            .any(|name| from.first(&None, "", &[name]).is_some_and(|text| parse::truth(&text.value) == Some(true)));
        if verbose {
            self.log_level = LogLevel::Debug;
        }
        if let Some(text) = from.first(&flags.log_level, "--log-level", &["LOG_LEVEL"]) {
            self.log_level = text.read(parse::log_level)?;
        }
        if let Some(text) = from.first(&flags.log_format, "--log-format", &["LOG_FORMAT"]) {
            self.log_format = text.read(parse::log_format)?;
        }
        Ok(())
    }
}
