//! Reception statistics and reports (RFC 3550 §6.4).
