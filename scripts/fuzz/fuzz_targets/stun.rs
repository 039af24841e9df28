//! Whatever looks like STUN.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tramline::wire::stun::fuzz::fuzz_stun(bytes));
