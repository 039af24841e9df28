//! Places on the floor: who takes one, who keeps it, who gives way.

use super::*;
use crate::base::ids::RoomKey;
use crate::runtime::clock;

const HEARD: usize = 2;
const PACKET: Duration = Duration::from_millis(20);
const QUIET: Sound = Sound { is_active: false, is_talking: false, loudness: 90 };

fn talking(loudness: u8) -> Sound {
    Sound { is_active: true, is_talking: true, loudness }
}

struct Room {
    floor: Floor,
    now: Instant,
}

impl Room {
    /// With so many voices.
    fn new(voices: usize) -> Self {
        let mut floor = Floor::new(HEARD);
        (0..voices).for_each(|_| floor.enter());
        Self { floor, now: clock::now() }
    }

    fn packet(&mut self, who: u32, sound: Sound) -> Hearers {
        let publisher = SessionKey { index: who, epoch: 0 };
        let voice = Voice { room: RoomKey { index: 0, epoch: 0 }, publisher };
        self.floor.handle_packet(self.now, TrackKey { index: who, epoch: 0 }, &voice, sound)
    }

    /// For some time these speak; who hears each at the end.
    fn talk<const N: usize>(&mut self, ms: u64, sounds: [(u32, Sound); N]) -> [Hearers; N] {
        let mut last = [Hearers::Nobody; N];
        for _ in 0..ms / 20 {
            self.now += PACKET;
            last = sounds.map(|(who, sound)| self.packet(who, sound));
        }
        last
    }
}

#[test]
fn in_a_small_room_everybody_is_heard() {
    let mut room = Room::new(HEARD);
    assert_eq!(room.talk(100, [(0, QUIET), (1, QUIET)]), [Hearers::All; 2]);
    let before = room.floor.changes();
    room.floor.enter();
    assert_ne!(room.floor.changes(), before, "from now on somebody is withheld");
    assert_eq!(room.talk(100, [(0, QUIET), (1, talking(90))]), [Hearers::Nobody, Hearers::All]);
    assert!(!room.floor.leave(TrackKey { index: 7, epoch: 0 }));
    assert_eq!(room.talk(20, [(0, QUIET)]), [Hearers::All]);
}

#[test]
fn who_speaks_hears_the_reserve_instead_of_himself() {
    let mut room = Room::new(9);
    let heard = room.talk(200, [(0, talking(90)), (1, talking(90)), (2, talking(90)), (3, talking(90))]);
    assert_eq!(heard, [Hearers::All, Hearers::All, Hearers::Speakers, Hearers::Nobody]);
    let speaks = |room: &Room, index| room.floor.speaks(SessionKey { index, epoch: 0 });
    assert_eq!([0, 1, 2, 3].map(|who| speaks(&room, who)), [true, true, false, false]);
}

#[test]
fn who_pauses_keeps_the_place_until_somebody_needs_it() {
    let mut room = Room::new(9);
    room.talk(200, [(0, talking(90)), (1, talking(90)), (2, talking(90))]);
    assert_eq!(room.talk(3_000, [(0, QUIET), (1, talking(90))]), [Hearers::All; 2]);
    // The reserve needs it, and the one who paused is the reserve from now on.
    assert_eq!(room.talk(20, [(2, talking(80)), (0, QUIET)]), [Hearers::All, Hearers::Speakers]);
    // A fourth puts him out.
    assert_eq!(room.talk(20, [(3, talking(80)), (0, QUIET)]), [Hearers::Speakers, Hearers::Nobody]);
    assert_eq!(room.talk(20, [(0, talking(80))]), [Hearers::Nobody], "now all others speak");
}

#[test]
fn a_pause_of_some_seconds_ends_it_though_nobody_needs_the_place() {
    let mut room = Room::new(9);
    room.talk(200, [(0, talking(90)), (1, talking(90)), (2, talking(90))]);
    assert_eq!(room.talk(HOLD.as_millis() as u64, [(0, QUIET), (1, talking(90))]), [Hearers::Nobody, Hearers::All]);
    assert_eq!(room.talk(20, [(2, talking(90))]), [Hearers::All], "the reserve came forward");
}

#[test]
fn silence_never_gets_a_place() {
    let mut room = Room::new(9);
    assert_eq!(room.talk(2_000, [(0, QUIET), (1, QUIET)]), [Hearers::Nobody; 2]);
    let noise = Sound { is_active: true, is_talking: false, loudness: 120 };
    assert_eq!(room.talk(20, [(0, noise)]), [Hearers::Nobody], "one loud packet is no voice");
}

#[test]
fn between_voices_only_a_clearly_louder_one_takes_over() {
    let mut room = Room::new(9);
    room.talk(200, [(0, talking(90)), (1, talking(80)), (2, talking(85))]);
    let changes = room.floor.changes();
    let louder = talking(80 + MARGIN_DB - 1);
    assert_eq!(room.talk(2_000, [(0, talking(90)), (1, talking(80)), (2, louder)])[2], Hearers::Speakers);
    assert_eq!(room.floor.changes(), changes, "nothing flickers");
    let louder = talking(80 + MARGIN_DB);
    assert_eq!(
        room.talk(40, [(0, talking(90)), (1, talking(80)), (2, louder)])[1..],
        [Hearers::Speakers, Hearers::All]
    );
}

#[test]
fn the_order_in_which_the_loudest_begin_does_not_matter() {
    let levels = [(0, talking(70)), (1, talking(78)), (2, talking(86)), (3, talking(94)), (4, talking(102))];
    let mut reversed = levels;
    reversed.reverse();
    let heard = Room::new(20).talk(500, levels);
    assert_eq!(heard, [Hearers::Nobody, Hearers::Nobody, Hearers::Speakers, Hearers::All, Hearers::All]);
    let mut again = Room::new(20).talk(500, reversed);
    again.reverse();
    assert_eq!(heard, again);
}

#[test]
fn who_leaves_makes_room() {
    let mut room = Room::new(4);
    room.talk(200, [(0, talking(90)), (1, talking(90)), (2, talking(90))]);
    assert!(!room.floor.leave(TrackKey { index: 0, epoch: 0 }));
    assert_eq!(room.talk(20, [(2, talking(90))]), [Hearers::All]);
    let tracks = [1, 2, 3].map(|index| TrackKey { index, epoch: 0 });
    assert_eq!(tracks.map(|track| room.floor.leave(track)), [false, false, true]);
}
