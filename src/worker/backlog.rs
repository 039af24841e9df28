//! Whether a worker keeps up with what comes.
//!
//! Owns: since when what it reads is late. Promises: a pause that is made up for soon leaves nothing out; a worker that
//! stays behind is told what to leave out: video first, audio where nobody would play it any more.

use std::time::{Duration, Instant};

use crate::base::format::MediaKind;

/// What waited longer for its turn is late: several turns as long as a turn may be.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// A worker that was late for so long in one go is not catching up. What was only a pause of the machine is read in a
/// fraction of that, and receivers have buffers for it.
const LATE_MAX: Duration = Duration::from_millis(250);
/// Audio is a small part of the work, so it is kept as long as a conversation bears it (ITU-T G.114: 400 ms one way).
const AUDIO_WAIT_MAX: Duration = Duration::from_millis(400);

/// See the module.
#[derive(Debug, Default)]
pub struct Backlog {
    late_since: Option<Instant>,
}

impl Backlog {
    /// A datagram from a socket, in the order of arrival, that `waited` so long.
    pub fn handle_datagram(&mut self, now: Instant, waited: Duration) {
        if waited <= WAIT_MAX {
            self.late_since = None;
        } else {
            self.late_since.get_or_insert(now);
        }
    }

    /// The worker has more to do than it can: nothing is sent that need not be.
    pub fn is_behind(&self, now: Instant) -> bool {
        self.late_since.is_some_and(|since| now.saturating_duration_since(since) >= LATE_MAX)
    }

    /// Whether media that `waited` so long is to be left out.
    pub fn is_too_late(&self, now: Instant, waited: Duration, kind: MediaKind) -> bool {
        let is_behind = self.is_behind(now);
        let wait_max = if kind == MediaKind::Audio { AUDIO_WAIT_MAX } else { WAIT_MAX };
        is_behind && waited > wait_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const LATE: Duration = Duration::from_millis(60);

    #[test]
    fn a_pause_leaves_nothing_out() {
        let (mut backlog, now) = (Backlog::default(), clock::now());
        for ms in 0..200 {
            backlog.handle_datagram(now + Duration::from_millis(ms), Duration::from_millis(400 - ms));
            assert!(!backlog.is_too_late(now + Duration::from_millis(ms), LATE, MediaKind::Video));
        }
    }

    #[test]
    fn who_stays_behind_leaves_out_video_and_later_audio_until_it_has_caught_up() {
        let (mut backlog, now) = (Backlog::default(), clock::now());
        backlog.handle_datagram(now, LATE);
        let now = now + LATE_MAX;
        backlog.handle_datagram(now, LATE);
        assert!(backlog.is_too_late(now, LATE, MediaKind::Video));
        assert!(!backlog.is_too_late(now, LATE, MediaKind::Audio));
        assert!(backlog.is_too_late(now, AUDIO_WAIT_MAX + LATE, MediaKind::Audio));
        backlog.handle_datagram(now, Duration::ZERO);
        assert!(!backlog.is_too_late(now, LATE, MediaKind::Video), "it starts anew");
    }
}
