//! A recording's file while it is written, and its sidecar.
//!
//! Owns: the container's state. Promises: what was written is on its way to the disk at once, or a tenth of a second later
//! in the case of sound, and readable if nothing ever follows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::disk::{Disk, DiskFile};
use super::frames::Frame;
use super::ivf;
use super::opus::OggOpus;
use super::sidecar::{ReportEntry, Sidecar, SourceEntry, State, unix_seconds};
use super::timeline::Report;
use super::track::Around;
use crate::base::format::Format;
use crate::base::ids::Ssrc;
use crate::worker::command::Recorded;

/// The sidecar is written anew after such a time, first and at most; and the header with it.
const NOTE_AFTER: Duration = Duration::from_secs(1);
const NOTE_AFTER_MAX: Duration = Duration::from_secs(10);
/// What a picture lasts of which no next one is known.
const PICTURE_S: f64 = 1.0 / 30.0;
/// Characters of a room's name in a file's name.
const ROOM_CHARS_MAX: usize = 64;

enum Writer {
    /// Length of the last picture, for the duration.
    Ivf {
        last: Option<u64>,
        step: u64,
    },
    /// Without times of its own.
    AnnexB,
    Ogg(Box<OggOpus>),
}

/// See the module.
pub struct OpenFile {
    disk_file: Arc<DiskFile>,
    writer: Writer,
    format: Format,
    sidecar: Sidecar,
    noted_at: Instant,
    note_after: Duration,
    /// The last time written, in 1/90,000 s.
    last_time: Option<u64>,
}

/// What a file may be called by a room's name: others' letters become dashes, so that no name leads out of the directory
/// or needs quoting.
pub fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = name.chars().take(ROOM_CHARS_MAX).map(plain).collect();
    // No hidden file, and not the directory's own or parent's name.
    if name.starts_with('.') { format!("-{name}") } else { name }
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::H264 { .. } => "h264",
        format if format.kind() == crate::base::format::MediaKind::Video => "ivf",
        _ => "ogg",
    }
}

/// How IVF names a codec.
fn fourcc(format: Format) -> [u8; 4] {
    match format {
        Format::Vp9 { .. } => *b"VP90",
        Format::Av1 { .. } => *b"AV01",
        _ => *b"VP80",
    }
}

/// `{room}_{track}_{unixSeconds}` and the moment; later by seconds where that name is taken.
fn stem(around: &mut Around<'_>, about: &Recorded, arrived_at: Instant) -> (String, SystemTime) {
    let ago = around.now.saturating_duration_since(arrived_at);
    let started = around.wall.checked_sub(ago).unwrap_or(around.wall);
    let mut second = unix_seconds(started) as u64;
    loop {
        let stem = format!("{}_{}_{second}", plain_name(&about.room), plain_name(&about.id));
        if around.names.insert(stem.clone()) {
            return (stem, started);
        }
        second += 1;
    }
}

fn sidecar(around: &Around<'_>, about: &Recorded, started: SystemTime, file: String, codec: &str) -> Sidecar {
    Sidecar {
        file,
        state: State::Recording,
        error: None,
        room: about.room.clone(),
        track: about.id.clone(),
        kind: about.kind.as_str().to_owned(),
        user: about.user_id.clone(),
        publisher: format!("{}/{}", around.run, about.publisher),
        muxed: about.is_muxed,
        settled: false,
        codec: codec.to_owned(),
        clock_rate: 0,
        started_at: jiff::Timestamp::try_from(started).map(|time| time.to_string()).unwrap_or_default(),
        started_unix: unix_seconds(started),
        seconds: 0.0,
        frames: 0,
        sources: Vec::new(),
        reports: Vec::new(),
        gaps: Vec::new(),
        sizes: Vec::new(),
        frame_times: Vec::new(),
    }
}

impl OpenFile {
    /// Begins a file of what came first at `arrived_at`.
    pub fn begin(
        around: &mut Around<'_>,
        about: &Recorded,
        format: Format,
        size: (u16, u16),
        arrived_at: Instant,
    ) -> Self {
        let (stem, started) = stem(around, about, arrived_at);
        let name = format!("{stem}.{}", extension(format));
        let disk_file = around.disk.create(around.directory.join(&name));
        let (writer, head) = match format {
            Format::Vp8 | Format::Vp9 { .. } | Format::Av1 { .. } => {
                (Writer::Ivf { last: None, step: 0 }, ivf::header(fourcc(format), size).to_vec())
            }
            Format::H264 { .. } => (Writer::AnnexB, Vec::new()),
            _ => {
                let mut ogg = Box::new(OggOpus::new(crc32fast::hash(stem.as_bytes())));
                let head = ogg.take_bytes();
                (Writer::Ogg(ogg), head)
            }
        };
        around.disk.append(&disk_file, head);
        let mut sidecar = sidecar(around, about, started, name, format.name());
        sidecar.clock_rate = format.clock_rate_hz();
        tracing::info!(room = %about.room, track = %about.id, file = %sidecar.file, "recording");
        let file =
            Self { disk_file, writer, format, sidecar, noted_at: around.now, note_after: NOTE_AFTER, last_time: None };
        file.note(around.disk);
        file
    }

    /// Says beside the recordings why there is none of a track.
    pub fn refuse(around: &mut Around<'_>, about: &Recorded, why: &str) {
        let (stem, started) = stem(around, about, around.now);
        let mut sidecar = sidecar(around, about, started, String::new(), "");
        (sidecar.state, sidecar.error, sidecar.settled) = (State::Failed, Some(why.to_owned()), true);
        around.disk.replace(around.directory.join(format!("{stem}.json")), sidecar.to_bytes());
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.sidecar.file
    }

    /// Its length.
    pub fn seconds(&self) -> f64 {
        self.sidecar.seconds
    }

    /// Whether frames of that format can follow.
    pub fn takes(&self, format: Format) -> bool {
        self.format.name() == format.name()
    }

    /// Why it is given up, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.disk_file.failure()
    }

    /// Writes a frame of that second.
    pub fn write_frame(&mut self, disk: &Disk, at_s: f64, frame: &Frame) {
        let time = (at_s.max(0.0) * f64::from(ivf::RATE_HZ)).round() as u64;
        // Frames of one moment would be taken for one.
        let time = self.last_time.map_or(time, |last| time.max(last + 1));
        match &mut self.writer {
            Writer::Ivf { last, step } => {
                *step = last.map_or(0, |last| time - last);
                *last = Some(time);
                let mut bytes = Vec::with_capacity(ivf::FRAME_HEADER_BYTES + frame.data.len());
                bytes.extend(ivf::frame_header(frame.data.len(), time));
                bytes.extend(&frame.data);
                disk.append(&self.disk_file, bytes);
            }
            Writer::AnnexB => {
                disk.append(&self.disk_file, frame.data.clone());
                self.sidecar.frame_times.push(time);
            }
            Writer::Ogg(_) => return,
        }
        self.last_time = Some(time);
        self.sidecar.frames += 1;
        self.sidecar.seconds = time as f64 / f64::from(ivf::RATE_HZ);
        if let Some(size) = frame.size.filter(|_| frame.is_key) {
            self.sidecar.add_size(at_s, size);
        }
    }

    /// Writes a packet of sound of that second.
    pub fn write_sound(&mut self, disk: &Disk, at_s: f64, arrived_at: Instant, packet: Vec<u8>) {
        let Writer::Ogg(ogg) = &mut self.writer else { return };
        self.sidecar.frames += u64::from(ogg.write(at_s, arrived_at, packet));
        self.sidecar.seconds = ogg.seconds();
        disk.append(&self.disk_file, ogg.take_bytes());
    }

    /// A report of the source that is recorded.
    pub fn note_report(&mut self, at: f64, report: Report, heard: SystemTime) {
        let Report { source, ntp, rtp_timestamp } = report;
        self.sidecar.add_report(ReportEntry {
            at,
            ssrc: source.0,
            rtp: rtp_timestamp,
            ntp,
            heard: unix_seconds(heard),
        });
    }

    /// Packets never came.
    pub fn note_gap(&mut self, at: f64, packets: u64) {
        self.sidecar.add_gap(at, packets);
    }

    /// Another source from here on.
    pub fn note_source(&mut self, at: f64, source: Ssrc, rtp: u32, encoding: u8) {
        self.sidecar.add_source(SourceEntry { at, ssrc: source.0, rtp, encoding });
    }

    /// Closes the page of sound and writes the sidecar when it is time.
    pub fn flush(&mut self, around: &Around<'_>) {
        if let Writer::Ogg(ogg) = &mut self.writer {
            ogg.flush(around.now);
            around.disk.append(&self.disk_file, ogg.take_bytes());
        }
        if around.now.saturating_duration_since(self.noted_at) >= self.note_after {
            self.noted_at = around.now;
            self.note_after = (self.note_after * 2).min(NOTE_AFTER_MAX);
            self.note(around.disk);
        }
    }

    /// The file is whole.
    pub fn finish(mut self, around: &mut Around<'_>, state: State, error: Option<String>) -> Sidecar {
        if let Writer::Ogg(ogg) = &mut self.writer {
            ogg.finish();
            around.disk.append(&self.disk_file, ogg.take_bytes());
        }
        let picture = match self.writer {
            Writer::Ivf { step: 1.., .. } | Writer::AnnexB => PICTURE_S,
            _ => 0.0,
        };
        self.sidecar.seconds += picture;
        (self.sidecar.state, self.sidecar.error) = (state, error);
        self.note(around.disk);
        around.disk.close(&self.disk_file);
        self.sidecar
    }

    fn note(&self, disk: &Disk) {
        if let Writer::Ivf { last: Some(last), step } = &self.writer {
            let duration = u32::try_from(last + step).unwrap_or(0);
            disk.patch(&self.disk_file, ivf::DURATION_AT, duration.to_le_bytes().to_vec());
        }
        disk.replace(self.disk_file.path.with_extension("json"), self.sidecar.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_leads_out_of_the_directory() {
        for (room, name) in
            [("r1", "r1"), ("../etc/passwd", "-..-etc-passwd"), ("a b/ü", "a-b--"), ("..", "-.."), ("", "")]
        {
            assert_eq!(plain_name(room), name);
        }
        assert_eq!(plain_name(&"x".repeat(500)).len(), ROOM_CHARS_MAX);
    }
}
