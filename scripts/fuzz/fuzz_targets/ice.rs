//! A stranger's connectivity checks, against credentials that the seeds know.
#![no_main]

use std::sync::LazyLock;

use tramline::proto::ice::LocalCredentials;

static CREDENTIALS: LazyLock<LocalCredentials> = LazyLock::new(|| {
    LocalCredentials::from_parts("fuzzfuzzfuzz", "aaaaaaaaaaaaaaaaaaaaaaaa").expect("a valid ufrag and password")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tramline::proto::ice::fuzz_ice(bytes, &CREDENTIALS));
