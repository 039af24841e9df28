//! One m-line of a peer, and all of them.

use super::{IceCredentials, Keys, LocalTransport, Policy, Publication, RemoteTransport, Role, WantedTrack};
use crate::base::format::MediaKind;
use crate::base::ids::{Mid, Ssrc, TrackKey};
use crate::proto::dtls::DtlsRole;
use crate::session::streams::{Demand, EgressConfig, EncodingConfig, IngressConfig, MlineConfig, Payload};
use crate::wire::rtp_ext::Ext;
use crate::wire::sdp::{
    Codec, DescriptionOut, Direction, Media, MediaOut, Msid, OriginOut, Setup, SimulcastStream, SourceOut, TransportOut,
};

/// A whole agreement; cloned, changed and put in place, so that a step is never half taken.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) mlines: Vec<Mline>,
    /// Descriptions have `a=group:BUNDLE`.
    pub(super) bundle: bool,
    pub(super) ext_mixed: bool,
    /// Payload types the peer's offers gave a meaning to: bit n is payload type n.
    pub(super) peer_pts: u128,
    /// Extension ids the peer's offers gave a meaning to: bit n is id n.
    pub(super) peer_ext_ids: u16,
    pub(super) remote: Option<RemoteTransport>,
    pub(super) ice: IceCredentials,
    /// Tracks whose m-line the peer refused; not offered again until it offers itself. Bounded by the wanted list.
    pub(super) refused: Vec<TrackKey>,
    /// With live binding: m-lines that it refused, by kind.
    pub(super) refused_mlines: [usize; 2],
}

impl State {
    pub(super) fn new(ice: IceCredentials) -> Self {
        Self {
            mlines: Vec::new(),
            bundle: true,
            ext_mixed: true,
            peer_pts: 0,
            peer_ext_ids: 0,
            remote: None,
            ice,
            refused: Vec::new(),
            refused_mlines: [0; 2],
        }
    }

    /// The description of this agreement.
    pub(super) fn write(&self, local: &LocalTransport, origin: OriginOut, is_offer: bool, policy: &Policy) -> String {
        let setup = match self.remote.as_ref().map(|remote| remote.dtls_role) {
            // RFC 8842 §5.2, §5.5: offers leave the role open, also later ones; the answer keeps the one in force.
            _ if is_offer => Setup::ActPass,
            Some(DtlsRole::Client) => Setup::Active,
            Some(DtlsRole::Server) | None => Setup::Passive,
        };
        DescriptionOut {
            origin,
            bundle: self.bundle,
            ext_mixed: self.ext_mixed,
            transport: TransportOut {
                ufrag: &self.ice.ufrag,
                pwd: &self.ice.pwd,
                fingerprint: local.fingerprint,
                setup,
                candidates: &local.candidates,
            },
            media: self.mlines.iter().map(|mline| mline.write(&local.cname, policy)).collect(),
        }
        .write()
    }
}

/// An m-line.
#[derive(Clone, Debug)]
pub(super) struct Mline {
    pub(super) kind: Option<MediaKind>,
    pub(super) media: String,
    pub(super) proto: String,
    pub(super) format: String,
    pub(super) mid: Mid,
    /// `a=mid` stands in the descriptions; else the mid is made up by us.
    pub(super) mid_written: bool,
    /// In use: in the BUNDLE, port not 0.
    pub(super) live: bool,
    /// Which of the policy's slots.
    pub(super) slot: Option<usize>,
    /// Born in an offer of ours to send on: the peer never sends here.
    pub(super) send_only: bool,
    pub(super) codecs: Vec<Codec>,
    pub(super) exts: Vec<(u8, Ext)>,
    /// The peer sends.
    pub(super) peer_sends: bool,
    /// The peer is ready to receive.
    pub(super) peer_receives: bool,
    /// We said that we send.
    pub(super) we_send: bool,
    pub(super) msid: Msid,
    /// The peer's sources.
    pub(super) ssrcs: Vec<(Ssrc, Option<Ssrc>)>,
    /// Those of them that are one simulcast.
    pub(super) sim: Vec<Ssrc>,
    /// The simulcast that the peer sends by rid.
    pub(super) simulcast: Vec<SimulcastStream>,
    /// The peer's offer has `a=rtcp-xr` with `rcvr-rtt`.
    pub(super) rcvr_rtt: bool,
    /// Our source and our retransmission source, for the m-line's life.
    pub(super) egress: Option<(Ssrc, Ssrc)>,
    /// What we send.
    pub(super) bound: Option<WantedTrack>,
}

impl Mline {
    /// An m-line of ours, not yet agreed on.
    pub(super) fn ours(kind: MediaKind, mid: Mid, slot: Option<usize>) -> Self {
        Self {
            kind: Some(kind),
            media: kind.as_str().into(),
            proto: "UDP/TLS/RTP/SAVPF".into(),
            format: "0".into(),
            mid,
            mid_written: true,
            live: true,
            slot,
            send_only: slot.is_none(),
            codecs: Vec::new(),
            exts: Vec::new(),
            peer_sends: false,
            peer_receives: false,
            we_send: false,
            msid: Msid::default(),
            ssrcs: Vec::new(),
            sim: Vec::new(),
            simulcast: Vec::new(),
            rcvr_rtt: false,
            egress: None,
            bound: None,
        }
    }

    /// An m-line of the peer, not yet agreed on.
    pub(super) fn theirs(media: &Media, mid: Mid) -> Self {
        Self {
            kind: media.kind,
            media: media.media.clone(),
            proto: media.proto.clone(),
            format: media.format.clone(),
            mid_written: media.mid.is_some(),
            live: false,
            send_only: false,
            ..Self::ours(media.kind.unwrap_or(MediaKind::Audio), mid, None)
        }
    }

    /// Takes the m-line out of use.
    pub(super) fn disable(&mut self) {
        self.live = false;
        self.peer_sends = false;
        self.peer_receives = false;
        self.we_send = false;
        self.ssrcs.clear();
        self.sim.clear();
        self.simulcast.clear();
        self.codecs.clear();
        self.exts.clear();
        self.egress = None;
        self.bound = None;
    }

    /// What a description of the peer says about its sources.
    pub(super) fn take_sources(&mut self, media: &Media) {
        let (ssrcs, sim) = if self.peer_sends { (&*media.ssrcs, &*media.sim) } else { Default::default() };
        self.ssrcs = ssrcs.to_vec();
        self.sim = sim.to_vec();
    }

    /// A track may be put here without asking the peer.
    pub(super) fn is_sendable(&self) -> bool {
        self.live && self.we_send && self.peer_receives
    }

    /// The track it carries, if that is still wanted.
    pub(super) fn carried(&self, wanted: &Keys) -> Option<TrackKey> {
        let key = self.bound.as_ref().filter(|_| self.is_sendable())?.key;
        wanted.contains(&key).then_some(key)
    }

    pub(super) fn config(&self, ingress: Option<TrackKey>, wanted: &Keys) -> Option<MlineConfig> {
        let kind = self.kind.filter(|_| self.live)?;
        let egress = self.egress.filter(|_| self.is_sendable());
        Some(MlineConfig {
            mid: self.mid,
            kind,
            exts: self.exts.clone(),
            payloads: self.codecs.iter().map(payload).collect(),
            ingress: ingress.filter(|_| self.peer_sends).map(|track| IngressConfig {
                track,
                encodings: self.encodings(),
                pixels_wanted: None,
            }),
            egress: egress.map(|(ssrc, rtx_ssrc)| EgressConfig {
                ssrc,
                rtx_ssrc,
                track: self.carried(wanted),
                demand: Demand::default(),
            }),
        })
    }

    /// What the peer's stream, or each of its simulcast, is known by.
    pub(super) fn encodings(&self) -> Vec<EncodingConfig> {
        if !self.simulcast.is_empty() {
            let named = |stream: &SimulcastStream| EncodingConfig { rid: Some(stream.rid), ssrcs: Vec::new() };
            return self.simulcast.iter().map(named).collect();
        }
        if self.sim.is_empty() {
            return vec![EncodingConfig { rid: None, ssrcs: self.ssrcs.clone() }];
        }
        let of = |main: &Ssrc| self.ssrcs.iter().copied().filter(|(ssrc, _)| ssrc == main).collect();
        self.sim.iter().map(|ssrc| EncodingConfig { rid: None, ssrcs: of(ssrc) }).collect()
    }

    pub(super) fn publication(&self, index: usize, session_id: u64) -> Option<Publication> {
        let kind = self.kind.filter(|_| self.live && self.peer_sends)?;
        let stream_id = self.msid.stream.clone().unwrap_or_else(|| format!("{session_id:014x}"));
        let track_id = self.msid.track.clone().unwrap_or_else(|| format!("{session_id:014x}-{}", self.mid));
        Some(Publication { mline: index, mid: self.mid, kind, stream_id, track_id, slot: self.slot })
    }

    fn write<'a>(&'a self, cname: &'a str, policy: &Policy) -> MediaOut<'a> {
        let mid = self.mid_written.then(|| self.mid.as_str());
        let Some(kind) = self.kind.filter(|_| self.live) else {
            return MediaOut::Rejected { media: &self.media, proto: &self.proto, format: &self.format, mid };
        };
        let has_rtx = self.codecs.iter().any(|codec| codec.rtx_pt.is_some());
        let source = self.egress.filter(|_| self.we_send).map(|(ssrc, rtx_ssrc)| SourceOut {
            ssrc,
            rtx_ssrc: has_rtx.then_some(rtx_ssrc),
            cname,
            msid: self.written_msid(policy),
        });
        MediaOut::Live {
            kind,
            proto: &self.proto,
            mid,
            direction: Direction { send: self.we_send, recv: self.we_receive() },
            codecs: &self.codecs,
            exts: &self.exts,
            source,
            simulcast: &self.simulcast,
            rcvr_rtt: self.rcvr_rtt,
        }
    }

    /// Receiving costs nothing: wherever the peer may want to send we are ready.
    fn we_receive(&self) -> bool {
        !self.send_only && self.peer_sends
    }

    /// Where the track behind the m-line changes without a word, its name cannot be a track's: it would outlive it.
    /// Each m-line is a stream of its own, or browsers would lip-sync one person's sound to another's picture; only a
    /// viewer, who watches one publisher, gets one stream.
    fn written_msid(&self, policy: &Policy) -> (String, String) {
        match &self.bound {
            Some(track) if !policy.live_binding => (track.stream_id.clone(), track.track_id.clone()),
            _ if policy.role == Role::Viewer => ("tramline".to_owned(), format!("slot-{}", self.mid)),
            _ => (format!("tramline-{}", self.mid), format!("slot-{}", self.mid)),
        }
    }
}

fn payload(codec: &Codec) -> Payload {
    Payload {
        pt: codec.pt,
        format: codec.format,
        rtx_pt: codec.rtx_pt,
        nack: codec.feedback.nack,
        pli: codec.feedback.pli,
        fir: codec.feedback.fir,
        transport_cc: codec.feedback.transport_cc,
        remb: codec.feedback.remb,
    }
}

/// What names the streams of a simulcast.
pub(super) fn is_for_simulcast(ext: Ext) -> bool {
    matches!(ext, Ext::Rid | Ext::RepairedRid)
}
