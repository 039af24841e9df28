//! Any bytes as an RTP packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tramline::wire::rtp::fuzz_rtp(bytes));
