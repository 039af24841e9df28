//! One track at a time: what is recorded of it, and when it is not.

use std::collections::HashSet;
use std::path::PathBuf;

use super::*;
use crate::base::ids::{PeerId, Ssrc};
use crate::base::packet::PacketMeta;
use crate::record::disk::FileSystem;
use crate::runtime::clock;
use crate::wire::payload;

const TRACK: TrackKey = TrackKey { index: 1, epoch: 0 };
const MS: Duration = Duration::from_millis(1);

/// A track, its surroundings, and the time.
struct Bench {
    disk: Option<Disk>,
    thread: Option<std::thread::JoinHandle<()>>,
    directory: PathBuf,
    names: HashSet<String>,
    wishes: Vec<(TrackKey, u8)>,
    start: Instant,
    now: Instant,
    track: Option<TrackRecorder>,
}

impl Bench {
    fn new(name: &str, kind: MediaKind) -> Self {
        let (disk, thread) = Disk::start(FileSystem).unwrap();
        let about = Recorded {
            track: TRACK,
            kind,
            id: "t-1-0".into(),
            room: "r".into(),
            publisher: PeerId(1),
            user_id: "u".into(),
            is_muxed: false,
        };
        let now = clock::now();
        Self {
            disk: Some(disk),
            thread: Some(thread),
            directory: std::env::temp_dir().join(format!("tramline-track-{name}-{}", std::process::id())),
            names: HashSet::new(),
            wishes: Vec::new(),
            start: now,
            now,
            track: Some(TrackRecorder::new(Arc::new(about))),
        }
    }

    fn with<T>(&mut self, task: impl FnOnce(&mut TrackRecorder, &mut Around<'_>) -> T) -> T {
        let mut track = self.track.take().unwrap();
        let mut around = Around {
            disk: self.disk.as_ref().unwrap(),
            directory: &self.directory,
            names: &mut self.names,
            wishes: &mut self.wishes,
            now: self.now,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
            run: "x",
        };
        let result = task(&mut track, &mut around);
        self.track = Some(track);
        result
    }

    /// A packet that comes at so many milliseconds.
    fn packet(&mut self, at_ms: u32, encoding: u8, seq: u64, format: Format, payload: &[u8]) {
        self.now = self.start + MS * at_ms;
        let meta = PacketMeta {
            seq,
            source: Ssrc(u32::from(encoding)),
            timestamp: at_ms * (format.clock_rate_hz() / 1000) + u32::from(encoding) * 1000,
            marker: true,
            format,
            encoding,
            marks: payload::frame_marks(format, payload),
        };
        let taken = Taken { meta, arrived_at: self.now, payload: payload.to_vec() };
        self.with(|track, around| {
            track.handle_packet(around, taken);
            track.handle_timeout(around);
        });
    }

    /// Sidecars of what was recorded.
    fn finish(&mut self) -> Vec<Sidecar> {
        let track = self.track.take().unwrap();
        let mut around = Around {
            disk: self.disk.as_ref().unwrap(),
            directory: &self.directory,
            names: &mut self.names,
            wishes: &mut self.wishes,
            now: self.now,
            wall: SystemTime::UNIX_EPOCH,
            run: "x",
        };
        let done = track.finish(&mut around);
        drop(self.disk.take());
        self.thread.take().unwrap().join().unwrap();
        done
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn key(width: u16, height: u16) -> Vec<u8> {
    let [w0, w1] = width.to_le_bytes();
    let [h0, h1] = height.to_le_bytes();
    vec![0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, w0, w1, h0, h1]
}

const DELTA: [u8; 4] = [0x10, 0x01, 0, 0];

#[test]
fn the_best_stream_that_is_alive_is_recorded() {
    let mut bench = Bench::new("best", MediaKind::Video);
    bench.packet(0, 0, 1, Format::Vp8, &key(320, 180));
    bench.packet(5, 1, 1, Format::Vp8, &DELTA);
    assert_eq!(bench.wishes, [(TRACK, 1)], "it may be better, once there is a keyframe");
    bench.packet(100, 0, 2, Format::Vp8, &DELTA);
    bench.packet(150, 1, 2, Format::Vp8, &key(640, 360));
    bench.packet(200, 0, 3, Format::Vp8, &DELTA);
    bench.packet(210, 0, 4, Format::Vp8, &key(320, 180));
    bench.packet(250, 1, 3, Format::Vp8, &DELTA);
    // The better one falls silent; the other goes on with a keyframe, which is asked for.
    bench.wishes.clear();
    bench.packet(2500, 0, 5, Format::Vp8, &DELTA);
    assert_eq!(bench.wishes, [(TRACK, 0)]);
    bench.packet(2600, 0, 6, Format::Vp8, &key(320, 180));
    let done = bench.finish();
    let heights: Vec<_> = done[0].sizes.iter().map(|size| size.height).collect();
    assert_eq!((done.len(), heights), (1, vec![180, 360, 180]));
    assert_eq!(done[0].frames, 5);
    let at: Vec<i64> = done[0].sources.iter().map(|source| (source.at * 1000.0).round() as i64).collect();
    assert_eq!(at, [0, 150, 2600], "each source by its arrival, as none sent reports");
}

#[test]
fn a_gap_waits_for_a_keyframe_and_asks_for_it() {
    let mut bench = Bench::new("gap", MediaKind::Video);
    bench.packet(0, 0, 1, Format::Vp8, &key(320, 180));
    bench.packet(33, 0, 2, Format::Vp8, &DELTA);
    bench.packet(100, 0, 4, Format::Vp8, &DELTA);
    assert!(bench.wishes.is_empty(), "it may come yet");
    bench.packet(300, 0, 5, Format::Vp8, &DELTA);
    assert_eq!(bench.wishes, [(TRACK, 0)]);
    bench.packet(400, 0, 6, Format::Vp8, &key(320, 180));
    let done = bench.finish();
    assert_eq!((done[0].frames, done[0].gaps.len(), done[0].gaps[0].packets), (3, 1, 1));
    assert!((done[0].seconds - 0.4).abs() < 0.05);
}

#[test]
fn what_cannot_be_read_is_said_so() {
    let mut bench = Bench::new("noise", MediaKind::Video);
    for second in 0..20 {
        bench.packet(second * 1000, 0, u64::from(second), Format::Vp8, &[0x10, 0x76, 0x54, 0x32, 0x10]);
    }
    assert!(bench.with(|track, _| track.failure().unwrap().contains("encrypted")));
    assert!(bench.wishes.len() > 5, "it was asked for");
    assert_eq!(bench.finish(), []);
    let text = std::fs::read(bench.directory.join("r_t-1-0_1000.json")).unwrap();
    let sidecar: Sidecar = serde_json::from_slice(&text).unwrap();
    assert_eq!((sidecar.state, sidecar.file.as_str()), (State::Failed, ""));
    assert!(sidecar.error.unwrap().contains("encrypted"));
}

#[test]
fn sound_that_is_noise_or_another_codec_is_said_so() {
    let mut bench = Bench::new("pcmu", MediaKind::Audio);
    bench.packet(0, 0, 1, Format::Pcmu, &[0x7f; 160]);
    assert!(bench.with(|track, _| track.failure().unwrap().contains("PCMU")));
    let mut bench = Bench::new("sound", MediaKind::Audio);
    for packet in 0..200u32 {
        // A first byte that says 60 ms, or nothing that can be, where 20 ms came.
        let payload = if packet % 2 == 0 { vec![3 << 3, packet as u8] } else { vec![3 << 3 | 3, 0] };
        bench.packet(packet * 20, 0, u64::from(packet), Format::Opus, &payload);
    }
    assert!(bench.with(|track, _| track.failure().unwrap().contains("encrypted")));
}

#[test]
fn redundant_sound_is_taken_apart() {
    let mut bench = Bench::new("red", MediaKind::Audio);
    // RFC 2198: a block of two bytes from 960 ticks before, and the primary one.
    for packet in 0..3u64 {
        bench.packet(packet as u32 * 20, 0, packet, Format::OpusRed, &[0xef, 0x0f, 0x00, 2, 0x6f, 9, 9, 0x48, 7]);
    }
    let done = bench.finish();
    assert_eq!((done[0].frames, done[0].codec.as_str()), (3, "opus"));
    assert!((done[0].seconds - 0.06).abs() < 1e-9);
    assert_eq!(primary(&[0xef, 0x0f, 0x03]), None);
    assert_eq!(primary(&[0x6f]), None);
}
