//! str0m, an independent implementation, as the peer.

use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind as Kind};

use super::*;
use crate::runtime::clock::now;

#[test]
fn str0m_offers_and_takes_our_answers() {
    for policy in [CLIENT_ONLY, NAMED] {
        let mut peer = negotiation(&policy);
        peer.set_wanted(&[audio(1), video(2), video(3)]);
        let mut rtc = Rtc::builder().build(now());
        for (kinds, publications) in [
            (vec![(Kind::Audio, Direction::SendRecv), (Kind::Video, Direction::SendOnly)], 2),
            (vec![(Kind::Video, Direction::RecvOnly), (Kind::Video, Direction::SendRecv)], 3),
        ] {
            let mut api = rtc.sdp_api();
            for (kind, direction) in kinds {
                api.add_media(kind, direction, None, None, None);
            }
            let (offer, pending) = api.apply().unwrap();
            let answer = peer.accept_offer(&offer.to_sdp_string()).unwrap();
            rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
            assert_eq!(peer.publications().len(), publications);
        }
        assert_eq!(peer.bindings().len(), 3);
        for (mid, _) in peer.bindings() {
            let media = rtc.media(mid.as_str().into()).unwrap();
            assert!(media.direction().is_receiving() && !media.remote_pts().is_empty());
        }
    }
}

#[test]
fn str0m_takes_our_offers_and_answers_them() {
    let mut peer = negotiation(&GRYT);
    let mut rtc = Rtc::builder().build(now());
    let crowds: [&[WantedTrack]; 4] = [&[], &[audio(1), video(2)], &[video(2)], &[video(2), audio(4), video(5)]];
    for wanted in crowds {
        peer.set_wanted(wanted);
        let offer = peer.create_offer().unwrap();
        let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&offer).unwrap()).unwrap();
        peer.accept_answer(&answer.to_sdp_string()).unwrap();
        assert_eq!(peer.bindings().len(), wanted.len());
        assert!(!peer.needs_offer());
        let streams = peer.streams(|_| None);
        assert!(streams.mlines.iter().flatten().all(|mline| !mline.payloads.is_empty() && !mline.exts.is_empty()));
    }
    assert_eq!(peer.streams(|_| None).mlines.len(), 7);
}
