//! Logging set-up: to standard error, text for people or one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// Sends all logs to standard error from now on. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter(level));
    // Fails only when a logger is set already (several servers in one test process).
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Other crates speak up only from `warn`, unless everything is asked for.
fn filter(level: LogLevel) -> EnvFilter {
    let directives = match level {
        // These tell what was said, tokens and all.
        LogLevel::Trace => "trace,tungstenite=info,tokio_tungstenite=info,reqwest=info,hyper_util=info".to_owned(),
        LogLevel::Error => "error".to_owned(),
        _ => format!("warn,tramline={}", level.as_str()),
    };
    EnvFilter::new(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_are_quiet_at_info() {
        let shown = filter(LogLevel::Info).to_string();
        assert!(shown.contains("tramline=info") && shown.contains("warn"), "{shown}");
    }
}
