//! Protected packets under known keys. The first byte chooses suite and kind; the rest is taken as what came from the
//! network, and as a packet to protect: what was protected must come back, once.
#![no_main]

use tramline::crypto::srtp::{SrtpReceiver, SrtpSender, SrtpSuite};
use tramline::wire::rtp::RtpView;

const SUITES: [SrtpSuite; 3] = [SrtpSuite::AeadAes128Gcm, SrtpSuite::AeadAes256Gcm, SrtpSuite::Aes128CmSha1_80];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let suite = SUITES[usize::from(*choice >> 1) % SUITES.len()];
    let (key, salt) = (vec![7; suite.key_len()], vec![9; suite.salt_len()]);
    let mut receiver = SrtpReceiver::new(suite, &key, &salt).expect("lengths fit");
    let mut sender = SrtpSender::new(suite, &key, &salt).expect("lengths fit");
    let mut packet = bytes.to_vec();
    if choice & 1 == 0 {
        let _ = receiver.unprotect_rtp(&mut packet);
        let Ok(view) = RtpView::parse(bytes) else { return };
        let mut packet = [bytes, &[0; 64]].concat();
        let index = u64::from(view.seq());
        let Ok(len) = sender.protect_rtp(&mut packet, view.header_len(), bytes.len(), index) else { return };
        let mut again = packet.clone();
        let open = receiver.unprotect_rtp(&mut packet[..len]).expect("what we protected");
        assert_eq!(packet[..open.plain_len], *bytes);
        receiver.unprotect_rtp(&mut again[..len]).expect_err("a replay");
    } else {
        let _ = receiver.unprotect_rtcp(&mut packet);
        let mut packet = [bytes, &[0; 64]].concat();
        let Ok(len) = sender.protect_rtcp(&mut packet, bytes.len()) else { return };
        let mut again = packet.clone();
        let open = receiver.unprotect_rtcp(&mut packet[..len]).expect("what we protected");
        assert_eq!(packet[..open], *bytes);
        receiver.unprotect_rtcp(&mut again[..len]).expect_err("a replay");
    }
});
