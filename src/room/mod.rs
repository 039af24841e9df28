//! Rooms, publications and subscriptions.

pub mod api;
pub mod control;
mod events;
pub mod hub;
mod join;
mod peer;
mod publish;
mod requests;
mod subscribe;
mod views;
