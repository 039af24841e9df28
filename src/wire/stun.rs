//! STUN messages as an ICE-lite agent needs them (RFC 8489, RFC 8445).
