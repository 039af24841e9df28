//! The floor: what the kernel and AES-GCM alone cost for the same packets to the same receivers.
//!
//! One thread copies each packet for each receiver, writes its numbers, encrypts it and sends it: as single datagrams,
//! or as trains with `--train`. There is no reading, no choosing and no feedback. Its CPU time is the yardstick. Of a
//! meeting it sends each person the packets of all others, in the sizes and at the moments of the scenario's.

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
use crate::flow::{Camera, Flow, Steady, Voice};
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
const VIDEO_PT: u8 = 96;
const AUDIO_PT: u8 = 111;

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
    /// The receivers are people, each hearing and seeing all others, as `meeting` has it; in place of sources and bursts
    #[arg(long)]
    meeting: bool,
    #[command(flatten)]
    camera: Camera,
    #[command(flatten)]
    voice: Voice,
    /// Of the meeting: video without audio
    #[arg(long)]
    no_audio: bool,
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
        let turns = self.turns(clock::now());
        turns.iter().try_for_each(|turn| turn.flow.check())?;
        if self.meeting && self.subscribers < 2 {
            bail!("a meeting has two people or more");
        }
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
            receivers: self.receivers(),
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

    /// Everything that is sent, from its first moment on.
    fn turns(&self, epoch: Instant) -> Vec<Turn> {
        let turn = |flow: Flow, owner, phase| Turn {
            flow,
            owner,
            due: epoch + flow.interval().mul_f64(phase),
            frame: 0,
            number: 0,
            sizes: Vec::new(),
        };
        if !self.meeting {
            let flow = Flow::Steady(self.steady);
            let phase = |at| phase(at, self.sources, self.together);
            return (0..self.sources).map(|at| turn(flow, None, phase(at))).collect();
        }
        let flows = [Some(Flow::Camera(self.camera)), (!self.no_audio).then_some(Flow::Voice(self.voice))];
        let of_one = |person| flows.into_iter().flatten().map(move |flow| (flow, Some(person)));
        (0..self.subscribers).flat_map(of_one).map(|(flow, owner)| turn(flow, owner, rand::random())).collect()
    }

    /// Receivers of each packet.
    fn receivers(&self) -> usize {
        self.subscribers - usize::from(self.meeting)
    }

    fn sender(&self, course: &Arc<Course>, shared: &Arc<Shared>, targets: Vec<Target>, socket: UdpSocket) -> Sender {
        Sender {
            course: Arc::clone(course),
            shared: Arc::clone(shared),
            train: self.train,
            turns: self.turns(course.epoch()),
            targets,
            socket,
            batch: Batch::new(FLUSH_PACKETS * (self.steady.packet_bytes + OVERHEAD_ROOM) * 2),
            plain: Vec::new(),
            fresh: 0,
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
        let agreed = |kind| Agreed { kind, pt: pt_of(kind), rtx_pt: None, twcc_id: None };
        let agreed = vec![agreed(MediaKind::Video), agreed(MediaKind::Audio)];
        let streams = if self.meeting { (2 - usize::from(self.no_audio)) * self.receivers() } else { self.sources };
        let hearing = Hearing { streams, agreed, ..Hearing::default() };
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
        let packets_per_s: f64 = self.turns(clock::now()).iter().map(|turn| turn.flow.packets_per_s()).sum();
        let when = if together { " together" } else { "" };
        let load = if self.meeting {
            let Camera { video_kbps, fps, .. } = self.camera;
            let audio = if self.no_audio { "" } else { ", audio" };
            format!(
                "{subscribers} x {subscribers}, video {video_kbps} kbit/s at {fps} frames/s{audio}, trains of {train}"
            )
        } else {
            format!(
                "{sources} to {subscribers}{when}, {packet_bytes} B, {rate}/s each in bursts of {burst}, trains of {train}"
            )
        };
        Condition {
            suite: self.suite.srtp().name().to_owned(),
            burst: if self.meeting { 0 } else { burst },
            packet_bytes: if self.meeting { 0 } else { packet_bytes },
            train: Some(train),
            gro: self.ears.gro,
            ..condition("floor", load, self.receivers(), packets_per_s)
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

fn pt_of(kind: MediaKind) -> u8 {
    if kind == MediaKind::Audio { AUDIO_PT } else { VIDEO_PT }
}

/// One source's next frame.
struct Turn {
    flow: Flow,
    /// Who does not get it, being the one who sends it.
    owner: Option<usize>,
    due: Instant,
    frame: u64,
    number: u64,
    sizes: Vec<usize>,
}

/// A packet in clear, before it is anybody's.
struct Plain {
    source: usize,
    owner: Option<usize>,
    number: u64,
    bytes: Vec<u8>,
}

struct Sender {
    course: Arc<Course>,
    shared: Arc<Shared>,
    train: usize,
    turns: Vec<Turn>,
    targets: Vec<Target>,
    socket: UdpSocket,
    batch: Batch,
    /// Room for packets; kept, so that nothing is allocated twice.
    plain: Vec<Plain>,
    /// How many of them are of this moment.
    fresh: usize,
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
            let (video, audio) = self.write(now, sent_ns);
            self.send();
            if let Some(slice) = self.course.slice(sent_ns) {
                let mut tally = lock(&self.shared.tally);
                tally.count_sent(slice, MediaKind::Video, video);
                tally.count_sent(slice, MediaKind::Audio, audio);
            }
        }
        self.shared.refused.store(self.batch.refused, Ordering::Relaxed);
    }

    /// Writes the frames of all sources that are due; gives their packets, of video and of audio.
    fn write(&mut self, now: Instant, sent_ns: u64) -> (u64, u64) {
        let Self { turns, plain, shared, .. } = self;
        let (mut count, mut video) = (0, 0);
        for (source, turn) in turns.iter_mut().enumerate().filter(|(_, turn)| turn.due <= now) {
            let first = count;
            let is_video = turn.flow.kind() == MediaKind::Video;
            let is_key = is_video && turn.flow.is_key(turn.frame);
            turn.flow.sizes(is_key, &mut rand::random, &mut turn.sizes);
            for (at, &size) in turn.sizes.iter().enumerate() {
                if plain.len() <= count {
                    plain.push(Plain { source, owner: None, number: 0, bytes: Vec::new() });
                }
                let Some(place) = plain.get_mut(count) else { continue };
                (place.source, place.owner, place.number) = (source, turn.owner, turn.number);
                place.bytes.resize(size, 0);
                turn.write(source, at, is_key, sent_ns, &mut place.bytes);
                turn.number += 1;
                count += 1;
            }
            video += if is_video { count - first } else { 0 };
            turn.frame += 1;
            turn.due += turn.flow.interval();
            if now > turn.due + LATE_MAX {
                turn.due = now;
                shared.skipped.fetch_add(turn.sizes.len() as u64, Ordering::Relaxed);
            }
        }
        self.fresh = count;
        (video as u64, (count - video) as u64)
    }

    /// Subscriber by subscriber, as the server does it: one key and one address at a time.
    fn send(&mut self) {
        let Self { train, targets, socket, batch, plain, fresh, .. } = self;
        let plain = plain.get(..*fresh).unwrap_or_default();
        let mut waiting = 0;
        for (nth, target) in targets.iter_mut().enumerate() {
            for packet in plain.iter().filter(|packet| packet.owner != Some(nth)) {
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

impl Turn {
    /// Writes packet `at` of the frame in clear, but for what is the receiver's own.
    fn write(&self, source: usize, at: usize, is_key: bool, sent_ns: u64, out: &mut [u8]) {
        let kind = self.flow.kind();
        let is_last = at + 1 == self.sizes.len();
        let fixed = Fixed {
            marker: if kind == MediaKind::Video { is_last } else { self.number == 0 },
            pt: pt_of(kind),
            seq: self.number as u16,
            timestamp: (self.frame as f64 * self.flow.ticks()) as u64 as u32,
            ssrc: Ssrc(0),
        };
        let stamp = Stamp { source: source as u32, number: self.number, sent_ns };
        let frame = Frame { number: self.frame, is_start: at == 0, is_key, is_bare: self.flow.is_bare() };
        let frame = (kind == MediaKind::Video).then_some(frame);
        let payload_len = out.len() - FIXED_HEADER_BYTES;
        // Fits: the place is as long as a packet.
        let _ = write_packet(out, &fixed, None, (stamp, frame), payload_len);
    }
}
