//! Who may do what.

pub mod client_token;
pub mod registry;
