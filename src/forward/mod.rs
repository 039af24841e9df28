//! Who gets what, and how it is renumbered. Never names a session.

pub mod allocate;
pub mod gap;
pub mod ladder;
pub mod loudest;
pub mod order;
pub mod plan;
pub mod rates;
pub mod rewrite;
pub mod select;
pub mod speaker;
pub mod table;
pub mod why;
