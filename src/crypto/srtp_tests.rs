//! SRTP against the RFC vectors, against another implementation, and against hostile input.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::base::window::WINDOW;
use crate::crypto::replay::SSRCS_MAX;

const SUITES: [SrtpSuite; 3] = [SrtpSuite::AeadAes128Gcm, SrtpSuite::AeadAes256Gcm, SrtpSuite::Aes128CmSha1_80];
const SSRC: u32 = 0xcafe_babe;

/// Bytes of a hexadecimal text with white space.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn master(suite: SrtpSuite) -> (Vec<u8>, Vec<u8>) {
    ((1..=suite.key_len() as u8).collect(), (101..101 + suite.salt_len() as u8).collect())
}

fn pair(suite: SrtpSuite) -> (SrtpSender, SrtpReceiver) {
    let (key, salt) = master(suite);
    (SrtpSender::new(suite, &key, &salt).unwrap(), SrtpReceiver::new(suite, &key, &salt).unwrap())
}

/// A packet with an extension and two CSRCs, and its header length.
fn rtp(ssrc: u32, seq: u16, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut packet = vec![0x92, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0, 1, 2]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([7; 8]);
    packet.extend([0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
    let header_len = packet.len();
    packet.extend(payload);
    (packet, header_len)
}

fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet
}

fn protect(sender: &SrtpSender, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let (mut packet, header_len) = rtp(ssrc, index as u16, payload);
    let plain_len = packet.len();
    packet.resize(plain_len + sender.suite().rtp_tag_len(), 0);
    let len = sender.protect_rtp(&mut packet, header_len, plain_len, index).unwrap();
    assert_eq!(len, packet.len());
    packet
}

fn protect_rtcp(sender: &mut SrtpSender, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + sender.suite().rtcp_overhead(), 0);
    assert_eq!(sender.protect_rtcp(&mut packet, plain.len()), Ok(packet.len()));
    packet
}

/// Contexts with the session keys given, as the vectors of RFC 7714 have them.
fn rfc_7714(suite: SrtpSuite) -> (SrtpSender, SrtpReceiver) {
    let key: Vec<u8> = (0..suite.key_len() as u8).collect();
    let cipher = || SessionCipher::from_session_keys(suite, &key, b"Quid pro quo", &[0; 20]).unwrap();
    let sender = SrtpSender { suite, rtp: cipher(), rtcp: cipher(), rtcp_index: 0x5d4 };
    let (rtp_windows, rtcp_windows) = Default::default();
    (sender, SrtpReceiver { suite, rtp: cipher(), rtcp: cipher(), rtp_windows, rtcp_windows })
}

#[test]
fn rtp_is_protected_as_in_rfc_7714_16() {
    let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
         69736120 696e2070 61727465 73207472 6573");
    let gcm_128 = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
         0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
    let gcm_256 = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
         9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
    for (suite, expected) in [(SrtpSuite::AeadAes128Gcm, gcm_128), (SrtpSuite::AeadAes256Gcm, gcm_256)] {
        let (sender, mut receiver) = rfc_7714(suite);
        let mut packet = plain.clone();
        packet.resize(plain.len() + 16, 0);
        assert_eq!(sender.protect_rtp(&mut packet, 12, plain.len(), 0xf17b), Ok(plain.len() + 16));
        assert_eq!(packet, hex(expected));
        let opened = receiver.unprotect_rtp(&mut packet);
        assert_eq!(opened, Ok(Unprotected { index: 0xf17b, plain_len: plain.len(), header_len: 12 }));
        assert_eq!(packet[..plain.len()], plain);
    }
}

#[test]
fn rtcp_is_protected_as_in_rfc_7714_17() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
         deadbeef deadbeef deadbeef deadbeef deadbeef");
    let gcm_128 = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
         c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";
    let gcm_256 = "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50
         a2eaa5c1 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4";
    for (suite, expected) in [(SrtpSuite::AeadAes128Gcm, gcm_128), (SrtpSuite::AeadAes256Gcm, gcm_256)] {
        let (mut sender, mut receiver) = rfc_7714(suite);
        let mut packet = protect_rtcp(&mut sender, &plain);
        assert_eq!(packet, hex(expected));
        assert_eq!(receiver.unprotect_rtcp(&mut packet), Ok(plain.len()));
        assert_eq!(packet[..plain.len()], plain);
    }
}

fn oracle(suite: SrtpSuite) -> Context {
    let profile = match suite {
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpSuite::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let (key, salt) = master(suite);
    Context::new(&key, &salt, profile, None, None).unwrap()
}

#[test]
fn another_implementation_opens_what_we_protect() {
    for suite in SUITES {
        let ((mut sender, _), mut theirs) = (pair(suite), oracle(suite));
        for index in (65_500..65_600).chain([65_700, 65_601]) {
            let payload = vec![index as u8; (index % 1200) as usize];
            let sealed = protect(&sender, SSRC, index, &payload);
            assert_eq!(
                theirs.decrypt_rtp(&sealed).unwrap()[..],
                rtp(SSRC, index as u16, &payload).0,
                "{suite} {index}"
            );
        }
        for ssrc in [1, 2, 1] {
            let sealed = protect_rtcp(&mut sender, &rtcp(ssrc));
            assert_eq!(theirs.decrypt_rtcp(&sealed).unwrap()[..], rtcp(ssrc), "{suite}");
        }
    }
}

#[test]
fn we_open_what_another_implementation_protects() {
    for suite in SUITES {
        let ((_, mut receiver), mut theirs) = (pair(suite), oracle(suite));
        for index in 65_500..65_600u64 {
            let (plain, header_len) = rtp(SSRC, index as u16, &vec![3; (index % 1200) as usize]);
            let mut sealed = theirs.encrypt_rtp(&plain).unwrap().to_vec();
            let opened = receiver.unprotect_rtp(&mut sealed);
            assert_eq!(opened, Ok(Unprotected { index, plain_len: plain.len(), header_len }), "{suite}");
            assert_eq!(sealed[..plain.len()], plain);
        }
        // Each ssrc counts from the start: the same SRTCP index comes from both.
        for ssrc in [1, 2, 1, 2] {
            let mut sealed = theirs.encrypt_rtcp(&rtcp(ssrc)).unwrap().to_vec();
            assert_eq!(receiver.unprotect_rtcp(&mut sealed), Ok(rtcp(ssrc).len()), "{suite}");
            assert_eq!(sealed[..rtcp(ssrc).len()], rtcp(ssrc));
        }
    }
}

#[test]
fn a_replayed_packet_is_discarded() {
    for suite in SUITES {
        let (mut sender, mut receiver) = pair(suite);
        let sealed = protect(&sender, SSRC, 9, b"once");
        assert!(receiver.unprotect_rtp(&mut sealed.clone()).is_ok());
        assert_eq!(receiver.unprotect_rtp(&mut sealed.clone()), Err(SrtpError::Replayed));
        let sealed = protect_rtcp(&mut sender, &rtcp(SSRC));
        assert!(receiver.unprotect_rtcp(&mut sealed.clone()).is_ok());
        assert_eq!(receiver.unprotect_rtcp(&mut sealed.clone()), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed_and_changes_nothing() {
    for suite in SUITES {
        let (mut sender, mut receiver) = pair(suite);
        let sealed = protect(&sender, SSRC, 9, b"payload");
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtp(&mut forged).is_err(), "{suite} bit {bit}");
        }
        assert_eq!(receiver.ssrc_count(), 0);
        assert!(receiver.unprotect_rtp(&mut sealed.clone()).is_ok());

        let sealed = protect_rtcp(&mut sender, &rtcp(SSRC));
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtcp(&mut forged).is_err(), "{suite} bit {bit}");
        }
        assert!(receiver.unprotect_rtcp(&mut sealed.clone()).is_ok());
    }
}

#[test]
fn a_forged_jump_does_not_move_the_window() {
    let (sender, mut receiver) = pair(SrtpSuite::AeadAes128Gcm);
    assert!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, 100, b"a")).is_ok());
    let mut forged = protect(&sender, SSRC, 30_000, b"b");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(receiver.unprotect_rtp(&mut forged), Err(SrtpError::AuthFailed));
    assert_eq!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, 101, b"c")).map(|u| u.index), Ok(101));
    assert!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, 30_000, b"b")).is_ok());
    assert_eq!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, 102, b"d")), Err(SrtpError::TooOld));
}

#[test]
fn a_retransmission_900_packets_late_is_accepted_once() {
    for suite in SUITES {
        let (sender, mut receiver) = pair(suite);
        // Across a roll-over, so the late one belongs to the count before.
        for index in (65_000..66_000).filter(|&index| index != 65_099) {
            assert!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, index, b"x")).is_ok());
        }
        let late = protect(&sender, SSRC, 65_099, b"late");
        assert_eq!(receiver.unprotect_rtp(&mut late.clone()).map(|u| u.index), Ok(65_099));
        assert_eq!(receiver.unprotect_rtp(&mut late.clone()), Err(SrtpError::Replayed));
        let lost = protect(&sender, SSRC, 65_999 - WINDOW, b"too late");
        assert_eq!(receiver.unprotect_rtp(&mut lost.clone()), Err(SrtpError::TooOld));
    }
}

#[test]
fn the_roll_over_counter_follows_jumps_of_less_than_half_the_numbers() {
    let (sender, mut receiver) = pair(SrtpSuite::Aes128CmSha1_80);
    let mut index = 5;
    for step in [1, 32_000, 32_000, 1, 30_000, 32_767, 3] {
        index += step;
        assert_eq!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, index, b"")).map(|u| u.index), Ok(index));
    }
}

#[test]
fn a_source_too_many_is_refused_and_the_others_live_on() {
    let (sender, mut receiver) = pair(SrtpSuite::AeadAes128Gcm);
    for ssrc in 0..SSRCS_MAX as u32 {
        assert!(receiver.unprotect_rtp(&mut protect(&sender, ssrc, 1, b"x")).is_ok());
    }
    assert_eq!(receiver.unprotect_rtp(&mut protect(&sender, 9999, 1, b"x")), Err(SrtpError::TooManySsrcs));
    assert_eq!(receiver.unprotect_rtp(&mut protect(&sender, 0, 1, b"x")), Err(SrtpError::Replayed));
    assert!(receiver.unprotect_rtp(&mut protect(&sender, 0, 2, b"x")).is_ok());
}

#[test]
fn unencrypted_srtcp_is_refused() {
    // RFC 7714 §17.3: authenticated only.
    let (_, mut receiver) = rfc_7714(SrtpSuite::AeadAes128Gcm);
    let mut packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
         deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790 125f62b3 000005d4");
    assert_eq!(receiver.unprotect_rtcp(&mut packet), Err(SrtpError::Unencrypted));
}

#[test]
fn no_two_srtcp_packets_share_an_index() {
    for suite in SUITES {
        let (mut sender, mut receiver) = pair(suite);
        for _ in 0..3 {
            let mut sealed = protect_rtcp(&mut sender, &rtcp(SSRC));
            assert!(receiver.unprotect_rtcp(&mut sealed).is_ok(), "{suite}");
        }
    }
}

#[test]
fn exhausted_indices_are_refused() {
    let (mut sender, _) = pair(SrtpSuite::AeadAes256Gcm);
    sender.rtcp_index = RTCP_INDICES - 1;
    let mut packet = rtcp(1);
    let plain_len = packet.len();
    packet.resize(plain_len + 20, 0);
    assert!(sender.protect_rtcp(&mut packet, plain_len).is_ok());
    assert_eq!(sender.protect_rtcp(&mut packet, plain_len), Err(SrtpError::IndexExhausted));
    let (mut packet, header_len) = rtp(SSRC, 0, &[0; 20]);
    assert_eq!(sender.protect_rtp(&mut packet, header_len, header_len, 1 << 48), Err(SrtpError::IndexExhausted));
}

#[test]
fn no_combination_of_lengths_panics() {
    for suite in SUITES {
        let (mut sender, _) = pair(suite);
        for room in 0..60 {
            for plain_len in [0, 7, 8, 11, 12, 20, 28, 40, 59, 60, 61, usize::MAX] {
                let (packet, _) = rtp(SSRC, 0, &[0; 32]);
                for header_len in [0, 12, 28, 61, usize::MAX] {
                    let _ = sender.protect_rtp(&mut packet[..room].to_vec(), header_len, plain_len, 0);
                }
                let _ = sender.protect_rtcp(&mut packet[..room].to_vec(), plain_len);
            }
        }
        assert_eq!(sender.protect_rtp(&mut vec![0x80; 80_000], 12, 70_000, 0x8080), Err(SrtpError::TooLong));
    }
}

#[test]
fn random_and_mutated_packets_are_refused_without_a_panic() {
    let mut rng = SmallRng::seed_from_u64(0x5e17);
    let mut contexts: Vec<_> = SUITES.iter().map(|&suite| pair(suite)).collect();
    for (sender, receiver) in &mut contexts {
        let valid = protect(sender, SSRC, 77, &[1; 100]);
        let valid_rtcp = protect_rtcp(sender, &rtcp(SSRC));
        for round in 0..70_000 {
            let mut packet = match round % 3 {
                0 => valid.clone(),
                1 => valid_rtcp.clone(),
                _ => {
                    let mut noise = vec![0; rng.random_range(0..160)];
                    rng.fill_bytes(&mut noise);
                    noise
                }
            };
            for _ in 0..rng.random_range(1..4) {
                if !packet.is_empty() {
                    let at = rng.random_range(0..packet.len());
                    packet[at] ^= rng.random_range(1..=255u8);
                }
            }
            if rng.random_bool(0.3) {
                packet.truncate(rng.random_range(0..=packet.len()));
            }
            // Two flips may cancel out: what is left is then the valid packet.
            if packet != valid && packet != valid_rtcp {
                assert!(receiver.unprotect_rtp(&mut packet.clone()).is_err());
                assert!(receiver.unprotect_rtcp(&mut packet).is_err());
            }
        }
        assert_eq!(receiver.ssrc_count(), 0);
    }
}

#[test]
fn exported_material_is_split_as_in_rfc_5764_4_2() {
    let material: Vec<u8> = (0..56).collect();
    let keys = SrtpKeys::from_exporter(SrtpSuite::AeadAes128Gcm, &material).unwrap();
    assert_eq!(keys.client.key(), &material[..16]);
    assert_eq!(keys.server.key(), &material[16..32]);
    assert_eq!(keys.client.salt(), &material[32..44]);
    assert_eq!(keys.server.salt(), &material[44..]);
    assert!(SrtpKeys::from_exporter(SrtpSuite::AeadAes256Gcm, &material).is_err());
    assert!(!format!("{keys:?}").contains("16"), "keys are not printed");

    let (sender, _) = keys.contexts(false).unwrap();
    let (_, mut receiver) = keys.contexts(true).unwrap();
    assert!(receiver.unprotect_rtp(&mut protect(&sender, SSRC, 1, b"x")).is_ok());
}
