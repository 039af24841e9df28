//! The floor: what the kernel and AES-GCM alone cost for the same packets to the same receivers.
//!
//! One thread copies each packet for each receiver, writes its numbers, encrypts it and sends it: as single datagrams,
//! or as trains with `--train`. There is no reading, no choosing and no feedback. Its CPU time is the yardstick.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::{SrtpReceiver, SrtpSender, SrtpSuite};
use tramline::runtime::affinity::{allowed_cores, pin_to};
use tramline::runtime::clock;
use tramline::wire::rtp::FIXED_HEADER_BYTES;

use crate::course::Course;
use crate::cpu::CpuReading;
use crate::herd::{Ear, Herd, Member};
use crate::load::Load;
use crate::net::{self, Batch, TRAIN_SEGMENTS_MAX};
use crate::publisher::Flow;
use crate::report::{Condition, Report};

/// Room behind a packet for any suite's tag.
const TAG_ROOM: usize = 16;
/// Messages per system call; few enough to stay in the cache with a burst of ten.
const FLUSH_MESSAGES: usize = 64;
const FLUSH_PACKETS: usize = 128;

/// Settings of the floor.
#[derive(clap::Args, Clone, Debug)]
pub struct Floor {
    #[command(flatten)]
    load: Load,
    /// Longest train in packets: 1 sends each packet by itself
    #[arg(long, default_value_t = 1)]
    train: usize,
    /// SRTP suite
    #[arg(long, value_enum, default_value_t = Suite::Gcm256)]
    suite: Suite,
}

/// A suite by a short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// AEAD_AES_128_GCM
    Gcm128,
    /// AEAD_AES_256_GCM
    Gcm256,
    /// AES128_CM_HMAC_SHA1_80
    Cm,
}

impl Suite {
    fn srtp(self) -> SrtpSuite {
        match self {
            Self::Gcm128 => SrtpSuite::AeadAes128Gcm,
            Self::Gcm256 => SrtpSuite::AeadAes256Gcm,
            Self::Cm => SrtpSuite::Aes128CmSha1_80,
        }
    }
}

impl Floor {
    /// Where the report goes.
    pub fn json(&self) -> Option<&str> {
        self.load.json.as_deref()
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let flow = self.load.flow()?;
        if !(1..=TRAIN_SEGMENTS_MAX).contains(&self.train) {
            bail!("a train has 1 to {TRAIN_SEGMENTS_MAX} packets");
        }
        let course = Arc::new(Course::new(clock::now()));
        let mut herds = self.load.herds(&course)?;
        let sender_socket = net::socket(Ipv4Addr::LOCALHOST.into(), false)?;
        let sender_address = sender_socket.local_addr()?;
        let mut targets = Vec::with_capacity(self.load.subscribers);
        for at in 0..self.load.subscribers {
            let (target, member) = self.receiver(sender_address)?;
            targets.push(target);
            herds[at % herds.len()].admit(member)?;
        }
        let shared = Arc::new(Shared::default());
        let sender = Sender {
            course: Arc::clone(&course),
            shared: Arc::clone(&shared),
            flow,
            train: self.train,
            targets,
            socket: sender_socket,
            batch: Batch::new(FLUSH_PACKETS * (flow.packet_bytes + TAG_ROOM) * 2),
            plain: vec![0; flow.packet_bytes * flow.burst as usize],
            number: 0,
        };
        let (ready, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("floor".to_owned()).spawn(move || sender.run(&ready))?;
        told.recv().context("the sender has ended")?;
        let tid = shared.tid.load(Ordering::Acquire);
        let rounds = self.load.measure(&course, &herds, &|| CpuReading::of_own_thread(tid), &mut || Ok(()))?;
        course.stop();
        // A panic there was printed there.
        let _ = thread.join();
        herds.iter_mut().for_each(Herd::join);
        let unsent = (shared.refused.load(Ordering::Relaxed), shared.skipped.load(Ordering::Relaxed));
        Ok(Report { condition: self.condition(), join_seconds: None, keyframe_requests: 0, unsent, rounds })
    }

    fn receiver(&self, sender: SocketAddr) -> Result<(Target, Member)> {
        let suite = self.suite.srtp();
        let (key, salt) = (rand::random::<[u8; 32]>(), rand::random::<[u8; 14]>());
        let (key, salt) = (&key[..suite.key_len()], &salt[..suite.salt_len()]);
        // Connected, as the peers of a server are.
        let socket = net::socket(Ipv4Addr::LOCALHOST.into(), self.load.gro)?;
        socket.connect(sender)?;
        let SocketAddr::V4(address) = socket.local_addr()? else { bail!("an IPv6 socket") };
        let ear = Ear::Bare(Box::new(SrtpReceiver::new(suite, key, salt)?));
        let srtp = SrtpSender::new(suite, key, salt)?;
        let target = Target { address, srtp, ssrc: Ssrc(rand::random()), first_index: rand::random::<u64>() % 30_000 };
        Ok((target, Member { socket, ear }))
    }

    fn condition(&self) -> Condition {
        Condition {
            scenario: "floor",
            command: std::env::args().collect::<Vec<_>>().join(" "),
            suite: self.suite.srtp().name().to_owned(),
            subscribers: self.load.subscribers,
            rate: self.load.rate,
            burst: self.load.burst,
            packet_bytes: self.load.packet_bytes,
            train: Some(self.train),
            gro: self.load.gro,
            workers: None,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    tid: AtomicI32,
    refused: AtomicU64,
    skipped: AtomicU64,
}

struct Target {
    address: SocketAddrV4,
    srtp: SrtpSender,
    ssrc: Ssrc,
    first_index: u64,
}

struct Sender {
    course: Arc<Course>,
    shared: Arc<Shared>,
    flow: Flow,
    train: usize,
    targets: Vec<Target>,
    socket: UdpSocket,
    batch: Batch,
    plain: Vec<u8>,
    number: u64,
}

impl Sender {
    fn run(mut self, ready: &mpsc::Sender<()>) {
        self.shared.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        // Pinned as a worker is, so that the scheduler places the receivers alike. Unpinned it only measures worse.
        let _ = allowed_cores().and_then(|cores| pin_to(&cores, 0));
        let _ = ready.send(());
        let interval = self.flow.interval();
        let mut burst_at: Instant = clock::now();
        while !self.course.is_stopping() {
            let now = clock::now();
            if now < burst_at {
                std::thread::sleep(burst_at - now);
                continue;
            }
            self.send_burst(now);
            burst_at += interval;
            // As the publisher: what is far too late is left out.
            if clock::now() > burst_at + Duration::from_millis(100) {
                burst_at = clock::now();
                self.shared.skipped.fetch_add(u64::from(self.flow.burst), Ordering::Relaxed);
            }
        }
        self.shared.refused.store(self.batch.refused, Ordering::Relaxed);
    }

    fn send_burst(&mut self, now: Instant) {
        let Self { course, flow, train, targets, socket, batch, plain, number, .. } = self;
        let sent_ns = course.ns(now);
        let len = flow.packet_bytes;
        for (at, out) in plain.chunks_exact_mut(len).enumerate() {
            // Fits: the chunk is as long as a packet.
            let _ = flow.write(out, Ssrc(0), *number + at as u64, false, sent_ns);
        }
        // Subscriber by subscriber, as the server does it: one key and one address at a time.
        let mut waiting = 0;
        for target in targets {
            for (at, packet) in plain.chunks_exact(len).enumerate() {
                let index = target.first_index + *number + at as u64;
                batch.push(Some(target.address), *train, len + TAG_ROOM, |out| {
                    out.get_mut(..len)?.copy_from_slice(packet);
                    out.get_mut(2..4)?.copy_from_slice(&(index as u16).to_be_bytes());
                    out.get_mut(8..12)?.copy_from_slice(&target.ssrc.0.to_be_bytes());
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
        *number += u64::from(flow.burst);
        course.set_sent(*number);
    }
}
