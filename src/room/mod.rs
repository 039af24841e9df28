//! Rooms, publications and subscriptions.

pub mod api;
