//! What the benches share: the clock they measure by, the loop around what is measured, keys and packets.
//!
//! Everything is CPU time of the process, user and system, over packets: what other programs do to the wall clock is not
//! in it, and what the kernel does for us is. So *time* in criterion's output is ns per packet, *thrpt* packets per second
//! of one core.

// Each bench uses its part.
#![allow(dead_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use nix::time::{ClockId, clock_gettime};
use tramline::base::batch::Path;
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::Ssrc;
use tramline::crypto::srtp::{SrtpKeys, SrtpSuite};
use tramline::proto::ice::LocalCredentials;
use tramline::session::streams::Payload;
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::ExtWriter;
use tramline::wire::stun::BindingRequest;

/// The suites, with short names for ids.
pub const SUITES: [(SrtpSuite, &str); 3] = [
    (SrtpSuite::AeadAes128Gcm, "gcm-128"),
    (SrtpSuite::AeadAes256Gcm, "gcm-256"),
    (SrtpSuite::Aes128CmSha1_80, "cm-sha1"),
];

/// The source of all packets.
pub const SSRC: Ssrc = Ssrc(0x1111_1111);
/// Their payload type.
pub const PT: u8 = 96;

/// CPU time of all threads of this process, user and system.
pub struct CpuTime;

/// Prints nanoseconds per packet and packets per second.
struct PerPacket;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, begin: Duration) -> Duration {
        cpu_time() - begin
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &PerPacket
    }
}

impl ValueFormatter for PerPacket {
    fn scale_values(&self, _typical_ns: f64, _values: &mut [f64]) -> &'static str {
        "ns/packet"
    }

    fn scale_throughputs(&self, _typical_ns: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let packets = match *throughput {
            Throughput::Elements(packets) => packets as f64,
            _ => unreachable!("groups are made by `group`"),
        };
        for value in values {
            *value = packets * 1e6 / *value;
        }
        "kpackets/s"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every Linux has it").into()
}

/// Short rounds: the figures are means of hundreds of thousands of packets either way.
pub fn criterion() -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .sample_size(30)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// A group whose benches count packets.
pub fn group<'a>(criterion: &'a mut Criterion<CpuTime>, name: &str) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group
}

/// Measures `run`, which handles `packets` packets; what `prepare` does before each run is not measured.
///
/// A run should last far longer than the two readings of the clock around it, about 1 us.
pub fn measure<S>(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    id: BenchmarkId,
    packets: usize,
    state: &mut S,
    mut prepare: impl FnMut(&mut S),
    mut run: impl FnMut(&mut S),
) {
    let packets = packets as u64;
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            let runs = iterations.div_ceil(packets);
            let mut spent = Duration::ZERO;
            for _ in 0..runs {
                prepare(state);
                let begin = cpu_time();
                run(state);
                spent += cpu_time() - begin;
            }
            spent.mul_f64(iterations as f64 / (runs * packets) as f64)
        });
    });
}

/// Keys that differ by `seed`.
pub fn keys(suite: SrtpSuite, seed: u32) -> SrtpKeys {
    let seed = seed.to_be_bytes();
    let material: Vec<u8> =
        (0..2 * (suite.key_len() + suite.salt_len())).map(|index| index as u8 ^ seed[index % 4]).collect();
    SrtpKeys::from_exporter(suite, &material).expect("the right length")
}

/// Writes a packet of [`SSRC`] with a mid and a payload of `payload_len` bytes; returns the length of its header.
pub fn write_packet(out: &mut [u8], seq: u64, payload_len: usize) -> usize {
    let mut block = [0; 8];
    let mut exts = ExtWriter::one_byte(&mut block);
    exts.push(4, b"0");
    let (profile, block_len) = exts.finish();
    let fixed = Fixed { marker: false, pt: PT, seq: seq as u16, timestamp: (seq * 90) as u32, ssrc: SSRC };
    let header_len = write_header(out, &fixed, &[], Some((profile, &block[..block_len]))).expect("room");
    out[header_len..header_len + payload_len].fill(0x5a);
    header_len
}

/// What all peers send and take: VP8 with RTX, or Opus.
pub fn payload(kind: MediaKind) -> Payload {
    let is_video = kind == MediaKind::Video;
    Payload {
        pt: PT,
        format: if is_video { Format::Vp8 } else { Format::Opus },
        rtx_pt: is_video.then_some(97),
        nack: is_video,
        pli: is_video,
        fir: is_video,
        transport_cc: true,
        remb: false,
    }
}

/// Where peer number `index` is.
pub fn path(index: u32) -> Path {
    let [_, high, middle, low] = index.to_be_bytes();
    Path { remote: SocketAddr::from(([10, high, middle, low], 4000)), local: IpAddr::from([10, 255, 255, 254]) }
}

/// Writes a peer's connectivity check that nominates; returns its length.
pub fn check(out: &mut [u8], credentials: &LocalCredentials) -> usize {
    let username = format!("{}:peer", credentials.ufrag());
    let check = BindingRequest {
        transaction_id: [1; 12],
        username: Some(username.as_bytes()),
        use_candidate: true,
        key: Some(credentials.key()),
        has_fingerprint: true,
        ..BindingRequest::default()
    };
    check.write_to(out).expect("room")
}
