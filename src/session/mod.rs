//! One peer: ICE, DTLS, SRTP and its streams.

pub mod negotiate;

pub mod streams;
