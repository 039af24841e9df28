//! One protocol, one sans-IO machine: `handle_*(now, ..)` in, `poll_*` out.

pub mod dtls;
pub mod history;
pub mod ice;
pub mod keyframe;
pub mod nack;
pub mod report;
pub mod run;
pub mod twcc;
