//! What a worker has planned to forward and not done yet: jobs, taken up slice by slice, in turn.
//!
//! A job is what was planned at one time, subscriber by subscriber, and how far it is done. A keyframe into a large room
//! makes a long one; who has less to send, a packet of another room or sound of the same one, is planned meanwhile and
//! overtakes the rest of it. Owns: the jobs and the memory they leave behind, which is used again. Promises: each job
//! gets its turn. Forbids: sessions, packets, clocks.

use std::collections::VecDeque;

use crate::base::format::MediaKind;
use crate::base::ids::{SessionKey, TrackKey};
use crate::forward::table::Subscriber;

/// Datagrams sent in one go: half a millisecond of work or a little more, as much as a turn may spend on reading. Fewer
/// would make shorter trains, as more is planned apart; more would be felt by those who wait for a slice or two.
pub const SLICE_SENDS: usize = 512;
/// A track that makes so many sends at once has a job to itself, so that what is planned with it need not wait for all of
/// it. What is less is worth more in one train with the subscriber's other packets.
const OWN_JOB_SENDS_MIN: usize = 4 * SLICE_SENDS;
/// Unfinished jobs beyond which nothing is planned: more than there are slices in all that a worker takes up, so that
/// only jobs shorter than a slice come up against it, and those are soon done.
const JOBS_MAX: usize = 32;

/// Who gets the packets of a track that are planned together.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// In order.
    pub subscribers: &'a [Subscriber],
    /// Somebody may be among them who did not get what came before: so many of the packets are there for him.
    pub preroll: Option<u8>,
}

/// A subscription that has packets to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    /// Whose it is.
    pub session: SessionKey,
    /// Sound is looked at first: whether it may leave last depends on what else is due.
    kind: MediaKind,
    /// Where the packets go out.
    pub mline: u16,
    /// What they are of.
    pub track: TrackKey,
    /// See [`Audience::preroll`].
    pub preroll: Option<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Job {
    tracks: Vec<TrackKey>,
    work: Vec<Work>,
    /// Subscriptions taken up whole.
    done: usize,
    /// Packets taken up of the next.
    taken: usize,
    /// Datagrams not taken up yet, about: a track may have ended.
    left: usize,
}

impl Job {
    /// Adds `packets` packets of a track.
    fn add(&mut self, (track, kind): (TrackKey, MediaKind), packets: usize, audience: Audience<'_>) {
        let Audience { subscribers, preroll } = audience;
        let work = |subscriber: &Subscriber| Work {
            session: subscriber.session,
            kind,
            mline: subscriber.mline,
            track,
            preroll,
        };
        self.tracks.push(track);
        self.work.extend(subscribers.iter().map(work));
        self.left += packets * subscribers.len();
    }

    /// Who comes next; `None`: it is done.
    pub fn subscriber(&self) -> Option<SessionKey> {
        self.work.get(self.done).map(|work| work.session)
    }

    /// What comes next of a subscriber's, and how many of its packets are taken up already.
    pub fn work_of(&self, session: SessionKey) -> Option<(Work, usize)> {
        self.work.get(self.done).filter(|work| work.session == session).map(|work| (*work, self.taken))
    }

    /// What comes next, if it is all that its subscriber gets, from its beginning.
    pub fn only_work(&self) -> Option<Work> {
        let (work, rest) = self.work.get(self.done..)?.split_first()?;
        let is_alone = rest.first().is_none_or(|next| next.session != work.session);
        (is_alone && self.taken == 0).then_some(*work)
    }

    /// Takes up packets of what comes next.
    pub fn take(&mut self, packets: usize) {
        self.taken += packets;
        self.left = self.left.saturating_sub(packets);
    }

    /// What comes next is taken up whole.
    pub fn pass(&mut self) {
        (self.done, self.taken) = (self.done + 1, 0);
    }

    /// Datagrams not taken up yet, about.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The tracks whose packets it takes along.
    pub fn tracks(&self) -> &[TrackKey] {
        &self.tracks
    }

    fn clear(&mut self) {
        self.tracks.clear();
        self.work.clear();
        (self.done, self.taken, self.left) = (0, 0, 0);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Jobs {
    queue: VecDeque<Job>,
    /// Place of the first that is being planned; it has the tracks that make few sends.
    planned_from: usize,
    /// Done; what counts is their memory.
    spare: Vec<Job>,
}

impl Jobs {
    /// Begins a plan: what is added from now on comes after all that waits.
    pub fn begin(&mut self) {
        self.planned_from = self.queue.len();
        self.queue.push_back(self.spare.pop().unwrap_or_default());
    }

    /// Plans `packets` packets of a track.
    pub fn add(&mut self, track: (TrackKey, MediaKind), packets: usize, audience: Audience<'_>) {
        if packets * audience.subscribers.len() < OWN_JOB_SENDS_MIN {
            self.queue[self.planned_from].add(track, packets, audience);
        } else {
            let mut job = self.spare.pop().unwrap_or_default();
            job.add(track, packets, audience);
            self.queue.push_back(job);
        }
    }

    /// Ends a plan.
    pub fn end(&mut self) {
        self.queue.range_mut(self.planned_from..).for_each(|job| job.work.sort_unstable());
        if self.queue[self.planned_from].work.is_empty() {
            self.spare.extend(self.queue.remove(self.planned_from));
        }
    }

    /// The job whose turn it is; it goes back by [`put_back`](Self::put_back) or [`finish`](Self::finish).
    pub fn pop(&mut self) -> Option<Job> {
        self.queue.pop_front()
    }

    /// A job that is not done. After a whole slice the others have their turn.
    pub fn put_back(&mut self, job: Job, had_slice: bool) {
        if had_slice { self.queue.push_back(job) } else { self.queue.push_front(job) }
    }

    /// A job that is done.
    pub fn finish(&mut self, mut job: Job) {
        job.clear();
        self.spare.push(job);
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether more may be planned.
    pub fn has_room(&self) -> bool {
        self.queue.len() < JOBS_MAX
    }

    /// Datagrams not taken up yet, about.
    pub fn left(&self) -> usize {
        self.queue.iter().map(|job| job.left).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(jobs: &mut Jobs, tracks: &[(u32, usize)]) {
        let subscriber = Subscriber { session: SessionKey { index: 0, epoch: 0 }, mline: 0 };
        jobs.begin();
        for (index, packets) in tracks {
            let audience = Audience { subscribers: &[subscriber], preroll: None };
            jobs.add((TrackKey { index: *index, epoch: 0 }, MediaKind::Video), *packets, audience);
        }
        jobs.end();
    }

    fn pop(jobs: &mut Jobs) -> (Job, Vec<u32>) {
        let job = jobs.pop().expect("a job");
        let tracks = job.tracks().iter().map(|track| track.index).collect();
        (job, tracks)
    }

    #[test]
    fn small_tracks_go_together_and_large_ones_behind_them_on_their_own() {
        let mut jobs = Jobs::default();
        plan(&mut jobs, &[(0, OWN_JOB_SENDS_MIN), (1, 1), (2, OWN_JOB_SENDS_MIN), (3, OWN_JOB_SENDS_MIN - 1)]);
        assert_eq!(jobs.left(), 3 * OWN_JOB_SENDS_MIN);
        assert_eq!([(); 3].map(|()| pop(&mut jobs).1), [vec![1, 3], vec![0], vec![2]]);
        plan(&mut jobs, &[]);
        assert!(jobs.is_empty());
    }

    #[test]
    fn what_is_all_that_a_subscriber_gets_is_known() {
        let mut jobs = Jobs::default();
        let subscribers = [0, 1].map(|index| Subscriber { session: SessionKey { index, epoch: 0 }, mline: 0 });
        jobs.begin();
        for (index, subscribers) in [&subscribers[..], &subscribers[1..]].into_iter().enumerate() {
            let track = (TrackKey { index: index as u32, epoch: 0 }, MediaKind::Video);
            jobs.add(track, 2, Audience { subscribers, preroll: None });
        }
        jobs.end();
        let mut job = jobs.pop().expect("a job");
        let is_only = |job: &Job| job.only_work().is_some();
        assert!(is_only(&job));
        job.take(1);
        assert!(!is_only(&job), "half of it is left");
        job.pass();
        assert!(!is_only(&job), "there is more for him");
        job.pass();
        assert!(is_only(&job));
        job.pass();
        assert!(!is_only(&job) && job.subscriber().is_none());
    }

    #[test]
    fn after_its_slice_a_job_lets_the_others_go_first() {
        let mut jobs = Jobs::default();
        (0..2).for_each(|index| plan(&mut jobs, &[(index, 9)]));
        let (job, tracks) = pop(&mut jobs);
        jobs.put_back(job, false);
        assert_eq!(pop(&mut jobs).1, tracks, "its slice goes on");
        plan(&mut jobs, &[(2, 9)]);
        let (job, _) = pop(&mut jobs);
        jobs.put_back(job, true);
        assert_eq!([(); 2].map(|()| pop(&mut jobs).1), [[2], [1]]);
    }
}
