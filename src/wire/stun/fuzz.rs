//! A fuzz body: a plain function, called by the smoke test below and by any fuzzer's shim.

use super::{BindingError, IntegrityKey, StunView, split_username, write_binding_success};
use crate::wire::class::classify;

/// Feeds `bytes` to everything here that a stranger can reach; must return.
///
/// # Panics
/// Only when a promise of this module is broken.
pub fn fuzz_stun(bytes: &[u8]) {
    let _ = classify(bytes);
    let _ = split_username(bytes);
    let Ok(view) = StunView::parse(bytes) else { return };
    assert_eq!(view.len_bytes(), bytes.len());
    let key = IntegrityKey::new(bytes);
    let _ = view.verify_integrity(&key);
    let _ = view.username().and_then(split_username);
    let error = BindingError {
        transaction_id: view.transaction_id(),
        code: view.error_code().unwrap_or(400),
        reason: "",
        unknown_attributes: view.unknown_attributes(),
        key: Some(&key),
        has_fingerprint: true,
    };
    let mut out = [0; 128];
    let len = error.write_to(&mut out).unwrap_or(0);
    let read = StunView::parse(out.get(..len).unwrap_or_default());
    assert!(read.is_ok_and(|read| read.error_code() == Some(error.code) && read.verify_integrity(&key)));
    if let Some(mapped) = view.mapped_address() {
        let len = write_binding_success(&mut out, view.transaction_id(), mapped, &key).unwrap_or(0);
        assert!(StunView::parse(out.get(..len).unwrap_or_default()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::super::vectors;
    use super::*;

    #[test]
    fn two_hundred_thousand_hostile_datagrams_do_no_harm() {
        let seeds: [&[u8]; 3] = [&vectors::REQUEST, &vectors::RESPONSE_V4, &vectors::RESPONSE_V6];
        let mut rng = StdRng::seed_from_u64(5769);
        let mut bytes = Vec::new();
        let mut parsed = 0;
        for round in 0..200_000_usize {
            bytes.clear();
            if round % 4 == 0 {
                bytes.resize(rng.random_range(0..200), 0);
                rng.fill(&mut bytes[..]);
            } else {
                bytes.extend(seeds[round % seeds.len()]);
                for _ in 0..rng.random_range(1..6) {
                    let position = rng.random_range(0..bytes.len());
                    bytes[position] = rng.random();
                }
                bytes.truncate(rng.random_range(0..bytes.len() * 4));
            }
            // Half of them get a header that passes, so that the attributes are reached.
            if round % 2 == 0 && bytes.len() >= 20 {
                bytes.truncate(bytes.len() / 4 * 4);
                let length = (bytes.len() - 20) as u16;
                bytes[0] &= 0x3f;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
            }
            parsed += usize::from(StunView::parse(&bytes).is_ok());
            fuzz_stun(&bytes);
        }
        assert!(parsed > 20_000, "only {parsed} datagrams reached past the parser");
    }
}
