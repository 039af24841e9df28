//! Two offers become two answers, so that a sender that offers and a receiver that offers find each other.
//!
//! Promises: each side's transport (ICE, fingerprint, candidates) is told to the other as it stands; codecs and streams
//! are the sender's; the receiver is the active side of DTLS. M-lines meet by kind, in order; what finds none is refused.

use std::fmt::Write;

use anyhow::{Result, ensure};

/// Attributes of a transport: in the m-line or before the first one.
const TRANSPORT: [&str; 7] =
    ["ice-ufrag:", "ice-pwd:", "ice-options:", "ice-lite", "fingerprint:", "candidate:", "end-of-candidates"];
/// Attributes of codecs, which both sides must know alike.
const CODECS: [&str; 5] = ["rtpmap:", "fmtp:", "rtcp-fb:", "rtcp-mux", "rtcp-rsize"];
/// Attributes of streams, which only the receiver wants to know.
const STREAMS: [&str; 3] = ["ssrc:", "ssrc-group:", "msid:"];

/// One for each side.
#[derive(Debug)]
pub struct Answers {
    /// For whoever offered to send.
    pub to_sender: String,
    /// For whoever offered to receive.
    pub to_receiver: String,
}

/// Makes the answers.
pub fn answers(receiver: &str, sender: &str) -> Result<Answers> {
    let (receiver, sender) = (Sdp::parse(receiver), Sdp::parse(sender));
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (ours, section) in receiver.sections.iter().enumerate() {
        let fits = |at: &usize| !pairs.iter().any(|(_, taken)| taken == at);
        let mut candidates = (0..sender.sections.len()).filter(fits);
        if let Some(theirs) = candidates.find(|at| sender.sections[*at].kind() == section.kind()) {
            pairs.push((ours, theirs));
        }
    }
    ensure!(!pairs.is_empty(), "the offers have no kind of media in common");
    let to_sender = write(&receiver, &sender, "active", "recvonly", |at| {
        pairs.iter().find(|(_, theirs)| *theirs == at).map(|(ours, theirs)| (*ours, *theirs))
    });
    let to_receiver = write(&sender, &receiver, "passive", "sendonly", |at| {
        pairs.iter().find(|(ours, _)| *ours == at).map(|(_, theirs)| (*theirs, *theirs))
    });
    Ok(Answers { to_sender, to_receiver })
}

/// The answer of `from` to the offer of `to`. `pair` gives the section of `from` and the sender's for a section of `to`.
fn write(from: &Sdp, to: &Sdp, setup: &str, direction: &str, pair: impl Fn(usize) -> Option<(usize, usize)>) -> String {
    let is_sender = direction == "sendonly";
    let codecs_of = if is_sender { from } else { to };
    let mids: Vec<&str> =
        (0..to.sections.len()).filter(|at| pair(*at).is_some()).map(|at| to.sections[at].mid()).collect();
    let mut out = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for (at, section) in to.sections.iter().enumerate() {
        let Some((ours, senders)) = pair(at) else {
            let mut words = section.head.splitn(3, ' ');
            let (kind, rest) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
            let _ = write!(out, "{kind} 0 {rest}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n", section.mid());
            continue;
        };
        let codecs = &codecs_of.sections[senders];
        let _ = write!(out, "{}\r\nc=IN IP4 0.0.0.0\r\n", codecs.head);
        for line in from.session.iter().chain(&from.sections[ours].lines).filter(|line| is_any(line, &TRANSPORT)) {
            let _ = write!(out, "{line}\r\n");
        }
        let _ = write!(out, "a=setup:{setup}\r\na=mid:{}\r\na={direction}\r\n", section.mid());
        for line in &codecs.lines {
            if is_any(line, &CODECS) || is_sender && is_any(line, &STREAMS) {
                let _ = write!(out, "{line}\r\n");
            }
        }
    }
    out
}

fn is_any(line: &str, names: &[&str]) -> bool {
    line.strip_prefix("a=").is_some_and(|attribute| names.iter().any(|name| attribute.starts_with(name)))
}

struct Sdp<'a> {
    /// Lines before the first m-line.
    session: Vec<&'a str>,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    head: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Sdp<'a> {
    fn parse(text: &'a str) -> Self {
        let mut sdp = Self { session: Vec::new(), sections: Vec::new() };
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if line.starts_with("m=") {
                sdp.sections.push(Section { head: line, lines: Vec::new() });
            } else if let Some(section) = sdp.sections.last_mut() {
                section.lines.push(line);
            } else {
                sdp.session.push(line);
            }
        }
        sdp
    }
}

impl<'a> Section<'a> {
    fn kind(&self) -> &'a str {
        self.head.split(' ').next().unwrap_or_default()
    }

    fn mid(&self) -> &'a str {
        self.lines.iter().find_map(|line| line.strip_prefix("a=mid:")).unwrap_or("0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVER: &str = "v=0\r\na=fingerprint:sha-256 AA\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=ice-ufrag:rr\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:rr\r\na=mid:v\r\na=setup:actpass\r\na=rtpmap:96 VP8/90000\r\n";
    const SENDER: &str = "v=0\r\na=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=ice-ufrag:ss\r\n\
        a=rtpmap:96 VP8/90000\r\na=ssrc:7 cname:x\r\na=extmap:1 mid\r\nm=application 9 DTLS/SCTP 5000\r\na=mid:1\r\n";

    #[test]
    fn each_side_hears_of_the_others_transport() {
        let Answers { to_sender, to_receiver } = answers(RECEIVER, SENDER).unwrap();
        assert!(to_sender.contains("a=ice-ufrag:rr\r\n") && to_sender.contains("a=fingerprint:sha-256 AA\r\n"));
        assert!(to_sender.contains("a=setup:active\r\na=mid:0\r\na=recvonly\r\n") && !to_sender.contains("a=ssrc"));
        assert!(to_receiver.contains("a=ice-ufrag:ss\r\n") && to_receiver.contains("a=ice-lite\r\n"));
        assert!(to_receiver.contains("a=setup:passive\r\na=mid:v\r\na=sendonly\r\n"));
        assert!(to_receiver.contains("a=ssrc:7 cname:x\r\n") && !to_receiver.contains("extmap"));
    }

    #[test]
    fn what_finds_no_partner_is_refused() {
        let Answers { to_sender, to_receiver } = answers(RECEIVER, SENDER).unwrap();
        assert!(to_receiver.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n") && to_receiver.contains("BUNDLE v\r\n"));
        assert!(to_sender.contains("m=application 0 DTLS/SCTP 5000\r\n") && to_sender.contains("BUNDLE 0\r\n"));
        assert!(answers(RECEIVER, "v=0\r\nm=application 9 DTLS/SCTP 5000\r\n").is_err());
    }
}
