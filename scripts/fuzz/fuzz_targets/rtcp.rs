//! Any bytes as an RTCP compound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tramline::wire::rtcp::fuzz_rtcp(bytes));
