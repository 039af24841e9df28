//! The floor: what the kernel and AES-GCM alone cost for the same packets to the same receivers.
//!
//! One thread copies each packet for each receiver, writes its numbers, encrypts it and sends it: as single datagrams,
//! or as trains with `--train`. There is no reading, no choosing and no feedback. Its CPU time is the yardstick.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tramline::base::format::MediaKind;
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::{SrtpReceiver, SrtpSender};
use tramline::runtime::affinity::{allowed_cores, pin_to};
use tramline::runtime::clock;
use tramline::wire::rtp::{FIXED_HEADER_BYTES, Fixed};

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::flow::{Flow, Steady};
use crate::herd::Herd;
use crate::load::{Ears, Meter, Rounds};
use crate::member::{Badge, Ear, Member};
use crate::net::{self, Batch, TRAIN_SEGMENTS_MAX};
use crate::receiver::{Hearing, Receiver};
use crate::report::{Condition, Report};
use crate::scenarios::audio_room::phase;
use crate::sdp::Agreed;
use crate::shared::lock;
use crate::site::condition;
use crate::source::{OVERHEAD_ROOM, write_packet};
use crate::stamp::{Frame, Stamp};
use crate::suite::Suite;
use crate::tally::Tally;

/// Messages per system call; few enough to stay in the cache with a burst of ten.
const FLUSH_MESSAGES: usize = 64;
const FLUSH_PACKETS: usize = 128;
/// As a source of a server's publisher: what is later is left out.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Payload type of all packets.
const PT: u8 = 96;

/// Settings of the floor.
#[derive(clap::Args, Clone, Debug)]
pub struct Floor {
    /// Receivers
    #[arg(long, short = 'n', default_value_t = 50)]
    subscribers: usize,
    /// Sources, each at the whole rate; the moments of their bursts are spread evenly over the interval
    #[arg(long, short = 'k', default_value_t = 1)]
    sources: usize,
    /// All sources send at the same moment
    #[arg(long)]
    together: bool,
    #[command(flatten)]
    steady: Steady,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    ears: Ears,
    /// Longest train in packets: 1 sends each packet by itself
    #[arg(long, default_value_t = 1)]
    train: usize,
    /// SRTP suite
    #[arg(long, value_enum, default_value_t = Suite::Gcm256)]
    suite: Suite,
}

impl Floor {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.rounds.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        Flow::Steady(self.steady).check()?;
        if !(1..=TRAIN_SEGMENTS_MAX).contains(&self.train) || self.sources == 0 || self.subscribers == 0 {
            bail!("a train has 1 to {TRAIN_SEGMENTS_MAX} packets; sources and subscribers are not 0");
        }
        let course = Arc::new(Course::new(clock::now()));
        let mut herds = self.ears.herds(&course)?;
        let socket = net::socket(Ipv4Addr::LOCALHOST.into(), false)?;
        let address = socket.local_addr()?;
        let mut targets = Vec::with_capacity(self.subscribers);
        for at in 0..self.subscribers {
            let (target, member) = self.receiver(address)?;
            targets.push(target);
            herds[at % herds.len()].admit(member)?;
        }
        let shared = Arc::new(Shared {
            tid: AtomicI32::new(0),
            refused: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            tally: Mutex::new(Tally::new()?),
        });
        let sender = self.sender(&course, &shared, targets, socket);
        let (ready, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("floor".to_owned()).spawn(move || sender.run(&ready))?;
        told.recv().context("the sender has ended")?;
        let tid = shared.tid.load(Ordering::Acquire);
        let read_cpu = || CpuReading::of_own_thread(tid);
        let meter = Meter {
            course: &course,
            herds: &herds,
            receivers: self.subscribers,
            read_cpu: &read_cpu,
            also: Some(&shared.tally),
        };
        let rounds = self.rounds.measure(&meter, &mut || Ok(()))?;
        course.stop();
        // A panic there was printed there.
        let _ = thread.join();
        herds.iter_mut().for_each(Herd::join);
        let unsent = (shared.refused.load(Ordering::Relaxed), shared.skipped.load(Ordering::Relaxed));
        let condition = self.condition();
        Ok(Report { condition, join_seconds: None, keyframe_requests: 0, unsent, figures: Vec::new(), rounds })
    }

    fn sender(&self, course: &Arc<Course>, shared: &Arc<Shared>, targets: Vec<Target>, socket: UdpSocket) -> Sender {
        let interval = Flow::Steady(self.steady).interval();
        let turn = |at| course.epoch() + interval.mul_f64(phase(at, self.sources, self.together));
        Sender {
            course: Arc::clone(course),
            shared: Arc::clone(shared),
            steady: self.steady,
            train: self.train,
            turns: (0..self.sources).map(|at| Turn { due: turn(at), number: 0 }).collect(),
            targets,
            socket,
            batch: Batch::new(FLUSH_PACKETS * (self.steady.packet_bytes + OVERHEAD_ROOM) * 2),
            plain: Vec::new(),
        }
    }

    fn receiver(&self, sender: SocketAddr) -> Result<(Target, Member)> {
        let suite = self.suite.srtp();
        let (key, salt) = (rand::random::<[u8; 32]>(), rand::random::<[u8; 14]>());
        let (key, salt) = (&key[..suite.key_len()], &salt[..suite.salt_len()]);
        // Connected, as the peers of a server are.
        let socket = net::socket(Ipv4Addr::LOCALHOST.into(), self.ears.gro)?;
        socket.connect(sender)?;
        self.ears.prepare(&socket)?;
        let SocketAddr::V4(address) = socket.local_addr()? else { bail!("an IPv6 socket") };
        let agreed = vec![Agreed { kind: MediaKind::Video, pt: PT, rtx_pt: None, twcc_id: None }];
        let hearing = Hearing { streams: self.sources, agreed, ..Hearing::default() };
        let member = Member {
            socket,
            ear: Ear::Bare(Box::new(SrtpReceiver::new(suite, key, salt)?)),
            receiver: Receiver::new(clock::now(), hearing),
            sources: Vec::new(),
            badge: Arc::new(Badge::default()),
            is_guest: false,
        };
        let srtp = SrtpSender::new(suite, key, salt)?;
        let target = Target { address, srtp, ssrc: rand::random(), first_index: rand::random::<u64>() % 30_000 };
        Ok((target, member))
    }

    fn condition(&self) -> Condition {
        let Self { subscribers, sources, together, train, .. } = *self;
        let Steady { rate, burst, packet_bytes, .. } = self.steady;
        let when = if together { " together" } else { "" };
        let load = format!(
            "{sources} to {subscribers}{when}, {packet_bytes} B, {rate}/s each in bursts of {burst}, trains of {train}"
        );
        Condition {
            suite: self.suite.srtp().name().to_owned(),
            burst,
            packet_bytes,
            train: Some(train),
            gro: self.ears.gro,
            ..condition("floor", load, subscribers, f64::from(rate) * sources as f64)
        }
    }
}

#[derive(Debug)]
struct Shared {
    tid: AtomicI32,
    refused: AtomicU64,
    skipped: AtomicU64,
    tally: Mutex<Tally>,
}

struct Target {
    address: SocketAddrV4,
    srtp: SrtpSender,
    /// Of the first source; the others follow.
    ssrc: u32,
    first_index: u64,
}

/// One source's next burst.
struct Turn {
    due: Instant,
    number: u64,
}

/// A packet in clear, before it is anybody's.
struct Plain {
    source: usize,
    number: u64,
    bytes: Vec<u8>,
}

struct Sender {
    course: Arc<Course>,
    shared: Arc<Shared>,
    steady: Steady,
    train: usize,
    turns: Vec<Turn>,
    targets: Vec<Target>,
    socket: UdpSocket,
    batch: Batch,
    /// The packets of this moment; kept, so that nothing is allocated twice.
    plain: Vec<Plain>,
}

impl Sender {
    fn run(mut self, ready: &mpsc::Sender<()>) {
        self.shared.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        // Pinned as a worker is, so that the scheduler places the receivers alike. Unpinned it only measures worse.
        let _ = allowed_cores().and_then(|cores| pin_to(&cores, 0));
        let _ = ready.send(());
        while !self.course.is_stopping() {
            let now = clock::now();
            let due = self.turns.iter().map(|turn| turn.due).min().unwrap_or(now);
            if now < due {
                std::thread::sleep(due - now);
                continue;
            }
            let sent_ns = self.course.ns(now);
            let packets = self.write(now, sent_ns);
            self.send();
            if let Some(slice) = self.course.slice(sent_ns) {
                lock(&self.shared.tally).count_sent(slice, MediaKind::Video, packets);
            }
        }
        self.shared.refused.store(self.batch.refused, Ordering::Relaxed);
    }

    /// Writes the bursts of all sources that are due; gives their packets.
    fn write(&mut self, now: Instant, sent_ns: u64) -> u64 {
        let Self { turns, steady, plain, shared, .. } = self;
        let flow = Flow::Steady(*steady);
        let mut count = 0;
        for (source, turn) in turns.iter_mut().enumerate().filter(|(_, turn)| turn.due <= now) {
            for at in 0..u64::from(steady.burst) {
                let number = turn.number + at;
                if plain.len() <= count {
                    plain.push(Plain { source, number, bytes: vec![0; steady.packet_bytes] });
                }
                let Some(place) = plain.get_mut(count) else { continue };
                (place.source, place.number) = (source, number);
                let frame = number / u64::from(steady.burst);
                let is_last = at + 1 == u64::from(steady.burst);
                let timestamp = (frame as f64 * flow.ticks()) as u64 as u32;
                let fixed = Fixed { marker: is_last, pt: PT, seq: number as u16, timestamp, ssrc: Ssrc(0) };
                let stamp = Stamp { source: source as u32, number, sent_ns };
                let frame =
                    Frame { number: frame, is_start: at == 0, is_key: flow.is_key(frame), is_bare: flow.is_bare() };
                // Fits: the place is as long as a packet.
                let payload_len = steady.packet_bytes - FIXED_HEADER_BYTES;
                let _ = write_packet(&mut place.bytes, &fixed, None, (stamp, Some(frame)), payload_len);
                count += 1;
            }
            turn.number += u64::from(steady.burst);
            turn.due += flow.interval();
            if now > turn.due + LATE_MAX {
                turn.due = now;
                shared.skipped.fetch_add(u64::from(steady.burst), Ordering::Relaxed);
            }
        }
        plain.truncate(count);
        count as u64
    }

    /// Subscriber by subscriber, as the server does it: one key and one address at a time.
    fn send(&mut self) {
        let Self { train, targets, socket, batch, plain, .. } = self;
        let mut waiting = 0;
        for target in targets {
            for packet in plain.iter() {
                let (index, len) = (target.first_index + packet.number, packet.bytes.len());
                let ssrc = target.ssrc.wrapping_add(packet.source as u32);
                batch.push(Some(target.address), *train, len + OVERHEAD_ROOM, |out| {
                    out.get_mut(..len)?.copy_from_slice(&packet.bytes);
                    out.get_mut(2..4)?.copy_from_slice(&(index as u16).to_be_bytes());
                    out.get_mut(8..12)?.copy_from_slice(&ssrc.to_be_bytes());
                    target.srtp.protect_rtp(out, FIXED_HEADER_BYTES, len, index).ok()
                });
                waiting += 1;
            }
            if waiting >= FLUSH_PACKETS || batch.messages() >= FLUSH_MESSAGES {
                batch.flush(socket);
                waiting = 0;
            }
        }
        batch.flush(socket);
    }
}
