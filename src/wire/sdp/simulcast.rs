//! Simulcast in SDP: `a=rid` (RFC 8851) and `a=simulcast` (RFC 8853), as the one who sends says them.
//!
//! Promises: a bounded list of streams, each named once and described by a rid line. What is broken or contradicts itself
//! is left out, as RFC 8851 §6.2 has it, so a strange offer is an offer without simulcast and never an error.

use crate::base::frame::ENCODINGS_MAX;
use crate::base::ids::Rid;

/// Most rid lines read from one m-line: every stream we take with as many alternatives and as many to receive.
const RIDS_MAX: usize = 4 * ENCODINGS_MAX;

/// One stream that is sent in a simulcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulcastStream {
    /// Its name.
    pub rid: Rid,
    /// It is not sent at first (`~`).
    pub is_paused: bool,
    /// The payload types it is limited to (`pt=`): bit n is payload type n.
    pub pts: Option<u128>,
}

/// Collects the lines of one m-line.
#[derive(Default)]
pub(super) struct Simulcast {
    rids: Vec<RidLine>,
    /// The send part of the first `a=simulcast`.
    send: Option<String>,
}

struct RidLine {
    rid: Rid,
    pts: Option<u128>,
    is_repeated: bool,
}

impl Simulcast {
    /// Takes `a=rid` or `a=simulcast`.
    pub(super) fn read(&mut self, key: &str, value: &str) {
        match key {
            "rid" => self.read_rid(value),
            _ if self.send.is_none() => self.send = send_list(value).map(str::to_owned),
            _ => {}
        }
    }

    /// RFC 8851 §10: `<rid-id> <direction> [<restriction>*(";"<restriction>)]`. What a stream to us promises about sizes
    /// and rates is measured, so only the formats count.
    fn read_rid(&mut self, value: &str) {
        let mut words = value.splitn(3, ' ');
        let Some(rid) = words.next().and_then(rid_of).filter(|_| words.next() == Some("send")) else { return };
        if let Some(known) = self.rids.iter_mut().find(|line| line.rid == rid) {
            known.is_repeated = true;
        } else if self.rids.len() < RIDS_MAX {
            let restrictions = words.next().unwrap_or("").split(';');
            let pts = restrictions.filter_map(|part| part.trim().strip_prefix("pt=")).next().map(pt_bits);
            self.rids.push(RidLine { rid, pts, is_repeated: false });
        }
    }

    /// The streams in the order of `a=simulcast`; of alternatives the first that has a rid line (RFC 8853 §5.2).
    pub(super) fn streams(&self) -> Vec<SimulcastStream> {
        let mut streams: Vec<SimulcastStream> = Vec::new();
        for alternatives in self.send.iter().flat_map(|list| list.split(';')) {
            if streams.len() == ENCODINGS_MAX {
                break;
            }
            let described = alternatives.split(',').take(RIDS_MAX).find_map(|name| self.stream(name.trim()));
            if let Some(stream) = described.filter(|stream| !streams.iter().any(|known| known.rid == stream.rid)) {
                streams.push(stream);
            }
        }
        streams
    }

    fn stream(&self, name: &str) -> Option<SimulcastStream> {
        let (name, is_paused) = name.strip_prefix('~').map_or((name, false), |name| (name, true));
        let rid = rid_of(name)?;
        let line = self.rids.iter().find(|line| line.rid == rid && !line.is_repeated)?;
        Some(SimulcastStream { rid, is_paused, pts: line.pts })
    }
}

/// RFC 8853 §5.1: `send <list> [recv <list>]`, in either order.
fn send_list(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    while let Some(direction) = words.next() {
        let list = words.next()?;
        if direction == "send" {
            return Some(list);
        }
    }
    None
}

/// RFC 8852 §3.1: letters and digits; RFC 8851 §10 has `-` and `_` too.
fn rid_of(name: &str) -> Option<Rid> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    Rid::new(name.as_bytes()).filter(|_| is_name)
}

fn pt_bits(list: &str) -> u128 {
    let pts = list.split(',').filter_map(|pt| pt.trim().parse::<u8>().ok()).filter(|pt| *pt < 128);
    pts.fold(0, |bits, pt| bits | 1 << pt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &[&str]) -> Vec<String> {
        let mut simulcast = Simulcast::default();
        for line in lines {
            let (key, value) = line.split_once(':').unwrap();
            simulcast.read(key, value);
        }
        let name = |stream: &SimulcastStream| format!("{}{}", if stream.is_paused { "~" } else { "" }, stream.rid);
        simulcast.streams().iter().map(name).collect()
    }

    #[test]
    fn streams_come_in_the_order_of_the_simulcast_line() {
        assert_eq!(names(&["rid:l send", "rid:h send", "simulcast:send h;l"]), ["h", "l"]);
        assert_eq!(names(&["simulcast:recv 9 send ~h;l", "rid:h send max-width=1280", "rid:l send"]), ["~h", "l"]);
    }

    #[test]
    fn of_alternatives_the_first_that_is_described_is_taken() {
        assert_eq!(names(&["rid:b send", "rid:c send", "simulcast:send a,~b;c"]), ["~b", "c"]);
    }

    #[test]
    fn what_is_named_twice_or_described_nowhere_or_for_the_other_way_is_left_out() {
        assert_eq!(names(&["rid:a send", "rid:a send pt=96", "rid:b send", "simulcast:send a;b;b;c"]), ["b"]);
        assert_eq!(names(&["rid:a recv", "simulcast:send a"]), [""; 0]);
        assert_eq!(names(&["rid:a send"]), [""; 0], "rids alone are no simulcast");
        assert_eq!(names(&["rid:a send", "simulcast: send rid=a"]), [""; 0], "the form of early drafts");
        assert_eq!(names(&["rid:sixteen-and-more- send", "simulcast:send sixteen-and-more-"]), [""; 0]);
    }

    #[test]
    fn the_formats_of_a_stream_are_kept() {
        let mut simulcast = Simulcast::default();
        simulcast.read("rid", "h send max-fps=30;pt=96,98,300,x");
        simulcast.read("simulcast", "send h");
        assert_eq!(simulcast.streams()[0].pts, Some(1 << 96 | 1 << 98));
    }

    #[test]
    fn hundreds_of_rids_are_not_hundreds_of_streams() {
        let mut simulcast = Simulcast::default();
        (0..500).for_each(|n| simulcast.read("rid", &format!("r{n} send")));
        simulcast
            .read("simulcast", &format!("send {}", (0..500).map(|n| format!("r{n}")).collect::<Vec<_>>().join(";")));
        assert_eq!((simulcast.rids.len(), simulcast.streams().len()), (RIDS_MAX, ENCODINGS_MAX));
    }
}
