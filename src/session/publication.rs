//! One published track at its publisher: the streams of its simulcast, and how a packet finds its place in them.
//!
//! Owns: per encoding the present source with its missing packets, statistics and numbering.
//! Promises: an encoding's numbers go on when its source is replaced, also by one of another name. Memory is that of the
//! negotiated encodings. Forbids: finding out whose a packet is (`ingress`).

use std::time::{Duration, Instant};

use super::discard::Discard;
use super::streams::{EncodingConfig, MlineConfig, Payload};
use super::wanted::Wanted;
use crate::base::format::{Format, MediaKind};
use crate::base::ids::{Mid, Rid, Ssrc, TrackKey};
use crate::base::seq::extend_u16;
use crate::forward::gap::GapCloser;
use crate::proto::nack::NackRegister;
use crate::proto::report::ReceiveStats;
use crate::wire::rtp::RtpView;

/// A new source takes over an encoding only when the one before fell silent: of two at once the first is kept.
pub(super) const TAKE_OVER_AFTER: Duration = Duration::from_millis(200);

/// An m-line the peer may send on.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) mid: Mid,
    pub(super) kind: MediaKind,
    pub(super) track: TrackKey,
    pub(super) payloads: Vec<Payload>,
    /// Index is the encoding's; never empty.
    pub(super) encodings: Vec<Encoding>,
    /// Something came.
    pub(super) is_live: bool,
    /// How much of it is of use.
    pub(super) wanted: Wanted,
}

/// One stream of a simulcast, or the only one.
#[derive(Debug, Default)]
pub(super) struct Encoding {
    pub(super) rid: Option<Rid>,
    pub(super) stream: Option<Stream>,
    /// Highest number that went out.
    pub(super) highest: Option<u64>,
}

/// The source that an encoding comes from now.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ssrc: Ssrc,
    pub(super) heard_at: Instant,
    /// Highest extended sequence number of the source.
    pub(super) highest: u64,
    /// Added to the source's numbers so that an encoding's go on when its source is replaced.
    pub(super) offset: i64,
    pub(super) nack: NackRegister,
    pub(super) stats: ReceiveStats,
    pub(super) gaps: GapCloser,
    pub(super) last_format: Option<Format>,
    pub(super) keyframes: u64,
}

/// The media part of a packet, RTX unwrapped.
pub(super) struct Media<'a> {
    /// `None` for a retransmission: it is of the encoding's present source.
    ssrc: Option<Ssrc>,
    pub(super) seq: u64,
    pub(super) format: Format,
    pub(super) payload: &'a [u8],
}

impl Publication {
    /// The publication of an m-line by its new negotiation, with the state of the old where the track is the same.
    pub(super) fn new(now: Instant, mline: &MlineConfig, old: Option<Self>) -> Option<Self> {
        let ingress = mline.ingress.as_ref()?;
        let (mut encodings, is_live, mut wanted) = match old.filter(|old| old.track == ingress.track) {
            Some(old) => (old.encodings, old.is_live, old.wanted),
            None => (Vec::new(), false, Wanted::default()),
        };
        wanted.set(now, ingress.pixels_wanted);
        encodings.resize_with(ingress.encodings.len().max(1), Encoding::default);
        for (encoding, config) in encodings.iter_mut().zip(&ingress.encodings) {
            if encoding.rid != config.rid {
                // Another stream in this place: subscribers see a new source whose numbers go on.
                *encoding = Encoding { rid: config.rid, stream: None, highest: encoding.highest };
            }
        }
        let (mid, kind, track, payloads) = (mline.mid, mline.kind, ingress.track, mline.payloads.clone());
        Some(Self { mid, kind, track, payloads, encodings, is_live, wanted })
    }

    /// Its streams are those of `configs`, by name and place.
    pub(super) fn has_encodings_of(&self, configs: &[EncodingConfig]) -> bool {
        self.encodings.iter().map(|encoding| encoding.rid).eq(configs.iter().map(|config| config.rid))
    }

    /// Whether it takes a payload type, and as retransmissions.
    pub(super) fn takes(&self, pt: u8) -> Option<bool> {
        self.payloads.iter().find_map(|payload| match payload {
            Payload { pt: media, .. } if *media == pt => Some(false),
            Payload { rtx_pt: Some(rtx), .. } if *rtx == pt => Some(true),
            _ => None,
        })
    }

    /// The encoding of a source that was not heard before, by its name.
    pub(super) fn encoding_of(&self, name: Option<Rid>) -> Result<u8, Discard> {
        let at = match (self.encodings.as_slice(), name) {
            ([_], None) => Some(0),
            ([only], _) if only.rid.is_none() => Some(0),
            (several, Some(_)) => several.iter().position(|encoding| encoding.rid == name),
            // Its next packet may have a name, its description may name the source.
            (_, None) => return Err(Discard::UnknownSsrc),
        };
        at.map(|at| at as u8).ok_or(Discard::UnknownRid)
    }

    /// A packet of a media source; `index` is its SRTP packet index.
    pub(super) fn plain<'a>(&self, view: &RtpView<'a>, index: u64) -> Result<Media<'a>, Discard> {
        let payload = self.payloads.iter().find(|payload| payload.pt == view.pt());
        let format = payload.ok_or(Discard::UnknownPayloadType)?.format;
        Ok(Media { ssrc: Some(view.ssrc()), seq: index, format, payload: view.payload() })
    }

    /// RFC 4588 §4: the payload begins with the original sequence number.
    pub(super) fn unwrap_rtx<'a>(&self, encoding: u8, view: &RtpView<'a>) -> Result<Media<'a>, Discard> {
        let payload = self.payloads.iter().find(|payload| payload.rtx_pt == Some(view.pt()));
        let format = payload.ok_or(Discard::UnknownPayloadType)?.format;
        // Probes are padding on the rtx source, without an original.
        let (original, payload) = view.payload().split_first_chunk::<2>().ok_or(Discard::PaddingOnly)?;
        let encoding = self.encodings.get(usize::from(encoding)).ok_or(Discard::UnknownRid)?;
        let stream = encoding.stream.as_ref().ok_or(Discard::TooOld)?;
        let seq = extend_u16(stream.highest, u16::from_be_bytes(*original));
        Ok(Media { ssrc: None, seq, format, payload })
    }
}

impl Encoding {
    /// The stream of the packet's source; a new source takes the place of the one before.
    pub(super) fn stream_for(&mut self, now: Instant, media: &Media<'_>) -> Result<&mut Stream, Discard> {
        let is_known = match (&self.stream, media.ssrc) {
            (Some(stream), Some(ssrc)) if stream.ssrc == ssrc => true,
            (Some(stream), Some(_)) if now < stream.heard_at + TAKE_OVER_AFTER => return Err(Discard::UnknownSsrc),
            (Some(_), Some(_)) => false,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_known {
            let ssrc = media.ssrc.ok_or(Discard::TooOld)?;
            let next = self.highest.map_or(media.seq, |highest| highest + 1);
            self.stream = Some(Stream {
                ssrc,
                heard_at: now,
                highest: media.seq,
                offset: next as i64 - media.seq as i64,
                nack: NackRegister::default(),
                stats: ReceiveStats::default(),
                gaps: GapCloser::default(),
                last_format: None,
                keyframes: 0,
            });
        }
        self.stream.as_mut().ok_or(Discard::UnknownSsrc)
    }
}
