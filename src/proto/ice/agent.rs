//! The state a session keeps of its peer's checks: valid paths, the one we send on, consent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{CheckRequest, LocalCredentials, Ufrag};
use crate::base::batch::Path;

/// Valid paths kept per session. A peer with six interfaces over two families has twelve; above that the one idle
/// for longest goes.
pub const PATHS_MAX: usize = 16;
/// RFC 7675 §5.1: consent lasts 30 s. We send no checks ourselves: the peer's are its consent.
pub const CONSENT_EXPIRES_AFTER: Duration = Duration::from_secs(30);
/// How long a session may wait for its first check: a person may be reading a permission prompt before answering.
pub const FIRST_CHECK_WITHIN: Duration = Duration::from_secs(60);
/// A send path this long without a sign of life yields to any other valid one. libwebrtc keeps checking its other
/// pairs, so a check alone must not move us.
pub const PATH_SILENT_AFTER: Duration = Duration::from_secs(1);

/// An address checked within this time is its session's: another session's check from there, which may be forged by a
/// peer that knows its own password, does not take it away. RFC 7675 §5.1: checks are at most 6 s apart.
pub const REMOTE_HELD_FOR: Duration = Duration::from_millis(6500);

/// What a check changed, for whoever keeps tables of addresses and ufrags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOutcome {
    /// False when it was made with credentials that are no longer ours; then nothing changed.
    pub is_accepted: bool,
    /// The path is new among the valid ones.
    pub is_new_path: bool,
    /// The path that had to make room for it.
    pub evicted: Option<Path>,
    /// [`IceLite::send_path`] is another than before.
    pub is_send_path_changed: bool,
    /// The ufrag that ended with this nomination, after a restart.
    pub retired: Option<Ufrag>,
}

/// What [`IceLite::restart`] replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// Still accepted until the new credentials nominate.
    pub previous: Ufrag,
    /// No longer accepted: a generation that was itself replaced before it nominated.
    pub retired: Option<Ufrag>,
}

/// The ICE-lite agent of one session: always lite, always controlled.
#[derive(Debug)]
pub struct IceLite {
    credentials: LocalCredentials,
    /// RFC 8445 §9: after a restart the old generation serves until the new one has a pair.
    previous: Option<LocalCredentials>,
    paths: Vec<ValidPath>,
    send_path: Option<Path>,
    is_nominated: bool,
    started_at: Instant,
    last_check_at: Option<Instant>,
}

/// A path an authentic check came over.
#[derive(Clone, Copy, Debug)]
struct ValidPath {
    path: Path,
    checked_at: Instant,
    /// The last check, DTLS or media.
    heard_at: Instant,
}

impl IceLite {
    /// An agent that waits for its first check.
    pub fn new(now: Instant, credentials: LocalCredentials) -> Self {
        Self {
            credentials,
            previous: None,
            paths: Vec::new(),
            send_path: None,
            is_nominated: false,
            started_at: now,
            last_check_at: None,
        }
    }

    /// Takes note of a check that passed [`check_request`](super::check_request), here or on another worker.
    pub fn handle_check(&mut self, now: Instant, path: Path, check: &CheckRequest) -> CheckOutcome {
        if self.credentials_for(check.ufrag).is_none() {
            return CheckOutcome::default();
        }
        self.last_check_at = Some(now);
        let before = self.send_path;
        let (is_new_path, evicted) = self.note_valid(now, path);
        let mut retired = None;
        if check.use_candidate {
            // RFC 8445 §7.3.2 and §8.1.1: the controlling side nominates, and its newest word counts.
            self.send_path = Some(path);
            self.is_nominated = true;
            if check.ufrag == self.credentials.ufrag() {
                retired = self.previous.take().map(|old| old.ufrag());
            }
        } else if !self.is_send_path_alive(now) {
            self.send_path = Some(path);
        }
        CheckOutcome {
            is_accepted: true,
            is_new_path,
            evicted,
            is_send_path_changed: self.send_path != before,
            retired,
        }
    }

    /// Whether DTLS from `path` may be listened to: only where a check came from. Before nomination it also shows
    /// which path the peer sends on, and we follow.
    pub fn handle_dtls_from(&mut self, now: Instant, path: Path) -> bool {
        let is_valid = self.handle_media_from(now, path);
        if is_valid && !self.is_nominated {
            self.send_path = Some(path);
        }
        is_valid
    }

    /// Whether SRTP or SRTCP from `path` may be listened to, and a sign of life of that path.
    #[inline]
    pub fn handle_media_from(&mut self, now: Instant, path: Path) -> bool {
        // RFC 7675 §5.1: consent is per 5-tuple; a path unchecked for that long is no longer valid.
        match self.paths.iter_mut().find(|valid| valid.path == path) {
            Some(valid) if has_consent(now, valid.checked_at) => {
                valid.heard_at = now;
                true
            }
            _ => false,
        }
    }

    /// Begins an ICE restart (RFC 8445 §9). Sending goes on as before, and both sets of credentials are accepted,
    /// until a check with the new ones nominates.
    pub fn restart(&mut self, credentials: LocalCredentials) -> Restarted {
        let replaced = std::mem::replace(&mut self.credentials, credentials);
        match &self.previous {
            Some(previous) => Restarted { previous: previous.ufrag(), retired: Some(replaced.ufrag()) },
            None => {
                let previous = replaced.ufrag();
                self.previous = Some(replaced);
                Restarted { previous, retired: None }
            }
        }
    }

    /// The credentials our description carries.
    pub fn credentials(&self) -> &LocalCredentials {
        &self.credentials
    }

    /// The ufrags that are accepted: one, or two while a restart is under way.
    pub fn ufrags(&self) -> impl Iterator<Item = Ufrag> {
        std::iter::once(&self.credentials).chain(&self.previous).map(LocalCredentials::ufrag)
    }

    /// The credentials of `ufrag`, while they are accepted.
    pub fn credentials_for(&self, ufrag: Ufrag) -> Option<&LocalCredentials> {
        std::iter::once(&self.credentials).chain(&self.previous).find(|credentials| credentials.ufrag() == ufrag)
    }

    /// Where to send: nothing before the first check.
    #[inline]
    pub fn send_path(&self) -> Option<Path> {
        self.send_path
    }

    /// Whether the peer ever nominated a path. Stays true through a restart.
    pub fn is_nominated(&self) -> bool {
        self.is_nominated
    }

    /// Whether a restart waits for its nomination.
    pub fn is_restarting(&self) -> bool {
        self.previous.is_some()
    }

    /// Whether an authentic check came from this address lately, over whichever of our addresses.
    pub fn holds_remote(&self, now: Instant, remote: SocketAddr) -> bool {
        let mut there = self.paths.iter().filter(|valid| valid.path.remote == remote);
        there.any(|valid| now.saturating_duration_since(valid.checked_at) < REMOTE_HELD_FOR)
    }

    /// Every path kept, at most [`PATHS_MAX`], also such as have lost consent.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.paths.iter().map(|valid| valid.path)
    }

    /// When the last authentic check came, over any path.
    pub fn last_check_at(&self) -> Option<Instant> {
        self.last_check_at
    }

    /// Whether consent is lost, or never came: send nothing more, close or wait for a restart.
    pub fn is_expired(&self, now: Instant) -> bool {
        now >= self.next_timeout()
    }

    /// When [`is_expired`](Self::is_expired) will be true, unless a check comes first.
    pub fn next_timeout(&self) -> Instant {
        match self.last_check_at {
            Some(checked_at) => checked_at + CONSENT_EXPIRES_AFTER,
            None => self.started_at + FIRST_CHECK_WITHIN,
        }
    }

    /// Adds or refreshes a path: whether it is new, and which one went for it.
    fn note_valid(&mut self, now: Instant, path: Path) -> (bool, Option<Path>) {
        let fresh = ValidPath { path, checked_at: now, heard_at: now };
        if let Some(valid) = self.paths.iter_mut().find(|valid| valid.path == path) {
            *valid = fresh;
            return (false, None);
        }
        if self.paths.len() < PATHS_MAX {
            self.paths.push(fresh);
            return (true, None);
        }
        let send_path = self.send_path;
        let idle = self.paths.iter_mut().filter(|valid| Some(valid.path) != send_path);
        let evicted = idle.min_by_key(|valid| valid.heard_at).map(|valid| std::mem::replace(valid, fresh).path);
        (true, evicted)
    }

    /// Whether the send path was heard lately and still has consent.
    fn is_send_path_alive(&self, now: Instant) -> bool {
        let valid = self.paths.iter().find(|valid| Some(valid.path) == self.send_path);
        valid.is_some_and(|valid| {
            now.saturating_duration_since(valid.heard_at) < PATH_SILENT_AFTER && has_consent(now, valid.checked_at)
        })
    }
}

fn has_consent(now: Instant, checked_at: Instant) -> bool {
    now.saturating_duration_since(checked_at) < CONSENT_EXPIRES_AFTER
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    fn path(port: u16) -> Path {
        Path { remote: ([203, 0, 113, 9], port).into(), local: IpAddr::from([192, 0, 2, 1]) }
    }

    fn credentials(seed: u64) -> LocalCredentials {
        LocalCredentials::generate(&mut StdRng::seed_from_u64(seed))
    }

    fn check(ufrag: Ufrag, use_candidate: bool) -> CheckRequest {
        CheckRequest { ufrag, transaction_id: [0; 12], priority: Some(1), use_candidate }
    }

    /// An agent, its start, a plain check and a nominating one.
    fn agent() -> (IceLite, Instant, CheckRequest, CheckRequest) {
        let now = clock::now();
        let ice = IceLite::new(now, credentials(1));
        let ufrag = ice.credentials().ufrag();
        (ice, now, check(ufrag, false), check(ufrag, true))
    }

    #[test]
    fn any_address_a_check_comes_from_becomes_a_valid_path() {
        let (mut ice, now, plain, _) = agent();
        assert_eq!(ice.send_path(), None);
        assert!(!ice.handle_media_from(now, path(1)) && !ice.handle_dtls_from(now, path(1)));
        let outcome = ice.handle_check(now, path(1), &plain);
        assert!(outcome.is_accepted && outcome.is_new_path && outcome.is_send_path_changed);
        assert!(ice.handle_media_from(now, path(1)) && ice.handle_dtls_from(now, path(1)));
        let again = ice.handle_check(now, path(1), &plain);
        assert_eq!(again, CheckOutcome { is_accepted: true, ..CheckOutcome::default() });
    }

    #[test]
    fn the_same_remote_over_another_local_address_is_another_path() {
        let (mut ice, now, plain, _) = agent();
        ice.handle_check(now, path(1), &plain);
        let other = Path { local: IpAddr::from([192, 0, 2, 2]), ..path(1) };
        assert!(!ice.handle_media_from(now, other));
    }

    #[test]
    fn before_nomination_we_answer_where_dtls_came_from() {
        let (mut ice, now, plain, _) = agent();
        for port in [1, 2, 3] {
            ice.handle_check(now, path(port), &plain);
        }
        assert_eq!(ice.send_path(), Some(path(1)));
        assert!(ice.handle_dtls_from(now, path(2)));
        assert_eq!((ice.send_path(), ice.is_nominated()), (Some(path(2)), false));
        ice.handle_check(now + MS, path(3), &plain);
        assert!(ice.handle_media_from(now + MS, path(3)));
        assert!(!ice.handle_dtls_from(now + MS, path(9)));
        assert_eq!(ice.send_path(), Some(path(2)));
    }

    #[test]
    fn the_newest_nomination_decides_and_dtls_no_longer_does() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(1), &plain);
        ice.handle_check(now, path(2), &nominating);
        assert_eq!((ice.send_path(), ice.is_nominated()), (Some(path(2)), true));
        assert!(ice.handle_dtls_from(now, path(1)));
        assert_eq!(ice.send_path(), Some(path(2)));
        let outcome = ice.handle_check(now + MS, path(1), &nominating);
        assert!(outcome.is_send_path_changed && !outcome.is_new_path);
        assert_eq!(ice.send_path(), Some(path(1)));
    }

    #[test]
    fn a_check_without_nomination_moves_us_only_after_a_second_of_silence() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(1), &nominating);
        ice.handle_check(now + 999 * MS, path(2), &plain);
        assert_eq!(ice.send_path(), Some(path(1)));
        assert!(ice.handle_media_from(now + 999 * MS, path(1)));
        ice.handle_check(now + 1998 * MS, path(2), &plain);
        assert_eq!(ice.send_path(), Some(path(1)), "media is a sign of life");
        assert!(ice.handle_check(now + 1999 * MS, path(2), &plain).is_send_path_changed);
        assert_eq!(ice.send_path(), Some(path(2)));
    }

    #[test]
    fn consent_ends_thirty_seconds_after_the_last_check() {
        let (mut ice, now, plain, _) = agent();
        assert_eq!(ice.next_timeout(), now + FIRST_CHECK_WITHIN);
        assert!(!ice.is_expired(now + FIRST_CHECK_WITHIN - MS) && ice.is_expired(now + FIRST_CHECK_WITHIN));
        ice.handle_check(now + MS, path(1), &plain);
        let end = now + MS + CONSENT_EXPIRES_AFTER;
        assert_eq!((ice.last_check_at(), ice.next_timeout()), (Some(now + MS), end));
        assert!(ice.handle_media_from(end - MS, path(1)));
        assert!(!ice.is_expired(end - MS) && ice.is_expired(end), "media is no consent");
        assert!(!ice.handle_media_from(end, path(1)));
        ice.handle_check(end, path(1), &plain);
        assert!(!ice.is_expired(end) && ice.handle_media_from(end, path(1)));
    }

    #[test]
    fn a_path_that_lost_consent_yields_even_while_media_comes_over_it() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(1), &nominating);
        let late = now + CONSENT_EXPIRES_AFTER;
        assert!(ice.handle_media_from(late - MS, path(1)));
        ice.handle_check(late, path(2), &plain);
        assert_eq!(ice.send_path(), Some(path(2)));
    }

    #[test]
    fn a_restart_keeps_the_old_path_until_the_new_generation_nominates() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(1), &nominating);
        let (old, new) = (plain.ufrag, credentials(2));
        let fresh = new.ufrag();
        assert_eq!(ice.restart(new), Restarted { previous: old, retired: None });
        assert_eq!(ice.credentials().ufrag(), fresh);
        assert!(ice.is_restarting() && ice.is_nominated());
        assert!(ice.handle_check(now, path(1), &nominating).is_accepted, "the old credentials still count");
        assert!(ice.handle_check(now, path(2), &check(fresh, false)).is_accepted);
        assert_eq!(ice.send_path(), Some(path(1)));
        let outcome = ice.handle_check(now, path(2), &check(fresh, true));
        assert_eq!((outcome.retired, ice.send_path()), (Some(old), Some(path(2))));
        assert!(!ice.is_restarting() && ice.credentials_for(old).is_none());
        assert_eq!(ice.handle_check(now, path(1), &nominating), CheckOutcome::default());
        assert_eq!(ice.send_path(), Some(path(2)));
    }

    #[test]
    fn a_second_restart_retires_the_generation_between() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(1), &nominating);
        let between = credentials(2);
        let gone = between.ufrag();
        ice.restart(between);
        let restarted = ice.restart(credentials(3));
        assert_eq!(restarted, Restarted { previous: plain.ufrag, retired: Some(gone) });
        assert!(ice.credentials_for(gone).is_none() && ice.credentials_for(plain.ufrag).is_some());
    }

    #[test]
    fn paths_are_bounded_and_the_one_idle_for_longest_goes_first() {
        let (mut ice, now, plain, nominating) = agent();
        ice.handle_check(now, path(0), &nominating);
        for port in 1..PATHS_MAX as u16 {
            assert_eq!(ice.handle_check(now + u32::from(port) * MS, path(port), &plain).evicted, None);
        }
        let later = now + 100 * MS;
        assert!(ice.handle_media_from(later, path(1)));
        let outcome = ice.handle_check(later, path(100), &plain);
        assert_eq!(outcome.evicted, Some(path(2)), "0 is sent on, 1 was heard");
        for port in 101..1000 {
            ice.handle_check(later, path(port), &plain);
        }
        assert_eq!(ice.paths().count(), PATHS_MAX);
        assert_eq!(ice.send_path(), Some(path(0)));
        assert!(ice.handle_media_from(later, path(0)));
    }
}
