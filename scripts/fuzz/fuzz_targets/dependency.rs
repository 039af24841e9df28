//! Any bytes as a dependency descriptor.
#![no_main]

use tramline::wire::dependency::{Structure, fuzz_dependency};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_dependency(bytes, &mut Structure::default()));
