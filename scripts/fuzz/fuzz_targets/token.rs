//! Any text as a client token, and as what a signed one says (else no guess would come past the signature).
#![no_main]

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tramline::signaling::auth::client_token::verify;

const PASSWORD: &str = "harbour";

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = verify(UNIX_EPOCH, PASSWORD, text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, PASSWORD.as_bytes());
    let mac = hmac::sign(&key, text.as_bytes());
    for version in ["v1", "v2"] {
        let token = format!("{version}.{}.{}", URL_SAFE_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(mac.as_ref()));
        if let Ok(claims) = verify(UNIX_EPOCH, PASSWORD, &token) {
            assert_eq!(Some(claims.user_id.as_str()), text.split('|').next());
        }
    }
});
