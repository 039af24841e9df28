//! One subscriber's bandwidth, divided over all the video it gets.
//!
//! Owns: the present target of each subscription, and what was learnt about this link. Promises:
//! - *Never black*: each visible video gets its lowest layer, whatever the estimate says.
//! - *Fair*: upgrades go by priority, then to whoever is farthest from its wish. Who holds much gives some of it up when
//!   somebody who wishes the same has much less.
//! - *Calm*: down at once when the budget does not carry it; up when it has carried it with [`MARGIN`] to spare for a
//!   while, and more and more seldom after attempts that failed. What people ask for is answered at once.
//! - No allocation once the subscriptions are known; `n log n` in the layers.
//!
//! Forbids: packets, sessions; where estimates come from.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

pub use super::ladder::Want;
use super::ladder::{Builder, Limit, Step};
use super::rates::Offer;
use super::why::Why;
use crate::base::frame::Layer;

/// What must be left over after a step up, in percent of the cost: rates and estimates err by about so much.
pub const MARGIN_PERCENT: u64 = 15;
/// The same where all that is wanted fits: nobody goes looking for more than that, so there may be no more to find.
pub const MARGIN_BEST_PERCENT: u64 = 5;
/// What may be too much for [`OVERSHOOT_TIME`], in percent: the pacer and the queues on the way carry it so long.
pub const OVERSHOOT_PERCENT: u64 = 10;
/// See above.
pub const OVERSHOOT_TIME: Duration = Duration::from_secs(1);

/// What a step down leaves free, in percent, so that the next lower estimate does not need another.
const HEADROOM_PERCENT: u64 = 5;
/// The same when one step down follows the other: the estimate is on its way down and where it ends is not known.
const HEADROOM_FALLING_PERCENT: u64 = 30;
/// Steps down within this time follow each other.
const FALLING: Duration = Duration::from_secs(1);

/// The estimate that counts for steps up is the least of one to two of these.
const CALM: Duration = Duration::from_millis(500);
/// As long as nothing went wrong, a new session believes each estimate: it begins low, and the first probes tell the truth.
const EAGER: Duration = Duration::from_secs(5);

/// No step up for so long after a step down...
const HOLD_MIN: Duration = Duration::from_secs(1);
/// ... doubled whenever one had to be taken back, up to this: who competes for a line may have gone at any time.
const HOLD_MAX: Duration = Duration::from_secs(8);
/// A step up that is taken back within this time has failed; one that lasts twice as long makes up for all failures.
const TRIAL: Duration = Duration::from_secs(5);
/// Failures count for nothing when the estimate is so many percent of what failed: the link is another one.
const OTHER_LINK_PERCENT: u64 = 150;

/// Between two steps up of one subscription.
const UP_INTERVAL: Duration = Duration::from_secs(1);
/// The same when the gain is small, not yet the best, and the next greater one may come soon.
const UP_INTERVAL_SMALL: Duration = Duration::from_secs(5);
/// While the estimate rises notably, a step up waits so long to see how far.
const RISE_MAX: Duration = Duration::from_secs(3);
/// What is notable from one [`CALM`] to the next, in percent of the former.
const RISE_PERCENT: u64 = 110;
/// A gain in quality (in doublings of the picture's size) from which on it is worth a change.
const GAIN: f32 = 1.0;

/// What one subscription gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allocation {
    /// The subscription.
    pub id: u16,
    /// Its layer; `None`: nothing of it.
    pub target: Option<Layer>,
    /// What that costs.
    pub bps: u64,
    /// The best layer it wants of those that are sent.
    pub wanted: Option<Layer>,
    /// What that would cost.
    pub wanted_bps: u64,
    /// Why it gets no more.
    pub why: Why,
}

/// See the module. One round: [`begin`](Self::begin), [`add`](Self::add) for each subscription,
/// [`allocate`](Self::allocate).
#[derive(Debug, Default)]
pub struct Allocator {
    members: Vec<Member>,
    /// Where the next subscription of this round is looked for first.
    cursor: usize,
    builder: Builder,
    steps: Vec<Step>,
    queue: BinaryHeap<Claim>,
    allocations: Vec<Allocation>,
    link: Link,
}

/// One subscription.
#[derive(Debug)]
struct Member {
    want: Want,
    is_listed: bool,
    /// It is new or wishes something else: the change is what people wait for.
    is_fresh: bool,
    /// Its ladder in `steps`.
    from: usize,
    len: usize,
    limit: Limit,
    target: Option<Layer>,
    bps: u64,
    changed_at: Option<Instant>,
    /// Place on the ladder: kept from before, and during the computation.
    kept: usize,
    level: usize,
    /// Bounds of the computation.
    ceiling: usize,
    /// Where it would stand if all was divided anew.
    ideal: usize,
}

/// What is known of the subscriber's link.
#[derive(Debug, Default)]
struct Link {
    began_at: Option<Instant>,
    /// The least estimates of this [`CALM`] and the one before.
    lows: [Option<u64>; 2],
    low_since: Option<Instant>,
    rising_since: Option<Instant>,
    over_since: Option<Instant>,
    lowered_at: Option<Instant>,
    raised_at: Option<Instant>,
    hold: Duration,
    /// What was too much, with the failures that `hold` tells of.
    failed_bps: u64,
}

/// A member that could go one step up; the greatest goes first.
#[derive(Clone, Copy, Debug)]
struct Claim {
    priority: u8,
    /// How far it is from its best.
    missing: f32,
    member: usize,
}

impl Allocator {
    /// A round begins: what is not added is no subscription any more.
    pub fn begin(&mut self) {
        self.steps.clear();
        self.cursor = 0;
        for member in &mut self.members {
            member.is_listed = false;
        }
    }

    /// A subscription, with what is sent of its track now: offers of one encoding and spatial layer together, lower
    /// temporal layers first. Cheapest when the order is the same each round.
    pub fn add(&mut self, want: &Want, offers: impl Iterator<Item = Offer>) {
        let is_next = self.members.get(self.cursor).is_some_and(|member| member.want.id == want.id);
        let found =
            if is_next { Some(self.cursor) } else { self.members.iter().position(|member| member.want.id == want.id) };
        let place = found.unwrap_or_else(|| {
            self.members.push(Member::new(*want));
            self.members.len() - 1
        });
        self.cursor = place + 1;
        let member = &mut self.members[place];
        member.is_fresh |= member.want != *want;
        member.want = *want;
        member.is_listed = true;
        member.from = self.steps.len();
        member.limit = match want.is_visible {
            true => self.builder.build(want, offers, member.target, &mut self.steps),
            false => Limit::Request,
        };
        member.len = self.steps.len() - member.from;
    }

    /// Divides `budget_bps`: what the link carries without audio and what is kept back for retransmissions.
    pub fn allocate(&mut self, now: Instant, budget_bps: u64) -> &[Allocation] {
        self.members.retain(|member| member.is_listed);
        let low_bps = self.link.handle_budget(now, budget_bps);
        for member in &mut self.members {
            member.keep(&self.steps);
        }
        self.fill(|member| (member.kept, member.kept), 0);
        let kept_bps = self.allocated();
        // Where everybody has the lowest already, nothing was tried and nothing failed.
        let is_lowest = self.members.iter().all(|member| member.kept == 0);
        if self.link.is_over(now, kept_bps, budget_bps) && !is_lowest {
            let goal_bps = self.link.lower(now, kept_bps, budget_bps);
            self.fill(|member| (0, member.kept), goal_bps);
        } else {
            self.raise(now, self.goal_bps(low_bps));
        }
        self.conclude(now, budget_bps);
        &self.allocations
    }

    /// What came of the last round.
    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// Sum of what is allocated.
    pub fn allocated_bps(&self) -> u64 {
        self.allocations.iter().map(|allocation| allocation.bps).sum()
    }

    /// Sum of the best layers wanted: worth probing for.
    pub fn wanted_bps(&self) -> u64 {
        self.allocations.iter().map(|allocation| allocation.wanted_bps).sum()
    }

    /// Lets members climb from their lower bound towards their upper one, fairly, as far as `goal_bps` carries it.
    fn fill(&mut self, bounds: impl Fn(&Member) -> (usize, usize), goal_bps: u64) {
        self.queue.clear();
        for (place, member) in self.members.iter_mut().enumerate() {
            (member.level, member.ceiling) = bounds(member);
            self.queue.extend(member.claim(&self.steps, place));
        }
        let mut spent = self.allocated();
        while let Some(claim) = self.queue.pop() {
            let member = &mut self.members[claim.member];
            let more = member.cost(&self.steps, member.level + 1) - member.cost(&self.steps, member.level);
            if spent + more <= goal_bps {
                spent += more;
                member.level += 1;
                self.queue.extend(member.claim(&self.steps, claim.member));
            }
        }
    }

    /// What may be spent, so that enough is left over.
    fn goal_bps(&self, budget_bps: u64) -> u64 {
        let best_bps: u64 = self.members.iter().map(|member| member.cost(&self.steps, member.top())).sum();
        let goal_bps = share(budget_bps, 100, 100 + MARGIN_BEST_PERCENT);
        if best_bps <= goal_bps { goal_bps } else { share(budget_bps, 100, 100 + MARGIN_PERCENT) }
    }

    /// What the present levels cost.
    fn allocated(&self) -> u64 {
        self.members.iter().map(|member| member.cost(&self.steps, member.level)).sum()
    }

    /// The budget carries what is sent; maybe it carries more, or the same divided better.
    fn raise(&mut self, now: Instant, goal_bps: u64) {
        self.fill(|member| (0, member.top()), goal_bps);
        for member in &mut self.members {
            member.ideal = member.level;
        }
        let may_rise = self.link.may_rise(now, goal_bps);
        let is_eager = self.link.is_eager(now);
        let steps = &self.steps;
        let ceiling = |member: &Member| match member.is_fresh || is_eager || (may_rise && member.may_rise(now, steps)) {
            true => member.top(),
            false => member.kept,
        };
        for member in &mut self.members {
            member.ceiling = ceiling(member);
        }
        self.fill(|member| (member.kept, member.ceiling), goal_bps);
        let is_answer = self.members.iter().any(|member| member.is_fresh && member.len > 0);
        if (may_rise || is_answer) && self.is_unfair() {
            for member in &mut self.members {
                member.level = member.ideal;
            }
        }
        if self.members.iter().any(|member| member.level > member.kept && !member.is_fresh) {
            self.link.raise(now);
        }
    }

    /// Somebody would get notably more if all was divided anew, and those who pay for it would still have more than it has.
    fn is_unfair(&self) -> bool {
        let missing = |member: &Member, level| member.missing(&self.steps, level);
        let paying = self.members.iter().filter(|member| member.ideal < member.level);
        let Some(poorest_paying) = paying
            .map(|member| (member.want.priority, missing(member, member.ideal)))
            .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        else {
            return false;
        };
        self.members.iter().any(|member| {
            let (before, after) = (missing(member, member.level), missing(member, member.ideal));
            let is_notable = before - after >= GAIN;
            let (priority, paid) = poorest_paying;
            is_notable
                && (member.want.priority > priority
                    || (member.want.priority == priority && before - paid >= GAIN / 2.0))
        })
    }

    /// Writes down what was decided.
    fn conclude(&mut self, now: Instant, budget_bps: u64) {
        let allocated_bps = self.allocated();
        let wait = self.link.wait(now);
        let goal_bps = self.goal_bps(budget_bps);
        self.allocations.clear();
        for member in &mut self.members {
            let steps = &self.steps[member.from..member.from + member.len];
            let step = steps.get(member.level);
            let target = step.map(|step| step.layer);
            if target != member.target {
                member.target = target;
                member.changed_at = Some(now);
            }
            member.bps = step.map_or(0, |step| step.bps);
            member.is_fresh = steps.is_empty();
            let why = match (steps.get(member.level + 1), member.limit) {
                _ if !member.want.is_visible => Why::HiddenByRequest,
                _ if steps.is_empty() => Why::PublisherSilent { silent: None },
                (Some(next), _) => {
                    let needed_bps = allocated_bps - member.bps + next.bps;
                    let estimate_bps = budget_bps;
                    match needed_bps <= goal_bps {
                        true => Why::Settling { estimate_bps, needed_bps, wait },
                        false => Why::Bandwidth { estimate_bps, allocated_bps, needed_bps },
                    }
                }
                (None, Limit::NotSent) => Why::LayerNotSent,
                (None, Limit::Request) => {
                    Why::CappedByRequest { max_pixels: member.want.max_pixels, max_fps: member.want.max_fps }
                }
                (None, Limit::None) => Why::Best,
            };
            self.allocations.push(Allocation {
                id: member.want.id,
                target,
                bps: member.bps,
                wanted: steps.last().map(|step| step.layer),
                wanted_bps: steps.last().map_or(0, |step| step.bps),
                why,
            });
        }
    }
}

impl Member {
    fn new(want: Want) -> Self {
        Self {
            want,
            is_listed: true,
            is_fresh: true,
            from: 0,
            len: 0,
            limit: Limit::None,
            target: None,
            bps: 0,
            changed_at: None,
            kept: 0,
            level: 0,
            ceiling: 0,
            ideal: 0,
        }
    }

    fn ladder<'a>(&self, steps: &'a [Step]) -> &'a [Step] {
        &steps[self.from..self.from + self.len]
    }

    fn top(&self) -> usize {
        self.len.saturating_sub(1)
    }

    fn cost(&self, steps: &[Step], level: usize) -> u64 {
        self.ladder(steps).get(level).map_or(0, |step| step.bps)
    }

    /// How far a level is from the best it wants.
    fn missing(&self, steps: &[Step], level: usize) -> f32 {
        let ladder = self.ladder(steps);
        ladder.last().zip(ladder.get(level)).map_or(0.0, |(best, step)| best.quality - step.quality)
    }

    /// Finds what was sent on the new ladder; where it is gone, what costs no more.
    fn keep(&mut self, steps: &[Step]) {
        let ladder = self.ladder(steps);
        let same = ladder.iter().position(|step| Some(step.layer) == self.target);
        self.kept = same.unwrap_or_else(|| {
            let affordable = ladder.iter().take_while(|step| step.bps <= self.bps).count();
            affordable.saturating_sub(1)
        });
    }

    fn claim(&self, steps: &[Step], member: usize) -> Option<Claim> {
        let missing = self.missing(steps, self.level);
        (self.level < self.ceiling).then_some(Claim { priority: self.want.priority, missing, member })
    }

    /// It has not just changed. For a small gain it waits longer, unless that makes it the best.
    fn may_rise(&self, now: Instant, steps: &[Step]) -> bool {
        let is_small =
            self.ideal < self.top() && self.missing(steps, self.kept) - self.missing(steps, self.ideal) < GAIN;
        let interval = if is_small { UP_INTERVAL_SMALL } else { UP_INTERVAL };
        self.changed_at.is_none_or(|at| now >= at + interval)
    }
}

impl Link {
    /// Notes the estimate; what it has been at least lately.
    fn handle_budget(&mut self, now: Instant, budget_bps: u64) -> u64 {
        self.began_at.get_or_insert(now);
        self.hold = self.hold.max(HOLD_MIN);
        let since = *self.low_since.get_or_insert(now);
        if now >= since + CALM {
            // After a long pause what was before tells nothing.
            let former = self.lows[0].filter(|_| now < since + CALM * 2);
            self.lows = [None, former];
            self.low_since = Some(now);
        }
        self.lows[0] = Some(self.lows[0].map_or(budget_bps, |low| low.min(budget_bps)));
        let is_rising = matches!(self.lows, [Some(low), Some(former)] if low > share(former, RISE_PERCENT, 100));
        self.rising_since = is_rising.then(|| self.rising_since.unwrap_or(now));
        if self.is_eager(now) {
            return budget_bps;
        }
        self.lows.iter().flatten().copied().min().unwrap_or(budget_bps)
    }

    /// The session is young and nothing was ever too much.
    fn is_eager(&self, now: Instant) -> bool {
        self.lowered_at.is_none() && self.began_at.is_some_and(|began_at| now < began_at + EAGER)
    }

    fn is_over(&mut self, now: Instant, spent_bps: u64, budget_bps: u64) -> bool {
        if spent_bps <= budget_bps {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        spent_bps > share(budget_bps, 100 + OVERSHOOT_PERCENT, 100) || now >= since + OVERSHOOT_TIME
    }

    /// Something must be given up; what the rest may cost.
    fn lower(&mut self, now: Instant, spent_bps: u64, budget_bps: u64) -> u64 {
        if self.raised_at.take_if(|at| now < *at + TRIAL).is_some() {
            self.hold = (self.hold * 2).min(HOLD_MAX);
            self.failed_bps = spent_bps;
        } else if self.raised_at.is_some_and(|at| now >= at + TRIAL * 2) {
            self.hold = HOLD_MIN;
        }
        let is_falling = self.lowered_at.is_some_and(|at| now < at + FALLING);
        self.lowered_at = Some(now);
        let headroom = if is_falling { HEADROOM_FALLING_PERCENT } else { HEADROOM_PERCENT };
        share(budget_bps, 100 - headroom, 100)
    }

    fn raise(&mut self, now: Instant) {
        self.raised_at = Some(now);
        self.rising_since = self.rising_since.map(|_| now);
    }

    fn may_rise(&self, now: Instant, goal_bps: u64) -> bool {
        let is_other_link = goal_bps >= share(self.failed_bps, OTHER_LINK_PERCENT, 100);
        let hold = if is_other_link { HOLD_MIN } else { self.hold };
        self.lowered_at.is_none_or(|at| now >= at + hold) && self.rising_since.is_none_or(|at| now >= at + RISE_MAX)
    }

    /// Until the next step up, at the earliest.
    fn wait(&self, now: Instant) -> Duration {
        let hold = self.lowered_at.map_or(Duration::ZERO, |at| (at + self.hold).saturating_duration_since(now));
        hold.max(CALM)
    }
}

/// So many parts of a rate; an unlimited budget stays about that.
fn share(bps: u64, parts: u64, of: u64) -> u64 {
    bps.saturating_mul(parts) / of
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_priority = self.priority.cmp(&other.priority);
        // Who came first goes first: it must be the same one each time.
        by_priority.then(self.missing.total_cmp(&other.missing)).then(other.member.cmp(&self.member))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Claim {}

#[cfg(test)]
#[path = "allocate_tests.rs"]
mod tests;
