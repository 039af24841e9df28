//! HMAC-SHA1 (RFC 2104), which the mandatory SRTP suite signs each packet with.
//!
//! Owns: a key's two midstates, 40 bytes instead of the 1.2 KiB of a general context. Promises: allocates nothing; what
//! depends on the key alone is hashed once.
//!
//! The compression function is that of `sha1`, which uses SHA instructions where the processor has them.

use sha1::block_api::compress;

/// Bytes of a tag before it is cut.
pub(super) const TAG: usize = 20;
/// Bytes that SHA-1 takes in at once.
const BLOCK: usize = 64;
/// FIPS 180-4 §5.3.1.
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
/// FIPS 180-4 §5.1.1: the bit behind the message, and its length in bits.
const PADDING_MIN: usize = 1 + 8;

/// A key made ready.
#[derive(Clone)]
pub(super) struct HmacSha1 {
    inner: [u32; 5],
    outer: [u32; 5],
}

impl HmacSha1 {
    /// Hashes the key into both midstates.
    pub(super) fn new(key: &[u8; 20]) -> Self {
        let midstate = |pad| {
            let mut block = [pad; BLOCK];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = INITIAL;
            compress(&mut state, &[block]);
            state
        };
        Self { inner: midstate(0x36), outer: midstate(0x5c) }
    }

    /// The tag of `message`, followed by the roll-over counter where there is one.
    pub(super) fn tag(&self, message: &[u8], roc: Option<u32>) -> [u8; TAG] {
        let (blocks, rest) = message.as_chunks();
        let mut state = self.inner;
        compress(&mut state, blocks);
        let roc = roc.map(u32::to_be_bytes);
        let roc = roc.as_ref().map_or(&[][..], |roc| roc);
        finish(&mut state, rest, roc, message.len() + roc.len());
        let inner = bytes(state);
        let mut state = self.outer;
        finish(&mut state, &inner, &[], inner.len());
        bytes(state)
    }
}

/// The last block or two: `rest`, shorter than a block, `roc`, and the padding of a message of `len` bytes that follows
/// the key's block.
fn finish(state: &mut [u32; 5], rest: &[u8], roc: &[u8], len: usize) {
    let used = rest.len() + roc.len();
    let mut last = [0; 2 * BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()..used].copy_from_slice(roc);
    last[used] = 0x80;
    let end = (used + PADDING_MIN).next_multiple_of(BLOCK);
    let bits = (BLOCK + len) as u64 * 8;
    last[end - 8..end].copy_from_slice(&bits.to_be_bytes());
    compress(state, last[..end].as_chunks().0);
}

fn bytes(state: [u32; 5]) -> [u8; TAG] {
    let mut bytes = [0; TAG];
    for (place, word) in bytes.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::srtp::tests::hex;

    #[test]
    fn tags_are_those_of_rfc_2202() {
        let tag = HmacSha1::new(&[0x0b; 20]).tag(b"Hi There", None);
        assert_eq!(tag[..], hex("b617318655057264e28bc0b6fb378c8ef146be00"));
        let tag = HmacSha1::new(&[0xaa; 20]).tag(&[0xdd; 50], None);
        assert_eq!(tag[..], hex("125d7342b9ac11cd91a39af48aa17b4f63f175d3"));
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_implementation(
            key in any::<[u8; 20]>(),
            message in prop::collection::vec(any::<u8>(), 0..400),
            roc in any::<Option<u32>>(),
        ) {
            use aws_lc_rs::hmac;
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key));
            context.update(&message);
            roc.iter().for_each(|roc| context.update(&roc.to_be_bytes()));
            let tag = context.sign();
            prop_assert_eq!(&HmacSha1::new(&key).tag(&message, roc)[..], tag.as_ref());
        }
    }
}
