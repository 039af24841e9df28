//! Writing descriptions.
//!
//! Promises: every text in the values is a token already (checked where it was read), so each line stays one line.

use std::fmt::Write;
use std::net::SocketAddr;

use super::codec::rtpmap_of;
use super::{Codec, Direction, Fingerprint, Setup, SimulcastStream};
use crate::base::format::MediaKind;
use crate::base::ids::Ssrc;
use crate::wire::rtp_ext::Ext;

/// `o=`.
#[derive(Clone, Copy, Debug)]
pub struct OriginOut {
    /// Stays for the session; below 2^63 (RFC 9429 §5.2.1).
    pub session_id: u64,
    /// Grows with every description.
    pub version: u64,
}

/// What every m-line of a BUNDLE shares.
#[derive(Clone, Debug)]
pub struct TransportOut<'a> {
    /// Our ufrag.
    pub ufrag: &'a str,
    /// Our pwd.
    pub pwd: &'a str,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// Our role, or the choice.
    pub setup: Setup,
    /// Where we can be reached.
    pub candidates: &'a [SocketAddr],
}

/// What we send on an m-line.
#[derive(Clone, Debug)]
pub struct SourceOut<'a> {
    /// Media source.
    pub ssrc: Ssrc,
    /// Its retransmissions, where the m-line has rtx.
    pub rtx_ssrc: Option<Ssrc>,
    /// RFC 7022.
    pub cname: &'a str,
    /// MediaStream id and track id.
    pub msid: (String, String),
}

/// One m-line to write.
#[derive(Clone, Debug)]
pub enum MediaOut<'a> {
    /// Port 0, with the words it came with.
    Rejected {
        /// Media word.
        media: &'a str,
        /// Protocol word.
        proto: &'a str,
        /// A format.
        format: &'a str,
        /// `a=mid`, where it has one.
        mid: Option<&'a str>,
    },
    /// In use.
    Live {
        /// Media type.
        kind: MediaKind,
        /// Protocol word.
        proto: &'a str,
        /// `a=mid`, where the description has them.
        mid: Option<&'a str>,
        /// Our direction.
        direction: Direction,
        /// Formats in order.
        codecs: &'a [Codec],
        /// Extensions.
        exts: &'a [(u8, Ext)],
        /// What we send.
        source: Option<SourceOut<'a>>,
        /// The simulcast that we receive.
        simulcast: &'a [SimulcastStream],
        /// Write `a=rtcp-xr:rcvr-rtt`.
        rcvr_rtt: bool,
    },
}

/// A whole description to write.
#[derive(Clone, Debug)]
pub struct DescriptionOut<'a> {
    /// `o=`.
    pub origin: OriginOut,
    /// Write `a=group:BUNDLE` with all live mids.
    pub bundle: bool,
    /// Write `a=extmap-allow-mixed`.
    pub ext_mixed: bool,
    /// Transport.
    pub transport: TransportOut<'a>,
    /// m-lines in order.
    pub media: Vec<MediaOut<'a>>,
}

impl DescriptionOut<'_> {
    /// The text.
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(1024 + 2048 * self.media.len());
        // Writing into a String cannot fail.
        let _ = self.write_into(&mut out);
        out
    }

    fn write_into(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\n", self.origin.session_id, self.origin.version)?;
        out.push_str("s=-\r\nt=0 0\r\n");
        if self.bundle {
            out.push_str("a=group:BUNDLE");
            for media in &self.media {
                if let MediaOut::Live { mid: Some(mid), .. } = media {
                    write!(out, " {mid}")?;
                }
            }
            out.push_str("\r\n");
        }
        if self.ext_mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        out.push_str("a=msid-semantic: WMS *\r\na=ice-lite\r\n");
        let mut first = true;
        for media in &self.media {
            match media {
                MediaOut::Rejected { media, proto, format, mid } => {
                    write!(out, "m={media} 0 {proto} {format}\r\nc=IN IP4 0.0.0.0\r\n")?;
                    mid.map_or(Ok(()), |mid| write!(out, "a=mid:{mid}\r\n"))?;
                    out.push_str("a=inactive\r\n");
                }
                live => {
                    self.write_live(out, live, first)?;
                    first = false;
                }
            }
        }
        Ok(())
    }

    fn write_live(&self, out: &mut String, media: &MediaOut<'_>, first: bool) -> std::fmt::Result {
        let MediaOut::Live { kind, proto, mid, direction, codecs, exts, source, simulcast, rcvr_rtt } = media else {
            return Ok(());
        };
        // RFC 8839 §4.2.1: port 9 and 0.0.0.0 say that only the candidates count.
        write!(out, "m={} 9 {proto}", kind.as_str())?;
        for codec in *codecs {
            write!(out, " {}", codec.pt)?;
        }
        for rtx_pt in codecs.iter().filter_map(|codec| codec.rtx_pt) {
            write!(out, " {rtx_pt}")?;
        }
        out.push_str("\r\nc=IN IP4 0.0.0.0\r\n");
        mid.map_or(Ok(()), |mid| write!(out, "a=mid:{mid}\r\n"))?;
        self.write_transport(out, first)?;
        for (id, ext) in *exts {
            write!(out, "a=extmap:{id} {}\r\n", ext.uri())?;
        }
        write!(out, "a={}\r\n", direction.as_str())?;
        if let Some(source) = source {
            write!(out, "a=msid:{} {}\r\n", source.msid.0, source.msid.1)?;
        }
        out.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
        if *rcvr_rtt {
            // RFC 3611 §5.1: all receivers, also those that send nothing.
            out.push_str("a=rtcp-xr:rcvr-rtt=all\r\n");
        }
        codecs.iter().try_for_each(|codec| write_codec(out, codec))?;
        write_simulcast(out, simulcast, codecs)?;
        source.as_ref().map_or(Ok(()), |source| write_source(out, source))
    }

    /// Credentials on every m-line, as browsers do; candidates on the first, whose transport all others share.
    fn write_transport(&self, out: &mut String, first: bool) -> std::fmt::Result {
        let transport = &self.transport;
        write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", transport.ufrag, transport.pwd)?;
        write!(out, "a=fingerprint:{}\r\na=setup:{}\r\n", transport.fingerprint, transport.setup.as_str())?;
        if !first {
            return Ok(());
        }
        write_candidates(out, transport.candidates)
    }
}

/// All we have, and that there are no more.
pub(super) fn write_candidates(out: &mut String, candidates: &[SocketAddr]) -> std::fmt::Result {
    for (index, address) in candidates.iter().enumerate() {
        // RFC 8445 §5.1.2.1: type preference 126 for host, local preference unique per address, component 1.
        let local_preference = 65_535u32.saturating_sub(index as u32);
        let priority = (126 << 24) | (local_preference << 8) | 255;
        let (ip, port) = (address.ip(), address.port());
        write!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ host\r\n", index + 1)?;
    }
    out.push_str("a=end-of-candidates\r\n");
    Ok(())
}

fn write_codec(out: &mut String, codec: &Codec) -> std::fmt::Result {
    write!(out, "a=rtpmap:{} {}\r\n", codec.pt, rtpmap_of(codec.format))?;
    for name in codec.feedback.names() {
        write!(out, "a=rtcp-fb:{} {name}\r\n", codec.pt)?;
    }
    if !codec.params.is_empty() {
        write!(out, "a=fmtp:{} {}\r\n", codec.pt, codec.params)?;
    }
    if let Some(rtx_pt) = codec.rtx_pt {
        let clock_hz = codec.format.clock_rate_hz();
        write!(out, "a=rtpmap:{rtx_pt} rtx/{clock_hz}\r\na=fmtp:{rtx_pt} apt={}\r\n", codec.pt)?;
    }
    Ok(())
}

/// RFC 8853 §5.3.2: what was offered to send is answered to receive. A stream that is paused at first is not asked to stay
/// so: `~` would be our wish.
fn write_simulcast(out: &mut String, streams: &[SimulcastStream], codecs: &[Codec]) -> std::fmt::Result {
    let Some((first, others)) = streams.split_first() else { return Ok(()) };
    for stream in streams {
        write!(out, "a=rid:{} recv", stream.rid)?;
        // RFC 8851 §6.3: the formats of the answer are within those of the offer.
        if let Some(pts) = stream.pts {
            let mut separator = " pt=";
            for codec in codecs.iter().filter(|codec| pts & (1 << codec.pt) != 0) {
                write!(out, "{separator}{}", codec.pt)?;
                separator = ",";
            }
        }
        out.push_str("\r\n");
    }
    write!(out, "a=simulcast:recv {}", first.rid)?;
    others.iter().try_for_each(|stream| write!(out, ";{}", stream.rid))?;
    out.push_str("\r\n");
    Ok(())
}

fn write_source(out: &mut String, source: &SourceOut<'_>) -> std::fmt::Result {
    let ssrc = source.ssrc.0;
    if let Some(Ssrc(rtx)) = source.rtx_ssrc {
        write!(out, "a=ssrc-group:FID {ssrc} {rtx}\r\n")?;
    }
    write!(out, "a=ssrc:{ssrc} cname:{}\r\n", source.cname)?;
    if let Some(Ssrc(rtx)) = source.rtx_ssrc {
        write!(out, "a=ssrc:{rtx} cname:{}\r\n", source.cname)?;
    }
    Ok(())
}
