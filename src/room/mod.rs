//! Rooms, publications and subscriptions: who is where, who publishes what, who shall receive it.
//!
//! [`hub`] is the pure machine, [`control`] the door to it, [`api`] the words in which signalling talks to it.

pub mod api;
pub mod control;
mod events;
pub mod hub;
pub mod impair;
mod join;
mod peer;
mod placement;
mod publish;
pub mod record;
mod requests;
pub mod restart;
pub mod showing;
mod subscribe;
mod views;
mod voices;
pub mod why;
mod wishes;

pub use views::layer_view;
