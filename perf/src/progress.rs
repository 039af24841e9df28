//! How far a run is, as a bar on standard error; silent where that is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tramline::runtime::clock;

/// A run whose length is known. Cleared from the screen when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    /// Begins now.
    pub fn of(length: Duration) -> Self {
        Self::on(ProgressDrawTarget::stderr(), length)
    }

    fn on(target: ProgressDrawTarget, length: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(Some(millis(length)), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {eta:>4} left") {
            bar.set_style(style);
        }
        Self { bar, began: clock::now() }
    }

    /// What is going on from here.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
        self.show();
    }

    /// Moves the bar to where the clock is.
    pub fn show(&self) {
        let passed = clock::now().saturating_duration_since(self.began);
        let length = Duration::from_millis(self.bar.length().unwrap_or(0));
        self.bar.set_position(millis(passed.min(length)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_follows_the_clock_and_stops_at_its_end() {
        let mut progress = Progress::on(ProgressDrawTarget::hidden(), Duration::from_secs(10));
        progress.say("round 1 of 3");
        assert_eq!(progress.bar.message(), "round 1 of 3");
        progress.began -= Duration::from_secs(4);
        progress.show();
        assert!((4000..5000).contains(&progress.bar.position()) || progress.bar.position() == 10_000);
        progress.began -= Duration::from_secs(60);
        progress.show();
        assert_eq!(progress.bar.position(), 10_000);
    }
}
