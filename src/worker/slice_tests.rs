//! Rooms on one core: who gets what, and when, if forwarding is cut into slices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::base::batch::Path;
use crate::base::format::Format;
use crate::base::frame::FrameMarks;
use crate::base::ids::{Mid, PeerId, Ssrc, WorkerId};
use crate::crypto::cert::Certificate;
use crate::crypto::srtp::{SrtpKeys, SrtpReceiver, SrtpSuite};
use crate::forward::plan::Plan;
use crate::forward::table::{Route, Subscriber};
use crate::proto::dtls::{DtlsConfig, DtlsRole};
use crate::proto::history::PacketMeta;
use crate::proto::ice::LocalCredentials;
use crate::runtime::clock;
use crate::session::negotiate::RemoteTransport;
use crate::session::streams::{Demand, EgressConfig, MlineConfig, Payload, StreamsConfig};
use crate::wire::rtp::RtpView;
use crate::wire::stun::BindingRequest;
use crate::worker::command::{Command, Ticket};
use crate::worker::job::SLICE_SENDS;
use crate::worker::lane::Lanes;

const SUITE: SrtpSuite = SrtpSuite::AeadAes128Gcm;

/// A track's index tells its room and its m-line.
fn track(room: u32, mline: u16) -> TrackKey {
    TrackKey { index: 2 * room + u32::from(mline), epoch: 0 }
}

fn kind(track: TrackKey) -> MediaKind {
    if track.index.is_multiple_of(2) { MediaKind::Audio } else { MediaKind::Video }
}

pub(super) fn path(index: u32) -> Path {
    let [.., high, low] = index.to_be_bytes();
    Path { remote: SocketAddr::from(([10, 0, high, low], 9)), local: [192, 0, 2, 1].into() }
}

fn keys(index: u32) -> SrtpKeys {
    let material: Vec<u8> = (0..2 * (SUITE.key_len() + SUITE.salt_len())).map(|at| at as u8 ^ index as u8).collect();
    SrtpKeys::from_exporter(SUITE, &material).unwrap()
}

/// Audio and video of a room.
fn streams(room: u32) -> Arc<StreamsConfig> {
    let mline = |mline: u16| {
        let format = [Format::Opus, Format::Vp8][usize::from(mline)];
        let (ssrc, rtx_ssrc) = (Ssrc(1 + u32::from(mline)), Ssrc(9));
        Some(MlineConfig {
            mid: Mid::new(&[b'0' + mline as u8]).unwrap(),
            kind: format.kind(),
            exts: Vec::new(),
            payloads: vec![Payload {
                pt: 96,
                format,
                rtx_pt: None,
                nack: true,
                pli: true,
                fir: false,
                transport_cc: false,
                remb: false,
            }],
            ingress: None,
            egress: Some(EgressConfig { ssrc, rtx_ssrc, track: Some(track(room, mline)), demand: Demand::default() }),
        })
    };
    Arc::new(StreamsConfig { mlines: vec![mline(0), mline(1)], ext_mixed: true, downlink_bps_max: None })
}

/// What a subscriber got on one ssrc, in order: number, timestamp, payload.
pub(super) type Got = BTreeMap<(SocketAddr, Ssrc), Vec<(u64, u32, Vec<u8>)>>;

pub(super) struct Rooms {
    pub(super) core: WorkerCore,
    pub(super) now: Instant,
    tx: TxBatch,
    receivers: BTreeMap<SocketAddr, SrtpReceiver>,
    seqs: BTreeMap<TrackKey, u64>,
    certificate: Arc<Certificate>,
    pub(super) got: Got,
    pub(super) plan: Plan,
}

impl Rooms {
    /// Rooms of so many subscribers, each with an audio and a video track; a batch holds so many datagrams.
    fn new(sizes: &[u32], batch: usize) -> Self {
        let mut rooms = Self::empty(batch);
        let mut indices = 0..;
        for (room, size) in (0..).zip(sizes) {
            let members: Vec<u32> = indices.by_ref().take(*size as usize).collect();
            members.iter().for_each(|index| rooms.enter(*index, streams(room)));
            for mline in [0, 1] {
                let all = members.iter().map(|index| SessionKey { index: *index, epoch: 0 });
                let all = all.map(|session| Subscriber { session, mline }).collect();
                let by_worker = Box::new([all]);
                rooms.plan.set(Route { by_worker, ..Route::new(track(room, mline), WorkerId(0)) });
            }
        }
        rooms.plan.publish();
        rooms
    }

    /// Nobody is there.
    pub(super) fn empty(batch: usize) -> Self {
        let certificate = Arc::new(Certificate::generate().unwrap());
        let dtls = Arc::new(DtlsConfig::new(Arc::clone(&certificate)).unwrap());
        let plan = Plan::default();
        let lanes = Lanes::mesh(1).pop().unwrap();
        let core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(1), dtls, plan.shared(), lanes);
        let (now, tx, receivers) = (clock::now(), TxBatch::with_capacity(batch), BTreeMap::new());
        Self { core, now, tx, receivers, seqs: BTreeMap::new(), got: Got::new(), plan, certificate }
    }

    /// A peer comes with such m-lines.
    pub(super) fn enter(&mut self, index: u32, streams: Arc<StreamsConfig>) {
        let (session, now) = (SessionKey { index, epoch: 0 }, self.now);
        let ticket = Arc::new(Ticket::new(session, PeerId(index.into())));
        let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(index.into()));
        let username = format!("{}:peer", credentials.ufrag());
        let check = BindingRequest {
            transaction_id: [1; 12],
            username: Some(username.as_bytes()),
            use_candidate: true,
            key: Some(credentials.key()),
            has_fingerprint: true,
            ..BindingRequest::default()
        };
        let mut bytes = [0; 256];
        let len = check.write_to(&mut bytes).unwrap();
        self.core.apply(now, Command::Open { ticket, credentials: credentials.clone() }, &mut self.tx);
        let (ufrag, pwd, fingerprint) = (String::new(), String::new(), self.certificate.fingerprint_sha256());
        let remote = Some(Arc::new(RemoteTransport { ufrag, pwd, fingerprint, dtls_role: DtlsRole::Server }));
        self.core.apply(now, Command::Configure { session, remote, streams }, &mut self.tx);
        self.core.handle_datagram(now, RxDatagram::fresh(path(index), &mut bytes[..len]), &mut self.tx);
        let keys = keys(index);
        self.core.adopt(now, session, &keys);
        self.receivers.insert(path(index).remote, keys.contexts(true).unwrap().1);
        self.tx.clear();
    }

    /// Packets of a track come in.
    fn hear(&mut self, track: TrackKey, packets: usize) {
        let table = self.core.table.load();
        for _ in 0..packets {
            let seq = self.seqs.entry(track).or_insert(1000);
            *seq += 1;
            let seq = *seq;
            let kind = kind(track);
            let format = if kind == MediaKind::Audio { Format::Opus } else { Format::Vp8 };
            let (timestamp, marks) = (seq as u32 * 90, FrameMarks::WHOLE);
            let meta = PacketMeta { seq, source: Ssrc(1), timestamp, marker: false, format, encoding: 0, marks };
            let payload = [&seq.to_be_bytes()[..], &[7; 50]].concat();
            let packet = Packet { meta, exts: &[], payload: &payload };
            self.core.handle_lane_media(self.now, &table, track, kind, packet);
        }
    }

    /// One turn's forwarding; whether that is all, and to whom what went.
    pub(super) fn forward(&mut self) -> (bool, Vec<(SocketAddr, Ssrc)>) {
        let is_done = self.core.forward(self.now, &mut self.tx);
        let mut sent = Vec::new();
        for entry in self.tx.entries() {
            let mut bytes = self.tx.bytes(entry).to_vec();
            let remote = entry.path.remote;
            let plain = self.receivers.get_mut(&remote).unwrap().unprotect_rtp(&mut bytes).unwrap();
            let view = RtpView::parse(&bytes[..plain.plain_len]).unwrap();
            sent.push((remote, view.ssrc()));
            let got = self.got.entry((remote, view.ssrc())).or_default();
            got.push((plain.index, view.timestamp(), view.payload().to_vec()));
        }
        self.tx.clear();
        (is_done, sent)
    }

    pub(super) fn forward_all(&mut self) {
        while !self.forward().0 {}
    }
}

#[test]
fn other_packets_overtake_the_rest_of_a_keyframe() {
    let mut rooms = Rooms::new(&[200, 3], 1024);
    rooms.hear(track(0, 1), 28);
    let (is_done, sent) = rooms.forward();
    assert!(!is_done && (SLICE_SENDS..SLICE_SENDS + 64).contains(&sent.len()), "{}", sent.len());
    rooms.hear(track(0, 0), 1);
    rooms.hear(track(1, 1), 1);
    assert!(!rooms.forward().0, "the keyframe has its turn");
    let (is_done, sent) = rooms.forward();
    assert!(!is_done, "and goes on");
    let sound = sent.iter().filter(|(_, ssrc)| *ssrc == Ssrc(1)).count();
    assert_eq!((sound, sent.iter().filter(|(remote, _)| *remote >= path(200).remote).count()), (200, 3));
    rooms.forward_all();
    assert!((0..200).all(|index| rooms.got[&(path(index).remote, Ssrc(2))].len() == 28));
}

#[test]
fn what_is_planned_with_a_keyframe_does_not_wait_for_it() {
    let mut rooms = Rooms::new(&[200, 3], 1024);
    rooms.hear(track(0, 1), 28);
    rooms.hear(track(0, 0), 1);
    let (_, sent) = rooms.forward();
    assert_eq!(sent.iter().filter(|(_, ssrc)| *ssrc == Ssrc(1)).count(), 200);
}

#[test]
fn what_is_not_done_is_bounded() {
    let mut rooms = Rooms::new(&[200], 1024);
    [0, 1].into_iter().for_each(|mline| rooms.hear(track(0, mline), 1));
    rooms.forward_all();
    let mut packets = 0;
    while !rooms.core.has_enough_work() {
        rooms.hear(track(0, 1), 1);
        packets += 1;
    }
    assert!(packets < 50, "{packets} to 200");
    rooms.forward();
    assert!(!rooms.core.has_enough_work(), "what is done makes room");
    rooms.hear(track(0, 0), 30);
    assert!(rooms.core.has_enough_work());
    rooms.forward_all();
    assert_eq!((rooms.core.due_sends, rooms.core.has_enough_work()), (0, false));
}

#[test]
fn who_goes_meanwhile_holds_up_nobody() {
    let mut rooms = Rooms::new(&[200, 3], 1024);
    rooms.hear(track(0, 1), 28);
    rooms.hear(track(1, 1), 28);
    rooms.forward();
    for index in [1, 199] {
        rooms.core.apply(rooms.now, Command::Close { session: SessionKey { index, epoch: 0 } }, &mut rooms.tx);
    }
    rooms.core.apply(rooms.now, Command::CloseTrack { track: track(0, 1) }, &mut rooms.tx);
    rooms.tx.clear();
    rooms.hear(track(1, 0), 1);
    rooms.forward_all();
    assert!((200..203).all(|index| rooms.got[&(path(index).remote, Ssrc(1))].len() == 1));
    assert!(rooms.core.jobs.is_empty() && rooms.core.dirty.is_empty() && rooms.core.due_sends == 0);
}

/// Packets of a track come, or a turn goes by.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hear(TrackKey, usize),
    Forward,
}

/// All of [`STEPS_MAX`] together are no more than a history keeps.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..3, 1usize..=3).prop_map(|(room, packets)| Step::Hear(track(room, 0), packets)),
        (0u32..3, 1usize..=25).prop_map(|(room, packets)| Step::Hear(track(room, 1), packets)),
        Just(Step::Forward),
    ]
}

const STEPS_MAX: usize = 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn slices_change_when_packets_leave_and_nothing_else(
        steps in prop::collection::vec(step(), 1..=STEPS_MAX), batch in 3usize..700
    ) {
        let sizes = [40, 7, 1];
        let (mut sliced, mut whole) = (Rooms::new(&sizes, batch), Rooms::new(&sizes, 1024));
        let mut due = 0;
        for step in steps {
            match step {
                Step::Hear(track, packets) => {
                    due += packets * sizes[track.index as usize / 2] as usize;
                    sliced.hear(track, packets);
                    whole.hear(track, packets);
                    whole.forward_all();
                }
                Step::Forward => { sliced.forward(); }
            }
        }
        sliced.forward_all();
        prop_assert_eq!(whole.got.values().map(Vec::len).sum::<usize>(), due);
        for (key, whole) in &whole.got {
            let sliced = sliced.got.get(key).map_or(&[][..], |got| got);
            let first = whole.iter().zip(sliced).position(|(a, b)| a != b);
            prop_assert_eq!((sliced.len(), first), (whole.len(), None), "{:?}", key);
        }
        prop_assert!(sliced.core.dirty.is_empty() && sliced.core.due_sends == 0);
    }
}
