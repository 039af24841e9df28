//! Any text as a client's offer, as its next offer, and as its answer to ours. What we write must be SDP that we read.
#![no_main]

use tramline::base::format::MediaKind;
use tramline::session::negotiate::{LocalTransport, Negotiation, Policy};
use tramline::wire::sdp::{Description, Fingerprint, HashFunction};

const CLIENT_OFFERS: Policy =
    Policy { server_offers_first: false, server_may_offer: true, live_binding: false, slots: &[] };
const SERVER_OFFERS: Policy = Policy {
    server_offers_first: true,
    server_may_offer: true,
    live_binding: false,
    slots: &[MediaKind::Audio, MediaKind::Video],
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Description::parse(text);
    let mut negotiation = Negotiation::new(CLIENT_OFFERS, local(), 1);
    for _ in 0..2 {
        if let Ok(answer) = negotiation.accept_offer(text) {
            Description::parse(&answer).expect("our answer is SDP");
        }
    }
    if let Some(offer) = negotiation.create_offer() {
        Description::parse(&offer).expect("our offer is SDP");
        let _ = negotiation.accept_answer(text);
    }
    let mut negotiation = Negotiation::new(SERVER_OFFERS, local(), 1);
    let offer = negotiation.create_offer().expect("we offer first");
    Description::parse(&offer).expect("our offer is SDP");
    let _ = negotiation.accept_answer(text);
    let _ = (negotiation.streams(|_| None), negotiation.publications());
});

fn local() -> LocalTransport {
    LocalTransport {
        ufrag: "fuzz".to_owned(),
        pwd: "aaaaaaaaaaaaaaaaaaaaaa".to_owned(),
        fingerprint: Fingerprint::new(HashFunction::Sha256, &[0xab; 32]).expect("32 bytes"),
        candidates: vec!["192.0.2.1:3478".parse().expect("an address")],
        cname: "fuzz".to_owned(),
    }
}
