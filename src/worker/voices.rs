//! The voices that a worker has packets of: how loud they are, and who hears them.
//!
//! Owns: a meter for each voice and the floor of each room (see [`crate::forward::loudest`]). Promises: what a client
//! does not tell the level of is always forwarded; a voice that is heard anew begins a little earlier, so that its first
//! syllable survives. Forbids: numbers and keys of subscribers.

use std::time::{Duration, Instant};

use super::command::Unheard;
use super::core::WorkerCore;
use super::job::Audience;
use crate::base::ids::{RoomKey, SessionKey, TrackKey};
use crate::forward::loudest::{Floor, Hearers, Sound};
use crate::forward::speaker::{Activity, VoiceMeter};
use crate::forward::table::{self, Route, Subscriber};
use crate::proto::history::Packet;
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
    /// The highest number that came.
    newest: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Voices {
    /// Voices of a room that are heard; 0: all, which is what a worker does that was told nothing.
    pub(super) heard: usize,
    /// By the track's index.
    voices: Vec<Option<Box<Voice>>>,
    /// By the room's index.
    floors: Vec<Option<(RoomKey, Floor)>>,
    /// Who gets the track chosen for last, where that is not everybody.
    chosen: Vec<Subscriber>,
}

impl Voice {
    fn sound(&self) -> Sound {
        let meter = &self.meter;
        Sound { is_active: meter.is_active(), is_talking: meter.is_talking(), loudness: meter.loudness() }
    }
}

impl WorkerCore {
    /// So many voices of a room are heard at once; 0: all. Of a worker that has none yet.
    pub fn set_voices_heard(&mut self, heard: usize) {
        self.voices.heard = heard;
    }

    pub(super) fn close_track(&mut self, track: TrackKey) {
        self.voices.forget(track);
        self.stop_recording(track);
        self.tracks.remove(track);
    }
}

impl Voices {
    /// A track's fresh packets are about to be planned: which of the local subscribers get them. What is to be sent before
    /// them is put in front.
    pub(super) fn choose<'a>(
        &'a mut self,
        now: Instant,
        route: &Route,
        local: &'a [Subscriber],
        track: &mut Track,
    ) -> Audience<'a> {
        let everybody = Audience { subscribers: local, preroll: None };
        let (Some(of), heard) = (&route.voice, self.heard) else { return everybody };
        let (voice, floor) = self.ensure(track.key, of);
        for packet in track.fresh.iter().filter_map(|fresh| track.packet(fresh.encoding, fresh.seq)) {
            if let Some(level) = level(packet.exts) {
                voice.has_level = true;
                voice.meter.handle_level(now, level);
            }
        }
        if heard == 0 {
            return everybody;
        }
        let (before, highest) = (voice.hearers, voice.newest);
        voice.newest = track.fresh.iter().map(|fresh| fresh.seq).fold(highest, u64::max);
        let is_late = voice.newest == highest;
        voice.hearers = match voice.has_level {
            true => floor.handle_packet(now, track.key, of, voice.sound()),
            // Nobody can tell: it counts as loud, and is heard in any case.
            false => {
                floor.handle_packet(now, track.key, of, Sound::LOUD);
                Hearers::All
            }
        };
        let seen = (floor.changes(), route.pin_changes);
        // Who was heard by everybody, and is, has nothing to catch up on.
        let is_steady = before == Hearers::All && voice.hearers == Hearers::All;
        let catches_up = voice.seen != seen && !is_steady;
        if catches_up && is_late {
            // Who hears it anew would begin with what is behind the rest. The next packet makes up for it.
            voice.hearers = before;
            return Audience { subscribers: &[], preroll: None };
        }
        voice.seen = seen;
        let preroll = catches_up.then(|| add_preroll(track, highest));
        let (hearers, room) = (voice.hearers, of.room);
        if hearers == Hearers::All {
            return Audience { subscribers: local, preroll };
        }
        self.chosen.clear();
        if hearers == Hearers::Speakers || !route.pins.is_empty() {
            let floor = floor_of(&self.floors, room).filter(|_| hearers == Hearers::Speakers);
            let speaks = |subscriber: &Subscriber| floor.is_some_and(|floor| floor.speaks(subscriber.session));
            self.chosen.extend(local.iter().filter(|subscriber| speaks(subscriber) || route.is_pinned(subscriber)));
        }
        Audience { subscribers: &self.chosen, preroll }
    }

    /// The track ends.
    fn forget(&mut self, track: TrackKey) {
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
            let floor = floor_of(&self.floors, voice.room)?;
            let mut except = pins(voice.track);
            except.extend(floor.speakers().filter(|_| voice.hearers == Hearers::Speakers));
            Some(Unheard { track: voice.track, except })
        });
        unheard.collect()
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
            Box::new(Voice { track, room: of.room, meter, has_level: false, hearers: Hearers::All, seen, newest: 0 })
        });
        (voice, floor)
    }
}

fn floor_of(floors: &[Option<(RoomKey, Floor)>], room: RoomKey) -> Option<&Floor> {
    let (key, floor) = floors.get(room.index as usize)?.as_ref()?;
    (*key == room).then_some(floor)
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

/// Puts the packets before the fresh ones in front of them; how many there are. Fresh are those that came after the one
/// of the number `highest`: what is late has its place in front, or none.
fn add_preroll(track: &mut Track, highest: u64) -> u8 {
    track.fresh.retain(|fresh| fresh.seq > highest);
    track.copied = track.fresh.len();
    let first = track.fresh.iter().min_by_key(|fresh| fresh.seq).copied();
    let Some((at, first)) = first.and_then(|at| Some((at, track.packet(at.encoding, at.seq)?.meta))) else { return 0 };
    let ticks_max = PREROLL.as_millis() as u32 * (first.format.clock_rate_hz() / 1000);
    let belongs = |packet: &Packet<'_>| {
        let age = first.timestamp.wrapping_sub(packet.meta.timestamp);
        packet.meta.source == first.source && age <= ticks_max
    };
    let mut preroll = [at; PREROLL_PACKETS_MAX];
    let room = PREROLL_PACKETS_MAX.min(track.fresh.capacity() - track.fresh.len());
    let earlier = (0..at.seq).rev().take(room).filter_map(|seq| track.packet(at.encoding, seq));
    let mut count = 0;
    for packet in earlier.take_while(belongs) {
        preroll[count].seq = packet.meta.seq;
        count += 1;
    }
    // In order, and without memory being taken. Other workers have got them.
    track.fresh.extend(preroll[..count].iter().rev());
    track.fresh.rotate_right(count);
    track.copied += count;
    count as u8
}
