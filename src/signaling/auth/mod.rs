//! Who may do what.

pub mod client_token;
pub mod grant;
pub mod jwks;
pub mod jwt;
pub mod registry;
pub mod shown;
