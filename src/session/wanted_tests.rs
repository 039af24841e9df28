//! Wishes, and the rates that come of them.

use super::*;
use crate::base::format::Format;
use crate::base::frame::FrameMarks;
use crate::base::ids::{Mid, Ssrc, TrackKey};
use crate::proto::history::{Packet, PacketMeta};
use crate::runtime::clock;
use crate::session::streams::{EncodingConfig, IngressConfig, MlineConfig, StreamsConfig};

const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };
const OTHER: TrackKey = TrackKey { index: 1, epoch: 0 };
/// Bytes of a packet, with headers.
const PACKET: usize = 500;
/// Width, height, bytes of a frame.
const LAYERS: [(u16, u16, usize); 3] = [(320, 180, 500), (640, 360, 2000), (1280, 720, 8000)];

struct Bench {
    now: Instant,
    ingress: Ingress,
    tracks: Tracks,
    ceiling: Ceiling,
    seq: u64,
    picture: u32,
}

impl Bench {
    fn new() -> Self {
        let (ingress, tracks) = (Ingress::default(), Tracks::default());
        Self { now: clock::now(), ingress, tracks, ceiling: Ceiling::default(), seq: 1000, picture: 0 }
    }

    /// The wishes for each video.
    fn wish(&mut self, wishes: &[(TrackKey, Option<u32>)]) {
        let mline = |(track, pixels_wanted): &(TrackKey, Option<u32>)| {
            let encodings = vec![EncodingConfig::default(); 3];
            let ingress = Some(IngressConfig { track: *track, encodings, pixels_wanted: *pixels_wanted });
            let (exts, payloads) = (Vec::new(), Vec::new());
            let (mid, kind) = (Mid::new(b"0").unwrap(), MediaKind::Video);
            Some(MlineConfig { mid, kind, exts, payloads, ingress, egress: None })
        };
        let mlines = wishes.iter().map(mline).collect();
        self.ingress.configure(self.now, &StreamsConfig { mlines, ext_mixed: true, downlink_bps_max: None });
    }

    /// A second of pictures of so many layers.
    fn send(&mut self, key: TrackKey, layers: usize) {
        for picture in 0..30u32 {
            self.now += Duration::from_micros(33_333);
            for (encoding, (width, height, bytes)) in (0u8..).zip(&LAYERS[..layers]) {
                // A VP8 head that names its size, as a keyframe's does.
                let mut payload = [0; PACKET - HEADERS_BYTES as usize];
                payload[0] = 0x10;
                payload[1] = u8::from(picture > 0);
                payload[4..7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
                payload[7..9].copy_from_slice(&width.to_le_bytes());
                payload[9..11].copy_from_slice(&height.to_le_bytes());
                for part in 0..bytes / PACKET {
                    let marks = FrameMarks { is_key: picture == 0, is_start: part == 0, ..FrameMarks::WHOLE };
                    let (timestamp, marker) = (self.picture.wrapping_mul(3000), part + 1 == bytes / PACKET);
                    let (source, format) = (Ssrc(u32::from(encoding)), Format::Vp8);
                    let meta = PacketMeta { seq: self.seq, source, timestamp, marker, format, encoding, marks };
                    self.seq += 1;
                    let track = self.tracks.ensure(key, MediaKind::Video);
                    assert!(track.insert(self.now, Packet { meta, exts: &[], payload: &payload }));
                    track.plan();
                    track.forget_planned();
                }
            }
            self.picture += 1;
        }
        let index = usize::from(key == OTHER);
        if let Some(publication) = self.ingress.publications.get_mut(index).and_then(|it| it.as_mut()) {
            publication.is_live = true;
        }
    }

    fn ceiling(&mut self) -> Option<u64> {
        self.ceiling.update(self.now, &mut self.ingress, &self.tracks);
        self.ceiling.bps()
    }
}

/// What the layers up to one take, as browsers share it out and with headroom: less than the next one needs.
fn assert_carries(bps: Option<u64>, layers: usize) {
    let needed: usize = LAYERS[..layers].iter().map(|(_, _, bytes)| bytes * 240).sum();
    let bps = bps.expect("a ceiling") as usize;
    assert!(bps >= needed && bps < needed + LAYERS[layers].2 * 240 / 2, "{bps} for {needed}");
}

#[test]
fn the_layers_that_are_wanted_have_room_and_the_next_has_none() {
    let mut bench = Bench::new();
    bench.wish(&[(TRACK, None)]);
    bench.send(TRACK, 3);
    assert_eq!(bench.ceiling(), None, "all is wanted");
    for (pixels, layers) in [(0, 1), (160 * 90, 1), (320 * 180, 1), (640 * 360, 2), (700 * 360, 2)] {
        let mut bench = Bench::new();
        bench.wish(&[(TRACK, Some(pixels))]);
        (0..6).for_each(|_| bench.send(TRACK, 3));
        assert_carries(bench.ceiling(), layers);
    }
    let mut bench = Bench::new();
    bench.wish(&[(TRACK, Some(640 * 360))]);
    (0..6).for_each(|_| bench.send(TRACK, 3));
    assert_carries(bench.ceiling(), 2);
    bench.wish(&[(TRACK, Some(0))]);
    (0..6).for_each(|_| bench.send(TRACK, 3));
    assert_carries(bench.ceiling(), 1);
    for pixels in [800 * 450, 1280 * 720, 1920 * 1080] {
        let mut bench = Bench::new();
        bench.wish(&[(TRACK, Some(pixels))]);
        (0..6).for_each(|_| bench.send(TRACK, 3));
        assert_eq!(bench.ceiling(), None, "{pixels} pixels take the largest");
    }
}

#[test]
fn less_is_believed_after_a_while_and_more_at_once() {
    let mut bench = Bench::new();
    bench.wish(&[(TRACK, None)]);
    bench.send(TRACK, 3);
    bench.wish(&[(TRACK, Some(0))]);
    (0..4).for_each(|_| bench.send(TRACK, 3));
    assert_eq!(bench.ceiling(), None, "somebody may come back");
    // Somebody came and went: that begins anew.
    bench.wish(&[(TRACK, Some(320 * 180))]);
    bench.wish(&[(TRACK, Some(0))]);
    (0..4).for_each(|_| bench.send(TRACK, 3));
    assert_eq!(bench.ceiling(), None);
    (0..2).for_each(|_| bench.send(TRACK, 3));
    assert_carries(bench.ceiling(), 1);
    bench.wish(&[(TRACK, Some(640 * 360))]);
    assert_carries(bench.ceiling(), 2);
    bench.wish(&[(TRACK, Some(1280 * 720))]);
    assert_eq!(bench.ceiling(), None);
}

#[test]
fn a_layer_that_stopped_at_our_wish_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.wish(&[(TRACK, Some(0))]);
    (0..6).for_each(|_| bench.send(TRACK, 3));
    let ceiling = bench.ceiling();
    // The others have stopped long ago, and there is a ceiling still, or they would begin again.
    (0..20).for_each(|_| bench.send(TRACK, 1));
    assert_carries(bench.ceiling(), 1);
    assert!(bench.ceiling() <= ceiling);
    bench.wish(&[(TRACK, Some(1280 * 720))]);
    assert_eq!(bench.ceiling(), None, "it can be had again");
}

#[test]
fn what_needs_all_it_can_get_is_not_held_back_for_another() {
    let mut bench = Bench::new();
    bench.wish(&[(TRACK, Some(0)), (OTHER, None)]);
    (0..6).for_each(|_| bench.send(TRACK, 3));
    assert_carries(bench.ceiling(), 1);
    bench.send(OTHER, 1);
    assert_eq!(bench.ceiling(), None, "one layer, and all of it is wanted");
    // A picture of one size has nothing that could be left out.
    bench.wish(&[(OTHER, Some(0))]);
    (0..6).for_each(|_| bench.send(OTHER, 1));
    assert_eq!(bench.ceiling(), None);
}
