//! What a peer sends: packets at the pace of its microphones and cameras.

use std::time::{Duration, Instant};

use str0m::format::Codec;
use str0m::media::{KeyframeRequest, Mid, Pt, Rid, Rids};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Input, Rtc};

use super::StrPeer;
use crate::base::format::MediaKind;
use crate::sim::camera::{self, Camera};
use crate::sim::media::Tag;

/// One Opus packet.
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// 20 pictures a second.
const VIDEO_INTERVAL: Duration = Duration::from_millis(50);
/// Packets of a keyframe.
const KEY_PARTS: u8 = 4;
/// Packets of another picture.
const DELTA_PARTS: u8 = 2;
/// What is kept to be sent again: as much as str0m does by itself.
const KEPT_PACKETS: usize = 1024;
const KEPT: Duration = Duration::from_secs(3);
/// Where RTP timestamps begin: they roll over within the minute.
const TIME_START: u32 = 4_294_000_000;
/// Between the timestamps of a track's encodings.
const TIME_STEP: u32 = 1_234_567;

/// A track under way.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) mid: Mid,
    pub(super) kind: MediaKind,
    track: u8,
    /// Packets of a track without a camera.
    number: u32,
    frame: u32,
    streams: Vec<Stream>,
    pub(super) wants_key: bool,
    next_at: Instant,
    pub(super) is_paused: bool,
    /// Else its pictures are small and all alike.
    pub(super) camera: Option<Camera>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    rid: Option<Rid>,
    seq: u64,
    has_begun: bool,
}

impl Sending {
    pub(super) fn new(now: Instant, mid: Mid, kind: MediaKind, track: u8, seq: u64, camera: Option<Camera>) -> Self {
        let mut rids: Vec<Option<Rid>> = camera.iter().flat_map(Camera::rids).map(|rid| Some(rid.into())).collect();
        if rids.is_empty() {
            rids.push(None);
        }
        let streams = rids.into_iter().map(|rid| Stream { rid, seq, has_begun: false }).collect();
        Self { mid, kind, track, number: 0, frame: 0, streams, wants_key: true, next_at: now, is_paused: false, camera }
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    pub(super) fn handle_keyframe_request(&mut self, request: &KeyframeRequest) {
        self.wants_key = true;
        if let Some(camera) = &mut self.camera {
            camera.request_keyframe(request.rid.as_deref());
        }
    }
}

/// A frame's timestamp and payloads.
type Packets = (u32, Vec<Vec<u8>>);

/// What is written with each packet of a frame.
struct Frame {
    mid: Mid,
    rid: Option<Rid>,
    pt: Pt,
    time: u32,
    seq: u64,
    ext_vals: ExtensionValues,
    is_video: bool,
    /// Nothing of the stream was written before.
    is_first: bool,
}

impl StrPeer {
    pub(super) fn send_media(&mut self, now: Instant) {
        if self.connected_at.is_none() {
            return;
        }
        for at in 0..self.sending.len() {
            if self.sending[at].next_at <= now {
                self.send_picture(now, at);
            }
        }
    }

    fn send_picture(&mut self, now: Instant, at: usize) {
        let sending = &mut self.sending[at];
        let (interval, codec) = match (sending.kind, &sending.camera) {
            (MediaKind::Audio, _) => (AUDIO_INTERVAL, Codec::Opus),
            (MediaKind::Video, Some(_)) => (camera::interval(), Codec::Vp8),
            (MediaKind::Video, None) => (VIDEO_INTERVAL, Codec::Vp8),
        };
        sending.next_at = now + interval;
        let Some(media) = self.rtc.media(sending.mid) else { return };
        if !media.direction().is_sending() || sending.is_paused {
            return;
        }
        let Some(pt) = payload_type(&self.rtc, media.remote_pts(), codec) else { return };
        let (mid, is_video) = (sending.mid, sending.kind == MediaKind::Video);
        let level = self.script.level_dbov;
        let ext_vals = ExtensionValues {
            audio_level: (!is_video).then_some(-(level as i8)),
            voice_activity: (!is_video).then_some(level < 100),
            ..ExtensionValues::default()
        };
        let frames = match sending.camera {
            Some(_) => self.take_picture(now, at),
            None => vec![(0, self.repeat_picture(at))],
        };
        for (stream, (time, payloads)) in frames {
            let sending = &mut self.sending[at];
            let Stream { rid, seq, has_begun } = sending.streams[stream];
            sending.streams[stream] = Stream { rid, seq: seq + payloads.len() as u64, has_begun: true };
            *self.sent.entry((sending.kind, sending.track)).or_default() += payloads.len() as u32;
            let frame = Frame { mid, rid, pt, time, seq, ext_vals: ext_vals.clone(), is_video, is_first: !has_begun };
            self.write(now, frame, payloads);
        }
        // What was written goes out when str0m is told the time.
        if self.rtc.handle_input(Input::Timeout(now)).is_ok() {
            self.drain(now);
        }
    }

    /// What the camera makes: timestamp and payloads by stream.
    fn take_picture(&mut self, now: Instant, at: usize) -> Vec<(usize, Packets)> {
        let base = self.tag(at);
        let sending = &mut self.sending[at];
        let Some(camera) = &mut sending.camera else { return Vec::new() };
        let Some(media) = self.rtc.media(sending.mid) else { return Vec::new() };
        let ticks = camera.pictures.wrapping_mul(camera::TICKS_PER_PICTURE);
        let streams = &sending.streams;
        // As a browser does: where simulcast is not taken, the first encoding is sent.
        let is_wanted = |at: usize| match (media.rids_tx(), streams[at].rid) {
            (Rids::Specific(rids), Some(rid)) => rids.contains(&rid),
            _ => at == 0,
        };
        let time = |stream: usize| TIME_START.wrapping_add(ticks).wrapping_add(TIME_STEP * stream as u32);
        let taken = camera.take(now, base, is_wanted);
        taken.into_iter().map(|(stream, payloads)| (stream, (time(stream), payloads))).collect()
    }

    /// The next packets of a track without a camera.
    fn repeat_picture(&mut self, at: usize) -> Packets {
        let base = self.tag(at);
        let sending = &mut self.sending[at];
        let is_key = std::mem::take(&mut sending.wants_key);
        let (parts, len, ticks) = match sending.kind {
            MediaKind::Audio => (1, 80 + sending.number as usize % 7, 960),
            MediaKind::Video if is_key => (KEY_PARTS, 900, 4_500),
            MediaKind::Video => (DELTA_PARTS, 700 + sending.frame as usize % 90, 4_500),
        };
        let frame = sending.frame;
        let needs = if is_key { None } else { frame.checked_sub(1) };
        let payload = |part: u8| {
            let tag = Tag { is_key, part, parts, number: sending.number + u32::from(part), frame, needs, ..base };
            // As encoders cut a frame: near-equal packets, the longer ones behind.
            tag.payload(len + usize::from(part > 0 && part >= parts / 2))
        };
        let payloads = (0..parts).map(payload).collect();
        sending.number += u32::from(parts);
        sending.frame += 1;
        (TIME_START.wrapping_add(frame.wrapping_mul(ticks)), payloads)
    }

    /// What all packets of a track say.
    fn tag(&self, at: usize) -> Tag {
        let Sending { kind, track, .. } = self.sending[at];
        let (publisher, room) = (self.me, self.script.room);
        Tag {
            publisher,
            room,
            kind,
            track,
            encoding: 0,
            is_key: false,
            part: 0,
            parts: 0,
            number: 0,
            frame: 0,
            needs: None,
        }
    }

    fn write(&mut self, now: Instant, frame: Frame, payloads: Vec<Vec<u8>>) {
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(frame.mid, frame.rid) else { return };
        if frame.is_first && self.script.estimate_bps.is_none() {
            // By itself it does not send again more than a seventh of what it sends. A sender that estimates needs that.
            stream.set_rtx_cache(KEPT_PACKETS, KEPT, None);
        }
        let last = payloads.len() - 1;
        for (part, payload) in payloads.into_iter().enumerate() {
            let write = RtpWrite::new(frame.pt, (frame.seq + part as u64).into(), frame.time, now, payload)
                .marker(frame.is_video && part == last)
                .nackable(frame.is_video)
                .ext_vals(frame.ext_vals.clone());
            stream.write_rtp(write);
        }
    }
}

fn payload_type(rtc: &Rtc, pts: &[Pt], codec: Codec) -> Option<Pt> {
    let is_ours = |pt: &&Pt| rtc.codec_config().iter().any(|it| it.pt() == **pt && it.spec().codec == codec);
    pts.iter().find(is_ours).copied()
}
