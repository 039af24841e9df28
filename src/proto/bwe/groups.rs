//! Arrival groups: packets sent as one burst are one sample of the path's delay (draft-ietf-rmcat-gcc-02 §5.2, libwebrtc's
//! inter-arrival filter).
//!
//! Owns: the group being filled and the one before. Promises: late packets change nothing.
//! Forbids: judging the deltas.

/// Packets sent within this time are one group: the pacer's tick.
const BURST_US: u64 = 5_000;

/// What comes in faster than it was sent, one packet close behind the other, was held up together: one group too...
const ARRIVAL_BURST_US: i64 = 5_000;

/// ... up to this length.
const ARRIVAL_BURST_US_MAX: i64 = 100_000;

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent_us: u64,
    last_sent_us: u64,
    first_arrival_us: i64,
    last_arrival_us: i64,
}

/// From the end of one group to the end of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDelta {
    /// Between the last packets sent.
    pub send_us: u64,
    /// Between the last arrivals; negative when the network changed the order.
    pub arrival_us: i64,
    /// Last arrival of the later group.
    pub at_us: i64,
}

/// Makes groups of packets.
#[derive(Debug, Default)]
pub struct Groups {
    previous: Option<Group>,
    current: Option<Group>,
}

impl Groups {
    /// Takes the next packet in the order of sending; returns the delta between two groups when this one begins a third.
    pub fn push(&mut self, sent_us: u64, arrival_us: i64) -> Option<GroupDelta> {
        let new = Group {
            first_sent_us: sent_us,
            last_sent_us: sent_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(new);
            return None;
        };
        if sent_us < current.first_sent_us {
            return None;
        }
        if current.takes(sent_us, arrival_us) {
            current.last_sent_us = current.last_sent_us.max(sent_us);
            current.last_arrival_us = current.last_arrival_us.max(arrival_us);
            return None;
        }
        let done = *current;
        self.current = Some(new);
        let previous = self.previous.replace(done)?;
        Some(GroupDelta {
            send_us: done.last_sent_us.saturating_sub(previous.last_sent_us),
            arrival_us: done.last_arrival_us - previous.last_arrival_us,
            at_us: done.last_arrival_us,
        })
    }

    /// What comes next is not compared with what came before.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

impl Group {
    fn takes(&self, sent_us: u64, arrival_us: i64) -> bool {
        if sent_us - self.first_sent_us <= BURST_US {
            return true;
        }
        let gap_us = arrival_us - self.last_arrival_us;
        let sent_gap_us = sent_us.saturating_sub(self.last_sent_us) as i64;
        (0..=ARRIVAL_BURST_US).contains(&gap_us)
            && gap_us < sent_gap_us
            && arrival_us - self.first_arrival_us < ARRIVAL_BURST_US_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_tick_are_one_group() {
        let mut groups = Groups::default();
        assert_eq!(groups.push(0, 100_000), None);
        assert_eq!(groups.push(5_000, 108_000), None);
        assert_eq!(groups.push(20_000, 120_500), None);
        assert_eq!(groups.push(24_000, 126_000), None);
        let expected = GroupDelta { send_us: 19_000, arrival_us: 18_000, at_us: 126_000 };
        assert_eq!(groups.push(40_000, 140_000), Some(expected));
        // Late ones are left out.
        assert_eq!(groups.push(24_500, 190_000), None);
    }

    #[test]
    fn what_was_held_up_together_is_one_group() {
        let mut groups = Groups::default();
        groups.push(0, 50_000);
        groups.push(20_000, 100_000);
        assert_eq!(groups.push(40_000, 101_000), None);
        assert_eq!(groups.push(60_000, 102_000), None);
        let delta = groups.push(80_000, 130_000).expect("a third group");
        assert_eq!((delta.send_us, delta.arrival_us), (60_000, 52_000));
    }
}
