//! Real media: made by ffmpeg, published over WHIP in real time, and looked at with ffprobe.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::peer::candidates;
use super::server::Server;
use super::wait_for;

/// Pictures of a clip per second.
pub const FPS: u64 = 30;
/// Packets of sound per second.
const SOUND_RATE: u64 = 50;

/// Frames and packets, each a picture's or 20 ms apart.
#[derive(Clone)]
pub struct Clip {
    pub codec: Codec,
    pub pictures: Vec<Vec<u8>>,
    pub sounds: Vec<Vec<u8>>,
}

/// Runs a program that has to do its work. What it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Each second of it begins with a flash and a beep of a tenth of a second. A keyframe each half.
pub fn make(directory: &Path, codec: Codec, seconds: u32) -> Clip {
    let (name, args): (&str, &[&str]) = match codec {
        Codec::Vp8 => ("v.ivf", &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]),
        Codec::Vp9 => ("v9.ivf", &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]),
        Codec::Av1 => ("v1.ivf", &["-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8"]),
        _ => ("v.h264", &["-c:v", "libx264", "-profile:v", "baseline", "-bf", "0", "-x264-params", "aud=1:slices=1"]),
    };
    std::fs::create_dir_all(directory).unwrap();
    let (picture, sound) = (directory.join(name), directory.join("sound.ogg"));
    let flash = format!("color=black:s=320x180:r={FPS}:d={seconds},drawbox=c=white:t=fill:enable='lt(mod(t,1),0.1)'");
    let gop = (FPS / 2).to_string();
    let common = ["-y", "-v", "error", "-f", "lavfi", "-i"];
    let mut all = [&common[..], &[flash.as_str(), "-pix_fmt", "yuv420p"], args].concat();
    all.extend(["-b:v", "200k", "-g", &gop, picture.to_str().unwrap()]);
    run("ffmpeg", &all);
    let beep = format!("aevalsrc='if(lt(mod(t,1),0.1),0.5*sin(6283*t),0)':s=48000:d={seconds}");
    let args = [&beep, "-c:a", "libopus", "-b:a", "32k", sound.to_str().unwrap()];
    run("ffmpeg", &[&common[..], &args].concat());
    let bytes = std::fs::read(&picture).unwrap();
    let pictures = if codec == Codec::H264 { access_units(&bytes) } else { ivf_frames(&bytes) };
    let mut packets = ogg::PacketReader::new(std::io::BufReader::new(std::fs::File::open(sound).unwrap()));
    let sounds = std::iter::from_fn(|| packets.read_packet().unwrap()).skip(2).map(|packet| packet.data);
    Clip { codec, pictures, sounds: sounds.take(seconds as usize * SOUND_RATE as usize).collect() }
}

fn ivf_frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes = &bytes[32..];
    let mut frames = Vec::new();
    while bytes.len() > 12 {
        let len = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        frames.push(bytes[12..12 + len].to_vec());
        bytes = &bytes[12 + len..];
    }
    frames
}

/// H.264 cut before each access unit delimiter.
fn access_units(bytes: &[u8]) -> Vec<Vec<u8>> {
    let is_start = |at: &usize| bytes[*at..].starts_with(&[0, 0, 0, 1, 9]);
    let starts: Vec<usize> = (0..bytes.len()).filter(is_start).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(start, end)| bytes[*start..end].to_vec()).collect()
}

/// Somebody who publishes a clip.
pub struct Publisher {
    /// Its session URL.
    pub session: String,
    /// Milliseconds of the clip that have been sent.
    pub sent_ms: Arc<AtomicU64>,
    is_done: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Publishes a clip in a room; its sound is sent so much later than the picture of the same moment.
    pub fn start(server: &Server, room: &str, clip: Clip, sound_lag: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let builder = Rtc::builder().clear_codecs().enable_opus(true, false);
        let builder = match clip.codec {
            Codec::Vp8 => builder.enable_vp8(true),
            Codec::Vp9 => builder.enable_vp9(true),
            Codec::Av1 => builder.enable_av1(true),
            _ => builder.enable_h264(true),
        };
        let mut rtc = builder.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        let mut api = rtc.sdp_api();
        let sound = api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        let picture = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let path = format!("/whip/{room}");
        let answer = server.request("POST", &path, "Content-Type: application/sdp\r\n", &offer.to_sdp_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        let session = answer.header("location").unwrap().to_owned();
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer.body).unwrap()).unwrap();
        let to = candidates(&answer.body)[0];
        socket.connect(to).unwrap();
        let (sent_ms, is_done, stop): (Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let sending = Sending { rtc, socket, sound, picture, clip, sound_lag, sent: (0, 0), start: None };
        let flags = (Arc::clone(&sent_ms), Arc::clone(&is_done), Arc::clone(&stop));
        let thread = std::thread::spawn(move || sending.run(to, &flags));
        Self { session, sent_ms, is_done, stop, thread: Some(thread) }
    }

    /// Waits until all of the clip is sent, and what got lost of it again.
    pub fn done(&self) {
        wait_for("the end of the clip", || self.is_done.load(Ordering::SeqCst).then_some(()));
    }

    /// Waits until so much of the clip is sent.
    pub fn sent(&self, ms: u64) {
        wait_for("some of the clip", || (self.sent_ms.load(Ordering::SeqCst) >= ms).then_some(()));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the publisher's thread panicked");
        }
    }
}

struct Sending {
    rtc: Rtc,
    socket: UdpSocket,
    sound: Mid,
    picture: Mid,
    clip: Clip,
    sound_lag: Duration,
    /// Sounds and pictures.
    sent: (usize, usize),
    start: Option<Instant>,
}

impl Sending {
    fn run(mut self, to: std::net::SocketAddr, flags: &(Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicBool>)) {
        let (sent_ms, is_done, stop) = flags;
        let local = self.socket.local_addr().unwrap();
        let mut buffer = [0; 2000];
        let mut over_at = None;
        while !stop.load(Ordering::SeqCst) && self.rtc.is_alive() {
            self.drain();
            self.socket.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
            if let Ok(len) = self.socket.recv(&mut buffer)
                && let Ok(receive) = Receive::new(Protocol::Udp, to, local, &buffer[..len])
            {
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                self.drain();
            }
            self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
            self.drain();
            if let Some(start) = self.start {
                self.write(start);
                sent_ms.store(self.sent.1 as u64 * 1000 / FPS, Ordering::SeqCst);
                if self.sent == (self.clip.sounds.len(), self.clip.pictures.len()) {
                    // Time for retransmissions.
                    let over_at = *over_at.get_or_insert_with(|| Instant::now() + Duration::from_secs(1));
                    is_done.store(Instant::now() > over_at, Ordering::SeqCst);
                }
            }
        }
    }

    fn write(&mut self, start: Instant) {
        while let Some(data) = self.clip.sounds.get(self.sent.0) {
            let number = self.sent.0 as u64;
            let taken_at = start + Duration::from_millis(number * 1000 / SOUND_RATE);
            if taken_at + self.sound_lag > Instant::now() {
                break;
            }
            let time = MediaTime::new(number * 960, Frequency::FORTY_EIGHT_KHZ);
            let writer = self.rtc.writer(self.sound).unwrap();
            let pt = writer.payload_params().next().unwrap().pt();
            writer.write(pt, taken_at, time, data.clone()).unwrap();
            self.sent.0 += 1;
            self.drain();
        }
        while let Some(data) = self.clip.pictures.get(self.sent.1) {
            let number = self.sent.1 as u64;
            let taken_at = start + Duration::from_micros(number * 1_000_000 / FPS);
            if taken_at > Instant::now() {
                break;
            }
            let time = MediaTime::new(number * 90_000 / FPS, Frequency::NINETY_KHZ);
            let writer = self.rtc.writer(self.picture).unwrap();
            let codec = self.clip.codec;
            let pt = writer.payload_params().find(|params| params.spec().codec == codec).unwrap().pt();
            writer.write(pt, taken_at, time, data.clone()).unwrap();
            self.sent.1 += 1;
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                // Refused only while the server goes away.
                Output::Transmit(transmit) => drop(self.socket.send(&transmit.contents)),
                Output::Event(Event::Connected) => self.start = Some(Instant::now()),
                Output::Event(_) => {}
            }
        }
    }
}

/// What ffprobe says of a file.
pub fn probe(path: &Path) -> Value {
    let entries = "format=duration:stream=codec_name,codec_type,width,height,nb_read_packets";
    let args = ["-v", "error", "-count_packets", "-show_entries", entries, "-of", "json", path.to_str().unwrap()];
    serde_json::from_str(&run("ffprobe", &args)).unwrap()
}

/// Seconds that ffprobe gives a file.
pub fn duration(path: &Path) -> f64 {
    let found = probe(path);
    found["format"]["duration"].as_str().unwrap_or_else(|| panic!("{found}")).parse().unwrap()
}

/// Decodes all of a file; a fault in it is a failure.
pub fn play(path: &Path) {
    run("ffmpeg", &["-v", "error", "-xerror", "-i", path.to_str().unwrap(), "-f", "null", "-"]);
}

/// When a number that ffprobe finds in each frame goes over a bound, in seconds.
pub fn onsets(source: &str, tag: &str, bound: f64) -> Vec<f64> {
    let entries = format!("frame=pts_time:frame_tags={tag}");
    let args = ["-v", "error", "-f", "lavfi", source, "-show_entries", &entries, "-of", "json"];
    let found: Value = serde_json::from_str(&run("ffprobe", &args)).unwrap();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let (mut onsets, mut was_over) = (Vec::new(), false);
    for frame in found["frames"].as_array().unwrap() {
        let is_over = number(&frame["tags"][tag]).is_some_and(|level| level > bound);
        if is_over && !was_over {
            onsets.push(number(&frame["pts_time"]).unwrap());
        }
        was_over = is_over;
    }
    onsets
}

/// The only file with an ending.
pub fn only(directory: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}
