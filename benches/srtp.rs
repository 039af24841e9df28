//! Protecting and unprotecting RTP, beside another SRTP crate and beside the bare ciphers.
//!
//!   cargo bench --features sim --bench srtp
//!
//! `tramline` and `webrtc-srtp` do the same work: header, nonce, cipher, tag, roll-over counter, replay window.
//! `aws-lc-rs` and `ring` are the cipher alone with one nonce after the other: the floor of any implementation on them.
//! With 100 keys in turn each packet meets a key that 99 others have pushed out of the nearest cache.

#![allow(missing_docs)]

mod support;

use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use support::{CpuTime, SUITES, keys, measure, write_packet};
use tramline::crypto::srtp::{SrtpKeys, SrtpReceiver, SrtpSender, SrtpSuite};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

const SIZES: [usize; 2] = [160, 1200];
const KEY_COUNTS: [usize; 2] = [1, 100];
/// Packets of one run, a multiple of all key counts.
const PACKETS: usize = 400;
const PACKET_BYTES_MAX: usize = 1300;

/// One packet, plain or protected, in a buffer of its own as in a send batch.
#[derive(Clone)]
struct Slot {
    bytes: [u8; PACKET_BYTES_MAX],
    len: usize,
    header_len: usize,
    index: u64,
}

/// The packets of one run, each under the next index, and what protects or unprotects them.
struct Bench<C> {
    slots: Vec<Slot>,
    payload_len: usize,
    next_index: u64,
    /// One for each key.
    contexts: Vec<C>,
}

impl<C> Bench<C> {
    fn new(payload_len: usize, contexts: Vec<C>) -> Self {
        let slot = Slot { bytes: [0; PACKET_BYTES_MAX], len: 0, header_len: 0, index: 0 };
        let mut bench = Self { slots: vec![slot; PACKETS], payload_len, next_index: 1, contexts };
        bench.fill();
        bench
    }

    /// Plain packets; those of one key are numbered without a gap.
    fn fill(&mut self) {
        let keys = self.contexts.len();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            slot.index = self.next_index + (number / keys) as u64;
            slot.header_len = write_packet(&mut slot.bytes, slot.index, self.payload_len);
            slot.len = slot.header_len + self.payload_len;
        }
        self.next_index += (PACKETS / keys) as u64;
    }

    /// Every packet with the key whose turn it is.
    fn each(&mut self, mut work: impl FnMut(&mut C, &mut Slot)) {
        let keys = self.contexts.len();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            work(&mut self.contexts[number % keys], slot);
        }
    }
}

fn protect(sender: &SrtpSender, slot: &mut Slot) {
    slot.len = sender.protect_rtp(&mut slot.bytes, slot.header_len, slot.len, slot.index).expect("room");
}

fn all_keys(suite: SrtpSuite, count: usize) -> impl Iterator<Item = SrtpKeys> {
    (0..count).map(move |seed| keys(suite, seed as u32))
}

fn ours(group: &mut BenchmarkGroup<'_, CpuTime>, suite: SrtpSuite, size: usize, key_count: usize) {
    let id = |what: &str| BenchmarkId::new(format!("{what}/tramline"), key_count);
    let contexts = || all_keys(suite, key_count).map(|keys| keys.contexts(true).expect("keys"));
    let senders = contexts().map(|(sender, _)| sender).collect();
    let mut bench = Bench::<SrtpSender>::new(size, senders);
    measure(group, id("protect"), PACKETS, &mut bench, Bench::fill, |bench| bench.each(|key, slot| protect(key, slot)));

    let pairs = all_keys(suite, key_count).map(|keys| {
        let (sender, _) = keys.contexts(true).expect("keys");
        let (_, receiver) = keys.contexts(false).expect("keys");
        (sender, receiver)
    });
    let mut bench = Bench::<(SrtpSender, SrtpReceiver)>::new(size, pairs.collect());
    let prepare = |bench: &mut Bench<(SrtpSender, SrtpReceiver)>| {
        bench.fill();
        bench.each(|(sender, _), slot| protect(sender, slot));
    };
    measure(group, id("unprotect"), PACKETS, &mut bench, prepare, |bench| {
        bench.each(|(_, receiver), slot| {
            let plain = receiver.unprotect_rtp(&mut slot.bytes[..slot.len]).expect("authentic");
            assert_eq!(plain.index, slot.index);
        });
    });
}

fn profile(suite: SrtpSuite) -> ProtectionProfile {
    match suite {
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpSuite::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    }
}

fn webrtc_srtp(group: &mut BenchmarkGroup<'_, CpuTime>, suite: SrtpSuite, size: usize, key_count: usize) {
    let id = |what: &str| BenchmarkId::new(format!("{what}/webrtc-srtp"), key_count);
    let context = |keys: &SrtpKeys| {
        Context::new(keys.client.key(), keys.client.salt(), profile(suite), None, None).expect("keys")
    };
    let senders = all_keys(suite, key_count).map(|keys| context(&keys)).collect();
    let mut bench = Bench::<Context>::new(size, senders);
    measure(group, id("protect"), PACKETS, &mut bench, Bench::fill, |bench| {
        bench.each(|key, slot| drop(key.encrypt_rtp(&slot.bytes[..slot.len]).expect("a packet")));
    });

    let pairs = all_keys(suite, key_count).map(|keys| {
        let (sender, _) = keys.contexts(true).expect("keys");
        (sender, context(&keys))
    });
    let mut bench = Bench::<(SrtpSender, Context)>::new(size, pairs.collect());
    let prepare = |bench: &mut Bench<(SrtpSender, Context)>| {
        bench.fill();
        bench.each(|(sender, _), slot| protect(sender, slot));
    };
    measure(group, id("unprotect"), PACKETS, &mut bench, prepare, |bench| {
        bench.each(|(_, receiver), slot| drop(receiver.decrypt_rtp(&slot.bytes[..slot.len]).expect("authentic")));
    });
}

fn nonce(index: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    nonce
}

/// AES-GCM of one library, sealing in place; both have the same names.
macro_rules! bare_gcm {
    ($function:ident, $library:ident, $name:literal) => {
        fn $function(group: &mut BenchmarkGroup<'_, CpuTime>, suite: SrtpSuite, size: usize, key_count: usize) {
            use $library::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
            let algorithm = match suite {
                SrtpSuite::AeadAes128Gcm => &AES_128_GCM,
                SrtpSuite::AeadAes256Gcm => &AES_256_GCM,
                SrtpSuite::Aes128CmSha1_80 => return,
            };
            let key = |keys: SrtpKeys| LessSafeKey::new(UnboundKey::new(algorithm, keys.client.key()).expect("length"));
            let mut bench = Bench::<LessSafeKey>::new(size, all_keys(suite, key_count).map(key).collect());
            let id = BenchmarkId::new(concat!("protect/", $name), key_count);
            measure(group, id, PACKETS, &mut bench, Bench::fill, |bench| {
                bench.each(|key, slot| {
                    let (header, body) = slot.bytes[..slot.len].split_at_mut(slot.header_len);
                    let nonce = Nonce::assume_unique_for_key(nonce(slot.index));
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body).expect("sealed");
                    slot.bytes[slot.len..slot.len + 16].copy_from_slice(tag.as_ref());
                });
            });
        }
    };
}
bare_gcm!(bare_gcm_aws_lc, aws_lc_rs, "aws-lc-rs");
bare_gcm!(bare_gcm_ring, ring, "ring");

/// AES in counter mode and HMAC-SHA1 over all of it; ring has no counter mode.
fn bare_cm_sha1(group: &mut BenchmarkGroup<'_, CpuTime>, suite: SrtpSuite, size: usize, key_count: usize) {
    use aws_lc_rs::{cipher, hmac};
    if suite != SrtpSuite::Aes128CmSha1_80 {
        return;
    }
    let pair = |keys: SrtpKeys| {
        let key = UnboundCipherKey::new(&cipher::AES_128, keys.client.key()).expect("length");
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, keys.server.key());
        (EncryptingKey::ctr(key).expect("counter mode"), mac)
    };
    let mut bench = Bench::<(EncryptingKey, hmac::Key)>::new(size, all_keys(suite, key_count).map(pair).collect());
    measure(group, BenchmarkId::new("protect/aws-lc-rs", key_count), PACKETS, &mut bench, Bench::fill, |bench| {
        bench.each(|(key, mac), slot| {
            let mut block = [0; 16];
            block[..12].copy_from_slice(&nonce(slot.index));
            let context = EncryptionContext::Iv128(FixedLength::from(&block));
            key.less_safe_encrypt(&mut slot.bytes[slot.header_len..slot.len], context).expect("encrypted");
            let tag = hmac::sign(mac, &slot.bytes[..slot.len]);
            slot.bytes[slot.len..slot.len + 10].copy_from_slice(&tag.as_ref()[..10]);
        });
    });
}

fn srtp(criterion: &mut Criterion<CpuTime>) {
    for (suite, name) in SUITES {
        for size in SIZES {
            let mut group = support::group(criterion, &format!("srtp/{name}/{size}B"));
            for key_count in KEY_COUNTS {
                ours(&mut group, suite, size, key_count);
                webrtc_srtp(&mut group, suite, size, key_count);
                bare_gcm_aws_lc(&mut group, suite, size, key_count);
                bare_gcm_ring(&mut group, suite, size, key_count);
                bare_cm_sha1(&mut group, suite, size, key_count);
            }
            group.finish();
        }
    }
}

criterion_group! { name = benches; config = support::criterion(); targets = srtp }
criterion_main!(benches);
