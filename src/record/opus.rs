//! Opus in Ogg (RFC 7845): packets, their lengths in samples, and something in the place of what never came.
//!
//! Owns: the page under way and the samples written. Promises: what has been written lasts as long as what was sent: where
//! packets are missing, by loss or as nobody spoke (DTX), stand packets of no bytes, which a decoder conceals; a page is
//! kept back for a tenth of a second at most. Forbids: files, clocks.

use std::io::Write;
use std::time::{Duration, Instant};

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

/// Samples of a second, whatever the sender's own rate is (RFC 7845 §4).
pub const RATE_HZ: u32 = 48_000;
/// The delay of the usual encoder, cut off at the beginning (RFC 7845 §4.2).
pub const PRE_SKIP: u16 = 312;
/// A page is closed when its first packet is so old: more would be lost in a crash, less would cost more bytes.
const PAGE_MAX: Duration = Duration::from_millis(100);
/// A packet may be wrong by so much before something is put before it, or it is left out: a packet of 20 ms.
const TOLERANCE: u64 = 960;
/// RFC 6716 §3.2.5: a packet lasts 120 ms at most.
const PACKET_SAMPLES_MAX: u64 = 5760;

/// The header that begins a file, which is also WebM's private data of the codec (RFC 7845 §5.1): two channels.
pub fn head() -> [u8; 19] {
    let mut out = *b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0";
    out[10..12].copy_from_slice(&PRE_SKIP.to_le_bytes());
    out
}

/// RFC 7845 §5.2: who made it, and no comments.
fn tags() -> Vec<u8> {
    let vendor = b"Tramline";
    [b"OpusTags".as_slice(), &(vendor.len() as u32).to_le_bytes(), vendor, &[0; 4]].concat()
}

/// Samples of one frame of a packet (RFC 6716 §3.1, table 2).
fn frame_samples(toc: u8) -> u64 {
    match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    }
}

/// Samples of a packet; `None` where it breaks the rules of RFC 6716 §3.4.
pub fn packet_samples(packet: &[u8]) -> Option<u64> {
    let toc = *packet.first()?;
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    let samples = frames * frame_samples(toc);
    (1..=PACKET_SAMPLES_MAX).contains(&samples).then_some(samples)
}

/// See the module.
pub struct OggOpus {
    pages: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// Samples up to now.
    samples: u64,
    /// The page under way: packets, and the samples up to the end of each.
    page: Vec<(Vec<u8>, u64)>,
    /// When its first packet came.
    since: Option<Instant>,
    /// The first byte of the last packet.
    toc: u8,
}

impl OggOpus {
    /// A stream of that number, with its headers.
    pub fn new(serial: u32) -> Self {
        let mut this =
            Self { pages: PacketWriter::new(Vec::new()), serial, samples: 0, page: Vec::new(), since: None, toc: 0 };
        this.put(head().to_vec(), PacketWriteEndInfo::EndPage, 0);
        this.put(tags(), PacketWriteEndInfo::EndPage, 0);
        this
    }

    /// Writes a packet that is to be heard at that second. `false`: it is left out, as its time is taken.
    pub fn write(&mut self, at_s: f64, arrived_at: Instant, packet: Vec<u8>) -> bool {
        let Some(samples) = packet_samples(&packet) else { return false };
        let at = (at_s * f64::from(RATE_HZ)).round().max(0.0) as u64;
        if self.samples >= at + 2 * TOLERANCE.max(samples) {
            return false;
        }
        self.toc = packet[0];
        self.since.get_or_insert(arrived_at);
        let missing = at.saturating_sub(self.samples);
        if missing >= TOLERANCE.max(frame_samples(self.toc)) {
            self.fill(missing);
        }
        self.samples += samples;
        self.page.push((packet, self.samples));
        true
    }

    /// Packets of frames without bytes (RFC 7845 §4.1).
    fn fill(&mut self, missing: u64) {
        let frame = frame_samples(self.toc);
        let mut frames = missing / frame;
        while frames > 0 {
            let count = frames.min(PACKET_SAMPLES_MAX / frame);
            // RFC 6716 §3.2.5: code 3 and a count, all of one length, which is none.
            let packet = if count == 1 { vec![self.toc & !3] } else { vec![self.toc | 3, count as u8] };
            self.samples += count * frame;
            self.page.push((packet, self.samples));
            frames -= count;
        }
    }

    /// Closes the page if it is time.
    pub fn flush(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) >= PAGE_MAX) {
            self.end_page(PacketWriteEndInfo::EndPage);
        }
    }

    /// Closes the stream.
    pub fn finish(&mut self) {
        if self.page.is_empty() {
            // The last page has a packet; this one lasts no time, as its end is where it begins (RFC 7845 §4.5).
            self.page.push((vec![self.toc & !3], self.samples));
        }
        self.end_page(PacketWriteEndInfo::EndStream);
    }

    fn end_page(&mut self, end: PacketWriteEndInfo) {
        let last = self.page.len().saturating_sub(1);
        for (index, (packet, samples)) in std::mem::take(&mut self.page).into_iter().enumerate() {
            self.put(packet, if index == last { end } else { PacketWriteEndInfo::NormalPacket }, samples);
        }
        self.since = None;
    }

    fn put(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo, samples: u64) {
        // Writing to memory cannot fail.
        let _ = self.pages.write_packet(packet, self.serial, end, samples);
        let _ = self.pages.inner_mut().flush();
    }

    /// Bytes for the file since the last call.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(self.pages.inner_mut())
    }

    /// Seconds written.
    pub fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(RATE_HZ)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ogg::reading::PacketReader;

    use super::*;
    use crate::runtime::clock;

    /// Wideband SILK of 20 ms, one frame.
    const TOC: u8 = 9 << 3;

    /// Packets of a file, and the granule position of each one's page.
    fn read(bytes: &[u8]) -> Vec<(Vec<u8>, u64, bool)> {
        let mut reader = PacketReader::new(Cursor::new(bytes));
        let packets = std::iter::from_fn(|| reader.read_packet().unwrap());
        packets.map(|packet| (packet.data.clone(), packet.absgp_page(), packet.last_in_stream())).collect()
    }

    #[test]
    fn lengths_are_those_of_the_rfc() {
        for (packet, samples) in [
            (&[0x00][..], Some(480)),
            (&[TOC, 1], Some(960)),
            (&[TOC | 1, 1], Some(1920)),
            (&[3 << 3 | 3, 2], Some(5760)),
            (&[3 << 3 | 3, 3], None),
            (&[TOC | 3, 0], None),
            (&[TOC | 3], None),
            (&[13 << 3], Some(960)),
            (&[16 << 3], Some(120)),
            (&[31 << 3 | 2], Some(1920)),
            (&[], None),
        ] {
            assert_eq!(packet_samples(packet), samples, "{packet:?}");
        }
    }

    #[test]
    fn a_file_has_headers_pages_and_an_end() {
        let (mut ogg, now) = (OggOpus::new(7), clock::now());
        for index in 0..5u8 {
            assert!(ogg.write(f64::from(index) * 0.02, now, vec![TOC, index]));
        }
        ogg.flush(now + PAGE_MAX / 2);
        assert_eq!(read(&ogg.take_bytes()).len(), 2, "headers only");
        ogg.flush(now + PAGE_MAX);
        assert!(ogg.write(0.1, now, vec![TOC, 5]));
        ogg.finish();
        let mut file = OggOpus::new(7);
        let mut bytes = file.take_bytes();
        bytes.extend(ogg.take_bytes());
        let packets = read(&bytes);
        assert_eq!(packets[0].0, head());
        assert_eq!(&packets[1].0[..8], b"OpusTags");
        assert_eq!(packets[2..7].iter().map(|packet| packet.1).collect::<Vec<_>>(), [4800; 5]);
        assert_eq!(packets[7], (vec![TOC, 5], 5760, true));
    }

    #[test]
    fn what_is_missing_is_filled_and_what_is_too_much_left_out() {
        let (mut ogg, now) = (OggOpus::new(7), clock::now());
        assert!(ogg.write(0.0, now, vec![TOC, 1]));
        // One lost; jitter of the mapping does not matter; then a second of silence.
        assert!(ogg.write(0.0401, now, vec![TOC, 2]));
        assert!(ogg.write(0.0598, now, vec![TOC, 3]));
        assert!(ogg.write(1.08, now, vec![TOC, 4]));
        assert!((ogg.seconds() - 1.1).abs() < 1e-9, "{}", ogg.seconds());
        assert!(!ogg.write(0.5, now, vec![TOC, 5]), "its time is taken");
        assert!(!ogg.write(1.1, now, vec![]), "no packet");
        ogg.finish();
        let packets = read(&ogg.take_bytes());
        assert_eq!(packets[3].0, [TOC], "one frame of nothing");
        assert_eq!(packets[6].0, [TOC | 3, 6], "six of them");
        let total: u64 = packets[2..].iter().map(|packet| packet_samples(&packet.0).unwrap()).sum();
        assert_eq!(total, 52_800);
    }

    #[test]
    fn an_end_without_a_page_under_way_adds_no_time() {
        let (mut ogg, now) = (OggOpus::new(7), clock::now());
        ogg.write(0.0, now, vec![TOC, 1]);
        ogg.flush(now + PAGE_MAX);
        ogg.finish();
        let packets = read(&ogg.take_bytes());
        assert_eq!(packets.last().map(|packet| (packet.1, packet.2)), Some((960, true)));
    }
}
