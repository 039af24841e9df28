//! Who is heard: of a room's voices the loudest few have the floor.
//!
//! Owns: the places of one room on one worker. Promises: each worker chooses by itself, by the same rule from the same
//! levels, so all choose the same; a voice that has a place keeps it through its pauses as long as nobody needs it; a
//! voice that is silent never gets one. Forbids: packets, subscribers.
//!
//! There is one place more than voices to be heard. Who has one of the first ones does not hear himself: in his own
//! stead he hears the voice in the last place, the reserve. So everybody hears equally many.

use std::time::{Duration, Instant};

use super::table::Voice;
use crate::base::ids::{SessionKey, TrackKey};

/// Who was silent for so long gives way to who speaks. Together with the few packets that make a voice it is less than
/// the pre-roll, so when one ends as another begins, no syllable is lost.
pub const PAUSE: Duration = Duration::from_millis(120);
/// Where all speak, somebody else must be so much louder than the quietest of them, in dB: two voices do not flicker.
pub const MARGIN_DB: u8 = 6;
/// Nobody needs the place, but it is given up: breath and hum are not worth sending.
pub const HOLD: Duration = Duration::from_secs(5);

/// The sound of a voice at its latest packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// There was voice in it.
    pub is_active: bool,
    /// And in those before: somebody talks.
    pub is_talking: bool,
    /// When it speaks, 0 to 127.
    pub loudness: u8,
}

impl Sound {
    /// What a client is taken for that does not say.
    pub const LOUD: Self = Self { is_active: true, is_talking: true, loudness: 127 };
}

/// Who gets a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearers {
    /// Nobody: others are louder.
    Nobody,
    /// Who has one of the first places himself: it is the next after them.
    Speakers,
    /// Everybody.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    track: TrackKey,
    publisher: SessionKey,
    loudness: u8,
    spoke_at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Floor {
    places: Vec<Place>,
    /// Voices to be heard; place number `heard` is the reserve.
    heard: usize,
    /// Voices of the room.
    voices: usize,
    changes: u32,
}

impl Floor {
    /// A room in which so many voices are heard at once.
    pub fn new(heard: usize) -> Self {
        Self { places: Vec::with_capacity(heard + 1), heard, voices: 0, changes: 0 }
    }

    /// One voice more in the room.
    pub fn enter(&mut self) {
        self.voices += 1;
        self.changes = self.changes.wrapping_add(u32::from(self.voices == self.heard + 1));
    }

    /// One less. `true`: it was the last.
    pub fn leave(&mut self, track: TrackKey) -> bool {
        self.voices = self.voices.saturating_sub(1);
        self.changes = self.changes.wrapping_add(u32::from(self.voices == self.heard));
        if let Some(at) = self.place(track) {
            self.give_up(at);
        }
        self.voices == 0
    }

    /// More voices than are heard: some are withheld.
    pub fn is_limited(&self) -> bool {
        self.voices > self.heard
    }

    /// Changes when somebody may hear what he did not.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Whether that peer has one of the first places.
    pub fn speaks(&self, publisher: SessionKey) -> bool {
        self.places.iter().take(self.heard).any(|place| place.publisher == publisher)
    }

    /// Who has the first places, for people.
    pub fn speakers(&self) -> impl Iterator<Item = SessionKey> {
        self.places.iter().take(self.heard).map(|place| place.publisher)
    }

    /// A packet of a voice came; who gets it.
    pub fn handle_packet(&mut self, now: Instant, track: TrackKey, voice: &Voice, sound: Sound) -> Hearers {
        let at = match self.place(track) {
            Some(at) => {
                let place = &mut self.places[at];
                place.loudness = sound.loudness;
                place.spoke_at = if sound.is_active { now } else { place.spoke_at };
                if now >= place.spoke_at + HOLD {
                    self.give_up(at);
                    return self.everybody_or(Hearers::Nobody);
                }
                at
            }
            None => {
                let place = Place { track, publisher: voice.publisher, loudness: sound.loudness, spoke_at: now };
                match self.take(now, place, sound) {
                    Some(at) => at,
                    None => return self.everybody_or(Hearers::Nobody),
                }
            }
        };
        if at == self.heard && !self.rise(now, sound) {
            return self.everybody_or(Hearers::Speakers);
        }
        Hearers::All
    }

    /// Where few speak everybody hears everybody.
    fn everybody_or(&self, hearers: Hearers) -> Hearers {
        if self.is_limited() { hearers } else { Hearers::All }
    }

    fn place(&self, track: TrackKey) -> Option<usize> {
        self.places.iter().position(|place| place.track == track)
    }

    /// A voice takes a place: a free one, else that of the weakest.
    fn take(&mut self, now: Instant, place: Place, sound: Sound) -> Option<usize> {
        if !sound.is_talking {
            return None;
        }
        let at = if self.places.len() <= self.heard {
            self.places.push(place);
            self.places.len() - 1
        } else {
            let at = self.weaker(now, sound.loudness, self.places.len())?;
            self.places[at] = place;
            at
        };
        self.note_change();
        Some(at)
    }

    /// Who talks in the reserve changes places with a weaker one of the first.
    fn rise(&mut self, now: Instant, sound: Sound) -> bool {
        let weaker = if sound.is_talking { self.weaker(now, sound.loudness, self.heard) } else { None };
        let Some(at) = weaker else { return false };
        self.places.swap(at, self.heard);
        self.note_change();
        true
    }

    fn give_up(&mut self, at: usize) {
        // In order: the reserve comes forward.
        self.places.remove(at);
        self.note_change();
    }

    fn note_change(&mut self) {
        // Where everybody is heard nobody hears more than before.
        self.changes = self.changes.wrapping_add(u32::from(self.is_limited()));
    }

    /// Which of the first `among` places gives way to a voice of that loudness: who has been silent for longest, else the
    /// quietest by a margin.
    fn weaker(&self, now: Instant, loudness: u8, among: usize) -> Option<usize> {
        let places = || self.places.iter().enumerate().take(among);
        let silent = places().filter(|(_, place)| now >= place.spoke_at + PAUSE);
        let quieter = |place: &Place| place.loudness.saturating_add(MARGIN_DB) <= loudness;
        let weakest = silent.min_by_key(|(_, place)| (place.spoke_at, place.track)).or_else(|| {
            let quietest = places().min_by_key(|(_, place)| (place.loudness, place.track));
            quietest.filter(|(_, place)| quieter(place))
        });
        weakest.map(|(at, _)| at)
    }
}

#[cfg(test)]
#[path = "loudest_tests.rs"]
mod tests;
