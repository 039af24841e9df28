//! Who sends what to whom, and how many connections that takes through the door in use.
//!
//! A door with rooms takes one connection per person. WHIP and WHEP are one-way and carry one publisher each: there, a
//! person is one connection for what they send and one for each person they hear, and each publisher has a room.

use tramline::base::format::MediaKind;

use crate::flow::Flow;
use crate::source::Track;
use crate::whip::Purpose;

/// One of those in a room.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// What they send.
    pub sends: Vec<Flow>,
    /// Where in their interval: `None` is anywhere.
    pub phase: Option<f64>,
    /// Whether they receive what the others send.
    pub listens: bool,
}

/// One connection to make.
#[derive(Clone, Debug)]
pub struct Connection {
    /// For doors that ask.
    pub purpose: Purpose,
    /// The room.
    pub room: String,
    /// A name within the room.
    pub user: String,
    /// What it sends.
    pub sends: Vec<Track>,
    /// What it receives.
    pub receives: Vec<MediaKind>,
}

/// The connections of one room, publishers first. `first_id` is the id of its first track.
pub fn connections(room: &str, people: &[Person], is_one_way: bool, first_id: u32) -> Vec<Connection> {
    let mut ids = first_id..;
    let mut tracks = |person: &Person| -> Vec<Track> {
        let track = |(flow, id): (&Flow, u32)| Track { flow: *flow, id, phase: person.phase };
        person.sends.iter().zip(&mut ids).map(track).collect()
    };
    let sends: Vec<Vec<Track>> = people.iter().map(&mut tracks).collect();
    let kinds = |at: usize| sends[at].iter().map(|track| track.flow.kind());
    let publishers: Vec<usize> = (0..people.len()).filter(|&at| !sends[at].is_empty()).collect();
    let others = |at: usize| publishers.iter().copied().filter(move |&other| other != at);
    let mut out = Vec::new();
    for (at, person) in people.iter().enumerate() {
        let user = format!("peer-{at}");
        let purpose = if sends[at].is_empty() { Purpose::Play } else { Purpose::Publish };
        if !is_one_way {
            let heard = others(at).filter(|_| person.listens);
            let receives = heard.flat_map(kinds).collect();
            out.push(Connection { purpose, room: room.to_owned(), user, sends: sends[at].clone(), receives });
            continue;
        }
        if purpose == Purpose::Publish {
            let room = own_room(room, at, publishers.len());
            out.push(Connection { purpose, room, user, sends: sends[at].clone(), receives: Vec::new() });
        }
        for other in others(at).filter(|_| person.listens) {
            let (room, user) = (own_room(room, other, publishers.len()), format!("peer-{at}-hears-{other}"));
            let receives = kinds(other).collect();
            out.push(Connection { purpose: Purpose::Play, room, user, sends: Vec::new(), receives });
        }
    }
    out.sort_by_key(|connection| connection.purpose == Purpose::Play);
    out
}

/// The room of one publisher where each needs its own.
fn own_room(room: &str, publisher: usize, publishers: usize) -> String {
    if publishers == 1 { room.to_owned() } else { format!("{room}-{publisher}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Camera, Voice};

    fn flows() -> Vec<Flow> {
        let camera = Camera { video_kbps: 1000, fps: 30, keyframe_seconds: 10 };
        let voice = Voice { audio_rate: 50, audio_bytes_min: 80, audio_bytes_max: 120 };
        vec![Flow::Camera(camera), Flow::Voice(voice)]
    }

    fn meeting(size: usize) -> Vec<Person> {
        vec![Person { sends: flows(), phase: None, listens: true }; size]
    }

    #[test]
    fn a_meeting_is_one_connection_each_with_everybody_elses_tracks() {
        let all = connections("m", &meeting(3), false, 10);
        assert_eq!(all.len(), 3);
        let ids: Vec<u32> = all.iter().flat_map(|one| one.sends.iter().map(|track| track.id)).collect();
        assert_eq!(ids, [10, 11, 12, 13, 14, 15]);
        assert!(all.iter().all(|one| one.room == "m" && one.receives.len() == 4 && one.purpose == Purpose::Publish));
    }

    #[test]
    fn through_one_way_doors_it_is_a_connection_per_pair() {
        let all = connections("m", &meeting(3), true, 0);
        let (publish, play): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.purpose == Purpose::Publish);
        assert_eq!((publish.len(), play.len()), (3, 6));
        assert!(all[..3].iter().all(|one| one.purpose == Purpose::Publish), "publishers come first");
        assert_eq!(play.iter().filter(|one| one.room == "m-0").count(), 2);
        assert!(play.iter().all(|one| one.receives == [MediaKind::Video, MediaKind::Audio] && one.sends.is_empty()));
    }

    #[test]
    fn one_publisher_needs_no_room_of_its_own() {
        let mut people = vec![Person { sends: flows()[..1].to_vec(), ..Person::default() }];
        people.extend(vec![Person { listens: true, ..Person::default() }; 2]);
        for is_one_way in [false, true] {
            let all = connections("m", &people, is_one_way, 0);
            assert_eq!(all.iter().map(|one| one.receives.len()).collect::<Vec<_>>(), [0, 1, 1], "{is_one_way}");
            assert!(all.iter().all(|one| one.room == "m"));
        }
    }
}
