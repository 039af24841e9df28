//! The ICE-lite agent of one session (RFC 8445, RFC 7675).
