//! Many small rooms that know nothing of each other: latency under a load made of many small turns.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::crowd::{Crowd, Outcome};
use crate::flow::{Camera, Flow, Voice};
use crate::load::{Measurement, Meter, Rounds};
use crate::plan::{Connection, Person, connections};
use crate::report::{Figure, Latency, Report};
use crate::site::{Site, SiteArgs, condition};
use crate::whip::Purpose;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Rooms {
    /// Rooms
    #[arg(long, default_value_t = 20)]
    rooms: usize,
    /// People in each, each sending to all others of the room
    #[arg(long, short = 'n', default_value_t = 10)]
    peers: usize,
    #[command(flatten)]
    camera: Camera,
    #[command(flatten)]
    voice: Voice,
    /// Sound without video
    #[arg(long, conflicts_with = "no_audio")]
    no_video: bool,
    /// Video without sound
    #[arg(long)]
    no_audio: bool,
    /// Listeners that join the rooms per second during the last round, one room after another
    #[arg(long, default_value_t = 0.0)]
    joins_per_second: f64,
    /// How many of them
    #[arg(long, default_value_t = 200)]
    joins: usize,
    /// Seconds each of them stays
    #[arg(long, default_value_t = 1.0)]
    stay: f64,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    site: SiteArgs,
}

impl Rooms {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        if self.rooms == 0 || self.peers < 2 {
            bail!("there is a room, and two people or more in each");
        }
        let flows = self.flows();
        flows.iter().try_for_each(Flow::check)?;
        let seats = self.rooms * self.peers * self.peers + self.joins;
        let site = Site::open(&self.site, seats)?;
        let person = Person { sends: flows.clone(), phase: None, listens: true };
        let people = vec![person; self.peers];
        let room = |at: usize| format!("{}-{at}", self.site.room);
        let first_id = |at: usize| (at * self.peers * flows.len()) as u32;
        let all: Vec<Connection> =
            (0..self.rooms).flat_map(|at| connections(&room(at), &people, site.is_one_way(), first_id(at))).collect();
        let joined = site.admit_all(&by_purpose(all))?;
        site.wait_until_served()?;
        let read_cpu = || site.read_cpu();
        let meter = site.meter(self.peers - 1, &read_cpu);
        let mut rounds = self.rounds.measure(&meter, &mut || site.tend())?;
        let mut figures = Vec::new();
        if self.joins_per_second > 0.0 {
            let mut listening = people;
            listening.push(Person { listens: true, ..Person::default() });
            let visit = |nth: usize| visitor(&room(nth % self.rooms), nth, &listening, site.is_one_way());
            let (measurement, outcome) = self.storm(&site, &meter, &visit)?;
            rounds.push(measurement.round);
            figures = outcome.figures();
            let Latency { p50, p99, p999, .. } = Latency::of(&measurement.guests);
            let theirs = [("p50", p50), ("p99", p99), ("p99.9", p999)];
            figures.extend(theirs.map(|(name, us)| Figure::new(format!("visitors' media {name}"), us, "us")));
        }
        let rate = flows.iter().map(Flow::packets_per_s).sum::<f64>() * (self.rooms * self.peers) as f64;
        Ok(site.close(condition("rooms", self.words(), self.peers - 1, rate), rounds, Some(joined), figures))
    }

    /// Measures a round while others join.
    fn storm(
        &self,
        site: &Site,
        meter: &Meter<'_>,
        visit: &(dyn Fn(usize) -> Connection + Sync),
    ) -> Result<(Measurement, Outcome)> {
        let stay = Duration::from_secs_f64(self.stay);
        let crowd = Crowd { joins_per_s: self.joins_per_second, total: self.joins, stay };
        meter.measure_beside(self.rounds.duration, &mut || site.tend(), || crowd.run(site, visit))
    }

    fn flows(&self) -> Vec<Flow> {
        let video = (!self.no_video).then_some(Flow::Camera(self.camera));
        let audio = (!self.no_audio).then_some(Flow::Voice(self.voice));
        video.into_iter().chain(audio).collect()
    }

    fn words(&self) -> String {
        let Camera { video_kbps, fps, .. } = self.camera;
        let video =
            if self.no_video { String::new() } else { format!(", video {video_kbps} kbit/s at {fps} frames/s") };
        let audio = if self.no_audio { String::new() } else { format!(", audio {}/s", self.voice.audio_rate) };
        let storm = match self.joins_per_second {
            0.0 => String::new(),
            rate => format!(", {} join at {rate}/s in the last round", self.joins),
        };
        format!("{} rooms of {}{video}{audio}{storm}", self.rooms, self.peers)
    }
}

/// Somebody who listens to a room: the last one of `listening`.
fn visitor(room: &str, nth: usize, listening: &[Person], is_one_way: bool) -> Connection {
    let user = format!("visitor-{nth}");
    let last = connections(room, listening, is_one_way, 0).pop();
    last.map_or_else(|| unreachable!("a room has people"), |connection| Connection { user, ..connection })
}

/// Publishers of all rooms before players.
fn by_purpose(mut all: Vec<Connection>) -> Vec<Connection> {
    all.sort_by_key(|connection| connection.purpose == Purpose::Play);
    all
}
