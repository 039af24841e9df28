//! Whole joins: what is divided, what is replayed, and who is asked for a keyframe.

use std::net::IpAddr;

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::base::batch::Path;
use crate::base::format::Format;
use crate::base::frame::FrameMarks;
use crate::base::ids::{Mid, Ssrc};
use crate::crypto::srtp::{SrtpSender, SrtpSuite};
use crate::proto::history::{Packet, PacketMeta};
use crate::runtime::clock;
use crate::session::streams::{Demand, EgressConfig, MlineConfig, Payload, StreamsConfig};

const TRACK: TrackKey = TrackKey { index: 0, epoch: 0 };
const PICTURE: Duration = Duration::from_millis(33);

struct Bench {
    now: Instant,
    egress: Egress,
    tracks: Tracks,
    srtp: SrtpSender,
    pictures: u64,
}

fn streams(demand: Demand) -> StreamsConfig {
    let payload = Payload {
        pt: 96,
        format: Format::Vp8,
        rtx_pt: None,
        nack: false,
        pli: true,
        fir: true,
        transport_cc: true,
        remb: false,
    };
    let mline = MlineConfig {
        mid: Mid::new(b"7").unwrap(),
        kind: MediaKind::Video,
        exts: Vec::new(),
        payloads: vec![payload],
        ingress: None,
        egress: Some(EgressConfig { ssrc: Ssrc(1), rtx_ssrc: Ssrc(2), track: Some(TRACK), demand }),
    };
    StreamsConfig { mlines: vec![Some(mline)], ext_mixed: true, downlink_bps_max: None }
}

impl Bench {
    fn new() -> Self {
        let srtp = SrtpSender::new(SrtpSuite::AeadAes128Gcm, &[7; 16], &[9; 12]).unwrap();
        let mut bench =
            Self { now: clock::now(), egress: Egress::default(), tracks: Tracks::default(), srtp, pictures: 0 };
        bench.tracks.ensure(TRACK, MediaKind::Video);
        bench.demand(Demand::default());
        bench
    }

    fn demand(&mut self, demand: Demand) {
        self.egress.configure(self.now, &mut StdRng::seed_from_u64(1), &streams(demand));
    }

    /// Pictures come, the first of them a keyframe, of encodings with packets of so many bytes.
    fn make(&mut self, pictures: u64, bytes: &[usize]) {
        let first = self.pictures;
        for picture in first..first + pictures {
            for (encoding, bytes) in bytes.iter().enumerate() {
                let temporal = [0, 2, 1, 2][(picture - first) as usize % 4];
                let is_key = picture == first;
                let marks = FrameMarks { temporal, is_start: true, is_key, ..FrameMarks::default() };
                let meta = PacketMeta {
                    seq: picture,
                    source: Ssrc(5 + encoding as u32),
                    timestamp: picture as u32 * 3000,
                    marker: true,
                    format: Format::Vp8,
                    encoding: encoding as u8,
                    marks,
                };
                let track = self.tracks.track_mut(TRACK).unwrap();
                assert!(track.insert(self.now, Packet { meta, exts: &[], payload: &vec![0; *bytes] }));
                track.fresh.clear();
            }
            self.now += PICTURE;
        }
        self.pictures += pictures;
    }

    /// What a session does when its streams have changed. Encodings that packets wait of, and how many.
    fn join(&mut self) -> Vec<(u8, usize)> {
        let path = Path { remote: ([192, 0, 2, 9], 9).into(), local: IpAddr::from([192, 0, 2, 1]) };
        self.egress.divide(self.now, &self.tracks);
        self.egress.replay(self.now, &self.tracks, &Outlet { srtp: &self.srtp, path }, &mut RunPackets::default());
        let mut waiting: Vec<(u8, usize)> = Vec::new();
        while self.egress.has_backlog() {
            self.now += Duration::from_millis(5);
            let Some((admitted, _)) = self.egress.next_waiting(self.now) else { continue };
            match waiting.last_mut().filter(|(encoding, _)| *encoding == admitted.encoding) {
                Some((_, count)) => *count += 1,
                None => waiting.push((admitted.encoding, 1)),
            }
        }
        waiting
    }

    fn asked(&self) -> Vec<u8> {
        self.egress.awaiting_keyframe(self.now).map(|(_, encoding)| encoding).collect()
    }
}

#[test]
fn who_joins_is_served_from_what_is_kept_and_nobody_is_asked() {
    let mut bench = Bench::new();
    bench.make(40, &[1000]);
    assert_eq!(bench.join(), [(0, 10)]);
    assert_eq!(bench.asked(), [] as [u8; 0]);
}

#[test]
fn where_too_much_is_kept_the_publisher_is_asked() {
    let mut bench = Bench::new();
    // 75 packets of temporal layer 0: 1 Mbit/s carries 62,500 bytes in half a second.
    bench.make(300, &[1000]);
    assert_eq!(bench.join(), []);
    assert_eq!(bench.asked(), [0]);
}

#[test]
fn who_has_come_and_sees_something_waits_for_more_before_anybody_is_asked() {
    let mut bench = Bench::new();
    bench.make(300, &[100, 1000]);
    assert_eq!(bench.join(), [(0, 75)]);
    assert_eq!(bench.asked(), [] as [u8; 0]);
    assert!(bench.egress.is_awaiting());
    let later = bench.egress.awaiting_keyframe(bench.now + YOUNG);
    assert_eq!(later.map(|(_, encoding)| encoding).collect::<Vec<_>>(), [1]);
    // Somebody asked meanwhile.
    bench.make(5, &[100, 1000]);
    assert_eq!(bench.join(), [(1, 5)]);
    assert_eq!(bench.asked(), [] as [u8; 0]);
}

#[test]
fn who_has_seen_something_for_long_switches_without_the_past() {
    let mut bench = Bench::new();
    bench.make(300, &[100, 1000]);
    assert_eq!(bench.join(), [(0, 75)]);
    bench.now += SETTLING;
    bench.make(9, &[100, 1000]);
    assert_eq!((bench.join(), bench.asked()), (vec![], vec![1]), "a keyframe is better");
    bench.make(8, &[100, 1000]);
    assert_eq!((bench.join(), bench.asked()), (vec![(1, 8)], vec![]));
}

#[test]
fn of_what_is_hidden_or_small_nothing_more_is_sent_or_asked_for() {
    let mut bench = Bench::new();
    bench.make(300, &[100, 1000]);
    bench.demand(Demand { size: Some((0, 0)), ..Demand::default() });
    assert_eq!(bench.join(), []);
    bench.now += YOUNG;
    assert_eq!(bench.asked(), [] as [u8; 0]);
    bench.make(8, &[100, 1000]);
    bench.demand(Demand { size: Some((16, 9)), ..Demand::default() });
    assert_eq!(bench.join(), [(0, 8)]);
    assert_eq!(bench.asked(), [] as [u8; 0]);
}
