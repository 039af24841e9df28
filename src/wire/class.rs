//! First-byte demultiplexing (RFC 7983).
