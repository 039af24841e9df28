//! What a peer publishes: from an authenticated packet to a media packet of a track.
//!
//! Owns: per m-line the present source with its missing packets, statistics and numbering; the transport-wide arrival
//! register. Promises: a packet comes out once, without padding, with the extensions that concern only this hop removed.
//! Forbids: subscribers.

use std::time::{Duration, Instant};

use super::discard::Discard;
use super::stats::IngressReport;
use super::streams::{MlineConfig, Payload, StreamsConfig};
use crate::base::format::{Format, MediaKind};
use crate::base::ids::{Mid, Ssrc, TrackKey};
use crate::base::seq::extend_u16;
use crate::forward::gap::GapCloser;
use crate::proto::history::{Packet, PacketMeta};
use crate::proto::nack::{Arrival, NackRegister};
use crate::proto::report::ReceiveStats;
use crate::proto::twcc::TwccRegister;
use crate::wire::payload;
use crate::wire::rtp::RtpView;
use crate::wire::rtp_ext::{self, AudioLevel, Ext};

/// Sources a peer may use: a handful of m-lines with their retransmissions, and some for sources that were replaced.
const SOURCES_MAX: usize = 64;
/// Room for the end-to-end extensions of one packet; a dependency descriptor with its structure is the largest.
const EXTS_BYTES_MAX: usize = 256;
/// A new source takes over an m-line only when the one before fell silent: of two at once the first is kept.
const TAKE_OVER_AFTER: Duration = Duration::from_millis(200);
/// `ext_kinds` entry of an id that means nothing to us.
const NO_EXT: u8 = u8::MAX;

/// One source of the peer.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: Ssrc,
    mline: u16,
    is_rtx: bool,
}

/// The source that an m-line's track comes from now.
#[derive(Debug)]
struct Stream {
    ssrc: Ssrc,
    heard_at: Instant,
    /// Highest extended sequence number of the source.
    highest: u64,
    /// Added to the source's numbers so that a track's go on when its source is replaced.
    track_offset: i64,
    nack: NackRegister,
    stats: ReceiveStats,
    gaps: GapCloser,
    last_format: Option<Format>,
    keyframes: u64,
}

/// An m-line the peer may send on.
#[derive(Debug)]
struct Publication {
    mid: Mid,
    kind: MediaKind,
    track: TrackKey,
    payloads: Vec<Payload>,
    stream: Option<Stream>,
    /// Highest number of the track.
    track_highest: Option<u64>,
    is_live: bool,
}

/// A media packet on its way to the subscribers.
#[derive(Debug)]
pub struct MediaIn<'a> {
    /// Which track.
    pub track: TrackKey,
    /// Media type.
    pub kind: MediaKind,
    /// m-line it came on.
    pub mline: u16,
    /// Numbers, extensions, payload.
    pub packet: Packet<'a>,
    /// The track's very first packet.
    pub is_first: bool,
    /// RFC 6464 level in -dBov.
    pub level_dbov: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Ingress {
    /// Index is the m-line's.
    publications: Vec<Option<Publication>>,
    sources: Vec<Source>,
    /// Extension by id; ids mean the same in the whole BUNDLE group (RFC 8843 §9.2).
    ext_kinds: Box<[u8; 256]>,
    /// Arrival register for transport-cc feedback.
    pub twcc: TwccRegister,
    exts: Box<[u8; EXTS_BYTES_MAX]>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            publications: Vec::new(),
            sources: Vec::new(),
            ext_kinds: Box::new([NO_EXT; 256]),
            twcc: TwccRegister::default(),
            exts: Box::new([0; EXTS_BYTES_MAX]),
        }
    }
}

impl Ingress {
    /// Obeys a new negotiation. Streams whose track stays keep their state.
    pub fn configure(&mut self, streams: &StreamsConfig) {
        self.ext_kinds.fill(NO_EXT);
        for (id, ext) in streams.mlines.iter().flatten().flat_map(|mline| &mline.exts) {
            self.ext_kinds[usize::from(*id)] = *ext as u8;
        }
        self.publications.reserve_exact(streams.mlines.len().saturating_sub(self.publications.len()));
        self.publications.resize_with(streams.mlines.len(), || None);
        for (index, mline) in streams.mlines.iter().enumerate() {
            let old = self.publications[index].take();
            self.publications[index] = mline.as_ref().and_then(|mline| publication(mline, old));
        }
        let publications = &self.publications;
        self.sources.retain(|source| {
            publications.get(usize::from(source.mline)).is_some_and(|publication| publication.is_some())
        });
        for (index, mline) in streams.mlines.iter().enumerate() {
            let declared = mline.iter().filter_map(|mline| mline.ingress.as_ref()).flat_map(|ingress| &ingress.ssrcs);
            for (ssrc, rtx) in declared {
                self.learn(Source { ssrc: *ssrc, mline: index as u16, is_rtx: false });
                if let Some(rtx) = rtx {
                    self.learn(Source { ssrc: *rtx, mline: index as u16, is_rtx: true });
                }
            }
        }
    }

    /// An authenticated, decrypted RTP packet; `index` is its SRTP packet index.
    pub fn handle_rtp<'a>(&'a mut self, now: Instant, packet: &'a [u8], index: u64) -> Result<MediaIn<'a>, Discard> {
        let view = RtpView::parse(packet).map_err(|_| Discard::RtpMalformed)?;
        let mut ids = HopIds::default();
        let level_dbov = self.read_exts(now, &view, &mut ids)?;
        let source = self.source(&view, &ids)?;
        let publication = self
            .publications
            .get_mut(usize::from(source.mline))
            .and_then(|publication| publication.as_mut())
            .ok_or(Discard::UnknownSsrc)?;

        let media = if source.is_rtx { publication.unwrap_rtx(&view)? } else { publication.plain(&view, index)? };
        let kind = publication.kind;
        let stream = publication.stream_for(now, &media)?;
        if stream.nack.handle_packet(now, media.seq) == Arrival::Duplicate {
            return Err(Discard::Duplicate);
        }
        stream.heard_at = now;
        stream.highest = stream.highest.max(media.seq);
        if !source.is_rtx {
            let clock_rate_hz = media.format.clock_rate_hz();
            stream.stats.handle_packet(now, media.seq, view.timestamp(), clock_rate_hz, media.payload.len());
        }
        if media.payload.is_empty() {
            stream.gaps.absorb(media.seq);
            return Err(Discard::PaddingOnly);
        }
        let seq = stream.gaps.renumber(media.seq).and_then(|seq| seq.checked_add_signed(stream.track_offset));
        let seq = seq.ok_or(Discard::TooOld)?;
        let marks = payload::frame_marks(media.format, media.payload);
        stream.last_format = Some(media.format);
        stream.keyframes += u64::from(marks.begins() && kind == MediaKind::Video);
        let source_ssrc = stream.ssrc;
        publication.track_highest = Some(publication.track_highest.map_or(seq, |highest| highest.max(seq)));
        let meta = PacketMeta {
            seq,
            source: source_ssrc,
            timestamp: view.timestamp(),
            marker: view.marker(),
            format: media.format,
            encoding: 0,
            marks,
        };
        Ok(MediaIn {
            track: publication.track,
            kind,
            mline: source.mline,
            packet: Packet { meta, exts: &self.exts[..ids.exts_len], payload: media.payload },
            is_first: !std::mem::replace(&mut publication.is_live, true),
            level_dbov,
        })
    }

    /// Notes what concerns this hop, keeps the rest as (kind, length, value) for the subscribers.
    fn read_exts(&mut self, now: Instant, view: &RtpView<'_>, ids: &mut HopIds) -> Result<Option<u8>, Discard> {
        let Some((profile, block)) = view.ext() else { return Ok(None) };
        let mut level_dbov = None;
        for (id, value) in rtp_ext::elements(profile, block) {
            let Some(ext) = Ext::ALL.get(usize::from(self.ext_kinds[usize::from(id)])).copied() else { continue };
            match ext {
                Ext::TransportCc => {
                    if let Some(seq) = rtp_ext::parse_transport_cc(value) {
                        self.twcc.handle_packet(now, seq);
                    }
                }
                Ext::Mid => ids.mid = Mid::new(value),
                Ext::AudioLevel => level_dbov = AudioLevel::parse(value).map(|level| level.level),
                _ => {}
            }
            if ext.is_hop_by_hop() {
                continue;
            }
            let end = ids.exts_len + 2 + value.len();
            let room = self.exts.get_mut(ids.exts_len..end).ok_or(Discard::TooLarge)?;
            room[0] = ext as u8;
            room[1] = value.len() as u8;
            room[2..].copy_from_slice(value);
            ids.exts_len = end;
        }
        Ok(level_dbov)
    }

    /// The m-line a packet belongs to (RFC 8843 §9.2): its ssrc if known, else its mid, else the only m-line that
    /// takes its payload type.
    fn source(&mut self, view: &RtpView<'_>, ids: &HopIds) -> Result<Source, Discard> {
        if let Some(source) = self.sources.iter().find(|source| source.ssrc == view.ssrc()) {
            return Ok(*source);
        }
        let takes = |publication: &Publication| {
            let pt = view.pt();
            publication.payloads.iter().find_map(|payload| match payload {
                Payload { pt: media, .. } if *media == pt => Some(false),
                Payload { rtx_pt: Some(rtx), .. } if *rtx == pt => Some(true),
                _ => None,
            })
        };
        let candidates = || self.publications.iter().enumerate().filter_map(|(at, it)| Some((at, it.as_ref()?)));
        let (mline, is_rtx) = match ids.mid {
            Some(mid) => {
                let (at, publication) =
                    candidates().find(|(_, publication)| publication.mid == mid).ok_or(Discard::UnknownSsrc)?;
                (at, takes(publication).ok_or(Discard::UnknownPayloadType)?)
            }
            None => {
                let mut takers = candidates().filter_map(|(at, publication)| Some((at, takes(publication)?)));
                let only = takers.next().ok_or(Discard::UnknownPayloadType)?;
                if takers.next().is_some() {
                    return Err(Discard::UnknownSsrc);
                }
                only
            }
        };
        let source = Source { ssrc: view.ssrc(), mline: mline as u16, is_rtx };
        self.learn(source);
        Ok(source)
    }

    /// Remembers a source; the oldest goes when there are too many. Only authentic packets and the peer's own
    /// description come here, so a peer can only confuse itself.
    fn learn(&mut self, source: Source) {
        self.sources.retain(|known| known.ssrc != source.ssrc);
        if self.sources.len() == SOURCES_MAX {
            self.sources.remove(0);
        }
        self.sources.push(source);
    }

    /// A publisher's sender report; the track and clock rate it speaks about.
    pub fn handle_sender_report(&mut self, now: Instant, ssrc: Ssrc, ntp: u64) -> Option<TrackKey> {
        let publication = self.publication_of(ssrc)?;
        let stream = publication.stream.as_mut()?;
        stream.stats.handle_sender_report(now, ntp);
        Some(publication.track)
    }

    fn publication_of(&mut self, ssrc: Ssrc) -> Option<&mut Publication> {
        self.publications
            .iter_mut()
            .flatten()
            .find(|publication| publication.stream.as_ref().is_some_and(|stream| stream.ssrc == ssrc))
    }

    /// Source of an m-line's track and whether it takes PLI (else FIR), to ask it for a keyframe.
    pub fn keyframe_target(&self, mline: u16) -> Option<(Ssrc, bool)> {
        let publication = self.publications.get(usize::from(mline))?.as_ref()?;
        let takes_pli = publication.payloads.iter().any(|payload| payload.pli);
        publication.stream.as_ref().map(|stream| (stream.ssrc, takes_pli))
    }

    /// The streams that live, with what feedback needs.
    pub fn streams(&mut self) -> impl Iterator<Item = StreamFeedback<'_>> {
        self.publications.iter_mut().flatten().filter_map(|publication| {
            let takes_nack = publication.payloads.iter().any(|payload| payload.nack);
            let stream = publication.stream.as_mut()?;
            Some(StreamFeedback { ssrc: stream.ssrc, takes_nack, nack: &mut stream.nack, stats: &mut stream.stats })
        })
    }

    /// When a missing packet is due to be asked for.
    pub fn next_nack_at(&self) -> Option<Instant> {
        let publications = self.publications.iter().flatten();
        publications.filter_map(|publication| publication.stream.as_ref()?.nack.next_timeout()).min()
    }

    /// Numbers for people.
    pub fn numbers(&self) -> impl Iterator<Item = IngressReport> {
        self.publications.iter().flatten().filter_map(|publication| {
            let stream = publication.stream.as_ref()?;
            Some(IngressReport {
                track: publication.track,
                kind: publication.kind,
                ssrc: stream.ssrc,
                format: stream.last_format,
                summary: stream.stats.summary(),
                keyframes: stream.keyframes,
            })
        })
    }
}

/// What RTCP feedback needs of a stream.
pub struct StreamFeedback<'a> {
    /// Source.
    pub ssrc: Ssrc,
    /// The publisher answers NACKs.
    pub takes_nack: bool,
    /// Missing packets.
    pub nack: &'a mut NackRegister,
    /// Reception statistics.
    pub stats: &'a mut ReceiveStats,
}

/// What the extensions of one packet said.
#[derive(Debug, Default)]
struct HopIds {
    mid: Option<Mid>,
    exts_len: usize,
}

/// The media part of a packet, RTX unwrapped.
struct Media<'a> {
    ssrc: Option<Ssrc>,
    seq: u64,
    format: Format,
    payload: &'a [u8],
}

impl Publication {
    fn plain<'a>(&self, view: &RtpView<'a>, index: u64) -> Result<Media<'a>, Discard> {
        let payload = self.payloads.iter().find(|payload| payload.pt == view.pt());
        let format = payload.ok_or(Discard::UnknownPayloadType)?.format;
        Ok(Media { ssrc: Some(view.ssrc()), seq: index, format, payload: view.payload() })
    }

    /// RFC 4588 §4: the payload begins with the original sequence number.
    fn unwrap_rtx<'a>(&self, view: &RtpView<'a>) -> Result<Media<'a>, Discard> {
        let payload = self.payloads.iter().find(|payload| payload.rtx_pt == Some(view.pt()));
        let format = payload.ok_or(Discard::UnknownPayloadType)?.format;
        // Probes are padding on the rtx source, without an original.
        let (original, payload) = view.payload().split_first_chunk::<2>().ok_or(Discard::PaddingOnly)?;
        let stream = self.stream.as_ref().ok_or(Discard::TooOld)?;
        let seq = extend_u16(stream.highest, u16::from_be_bytes(*original));
        Ok(Media { ssrc: None, seq, format, payload })
    }

    /// The stream of the packet's source; a new source takes the place of the one before.
    fn stream_for(&mut self, now: Instant, media: &Media<'_>) -> Result<&mut Stream, Discard> {
        let is_known = match (&self.stream, media.ssrc) {
            (Some(stream), Some(ssrc)) if stream.ssrc == ssrc => true,
            (Some(stream), Some(_)) if now < stream.heard_at + TAKE_OVER_AFTER => return Err(Discard::UnknownSsrc),
            (Some(_), Some(_)) => false,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_known {
            let ssrc = media.ssrc.ok_or(Discard::TooOld)?;
            let next = self.track_highest.map_or(media.seq, |highest| highest + 1);
            self.stream = Some(Stream {
                ssrc,
                heard_at: now,
                highest: media.seq,
                track_offset: next as i64 - media.seq as i64,
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

/// The publication of an m-line by its new negotiation, with the state of the old where the track is the same.
fn publication(mline: &MlineConfig, old: Option<Publication>) -> Option<Publication> {
    let ingress = mline.ingress.as_ref()?;
    let old = old.filter(|old| old.track == ingress.track);
    Some(match old {
        Some(old) => Publication { mid: mline.mid, payloads: mline.payloads.clone(), ..old },
        None => Publication {
            mid: mline.mid,
            kind: mline.kind,
            track: ingress.track,
            payloads: mline.payloads.clone(),
            stream: None,
            track_highest: None,
            is_live: false,
        },
    })
}

#[cfg(test)]
#[path = "ingress_tests.rs"]
mod tests;
