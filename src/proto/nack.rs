//! Which packets of an ingress stream are missing (RFC 4585 §6.2.1).
