//! Gryt's calls: rooms that end when one person sits in them alone for too long. Other rooms are places and never end so.
//!
//! Owns: since when each call has had one person only. Looked at, not told: whatever changes who is in a room cannot
//! forget to say so.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::AppState;
use crate::runtime::clock;

/// Between two looks.
const SWEEP: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub struct Calls {
    alone_since: Mutex<HashMap<String, Instant>>,
}

impl Calls {
    /// Somebody says that he is still there: his time alone begins anew.
    pub fn still_here(&self, now: Instant, room: &str) {
        // Only calls that were seen have a clock, so nobody makes it grow.
        if let Some(since) = self.lock().get_mut(room) {
            *since = now;
        }
    }

    /// Those of the calls with one person in them that have had one for longer than `timeout`.
    fn overdue(&self, now: Instant, lonely: &[&str], timeout: Duration) -> Vec<String> {
        let mut alone_since = self.lock();
        alone_since.retain(|room, _| lonely.contains(&room.as_str()));
        let is_over = |room: &&&str| {
            let since = alone_since.entry((**room).to_owned()).or_insert(now);
            now.saturating_duration_since(*since) > timeout
        };
        lonely.iter().filter(is_over).map(|room| (*room).to_owned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.alone_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a room of that server is a call: `<server>_dm_` or `<server>_dm_g`, and 32 hex digits.
pub fn is_call(room: &str, server_id: &str) -> bool {
    let channel = room.strip_prefix(server_id).and_then(|rest| rest.strip_prefix("_dm_"));
    let is_hex = |text: &str| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    channel.is_some_and(|channel| is_hex(channel.strip_prefix('g').unwrap_or(channel)))
}

/// Looks after calls and rooms until the server stops.
pub async fn run(state: AppState) {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweeps.tick() => sweep(&state, clock::now()),
            () = state.stopped() => return,
        }
    }
}

/// One look.
pub fn sweep(state: &AppState, now: Instant) {
    let rooms = state.control.rooms();
    let occupied = rooms.iter().filter(|room| !room.peers.is_empty());
    state.registry.drop_unused(now, &occupied.map(|room| room.id.as_str()).collect());
    let timeout = state.config.dialects.call_alone_timeout;
    if timeout.is_zero() {
        return;
    }
    let is_lonely_call = |id: &str| state.registry.owner(id).is_some_and(|owner| is_call(id, &owner));
    let lonely = rooms.iter().filter(|room| room.peers.len() == 1 && is_lonely_call(&room.id));
    let ids: Vec<&str> = lonely.map(|room| room.id.as_str()).collect();
    for room in state.calls.overdue(now, &ids, timeout) {
        tracing::info!(room, "a call ends: one person was alone in it for too long");
        state.control.close_room(&room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_have_a_name_of_their_own() {
        let digits = "0123456789abcdef".repeat(2);
        for (room, expected) in [
            (format!("acme_dm_{digits}"), true),
            (format!("acme_dm_g{digits}"), true),
            (format!("acme_1_dm_{digits}"), false),
            (format!("acme_dm_x{digits}"), false),
            (format!("acme_dm_{}", &digits[1..]), false),
            (format!("acme_dm_{}", digits.to_uppercase()), false),
            (format!("dm_{digits}"), false),
            ("acme_dm_anything".to_owned(), false),
        ] {
            assert_eq!(is_call(&room, "acme"), expected, "{room}");
        }
    }

    #[test]
    fn a_call_ends_when_one_was_alone_for_longer_than_the_time() {
        let (calls, start) = (Calls::default(), clock::now());
        let overdue = |seconds: u32, lonely: &[&str]| calls.overdue(start + SECOND * seconds, lonely, SECOND * 120);
        assert!(overdue(0, &["a", "b"]).is_empty());
        assert!(overdue(120, &["a", "b"]).is_empty());
        assert_eq!(overdue(121, &["a", "b"]), ["a", "b"]);
        // Somebody came and went again: time begins anew.
        assert!(overdue(130, &["a"]).contains(&"a".to_owned()));
        assert!(overdue(140, &["a", "b"]).contains(&"a".to_owned()));
        assert_eq!(overdue(259, &["b"]), [""; 0]);
        assert_eq!(overdue(261, &["b"]), ["b"]);
    }

    #[test]
    fn who_says_that_he_is_there_stays() {
        let (calls, start) = (Calls::default(), clock::now());
        let overdue = |seconds: u32| !calls.overdue(start + SECOND * seconds, &["a"], SECOND * 120).is_empty();
        calls.still_here(start, "elsewhere");
        assert!(calls.lock().is_empty());
        assert!(!overdue(0));
        calls.still_here(start + SECOND * 100, "a");
        assert!(!overdue(200) && overdue(221));
    }
}
