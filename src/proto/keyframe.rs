//! When a publisher is asked for a keyframe.
//!
//! Owns: the wish for one encoding, the time of the last request, the measured price of a keyframe. Many subscribers may
//! want one; one request serves all. Promises: the first request after silence is at once; answered requests are at least
//! [`INTERVAL_MIN`] apart, and farther where keyframes are dear, so that they cost at most [`SHARE_MAX`] of the encoding,
//! but never more than [`INTERVAL_MAX`], as somebody waits. What is not answered is repeated, [`REPEATS_MAX`] times and
//! then only when somebody wants it still.

use std::time::{Duration, Instant};

/// Least time between two requests that were answered: an encoder that is asked more often only lowers its quality.
pub const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// The longest that somebody waits for a request because others were served just before.
pub const INTERVAL_MAX: Duration = Duration::from_secs(3);
/// The share of an encoding's bits that asked keyframes may take, as one part of so many: an eighth.
pub const SHARE_MAX: u64 = 8;
/// An unanswered request is repeated so often without anybody asking again.
pub const REPEATS_MAX: u8 = 4;

/// Until a keyframe's first packet is here, beyond the round trip: an encoder begins with the next picture and our request
/// may have waited for its turn, so two pictures at 30 per second.
const ANSWER_TIME: Duration = Duration::from_millis(67);
/// An answer is not missed earlier than this: encoders and pacers have their own delays.
const REPEAT_MIN: Duration = Duration::from_millis(150);
/// The longest time between two repetitions.
const REPEAT_MAX: Duration = Duration::from_secs(1);
/// Round trip to the publisher until it is measured.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct KeyframeRequester {
    is_wanted: bool,
    /// When the last answered request, or the first of those not answered yet, was sent.
    asked_at: Option<Instant>,
    open: Option<Open>,
    interval: Duration,
    rtt: Duration,
}

/// A request without answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    last_at: Instant,
    repeats: u8,
}

impl Default for KeyframeRequester {
    fn default() -> Self {
        Self { is_wanted: false, asked_at: None, open: None, interval: INTERVAL_MIN, rtt: RTT_UNKNOWN }
    }
}

impl KeyframeRequester {
    /// A subscriber cannot go on without a keyframe.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// The publisher sent one. Who joined meanwhile wants again.
    pub fn handle_keyframe(&mut self) {
        self.is_wanted = false;
        self.open = None;
    }

    /// What the last keyframe cost and what the whole encoding takes, as measured.
    pub fn set_price(&mut self, keyframe_bytes: u32, encoding_bps: u64) {
        let allowed_bps = (encoding_bps / SHARE_MAX).max(1);
        let interval = Duration::from_millis(u64::from(keyframe_bytes) * 8 * 1000 / allowed_bps);
        self.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
    }

    /// The round trip to the publisher, as measured.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Whether to send a request now; `true` counts as sent.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.next_timeout(now).is_none_or(|due| now < due) {
            return false;
        }
        self.is_wanted = false;
        self.open = Some(match self.open {
            Some(open) => Open { last_at: now, repeats: open.repeats.saturating_add(1) },
            None => {
                self.asked_at = Some(now);
                Open { last_at: now, repeats: 0 }
            }
        });
        true
    }

    /// When `poll` may say yes, if a wish or an unanswered request waits.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        match self.open {
            // Who wants one while it is asked for, wants the same one.
            Some(open) if open.repeats < REPEATS_MAX || self.is_wanted => {
                Some(open.last_at + self.patience(open.repeats))
            }
            Some(_) => None,
            None => self.is_wanted.then(|| self.asked_at.map_or(now, |at| at + self.interval)),
        }
    }

    /// How long an answer may take, longer each time: the way may be congested.
    fn patience(&self, repeats: u8) -> Duration {
        let first = (self.rtt + self.rtt / 4 + ANSWER_TIME).max(REPEAT_MIN);
        (first * (1 << repeats.min(REPEATS_MAX))).min(REPEAT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    /// Somebody wants one each millisecond, and each request is answered after `answer`. How often it was asked for.
    fn storm(requester: &mut KeyframeRequester, length: Duration, answer: Option<Duration>) -> u32 {
        let start = clock::now();
        let (mut asked, mut answer_at) = (0, None);
        for at in (0..length.as_millis() as u32).map(|ms| start + MS * ms) {
            requester.want();
            if answer_at.take_if(|due| at >= *due).is_some() {
                requester.handle_keyframe();
            }
            if requester.poll(at) {
                asked += 1;
                answer_at = answer.map(|answer| at + answer);
            }
        }
        asked
    }

    #[test]
    fn many_wishes_within_the_interval_make_one_request() {
        assert_eq!(storm(&mut KeyframeRequester::default(), MS * 1000, Some(MS * 50)), 2);
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

    #[test]
    fn dear_keyframes_are_asked_for_less_often() {
        let asked = |bytes, bps, length| {
            let mut requester = KeyframeRequester::default();
            requester.set_price(bytes, bps);
            storm(&mut requester, length, Some(MS * 50))
        };
        assert_eq!(asked(20_000, 800_000, MS * 16_000), 10, "20 kB of 800 kbit/s: at an eighth, one in 1.6 s");
        assert_eq!(asked(1_000_000, 800_000, MS * 30_000), 10, "nobody waits for ever");
        let mut requester = KeyframeRequester::default();
        requester.set_price(u32::MAX, 0);
        assert_eq!(requester.interval, INTERVAL_MAX);
        requester.set_price(1, u64::MAX);
        assert_eq!(requester.interval, INTERVAL_MIN);
    }

    #[test]
    fn the_first_wish_after_silence_is_asked_at_once() {
        let now = clock::now();
        let mut requester = KeyframeRequester::default();
        requester.set_price(1_000_000, 100_000);
        for at in [now, now + MS * 3_000] {
            requester.want();
            assert!(requester.poll(at));
            requester.handle_keyframe();
        }
        requester.want();
        assert!(!requester.poll(now + MS * 5_999));
        assert_eq!(requester.next_timeout(now), Some(now + MS * 6_000));
        assert!(requester.poll(now + MS * 6_000));
    }

    #[test]
    fn what_is_not_answered_is_repeated_and_then_given_up() {
        let start = clock::now();
        let mut requester = KeyframeRequester::default();
        requester.set_rtt(MS * 100);
        requester.want();
        let mut asked = Vec::new();
        for ms in 0..20_000 {
            if requester.poll(start + MS * ms) {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [0, 192, 576, 1344, 2344]);
        assert_eq!(requester.next_timeout(start), None);
        requester.want();
        assert!(requester.poll(start + MS * 20_000), "somebody wants it still");
        assert!(!requester.poll(start + MS * 20_100));
        assert!(!requester.poll(start + MS * 40_000), "but nobody since");
    }

    #[test]
    fn a_repetition_does_not_put_off_the_next_keyframe() {
        let start = clock::now();
        let mut requester = KeyframeRequester::default();
        requester.want();
        assert!(requester.poll(start));
        assert!(requester.poll(start + MS * 300), "the first was lost");
        requester.handle_keyframe();
        requester.want();
        assert!(requester.poll(start + INTERVAL_MIN));
    }

    #[test]
    fn a_publisher_who_never_answers_is_not_stormed() {
        let mut requester = KeyframeRequester::default();
        let asked = storm(&mut requester, MS * 60_000, None);
        assert!((60..=64).contains(&asked), "{asked}");
    }
}
