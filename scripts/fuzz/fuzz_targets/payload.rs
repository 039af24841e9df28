//! Any bytes as a payload of every format.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tramline::wire::payload::fuzz_payload(bytes));
