//! Rooms, publications and subscriptions: who is where, who publishes what, who shall receive it.
//!
//! [`hub`] is the pure machine, [`control`] the door to it, [`api`] the words in which signalling talks to it.

pub mod api;
pub mod choice;
pub mod control;
mod events;
pub mod hub;
pub mod impair;
mod join;
pub mod list;
mod peer;
mod placement;
mod publish;
mod quality;
pub mod record;
mod renegotiate;
mod requests;
pub mod restart;
pub mod showing;
pub mod stay;
mod subscribe;
mod views;
mod voices;
pub mod why;
mod wishes;

pub use views::layer_view;
