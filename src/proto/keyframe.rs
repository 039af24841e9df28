//! When a publisher is asked for a keyframe.
//!
//! Owns: one track's wish and the time of the last request. Many subscribers may want one; one request serves all.
//! Promises: at most one request per [`INTERVAL_MIN`]; a wish lasts until a keyframe came or nobody repeats it.

use std::time::{Duration, Instant};

/// Least time between two requests for a track: an encoder that is asked more often only lowers its quality.
pub const INTERVAL_MIN: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub struct KeyframeRequester {
    is_wanted: bool,
    asked_at: Option<Instant>,
}

impl KeyframeRequester {
    /// A subscriber cannot go on without a keyframe.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// The publisher sent one. Who joined meanwhile wants again.
    pub fn handle_keyframe(&mut self) {
        self.is_wanted = false;
    }

    /// Whether to send a request now; `true` counts as sent.
    pub fn poll(&mut self, now: Instant) -> bool {
        let is_due = self.is_wanted && self.asked_at.is_none_or(|at| now >= at + INTERVAL_MIN);
        if is_due {
            self.asked_at = Some(now);
            self.is_wanted = false;
        }
        is_due
    }

    /// When `poll` may say yes, if a wish waits.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.is_wanted.then(|| self.asked_at.map_or(now, |at| at + INTERVAL_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn many_wishes_within_the_interval_make_one_request() {
        let now = clock::now();
        let mut requester = KeyframeRequester::default();
        let mut asked = 0;
        for ms in 0..1000 {
            requester.want();
            asked += u32::from(requester.poll(now + Duration::from_millis(ms)));
        }
        assert_eq!(asked, 2);
    }

    #[test]
    fn a_keyframe_satisfies_the_wish() {
        let now = clock::now();
        let mut requester = KeyframeRequester::default();
        requester.want();
        requester.handle_keyframe();
        assert!(!requester.poll(now));
        assert_eq!(requester.next_timeout(now), None);
    }
}
