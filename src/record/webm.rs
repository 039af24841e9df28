//! One WebM of all that a publisher sent, in sync: made of its files when they are whole.
//!
//! What happened at one moment of the publisher's clock is at one time of the WebM: sidecars tell how the seconds of a file
//! map to that clock by sender reports. Where a track brought none, the arrivals at the server have to do for all. Owns:
//! the muxing. Promises: memory for a few seconds, whatever the length; the file appears when it is whole.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ogg::reading::PacketReader;
use webm_iterable::matroska_spec::{Master, MatroskaSpec as Tag, SimpleBlock};
use webm_iterable::{WebmWriter, WriteOptions};

use super::sidecar::Sidecar;
use super::{ivf, opus};
use crate::wire::bits::BitReader;
use crate::wire::payload::av1;

/// A cluster is closed at a keyframe when it is so long, and without one before its blocks' 16-bit times end.
const CLUSTER_MS: i64 = 1000;
const CLUSTER_MS_MAX: i64 = 5000;
/// A frame or packet larger than this is none: what follows it in the file is not read.
const FRAME_BYTES_MAX: usize = 32 << 20;
/// RFC 7845 §4.6: a decoder that jumps needs 80 ms before the place, in nanoseconds.
const SEEK_PRE_ROLL_NS: u64 = 80_000_000;
/// EBML id of Cues.
const CUES_ID: [u8; 4] = [0x1c, 0x53, 0xbb, 0x6b];
/// Id and size of the segment.
const SEGMENT_HEAD_BYTES: u64 = 12;
/// Stands for a position until it is known, in as many bytes.
const UNKNOWN_POSITION: u64 = u64::MAX;

/// Why there is no WebM.
#[derive(Debug, thiserror::Error)]
pub enum MuxError {
    /// Nothing that WebM can hold.
    #[error("none of its tracks can be put into a WebM: those are VP8, VP9, AV1 and Opus")]
    NothingToMux,
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An element cannot be written.
    #[error("{0}")]
    Write(String),
}

/// A frame or packet with its second of the file.
struct Block {
    at_s: f64,
    is_key: bool,
    data: Vec<u8>,
}

enum Source {
    Ivf(BufReader<File>),
    Ogg(Box<PacketReader<BufReader<File>>>, u64),
}

/// A file that is read along.
struct Input {
    sidecar: Sidecar,
    source: Source,
    codec: &'static str,
    /// Second of the WebM where the file begins.
    start_s: f64,
    next: Option<(i64, Block)>,
    /// The first frame, which may say more of the codec.
    first: Vec<u8>,
}

/// Seconds of the WebM where each of the files begins.
fn starts(sidecars: &[&Sidecar]) -> Vec<f64> {
    let epoch = sidecars.iter().filter_map(|sidecar| sidecar.reports.first()).map(|report| report.ntp).min();
    let by_reports: Option<Vec<f64>> =
        epoch.and_then(|epoch| sidecars.iter().map(|sidecar| sidecar.publisher_start(epoch)).collect());
    let starts = by_reports.unwrap_or_else(|| sidecars.iter().map(|sidecar| sidecar.started_unix).collect());
    let zero_s = starts.iter().copied().fold(f64::INFINITY, f64::min);
    starts.into_iter().map(|start_s| start_s - zero_s).collect()
}

impl Input {
    fn open(directory: &Path, sidecar: &Sidecar) -> Option<Self> {
        let codec = match sidecar.codec.as_str() {
            "VP8" => "V_VP8",
            "VP9" => "V_VP9",
            "AV1" => "V_AV1",
            "opus" => "A_OPUS",
            _ => return None,
        };
        let mut file = BufReader::new(File::open(directory.join(&sidecar.file)).ok()?);
        let source = if codec == "A_OPUS" {
            let mut packets = PacketReader::new(file);
            // OpusHead and OpusTags.
            packets.read_packet().ok()??;
            packets.read_packet().ok()??;
            Source::Ogg(Box::new(packets), 0)
        } else {
            file.seek(SeekFrom::Start(ivf::HEADER_BYTES as u64)).ok()?;
            Source::Ivf(file)
        };
        Some(Self { sidecar: sidecar.clone(), source, codec, start_s: 0.0, next: None, first: Vec::new() })
    }

    fn is_video(&self) -> bool {
        matches!(self.source, Source::Ivf(_))
    }

    /// Reads the next block; a file that ends in the middle of one ends before it.
    fn advance(&mut self) {
        let block = match &mut self.source {
            Source::Ivf(file) => read_frame(file, self.codec),
            Source::Ogg(packets, samples) => packets.read_packet().ok().flatten().and_then(|packet| {
                let at_s = *samples as f64 / f64::from(opus::RATE_HZ);
                // The last one may last shorter than it says; nothing follows it.
                *samples += opus::packet_samples(&packet.data)?;
                Some(Block { at_s, is_key: true, data: packet.data })
            }),
        };
        self.next = block.map(|block| {
            let ms = ((self.start_s + block.at_s) * 1000.0).round() as i64;
            (ms.max(0), block)
        });
        if let Some((_, block)) = &self.next
            && self.first.is_empty()
        {
            self.first.clone_from(&block.data);
        }
    }
}

fn read_frame(file: &mut BufReader<File>, codec: &str) -> Option<Block> {
    let mut head = [0; ivf::FRAME_HEADER_BYTES];
    file.read_exact(&mut head).ok()?;
    let (len, time) = ivf::parse_frame_header(&head);
    let mut data = vec![0; Some(len).filter(|len| *len <= FRAME_BYTES_MAX)?];
    file.read_exact(&mut data).ok()?;
    let at_s = time as f64 / f64::from(ivf::RATE_HZ);
    let is_key = is_key(codec, &data);
    if codec == "V_AV1" {
        // Temporal delimiters are not stored (AV1 in Matroska §3).
        data.drain(..data.len().min(2));
    }
    Some(Block { at_s, is_key, data })
}

/// Whether a frame as it stands in our files is a keyframe.
fn is_key(codec: &str, data: &[u8]) -> bool {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0xff);
    match codec {
        // RFC 6386 §9.1.
        "V_VP8" => byte(0) & 1 == 0,
        // VP9 §6.2: frame_marker, profile, show_existing_frame, frame_type; ours have a profile below 3.
        "V_VP9" => byte(0) >> 6 == 2 && byte(0) & 0x0c == 0,
        // A sequence header behind the temporal delimiter.
        _ => byte(2) >> 3 & 0x0f == 1,
    }
}

/// Makes `{stem of the picture}.webm` of the files. Its path.
pub fn mux(directory: &Path, files: &[Sidecar]) -> Result<PathBuf, MuxError> {
    let mut inputs: Vec<Input> = files.iter().filter_map(|sidecar| Input::open(directory, sidecar)).collect();
    let named = inputs.iter().find(|input| input.is_video()).or(inputs.first()).ok_or(MuxError::NothingToMux)?;
    let path = directory.join(&named.sidecar.file).with_extension("webm");
    let starts = starts(&inputs.iter().map(|input| &input.sidecar).collect::<Vec<_>>());
    for (input, start_s) in inputs.iter_mut().zip(starts) {
        input.start_s = start_s;
        input.advance();
    }
    let temporary = path.with_extension("part");
    let made = write(&temporary, &mut inputs).and_then(|()| Ok(fs::rename(&temporary, &path)?));
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made.map(|()| path)
}

/// Counts what is written.
struct Counted(BufWriter<File>, u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.0.write(bytes)?;
        self.1 += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

type Out = WebmWriter<Counted>;

fn put(out: &mut Out, tag: &Tag) -> Result<(), MuxError> {
    out.write(tag).map_err(|error| MuxError::Write(error.to_string()))
}

fn write(path: &Path, inputs: &mut [Input]) -> Result<(), MuxError> {
    let length_s = inputs.iter().map(|input| input.start_s + input.sidecar.seconds);
    let length_ms = length_s.fold(0.0, f64::max) * 1000.0;
    let mut out = WebmWriter::new(Counted(BufWriter::new(File::create(path)?), 0));
    put(&mut out, &ebml_head())?;
    out.write_advanced(&Tag::Segment(Master::Start), WriteOptions::is_unknown_sized_element())
        .map_err(|error| MuxError::Write(error.to_string()))?;
    // It is on its way, and written with what comes next.
    let begin = out.get_ref().1 + SEGMENT_HEAD_BYTES;
    put(&mut out, &seek_head())?;
    let seek_end = out.get_ref().1;
    put(&mut out, &info(length_ms))?;
    put(&mut out, &Tag::Tracks(Master::Full(inputs.iter().enumerate().map(track_entry).collect())))?;
    let cues = write_clusters(&mut out, inputs, begin)?;
    let cues_at = out.get_ref().1 - begin;
    put(&mut out, &Tag::Cues(Master::Full(cues)))?;
    let end = out.get_ref().1;
    let mut file = out.get_mut().0.get_ref().try_clone()?;
    out.flush().map_err(|error| MuxError::Write(error.to_string()))?;
    // The size of the segment, in the eight bytes before it; and where the cues are, at the end of the seek head.
    file.seek(SeekFrom::Start(begin - 8))?;
    file.write_all(&(1 << 56 | (end - begin)).to_be_bytes())?;
    file.seek(SeekFrom::Start(seek_end - 8))?;
    file.write_all(&cues_at.to_be_bytes())?;
    Ok(())
}

fn ebml_head() -> Tag {
    Tag::Ebml(Master::Full(vec![
        Tag::EbmlVersion(1),
        Tag::EbmlReadVersion(1),
        Tag::EbmlMaxIdLength(4),
        Tag::EbmlMaxSizeLength(8),
        Tag::DocType("webm".to_owned()),
        Tag::DocTypeVersion(4),
        Tag::DocTypeReadVersion(2),
    ]))
}

fn seek_head() -> Tag {
    let seek = vec![Tag::SeekID(CUES_ID.to_vec()), Tag::SeekPosition(UNKNOWN_POSITION)];
    Tag::SeekHead(Master::Full(vec![Tag::Seek(Master::Full(seek))]))
}

fn info(length_ms: f64) -> Tag {
    Tag::Info(Master::Full(vec![
        Tag::TimestampScale(1_000_000),
        Tag::Duration(length_ms),
        Tag::MuxingApp("Tramline".to_owned()),
        Tag::WritingApp("Tramline".to_owned()),
    ]))
}

fn track_entry((index, input): (usize, &Input)) -> Tag {
    let number = index as u64 + 1;
    let mut entry = vec![
        Tag::TrackNumber(number),
        Tag::TrackUID(number),
        Tag::FlagLacing(0),
        Tag::Language("und".to_owned()),
        Tag::CodecID(input.codec.to_owned()),
    ];
    if input.is_video() {
        let size = input.sidecar.sizes.first().map_or((0, 0), |size| (size.width, size.height));
        let pixels = vec![Tag::PixelWidth(size.0.into()), Tag::PixelHeight(size.1.into())];
        entry.extend([Tag::TrackType(1), Tag::Video(Master::Full(pixels))]);
        if input.codec == "V_AV1" {
            entry.extend(av1_config(&input.first).map(Tag::CodecPrivate));
        }
    } else {
        let delay_ns = u64::from(opus::PRE_SKIP) * 1_000_000_000 / u64::from(opus::RATE_HZ);
        let sound = vec![Tag::SamplingFrequency(f64::from(opus::RATE_HZ)), Tag::Channels(2)];
        entry.extend([
            Tag::TrackType(2),
            Tag::CodecDelay(delay_ns),
            Tag::SeekPreRoll(SEEK_PRE_ROLL_NS),
            Tag::Audio(Master::Full(sound)),
            Tag::CodecPrivate(opus::head().to_vec()),
        ]);
    }
    Tag::TrackEntry(Master::Full(entry))
}

/// AV1's configuration record (AV1 in ISOBMFF §2.3) of a temporal unit that begins with a sequence header: version, profile
/// and level, 8 bits of 4:2:0, which is all that WebRTC negotiates, and the header itself.
fn av1_config(unit: &[u8]) -> Option<Vec<u8>> {
    let head_len = 1 + usize::from(unit.first()? >> 2 & 1);
    let (len, body) = av1::leb128(unit.get(head_len..)?)?;
    let end = unit.len() - body.len() + len;
    let mut reader = BitReader::new(body.get(..len)?);
    let profile = reader.bits(3)? as u8;
    let (_still, is_reduced) = (reader.bit()?, reader.bit()?);
    let level = match is_reduced {
        true => reader.bits(5)?,
        // timing_info_present_flag: then the level stands farther behind; 31 is "no limit".
        false if reader.bit()? => 31,
        false => {
            // initial_display_delay_present_flag, operating_points_cnt_minus_1, operating_point_idc.
            reader.skip(1 + 5 + 12)?;
            reader.bits(5)?
        }
    };
    let mut config = vec![0x81, profile << 5 | level as u8, 0x0c, 0];
    config.extend(unit.get(..end)?);
    Some(config)
}

/// All blocks by their times. What the clusters are found by.
fn write_clusters(out: &mut Out, inputs: &mut [Input], begin: u64) -> Result<Vec<Tag>, MuxError> {
    let has_video = inputs.iter().any(Input::is_video);
    let (mut cues, mut cluster, mut cluster_ms) = (Vec::new(), Vec::new(), 0i64);
    while let Some(index) = earliest(inputs) {
        let input = &mut inputs[index];
        let is_video = input.is_video();
        let Some((ms, block)) = input.next.take() else { break };
        let age_ms = ms - cluster_ms;
        let opens = block.is_key && is_video && age_ms >= CLUSTER_MS || age_ms >= CLUSTER_MS_MAX;
        if cluster.is_empty() || opens {
            if !cluster.is_empty() {
                put(out, &Tag::Cluster(Master::Full(std::mem::take(&mut cluster))))?;
            }
            cluster_ms = ms;
            cluster.push(Tag::Timestamp(ms as u64));
            if block.is_key && is_video == has_video {
                cues.push(cue(ms as u64, index as u64 + 1, out.get_ref().1 - begin));
            }
        }
        let offset = (ms - cluster_ms) as i16;
        let track = index as u64 + 1;
        cluster.push(SimpleBlock::new_uncheked(&block.data, track, offset, false, None, false, block.is_key).into());
        inputs[index].advance();
    }
    if !cluster.is_empty() {
        put(out, &Tag::Cluster(Master::Full(cluster)))?;
    }
    Ok(cues)
}

fn earliest(inputs: &[Input]) -> Option<usize> {
    let waiting = inputs.iter().enumerate().filter_map(|(index, input)| Some((input.next.as_ref()?.0, index)));
    waiting.min().map(|(_, index)| index)
}

fn cue(ms: u64, track: u64, position: u64) -> Tag {
    let place = vec![Tag::CueTrack(track), Tag::CueClusterPosition(position)];
    Tag::CuePoint(Master::Full(vec![Tag::CueTime(ms), Tag::CueTrackPositions(Master::Full(place))]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use webm_iterable::WebmIterator;

    use super::*;
    use crate::record::sidecar::tests::sidecar;
    use crate::record::sidecar::{ReportEntry, SizeEntry};
    use crate::runtime::clock;

    /// A picture each 100 ms and sound each 20 ms, of one second. By the reports the sound begins 200 ms after the picture.
    fn files(directory: &Path) -> Vec<Sidecar> {
        fs::create_dir_all(directory).unwrap();
        let mut picture = ivf::header(*b"VP80", (640, 360)).to_vec();
        for frame in 0..10u64 {
            picture.extend(ivf::frame_header(3, frame * 9000));
            picture.extend([u8::from(frame % 5 != 0), 0, 0]);
        }
        // Cut short by a crash.
        picture.extend(ivf::frame_header(100, 90_000));
        let (mut ogg, now) = (opus::OggOpus::new(1), clock::now());
        (0..50).for_each(|packet| assert!(ogg.write(f64::from(packet) * 0.02, now, vec![0x48, 1])));
        ogg.flush(now + Duration::from_secs(1));
        let mut sound = ogg.take_bytes();
        ogg.finish();
        sound.extend(ogg.take_bytes());
        fs::write(directory.join("r_a_1.ivf"), picture).unwrap();
        fs::write(directory.join("r_b_1.ogg"), sound).unwrap();
        let report = |at, ntp: u64| ReportEntry { at, ssrc: 1, rtp: 0, ntp, heard: 0.0 };
        let size = SizeEntry { at: 0.0, width: 640, height: 360 };
        let picture = Sidecar { file: "r_a_1.ivf".into(), seconds: 1.0, sizes: vec![size], ..sidecar() };
        let picture = Sidecar { reports: vec![report(0.5, 100 << 32)], started_unix: 9.0, ..picture };
        let sound = Sidecar { file: "r_b_1.ogg".into(), codec: "opus".into(), seconds: 1.0, ..sidecar() };
        let sound = Sidecar { reports: vec![report(0.3, 100 << 32)], ..sound };
        vec![picture, sound]
    }

    /// Track, time and keyframe of each block, and the length.
    fn read(path: &Path) -> (Vec<(u64, i64, bool)>, f64) {
        let mut file = File::open(path).unwrap();
        let (mut blocks, mut cluster, mut length) = (Vec::new(), 0, 0.0);
        for tag in WebmIterator::new(&mut file, &[]) {
            match tag.unwrap() {
                Tag::Timestamp(at) => cluster = at as i64,
                Tag::Duration(ms) => length = ms,
                Tag::SimpleBlock(bytes) => {
                    let block = SimpleBlock::try_from(&bytes).unwrap();
                    blocks.push((block.track, cluster + i64::from(block.timestamp), block.keyframe));
                }
                _ => {}
            }
        }
        (blocks, length)
    }

    #[test]
    fn the_publishers_clock_brings_its_files_together() {
        let directory = std::env::temp_dir().join(format!("tramline-webm-{}", std::process::id()));
        let files = files(&directory);
        let path = mux(&directory, &files).unwrap();
        assert_eq!(path, directory.join("r_a_1.webm"));
        let (blocks, length) = read(&path);
        let of = |track| blocks.iter().filter(move |block| block.0 == track).map(|block| (block.1, block.2));
        assert_eq!(of(1).take(6).collect::<Vec<_>>(), [0, 100, 200, 300, 400, 500].map(|ms| (ms, ms % 500 == 0)));
        assert_eq!((of(1).count(), of(2).count()), (10, 51), "the last packet lasts no time");
        assert_eq!(of(2).next(), Some((200, true)));
        assert!((length - 1200.0).abs() < 1e-6);
        assert!(blocks.is_sorted_by_key(|block| block.1));
        assert!(!path.with_extension("part").exists());

        // Without reports of one of them the arrivals have to do.
        let late = Sidecar { reports: Vec::new(), started_unix: 9.5, ..files[1].clone() };
        let (blocks, _) = read(&mux(&directory, &[files[0].clone(), late]).unwrap());
        assert_eq!(blocks.iter().find(|block| block.0 == 2), Some(&(2, 500, true)));
        let h264 = Sidecar { codec: "H264".into(), ..files[0].clone() };
        assert!(matches!(mux(&directory, &[h264]), Err(MuxError::NothingToMux)));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn av1_is_configured_by_its_sequence_header() {
        // Profile 0, not reduced, no timing, no delay, one operating point, level 5.
        let unit = [0x0a, 4, 0b0000_0000, 0, 0b0000_0000, 0b0010_1000, 0x32, 1, 9];
        let config = av1_config(&unit).unwrap();
        assert_eq!(config[..4], [0x81, 5, 0x0c, 0]);
        assert_eq!(config[4..], unit[..6]);
        assert_eq!(av1_config(&[0x0a]), None);
    }
}
