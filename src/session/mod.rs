//! One peer: ICE, DTLS, SRTP and its streams.

pub mod discard;
pub mod downlink;
pub mod egress;
pub mod feedback;
pub mod header_exts;
pub mod ingress;
mod layers;
pub mod negotiate;
pub mod peer;
mod publication;
mod replay;
mod slot;
pub mod stats;
pub mod streams;
pub mod track;
mod wanted;
mod way;
