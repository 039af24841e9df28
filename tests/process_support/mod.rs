//! The built program, driven from outside: its process, a WebSocket, and peers over real UDP sockets.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

pub mod cable;
pub mod clip;
pub mod peer;
pub mod server;
pub mod ws;

use std::time::{Duration, Instant};

/// Hangs become failures after this; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
