//! Payload formats in SDP: `a=rtpmap`, `a=fmtp` and `a=rtcp-fb` to [`Format`] and back.
//!
//! Owns: the list of formats we speak and the numbers our own offers give them.
//! Promises: one payload type, one meaning. What is not understood is left out, never guessed.

use crate::base::format::{Format, H264Profile, MediaKind};

/// A format under a payload type, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Payload type, below 128.
    pub pt: u8,
    /// What it carries.
    pub format: Format,
    /// Payload type of its retransmissions (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// The `a=fmtp` value we write for it; empty: none.
    pub params: String,
    /// Feedback messages.
    pub feedback: Feedback,
}

/// `a=rtcp-fb` of one payload type (RFC 4585 §4.2, RFC 5104 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `nack`
    pub nack: bool,
    /// `nack pli`
    pub pli: bool,
    /// `ccm fir`
    pub fir: bool,
    /// `transport-cc`
    pub transport_cc: bool,
    /// `goog-remb`
    pub remb: bool,
    /// `rrtr`: receiver reference times (RFC 3611 §4.4), as libwebrtc names them.
    pub rrtr: bool,
}

impl Feedback {
    /// What both sides have.
    pub fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            transport_cc: self.transport_cc && other.transport_cc,
            remb: self.remb && other.remb,
            rrtr: self.rrtr && other.rrtr,
        }
    }

    /// The attribute values, in the order browsers write them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
            (self.fir, "ccm fir"),
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.rrtr, "rrtr"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
    }

    fn read(&mut self, value: &str) {
        match value {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            "goog-remb" => self.remb = true,
            "rrtr" => self.rrtr = true,
            _ => {}
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            nack: self.nack || other.nack,
            pli: self.pli || other.pli,
            fir: self.fir || other.fir,
            transport_cc: self.transport_cc || other.transport_cc,
            remb: self.remb || other.remb,
            rrtr: self.rrtr || other.rrtr,
        }
    }
}

/// Collects the payload attributes of one m-line in one pass: a table by payload type, so the size is fixed.
pub(super) struct PayloadTable {
    rows: Vec<Row>,
    /// `a=rtcp-fb:* ..`
    wildcard: Feedback,
}

#[derive(Clone, Default)]
struct Row {
    rtpmap: Option<String>,
    fmtp: Option<String>,
    feedback: Feedback,
}

impl PayloadTable {
    pub(super) fn new() -> Self {
        Self { rows: vec![Row::default(); 128], wildcard: Feedback::default() }
    }

    /// Takes one attribute if it is one of ours.
    pub(super) fn read(&mut self, key: &str, value: &str) {
        let Some((pt, rest)) = value.split_once(' ') else { return };
        let rest = rest.trim();
        if key == "rtcp-fb" && pt == "*" {
            return self.wildcard.read(rest);
        }
        let Some(row) = pt.parse::<u8>().ok().and_then(|pt| self.rows.get_mut(usize::from(pt))) else { return };
        match key {
            "rtpmap" if row.rtpmap.is_none() => row.rtpmap = Some(rest.to_owned()),
            "fmtp" if row.fmtp.is_none() => row.fmtp = Some(rest.to_owned()),
            "rtcp-fb" => row.feedback.read(rest),
            _ => {}
        }
    }

    /// The formats we know among `pts`, in that order. Of two payload types with one meaning the first is taken.
    pub(super) fn codecs(&self, kind: MediaKind, pts: &[u8]) -> Vec<Codec> {
        let rtx: Vec<(u8, u8)> = pts.iter().filter_map(|pt| Some((self.apt(*pt)?, *pt))).collect();
        let is_opus = |pt: &u8| self.format(*pt, &[]) == Some(Format::Opus);
        // Only the first Opus is answered, so RED must be around that one.
        let opus: Vec<u8> = pts.iter().copied().filter(is_opus).take(1).collect();
        let mut codecs: Vec<Codec> = Vec::new();
        for &pt in pts {
            let Some(format) = self.format(pt, &opus).filter(|format| format.kind() == kind) else { continue };
            if codecs.iter().any(|known| known.format == format || known.pt == pt) {
                continue;
            }
            codecs.push(Codec {
                pt,
                format,
                rtx_pt: rtx.iter().find(|(apt, _)| *apt == pt).map(|(_, rtx_pt)| *rtx_pt),
                params: answer_params(format, self.fmtp(pt)),
                feedback: self.rows.get(usize::from(pt)).map_or(self.wildcard, |row| row.feedback.or(self.wildcard)),
            });
        }
        codecs
    }

    fn fmtp(&self, pt: u8) -> &str {
        self.rows.get(usize::from(pt)).and_then(|row| row.fmtp.as_deref()).unwrap_or("")
    }

    /// RFC 4588 §8.1: `a=rtpmap:<pt> rtx/..`, `a=fmtp:<pt> apt=<original>`.
    fn apt(&self, pt: u8) -> Option<u8> {
        let rtpmap = self.rows.get(usize::from(pt))?.rtpmap.as_deref()?;
        let (name, _) = rtpmap.split_once('/')?;
        if !name.eq_ignore_ascii_case("rtx") {
            return None;
        }
        param(self.fmtp(pt), "apt")?.parse().ok()
    }

    fn format(&self, pt: u8, opus: &[u8]) -> Option<Format> {
        let row = self.rows.get(usize::from(pt))?;
        let rtpmap = match (row.rtpmap.as_deref(), pt) {
            (Some(rtpmap), _) => rtpmap,
            // RFC 3551 §6: static payload types need no rtpmap.
            (None, 0) => "PCMU/8000",
            (None, 8) => "PCMA/8000",
            (None, 9) => "G722/8000",
            (None, _) => return None,
        };
        format_of(rtpmap, self.fmtp(pt), opus)
    }
}

/// The meaning of a payload type; `opus` are the payload types that are Opus in the same m-line (for RED).
fn format_of(rtpmap: &str, fmtp: &str, opus: &[u8]) -> Option<Format> {
    let mut parts = rtpmap.split('/');
    let name = parts.next()?.to_ascii_lowercase();
    let clock_hz: u32 = parts.next()?.trim().parse().ok()?;
    // RFC 8866 §6.6: the channel count may be left out when it is one.
    let channels: u8 = parts.next().map_or(Some(1), |text| text.trim().parse().ok())?;
    match (name.as_str(), clock_hz, channels) {
        // RFC 7587 §7: always 48000 and 2, whatever is inside.
        ("opus", 48_000, 2) => Some(Format::Opus),
        ("red", 48_000, 2) => red_around(fmtp, opus).then_some(Format::OpusRed),
        ("g722", 8_000, 1) => Some(Format::G722),
        ("pcmu", 8_000, 1) => Some(Format::Pcmu),
        ("pcma", 8_000, 1) => Some(Format::Pcma),
        ("vp8", 90_000, 1) => Some(Format::Vp8),
        ("vp9", 90_000, 1) => Some(Format::Vp9 { profile: small_param(fmtp, "profile-id", 0)? }),
        ("av1", 90_000, 1) => Some(Format::Av1 { profile: small_param(fmtp, "profile", 0)? }),
        ("h264", 90_000, 1) => h264(fmtp),
        _ => None,
    }
}

/// RFC 2198 §5: the fmtp of RED lists the payload types inside, here `111/111`.
fn red_around(fmtp: &str, opus: &[u8]) -> bool {
    !fmtp.is_empty() && fmtp.split('/').all(|pt| pt.trim().parse::<u8>().is_ok_and(|pt| opus.contains(&pt)))
}

fn h264(fmtp: &str) -> Option<Format> {
    // RFC 6184 §8.1: without profile-level-id, Baseline at level 1; without packetization-mode, 0.
    let profile = h264_profile(param(fmtp, "profile-level-id").unwrap_or("42000a"))?;
    let packetization_mode = small_param(fmtp, "packetization-mode", 0)?;
    (packetization_mode <= 1).then_some(Format::H264 { profile, packetization_mode })
}

/// RFC 6184 §8.1, table 5: profile_idc and the constraint flags name the profile. Other patterns are not in use.
fn h264_profile(profile_level_id: &str) -> Option<H264Profile> {
    if profile_level_id.len() != 6 || !profile_level_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let id = u32::from_str_radix(profile_level_id, 16).ok()?;
    let (idc, flags) = ((id >> 16) as u8, (id >> 8) as u8);
    match (idc, flags) {
        (0x42, f) if f & 0x4f == 0x40 => Some(H264Profile::ConstrainedBaseline),
        (0x4d, f) if f & 0x8f == 0x80 => Some(H264Profile::ConstrainedBaseline),
        (0x58, f) if f & 0xcf == 0xc0 => Some(H264Profile::ConstrainedBaseline),
        (0x42, f) if f & 0x4f == 0x00 => Some(H264Profile::Baseline),
        (0x58, f) if f & 0xcf == 0x80 => Some(H264Profile::Baseline),
        (0x4d, f) if f & 0xaf == 0x00 => Some(H264Profile::Main),
        (0x64, 0x00) => Some(H264Profile::High),
        (0x64, 0x0c) => Some(H264Profile::ConstrainedHigh),
        (0xf4, 0x00) => Some(H264Profile::High444Predictive),
        _ => None,
    }
}

/// The value of one `key=value` of an fmtp.
fn param<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
    })
}

fn small_param(fmtp: &str, key: &str, default: u8) -> Option<u8> {
    param(fmtp, key).map_or(Some(default), |value| value.parse().ok())
}

/// What our description says about a format the peer described with `fmtp`. Written anew, so nothing of the peer's
/// text gets into ours.
fn answer_params(format: Format, fmtp: &str) -> String {
    match format {
        Format::Opus => {
            let mut params = String::from("minptime=10;useinbandfec=1");
            // RFC 7587 §7.1: stereo says what we like to receive. Whoever has stereo to send may send it.
            if param(fmtp, "sprop-stereo") == Some("1") || param(fmtp, "stereo") == Some("1") {
                params.push_str(";stereo=1");
            }
            if param(fmtp, "usedtx") == Some("1") {
                params.push_str(";usedtx=1");
            }
            params
        }
        Format::OpusRed => {
            let pt = fmtp.split('/').next().and_then(|pt| pt.trim().parse::<u8>().ok()).unwrap_or(111);
            format!("{pt}/{pt}")
        }
        Format::Vp9 { profile } => format!("profile-id={profile}"),
        Format::Av1 { profile } => format!("level-idx=5;profile={profile};tier=0"),
        Format::H264 { packetization_mode, .. } => {
            // Validated as six hex digits when the format was recognised.
            let id = param(fmtp, "profile-level-id").unwrap_or("42000a");
            format!("level-asymmetry-allowed=1;packetization-mode={packetization_mode};profile-level-id={id}")
        }
        Format::G722 | Format::Pcmu | Format::Pcma | Format::Vp8 => String::new(),
    }
}

/// The formats of our own offers in order of preference, with the numbers Gryt's client knows.
pub fn offered(kind: MediaKind) -> Vec<Codec> {
    match kind {
        MediaKind::Audio => AUDIO.iter().map(|(pt, format)| audio_codec(*pt, *format)).collect(),
        MediaKind::Video => VIDEO.iter().map(|row| video_codec(*row)).collect(),
    }
}

const AUDIO: [(u8, Format); 5] =
    [(111, Format::Opus), (63, Format::OpusRed), (9, Format::G722), (0, Format::Pcmu), (8, Format::Pcma)];

const fn h264_mode(profile: H264Profile, packetization_mode: u8) -> Format {
    Format::H264 { profile, packetization_mode }
}

/// pt, rtx pt, format, profile-level-id.
const VIDEO: [(u8, u8, Format, &str); 9] = [
    (102, 121, h264_mode(H264Profile::Baseline, 1), "42001f"),
    (125, 107, h264_mode(H264Profile::ConstrainedBaseline, 1), "42e01f"),
    (123, 118, h264_mode(H264Profile::High, 1), "640032"),
    (127, 120, h264_mode(H264Profile::Baseline, 0), "42001f"),
    (108, 109, h264_mode(H264Profile::ConstrainedBaseline, 0), "42e01f"),
    (98, 99, Format::Vp9 { profile: 0 }, ""),
    (100, 101, Format::Vp9 { profile: 2 }, ""),
    (96, 97, Format::Vp8, ""),
    (35, 36, Format::Av1 { profile: 0 }, ""),
];

fn audio_codec(pt: u8, format: Format) -> Codec {
    let transport_cc = matches!(format, Format::Opus | Format::OpusRed);
    let feedback = Feedback { transport_cc, ..Feedback::default() };
    Codec { pt, format, rtx_pt: None, params: answer_params(format, ""), feedback }
}

fn video_codec((pt, rtx_pt, format, profile_level_id): (u8, u8, Format, &str)) -> Codec {
    // No rrtr: browsers know it only where a page wrote it into their own description.
    let feedback = Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true, rrtr: false };
    let params = answer_params(format, &format!("profile-level-id={profile_level_id}"));
    Codec { pt, format, rtx_pt: Some(rtx_pt), params, feedback }
}

/// `name/clock[/channels]` of a format.
pub(super) fn rtpmap_of(format: Format) -> String {
    let channels = if matches!(format, Format::Opus | Format::OpusRed) { "/2" } else { "" };
    format!("{}/{}{channels}", format.name(), format.clock_rate_hz())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_profiles_follow_table_5_of_rfc_6184() {
        for (id, profile) in [
            ("42e01f", H264Profile::ConstrainedBaseline),
            ("42c01f", H264Profile::ConstrainedBaseline),
            ("4de01f", H264Profile::ConstrainedBaseline),
            ("58c01f", H264Profile::ConstrainedBaseline),
            ("42001f", H264Profile::Baseline),
            ("58801f", H264Profile::Baseline),
            ("4d001f", H264Profile::Main),
            ("4d401f", H264Profile::Main),
            ("64001f", H264Profile::High),
            ("640c1f", H264Profile::ConstrainedHigh),
            ("f4001f", H264Profile::High444Predictive),
        ] {
            assert_eq!(h264_profile(id), Some(profile), "{id}");
        }
        for id in ["", "42e0", "42e01fff", "zz001f", "+2e01f", "ff001f"] {
            assert_eq!(h264_profile(id), None, "{id}");
        }
    }

    #[test]
    fn formats_are_told_apart_by_name_clock_channels_and_fmtp() {
        assert_eq!(format_of("opus/48000/2", "", &[]), Some(Format::Opus));
        assert_eq!(format_of("opus/48000", "", &[]), None);
        assert_eq!(format_of("OPUS/48000/2", "", &[]), Some(Format::Opus));
        assert_eq!(format_of("VP9/90000", "", &[]), Some(Format::Vp9 { profile: 0 }));
        assert_eq!(format_of("VP9/90000", "profile-id=2", &[]), Some(Format::Vp9 { profile: 2 }));
        assert_eq!(format_of("AV1/90000", "level-idx=5;profile=1;tier=0", &[]), Some(Format::Av1 { profile: 1 }));
        let baseline = Format::H264 { profile: H264Profile::Baseline, packetization_mode: 0 };
        assert_eq!(format_of("H264/90000", "", &[]), Some(baseline), "RFC 6184 §8.1 defaults");
        assert_eq!(format_of("H264/90000", "packetization-mode=2", &[]), None);
        assert_eq!(format_of("CN/8000", "", &[]), None);
    }

    #[test]
    fn red_is_taken_only_around_opus() {
        assert_eq!(format_of("red/48000/2", "111/111", &[111]), Some(Format::OpusRed));
        assert_eq!(format_of("red/48000/2", "0/0", &[111]), None);
        assert_eq!(format_of("red/48000/2", "", &[111]), None);
        assert_eq!(format_of("red/90000", "", &[111]), None, "video red is not spoken");
    }

    #[test]
    fn our_own_offer_uses_every_number_once_and_reads_back_as_itself() {
        let mut seen = Vec::new();
        for codec in offered(MediaKind::Audio).into_iter().chain(offered(MediaKind::Video)) {
            seen.extend([Some(codec.pt), codec.rtx_pt].into_iter().flatten());
            let read = format_of(&rtpmap_of(codec.format), &codec.params, &[111]);
            assert_eq!(read, Some(codec.format));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
