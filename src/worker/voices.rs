//! The voices that a worker has packets of: how loud they are, and who hears them.
//!
//! Owns: a meter for each voice and the floor of each room (see [`crate::forward::loudest`]). Promises: what a client
//! does not tell the level of is always forwarded; a voice that is heard anew begins a little earlier, so that its first
//! syllable survives. Forbids: numbers and keys of subscribers.

use std::time::{Duration, Instant};

use super::command::Unheard;
use crate::base::ids::{RoomKey, SessionKey, TrackKey};
use crate::forward::loudest::{Floor, Hearers, Sound};
use crate::forward::speaker::{Activity, VoiceMeter};
use crate::forward::table::{self, Route, Subscriber};
use crate::session::track::Track;
use crate::wire::rtp_ext::{AudioLevel, Ext};

/// What was said before a voice was noticed: longer than noticing takes, and short enough that a jitter buffer takes it
/// for a delay.
const PREROLL: Duration = Duration::from_millis(200);
/// Packets of it: of 10 ms each, the shortest that browsers send.
const PREROLL_PACKETS_MAX: usize = 20;

/// One voice.
#[derive(Debug)]
struct Voice {
    track: TrackKey,
    room: RoomKey,
    meter: VoiceMeter,
    /// Its client tells levels.
    has_level: bool,
    hearers: Hearers,
    /// Changes of the floor and of pins up to its latest packet.
    seen: (u32, u32),
}

/// Who gets a track's packets of this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Audience {
    hearers: Hearers,
    /// Somebody may get it who did not get what came before: so many of the packets in `fresh` are the pre-roll for him.
    pub(super) preroll: Option<u8>,
}

/// Everybody, as always.
const EVERYBODY: Audience = Audience { hearers: Hearers::All, preroll: None };

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Voices {
    /// Voices of a room that are heard; 0: all, which is what a worker does that was told nothing.
    heard: usize,
    /// By the track's index.
    voices: Vec<Option<Box<Voice>>>,
    /// By the room's index.
    floors: Vec<Option<(RoomKey, Floor)>>,
}

impl Voices {
    /// So many voices of a room are heard at once; 0: all. To be called before there are any.
    pub(super) fn set_heard(&mut self, heard: usize) {
        self.heard = heard;
    }

    /// A track got the packets in `fresh`. Who gets them; what is to be sent before them is put in front.
    pub(super) fn handle_fresh(&mut self, now: Instant, route: &Route, track: &mut Track) -> Audience {
        let Some(of) = &route.voice else { return EVERYBODY };
        let heard = self.heard;
        let (voice, floor) = self.ensure(track.key, of);
        for packet in track.fresh.iter().filter_map(|seq| track.history.packet(*seq)) {
            if let Some(level) = level(packet.exts) {
                voice.has_level = true;
                voice.meter.handle_level(now, level);
            }
        }
        if heard == 0 {
            return EVERYBODY;
        }
        let meter = &voice.meter;
        let sound = match voice.has_level {
            true => Sound { is_active: meter.is_active(), is_talking: meter.is_talking(), loudness: meter.loudness() },
            false => Sound::LOUD,
        };
        let hearers = floor.handle_packet(now, track.key, of, sound);
        voice.hearers = if voice.has_level { hearers } else { Hearers::All };
        let seen = (floor.changes(), route.pin_changes);
        let has_changed = std::mem::replace(&mut voice.seen, seen) != seen;
        let preroll = has_changed.then(|| add_preroll(track));
        Audience { hearers: voice.hearers, preroll }
    }

    /// Those of the local subscribers that get it.
    pub(super) fn hearers<'a>(
        &'a self,
        audience: Audience,
        route: &'a Route,
        local: &'a [Subscriber],
    ) -> impl Iterator<Item = &'a Subscriber> {
        let floor = route.voice.as_ref().and_then(|voice| self.floor(voice.room));
        let floor = floor.filter(|_| audience.hearers == Hearers::Speakers);
        let is_for_nobody = audience.hearers == Hearers::Nobody && route.pins.is_empty();
        let local = if is_for_nobody { &[] } else { local };
        local.iter().filter(move |subscriber| {
            audience.hearers == Hearers::All
                || floor.is_some_and(|floor| floor.speaks(subscriber.session))
                || route.is_pinned(subscriber)
        })
    }

    /// The track ends.
    pub(super) fn forget(&mut self, track: TrackKey) {
        let Some(slot) = self.voices.get_mut(track.index as usize) else { return };
        let Some(voice) = slot.take_if(|voice| voice.track == track) else { return };
        let Some(slot) = self.floors.get_mut(voice.room.index as usize) else { return };
        let is_last = slot.as_mut().is_some_and(|(room, floor)| *room == voice.room && floor.leave(track));
        if is_last {
            *slot = None;
        }
    }

    /// How active a track was until now.
    pub(super) fn activity(&self, now: Instant, track: TrackKey) -> Activity {
        let voice = self.voices.get(track.index as usize).and_then(|voice| voice.as_ref());
        voice.filter(|voice| voice.track == track).map_or(Activity::default(), |voice| voice.meter.activity(now))
    }

    /// The voices that are withheld as they are not among the loudest; `pins` are a track's.
    pub(super) fn unheard(&self, pins: impl Fn(TrackKey) -> Vec<SessionKey>) -> Vec<Unheard> {
        let withheld = self.voices.iter().flatten().filter(|voice| voice.hearers != Hearers::All);
        let unheard = withheld.filter_map(|voice| {
            let floor = self.floor(voice.room)?;
            let mut except = pins(voice.track);
            except.extend(floor.speakers().filter(|_| voice.hearers == Hearers::Speakers));
            Some(Unheard { track: voice.track, except })
        });
        unheard.collect()
    }

    fn floor(&self, room: RoomKey) -> Option<&Floor> {
        let (key, floor) = self.floors.get(room.index as usize)?.as_ref()?;
        (*key == room).then_some(floor)
    }

    /// The voice of a track and the floor of its room, made when they are not there. Memory is taken with a track's first
    /// packet, never with another.
    fn ensure(&mut self, track: TrackKey, of: &table::Voice) -> (&mut Voice, &mut Floor) {
        let (at, room_at) = (track.index as usize, of.room.index as usize);
        let known = self.voices.get(at).and_then(|voice| voice.as_ref());
        if let Some((former, room)) = known.map(|voice| (voice.track, voice.room))
            && (former, room) != (track, of.room)
        {
            self.forget(former);
        }
        if self.voices.len() <= at {
            self.voices.resize_with(at + 1, || None);
        }
        if self.floors.len() <= room_at {
            self.floors.resize_with(room_at + 1, || None);
        }
        let slot = &mut self.floors[room_at];
        // A room that had the index before has ended, and its tracks are about to.
        if slot.as_ref().is_some_and(|(room, _)| *room != of.room) {
            *slot = None;
        }
        let (_, floor) = slot.get_or_insert_with(|| (of.room, Floor::new(self.heard)));
        let voice = self.voices[at].get_or_insert_with(|| {
            floor.enter();
            let meter = VoiceMeter::default();
            let seen = (floor.changes(), 0);
            Box::new(Voice { track, room: of.room, meter, has_level: false, hearers: Hearers::All, seen })
        });
        (voice, floor)
    }
}

/// The level that a packet's extensions tell, see `session::ingress` for their form.
fn level(mut exts: &[u8]) -> Option<AudioLevel> {
    while let [kind, len, rest @ ..] = exts {
        let (value, next) = rest.split_at_checked(usize::from(*len))?;
        if *kind == Ext::AudioLevel as u8 {
            return AudioLevel::parse(value);
        }
        exts = next;
    }
    None
}

/// Puts the packets before the fresh ones in front of them; how many there are.
fn add_preroll(track: &mut Track) -> u8 {
    let Track { fresh, history, .. } = track;
    let Some(first) = fresh.iter().min().and_then(|seq| history.packet(*seq)) else { return 0 };
    let ticks_max = PREROLL.as_millis() as u32 * (first.meta.format.clock_rate_hz() / 1000);
    let belongs = |packet: &crate::proto::history::Packet<'_>| {
        let age = first.meta.timestamp.wrapping_sub(packet.meta.timestamp);
        packet.meta.source == first.meta.source && age <= ticks_max
    };
    let mut preroll = [0; PREROLL_PACKETS_MAX];
    let room = PREROLL_PACKETS_MAX.min(fresh.capacity() - fresh.len());
    let earlier = (0..first.meta.seq).rev().take(room).filter_map(|seq| history.packet(seq));
    let mut count = 0;
    for packet in earlier.take_while(belongs) {
        preroll[count] = packet.meta.seq;
        count += 1;
    }
    // In order, and without memory being taken.
    fresh.extend(preroll[..count].iter().rev());
    fresh.rotate_right(count);
    count as u8
}
