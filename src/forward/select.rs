//! Which packets of a video track one subscriber gets.
//!
//! A target says what the subscriber should get; what it does get follows at the next place where a decoder can follow.
//! Owns: the rules in force, each from one sequence number on. A packet's verdict comes from the rule at its place and from
//! its own marks alone, so that frames are passed or withheld whole, in whatever order their packets come, and a packet
//! may be asked about again.
//!
//! - A stream begins, and an encoding is left for another, with a keyframe. Until it comes, what is forwarded goes on; what
//!   is then left unfinished of the old encoding's picture is given up, for the keyframe does not need it.
//! - Down is at once, at the next picture. Exception: in streams whose spatial layers stand apart between keyframes (L3T3_KEY,
//!   S3T3) another one has to wait for a keyframe; until then, where the line presses, the frame rate falls.
//! - Up where the marks allow it: temporal layers one by one at switching points, spatial ones where a frame needs no earlier
//!   picture. That may be in the middle of a picture, which then has two markers.
//! - With a dependency descriptor layers are followed as decode targets: a frame passes when it belongs to the target.
//! - Who knows nothing (encrypted, no descriptor) passes the whole encoding, see [`Selector::begin_blind`].
//!
//! Promises: bounded, no allocation. Forbids: numbers of the outgoing stream, clocks, codecs.

use crate::base::frame::{ActiveTargets, DECODE_TARGETS_MAX, DecodeTargets, ENCODINGS_MAX, FrameMarks, Layer};
use crate::base::packet::PacketMeta;

/// Rules remembered for packets that come late. Targets move a few times a second at most; a step up in temporal layers
/// takes one rule for each.
const RULES_MAX: usize = 8;

/// What is asked about: the head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHead {
    /// Which stream of the track's simulcast.
    pub encoding: u8,
    /// Extended sequence number within the encoding.
    pub seq: u64,
    /// The publisher's timestamp: packets of one picture share it.
    pub timestamp: u32,
    /// The publisher's marker: last packet of a picture.
    pub marker: bool,
    /// What it says about its frame.
    pub marks: FrameMarks,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes out, of pictures cut like this.
    Pass(Cut),
    /// It does not.
    Withhold {
        /// With the first packet that is seen of a picture of which nothing passes: where picture ids must be without gaps
        /// (`wire::payload::closes_picture_gaps`), those of later pictures are one less from here on. Pictures withheld
        /// because nothing is forwarded at all, or another encoding is, do not count.
        skips_picture: bool,
    },
}

/// How the pictures that pass differ from those that were sent. It stays the same over many packets and is all that has
/// to be remembered to write one of them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Highest spatial layer that passes.
    top: u8,
    /// Decode targets that can still be decoded, where there are others: to be written into the dependency descriptors of
    /// frames' first packets.
    pub active_targets: Option<ActiveTargets>,
}

impl Cut {
    /// Everything passes.
    pub const NONE: Self = Self { top: u8::MAX, active_targets: None };

    /// The RTP marker of a packet that passes: the last one of its picture has it, and where higher spatial layers are cut
    /// off that is another one than the publisher's.
    pub fn marker(self, marker: bool, marks: &FrameMarks) -> bool {
        marker || marks.is_end && marks.spatial >= self.top
    }
}

/// What passes from a sequence number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    from: u64,
    /// Bounds; the encoding is the one that is forwarded.
    layer: Layer,
    /// In streams with a dependency descriptor.
    decode_target: Option<u8>,
    cut: Cut,
}

impl Rule {
    fn by_layer(from: u64, layer: Layer) -> Self {
        Self { from, layer, decode_target: None, cut: Cut { top: layer.spatial, active_targets: None } }
    }

    fn by_target(from: u64, encoding: u8, target: u8, targets: &DecodeTargets) -> Self {
        let at = usize::from(target) % DECODE_TARGETS_MAX;
        let (spatial, temporal) = targets.layers[at];
        let active = ActiveTargets { mask: targets.covers[at] | 1 << at, count: targets.count };
        let cut = Cut { top: spatial, active_targets: (active.mask != targets.all()).then_some(active) };
        Self { from, layer: Layer { encoding, spatial, temporal }, decode_target: Some(target), cut }
    }

    fn passes(&self, marks: &FrameMarks) -> bool {
        match self.decode_target {
            Some(target) if marks.targets != 0 => marks.targets >> target & 1 != 0,
            _ => marks.spatial <= self.layer.spatial && marks.temporal <= self.layer.temporal,
        }
    }
}

/// The newest packet seen of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u64,
    timestamp: u32,
    /// It was its picture's last.
    marker: bool,
}

/// One video subscription. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    target: Option<Layer>,
    /// The next picture may begin without being a keyframe.
    is_blind: bool,
    /// Oldest first; all of the encoding that is forwarded. Empty: nothing is.
    rules: Rules,
    seen: [Option<Seen>; ENCODINGS_MAX],
    /// The target's spatial layer needs a keyframe of the encoding that is forwarded.
    lacks_keyframe: bool,
    /// Bounds of an encoding that is forwarded only until the target's can be.
    interim: Option<Layer>,
    /// What is forwarded is more than the line carries.
    is_pressed: bool,
}

impl Selector {
    /// What the subscriber should get from now on; bounds above what the track has mean the best. `None`: nothing, from
    /// the next picture on.
    pub fn set_target(&mut self, target: Option<Layer>) {
        let target = target.filter(|layer| usize::from(layer.encoding) < ENCODINGS_MAX);
        // Whether the new one lacks anything is seen at the next frame.
        self.lacks_keyframe &= target == self.target;
        self.is_blind &= target.map(|layer| layer.encoding) == self.target.map(|layer| layer.encoding);
        self.target = target;
    }

    /// What is waited for is cheaper than what is forwarded until then: of that only the lowest temporal layer is left.
    pub fn thin_out(&mut self) {
        let waits_for = self.target.map(|target| target.encoding);
        if let Some(present) = self.encoding().filter(|present| waits_for.is_some_and(|it| it != *present)) {
            self.interim = Some(Layer { encoding: present, spatial: u8::MAX, temporal: 0 });
        }
    }

    /// Whether what exceeds the target is more than the line carries, or only more than is looked at.
    pub fn set_pressed(&mut self, is_pressed: bool) {
        self.is_pressed = is_pressed;
    }

    /// What was forwarded is over: the track has another source, or its numbers are out of reach. It begins again with a
    /// keyframe.
    pub fn restart(&mut self) {
        *self = Self { target: self.target, is_pressed: self.is_pressed, ..Self::default() };
    }

    /// Stops waiting for a keyframe that nobody can recognise: what waits for one begins with the next picture. Of no
    /// effect where nothing waits, and only until it has begun.
    pub fn begin_blind(&mut self) {
        self.is_blind = self.target.is_some_and(|target| Some(target.encoding) != self.encoding());
    }

    /// Begins with the keyframe of a run that is kept for joins: of what followed it, all is sent on (`is_whole`) or
    /// temporal layer 0. `head` is the keyframe's first packet. Of another encoding than the target's all layers go out
    /// then, until the target's begins.
    pub fn begin_run(&mut self, head: &PacketHead, targets: Option<&DecodeTargets>, is_whole: bool) {
        let Some(target) = self.target else { return };
        let interim = Layer { encoding: head.encoding, spatial: u8::MAX, temporal: u8::MAX };
        let bounds = if target.encoding == head.encoding { target } else { interim };
        let temporal = if is_whole { bounds.temporal } else { 0 };
        self.start(first_rule(head, Layer { temporal, ..bounds }, targets));
        // What follows was seen before, when it was withheld.
        if let Some(seen) = self.seen.get_mut(usize::from(head.encoding)) {
            *seen = None;
        }
        self.interim = (target.encoding != head.encoding).then_some(interim);
    }

    /// A packet was dealt with elsewhere, in order: what follows it does not begin its picture.
    pub fn pass_over(&mut self, head: &PacketHead) {
        self.see(head.encoding, Seen { seq: head.seq, timestamp: head.timestamp, marker: head.marker });
    }

    #[inline]
    fn see(&mut self, encoding: u8, packet: Seen) {
        if let Some(seen) = self.seen.get_mut(usize::from(encoding))
            && seen.is_none_or(|seen| packet.seq > seen.seq)
        {
            *seen = Some(packet);
        }
    }

    /// The verdict on most packets by far, with few words: what is forwarded is what is wanted, and they belong to it.
    /// `None`: it takes [`handle_packet`](Self::handle_packet).
    #[inline]
    pub fn pass(&mut self, meta: &PacketMeta) -> Option<Cut> {
        let cut = self.steady(meta.encoding, meta.seq, &meta.marks)?;
        self.see(meta.encoding, Seen { seq: meta.seq, timestamp: meta.timestamp, marker: meta.marker });
        Some(cut)
    }

    /// The verdict on a packet. All packets of the track are to be shown, those of other encodings, too. `targets`: what
    /// the encoding's dependency descriptor offers, if it has one.
    pub fn handle_packet(&mut self, head: &PacketHead, targets: Option<&DecodeTargets>) -> Verdict {
        let Some(seen) = self.seen.get(usize::from(head.encoding)).copied() else {
            return Verdict::Withhold { skips_picture: false };
        };
        let is_newest = seen.is_none_or(|seen| head.seq > seen.seq);
        let is_new_picture = is_newest && seen.is_none_or(|seen| head.timestamp != seen.timestamp);
        let follows_marker = seen.is_some_and(|seen| seen.marker && head.seq == seen.seq + 1);
        if is_newest {
            self.seen[usize::from(head.encoding)] =
                Some(Seen { seq: head.seq, timestamp: head.timestamp, marker: head.marker });
        }
        if let Some(cut) = self.steady(head.encoding, head.seq, &head.marks) {
            return Verdict::Pass(cut);
        }
        // Where the lowest layer's packets are missing, a picture that is cut here could end without a marker.
        let starts_picture = is_new_picture && (follows_marker || head.marks.is_start && head.marks.spatial == 0);
        // Without a descriptor that could be read nothing is known of targets.
        let targets = targets.filter(|_| head.marks.targets != 0);
        if self.encoding() == Some(head.encoding) {
            self.advance(head, targets, is_newest, starts_picture);
        } else {
            self.begin(head, targets, is_new_picture);
        }
        self.judge(head, is_new_picture)
    }

    /// Whatever a packet says that belongs to what is forwarded: where that is what is wanted, the rule stays.
    #[inline]
    fn steady(&self, encoding: u8, seq: u64, marks: &FrameMarks) -> Option<Cut> {
        let rule = self.rules.newest_ref()?;
        let is_steady = self.target == Some(rule.layer) && rule.decode_target.is_none() && marks.targets == 0;
        let is_within = marks.spatial <= rule.layer.spatial && marks.temporal <= rule.layer.temporal;
        let belongs = rule.layer.encoding == encoding && rule.from <= seq && is_within;
        (is_steady && belongs && !self.lacks_keyframe).then_some(rule.cut)
    }

    /// What is forwarded now; bounds as in the target where no lower ones are in force.
    pub fn current(&self) -> Option<Layer> {
        self.rules.newest_ref().map(|rule| rule.layer)
    }

    /// How the picture of a packet that passed is cut.
    pub fn cut(&self, head: &PacketHead) -> Cut {
        self.rules.at(head.seq).map_or(Cut::NONE, |rule| rule.cut)
    }

    /// The encoding that cannot go where its target is without a keyframe.
    pub fn wants_keyframe(&self) -> Option<u8> {
        let target = self.target?;
        (self.encoding() != Some(target.encoding) || self.lacks_keyframe).then_some(target.encoding)
    }

    fn encoding(&self) -> Option<u8> {
        self.current().map(|layer| layer.encoding)
    }

    /// A packet of an encoding that is not forwarded: perhaps it begins now. It may have come late: what came after it is
    /// asked for again, and found under the new rule.
    fn begin(&mut self, head: &PacketHead, targets: Option<&DecodeTargets>, is_new_picture: bool) {
        let Some(target) = self.target.filter(|target| target.encoding == head.encoding) else { return };
        let may_begin = head.marks.begins() || self.is_blind && is_new_picture;
        if !may_begin {
            return;
        }
        self.start(first_rule(head, target, targets));
    }

    fn start(&mut self, rule: Rule) {
        self.is_blind = false;
        self.lacks_keyframe = false;
        self.interim = None;
        self.rules.clear();
        self.rules.push(rule);
    }

    /// A packet of the encoding that is forwarded: perhaps another rule holds from here on.
    fn advance(&mut self, head: &PacketHead, targets: Option<&DecodeTargets>, is_newest: bool, starts_picture: bool) {
        let Some(rule) = self.rules.newest().filter(|_| is_newest) else { return };
        let Some(target) = self.target else {
            if starts_picture {
                self.rules.clear();
            }
            return;
        };
        // Until an encoding can be left for another it stays as it is.
        let Some(target) = [Some(target), self.interim].into_iter().flatten().find(|it| it.encoding == head.encoding)
        else {
            return;
        };
        if !(starts_picture || head.marks.is_start) {
            return;
        }
        let next = match (targets, rule.decode_target) {
            _ if head.marks.begins() => first_rule(head, target, targets),
            (Some(targets), Some(decode_target)) => {
                let reachable = reachable(decode_target, &head.marks, targets, starts_picture);
                let next = best(reachable, target, targets, self.is_pressed).unwrap_or(decode_target);
                Rule::by_target(head.seq, head.encoding, next, targets)
            }
            // Its descriptor is missing: nothing is known of it.
            (None, Some(_)) => return,
            (_, None) => Rule::by_layer(head.seq, next_layer(rule.layer, target, &head.marks, starts_picture)),
        };
        self.lacks_keyframe = match (targets, next.decode_target) {
            (Some(targets), Some(_)) => {
                let wanted = best(sent_targets(targets), target, targets, false);
                wanted.is_some_and(|wanted| targets.layers[usize::from(wanted)].0 != next.layer.spatial)
            }
            _ => next.layer.spatial < target.spatial,
        };
        if (next.layer, next.decode_target, next.cut) != (rule.layer, rule.decode_target, rule.cut) {
            self.rules.push(next);
        }
    }

    fn judge(&self, head: &PacketHead, is_new_picture: bool) -> Verdict {
        let rule = self.rules.at(head.seq).filter(|rule| rule.layer.encoding == head.encoding);
        match rule {
            Some(rule) if rule.passes(&head.marks) => Verdict::Pass(rule.cut),
            Some(rule) => {
                // All frames of a picture are of one temporal layer.
                Verdict::Withhold { skips_picture: is_new_picture && head.marks.temporal > rule.layer.temporal }
            }
            None => Verdict::Withhold { skips_picture: false },
        }
    }
}

/// With a keyframe the target holds at once: nothing after it needs anything before it.
fn first_rule(head: &PacketHead, target: Layer, targets: Option<&DecodeTargets>) -> Rule {
    let decode_target =
        targets.and_then(|targets| Some((best(sent_targets(targets), target, targets, false)?, targets)));
    match decode_target {
        Some((decode_target, targets)) => Rule::by_target(head.seq, head.encoding, decode_target, targets),
        None => Rule::by_layer(head.seq, target),
    }
}

/// The bounds from a frame's first packet on, where payload descriptors tell layers.
fn next_layer(now: Layer, target: Layer, marks: &FrameMarks, starts_picture: bool) -> Layer {
    let mut next = now;
    if starts_picture {
        next.spatial = next.spatial.min(target.spatial);
        next.temporal = next.temporal.min(target.temporal);
    }
    if starts_picture && marks.is_switch_up {
        if marks.temporal == 0 {
            next.temporal = target.temporal;
        } else if marks.temporal <= target.temporal && marks.temporal == next.temporal.saturating_add(1) {
            next.temporal = marks.temporal;
        }
    }
    let is_next_spatial = marks.spatial <= target.spatial && marks.spatial == next.spatial.saturating_add(1);
    if marks.is_start && is_next_spatial && !marks.needs_earlier && marks.temporal <= next.temporal {
        next.spatial = marks.spatial;
    }
    next
}

/// The decode targets that can be had from a frame's first packet on.
fn reachable(now: u8, marks: &FrameMarks, targets: &DecodeTargets, starts_picture: bool) -> u32 {
    let mut reachable = 1 << now;
    if starts_picture {
        reachable |= targets.covers[usize::from(now) % DECODE_TARGETS_MAX];
    }
    // AV1 RTP specification §A.8.3.2: a switch indication says that with this frame all later ones of that target can be
    // decoded; and this one can, as it belongs to what is forwarded.
    if marks.is_start && marks.targets >> now & 1 != 0 {
        reachable |= marks.switches;
    }
    let sent = reachable & sent_targets(targets);
    if sent == 0 { reachable } else { sent }
}

/// The best decode target of a set: the highest within the target's bounds, else what exceeds them least; where the line
/// presses with the lowest frame rate, else with that of the target.
fn best(set: u32, target: Layer, targets: &DecodeTargets, is_pressed: bool) -> Option<u8> {
    let count = targets.count.min(DECODE_TARGETS_MAX as u8);
    (0..count).filter(|at| set >> at & 1 != 0).max_by_key(|at| {
        let (spatial, temporal) = targets.layers[usize::from(*at)];
        let is_within = spatial <= target.spatial && temporal <= target.temporal;
        let rank = (i16::from(spatial), i16::from(temporal));
        // Of what exceeds the bounds, the spatial layer weighs more.
        let excess = (rank.0 - i16::from(target.spatial)).max(0);
        let from_rate = if is_pressed { rank.1 } else { (rank.1 - i16::from(target.temporal)).abs() };
        if is_within { (true, 0, rank.0, rank.1) } else { (false, -excess, -from_rate, -rank.0) }
    })
}

/// What can be chosen: what the sender sends, unless it says that it sends nothing.
fn sent_targets(targets: &DecodeTargets) -> u32 {
    if targets.active == 0 { targets.all() } else { targets.active }
}

/// The latest rules, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    rules: [Option<Rule>; RULES_MAX],
    count: usize,
}

impl Rules {
    fn clear(&mut self) {
        self.count = 0;
    }

    /// From its number on nothing older holds.
    fn push(&mut self, rule: Rule) {
        if self.count == RULES_MAX {
            self.rules.rotate_left(1);
            self.count -= 1;
        }
        self.rules[self.count] = Some(rule);
        self.count += 1;
    }

    fn newest(&self) -> Option<Rule> {
        self.newest_ref().copied()
    }

    fn newest_ref(&self) -> Option<&Rule> {
        self.rules.get(self.count.checked_sub(1)?)?.as_ref()
    }

    /// The rule at a place. What is before the oldest one is not of what is forwarded, or too late.
    fn at(&self, seq: u64) -> Option<Rule> {
        self.rules[..self.count].iter().rev().flatten().find(|rule| rule.from <= seq).copied()
    }
}

#[cfg(test)]
#[path = "select_stream_tests.rs"]
mod stream_tests;

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
