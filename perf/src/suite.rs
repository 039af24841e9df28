//! SRTP suites by short names.

use tramline::crypto::srtp::SrtpSuite;

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// AEAD_AES_128_GCM
    Gcm128,
    /// AEAD_AES_256_GCM
    Gcm256,
    /// AES128_CM_HMAC_SHA1_80
    Cm,
}

impl Suite {
    /// As the library has it.
    pub fn srtp(self) -> SrtpSuite {
        match self {
            Self::Gcm128 => SrtpSuite::AeadAes128Gcm,
            Self::Gcm256 => SrtpSuite::AeadAes256Gcm,
            Self::Cm => SrtpSuite::Aes128CmSha1_80,
        }
    }
}
