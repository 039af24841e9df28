//! The ciphers of the SRTP suites.
