//! Voices and noises in virtual time, and who has the floor.

use super::*;
use crate::runtime::clock;

const PACKET: Duration = Duration::from_millis(20);
const DECISION: Duration = Duration::from_millis(300);

/// Voices in virtual time, decided upon as a room does.
struct Room<const N: usize> {
    now: Instant,
    start: Instant,
    meters: [VoiceMeter; N],
    speaker: DominantSpeaker<usize>,
    decided_at: Instant,
    /// Who took over, when.
    turns: Vec<(Duration, usize)>,
}

impl<const N: usize> Room<N> {
    fn new() -> Self {
        let start = clock::now();
        let meters = std::array::from_fn(|_| VoiceMeter::default());
        Self { now: start, start, meters, speaker: DominantSpeaker::default(), decided_at: start, turns: Vec::new() }
    }

    /// Everybody at these levels; words last 280 ms, with 60 ms between them in which only the room is heard.
    fn talk(&mut self, time: Duration, levels: [u8; N]) {
        for packet in 0..(time.as_millis() / PACKET.as_millis()) {
            let is_between = packet % 17 >= 14;
            for (meter, level) in self.meters.iter_mut().zip(levels) {
                let level = if is_between { level.max(75) } else { level };
                meter.handle_level(self.now, AudioLevel { voice: false, level });
            }
            self.now += PACKET;
            if self.now >= self.decided_at + DECISION {
                self.decided_at = self.now;
                let activities = self.meters.iter().map(|meter| meter.activity(self.now)).enumerate();
                if self.speaker.update(activities)
                    && let Some(who) = self.speaker.current()
                {
                    self.turns.push((self.now - self.start, who));
                }
            }
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_new_speaker_has_the_floor_within_about_a_second() {
    let mut room = Room::<3>::new();
    room.talk(ms(5_000), [30, 80, 80]);
    assert_eq!(room.turns.iter().map(|(_, who)| *who).collect::<Vec<_>>(), [0]);
    assert!(room.turns[0].0 <= ms(1_200), "{:?}", room.turns);
    room.talk(ms(3_000), [80, 80, 35]);
    assert_eq!(room.speaker.current(), Some(2));
    assert!(room.turns[1].0 <= ms(5_000 + 1_200), "{:?}", room.turns);
}

#[test]
fn a_noise_does_not_take_the_floor() {
    for noise_ms in [20, 100, 200, 300] {
        let mut room = Room::<2>::new();
        room.talk(ms(4_000), [30, 80]);
        // A door, in a pause and into speech.
        room.talk(ms(1_500), [80, 80]);
        room.talk(ms(noise_ms), [80, 3]);
        room.talk(ms(2_000), [80, 80]);
        room.talk(ms(1_000), [30, 80]);
        room.talk(ms(noise_ms), [30, 3]);
        room.talk(ms(3_000), [30, 80]);
        assert_eq!(room.turns.len(), 1, "{noise_ms} ms: {:?}", room.turns);
    }
}

#[test]
fn two_who_talk_at_once_do_not_flicker() {
    let mut room = Room::<2>::new();
    room.talk(ms(3_000), [35, 80]);
    room.talk(ms(10_000), [35, 25]);
    assert_eq!(room.turns.len(), 1, "who has the floor keeps it while he talks, {:?}", room.turns);
    room.talk(ms(1_500), [80, 25]);
    assert_eq!(room.speaker.current(), Some(1));
}

#[test]
fn silence_keeps_the_last_speaker_until_he_leaves() {
    let mut room = Room::<2>::new();
    room.talk(ms(2_000), [30, 80]);
    room.talk(ms(10_000), [127, 127]);
    assert_eq!(room.speaker.current(), Some(0));
    assert!(room.speaker.update([(1, Activity::default())].into_iter()));
    assert_eq!(room.speaker.current(), None);
}

#[test]
fn who_was_forgotten_has_the_floor_again_when_he_speaks() {
    let mut room = Room::<2>::new();
    room.talk(ms(2_000), [30, 80]);
    room.talk(ms(2_000), [80, 80]);
    assert!(room.speaker.clear() && !room.speaker.clear());
    room.talk(ms(1_000), [80, 80]);
    assert_eq!(room.speaker.current(), None);
    room.talk(ms(2_000), [30, 80]);
    assert_eq!(room.turns.iter().map(|(_, who)| *who).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn a_hum_becomes_noise_and_a_voice_above_it_is_heard() {
    let mut room = Room::<1>::new();
    let hum = |room: &mut Room<1>, seconds: u64| {
        for _ in 0..seconds * 50 {
            room.meters[0].handle_level(room.now, AudioLevel { voice: false, level: 45 });
            room.now += PACKET;
        }
    };
    hum(&mut room, 5);
    assert!(room.meters[0].is_active(), "it may be a voice");
    hum(&mut room, 60);
    assert!(!room.meters[0].is_active() && room.meters[0].activity(room.now) == Activity::default());
    room.talk(ms(1_000), [20]);
    assert!(room.meters[0].activity(room.now).long >= LONG_MIN);
}

#[test]
fn who_detects_voices_is_believed_up_to_a_point() {
    let mut meter = VoiceMeter::default();
    let now = clock::now();
    meter.handle_level(now, AudioLevel { voice: false, level: 45 });
    assert!(meter.is_active(), "it never said that it detects voices");
    meter.handle_level(now + PACKET, AudioLevel { voice: true, level: 45 });
    meter.handle_level(now + 2 * PACKET, AudioLevel { voice: false, level: 45 });
    assert!(!meter.is_active());
    meter.handle_level(now + 3 * PACKET, AudioLevel { voice: false, level: 25 });
    assert!(meter.is_active());
}

#[test]
fn a_voice_fades_when_no_packets_come() {
    let mut room = Room::<1>::new();
    room.talk(ms(2_000), [30]);
    let at = |ms| room.meters[0].activity(room.now + Duration::from_millis(ms));
    assert!(at(0).long >= 6 && at(0).medium >= 2, "{:?}", at(0));
    assert_eq!((at(300).immediate, at(300).medium), (0, 0));
    assert_eq!(at(2_000), Activity::default());
    assert_eq!(at(1 << 40), Activity::default());
}

#[test]
fn packets_of_sixty_ms_are_as_active_as_those_of_twenty() {
    let mut meter = VoiceMeter::default();
    let now = clock::now();
    for packet in 0..40 {
        meter.handle_level(now + 3 * PACKET * packet, AudioLevel { voice: true, level: 30 });
    }
    assert_eq!(meter.activity(now + 3 * PACKET * 39).long, LONG_BLOCKS);
}
