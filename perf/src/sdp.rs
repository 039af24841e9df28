//! The one offer a peer makes, and what it needs of the answer.
//!
//! Forbids: negotiation. The peers offer one video m-line and read the transport of the first section of the answer.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tramline::base::ids::Ssrc;
use tramline::wire::sdp::Fingerprint;

/// Payload type of VP8 in our offers.
pub const VIDEO_PT: u8 = 96;

/// What a peer does with its m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends video under this ssrc.
    Publisher(Ssrc),
    /// Receives video.
    Subscriber,
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

/// The server as its answer describes it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Of the server's ICE agent.
    pub credentials: Credentials,
    /// Of the server's certificate.
    pub fingerprint: Fingerprint,
    /// The first UDP host candidate.
    pub address: SocketAddr,
}

/// An offer as a browser makes it for one video track: VP8 with NACK, PLI, FIR and RTX.
pub fn offer(role: Role, ours: &Credentials, fingerprint: &Fingerprint) -> String {
    let (direction, sources) = match role {
        Role::Publisher(Ssrc(ssrc)) => {
            ("sendonly", format!("a=msid:load track\r\na=ssrc:{ssrc} cname:load\r\na=ssrc:{ssrc} msid:load track\r\n"))
        }
        Role::Subscriber => ("recvonly", String::new()),
    };
    let Credentials { ufrag, pwd } = ours;
    format!(
        "v=0\r\no=- {session} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {VIDEO_PT} 97\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:{fingerprint}\r\na=setup:actpass\r\na=mid:0\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:{VIDEO_PT} VP8/90000\r\na=rtcp-fb:{VIDEO_PT} nack\r\na=rtcp-fb:{VIDEO_PT} nack pli\r\n\
         a=rtcp-fb:{VIDEO_PT} ccm fir\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt={VIDEO_PT}\r\n{sources}",
        session = rand::random::<u32>(),
    )
}

/// Reads an answer.
pub fn parse_answer(sdp: &str) -> Result<Remote> {
    let value = |name: &str| {
        let find = |line: &str| line.strip_prefix(name).map(|value| value.trim().to_owned());
        sdp.lines().find_map(find).with_context(|| format!("the answer has no {name}"))
    };
    let video = value("m=video ")?;
    anyhow::ensure!(!video.starts_with("0 "), "the answer refuses the video m-line");
    Ok(Remote {
        credentials: Credentials { ufrag: value("a=ice-ufrag:")?, pwd: value("a=ice-pwd:")? },
        fingerprint: Fingerprint::parse(&value("a=fingerprint:")?).context("the answer's fingerprint")?,
        address: sdp.lines().find_map(parse_candidate).context("the answer has no UDP host candidate")?,
    })
}

/// RFC 8839 §5.1: foundation, component, transport, priority, address, port, `typ`, type.
fn parse_candidate(line: &str) -> Option<SocketAddr> {
    let mut words = line.strip_prefix("a=candidate:")?.split_ascii_whitespace().skip(2);
    if !words.next()?.eq_ignore_ascii_case("udp") {
        return None;
    }
    let (ip, port) = (words.nth(1)?.parse().ok()?, words.next()?.parse().ok()?);
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = concat!(
        "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-lite\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n",
        "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n",
        "a=candidate:1 1 tcp 1 192.0.2.9 9 typ host\r\na=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\r\n",
    );

    #[test]
    fn the_transport_of_an_answer_is_found() {
        let remote = parse_answer(ANSWER).unwrap();
        assert_eq!(remote.address, "192.0.2.1:3478".parse().unwrap());
        assert_eq!((remote.credentials.ufrag.as_str(), remote.credentials.pwd.len()), ("abcd", 22));
    }

    #[test]
    fn what_an_answer_lacks_is_said() {
        assert!(parse_answer(&ANSWER.replace("a=ice-pwd", "a=x")).unwrap_err().to_string().contains("a=ice-pwd"));
        assert!(parse_answer(&ANSWER.replace(" udp ", " tcp ")).unwrap_err().to_string().contains("candidate"));
        assert!(parse_answer(&ANSWER.replace("m=video 9", "m=video 0")).unwrap_err().to_string().contains("refuses"));
    }

    #[test]
    fn our_offer_is_one_the_server_parses() {
        let fingerprint = Fingerprint::parse(ANSWER.lines().nth(5).unwrap().split_once(':').unwrap().1).unwrap();
        for role in [Role::Publisher(Ssrc(7)), Role::Subscriber] {
            let sdp = offer(role, &Credentials::random(), &fingerprint);
            assert!(tramline::wire::sdp::Description::parse(&sdp).is_ok(), "{sdp}");
            assert_eq!(sdp.contains("a=ssrc:7 "), role != Role::Subscriber);
        }
    }
}
