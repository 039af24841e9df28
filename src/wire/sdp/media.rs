//! One m-line, read.

use rtc_sdp::MediaDescription;
use rtc_sdp::description::media::MediaName;

use super::codec::PayloadTable;
use super::simulcast::Simulcast;
use super::{Codec, SdpError, SimulcastStream, Transport, is_token, to_token};
use crate::base::format::MediaKind;
use crate::base::frame::ENCODINGS_MAX;
use crate::base::ids::{Mid, Ssrc};
use crate::wire::rtp_ext::Ext;

/// Most sources read from one m-line: three simulcast layers with rtx and fec are nine.
const SSRCS_MAX: usize = 32;

/// `a=sendrecv` and its kin, seen from the side that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// It sends.
    pub send: bool,
    /// It receives.
    pub recv: bool,
}

impl Direction {
    /// The default (RFC 8866 §6.7).
    pub const BOTH: Self = Self { send: true, recv: true };

    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sendrecv" => Some(Self::BOTH),
            "sendonly" => Some(Self { send: true, recv: false }),
            "recvonly" => Some(Self { send: false, recv: true }),
            "inactive" => Some(Self { send: false, recv: false }),
            _ => None,
        }
    }

    /// The attribute.
    pub fn as_str(self) -> &'static str {
        match (self.send, self.recv) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

/// `a=msid` (RFC 8830); each part only if given and meant (`-` is not).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Msid {
    /// MediaStream id.
    pub stream: Option<String>,
    /// Track id.
    pub track: Option<String>,
}

impl Msid {
    fn parse(value: &str) -> Self {
        let mut words = value.split_ascii_whitespace();
        let mut word = || words.next().filter(|word| *word != "-").and_then(to_token);
        Self { stream: word(), track: word() }
    }
}

/// An m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Audio or video; `None` for anything else.
    pub kind: Option<MediaKind>,
    /// The media word.
    pub media: String,
    /// The protocol word.
    pub proto: String,
    /// The first format; a rejected m-line is answered with it, since the list must not be empty.
    pub format: String,
    /// Port 0 and not bundle-only: rejected or stopped (RFC 9143 §6).
    pub disabled: bool,
    /// `a=mid`.
    pub mid: Option<Mid>,
    /// Direction.
    pub direction: Direction,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=extmap-allow-mixed` here.
    pub ext_mixed: bool,
    /// ICE and DTLS.
    pub transport: Transport,
    /// Formats we know, in order.
    pub codecs: Vec<Codec>,
    /// Every payload type in the m-line, known or not: bit n is payload type n.
    pub pts: u128,
    /// Header extensions we know, both ways.
    pub exts: Vec<(u8, Ext)>,
    /// Every extension id below 16, known or not: bit n is id n.
    pub ext_ids: u16,
    /// Sources with their retransmission source.
    pub ssrcs: Vec<(Ssrc, Option<Ssrc>)>,
    /// Those of them that are one simulcast (`a=ssrc-group:SIM`), in its order; at most [`ENCODINGS_MAX`].
    pub sim: Vec<Ssrc>,
    /// The simulcast it sends by rid.
    pub simulcast: Vec<SimulcastStream>,
    /// `a=rtcp-xr` with `rcvr-rtt` (RFC 3611 §5.1).
    pub rcvr_rtt: bool,
    /// Stream and track ids.
    pub msid: Msid,
}

impl Media {
    pub(super) fn read(media: &MediaDescription, session: &Transport, direction: Direction) -> Result<Self, SdpError> {
        let name = &media.media_name;
        let kind = match name.media.as_str() {
            "audio" => Some(MediaKind::Audio),
            "video" => Some(MediaKind::Video),
            _ => None,
        };
        let mut out = Self::named(name, kind, direction);
        let mut payloads = PayloadTable::new();
        let mut sources = Sources::default();
        let mut simulcast = Simulcast::default();
        for attribute in &media.attributes {
            let value = attribute.value.as_deref().unwrap_or("");
            match attribute.key.as_str() {
                // RFC 9143 §6: port 0 with bundle-only is not a rejection.
                "bundle-only" => out.disabled = false,
                "mid" if is_token(value) => {
                    let mid = Mid::new(value.as_bytes());
                    // RFC 9143 §15.1: the header extension has room for 16 bytes in its one-byte form.
                    out.mid = Some(mid.ok_or(SdpError::Attribute("an a=mid is longer than 16 bytes"))?);
                }
                "mid" => return Err(SdpError::Attribute("an a=mid is not a token")),
                "rtcp-mux" => out.rtcp_mux = true,
                "extmap-allow-mixed" => out.ext_mixed = true,
                "rtpmap" | "fmtp" | "rtcp-fb" => payloads.read(&attribute.key, value),
                "extmap" => out.read_extmap(value),
                "msid" if out.msid == Msid::default() => out.msid = Msid::parse(value),
                "ssrc" | "ssrc-group" => sources.read(&attribute.key, value),
                "rid" | "simulcast" => simulcast.read(&attribute.key, value),
                "rtcp-xr" => out.rcvr_rtt |= value.split_ascii_whitespace().any(|word| word.starts_with("rcvr-rtt=")),
                key => {
                    out.transport.read(key, value);
                    out.direction = Direction::parse(key).unwrap_or(out.direction);
                }
            }
        }
        let pts: Vec<u8> = name.formats.iter().filter_map(|pt| pt.parse().ok()).filter(|pt| *pt < 128).collect();
        // The same number twice adds nothing: at most 128 are looked at.
        for pt in &pts {
            out.pts |= 1 << pt;
        }
        let pts: Vec<u8> = pts.into_iter().take(128).collect();
        out.codecs = kind.map_or_else(Vec::new, |kind| payloads.codecs(kind, &pts));
        out.transport.inherit(session);
        if out.msid == Msid::default() {
            out.msid = sources.msid.take().unwrap_or_default();
        }
        out.simulcast = simulcast.streams();
        out.sim = sources.simulcast();
        out.ssrcs = sources.pairs();
        Ok(out)
    }

    /// An m-line of which only the first line was read.
    fn named(name: &MediaName, kind: Option<MediaKind>, direction: Direction) -> Self {
        let proto = Some(name.protos.join("/")).filter(|proto| proto.split('/').all(is_token));
        let format = name.formats.first().filter(|format| is_token(format)).cloned();
        Self {
            kind,
            media: name.media.clone(),
            proto: proto.unwrap_or_else(|| "UDP/TLS/RTP/SAVPF".into()),
            format: format.unwrap_or_else(|| "0".into()),
            disabled: name.port.value == 0,
            mid: None,
            direction,
            rtcp_mux: false,
            ext_mixed: false,
            transport: Transport::default(),
            codecs: Vec::new(),
            pts: 0,
            exts: Vec::new(),
            ext_ids: 0,
            ssrcs: Vec::new(),
            sim: Vec::new(),
            simulcast: Vec::new(),
            rcvr_rtt: false,
            msid: Msid::default(),
        }
    }

    /// RFC 8285 §5: `<id>["/"<direction>] <uri> [..]`.
    fn read_extmap(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        let (Some(head), Some(uri)) = (words.next(), words.next()) else { return };
        let (id, direction) = head.split_once('/').map_or((head, "sendrecv"), |(id, direction)| (id, direction));
        let Ok(id) = id.parse::<u8>() else { return };
        // RFC 8285 §4.2: 0 is padding and 15 is reserved.
        if id == 0 || id == 15 {
            return;
        }
        if id < 16 {
            self.ext_ids |= 1 << id;
        }
        // One-way extensions are left out: ours go both ways.
        let Some(ext) = Ext::from_uri(uri).filter(|_| direction == "sendrecv") else { return };
        if !self.exts.iter().any(|(known_id, known)| *known_id == id || *known == ext) {
            self.exts.push((id, ext));
        }
    }
}

/// `a=ssrc` and `a=ssrc-group` (RFC 5576).
#[derive(Default)]
struct Sources {
    ssrcs: Vec<Ssrc>,
    fid: Vec<(Ssrc, Ssrc)>,
    /// The first `SIM` group: how simulcast was said before rids, and by some still is.
    sim: Vec<Ssrc>,
    /// Before RFC 8830 the msid stood in `a=ssrc:<n> msid:<stream> <track>`.
    msid: Option<Msid>,
}

impl Sources {
    fn read(&mut self, key: &str, value: &str) {
        let Some((head, rest)) = value.split_once(' ') else { return };
        if key == "ssrc" {
            let Some(ssrc) = head.parse().ok().map(Ssrc) else { return };
            if !self.ssrcs.contains(&ssrc) && self.ssrcs.len() < SSRCS_MAX {
                self.ssrcs.push(ssrc);
            }
            if let (None, Some(msid)) = (&self.msid, rest.strip_prefix("msid:")) {
                self.msid = Some(Msid::parse(msid));
            }
        } else if head == "FID" && self.fid.len() < SSRCS_MAX {
            let mut ssrcs = rest.split_ascii_whitespace().map_while(|text| text.parse().ok().map(Ssrc));
            // RFC 5576 §4.2 with RFC 4588 §8.3: original first, its retransmissions second.
            if let (Some(main), Some(rtx)) = (ssrcs.next(), ssrcs.next()) {
                self.fid.push((main, rtx));
            }
        } else if head == "SIM" && self.sim.is_empty() {
            let ssrcs = rest.split_ascii_whitespace().map_while(|text| text.parse().ok().map(Ssrc));
            for ssrc in ssrcs.take(SSRCS_MAX) {
                if !self.sim.contains(&ssrc) && self.sim.len() < ENCODINGS_MAX {
                    self.sim.push(ssrc);
                }
            }
        }
    }

    /// The simulcast of those sources that are described; one alone is none.
    fn simulcast(&self) -> Vec<Ssrc> {
        let is_described = |ssrc: &Ssrc| self.ssrcs.contains(ssrc) && !self.fid.iter().any(|(_, rtx)| rtx == ssrc);
        let sim: Vec<Ssrc> = self.sim.iter().copied().filter(is_described).collect();
        if sim.len() > 1 { sim } else { Vec::new() }
    }

    fn pairs(self) -> Vec<(Ssrc, Option<Ssrc>)> {
        let is_rtx = |ssrc: &Ssrc| self.fid.iter().any(|(_, rtx)| rtx == ssrc);
        let rtx_of = |ssrc: Ssrc| self.fid.iter().find(|(main, _)| *main == ssrc).map(|(_, rtx)| *rtx);
        self.ssrcs.iter().filter(|ssrc| !is_rtx(ssrc)).map(|ssrc| (*ssrc, rtx_of(*ssrc))).collect()
    }
}
