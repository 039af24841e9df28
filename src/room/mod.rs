//! Rooms, publications and subscriptions.

pub mod api;
pub mod control;
pub mod hub;
mod peer;
mod subscribe;
mod views;
