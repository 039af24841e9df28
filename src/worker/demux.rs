//! Datagrams from outside: whose they are, and what kind.
//!
//! Promises: RTP first, by far the most common; what belongs to a session of another worker is handed on once; what
//! nobody knows is a counted discard. Forbids: sending media on, which waits until all that came is read (`forward`).

use std::time::Instant;

use super::command::Event;
use super::core::WorkerCore;
use super::seats::State;
use crate::base::batch::{Path, RxDatagram, TxBatch};
use crate::base::format::MediaKind;
use crate::base::ids::SessionKey;
use crate::session::discard::Discard;
use crate::wire::class::{Class, classify};

impl WorkerCore {
    /// One UDP datagram from a socket.
    pub fn handle_datagram(&mut self, now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch) {
        self.backlog.handle_datagram(now, datagram.waited);
        if self.shim.is_none() || !self.impair_received(now, &datagram) {
            self.demux_counted(now, datagram, tx);
        }
    }

    /// The same, behind the impaired links.
    pub(super) fn demux_counted(&mut self, now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch) {
        if let Err(discard) = self.demux(now, datagram, false, tx) {
            self.discards.count(discard);
        }
    }

    /// A datagram that another worker handed on, as it takes us for the session's owner.
    pub(super) fn handle_handed_on(&mut self, now: Instant, datagram: RxDatagram<'_>, tx: &mut TxBatch) {
        if let Err(discard) = self.demux(now, datagram, true, tx) {
            self.discards.count(discard);
        }
    }

    /// RFC 7983 §7, with RTP first as by far the most common.
    fn demux(
        &mut self,
        now: Instant,
        datagram: RxDatagram<'_>,
        is_handed_on: bool,
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let RxDatagram { path, bytes, waited } = datagram;
        let class = classify(bytes);
        match class {
            Class::Stun => return self.handle_stun(now, path, bytes, tx),
            Class::Other => return Err(Discard::NotWebRtc),
            Class::Rtp | Class::Rtcp | Class::Dtls => {}
        }
        let key = self.seats.by_remote(path.remote).ok_or(Discard::UnknownSource)?;
        let seat = self.seats.seat_mut(key).ok_or(Discard::UnknownSource)?;
        if let Some(owner) = seat.ticket.owner()
            && owner != self.id
        {
            // Two sessions may have validated one address: workers that disagree on it must not play ball for ever.
            if is_handed_on {
                return Err(Discard::UnknownSource);
            }
            return self.lanes.send_datagram(owner, path, bytes).map_err(|_| Discard::LaneFull);
        }
        match class {
            Class::Rtp => self.handle_rtp(now, key, RxDatagram { path, bytes, waited }),
            Class::Rtcp => self.handle_rtcp(now, key, path, bytes, tx),
            _ => self.handle_dtls(now, key, path, bytes, tx),
        }
    }

    fn handle_rtp(
        &mut self,
        now: Instant,
        key: SessionKey,
        RxDatagram { path, bytes, waited }: RxDatagram<'_>,
    ) -> Result<(), Discard> {
        let session = self.seats.session_mut(key).ok_or(Discard::SrtpTooEarly)?;
        let media = match session.handle_rtp(now, path, bytes) {
            Ok(media) => media,
            Err(discard) => {
                // What goes no further may be due in feedback all the same: probes are padding only.
                self.schedule(key);
                return Err(discard);
            }
        };
        let track = self.tracks.ensure(media.track, media.kind);
        track.home = Some((key, media.mline));
        if media.is_first {
            self.events.push_back(Event::TrackLive { track: media.track });
        }
        let mut packet = media.packet;
        if media.kind == MediaKind::Video {
            track.refine(&mut packet);
        }
        let too_late = self.backlog.is_too_late(now, waited, media.kind);
        let admitted = track.admit(now, too_late, &packet.meta);
        let (key_of_track, is_video) = (media.track, media.kind == MediaKind::Video);
        let encoding = packet.meta.encoding;
        let is_first_to_wait = track.waiting() == 0;
        let is_kept = admitted.is_ok() && track.insert(now, packet);
        if track.is_recorded
            && is_kept
            && let Some(tap) = &mut self.tap
            && tap.send_packet(now.checked_sub(waited).unwrap_or(now), media.track, &packet).is_err()
        {
            self.discards.count(Discard::TapFull);
        }
        self.due_sends += if is_kept { track.fanout } else { 0 };
        if is_kept && is_first_to_wait {
            self.dirty.push(key_of_track);
        }
        if admitted.is_err() && is_video {
            self.want_keyframe(key_of_track, encoding);
        }
        self.schedule(key);
        admitted?;
        if is_kept { Ok(()) } else { Err(Discard::TooOld) }
    }

    fn handle_rtcp(
        &mut self,
        now: Instant,
        key: SessionKey,
        path: Path,
        bytes: &mut [u8],
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let session = self.seats.session_mut(key).ok_or(Discard::SrtpTooEarly)?;
        self.effects.clear();
        let result = session.handle_rtcp(now, path, bytes, &self.tracks, &mut self.effects, tx);
        self.handle_effects();
        self.flush_keyframes(now, tx);
        self.schedule(key);
        result
    }

    fn handle_dtls(
        &mut self,
        now: Instant,
        key: SessionKey,
        path: Path,
        bytes: &[u8],
        tx: &mut TxBatch,
    ) -> Result<(), Discard> {
        let Some(seat) = self.seats.seat_mut(key) else { return Err(Discard::UnknownSource) };
        if matches!(seat.state, State::Waiting(_)) {
            if !seat.ice().handle_dtls_from(now, path) {
                return Err(Discard::UnknownSource);
            }
            self.claim(now, key)?;
        }
        let session = self.seats.session_mut(key).ok_or(Discard::UnknownSource)?;
        let event = session.handle_dtls(now, path, bytes, tx)?;
        self.handle_session_event(key, event);
        self.schedule(key);
        Ok(())
    }
}
