//! The one offer a peer makes, and what it needs of the answer.
//!
//! Forbids: negotiation. The peers offer VP8 and Opus and take what the answer makes of it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use tramline::base::format::{Format, MediaKind};
use tramline::base::ids::Ssrc;
use tramline::proto::dtls::DtlsRole;
use tramline::wire::rtp_ext::Ext;
use tramline::wire::sdp::{Description, Fingerprint, Media, Setup};

/// Payload type of VP8 in our offers.
const VIDEO_PT: u8 = 96;
/// Payload type of VP8's retransmissions.
const RTX_PT: u8 = 97;
/// Payload type of Opus.
const AUDIO_PT: u8 = 111;
/// Id of the transport-wide sequence number.
const TWCC_ID: u8 = 3;
/// Id of the mid.
const MID_ID: u8 = 4;

/// One m-line of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Audio or video.
    pub kind: MediaKind,
    /// The source that sends there; `None`: we receive.
    pub sends: Option<Ssrc>,
}

/// Our ICE credentials.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// At least 4 characters (RFC 8839 §5.4).
    pub ufrag: String,
    /// At least 22 characters (RFC 8839 §5.4).
    pub pwd: String,
}

impl Credentials {
    /// Random ones.
    pub fn random() -> Self {
        Self { ufrag: format!("{:08x}", rand::random::<u32>()), pwd: format!("{:032x}", rand::random::<u128>()) }
    }
}

/// What we offer.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// The m-lines.
    pub sections: &'a [Section],
    /// Of our ICE agent.
    pub ours: &'a Credentials,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// Our host candidate: agents that do not wait for checks from unknown addresses need one.
    pub address: SocketAddr,
    /// Transport-wide congestion control.
    pub twcc: bool,
}

impl Offer<'_> {
    /// The text, as a browser would say it.
    pub fn write(&self) -> String {
        let Credentials { ufrag, pwd } = self.ours;
        let mids: Vec<String> = (0..self.sections.len()).map(|mid| mid.to_string()).collect();
        let mut out = format!(
            "v=0\r\no=- {session} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n\
             a=msid-semantic: WMS\r\n",
            session = rand::random::<u32>(),
            mids = mids.join(" "),
        );
        let candidate = format!("1 1 udp 2130706431 {} {} typ host", self.address.ip(), self.address.port());
        let family = if self.address.is_ipv6() { "IP6 ::" } else { "IP4 0.0.0.0" };
        for (section, mid) in self.sections.iter().zip(&mids) {
            let (head, formats) = match section.kind {
                MediaKind::Video => {
                    (format!("m=video 9 UDP/TLS/RTP/SAVPF {VIDEO_PT} {RTX_PT}"), video_formats(self.twcc))
                }
                MediaKind::Audio => (format!("m=audio 9 UDP/TLS/RTP/SAVPF {AUDIO_PT}"), audio_formats(self.twcc)),
            };
            let (direction, sources) = match section.sends {
                Some(ssrc) => ("sendonly", sources(section.kind, ssrc, mid)),
                None => ("recvonly", String::new()),
            };
            let twcc =
                if self.twcc { format!("a=extmap:{TWCC_ID} {}\r\n", Ext::TransportCc.uri()) } else { String::new() };
            out += &format!(
                "{head}\r\nc=IN {family}\r\na=rtcp:9 IN {family}\r\na=candidate:{candidate}\r\na=end-of-candidates\r\n\
                 a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:{fingerprint}\r\na=setup:actpass\r\n\
                 a=mid:{mid}\r\na=extmap:{MID_ID} {uri}\r\n{twcc}a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
                 {formats}{sources}",
                fingerprint = self.fingerprint,
                uri = Ext::Mid.uri(),
            );
        }
        out
    }
}

/// The source by which a video source's retransmissions go.
pub fn repair_ssrc(media: Ssrc) -> Ssrc {
    Ssrc(media.0.wrapping_add(1))
}

fn sources(kind: MediaKind, media: Ssrc, mid: &str) -> String {
    let repair = Some(repair_ssrc(media)).filter(|_| kind == MediaKind::Video);
    let group = repair.map_or_else(String::new, |repair| format!("a=ssrc-group:FID {} {}\r\n", media.0, repair.0));
    let line = |ssrc: Ssrc| format!("a=ssrc:{0} cname:load\r\na=ssrc:{0} msid:load track-{mid}\r\n", ssrc.0);
    let lines: String = [Some(media), repair].into_iter().flatten().map(line).collect();
    format!("a=msid:load track-{mid}\r\n{group}{lines}")
}

fn video_formats(twcc: bool) -> String {
    format!(
        "a=rtpmap:{VIDEO_PT} VP8/90000\r\n{}a=rtcp-fb:{VIDEO_PT} nack\r\na=rtcp-fb:{VIDEO_PT} nack pli\r\n\
         a=rtcp-fb:{VIDEO_PT} ccm fir\r\na=rtpmap:{RTX_PT} rtx/90000\r\na=fmtp:{RTX_PT} apt={VIDEO_PT}\r\n",
        twcc_feedback(VIDEO_PT, twcc)
    )
}

fn audio_formats(twcc: bool) -> String {
    format!(
        "a=rtpmap:{AUDIO_PT} opus/48000/2\r\n{}a=fmtp:{AUDIO_PT} minptime=10;useinbandfec=1\r\n",
        twcc_feedback(AUDIO_PT, twcc)
    )
}

fn twcc_feedback(pt: u8, twcc: bool) -> String {
    if twcc { format!("a=rtcp-fb:{pt} transport-cc\r\n") } else { String::new() }
}

/// The server's transport as its answer describes it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Of the server's ICE agent.
    pub credentials: Credentials,
    /// Of the server's certificate.
    pub fingerprint: Fingerprint,
    /// The candidate we take.
    pub address: SocketAddr,
    /// Our part in the handshake.
    pub role: DtlsRole,
}

/// What became of one of our m-lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Audio or video.
    pub kind: MediaKind,
    /// Payload type of VP8 or Opus.
    pub pt: u8,
    /// Payload type of retransmissions.
    pub rtx_pt: Option<u8>,
    /// Id of the transport-wide sequence number.
    pub twcc_id: Option<u8>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of the first m-line: everything is bundled.
    pub remote: Remote,
    /// By m-line; `None` where it was refused.
    pub sections: Vec<Option<Agreed>>,
    /// Retransmission sources with the source they repair.
    pub repairs: Vec<(Ssrc, Ssrc)>,
}

impl Answer {
    /// Reads an answer; says what it lacks.
    pub fn parse(sdp: &str) -> Result<Self> {
        let description = Description::parse(sdp)?;
        let first =
            description.media.iter().find(|media| !media.disabled).context("the answer refuses every m-line")?;
        let transport = &first.transport;
        let text = |value: &Option<String>, name| value.clone().with_context(|| format!("the answer has no {name}"));
        let role = match transport.setup {
            Some(Setup::Passive) => DtlsRole::Client,
            Some(Setup::Active) => DtlsRole::Server,
            other => bail!("the answer's a=setup is {other:?}"),
        };
        let remote = Remote {
            credentials: Credentials {
                ufrag: text(&transport.ufrag, "a=ice-ufrag")?,
                pwd: text(&transport.pwd, "a=ice-pwd")?,
            },
            fingerprint: transport.fingerprint.context("the answer has no a=fingerprint we know")?,
            address: best_candidate(sdp).context("the answer has no UDP candidate")?,
            role,
        };
        let pairs = description.media.iter().flat_map(|media| &media.ssrcs);
        let repairs = pairs.filter_map(|(ssrc, rtx)| Some(((*rtx)?, *ssrc))).collect();
        Ok(Self { remote, sections: description.media.iter().map(agreed).collect(), repairs })
    }
}

fn agreed(media: &Media) -> Option<Agreed> {
    let kind = media.kind?;
    let format = match kind {
        MediaKind::Audio => Format::Opus,
        MediaKind::Video => Format::Vp8,
    };
    let codec = media.codecs.iter().find(|codec| codec.format == format).filter(|_| !media.disabled)?;
    let twcc_id = media.exts.iter().find(|(_, ext)| *ext == Ext::TransportCc).map(|(id, _)| *id);
    Some(Agreed { kind, pt: codec.pt, rtx_pt: codec.rtx_pt, twcc_id })
}

/// We are on the server's machine or beside it: the loopback address if there is one, else host before others, IPv4
/// before IPv6. What cannot be reached by routing is no use to a load generator, so none is tried after another.
fn best_candidate(sdp: &str) -> Option<SocketAddr> {
    let rank = |(address, is_host): &(SocketAddr, bool)| (address.ip().is_loopback(), *is_host, address.is_ipv4());
    let candidates: Vec<_> = sdp.lines().filter_map(parse_candidate).collect();
    // The first of the best: `max_by_key` gives the last.
    candidates.into_iter().rev().max_by_key(rank).map(|(address, _)| address)
}

/// RFC 8839 §5.1: foundation, component, transport, priority, address, port, `typ`, type.
fn parse_candidate(line: &str) -> Option<(SocketAddr, bool)> {
    let mut words = line.trim_end().strip_prefix("a=candidate:")?.split_ascii_whitespace().skip(1);
    let (component, transport, _priority) = (words.next()?, words.next()?, words.next()?);
    if component != "1" || !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let (ip, port): (IpAddr, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_host = words.nth(1) == Some("host");
    Some((SocketAddr::new(ip, port), is_host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = concat!(
        "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n",
        "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 120 121\r\na=mid:0\r\na=setup:passive\r\n",
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=rtpmap:120 VP8/90000\r\na=rtpmap:121 rtx/90000\r\n",
        "a=fmtp:121 apt=120\r\na=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
        "a=ssrc-group:FID 11 12\r\na=ssrc:11 cname:a\r\na=ssrc:12 cname:a\r\n",
        "a=candidate:1 1 tcp 1 192.0.2.9 9 typ host tcptype passive\r\na=candidate:1 2 udp 1 192.0.2.8 9 typ host\r\n",
        "a=candidate:1 1 udp 1 198.51.100.1 5 typ srflx raddr 0.0.0.0 rport 0\r\n",
        "a=candidate:1 1 UDP 2130706431 192.0.2.1 3478 typ host\r\na=candidate:2 1 udp 9 192.0.2.2 3478 typ host\r\n",
        "a=candidate:1 1 udp 9 b1c0.local 3478 typ host\r\n",
        "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\n",
    );

    #[test]
    fn an_answer_under_other_numbers_is_read() {
        let answer = Answer::parse(ANSWER).unwrap();
        assert_eq!(answer.remote.role, DtlsRole::Client);
        assert_eq!((answer.remote.credentials.ufrag.as_str(), answer.remote.credentials.pwd.len()), ("abcd", 22));
        assert_eq!(
            answer.sections,
            [Some(Agreed { kind: MediaKind::Video, pt: 120, rtx_pt: Some(121), twcc_id: Some(7) }), None]
        );
        assert_eq!(answer.repairs, [(Ssrc(12), Ssrc(11))]);
        let active = Answer::parse(&ANSWER.replace("setup:passive", "setup:active")).unwrap();
        assert_eq!(active.remote.role, DtlsRole::Server);
    }

    #[test]
    fn a_reachable_candidate_is_taken() {
        let address = |sdp: &str| Answer::parse(sdp).unwrap().remote.address.to_string();
        assert_eq!(address(ANSWER), "192.0.2.1:3478", "the first host candidate of UDP and RTP");
        let loopback = format!("{ANSWER}a=candidate:9 1 udp 5 127.0.0.1 99 typ host\r\n");
        assert_eq!(address(&loopback), "127.0.0.1:99");
        let none = ANSWER.replace(" udp ", " tcp ").replace(" UDP 2", " tcp 2");
        assert!(Answer::parse(&none).unwrap_err().to_string().contains("candidate"));
    }

    #[test]
    fn what_an_answer_lacks_is_said() {
        let error = |from, to| Answer::parse(&ANSWER.replace(from, to)).unwrap_err().to_string();
        assert!(error("a=ice-pwd", "a=x").contains("a=ice-pwd"));
        assert!(error("m=video 9", "m=video 0").contains("refuses"));
        assert!(error("setup:passive", "setup:actpass").contains("setup"));
    }

    #[test]
    fn our_offer_says_what_we_send_and_receive() {
        let fingerprint = Answer::parse(ANSWER).unwrap().remote.fingerprint;
        let video = Section { kind: MediaKind::Video, sends: Some(Ssrc(7)) };
        let audio = Section { kind: MediaKind::Audio, sends: None };
        for twcc in [true, false] {
            let sections = [video, audio, audio];
            let address = "127.0.0.1:5".parse().unwrap();
            let offer = Offer { sections: &sections, ours: &Credentials::random(), fingerprint, address, twcc };
            let text = offer.write();
            let read = Description::parse(&text).unwrap();
            let lines: Vec<_> = read.media.iter().map(|m| (m.kind, m.direction.send, m.ssrcs.len())).collect();
            let (video, audio) = (Some(MediaKind::Video), Some(MediaKind::Audio));
            assert_eq!(lines, [(video, true, 1), (audio, false, 0), (audio, false, 0)]);
            assert_eq!(read.bundle.unwrap().len(), 3);
            assert_eq!(agreed(&read.media[0]).unwrap().twcc_id.is_some(), twcc);
            assert_eq!(agreed(&read.media[0]).unwrap().rtx_pt, Some(RTX_PT));
            assert_eq!(best_candidate(&text), Some(address));
        }
    }
}
