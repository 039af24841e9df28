//! Rooms, publications and subscriptions.

pub mod api;
pub mod control;
