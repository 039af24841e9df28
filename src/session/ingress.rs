//! What a peer publishes: from an authenticated packet to a media packet of a track.
//!
//! Owns: which of the peer's sources is which stream of which track; the transport-wide arrival register.
//! Promises: a packet comes out once, without padding, with the extensions that concern only this hop removed.
//! Forbids: subscribers.

use std::time::Instant;

use super::discard::Discard;
use super::publication::Publication;
use super::stats::IngressReport;
use super::streams::{MlineConfig, StreamsConfig};
use crate::base::format::MediaKind;
use crate::base::ids::{Mid, Rid, Ssrc, TrackKey};
use crate::proto::bwe::ReceiveEstimator;
use crate::proto::history::{Packet, PacketMeta};
use crate::proto::nack::{Arrival, NackRegister};
use crate::proto::report::ReceiveStats;
use crate::proto::twcc::TwccRegister;
use crate::wire::payload;
use crate::wire::rtp::RtpView;
use crate::wire::rtp_ext::{self, AbsSendTime, Ext};

/// Sources a peer may use, as many as SRTP takes ([`crate::crypto::srtp`]): eight tracks of three encodings and their
/// retransmissions are 48.
const SOURCES_MAX: usize = 64;
/// Room for the end-to-end extensions of one packet; a dependency descriptor with its structure is the largest.
const EXTS_BYTES_MAX: usize = 256;
/// `ext_kinds` entry of an id that means nothing to us.
const NO_EXT: u8 = u8::MAX;

/// One source of the peer.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: Ssrc,
    mline: u16,
    encoding: u8,
    is_rtx: bool,
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
}

/// See the module.
#[derive(Debug)]
pub struct Ingress {
    /// Index is the m-line's.
    pub(super) publications: Vec<Option<Publication>>,
    sources: Vec<Source>,
    /// Extension by id; ids mean the same in the whole BUNDLE group (RFC 8843 §9.2).
    ext_kinds: Box<[u8; 256]>,
    /// Arrival register for transport-cc feedback.
    pub twcc: TwccRegister,
    /// What the uplink carries, where the peer wants to be told.
    pub uplink: Uplink,
    exts: Box<[u8; EXTS_BYTES_MAX]>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            publications: Vec::new(),
            sources: Vec::new(),
            ext_kinds: Box::new([NO_EXT; 256]),
            twcc: TwccRegister::default(),
            uplink: Uplink::default(),
            exts: Box::new([0; EXTS_BYTES_MAX]),
        }
    }
}

impl Ingress {
    /// Obeys a new negotiation. Streams whose track stays keep their state.
    pub fn configure(&mut self, now: Instant, streams: &StreamsConfig) {
        self.uplink.configure(now, streams);
        self.ext_kinds.fill(NO_EXT);
        for (id, ext) in streams.mlines.iter().flatten().flat_map(|mline| &mline.exts) {
            self.ext_kinds[usize::from(*id)] = *ext as u8;
        }
        self.publications.reserve_exact(streams.mlines.len().saturating_sub(self.publications.len()));
        self.publications.resize_with(streams.mlines.len(), || None);
        for (index, mline) in streams.mlines.iter().enumerate() {
            let old = self.publications[index].take();
            let ingress = mline.as_ref().and_then(|mline| mline.ingress.as_ref());
            let is_same = ingress.zip(old.as_ref()).is_some_and(|(new, old)| old.has_encodings_of(&new.encodings));
            if !is_same {
                self.sources.retain(|source| usize::from(source.mline) != index);
            }
            self.publications[index] = mline.as_ref().and_then(|mline| Publication::new(now, mline, old));
            let encodings = ingress.into_iter().flat_map(|ingress| &ingress.encodings).zip(0u8..);
            for (ssrcs, encoding) in encodings.map(|(config, encoding)| (&config.ssrcs, encoding)) {
                for (ssrc, rtx) in ssrcs {
                    let source = Source { ssrc: *ssrc, mline: index as u16, encoding, is_rtx: false };
                    self.learn(source);
                    rtx.iter().for_each(|ssrc| self.learn(Source { ssrc: *ssrc, is_rtx: true, ..source }));
                }
            }
        }
    }

    /// An authenticated, decrypted RTP packet; `index` is its SRTP packet index.
    pub fn handle_rtp<'a>(&'a mut self, now: Instant, packet: &'a [u8], index: u64) -> Result<MediaIn<'a>, Discard> {
        let view = RtpView::parse(packet).map_err(|_| Discard::RtpMalformed)?;
        let mut ids = HopIds::default();
        self.read_exts(now, &view, &mut ids)?;
        if let Uplink::Estimated(estimator) = &mut self.uplink {
            estimator.handle_packet(now, ids.send_time, packet.len());
        }
        let source = self.source(&view, &ids)?;
        let publication = self
            .publications
            .get_mut(usize::from(source.mline))
            .and_then(|publication| publication.as_mut())
            .ok_or(Discard::UnknownSsrc)?;

        let media = match source.is_rtx {
            true => publication.unwrap_rtx(source.encoding, &view)?,
            false => publication.plain(&view, index)?,
        };
        let (kind, track) = (publication.kind, publication.track);
        let encoding = publication.encodings.get_mut(usize::from(source.encoding)).ok_or(Discard::UnknownRid)?;
        let stream = encoding.stream_for(now, &media)?;
        let arrival = match source.is_rtx {
            true => stream.nack.handle_retransmission(now, media.seq),
            false => stream.nack.handle_packet(now, media.seq),
        };
        if arrival == Arrival::Duplicate {
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
        let seq = stream.gaps.renumber(media.seq).and_then(|seq| seq.checked_add_signed(stream.offset));
        let seq = seq.ok_or(Discard::TooOld)?;
        let marks = payload::frame_marks(media.format, media.payload);
        stream.last_format = Some(media.format);
        stream.keyframes += u64::from(marks.begins() && kind == MediaKind::Video);
        let meta = PacketMeta {
            seq,
            source: stream.ssrc,
            timestamp: view.timestamp(),
            marker: view.marker(),
            format: media.format,
            encoding: source.encoding,
            marks,
        };
        encoding.highest = Some(encoding.highest.map_or(seq, |highest| highest.max(seq)));
        Ok(MediaIn {
            track,
            kind,
            mline: source.mline,
            packet: Packet { meta, exts: &self.exts[..ids.exts_len], payload: media.payload },
            is_first: !std::mem::replace(&mut publication.is_live, true),
        })
    }

    /// Notes what concerns this hop, keeps the rest as (kind, length, value) for the subscribers.
    fn read_exts(&mut self, now: Instant, view: &RtpView<'_>, ids: &mut HopIds) -> Result<(), Discard> {
        let Some((profile, block)) = view.ext() else { return Ok(()) };
        for (id, value) in rtp_ext::elements(profile, block) {
            let Some(ext) = Ext::ALL.get(usize::from(self.ext_kinds[usize::from(id)])).copied() else { continue };
            match ext {
                Ext::TransportCc => {
                    if let Some(seq) = rtp_ext::parse_transport_cc(value) {
                        self.twcc.handle_packet(now, seq);
                    }
                }
                Ext::AbsSendTime => ids.send_time = AbsSendTime::parse(value).map(|time| time.0),
                Ext::Mid => ids.mid = Mid::new(value),
                Ext::Rid => ids.rid = Rid::new(value),
                Ext::RepairedRid => ids.repaired_rid = Rid::new(value),
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
        Ok(())
    }

    /// What a packet belongs to: its ssrc tells if known, else its mid, else the only m-line that takes its payload type
    /// (RFC 8843 §9.2); within that its rid, for retransmissions the repaired rid (RFC 8852 §3).
    fn source(&mut self, view: &RtpView<'_>, ids: &HopIds) -> Result<Source, Discard> {
        if let Some(source) = self.sources.iter().find(|source| source.ssrc == view.ssrc()) {
            return Ok(*source);
        }
        let candidates = || self.publications.iter().enumerate().filter_map(|(at, it)| Some((at, it.as_ref()?)));
        let (mline, publication, is_rtx) = match ids.mid {
            Some(mid) => {
                let (at, publication) =
                    candidates().find(|(_, publication)| publication.mid == mid).ok_or(Discard::UnknownSsrc)?;
                (at, publication, publication.takes(view.pt()).ok_or(Discard::UnknownPayloadType)?)
            }
            None => {
                let mut takers = candidates().filter_map(|(at, it)| Some((at, it, it.takes(view.pt())?)));
                let only = takers.next().ok_or(Discard::UnknownPayloadType)?;
                if takers.next().is_some() {
                    return Err(Discard::UnknownSsrc);
                }
                only
            }
        };
        // Some give their retransmissions the name of the stream itself.
        let name = ids.repaired_rid.filter(|_| is_rtx).or(ids.rid);
        let encoding = publication.encoding_of(name)?;
        let source = Source { ssrc: view.ssrc(), mline: mline as u16, encoding, is_rtx };
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

    /// A publisher's sender report; the track and encoding it speaks about.
    pub fn handle_sender_report(&mut self, now: Instant, ssrc: Ssrc, ntp: u64) -> Option<(TrackKey, u8)> {
        for publication in self.publications.iter_mut().flatten() {
            let streams = publication.encodings.iter_mut().zip(0u8..);
            let mut streams = streams.filter_map(|(encoding, index)| Some((encoding.stream.as_mut()?, index)));
            if let Some((stream, encoding)) = streams.find(|(stream, _)| stream.ssrc == ssrc) {
                stream.stats.handle_sender_report(now, ntp);
                return Some((publication.track, encoding));
            }
        }
        None
    }

    /// Source of one encoding of an m-line's track and whether it takes PLI (else FIR), to ask it for a keyframe.
    pub fn keyframe_target(&self, mline: u16, encoding: u8) -> Option<(Ssrc, bool)> {
        let publication = self.publications.get(usize::from(mline))?.as_ref()?;
        let takes_pli = publication.payloads.iter().any(|payload| payload.pli);
        let stream = publication.encodings.get(usize::from(encoding))?.stream.as_ref()?;
        Some((stream.ssrc, takes_pli))
    }

    /// The streams that live, with what feedback needs.
    pub fn streams(&mut self) -> impl Iterator<Item = StreamFeedback<'_>> {
        self.publications.iter_mut().flatten().flat_map(|publication| {
            let takes_nack = publication.payloads.iter().any(|payload| payload.nack);
            publication.encodings.iter_mut().filter_map(move |encoding| {
                let stream = encoding.stream.as_mut()?;
                Some(StreamFeedback { ssrc: stream.ssrc, takes_nack, nack: &mut stream.nack, stats: &mut stream.stats })
            })
        })
    }

    /// When a missing packet is due to be asked for.
    pub fn next_nack_at(&self) -> Option<Instant> {
        let encodings = self.publications.iter().flatten().flat_map(|publication| &publication.encodings);
        encodings.filter_map(|encoding| encoding.stream.as_ref()?.nack.next_timeout()).min()
    }

    /// What it publishes.
    pub fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        self.publications.iter().flatten().map(|publication| publication.track)
    }

    /// Numbers for people.
    pub fn numbers(&self) -> impl Iterator<Item = IngressReport> {
        self.publications.iter().flatten().flat_map(|publication| {
            publication.encodings.iter().zip(0u8..).filter_map(|(encoding, index)| {
                let stream = encoding.stream.as_ref()?;
                Some(IngressReport {
                    track: publication.track,
                    kind: publication.kind,
                    encoding: index,
                    rid: encoding.rid,
                    ssrc: stream.ssrc,
                    format: stream.last_format,
                    summary: stream.stats.summary(),
                    keyframes: stream.keyframes,
                })
            })
        })
    }
}

/// Who estimates what a peer's uplink carries, and whether it can be told a rate.
#[derive(Debug, Default)]
pub enum Uplink {
    /// It takes no REMB.
    #[default]
    Untold,
    /// The peer, from transport-wide feedback; it takes a REMB as a cap.
    TheirEstimate,
    /// We, from what comes: REMB is all it has.
    Estimated(Box<ReceiveEstimator>),
}

impl Uplink {
    fn configure(&mut self, now: Instant, streams: &StreamsConfig) {
        let published = || streams.mlines.iter().flatten().filter(|mline| mline.ingress.is_some());
        let any = |has: fn(&MlineConfig) -> bool| published().any(has);
        let has_twcc = any(|mline| {
            let has_ext = mline.exts.iter().any(|(_, ext)| *ext == Ext::TransportCc);
            has_ext && mline.payloads.iter().any(|payload| payload.transport_cc)
        });
        if !any(|mline| mline.payloads.iter().any(|payload| payload.remb)) {
            *self = Self::Untold;
        } else if has_twcc {
            *self = Self::TheirEstimate;
        } else if !matches!(self, Self::Estimated(_)) {
            *self = Self::Estimated(Box::new(ReceiveEstimator::new(now)));
        }
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
    rid: Option<Rid>,
    repaired_rid: Option<Rid>,
    /// 6.18 fixed point seconds.
    send_time: Option<u32>,
    exts_len: usize,
}

#[cfg(test)]
#[path = "ingress_tests.rs"]
mod tests;
