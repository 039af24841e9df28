//! Who gets what, and how it is renumbered. Never names a session.

pub mod gap;
pub mod loudest;
pub mod order;
pub mod plan;
pub mod rewrite;
pub mod speaker;
pub mod table;
