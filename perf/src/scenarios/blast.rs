//! A blast: packets protected beforehand, sent as fast as asked. What it costs the server to take them in.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::runtime::clock;
use tramline::wire::rtp::{FIXED_HEADER_BYTES, Fixed};

use crate::cpu::CpuReading;
use crate::entry::{Entered, Wish};
use crate::flow::{Flow, Steady};
use crate::herd::Herd;
use crate::net::{Batch, Reader, TRAIN_SEGMENTS_MAX};
use crate::peer::Peer;
use crate::plan::connections;
use crate::report::{Condition, Figure, Measured, Report, Round, ratio};
use crate::scenarios::one_to_many::people;
use crate::sdp::{Agreed, Section};
use crate::site::{Site, SiteArgs, condition};
use crate::source::{OVERHEAD_ROOM, write_packet};
use crate::stamp::{Frame, Stamp};
use crate::tally::Tally;
use crate::whip::Purpose;

/// Packets are kept in memory; a quarter of a gigabyte of full ones.
const COUNT_MAX: usize = 200_000;
/// No blast lasts longer.
const SECONDS_MAX: f64 = 60.0;
/// Packets of one frame: a keyframe now and then keeps subscribers served.
const FRAME_PACKETS: u64 = 10;
/// Frames from one keyframe to the next.
const KEY_EVERY: u64 = 10;
/// Packets handed to the kernel at once; between them the peer's timers and the pace are looked at.
const CHUNK: usize = 64;
/// Longest wait for the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// What has not been read by then is lost.
const DRAIN: Duration = Duration::from_millis(500);
/// Packets sent slowly first, so that the track is known and subscribers are bound to it.
const FIRST: usize = 200;

/// Settings of the scenario.
#[derive(clap::Args, Clone, Debug)]
pub struct Blast {
    /// Packets of the blast
    #[arg(long, default_value_t = 100_000)]
    count: usize,
    /// Packets per second; 0 is as fast as the kernel takes them
    #[arg(long, short = 'r', default_value_t = 0)]
    rate: u32,
    /// RTP header and payload of a packet in bytes, without the SRTP tag
    #[arg(long, default_value_t = 1200)]
    packet_bytes: usize,
    /// Packets per send (UDP_SEGMENT): how the server's network card would hand them over
    #[arg(long, default_value_t = 16)]
    train: usize,
    /// Subscribers that receive the blast
    #[arg(long, short = 'n', default_value_t = 0)]
    subscribers: usize,
    /// Write the report as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
}

/// The publisher, outside of any herd: nothing else is in its thread.
struct Gun {
    socket: UdpSocket,
    peer: Peer,
    agreed: Agreed,
    ssrc: Ssrc,
    reader: Reader,
    batch: Batch,
}

impl Blast {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let steady =
            Steady { rate: 1000, burst: 1, packet_bytes: self.packet_bytes, keyframe_every: 1000, bare_vp8: false };
        let flow = Flow::Steady(steady);
        flow.check()?;
        if !(1..=COUNT_MAX).contains(&self.count) || !(1..=TRAIN_SEGMENTS_MAX).contains(&self.train) {
            bail!("a blast has 1 to {COUNT_MAX} packets, in trains of 1 to {TRAIN_SEGMENTS_MAX}");
        }
        let site = Site::open(&self.site, self.subscribers + 1)?;
        let (publisher, subscribers) = people(flow, self.subscribers);
        let all = connections(&self.site.room, &[publisher, subscribers].concat(), site.is_one_way(), 0);
        let mut gun = Gun::connect(&site, &all[0].room, self.packet_bytes)?;
        // The track comes to life before the subscribers ask for it: one-way doors want it so.
        let first = self.protect(&gun, &site, 0, FIRST);
        gun.fire(&first, 1, 1000, clock::now() + PATIENCE);
        let joined = site.admit_all(&all[1..])?;
        let second = self.protect(&gun, &site, FIRST, FIRST);
        gun.fire(&second, 1, 1000, clock::now() + PATIENCE);
        if self.subscribers > 0 {
            site.wait_until_served()?;
        }
        let (round, figures) = self.measure(&site, &mut gun)?;
        let rate = if self.rate == 0 { "as fast as can be".to_owned() } else { format!("{}/s", self.rate) };
        let Self { count, packet_bytes, train, subscribers, .. } = *self;
        let load = format!("{count} packets of {packet_bytes} B {rate} in trains of {train}, 1 to {subscribers}");
        let condition = condition("blast", load, subscribers, self.rate.into());
        let condition = Condition { packet_bytes, burst: train as u32, ..condition };
        Ok(site.close(condition, vec![round], Some(joined), figures))
    }

    fn measure(&self, site: &Site, gun: &mut Gun) -> Result<(Round, Vec<Figure>)> {
        // Stamped now, sent a moment later: latency means nothing here, so the window is open from now on.
        site.herds().iter().for_each(Herd::clear);
        site.course.open(clock::now());
        std::thread::sleep(Duration::from_millis(50));
        let packets = self.protect(gun, site, 2 * FIRST, self.count);
        let drops: u64 = site.herds().iter().map(Herd::drops).sum();
        let (softirqs, server) = (CpuReading::of_softirqs(), site.read_cpu()?);
        let generator = CpuReading::of_process(std::process::id())?;
        let began: Instant = clock::now();
        let sent = gun.fire(&packets, self.train, self.rate, began + Duration::from_secs_f64(SECONDS_MAX));
        let fired = clock::now().saturating_duration_since(began).as_secs_f64();
        std::thread::sleep(DRAIN);
        let server = site.read_cpu()?.since(&server);
        let mut tally = Tally::new()?;
        for herd in site.herds() {
            tally.add(&herd.tallies().0)?;
        }
        tally.counts.published = sent;
        let round = Round::new(&Measured {
            seconds: fired,
            subscribers: self.subscribers,
            drops: site.herds().iter().map(Herd::drops).sum::<u64>().saturating_sub(drops),
            tally: &tally,
            server: &server,
            generator: &CpuReading::of_process(std::process::id())?.since(&generator),
            softirqs: &CpuReading::of_softirqs().since(&softirqs),
        });
        let figures = vec![
            Figure::new("sent", sent as f64, "packets"),
            Figure::new("refused by the kernel", gun.batch.refused as f64, "packets"),
            Figure::new("sent per second", ratio(sent as f64, fired), "packets/s"),
            Figure::new("server CPU per packet sent to it", ratio(server.total_ns() as f64, sent as f64), "ns"),
        ];
        Ok((round, figures))
    }

    /// Packets `from..from + count`, protected, one after another in the order they are sent.
    fn protect(&self, gun: &Gun, site: &Site, from: usize, count: usize) -> Vec<Vec<u8>> {
        let Some(srtp) = gun.peer.srtp_sender() else { return Vec::new() };
        let sent_ns = site.course.ns(clock::now());
        let packet = |number: u64| {
            let mut out = vec![0; self.packet_bytes + OVERHEAD_ROOM];
            let frame = number / FRAME_PACKETS;
            let is_last = (number + 1).is_multiple_of(FRAME_PACKETS);
            let timestamp = (frame * 3000) as u32;
            let fixed = Fixed { marker: is_last, pt: gun.agreed.pt, seq: number as u16, timestamp, ssrc: gun.ssrc };
            let is_start = number.is_multiple_of(FRAME_PACKETS);
            let content = Frame { number: frame, is_start, is_key: frame.is_multiple_of(KEY_EVERY), is_bare: false };
            let stamp = Stamp { source: 0, number, sent_ns };
            let payload_len = self.packet_bytes - FIXED_HEADER_BYTES;
            let (header_len, len) = write_packet(&mut out, &fixed, None, (stamp, Some(content)), payload_len)?;
            let len = srtp.protect_rtp(&mut out, header_len, len, number).ok()?;
            out.truncate(len);
            Some(out)
        };
        (from as u64..(from + count) as u64).filter_map(packet).collect()
    }
}

impl Gun {
    /// A publisher that has its keys.
    fn connect(site: &Site, room: &str, packet_bytes: usize) -> Result<Self> {
        let ssrc = Ssrc(rand::random());
        let sections = [Section { kind: MediaKind::Video, sends: Some(ssrc) }];
        let wish = Wish { sections: &sections, takes_trains: false };
        let Entered { socket, peer, sections, seat, .. } =
            site.entry().enter(Purpose::Publish, room, "publisher", &wish)?;
        site.keep(seat);
        let Some(Some(agreed)) = sections.first().copied() else { bail!("the publisher may not send") };
        let batch = Batch::new(CHUNK * (packet_bytes + OVERHEAD_ROOM));
        let mut gun = Self { socket, peer, agreed, ssrc, reader: Reader::new(false), batch };
        let until = clock::now() + PATIENCE;
        while gun.peer.srtp_sender().is_none() {
            if let Some(failure) = gun.peer.failure() {
                bail!("the publisher: {failure}");
            }
            if clock::now() >= until {
                bail!("the publisher gets no keys");
            }
            gun.tend();
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(gun)
    }

    /// Checks and answers, as any peer.
    fn tend(&mut self) {
        let (now, Self { socket, peer, reader, .. }) = (clock::now(), self);
        let mut send = |out: &[u8]| drop(socket.send(out));
        reader.read(socket, |_, bytes| {
            peer.handle_datagram(now, bytes, &mut send);
        });
        peer.handle_timeout(now, &mut send);
    }

    /// Sends packets at a rate, 0 being none; gives how many the kernel took. Ends at `until`.
    fn fire(&mut self, packets: &[Vec<u8>], train: usize, rate: u32, until: Instant) -> u64 {
        let began = clock::now();
        let (mut sent, mut done) = (0, 0);
        // Slow fire goes out evenly, fast fire in whole chunks.
        let chunk = if rate == 0 { CHUNK } else { CHUNK.min((rate as usize / 1000).max(1)).max(train.min(CHUNK)) };
        for chunk in packets.chunks(chunk) {
            let due = began + Duration::from_secs_f64(done as f64 / f64::from(rate.max(1)));
            let now = clock::now();
            if now >= until {
                break;
            }
            if rate > 0 && now < due {
                std::thread::sleep(due - now);
            }
            for packet in chunk {
                self.batch.push(None, train, packet.len(), |out| {
                    out.copy_from_slice(packet);
                    Some(packet.len())
                });
            }
            sent += self.batch.flush(&self.socket);
            done += chunk.len();
            self.tend();
        }
        sent
    }
}
