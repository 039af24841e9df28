//! One protocol, one sans-IO machine: `handle_*(now, ..)` in, `poll_*` out.

pub mod bwe;
pub mod dtls;
pub mod history;
pub mod ice;
pub mod keyframe;
pub mod link;
pub mod nack;
pub mod pacer;
pub mod report;
pub mod run;
pub mod twcc;
