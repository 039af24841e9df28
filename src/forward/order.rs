//! The order in which one subscriber's packets of a turn leave, and the padding that makes trains of them.
//!
//! All datagrams of a train but the last have one size, the last may be shorter ([`crate::base::train`]). Sizes are made
//! equal by RTP padding (RFC 3550 §5.1) where that costs a small share of the bytes; a packet that fits nowhere closes
//! the train of larger ones for free. Owns: scratch memory.
//! Promises: packets of one stream keep their order; a train's padding stays within its share; nothing becomes longer than
//! the longest packet of its train was. Forbids: packets, keys, clocks: it sees lengths and says places.

use crate::base::train::{SEGMENTS_MAX, TRAIN_BYTES_MAX};

/// Packets put in order at once: what one train can hold. What is more makes trains of its own.
pub const PACKETS_MAX: usize = SEGMENTS_MAX;

/// RFC 3550 §5.1: one octet says how long the padding is.
const PADDING_BYTES_MAX: u16 = 255;

/// A packet that waits to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which stream of the subscriber, its m-line. Packets of one stream stand together, in the order they must keep.
    pub stream: u16,
    /// Sound waits for no picture.
    pub is_audio: bool,
    /// Length of the datagram without padding.
    pub bytes: u16,
}

impl Due {
    /// Whether it may wait for its line, and its bytes.
    pub fn may_wait(&self) -> (bool, u16) {
        (!self.is_audio, self.bytes)
    }
}

/// Where a packet ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which one, by its place before.
    pub at: u8,
    /// Bytes of padding it gets.
    pub padding: u8,
}

/// What may be done for trains.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Padding of a train in percent of its other bytes; 0: none.
    pub padding_percent_max: u8,
    /// Bytes that may leave before sound does. Where there are more, the sound goes first, alone.
    pub ahead_of_audio_bytes_max: u32,
}

/// Neighbours of one stream whose sizes are as good as equal; a train's beginning has the same shape.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u8,
    count: u8,
    stream: u16,
    is_audio: bool,
    is_taken: bool,
    longest: u16,
    shortest: u16,
    bytes: u32,
}

impl Run {
    fn of(at: usize, due: &Due) -> Self {
        Self {
            start: at as u8,
            count: 1,
            stream: due.stream,
            is_audio: due.is_audio,
            is_taken: false,
            longest: due.bytes,
            shortest: due.bytes,
            bytes: due.bytes.into(),
        }
    }

    /// Whether `due` belongs to the run without a change of anything but its length.
    fn takes_alike(&self, due: &Due) -> bool {
        self.stream == due.stream && self.longest == due.bytes && self.shortest == due.bytes && self.has_room()
    }

    /// Whether one more of these leaves the train within its bytes.
    fn has_room(&self) -> bool {
        usize::from(self.longest) * (usize::from(self.count) + 1) <= TRAIN_BYTES_MAX
    }

    /// Both as one, if that costs no more padding than allowed. The last packet is counted as if it were padded, too:
    /// whether it needs to be is known only when the train is whole.
    fn joined(self, other: &Self, padding_percent_max: u8) -> Option<Self> {
        let (longest, shortest) = (self.longest.max(other.longest), self.shortest.min(other.shortest));
        let (count, bytes) = (self.count + other.count, self.bytes + other.bytes);
        let padded = u32::from(longest) * u32::from(count);
        let is_cheap = u64::from(padded - bytes) * 100 <= u64::from(bytes) * u64::from(padding_percent_max);
        let fits = longest - shortest <= PADDING_BYTES_MAX && padded as usize <= TRAIN_BYTES_MAX;
        (is_cheap && fits).then_some(Self { count, longest, shortest, bytes, ..self })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Arranger {
    runs: Vec<Run>,
    places: Vec<Place>,
    /// First place of each train.
    trains: Vec<u8>,
}

impl Default for Arranger {
    fn default() -> Self {
        Self {
            runs: Vec::with_capacity(PACKETS_MAX),
            places: Vec::with_capacity(PACKETS_MAX),
            trains: Vec::with_capacity(PACKETS_MAX),
        }
    }
}

impl Arranger {
    /// Finds the order and the padding of up to [`PACKETS_MAX`] packets; what is beyond gets no place.
    pub fn arrange(&mut self, due: &[Due], rules: Rules) {
        let due = &due[..due.len().min(PACKETS_MAX)];
        self.clear();
        if due.len() < 2 {
            self.places.extend(due.iter().map(|_| Place { at: 0, padding: 0 }));
            self.trains.extend(due.iter().map(|_| 0));
            return;
        }
        self.cut(due, rules.padding_percent_max);
        if self.runs.len() == 1 {
            self.take_all(due);
            return;
        }
        let ahead = due.iter().filter(|due| !due.is_audio).map(|due| u32::from(due.bytes)).sum::<u32>();
        if ahead > rules.ahead_of_audio_bytes_max {
            while self.take_train(due, rules, |run| run.is_audio) {}
        }
        while self.take_train(due, rules, |_| true) {}
    }

    /// Nothing is arranged any more.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.places.clear();
        self.trains.clear();
    }

    /// The places in the order of leaving.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Packets in each train.
    pub fn train_lengths(&self) -> impl Iterator<Item = usize> {
        let ends = self.trains.iter().skip(1).copied().chain(std::iter::once(self.places.len() as u8));
        self.trains.iter().zip(ends).map(|(start, end)| usize::from(end - start))
    }

    /// Cuts each stream where the size changes for more than padding may bridge.
    fn cut(&mut self, due: &[Due], padding_percent_max: u8) {
        for (at, due) in due.iter().enumerate() {
            if let Some(run) = self.runs.last_mut().filter(|run| run.takes_alike(due)) {
                run.count += 1;
                run.bytes += u32::from(due.bytes);
                continue;
            }
            let next = Run::of(at, due);
            let last = self.runs.last_mut().filter(|run| run.stream == next.stream);
            match last.and_then(|run| Some((run.joined(&next, padding_percent_max)?, run))) {
                Some((joined, run)) => *run = joined,
                None => self.runs.push(next),
            }
        }
    }

    /// One run is one train as it is: the common case.
    fn take_all(&mut self, due: &[Due]) {
        let longest = self.runs.first().map_or(0, |run| run.longest);
        let place = |(at, due): (usize, &Due)| Place { at: at as u8, padding: (longest - due.bytes) as u8 };
        self.trains.push(0);
        self.places.extend(due.iter().enumerate().map(place));
        if let Some(last) = self.places.last_mut() {
            last.padding = 0;
        }
    }

    /// Makes one train of what `may_go`: the longest run, all that is of nearly its size, and what closes it. `false`:
    /// nothing was left.
    fn take_train(&mut self, due: &[Due], rules: Rules, may_go: impl Fn(&Run) -> bool) -> bool {
        let Some(first) = self.best(&may_go, |run| (run.count, run.longest)) else { return false };
        let from = self.places.len();
        self.trains.push(from as u8);
        let mut train = self.take(first);
        while let Some((at, joined)) = self.joining(&train, rules.padding_percent_max, &may_go) {
            self.take(at);
            train = joined;
        }
        for place in &mut self.places[from..] {
            place.padding = (train.longest - due[usize::from(place.at)].bytes) as u8;
        }
        // One shorter packet may close the train as it is; without it the last of the others needs no padding.
        let closes = |run: &Run| may_go(run) && run.count == 1 && run.longest <= train.longest;
        let closer = self.best(closes, |run| run.longest);
        match closer {
            Some(closer) if usize::from(train.count) < SEGMENTS_MAX => {
                self.take(closer);
            }
            _ => {
                if let Some(last) = self.places.last_mut() {
                    last.padding = 0;
                }
            }
        }
        true
    }

    /// Puts a run's packets behind those that have their places.
    fn take(&mut self, at: usize) -> Run {
        let run = &mut self.runs[at];
        run.is_taken = true;
        self.places.extend((run.start..run.start + run.count).map(|at| Place { at, padding: 0 }));
        *run
    }

    /// The runs that may go next: of each stream the first that is left.
    fn heads(&self) -> impl DoubleEndedIterator<Item = (usize, &Run)> {
        self.runs.iter().enumerate().filter(|(at, run)| {
            let before = at.checked_sub(1).map(|before| &self.runs[before]);
            !run.is_taken && before.is_none_or(|before| before.is_taken || before.stream != run.stream)
        })
    }

    /// The head that is worth most; of several the first.
    fn best<W: Ord>(&self, is_wanted: impl Fn(&Run) -> bool, worth: impl Fn(&Run) -> W) -> Option<usize> {
        let wanted = self.heads().filter(|(_, run)| is_wanted(run));
        wanted.rev().max_by_key(|(_, run)| worth(run)).map(|(at, _)| at)
    }

    /// A head that can be padded into the train, or the train to it, and what the train is then.
    fn joining(&self, train: &Run, padding_percent_max: u8, may_go: impl Fn(&Run) -> bool) -> Option<(usize, Run)> {
        let mut heads = self.heads().filter(|(_, run)| may_go(run));
        heads.find_map(|(at, run)| Some((at, train.joined(run, padding_percent_max)?)))
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
